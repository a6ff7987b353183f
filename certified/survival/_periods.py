"""Rows split by intervals of time: one row for each interval in which somebody was observed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["Periods", "checked_breaks", "split"]


class Periods(NamedTuple):
    """Rows for intervals.

    Attributes
    ----------
    row : int array of shape (n_periods,)
        Of which row each is a part.
    X : array of shape (n_periods, n_features + n_breaks)
        Its features, followed by whether the interval lies behind each break.
    event : array of shape (n_periods,)
        1 where the event happened in the interval.
    log_time : array of shape (n_periods,)
        Logarithm of the time observed in the interval.
    """

    row: IntArray
    X: FloatArray
    event: FloatArray
    log_time: FloatArray


def checked_breaks(caller: str, breaks: Any) -> FloatArray:
    """Return breaks as an array; raise InvalidInput unless they are positive, finite and increasing."""
    try:
        found = np.asarray([] if breaks is None else breaks, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.full((1, 1), np.nan)
    if found.ndim != 1 or not np.all(np.isfinite(found)) or np.any(np.diff(found, prepend=0.0) <= 0.0):
        raise InvalidInput(
            f"{caller}(breaks={breaks!r}) is not allowed. None, or finite times > 0 that increase, are. Choose them "
            "before the data are seen: a quantile of the times would remember who is deleted."
        )
    return found


def split(X: FloatArray, time: FloatArray, event: BoolArray, breaks: FloatArray) -> Periods:
    """Split rows at the breaks; an interval contains its end, not its start."""
    last = np.searchsorted(breaks, time, side="left")  # the interval in which observation ends
    row = np.repeat(np.arange(len(time)), last + 1)
    interval = np.arange(len(row)) - np.repeat(np.cumsum(last + 1) - (last + 1), last + 1)
    starts, ends = np.concatenate([[0.0], breaks]), np.concatenate([breaks, [np.inf]])
    observed = np.minimum(time[row], ends[interval]) - starts[interval]
    behind = (interval[:, None] > np.arange(len(breaks))).astype(np.float64)
    happened = (event[row] & (interval == last[row])).astype(np.float64)
    return Periods(row, np.hstack([X[row], behind]), happened, np.log(observed))
