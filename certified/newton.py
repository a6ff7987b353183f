"""Passes over the rows, Newton steps and low-rank removal: the numerics that fitting and deletion share.

Passes over the rows are JAX programs. Rows come as :class:`Blocks`; rows with ``s = 0`` (padding, deleted) have no
influence. Public functions take and return numpy float64 arrays.

A loss of K outputs has K linear predictors in a row. Its parameter vector has P = K p entries, those of the first
predictor first; with one output P = p.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from certified.losses import Loss
from certified.mirror import Mirror
from certified.typing import FloatArray, IntArray

__all__ = [
    "Blocks",
    "Removal",
    "chain",
    "curvature",
    "factorise",
    "gradient",
    "leverage",
    "longest",
    "on_host",
    "reach",
    "remove",
]

_CHUNK = 32  # blocks whose Hessian is formed at once
_WOODBURY = 32  # up to this many rows update the inverse, more rows invert anew
_ROWS = 4096  # rows removed at once
_UNIT = 2.0**-53
_NONE = np.zeros((1, 1))  # no offset


class Blocks(NamedTuple):
    """Rows in blocks.

    Attributes
    ----------
    x : array of shape (n_blocks, n_inner, p)
    y, s : arrays of shape (n_blocks, n_inner)
        Targets and weights.
    offset : array of shape (n_blocks, n_inner), or (1, 1) if all are 0
        Known part of the linear predictors.
    mirror : Mirror or None
        The same rows without their zeros, for passes on the host.
    """

    x: FloatArray
    y: FloatArray
    s: FloatArray
    offset: FloatArray
    mirror: Mirror | None = None


class Pass(NamedTuple):
    """What a pass at w finds.

    Attributes
    ----------
    gradient : array of shape (P,)
        ``sum s_i l'_i x_i``, without the penalty.
    slopes, sizes : float
        ``sum s_i l'_i^2`` and ``sum s_i size_i^2``.
    bend : float
        Largest curvature l'' of a row with ``s_i > 0`` (for several outputs, of any direction).
    """

    gradient: Any
    slopes: Any
    sizes: Any
    bend: Any


def float64(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run with 64-bit JAX, whatever the host process has set, and return numpy arrays."""

    @wraps(function)
    def call(*args: Any) -> Any:
        with jax.enable_x64(True):
            return jax.tree_util.tree_map(np.asarray, function(*args))

    return call


def chain(n_blocks: int, n_inner: int) -> int:
    """Return an upper bound of the number of additions that any summand of a pass goes through."""
    return n_inner + min(n_blocks, _CHUNK) + n_blocks + 2


def on_host() -> bool:
    """Whether passes run on the processor, and not on an accelerator."""
    return bool(jax.default_backend() == "cpu")


@float64
def gradient(loss: Loss, rows: Blocks, w: Any) -> Any:
    """Pass over the rows at w; return a :class:`Pass`."""
    if rows.mirror is None:
        return _gradient(loss, rows, w)
    weighted, slopes, sizes, bend = _slopes(loss, rows.y, rows.s, _mirrored(loss, rows, w, rows.offset))
    total = rows.mirror.total(np.asarray(weighted).reshape(rows.y.size, *weighted.shape[2:]))
    return Pass(total.T.ravel(), slopes, sizes, bend)


@float64
def reach(loss: Loss, rows: Blocks, move: Any) -> Any:
    """Return ``max |x_i'move|`` over rows with ``s_i > 0``; for several outputs, the largest spread in a row."""
    return _most(loss, rows.s, predictors(loss, rows._replace(offset=_NONE), move))


@float64
def curvature(loss: Loss, rows: Blocks, w: Any) -> Any:
    """Return the Hessian of the data term at w, shape (P, P), without the penalty."""
    if loss.outputs == 1 and on_host():
        return _symmetric(rows.x, np.sqrt(rows.s * _bends(loss, rows.y, predictors(loss, rows, w))))
    return sum(np.asarray(part) for part in [_hessian(loss, group, w) for group in _groups(rows)])


@float64
def leverage(loss: Loss, rows: Blocks, inverse_factor: Any) -> Any:
    """Return ``max ||V x_i||^2`` over rows with ``s_i > 0``; for several outputs, of ``V (e_j - e_k) x x_i``."""
    if loss.outputs == 1 and on_host():
        squared = [np.einsum("ij,ij->i", white, white) for white in (block @ inverse_factor.T for block in rows.x)]
        return max(float(np.max(part, where=s > 0.0, initial=0.0)) for part, s in zip(squared, rows.s, strict=True))
    return max(np.asarray(part) for part in [_leverage(loss, g.x, g.s, inverse_factor) for g in _groups(rows)])


def lengths(rows: Blocks, directions: FloatArray) -> float:
    """Return ``max ||D x_i||^2`` over rows with ``s_i > 0``, for the k rows of D, shape (k, p)."""
    if not len(directions):
        return 0.0
    flat = rows.x.reshape(rows.y.size, -1)
    found = flat @ directions.T if rows.mirror is None else rows.mirror.predictors(np.ascontiguousarray(directions.T))
    return float(np.max(np.einsum("ij,ij->i", found, found), where=rows.s.ravel() > 0.0, initial=0.0))


@float64
def predictors(loss: Loss, rows: Blocks, w: Any) -> Any:
    """Return the linear predictors, shape (n_blocks, n_inner) or with a last axis for several outputs."""
    if rows.mirror is None:
        return _predictors(loss, rows.x, rows.offset, w)
    return _mirrored(loss, rows, w, rows.offset)


@float64
def bends(loss: Loss, y: Any, z: Any) -> Any:
    """Return the curvature of every row, for one output."""
    return _bends(loss, y, z)


@partial(jax.jit, static_argnums=0)
def _bends(loss: Loss, y: Any, z: Any) -> Any:
    return loss.curvature(y, z)


def _mirrored(loss: Loss, rows: Blocks, w: FloatArray, offset: FloatArray) -> FloatArray:
    """:func:`_predictors` from the mirror."""
    assert rows.mirror is not None
    if loss.outputs == 1:
        return rows.mirror.predictors(w).reshape(rows.y.shape) + offset
    z = rows.mirror.predictors(np.ascontiguousarray(w.reshape(loss.outputs, -1).T))
    return z.reshape(*rows.y.shape, -1) + offset[..., None]


@partial(jax.jit, static_argnums=0)
def _predictors(loss: Loss, x: Any, offset: Any, w: Any) -> Any:
    if loss.outputs == 1:
        return jnp.einsum("bij,j->bi", x, w) + offset
    return jnp.einsum("bij,kj->bik", x, w.reshape(loss.outputs, -1)) + offset[..., None]


@partial(jax.jit, static_argnums=0)
def _gradient(loss: Loss, rows: Blocks, w: Any) -> Any:
    weighted, *sums = _slopes(loss, rows.y, rows.s, _predictors(loss, rows.x, rows.offset, w))
    if loss.outputs == 1:
        return Pass(jnp.einsum("bi,bij->bj", weighted, rows.x).sum(axis=0), *sums)
    return Pass(jnp.einsum("bik,bij->bkj", weighted, rows.x).sum(axis=0).ravel(), *sums)


@partial(jax.jit, static_argnums=0)
def _slopes(loss: Loss, y: Any, s: Any, z: Any) -> Any:
    """Slopes with their weights, and the other parts of a :class:`Pass`."""
    slopes, sizes = loss.slope(y, z), loss.size(y, z)
    weights = s if loss.outputs == 1 else s[..., None]
    if math.isfinite(loss.steepest):
        bend = jnp.full((), loss.steepest)
    else:
        bend = jnp.max(jnp.where(s > 0, loss.curvature(y, z), 0.0))
    return weights * slopes, jnp.sum(weights * slopes**2), jnp.sum(weights * sizes**2), bend


@partial(jax.jit, static_argnums=0)
def _most(loss: Loss, s: Any, moved: Any) -> Any:
    size = jnp.abs(moved) if loss.outputs == 1 else jnp.max(moved, axis=-1) - jnp.min(moved, axis=-1)
    return jnp.max(jnp.where(s > 0, size, 0.0))


def _symmetric(x: FloatArray, roots: FloatArray) -> FloatArray:
    """Return the Gram matrix of the rows times their roots; the host's library forms half of a symmetric product."""
    total = np.zeros((x.shape[-1],) * 2)
    for values, root in zip(x, roots, strict=True):  # a block at a time, which stays in the cache
        scaled = values * root[:, None]
        total += scaled.T @ scaled
    return total


@partial(jax.jit, static_argnums=0)
def _hessian(loss: Loss, rows: Blocks, w: Any) -> Any:
    x, y, s, offset, _ = rows
    bends = loss.curvature(y, _predictors(loss, x, offset, w))

    def gram(weights: Any) -> Any:
        return jnp.einsum("bij,bik->bjk", x * weights[..., None], x).sum(axis=0)

    if loss.outputs == 1:
        scaled = x * jnp.sqrt(s * bends)[..., None]
        return jnp.einsum("bij,bik->bjk", scaled, scaled).sum(axis=0)
    K = loss.outputs
    upper = {
        (k, m): gram(s * bends[..., k] * ((1.0 if k == m else 0.0) - bends[..., m]))
        for k in range(K)
        for m in range(k, K)
    }
    return jnp.block([[upper[min(k, m), max(k, m)] for m in range(K)] for k in range(K)])


@partial(jax.jit, static_argnums=0)
def _leverage(loss: Loss, x: Any, s: Any, inverse_factor: Any) -> Any:
    if loss.outputs == 1:
        squared = jnp.sum((x @ inverse_factor.T) ** 2, axis=-1)
        return jnp.max(jnp.where(s > 0, squared, 0.0))
    K, parts = loss.outputs, inverse_factor.reshape(len(inverse_factor), loss.outputs, -1)
    top = jnp.zeros(())
    for j in range(K):
        for k in range(j + 1, K):
            squared = jnp.sum((x @ (parts[:, j] - parts[:, k]).T) ** 2, axis=-1)
            top = jnp.maximum(top, jnp.max(jnp.where(s > 0, squared, 0.0)))
    return top


def _groups(rows: Blocks) -> Iterator[Blocks]:
    """Yield groups of blocks: enough for both cores, few enough to stay in the cache."""
    for start in range(0, len(rows.x), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield Blocks(
            rows.x[part], rows.y[part], rows.s[part], rows.offset[part] if rows.offset.size > 1 else rows.offset
        )


def factorise(hessian: FloatArray, order: IntArray | None = None) -> FloatArray | None:
    """Return the inverse V of the lower Cholesky factor, shape (P, P), or None if there is none in float64.

    The matrix is scaled to a unit diagonal first, which is the best diagonal scaling up to a factor P. With an `order`
    of the columns, the factor is that of the columns in this order: ``V[:, order]`` is lower triangular.
    """
    if order is not None:
        inverse = factorise(hessian[np.ix_(order, order)])
        return None if inverse is None else np.ascontiguousarray(inverse[:, np.argsort(order)])
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


class Removal(NamedTuple):
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


def remove(
    loss: Loss, w: FloatArray, inverse_factor: FloatArray, removal: Removal, rows: Blocks, sign: float = 1.0
) -> tuple[Removal, float, float]:
    """Remove rows at w, or with sign -1 add them: O(k P^2), independent of the number of rows kept.

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
    removal : Removal
    envelope_g, envelope_W : float
        Bounds of the rounding errors that this call adds to g (2-norm) and W (Frobenius norm).
    """
    W, P, g = removal
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
        added_g += float(np.sum(tau * np.sqrt(length))) + 4.0 * _UNIT * (_norm(removal.g) + _norm(g))
        # Entries of the root of a curvature matrix are off by a few units of 1, not of themselves.
        relative = bend * (2.0 * _UNIT * (2 * p + k * K + 2048) + 4.0 * loss.kappa * most)
        relative += s_[:, None] * (16.0 * _UNIT * K if K > 1 else 0.0)
        added_W += K * float(np.sum(relative * length)) + 4.0 * _UNIT * _norm(W)
    if U is not None:
        P = _updated_inverse(W, P, U if len(s) * K <= _WOODBURY else None, sign)
    return Removal(W, P, g), added_g, added_W


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
        return loss.slope(y, z)[:, None], root[:, None, None], loss.size(y, z)[:, None]
    # diag(p) - pp' = R R' with R = diag(sqrt p) - p sqrt(p)', because the p add up to 1.
    p = loss.curvature(y, z)
    root = jnp.eye(loss.outputs) * jnp.sqrt(p)[:, None, :] - p[:, :, None] * jnp.sqrt(p)[:, None, :]
    return loss.slope(y, z), root, loss.size(y, z)
