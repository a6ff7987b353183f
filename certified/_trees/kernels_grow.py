"""Growing a tree, or a part of one, from the rows that it sees."""

from __future__ import annotations

import numpy as np

from certified._trees.compile import compiled, kernel
from certified._trees.kernels_small import scan_rows
from certified._trees.kernels_split import (
    BEST,
    CATEGORIES,
    COLUMN,
    COUNTS,
    CUT,
    FEATURE,
    HIGH,
    LEAD,
    LEFT,
    LOW,
    MISSING,
    MOVE,
    RANK,
    SHIFT,
    SIDE,
    SIDES,
    SMALL,
    SUMS,
    WEIGHTED_COUNTS,
    WEIGHTED_SUMS,
    best_of,
    count,
    dealt,
    explained,
    is_simple,
    mix,
    move_of,
    pick_features,
    shift_of,
    slack_of,
    turn_of,
)

__all__ = ["NODE", "RULES", "chosen_split", "finished", "gather", "goes_left", "grow", "store", "sum_up", "worth_it"]

NODE = np.dtype(
    [
        ("feature", np.int32),  # -1: a leaf; -2: free
        ("cut", np.uint16),  # codes up to it go left
        ("missing", np.uint8),  # RIGHT, LEFT or LARGER; CATEGORIES is added for a split of categories
        ("stale", np.uint8),  # 1: to be grown again
        ("left", np.int32),
        ("right", np.int32),
        ("start", np.int32),  # its rows are among rows[start:stop]
        ("stop", np.int32),
        ("slot", np.int32),  # where its counts are, -1: nowhere
        ("n", np.int32),  # retained rows
        ("path", np.uint64),  # hash of its place in the tree
        ("depth", np.int32),
        ("pad", np.int32),
    ]
)
"""A node. Nodes of all trees lie in one array; of a slot, the counts of the node's candidate features."""

RULES = np.dtype(
    [
        ("kind", np.int64),
        ("criterion", np.int64),
        ("random", np.int64),
        ("n_bins", np.int64),
        ("max_features", np.int64),  # candidate features
        ("depth", np.int64),
        ("min_samples_leaf", np.int64),  # rows in a leaf
        ("min_samples_split", np.int64),  # rows in a node that is split
        ("min_weight", np.int64),  # weight in a leaf, where rows have weights
        ("large", np.int64),  # rows in a node whose counts are kept
        ("floor", np.float64),  # what a split explains at least
    ]
)
"""What is the same for all nodes of a forest."""


@kernel
def finished(total, n, depth, rule):
    """Whether a node of these sums is a leaf whatever its features are."""
    if n < rule.min_samples_split or n < 2 * rule.min_samples_leaf or depth >= rule.depth:
        return True
    if rule.kind < SUMS:
        classes = len(total) - (1 if rule.kind == WEIGHTED_COUNTS else 0)
        whole = np.int64(0)
        most = np.int64(0)
        for k in range(classes):
            whole += total[k]
            most = max(most, np.int64(total[k]))
        return most == whole
    return False


@kernel
def chosen_split(
    codes, is_categorical, rows, n, targets, weights, rule, path, total, order, picks, buffer, hist, spans, left,
    packed, best,
):  # fmt: skip
    """Find the split of a node from its rows; return how many features were looked at, negative without a split.

    The first `rule.max_features` features of the node's order, and further ones until one can be split at all.
    """
    fbest, ibest = best
    fbest[:] = -np.inf
    ibest[RANK] = -1
    simple = is_simple(rule.kind, rule.criterion, len(total), rule.random == 1)
    small = n < SMALL and rule.random == 0
    F = codes.shape[0]
    seen = np.int64(0)
    found = False
    while seen < F and (seen < rule.max_features or not found):
        pick_features(path, order, picks, seen, seen + 1)
        f = order[seen]
        at = min(seen, hist.shape[0] - 1)
        move = move_of(path, f)
        turn = turn_of(path, f, is_categorical[f])
        if small:
            found |= scan_rows(
                codes[f], rows, n, targets, weights, total, rule.kind, rule.criterion, rule.min_samples_leaf,
                np.int64(rule.min_weight), seen, turn, len(total), packed, left, best,
            )  # fmt: skip
        else:
            count(codes[f], rows, n, targets, weights, rule.kind, move, rule.n_bins, buffer, hist[at], spans[at], turn)
            found |= best_of(
                hist[at], spans[at], total, n, rule.kind, rule.criterion, rule.n_bins, move, rule.min_samples_leaf,
                np.int64(rule.min_weight), rule.random == 1, path, seen, left, best,
            )  # fmt: skip
            note(spans[at], f, move, rule.n_bins)
        seen += 1
        if simple and fbest[BEST] == 0.0 and n < rule.large:
            break  # nothing can be better
    if found:
        ibest[FEATURE] = order[ibest[RANK]]
    for i in range(seen - 1, -1, -1):  # back to the order 0, 1, ...
        j = picks[i]
        order[i], order[j] = order[j], order[i]
    if not found:
        return -seen
    spans[0, LEAD] = slack_of(fbest, n, rule.kind, rule.criterion, len(total), rule.random == 1)
    return seen


@kernel
def note(span, feature, move, n_bins):
    """Note which feature was counted and how its cells lie."""
    shift = shift_of(np.int64(span[LOW]), np.int64(span[HIGH]), move, n_bins) if span[HIGH] >= 0 else np.int64(0)
    span[COLUMN], span[MOVE], span[SHIFT] = feature, move, shift


@kernel
def worth_it(best, total, n, rule):
    """Whether the best split of a node explains enough."""
    return rule.floor == 0.0 or (
        explained(best[BEST], total, n, rule.kind, rule.criterion, rule.random == 1) >= rule.floor
    )


@compiled
def grow(codes, rows, targets, weights, rule, path, depth, start, n, nodes, stats, hists, spans, scratch):
    """Grow a subtree on rows[:n] into nodes[0], nodes[1], ... and return how many nodes and slots it has.

    `rows` is sorted into leaves; `start` is added to the positions that nodes remember. Slots are counted from 0.
    """
    order, picks, buffer, tbuf, wbuf, hist, span, left, fbest, ibest, _, is_categorical, packed = scratch
    best = (fbest, ibest)
    used, slots = np.int64(1), np.int64(0)
    nodes[0].path, nodes[0].depth, nodes[0].start, nodes[0].stop = path, depth, 0, n
    stack = [0]
    while len(stack):
        me = stack.pop()
        node = nodes[me]
        a, b = np.int64(node.start), np.int64(node.stop)
        size = b - a
        mine = rows[a:b]
        total = stats[me : me + 1]
        gather(mine, size, targets, weights, rule.kind, tbuf, wbuf)
        sum_up(total[0], size, tbuf, wbuf, rule.kind)
        node.feature, node.left, node.right, node.slot = -1, -1, -1, -1
        node.n, node.start, node.stop, node.stale = size, start + a, start + b, 0
        node.cut, node.missing = 0, 0
        if finished(total[0], size, np.int64(node.depth), rule):
            continue
        seen = chosen_split(
            codes, is_categorical, mine, size, tbuf, wbuf, rule, node.path, total[0], order, picks, buffer, hist, span,
            left, packed, best,
        )  # fmt: skip
        if seen < 0:
            continue
        counted = size >= rule.large and (size >= SMALL or rule.random == 1)
        if counted and seen == rule.max_features and slots < len(hists):
            store(hists, spans, slots, hist, span)
            node.slot = slots
            slots += 1
        if not worth_it(fbest, total[0], size, rule):
            continue
        feature, cut, missing = ibest[FEATURE], ibest[CUT], ibest[SIDE]
        node.feature, node.cut, node.missing = feature, cut, missing + CATEGORIES * is_categorical[feature]
        column = codes[feature]
        i, j = 0, size
        while i < j:
            if goes_left(column[mine[i]], node):
                i += 1
            else:
                j -= 1
                mine[i], mine[j] = mine[j], mine[i]
        node.left, node.right = used, used + 1
        for side in range(2):
            child = nodes[used + side]
            child.path = mix(node.path + np.uint64(side + 1))
            child.depth = node.depth + 1
            child.start, child.stop = (a, a + i) if side == 0 else (a + i, b)
            stack.append(used + side)
        used += 2
    return used, slots


@kernel
def store(hists, spans, slot, hist, span):
    """Keep the counts of a node."""
    for at in range(hist.shape[0]):
        for cell in range(hist.shape[1]):
            for k in range(hist.shape[2]):
                hists[slot, at, cell, k] = hist[at, cell, k]
        for k in range(span.shape[1]):
            spans[slot, at, k] = span[at, k]


@kernel
def goes_left(code, node):
    """Whether a row goes left."""
    if code == MISSING:
        return node.missing & SIDES == LEFT
    if node.missing >= CATEGORIES:
        code = dealt(code, turn_of(node.path, node.feature, 1))
    return code <= node.cut


@kernel
def gather(rows, n, targets, weights, kind, tbuf, wbuf):
    """Copy targets and weights of these rows side by side."""
    for i in range(n):
        for k in range(targets.shape[1]):
            tbuf[i, k] = targets[np.uint32(rows[i]), k]
    if kind in (WEIGHTED_COUNTS, WEIGHTED_SUMS):
        for i in range(n):
            wbuf[i] = weights[np.uint32(rows[i])]


@kernel
def sum_up(total, n, targets, weights, kind):
    """Set the sums of a node, shape (K,)."""
    total[:] = 0
    if kind == COUNTS:
        for i in range(n):
            total[np.uint32(targets[i, 0])] += 1
    elif kind == WEIGHTED_COUNTS:
        for i in range(n):
            total[np.uint32(targets[i, 0])] += weights[i]
        total[-1] = n
    elif kind == SUMS:
        total[0] = n
        for i in range(n):
            for k in range(targets.shape[1]):
                total[1 + k] += targets[i, k]
    else:
        for i in range(n):
            total[0] += weights[i]
            for k in range(targets.shape[1]):
                total[1 + k] += targets[i, k]
        total[-1] = n
