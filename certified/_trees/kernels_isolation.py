"""Trees that isolate: each splits the rows of a few subjects by features and places that a hash chooses."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified._trees.compile import compiled
from certified._trees.kernels_binning import code_of, value_of
from certified._trees.kernels_split import MISSING, mix, pick_features

__all__ = ["isolate", "mean_length"]


@compiled
def isolate(codes, rows, path, depth, nodes, order, picks, centre, scale, blocks, first):
    """Grow a tree on rows into nodes[0], nodes[1], ... in preorder; return how many nodes it has.

    The last four are the map from values to codes.
    """
    F = codes.shape[0]
    used = 0
    stack = [(np.int64(0), np.int64(len(rows)), np.int64(0), path, np.int64(-1))]
    while len(stack):
        a, b, level, place, parent = stack.pop()
        me = used
        used += 1
        if parent >= 0:
            nodes[parent].right = me
        node = nodes[me]
        node.feature, node.left, node.right, node.slot, node.missing, node.cut = -1, -1, -1, -1, 0, 0
        node.n, node.depth = b - a, level
        if b - a < 2 or level >= depth:
            continue
        seen, f, cut = 0, -1, 0
        while seen < F and f < 0:
            pick_features(place, order, picks, seen, seen + 1)
            lo, hi = MISSING, -1
            for i in range(a, b):
                c = np.int64(codes[order[seen], rows[i]])
                if c != MISSING:
                    lo, hi = min(lo, c), max(hi, c)
            if hi > lo:
                f = order[seen]
                share = np.float64(mix(place ^ np.uint64(0x3C3C000000000000)) >> np.uint64(11)) * 2.0**-53
                low = value_of(lo, centre, scale, blocks, first, f)
                high = value_of(hi, centre, scale, blocks, first, f)
                cut = min(max(code_of(low + share * (high - low), centre, scale, blocks, first, f), lo), hi - 1)
            seen += 1
        for i in range(seen - 1, -1, -1):
            j = picks[i]
            order[i], order[j] = order[j], order[i]
        if f < 0:
            continue
        i, j = a, b
        while i < j:
            if codes[f, rows[i]] <= cut:  # missing values go right
                i += 1
            else:
                j -= 1
                rows[i], rows[j] = rows[j], rows[i]
        node.feature, node.cut, node.left = f, cut, me + 1
        stack.append((i, b, level + 1, mix(place + np.uint64(2)), np.int64(me)))
        stack.append((a, i, level + 1, mix(place + np.uint64(1)), np.int64(-1)))
    return used


def mean_length(n: Any) -> Any:
    """Return the mean depth of a leaf in a random tree of n rows: ``2 H(n - 1) - 2 (n - 1) / n``."""
    n = np.asarray(n, dtype=np.float64)
    large = np.maximum(n, 3.0)
    out = 2.0 * (np.log(large - 1.0) + np.euler_gamma) - 2.0 * (large - 1.0) / large
    return np.where(n <= 1, 0.0, np.where(n <= 2, 1.0, out))
