"""The certified head on leaf indicators: theorems 1 and 2 with T integers in the place of a row of d numbers.

As :mod:`certified._convex.newton_cholesky`, whose theorems it uses. What differs is how far predictors can move: a row
has one leaf in each tree, so that ``|x'p|`` is at most the sum over the trees of the largest ``|p_j|``, which needs no
pass over the rows and is far below Cauchy-Schwarz. Proofs: ``docs/theory/leaves.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular

from certified._convex import bounds
from certified._convex.bounds import gamma, or_inf, up
from certified._convex.state import Solution, Terms, on_grid
from certified.ensemble._boosting import kernels
from certified.ensemble._boosting.leaf_metric import (
    LeafMetric,
    LeafNoiseMetric,
    LeafProblem,
    LeafRows,
    derivatives,
    peaks,
    scores,
    spread,
    sums,
    tree_reach,
)
from certified.errors import CannotCertify
from certified.typing import FloatArray

__all__ = ["MOST_GONE", "LeafAnchor", "delete", "improve", "settle"]

MOST_GONE = 384
"""Units of rows deleted by low-rank corrections of one inverse."""

_FRESH = 2.0**-6  # movement of the predictors since the Hessian, above which a fit forms it anew
_STILL = 2.0**-9  # movement of the predictors below which a bound will do
_STALE = 0.5  # a pass that shrinks the gradient by less than this calls for a new Hessian


@dataclass(frozen=True, eq=False)
class LeafAnchor:
    """A metric, a point with a measured gradient, and the rows deleted since it was measured.

    Attributes
    ----------
    metric : LeafMetric
    point : array of shape (d,)
    g, Kg : arrays of shape (d,)
        Gradient at the point, of the retained rows when it was measured, and K times it.
    length : float
        At least ``||g||_K``.
    envelope : float
        Bounds the rounding error of the gradient, rows deleted since included, in the norm of K.
    drift : float
        What the curvature can have changed between ``metric.point`` and the point, in units of A.
    slopes : array of shape (k,)
        ``s_i l'_i`` at the point, of all units in ``metric.gone``; 0 for those that g does not hold.
    beta : array of shape (k,)
        The present parameter is ``point - K (g + sum_gone beta_i x_i)``.
    """

    metric: LeafMetric
    point: FloatArray
    g: FloatArray
    Kg: FloatArray
    length: float
    envelope: float
    drift: float
    slopes: FloatArray
    beta: FloatArray

    def moved(self, before: LeafAnchor) -> float:
        """Bound in the noise metric, rounding aside, how far the parameter is from one of the same anchor."""
        change = self.beta.copy()
        change[: len(before.beta)] -= before.beta
        return self.metric.k_G * float(np.sqrt(max(0.0, float(change @ self.metric.gone.N @ change))))


@dataclass(frozen=True)
class _Gradient:
    value: FloatArray
    errors: FloatArray  # upper bounds of the rounding error of each entry


def delete(problem: LeafProblem, anchor: LeafAnchor, rows: LeafRows, root_G: FloatArray) -> tuple[LeafAnchor, Solution]:
    """Delete rows by theorem 2: O(T d) each, whatever the number of retained rows.

    Parameters
    ----------
    root_G : array of shape (d,)
        Upper bounds of ``sqrt(G_jj)``.
    """
    T = problem.trees
    metric = anchor.metric.without(problem, rows)
    found = derivatives(problem.loss, rows.y, scores(problem, rows, anchor.point))
    s, size = rows.s, _score(problem, rows, anchor.point)
    if problem.outputs > 1:
        s, size = s[:, None], 2.0 * size[:, None]  # |dp_k| <= 2 p_k max |dz|
    slopes = np.concatenate([anchor.slopes, (s * found.slope).ravel()])
    tau = s * (32.0 * bounds.UNIT * found.size + 4.0 * bounds.UNIT * np.abs(found.slope))
    tau = (tau + 2.0 * gamma(T + 4) * s * found.curvature * size).ravel()
    gone = metric.gone
    new = gone.reach[len(anchor.slopes) :]
    envelope = up(anchor.envelope + float(tau @ new))
    with np.errstate(all="ignore"):
        XKg = anchor.Kg[gone.leaves].sum(axis=1)
        try:
            y = gone.corrected(gone.N @ slopes - XKg)
        except np.linalg.LinAlgError:
            y = np.full(len(slopes), np.nan)
        beta = -(slopes + gone.bent(y))
        delta = y + XKg + gone.N @ beta
        p = -(anchor.Kg + beta @ gone.KX)
    # Rounding: |K_ab| <= sqrt(K_aa K_bb) bounds every sum of entries of K by products of `root` and `reach`.
    off_by = float(metric.root @ np.abs(anchor.g)) + float(gone.reach @ np.abs(beta))
    few = gamma(T * T + len(p) + len(beta) + 16)
    bend = gone._replace(bend=np.abs(gone.bend))
    linear = float(bend.bent(np.abs(delta) + few * gone.reach * off_by) @ gone.reach) * (1.0 + 1e-12)
    moved = float(gone.reach @ np.abs(beta))
    step = anchor.length + np.sqrt(max(0.0, float(beta @ gone.N @ beta)) + 4.0 * few * moved * moved)
    step = up(float(step))
    place = few * metric.root * off_by
    b = up(problem.loss.kappa * (tree_reach(problem, p) + 2.0 * T * float(np.max(place))))
    w = anchor.point + p
    rho = up(metric.rho + anchor.drift)
    nu = np.inf
    if np.isfinite(step) and np.isfinite(b) and b < 500.0:
        nu = up(up(linear + envelope) + rho * step + (1.0 + rho) * (bounds.remainder(b) if b > 0 else 0.0) * step)
    low = up(rho + metric.eta)
    t = bounds.theorem1(nu, metric.M, (1.0 - low) * float(np.exp(-min(b, 500.0))) * (1.0 - 1e-12))
    off = up(float((place + 4.0 * bounds.UNIT * np.abs(w)) @ root_G))
    terms = Terms(
        nu=nu,
        M=metric.M,
        b=b,
        eta=metric.eta,
        rho=rho,
        k_G=metric.k_G,
        step=step,
        rounding_envelope=up(metric.k_G * envelope + off),
    )
    distance = or_inf(up(metric.k_G * t + off))
    after = replace(anchor, metric=metric, envelope=envelope, slopes=slopes, beta=beta)
    return after, Solution(w, distance, "predicted", terms.finite(), up(float(np.abs(w) @ root_G)))


def improve(
    problem: LeafProblem,
    rows: LeafRows,
    noise_metric: LeafNoiseMetric,
    m: FloatArray,
    start: FloatArray,
    target: float,
    *,
    factor: FloatArray,
    max_passes: int = 100,
) -> tuple[LeafAnchor, Solution]:
    """Fit: pass over the rows until the distance in the noise metric is at most `target`.

    The Hessian is formed anew at the solution unless it was formed nearby, so that theorem 2 is sharp afterwards.

    Parameters
    ----------
    rows : LeafRows
        Weight 0 where a row is deleted.
    m : array of shape (n,)
        Weights in the noise metric, 0 where a row is deleted.
    start : array of shape (d,)
    factor : array of shape (d, d)
        A lower Cholesky factor of something like the Hessian, for the first steps.

    Raises
    ------
    CannotCertify
        The Hessian is too ill-conditioned, or no step shrinks the gradient.
    """
    w, passes = _approached(problem, rows, factor, start, max_passes)
    metric, g = LeafMetric.at(problem, rows, noise_metric, w, m), _gradient(problem, rows, w)
    passes += 2
    while True:
        drift = _movement(problem, rows, w - metric.point)
        length = metric.norm(g.value)
        envelope = up(float(metric.root @ g.errors))
        near = length * metric.k_G <= 4.0 * target or length <= 4.0 * envelope
        if near and passes < max_passes and (metric.low - drift < 0.25 or drift > _FRESH):
            metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1
            continue
        found = _certified(problem, metric, noise_metric, w, length, envelope, drift, passes)
        done = found.distance <= target or passes >= max_passes or (near and length <= 4.0 * envelope)
        step = None if done else _advance(problem, rows, metric, w, g, length)
        if step is None and not done and not np.array_equal(metric.point, w):
            metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1
            continue
        if step is None:
            return _anchor(metric, w, g, length, envelope, drift), found
        w, g, rate, tried = step
        passes += tried
        if rate > _STALE and passes < max_passes:
            metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1


def settle(
    problem: LeafProblem,
    rows: LeafRows,
    noise_metric: LeafNoiseMetric,
    m: FloatArray,
    start: FloatArray,
    target: float,
    *,
    metric: LeafMetric | None = None,
    factor: FloatArray | None = None,
    rest: float = 0.0,
    max_passes: int = 100,
) -> tuple[LeafAnchor, Solution]:
    """Pass over the retained rows until `target` is met at a point of a grid, and take what they have there.

    As :func:`certified._convex.newton_cholesky.settle`: of rows that left, the result knows the cell of the grid.

    Parameters
    ----------
    noise_metric : LeafRelease
        Of the retained rows.
    metric : LeafMetric or None
        For the first steps; rows deleted included.
    rest : float
        The grid is as coarse as the last step may be long, or as `rest` where that is more, and at most a quarter of
        `target`. With `rest`, steps go on far below it, so that hardly ever a cell tells where they came from.

    The other parameters and errors are those of :func:`improve`.
    """
    w, passes, goal, last = start, 0, 2.0**-10 * rest or 0.25 * target, np.inf
    if metric is None:
        if factor is not None:
            w, passes = _approached(problem, rows, factor, w, max_passes)
        metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1
    g, passes = _gradient(problem, rows, w), passes + 1
    while True:
        length = metric.norm(g.value)
        if length * metric.k_G > goal and passes < max_passes:
            step = _advance(problem, rows, metric, w, g, length)
            if step is not None:
                w, g, rate, tried = step
                passes += tried
                if rate > _STALE:
                    metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1
                continue
            if not np.array_equal(metric.point, w) or len(metric.gone.N):
                metric, passes = LeafMetric.at(problem, rows, noise_metric, w, m), passes + 1
                continue
        w = on_grid(w, min(max(length * metric.k_G, rest), 0.25 * target), noise_metric.root, noise_metric.length)
        metric, g, passes = LeafMetric.at(problem, rows, noise_metric, w, m), _gradient(problem, rows, w), passes + 2
        length, envelope = metric.norm(g.value), up(float(metric.root @ g.errors))
        found = _certified(problem, metric, noise_metric, w, length, envelope, 0.0, passes)
        if found.distance <= target or passes >= max_passes or not found.distance <= 0.5 * last:
            return _anchor(metric, w, g, length, envelope, 0.0), found
        last, goal, rest = found.distance, 0.25 * goal, 0.25 * rest


def _anchor(
    metric: LeafMetric, w: FloatArray, g: _Gradient, length: float, envelope: float, drift: float
) -> LeafAnchor:
    """The state to delete from."""
    change, none = up(np.expm1(min(drift, 600.0)) * (1.0 + metric.rho)), np.zeros(0)
    return LeafAnchor(metric, w, g.value, metric.K @ g.value, length, envelope, change, none, none)


def _approached(
    problem: LeafProblem, rows: LeafRows, factor: FloatArray, w: FloatArray, max_passes: int
) -> tuple[FloatArray, int]:
    """Steps with a rough factor until the predictors hardly move; returns a parameter and the passes it took."""
    passes, last = 0, np.inf
    while passes < max_passes:
        g, passes = _gradient(problem, rows, w).value, passes + 1
        white = solve_triangular(factor, g, lower=True, check_finite=False)
        length = float(np.linalg.norm(white))
        if not length < 0.8 * last:
            break
        step = solve_triangular(factor, white, lower=True, trans="T", check_finite=False)
        if tree_reach(problem, step) <= 0.5 * _FRESH:
            break
        w, last = w - step, length
    return w, passes


def _advance(
    problem: LeafProblem, rows: LeafRows, metric: LeafMetric, w: FloatArray, g: _Gradient, length: float
) -> tuple[FloatArray, _Gradient, float, int] | None:
    """A step that shrinks the gradient, with the rate and the passes it took; None if there is none."""
    step, alpha = metric.solve(g.value), 1.0
    for tried in range(1, 6):
        trial = w - alpha * step
        found = _gradient(problem, rows, trial)
        left = metric.norm(found.value)
        if left <= (1.0 - 0.25 * alpha) * length:
            return trial, found, left / length, tried
        alpha *= 0.5
    return None


def _certified(
    problem: LeafProblem,
    metric: LeafMetric,
    noise_metric: LeafNoiseMetric,
    w: FloatArray,
    length: float,
    envelope: float,
    drift: float,
    passes: int,
) -> Solution:
    """Theorem 1 at w, from a measured gradient."""
    root_G = noise_metric.root
    nu = up(length + envelope)
    low = metric.low * float(np.exp(-min(drift, 500.0))) * (1.0 - 1e-12)
    off = up(4.0 * bounds.UNIT * float(np.abs(w) @ root_G))
    t = bounds.theorem1(nu, metric.M, low)
    terms = Terms(
        nu=nu,
        M=metric.M,
        b=up(drift),
        eta=metric.eta,
        rho=metric.rho,
        k_G=metric.k_G,
        rounding_envelope=up(metric.k_G * envelope + off),
    )
    distance = or_inf(up(metric.k_G * t + off))
    return Solution(w, distance, "measured", terms.finite(), up(float(np.abs(w) @ root_G)), passes)


def _gradient(problem: LeafProblem, rows: LeafRows, w: FloatArray) -> _Gradient:
    """Pass at w, with a bound of the rounding error of each entry (theorem 3)."""
    T = problem.trees
    found = derivatives(problem.loss, rows.y, scores(problem, rows, w))
    chain = gamma(kernels.CHUNK + problem.outputs * len(rows.s) // kernels.CHUNK + 8)
    used = rows.s > 0
    slope, curvature, size = (float(np.max(np.abs(part[used]), initial=0.0)) for part in found)
    curvature *= min(problem.outputs, 2)  # of several: |dp_k| <= 2 p_k max |dz|
    tau = (chain + 4.0 * bounds.UNIT) * slope + 32.0 * bounds.UNIT * size
    tau += 2.0 * gamma(T + 4) * curvature * float(np.max(_score(problem, rows, w)))
    pull = problem.penalty * (w - problem.centre)
    value = sums(problem, rows, (found.slope.T * rows.s).T) + pull
    errors = tau * problem.weight * (1.0 + 2.0**-20) + 8.0 * bounds.UNIT * (
        problem.penalty * (np.abs(w) + np.abs(problem.centre))
    )
    return _Gradient(value, errors + 4.0 * bounds.UNIT * np.abs(value) + bounds.TINY * (1.0 + curvature))


def _score(problem: LeafProblem, rows: LeafRows, w: FloatArray) -> FloatArray:
    """Upper bound of the sum of the absolute terms of each row's predictors."""
    return np.abs(rows.offset) + peaks(problem, np.abs(w))


def _movement(problem: LeafProblem, rows: LeafRows, p: FloatArray) -> float:
    """Bound kappa times the change of any retained row's predictor: lemma 8, measured where that is not small."""
    kappa = problem.loss.kappa
    if kappa == 0.0 or not np.any(p):
        return 0.0
    bound = tree_reach(problem, p)
    if kappa * bound > _STILL:
        moved = spread(scores(problem, rows._replace(offset=np.zeros(len(rows.s))), p))
        measured = float(np.max(moved[rows.s > 0], initial=0.0))
        bound = min(bound, measured + 2.0 * gamma(problem.trees + 4) * peaks(problem, np.abs(p)))
    return up(kappa * bound)


def require(found: Solution, target: float, call: str) -> None:
    """Raise CannotCertify where the bound exceeds the target."""
    if found.distance > target:
        raise CannotCertify(
            f"{call}: the distance of the leaf values to their minimiser is at most {found.distance:.3g} standard "
            f"errors after {found.passes} passes, and {target:.3g} is needed. Raise max_iter, leaf_penalty, noise or "
            "epsilon. Nothing was changed."
        )
