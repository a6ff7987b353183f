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

from certified._convex.losses import Loss
from certified._data.sparse_copy import SparseCopy
from certified.typing import FloatArray

__all__ = ["Blocks", "chain", "curvature", "gradient", "leverage", "on_host", "reach"]

_CHUNK = 32  # blocks whose Hessian is formed at once
_UNIT = 2.0**-53
_TINY = 2.0**-560  # of underflow, as in `bounds`
_SMALL = 2.0**-400
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
    sparse_copy : Mirror or None
        The same rows without their zeros, for passes on the host.
    """

    x: FloatArray
    y: FloatArray
    s: FloatArray
    offset: FloatArray
    sparse_copy: SparseCopy | None = None


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
    if rows.sparse_copy is None:
        return _gradient(loss, rows, w)
    weighted, slopes, sizes, bend = _slopes(loss, rows.y, rows.s, _mirrored(loss, rows, w, rows.offset))
    total = rows.sparse_copy.total(np.asarray(weighted).reshape(rows.y.size, *weighted.shape[2:]))
    return Pass(total.T.ravel(), slopes, sizes, bend)


@float64
def reach(loss: Loss, rows: Blocks, move: Any) -> Any:
    """Return ``max |x_i'move|`` over rows with ``s_i > 0``; for several outputs, the largest spread in a row."""
    return _most(loss, rows.s, predictors(loss, rows._replace(offset=_NONE), move))


@float64
def curvature(loss: Loss, rows: Blocks, w: Any) -> Any:
    """Return the Hessian of the data term at w, shape (P, P), without the penalty."""
    if loss.outputs == 1 and on_host():
        return _symmetric(rows.x, np.sqrt(_weighted_bends(loss, rows.y, rows.s, predictors(loss, rows, w))))
    return sum(np.asarray(part) for part in [_hessian(loss, group, w) for group in _groups(rows)])


@float64
def leverage(loss: Loss, rows: Blocks, inverse_factor: Any) -> Any:
    """Return ``max ||V x_i||^2`` over rows with ``s_i > 0``; for several outputs, of ``V (e_j - e_k) x x_i``."""
    if loss.outputs == 1 and on_host():
        squared = [np.einsum("ij,ij->i", white, white) for white in (block @ inverse_factor.T for block in rows.x)]
        return max(float(np.max(part, where=s > 0.0, initial=0.0)) for part, s in zip(squared, rows.s, strict=True))
    return max(np.asarray(part) for part in [_leverage(loss, g.x, g.s, inverse_factor) for g in _groups(rows)])


@float64
def predictors(loss: Loss, rows: Blocks, w: Any) -> Any:
    """Return the linear predictors, shape (n_blocks, n_inner) or with a last axis for several outputs."""
    if rows.sparse_copy is None:
        return _predictors(loss, rows.x, rows.offset, w)
    return _mirrored(loss, rows, w, rows.offset)


@float64
def bends(loss: Loss, y: Any, z: Any) -> Any:
    """Return the curvature of every row, for one output."""
    return _bends(loss, y, z)


@partial(jax.jit, static_argnums=0)
def _weighted_bends(loss: Loss, y: Any, s: Any, z: Any) -> Any:
    return jnp.where(s > 0, s * loss.curvature(y, z), 0.0)


@partial(jax.jit, static_argnums=0)
def _bends(loss: Loss, y: Any, z: Any) -> Any:
    return loss.curvature(y, z)


def _mirrored(loss: Loss, rows: Blocks, w: FloatArray, offset: FloatArray) -> FloatArray:
    """:func:`_predictors` from the mirror."""
    assert rows.sparse_copy is not None
    if loss.outputs == 1:
        return rows.sparse_copy.predictors(w).reshape(rows.y.shape) + offset
    z = rows.sparse_copy.predictors(np.ascontiguousarray(w.reshape(loss.outputs, -1).T))
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
    weights = s if loss.outputs == 1 else s[..., None]
    slopes, sizes = (  # a row of weight 0 may be infinite: it has no part in anything
        jnp.where(weights > 0, found, 0.0) for found in (loss.gradient(y, z), loss.rounding_scale(y, z))
    )
    if math.isfinite(loss.curvature_bound):
        bend = jnp.full((), loss.curvature_bound)
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
        scaled = x * jnp.sqrt(jnp.where(s > 0, s * bends, 0.0))[..., None]
        return jnp.einsum("bij,bik->bjk", scaled, scaled).sum(axis=0)

    def block(pair: Any) -> Any:
        first, second = bends[..., pair[0]], bends[..., pair[1]]
        return gram(s * first * (jnp.where(pair[0] == pair[1], 1.0, 0.0) - second))

    # A loop on the device: unrolled, the blocks of many classes would take minutes to compile.
    K = loss.outputs
    pairs, place = np.triu_indices(K), np.zeros((K, K), dtype=int)
    place[pairs] = np.arange(len(pairs[0]))
    upper = jax.lax.map(block, pairs)
    table = upper[np.maximum(place, place.T)]
    return table.transpose(0, 2, 1, 3).reshape(K * x.shape[-1], -1)


@partial(jax.jit, static_argnums=0)
def _leverage(loss: Loss, x: Any, s: Any, inverse_factor: Any) -> Any:
    if loss.outputs == 1:
        squared = jnp.sum((x @ inverse_factor.T) ** 2, axis=-1)
        return jnp.max(jnp.where(s > 0, squared, 0.0))
    parts = inverse_factor.reshape(len(inverse_factor), loss.outputs, -1)

    def most(pair: Any) -> Any:
        squared = jnp.sum((x @ (parts[:, pair[0]] - parts[:, pair[1]]).T) ** 2, axis=-1)
        return jnp.max(jnp.where(s > 0, squared, 0.0))

    return jnp.max(jax.lax.map(most, np.triu_indices(loss.outputs, 1)))


def _groups(rows: Blocks) -> Iterator[Blocks]:
    """Yield groups of blocks: enough for both cores, few enough to stay in the cache."""
    for start in range(0, len(rows.x), _CHUNK):
        part = slice(start, start + _CHUNK)
        yield Blocks(
            rows.x[part], rows.y[part], rows.s[part], rows.offset[part] if rows.offset.size > 1 else rows.offset
        )
