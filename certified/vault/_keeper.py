"""The keeper of a vault: a state file for each generation, and files of rows that the state refers to by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from certified.errors import StorageFailed
from certified.vault._container import dump, loads
from certified.vault._files import overwrite_and_remove, sync_folder, write_new
from certified.vault._parts import Part, changed_rows, open_part, place, write_part, zero_rows

__all__ = ["WHOLE", "Keeper", "Saved", "erase_rows", "remove_all_but"]

WHOLE = -1
"""In the place of a row: the whole file."""


@dataclass(frozen=True)
class Saved:
    """What was written for a new generation, and what has to be erased once the generation is committed.

    Attributes
    ----------
    digest : str
        SHA-256 of the state file.
    parts : tuple of str
        Files of rows that the new state refers to.
    erase : tuple of (str, int)
        File and row to overwrite; `WHOLE` for a file that the new state does not refer to.
    """

    digest: str
    parts: tuple[str, ...]
    erase: tuple[tuple[str, int], ...]


class Keeper:
    """A fitted estimator in memory, with its rows mapped from files.

    Parameters
    ----------
    folder : Path
        Of the vault.
    model : fitted estimator
    parts : mapping of str to Part
    trusted : tuple of str
    """

    def __init__(self, folder: Path, model: Any, parts: dict[str, Part], trusted: tuple[str, ...]) -> None:
        self.folder = folder
        self.model = model
        self.parts = parts
        self.trusted = trusted

    @classmethod
    def load(cls, folder: Path, generation: int, digest: str | None, trusted: tuple[str, ...] = ()) -> Keeper:
        """Return the keeper of a generation; StorageFailed where its state is not the one that was committed."""
        path = state_path(folder, generation)
        parts: dict[str, Part] = {}

        def inside(name: str) -> Any:
            if "/" in name or not name.endswith(".rows"):
                raise ValueError(f"{name!r} names no file of rows")
            parts[name] = open_part(folder / "rows" / name)
            return parts[name].array

        data = path.read_bytes()
        if digest is not None and data[-32:].hex() != digest:
            raise StorageFailed(
                f"{path} is another state than the one that was committed. Restore the vault from a copy."
            )
        model = loads(data, str(path), inside, trusted=trusted)
        return cls(folder, model, parts, trusted)

    def save(self, generation: int) -> Saved:
        """Write the state of a generation, and files for rows that are new. Nothing that exists is changed."""
        known = {part.place: name for name, part in self.parts.items()}
        lengths = _lengths(self.model)
        used: dict[str, list[int]] = {}
        moved: set[str] = set()  # files whose rows changed into something else than zeros
        fresh: dict[str, Any] = {}

        def outside(array: Any, where: str) -> str | None:
            name = known.get(place(array))
            if name is not None and name not in moved:
                if name not in used:
                    rows = changed_rows(self.parts[name])
                    if array[rows].tobytes().strip(b"\0"):
                        moved.add(name)
                    else:
                        used[name] = rows.tolist()
                if name in used:
                    return name
            if len(array) not in lengths or not array.flags.c_contiguous or array.nbytes == 0:
                return None
            new = f"{generation:08d}-{len(fresh):04d}.rows"
            write_new(self.folder / "rows" / new, lambda file: write_part(file, array))
            fresh[new] = array
            return new

        path = state_path(self.folder, generation)
        digest = write_new(path, lambda file: dump(self.model, file, outside=outside, trusted=self.trusted))
        erase = [(name, row) for name, rows in used.items() for row in rows]
        erase += [(name, WHOLE) for name in self.parts if name not in used]
        return Saved(digest, (*used, *fresh), tuple(erase))


def state_path(folder: Path, generation: int) -> Path:
    """Return where the state of a generation lies."""
    return folder / "state" / f"{generation:08d}.state"


def erase_rows(folder: Path, journal: Iterable[tuple[str, int]]) -> list[str]:
    """Overwrite what a journal names, and return the files that were overwritten. Doing it again does no harm."""
    by_file: dict[str, list[int]] = {}
    for name, row in journal:
        by_file.setdefault(name, []).append(row)
    for name, rows in by_file.items():
        path = folder / "rows" / name
        if not path.exists():
            continue  # removed by an earlier attempt
        if WHOLE in rows:
            overwrite_and_remove(path)
        else:
            zero_rows(path, rows)
    sync_folder(folder / "rows")
    return sorted(by_file)


def remove_all_but(folder: Path, keep: Iterable[str]) -> list[str]:
    """Overwrite and remove every file of a folder that is not to be kept; return their names."""
    keep = set(keep)
    gone = sorted(entry.name for entry in os.scandir(folder) if entry.name not in keep)
    for name in gone:
        overwrite_and_remove(folder / name)
    if gone:
        sync_folder(folder)
    return gone


def _lengths(model: Any) -> frozenset[int]:
    """How many rows the arrays have that have a row for every row of the data."""
    found: set[int] = set()
    for subjects in _subjects(model):
        n = int(subjects.retained.size)
        found |= {n, *_padded(n)}
    return frozenset(found)


def _padded(n: int) -> Iterator[int]:
    from certified._data.rows import padded

    yield padded(n)


def _subjects(model: Any) -> Iterator[Any]:
    subjects = getattr(model, "_subjects", None)
    if subjects is not None:
        yield subjects


def is_zero(array: Any) -> Any:
    """Return which rows of an array are zeros throughout."""
    n = len(array)
    if n == 0:
        return np.empty(0, dtype=bool)
    return ~np.ascontiguousarray(array).reshape(n, -1).view(np.uint8).any(axis=1)
