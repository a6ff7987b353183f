"""From a certified parameter to what leaves the building: the distance that is allowed, fresh noise, the certificate.

What every model shares whose parameter is near a minimiser and is released with noise of covariance ``noise^2 G^-1``.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import numpy as np

from certified import accounting, noise
from certified._convex.bounds import gamma
from certified._convex.state import Solution
from certified._data.hashing import ANY_REQUEST
from certified._keeper.assumptions import Assumptions
from certified.accounting import Transcript
from certified.base import Deletable
from certified.certificate import Certificate
from certified.errors import CannotCertify
from certified.typing import FloatArray, IntArray

__all__ = ["Released"]

_BARE = 1e-3  # distance, in standard errors, that is good enough where no noise is added


class Released(Deletable):
    """Base class: serves noisy releases of ``_state.solution``, drawn once for each state."""

    _adjustable = Deletable._adjustable | {"max_iter"}  # how many passes a request may take
    epsilon: float
    delta: float
    noise: float
    tol: float
    random_state: Any
    n_features_in_: int
    _state: Any
    _rng: np.random.Generator | None
    _transcript: Transcript
    _differencing: float
    _released: Any
    _adaptivity = ""  # which requests are covered, where that depends on a key
    _share = 1.0  # of the promised mu, where this is part of a whole that promises it

    def _noised(self, w: FloatArray) -> FloatArray:
        """Return the parameter with fresh noise."""
        raise NotImplementedError

    def _since_release(self) -> float:
        """Bound (triangle inequality) on how far the state has moved since the last release, in units of noise."""
        return 0.0 if self._released is not None else self._differencing

    def _distance_target(self, solution: Solution) -> float:
        """Largest distance (G norm) at which a release meets (epsilon, delta)."""
        if self.noise == 0:
            return self.tol
        return self._allowed(len(solution.w), self._arithmetic(solution))

    def _allowed(self, size: int, arithmetic: float) -> float:
        """The same for a parameter of this size, whose whitening is off by at most `arithmetic`."""
        mu = self._share * _mu_target(self.epsilon, self.delta)
        lattice = accounting.lattice_mu(0.0, self.noise, size, noise.STEP, arithmetic)
        target = (mu * (1.0 - 2.0**-30) - lattice) * self.noise
        if target <= 0.0:
            raise CannotCertify(
                f"epsilon={self.epsilon:g} at delta={self.delta:g} asks for mu={mu:.3g}, below what the lattice of the "
                f"noise allows ({lattice:.3g}). Raise epsilon or noise. Nothing was changed."
            )
        return target

    def _close(self, size: int) -> float:
        """Distance to which a fit solves: `tol`, or half of what the promise allows where that is less."""
        return self.tol if self.noise == 0 else min(self.tol, 0.5 * self._allowed(size, 0.0))

    def _acceptable(self, solution: Solution) -> float:
        """Largest distance with which a state is kept: what the promise allows; `tol` may lie below rounding."""
        return max(self.tol, _BARE) if self.noise == 0 else self._distance_target(solution)

    def _arithmetic(self, solution: Solution) -> float:
        """Rounding error of whitening the parameter, in units of the noise."""
        return gamma(len(solution.w) + 4) * solution.weight / self.noise * (1 + 2.0**-30)

    def _mu(self) -> float:
        if self.noise == 0 or self._rng is not None:
            return np.inf
        return self._told(self._state.solution)

    def _told(self, found: Solution) -> float:
        """mu of a release of this solution."""
        return accounting.lattice_mu(found.distance, self.noise, len(found.w), noise.STEP, self._arithmetic(found))

    def _before_pickling(self) -> None:
        if "_state" in self.__dict__ and self._released is None:
            with suppress(CannotCertify):  # a copy that is saved serves this release, which is counted here and there
                self._draw()

    def _draw(self) -> None:
        """Draw the release of the present state: fresh noise, once."""
        found = self._state.solution
        if self.noise == 0:
            self._transcript.record(np.inf)
            self._released = found.w
            return
        self._check_promise(found)
        drawn = self._noised(found.w)
        self._transcript.record(self._mu())  # first: what is served is counted, even after an interrupt
        self._released = drawn

    def _check_promise(self, found: Solution) -> None:
        """Raise CannotCertify where a release would tell more than was promised: the door of every release."""
        mu, allowed = self._told(found), self._share * _mu_target(self.epsilon, self.delta)
        if not mu <= allowed:
            raise CannotCertify(
                f"A release of {type(self).__name__} was asked for, of a state at a distance of at most "
                f"{found.distance:.3g} standard errors from the minimiser. With noise={self.noise:g} that is "
                f"mu={mu:.3g}, and mu={allowed:.3g} is promised by epsilon={self.epsilon:g} at delta={self.delta:g}. "
                "Call refine(), or fit again with these parameters. Nothing was released."
            )

    @property
    def _parameter(self) -> FloatArray:
        """Released parameter vector, drawn on first use after a change of state."""
        self._check_fitted()
        if self._released is None:
            self._draw()
        return self._released

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state and of its release. See :class:`certified.certificate.Certificate`."""
        self._check_fitted()
        found, mu = self._state.solution, self._mu()
        drawn = self._released is not None
        target = self._share * _mu_target(self.epsilon, self.delta) if np.isfinite(mu) else np.inf
        releases = self._transcript.releases + (not drawn)
        return Certificate(
            claim="none" if np.isinf(mu) else "indistinguishable",
            scope="estimator",
            method=found.method,
            mu=mu,
            delta=self.delta,
            distance_bound=found.distance,
            sigma=float(self.noise),
            noise=noise.source(self.noise, self._rng),
            mu_target=target,
            mu_transcript=self._transcript.mu if drawn else self._transcript.with_next(mu),
            mu_differencing=self._differencing,
            assumptions=Assumptions(vars(found.terms)),
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            expected_excess_loss=0.5 * self.noise**2 * len(found.w),
            versions=self._versions(),
            adaptivity=self._adaptivity or ANY_REQUEST,
            extra={"mu_transcript_promised": accounting.together(target, releases)} if np.isfinite(target) else {},
        )

    @property
    def n_iter_(self) -> IntArray:
        """Passes over the rows that the present state took, shape (1,). Not part of a release."""
        self._check_fitted()
        return np.array([max(1, self._state.solution.passes)])


@lru_cache(maxsize=256)
def _mu_target(epsilon: float, delta: float) -> float:
    return accounting.mu_of(epsilon, delta)
