"""How a node splits: a function of the set of its rows, in integers, with every tie decided.

The candidate features of a node come from a hash of its place in the tree. Categories have no order of their own: a
hash of feature and category gives them ORDERS, and a hash of the place says which of these a node reads. The codes of a
feature are grouped into at most C cells of equal width: the codes, moved by a hash, without their last bits, as many as
needed for C cells to reach from the smallest code in the node to the largest. Every boundary between cells that hold
rows is a candidate; in a node of fewer than SMALL rows, every boundary between two codes (``kernels_small.py``). The
best is found from sums of integers: it does not depend on the order of rows.
"""

from __future__ import annotations

import math

import numpy as np

from certified._trees.compile import kernel

__all__ = [
    "BEST",
    "CATEGORIES",
    "COLUMN",
    "COUNTS",
    "CUT",
    "ENTROPY",
    "FEATURE",
    "GINI",
    "HIGH",
    "LARGER",
    "LAST",
    "LEAD",
    "LEFT",
    "LOW",
    "MISSING",
    "MOVE",
    "N_HIGH",
    "N_LEFT",
    "N_LOW",
    "ORDERS",
    "POISSON",
    "RANK",
    "RIGHT",
    "SECOND",
    "SHIFT",
    "SIDE",
    "SIDES",
    "SMALL",
    "SQUARES",
    "SUMS",
    "WEIGHTED_COUNTS",
    "WEIGHTED_SUMS",
    "best_of",
    "count",
    "dealt",
    "explained",
    "heavy",
    "is_simple",
    "mix",
    "move_of",
    "order_of",
    "ordering",
    "pick_features",
    "purity",
    "rows_in",
    "shift_of",
    "slack_of",
    "turn_of",
    "two_classes",
]

GINI, ENTROPY, SQUARES, POISSON = 0, 1, 2, 3
COUNTS, WEIGHTED_COUNTS, SUMS, WEIGHTED_SUMS = 0, 1, 2, 3
"""What a node sums: rows of each class or their weights, targets or weighted ones."""
MISSING, LAST = 65535, 65534
"""Codes of a missing value, and the largest of the others."""
RIGHT, LEFT, LARGER = 0, 1, 2
"""Where missing values go; the last where no row of the node has one."""
SIDES, CATEGORIES = 3, 4
"""Of a node's ``missing``: the bits of the side, and the one that is set where it splits categories."""
BEST, SECOND = 0, 1
"""Of the values of the best splits."""
RANK, CUT, SIDE, N_LEFT, FEATURE = 0, 1, 2, 3, 4
"""Of the best split: which candidate feature, the last code and the rows on the left, side of missing values."""
LOW, HIGH, N_LOW, N_HIGH, COLUMN, MOVE, SHIFT, LEAD = 0, 1, 2, 3, 4, 5, 6, 7
"""Of a span: extreme codes, how many rows have them, the feature, how its cells lie, and (in the first span of a node)
by how many rows the best split is ahead."""
SMALL = 64
"""Rows in a node from which on cells are counted; with fewer, every boundary between two codes is a candidate."""
ORDERS = 8
"""Orders of the categories of a feature, among which a hash chooses for every node."""


@kernel
def mix(x):
    """Return 64 well mixed bits of 64 (the finaliser of SplitMix64)."""
    x = np.uint64(x) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@kernel
def shift_of(lo, hi, move, n_bins):
    """Return how many last bits to drop so that the codes lo..hi, moved, fall into at most `n_bins` cells."""
    shift = np.int64(0)
    for step in (8, 4, 2, 1):  # codes so far apart need at least as many
        if (hi - lo) >> (shift + step) >= n_bins:
            shift += step
    while ((hi + move) >> shift) - ((lo + move) >> shift) >= n_bins:
        shift += 1
    return shift


@kernel
def pick_features(path, order, picks, start, stop):
    """Bring features number start..stop of the node's random order to the front of `order`; `picks` notes the swaps."""
    n = len(order)
    for i in range(start, stop):
        j = i + np.int64(mix(path ^ np.uint64(i + 1)) % np.uint64(n - i))
        picks[i] = j
        order[i], order[j] = order[j], order[i]


@kernel
def move_of(path, feature):
    """Return by how much the codes of a feature are moved in a node, 0..65535."""
    return np.int64(mix(path ^ np.uint64(0xA5A5000000000000) ^ np.uint64(feature)) >> np.uint64(48))


@kernel
def order_of(path, feature):
    """Return which of the ORDERS of a feature's categories a node reads."""
    return mix(path ^ np.uint64(0xC3C3000000000000) ^ np.uint64(feature)) % np.uint64(ORDERS)


@kernel
def turn_of(path, feature, categorical):
    """Return what orders the categories of a feature in a node, odd; 0 for a feature of numbers."""
    if categorical == 0:
        return np.uint64(0)
    return ordering(feature, order_of(path, feature))


@kernel
def ordering(feature, order):
    """Return what makes an order of the categories of a feature, odd."""
    return mix(np.uint64(feature) * np.uint64(ORDERS) + np.uint64(order)) | np.uint64(1)


@kernel
def dealt(code, turn):
    """Return the code of a category in the order of a node; 65535, for missing values, stays what it is."""
    return code if code == MISSING else np.uint16(min(mix(turn ^ np.uint64(code)) >> np.uint64(48), np.uint64(LAST)))


@kernel
def count(column, rows, n, targets, weights, kind, move, n_bins, buffer, hist, span, turn):
    """Count the rows of a node by cell of one feature.

    `targets` and `weights` are those of these rows, in their order. hist has shape (cells + 1, K), the last for missing
    values; span takes the smallest and the largest code and how many rows have each.
    """
    n_missing = 0
    lo, hi = np.uint16(MISSING), np.uint16(0)
    for i in range(n):
        c = column[np.uint32(rows[i])]
        if turn:
            c = dealt(c, turn)
        buffer[i] = c
        n_missing += c == np.uint16(MISSING)
        lo = min(lo, c)
        hi = max(hi, c)
    if n_missing == n:
        span[LOW], span[HIGH], span[N_LOW], span[N_HIGH] = MISSING, -1, 0, 0
    else:
        if n_missing:
            hi = np.uint16(0)
            for i in range(n):
                if buffer[i] != np.uint16(MISSING):
                    hi = max(hi, buffer[i])
        n_lo, n_hi = 0, 0
        for i in range(n):
            n_lo += buffer[i] == lo
            n_hi += buffer[i] == hi
        span[LOW], span[HIGH], span[N_LOW], span[N_HIGH] = lo, hi, n_lo, n_hi
    hist[:] = 0
    shift = np.uint32(shift_of(span[LOW], span[HIGH], move, n_bins)) if n_missing < n else np.uint32(0)
    base = (np.uint32(span[LOW]) + np.uint32(move)) >> shift
    for i in range(n):  # from here on the buffer holds cells
        c = buffer[i]
        cell = np.uint32(n_bins) if c == np.uint16(MISSING) else ((np.uint32(c) + np.uint32(move)) >> shift) - base
        buffer[i] = np.uint16(cell)
    last = np.uint32(hist.shape[1] - 1)
    if kind == COUNTS:
        for i in range(n):
            hist[np.uint32(buffer[i]), np.uint32(targets[i, 0])] += 1
    elif kind == WEIGHTED_COUNTS:
        for i in range(n):
            at = np.uint32(buffer[i])
            hist[at, np.uint32(targets[i, 0])] += weights[i]
            hist[at, last] += 1
    elif kind == SUMS:
        for i in range(n):
            at = np.uint32(buffer[i])
            hist[at, 0] += 1
            for k in range(targets.shape[1]):
                hist[at, np.uint32(k + 1)] += targets[i, k]
    else:
        for i in range(n):
            at = np.uint32(buffer[i])
            hist[at, 0] += weights[i]
            for k in range(targets.shape[1]):
                hist[at, np.uint32(k + 1)] += targets[i, k]
            hist[at, last] += 1


@kernel
def rows_in(stats, kind):
    """Return the number of rows of these sums."""
    if kind == COUNTS:
        n = np.int64(0)
        for k in range(len(stats)):
            n += stats[k]
        return n
    if kind == SUMS:
        return np.int64(stats[0])
    return np.int64(stats[-1])


@kernel
def log2_of(x):
    """Logarithm that is the same wherever it stands in a loop: a series in IEEE arithmetic."""
    m, e = math.frexp(x)
    if m < 0.7071067811865476:
        m *= 2.0
        e -= 1
    t = (m - 1.0) / (m + 1.0)
    q = t * t
    s = 0.0
    for k in range(12, -1, -1):
        s = s * q + 1.0 / (2 * k + 1)
    return e + 2.885390081777927 * t * s


@kernel
def purity(sums, kind, criterion):
    """Return how pure a side is: larger is better, comparable between splits of the same rows."""
    s = 0.0
    if criterion == SQUARES:
        w = np.float64(sums[0])
        for k in range(1, len(sums) - (1 if kind == WEIGHTED_SUMS else 0)):
            v = np.float64(sums[k])
            s += v * v
        return s / w if w > 0.0 else 0.0
    if criterion == POISSON:  # a side of zeros has no logarithm
        w = np.float64(sums[0])
        for k in range(1, len(sums) - (1 if kind == WEIGHTED_SUMS else 0)):
            v = np.float64(sums[k])
            if v <= 0.0 or w <= 0.0:
                return -np.inf
            s += v * (log2_of(v) - log2_of(w))
        return s
    w = 0.0
    for k in range(len(sums) - (1 if kind == WEIGHTED_COUNTS else 0)):
        v = np.float64(sums[k])
        w += v
        if criterion == GINI:
            s += v * v
        elif v > 0.0:
            s += v * log2_of(v)
    if w <= 0.0:
        return 0.0
    return s / w if criterion == GINI else s - w * log2_of(w)


@kernel
def heavy(sides, kind, min_weight):
    """Whether both sides have as much weight as a leaf needs; without weights that is a number of rows."""
    if min_weight == 0 or kind in (COUNTS, SUMS):
        return True
    for side in range(2):
        w = np.int64(0)
        if kind == WEIGHTED_COUNTS:
            for k in range(sides.shape[1] - 1):
                w += sides[side, k]
        else:
            w = np.int64(sides[side, 0])
        if w < min_weight:
            return False
    return True


@kernel
def is_simple(kind, criterion, width, random):
    """Whether splits of two classes are valued by :func:`two_classes`, half of :func:`purity` less a constant."""
    return kind == COUNTS and criterion == GINI and width == 2 and not random


@kernel
def two_classes(first, n_left, t, n):
    """Return minus the sum of ``a b / (a + b)`` over the sides; a is `first` of `n_left` on the left, t of n in all."""
    n_right = n - n_left
    mixed_left = np.float64(first) * np.float64(n_left - first) * np.float64(n_right)
    mixed_right = np.float64(t - first) * np.float64(n_right - t + first) * np.float64(n_left)
    return -(mixed_left + mixed_right) / (np.float64(n_left) * np.float64(n_right))


@kernel
def explained(value, total, n, kind, criterion, random):
    """Return by how much a split of this value lowers the impurity of a node, times the weight of its rows."""
    if is_simple(kind, criterion, len(total), random):
        return 2.0 * (value + np.float64(total[0]) * np.float64(n - total[0]) / np.float64(n))
    return value - purity(total, kind, criterion)


@kernel
def slack_of(best, n, kind, criterion, width, random):
    """Return how many rows a node can lose before another of its splits can become the best, while no cell empties.

    One row changes the value of a split by less than 1 (:func:`two_classes`) or 2 (Gini impurity otherwise), and none
    to the worse, but for what all splits have in common. The margin is above the rounding of both values, sums of fewer
    than `width` terms of at most n in all.
    """
    if kind != COUNTS or criterion != GINI:
        return np.int64(0)
    if best[SECOND] == -np.inf:
        return np.int64(2**30)
    step = 1.0 if is_simple(kind, criterion, width, random) else 2.0
    lead = best[BEST] - best[SECOND] - 2.0**-10 - (width + 8) * 2.0**-50 * n
    return np.int64(min(max(lead / step, 0.0), 2.0**30))


@kernel
def keep_better(value, best, rank, previous, cell, used, base, shift, move, side, n_left):
    """Remember a split between the cells `previous` and `cell` if its value is larger than the best.

    And the value of the second best.
    """
    fbest, ibest = best
    if value <= fbest[BEST]:
        fbest[SECOND] = max(fbest[SECOND], value)
    else:
        fbest[SECOND], fbest[BEST] = fbest[BEST], value
        ibest[RANK] = rank
        # the cut lies in the middle of the empty cells between; cell `used` stands for missing values
        middle = (previous + cell + 1) >> 1
        ibest[CUT] = ((base + middle) << shift) - move - 1 if cell < used else LAST
        ibest[SIDE] = side
        ibest[N_LEFT] = n_left


@kernel
def best_of(
    hist, span, total, n, kind, criterion, n_bins, move, min_samples_leaf, min_weight, random, path, rank, left, best
):
    """Look for a better split than `best` among the boundaries of one feature; return whether one is valid.

    `best` is its value and the second best, and the integers of RANK to FEATURE. `left` is memory for two sums.
    """
    K = hist.shape[1]
    lo, hi = np.int64(span[LOW]), np.int64(span[HIGH])
    n_missing = rows_in(hist[n_bins], kind)
    if hi < 0 or (lo == hi and n_missing == 0):
        return False
    shift = shift_of(lo, hi, move, n_bins)
    base = (lo + move) >> shift
    used = ((hi + move) >> shift) - base + 1
    chosen = np.int64(-1)
    simple = is_simple(kind, criterion, K, random)
    if random:
        boundaries = used - 1 + (1 if n_missing else 0)
        chosen = np.int64(mix(path ^ np.uint64(0x5A5A000000000000) ^ np.uint64(rank)) % np.uint64(boundaries))
    elif n_missing == 0 and simple:
        return scan_two_classes(hist, total, n, min_samples_leaf, used, base, shift, move, rank, best)
    elif n_missing == 0 and kind == SUMS and K == 2 and criterion == SQUARES:
        return scan_one_target(hist, total, n, min_samples_leaf, used, base, shift, move, rank, best)
    found = False
    for side in range(2 if n_missing else 1):  # missing values RIGHT, then LEFT
        n_left = np.int64(0)
        for k in range(K):
            left[0, k] = hist[n_bins, k] if side else 0
        if side:
            n_left = n_missing
        previous = np.int64(-1)  # the last cell with rows
        for cell in range(used + (1 if n_missing and not side else 0)):
            n_here = rows_in(hist[cell], kind) if cell < used else np.int64(1)
            if n_here == 0:
                continue
            if (
                previous >= 0
                and (not random or previous <= chosen < cell)
                and n_left >= min_samples_leaf
                and n - n_left >= min_samples_leaf
            ):
                value = 0.0
                if simple:
                    value = two_classes(np.int64(left[0, 0]), n_left, np.int64(total[0]), n)
                else:
                    for k in range(K):
                        left[1, k] = total[k] - left[0, k]
                    if heavy(left, kind, min_weight):
                        value = purity(left[0], kind, criterion) + purity(left[1], kind, criterion)
                    else:
                        value = -np.inf
                if value > -np.inf:
                    found = True
                    keep_better(
                        value, best, rank, previous, cell, used, base, shift, move, side if n_missing else LARGER,
                        n_left,
                    )  # fmt: skip
            if cell < used:
                n_left += n_here
                for k in range(K):
                    left[0, k] += hist[cell, k]
                previous = cell
    return found


@kernel
def scan_two_classes(hist, total, n, min_samples_leaf, used, base, shift, move, rank, best):
    """The same for two classes by Gini impurity, without missing values: the usual case, made fast."""
    found = False
    previous = np.int64(-1)
    n_left, first, t = np.int64(0), np.int64(0), np.int64(total[0])
    for cell in range(used):
        a = np.int64(hist[cell, 0])
        here = a + np.int64(hist[cell, 1])
        if here == 0:
            continue
        if n_left >= min_samples_leaf and n_left > 0 and n - n_left >= min_samples_leaf:
            found = True
            value = two_classes(first, n_left, t, n)
            keep_better(value, best, rank, previous, cell, used, base, shift, move, LARGER, n_left)
        n_left += here
        first += a
        previous = cell
    return found


@kernel
def scan_one_target(hist, total, n, min_samples_leaf, used, base, shift, move, rank, best):
    """The same for one target by squared error."""
    found = False
    previous = np.int64(-1)
    n_left, s = np.int64(0), np.int64(0)
    for cell in range(used):
        here = np.int64(hist[cell, 0])
        if here == 0:
            continue
        if n_left >= min_samples_leaf and n_left > 0 and n - n_left >= min_samples_leaf:
            found = True
            a, b = np.float64(s), np.float64(total[1] - s)
            value = a * a / np.float64(n_left) + b * b / np.float64(n - n_left)
            keep_better(value, best, rank, previous, cell, used, base, shift, move, LARGER, n_left)
        n_left += here
        s += np.int64(hist[cell, 1])
        previous = cell
    return found
