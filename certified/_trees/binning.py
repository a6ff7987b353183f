"""Features as 16-bit integers, by a monotone map that a deletion seldom changes and that follows the data.

With a centre c and a scale s, a value x is read as ``u = (x - c) / s``, and ``1 + |u|`` is coded by its exponent and
the first 10 bits of its mantissa, with the sign of u: 1024 even steps where ``|u| < 1``, as many per octave beyond.
So every cut between codes is a number that the map makes, never a value of a row.

Centre and scale are those of the rows of the subjects with the smallest hashes, rounded: the scale to a power of 4, the
centre to a multiple of 2 scales. A deletion changes them with a probability of about 2 / n for each feature.

One centre and one scale cannot show a feature that lives at several scales: a code such as 9,999,999 among small
numbers, two clusters far apart, very heavy tails. Where many of these rows would come to one cell of 16
(:func:`_is_squeezed`), the map consists of blocks instead (:func:`_blocks`): the float32 numbers, in their order, are
halved again and again where many rows lie, and every block gets its part of the codes. The decisions are counts of
rows, so that a deletion changes the blocks with a probability of some 30 / n.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._data.hashing import bottom_k, subject_hash
from certified._trees.kernels_binning import encode_all
from certified._trees.kernels_split import LAST, MISSING
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["MISSING", "Coding", "category_codes", "coding_of", "encode", "thresholds"]

_CELLS = 16  # of the codes, in which rows are counted
_FEW = 16  # rows: fewer show no shape
_WIDE, _NARROW = 4096, 32  # codes of a block at most; how many times fewer one with hardly a row gets


class Coding(NamedTuple):
    """The map.

    Attributes
    ----------
    cut : uint64
        The largest hash of the sample that chose the map.
    centre, scale : arrays of shape (n_features,)
    categorical : uint8 array of shape (n_features,)
        1 where a feature holds categories, as :func:`category_codes`.
    first : int64 array of shape (n_features + 1,)
        The blocks of feature f are ``first[f]`` to ``first[f + 1]``; where there are none, centre and scale hold.
    blocks : int64 array of shape (4, n_blocks)
        Smallest number, binary logarithm of how many numbers, first code, and how many codes each block has.
    """

    cut: Any
    centre: FloatArray
    scale: FloatArray
    categorical: Any
    first: IntArray
    blocks: IntArray

    def same(self, other: Coding) -> bool:
        """Whether both are the same map."""
        return self is other or all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("centre", "scale", "categorical", "first", "blocks")
        )


def coding_of(X: Any, hashes: Any, sample_size: int, categorical: BoolArray | None = None) -> Coding:
    """Return the map of these rows (float32 values, NaN for missing); not of their order."""
    cut = bottom_k(hashes, sample_size)
    n_features = X.shape[1]
    is_categorical = np.zeros(n_features, np.uint8) if categorical is None else categorical.astype(np.uint8)
    values = np.sort(X[hashes <= cut], axis=0)  # missing values last
    known = np.count_nonzero(~np.isnan(values), axis=0)
    centre, scale = _centre_and_scale(values.astype(np.float64), known)
    none = np.zeros(n_features + 1, np.int64), np.zeros((4, 0), np.int64)
    coding = Coding(
        cut, np.where(is_categorical, 0.0, centre), np.where(is_categorical, 1.0, scale), is_categorical, *none
    )
    codes = encode(values, coding).astype(np.int64)
    found = []
    for j, n in enumerate(known.tolist()):
        squeezed = not is_categorical[j] and _is_squeezed(codes[j, :n], values[:n, j])
        found.append(_blocks(_ordered(values[:n, j])) if squeezed else none[1])
    sizes = [part.shape[1] for part in found]
    used = np.array(sizes) > 0
    return coding._replace(
        centre=np.where(used, 0.0, coding.centre),
        scale=np.where(used, 1.0, coding.scale),
        first=np.concatenate([[0], np.cumsum(sizes)]),
        blocks=np.concatenate(found, axis=1),
    )


def _is_squeezed(codes: IntArray, values: Any) -> bool:
    """Whether many rows of a feature come to one of 16 cells or to single codes, which shows too little of them.

    Rows count where they differ from the value that most rows have; equal values need not be told apart.
    """
    distinct, counts = np.unique(values, return_counts=True)
    usual = int(counts.max(initial=0))
    free = int(counts.sum()) - usual
    if free < _FEW:
        return False
    places = codes[np.cumsum(counts) - 1]
    if _crowded(places, counts).max() * 32 > free:
        return True
    others = np.delete(codes, slice(at := int(np.searchsorted(values, distinct[np.argmax(counts)])), at + usual))
    low, high = int(others[free // 32]), int(others[free - 1 - free // 32])
    if usual * 32 > len(codes):
        low, high = min(low, int(codes[at])), max(high, int(codes[at]))
    inside = (places >= low) & (places <= high)
    cells = (places[inside] - low) * _CELLS // (high - low + 1)
    return bool(_crowded(cells, counts[inside]).max(initial=0) * 5 > free)


def _crowded(places: IntArray, counts: IntArray) -> IntArray:
    """Return for each place how many rows are there besides those of its most frequent value."""
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    if not starts.size:
        return np.zeros(0, np.int64)
    return np.add.reduceat(counts, starts) - np.maximum.reduceat(counts, starts)


def _blocks(numbers: IntArray) -> IntArray:
    """Return blocks of float32 numbers in their order, sorted: halved while they hold too many different rows.

    A block with hardly a row gets few codes, and none more than it has numbers.
    """
    distinct, counts = np.unique(numbers, return_counts=True)
    before = np.concatenate([[0], np.cumsum(counts)])
    free = int(before[-1] - counts.max())
    most = 1 << max(free // 8, 1).bit_length() - 1  # a power of two, which seldom changes
    found: list[tuple[int, int, int]] = []
    stack = [(-(2**31), 32, 0, len(distinct))]
    while stack:
        low, size, a, b = stack.pop()
        rows = int(before[b] - before[a])
        if size and b - a > 1 and rows - int(counts[a:b].max()) > most:
            middle = low + (1 << (size - 1))
            m = a + int(np.searchsorted(distinct[a:b], middle))
            stack += [(middle, size - 1, m, b), (low, size - 1, a, m)]
        else:
            found.append((low, size, rows))
    lows, sizes, rows_of = np.array(found, dtype=np.int64).T
    wide = _WIDE
    while True:
        width = np.where(rows_of * 4 > most, wide, max(wide // _NARROW, 1))
        width = np.minimum(width, np.left_shift(1, np.minimum(sizes, 20)))
        if width.sum() <= LAST + 1:
            break
        wide //= 2
    return np.stack([lows, sizes, np.cumsum(width) - width, width])


def category_codes(values: Any, caller: str) -> Any:
    """Return a code for each of these different categories, uint16: no two have the same.

    A category has a hash of its value. They take codes in the order of these hashes, each the remainder of its own, or
    the next that is free. So the codes are a function of the set of categories, and seldom change with it.
    """
    if len(values) > LAST + 1:
        raise InvalidInput(
            f"{caller} got {len(values)} categories in a column. Up to {LAST + 1} can be told apart. Join rare ones, "
            "or give numbers. Nothing was changed."
        )
    if not len(values):
        return np.empty(0, np.uint16)
    kind = "text" if isinstance(values[0], str) else "number"
    named = [f"{kind} {value}" if kind == "text" else f"{kind} {float(value)!r}" for value in values]
    hashes = subject_hash(np.array(named, dtype=object))
    out = (hashes % np.uint64(LAST + 1)).astype(np.int64)
    if np.unique(out).size < out.size:
        taken: set[int] = set()
        for k in np.lexsort((np.array(named, dtype=object), hashes)).tolist():
            while out[k] in taken:
                out[k] = (out[k] + 1) % (LAST + 1)
            taken.add(int(out[k]))
    return out.astype(np.uint16)


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


def encode(X: Any, coding: Coding) -> Any:
    """Return the codes, uint16 of shape (n_features, n_rows), of float32 rows."""
    X = np.ascontiguousarray(X, dtype=np.float32)
    out = np.empty((X.shape[1], X.shape[0]), dtype=np.uint16)
    inverse = 1.0 / coding.scale
    encode_all(X, X.view(np.int32), coding.centre, inverse, coding.categorical, tuple(coding.blocks), coding.first, out)
    return out


def thresholds(features: Any, cuts: Any, coding: Coding) -> FloatArray:
    """Return t such that a float32 x has ``code(x) <= cut`` exactly where ``x <= t``.

    t lies half-way between two neighbouring float32 numbers, so that it is no float32 value that a row could have.
    """
    out = np.empty(len(features))
    for f in np.unique(features).tolist():
        here = features == f
        out[here] = _thresholds(cuts[here], _only(coding, f))
    return out


def _only(coding: Coding, f: int) -> Coding:
    """Return the map of one feature, as if of numbers."""
    a, b = coding.first[f], coding.first[f + 1]
    none = np.zeros(1, np.uint8)
    first, blocks = np.array([0, b - a]), np.ascontiguousarray(coding.blocks[:, a:b])
    return Coding(coding.cut, coding.centre[f : f + 1], coding.scale[f : f + 1], none, first, blocks)


def _thresholds(cuts: Any, coding: Coding) -> FloatArray:
    low = np.full(len(cuts), _ordered(np.float32(-np.inf)), dtype=np.int64)  # code(low) <= cut < code(high)
    high = np.full(len(cuts), _ordered(np.float32(np.inf)), dtype=np.int64)
    while np.any(high - low > 1):
        middle = (low + high) >> 1
        inside = encode(_unordered(middle)[:, None], coding)[0] <= cuts
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return 0.5 * (_unordered(low).astype(np.float64) + _unordered(high).astype(np.float64))


def _ordered(x: Any) -> Any:
    """Map float32 to integers in the same order."""
    bits = (np.asarray(x, dtype=np.float32) + np.float32(0.0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF) - 1, bits)


def _unordered(k: Any) -> Any:
    k = np.asarray(k, dtype=np.int64)
    bits = np.where(k < 0, (-(k + 1)) | 0x80000000, k)
    return bits.astype(np.uint32).view(np.float32)
