"""One part of the rows: where its bytes are, and the rows that open from them."""

from __future__ import annotations

import mmap
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from certified._data.rows import BLOCK, Rows, padded
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["MISSING", "InFile", "InMemory", "Layout", "Part", "PartWeight", "Stored"]

_PAGE = 4096
MISSING = "\U0010ffff"
"""Stands in a column of text where nothing is known: no character, by the standard."""


class Layout(NamedTuple):
    """Where the arrays of a part lie in its bytes: each at the start of a page, so that JAX reads them in place.

    Attributes
    ----------
    n_rows : int
        Rows that were put in.
    p : int
        Columns, with that of ones.
    known : bool
        Whether the linear predictors have a known part.
    ids : str
        Type of the ids, as numpy writes it.
    text : tuple of int
        Characters of the longest value of every column of text, which follow the columns of numbers.
    """

    n_rows: int
    p: int
    known: bool
    ids: str
    text: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Rows with padding: few different sizes, so that few programs are compiled."""
        if self.n_rows <= BLOCK:
            return padded(self.n_rows)
        blocks = -(-self.n_rows // BLOCK)
        unit = 1 << max(0, blocks.bit_length() - 6)
        return BLOCK * unit * -(-blocks // unit)

    def arrays(self) -> dict[str, tuple[int, tuple[int, ...], Any]]:
        """First byte, shape and type of every array."""
        size, number = self.size, np.dtype(np.float64)
        found: dict[str, tuple[int, tuple[int, ...], Any]] = {}
        start = 0
        wanted: list[tuple[str, tuple[int, ...], Any]] = [("x", (size, self.p), number)]
        wanted += [(name, (size,), number) for name in ("y", "weight", *(["offset"] if self.known else []))]
        wanted += [(f"text{j}", (size,), np.dtype(f"<U{width}")) for j, width in enumerate(self.text)]
        wanted += [("ids", (size,), np.dtype(self.ids)), ("retained", (size,), np.dtype(bool))]
        for name, shape, kind in wanted:
            found[name] = (start, shape, kind)
            start += -(-int(np.prod(shape)) * kind.itemsize // _PAGE) * _PAGE
        return found

    @property
    def n_bytes(self) -> int:
        """How many bytes the part takes."""
        start, shape, kind = self.arrays()["retained"]
        return start + -(-int(np.prod(shape)) * kind.itemsize // _PAGE) * _PAGE


class Part(Rows):
    """The rows of an open part, with the id of each; arrays are views of its bytes.

    Attributes
    ----------
    ids : array of shape (n_padded,)
        Empty or zero where no row is held.
    retained : bool array of shape (n_padded,)
        Which positions hold a row.
    text : list of arrays of shape (n_padded,)
        Columns of text; :data:`MISSING` where nothing is known.
    """

    def __init__(self, layout: Layout, buffer: Any) -> None:
        found = {
            name: buffer[start : start + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)
            for name, (start, shape, kind) in layout.arrays().items()
        }
        self.x, self.y, self.weight = found["x"], found["y"], found["weight"]
        self.offset, self.base = found.get("offset"), None
        self.ids: Any = found["ids"]
        self.text = [found[f"text{j}"] for j in range(len(layout.text))]
        self.retained: BoolArray = found["retained"]
        self.unweighted = False
        self._peak = None
        self._sparse_copy = (None,)

    def erase(self, positions: IntArray) -> None:
        """Overwrite rows and ids at these positions."""
        self._erase(positions)
        for column in (self.ids, *self.text):
            column[positions] = np.zeros((), dtype=column.dtype)
        self.retained[positions] = False


class PartWeight(NamedTuple):
    """Weights of the rows of one part as a pass takes them.

    Attributes
    ----------
    gone : int array or None
        Positions in the part that count with weight 0.
    factors : array of shape (n_classes,) or None
        Factors of the weights of each class.
    """

    gone: IntArray | None = None
    factors: FloatArray | None = None

    def of(self, part: Part) -> FloatArray:
        """Weights of the rows of this part, shape (n_padded,)."""
        weight: FloatArray = part.weight
        if self.factors is not None:
            weight = weight * self.factors[part.y.astype(np.int64)]
        elif self.gone is not None:
            weight = weight.copy()
        if self.gone is not None:
            weight[self.gone] = 0.0
        return weight


@dataclass(frozen=True, eq=False)
class Stored:
    """Where the bytes of a part are. It opens for a pass, and closes when nothing looks at it any more."""

    layout: Layout

    def buffer(self, write: bool) -> Any:
        """Return the bytes, an array of uint8."""
        raise NotImplementedError

    def put(self, name: str, row: int, values: Any) -> None:
        """Write values of an array, from this row on."""
        raise NotImplementedError

    def open(self, *, write: bool = False) -> Part:
        """Return the rows."""
        return Part(self.layout, self.buffer(write))

    def erase(self, positions: IntArray) -> None:
        """Overwrite rows and ids at these positions, for good."""
        self.open(write=True).erase(positions)

    def discard(self) -> None:
        """Give the bytes up."""
        raise NotImplementedError

    def copied(self, folder: Path | None) -> Stored:
        """Return a copy, for a file in this folder."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class InMemory(Stored):
    """Bytes in the memory of this process."""

    held: Any

    @classmethod
    def new(cls, layout: Layout) -> InMemory:
        """Return an empty part."""
        raw = np.zeros(layout.n_bytes + 64, dtype=np.uint8)
        start = -raw.ctypes.data % 64
        return cls(layout, raw[start : start + layout.n_bytes])

    def buffer(self, write: bool) -> Any:
        """Return the bytes."""
        return self.held

    def put(self, name: str, row: int, values: Any) -> None:
        """Write values of an array, from this row on."""
        start, shape, kind = self.layout.arrays()[name]
        whole = self.held[start : start + int(np.prod(shape)) * kind.itemsize].view(kind).reshape(shape)
        whole[row : row + len(values)] = values

    def discard(self) -> None:
        """Overwrite the bytes."""
        self.held.fill(0)

    def copied(self, folder: Path | None) -> InMemory:
        """Return a copy."""
        return _restored(self.layout, self.held)

    def __reduce__(self) -> Any:
        return _restored, (self.layout, np.array(self.held))


def _restored(layout: Layout, held: Any) -> InMemory:
    out = InMemory.new(layout)
    out.held[...] = held
    return out


@dataclass(frozen=True, eq=False)
class InFile(Stored):
    """Bytes in a file, mapped while a pass looks at them: they are the pages of the file, not memory of the process."""

    path: Path

    @classmethod
    def new(cls, layout: Layout, path: Path) -> InFile:
        """Create the file, full of zeros."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):  # space that is there now cannot be lacking later
                os.posix_fallocate(descriptor, 0, layout.n_bytes)
            else:
                os.truncate(descriptor, layout.n_bytes)
        finally:
            os.close(descriptor)
        return cls(layout, path)

    def buffer(self, write: bool) -> Any:
        """Map the file."""
        return np.frombuffer(self._mapped(write), dtype=np.uint8)

    def _mapped(self, write: bool) -> mmap.mmap:
        with open(self.path, "r+b" if write else "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)

    def put(self, name: str, row: int, values: Any) -> None:
        """Write values of an array, from this row on."""
        start, shape, kind = self.layout.arrays()[name]
        each = kind.itemsize * int(np.prod(shape[1:]))
        data = memoryview(np.ascontiguousarray(values, dtype=kind).tobytes())
        descriptor = os.open(self.path, os.O_WRONLY)
        try:
            place = start + row * each
            while data:
                done = os.pwrite(descriptor, data, place)
                data, place = data[done:], place + done
        finally:
            os.close(descriptor)

    def erase(self, positions: IntArray) -> None:
        """Overwrite rows and ids at these positions, on the disk when this returns."""
        mapped = self._mapped(write=True)
        Part(self.layout, np.frombuffer(mapped, dtype=np.uint8)).erase(positions)
        mapped.flush()

    def discard(self) -> None:
        """Overwrite the file, on the disk when this returns, and delete it, which alone leaves the bytes there."""
        with suppress(FileNotFoundError):  # given up before
            mapped = self._mapped(write=True)
            np.frombuffer(mapped, dtype=np.uint8).fill(0)
            mapped.flush()
        self.path.unlink(missing_ok=True)

    def copied(self, folder: Path | None) -> InFile:
        """Return a copy of the file in this folder."""
        assert folder is not None
        return InFile(self.layout, Path(shutil.copyfile(self.path, folder / self.path.name)))
