"""Minimisers without a subject, for many subjects at once: one Newton step each, bounded without a pass for each.

Theorem 4 of ``docs/theory/influence.rst``: with the whitened gradient c and curvature W of the subject's own terms, the
step ``(I - W)^-1 c`` ends near the minimiser without the subject, and how near follows from the length of the step, the
leverages of the rows and their fourth moments, all of which a pass over all rows tells once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from certified._convex import bounds, downdate, newton_cholesky
from certified._convex.bounds import TINY, UNIT, gamma, up
from certified._convex.derivatives import bends, predictors
from certified._convex.losses import Loss
from certified._convex.passes import _blocks
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.vector_bounds import above, distance, remainder
from certified._data.rows import Rows
from certified.errors import CannotCertify
from certified.typing import FloatArray, IntArray

__all__ = ["LeftOut", "Minimised", "Setting", "leave_out", "reading_errors", "setting"]

_ROWS = 4096  # rows of subjects that are worked on at once
_SPECTRAL = 0.25  # sizes of W worth an eigenvalue
_FRESH = 2.0**-20  # drift of the Hessian
_ROUNDS = 4  # of the solution where a part of the penalty leaves with the rows


class Minimised(NamedTuple):
    """What an estimator minimises, on which rows, and where it is.

    Attributes
    ----------
    problem : Problem
    rows : Rows
    noise_metric : NoiseMetric
    start : array of shape (P,)
        The present parameter.
    tol : float
        Distance to the minimiser, in the noise metric, from which on no pass is made.
    max_iter : int
    grid : array of shape (P + 1,) or None
        How far values of each column of ``[x, y] sqrt(weight)`` are read from what they are; None for exactly.
    """

    problem: Problem
    rows: Rows
    noise_metric: NoiseMetric
    start: FloatArray
    tol: float
    max_iter: int
    grid: FloatArray | None = None


@dataclass(frozen=True)
class Setting:
    """A point near the minimiser on all retained rows, and what bounds every minimiser without a subject.

    Attributes
    ----------
    problem : Problem
    point : array of shape (P,)
        w.
    inverse_factor : array of shape (P, P)
        V, which defines the metric ``A = (V'V)^-1``.
    errors : array of shape (P,)
        Lengths of the columns of V, rounded up: standard errors of the entries of w.
    rho : float
        ``||V Hess F(w) V' - I|| <= rho``.
    M, quartic : float
        At least ``kappa max ||V x_i||``, and the root of the largest eigenvalue of
        ``kappa^2 sum_i s_i l''_i ||V x_i||^2 V x_i x_i' V'``.
    distance : float
        ``||w - w*||_A`` is at most this.
    ridge : array of shape (P, P) or None
        ``V diag(penalized) V'``, where rows take a part of the penalty with them.
    ridge_top : float
        Its largest eigenvalue or more.
    share : float
        Strength of the penalty that leaves with a unit of weight.
    """

    problem: Problem
    point: FloatArray
    inverse_factor: FloatArray
    errors: FloatArray
    rho: float
    M: float
    quartic: float
    distance: float
    ridge: FloatArray | None
    ridge_top: float
    share: float


class LeftOut(NamedTuple):
    """What leaving each subject out does.

    Attributes
    ----------
    change : array of shape (m, P)
        Of the minimiser.
    error : array of shape (m,)
        Upper bound of the distance between this and the exact change, in the metric A; inf where there is none.
    size : array of shape (m,)
        Upper bound of the length of the change in the metric A.
    leverage : array of shape (m,)
        Trace of the subject's part of the Hessian.
    gain : array of shape (m,)
        By how much the objective without the subject falls, to second order.
    least : array of shape (m,)
        The Hessian at the end of the step is at least this times A.
    """

    change: FloatArray
    error: FloatArray
    size: FloatArray
    leverage: FloatArray
    gain: FloatArray
    least: FloatArray


def setting(of: Minimised) -> Setting:
    """Form the Hessian where the estimator is, and measure; passes follow where the minimiser is too far."""
    problem, rows, noise_metric, start, tol, max_iter, _ = of
    anchor, found = newton_cholesky.improve(
        problem, rows, rows.weight, noise_metric, start, tol, fresh=_FRESH, max_passes=max_iter
    )
    metric, p = anchor.metric, len(start)
    nu = up(float(np.linalg.norm(anchor.g)) * (1.0 + gamma(p + 4)) + anchor.envelope_g)
    off = bounds.theorem1(nu, metric.M, metric.low)
    if not np.isfinite(off):
        raise CannotCertify(
            f"The distance to the minimiser is unknown after {found.passes} passes, so no influence can be bounded. "
            "Scale the features (StandardScaler), add a penalty, or raise max_iter. Nothing was changed."
        )
    V = metric.inverse_factor
    errors = np.sqrt(np.square(V).sum(axis=0)) * (1.0 + gamma(p + 4))
    top = 0.0 if metric.ridge is None else bounds.largest_eigenvalue(metric.ridge) * (1.0 + gamma(2 * p + 4))
    top = up(top + gamma(2 * p + 4) * float(np.square(np.abs(V) * problem.penalized).sum()))
    share = problem.strength / max(float(np.sum(rows.weight)), 1e-300)
    quartic = _quartic(problem.loss, rows, found.w, V, errors, metric.rho)
    return Setting(
        problem, found.w, V, errors, up(metric.rho + metric.drift), metric.M, quartic, off, metric.ridge, top, share
    )


def _quartic(loss: Loss, rows: Rows, w: FloatArray, V: FloatArray, errors: FloatArray, rho: float) -> float:
    """The root of the largest eigenvalue of the fourth moments, times kappa; inf where M alone is used."""
    if loss.kappa == 0.0:
        return 0.0
    if loss.outputs > 1:
        return np.inf
    blocks, p = _blocks(rows, rows.weight), len(w)
    with np.errstate(all="ignore"):
        curvature = np.asarray(bends(loss, blocks.y, predictors(loss, blocks, w)))
    total, spread = np.zeros((p, p)), 0.0
    for x, s, bend in zip(blocks.x, blocks.s, curvature, strict=True):
        white = x @ V.T
        weight = np.where(s > 0.0, s * bend, 0.0)
        off = gamma(p + 4) * (np.abs(x) @ errors)
        length = np.sqrt(np.einsum("ij,ij->i", white, white)) * (1.0 + gamma(p + 4)) + off
        scaled = white * (np.sqrt(weight) * length)[:, None]
        total += scaled.T @ scaled
        spread += float(np.sum(weight * np.square(length * off)))
    if not np.all(np.isfinite(total)):
        return np.inf
    trace = float(np.trace(total))
    chain = blocks.s[0].size + len(blocks.s) + 2 * p + 64
    top = bounds.largest_eigenvalue(total) + gamma(chain) * trace
    # The curvatures are off by no more than rho says of the Hessian they add up to.
    return up(loss.kappa * (np.sqrt(top) + np.sqrt(spread)) * (1.0 + rho + gamma(chain)))


def leave_out(base: Setting, rows: Rows, order: IntArray, starts: IntArray) -> LeftOut:
    """Leave out one subject after the other: O(n P^2) for all of them.

    Parameters
    ----------
    order : int array
        Positions of rows, those of a subject behind each other.
    starts : int array of shape (m + 1,)
        Where the rows of each subject start in `order`, and the end.
    """
    m, P = len(starts) - 1, len(base.point)
    found = LeftOut(np.empty((m, P)), *(np.empty(m) for _ in LeftOut._fields[1:]))
    for chunk, k in _chunks(np.diff(starts), base.problem.loss.outputs):
        places = order[starts[chunk][:, None] + np.arange(k)]
        with np.errstate(all="ignore"):
            part = _of_few(base, rows, places) if k * base.problem.loss.outputs <= P else _of_many(base, rows, places)
        for whole, piece in zip(found, part, strict=True):
            whole[chunk] = piece
    return found


def _chunks(sizes: IntArray, outputs: int) -> Iterator[tuple[IntArray, int]]:
    """Yield subjects with the same number of rows, and this number."""
    by_size = np.argsort(sizes, kind="stable")
    bounds_ = np.flatnonzero(np.diff(sizes[by_size], prepend=-1))
    for low, high in zip(bounds_, [*bounds_[1:], len(sizes)], strict=True):
        k = int(sizes[by_size[low]])
        step = max(1, _ROWS // (k * outputs))
        for start in range(low, high, step):
            yield by_size[start : min(start + step, high)], k


class _Terms(NamedTuple):
    """Of m subjects, whitened: gradients (m, P), roots of curvature (m, r, P), and their rounding."""

    gradient: FloatArray
    U: FloatArray
    of_gradient: FloatArray
    of_W: FloatArray
    lost: FloatArray  # strength of the penalty that leaves


def _terms(base: Setting, rows: Rows, places: IntArray) -> _Terms:
    """Whitened terms of subjects with k rows each; `places` has the shape (m, k). As in :func:`downdate.downdate`."""
    loss, V, w = base.problem.loss, base.inverse_factor, base.point
    (m, k), K, P = places.shape, loss.outputs, len(w)
    flat = places.ravel()
    x, y, s = rows.x[flat], rows.y[flat], rows.weight[flat]
    offset = np.zeros(len(flat)) if rows.offset is None else rows.offset[flat]
    columns, parts = w.reshape(K, -1), V.reshape(P, K, -1)
    p = x.shape[1]
    slope, root, size = downdate._derivatives(loss, y, x @ columns.T + offset[:, None])
    root = root * np.sqrt(s)[:, None, None]
    bend = np.square(root).sum(axis=2)
    absolute = np.abs(x)
    length = absolute @ base.errors.reshape(K, -1).T * (1.0 + gamma(p + 4))  # at least || |V_k| |x_i| ||
    score = 2.0 * UNIT * (p + 4) * (absolute @ np.abs(columns).T + np.abs(offset)[:, None])
    most = score.max(axis=1, keepdims=True)
    tau = 2.0 * bend * most + s[:, None] * UNIT * (32.0 * size + 2.0 * (2 * p + k * K + 16) * np.abs(slope))
    relative = bend * (2.0 * UNIT * (2 * p + k * K + 2048) + 4.0 * loss.kappa * most)
    relative += s[:, None] * (16.0 * UNIT * K if K > 1 else 0.0)
    gradient_rounding = np.sum((tau * length).reshape(m, -1), axis=1)
    W_rounding = K * np.sum((relative * np.square(length)).reshape(m, -1), axis=1)
    white = downdate._each(x, parts)  # (m k, K, P)
    U = (np.swapaxes(root, 1, 2) @ white if K > 1 else root * white).reshape(m, k * K, P)
    weights = (slope * s[:, None]).reshape(m, k * K)
    white = white.reshape(m, k * K, P)
    gradient = weights * white[:, 0] if k * K == 1 else np.einsum("mr,mrp->mp", weights, white)
    lost = np.zeros(m)
    if base.ridge is not None:
        lost = base.share * s.reshape(m, k).sum(axis=1)
        pull = base.problem.penalized * w
        gradient = gradient + lost[:, None] * (V @ pull)
        gradient_rounding += lost * gamma(P + k + 2048) * float(base.errors @ np.abs(pull))
        W_rounding += lost * gamma(2 * P + k + 2048) * float(np.square(base.errors * base.problem.penalized).sum())
    gradient_rounding += TINY * (1.0 + bend.max(initial=0.0)) * float(np.abs(V).sum())
    return _Terms(gradient, U, gradient_rounding, W_rounding + 2.0**-400, lost)


def _of_few(base: Setting, rows: Rows, places: IntArray) -> LeftOut:
    """Subjects with fewer rows than there are parameters: Woodbury's identity."""
    t = _terms(base, rows, places)
    _, r, P = t.U.shape
    eye = np.eye(r)
    if r == 1:
        u = t.U[:, 0]
        gram = np.einsum("mp,mp->m", u, u)
        trace = eta = gram

        def times_W(v: FloatArray) -> FloatArray:
            return u * np.einsum("mp,mp->m", u, v)[:, None]

        def solved(v: FloatArray) -> FloatArray:
            return v + u * (np.einsum("mp,mp->m", u, v) / (1.0 - gram))[:, None]
    else:
        G = t.U @ np.swapaxes(t.U, 1, 2)
        trace = np.einsum("mrr->m", G)
        eta = np.sqrt(np.square(G).sum(axis=(1, 2)))
        worth = np.flatnonzero(eta > _SPECTRAL)
        if worth.size:
            eta = eta.copy()
            eta[worth] = np.minimum(eta[worth], [bounds.largest_eigenvalue(G[i]) for i in worth])

        def times_W(v: FloatArray) -> FloatArray:
            return np.einsum("mrp,mr->mp", t.U, np.einsum("mrp,mp->mr", t.U, v))

        def solved(v: FloatArray) -> FloatArray:
            core = np.einsum("mrp,mp->mr", t.U, v)[..., None]
            try:
                inner = np.linalg.solve(eye - G, core)
            except np.linalg.LinAlgError:
                inner = core  # a poor solution: its residual is measured
            return v + np.einsum("mrp,mr->mp", t.U, inner[..., 0])

    pi = solved(t.gradient)
    if base.ridge is not None:
        for _ in range(_ROUNDS):
            pi = solved(t.gradient + t.lost[:, None] * (pi @ base.ridge))
    rest = t.gradient - pi + times_W(pi)
    if base.ridge is not None:
        rest = rest + t.lost[:, None] * (pi @ base.ridge)
    # G has the eigenvalues of W.
    eta = above(eta * (1.0 + gamma(P + r * r + 8)) + gamma(P + 8) * trace)
    return _bounded(base, t, pi, rest, eta, trace, r)


def _of_many(base: Setting, rows: Rows, places: IntArray) -> LeftOut:
    """Subjects (groups) with more rows than there are parameters, one after the other."""
    found, P = [], len(base.point)
    for subject in places:
        W, gradient, of_gradient, of_W, lost, r = np.zeros((P, P)), np.zeros(P), 0.0, 0.0, 0.0, 0
        for start in range(0, len(subject), _ROWS // base.problem.loss.outputs):
            t = _terms(base, rows, subject[None, start : start + _ROWS // base.problem.loss.outputs])
            W += t.U[0].T @ t.U[0]
            gradient += t.gradient[0]
            r += t.U.shape[1]
            lost += t.lost[0]
            of_gradient += float(t.of_gradient[0]) + 4.0 * UNIT * float(np.linalg.norm(gradient))
            of_W += float(t.of_W[0])
        trace = float(np.trace(W))
        of_W += gamma(r + 8) * trace
        whole = W if base.ridge is None else W + lost * base.ridge
        try:
            pi = np.asarray(np.linalg.solve(np.eye(P) - whole, gradient), dtype=np.float64)
        except np.linalg.LinAlgError:
            pi = gradient
        rest = gradient - pi + whole @ pi
        eta = float(np.linalg.norm(W)) * (1.0 + gamma(P * P + 8))
        if eta > _SPECTRAL:
            eta = min(eta, bounds.largest_eigenvalue(W))
        one: list[FloatArray] = [np.full(1, v) for v in (of_gradient, of_W, lost, eta, trace)]
        terms = _Terms(gradient[None], t.U, *one[:3])
        found.append(_bounded(base, terms, pi[None], rest[None], one[3], one[4], r))
    return LeftOut(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _bounded(
    base: Setting, t: _Terms, pi: FloatArray, rest: FloatArray, eta: FloatArray, trace: FloatArray, r: int
) -> LeftOut:
    """Theorem 4: bound the distance of each step's end from the minimiser without the subject."""
    P = pi.shape[1]
    step = _lengths(pi)
    eta = above(eta + t.lost * base.ridge_top + t.of_W)
    linear = _lengths(rest) + gamma(2 * P + r + 16) * (step * (2.0 + trace + t.lost * base.ridge_top))
    linear += 4.0 * gamma(P + r + 16) * _lengths(t.gradient) + t.of_gradient
    drift = up(base.M * base.distance)
    factor = up(np.exp(min(drift, 700.0)) * (1.0 + 1e-12))
    curvature = (1.0 + base.rho) * factor
    by_moments = 0.5 * base.quartic * step**2 * above(_shape(base.M * step)) * np.sqrt(1.0 + base.rho) * factor
    by_longest = curvature * remainder(base.M * step) * step
    taylor = np.where(by_moments < by_longest, by_moments, by_longest)  # NaN (inf * 0) is not less
    moved = factor * eta * base.distance + (factor - 1.0 + 4.0 * UNIT) * (1.0 + base.rho) * step
    nu = above(linear + (base.rho + t.of_W) * step + moved + taylor)
    least = (1.0 - base.rho - eta) * np.exp(-np.minimum(drift + base.M * step, 700.0)) * (1.0 - 1e-12)
    error = above(distance(nu, base.M, least) + gamma(P + 4) * step)
    change = pi @ base.inverse_factor
    gain = 0.5 * np.einsum("mp,mp->m", t.gradient, pi)
    return LeftOut(change, np.where(np.isnan(error), np.inf, error), step, trace, gain, least)


def _shape(b: FloatArray) -> FloatArray:
    """``2 h(b) / b``, at least 1, from :func:`remainder` h."""
    small = b < 1e-8
    safe = np.where(small, 1.0, b)
    return np.where(small, 1.0 + b, 2.0 * remainder(safe) / safe)


def _lengths(rows: FloatArray) -> FloatArray:
    """Euclidean norms of rows, rounded up."""
    return np.sqrt(np.einsum("mp,mp->m", rows, rows)) * (1.0 + gamma(rows.shape[1] + 4)) + 1e-300


def reading_errors(base: Setting, of: Minimised, found: LeftOut) -> FloatArray:
    """Bound how far reading values on a grid moves each change, shape (m,): for models that are exact on the grid.

    Both minimisers, with and without the subject, move; squared loss.
    """
    assert of.grid is not None
    rows, w, rho = of.rows, base.point, base.rho
    eta, eta_y, n = of.grid[:-1], float(of.grid[-1]), int(np.count_nonzero(rows.weight))
    q = float(base.errors @ eta) * np.sqrt(n)
    rest = np.abs(rows.x @ w - rows.y) + gamma(len(w) + 4) * (np.abs(rows.x) @ np.abs(w) + np.abs(rows.y))
    value = float(rows.weight @ np.square(rest)) + float(of.problem.penalty @ np.square(w))
    far = base.distance + found.size + found.error
    most = (float(eta @ np.abs(w)) + float(eta @ base.errors) * far + eta_y) * np.sqrt(n)
    moved = q * np.sqrt(value) * (1.0 + 1e-9) + (np.sqrt(1.0 + rho) + q) * most
    least = np.minimum(found.least, 1.0 - rho) - 2.0 * q * np.sqrt(1.0 + rho) - q * q
    # What is solved for is rounded, too.
    root = 2.0 * np.sqrt(np.square(of.noise_metric.root_x) + of.problem.penalty)
    stored = 64.0 * UNIT * (float(np.abs(w) @ root) + float(base.errors @ root) * far)
    return above(np.where(least > 0.0, 2.0 * moved / np.where(least > 0.0, least, 1.0), np.inf) + 2.0 * stored)
