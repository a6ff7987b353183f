"""Numbers of few digits in place of the values of single rows.

A median, a knot or a cut is as good a little beside where it is. Where it is published it is therefore rounded to
the number of fewest binary digits that is near enough, so that it is nobody's value; which one that is, is a function
of the sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.typing import FloatArray

__all__ = ["between", "simplest"]


def simplest(low: Any, high: Any) -> FloatArray:
    """Return the number of fewest binary digits in ``[low, high]``, elementwise; 0 where it is inside.

    It is the multiple of the largest power of two that has one there, the one nearest to 0.

    Examples
    --------
    >>> simplest([0.3, -1.0, 36.9, 0.1], [0.45, 2.0, 37.2, 0.1]).tolist()
    [0.375, 0.0, 37.0, 0.1]
    """
    low, high = np.broadcast_arrays(np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64))
    near, far = np.minimum(np.abs(low), np.abs(high)), np.maximum(np.abs(low), np.abs(high))
    out = np.zeros(low.shape)
    open_ = (low > 0) | (high < 0)
    exponent = np.frexp(far)[1]
    while np.any(open_):
        found = np.ldexp(np.maximum(np.ceil(np.ldexp(near, -exponent)), 1.0), exponent)
        hit = open_ & (found <= far)
        out = np.where(hit, found, out)
        open_ = open_ & ~hit
        exponent = exponent - 1
    return np.where(high < 0, -out, out)


def between(values: FloatArray, cuts: FloatArray) -> FloatArray:
    """Return increasing cuts of few digits that part sorted values as these do: at or above a cut, or below it.

    Cuts between the same two values become one, so that no bin is empty.

    Examples
    --------
    >>> between(np.array([0.11, 0.52, 2.71, 3.14]), np.array([0.52, 3.0])).tolist()
    [0.5, 3.0]
    """
    at = np.searchsorted(values, cuts, side="left")
    inner = (at > 0) & (at < len(values))
    below, above = values[np.maximum(at - 1, 0)], values[np.minimum(at, len(values) - 1)]
    out = cuts.copy()
    out[inner] = simplest(np.nextafter(below[inner], np.inf), above[inner])
    return np.unique(out)
