"""What the linear models with a certified convex head share: state, deletion path, noisy release."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from certified import accounting, noise
from certified.base import Deletable, Plan, Transcript, generator, versions
from certified.bounds import gamma
from certified.certificate import Certificate
from certified.errors import CannotCertify, InvalidInput
from certified.exact import Products
from certified.head import Anchor, Problem, Release, Solution, forget, improve, with_release
from certified.losses import Loss
from certified.rows import Rows, Subjects
from certified.typing import FloatArray, IntArray

__all__ = ["CertifiedLinear"]

_SAMPLE_ROWS = 50_000  # fits of more rows than this start from the solution on every 16th block


class CertifiedLinear(Deletable):
    """Base class: subclasses give the loss, check the data and turn the parameter vector into attributes.

    The parameter vector is ``[coef, intercept]``, shape (p,), without the last entry if ``fit_intercept=False``.
    """

    epsilon: float
    delta: float
    noise: float
    fit_intercept: bool
    tol: float
    max_iter: int
    random_state: Any
    _released: Any

    def _loss(self) -> Loss:
        raise NotImplementedError

    def _alpha(self) -> float:
        """Penalty on the coefficients, in the sum form."""
        raise NotImplementedError

    # ------------------------------------------------------------------ fit

    def _fit_rows(self, X: FloatArray, y: FloatArray, weight: FloatArray, ids: Any, start: Any = None) -> None:
        """Fit on checked data; on an error the estimator keeps its former state."""
        self._check_parameters()
        subjects = Subjects.of(ids, len(X))
        rows = Rows(X, y, weight, intercept=self.fit_intercept)
        penalty = np.full(rows.x.shape[1], float(self._alpha()))
        if self.fit_intercept:
            penalty[-1] = 0.0
        problem = Problem(self._loss(), penalty)
        anchor, solution, release = self._solve(problem, rows, rows.weight, start)
        self._subjects, self._rows, self._problem = subjects, rows, problem
        self._transcript = Transcript()
        self._released = None
        self._rng = generator(self.random_state)
        self._store(anchor, solution, release.products, 0.0)
        self._draw()

    def _solve(
        self, problem: Problem, rows: Rows, weight: FloatArray, start: Any = None
    ) -> tuple[Anchor, Solution, Release]:
        n = int(np.count_nonzero(weight))
        release = Release.of(problem, Products.of(rows.x, weight), n)
        if start is None:
            start = np.zeros(len(problem.penalty))
            if n > _SAMPLE_ROWS:
                start = _first_guess(problem, rows, start)
        anchor, solution = improve(
            problem, rows, weight, release, start, self.tol, fresh=2.0**-7, max_passes=self.max_iter
        )
        if solution.distance > max(self._distance_target(solution), self.tol):
            raise CannotCertify(
                f"fit reached a distance of at most {solution.distance:.3g} standard errors to the minimiser in "
                f"{solution.passes} passes; {self._distance_target(solution):.3g} is needed. Scale the features "
                "(StandardScaler), add a penalty, or raise max_iter, noise or epsilon."
            )
        return anchor, solution, release

    def _check_parameters(self) -> None:
        for name, low, strict in (("epsilon", 0.0, True), ("noise", 0.0, False), ("tol", 0.0, True)):
            value = getattr(self, name)
            if not np.isfinite(value) or value < low or (strict and value == low):
                raise InvalidInput(
                    f"{type(self).__name__}({name}={value!r}) is not allowed: a finite number {'>' if strict else '>='}"
                    f" {low:g} is needed."
                )
        if not 0.0 < self.delta < 1.0:
            raise InvalidInput(f"{type(self).__name__}(delta={self.delta!r}) is not allowed: 0 < delta < 1 is needed.")
        if not (isinstance(self.max_iter, int | np.integer) and self.max_iter > 0):
            raise InvalidInput(f"{type(self).__name__}(max_iter={self.max_iter!r}): a whole number > 0 is needed.")

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        self._check_leaves_enough(rows)
        x, y, s = self._rows.take(rows)
        products = self._products.minus(x, s)
        target = self._distance_target(self._solution)
        if products is not None and 2 * rows.size < self.n_rows_:
            anchor, solution = forget(self._problem, self._anchor, x, y, s)
            if solution.distance <= target:
                moved = anchor.release.factor.T @ (solution.w - self._solution.w)
                return self._planned(rows, anchor, solution, products, float(np.linalg.norm(moved)))
        else:
            anchor, solution = None, self._solution
        return self._plan_passes(rows, anchor, solution, products, target)

    def _plan_passes(
        self, rows: IntArray, anchor: Anchor | None, solution: Solution, products: Products | None, target: float
    ) -> Plan:
        """Theorem 2 did not reach the target: pass over the kept rows until theorem 1 does."""
        weight = self._rows.weight.copy()
        weight[rows] = 0.0
        n = int(np.count_nonzero(weight))
        if products is None:
            kept = self._rows.x * (weight > 0)[:, None]
            products = Products.of(kept, weight)
        release = Release.of(self._problem, products, n)
        start = solution.w if np.all(np.isfinite(solution.w)) and np.isfinite(solution.distance) else self._solution.w
        anchor, found = improve(
            self._problem, self._rows, weight, release, start, target, anchor=anchor, max_passes=self.max_iter
        )
        self._require(found, target)
        moved = release.factor.T @ (found.w - self._solution.w)
        return self._planned(rows, anchor, found, products, float(np.linalg.norm(moved)))

    def _require(self, found: Solution, target: float) -> None:
        if found.distance > target:
            raise CannotCertify(
                f"The distance to the minimiser on the kept rows is at most {found.distance:.3g} standard errors after "
                f"{found.passes} passes, and {target:.3g} is needed for epsilon={self.epsilon:g} at noise="
                f"{self.noise:g}. Raise max_iter, noise or epsilon, or add a penalty. Nothing was changed."
            )

    def _planned(self, rows: IntArray, anchor: Anchor, solution: Solution, products: Products, moved: float) -> Plan:
        differencing = moved / self.noise if self.noise > 0 else (np.inf if moved > 0 else 0.0)

        def commit() -> None:
            self._count_out(rows)
            self._rows.erase(rows)
            self._store(anchor, solution, products, self._since_release() + differencing)
            self._released = None

        return Plan(commit, True, solution.method, differencing, solution.passes)

    def _plan_features(self, rows: IntArray, X: FloatArray) -> Plan:
        """Plan for changed features: X holds the new features of all rows, of the deleted ones too (ignored)."""
        self._check_leaves_enough(rows)
        old = self._rows
        n = len(X)
        weight = old.weight[:n].copy()
        weight[rows] = 0.0
        fresh = Rows(X * (weight > 0)[:, None], old.y[:n] * (weight > 0), weight, intercept=self.fit_intercept)
        anchor, solution, release = self._solve(self._problem, fresh, fresh.weight, self._solution.w)
        self._require(solution, max(self._distance_target(solution), self.tol))

        def commit() -> None:
            self._count_out(rows)
            old.erase(np.arange(n))
            self._rows = fresh
            self._rows.erase(rows)
            self._store(anchor, solution, release.products, np.inf)
            self._released = None

        return Plan(commit, True, solution.method, np.inf, solution.passes)

    def _check_leaves_enough(self, rows: IntArray) -> None:
        raise NotImplementedError

    def _count_out(self, rows: IntArray) -> None:
        """Take rows that are about to be erased out of any counts."""

    def _store(self, anchor: Anchor, solution: Solution, products: Products, differencing: float) -> None:
        if products.exponents is not anchor.release.products.exponents and np.any(
            products.exponents != anchor.release.products.exponents
        ):
            anchor = with_release(anchor, Release.of(self._problem, products, self.n_rows_))
        self._anchor, self._solution, self._products = anchor, solution, products
        self._differencing = differencing

    def refine(self) -> Certificate:
        """Pass over the kept rows until the parameter is within ``tol`` of the minimiser, and measure it.

        Afterwards the state depends on deleted rows through a distance of ``tol`` at most: until then it holds the
        anchor from before the deletions (see "what a keeper remembers" in the documentation). The next access to
        the released parameters draws fresh noise, which is one more release in the transcript.

        Returns
        -------
        Certificate
            Of the measured state (theorem 1).
        """
        self._check_fitted()
        release = Release.of(self._problem, self._products, self.n_rows_)
        anchor, found = improve(
            self._problem,
            self._rows,
            self._rows.weight,
            release,
            self._solution.w,
            self.tol,
            anchor=self._anchor,
            fresh=2.0**-7,
            max_passes=self.max_iter,
        )
        self._require(found, max(self._distance_target(found), self.tol))
        moved = float(np.linalg.norm(release.factor.T @ (found.w - self._solution.w)))
        self._store(anchor, found, self._products, self._since_release() + (moved / self.noise if self.noise else 0.0))
        self._released = None
        return self.certificate_

    # -------------------------------------------------------------- release

    def _since_release(self) -> float:
        """Bound (triangle inequality) on how far the state has moved since the last release, in units of noise."""
        return 0.0 if self._released is not None else self._differencing

    def _distance_target(self, solution: Solution) -> float:
        """Largest distance (G norm) at which a release meets (epsilon, delta)."""
        if self.noise == 0:
            return self.tol
        mu = _mu_target(self.epsilon, self.delta)
        lattice = accounting.lattice_mu(0.0, self.noise, len(solution.w), noise.STEP, self._arithmetic(solution))
        target = (mu * (1.0 - 2.0**-30) - lattice) * self.noise
        if target <= 0.0:
            raise CannotCertify(
                f"epsilon={self.epsilon:g} at delta={self.delta:g} asks for mu={mu:.3g}, below what the lattice of the "
                f"noise allows ({lattice:.3g}). Raise epsilon or noise. Nothing was changed."
            )
        return target

    def _arithmetic(self, solution: Solution) -> float:
        """Rounding error of whitening the parameter, in units of the noise."""
        return gamma(len(solution.w) + 4) * solution.weight / self.noise * (1 + 2.0**-30)

    def _mu(self) -> float:
        if self.noise == 0 or self._rng is not None:
            return np.inf
        found = self._solution
        return accounting.lattice_mu(found.distance, self.noise, len(found.w), noise.STEP, self._arithmetic(found))

    def _draw(self) -> None:
        """Draw the release of the present state: fresh noise, once."""
        found = self._solution
        if self.noise == 0:
            self._released = found.w
            return
        release = self._release_now()
        self._released = noise.release(found.w, release.factor, self.noise, self._rng)
        self._transcript.record(self._mu())

    def _release_now(self) -> Release:
        return Release.of(self._problem, self._products, self.n_rows_)

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
        found, mu = self._solution, self._mu()
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
        return np.array([max(1, self._solution.passes)])

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients."""
        return self._shaped(self._parameter)[0]

    @property
    def intercept_(self) -> Any:
        """Released intercept."""
        return self._shaped(self._parameter)[1]

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._shaped(self._solution.w)[0]

    @property
    def private_intercept_(self) -> Any:
        """Intercept without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._shaped(self._solution.w)[1]

    @property
    def release_metric_(self) -> FloatArray:
        """G over [coef, intercept], shape (p, p): the noise has covariance ``noise^2 G^-1``.

        For auditors; never to be published.
        """
        self._check_fitted()
        return self._release_now().matrix

    def _shaped(self, w: FloatArray) -> tuple[FloatArray, Any]:
        raise NotImplementedError


@lru_cache(maxsize=256)
def _mu_target(epsilon: float, delta: float) -> float:
    return accounting.mu_of(epsilon, delta)


def _first_guess(problem: Problem, rows: Rows, start: FloatArray) -> FloatArray:
    """Minimise on a sixteenth of the rows, roughly; the penalty is scaled with them."""
    some = rows.every(16)
    scaled = replace(problem, penalty=problem.penalty / 16.0)
    try:
        release = Release.of(scaled, Products.of(some.x, some.weight), len(some.y))
        return improve(scaled, some, some.weight, release, start, 1.0, fresh=np.inf)[1].w
    except CannotCertify:
        return start
