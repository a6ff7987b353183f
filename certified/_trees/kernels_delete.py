"""Removing rows from grown trees, so that they are what they would be if grown without them.

Every node on the path of a row subtracts it from its integers and asks again which split is best. Where the answer is
another one, the subtree is marked stale; :func:`regrow` grows it anew from its rows. Where it is the same split of the
retained rows, nothing below changes but the counts along the path.
"""

from __future__ import annotations

import numpy as np

from certified._trees.compile import compiled, kernel
from certified._trees.kernels_grow import chosen_split, finished, gather, goes_left, grow, store, worth_it
from certified._trees.kernels_split import (
    CATEGORIES,
    COLUMN,
    COUNTS,
    CUT,
    FEATURE,
    HIGH,
    LARGER,
    LEAD,
    LOW,
    MISSING,
    MOVE,
    N_HIGH,
    N_LEFT,
    N_LOW,
    POISSON,
    RANK,
    SHIFT,
    SIDE,
    SIDES,
    SMALL,
    SUMS,
    WEIGHTED_COUNTS,
    WEIGHTED_SUMS,
    best_of,
    dealt,
    rows_in,
    slack_of,
    turn_of,
)

__all__ = ["delete_all", "regrow_all"]

NODES, COUNTED, SUBTREES, REGROWN = 0, 1, 2, 3
"""Of what deletions have cost: nodes visited, rows counted again, subtrees grown again, rows in these."""
N_NODES, N_SLOTS = 0, 1
"""Of what is free in a tree."""


@compiled
def delete(root, gone, codes, targets, weights, retained, rule, nodes, stats, hists, spans, rows, stale, scratch, work):
    """Remove the rows `gone` from the tree at `root`; return how many nodes were marked stale, listed in `stale`.

    `gone` is sorted along the way. work counts the nodes visited and the rows that had to be counted again.
    """
    _, _, _, tbuf, wbuf, _, _, _, _, ibest, _, _, _ = scratch
    n_stale = 0
    stack = [(root, 0, len(gone), False)]
    while len(stack):
        me, a, b, below = stack.pop()
        node = nodes[me]
        mine = gone[a:b]
        size = b - a
        gather(mine, size, targets, weights, rule.kind, tbuf, wbuf)
        subtract(stats[me], size, tbuf, wbuf, rule.kind)
        node.n -= size
        work[NODES] += 1
        leaf = node.feature < 0
        i, j = 0, size
        n_left = np.int64(0)  # retained rows on the left
        if leaf:
            drop(rows, node.start, node.n + size, mine)
            if rule.floor == 0.0 and rule.min_samples_leaf == 1 and rule.min_weight == 0 and rule.criterion != POISSON:
                continue  # its features are constant, or it is finished: so it stays a leaf
        else:
            column = codes[node.feature]
            while i < j:
                if goes_left(column[mine[i]], node):
                    i += 1
                else:
                    j -= 1
                    mine[i], mine[j] = mine[j], mine[i]
            n_left = np.int64(nodes[node.left].n) - i
        below = below or node.stale == 1
        if not below:
            split = not finished(stats[me], np.int64(node.n), np.int64(node.depth), rule)
            if split:
                gather(mine, size, targets, weights, rule.kind, tbuf, wbuf)
                split = ask(
                    node, mine, size, n_left, codes, targets, weights, retained, rule, stats[me], hists, spans, rows,
                    scratch, work,
                )  # fmt: skip
            if leaf:
                same = not split
            else:
                same = (
                    split
                    and ibest[FEATURE] == node.feature
                    and ibest[N_LEFT] == n_left
                    and (ibest[SIDE] == node.missing & SIDES or ibest[SIDE] == LARGER)
                )
            if not same:
                node.stale, below = 1, True
                stale[n_stale] = me
                n_stale += 1
            elif not leaf:  # the same rows go left, if by another cut
                node.cut, node.missing = ibest[CUT], ibest[SIDE] + (node.missing & CATEGORIES)
        if leaf:
            continue
        if i < size:
            stack.append((node.right, a + i, b, below))
        if i > 0:
            stack.append((node.left, a, a + i, below))
    return n_stale


@kernel
def ask(node, mine, size, n_left, codes, targets, weights, retained, rule, total, hists, spans, rows, scratch, work):
    """Find the best split of what a node still holds; return whether there is one that is worth it.

    `mine` are the rows deleted; `n_left` is how many stay on the left by the split of before.
    """
    order, picks, buffer, tbuf, wbuf, hist, span, left, fbest, ibest, held, is_categorical, packed = scratch
    n = np.int64(node.n)
    random = rule.random == 1
    good = np.int64(0)
    small = n < SMALL and not random
    if node.slot >= 0 and not small:
        good = subtract_rows(
            node, mine, size, codes, tbuf, wbuf, rule, hists[node.slot], spans[node.slot], is_categorical
        )
    if (
        good == 2
        and rule.floor == 0.0
        and spans[node.slot, 0, LEAD] >= size
        and n_left >= rule.min_samples_leaf
        and n - n_left >= rule.min_samples_leaf
    ):
        spans[node.slot, 0, LEAD] -= size  # no other split can have become the best
        ibest[CUT], ibest[SIDE], ibest[N_LEFT], ibest[FEATURE] = node.cut, node.missing & SIDES, n_left, node.feature
        return True
    if good > 0:
        fbest[:] = -np.inf
        found = False
        for at in range(rule.max_features):
            if best_of(
                hists[node.slot, at], spans[node.slot, at], total, n, rule.kind, rule.criterion, rule.n_bins,
                np.int64(spans[node.slot, at, MOVE]), rule.min_samples_leaf, np.int64(rule.min_weight), random,
                node.path, np.int64(at), left, (fbest, ibest),
            ):  # fmt: skip
                found = True
        if found:
            ibest[FEATURE] = spans[node.slot, ibest[RANK], COLUMN]
            spans[node.slot, 0, LEAD] = slack_of(fbest, n, rule.kind, rule.criterion, len(total), random)
            return worth_it(fbest, total, n, rule)
    # an extreme value is gone, counts were not held, or all boundaries are candidates now: count again
    n = np.int64(0)
    for i in range(node.start, node.stop):
        row = rows[i]
        if row >= 0 and retained[row]:
            held[n] = row
            n += 1
    work[COUNTED] += n
    gather(held, n, targets, weights, rule.kind, tbuf, wbuf)
    seen = chosen_split(
        codes, is_categorical, held, n, tbuf, wbuf, rule, node.path, total, order, picks, buffer, hist, span, left,
        packed, (fbest, ibest),
    )  # fmt: skip
    if node.slot >= 0:
        if seen == rule.max_features and not small:
            store(hists, spans, node.slot, hist, span)
        else:  # never to be used again
            hists[node.slot] = 0
            spans[node.slot] = 0
    return seen > 0 and worth_it(fbest, total, n, rule)


@kernel
def subtract_rows(node, mine, size, codes, tbuf, wbuf, rule, hist, span, is_categorical):
    """Subtract rows from the counts of a node; return 0 where they must be counted again, 1 if a cell has emptied.

    And 2 if every cell that had rows still does, which is looked at for counts of classes without weights alone.
    """
    good = np.int64(2 if rule.kind == COUNTS else 1)
    for at in range(rule.max_features):
        lo, hi = np.int64(span[at, LOW]), np.int64(span[at, HIGH])
        f, move, shift = np.int64(span[at, COLUMN]), np.int64(span[at, MOVE]), np.int64(span[at, SHIFT])
        base = (lo + move) >> shift
        turn = turn_of(node.path, f, is_categorical[f])
        for i in range(size):
            code = codes[f, mine[i]]
            c = np.int64(dealt(code, turn) if turn else code)
            cell = rule.n_bins if c == MISSING else ((c + move) >> shift) - base
            if c < lo or (c > hi and c != MISSING):
                return np.int64(0)  # counts that were given up
            subtract_one(hist[at, cell], tbuf, wbuf, rule.kind, i)
            if c == lo:
                span[at, N_LOW] -= 1
            if c == hi:
                span[at, N_HIGH] -= 1
            if good == 2 and rows_in(hist[at, cell], COUNTS) == 0:
                good = np.int64(1)
        if hi >= 0 and (span[at, N_LOW] <= 0 or span[at, N_HIGH] <= 0):
            return np.int64(0)
    return good


@kernel
def subtract(total, n, targets, weights, kind):
    """Subtract rows from the sums of a node, shape (K,)."""
    for i in range(n):
        subtract_one(total, targets, weights, kind, i)


@kernel
def subtract_one(total, targets, weights, kind, i):
    """Subtract row i."""
    if kind == COUNTS:
        total[targets[i, 0]] -= 1
    elif kind == WEIGHTED_COUNTS:
        total[targets[i, 0]] -= weights[i]
        total[len(total) - 1] -= 1
    else:
        total[0] -= 1 if kind == SUMS else weights[i]
        for k in range(targets.shape[1]):
            total[1 + k] -= targets[i, k]
        if kind == WEIGHTED_SUMS:
            total[len(total) - 1] -= 1


@kernel
def drop(rows, start, n, gone):
    """Take rows out of the n that a leaf holds from `start` on."""
    for row in gone:
        for i in range(start, start + n):
            if rows[i] == row:
                n -= 1
                rows[i] = rows[start + n]
                rows[start + n] = -1
                break


@compiled
def release_below(me, nodes, stats, hists, spans, free, n_free, free_slots, n_slots):
    """Give back the nodes below one, and the slots of these and of itself, overwritten; return both counts."""
    stack = [me]
    while len(stack):
        k = stack.pop()
        node = nodes[k]
        if node.feature >= 0:
            stack.append(node.left)
            stack.append(node.right)
        if node.slot >= 0:
            hists[node.slot] = 0
            spans[node.slot] = 0
            free_slots[n_slots] = node.slot
            n_slots += 1
            node.slot = -1
        if k != me:
            stats[k] = 0
            node.feature, node.n, node.stale, node.start, node.stop, node.cut, node.path = -2, 0, 0, 0, 0, 0, 0
            free[n_free] = k
            n_free += 1
    return n_free, n_slots


@compiled
def nodes_below(me, nodes):
    """Return how many nodes are below one."""
    n = 0
    stack = [me]
    while len(stack):
        node = nodes[stack.pop()]
        if node.feature >= 0:
            n += 2
            stack.append(node.left)
            stack.append(node.right)
    return n


@compiled
def regrow(
    me, codes, targets, weights, rule, nodes, stats, hists, spans, rows, free, free_slots, counts, fresh, scratch
):
    """Grow the subtree at a node anew from its rows; return how many rows that were, -1 where memory does not do.

    counts are the numbers of free nodes and slots of the tree; `fresh` is memory to grow in.
    """
    new_nodes, new_stats, new_hists, new_spans, held = fresh
    node = nodes[me]
    n = np.int64(0)
    for i in range(node.start, node.stop):
        if rows[i] >= 0:
            held[n] = rows[i]
            n += 1
    start = np.int64(node.start)
    used, _ = grow(
        codes,
        held,
        targets,
        weights,
        rule,
        node.path,
        np.int64(node.depth),
        start,
        n,
        new_nodes,
        new_stats,
        new_hists,
        new_spans,
        scratch,
    )
    if counts[N_NODES] + nodes_below(me, nodes) < used - 1:
        return -1
    counts[N_NODES], counts[N_SLOTS] = release_below(
        me, nodes, stats, hists, spans, free, counts[N_NODES], free_slots, counts[N_SLOTS]
    )  # fmt: skip
    for i in range(node.start, node.stop):
        rows[i] = held[i - start] if i - start < n else -1
    # children come in pairs behind their parents: the pair 1, 2 is placed at free nodes, then 3, 4, ...
    for k in range(1, used):
        counts[N_NODES] -= 1
        new_nodes[k].pad = free[counts[N_NODES]]
    new_nodes[0].pad = me
    for k in range(used):
        fresh_node = new_nodes[k]
        at = fresh_node.pad
        if fresh_node.feature >= 0:
            fresh_node.left = new_nodes[fresh_node.left].pad
            fresh_node.right = new_nodes[fresh_node.right].pad
        if fresh_node.slot >= 0:
            if counts[N_SLOTS] > 0:
                counts[N_SLOTS] -= 1
                slot = free_slots[counts[N_SLOTS]]
                hists[slot] = new_hists[fresh_node.slot]
                spans[slot] = new_spans[fresh_node.slot]
                fresh_node.slot = slot
            else:
                fresh_node.slot = -1
        put(nodes, at, fresh_node)
        stats[at] = new_stats[k]
    return n


@kernel
def put(nodes, at, new):
    """Write a node."""
    node = nodes[at]
    node.feature, node.cut, node.missing, node.stale = new.feature, new.cut, new.missing, 0
    node.left, node.right, node.start, node.stop = new.left, new.right, new.start, new.stop
    node.slot, node.n, node.path, node.depth, node.pad = new.slot, new.n, new.path, new.depth, 0


@compiled
def delete_all(
    first,
    last,
    starts,
    gone,
    roots,
    codes,
    targets,
    weights,
    retained,
    rule,
    nodes,
    stats,
    hists,
    spans,
    rows,
    stale,
    owner,
    scratch,
    work,
):
    """Remove the rows gone[starts[t]:starts[t + 1]] from each tree t from `first` to `last`.

    Returns how many nodes were marked stale; they and their trees come first in `stale` and `owner`.
    """
    n = 0
    for t in range(first, last):
        a, b = starts[t], starts[t + 1]
        if a < b:
            found = delete(
                roots[t], gone[a:b], codes, targets, weights, retained, rule, nodes, stats, hists, spans, rows,
                stale[n:],
                scratch, work,
            )  # fmt: skip
            owner[n : n + found] = t
            n += found
    return n


@compiled
def regrow_all(
    stale,
    owner,
    codes,
    targets,
    weights,
    rule,
    nodes,
    stats,
    hists,
    spans,
    rows,
    free,
    free_slots,
    places,
    counts,
    fresh,
    scratch,
    work,
):
    """Grow stale subtrees anew, parents before children; return how far it came before memory ran out."""
    for k in range(len(stale)):
        me, t = stale[k], owner[k]
        if nodes[me].stale != 1:
            continue  # grown again with one above it
        n = regrow(
            me, codes, targets, weights, rule, nodes, stats, hists, spans, rows, free[places[t, 0] : places[t, 1]],
            free_slots[places[t, 2] : places[t, 3]], counts[t], fresh, scratch,
        )  # fmt: skip
        if n < 0:
            return k
        work[SUBTREES] += 1
        work[REGROWN] += n
    return len(stale)
