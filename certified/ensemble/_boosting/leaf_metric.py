"""The metric of a head on leaf indicators, and the rows deleted since its Hessian was inverted.

A row x is binary with one 1 for each of T trees. The metric is ``A = K^-1`` with the *computed* inverse K of the
Hessian: norms of gradients are ``||g||_K^2 = g'Kg`` by definition, and one number rho carries every rounding error,
``(1 - rho) A <= H <= (1 + rho) A``. Entries of K are what a deletion needs: ``x'K y`` is a sum of T^2 of them, and
``K x`` a sum of T columns. With several outputs a row has a binary column for each, a *unit*. Proofs: theory/leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, lapack

from certified._convex import bounds
from certified._convex.bounds import gamma, up
from certified._convex.losses import Loss
from certified._data.reproducible import one_thread
from certified._data.rows import padded
from certified.ensemble._boosting import kernels
from certified.ensemble._boosting.leaf_gram import subtracting
from certified.errors import CannotCertify
from certified.typing import FloatArray, IntArray

__all__ = [
    "Gone",
    "LeafMetric",
    "LeafNoiseMetric",
    "LeafProblem",
    "LeafRows",
    "derivatives",
    "metric_weights",
    "peaks",
    "scores",
    "spread",
    "sums",
    "tree_reach",
]

_GRID = 2.0**-20
_SHARES = 2.0**13  # of this, for several outputs: weights of the metric are products of two whole numbers
_LARGEST = 2.0**52
_POWERS, _SLACKS = 20, (1.05, 1.3, 2.0, 8.0)  # steps of power iteration; factors by which its result may be too small


class LeafRows(NamedTuple):
    """Rows as leaf indices: leaves (n, K T), targets, weights (0: no row) and known parts of the predictors, (n,)."""

    leaves: NDArray[np.int16]
    y: FloatArray
    s: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class LeafProblem:
    """``sum_i s_i l(y_i, o_i + x_i'v) + sum_j penalty_j (v_j - centre_j)^2 / 2``.

    Attributes
    ----------
    penalty, centre : arrays of shape (d,)
        Positive, and where it pulls to: a function of the structure sample.
    tree_of : array of shape (d,)
        Tree of each leaf, ascending; the trees of the first output come first.
    weight : array of shape (d,)
        At least the weight of the rows in each leaf; it serves bounds of rounding errors only.
    """

    loss: Loss
    penalty: FloatArray
    centre: FloatArray
    tree_of: IntArray
    weight: FloatArray

    def on(self, rows: LeafRows) -> LeafProblem:
        """The problem with the weights of these rows in each leaf."""
        return replace(self, weight=kernels.scatter(rows.leaves, rows.s, len(self.penalty)) * (1.0 + 2.0**-20))

    @property
    def outputs(self) -> int:
        """Number of predictors of a row, K."""
        return self.loss.outputs

    @property
    def trees(self) -> int:
        """Number of trees of each output, T."""
        return (int(self.tree_of[-1]) + 1) // self.outputs

    @cached_property
    def first(self) -> IntArray:
        """First leaf of each tree, shape (K T,)."""
        return np.flatnonzero(np.diff(self.tree_of, prepend=-1))


class Slopes(NamedTuple):
    """l', l'' and size of every row, shape (n,); for several outputs l', probabilities and size, shape (n, K)."""

    slope: FloatArray
    curvature: FloatArray
    size: FloatArray


def derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> Slopes:
    """Return the derivatives of rows; arrays are padded, so that few lengths are compiled."""
    n = len(z)
    room = padded(n) - n
    if room:
        y, z = np.concatenate([y, np.ones(room)]), np.concatenate([z, np.zeros((room, *z.shape[1:]))])
    with jax.enable_x64(True):
        found = _derivatives(loss, y, z)
    return Slopes(*(np.asarray(part)[:n] for part in found))


@partial(jax.jit, static_argnums=0)
def _derivatives(loss: Loss, y: Any, z: Any) -> Any:
    return loss.gradient(y, z), loss.curvature(y, z), loss.rounding_scale(y, z) + jnp.zeros_like(z)


def units(problem: LeafProblem, leaves: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the leaves of each unit, shape (n K, T): a unit is a row's indicators of one output."""
    return leaves.reshape(-1, problem.trees)


def scores(problem: LeafProblem, rows: LeafRows, v: FloatArray) -> FloatArray:
    """Return the predictors of rows, shape (n,), or (n, K) for several outputs."""
    K = problem.outputs
    z = kernels.predictors(units(problem, rows.leaves), v, np.repeat(rows.offset, K) if K > 1 else rows.offset)
    return z.reshape(-1, K) if K > 1 else z


def sums(problem: LeafProblem, rows: LeafRows, a: FloatArray) -> FloatArray:
    """Return ``sum_i X_i a_i``, shape (d,)."""
    return kernels.scatter(units(problem, rows.leaves), a.ravel(), len(problem.penalty))


def spread(z: FloatArray) -> FloatArray:
    """Return what the curvature feels of a change of each row's predictors: its size; of several, their spread."""
    return np.abs(z) if z.ndim == 1 else z.max(axis=1) - z.min(axis=1)


def by_blocks(matrix: FloatArray, blocks: FloatArray) -> FloatArray:
    """Return the matrix times the block-diagonal one."""
    return np.einsum("urk,rkl->url", matrix.reshape(len(matrix), *blocks.shape[:2]), blocks).reshape(matrix.shape)


def tree_reach(problem: LeafProblem, p: FloatArray) -> float:
    """Bound the spread of X'p over every row that has one leaf in each tree: sums of the extremes of the trees."""
    first, K = problem.first, problem.outputs
    high = np.maximum.reduceat(p, first).reshape(K, -1).sum(axis=1)
    low = np.minimum.reduceat(p, first).reshape(K, -1).sum(axis=1)
    if K == 1:
        most = max(float(high[0]), float(-low[0]))
    else:
        apart = high[:, None] - low
        most = float(np.max(apart[~np.eye(K, dtype=bool)]))
    rounding = gamma(problem.trees + 4) * np.maximum.reduceat(np.abs(p), first).sum()
    return up(max(most, 0.0) + float(rounding))


def _bends(s: FloatArray, curvature: FloatArray) -> FloatArray:
    """Return the weights of rows in the Hessian, as :func:`kernels.gram` takes them.

    For several outputs ``s_i (diag(p) - p p')``; the diagonal is p_k times the other probabilities: no cancellation.
    """
    if curvature.ndim == 1:
        return s * curvature
    K = curvature.shape[1]
    full = -curvature[:, :, None] * curvature[:, None, :]
    k = np.arange(K)
    full[:, k, k] = curvature * np.stack([np.delete(curvature, j, axis=1).sum(axis=1) for j in k], axis=1)
    return np.asarray((full * s[:, None, None])[:, *np.triu_indices(K)])


def _bent(s: FloatArray, curvature: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weight C of each row in the Hessian, and B with ``B B' = C``, both of shape (n, K, K)."""
    if curvature.ndim == 1:
        bend = (s * curvature)[:, None, None]
        return bend, np.sqrt(bend)
    n, K = curvature.shape
    total = curvature.sum(axis=1)
    root = np.sqrt(curvature / total[:, None])
    projector = np.eye(K) - root[:, :, None] * root[:, None, :]
    upper = np.zeros((n, K, K))
    upper[:, *np.triu_indices(K)] = _bends(s, curvature)
    return (
        upper + np.triu(upper, 1).transpose(0, 2, 1),
        (np.sqrt(s) * total)[:, None, None] * root[:, :, None] * projector,
    )


def metric_weights(outputs: int, s: FloatArray, reference: FloatArray) -> FloatArray:
    """Return whole numbers that weigh rows in the noise metric: a function of each row alone.

    Shape (n,), in units of 2^-20, from curvatures; for several outputs shape (n, K), from probabilities.
    """
    return np.rint(s * reference / _GRID if outputs == 1 else np.sqrt(s)[:, None] * reference * _SHARES)


@dataclass(frozen=True, eq=False)
class LeafNoiseMetric:
    """The noise metric ``G = sum_i m_i x_i x_i' + diag(penalty)`` of the retained rows.

    m_i is the weight of row i times its curvature where the structure alone puts it, rounded to a multiple of 2^-20: a
    function of the row and of the structure, so that sums of m_i are exact in any order. With several outputs
    ``X_i (|a_i|_1 diag(a_i) - a_i a_i') X_i'`` takes the place of ``m_i x_i x_i'``, a_i whole numbers in proportion to
    the probabilities.

    Attributes
    ----------
    gram : array of shape (d, d)
        The sum over rows divided by `grid`, integers. Rows that are deleted are subtracted in place.
    """

    gram: FloatArray
    penalty: FloatArray
    grid: float

    @classmethod
    def of(cls, problem: LeafProblem, rows: LeafRows, m: FloatArray) -> LeafNoiseMetric:
        """Sum over the rows; `m` as of :func:`metric_weights`."""
        if not float(np.sum(m if m.ndim == 1 else m.sum(axis=1) ** 2)) < _LARGEST:
            raise CannotCertify(
                "The weighted curvatures of the rows add up to more than exact sums in float64 can hold. Scale the "
                "sample weights or the targets down."
            )
        gram = kernels.gram(rows.leaves, _bends(np.ones(len(m)), m), len(problem.penalty))
        return cls(gram, problem.penalty, _GRID if m.ndim == 1 else _SHARES**-2)

    def subtracting(self, leaves: NDArray[np.int16], m: FloatArray) -> Callable[[], None]:
        """Return what subtracts rows, in place; exact."""
        return subtracting(self.gram, leaves, m)

    @property
    def matrix(self) -> FloatArray:
        """G, shape (d, d)."""
        out = self.gram * self.grid
        out[np.diag_indices(len(out))] += self.penalty
        return out

    @property
    def root(self) -> FloatArray:
        """Upper bounds of the square roots of the diagonal of G, now and after deletions."""
        return np.sqrt(np.diag(self.gram) * self.grid + self.penalty) * (1.0 + 2.0**-40)

    @one_thread
    def factor(self) -> FloatArray:
        """Lower Cholesky factor of G."""
        return np.asarray(cholesky(self.matrix, lower=True, check_finite=False, overwrite_a=True))

    def length(self, v: FloatArray) -> float:
        """``||v||_G``, not rounded outward: for reports."""
        squared = float(v @ (self.gram @ v)) * self.grid + float(np.sum(self.penalty * v * v))
        return float(np.sqrt(max(0.0, squared)))


class Gone(NamedTuple):
    """Units of the rows deleted since the Hessian was inverted.

    Attributes
    ----------
    leaves : array of shape (k, T)
    bend, root : array of shape (k / K, K, K)
        Blocks of their weights C in the Hessian at its point, and of B with ``B B' = C``.
    KX : array of shape (k, d)
        ``K x_i``.
    N : array of shape (k, k)
        ``x_i'K x_j``.
    reach : array of shape (k,)
        ``sum_t sqrt(K_tt)`` over the leaves of the unit, at least ``||x_i||_K``; times a unit roundoff it bounds
        rounding errors.
    """

    leaves: NDArray[np.int16]
    bend: FloatArray
    root: FloatArray
    KX: FloatArray
    N: FloatArray
    reach: FloatArray

    def bent(self, v: FloatArray) -> FloatArray:
        """Return C v."""
        return np.einsum("rkl,rl->rk", self.bend, v.reshape(self.bend.shape[:2])).ravel()

    def corrected(self, right: FloatArray) -> FloatArray:
        """Return a solution y of ``(I - N C) y = right``, to rounding."""
        return np.asarray(np.linalg.solve(np.eye(len(self.N)) - by_blocks(self.N, self.bend), right))


@dataclass(frozen=True, eq=False)
class LeafMetric:
    """``A = K^-1`` and how the Hessian of the retained rows compares with it.

    The Hessian of the retained rows at `point` is ``A - X_gone' C X_gone`` up to ``rho A``.

    Attributes
    ----------
    point : array of shape (d,)
    K : array of shape (d, d)
        Symmetric, computed inverse of the Hessian.
    root : array of shape (d,)
        Upper bounds of ``sqrt(K_jj)``.
    rho : float
    M : float
        At least ``kappa max ||x||_K`` over all rows; for several outputs, over differences of two units of a row.
    k_G : float
        ``||v||_G <= k_G ||v||_A`` for every v, now and after deletions.
    gone : Gone
    eta : float
        ``X_gone' C X_gone <= eta A``.
    """

    point: FloatArray
    K: FloatArray
    root: FloatArray
    rho: float
    M: float
    k_G: float
    gone: Gone
    eta: float = 0.0

    @classmethod
    def at(
        cls, problem: LeafProblem, rows: LeafRows, noise_metric: LeafNoiseMetric, point: FloatArray, m: FloatArray
    ) -> LeafMetric:
        """Form the Hessian on the rows at a point, invert it, and bound rho, M and k_G."""
        d, T, outputs = len(point), problem.trees, problem.outputs
        curvature = derivatives(problem.loss, rows.y, scores(problem, rows, point)).curvature
        hessian = kernels.gram(rows.leaves, _bends(rows.s, curvature), d)
        hessian[np.diag_indices(d)] += problem.penalty
        K = _inverse(hessian)
        root_K = np.sqrt(np.abs(np.diag(K))) * (1.0 + 2.0**-40)
        # Rounding of the Hessian: of the curvatures (a factor), of the sums (an entry is a sum of positive terms).
        of_curvature = _relative(problem, rows, point)
        of_sums = gamma(len(rows.s) + 16)
        trace = float(np.trace(hessian))
        low = float(np.min(problem.penalty))
        if not up((of_curvature + of_sums) * trace * 2.0) < 0.5 * low:
            raise _ill_conditioned(trace / low)
        roots = float(np.sqrt(np.diag(hessian)) @ root_K) * (1.0 + 2.0**-20)
        check = hessian @ K
        size = float(np.linalg.norm(hessian)) * float(np.linalg.norm(K))
        check[np.diag_indices(d)] -= 1.0
        off = float(np.linalg.norm(check)) * (1.0 + gamma(d * d)) + 2.0 * gamma(d + 4) * size
        if not off < 0.5:
            raise _ill_conditioned(trace / low)
        rho = up(off + 2.0 * of_sums * roots * roots + 2.0 * of_curvature * (1.0 + off))
        # x'x = T (2 T for a difference of two units), and K <= (1 + rho) / smallest eigenvalue of H.
        smallest = up((1.0 + rho) * min(outputs, 2) * T / low)
        blocks = kernels.block_maxima(K, problem.tree_of, outputs * T, outputs)
        most = float(blocks[0, 0])
        if outputs > 1:
            own = np.diag(blocks)
            apart = own[:, None] + own + blocks + blocks.T
            most = float(np.max(apart[~np.eye(outputs, dtype=bool)]))
        rounding = gamma(T * T + 16) * (min(outputs, 2) * peaks(problem, root_K)) ** 2
        squared = min(smallest, up(max(most + rounding, 0.0)))
        M = up(problem.loss.kappa * np.sqrt(squared))
        k_G = up(
            np.sqrt(up(_ratio(rows.s, curvature, m, hessian, K, noise_metric) * (1.0 + of_curvature) * (1.0 + rho)))
        )
        leaves, blocks = np.zeros((0, T), dtype=np.int16), np.zeros((0, outputs, outputs))
        none = Gone(leaves, blocks, blocks, np.zeros((0, d)), np.zeros((0, 0)), np.zeros(0))
        return cls(point, K, root_K, rho, M, k_G, none)

    @property
    def low(self) -> float:
        """Lower bound of the Hessian of the retained rows at the point, in units of A."""
        return 1.0 - up(self.rho + self.eta)

    def solve(self, g: FloatArray, Kg: FloatArray | None = None) -> FloatArray:
        """Return ``(A - X_gone' C X_gone)^-1 g``, roughly."""
        gone, u = self.gone, self.K @ g if Kg is None else Kg
        if not len(gone.bend):
            return u
        XKg = u[gone.leaves].sum(axis=1)
        return u + gone.bent(gone.corrected(XKg)) @ gone.KX

    def norm(self, g: FloatArray) -> float:
        """Upper bound of ``||g||_K``."""
        size = float(self.root @ np.abs(g))
        return up(np.sqrt(max(0.0, float(g @ (self.K @ g))) + 2.0 * gamma(2 * len(g) + 8) * size * size))

    def without(self, problem: LeafProblem, rows: LeafRows) -> LeafMetric:
        """Return the metric with these rows deleted as well: O(T d) for each."""
        gone, leaves = self.gone, units(problem, rows.leaves)
        found = derivatives(problem.loss, rows.y, scores(problem, rows, self.point))
        bend, root = _bent(rows.s, found.curvature)
        KX = self.K[leaves].sum(axis=1)
        all_KX = np.concatenate([gone.KX, KX])
        cross = all_KX[:, leaves].sum(axis=2)  # (old and new, new)
        k, new = len(gone.N), len(leaves)
        N = np.empty((k + new, k + new))
        N[:k, :k] = gone.N
        N[:, k:] = cross
        N[k:, :k] = cross[:k].T
        N[k:, k:] = 0.5 * (N[k:, k:] + N[k:, k:].T)
        reach = self.root[leaves].sum(axis=1) * (1.0 + 2.0**-30)
        after = Gone(
            np.concatenate([gone.leaves, leaves]),
            np.concatenate([gone.bend, bend]),
            np.concatenate([gone.root, root]),
            all_KX,
            N,
            np.concatenate([gone.reach, reach]),
        )
        size = np.einsum("rkl,rk->rl", np.abs(after.root), after.reach.reshape(after.root.shape[:2])).ravel()
        rho = up(self.rho + _relative(problem, rows, self.point) * float(np.sum(size[k:] ** 2)))
        W = by_blocks(by_blocks(N, after.root).T, after.root)
        rounding = 2.0 * gamma(problem.trees**2 + 4 * problem.outputs + 16) * float(np.sum(size**2))
        frobenius = float(np.linalg.norm(W)) * (1.0 + gamma(len(W) ** 2 + 8))
        eta = frobenius if frobenius < 0.25 else min(frobenius, bounds.largest_eigenvalue(0.5 * (W + W.T)))
        return replace(self, gone=after, eta=up(eta + rounding), rho=rho)


def _relative(problem: LeafProblem, rows: LeafRows, point: FloatArray) -> float:
    """Bound the relative error of computed curvatures (of several outputs, as matrices) at a point."""
    largest = float(np.max(np.abs(rows.offset), initial=0.0)) + peaks(problem, np.abs(point))
    drift = 8.0 * problem.loss.kappa * gamma(problem.trees + 4) * largest
    return (64.0 + 8.0 * problem.outputs) * bounds.UNIT + drift


def peaks(problem: LeafProblem, size: FloatArray) -> float:
    """Sum over the trees of the largest entry; the largest of such sums for several outputs."""
    most = np.maximum.reduceat(size, problem.first).reshape(problem.outputs, -1).sum(axis=1).max()
    return up(float(most) * (1.0 + gamma(problem.trees)))


def _inverse(hessian: FloatArray) -> FloatArray:
    """Symmetric inverse from a Cholesky factorisation."""
    try:
        factor = cholesky(hessian, lower=True, check_finite=False)
    except LinAlgError:
        raise _ill_conditioned(np.inf) from None
    inverse, info = lapack.dpotri(factor, lower=1, overwrite_c=1)
    if info or not np.all(np.isfinite(inverse)):
        raise _ill_conditioned(np.inf)
    lower = np.tril(inverse)
    out = lower + np.tril(lower, -1).T
    return np.ascontiguousarray(out)


def _ratio(
    s: FloatArray,
    curvature: FloatArray,
    m: FloatArray,
    hessian: FloatArray,
    K: FloatArray,
    noise_metric: LeafNoiseMetric,
) -> float:
    """Bound t in ``G <= t H``, H the exact matrix with the computed curvatures.

    Row by row, ``m_i <= t s_i l''_i`` proves it; for several outputs, that shares are at most t times probabilities.
    A sharper t, proposed by power iteration, is accepted where a floating-point Cholesky factorisation of ``t H - G``
    runs to its end (Rump 2006, theorem 2.3; both matrices are at least the penalty).
    """
    used = (m if m.ndim == 1 else m.max(axis=1)) > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        if m.ndim == 1:
            ratios = m[used] * noise_metric.grid / (s[used] * curvature[used])
        else:
            ratios = (m * m.sum(axis=1)[:, None])[used] * noise_metric.grid / (s[:, None] * curvature)[used]
        by_row = max(1.0, float(np.max(np.nan_to_num(ratios, nan=0.0, posinf=np.inf), initial=1.0)) * (1.0 + 2.0**-40))
    if by_row <= 1.5:
        return by_row
    G = noise_metric.matrix
    d, low = len(G), float(np.min(noise_metric.penalty))
    guess, v = 1.0, np.ones(d)
    for _ in range(_POWERS):
        v = K @ (G @ v)
        guess = float(np.linalg.norm(v))
        v /= guess
    for slack in _SLACKS:
        t = max(1.0, slack * guess)
        if t >= by_row:
            break
        trial = t * hessian - G
        size = float(np.abs(np.diag(trial)).sum()) + t * float(np.trace(hessian)) + float(np.trace(G))
        try:
            cholesky(trial, lower=True, check_finite=False, overwrite_a=True)
        except LinAlgError:
            continue
        return min(by_row, up(t + gamma(2 * d + len(m) + 16) * size / low))
    return by_row


def _ill_conditioned(condition: float) -> CannotCertify:
    return CannotCertify(
        f"The Hessian of the leaf values is too ill-conditioned to bound in float64 (condition about {condition:.2g}). "
        "Raise leaf_penalty, or lower n_estimators or max_depth. Nothing was changed."
    )
