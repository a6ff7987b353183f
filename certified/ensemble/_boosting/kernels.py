"""Compiled loops over leaf indices: rows of a forest's leaf indicators are T integers, not d numbers.

Rows of the design matrix are binary with one 1 for each tree. Sums over rows run in a fixed order, whatever the number
of threads: each thread writes results of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from certified.typing import FloatArray, IntArray

__all__ = [
    "CHUNK",
    "block_maxima",
    "gram",
    "predictors",
    "reference_curvature",
    "reference_shares",
    "renumbered",
    "scatter",
]

CHUNK = 4096
"""Rows whose sums one thread forms before they are added to those of other chunks."""


_FEW = 1 << 20  # leaf indices below which a second thread costs more than it saves


def predictors(leaves: NDArray[np.int16], v: FloatArray, offset: FloatArray) -> FloatArray:
    """Return ``offset_i + sum_t v[leaves[i, t]]``, shape (n,), added in the order of the trees."""
    return (_predictors if leaves.size < _FEW else _predictors_in_parallel)(leaves, v, offset)


def _sums_of_leaves(leaves: NDArray[np.int16], v: FloatArray, offset: FloatArray) -> FloatArray:
    n, T = leaves.shape
    out = np.empty(n)
    for i in prange(n):
        total = offset[i]
        for t in range(T):
            total += v[leaves[i, t]]
        out[i] = total
    return out


_predictors = njit(cache=True)(_sums_of_leaves)
_predictors_in_parallel = njit(parallel=True, cache=True)(_sums_of_leaves)


@njit(parallel=True, cache=True)
def renumbered(nodes: NDArray[np.float32], order: IntArray, index: IntArray) -> NDArray[np.int16]:
    """Return ``index[t, nodes[i, order[t]]]``, shape (n, T)."""
    n, T = nodes.shape
    out = np.empty((n, T), dtype=np.int16)
    for i in prange(n):
        for t in range(T):
            out[i, t] = index[t, int(nodes[i, order[t]])]
    return out


@njit(parallel=True, cache=True)
def scatter(leaves: NDArray[np.int16], a: FloatArray, d: int) -> FloatArray:
    """Return the sums of a over the rows of each leaf, shape (d,)."""
    n, T = leaves.shape
    chunks = (n + CHUNK - 1) // CHUNK
    parts = np.zeros((chunks, d))
    for c in prange(chunks):
        for i in range(c * CHUNK, min(n, (c + 1) * CHUNK)):
            x = a[i]
            if x != 0.0:
                for t in range(T):
                    parts[c, leaves[i, t]] += x
    out = np.zeros(d)
    for c in range(chunks):
        out += parts[c]
    return out


def gram(leaves: NDArray[np.int16], weight: FloatArray, d: int) -> FloatArray:
    """Return ``sum_i X_i W_i X_i'``, shape (d, d), X_i the indicators of the leaves of row i, a column for each output.

    Exact, in any order, where the weights are integers whose sum stays below 2^53.

    Parameters
    ----------
    leaves : array of shape (n, K T)
        The T trees of the first output, then those of the second; leaves are numbered in this order.
    weight : array of shape (n, K (K + 1) / 2)
        Upper triangle of W_i, row after row; shape (n,) for one output.
    """
    # Rows of weight 0 are left out, since their leaves may be anything: a thread that adds 0 to a row of the matrix
    # that is another's would undo its work.
    weight = weight.reshape(len(weight), -1)
    live = np.flatnonzero(np.any(weight, axis=1))
    outputs = math.isqrt(2 * weight.shape[1])
    columns = np.ascontiguousarray(leaves[live].T, dtype=np.uint16)
    out = np.zeros(d * d)
    _add_pairs(columns, np.ascontiguousarray(weight[live].T), outputs, np.uint64(d), out)
    return _mirrored(out.reshape(d, d))


@njit(parallel=True, cache=True)
def _add_pairs(columns: Any, weights: FloatArray, outputs: int, d: Any, out: FloatArray) -> None:
    """A thread takes a tree, and four others at a time: the few rows of the matrix that it writes stay in the cache."""
    T, n = columns.shape
    each = T // outputs
    for s in prange(T):
        t = s // 2 if s % 2 == 0 else T - 1 - s // 2  # early trees have more pairs than late ones
        start = np.empty(n, dtype=np.uint64)  # unsigned: an index that may be negative costs a comparison
        for i in range(n):
            start[i] = columns[t, i] * d
        k = t // each
        for m in range(k, outputs):
            weight = weights[k * outputs - k * (k - 1) // 2 + m - k]
            other, last = max(t, m * each), (m + 1) * each
            while other + 4 <= last:
                a, b, c, e = columns[other], columns[other + 1], columns[other + 2], columns[other + 3]
                for i in range(n):
                    row, w = start[i], weight[i]
                    out[row + a[i]] += w
                    out[row + b[i]] += w
                    out[row + c[i]] += w
                    out[row + e[i]] += w
                other += 4
            while other < last:
                a = columns[other]
                for i in range(n):
                    out[start[i] + a[i]] += weight[i]
                other += 1


@njit(parallel=True, cache=True)
def _mirrored(out: FloatArray) -> FloatArray:
    for j in prange(len(out)):
        for k in range(j):
            out[j, k] = out[k, j]
    return out


@njit(cache=True)
def block_maxima(matrix: FloatArray, tree_of: IntArray, T: int, outputs: int = 1) -> FloatArray:
    """Bound ``x_k' matrix x_m``, from above for k = m and from below (negative) for others, shape (outputs, outputs).

    x_k has one leaf in each tree of the k-th output: the sums of the largest entries of blocks bound it.
    """
    d = len(tree_of)
    each = T // outputs
    top = np.full((T, T), -np.inf)
    for j in range(d):
        a = tree_of[j]
        for k in range(d):
            b = tree_of[k]
            if a == b:
                if j == k and matrix[j, j] > top[a, a]:
                    top[a, a] = matrix[j, j]
            else:
                value = matrix[j, k] if a // each == b // each else -matrix[j, k]
                if value > top[a, b]:
                    top[a, b] = value
    total = np.zeros((outputs, outputs))
    for a in range(T):
        for b in range(T):
            total[a // each, b // each] += top[a, b]
    return total


@njit(cache=True)
def reference_curvature(kind: int, power: float, y: FloatArray, z: FloatArray) -> FloatArray:
    """Return a row's curvature at a reference predictor: scalar arithmetic, the same bits wherever the row stands.

    kind 0: squared, 1: logistic, 2: log link with variance ``mean ** power``.
    """
    out = np.ones(len(z))
    if kind == 1:
        for i in range(len(z)):
            e = math.exp(-abs(z[i]))
            out[i] = e / ((1.0 + e) * (1.0 + e))
    elif kind == 2:
        for i in range(len(z)):
            out[i] = math.exp((2.0 - power) * z[i])
    return out


@njit(cache=True)
def reference_shares(z: FloatArray) -> FloatArray:
    """Return the softmax of each row of reference predictors, as ``reference_curvature`` does."""
    n, K = z.shape
    out = np.empty((n, K))
    for i in range(n):
        largest, total = np.max(z[i]), 0.0
        for k in range(K):
            out[i, k] = math.exp(z[i, k] - largest)
            total += out[i, k]
        for k in range(K):
            out[i, k] /= total
    return out
