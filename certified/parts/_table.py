"""A table in parts as the steps of a pipeline see it, and the features that come out, in parts again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from certified._data.frames import Columns, select
from certified._data.hashing import subject_hash
from certified._data.table import Table
from certified.errors import InvalidInput, InvalidRequest
from certified.parts._part import MISSING, InFile, InMemory, Layout, Part, PartWeight, Stored
from certified.parts._rows import PartedRows, PartedWeight
from certified.typing import FloatArray, IntArray

__all__ = ["PartedTable"]

_SOME = 1024


class _Reading(NamedTuple):
    """How a part is read, as in :class:`PartedTable`; hashes of subjects where there is a key."""

    text: tuple[bool, ...]
    coded: bool
    steps: tuple[Any, ...]
    key: int | None


@dataclass(frozen=True, eq=False)
class PartedTable:
    """Rows of positive weight, part by part, as they come out of some steps.

    Attributes
    ----------
    rows : PartedRows
        The columns as the source has them.
    text : tuple of bool
        Which columns are text.
    coded : bool
        Whether targets are codes of classes.
    gone : int array or None
        Positions of rows that are being deleted.
    steps : tuple
        Functions of a table, applied in this order: ``("apply", step, learned)`` or ``("select", columns)``.
    ones : bool
        Whether every weight counts as 1.
    key : int
        Of the hashes of subjects.
    with_hashes : bool
        Whether tables of parts have them: they take time.
    """

    rows: PartedRows
    text: tuple[bool, ...]
    coded: bool
    gone: IntArray | None = None
    steps: tuple[Any, ...] = ()
    ones: bool = False
    key: int = 0
    with_hashes: bool = False

    def map(self, function: Callable[..., Any], *args: Any, weight: Any = None) -> Iterator[Any]:
        """Yield ``function(table, weights, *args)`` for the table of every part that has rows, in their order."""
        weight, empty = PartedWeight(self.gone), True
        for found in self.rows.map(_in_table, self._reading, self.ones, function, args, weight=weight):
            if found is not None:
                empty = False
                yield found
        if empty:
            raise InvalidRequest(
                "A step would see only rows of weight 0. One row of weight > 0 is needed. Nothing was changed."
            )

    @property
    def _reading(self) -> _Reading:
        return _Reading(self.text, self.coded, self.steps, self.key if self.with_hashes else None)

    def then(self, step: Any, learned: Any) -> PartedTable:
        """Return the table as it comes out of a step that has learned this."""
        return replace(self, steps=(*self.steps, ("apply", step, learned)))

    def select(self, columns: IntArray) -> PartedTable:
        """Return these columns."""
        return replace(self, steps=(*self.steps, ("select", columns)))

    def unweighted(self) -> PartedTable:
        """Return the same rows with weights of 1, for steps that do not use weights."""
        return replace(self, ones=True)

    def hashed(self) -> PartedTable:
        """Return the same rows with the hashes of their subjects."""
        return replace(self, with_hashes=True)

    def left(self, rows: IntArray) -> PartedTable:
        """Return the rows but those at these positions."""
        return replace(self, gone=rows)

    def take(self, rows: IntArray) -> Table:
        """Return copies of these rows, of any weight."""
        found = [
            _table_of(self.rows.stored[k].open(), self.text, self.coded, some, self.key)
            for k, some in self.rows.places(rows).items()
        ]
        for name, *given in self.steps:
            found = [_advanced(table, name, given) for table in found]
        columns = [np.concatenate([column_of(table.x, j) for table in found]) for j in range(found[0].x.shape[1])]
        x: Any = Columns(columns) if isinstance(found[0].x, Columns) else np.column_stack(columns)
        y = np.concatenate([table.y for table in found])
        hashes = np.concatenate([table.hashes for table in found])
        return Table(x, np.concatenate([table.weight for table in found]), y, hashes)

    def with_weight(self) -> PartedTable:
        """Return the rows of positive weight, which these are."""
        return self

    def erase(self, rows: IntArray) -> None:
        """Overwrite these rows with nothing."""
        self.rows.erase(rows)

    @property
    def x(self) -> Any:
        """Some of the rows, to look at."""
        gone = {} if self.gone is None else self.rows.places(self.gone)
        for k, stored in enumerate(self.rows.stored):
            part = stored.open()
            some = np.flatnonzero(PartWeight(gone.get(k)).of(part) > 0.0)[:_SOME]
            if some.size:
                table = _table_of(part, self.text, self.coded, some)
                for name, *given in self.steps:
                    table = _advanced(table, name, given)
                return table.x
        return np.empty((0, len(self.text)))

    # -------------------------------------------------------------- features

    def features(self, caller: str, targets_last: bool, ones: bool) -> PartedRows:
        """Write what comes out of the steps to parts of a model, every row at its position."""
        width = _numbers(self.x, caller).shape[1]
        first, folder, stored = self.rows.stored[0], None, []
        if isinstance(first, InFile):
            folder = Path(tempfile.mkdtemp(prefix="certified-parts-", dir=first.path.parent.parent))
        tables = self.rows.map(_in_features, self._reading, caller, weight=PartedWeight(self.gone))
        try:
            for k, (source, (x, rows)) in enumerate(zip(self.rows.stored, tables, strict=True)):
                layout = Layout(source.layout.n_rows, width + targets_last + ones, source.layout.known, "<i8")
                new: Stored = InMemory.new(layout) if folder is None else InFile.new(layout, folder / f"part-{k:06d}")
                stored.append(new)
                _write(new, source.open(), x, rows, targets_last, ones)
        except BaseException:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        keeps = self.rows.keeps  # as the files of the source's rows do
        return PartedRows(stored, self.rows.unweighted, None if keeps else folder)


def _write(new: Stored, part: Part, x: FloatArray, rows: IntArray, targets_last: bool, ones: bool) -> None:
    """Write the features of these rows of a part, with all else that a model needs of them."""
    if not rows.size:
        return
    y = part.y[rows]
    x = np.column_stack([x, *([y] if targets_last else []), *([np.ones(rows.size)] if ones else [])])
    arrays: dict[str, Any] = {"x": x, "weight": part.weight[rows], "retained": np.ones(rows.size, dtype=bool)}
    if not targets_last:
        arrays["y"] = y
    if part.offset is not None:
        arrays["offset"] = part.offset[rows]
    for name, values in arrays.items():
        whole = np.zeros((new.layout.n_rows, *values.shape[1:]), dtype=values.dtype)
        whole[rows] = values
        new.put(name, 0, whole)


def _table_of(part: Part, text: tuple[bool, ...], coded: bool, rows: Any, key: int | None = None) -> Table:
    """The columns of some rows of a part, in the order of the source."""
    numbers, texts = iter(part.x.T), iter(part.text)
    if not any(text):
        x: Any = np.array(part.x[rows])
    else:
        x = Columns([_objects(next(texts)[rows]) if is_text else next(numbers)[rows].copy() for is_text in text])
    y = part.y[rows]
    hashes = None if key is None else subject_hash(part.ids[rows], key)
    return Table(x, part.weight[rows].copy(), y.astype(np.int64) if coded else y.copy(), hashes)


def _objects(values: Any) -> Any:
    """Text as objects, None where nothing is known."""
    out = values.astype(object)
    out[values == MISSING] = None
    return out


def _through(
    part: Part,
    weight: FloatArray,
    how: _Reading,
) -> tuple[Table, IntArray]:
    """The rows of positive weight as they come out of the steps, and their positions; untouched if there are none."""
    rows = np.flatnonzero(weight > 0.0)
    table = _table_of(part, how.text, how.coded, rows, how.key)
    if rows.size:
        for name, *given in how.steps:
            table = _advanced(table, name, given)
    return table, rows


def _in_table(
    part: Part,
    weight: FloatArray,
    how: _Reading,
    ones: bool,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> Any:
    """What the function makes of the table of a part; None where it has no rows."""
    table, rows = _through(part, weight, how)
    return function(table, np.ones(rows.size) if ones else weight[rows], *args) if rows.size else None


def _in_features(part: Part, weight: FloatArray, how: _Reading, caller: str) -> tuple[FloatArray, IntArray]:
    table, rows = _through(part, weight, how)
    return (_numbers(table.x, caller) if rows.size else np.empty((0, 0))), rows


def _advanced(table: Table, name: str, given: list[Any]) -> Table:
    if name == "select":
        return table._replace(x=select(table.x, given[0]))
    step, learned = given
    return table._replace(x=step._apply_rows(learned, table))


def _numbers(x: Any, caller: str) -> FloatArray:
    """Features as a model takes them."""
    if isinstance(x, Columns):
        raise InvalidInput(
            f"{caller} got features that are text. Put certified.preprocessing.OneHotEncoder in front of it."
        )
    x = x.toarray() if issparse(x) else np.asarray(x)
    if not np.all(np.isfinite(x)):
        raise InvalidInput(
            f"{caller} got features that are missing (NaN) or infinite from the steps before it. Put "
            "certified.impute.SimpleImputer in front of it, or correct the rows."
        )
    found: FloatArray = x
    return found


def column_of(x: Any, j: int) -> Any:
    """A column of an array or of columns."""
    return x.columns[j] if isinstance(x, Columns) else x[:, j]
