"""Bins of one feature: stable cuts between numbers, frequent categories of text, and a bin for what is missing.

A cut is a short decimal number that has enough rows of a hash sample on both sides. So it reads well, it tells nothing
about anybody's value, and even a deletion inside the sample seldom changes it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from certified.typing import FloatArray, IntArray

__all__ = ["Axis", "Tally", "axis_of", "cuts_of", "halfway", "tally", "untallied"]

_SPIKES = 8  # a value with this part of the rows is not counted when bins are sized
_FEWEST = 2  # binary logarithm of the fewest values of the sample in a bin, from 16 values on


class Tally(NamedTuple):
    """How many rows have each value of a column of text, or only how many lack a value of a column of numbers."""

    values: Any
    counts: IntArray
    missing: int


class Axis(NamedTuple):
    """Bins of one feature.

    Attributes
    ----------
    cuts : float array or None
        Of numbers: bin k holds ``cuts[k - 1] <= x < cuts[k]``.
    categories : object array or None
        Of text: the frequent categories, one bin each, sorted.
    pooled : bool
        Whether a bin follows for all other categories, unknown ones too.
    missing : bool
        Whether a bin follows for missing values.
    """

    cuts: FloatArray | None
    categories: Any = None
    pooled: bool = False
    missing: bool = False

    @property
    def ordered(self) -> bool:
        """Whether neighbouring bins are close."""
        return self.cuts is not None

    @property
    def size(self) -> int:
        """Bins without that of the missing values."""
        return len(self.cuts) + 1 if self.cuts is not None else len(self.categories) + self.pooled

    @property
    def rows(self) -> int:
        """Bins; this is also the code of what belongs in none."""
        return self.size + self.missing

    def counts(self, found: Tally) -> IntArray:
        """Return how many rows are in each bin, of text."""
        frequent = np.isin(found.values, self.categories)
        pooled = [found.counts[~frequent].sum()] * self.pooled
        return np.array([*found.counts[frequent], *pooled, *[found.missing] * self.missing], dtype=np.int64)

    def codes(self, column: Any) -> IntArray:
        """Return the bin of each value, ``rows`` for none."""
        absent = self.size  # the bin of missing values, or none
        if self.cuts is not None:
            found = np.searchsorted(self.cuts, column, side="right")
            return np.where(np.isnan(column), absent, found)
        place = {value: k for k, value in enumerate(self.categories.tolist())}
        other = len(self.categories) if self.pooled else self.rows
        place[None] = absent if self.missing else other
        return np.fromiter(map(place.get, column.tolist(), repeat(other)), dtype=np.int64, count=len(column))


def tally(column: Any) -> Tally:
    """Count a column of a table."""
    if column.dtype != object:
        return Tally(None, np.zeros(0, dtype=np.int64), int(np.count_nonzero(np.isnan(column))))
    found = Counter(column.tolist())
    missing = found.pop(None, 0)
    values = np.empty(len(found), dtype=object)
    values[:] = sorted(found)
    return Tally(values, np.array([found[v] for v in values.tolist()], dtype=np.int64), missing)


def untallied(before: Tally, column: Any) -> Tally:
    """Return the tally without the rows of this column."""
    gone = tally(column)
    missing = before.missing - gone.missing
    if before.values is None:
        return before._replace(missing=missing)
    place = {value: k for k, value in enumerate(before.values.tolist())}
    counts = before.counts.copy()
    counts[[place[value] for value in gone.values.tolist()]] -= gone.counts
    return Tally(before.values[counts > 0], counts[counts > 0], missing)


def axis_of(found: Tally, sample: Any, max_bins: int, min_frequency: int) -> Axis:
    """Return the bins of a column: of text from the tally of all rows, of numbers from the values in the sample."""
    missing = found.missing > 0
    if found.values is None:
        return Axis(cuts_of(np.sort(sample[~np.isnan(sample)] + 0.0), max_bins), missing=missing)
    frequent = found.counts >= min_frequency
    if np.count_nonzero(frequent) + (not frequent.all()) > max_bins:
        first = np.argsort(-found.counts, kind="stable")[: max_bins - 1]
        frequent &= np.isin(np.arange(len(frequent)), first)
    return Axis(None, found.values[frequent], not frequent.all(), missing)


def cuts_of(values: FloatArray, max_bins: int) -> FloatArray:
    """Return cuts for about `max_bins` bins at most, a function of the multiset of the values, which are sorted.

    A tree of short decimal numbers, the same for everybody, splits the line; a number is a cut where on both sides in
    its branch enough values lie. So a value that goes can change only what lies next to it, and that only where the
    number of values there is just enough. Enough is a power of two near half an even share, not counting values so
    frequent that they need a bin of their own anyway.
    """
    _, counts = np.unique(values, return_counts=True)
    rest = int(counts[counts * _SPIKES < len(values)].sum())
    fewest = min(_FEWEST, int(math.log2(max(len(values), 4) / 4.0)))
    least = 2 ** max(fewest, round(math.log2(max(rest, 1) / (2.0 * max_bins))))
    cuts: list[float] = []
    branches = [(-math.inf, math.inf, 0, len(values))]
    while branches:
        low, high, start, stop = branches.pop()
        while stop - start >= 2 * least and values[start] != values[stop - 1]:
            cut = halfway(low, high)
            if not low < cut < high:
                break
            middle = bisect_left(values, cut, start, stop)
            if middle - start >= least and stop - middle >= least:
                cuts.append(cut)
                branches.append((cut, high, middle, stop))
                high, stop = cut, middle
            elif middle - start > stop - middle:
                high, stop = cut, middle
            else:
                low, start = cut, middle
    return np.array(sorted(cuts))


@lru_cache(1 << 16)
def halfway(low: float, high: float) -> float:
    """Return where a branch of the tree of decimal numbers splits: 0, powers of ten, then the shortest number inside.

    Examples
    --------
    >>> halfway(-math.inf, math.inf), halfway(0.0, math.inf), halfway(10.0, math.inf), halfway(0.0, 0.1)
    (0.0, 1.0, 100.0, 0.01)
    >>> halfway(10.0, 100.0), halfway(10.0, 50.0), halfway(-1.0, 0.0), halfway(3.0, 4.0)
    (50.0, 30.0, -0.1, 3.5)
    """
    if low < 0.0 < high:
        return 0.0
    if low < 0.0:
        return -halfway(-high, -low)
    if high == math.inf:
        return float(f"1e{round(math.log10(low)) + 1}") if 0.0 < low < 1e307 else 1.0 if low == 0.0 else low
    if low == 0.0:
        return float(f"1e{round(math.log10(high)) - 1}")  # high is a power of ten
    middle = low / 2.0 + high / 2.0
    top = math.floor(math.log10(high))
    for exponent in range(top, top - 18, -1):
        nearest = round(middle / 10.0**exponent)
        inside = [x for k in (nearest - 1, nearest, nearest + 1) if low < (x := float(f"{k}e{exponent}")) < high]
        if inside:
            return min(inside, key=lambda x: (abs(x - middle), x))
    return low
