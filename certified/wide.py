"""The convex head of wide models: a certified minimiser by Newton's method with conjugate gradients.

Nothing of the size of the Hessian is formed. What bounds the distance is a metric below it,

``v'Av = strength |u|^2 + s (b + m'u)^2`` for ``v = (u, b)``,

with s the sum of the rows' curvatures and m their mean row weighted by curvature: the smallest eigenvalue in a form
that knows of the intercept, which has no penalty. The release metric is diagonal, from exact sums of squares.

Proofs: ``docs/theory/wide.rst``. Tests: ``tests/test_wide.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.sparse import diags_array

from certified import noise
from certified.anchor import Solution
from certified.bounds import UNIT, gamma, or_inf, theorem1, up
from certified.column_sums import ColumnSquares
from certified.errors import CannotCertify
from certified.losses import Loss
from certified.newton import float64
from certified.objective import Problem
from certified.typing import FloatArray
from certified.wide_rows import WideRows

__all__ = ["WideRelease", "improve"]

_SHARE = 0.3  # part of the bound asked for that conjugate gradients may leave
_LOOSE = 0.25  # a step leaves at most this part of the gradient
_INNER = 2000  # conjugate gradients in a step
_CLOSER = 2.0**-4  # M nu from which M is measured
_STALLED = 3  # steps in a row that hardly shrank the gradient
_PAIRWISE = 300  # chain of additions in a sum by numpy


@dataclass(frozen=True)
class WideRelease:
    """The release metric ``G = diag(c sum_i s_i x_ij^2 + strength)``; for the intercept ``c sum_i s_i``.

    Attributes
    ----------
    squares : array of shape (p + 1,)
        Sums ``sum_i s_i x_ij^2`` over the kept rows, and ``sum_i s_i``.
    root : array of shape (p,)
        Square roots of the diagonal. The norm ``||v||_G`` is defined by them.
    """

    squares: FloatArray
    root: FloatArray

    @classmethod
    def of(cls, problem: Problem, squares: ColumnSquares) -> WideRelease:
        """Form the metric; raise CannotCertify where a coefficient has no penalty."""
        p = len(problem.pattern)
        if not problem.strength > 0.0:
            raise CannotCertify(
                "Sparse and wide models need a penalty: without one there is no lower bound of the Hessian that can be "
                "computed. Give a finite C or an alpha > 0, or dense features, at most some thousands, with "
                "solver='newton-cholesky'. Nothing was changed."
            )
        values = squares.values()
        return cls(values, np.sqrt(problem.scale * values[:p] + problem.penalty))

    @property
    def matrix(self) -> Any:
        """G as a sparse diagonal array."""
        return diags_array(self.root**2, format="csr")

    def whitened(self, v: FloatArray) -> FloatArray:
        """Return a vector whose Euclidean norm is the G norm of v."""
        return self.root * v

    def noised(self, w: FloatArray, sigma: float, rng: Any) -> FloatArray:
        """Return w with fresh noise of covariance ``sigma^2 G^-1``."""
        return noise.release(w, self.root, sigma, rng)


@dataclass(frozen=True)
class _Point:
    """A parameter and what a pass over the rows finds there; slopes, bends and sizes carry the weights."""

    w: FloatArray
    predictor: FloatArray
    slopes: FloatArray
    bends: FloatArray
    sizes: FloatArray
    gradient: FloatArray


@dataclass(frozen=True)
class _Metric:
    """The metric A of a point: m, 1/s (0 without an intercept), and the q, M and k_G of the theorems."""

    mean: FloatArray
    per_s: float
    low: float
    M: float
    k_G: float


def improve(
    problem: Problem,
    rows: WideRows,
    weight: FloatArray,
    release: WideRelease,
    start: FloatArray,
    target: float,
    max_steps: int = 100,
) -> Solution:
    """Take Newton steps on the kept rows until the distance in the release metric is at most `target`.

    Parameters
    ----------
    weight : array like ``rows.weight``
        Weights, 0 for rows that are being deleted.
    start : array of shape (p,)
    target : float
        In the G norm. Where rounding makes it unreachable, the best bound found is returned.
    max_steps : int
        Largest number of Newton steps; each takes as many passes as its conjugate gradients have iterations.

    Raises
    ------
    CannotCertify
        The rows have no curvature in float64 at a point of the search.
    """
    work = _Search(problem, rows, weight, release)
    point = work.at(start)
    best, stalled, last, reach = None, 0, np.inf, np.inf
    for step in range(max_steps + 1):
        metric = work.metric(point)
        found, nu, envelope = work.certify(point, metric)
        if best is None or not found.distance > best.distance:
            best = found
        stalled = stalled + 1 if nu > 0.9 * last and reach <= 1.0 else 0
        if best.distance <= target or step == max_steps or stalled > _STALLED or nu <= 2.0 * envelope:
            break
        last = min(last, nu)
        goal = 0.9 * metric.low * min(target / metric.k_G, 0.05 / max(metric.M, 1e-300))
        point, reach = work.advance(point, metric, nu, max(goal - envelope, envelope))
    assert best is not None
    return Solution(best.w, best.distance, best.method, best.assumptions, best.weight, work.passes)


class _Search:
    """Passes over the rows of positive weight, for one problem."""

    def __init__(self, problem: Problem, rows: WideRows, weight: FloatArray, release: WideRelease) -> None:
        self.problem, self.rows, self.weight, self.release = problem, rows, weight, release
        self.offset = np.zeros(1) if rows.offset is None else rows.offset
        self.strength, self.squares = problem.strength, release.squares
        self.lengths = np.where(weight > 0, rows.lengths, 0.0)
        self.passes = 0

    def split(self, w: FloatArray) -> tuple[FloatArray, float]:
        """Coefficients and intercept."""
        return (w[:-1], float(w[-1])) if self.rows.intercept else (w, 0.0)

    def joined(self, u: FloatArray, b: float) -> FloatArray:
        """The opposite of `split`."""
        return np.append(u, b) if self.rows.intercept else u

    def at(self, w: FloatArray, predictor: FloatArray | None = None) -> _Point:
        """Pass over the rows at w."""
        self.passes += 1
        u, b = self.split(w)
        if predictor is None:
            predictor = self.rows.push(u) + b + self.offset
        slope, bend, size = _terms(self.problem.loss, self.rows.y, predictor)
        live = self.weight > 0
        slopes, bends, sizes = (np.where(live, self.weight * part, 0.0) for part in (slope, bend, size))
        gradient = self.joined(self.rows.pull(slopes) + self.strength * u, float(np.sum(slopes)))
        return _Point(w, predictor, slopes, bends, sizes, gradient)

    def metric(self, point: _Point) -> _Metric:
        """Form A and bound what the theorems need of it: lemma 2 of the proofs."""
        h, strength, kappa = point.bends, self.strength, self.problem.loss.kappa
        furthest = float(self.lengths.max())
        root = np.square(self.release.root)
        if not self.rows.intercept:
            M = up(kappa * furthest / np.sqrt(strength))
            return _Metric(np.zeros(1), 0.0, 1.0, M, up(np.sqrt(up(float(root.max()) / strength))))
        s = float(np.sum(h))
        if not (s > 0.0 and np.isfinite(s)):
            raise CannotCertify(
                "The rows have no curvature in float64 where the search went. Scale the features or add a penalty. "
                "Nothing was changed."
            )
        mean = self.rows.pull(h) / s
        error = self._curvature_error(float(np.max(np.where(h > 0, self._score(point), 0.0))))
        relative = 2.0 * (gamma(self.rows.chain + 16) + gamma(_PAIRWISE) + error)
        theta = relative * np.sqrt(up(float(np.sum(h * np.square(self.lengths)))) / strength)
        low = (1.0 - up(theta)) * (1.0 - up(gamma(_PAIRWISE) + error)) * (1.0 - 2.0**-40)
        length = _norm(mean)
        squared = float(root[:-1].max(initial=0.0)) / strength + float(root[-1]) * (1.0 / s + up(length**2) / strength)
        M = kappa * np.sqrt(up((furthest + length) ** 2) / strength + 1.0 / s)
        return _Metric(mean, up(1.0 / s), float(low), up(M), up(np.sqrt(up(squared))))

    def closer(self, metric: _Metric) -> _Metric:
        """Measure M: how far rows are from m, for features that are far from 0."""
        if not self.rows.intercept:
            return metric
        length, furthest = _norm(metric.mean), float(self.lengths.max())
        squared = np.square(self.lengths) - 2.0 * self.rows.push(metric.mean) + length**2
        far = max(float(np.max(np.where(self.weight > 0, squared, 0.0))), 0.0)
        far += 4.0 * gamma(self.rows.longest + len(metric.mean) + 16) * (furthest + length) ** 2
        M = self.problem.loss.kappa * np.sqrt(up(far) / self.strength + metric.per_s)
        return replace(metric, M=min(metric.M, up(M)))

    def _score(self, point: _Point) -> FloatArray:
        """Bound the rounding error of every row's predictor."""
        u, b = self.split(point.w)
        known = np.abs(self.offset) + abs(b)
        return gamma(self.rows.longest + 6) * (self.lengths * _norm(u) + known)

    def _curvature_error(self, score: float) -> float:
        """Relative error of a curvature whose predictor is off by at most `score`."""
        change = 4.0 * self.problem.loss.kappa * score
        return 2048.0 * UNIT + (change if change < 1.0 else np.inf)

    def certify(self, point: _Point, metric: _Metric) -> tuple[Solution, float, float]:
        """Bound the distance by theorem 1; return it with the measured nu and its rounding envelope."""
        nu, envelope = self.nu(point.gradient, metric), self._envelope(point, metric)
        total = up(nu + envelope)
        if _CLOSER < metric.M * total < np.inf:
            metric = self.closer(metric)
        distance = up(metric.k_G * theorem1(total, metric.M, metric.low))
        assumptions = {
            "nu": total,
            "M": metric.M,
            "b": up(metric.M * total),
            "eta": 0.0,
            "rho": 1.0 - metric.low,
            "k_G": metric.k_G,
            "step": 0.0,
            "rounding_envelope": up(metric.k_G * envelope),
        }
        weight = up(float(np.abs(point.w) @ self.release.root))
        return Solution(point.w, or_inf(distance), "theorem-1", assumptions, weight), nu, envelope

    def nu(self, gradient: FloatArray, metric: _Metric) -> float:
        """Length of a gradient in the norm of ``A^-1``, rounded up."""
        g, at_b = self.split(gradient)
        inner = _norm(g - metric.mean * at_b) + 4.0 * UNIT * (_norm(g) + _norm(metric.mean) * abs(at_b))
        return up(np.sqrt(up(inner**2) / self.strength + at_b**2 * metric.per_s))

    def _envelope(self, point: _Point, metric: _Metric) -> float:
        """Bound the rounding error of the gradient in the norm of ``A^-1``: theorem 4 of the proofs."""
        score = self._score(point)
        if not self.problem.loss.kappa * float(np.max(np.where(self.weight > 0, score, 0.0))) < 0.5:
            return np.inf
        terms = 32.0 * UNIT * point.sizes + 2.0 * point.bends * score
        terms += gamma(max(self.rows.chain, _PAIRWISE) + 4) * np.abs(point.slopes)
        at_u = up(float(np.sum(terms * self.lengths)))
        at_u += 4.0 * UNIT * (self.strength * _norm(self.split(point.w)[0]) + _norm(self.split(point.gradient)[0]))
        at_b = up(float(np.sum(terms))) if self.rows.intercept else 0.0
        return up(up(at_u + _norm(metric.mean) * at_b) / np.sqrt(self.strength) + at_b * np.sqrt(metric.per_s))

    def advance(self, point: _Point, metric: _Metric, nu: float, goal: float) -> tuple[_Point, float]:
        """Take a step that lowers the objective; return the new point and kappa times the largest change proposed."""
        step, moved = self._step(point, metric, nu, goal)
        reach = self.problem.loss.kappa * float(np.max(np.abs(np.where(self.weight > 0, moved, 0.0))))
        if not np.isfinite(reach):
            raise CannotCertify(
                "A Newton step left the range of float64. Scale the features or add a penalty. Nothing was changed."
            )
        share = 1.0 if reach <= 1.0 else self._share(point, step, moved, float(np.log1p(reach) / reach))
        return self.at(point.w + share * step), reach

    def _share(self, point: _Point, step: FloatArray, moved: FloatArray, least: float) -> float:
        """Part of a long step to take: halved until the objective falls; the last part, `least`, is proved to do."""
        u, p = self.split(point.w)[0], self.split(step)[0]
        slope, square, mixed = _dot(point.gradient, step), _dot(p, p), _dot(u, p)
        before = _value(self.problem.loss, self.rows.y, point.predictor, self.weight)
        share = 1.0
        while share > least:
            after = _value(self.problem.loss, self.rows.y, point.predictor + share * moved, self.weight)
            rise = after - before + self.strength * share * (mixed + 0.5 * share * square)
            if rise <= 0.25 * share * slope:
                return share
            share *= 0.5
        return least

    def _step(self, point: _Point, metric: _Metric, nu: float, goal: float) -> tuple[FloatArray, FloatArray]:
        """Solve ``H p = -g`` by conjugate gradients; return p and the change of the predictors.

        The intercept is eliminated, so that the system is that of features centred at m. The iteration ends where the
        step is as exact as the goal asks for, or as the change of the curvature along it makes sense.
        """
        h, strength, rows = point.bends, self.strength, self.rows
        s = float(np.sum(h)) if rows.intercept else np.inf
        g, at_b = self.split(point.gradient)
        ratio = float(np.sum(h) / np.sum(rows.base_weight[self.weight > 0]))
        spread = ratio * self.squares[: len(g)]
        diagonal = strength + np.maximum(spread - (s * metric.mean**2 if rows.intercept else 0.0), 0.01 * spread)
        p, moved = np.zeros(len(g)), np.zeros(len(h))
        r = -(g - metric.mean * at_b)
        shift = -at_b / s if rows.intercept else 0.0
        y = r / diagonal
        d, rho = y.copy(), _dot(r, y)
        for _ in range(_INNER):
            if not rho > 0.0:
                break
            self.passes += 1
            change = rows.push(d)
            if rows.intercept:
                change = change - _dot(h, change) / s
            curved = strength * d + rows.pull(h * change)
            size = rho / _dot(d, curved)
            p += size * d
            moved += size * change
            r -= size * curved
            reach = self.problem.loss.kappa * float(np.max(np.abs(np.where(self.weight > 0, moved + shift, 0.0))))
            if _norm(r) / np.sqrt(strength) <= max(_SHARE * goal, min(_LOOSE, _SHARE * reach) * nu):
                break
            y = r / diagonal
            before, rho = rho, _dot(r, y)
            d = y + rho / before * d
        b = shift - _dot(metric.mean, p) if rows.intercept else 0.0
        return self.joined(p, b), moved + shift


def _norm(v: FloatArray) -> float:
    """Upper bound of the Euclidean norm."""
    return float(np.sqrt(_dot(v, v))) * (1.0 + gamma(v.size + 4))


def _dot(a: FloatArray, b: FloatArray) -> float:
    """Inner product, on one core: a few hundred thousand products are not worth waking others."""
    return float(np.einsum("i,i->", a, b))


@float64
def _terms(loss: Loss, y: FloatArray, z: FloatArray) -> Any:
    return _compiled_terms(loss, y, z)


@float64
def _value(loss: Loss, y: FloatArray, z: FloatArray, weight: FloatArray) -> Any:
    return _compiled_value(loss, y, z, weight)


@partial(jax.jit, static_argnums=0)
def _compiled_terms(loss: Loss, y: Any, z: Any) -> Any:
    return loss.slope(y, z), loss.curvature(y, z), loss.size(y, z)


@partial(jax.jit, static_argnums=0)
def _compiled_value(loss: Loss, y: Any, z: Any, weight: Any) -> Any:
    return jax.numpy.sum(jax.numpy.where(weight > 0, weight * loss.value(y, z), 0.0))
