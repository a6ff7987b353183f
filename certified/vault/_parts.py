"""Rows on disk: one file for each array that has a row for every row of the data, mapped privately, erased in place.

A private mapping lets an estimator overwrite rows in memory without touching the file. What it overwrote is found by
comparing the pages that became private with the file, so that no estimator has to say what it erased.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certified.errors import NewerFormat, StorageFailed

__all__ = ["Part", "changed_rows", "open_part", "write_part", "zero_rows"]

_MAGIC = b"CERTROWS"
FORMAT = 1
_HEAD = 4096  # a page, so that rows are aligned
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PRESENT, _SWAPPED, _OF_FILE = 1 << 63, 1 << 62, 1 << 61  # bits of /proc/self/pagemap


@dataclass(frozen=True)
class Part:
    """A file of rows.

    Attributes
    ----------
    path : Path
    array : array
        A private mapping of the file.
    """

    path: Path
    array: Any

    @property
    def row_bytes(self) -> int:
        """Bytes in a row."""
        return int(self.array.strides[0])

    @property
    def place(self) -> tuple[Any, ...]:
        """Where the mapping lies in memory: equal for every view of the whole of it."""
        return place(self.array)


def place(array: Any) -> tuple[Any, ...]:
    """Return what two arrays share that are the same memory read in the same way."""
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


def write_part(file: Any, array: Any) -> None:
    """Write an array to an open file."""
    about = {"format": FORMAT, "dtype": array.dtype.str, "shape": list(array.shape)}
    head = _MAGIC + json.dumps(about, sort_keys=True).encode()
    file.write(head.ljust(_HEAD - 1) + b"\n")
    np.ascontiguousarray(array).tofile(file)


def open_part(path: Path) -> Part:
    """Return a file of rows, mapped."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if len(head) < _HEAD or head[:8] != _MAGIC:
        raise StorageFailed(f"{path} is no file of rows. Restore it from a copy. Nothing was changed.")
    about = json.loads(head[8:])
    if about["format"] > FORMAT:
        raise NewerFormat(
            f"{path} has format {about['format']}, and this version of certified knows {FORMAT}. Install a newer "
            "version. "
            "Nothing was changed."
        )
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    if path.stat().st_size != _HEAD + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
        raise StorageFailed(f"{path} is not as long as its head says. Restore it from a copy. Nothing was changed.")
    mapped = np.memmap(path, dtype=dtype, mode="c", offset=_HEAD, shape=shape)
    return Part(path, mapped.view(np.ndarray))


def changed_rows(part: Part) -> Any:
    """Return the rows of the mapping that differ from the file, sorted."""
    step, n = part.row_bytes, len(part.array)
    flat = part.array.reshape(n, -1).view(np.uint8)
    found = []
    with open(part.path, "rb") as file:
        for first, last in _touched(part, step, n):
            file.seek(_HEAD + first * step)
            stored = np.frombuffer(file.read((last - first) * step), dtype=np.uint8).reshape(last - first, step)
            found.append(first + np.flatnonzero((stored != flat[first:last]).any(axis=1)))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)


def _touched(part: Part, step: int, n: int) -> Iterable[tuple[int, int]]:
    """Runs of rows on pages that this process has written to; all rows where the system does not tell."""
    whole = 1 << 16
    everything = [(first, min(first + whole, n)) for first in range(0, n, whole)]
    start = part.array.__array_interface__["data"][0]
    first_page, pages = start // _PAGE, -(-(start % _PAGE + n * step) // _PAGE)
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as file:
            file.seek(first_page * 8)
            flags = np.frombuffer(file.read(pages * 8), dtype=np.uint64)
    except OSError:
        return everything
    if len(flags) != pages or not np.any(flags & np.uint64(_PRESENT)):
        return everything
    private = (flags & np.uint64(_PRESENT | _OF_FILE)) == np.uint64(_PRESENT)
    private |= (flags & np.uint64(_SWAPPED)) != 0
    out: list[tuple[int, int]] = []
    for page in np.flatnonzero(private):
        low = max(0, int(page) * _PAGE - start % _PAGE) // step
        high = min(n, -(-((int(page) + 1) * _PAGE - start % _PAGE) // step))
        if out and low <= out[-1][1]:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        elif high > low:
            out.append((low, high))
    return out


def zero_rows(path: Path, rows: Iterable[int]) -> None:
    """Overwrite rows of a file with zeros and sync it; doing it again does no harm."""
    step = _row_bytes(path)
    handle = os.open(path, os.O_RDWR)
    try:
        for first, count in _runs(sorted(rows)):
            done, size = 0, count * step
            while done < size:
                done += os.pwrite(handle, bytes(min(size - done, 1 << 20)), _HEAD + first * step + done)
        os.fdatasync(handle)
    finally:
        os.close(handle)


def _row_bytes(path: Path) -> int:
    with open(path, "rb") as file:
        about = json.loads(file.read(_HEAD)[8:])
    return int(np.prod(about["shape"][1:], dtype=np.int64)) * np.dtype(about["dtype"]).itemsize


def _runs(rows: list[int]) -> Iterable[tuple[int, int]]:
    """Yield first row and length of every run of rows that follow each other."""
    start = 0
    for i in range(1, len(rows) + 1):
        if i == len(rows) or rows[i] != rows[i - 1] + 1:
            yield rows[start], i - start
            start = i
