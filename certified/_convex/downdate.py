"""A factorised Hessian less the rows deleted since: low-rank downdates on the host, with rounding envelopes."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from certified._convex.derivatives import _SMALL, _TINY, _UNIT, Blocks
from certified._convex.losses import Loss
from certified.typing import FloatArray

__all__ = ["Downdate", "downdate", "factorise", "longest"]

_WOODBURY = 32  # up to this many rows update the inverse, more rows invert anew


_ROWS = 4096  # rows deleted at once


def factorise(hessian: FloatArray) -> FloatArray | None:
    """Return the inverse V of the lower Cholesky factor, shape (P, P), or None if there is none in float64.

    The matrix is scaled to a unit diagonal first, which is the best diagonal scaling up to a factor P.
    """
    diagonal = np.diag(hessian)
    if not (np.all(np.isfinite(hessian)) and np.all(diagonal > 0)):
        return None
    root = np.sqrt(diagonal)
    try:
        factor = cholesky(hessian / np.outer(root, root), lower=True, check_finite=False)
    except LinAlgError:
        return None
    inverse = solve_triangular(factor, np.eye(len(root)), lower=True, check_finite=False)
    return np.ascontiguousarray(np.tril(inverse) / root)


class Downdate(NamedTuple):
    """What has been removed since the Hessian was formed, in whitened coordinates.

    Attributes
    ----------
    W : array of shape (P, P)
        ``V (sum_S s_i l''_i x_i x_i') V'``.
    P : array of shape (P, P)
        An approximate inverse of ``I - W``; its error is measured, never assumed.
    g : array of shape (P,)
        ``V grad F_{D'}(w)``.
    """

    W: FloatArray
    P: FloatArray
    g: FloatArray


def downdate(
    loss: Loss, w: FloatArray, inverse_factor: FloatArray, before: Downdate, rows: Blocks, sign: float = 1.0
) -> tuple[Downdate, float, float]:
    """Delete rows at w, or with sign -1 add them: O(k P^2), independent of the number of retained rows.

    It runs on the host: for the few rows of a request, starting a compiled program costs more than the work.

    Parameters
    ----------
    w : array of shape (P,)
    inverse_factor : array of shape (P, P)
        V.
    rows : Blocks
        The k rows to remove, in one block.

    Returns
    -------
    before : Removal
    envelope_g, envelope_W : float
        Bounds of the rounding errors that this call adds to g (2-norm) and W (Frobenius norm).
    """
    W, P, g = before
    added_g = added_W = 0.0
    U = None
    K = loss.outputs
    parts = inverse_factor.reshape(len(w), K, -1)
    absolute = np.abs(parts)
    columns = w.reshape(K, -1)
    x, y, s = rows.x[0], rows.y[0], rows.s[0]
    offset = np.broadcast_to(rows.offset[0], s.shape)
    room = _ROWS // K
    for start in range(0, len(s), room):
        part = slice(start, start + room)
        x_, s_, offset_ = x[part], s[part], offset[part]
        k, p = x_.shape
        slope, root, size = _derivatives(loss, y[part], x_ @ columns.T + offset_[:, None])
        white = _each(x_, parts)
        # One row of U for every column of the square root of the curvature.
        root = root * np.sqrt(s_)[:, None, None]
        U = (np.swapaxes(root, 1, 2) @ white if K > 1 else root * white).reshape(k * K, -1)
        g = g - sign * ((slope * s_[:, None]).ravel() @ white.reshape(k * K, -1))
        W = W + sign * (U.T @ U)
        # Envelopes: || |V_k||x_i| ||^2 for each predictor, and the rounding of the predictors.
        length = np.square(_each(np.abs(x_), absolute)).sum(axis=2)
        bend = np.square(root).sum(axis=2)  # with the weight of the row
        score = 2.0 * _UNIT * (p + 4) * (np.abs(x_) @ np.abs(columns).T + np.abs(offset_)[:, None])
        most = score.max(axis=1, keepdims=True)
        tau = 2.0 * bend * most + s_[:, None] * _UNIT * (32.0 * size + 2.0 * (2 * p + k * K + 16) * np.abs(slope))
        added_g += float(np.sum(tau * np.sqrt(length))) + 4.0 * _UNIT * (_norm(before.g) + _norm(g))
        # Entries of the root of a curvature matrix are off by a few units of 1, not of themselves.
        relative = bend * (2.0 * _UNIT * (2 * p + k * K + 2048) + 4.0 * loss.kappa * most)
        relative += s_[:, None] * (16.0 * _UNIT * K if K > 1 else 0.0)
        added_W += K * float(np.sum(relative * length)) + 4.0 * _UNIT * _norm(W) + _SMALL
        added_g += _TINY * (1.0 + float(bend.max(initial=0.0))) * float(absolute.sum())
    if U is not None:
        P = _updated_inverse(W, P, U if len(s) * K <= _WOODBURY else None, sign)
    return Downdate(W, P, g), added_g, added_W


def longest(loss: Loss, inverse_factor: FloatArray, x: FloatArray) -> float:
    """Bound ``max ||V x_i||`` over a few rows (k, p); for several predictors, of their differences."""
    K = loss.outputs
    parts = inverse_factor.reshape(len(inverse_factor), K, -1)
    white = _each(x, parts)
    absolute = _each(np.abs(x), np.abs(parts))
    rounding = 4.0 * _UNIT * (x.shape[1] + 8) * float(np.sqrt(np.square(absolute.sum(axis=1)).sum(axis=1)).max())
    if K > 1:
        white = (white[:, :, None] - white[:, None]).reshape(len(x), K * K, -1)
    return float(np.sqrt(np.square(white).sum(axis=2)).max()) * (1.0 + 2.0**-40) + rounding


def _each(x: FloatArray, parts: FloatArray) -> FloatArray:
    """``V_k x_i`` for every row and predictor, shape (k, K, P), from parts of shape (P, K, p)."""
    P, K, p = parts.shape
    if K == 1:
        return (x @ parts[:, 0].T)[:, None]
    return (x @ parts.reshape(P * K, p).T).reshape(len(x), P, K).transpose(0, 2, 1)


def _updated_inverse(W: FloatArray, P: FloatArray, U: FloatArray | None, sign: float) -> FloatArray:
    """Approximate inverse of ``I - W``, from that before the rows of U were removed (added) if there are few."""
    try:
        if U is None:
            return np.asarray(np.linalg.inv(np.eye(len(W)) - W))
        UP = U @ P
        core = sign * np.eye(len(U)) - UP @ U.T
        return P + UP.T @ (UP / core if len(U) == 1 else np.linalg.solve(core, UP))
    except LinAlgError:
        return P  # a poor inverse is a valid one: its residual is measured


def _norm(array: FloatArray) -> float:
    """Euclidean (Frobenius) norm."""
    flat = array.ravel()
    return float(np.sqrt(flat @ flat))


def _derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return l' (k, K), a square root of l'' (k, K, K) and size (k, K); k is padded: three programs serve all."""
    k, K = z.shape
    room = next(r for r in (1, 32, _ROWS) if k <= r)
    if k < room:
        y, z = np.concatenate([y, np.ones(room - k)]), np.concatenate([z, np.zeros((room - k, K))])
    with jax.enable_x64(True):
        found = _both(loss, y, z)
    return tuple(np.asarray(part)[:k] for part in found)  # type: ignore[return-value]


@partial(jax.jit, static_argnums=0)
def _both(loss: Loss, y: Any, z: Any) -> Any:
    if loss.outputs == 1:
        z = z[:, 0]
        root = jnp.sqrt(loss.curvature(y, z))
        return loss.gradient(y, z)[:, None], root[:, None, None], loss.rounding_scale(y, z)[:, None]
    # diag(p) - pp' = R R' with R = diag(sqrt p) - p sqrt(p)', because the p add up to 1.
    p = loss.curvature(y, z)
    root = jnp.eye(loss.outputs) * jnp.sqrt(p)[:, None, :] - p[:, :, None] * jnp.sqrt(p)[:, None, :]
    return loss.gradient(y, z), root, loss.rounding_scale(y, z)
