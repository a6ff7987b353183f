"""Leaves of rows in trees that split on numbers: what XGBoost's ``pred_leaf`` says, several times as fast.

Rows go through a tree in blocks and level by level, without a branch: a leaf is its own child, and a node's children
are neighbours in one array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from certified.typing import IntArray

__all__ = ["walked"]

_BLOCK = 64  # rows whose places in a tree stay in the cache


def walked(trees: list[dict[str, Any]], index: IntArray, X: NDArray[np.float32]) -> NDArray[np.int16] | None:
    """Return ``index[t, leaf of row i in tree t]``, shape (n_rows, n_trees); None where a tree splits on categories.

    Parameters
    ----------
    trees : list of dict
        As in XGBoost's JSON: left where a feature is below ``split_conditions``, in float32.
    index : array of shape (n_trees, most_nodes)
    X : array of shape (n_rows, n_features)
        NaN where missing.
    """
    if any(any(tree["split_type"]) for tree in trees):
        return None
    T, width = index.shape
    child = np.zeros((T, width, 2), dtype=np.uint32)
    feature, cut = np.zeros((T, width), dtype=np.uint64), np.zeros((T, width), dtype=np.float32)
    missing_right, depth = np.zeros((T, width), dtype=bool), np.zeros(T, dtype=np.int64)
    for t, tree in enumerate(trees):
        both = np.array([tree["left_children"], tree["right_children"]]).T
        n, inner = len(both), both[:, 0] >= 0
        child[t, :n] = np.where(inner[:, None], both, np.arange(n)[:, None]) + t * width
        feature[t, :n] = np.where(inner, tree["split_indices"], 0)
        cut[t, :n] = np.array(tree["split_conditions"], dtype=np.float32)
        missing_right[t, :n] = np.array(tree["default_left"]) == 0
        reached = np.zeros(1, dtype=np.int64)
        while np.any(inner[reached]):
            reached = both[reached[inner[reached]]].ravel()
            depth[t] += 1
    tables = (child.ravel(), feature.ravel(), cut.ravel(), missing_right.ravel(), index.ravel().astype(np.int16))
    return np.asarray(_walk(np.ascontiguousarray(X).ravel(), X.shape[1], *tables, depth, width))


@njit(parallel=True, cache=True)
def _walk(
    X: Any, n_features: int, child: Any, feature: Any, cut: Any, missing_right: Any, index: Any, depth: Any, width: int
) -> NDArray[np.int16]:
    n, T = len(X) // n_features, len(depth)
    out = np.empty((n, T), dtype=np.int16)
    for block in prange((n + _BLOCK - 1) // _BLOCK):
        low = block * _BLOCK
        m = min(n - low, _BLOCK)
        node = np.empty(_BLOCK, dtype=np.uint32)
        for t in range(T):
            node[:m] = t * width
            for _ in range(depth[t]):
                for i in range(m):
                    k = node[i]
                    x = X[np.uint64((low + i) * n_features) + feature[k]]
                    right = (x >= cut[k]) | ((x != x) & missing_right[k])
                    node[i] = child[np.uint32(2) * k + np.uint32(right)]
            for i in range(m):
                out[low + i, t] = index[node[i]]
    return out
