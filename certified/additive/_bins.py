"""Bins of one feature: stable cuts between numbers, frequent categories of text, and a bin for what is missing.

A cut is the shortest decimal number near a quantile of a hash sample. So it reads well, it is seldom a value of
anybody, and a deletion inside the sample seldom moves it.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from certified.typing import FloatArray, IntArray

__all__ = ["Axis", "Tally", "axis_of", "cuts_of", "shortest", "tally", "untallied"]

_WINDOW = 0.25  # of the width of a bin, to both sides of a quantile: where its cut is looked for
_LIGHTEST = 8  # a bin between spikes holds at least one part in this many of an even share of the rows


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

    def codes(self, column: Any) -> IntArray:
        """Return the bin of each value, ``rows`` for none."""
        absent = self.size  # the bin of missing values, or none
        if self.cuts is not None:
            found = np.searchsorted(self.cuts, column, side="right")
            return np.where(np.isnan(column), absent, found)
        place = {value: k for k, value in enumerate(self.categories.tolist())}
        other = len(self.categories) if self.pooled else self.rows
        unknown = absent if self.missing else other
        return np.fromiter(
            (unknown if v is None else place.get(v, other) for v in column.tolist()), dtype=np.int64, count=len(column)
        )


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
    """Return cuts for at most `max_bins` bins, a function of the multiset of the values, which are sorted.

    A value with at least an even share of the rows, a spike, gets a bin of its own; the other values share the bins
    that are left, by quantiles.
    """
    n = len(values)
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) < 2:
        return np.empty(0)
    spike = counts * max_bins >= n
    rest = np.repeat(distinct[~spike], counts[~spike])
    m = len(rest)
    bins = max(1, min(max_bins - int(np.count_nonzero(spike)), -(-_LIGHTEST * max_bins * m // n)))
    cuts = set()
    for k in range(1, bins):
        low = rest[int((k - _WINDOW) * m / bins)]
        high = rest[min(math.ceil((k + _WINDOW) * m / bins), m - 1)]
        if low == high:
            at = int(np.searchsorted(distinct, low))
            if at == 0:
                continue
            low = distinct[at - 1]
        cuts.add(shortest(float(low), float(high)))
    for at in np.flatnonzero(spike).tolist():
        for below in (at - 1, at):
            if 0 <= below < len(distinct) - 1:
                low, high = float(distinct[below]), float(distinct[below + 1])
                if not any(low < cut <= high for cut in cuts):
                    cuts.add(shortest(low, high))
    return np.array(sorted(cuts))


def shortest(low: float, high: float) -> float:
    """Return the number of the fewest decimal digits in ``low < x <= high``, the nearest to the middle of those.

    Examples
    --------
    >>> shortest(3.8, 4.4), shortest(18213.0, 19870.0), shortest(-2.0, 7.0)
    (4.0, 19000.0, 0.0)
    """
    if low < 0.0 <= high:
        return 0.0
    middle = low / 2.0 + high / 2.0
    top = math.floor(math.log10(max(abs(low), abs(high))))
    for exponent in range(top, max(top - 18, -308), -1):
        step = 10.0 ** abs(exponent)  # exact up to 10^22; beyond, a candidate is checked like any other
        scale = (lambda k, s=step: k * s) if exponent >= 0 else (lambda k, s=step: k / s)
        nearest = round(middle / step if exponent >= 0 else middle * step)
        inside = [x for x in map(scale, (nearest - 1, nearest, nearest + 1)) if low < x <= high]
        if inside:
            return min(inside, key=lambda x: (abs(x - middle), x))
    return high
