"""Exact sums of the squares of each column, sparse or dense: the same integers in any order, exactly subtractable.

A square ``s x^2`` is rounded to 24 binary digits, which are added as integers to words of 32 bits, each word a range
of magnitudes. What is added depends on the entry alone: nothing must be summed again when an extreme row leaves, as
:mod:`certified._exact.sums` must, which has the products of different columns too. It suits matrices with many rare
columns.

Proof: ``docs/theory/wide.rst``. Tests: ``tests/exact/test_column_squares.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["ColumnSquares"]

_DIGITS = 24
_WORD = 32
_LOWEST = -160  # exponent of the unit of the first word; squares below 2^-137 count as 0
_WORDS = 10
_PIECE = 1 << 20  # entries that are split at once


@dataclass(frozen=True, eq=False)
class ColumnSquares:
    """Exact sums ``sum_i s_i x_ij^2`` of rounded terms, and ``sum_i s_i`` in the last place.

    Attributes
    ----------
    first : int
        The first word held.
    words : int64 array of shape (p + 1, n_words)
        Word k of a column counts ``2^(32 (first + k) - 160)``.
    """

    first: int
    words: IntArray

    @classmethod
    def of(cls, x: Any, weight: FloatArray) -> ColumnSquares:
        """Sum over the rows of x, a dense or CSR array of shape (n, p), with weights of shape (n,)."""
        total = np.zeros((x.shape[1] + 1, _WORDS), dtype=np.int64)
        _add(total, 0, x, weight, 1)
        return _trimmed(total)

    def subtract(self, x: Any, weight: FloatArray) -> ColumnSquares:
        """Return the sums without these rows, which must be among those summed."""
        words = self.words.copy()
        _add(words, self.first, x, weight, -1)
        return ColumnSquares(self.first, words)

    def plus(self, x: Any, weight: FloatArray) -> ColumnSquares:
        """Return the sums with these rows."""
        total = np.zeros((len(self.words), _WORDS), dtype=np.int64)
        total[:, self.first : self.first + self.words.shape[1]] = self.words
        _add(total, 0, x, weight, 1)
        return _trimmed(total)

    def values(self) -> FloatArray:
        """Return the sums in float64, shape (p + 1,): a fixed function of the integers."""
        total, carry = np.zeros(len(self.words)), np.zeros(len(self.words), dtype=np.int64)
        parts = []
        for k in range(self.words.shape[1]):
            word = self.words[:, k] + carry
            carry = word >> _WORD
            parts.append(word & ((1 << _WORD) - 1))
        parts.append(carry)
        for k, part in reversed(list(enumerate(parts))):
            total += np.ldexp(part.astype(np.float64), _WORD * (self.first + k) + _LOWEST)
        return total

    def same(self, other: ColumnSquares) -> bool:
        """Whether both hold the same sums, bit for bit."""
        return all(
            np.array_equal(a, b)
            for a, b in zip(_trimmed(self._wide()).parts(), _trimmed(other._wide()).parts(), strict=True)
        )

    def parts(self) -> tuple[Any, ...]:
        """Return what makes the state, for a digest."""
        return self.first, self.words

    def _wide(self) -> IntArray:
        total = np.zeros((len(self.words), _WORDS), dtype=np.int64)
        total[:, self.first : self.first + self.words.shape[1]] = self.words
        return total


def _trimmed(total: IntArray) -> ColumnSquares:
    """Drop words that no column uses, on both sides."""
    used = np.flatnonzero(total.any(axis=0))
    first, last = (int(used[0]), int(used[-1])) if used.size else (0, 0)
    return ColumnSquares(first, np.ascontiguousarray(total[:, first : last + 1]))


def _add(words: IntArray, first: int, x: Any, weight: FloatArray, sign: int) -> None:
    """Add (subtract) the squares of all entries to the words, in place."""
    n_words = words.shape[1]
    flat = words.ravel()
    for columns, squares in _entries(x, weight):
        low, high, word = _split(squares)
        at = columns * n_words + (word - first)
        for part, place in ((low, at), (high, at + 1)):
            some = slice(None) if n_words == _WORDS else part > 0  # a part that is 0 may have no word there
            np.add.at(flat, place[some], sign * part[some])


def _entries(x: Any, weight: FloatArray) -> Any:
    """Yield columns and weighted squares of the entries that are not 0, a piece at a time."""
    n, p = x.shape
    with np.errstate(over="ignore"):
        if issparse(x):
            x = csr_array(x)
            owner = np.repeat(weight, np.diff(x.indptr))
            for start in range(0, x.nnz, _PIECE):
                part = slice(start, start + _PIECE)
                yield x.indices[part].astype(np.int64), x.data[part] ** 2 * owner[part]
        else:
            rows = max(1, _PIECE // max(p, 1))
            for start in range(0, n, rows):
                squares = x[start : start + rows] ** 2 * weight[start : start + rows, None]
                live = np.nonzero(squares)
                yield live[1], squares[live]
        held = np.flatnonzero(weight)
        yield np.full(held.size, p), weight[held]


def _split(squares: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """Round to 24 binary digits; return the parts in a word and in the next one, and which word it is."""
    if not np.all(squares < 2.0**127):
        raise InvalidInput(
            "The weighted square of a value is above 2^127. Values below 1e18 are allowed; scale the features. "
            "Nothing was changed."
        )
    mantissa, exponent = np.frexp(squares)
    digits = np.rint(np.ldexp(mantissa, _DIGITS)).astype(np.int64)
    place = exponent.astype(np.int64) - _DIGITS - _LOWEST
    digits[place < 0] = 0
    place = np.maximum(place, 0)
    wide = digits << (place % _WORD)
    return wide & ((1 << _WORD) - 1), wide >> _WORD, place // _WORD
