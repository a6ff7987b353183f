"""The Merkle tree of RFC 6962: hashes, roots, proofs of inclusion and of consistency.

A leaf is hashed behind a zero byte and an inner node behind a one, so that no leaf passes for a node. A tree of n
leaves
is split at the largest power of two below n.

References
----------
RFC 6962, section 2.1; the verification follows RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["EMPTY", "Edge", "Tree", "leaf_hash", "node_hash", "verify_consistency", "verify_inclusion"]

EMPTY = hashlib.sha256(b"").digest()
"""Root of the tree without leaves."""
_HASH_BYTES = 32


def leaf_hash(entry: bytes) -> bytes:
    """Return the hash of an entry as a leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Edge:
    """What has to be known of a tree to append to it: the roots of its perfect subtrees, from left to right.

    Attributes
    ----------
    size : int
        Number of leaves.
    nodes : tuple of bytes
        One root for each bit that is set in ``size``, the largest subtree first.
    """

    size: int = 0
    nodes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> Edge:
        """Return the edge of the tree with one leaf more."""
        nodes, size = [*self.nodes, leaf], self.size
        while size & 1:
            right, left = nodes.pop(), nodes.pop()
            nodes.append(node_hash(left, right))
            size >>= 1
        return Edge(self.size + 1, tuple(nodes))

    @property
    def root(self) -> bytes:
        """Root of the tree."""
        if not self.nodes:
            return EMPTY
        *rest, root = self.nodes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """Return the nodes, one behind the other."""
        return b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Edge:
        """Return the edge that `to_bytes` wrote; ValueError where the number of nodes does not belong to the size."""
        if len(data) != _HASH_BYTES * size.bit_count():
            raise ValueError(f"{len(data)} bytes are no edge of a tree of {size} leaves")
        return cls(size, tuple(data[i : i + _HASH_BYTES] for i in range(0, len(data), _HASH_BYTES)))


class Tree:
    """All nodes of a tree, from which proofs are read.

    Parameters
    ----------
    leaves : iterable of bytes
        Hashes of the leaves.
    """

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        self._levels: list[list[bytes]] = [[]]  # _levels[k][i]: root of the leaves i 2^k to (i+1) 2^k
        for leaf in leaves:
            self.append(leaf)

    def __len__(self) -> int:
        return len(self._levels[0])

    def append(self, leaf: bytes) -> None:
        """Add a leaf, and the nodes that it completes."""
        node, k = leaf, 0
        while True:
            if k == len(self._levels):
                self._levels.append([])
            level = self._levels[k]
            level.append(node)
            if len(level) % 2:
                return
            node, k = node_hash(level[-2], level[-1]), k + 1

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the first ``size`` leaves."""
        size = len(self) if size is None else self._checked(size)
        return self._subtree(0, size) if size else EMPTY

    def level(self, k: int) -> Sequence[bytes]:
        """Return the roots of all complete runs of 2^k leaves."""
        return self._levels[k] if k < len(self._levels) else ()

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the hashes that lead from the leaf at ``index`` to the root of ``size`` leaves, nearest first."""
        size = len(self) if size is None else self._checked(size)
        if not 0 <= index < size:
            raise IndexError(f"no leaf {index} in a tree of {size}")
        out, low, high = [], 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                out.append(self._subtree(middle, high))
                high = middle
            else:
                out.append(self._subtree(low, middle))
                low = middle
        return tuple(reversed(out))

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the hashes that show the first ``old`` leaves to be the beginning of the first ``new``."""
        new = len(self) if new is None else self._checked(new)
        if not 0 < old <= new:
            raise IndexError(f"no proof from {old} leaves to {new}: the first must be at least 1, and not larger")
        out, low, high, whole = [], 0, new, True
        while old != high:
            middle = low + _split(high - low)
            if old <= middle:
                out.append(self._subtree(middle, high))
                high = middle
            else:
                out.append(self._subtree(low, middle))
                low, whole = middle, False
        return tuple(reversed(out if whole else [*out, self._subtree(low, high)]))

    def _checked(self, size: int) -> int:
        if not 0 <= size <= len(self):
            raise IndexError(f"no tree of {size} leaves, there are {len(self)}")
        return size

    def _subtree(self, low: int, high: int) -> bytes:
        """Root of a run of leaves that the splitting rule makes, so that powers of two begin at multiples of them."""
        width = high - low
        if width & (width - 1) == 0:
            k = width.bit_length() - 1
            return self._levels[k][low >> k]
        middle = low + _split(width)
        return node_hash(self._subtree(low, middle), self._subtree(middle, high))


def _split(n: int) -> int:
    """Return the largest power of two below n, for n > 1."""
    return 1 << ((n - 1).bit_length() - 1)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Return whether ``proof`` leads from the leaf's hash at ``index`` to the root of a tree of ``size`` leaves."""
    if not 0 <= index < size:
        return False
    place, last, found = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(node, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, node)
        place, last = place >> 1, last >> 1
    return last == 0 and found == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Return whether ``proof`` shows the tree of ``old`` leaves to be the beginning of the tree of ``new``."""
    if not 0 <= old <= new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY
    if old == new:
        return not proof and old_root == new_root
    nodes = list(proof)
    if old & (old - 1) == 0:
        nodes.insert(0, old_root)
    if not nodes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    before = after = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            after = node_hash(after, node)
        place, last = place >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root
