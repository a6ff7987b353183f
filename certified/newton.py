"""Passes over the rows, Newton steps and low-rank removal: the numerics that fitting and deletion share, in JAX.

Public functions take and return numpy float64 arrays. Rows come as blocks, ``x`` (n_blocks, n_inner, p), ``y`` and
``s`` (n_blocks, n_inner); rows with ``s = 0`` (padding, deleted) have no influence.
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

__all__ = ["Removal", "Report", "chain", "curvature", "factorise", "gradient", "leverage", "remove"]

_CHUNK = 32  # blocks whose Hessian is formed at once
_WOODBURY = 32  # up to this many rows update the inverse, more rows invert anew


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
def gradient(loss: Loss, x: Any, y: Any, s: Any, w: Any, reference: Any) -> Any:
    """Pass over the rows at w.

    Returns
    -------
    gradient : array of shape (p,)
        ``sum s_i l'_i x_i``, without the penalty.
    slopes : float
        ``sum s_i l'_i^2``.
    moved : float
        ``max |x_i'(w - reference)|`` over rows with ``s_i > 0``.
    """
    return _gradient(loss, x, y, s, w, w - reference)


@float64
def curvature(loss: Loss, x: Any, y: Any, s: Any, w: Any) -> Any:
    """Return the Hessian of the data term at w, ``sum s_i l''_i x_i x_i'`` of shape (p, p), without the penalty."""
    return sum(np.asarray(part) for part in [_hessian(loss, *group, w) for group in _groups(x, y, s)])


@float64
def leverage(x: Any, s: Any, inverse_factor: Any) -> Any:
    """Return ``max ||V x_i||^2`` over rows with ``s_i > 0``."""
    return max(np.asarray(part) for part in [_leverage(*group, inverse_factor) for group in _groups(x, s)])


@partial(jax.jit, static_argnums=0)
def _gradient(loss: Loss, x: Any, y: Any, s: Any, w: Any, move: Any) -> Any:
    slopes = loss.slope(y, jnp.einsum("bij,j->bi", x, w))
    total = jnp.einsum("bi,bij->bj", s * slopes, x).sum(axis=0)
    moved = jnp.where(s > 0, jnp.abs(jnp.einsum("bij,j->bi", x, move)), 0.0)
    return total, jnp.sum(s * slopes**2), jnp.max(moved)


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
    """What has been removed since the anchor, in whitened coordinates.

    Attributes
    ----------
    W : array of shape (p, p)
        ``V (sum_S s_i l''_i x_i x_i') V'`` at the anchor.
    P : array of shape (p, p)
        An approximate inverse of ``I - W``; its error is measured, never assumed.
    g : array of shape (p,)
        ``V grad F_{D'}(w0)``.
    H : array of shape (p, p)
        The anchor's Hessian less the removed rows, to factorise anew when a pass is made.
    """

    W: FloatArray
    P: FloatArray
    g: FloatArray
    H: FloatArray


class Report(NamedTuple):
    """The step that a removal asks for and the numbers that bound it.

    Attributes
    ----------
    w : array of shape (p,)
        ``w0 + V' pi``.
    pi : array of shape (p,)
        Whitened step, ``-P g``.
    numbers : array of shape (8,)
        ``||pi||``, ``||g + pi - W pi||``, ``||W||_F``, the added rounding envelopes of g, of W and of H (relative),
        ``sum_j |w_j| root_j``, ``sum_j (|V|'|pi|)_j root_j``.
    """

    w: FloatArray
    pi: FloatArray
    numbers: FloatArray


def remove(
    loss: Loss,
    anchor_w: FloatArray,
    inverse_factor: FloatArray,
    root: FloatArray,
    removal: Removal,
    x: FloatArray,
    y: FloatArray,
    s: FloatArray,
) -> tuple[Removal, Report]:
    """Remove rows at the anchor: O(k p^2), independent of the number of rows kept.

    Parameters
    ----------
    anchor_w : array of shape (p,)
    inverse_factor : array of shape (p, p)
        V of the anchor.
    root : array of shape (p,)
        Square roots of the diagonal of the release metric, for rounding envelopes.
    x, y, s : arrays of shape (k, p), (k,), (k,)
        The rows to remove; k = 0 only asks for the step.

    Notes
    -----
    k is padded to 1, 8, 32 or a multiple of 1024 rows with weight 0, so four programs serve all requests.
    """
    k = len(s)
    room = next((r for r in (1, 8, _WOODBURY) if k <= r), -(-k // 1024) * 1024)
    if k < room:
        x, y, s = (np.concatenate([a, np.zeros((room - k, *a.shape[1:]))]) for a in (x, y, s))
    with jax.enable_x64(True):
        if room <= _WOODBURY:
            out = _remove(loss, True, anchor_w, inverse_factor, root, removal, x, y, s)
        else:
            envelopes = np.zeros(3)
            for start in range(0, room, 1024):
                part = slice(start, start + 1024)
                removal, added = _accumulate(loss, anchor_w, inverse_factor, removal, x[part], y[part], s[part])
                envelopes = envelopes + np.asarray(added)
            none = (np.zeros((1, x.shape[1])), np.zeros(1), np.zeros(1))
            out = _remove(loss, False, anchor_w, inverse_factor, root, removal, *none)
        after, w, pi, numbers = out
        numbers = np.array(numbers)
        if room > _WOODBURY:
            numbers[3:6] += envelopes
        return Removal(*map(np.asarray, after)), Report(np.asarray(w), np.asarray(pi), numbers)


@partial(jax.jit, static_argnums=0)
def _accumulate(loss: Loss, w: Any, V: Any, removal: Removal, x: Any, y: Any, s: Any) -> Any:
    W, g, H, _, added = _subtract(loss, w, V, removal, x, y, s)
    return Removal(W, removal.P, g, H), added


def _subtract(loss: Loss, w: Any, V: Any, removal: Removal, x: Any, y: Any, s: Any) -> Any:
    unit = 2.0**-53
    p = V.shape[0]
    z = x @ w
    slope, bend = loss.slope(y, z), loss.curvature(y, z)
    white = x @ V.T
    weights = jnp.sqrt(s * bend)[:, None]
    U, rows = white * weights, x * weights
    g = removal.g - (s * slope) @ white
    length = jnp.sum((jnp.abs(x) @ jnp.abs(V).T) ** 2, axis=1)  # || |V||x_i| ||^2
    score = 2.0 * unit * (p + 4) * (jnp.abs(x) @ jnp.abs(w))
    tau = loss.curvature_bound * score + 32.0 * unit + 2.0 * unit * (2 * p + len(s) + 16) * jnp.abs(slope)
    added = jnp.stack(
        [
            jnp.sum(s * tau * jnp.sqrt(length)) + 4.0 * unit * (jnp.linalg.norm(removal.g) + jnp.linalg.norm(g)),
            jnp.sum(s * bend * length * (2.0 * unit * (2 * p + len(s) + 64) + 2.0 * loss.kappa * score))
            + 4.0 * unit * jnp.linalg.norm(removal.W),
            2.0 * unit * (len(s) + 64) + 2.0 * loss.kappa * jnp.max(jnp.where(s > 0, score, 0.0)),
        ]
    )
    return removal.W + U.T @ U, g, removal.H - rows.T @ rows, U, added


@partial(jax.jit, static_argnums=(0, 1))
def _remove(loss: Loss, low_rank: bool, w: Any, V: Any, root: Any, removal: Removal, x: Any, y: Any, s: Any) -> Any:
    W, g, H, U, added = _subtract(loss, w, V, removal, x, y, s)
    p = V.shape[0]
    if low_rank:
        UP = U @ removal.P
        core = jnp.eye(len(s)) - UP @ U.T
        P = removal.P + UP.T @ (UP / core if len(s) == 1 else jnp.linalg.solve(core, UP))
    else:
        P = jnp.linalg.inv(jnp.eye(p) - W)
    pi = -(P @ g)
    linear = jnp.linalg.norm(g + pi - W @ pi)
    new = w + pi @ V
    numbers = jnp.stack(
        [
            jnp.linalg.norm(pi),
            linear,
            jnp.linalg.norm(W),
            added[0],
            added[1],
            added[2],
            jnp.abs(new) @ root,
            (jnp.abs(pi) @ jnp.abs(V)) @ root,
        ]
    )
    return (W, P, g, H), new, pi, numbers
