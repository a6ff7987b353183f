"""The rows that an estimator keeps, found by subject, overwritten when deleted.

Rows live in one padded, 64-byte aligned float64 buffer: JAX reads it in place, padding has weight 0, and a deletion
changes values but never a shape, so nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from certified._data.feature_change import FeatureChange
from certified._data.hashing import Key
from certified._data.one_part import OnePart
from certified._data.sparse_copy import SparseCopy
from certified.typing import FloatArray, IntArray

__all__ = ["BLOCK", "Rows", "padded", "placed", "sharing"]

_NONE = np.zeros((1, 1))  # no offset
_PUBLIC = Key(0)
BLOCK = 1024
"""Rows in a block. Sums are formed inside a block first, which keeps their rounding error small."""


_LATER: ContextVar[list[Callable[[], None]] | None] = ContextVar("later", default=None)


@contextmanager
def sharing() -> Iterator[list[Callable[[], None]]]:
    """While this lasts, copies of rows share their buffers, and nothing is overwritten in them.

    Yields a list that fills with what has to be called to overwrite it, once the copies have taken the place of the
    originals. Each may be called again.
    """
    later: list[Callable[[], None]] = []
    token = _LATER.set(later)
    try:
        yield later
    finally:
        _LATER.reset(token)


class Rows(OnePart):
    """Design matrix, targets and weights in padded buffers.

    Parameters
    ----------
    x : array of shape (n_rows, p)
    y : array of shape (n_rows,) or None
    weight : array of shape (n_rows,) or None
        Sample weights; None means 1.
    offset : array of shape (n_rows,) or None
        Known part of the linear predictors; None means 0.
    intercept : bool
        Append a column of ones to x.

    Attributes
    ----------
    x : aligned float64 array of shape (n_padded, p)
    y, weight, offset : aligned float64 arrays of shape (n_padded,)
        Padding and deleted rows are zero, with weight 0.
    base : array like `weight`, or None
        Weights before they were balanced over classes; None where they never were.
    unweighted : bool
        Whether every weight is 0 or 1.
    """

    def __init__(
        self, x: Any, y: Any = None, weight: Any = None, *, offset: Any = None, intercept: bool = False
    ) -> None:
        n, p = x.shape
        size = padded(n)
        self.x = _aligned((size, p + intercept))
        self.x[:n, :p] = x
        if intercept:
            self.x[:n, p] = 1.0
        self.y = _aligned((size,))
        if y is not None:
            self.y[:n] = y
        self.weight = _aligned((size,))
        self.weight[:n] = 1.0 if weight is None else weight
        self.base: FloatArray | None = None
        self.offset: FloatArray | None = None
        if offset is not None:
            self.offset = _aligned((size,))
            self.offset[:n] = offset
        self.unweighted = weight is None or bool(np.all((weight == 0.0) | (weight == 1.0)))
        self._peak: FloatArray | None = None
        self._sparse_copy: tuple[SparseCopy | None] | None = None

    def blocks(self) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return x, y, weight, offset as views of shape (n_blocks, rows in a block, ...); (1, 1) for no offset."""
        size, p = self.x.shape
        inner = min(BLOCK, size)
        offset = _NONE if self.offset is None else self.offset.reshape(-1, inner)
        return self.x.reshape(-1, inner, p), self.y.reshape(-1, inner), self.weight.reshape(-1, inner), offset

    def block_of(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return copies of x, y, weight, offset at these positions, as one block."""
        offset = _NONE if self.offset is None else self.offset[rows][None]
        return self.x[rows][None], self.y[rows][None], self.weight[rows][None], offset

    def reweight(self, weight: FloatArray) -> None:
        """Give the rows these weights; the first time, remember those they had."""
        if self.base is None:
            self.base = _aligned(self.weight.shape)
            self.base[...] = self.weight
        self.weight[...] = weight
        self.unweighted = False

    def erase(self, rows: IntArray) -> None:
        """Overwrite these rows with zeros."""
        if (later := _LATER.get()) is not None:
            later.append(partial(self._erase, rows))
            for own in (self.weight, self.base):
                if own is not None:
                    own[rows] = 0.0
        else:
            self._erase(rows)

    def _erase(self, rows: IntArray) -> None:
        if self._sparse_copy is not None and self._sparse_copy[0] is not None:
            self._sparse_copy[0].erase(rows)
        if self._peak is not None and np.any(np.abs(self.x[rows]) >= self._peak):
            self._peak = None  # a value that only a deleted row had must not stay
        self.x[rows] = 0.0
        self.y[rows] = 0.0
        self.weight[rows] = 0.0
        for extra in (self.offset, self.base):
            if extra is not None:
                extra[rows] = 0.0

    def clear(self) -> None:
        """Overwrite everything with zeros."""
        if (later := _LATER.get()) is not None:
            later.append(self._clear)
        else:
            self._clear()

    def _clear(self) -> None:
        for part in (self.x, self.y, self.weight, self.offset, self.base):
            if part is not None:
                part.fill(0.0)
        if self._sparse_copy is not None and self._sparse_copy[0] is not None:
            self._sparse_copy[0].clear()
        self._peak = self._sparse_copy = None

    @property
    def sparse_copy(self) -> SparseCopy | None:
        """A sparse copy of x, where it makes passes faster."""
        if self._sparse_copy is None:
            self._sparse_copy = (SparseCopy.of(self.x),)
        return self._sparse_copy[0]

    @property
    def peak(self) -> FloatArray:
        """Largest absolute value of each column, shape (p,)."""
        if self._peak is None:
            blocks = self.blocks()[0]
            self._peak = np.maximum.reduce([np.maximum(b.max(axis=0), -b.min(axis=0)) for b in blocks])
        return self._peak

    def added(self, retained: IntArray, block: tuple[FloatArray, FloatArray, FloatArray, FloatArray]) -> Rows:
        """Return a copy of the rows at these positions, followed by those of a block (weights not balanced)."""
        x, y, weight, offset = (part[0] for part in block[:4])
        known = None
        if self.offset is not None or np.any(offset):
            before = np.zeros(retained.size) if self.offset is None else self.offset[retained]
            known = np.concatenate([before, np.broadcast_to(offset, y.shape)])
        return Rows(
            np.concatenate([self.x[retained], x]),
            np.concatenate([self.y[retained], y]),
            np.concatenate([self.base_weight[retained], weight]),
            offset=known,
        )

    def narrowed(self, new: FeatureChange, extra: int) -> FeatureChange:
        """Return new features where those that came out the same, in the same places, are taken from the old ones.

        The last `extra` columns held are no features.
        """
        out: list[Any] = []
        starts = [piece.start for piece in new.pieces if isinstance(piece, slice)] + [self.x.shape[1] - extra]
        done = 0
        for piece in new.pieces:
            if isinstance(piece, slice):
                done, starts = piece.stop, starts[1:]
                out.append(piece)
                continue
            k = piece.shape[1]
            if issparse(piece) or starts[0] != done + k:
                out.append(piece)
                continue
            retained = [
                np.array_equal(self.x[: len(new.retained), done + j][new.retained], piece[:, j]) for j in range(k)
            ]
            out += [slice(done + j, done + j + 1) if same else piece[:, j : j + 1] for j, same in enumerate(retained)]
            done += k
        return FeatureChange(new.retained, out)

    def with_features(self, new: FeatureChange, extra: int) -> Rows:
        """Return the retained rows, at their positions and with new columns; the last `extra` ones are kept."""
        n, p = len(new.retained), new.n_features
        offset = None if self.offset is None else self.offset[:n] * new.retained
        out = Rows(np.empty((n, 0)), self.y[:n] * new.retained, self.base_weight[:n] * new.retained, offset=offset)
        out.x = _aligned((len(out.y), p + extra))
        out.x[:n, p:] = self.x[:n, self.x.shape[1] - extra :]
        new.write(out.x, self.x)
        if self._sparse_copy is not None and self._sparse_copy[0] is not None:
            source = np.concatenate([new.source(), np.arange(self.x.shape[1] - extra, self.x.shape[1])])
            retained = np.zeros(len(out.y), dtype=bool)
            retained[:n] = new.retained
            out._sparse_copy = (self._sparse_copy[0].with_features(source, out.x, retained),)
        return out

    def sample(self, step: int) -> tuple[Rows, int]:
        """Return a copy of every `step`-th block, for a first guess, and how many rows stand for one of them."""
        x, y, weight, offset = (part[::step] for part in self.blocks())
        some = None if self.offset is None else offset.ravel()
        return Rows(x.reshape(-1, x.shape[-1]), y.ravel(), weight.ravel(), offset=some), step

    def __deepcopy__(self, memo: Any) -> Rows:
        out = Rows.__new__(Rows)
        if _LATER.get() is None:
            out.__setstate__(self.__getstate__())
            return out
        out.__dict__.update(self.__dict__)
        for name in ("weight", "base"):  # these are written to before the rest is overwritten
            if self.__dict__[name] is not None:
                own = _aligned(self.weight.shape)
                own[...] = self.__dict__[name]
                setattr(out, name, own)
        return out

    def __getstate__(self) -> dict[str, FloatArray]:
        return self.__dict__ | {"_peak": None, "_sparse_copy": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("x", "y", "weight", "offset", "base"):
            array = state[name]
            if array is None:
                continue
            buffer = _aligned(array.shape)
            buffer[...] = array
            setattr(self, name, buffer)


def placed(x: Any, retained: Any) -> Any:
    """Return the rows of x at the positions that are held (a mask), and rows of zeros at the others."""
    if retained.all():
        return x
    if issparse(x):
        length = np.zeros(len(retained), dtype=x.indptr.dtype)
        length[retained] = np.diff(x.indptr)
        return csr_array((x.data, x.indices, np.append(0, np.cumsum(length))), shape=(len(retained), x.shape[1]))
    out = np.zeros((len(retained), x.shape[1]))
    out[retained] = x
    return out


def padded(n: int) -> int:
    """Return the buffer length for n rows: a power of two, or for many rows at most an eighth more than needed."""
    if n <= BLOCK:
        return max(16, 1 << (n - 1).bit_length())
    blocks = -(-n // BLOCK)
    unit = 1 << max(0, blocks.bit_length() - 4)
    return BLOCK * unit * -(-blocks // unit)


def _aligned(shape: tuple[int, ...]) -> FloatArray:
    """Return zeros whose memory starts at a multiple of 64 bytes, which JAX can read without a copy."""
    size = 8 * int(np.prod(shape))
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float64).reshape(shape)
