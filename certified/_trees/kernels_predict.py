"""Walking down grown trees: predictions, leaves, and the nodes of a tree in the order of a refit."""

from __future__ import annotations

from heapq import heappop, heappush

import numpy as np

from certified._trees.compile import compiled
from certified._trees.kernels_grow import goes_left
from certified._trees.kernels_split import (
    LARGER,
    MISSING,
    SIDES,
    SUMS,
    WEIGHTED_COUNTS,
    dealt,
    mix,
    order_of,
    ordering,
    purity,
)

__all__ = ["dealt_all", "mean_depths", "member", "orders_of", "predict", "preorder", "prune", "scramble", "settle"]


@compiled
def leaf_of(root, codes, i, nodes):
    """Return the leaf that row i comes to."""
    k = root
    node = nodes[k]
    while node.feature >= 0:
        code = codes[node.feature, i]
        if code == MISSING and node.missing & SIDES == LARGER:
            k = node.left if nodes[node.left].n > nodes[node.right].n else node.right
        else:
            k = node.left if goes_left(code, node) else node.right
        node = nodes[k]
    return k


@compiled
def predict(codes, first, last, roots, trees, nodes, stats, classes, targets, scale, seen, out, voters):
    """Add to out[i] what each tree says of row i, and count those that say anything.

    A tree says the shares of the classes in the leaf, or the mean of the targets. One without rows says nothing, nor
    one that saw the row, where `seen` (n_trees, n_rows) is given.
    """
    for begin in range(first, last, 256):  # a block of rows at a time: the nodes of a tree stay near
        for t in trees:
            root = roots[t]
            if nodes[root].n == 0:
                continue
            for i in range(begin, min(begin + 256, last)):
                if seen.shape[0] > 0 and seen[t, i]:
                    continue
                k = leaf_of(root, codes, i, nodes)
                voters[i] += 1
                if classes > 0:
                    whole = 0.0
                    for c in range(classes):
                        whole += stats[k, c]
                    for c in range(classes):
                        out[i, c] += stats[k, c] / whole
                else:
                    for c in range(targets):
                        out[i, c] += stats[k, 1 + c] / stats[k, 0] * scale[c]


@compiled
def mean_depths(codes, first, last, roots, nodes, lengths, out, voters):
    """Add the depth of the leaf of each row, and the mean depth that a tree of the rows in that leaf would add."""
    for i in range(first, last):
        for root in roots:
            if nodes[root].n == 0:
                continue
            leaf = nodes[leaf_of(root, codes, i, nodes)]
            out[i] += leaf.depth + lengths[min(leaf.n, len(lengths) - 1)]
            voters[i] += 1


@compiled
def preorder(root, nodes):
    """Return the nodes of a tree, parents before children and left before right."""
    found = [np.int64(root)]
    found.clear()
    stack = [np.int64(root)]
    while len(stack):
        k = stack.pop()
        found.append(k)
        if nodes[k].feature >= 0:
            stack.append(np.int64(nodes[k].right))
            stack.append(np.int64(nodes[k].left))
    return np.array(found)


@compiled
def settle(nodes, rows):
    """Return the rows of a tree in preorder, those of a leaf sorted, and let the nodes point to them."""
    out = np.empty(nodes[0].n, np.int32)
    place = 0
    for k in range(len(nodes)):
        node = nodes[k]
        if node.feature < 0:
            out[place : place + node.n] = np.sort(rows[node.start : node.start + node.n])
            node.start, node.stop = place, place + node.n
            place += node.n
    for k in range(len(nodes) - 1, -1, -1):
        node = nodes[k]
        if node.feature >= 0:
            node.start, node.stop = nodes[node.left].start, nodes[node.right].stop
    return out


@compiled
def prune(roots, nodes, stats, kind, criterion, max_leaves, alpha):
    """Turn nodes into leaves, in place: those that a smaller tree has, which is a function of the whole tree.

    With ``max_leaves > 0`` the nodes are opened from the root on, the one that explains most first, until there are so
    many leaves. With ``alpha > 0`` what then explains less than alpha times the weight of the root for each leaf more
    is closed again (Breiman's minimal cost-complexity pruning).
    """
    opened = np.zeros(len(nodes), np.bool_)
    gain = np.zeros(len(nodes))
    for root in roots:
        if nodes[root].n == 0:
            continue
        order = [np.int64(root)]
        order.clear()
        heap = [(0.0, np.uint64(0), np.int64(root))]
        leaves = 1
        while len(heap) and (max_leaves == 0 or leaves < max_leaves):
            _, _, k = heappop(heap)
            node = nodes[k]
            if node.feature < 0:
                continue
            gain[k] = (
                purity(stats[node.left], kind, criterion)
                + purity(stats[node.right], kind, criterion)
                - purity(stats[k], kind, criterion)
            )
            opened[k] = True
            order.append(np.int64(k))
            leaves += 1
            for child in (node.left, node.right):
                inner = nodes[child]
                if inner.feature >= 0:
                    ahead = (
                        purity(stats[child], kind, criterion)
                        - purity(stats[inner.left], kind, criterion)
                        - purity(stats[inner.right], kind, criterion)
                    )
                    heappush(heap, (ahead, inner.path, np.int64(child)))
        if alpha > 0.0:
            total = np.float64(stats[root, 0])
            if kind < SUMS:
                for c in range(1, stats.shape[1] - (1 if kind == WEIGHTED_COUNTS else 0)):
                    total += np.float64(stats[root, c])
            for at in range(len(order) - 1, -1, -1):  # children were opened after their parents
                k = order[at]
                gain[k] += gain[nodes[k].left] + gain[nodes[k].right] - alpha * total
                if gain[k] <= 0.0:
                    gain[k] = 0.0
                    opened[k] = False
        for k in order:
            if not opened[k]:
                opened[nodes[k].left] = False
                opened[nodes[k].right] = False
    for k in range(len(nodes)):
        if nodes[k].feature >= 0 and not opened[k]:
            nodes[k].feature = -1


@compiled
def member(hashes, salts, cut):
    """Return which tree sees which row, shape (n_trees, n_rows): the hash of tree and subject is below the cut."""
    out = np.empty((len(salts), len(hashes)), np.bool_)
    for t in range(len(salts)):
        for i in range(len(hashes)):
            out[t, i] = mix(hashes[i] ^ salts[t]) <= cut
    return out


@compiled
def scramble(numbers):
    """Return well mixed bits of each number."""
    out = np.empty_like(numbers)
    for i in range(len(numbers)):
        out[i] = mix(numbers[i])
    return out


@compiled
def orders_of(paths, features):
    """Return which order of its feature's categories each node reads."""
    out = np.empty(len(paths), np.int64)
    for i in range(len(paths)):
        out[i] = order_of(paths[i], features[i])
    return out


@compiled
def dealt_all(codes, feature, order):
    """Return the place of each category of a feature in one of its orders."""
    out = np.empty(len(codes), np.uint16)
    for i in range(len(codes)):
        out[i] = dealt(codes[i], ordering(feature, order))
    return out
