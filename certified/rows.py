"""The rows that an estimator keeps, found by subject, overwritten when deleted.

Rows live in one padded, 64-byte aligned float64 buffer: JAX reads it in place, padding has weight 0, and a deletion
changes values but never a shape, so nothing is compiled again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from certified.errors import InvalidInput, InvalidRequest, UnknownIds
from certified.hashing import subject_hash
from certified.mirror import Mirror
from certified.renewal import Renewal
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["BLOCK", "Rows", "Subjects", "as_ids", "padded", "placed", "sharing"]

_NONE = np.zeros((1, 1))  # no offset
_LARGEST = np.iinfo(np.int64).max
BLOCK = 1024
"""Rows in a block. Sums are formed inside a block first, which keeps their rounding error small."""


def as_ids(ids: Any, caller: str) -> Any:
    """Return ids as a one-dimensional array of int64 or text, or raise InvalidInput.

    Integers, text and UUIDs are ids. Floats are refused: 17.0 and a missing value would both pass for an id.
    """
    if isinstance(ids, Collection | Iterator) and not (isinstance(ids, str | bytes) or hasattr(ids, "__array__")):
        ids = list(ids)
    elif isinstance(ids, str | bytes | uuid.UUID) or np.ndim(ids) == 0:
        ids = [ids]
    if hasattr(ids, "to_numpy"):
        ids = ids.to_numpy()
    array = np.asarray(ids)
    if array.ndim != 1:
        raise InvalidInput(f"{caller} got ids of shape {array.shape}. One id per row is allowed, shape (n_rows,).")
    if array.dtype.kind in "iu" and (array.size == 0 or array.max() <= np.iinfo(np.int64).max):
        return array.astype(np.int64)
    if array.dtype.kind in "UT":
        return array.astype(np.str_)
    if array.dtype.kind == "O":
        if all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in array):
            if any(abs(int(i)) > _LARGEST for i in array):
                raise InvalidInput(f"{caller} got integers beyond 64 bits. Give them as text. Nothing was changed.")
            return array.astype(np.int64)
        if all(isinstance(i, str | uuid.UUID) for i in array):
            return np.array([str(i) for i in array], dtype=np.str_)
    if array.size == 0:
        return np.empty(0, dtype=np.int64)
    absent = np.flatnonzero([i is None or i != i for i in array.tolist()]) if array.dtype.kind in "fO" else array[:0]
    if absent.size:
        raise InvalidInput(
            f"{caller} got {absent.size} ids that are missing (null) among {array.size}, the first at position "
            f"{absent[0]}. An id names a subject, so none may be missing: leave these out, or give rows without one "
            "an id of their own. Nothing was changed."
        )
    raise InvalidInput(
        f"{caller} got ids of type {array.dtype}. Integers, text and UUIDs without missing values are allowed. "
        "Convert the column, for example with `.astype(str)`. Nothing was changed."
    )


class Subjects:
    """Which rows belong to which subject.

    Ids are kept sorted; a deleted subject's id is overwritten by a neighbour's, so that no trace of it stays.

    Parameters
    ----------
    ids : array of shape (n_rows,) or None
        The subject of each row; None numbers the rows 0..n-1.
    n_rows : int

    Attributes
    ----------
    kept : bool array of shape (n_rows,)
        Which positions still hold a row.
    n_rows : int
        How many do.
    """

    @classmethod
    def of(cls, ids: Any, n_rows: int) -> Subjects:
        """Return `ids` if a pipeline shares its subjects with this step, else new subjects."""
        return ids if isinstance(ids, Subjects) else cls(ids, n_rows)

    def __init__(self, ids: Any, n_rows: int) -> None:
        ids = np.arange(n_rows) if ids is None else as_ids(ids, "fit(ids=...)")
        if len(ids) != n_rows:
            raise InvalidInput(
                f"fit(ids=...) got {len(ids)} ids for {n_rows} rows. One id per row is allowed, naming the subject "
                "that the row belongs to; several rows may share one."
            )
        self._order: IntArray = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]
        self.kept: BoolArray = np.ones(n_rows, dtype=bool)
        self.n_rows = n_rows
        self._rank: Any = None
        self._first = 0  # first kept position in sorted order

    @property
    def ids(self) -> Any:
        """Ids of the subjects held, sorted, each once."""
        return np.unique(self._sorted[self.kept[self._order]])

    def ids_at(self, rows: IntArray) -> Any:
        """Return the ids of the subjects of these rows, which are held."""
        return self._sorted[self._spots(rows)]

    def hashes(self, key: int = 0) -> NDArray[np.uint64]:
        """Return the keyed hash of every row's subject, shape (n_rows,); anything at positions no longer kept."""
        out = np.zeros(self.kept.size, dtype=np.uint64)
        fresh = np.concatenate([[True], self._sorted[1:] != self._sorted[:-1]])
        out[self._order] = subject_hash(self._sorted[fresh], key)[np.cumsum(fresh) - 1]
        return out

    def rows_of(self, ids: Any, caller: str = "delete(ids=...)") -> IntArray:
        """Return the positions of all rows of these subjects; raise if the request is empty, repeats or unknown."""
        ready = isinstance(ids, np.ndarray) and ids.ndim == 1 and (ids.dtype == np.int64 or ids.dtype.kind == "U")
        wanted = ids if ready else as_ids(ids, caller)
        if wanted.size == 0:
            raise InvalidRequest(
                f"{caller} got no ids. At least one subject is needed; `model.ids_` lists those held. "
                "Nothing was changed."
            )
        if wanted.size > 1:
            unique, counts = np.unique(wanted, return_counts=True)
            if unique.size < wanted.size:
                raise InvalidRequest(
                    f"{caller} got {_some(unique[counts > 1])} more than once. Each subject may be named once; "
                    "remove the repetitions, for example with `set(ids)`. Nothing was changed."
                )
        if wanted.dtype.kind != self._sorted.dtype.kind:
            self._raise_unknown(wanted, caller)
        low = self._sorted.searchsorted(wanted, side="left")
        high = self._sorted.searchsorted(wanted, side="right")
        if wanted.size == 1:
            rows = self._order[low[0] : high[0]]
            rows = rows[self.kept[rows]]
            if rows.size == 0:
                self._raise_unknown(wanted, caller)
            return rows
        owner = np.repeat(np.arange(wanted.size), high - low)
        spots = np.arange(owner.size) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[owner]
        rows = self._order[spots]
        held = self.kept[rows]
        missing = np.setdiff1d(np.arange(wanted.size), owner[held])
        if missing.size:
            self._raise_unknown(wanted[missing], caller)
        return rows[held]

    def joined(self, ids: Any, n_rows: int) -> tuple[IntArray, Subjects]:
        """Return the positions still held, and subjects in which they come first, followed by rows with these ids."""
        new = as_ids(ids, "add(ids=...)")
        if new.size != n_rows:
            raise InvalidInput(f"add(ids=...) got {new.size} ids for {n_rows} rows. One id per row is needed.")
        if new.dtype.kind != self._sorted.dtype.kind:
            raise InvalidInput(
                f"add(ids=...) got ids of type {new.dtype}, those held are of type {self._sorted.dtype}. Convert them. "
                "Nothing was changed."
            )
        held = np.flatnonzero(self.kept)
        by_position = np.empty(self.kept.size, dtype=self._sorted.dtype)
        by_position[self._order] = self._sorted
        return held, Subjects(np.concatenate([by_position[held], new]), held.size + new.size)

    def drop(self, rows: IntArray) -> None:
        """Forget the subjects of these rows (whole subjects: the output of :meth:`rows_of`)."""
        self.kept[rows] = False
        self.n_rows -= rows.size
        if rows.size > 16:
            live = self.kept[self._order]
            self._sorted, self._order, self._rank = self._sorted[live], self._order[live], None
            self._first = 0
            return
        of_rows = self.ids_at(rows)
        for gone in of_rows if rows.size == 1 else np.unique(of_rows):
            low, high = self._sorted.searchsorted(gone, side="left"), self._sorted.searchsorted(gone, side="right")
            if low:
                self._sorted[low:high] = self._sorted[low - 1]
        while not self.kept[self._order[self._first]]:
            self._first += 1
        self._sorted[: self._first] = self._sorted[self._first]  # nothing kept on the left: take the first kept id

    def _spots(self, rows: IntArray) -> IntArray:
        """Positions of rows in the sorted order (their ids are contiguous runs)."""
        if self._rank is None:
            self._rank = np.empty(self.kept.size, dtype=np.int64)
            self._rank[self._order] = np.arange(self._order.size)
        return self._rank[rows]

    def _raise_unknown(self, ids: Any, caller: str) -> None:
        advice = "Ids must have been given to fit and not deleted since; `model.ids_` lists them."
        if ids.dtype.kind != self._sorted.dtype.kind:
            kinds = {"i": "integers", "U": "text"}
            advice = (
                f"Those held are {kinds[self._sorted.dtype.kind]}, these are {kinds[ids.dtype.kind]}: convert them."
            )
        raise UnknownIds(
            f"{caller} got {len(ids)} ids that this model does not hold: {_some(ids)}. {advice} Nothing was changed."
        )


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


class Rows:
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
        self._mirror: tuple[Mirror | None] | None = None

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

    def take(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return copies of x, y, weight at these positions."""
        return self.x[rows], self.y[rows], self.weight[rows]

    @property
    def base_weight(self) -> FloatArray:
        """Weights before balancing, with which rows enter the release metric."""
        return self.weight if self.base is None else self.base

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
        if self._mirror is not None and self._mirror[0] is not None:
            self._mirror[0].erase(rows)
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
        if self._mirror is not None and self._mirror[0] is not None:
            self._mirror[0].clear()
        self._peak = self._mirror = None

    @property
    def mirror(self) -> Mirror | None:
        """A sparse copy of x, where it makes passes faster."""
        if self._mirror is None:
            self._mirror = (Mirror.of(self.x),)
        return self._mirror[0]

    @property
    def peak(self) -> FloatArray:
        """Largest absolute value of each column, shape (p,)."""
        if self._peak is None:
            blocks = self.blocks()[0]
            self._peak = np.maximum.reduce([np.maximum(b.max(axis=0), -b.min(axis=0)) for b in blocks])
        return self._peak

    def joined(self, held: IntArray, block: tuple[FloatArray, FloatArray, FloatArray, FloatArray]) -> Rows:
        """Return a copy of the rows at these positions, followed by those of a block (weights not balanced)."""
        x, y, weight, offset = (part[0] for part in block[:4])
        known = None
        if self.offset is not None or np.any(offset):
            before = np.zeros(held.size) if self.offset is None else self.offset[held]
            known = np.concatenate([before, np.broadcast_to(offset, y.shape)])
        return Rows(
            np.concatenate([self.x[held], x]),
            np.concatenate([self.y[held], y]),
            np.concatenate([self.base_weight[held], weight]),
            offset=known,
        )

    def narrowed(self, new: Renewal, extra: int) -> Renewal:
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
            held = [np.array_equal(self.x[: len(new.kept), done + j][new.kept], piece[:, j]) for j in range(k)]
            out += [slice(done + j, done + j + 1) if same else piece[:, j : j + 1] for j, same in enumerate(held)]
            done += k
        return Renewal(new.kept, out)

    def renewed(self, new: Renewal, extra: int) -> Rows:
        """Return the rows that stay, at their positions and with new columns; the last `extra` ones are kept."""
        n, p = len(new.kept), new.n_features
        offset = None if self.offset is None else self.offset[:n] * new.kept
        out = Rows(np.empty((n, 0)), self.y[:n] * new.kept, self.base_weight[:n] * new.kept, offset=offset)
        out.x = _aligned((len(out.y), p + extra))
        out.x[:n, p:] = self.x[:n, self.x.shape[1] - extra :]
        new.write(out.x, self.x)
        if self._mirror is not None and self._mirror[0] is not None:
            source = np.concatenate([new.source(), np.arange(self.x.shape[1] - extra, self.x.shape[1])])
            held = np.zeros(len(out.y), dtype=bool)
            held[:n] = new.kept
            out._mirror = (self._mirror[0].renewed(source, out.x, held),)
        return out

    def every(self, step: int) -> Rows:
        """Return a copy of every `step`-th block, for a first guess."""
        x, y, weight, offset = (part[::step] for part in self.blocks())
        some = None if self.offset is None else offset.ravel()
        return Rows(x.reshape(-1, x.shape[-1]), y.ravel(), weight.ravel(), offset=some)

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
        return self.__dict__ | {"_peak": None, "_mirror": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name in ("x", "y", "weight", "offset", "base"):
            array = state[name]
            if array is None:
                continue
            buffer = _aligned(array.shape)
            buffer[...] = array
            setattr(self, name, buffer)


def placed(x: Any, held: Any) -> Any:
    """Return the rows of x at the positions that are held (a mask), and rows of zeros at the others."""
    if held.all():
        return x
    if issparse(x):
        length = np.zeros(len(held), dtype=x.indptr.dtype)
        length[held] = np.diff(x.indptr)
        return csr_array((x.data, x.indices, np.append(0, np.cumsum(length))), shape=(len(held), x.shape[1]))
    out = np.zeros((len(held), x.shape[1]))
    out[held] = x
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


def _some(ids: Any) -> str:
    """Return up to five ids as text."""
    shown = ", ".join(repr(i) for i in np.asarray(ids)[:5].tolist())
    return f"[{shown}{', ...' if len(ids) > 5 else ''}]"
