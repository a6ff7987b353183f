"""Passes over the rows, Newton steps and low-rank removal: the numerics that fitting and deletion share.

Passes over the rows are JAX programs. Rows come as blocks, ``x`` (n_blocks, n_inner, p), ``y`` and ``s`` (n_blocks,
n_inner); rows with ``s = 0`` (padding, deleted) have no influence. Public functions take and return numpy float64
arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from certified.losses import Loss
from certified.typing import FloatArray

__all__ = ["Removal", "chain", "curvature", "factorise", "gradient", "leverage", "reach", "remove"]

_CHUNK = 32  # blocks whose Hessian is formed at once
_WOODBURY = 32  # up to this many rows update the inverse, more rows invert anew
_ROWS = 4096  # rows removed at once
_UNIT = 2.0**-53


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


@float64
def gradient(loss: Loss, x: Any, y: Any, s: Any, w: Any) -> Any:
    """Pass over the rows at w.

    Returns
    -------
    gradient : array of shape (p,)
        ``sum s_i l'_i x_i``, without the penalty.
    slopes : float
        ``sum s_i l'_i^2``.
    """
    return _gradient(loss, x, y, s, w)


@float64
def reach(x: Any, s: Any, move: Any) -> Any:
    """Return ``max |x_i'move|`` over rows with ``s_i > 0``."""
    return _reach(x, s, move)


@float64
def curvature(loss: Loss, x: Any, y: Any, s: Any, w: Any) -> Any:
    """Return the Hessian of the data term at w, ``sum s_i l''_i x_i x_i'`` of shape (p, p), without the penalty."""
    return sum(np.asarray(part) for part in [_hessian(loss, *group, w) for group in _groups(x, y, s)])


@float64
def leverage(x: Any, s: Any, inverse_factor: Any) -> Any:
    """Return ``max ||V x_i||^2`` over rows with ``s_i > 0``."""
    return max(np.asarray(part) for part in [_leverage(*group, inverse_factor) for group in _groups(x, s)])


@partial(jax.jit, static_argnums=0)
def _gradient(loss: Loss, x: Any, y: Any, s: Any, w: Any) -> Any:
    slopes = loss.slope(y, jnp.einsum("bij,j->bi", x, w))
    total = jnp.einsum("bi,bij->bj", s * slopes, x).sum(axis=0)
    return total, jnp.sum(s * slopes**2)


@jax.jit
def _reach(x: Any, s: Any, move: Any) -> Any:
    return jnp.max(jnp.where(s > 0, jnp.abs(jnp.einsum("bij,j->bi", x, move)), 0.0))


@partial(jax.jit, static_argnums=0)
def _hessian(loss: Loss, x: Any, y: Any, s: Any, w: Any) -> Any:
    scaled = x * jnp.sqrt(s * loss.curvature(y, jnp.einsum("bij,j->bi", x, w)))[..., None]
    return jnp.einsum("bij,bik->bjk", scaled, scaled).sum(axis=0)


@jax.jit
def _leverage(x: Any, s: Any, inverse_factor: Any) -> Any:
    squared = jnp.sum((x @ inverse_factor.T) ** 2, axis=-1)
    return jnp.max(jnp.where(s > 0, squared, 0.0))


def _groups(*parts: FloatArray) -> Iterator[tuple[FloatArray, ...]]:
    """Yield groups of blocks: enough for both cores, few enough to stay in the cache."""
    for start in range(0, len(parts[0]), _CHUNK):
        yield tuple(part[start : start + _CHUNK] for part in parts)


def factorise(hessian: FloatArray) -> FloatArray | None:
    """Return the inverse V of the lower Cholesky factor, shape (p, p), or None if there is none in float64.

    The matrix is scaled to a unit diagonal first, which is the best diagonal scaling up to a factor p.
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


class Removal(NamedTuple):
    """What has been removed since the Hessian was formed, in whitened coordinates.

    Attributes
    ----------
    W : array of shape (p, p)
        ``V (sum_S s_i l''_i x_i x_i') V'``.
    P : array of shape (p, p)
        An approximate inverse of ``I - W``; its error is measured, never assumed.
    g : array of shape (p,)
        ``V grad F_{D'}(w)``.
    """

    W: FloatArray
    P: FloatArray
    g: FloatArray


def remove(
    loss: Loss, w: FloatArray, inverse_factor: FloatArray, removal: Removal, x: FloatArray, y: FloatArray, s: FloatArray
) -> tuple[Removal, float, float]:
    """Remove rows at w: O(k p^2), independent of the number of rows kept.

    It runs on the host: for the few rows of a request, starting a compiled program costs more than the work.

    Parameters
    ----------
    w : array of shape (p,)
    inverse_factor : array of shape (p, p)
        V.
    x, y, s : arrays of shape (k, p), (k,), (k,)
        The rows to remove.

    Returns
    -------
    removal : Removal
    envelope_g, envelope_W : float
        Bounds of the rounding errors that this call adds to g (2-norm) and W (Frobenius norm).
    """
    W, P, g = removal
    added_g = added_W = 0.0
    U = None
    absolute = np.abs(inverse_factor)
    for start in range(0, len(s), _ROWS):
        part = slice(start, start + _ROWS)
        x_, s_ = x[part], s[part]
        slope, bend = _derivatives(loss, y[part], x_ @ w)
        white = x_ @ inverse_factor.T
        U = white * np.sqrt(s_ * bend)[:, None]
        g = g - (s_ * slope) @ white
        W = W + U.T @ U
        # Envelopes: || |V||x_i| ||^2 for each row, and the rounding of its score in units of the curvature.
        length = np.square(np.abs(x_) @ absolute.T).sum(axis=1)
        p, k = x_.shape
        score = 2.0 * _UNIT * (p + 4) * (np.abs(x_) @ np.abs(w))
        tau = loss.curvature_bound * score + 32.0 * _UNIT + 2.0 * _UNIT * (2 * p + k + 16) * np.abs(slope)
        added_g += float(s_ @ (tau * np.sqrt(length))) + 4.0 * _UNIT * (_norm(removal.g) + _norm(g))
        relative = 2.0 * _UNIT * (2 * p + k + 64) + 2.0 * loss.kappa * score
        added_W += float((s_ * bend) @ (length * relative)) + 4.0 * _UNIT * _norm(W)
    if U is not None:
        P = _updated_inverse(W, P, U if len(s) <= _WOODBURY else None)
    return Removal(W, P, g), added_g, added_W


def _updated_inverse(W: FloatArray, P: FloatArray, U: FloatArray | None) -> FloatArray:
    """Approximate inverse of ``I - W``, from that before the rows of U were removed if there are few."""
    try:
        if U is None:
            return np.asarray(np.linalg.inv(np.eye(len(W)) - W))
        UP = U @ P
        core = np.eye(len(U)) - UP @ U.T
        return P + UP.T @ (UP / core if len(U) == 1 else np.linalg.solve(core, UP))
    except LinAlgError:
        return P  # a poor inverse is a valid one: its residual is measured


def _norm(array: FloatArray) -> float:
    """Euclidean (Frobenius) norm."""
    flat = array.ravel()
    return float(np.sqrt(flat @ flat))


def _derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return l' and l'' in shape (k,), k padded so that three programs serve all requests."""
    k = len(z)
    room = next(r for r in (1, 32, _ROWS) if k <= r)
    if k < room:
        y, z = (np.concatenate([a, np.zeros(room - k)]) for a in (y, z))
    with jax.enable_x64(True):
        slope, bend = _both(loss, y, z)
    return np.asarray(slope)[:k], np.asarray(bend)[:k]


@partial(jax.jit, static_argnums=0)
def _both(loss: Loss, y: Any, z: Any) -> Any:
    return loss.slope(y, z), loss.curvature(y, z)
