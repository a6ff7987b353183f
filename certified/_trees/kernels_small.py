"""The split of a node of few rows: every boundary between two codes is a candidate."""

from __future__ import annotations

import numpy as np

from certified._trees.compile import kernel
from certified._trees.kernels_split import (
    BEST,
    COUNTS,
    CUT,
    LARGER,
    LAST,
    LEFT,
    MISSING,
    N_LEFT,
    RANK,
    RIGHT,
    SECOND,
    SIDE,
    SMALL,
    SUMS,
    WEIGHTED_COUNTS,
    WEIGHTED_SUMS,
    dealt,
    heavy,
    is_simple,
    purity,
    two_classes,
)

__all__ = ["scan_rows"]


@kernel
def scan_rows(
    column, rows, n, targets, weights, total, kind, criterion, min_samples_leaf, min_weight, rank, turn, width,
    packed, left, best,
):  # fmt: skip
    """Look for a better split than `best` among all boundaries of a feature in a node of fewer than SMALL rows.

    `packed` is memory for the codes of the rows, sorted, each with the number of its row.
    """
    n_missing = np.int64(0)
    for i in range(n):
        c = column[np.uint32(rows[i])]
        if turn:
            c = dealt(c, turn)
        n_missing += c == np.uint16(MISSING)
        new, j = np.int64(c) * SMALL + i, i
        while j > 0 and packed[j - 1] > new:  # in place, and fast for so few
            packed[j] = packed[j - 1]
            j -= 1
        packed[j] = new
    known = n - n_missing
    if known == 0 or (n_missing == 0 and packed[0] // SMALL == packed[n - 1] // SMALL):
        return False
    simple = is_simple(kind, criterion, width, False)
    if simple and n_missing == 0:
        return scan_two_classes_of_rows(n, targets, np.int64(total[0]), min_samples_leaf, rank, packed, best)
    found = False
    for side in range(2 if n_missing else 1):  # missing values RIGHT, then LEFT
        for k in range(width):
            left[0, k] = 0
        n_left = np.int64(0)
        if side == LEFT:
            for j in range(known, n):
                add_one(left[0], targets, weights, kind, packed[j] % SMALL)
            n_left = n_missing
        for j in range(known + (1 if n_missing and side == RIGHT else 0)):
            here = packed[j] // SMALL
            before = packed[j - 1] // SMALL if j else here
            if here != before and n_left >= min_samples_leaf and n - n_left >= min_samples_leaf:
                value = 0.0
                if simple:
                    value = two_classes(np.int64(left[0, 0]), n_left, np.int64(total[0]), n)
                else:
                    for k in range(width):
                        left[1, k] = total[k] - left[0, k]
                    if heavy(left, kind, min_weight):
                        value = purity(left[0], kind, criterion) + purity(left[1], kind, criterion)
                    else:
                        value = -np.inf
                found |= value > -np.inf
                fbest, ibest = best
                if value <= fbest[BEST]:
                    fbest[SECOND] = max(fbest[SECOND], value)
                else:
                    fbest[SECOND], fbest[BEST] = fbest[BEST], value
                    ibest[RANK], ibest[N_LEFT] = rank, n_left
                    ibest[CUT] = (before + here) >> 1 if j < known else LAST
                    ibest[SIDE] = side if n_missing else LARGER
            if j < known:
                n_left += 1
                add_one(left[0], targets, weights, kind, packed[j] % SMALL)
    return found


@kernel
def scan_two_classes_of_rows(n, targets, t, min_samples_leaf, rank, packed, best):
    """The same for two classes by Gini impurity, without missing values: the usual case, made fast."""
    fbest, ibest = best
    found = False
    first = np.int64(0)
    before = packed[0] // SMALL
    for j in range(n):
        here = packed[j] // SMALL
        if here != before and j >= min_samples_leaf and n - j >= min_samples_leaf:
            found = True
            value = two_classes(first, np.int64(j), t, n)
            if value <= fbest[BEST]:
                fbest[SECOND] = max(fbest[SECOND], value)
            else:
                fbest[SECOND], fbest[BEST] = fbest[BEST], value
                ibest[RANK], ibest[N_LEFT], ibest[CUT], ibest[SIDE] = rank, j, (before + here) >> 1, LARGER
        before = here
        first += targets[packed[j] % SMALL, 0] == 0
    return found


@kernel
def add_one(total, targets, weights, kind, i):
    """Add row i to sums."""
    if kind == COUNTS:
        total[np.uint32(targets[i, 0])] += 1
    elif kind == WEIGHTED_COUNTS:
        total[np.uint32(targets[i, 0])] += weights[i]
        total[len(total) - 1] += 1
    else:
        total[0] += 1 if kind == SUMS else weights[i]
        for k in range(targets.shape[1]):
            total[1 + k] += targets[i, k]
        if kind == WEIGHTED_SUMS:
            total[len(total) - 1] += 1
