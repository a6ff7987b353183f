"""Features as 16-bit integers, by a monotone map that a deletion seldom changes.

With a centre c and a scale s, a value x is read as ``u = (x - c) / s`` and coded like a floating-point number of 10
mantissa bits, ``floor(1024 log2-like(1 + |u|))`` with the sign of u: evenly spaced where ``|u| < 1``, in octaves beyond. So
every cut between codes is a number that the map makes, never a value of a row.

Centre and scale are those of the rows of the subjects with the smallest hashes, rounded: the scale to a power of 4, the
centre to a multiple of 2 scales. A deletion changes them with a probability of about 2 / n for each feature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from certified.hashing import bottom_k
from certified.typing import FloatArray

__all__ = ["MISSING", "Coding", "coding_of", "encode", "thresholds"]

MISSING = 65535
"""Code of a missing value; all others are smaller."""
_ZERO = 32768  # code of the centre


class Coding(NamedTuple):
    """The map: ``cut`` closes the hash sample that chose centre and scale, arrays of shape (n_features,)."""

    cut: Any
    centre: FloatArray
    scale: FloatArray


def coding_of(X: Any, hashes: Any, max_subjects: int) -> Coding:
    """Return the map of these rows (float32 values, NaN for missing); not of their order."""
    cut = bottom_k(hashes, max_subjects)
    some = X[hashes <= cut].astype(np.float64)
    pairs = [_centre_and_scale(column[~np.isnan(column)]) for column in some.T]
    centre, scale = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return Coding(cut, np.ascontiguousarray(centre), np.ascontiguousarray(scale))


def _centre_and_scale(values: FloatArray) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    values = np.sort(values)
    n = len(values) - 1
    low, middle, high = values[n // 4], values[n // 2], values[(3 * n + 3) // 4]
    spread = high - low
    if spread <= 0.0:
        spread = 2.0 * (values[(n * 15 + 15) // 16] - values[n // 16])
    if spread <= 0.0:
        spread = 0.25 * (values[-1] - values[0])
    if spread <= 0.0:
        return float(middle) + 0.0, 1.0
    exponent = int(np.frexp(spread)[1])  # 2^(e-1) <= spread < 2^e
    scale = float(np.ldexp(1.0, 2 * ((exponent - 1) // 2)))
    return float(np.rint(middle / (2.0 * scale)) * (2.0 * scale)) + 0.0, scale


@njit(cache=True, nogil=True)
def _encode(X, centre, inverse, out):  # type: ignore[no-untyped-def]
    one = np.float64(1.0)
    cell = np.empty(1, np.float64)
    bits = cell.view(np.int64)
    cell[0] = one
    base = bits[0]
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            x = np.float64(X[i, j])
            if np.isnan(x):
                out[j, i] = 65535
                continue
            u = (x - centre[j]) * inverse[j]
            cell[0] = abs(u) + one
            k = min((bits[0] - base) >> 42, 32766)
            out[j, i] = 32768 + k if u >= 0.0 else 32767 - k


def encode(X: Any, coding: Coding) -> Any:
    """Return the codes, uint16 of shape (n_features, n_rows), of float32 rows."""
    out = np.empty((X.shape[1], X.shape[0]), dtype=np.uint16)
    _encode(X, coding.centre, 1.0 / coding.scale, out)
    return out


def thresholds(features: Any, cuts: Any, coding: Coding) -> FloatArray:
    """Return t such that a float32 x has ``code(x) <= cut`` exactly where ``x <= t``.

    t lies half-way between two neighbouring float32 numbers, so that it is no float32 value that a row could have.
    """
    low = np.full(len(features), _ordered(np.float32(-np.inf)), dtype=np.int64)  # code(low) <= cut < code(high)
    high = np.full(len(features), _ordered(np.float32(np.inf)), dtype=np.int64)
    part = Coding(coding.cut, coding.centre[features], coding.scale[features])
    while np.any(high - low > 1):
        middle = (low + high) >> 1
        x = _unordered(middle)
        below = np.diagonal(encode(x[None], part)) if len(x) == 1 else encode(x[None], part)[:, 0]
        inside = below <= cuts
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return 0.5 * (_unordered(low).astype(np.float64) + _unordered(high).astype(np.float64))


def _ordered(x: Any) -> Any:
    """Map float32 to integers in the same order."""
    bits = np.asarray(x, dtype=np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def _unordered(k: Any) -> Any:
    k = np.asarray(k, dtype=np.int64)
    bits = np.where(k < 0, (-(k + 1)) | 0x80000000, k)
    return bits.astype(np.uint32).view(np.float32)
