"""From certified leaf values to what leaves the building: noise, certificate, an ordinary XGBoost model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xgboost

from certified import accounting, noise
from certified.anchor import Solution
from certified.base import Deletable, Transcript, digest, versions
from certified.bounds import gamma
from certified.certificate import Certificate
from certified.ensemble import _boosting_structure as trees
from certified.ensemble._boosting_head import LeafAnchor
from certified.ensemble._boosting_metric import LeafProblem, LeafRelease
from certified.ensemble._boosting_structure import Structure
from certified.errors import CannotCertify
from certified.typing import FloatArray, IntArray

__all__ = ["BoostedState", "ReleasedTrees"]

_BARE = 1e-3  # distance, in standard errors, that is good enough where no noise is added


@dataclass(frozen=True, eq=False)
class BoostedState:
    """All that a deletion changes, except the rows.

    Attributes
    ----------
    structures : tuple of Structure
        One for each group.
    base : float
        Predictor where every leaf value is 0, the structure sample's.
    problem, release, anchor, solution
        Of the leaf values. The release is changed in place where rows are deleted.
    seconds : float
        What it took to build the structure and to solve for the leaf values.
    """

    structures: tuple[Structure, ...]
    base: float
    problem: LeafProblem
    release: LeafRelease
    anchor: LeafAnchor
    solution: Solution
    seconds: float


class ReleasedTrees(Deletable):
    """Base class: serves noisy releases of ``_state``, drawn once for each state."""

    epsilon: float
    delta: float
    noise: float
    tol: float
    random_state: Any
    _state: BoostedState
    _rng: np.random.Generator | None
    _transcript: Transcript
    _differencing: float
    _released: Any
    _model: Any
    n_features_in_: int

    def _base_score(self, base: float) -> float:
        """XGBoost's base_score for a predictor."""
        raise NotImplementedError

    def _since_release(self) -> float:
        return 0.0 if self._released is not None else self._differencing

    def _distance_target(self, solution: Solution | None = None) -> float:
        """Largest distance (G norm) at which a release meets (epsilon, delta)."""
        if self.noise == 0:
            return self.tol
        mu = _mu_target(self.epsilon, self.delta)
        dimension, arithmetic = (0, 0.0) if solution is None else (len(solution.w), self._arithmetic(solution))
        lattice = accounting.lattice_mu(0.0, self.noise, dimension, noise.STEP, arithmetic)
        target = (mu * (1.0 - 2.0**-30) - lattice) * self.noise
        if target <= 0.0:
            raise CannotCertify(
                f"epsilon={self.epsilon:g} at delta={self.delta:g} asks for mu={mu:.3g}, below what the lattice of the "
                f"noise allows ({lattice:.3g}). Raise epsilon or noise. Nothing was changed."
            )
        return target

    def _acceptable(self, solution: Solution) -> float:
        if self.noise == 0:
            return max(self.tol, _BARE)
        return max(self._distance_target(solution), self.tol)

    def _arithmetic(self, solution: Solution) -> float:
        return gamma(len(solution.w) + 4) * solution.weight / self.noise * (1 + 2.0**-30)

    def _mu(self) -> float:
        if self.noise == 0 or self._rng is not None:
            return np.inf
        found = self._state.solution
        return accounting.lattice_mu(found.distance, self.noise, len(found.w), noise.STEP, self._arithmetic(found))

    @property
    def _parameter(self) -> FloatArray:
        """Released leaf values, drawn on first use after a change of state."""
        self._check_fitted()
        if self._released is None:
            found = self._state.solution
            if self.noise == 0:
                self._released = found.w
            else:
                self._released = noise.release(found.w, self._state.release.factor(), self.noise, self._rng)
                self._transcript.record(self._mu())
            self._model = None
        return self._released

    def _booster(self) -> xgboost.Booster:
        """XGBoost's model with the released leaf values."""
        v = self._parameter
        if self._model is None:
            state = self._state
            self._model = trees.released(state.structures, v, self._base_score(state.base))
        return xgboost.Booster(model_file=self._model)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state and of its release. See :class:`certified.certificate.Certificate`."""
        self._check_fitted()
        found, mu = self._state.solution, self._mu()
        drawn = self._released is not None
        return Certificate(
            claim="none" if np.isinf(mu) else "indistinguishable",
            scope="estimator",
            method=found.method,
            mu=mu,
            delta=self.delta,
            distance_bound=found.distance,
            sigma=float(self.noise),
            noise=noise.source(self.noise, self._rng),
            mu_target=_mu_target(self.epsilon, self.delta) if np.isfinite(mu) else np.inf,
            mu_transcript=self._transcript.mu if drawn else self._transcript.with_next(mu),
            mu_differencing=self._differencing,
            assumptions=found.assumptions,
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            expected_excess_loss=0.5 * self.noise**2 * len(found.w),
            versions=versions(),
        )

    @property
    def n_iter_(self) -> IntArray:
        """Passes over the rows that the present state took, shape (1,). Not part of a release."""
        self._check_fitted()
        return np.array([max(1, self._state.solution.passes)])

    @property
    def n_leaves_(self) -> int:
        """Number of leaves of all trees, which is the number of leaf values learned."""
        self._check_fitted()
        return len(self._state.problem.penalty)

    @property
    def coef_(self) -> FloatArray:
        """Released leaf values, tree after tree, shape (n_leaves,)."""
        return self._parameter.copy()

    @property
    def intercept_(self) -> FloatArray:
        """Predictor where every leaf value is 0, shape (1,): a function of the structure sample."""
        self._check_fitted()
        return np.array([self._state.base])

    @property
    def private_coef_(self) -> FloatArray:
        """Leaf values without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._state.solution.w.copy()

    @property
    def private_intercept_(self) -> FloatArray:
        """As ``intercept_``, which has no noise."""
        return self.intercept_

    @property
    def release_metric_(self) -> FloatArray:
        """G over the leaf values: the noise has covariance ``noise^2 G^-1``. For auditors; never to be published."""
        self._check_fitted()
        return self._state.release.matrix

    @property
    def structure_digest_(self) -> str:
        """Digest of the structure: equal to that of a refit on the kept rows, bit for bit."""
        self._check_fitted()
        parts = [part for s in self._state.structures for part in (s.text, s.index, s.values)]
        return digest(self._state.base, *parts)


@lru_cache(maxsize=256)
def _mu_target(epsilon: float, delta: float) -> float:
    return accounting.mu_of(epsilon, delta)
