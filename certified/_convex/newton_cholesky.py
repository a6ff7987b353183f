"""The certified convex head: fit once, delete many times, and always know how far the exact minimiser can be.

F(w) = sum_i s_i l(y_i, x_i'w) + (1/2) w' Lambda w. The state is an :class:`Anchor`: a point, its gradient and a
factorised Hessian (the metric A), less the rows deleted since. Two ways to a certified :class:`Solution`:

* :func:`delete`: one Newton step from the anchor, bounded by theorem 2, no pass over the rows;
* :func:`improve`: passes over the retained rows with the factor at hand, measured by theorem 1, until a target is met.

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
from certified._convex.new_columns import ColumnWarmStart
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.state import Anchor, Solution
from certified._data.rows import Rows
from certified.typing import FloatArray

__all__ = ["add", "delete", "improve"]

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
            W, g, add_g, add_W = _less_penalty(problem, anchor, W, g)
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
    hessian_point = old.hessian_point if sign > 0.0 else None  # how far rows that are added are from there is not known
    metric = replace(old, W=W, P=P, eta=eta, rho=up(old.rho + more_W), rise=rise, hessian_point=hessian_point)
    after = replace(
        anchor, metric=metric, g=g, pi=pi, envelope_g=up(anchor.envelope_g + more_g), strength=problem.strength
    )
    rho = up(metric.rho + metric.drift)
    nu = bounds.theorem2(up(linear + after.envelope_g), step, metric.M, rho, rise) if np.isfinite(step) else np.inf
    b = up(metric.M * step)
    t = bounds.theorem1(nu, metric.M, metric.low * float(np.exp(-min(b, 700.0))) * (1.0 - 1e-12))
    w = after.here
    place = metric.place(w, pi, anchor.noise_metric.root)
    assumptions = {
        "nu": nu,
        "M": metric.M,
        "b": b,
        "eta": eta,
        "rho": rho,
        "k_G": metric.k_G,
        "step": step,
        "rounding_envelope": up(metric.k_G * after.envelope_g + place),
    }
    distance = up(metric.k_G * t + place)
    return after, Solution(
        w, or_inf(distance), "predicted", assumptions, up(float(np.abs(w) @ anchor.noise_metric.root))
    )


def _less_penalty(
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
    anchor: Anchor | None = None,
    factor: FloatArray | None = None,
    known: ColumnWarmStart | None = None,
    fresh: float = 2.0**-3,
    max_passes: int = 100,
) -> tuple[Anchor, Solution]:
    """Make passes over the retained rows until the distance in the noise metric is at most `target`.

    Parameters
    ----------
    weight : array like ``rows.weight``
        Weights, 0 for rows that are being deleted.
    start : array of shape (p,)
    target : float
        In the G norm. Where rounding makes it unreachable, the best bound found is returned.
    anchor : Anchor or None
        State before, rows deleted included; its factor is used as long as it serves.
    factor : array of shape (P, P) or None
        Without an anchor: an inverse Cholesky factor of something like the Hessian, for the first steps.
    known : Inherited or None
        What is known of these columns from others, a factor included.
    fresh : float
        Form the Hessian anew if the curvature can have drifted by more than this since it was formed. Small values
        make the anchor good for many deletions.

    Raises
    ------
    CannotCertify
        The Hessian is singular in float64 at a point of the search.
    """
    work = Iteration(problem, rows, weight, noise_metric, max_passes)
    work.known, factor = known, factor if known is None else known.factor
    metric = None if anchor is None else work.reused(anchor)
    w, moved = start, np.inf
    if anchor is None or metric is None:
        metric = work.metric(w) if factor is None else work.rough(w, factor)
    elif np.array_equal(w, anchor.here):
        moved = work.moved(metric.origin.away, metric, w, anchor.pi)
    g = work.gradient(w, moved)
    while True:
        near = work.newton_length(g, metric) <= 2.0 * target
        if near:
            g = work.still(w, g, metric)
        old = work.old(g, metric, fresh)
        if near and old and work.passes < max_passes:
            metric = work.formed_anew(w, g, metric)
            g = replace(g, moved=0.0)
            continue
        if near:
            metric = work.measured(metric)
            found = work.certify(w, g, metric)
        if not (near and found.distance <= target) and work.passes < max_passes:
            step = work.advance(w, g, metric, target, fresh)
            if step is not None:
                w, g, metric = step
                continue
        metric, g = work.measured(metric), work.still(w, g, metric)
        found = work.certify(w, g, metric)
        return work.anchor(w, g, metric), found
