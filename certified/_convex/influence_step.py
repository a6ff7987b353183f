"""Deletion by the influence function: a step with the Hessian as it was, O(p^2) for any number of rows.

The rows enter through their summed gradient alone, and nothing is updated but this sum. What the Newton way would have
taken out of the Hessian is bounded: exactly along the step, by the leverages otherwise. Proof: theorem 2a of
``docs/theory/influence.rst``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from certified._convex import bounds, downdate
from certified._convex.bounds import TINY, UNIT, gamma, up
from certified._convex.derivatives import Blocks
from certified._convex.losses import Loss
from certified._convex.newton_cholesky import ended, less_penalty
from certified._convex.problem import Problem
from certified._convex.state import Anchor, Metric, Solution
from certified.typing import FloatArray

__all__ = ["delete"]

_ROWS = 4096
_LOOSE = 2.0**-5  # a bound of what left the Hessian by the largest leverage, above which it is measured
_SPECTRAL = 0.25


class _Gone(NamedTuple):
    """Rows that leave: their gradient, roots of their curvature, and rounding."""

    gradient: FloatArray  # (P,), whitened
    roots: list[FloatArray]  # of l'' with the weight, (k, K, K)
    bend: float  # sum of the traces of l'' with the weights
    bent: float  # the same, with the squares of ||V| |x_i||: in units of roundoff the error of :func:`_along`
    of_gradient: float
    of_W: float


def delete(problem: Problem, anchor: Anchor, rows: Blocks) -> tuple[Anchor, Solution]:
    """Delete rows by one influence step: O(k p + p^2) for k rows where their leverages are small, O(k p^2) at most.

    The parameters are those of :func:`certified._convex.newton_cholesky.delete`.
    """
    old, p = anchor.metric, len(anchor.g)
    V = old.inverse_factor
    with np.errstate(all="ignore"):
        gone = _gone(problem.loss, old, rows)
        W, g = old.W, anchor.g - gone.gradient
        more_g, more_W = gone.of_gradient + 4.0 * UNIT * (_norm(anchor.g) + _norm(g)), gone.of_W
        if old.ridge is not None:
            W, g, add_g, add_W = less_penalty(problem, anchor, W, g)
            more_g, more_W = more_g + add_g, more_W + add_W
        pi = -(old.P @ g)
        lost = _along(problem.loss, V, pi, rows, gone.roots)
        linear = _norm(g + pi - W @ pi - lost)
        taken = _taken(problem.loss, old, rows, gone)
    widen = 1.0 + gamma(p * p + 8)
    step = _norm(pi) * widen
    frobenius = _norm(W) * widen
    linear = linear * widen + gamma(p + 8) * (step * (2.0 + frobenius) + 2.0 * _norm(g))
    linear += gamma(4 * p + 2 * rows.s.size + 64) * gone.bent * step
    rho = up(old.rho + more_W)
    # What left is not in W: it is a drift from here on. Along this step it is known.
    metric = replace(old, W=W, eta=old.eta if old.ridge is None else frobenius, rho=rho)
    metric = replace(metric, drift=up(old.drift + taken))
    after = replace(anchor, metric=metric, g=g, pi=pi, envelope_g=up(anchor.envelope_g + more_g))
    return ended(replace(after, strength=problem.strength), linear, step, up(rho + old.drift))


def _gone(loss: Loss, metric: Metric, rows: Blocks) -> _Gone:
    """Sum over the rows without whitening any; the envelopes are those of :func:`downdate.downdate`."""
    V, w, K = metric.inverse_factor, metric.point, loss.outputs
    columns, errors = w.reshape(K, -1), np.sqrt(np.square(V).sum(axis=0)) * (1.0 + gamma(len(w) + 4))
    x, y, s = rows.x[0], rows.y[0], rows.s[0]
    offset = np.broadcast_to(rows.offset[0], s.shape)
    total, size_of_total = np.zeros(len(w)), np.zeros(len(w))
    roots: list[FloatArray] = []
    bends = bent = of_gradient = of_W = most_bend = 0.0
    room, p = _ROWS // K, x.shape[1]
    for start in range(0, len(s), room):
        part = slice(start, start + room)
        x_, s_, offset_ = x[part], s[part], offset[part]
        k = len(s_)
        slope, root, size = downdate._derivatives(loss, y[part], x_ @ columns.T + offset_[:, None])
        root = root * np.sqrt(s_)[:, None, None]
        roots.append(root)
        weighted = slope * s_[:, None]
        total = total + (weighted.T @ x_).ravel()
        size_of_total += (np.abs(weighted).T @ np.abs(x_)).ravel()
        length = np.abs(x_) @ errors.reshape(K, -1).T * (1.0 + gamma(p + 4))
        bend = np.square(root).sum(axis=2)
        score = 2.0 * UNIT * (p + 4) * (np.abs(x_) @ np.abs(columns).T + np.abs(offset_)[:, None])
        most = score.max(axis=1, keepdims=True)
        tau = 2.0 * bend * most + s_[:, None] * UNIT * (32.0 * size + 2.0 * (2 * p + k * K + 16) * np.abs(slope))
        relative = bend * (2.0 * UNIT * (2 * p + k * K + 2048) + 4.0 * loss.kappa * most)
        relative += s_[:, None] * (16.0 * UNIT * K if K > 1 else 0.0)
        of_gradient += float(np.sum(tau * length))
        of_W += K * float(np.sum(relative * np.square(length)))
        bends += float(bend.sum())
        bent += float(np.square(root).sum(axis=(1, 2)) @ np.square(length).sum(axis=1))
        most_bend = max(most_bend, float(bend.max(initial=0.0)))
    white = V @ total
    rounding = gamma(len(w) + len(s) // room + 8) * float(errors @ size_of_total)
    underflow = TINY * (1.0 + most_bend) * float(np.abs(V).sum())
    return _Gone(
        white, roots, bends * (1.0 + gamma(len(s) + 8)), bent, of_gradient + rounding + underflow, of_W + 2.0**-400
    )


def _pieces(loss: Loss, x: FloatArray, roots: list[FloatArray]) -> list[tuple[FloatArray, FloatArray]]:
    room = _ROWS // loss.outputs
    return [(x[start : start + room], root) for start, root in zip(range(0, len(x), room), roots, strict=True)]


def _along(loss: Loss, V: FloatArray, pi: FloatArray, rows: Blocks, roots: list[FloatArray]) -> FloatArray:
    """What left the whitened Hessian, times the step: shape (P,)."""
    columns = (pi @ V).reshape(loss.outputs, -1)
    total = np.zeros(len(pi))
    for x, root in _pieces(loss, rows.x[0], roots):
        moved = (x @ columns.T)[:, None, :] @ root  # (k, 1, K)
        total += ((moved @ np.swapaxes(root, 1, 2))[:, 0].T @ x).ravel()
    return V @ total


def _taken(loss: Loss, metric: Metric, rows: Blocks, gone: _Gone) -> float:
    """Bound the norm of what left the whitened Hessian."""
    bound = np.inf
    if loss.kappa > 0.0:
        # For several predictors l'' is half a sum over pairs of p_j p_k times the squared difference.
        longest = up(metric.M / loss.kappa)
        bound = up(gone.bend * longest * longest * (0.5 if loss.outputs > 1 else 1.0))
    if bound <= _LOOSE:
        return up(bound + gone.of_W)
    V, K, P = metric.inverse_factor, loss.outputs, len(metric.point)
    few, parts = rows.s.size * K <= min(P, _ROWS), V.reshape(P, K, -1)
    W = np.zeros((P, P)) if not few else np.zeros(0)
    for x, root in _pieces(loss, rows.x[0], gone.roots):
        white = downdate._each(x, parts)
        U = (np.swapaxes(root, 1, 2) @ white if K > 1 else root * white).reshape(-1, P)
        W = U @ U.T if few else W + U.T @ U  # few rows are in one piece; both products have the same norm
    size = _norm(W) * (1.0 + gamma(P * P + 8))
    if size > _SPECTRAL:
        size = min(size, bounds.largest_eigenvalue(W))
    return up(min(bound, size) + gone.of_W + gamma(2 * P + rows.s.size + 16) * float(np.trace(W)))


def _norm(array: FloatArray) -> float:
    """Euclidean (Frobenius) norm."""
    flat = array.ravel()
    return float(np.sqrt(flat @ flat))
