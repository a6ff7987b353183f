"""Rows as a step of a pipeline sees them, and the rows that remain after a deletion."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from certified._data.frames import erase, select, stacked
from certified._data.targets import classes_left
from certified.errors import InvalidRequest
from certified.typing import FloatArray, IntArray

__all__ = ["RemainingRows", "Table", "table_left"]


class Table(NamedTuple):
    """Rows as a step of a pipeline sees them.

    Attributes
    ----------
    x : array of shape (n_rows, n_features)
        float64, or objects where a column holds text.
    weight : float array of shape (n_rows,)
        Positive, but in a table that an estimator keeps: there 0 marks rows that do not count, and those erased.
    y : array of shape (n_rows,) or None
        Targets, classes as codes 0, 1, ...
    hashes : uint64 array of shape (n_rows,) or None
        Keyed hash of the subject of each row.
    """

    x: Any
    weight: FloatArray
    y: Any = None
    hashes: Any = None

    def take(self, rows: Any) -> Table:
        """Return copies of these rows."""
        x, weight, *others = self
        return Table(x[rows], weight[rows], *[None if part is None else part[rows] for part in others])

    def with_weight(self, without: Any = None) -> Table:
        """Return the rows of positive weight, but those at the positions `without`; a copy only where rows go."""
        retained = self.weight > 0.0
        if without is not None:
            retained[without] = False
        return self if retained.all() else self.take(retained)

    def added(self, retained: IntArray, new: Table, hashes: Any) -> Table:
        """Return the rows at these positions, followed by the new ones, with the hashes of both."""
        y = None if self.y is None else np.concatenate([self.y[retained], new.y])
        return Table(stacked(self.x[retained], new.x), np.concatenate([self.weight[retained], new.weight]), y, hashes)

    def some(self, caller: str) -> Table:
        """Return the table, or raise if it has no row."""
        if len(self.weight):
            return self
        raise InvalidRequest(
            f"{caller} would see only rows of weight 0. One row of weight > 0 is needed. Nothing was changed."
        )

    def select(self, columns: Any) -> Table:
        """Return these columns of every row."""
        return self._replace(x=select(self.x, columns))

    def erase(self, rows: IntArray) -> None:
        """Overwrite these rows with nothing."""
        for part in self:
            if part is not None:
                erase(part, rows)


def table_left(table: Table, subjects: Any, rows: IntArray, n_classes: int) -> tuple[IntArray, Table] | None:
    """Return the codes of the classes that stay without these rows, and the table with new codes.

    The rows have no weight there. None where all classes stay, or fewer than two.
    """
    left = subjects.retained[: len(table.y)].copy()
    left[rows] = False
    found = classes_left(table.y, left, n_classes)
    if found is None:
        return None
    return found[0], table._replace(y=found[1], weight=np.where(left, table.weight, 0.0))


class RemainingRows:
    """The rows of a table that a deletion leaves; copies only of the columns that are asked for."""

    def __init__(self, table: Table, gone: IntArray, columns: IntArray | None = None) -> None:
        self._table, self._gone, self._columns = table, gone, columns

    @cached_property
    def _rows(self) -> Table:
        table = self._table if self._columns is None else self._table.select(self._columns)
        return table.with_weight(without=self._gone)

    def __call__(self) -> Table:
        """Return the rows, all of positive weight."""
        return self._rows

    def select(self, columns: IntArray) -> RemainingRows:
        """Return the same of these columns."""
        return RemainingRows(self._table, self._gone, columns if self._columns is None else self._columns[columns])
