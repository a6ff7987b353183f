"""Rows in parts, behind the interface that the heads know from rows in memory."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from certified._data.rows import BLOCK, Rows
from certified._data.saving import saving
from certified.errors import InvalidRequest
from certified.parts._engines import current
from certified.parts._part import InFile, Part, PartWeight, Stored
from certified.progress import track
from certified.typing import FloatArray, IntArray

__all__ = ["PartedRows", "PartedWeight"]

_SAMPLE = 1 << 26  # bytes of the rows that a first guess looks at, and
_FEWEST = 16  # rows for each column, at least


@dataclass(frozen=True, eq=False)
class PartedWeight:
    """Weights of all rows, worked out part by part: those stored, 0 for some positions, times factors of classes."""

    gone: IntArray | None = None
    factors: FloatArray | None = None


class PartedRows:
    """Rows in an ordered list of parts.

    A row has a position: those of the first part come first, its padding included.

    Attributes
    ----------
    stored : list of Stored
    size : int
        Positions, with padding.
    width : int
        Columns, with that of ones.
    base : FloatArray or None
        Factors of classes, where weights are balanced.
    unweighted : bool
        Whether every weight is 0 or 1.
    """

    def __init__(self, stored: list[Stored], unweighted: bool, owned: Path | None = None) -> None:
        self.stored, self.unweighted = stored, unweighted
        self._own(owned)
        self.starts = np.cumsum([0, *(part.layout.size for part in stored)])
        self.size, self.width = int(self.starts[-1]), stored[0].layout.p
        self.base: FloatArray | None = None
        self.has_offset = stored[0].layout.known
        self._changes = 0  # how often the part files were changed

    def _own(self, folder: Path | None) -> None:
        """Take a folder of part files away with these rows."""
        self._folder = folder
        if folder is not None:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def remove(self) -> None:
        """Give the parts up, with their folder."""
        self.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __deepcopy__(self, memo: Any) -> PartedRows:
        out = object.__new__(PartedRows)
        memo[id(self)] = out
        out.__dict__.update(self.__dict__)
        if saving():
            return out
        files = [part for part in self.stored if isinstance(part, InFile)]
        folder = Path(tempfile.mkdtemp(prefix="certified-parts-", dir=files[0].path.parent.parent)) if files else None
        out._own(folder)
        out.stored = [part.copied(folder) for part in self.stored]
        out._changes = 0
        return out

    def __getstate__(self) -> dict[str, Any]:
        if self._folder is not None:
            raise InvalidRequest(
                "A model was to be pickled whose rows live in part files that go with it. Fit on Parts(..., "
                "folder=..., keep=True), whose files stay, or on Parts(..., in_memory=True). Nothing was changed."
            )
        return self.__dict__

    @property
    def keeps(self) -> bool:
        """Whether part files outlive these rows."""
        return self._folder is None and isinstance(self.stored[0], InFile)

    @property
    def _counter(self) -> Path | None:
        """The file that counts the changes of the part files; None for parts in memory."""
        first = self.stored[0]
        return first.path.parent / "changes" if isinstance(first, InFile) else None

    def check_current(self) -> None:
        """Raise InvalidRequest where another copy of the model has changed the part files, or they are gone."""
        if (counter := self._counter) is None:
            return
        there = self.stored[0].path.exists() if isinstance(self.stored[0], InFile) else True
        changes = int(counter.read_text(encoding="ascii")) if counter.exists() else 0
        if not there or changes != self._changes:
            raise InvalidRequest(
                f"The part files in {counter.parent} "
                + ("are gone" if not there else f"were changed {changes} times, and this model knows {self._changes}")
                + ": it was saved before a deletion, or another copy of it has deleted. Load the last one that was "
                "saved, or fit again. Nothing was changed."
            )

    def _count_change(self) -> None:
        """Count a change before it is made: a copy that was saved before must not be used with what follows."""
        if (counter := self._counter) is not None:
            beside = counter.with_suffix(".new")
            beside.write_text(str(self._changes + 1), encoding="ascii")
            beside.replace(counter)
            self._changes += 1

    # ------------------------------------------------------------------ passes

    def map(self, function: Callable[..., Any], *args: Any, weight: PartedWeight | None = None) -> Iterator[Any]:
        """Yield ``function(part, weight, *args)`` for every part, in their order."""
        self.check_current()
        weight = self.weight if weight is None else weight
        gone = {} if weight.gone is None else self.places(weight.gone)
        tasks = [(part, PartWeight(gone.get(k), weight.factors)) for k, part in enumerate(self.stored)]
        yield from track(current(tasks).map(function, tasks, args), "parts", total=len(tasks))

    @property
    def weight(self) -> PartedWeight:
        """Weights of the retained rows."""
        return PartedWeight(None, self.base)

    @property
    def base_weight(self) -> PartedWeight:
        """The same before they were balanced over classes."""
        return PartedWeight()

    def without(self, rows: IntArray) -> PartedWeight:
        """Weights before balancing, with 0 at these positions."""
        return PartedWeight(rows)

    def balanced(self, weight: PartedWeight, factors: FloatArray | None) -> PartedWeight:
        """Weights times the factors of the classes."""
        return replace(weight, factors=factors)

    def reweight(self, weight: PartedWeight) -> None:
        """Give the rows these weights, which are those stored times factors of classes."""
        self.base = weight.factors
        self.unweighted = False

    # --------------------------------------------------------------- positions

    def places(self, rows: IntArray) -> dict[int, IntArray]:
        """Positions in every part that has some of these rows, in the order given."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        return {int(k): rows[owner == k] - self.starts[k] for k in np.unique(owner)}

    def _gathered(self, rows: IntArray, function: Callable[[Part, IntArray], tuple[Any, ...]]) -> tuple[Any, ...]:
        """Join what the function takes from the parts of these rows, in the order of the rows."""
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        found = [function(self.stored[k].open(), some) for k, some in self.places(rows).items()]
        back = np.argsort(np.argsort(owner, kind="stable"), kind="stable")
        return tuple(np.concatenate(values)[back] for values in zip(*found, strict=True))

    def take(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return copies of x, y, weight at these positions."""
        x, y, base, _ = self._values(rows)
        return x, y, base if self.base is None else base * self.base[y.astype(np.int64)]

    def block_of(self, rows: IntArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return copies of x, y, weight, offset at these positions, as one block."""
        x, y, weight = self.take(rows)
        offset = self._values(rows)[3][None] if self.has_offset else np.zeros((1, 1))
        return x[None], y[None], weight[None], offset

    def base_weight_at(self, rows: IntArray) -> FloatArray:
        """Weights before balancing, at these positions."""
        return self._values(rows)[2]

    def _values(self, rows: IntArray) -> tuple[Any, ...]:
        return self._gathered(
            rows,
            lambda part, some: (
                part.x[some],
                part.y[some],
                part.weight[some],
                np.zeros(some.size) if part.offset is None else part.offset[some],
            ),
        )

    def erase(self, rows: IntArray) -> None:
        """Overwrite these rows and their ids, in the parts that have them."""
        self._count_change()
        for k, some in self.places(rows).items():
            self.stored[k].erase(some)

    def clear(self) -> None:
        """Give the parts up."""
        for part in self.stored:
            part.discard()
        if (counter := self._counter) is not None:
            counter.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: what else is there stays
                counter.parent.rmdir()

    def sample(self, at_least: int) -> tuple[Rows, int]:
        """Return every so manieth block, of so manieth parts where there are many, and how many rows stand for one.

        The sample is in the memory of this process, and has no more rows the more there are.
        """
        most = max(_SAMPLE // (8 * self.width), _FEWEST * self.width)
        wanted = max(at_least, -(-self.size // most))
        among = min(wanted, max(1, self.size // len(self.stored) // BLOCK))
        every = -(-wanted // among)
        chosen = PartedRows(self.stored[::every], self.unweighted)
        chosen.base = self.base
        found = list(chosen.map(_some_blocks, among))
        offset = np.concatenate([part[3] for part in found]) if self.has_offset else None
        x, y, weight = (np.concatenate([part[i] for part in found]) for i in range(3))
        return Rows(x, y, weight, offset=offset), among * every


def _some_blocks(part: Part, weight: FloatArray, step: int) -> tuple[Any, ...]:
    rows = (np.arange(len(part.y)) // BLOCK) % step == 0
    return part.x[rows], part.y[rows], weight[rows], None if part.offset is None else part.offset[rows]
