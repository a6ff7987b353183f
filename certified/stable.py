"""Estimators that forget exactly: all they learn is a function of an exact statistic of the *set* of rows.

Pure steps make such an estimator, in a pipeline or on its own; none but the last changes it::

    statistic = _count(table)                  # of all rows, whatever their order
    statistic = _discount(statistic, removed)  # of the rows left; None where they must be counted again
    learned = _derive(statistic)               # what is served; may refuse
    X = _apply(learned, X)                     # of a transformer
    _serve(statistic, learned)                 # store both; cannot fail

A deletion gives bit for bit the state of a refit if ``_discount(_count(D), S)`` is ``_count(D without S)``, which
:func:`certified.testing.check_deletable` tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from certified.base import Deletable, Plan, digest, versions
from certified.certificate import Certificate
from certified.columns import Schema, erase, select, stacked
from certified.errors import InvalidRequest
from certified.rows import Subjects
from certified.typing import FloatArray, IntArray

__all__ = ["Left", "Stable", "Table", "project", "same"]


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

    def present(self, without: Any = None) -> Table:
        """Return the rows of positive weight, but those at the positions `without`; a copy only where rows go."""
        held = self.weight > 0.0
        if without is not None:
            held[without] = False
        return self if held.all() else self.take(held)

    def joined(self, held: IntArray, new: Table, hashes: Any) -> Table:
        """Return the rows at these positions, followed by the new ones, with the hashes of both."""
        y = None if self.y is None else np.concatenate([self.y[held], new.y])
        return Table(stacked(self.x[held], new.x), np.concatenate([self.weight[held], new.weight]), y, hashes)

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


class Left:
    """The rows of a table that a deletion leaves; copies only of the columns that are asked for."""

    def __init__(self, table: Table, gone: IntArray, columns: IntArray | None = None) -> None:
        self._table, self._gone, self._columns = table, gone, columns

    @cached_property
    def _rows(self) -> Table:
        table = self._table if self._columns is None else self._table.select(self._columns)
        return table.present(without=self._gone)

    def __call__(self) -> Table:
        """Return the rows, all of positive weight."""
        return self._rows

    def select(self, columns: IntArray) -> Left:
        """Return the same of these columns."""
        return Left(self._table, self._gone, columns if self._columns is None else self._columns[columns])


class Stable(Deletable):
    """Base class. Subclasses set ``_table`` and ``_subjects`` by :meth:`_learn` and give the four steps."""

    _table: Table
    _statistic: Any
    _learned: Any
    _supervised = False  # whether the targets are used
    _schema: Schema | None = None  # of the features as given; None for features that other steps make

    def _ready(self) -> None:
        """Make what ``_count`` needs, from the parameters alone; raise NotDeletable for a part that cannot forget."""

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        """Look at the features as given: the frame X or their table, their names or None, and their schema."""
        self._schema = schema
        if names is not None:
            self.feature_names_in_ = names

    def _target(self, y: Any, n_rows: int) -> Any:
        """Return the targets as the table holds them, a copy; None where they are not used."""
        return None

    def _count(self, table: Table) -> Any:
        """Return the exact statistic of these rows, all of positive weight."""
        raise NotImplementedError

    def _discount(self, statistic: Any, removed: Table) -> Any:
        """Return the statistic without the removed rows, or None where it must be counted again."""
        raise NotImplementedError

    def _forget(self, statistic: Any, removed: Table, left: Callable[[], Table]) -> Any:
        """Return the statistic without the removed rows; `left` gives all others where they must be counted again."""
        after = self._discount(statistic, removed)
        return self._count(left()) if after is None else after

    def _derive(self, statistic: Any) -> Any:
        """Return what is served, nested tuples and mappings of arrays; raise where nothing can be."""
        raise NotImplementedError

    def _derived(self, statistic: Any) -> Any:
        """Return what :meth:`_derive` does, without the work where the statistic is the one that is served."""
        return self._learned if statistic is self.__dict__.get("_statistic") else self._derive(statistic)

    def _apply(self, learned: Any, X: Any) -> Any:
        """Return the validated rows X as a transformer that learned this transforms them; others leave them alone."""
        return X

    def _apply_rows(self, learned: Any, table: Table) -> Any:
        """Return the rows of the fit, transformed; another value than for new rows where their targets had a part."""
        return self._apply(learned, table.x)

    def _renewed(self, learned: Any, left: Callable[[], Table]) -> list[Any]:
        """Return the rows left as :meth:`_apply_rows` does, in pieces from left to right.

        What entered must be what entered before. A piece is an array of columns, or a slice of the columns that came
        out before where they are still right.
        """
        if same(learned, self._learned):
            return [slice(0, self._width(learned, int(self.n_features_in_)))]
        return [self._apply_rows(learned, left())]

    def _width(self, learned: Any, n_features: int) -> int:
        """Return how many features come out where this many come in."""
        return n_features

    def _example(self, learned: Any, n_features: int) -> list[Any]:
        """Return made-up values, one for each feature, that :meth:`_apply` takes."""
        return [0.0] * n_features

    def _serve(self, statistic: Any, learned: Any) -> None:
        """Store both. Subclasses set their public attributes here."""
        self._statistic, self._learned = statistic, learned

    def _learn(self, table: Table, subjects: Subjects) -> None:
        """Fit: count, derive, serve, and keep the rows."""
        statistic = self._count(table.present())
        self._serve(statistic, self._derive(statistic))
        self._table, self._subjects = table, subjects

    def _plan(self, rows: IntArray) -> Plan:
        if rows.size >= self.n_rows_:
            raise InvalidRequest(
                "delete(ids=...) would remove every row. Discard the model instead. Nothing was changed."
            )
        removed = self._table.take(rows).present()
        statistic = self._forget(self._statistic, removed, Left(self._table, rows))
        learned = self._derive(statistic)
        changed = not same(learned, self._learned)

        def commit() -> None:
            self._table.erase(rows)
            self._serve(statistic, learned)

        return Plan(commit, changed, "exact", np.inf if changed else 0.0)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state: exact."""
        self._check_fitted()
        return Certificate.exact(
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            versions=versions(),
        )

    @property
    def state_digest_(self) -> str:
        """Digest of the learned state: equal exactly when two states are equal bit for bit. Private."""
        self._check_fitted()
        return digest(*_leaves(self._statistic), *_leaves(self._learned))

    def _check_fitted(self) -> None:
        if "_statistic" not in self.__dict__:
            super()._check_fitted()

    def __sklearn_is_fitted__(self) -> bool:
        return "_statistic" in self.__dict__


def project(X: FloatArray, directions: FloatArray) -> FloatArray:
    """Return ``X @ directions.T``, where a row's values do not depend on the other rows, not even in rounding.

    A matrix product of a library may round a row differently at another place. Then the features of the rows that stay
    would not be those of a refit, bit for bit.
    """
    out = np.empty((len(X), len(directions)))
    for start in range(0, len(X), 1024):
        part = X[start : start + 1024]
        total = np.zeros((len(part), len(directions)))
        for column, weights in zip(part.T, directions.T, strict=True):
            total += column[:, None] * weights
        out[start : start + 1024] = total
    return out


def same(a: Any, b: Any) -> bool:
    """Whether two served states are equal bit for bit; what both share is not looked at."""
    if a is b:
        return True
    a, b = (value.parts() if hasattr(value, "parts") else value for value in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and same(list(a.values()), list(b.values()))
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if a is None or b is None or isinstance(a, dict | tuple | list) or isinstance(b, dict | tuple | list):
        return False
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype.kind in "OU":
        return repr(first.tolist()) == repr(second.tolist())
    return first.tobytes() == second.tobytes()


def _leaves(value: Any) -> Iterator[Any]:
    """Arrays, numbers and text inside nested tuples, lists, mappings and objects with ``parts``."""
    if hasattr(value, "parts"):
        value = value.parts()
    if isinstance(value, dict):
        yield repr(list(value))
        value = list(value.values())
    if isinstance(value, tuple | list):
        yield len(value)
        for item in value:
            yield from _leaves(item)
    else:
        yield "None" if value is None else value
