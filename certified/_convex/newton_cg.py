"""The convex head of wide models: a certified minimiser by Newton's method with conjugate gradients.

Nothing of the size of the Hessian is formed. What bounds the distance is a metric below it
(:mod:`~certified._convex.newton_cg_metric`). The noise metric is diagonal, from exact sums of squares.
Coefficients are (K, p) for K outputs, predictors (n, K).

Proofs: ``docs/theory/wide.rst``. Tests: ``tests/convex/test_newton_cg*.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from scipy.sparse import diags_array

from certified import noise
from certified._convex.bounds import TINY, UNIT, gamma, or_inf, theorem1, up
from certified._convex.derivatives import float64
from certified._convex.losses import Loss
from certified._convex.newton_cg_metric import PAIRWISE, LowerMetric, dot, norm
from certified._convex.newton_cg_rows import WideRows
from certified._convex.problem import Problem
from certified._convex.state import Solution, Terms, on_grid
from certified._exact.column_squares import ColumnSquares
from certified.errors import CannotCertify
from certified.typing import FloatArray

__all__ = ["DiagonalNoiseMetric", "improve"]

_SHARE = 0.3  # part of the bound asked for that conjugate gradients may leave
_LOOSE = 0.25  # a step leaves at most this part of the gradient
_INNER = 2000  # conjugate gradients in a step
_CLOSER = 2.0**-4  # M nu from which M is measured
_STALLED = 3  # steps in a row that hardly shrank the gradient


@dataclass(frozen=True)
class DiagonalNoiseMetric:
    """The noise metric ``G = t diag(c sum_i s_i x_ij^2 + strength)``; for the intercept ``t c sum_i s_i``.

    Attributes
    ----------
    squares : array of shape (p + 1,)
        Sums ``sum_i s_i x_ij^2`` over the retained rows, and ``sum_i s_i``.
    root : array of shape (P,)
        Square roots of the diagonal, the same for every output. The norm ``||v||_G`` is defined by them.
    """

    squares: FloatArray
    root: FloatArray

    @classmethod
    def of(cls, problem: Problem, squares: ColumnSquares) -> DiagonalNoiseMetric:
        """Form the metric; raise CannotCertify where a coefficient has no penalty."""
        if not problem.strength > 0.0:
            raise CannotCertify(
                "Sparse and wide models need a penalty: without one there is no lower bound of the Hessian that can be "
                "computed. Give a finite C or an alpha > 0, or dense features, at most some thousands, with "
                "solver='newton-cholesky'. Nothing was changed."
            )
        values, K = squares.values(), problem.loss.outputs
        spread = np.tile(values[: len(problem.penalized) // K], K)
        return cls(values, np.sqrt(problem.unit * (problem.scale * spread + problem.penalty)))

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
    """A parameter and what a pass over the rows finds there, shapes (n, K); slopes and sizes carry the weights."""

    w: FloatArray
    predictor: FloatArray
    slopes: FloatArray
    bends: FloatArray
    sizes: FloatArray
    gradient: FloatArray


def improve(
    problem: Problem,
    rows: WideRows,
    weight: FloatArray,
    noise_metric: DiagonalNoiseMetric,
    start: FloatArray,
    target: float,
    max_steps: int = 100,
    rest: float | None = None,
) -> Solution:
    """Take Newton steps on the retained rows until the distance in the noise metric is at most `target`.

    With `rest`, as :func:`certified._convex.newton_cholesky.improve`, the result is a point on a grid.

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
    work = _Search(problem, rows, weight, noise_metric)
    asked, target = target, target if rest is None else 2.0**-10 * rest or 0.25 * target
    point = work.at(work.centred(start))
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
    if rest is not None:
        best = work.settled(best, min(max(best.distance, rest), 0.25 * asked))
    return replace(best, passes=work.passes)


class _Search:
    """Passes over the rows of positive weight, for one problem."""

    def __init__(self, problem: Problem, rows: WideRows, weight: FloatArray, noise_metric: DiagonalNoiseMetric) -> None:
        self.problem, self.rows, self.weight, self.noise_metric = problem, rows, weight, noise_metric
        self.loss, self.strength, self.kappa = problem.loss, problem.strength, problem.loss.kappa
        self.offset = np.zeros(1) if rows.offset is None else rows.offset
        self.live = weight > 0
        self.lengths = np.where(self.live, rows.lengths, 0.0)
        self.root = noise_metric.root.reshape(self.loss.outputs, -1)
        self.passes = 0

    def split(self, w: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Coefficients (K, p) and intercepts (K,)."""
        table = w.reshape(self.loss.outputs, -1)
        if not self.rows.intercept:
            return table, np.zeros(len(table))
        return np.ascontiguousarray(table[:, :-1]), table[:, -1].copy()

    def joined(self, u: FloatArray, b: FloatArray) -> FloatArray:
        """The opposite of `split`."""
        return (np.column_stack([u, b]) if self.rows.intercept else u).ravel()

    def settled(self, found: Solution, size: float) -> Solution:
        """A point on the grid near one that was measured; the distance grows by what lies between them."""
        root, whitened = self.noise_metric.root, self.noise_metric.whitened
        w = self.centred(on_grid(found.w, size, root, lambda v: float(np.linalg.norm(whitened(v)))))
        away = norm(whitened(w - found.w)) + 4.0 * UNIT * float((np.abs(w) + np.abs(found.w)) @ root)
        return replace(found, w=w, distance=up(found.distance + up(away)), weight=up(float(np.abs(w) @ root)))

    def centred(self, w: FloatArray) -> FloatArray:
        """Return w with coefficients and intercepts whose mean over several classes is 0, as at the minimiser."""
        table = w.reshape(self.loss.outputs, -1)
        return (table - table.mean(axis=0)).ravel() if len(table) > 1 else w

    def at(self, w: FloatArray) -> _Point:
        """Pass over the rows at w."""
        self.passes += 1
        u, b = self.split(w)
        predictor = self.rows.push(u) + b + self.offset[:, None]
        slope, bend, size = _terms(self.loss, self.rows.y, _flat(predictor))
        slopes = np.where(self.live[:, None], self.weight[:, None] * slope.reshape(predictor.shape), 0.0)
        bends = np.where(self.live[:, None], bend.reshape(predictor.shape), 0.0)
        sizes = np.where(self.live[:, None], self.weight[:, None] * size.reshape(predictor.shape), 0.0)
        gradient = self.joined(self.rows.pull(slopes) + self.strength * u, _summed(slopes))
        return _Point(w, predictor, slopes, bends, sizes, gradient)

    def metric(self, point: _Point) -> LowerMetric:
        """Form A and bound what the theorems need of it: lemma 3 of the proofs."""
        if not self.rows.intercept:
            K = self.loss.outputs
            return LowerMetric.bare(self.strength, self.kappa, K, float(self.lengths.max()), self.root)
        curved = self.live[:, None] & (point.bends > 0)
        score = float(np.max(np.where(curved, self._score(point)[:, None], 0.0)))
        return LowerMetric.of(
            self.strength,
            self.kappa,
            point.bends,
            self.weight,
            self.rows,
            self.lengths,
            self.root,
            self._curvature_error(score),
        )

    def _score(self, point: _Point) -> FloatArray:
        """Bound the rounding error of every row's predictors."""
        u, b = self.split(point.w)
        known = np.abs(self.offset) + float(np.max(np.abs(b)))
        return gamma(self.rows.longest + 6) * (self.lengths * max(norm(part) for part in u) + known)

    def _curvature_error(self, score: float) -> float:
        """Relative error of a curvature whose predictors are off by at most `score`; of several, of a product."""
        change = 4.0 * self.kappa * score
        return min(self.loss.outputs, 2) * (2048.0 * UNIT + (change if change < 0.25 else np.inf))

    def certify(self, point: _Point, metric: LowerMetric) -> tuple[Solution, float, float]:
        """Bound the distance by theorem 1; return it with the measured nu and its rounding envelope."""
        nu, envelope = metric.nu(*self.split(point.gradient)), self._envelope(point, metric)
        total = up(nu + envelope)
        if _CLOSER < metric.M * total < np.inf:
            metric = metric.closer(self.kappa, self.rows, self.lengths, self.weight)
        distance = up(metric.k_G * theorem1(total, metric.M, metric.low)) + self._slip(point.w)
        terms = Terms(
            nu=total,
            M=metric.M,
            b=up(metric.M * total),
            eta=0.0,
            rho=1.0 - metric.low,
            k_G=metric.k_G,
            rounding_envelope=up(metric.k_G * envelope),
        )
        weight = up(float(np.abs(point.w) @ self.noise_metric.root))
        return Solution(point.w, or_inf(up(distance)), "measured", terms, weight), nu, envelope

    def _slip(self, w: FloatArray) -> float:
        """Length in the noise metric of the mean of several intercepts, which is 0 but for rounding."""
        b = self.split(w)[1]
        if not self.rows.intercept or len(b) == 1:
            return 0.0
        mean = abs(float(b.mean())) + gamma(len(b) + 4) * float(np.mean(np.abs(b)))
        return up(np.sqrt(len(b)) * mean * float(np.max(self.root[:, -1])))

    def _envelope(self, point: _Point, metric: LowerMetric) -> float:
        """Bound the rounding error of the gradient in the norm of ``A^-1``: theorem 6 of the proofs."""
        score = self._score(point)[:, None]
        if not 2.0 * self.kappa * float(np.max(np.where(self.live[:, None], score, 0.0))) < 0.5:
            return np.inf
        bends = 2.0 * min(self.loss.outputs, 2) * self.weight[:, None] * _steepest(point.bends)
        terms = 32.0 * UNIT * point.sizes + bends * score
        terms += gamma(max(self.rows.chain, PAIRWISE) + 4) * np.abs(point.slopes)
        u, g = self.split(point.w)[0], self.split(point.gradient)[0]
        terms = terms + TINY * (1.0 + float(np.max(bends, initial=0.0)))
        at_u = norm(_summed(terms * self.lengths[:, None])) + 4.0 * UNIT * (self.strength * norm(u) + norm(g))
        return metric.error(up(at_u), _summed(terms) * (1.0 + 2.0**-40))

    def advance(self, point: _Point, metric: LowerMetric, nu: float, goal: float) -> tuple[_Point, float]:
        """Take a step that lowers the objective; return the new point and kappa times the largest change proposed."""
        step, moved = self._step(point, metric, nu, goal)
        reach = self.reach(moved)
        if not np.isfinite(reach):
            raise CannotCertify(
                "A Newton step left the range of float64. Scale the features or add a penalty. Nothing was changed."
            )
        share = 1.0 if reach <= 1.0 else self._share(point, step, moved, float(np.log1p(reach) / reach))
        return self.at(self.centred(point.w + share * step)), reach

    def reach(self, moved: FloatArray) -> float:
        """Kappa times the largest change of a predictor; of several, of a difference between them."""
        size = np.abs(moved[:, 0]) if moved.shape[1] == 1 else np.ptp(moved, axis=1)
        return self.kappa * float(np.max(np.where(self.live, size, 0.0)))

    def _share(self, point: _Point, step: FloatArray, moved: FloatArray, least: float) -> float:
        """Part of a long step to take: halved until the objective falls; the last part, `least`, is proved to do."""
        u, p = self.split(point.w)[0], self.split(step)[0]
        slope, square, mixed = dot(point.gradient, step), dot(p, p), dot(u, p)
        before = _value(self.loss, self.rows.y, _flat(point.predictor), self.weight)
        share = 1.0
        while share > least:
            after = _value(self.loss, self.rows.y, _flat(point.predictor + share * moved), self.weight)
            rise = after - before + self.strength * share * (mixed + 0.5 * share * square)
            if rise <= 0.25 * share * slope:
                return share
            share *= 0.5
        return least

    def _step(self, point: _Point, metric: LowerMetric, nu: float, goal: float) -> tuple[FloatArray, FloatArray]:
        """Solve ``H p = -g`` by conjugate gradients; return p and the change of the predictors.

        The intercepts are eliminated. The iteration ends where the step is as exact as the goal asks for, or as the
        change of the curvature along it makes sense.
        """
        strength, rows, intercept = self.strength, self.rows, self.rows.intercept
        g, at_b = self.split(point.gradient)

        def bent(change: FloatArray) -> FloatArray:
            """The Hessian of the rows' losses times a change of the predictors."""
            if len(g) == 1:
                return self.weight[:, None] * point.bends * change
            part = point.bends * change
            return self.weight[:, None] * (part - point.bends * part.sum(axis=1, keepdims=True))

        inverse = _inverse(self._among_intercepts(point.bends)) if intercept else None
        lean = shift = np.zeros(len(g)) if inverse is None else -inverse @ at_b
        r = -g
        if inverse is not None and len(g) == 1:
            r = r + metric.mean * at_b
        elif np.any(shift):
            r = r - rows.pull(bent(np.broadcast_to(shift, point.bends.shape)))
        diagonal = self._diagonal(point.bends, metric, len(g[0]))
        p, moved = np.zeros_like(g), np.zeros_like(point.bends)
        y = _divided(r, diagonal)
        d, rho = y.copy(), dot(r, y)
        for _ in range(_INNER):
            if not rho > 0.0:
                break
            self.passes += 1
            change = rows.push(d)
            if inverse is not None:
                back = inverse @ bent(change).sum(axis=0)
                change = change - back
            curved = strength * d + rows.pull(bent(change))
            bend = dot(d, curved)
            if not bend > 0.0:
                break  # underflow: the step so far is measured like any other
            size = rho / bend
            p += size * d
            moved += size * change
            if inverse is not None:
                lean = lean - size * back
            r -= size * curved
            reach = self.reach(moved + shift)
            if norm(r) / np.sqrt(strength) <= max(_SHARE * goal, min(_LOOSE, _SHARE * reach) * nu):
                break
            y = _divided(r, diagonal)
            before, rho = rho, dot(r, y)
            d = y + rho / before * d
        return self.joined(p, lean), moved + shift

    def _among_intercepts(self, bends: FloatArray) -> FloatArray:
        """Hessian of the intercepts, shape (K, K)."""
        weighted = self.weight[:, None] * bends
        if bends.shape[1] == 1:
            return weighted.sum(axis=0)[:, None]
        return np.diag(weighted.sum(axis=0)) - weighted.T @ bends

    def _diagonal(self, bends: FloatArray, metric: LowerMetric, p: int) -> FloatArray:
        """About the diagonal of the Hessian without intercepts, shape (K, p): the preconditioner."""
        total = (self.weight[:, None] * _steepest(bends)).sum(axis=0)[:, None]
        spread = total / np.sum(self.rows.base_weight[self.live]) * self.noise_metric.squares[:p]
        if metric.edges is None:
            return self.strength + spread
        near = np.abs(metric.edges.signs).T
        mean = near @ metric.mean / near.sum(axis=1, keepdims=True)
        return self.strength + np.maximum(spread - total * mean**2, 0.01 * spread)


def _divided(r: FloatArray, diagonal: FloatArray) -> FloatArray:
    """Divide by the diagonal; of several classes among vectors whose mean over them is 0.

    Beyond these there is no curvature but the penalty: a residual that is led there takes many iterations to come back.
    """
    y = r / diagonal
    if len(r) > 1:
        y = y - y.sum(axis=0) / (1.0 / diagonal).sum(axis=0) / diagonal
    return y


def _inverse(among: FloatArray) -> FloatArray:
    """Inverse of the intercepts' Hessian where their sum is 0; rounding must not pass for curvature of the sum."""
    K = len(among)
    if not np.all(np.isfinite(among)):
        raise CannotCertify(
            "The curvature of the intercepts left the range of float64. Scale features or weights, or add a penalty. "
            "Nothing was changed."
        )
    level = np.full((K, K), 1.0 / K) if K > 1 else np.zeros((1, 1))
    across = np.eye(K) - level
    return across @ np.linalg.pinv(among + np.trace(among) / K * level, rcond=0.0, hermitian=True) @ across


def _steepest(bends: FloatArray) -> FloatArray:
    """Curvature in each predictor, (n, K), from curvatures (n, 1) or probabilities."""
    return bends if bends.shape[1] == 1 else np.where(bends > 0, bends * (1.0 - bends) + 2.0**-50, 0.0)


def _summed(terms: FloatArray) -> FloatArray:
    """Sums over the rows, by pairs."""
    return np.sum(np.ascontiguousarray(terms.T), axis=1)


def _flat(predictor: FloatArray) -> FloatArray:
    """Predictors as the losses take them: a plain vector where there is one."""
    return predictor[:, 0] if predictor.shape[1] == 1 else predictor


@float64
def _terms(loss: Loss, y: FloatArray, z: FloatArray) -> Any:
    return _compiled_terms(loss, y, z)


@float64
def _value(loss: Loss, y: FloatArray, z: FloatArray, weight: FloatArray) -> Any:
    return _compiled_value(loss, y, z, weight)


@partial(jax.jit, static_argnums=0)
def _compiled_terms(loss: Loss, y: Any, z: Any) -> Any:
    return loss.gradient(y, z), loss.curvature(y, z), loss.rounding_scale(y, z)


@partial(jax.jit, static_argnums=0)
def _compiled_value(loss: Loss, y: Any, z: Any, weight: Any) -> Any:
    return jax.numpy.sum(jax.numpy.where(weight > 0, weight * loss.value(y, z), 0.0))
