"""The subjects of rows in parts. A subject lives in one part, which its id tells; no other place knows it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from certified._data.ids import GIVEN, NUMBERS
from certified._data.subjects import Subjects
from certified.errors import InvalidRequest
from certified.parts._dealing import part_of
from certified.parts._rows import PartedRows
from certified.typing import BoolArray, IntArray

__all__ = ["PartedSubjects"]


class PartedSubjects(Subjects):
    """Which positions belong to which subject, found in the part where a subject lives.

    Parameters
    ----------
    rows : PartedRows
    n_rows : int
    given : bool
        Whether ids were given; else rows are numbered.
    """

    def __init__(self, rows: PartedRows, n_rows: int, given: bool) -> None:
        self._parted, self.n_rows = rows, n_rows
        self.source = GIVEN if given else NUMBERS
        self._sorted = np.empty(0, dtype=rows.stored[0].layout.ids)

    @property
    def ids(self) -> Any:
        """Ids of the subjects retained, sorted, each once: as much memory as they take."""
        return np.unique(np.concatenate(list(self._parted.map(_retained_ids))))

    def ids_at(self, rows: IntArray) -> Any:
        """Return the ids of the subjects of these rows, which are held."""
        return self._parted._gathered(rows, lambda part, some: (part.ids[some],))[0]

    def rows_of(self, ids: Any, caller: str = "delete(ids=...)") -> IntArray:
        """Return the positions of all rows of these subjects; raise if the request is empty, repeats or unknown."""
        wanted = self.wanted(ids, caller)
        found, known = self._found(wanted)
        if not known.all():
            self._raise_unknown(wanted[~known], caller)
        return found

    def holds(self, ids: Any, caller: str) -> BoolArray:
        """Return which of these ids, made by :func:`as_ids`, are those of subjects retained; raise for another type."""
        if ids.dtype.kind != self._sorted.dtype.kind:
            self._raise_unknown(ids, caller)
        return self._found(ids)[1]

    def _found(self, wanted: Any) -> tuple[IntArray, BoolArray]:
        """Positions of these subjects' rows, and which of the subjects have any."""
        self._parted.check_current()
        place = part_of(wanted, len(self._parted.stored))
        known = np.zeros(wanted.size, dtype=bool)
        rows = [np.empty(0, dtype=np.int64)]
        for k in np.unique(place).tolist():
            mine = np.flatnonzero(place == k)
            part = self._parted.stored[k].open()
            if mine.size == 1:
                spots = np.flatnonzero((part.ids == wanted[mine[0]]) & part.retained)
                known[mine] = spots.size > 0
            else:
                spots = np.flatnonzero(np.isin(part.ids, wanted[mine]) & part.retained)
                known[mine] = np.isin(wanted[mine], part.ids[spots])
            rows.append(spots + self._parted.starts[k])
        return np.concatenate(rows), known

    def dropping(self, rows: IntArray) -> Callable[[], None]:
        """Return what forgets the subjects of these rows; their ids go with the rows."""
        return partial(self._count, self.n_rows - rows.size)

    def _count(self, n_rows: int) -> None:
        self.n_rows = n_rows

    @property
    def retained(self) -> Any:  # type: ignore[override]
        """Refuse: which positions hold a row is known in their parts alone."""
        raise self._beyond("This act")

    def hashes(self, key: int | None = None) -> Any:
        """Refuse: hashes are made part by part."""
        raise self._beyond("A sample of subjects")

    def _beyond(self, what: str) -> InvalidRequest:
        return InvalidRequest(
            f"{what} is not there for rows in parts yet. Fit on rows in memory for it. Nothing was changed."
        )

    def added(self, ids: Any, n_rows: int) -> Any:
        """Refuse."""
        raise InvalidRequest(
            "add was called on a model whose rows live in parts, to which rows cannot be added yet. Fit on a source "
            "that has them. Nothing was changed."
        )


def _retained_ids(part: Any, weight: Any) -> Any:
    return np.unique(part.ids[part.retained])
