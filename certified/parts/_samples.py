"""Samples of subjects over a table in parts: those with the smallest hashes of all, whatever part they live in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certified._data.pairwise import fold
from certified._data.table import Table
from certified.parts._table import PartedTable

__all__ = ["cuts_over"]


def cuts_over(rows: PartedTable, observed: Callable[..., Any], *args: Any, k: int) -> list[NDArray[np.uint64]]:
    """Return :func:`certified._data.hashing.bottom_k` of the rows that each column of a mask names.

    Parameters
    ----------
    observed : callable
        ``observed(table, *args)`` is the mask of a part, shape (n_rows, n_masks).
    k : int
        Subjects in a sample.
    """
    found = fold(rows.hashed().map(_smallest, observed, args, k), _merged)
    return [np.array(few[k - 1] if few.size >= k else 2**64 - 1, dtype=np.uint64) for few, _ in found]


def _smallest(table: Table, weight: Any, observed: Callable[..., Any], args: tuple[Any, ...], k: int) -> list[Any]:
    """For each mask, the k smallest distinct hashes of a part in their order, and k."""
    return [(np.unique(table.hashes[mask])[:k], k) for mask in observed(table, *args).T]


def _merged(a: list[Any], b: list[Any]) -> list[Any]:
    return [(np.union1d(one, other)[:k], k) for (one, k), (other, _) in zip(a, b, strict=True)]
