"""The minimiser without a subject by passes over the retained rows, where one step is not enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from certified._convex import bounds, newton_cholesky
from certified._convex.bounds import UNIT, gamma, up
from certified._convex.iteration import Iteration
from certified._convex.leave_out import LeftOut, Minimised, Setting
from certified.errors import CannotCertify
from certified.typing import IntArray

__all__ = ["by_passes"]


def by_passes(base: Setting, of: Minimised, found: LeftOut, order: IntArray, starts: IntArray, most: int) -> None:
    """Give the first `most` subjects without a bound one by passes of their own; `found` is changed in place.

    The distance that theorem 1 measures in the metric of the retained rows becomes one in that of all rows by the
    largest eigenvalue of their ratio. Subjects without whom there is no minimiser keep the infinite bound.
    """
    unknown = np.flatnonzero(~np.isfinite(found.error))[:most]
    if not unknown.size:
        return
    work = Iteration(of.problem, of.rows, of.rows.weight, of.noise_metric, of.max_iter)
    hessian = work.rows.curvature(of.problem.loss, base.point) + of.problem.curvature()
    try:
        factor = cholesky(hessian, lower=True, check_finite=False)
    except LinAlgError:
        return
    root = np.sqrt(np.maximum(np.diag(hessian), np.square(of.noise_metric.root_x))) * (1.0 + 2.0**-20)
    for i in unknown:
        rows = order[starts[i] : starts[i + 1]]
        weight = of.rows.weight.copy()
        weight[rows] = 0.0
        lost = base.share * float(of.rows.weight[rows].sum()) if base.ridge is not None else 0.0
        problem = replace(of.problem, strength=of.problem.strength - lost)
        if not np.any(weight > 0.0):
            continue
        try:
            anchor, _ = newton_cholesky.improve(
                problem, of.rows, weight, of.noise_metric, base.point, of.tol, max_passes=of.max_iter
            )
        except CannotCertify:
            continue
        metric, p = anchor.metric, len(base.point)
        nu = up(float(np.linalg.norm(anchor.g)) * (1.0 + gamma(p + 4)) + anchor.envelope_g)
        t = bounds.theorem1(nu, metric.M, metric.low)
        k = bounds.metric_constant(factor, metric.inverse_factor, root)
        a = float(np.linalg.norm(np.abs(metric.inverse_factor) @ root))
        k = up(float(np.sqrt(k * k + _hessian_rounding(work, base) * a * a)) / float(np.sqrt(1.0 - base.rho)))
        change = metric.point - base.point
        # The strength that is left, the difference and the points are rounded.
        of_strength = gamma(4096) * of.problem.strength * float(np.abs(problem.penalized * metric.point) @ base.errors)
        rounding = 8.0 * UNIT * float((np.abs(metric.point) + np.abs(base.point)) @ root)
        error = up(k * (t + (of_strength * k / metric.low if lost else 0.0)) + base.distance + rounding)
        if np.isfinite(error):
            found.change[i], found.error[i] = change, error
            length = float(np.linalg.norm(factor.T @ change))
            spread = 16.0 * _hessian_rounding(work, base) * float(root @ np.abs(change)) ** 2
            found.size[i] = up(float(np.sqrt((length * length + spread) / (1.0 - base.rho))) * (1.0 + 2.0**-30))
            found.least[i] = metric.low / max(k * k, 1.0)


def _hessian_rounding(work: Iteration, base: Setting) -> float:
    """Relative rounding of the Hessian's entries, as :meth:`Iteration.metric` has it."""
    peak = float(np.max(np.abs(base.point).reshape(base.problem.loss.outputs, -1) @ work.peak))
    score = gamma(len(base.point) + 4) * (up(peak) + work.rows.most_offset)
    return gamma(work.rows.chain + 2048) + 4.0 * base.problem.loss.kappa * score
