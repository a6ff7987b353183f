"""Features as 16-bit integers, by a monotone map that a deletion seldom changes.

With a centre c and a scale s, a value x is read as ``u = (x - c) / s``, and ``1 + |u|`` is coded by its exponent and
the first 10 bits of its mantissa, with the sign of u: 1024 even steps where ``|u| < 1``, as many per octave beyond.
So every cut between codes is a number that the map makes, never a value of a row.

Centre and scale are those of the rows of the subjects with the smallest hashes, rounded: the scale to a power of 4, the
centre to a multiple of 2 scales. A deletion changes them with a probability of about 2 / n for each feature.

A category is a hash of its value, 16 bits of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._data.hashing import bottom_k, subject_hash
from certified._trees.compile import compiled
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["MISSING", "Coding", "coding_of", "encode", "hashed", "thresholds"]

MISSING = 65535
"""Code of a missing value; all others are smaller."""
_ZERO = 32768  # code of the centre


class Coding(NamedTuple):
    """The map: ``cut`` closes the hash sample that chose centre and scale, arrays of shape (n_features,)."""

    cut: Any
    centre: FloatArray
    scale: FloatArray
    categorical: Any  # uint8: 1 where a feature holds categories, as :func:`hashed`


def coding_of(X: Any, hashes: Any, sample_size: int, categorical: BoolArray | None = None) -> Coding:
    """Return the map of these rows (float32 values, NaN for missing); not of their order."""
    cut = bottom_k(hashes, sample_size)
    is_categorical = np.zeros(X.shape[1], np.uint8) if categorical is None else categorical.astype(np.uint8)
    values = np.sort(X[hashes <= cut].astype(np.float64), axis=0)  # missing values last
    centre, scale = _centre_and_scale(values, np.count_nonzero(~np.isnan(values), axis=0))
    return Coding(cut, np.where(is_categorical, 0.0, centre), np.where(is_categorical, 1.0, scale), is_categorical)


def hashed(column: Any, known: Any = None) -> Any:
    """Return for each value of a column of text or numbers a whole number up to 65534 as float32; NaN for missing.

    And for values that are not among `known`, where these are given.
    """
    if column.dtype == object:
        given = {value for value in column if value is not None}
        held = sorted(given if known is None else given & set(known))
        places = dict(zip(held, _short([f"text {value}" for value in held]).tolist(), strict=True))
        return np.array([places.get(value, np.nan) for value in column], dtype=np.float32)
    distinct, where = np.unique(column.astype(np.float64) + 0.0, return_inverse=True)
    short = _short([f"number {value!r}" for value in distinct.tolist()])
    absent = np.isnan(distinct) if known is None else ~np.isin(distinct, known)
    return np.where(absent, np.nan, short)[where].astype(np.float32)


def _short(text: list[str]) -> FloatArray:
    if not text:
        return np.empty(0)
    return (subject_hash(np.array(text, dtype=object)) % np.uint64(65535)).astype(np.float64)


def _centre_and_scale(values: FloatArray, known: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale of sorted columns, the first `known` of each being numbers."""
    last, column = np.maximum(known - 1, 0), np.arange(values.shape[1])

    def at(share: int, up: bool = False) -> FloatArray:
        """The value that this many sixteenths are below."""
        return values[(last * share + (15 if up else 0)) // 16, column]

    low, middle, high = at(4), at(8), at(12, up=True)
    spread = high - low
    spread = np.where(spread > 0.0, spread, 2.0 * (at(15, up=True) - at(1)))
    spread = np.where(spread > 0.0, spread, 0.25 * (values[last, column] - values[0]))
    usual = spread > 0.0  # not constant, nor missing
    exponent = np.frexp(np.where(usual, spread, 1.0))[1]  # 2^(e-1) <= spread < 2^e
    scale = np.where(usual, np.ldexp(1.0, 2 * ((exponent - 1) // 2)), 1.0)
    centre = np.where(usual, np.rint(middle / (2.0 * scale)) * (2.0 * scale), middle)
    return np.where(known > 0, centre, 0.0) + 0.0, scale


@compiled
def _encode(X, centre, inverse, categorical, out):
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
            if categorical[j]:
                out[j, i] = np.uint16(x)
                continue
            u = (x - centre[j]) * inverse[j]
            cell[0] = abs(u) + one
            k = min((bits[0] - base) >> 42, 32766)
            out[j, i] = 32768 + k if u >= 0.0 else 32767 - k


def encode(X: Any, coding: Coding) -> Any:
    """Return the codes, uint16 of shape (n_features, n_rows), of float32 rows."""
    out = np.empty((X.shape[1], X.shape[0]), dtype=np.uint16)
    _encode(X, coding.centre, 1.0 / coding.scale, coding.categorical, out)
    return out


def thresholds(features: Any, cuts: Any, coding: Coding) -> FloatArray:
    """Return t such that a float32 x has ``code(x) <= cut`` exactly where ``x <= t``.

    t lies half-way between two neighbouring float32 numbers, so that it is no float32 value that a row could have.
    """
    low = np.full(len(features), _ordered(np.float32(-np.inf)), dtype=np.int64)  # code(low) <= cut < code(high)
    high = np.full(len(features), _ordered(np.float32(np.inf)), dtype=np.int64)
    part = Coding(coding.cut, coding.centre[features], coding.scale[features], np.zeros(len(features), np.uint8))
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
