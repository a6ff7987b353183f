"""Sums of values that come one after the other, in a tree that their number alone determines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

__all__ = ["additions", "fold"]

_T = TypeVar("_T")


def fold(values: Iterable[_T], plus: Callable[[_T, _T], _T]) -> _T:
    """Return the values merged pairwise, in their order; of n values about log2(n) are held at a time.

    What is merged with what depends on the number of values alone, not on when they arrive.
    """
    held: list[tuple[int, Any]] = []  # how many levels were merged, strictly falling
    for value in values:
        level, merged = 0, value
        while held and held[-1][0] == level:
            merged = plus(held.pop()[1], merged)
            level += 1
        held.append((level, merged))
    if not held:
        raise ValueError("fold got no values; at least one is needed")
    total = held.pop()[1]
    while held:
        total = plus(held.pop()[1], total)
    return total


def additions(n: int) -> int:
    """Return the most mergers that any of n values goes through in :func:`fold`.

    A value in a block of 2^k goes through k in it, one for all blocks on its right, and one for each block on its left.
    """
    return max(n, 1).bit_length()
