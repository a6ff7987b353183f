"""How many rows have each value of a column: counted, and counted back."""

from __future__ import annotations

from collections import Counter
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from certified.typing import BoolArray, IntArray

__all__ = ["Counts", "as_text", "codes_of", "count", "is_missing", "merged", "subtracted"]


class Counts(NamedTuple):
    """Values of a column, sorted, a missing one last, and how many rows have each."""

    values: Any
    counts: IntArray


def count(column: Any) -> Counts:
    """Return the values of a column of a table, and how many rows have each."""
    if column.dtype == object:
        found = Counter(column.tolist())
        known = sorted(v for v in found if v is not None) + [None] * (None in found)
        return Counts(as_text(known), np.array([found[v] for v in known], dtype=np.int64))
    values, counts = np.unique(np.where(np.isnan(column), np.nan, column + 0.0), return_counts=True)
    return Counts(values, counts.astype(np.int64))


def subtracted(before: Counts, column: Any) -> Counts:
    """Return the counts without the rows of this column."""
    counts = before.counts - np.bincount(codes_of(before.values, column), minlength=len(before.counts))
    if counts.all():
        return Counts(before.values, counts)
    return Counts(before.values[counts > 0], counts[counts > 0])


def merged(a: Counts, b: Counts) -> Counts:
    """Return the counts of the rows of both columns."""
    if a.values.dtype == object:
        found = Counter(dict(zip(a.values.tolist(), a.counts.tolist(), strict=True)))
        found.update(dict(zip(b.values.tolist(), b.counts.tolist(), strict=True)))
        known = sorted(v for v in found if v is not None) + [None] * (None in found)
        return Counts(as_text(known), np.array([found[v] for v in known], dtype=np.int64))
    values, place = np.unique(np.concatenate([a.values, b.values]), return_inverse=True)
    return Counts(values, np.bincount(place, np.concatenate([a.counts, b.counts])).astype(np.int64))


def codes_of(values: Any, column: Any) -> IntArray:
    """Return the position of each row's value among `values`, -1 where it is not one of them."""
    if column.dtype == object:
        index = {value: k for k, value in enumerate(values.tolist())}
        return np.fromiter(map(index.get, column.tolist(), repeat(-1)), dtype=np.int64, count=len(column))
    missing = np.isnan(values[-1:]).sum()  # they are sorted, NaN last
    known = values[: len(values) - missing]
    found = np.searchsorted(known, column)
    codes = np.where(found < len(known), found, -1)
    codes[codes >= 0] = np.where(known[codes[codes >= 0]] == column[codes >= 0], codes[codes >= 0], -1)
    return np.where(np.isnan(column), len(known) if missing else -1, codes)


def as_text(values: list[Any]) -> Any:
    """Return a column of text."""
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


def is_missing(column: Any) -> BoolArray:
    """Return where nothing is known."""
    return np.array([v is None for v in column]) if column.dtype == object else np.isnan(column)
