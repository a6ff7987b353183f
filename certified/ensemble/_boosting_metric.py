"""The metric of a head on leaf indicators, and the rows removed since its Hessian was inverted.

A row x is binary with one 1 for each of T trees. The metric is ``A = K^-1`` with the *computed* inverse K of the
Hessian: norms of gradients are ``||g||_K^2 = g'Kg`` by definition, and one number rho carries every rounding error,
``(1 - rho) A <= H <= (1 + rho) A``. Entries of K are what a deletion needs: ``x'K y`` is a sum of T^2 of them, and
``K x`` a sum of T columns. Proofs: ``docs/theory/leaves.rst``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, lapack

from certified import bounds
from certified.bounds import gamma, up
from certified.ensemble import _boosting_kernels as kernels
from certified.errors import CannotCertify
from certified.losses import Loss
from certified.rows import padded
from certified.typing import FloatArray, IntArray

__all__ = [
    "Gone",
    "LeafMetric",
    "LeafProblem",
    "LeafRelease",
    "LeafRows",
    "Slopes",
    "derivatives",
    "peaks",
    "tree_reach",
]

GRID = 2.0**-20
_LARGEST = 2.0**52
_POWERS = 20  # steps of power iteration
_SLACKS = (1.05, 1.3, 2.0, 8.0)  # factors by which its result may be too small


class LeafRows(NamedTuple):
    """Rows as leaf indices: leaves (n, T), targets, weights (0: no row) and known parts of the predictors, (n,)."""

    leaves: NDArray[np.int16]
    y: FloatArray
    s: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class LeafProblem:
    """``sum_i s_i l(y_i, o_i + x_i'v) + sum_j penalty_j (v_j - centre_j)^2 / 2``.

    Attributes
    ----------
    penalty : array of shape (d,)
        Positive.
    centre : array of shape (d,)
        Where the penalty pulls to; a function of the structure sample.
    tree_of : array of shape (d,)
        Tree of each leaf, ascending.
    weight : array of shape (d,)
        At least the weight of the rows in each leaf; it serves bounds of rounding errors only.
    """

    loss: Loss
    penalty: FloatArray
    centre: FloatArray
    tree_of: IntArray
    weight: FloatArray

    @property
    def trees(self) -> int:
        """Number of trees, T."""
        return int(self.tree_of[-1]) + 1

    @cached_property
    def first(self) -> IntArray:
        """First leaf of each tree, shape (T,)."""
        return np.flatnonzero(np.diff(self.tree_of, prepend=-1))


class Slopes(NamedTuple):
    """l', l'' and size of every row, shape (n,)."""

    slope: FloatArray
    curvature: FloatArray
    size: FloatArray


def derivatives(loss: Loss, y: FloatArray, z: FloatArray) -> Slopes:
    """Return the derivatives of rows; arrays are padded, so that few lengths are compiled."""
    n = len(z)
    room = padded(n) - n
    if room:
        y, z = np.concatenate([y, np.ones(room)]), np.concatenate([z, np.zeros(room)])
    with jax.enable_x64(True):
        found = _derivatives(loss, y, z)
    return Slopes(*(np.asarray(part)[:n] for part in found))


def _all(loss: Loss, y: Any, z: Any) -> Any:
    return loss.slope(y, z), loss.curvature(y, z), loss.size(y, z) + jnp.zeros_like(z)


_derivatives = jax.jit(_all, static_argnums=0)


def tree_reach(problem: LeafProblem, p: FloatArray) -> float:
    """Bound ``|x'p|`` over every row x that has one leaf in each tree: sums of the extremes of the trees."""
    first = problem.first
    high, low = np.maximum.reduceat(p, first).sum(), np.minimum.reduceat(p, first).sum()
    rounding = gamma(problem.trees + 4) * np.maximum.reduceat(np.abs(p), first).sum()
    return up(max(float(high), float(-low), 0.0) + float(rounding))


@dataclass(frozen=True, eq=False)
class LeafRelease:
    """The release metric ``G = sum_i m_i x_i x_i' + diag(penalty)`` of the kept rows.

    m_i is the weight of row i times its curvature where the structure alone puts it, rounded to a multiple of 2^-20: a
    function of the row and of the structure, so that sums of m_i are exact in any order.

    Attributes
    ----------
    gram : array of shape (d, d)
        ``2^20 sum m_i x_i x_i'``, integers. Rows that are deleted are subtracted in place.
    """

    gram: FloatArray
    penalty: FloatArray

    @classmethod
    def of(cls, problem: LeafProblem, rows: LeafRows, m: FloatArray) -> LeafRelease:
        """Sum over the rows; `m` in units of 2^-20."""
        if not float(np.sum(m)) < _LARGEST:
            raise CannotCertify(
                "The weighted curvatures of the rows add up to more than exact sums in float64 can hold. Scale the "
                "sample weights or the targets down."
            )
        return cls(kernels.gram(rows.leaves, m, len(problem.penalty)), problem.penalty)

    def subtract(self, leaves: NDArray[np.int16], m: FloatArray) -> None:
        """Take rows out, in place; exact."""
        for row, weight in zip(leaves, m, strict=True):
            self.gram[np.ix_(row, row)] -= weight

    def minus(self, leaves: NDArray[np.int16], m: FloatArray) -> LeafRelease:
        """Return a copy without these rows."""
        out = LeafRelease(self.gram.copy(), self.penalty)
        out.subtract(leaves, m)
        return out

    @property
    def matrix(self) -> FloatArray:
        """G, shape (d, d)."""
        out = self.gram * GRID
        out[np.diag_indices(len(out))] += self.penalty
        return out

    @property
    def root(self) -> FloatArray:
        """Upper bounds of the square roots of the diagonal of G, now and after deletions."""
        return np.sqrt(np.diag(self.gram) * GRID + self.penalty) * (1.0 + 2.0**-40)

    def factor(self) -> FloatArray:
        """Lower Cholesky factor of G."""
        return np.asarray(cholesky(self.matrix, lower=True, check_finite=False, overwrite_a=True))

    def length(self, v: FloatArray) -> float:
        """``||v||_G``, not rounded outward: for reports."""
        squared = float(v @ (self.gram @ v)) * GRID + float(np.sum(self.penalty * v * v))
        return float(np.sqrt(max(0.0, squared)))


class Gone(NamedTuple):
    """Rows removed since the Hessian was inverted.

    Attributes
    ----------
    leaves : array of shape (k, T)
    bend : array of shape (k,)
        ``c_i = s_i l''_i`` at the point of the Hessian.
    KX : array of shape (k, d)
        ``K x_i``.
    N : array of shape (k, k)
        ``x_i'K x_j``.
    reach : array of shape (k,)
        ``sum_t sqrt(K_tt)`` over the leaves of the row, at least ``||x_i||_K``; times a unit roundoff it bounds
        rounding errors.
    """

    leaves: NDArray[np.int16]
    bend: FloatArray
    KX: FloatArray
    N: FloatArray
    reach: FloatArray


@dataclass(frozen=True, eq=False)
class LeafMetric:
    """``A = K^-1`` and how the Hessian of the kept rows compares with it.

    The Hessian of the kept rows at `point` is ``A - sum_gone c_i x_i x_i'`` up to ``rho A``.

    Attributes
    ----------
    point : array of shape (d,)
    K : array of shape (d, d)
        Symmetric, computed inverse of the Hessian.
    root : array of shape (d,)
        Upper bounds of ``sqrt(K_jj)``.
    rho : float
    M : float
        At least ``kappa max ||x||_K`` over all rows.
    k_G : float
        ``||v||_G <= k_G ||v||_A`` for every v, now and after deletions.
    gone : Gone
    eta : float
        ``sum_gone c_i x_i x_i' <= eta A``.
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
        cls, problem: LeafProblem, rows: LeafRows, release: LeafRelease, point: FloatArray, m: FloatArray
    ) -> LeafMetric:
        """Form the Hessian on the rows at a point, invert it, and bound rho, M and k_G."""
        d, T = len(point), problem.trees
        z = kernels.predictors(rows.leaves, point, rows.offset)
        bend = rows.s * derivatives(problem.loss, rows.y, z).curvature
        hessian = kernels.gram(rows.leaves, bend, d)
        hessian[np.diag_indices(d)] += problem.penalty
        K = _inverse(hessian)
        root_K = np.sqrt(np.abs(np.diag(K))) * (1.0 + 2.0**-40)
        # Rounding of the Hessian: of the curvatures (a factor), of the sums (an entry is a sum of positive terms).
        largest = float(np.max(np.abs(rows.offset), initial=0.0)) + peaks(problem, np.abs(point))
        of_curvature = 64.0 * bounds.UNIT + 4.0 * problem.loss.kappa * gamma(T + 4) * largest
        of_sums = gamma(len(rows.s) + 8)
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
        smallest = up((1.0 + rho) * T / low)  # x'x = T, and K <= (1 + rho) / smallest eigenvalue of H
        blocks = kernels.block_maxima(K, problem.tree_of, T) + gamma(T * T + 8) * peaks(problem, root_K) ** 2
        squared = min(smallest, up(max(blocks, 0.0)))
        M = up(problem.loss.kappa * np.sqrt(squared))
        k_G = up(np.sqrt(up(_ratio(bend, m, hessian, K, release) * (1.0 + of_curvature) * (1.0 + rho))))
        none = np.zeros((0, T), dtype=np.int16), np.zeros(0), np.zeros((0, d)), np.zeros((0, 0)), np.zeros(0)
        return cls(point, K, root_K, rho, M, k_G, Gone(*none))

    @property
    def low(self) -> float:
        """Lower bound of the Hessian of the kept rows at the point, in units of A."""
        return 1.0 - up(self.rho + self.eta)

    def solve(self, g: FloatArray, Kg: FloatArray | None = None) -> FloatArray:
        """Return ``(A - sum_gone c_i x_i x_i')^-1 g``, roughly."""
        gone, u = self.gone, self.K @ g if Kg is None else Kg
        if not len(gone.bend):
            return u
        XKg = u[gone.leaves].sum(axis=1)
        y = np.linalg.solve(np.eye(len(gone.bend)) - gone.N * gone.bend, XKg)
        return u + (gone.bend * y) @ gone.KX

    def norm(self, g: FloatArray) -> float:
        """Upper bound of ``||g||_K``."""
        size = float(self.root @ np.abs(g))
        return up(np.sqrt(max(0.0, float(g @ (self.K @ g))) + 2.0 * gamma(2 * len(g) + 8) * size * size))

    def without(self, problem: LeafProblem, rows: LeafRows) -> LeafMetric:
        """Return the metric with these rows removed as well: O(T d) for each."""
        gone = self.gone
        z = kernels.predictors(rows.leaves, self.point, rows.offset)
        bend = rows.s * derivatives(problem.loss, rows.y, z).curvature
        KX = self.K[rows.leaves].sum(axis=1)
        all_KX = np.concatenate([gone.KX, KX])
        cross = all_KX[:, rows.leaves].sum(axis=2)  # (old and new, new)
        k = len(gone.bend)
        N = np.empty((k + len(bend), k + len(bend)))
        N[:k, :k] = gone.N
        N[:, k:] = cross
        N[k:, :k] = cross[:k].T
        N[k:, k:] = 0.5 * (N[k:, k:] + N[k:, k:].T)
        reach = self.root[rows.leaves].sum(axis=1) * (1.0 + 2.0**-30)
        after = Gone(
            np.concatenate([gone.leaves, rows.leaves]),
            np.concatenate([gone.bend, bend]),
            all_KX,
            N,
            np.concatenate([gone.reach, reach]),
        )
        largest = float(np.max(np.abs(rows.offset), initial=0.0)) + peaks(problem, np.abs(self.point))
        relative = 64.0 * bounds.UNIT + 4.0 * problem.loss.kappa * gamma(problem.trees + 4) * largest
        rho = up(self.rho + relative * float(np.sum(bend * reach**2)))
        root = np.sqrt(after.bend)
        W = root[:, None] * N * root
        rounding = 2.0 * gamma(problem.trees**2 + 8) * float(np.sum((root * after.reach) ** 2))
        frobenius = float(np.linalg.norm(W)) * (1.0 + gamma(len(W) ** 2 + 8))
        eta = frobenius if frobenius < 0.25 else min(frobenius, bounds.largest_eigenvalue(W))
        return replace(self, gone=after, eta=up(eta + rounding), rho=rho)


def peaks(problem: LeafProblem, size: FloatArray) -> float:
    """Sum over the trees of the largest entry."""
    return up(float(np.maximum.reduceat(size, problem.first).sum()) * (1.0 + gamma(problem.trees)))


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


def _ratio(bend: FloatArray, m: FloatArray, hessian: FloatArray, K: FloatArray, release: LeafRelease) -> float:
    """Bound t in ``G <= t H``, H the exact matrix with the computed curvatures.

    Row by row, ``m_i <= t s_i l''_i`` proves it. A sharper t, proposed by power iteration, is accepted where a
    floating-point Cholesky factorisation of ``t H - G`` runs to its end (Rump 2006, theorem 2.3; both matrices are at
    least the penalty).
    """
    used = m > 0
    with np.errstate(divide="ignore"):
        by_row = max(1.0, float(np.max(m[used] * GRID / bend[used], initial=1.0)) * (1.0 + 2.0**-40))
    if by_row <= 1.5:
        return by_row
    G = release.matrix
    d, low = len(G), float(np.min(release.penalty))
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
