"""Ids: one form for each type, and the rows of each subject."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certified._data.hashing import Key, subject_hash
from certified._data.ids import GIVEN, UNCLEAR, as_ids, check_padding, named
from certified._data.rows import _PUBLIC
from certified.errors import InvalidInput, InvalidRequest, UnknownIds
from certified.typing import BoolArray, IntArray

__all__ = ["Subjects", "as_ids"]


class Subjects:
    """Which rows belong to which subject.

    Ids are kept sorted; a deleted subject's id is overwritten by a neighbour's, so that no trace of it stays.

    Parameters
    ----------
    ids : array of shape (n_rows,) or None
        The subject of each row; None numbers the rows 0..n-1.
    n_rows : int
    key : Key, default=Key(0)
        Of the hashes.
    source : str or None
        Where ids that are ready come from: "given", "index" (of a pandas frame) or "row numbers".

    Attributes
    ----------
    source : str
    retained : bool array of shape (n_rows,)
        Which positions still hold a row.
    n_rows : int
        How many do.
    """

    source = GIVEN

    @classmethod
    def of(cls, ids: Any, n_rows: int) -> Subjects:
        """Return `ids` if a pipeline shares its subjects with this step, else new subjects."""
        return ids if isinstance(ids, Subjects) else cls(ids, n_rows)

    def __init__(self, ids: Any, n_rows: int, key: Key = _PUBLIC, source: str | None = None) -> None:
        self.key = key
        ids, found = named(ids, n_rows)
        self.source = found if source is None else source
        self._order: IntArray = np.argsort(ids, kind="stable")
        self._sorted = ids[self._order]
        self.retained: BoolArray = np.ones(n_rows, dtype=bool)
        self.n_rows = n_rows
        self._rank: Any = None
        self._first = 0  # first kept position in sorted order

    def by_position(self) -> tuple[Any, BoolArray]:
        """Return the id at every position, zero or empty where none is held, and which positions are held."""
        if self._stored is not None:
            return self._stored
        ids = np.zeros(self.retained.size, dtype=self._sorted.dtype)
        live = self.retained[self._order]
        ids[self._order[live]] = self._sorted[live]
        return ids, self.retained

    _stored: tuple[Any, BoolArray] | None = None  # what `restored` was given, kept up to date
    by_position_alone = ("_order", "_sorted", "retained", "n_rows", "_rank", "_first", "_stored")
    """Attributes that `restored` makes from what `by_position` tells."""

    @classmethod
    def restored(cls, ids: Any, retained: BoolArray) -> Subjects:
        """Return the subjects that `by_position` told; what else they know is to be set by the caller."""
        out = cls.__new__(cls)
        places = np.flatnonzero(retained)
        out._order = places[np.argsort(ids[places], kind="stable")]
        out._sorted = ids[out._order]
        out.retained = np.array(retained)
        out.n_rows = places.size
        out._rank, out._first = None, 0
        out._stored = ids, retained
        return out

    @property
    def ids(self) -> Any:
        """Ids of the subjects retained, sorted, each once."""
        return np.unique(self._sorted[self.retained[self._order]])

    def ids_at(self, rows: IntArray) -> Any:
        """Return the ids of the subjects of these rows, which are held."""
        return self._sorted[self._spots(rows)]

    def hashes(self, key: int | None = None) -> NDArray[np.uint64]:
        """Return the keyed hash of every row's subject, shape (n_rows,); anything at positions no longer kept.

        Without a key of their own they are those for samples.
        """
        key = self.key.derive("sample").value if key is None else key
        out = np.zeros(self.retained.size, dtype=np.uint64)
        fresh = np.concatenate([[True], self._sorted[1:] != self._sorted[:-1]])
        out[self._order] = subject_hash(self._sorted[fresh], key)[np.cumsum(fresh) - 1]
        return out

    def without(self, rows: IntArray) -> BoolArray:
        """Return which positions would hold a row without these."""
        out = self.retained.copy()
        out[rows] = False
        return out

    def rows_of(self, ids: Any, caller: str = "delete(ids=...)") -> IntArray:
        """Return the positions of all rows of these subjects; raise if the request is empty, repeats or unknown."""
        wanted = self.wanted(ids, caller)
        low = self._sorted.searchsorted(wanted, side="left")
        high = self._sorted.searchsorted(wanted, side="right")
        if wanted.size == 1:
            rows = self._order[low[0] : high[0]]
            rows = rows[self.retained[rows]]
            if rows.size == 0:
                self._raise_unknown(wanted, caller)
            return rows
        owner = np.repeat(np.arange(wanted.size), high - low)
        spots = np.arange(owner.size) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[owner]
        rows = self._order[spots]
        retained = self.retained[rows]
        missing = np.setdiff1d(np.arange(wanted.size), owner[retained])
        if missing.size:
            self._raise_unknown(wanted[missing], caller)
        return rows[retained]

    def wanted(self, ids: Any, caller: str) -> Any:
        """Return requested ids in one form; raise if there are none, one is repeated, or they cannot be meant."""
        ready = isinstance(ids, np.ndarray) and ids.ndim == 1 and (ids.dtype == np.int64 or ids.dtype.kind == "U")
        wanted = ids if ready else as_ids(ids, caller)
        if self.source == UNCLEAR:
            raise InvalidRequest(
                f"{caller} got {_some(wanted)} for a model that was fitted without ids on a pandas frame whose index "
                "has numbers that name no single row, so that these could be numbers of rows or labels. Fit with "
                "ids=..., or on X.reset_index(drop=True) to mean the numbers of rows. Nothing was changed."
            )
        if wanted.size == 0:
            raise InvalidRequest(
                f"{caller} got no ids. At least one subject is needed; `model.ids_` lists those retained. "
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
        return wanted

    def holds(self, ids: Any, caller: str) -> BoolArray:
        """Return which of these ids, made by :func:`as_ids`, are those of subjects retained; raise for another type."""
        if ids.dtype.kind != self._sorted.dtype.kind:
            self._raise_unknown(ids, caller)
        found = np.concatenate([[0], np.cumsum(self.retained[self._order])])
        return found[self._sorted.searchsorted(ids, side="right")] > found[self._sorted.searchsorted(ids, side="left")]

    def added(self, ids: Any, n_rows: int) -> tuple[IntArray, Subjects]:
        """Return the positions still held, and subjects in which they come first, followed by rows with these ids."""
        new = as_ids(ids, "add(ids=...)")
        if new.size != n_rows:
            raise InvalidInput(f"add(ids=...) got {new.size} ids for {n_rows} rows. One id per row is needed.")
        if new.dtype.kind != self._sorted.dtype.kind:
            raise InvalidInput(
                f"add(ids=...) got ids of type {new.dtype}, the model has {self._sorted.dtype}. Convert them. "
                "Nothing was changed."
            )
        retained = np.flatnonzero(self.retained)
        by_position = np.empty(self.retained.size, dtype=self._sorted.dtype)
        by_position[self._order] = self._sorted
        if new.dtype.kind == "U":
            width = max(new.dtype.itemsize, by_position.dtype.itemsize) // 4
            length = int(np.strings.str_len(by_position[retained]).sum() + np.strings.str_len(new).sum())
            check_padding(width, length, retained.size + new.size, "add(ids=...)")
        ids, source = np.concatenate([by_position[retained], new]), self.source if self.source == UNCLEAR else GIVEN
        return retained, Subjects(ids, ids.size, self.key, source)

    def rekeyed(self, key: Key) -> Subjects:
        """Return a copy with another key; positions stay."""
        out = copy(self)
        out.retained, out.key, out._stored = self.retained.copy(), key, None
        out._sorted, out._order = self._sorted.copy(), self._order.copy()
        return out

    def dropping(self, rows: IntArray) -> Callable[[], None]:
        """Return what deletes the subjects of these rows (whole subjects: the output of :meth:`rows_of`).

        It may be called again after an interrupt, with the same end.
        """
        n_rows = self.n_rows - rows.size
        if rows.size > 16:
            live = self.retained.copy()
            live[rows] = False
            live = live[self._order]
            packed = {"_sorted": self._sorted[live], "_order": self._order[live], "_rank": None, "_first": 0}
            return partial(self._drop, rows, n_rows, (), packed)
        of_rows = self.ids_at(rows)
        gone = of_rows if rows.size == 1 else np.unique(of_rows)
        low, high = self._sorted.searchsorted(gone, side="left"), self._sorted.searchsorted(gone, side="right")
        return partial(self._drop, rows, n_rows, list(zip(low.tolist(), high.tolist(), strict=True)), {})

    def _drop(self, rows: IntArray, n_rows: int, runs: Any, packed: dict[str, Any]) -> None:
        if self._stored is not None:
            ids, retained = self._stored
            ids[rows] = np.zeros((), dtype=ids.dtype)
            retained[rows] = False
        self.retained[rows] = False
        self.__dict__.update(packed, n_rows=n_rows)
        for low, high in runs:  # ascending, so that no deleted id is copied
            if low:
                self._sorted[low:high] = self._sorted[low - 1]
        if n_rows:
            while not self.retained[self._order[self._first]]:
                self._first += 1
            self._sorted[: self._first] = self._sorted[self._first]  # nothing retained on the left: the first that is

    def drop(self, rows: IntArray) -> None:
        """Delete the subjects of these rows."""
        self.dropping(rows)()

    def _spots(self, rows: IntArray) -> IntArray:
        """Positions of rows in the sorted order (their ids are contiguous runs)."""
        if self._rank is None:
            self._rank = np.empty(self.retained.size, dtype=np.int64)
            self._rank[self._order] = np.arange(self._order.size)
        return self._rank[rows]

    def _raise_unknown(self, ids: Any, caller: str) -> None:
        advice = "Ids must have been given to fit and not deleted since; `model.ids_` lists them."
        if ids.dtype.kind != self._sorted.dtype.kind:
            kinds = {"i": "integers", "U": "text"}
            advice = (
                f"Those retained are {kinds[self._sorted.dtype.kind]}, these are {kinds[ids.dtype.kind]}: convert them."
            )
        raise UnknownIds(
            f"{caller} got {len(ids)} ids that this model does not hold: {_some(ids)}. {advice} Nothing was changed."
        )


def _some(ids: Any) -> str:
    """Return up to five ids as text."""
    shown = ", ".join(repr(i) for i in np.asarray(ids)[:5].tolist())
    return f"[{shown}{', ...' if len(ids) > 5 else ''}]"
