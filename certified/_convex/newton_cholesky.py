"""The certified convex head: fit once, delete many times, and always know how far the exact minimiser can be.

F(w) = sum_i s_i l(y_i, x_i'w) + (1/2) w' Lambda w. The state is an :class:`Anchor`: a point, its gradient and a
factorised Hessian (the metric A), less the rows deleted since. Two ways to a certified :class:`Solution`:

* :func:`delete`: one Newton step from the anchor, bounded by theorem 2, no pass over the rows;
* :func:`improve` and :func:`settle`: passes over the retained rows, measured by theorem 1, until a target is met: for a
  fit, and for retained rows when others left, of which the result then knows no more than the cell of a grid.

Values are frozen and functions return new ones, so that a deletion that fails half-way changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from certified._convex import bounds, downdate
from certified._convex.bounds import gamma, or_inf, up
from certified._convex.derivatives import Blocks
from certified._convex.downdate import Downdate
from certified._convex.iteration import Iteration
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.state import Anchor, Metric, Solution, Terms
from certified._data.rows import Rows
from certified.typing import FloatArray

__all__ = ["add", "delete", "ended", "improve", "less_penalty", "settle"]

_SPECTRAL, _MANY = 0.25, 32  # removals worth an eigenvalue: size of W, number of rows


def delete(problem: Problem, anchor: Anchor, rows: Blocks) -> tuple[Anchor, Solution]:
    """Delete rows by theorem 2: O(k p^2) for k rows, whatever the number of retained rows.

    `problem` is that of the retained rows; if its penalty is weaker than the anchor's, the difference is removed as
    well.
    """
    return _changed(problem, anchor, rows, 1.0)


def add(problem: Problem, anchor: Anchor, noise_metric: NoiseMetric, rows: Blocks) -> tuple[Anchor, Solution]:
    """Add rows by theorem 2, with the problem and the noise metric of all rows then retained: O(k p^2 + p^3)."""
    metric = anchor.metric
    M = max(metric.M, up(problem.loss.kappa * downdate.longest(problem.loss, metric.inverse_factor, rows.x[0])))
    k_G = bounds.metric_constant(noise_metric.factor, metric.inverse_factor, noise_metric.root)
    return _changed(
        problem, replace(anchor, metric=replace(metric, M=M, k_G=k_G), noise_metric=noise_metric), rows, -1.0
    )


def _changed(problem: Problem, anchor: Anchor, rows: Blocks, sign: float) -> tuple[Anchor, Solution]:
    old, p = anchor.metric, len(anchor.g)
    with np.errstate(all="ignore"):
        before = Downdate(old.W, old.P, anchor.g)
        (W, P, g), more_g, more_W = downdate.downdate(problem.loss, old.point, old.inverse_factor, before, rows, sign)
        if old.ridge is not None:
            W, g, add_g, add_W = less_penalty(problem, anchor, W, g)
            more_g, more_W = more_g + add_g, more_W + add_W
        pi = -(P @ g)
        linear = float(np.linalg.norm(g + pi - W @ pi))
    # The norms were computed with O(p) roundings each.
    widen = 1.0 + gamma(p * p + 8)
    step = float(np.linalg.norm(pi)) * widen
    eta = frobenius = float(np.linalg.norm(W)) * widen
    if eta > _SPECTRAL and rows.s.size > _MANY:
        eta = min(eta, bounds.largest_eigenvalue(W))
    rise = old.rise
    if sign < 0.0:  # rows that are added lower no eigenvalue
        eta, rise = min(eta, old.eta), up(rise + float(np.linalg.norm(W - old.W)) * widen + more_W)
    linear = linear * widen + gamma(p + 8) * (step * (2.0 + frobenius) + 2.0 * float(np.linalg.norm(g)))
    metric = replace(old, W=W, P=P, eta=eta, rho=up(old.rho + more_W), rise=rise)
    after = replace(anchor, metric=metric, g=g, pi=pi, envelope_g=up(anchor.envelope_g + more_g))
    return ended(replace(after, strength=problem.strength), linear, step, up(metric.rho + metric.drift))


def ended(after: Anchor, linear: float, step: float, rho: float) -> tuple[Anchor, Solution]:
    """Bound where a step ended by theorem 2.

    Parameters
    ----------
    after : Anchor
        With the step in ``pi``.
    linear, step, rho : float
        As in :func:`certified._convex.bounds.theorem2`, without the envelope of the gradient.
    """
    metric, pi = after.metric, after.pi
    nu = np.inf
    if np.isfinite(step):
        nu = bounds.theorem2(up(linear + after.envelope_g), step, metric.M, rho, metric.rise)
    b = up(metric.M * step)
    t = bounds.theorem1(nu, metric.M, metric.low * float(np.exp(-min(b, 700.0))) * (1.0 - 1e-12))
    w = after.here
    place = metric.place(w, pi, after.noise_metric.root)
    terms = Terms(
        nu=nu,
        M=metric.M,
        b=b,
        eta=metric.eta,
        rho=rho,
        k_G=metric.k_G,
        step=step,
        rounding_envelope=up(metric.k_G * after.envelope_g + place),
    )
    distance = up(metric.k_G * t + place)
    return after, Solution(w, or_inf(distance), "predicted", terms, up(float(np.abs(w) @ after.noise_metric.root)))


def less_penalty(
    problem: Problem, anchor: Anchor, W: FloatArray, g: FloatArray
) -> tuple[FloatArray, FloatArray, float, float]:
    """Remove the part of the penalty that went with the rows; return W, g and their added rounding envelopes."""
    metric, p = anchor.metric, len(g)
    assert metric.ridge is not None
    lost = anchor.strength - problem.strength
    pull = problem.penalized * metric.point
    absolute = np.abs(metric.inverse_factor)
    g = g - lost * (metric.inverse_factor @ pull)
    W = W + lost * metric.ridge
    length = float(np.linalg.norm(absolute @ np.abs(pull)))
    square = float(np.sum((absolute * problem.penalized) ** 2))
    unit = 4.0 * bounds.UNIT
    of_g = (gamma(p + 8) * abs(lost) + unit * anchor.strength) * length + unit * float(np.linalg.norm(g))
    of_W = (gamma(2 * p + 8) * abs(lost) + unit * anchor.strength) * square + unit * float(np.linalg.norm(W))
    return W, g, up(of_g), up(of_W)


def improve(
    problem: Problem,
    rows: Rows,
    weight: FloatArray,
    noise_metric: NoiseMetric,
    start: FloatArray,
    target: float,
    *,
    factor: FloatArray | None = None,
    fresh: float = 2.0**-7,
    max_passes: int = 100,
) -> tuple[Anchor, Solution]:
    """Fit: make passes over the rows until the distance in the noise metric is at most `target`.

    1. Take a step, until the Newton step is about as short as `target`.
    2. Near the minimiser, measure how far the predictors have moved; form the Hessian anew where it is stale.
    3. Certify; where the bound is above `target` and a step still helps, go back to 1.
    4. Return the last point with its bound, and the state to delete from.

    Parameters
    ----------
    weight : array like ``rows.weight``
        Weights, 0 for rows that are being deleted.
    start : array of shape (p,)
    target : float
        In the G norm. Where rounding makes it unreachable, the best bound found is returned.
    factor : array of shape (P, P) or None
        An inverse Cholesky factor of something like the Hessian, for the first steps.
    fresh : float
        Form the Hessian anew if the curvature can have drifted by more than this since it was formed. Small values
        make the anchor good for many deletions.

    Raises
    ------
    CannotCertify
        The Hessian is singular in float64 at a point of the search.
    """
    work = Iteration(problem, rows, weight, noise_metric, max_passes)
    w = start
    metric = work.metric(w) if factor is None else Metric.rough(w, factor)
    g = work.gradient(w, np.inf)
    while True:
        near = work.newton_length(g, metric) <= 2.0 * target
        if near:  # 2
            g = work.still(w, g, metric)
            if work.old(g, metric, fresh) and work.passes < max_passes:
                metric, g = work.metric(w), replace(g, moved=0.0)
                continue
            metric = work.measured(metric)
            found = work.certify(w, g, metric)
        if not (near and found.distance <= target) and work.passes < max_passes:  # 1, 3
            step = work.advance(w, g, metric, target, fresh)
            if step is not None:
                w, g, metric = step
                continue
        metric, g = work.measured(metric), work.still(w, g, metric)  # 4
        found = work.certify(w, g, metric)
        return work.anchor(w, g, metric), found


def settle(
    problem: Problem,
    rows: Rows,
    weight: FloatArray,
    noise_metric: NoiseMetric,
    start: FloatArray,
    target: float,
    *,
    anchor: Anchor | None = None,
    factor: FloatArray | None = None,
    rest: float = 0.0,
    max_passes: int = 100,
) -> tuple[Anchor, Solution]:
    """Make passes over the retained rows until `target` is met at a point of a grid, and take what they have there.

    What led to the point serves for steps and is left behind: metric, gradient and bounds of the result are functions
    of the retained rows and of the point, so that the cell of the grid is all that it knows of rows that left.

    1. Take a step, until the Newton step is as short as the goal.
    2. Round to the grid; form Hessian and gradient there, and certify.
    3. Return where the bound meets `target`, passes are used up, or rounding keeps it from falling; else lower the
       goal and go back to 1.

    Parameters
    ----------
    anchor : Anchor or None
        State before, rows deleted included; its factor serves for steps as long as it can.
    rest : float
        The grid is as coarse as the last step is long, or as `rest` where that is more, and at most a quarter of
        `target`. With `rest`, steps go on far below it, so that hardly ever a cell tells where they came from.

    The other parameters and errors are those of :func:`improve`.
    """
    work = Iteration(problem, rows, weight, noise_metric, max_passes)
    w, goal, last = start, 2.0**-10 * rest or 0.25 * target, np.inf
    metric = None if anchor is None else work.reused(anchor)
    if metric is None:
        metric = work.metric(w) if factor is None else Metric.rough(w, factor)
    g = work.gradient(w, np.inf)
    while True:
        length = work.newton_length(g, metric)
        if not length <= goal and work.passes < max_passes:  # 1
            step = work.advance(w, g, metric, goal, np.inf)
            if step is not None:
                w, g, metric = step
                continue
        w, g, metric = work.settled(w, min(max(length, rest), 0.25 * target))  # 2
        found = work.certify(w, g, metric)
        if found.distance <= target or work.passes >= max_passes or not found.distance <= 0.5 * last:  # 3
            return work.anchor(w, g, metric), found
        last, goal, rest = found.distance, 0.25 * goal, 0.25 * rest
