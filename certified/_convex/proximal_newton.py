"""The certified convex head with an L1 penalty: the gradient gives way to a subgradient, the theorems stay.

Both ways of :mod:`certified._convex.newton_cholesky` exist: :func:`delete` removes rows without a pass over those that
stay, by one minimisation of the quadratic model with the penalty; :func:`improve` passes over the rows until a target
is met.

Proofs: ``docs/theory/bounds.rst``, "A penalty with corners". Tests: ``tests/convex/test_proximal_newton.py``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import solve_triangular

from certified._convex import bounds, downdate
from certified._convex.active_set import search
from certified._convex.bounds import UNIT, gamma, or_inf, theorem1, up
from certified._convex.derivatives import Blocks
from certified._convex.downdate import Downdate
from certified._convex.iteration import Gradient, Iteration
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.state import Anchor, Metric, Solution, Terms
from certified._data.rows import Rows
from certified.typing import FloatArray

__all__ = ["delete", "improve", "subgradient"]

_SLOW = 0.25  # a step with an old Hessian that leaves more of the gradient is the last one with it
_STALLED = 3  # steps in a row that hardly shrank the gradient


def subgradient(problem: Problem, w: FloatArray, gradient: FloatArray) -> FloatArray:
    """Return a subgradient of the L1 penalty at w that makes its sum with the gradient small, shape (p,)."""
    edge = problem.l1_strength * problem.penalized
    return np.where(w == 0.0, np.clip(-gradient, -edge, edge), edge * np.sign(w))


def delete(problem: Problem, anchor: Anchor, rows: Blocks) -> tuple[Anchor, Solution]:
    """Delete rows by theorem 2: O(k p^2 + p^3) for k rows, whatever the number of retained rows."""
    old, p = anchor.metric, len(anchor.g)
    V = old.inverse_factor
    with np.errstate(all="ignore"):
        before = Downdate(old.W, old.P, anchor.g)
        (W, P, g), more_g, more_W = downdate.downdate(problem.loss, old.point, V, before, rows)
        L = solve_triangular(V, np.eye(p), lower=True, check_finite=False)
        w = _proposed(problem, old.point, L @ g, L @ (np.eye(p) - W) @ L.T)
        step = w - old.point
        pi = L.T @ step
        linear = g + pi - W @ pi
        corners = subgradient(problem, w, L @ linear)
        linear = linear + V @ corners
        widen = 1.0 + gamma(p * p + 8)
        frobenius = float(np.linalg.norm(W)) * widen
        # The point is w itself; V'pi misses it by this much.
        slip = np.abs(step - pi @ V) + gamma(p + 8) * (np.abs(pi) @ np.abs(V))
        slip += 4.0 * UNIT * (np.abs(w) + np.abs(old.point))
        slipped = up(2.0 * float(slip @ old.root))
        length = up(float(np.linalg.norm(pi)) * widen + slipped)
        residual = float(np.linalg.norm(linear)) * widen + slipped * (1.0 + frobenius)
        rounding = float(np.linalg.norm(g)) + length * (2.0 + frobenius)
        residual += 2.0 * gamma(p + 8) * (rounding + float(np.linalg.norm(np.abs(V) @ np.abs(corners))))
    metric = replace(old, W=W, P=P, eta=frobenius, rho=up(old.rho + more_W))
    after = replace(anchor, metric=metric, g=g, pi=pi, envelope_g=up(anchor.envelope_g + more_g))
    rho = up(metric.rho + metric.drift)
    finite = np.isfinite(length) and np.isfinite(residual)
    nu = bounds.theorem2(up(residual + after.envelope_g), length, metric.M, rho, metric.rise) if finite else np.inf
    b = up(metric.M * length)
    t = theorem1(nu, metric.M, metric.low * float(np.exp(-min(b, 700.0))) * (1.0 - 1e-12))
    terms = Terms(
        nu=nu,
        M=metric.M,
        b=b,
        eta=metric.eta,
        rho=rho,
        k_G=metric.k_G,
        step=length,
        rounding_envelope=up(metric.k_G * after.envelope_g),
    )
    weight = up(float(np.abs(w) @ anchor.noise_metric.root))
    return after, Solution(w, or_inf(up(metric.k_G * t)), "predicted", terms, weight)


def improve(
    problem: Problem,
    rows: Rows,
    weight: FloatArray,
    noise_metric: NoiseMetric,
    start: FloatArray,
    target: float,
    *,
    anchor: Anchor | None = None,
    rest: float | None = None,
    fresh: float = 2.0**-7,
    max_passes: int = 100,
) -> tuple[Anchor, Solution]:
    """Make passes over the retained rows until the distance in the noise metric is at most `target`.

    Parameters and errors are those of :func:`certified._convex.newton_cholesky.improve`.
    """
    work = Iteration(problem, rows, weight, noise_metric, max_passes)
    asked = target
    if rest is not None:
        target, fresh = 2.0**-10 * rest or 0.25 * target, np.inf
    w, last, stalled = start, np.inf, 0
    metric = None if anchor is None else work.reused(anchor)
    formed = metric is None
    metric = work.metric(w) if metric is None else metric
    g = work.gradient(w, 0.0 if formed else np.inf)
    best = None
    while True:
        g, metric = work.still(w, g, metric), work.measured(metric)
        found, envelope = _certify(work, w, g, metric)
        nu = found.terms.nu
        old = work.old(g, metric, fresh)
        if best is None or not found.distance > best[1].distance:
            best = (work.anchor(w, g, metric), found)
        done = found.distance <= target or nu <= 4.0 * envelope
        if done and old and not formed and work.passes < max_passes:
            metric, formed = work.metric(w), True  # a good anchor for the deletions to come
            g = replace(g, moved=0.0)
            continue
        stalled = stalled + 1 if nu > 0.9 * last else 0
        if done or work.passes >= max_passes or stalled > _STALLED:
            if rest is None:
                return best[0], replace(best[1], passes=work.passes)
            w, g, metric = work.settled(best[1].w, min(max(best[1].distance, rest), 0.25 * asked))
            found, _ = _certify(work, w, g, metric)
            return work.anchor(w, g, metric), found
        if nu > _SLOW * last and not formed:
            metric, formed, last = work.metric(w), True, np.inf
            g = replace(g, moved=0.0)
            continue
        last = min(last, nu)
        w = _advanced(work, w, g, metric)
        formed = False
        g = work.gradient(w, np.inf)


def _certify(work: Iteration, w: FloatArray, g: Gradient, metric: Metric) -> tuple[Solution, float]:
    """Bound the distance by theorem 1; return it with the rounding envelope of nu."""
    V, p = metric.inverse_factor, len(w)
    corners = subgradient(work.problem, w, g.value)
    envelope = up(work.envelope(w, g, metric) + gamma(p + 4) * float(np.linalg.norm(np.abs(V) @ np.abs(corners))))
    nu = up(float(np.linalg.norm(V @ (g.value + corners))) * (1.0 + gamma(p + 4)) + envelope)
    low, rho = work.drifted(g, metric)
    terms = Terms(
        nu=nu,
        M=metric.M,
        b=up(metric.M * nu),
        eta=metric.eta,
        rho=rho,
        k_G=metric.k_G,
        rounding_envelope=up(metric.k_G * envelope),
    )
    distance = or_inf(up(metric.k_G * theorem1(nu, metric.M, low)))
    weight = up(float(np.abs(w) @ work.noise_metric.root))
    return Solution(w, distance, "measured", terms, weight, work.passes), envelope


def _advanced(work: Iteration, w: FloatArray, g: Gradient, metric: Metric) -> FloatArray:
    """Minimise the quadratic model with the penalty; of a long step the part that is proved to descend."""
    p, loss = len(w), work.problem.loss
    L = solve_triangular(metric.inverse_factor, np.eye(p), lower=True, check_finite=False)
    proposed = _proposed(work.problem, w, g.value, L @ (np.eye(p) - metric.W) @ L.T)
    reach = loss.kappa * work.rows.reach(loss, proposed - w)
    return proposed if reach <= 1.0 else w + float(np.log1p(reach) / reach) * (proposed - w)


def _proposed(problem: Problem, w: FloatArray, gradient: FloatArray, hessian: FloatArray) -> FloatArray:
    """Minimise ``gradient'(v - w) + (v - w)' hessian (v - w) / 2 + l1_strength ||v||_1`` over v, starting at w."""
    root = np.sqrt(np.maximum(np.diag(hessian), 1e-300))  # a unit diagonal
    scaled = hessian / np.outer(root, root)
    q = scaled @ (w * root) - gradient / root
    if not (np.all(np.isfinite(scaled)) and np.all(np.isfinite(q))):
        return np.full_like(w, np.nan)
    return search(scaled, q, problem.l1_strength * problem.penalized / root, 0.0, w * root, settled=True) / root
