"""Estimators that delete exactly: all they learn is a function of an exact statistic of the *set* of rows.

Pure steps make such an estimator, in a pipeline or on its own; none but the last changes it::

    statistic = _count(table)                  # of all rows, whatever their order
    statistic = _discount(statistic, removed)  # of the retained rows; None where they must be counted again
    learned = _derive(statistic)               # what is served; may refuse
    X = _apply(learned, X)                     # of a transformer
    _serve(statistic, learned)                 # store both, and what follows from them

Nothing that can fail runs once a deletion has begun to change the estimator: all of this is done on a twin, and then
:meth:`ExactStep._adopt` takes over the attributes of the twin.

A deletion gives bit for bit the state of a refit if ``_subtract(_count(D), S)`` is ``_count(D without S)``, which
:func:`certified.testing.check_deletable` tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse

from certified._data.frames import Columns, Schema
from certified._data.reproducible import _leaves, digest, same
from certified._data.subjects import Subjects
from certified._data.table import Table
from certified._steps.remaining import remaining
from certified.base import Deletable, Plan
from certified.certificate import Certificate
from certified.errors import NotDeletable
from certified.parts._table import PartedTable
from certified.typing import IntArray

__all__ = ["ExactStep", "canonical"]


class ExactStep(Deletable):
    """Base class. Subclasses set ``_table`` and ``_subjects`` by :meth:`_learn` and give the four steps."""

    _table: Any  # a Table, or a PartedTable
    _statistic: Any
    _learned: Any
    _supervised = False  # whether the targets are used
    _keeps_missing = False  # whether a transformer hands on missing values
    _adaptivity = ""  # which requests are covered, where that depends on a key
    _schema: Schema | None = None  # of the features as given; None for features that other steps make

    def _ready(self) -> None:
        """Make what ``_count`` needs, from the parameters alone; raise NotDeletable for a part that cannot delete."""

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        """Look at the features as given: the frame X or their table, their names or None, and their schema."""
        self._schema = schema
        if names is not None:
            self.feature_names_in_ = names

    def _target(self, y: Any, n_rows: int) -> Any:
        """Return the targets as the table holds them, a copy; None where they are not used."""
        return None

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        """Return the targets of rows that are added, as the table holds them."""
        return self._target(y, n_rows)

    def _count(self, table: Table) -> Any:
        """Return the exact statistic of these rows, all of positive weight."""
        raise NotImplementedError

    def _count_over(self, rows: PartedTable) -> Any:
        """Return the same statistic of rows in parts: what every part has is merged exactly."""
        raise NotDeletable(
            f"{type(self).__name__} does not count rows in parts yet. Fit it on rows in memory, or take another step. "
            "Nothing was changed."
        )

    def _counted(self, table: Any) -> Any:
        """Return the statistic of a table, in one part or in many."""
        return self._count_over(table) if isinstance(table, PartedTable) else self._count(table)

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        """Return the statistic without the deleted rows, or None where it must be counted again."""
        raise NotImplementedError

    def _update_statistic(self, statistic: Any, removed: Table, left: Callable[[], Table]) -> Any:
        """Return the statistic without the deleted rows; `left` gives all others where they must be counted again."""
        if not len(removed.weight):  # rows of weight 0 were never counted
            return statistic
        after = self._subtract(statistic, removed)
        return self._counted(left()) if after is None else after

    def _without(self, removed: Table, left: Callable[[], Table]) -> Any:
        """Return the present statistic without these rows; there may be none, as those of weight 0 are left out."""
        return self._update_statistic(self._statistic, removed, left) if len(removed.weight) else self._statistic

    def _learned_from(self, statistic: Any) -> Any:
        """Return what is served, nested tuples and mappings of arrays; raise where nothing can be."""
        raise NotImplementedError

    def _learned_again(self, statistic: Any) -> Any:
        """Return what :meth:`_learned_from` does, without the work where the statistic is the one that is served."""
        return self._learned if statistic is self.__dict__.get("_statistic") else self._learned_from(statistic)

    def _apply(self, learned: Any, X: Any) -> Any:
        """Return the validated rows X as a transformer that learned this transforms them; others leave them alone."""
        return X

    def _apply_rows(self, learned: Any, table: Table) -> Any:
        """Return the rows of the fit, transformed; another value than for new rows where their targets had a part."""
        return self._apply(learned, table.x)

    def _changed_features(self, learned: Any, left: Callable[[], Table]) -> list[Any]:
        """Return the retained rows as :meth:`_apply_rows` does, in pieces from left to right.

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

    def _store(self, statistic: Any, learned: Any) -> None:
        """Store both. Subclasses set their public attributes here; of a fitted estimator only on a twin."""
        self._statistic, self._learned = statistic, learned

    _own: tuple[str, ...] = ()  # attributes that a twin has copies of

    def _twin(self) -> Self:
        """Return a copy that shares everything, of which nothing is changed in place; inner steps are copied too."""
        return self._draft()

    def _adopt(self, twin: Self) -> None:
        """Take over what a twin serves. Cannot fail, and may be repeated."""
        self.__dict__.update({name: value for name, value in twin.__dict__.items() if name not in self._own})

    def _learn(self, table: Any, subjects: Subjects) -> Plan:
        """Plan to count these rows, derive, serve, and retain them."""
        statistic = self._counted(table.with_weight())
        learned = self._learned_from(statistic)
        changed = not same(learned, self.__dict__.get("_learned"))
        twin = self._twin()
        twin._store(statistic, learned)
        twin._table, twin._subjects = table, subjects
        return Plan(lambda: self._adopt(twin), changed, "exact", np.inf if changed else 0.0)

    def _check_rest(self, rows: IntArray) -> None:
        super()._check_rest(rows)
        if self._schema is not None and self._schema.objects:
            self._schema.check_rest(self._table.x, self._subjects.without(rows))

    def _plan_deletion(self, rows: IntArray) -> Plan:
        removed = self._table.take(rows).with_weight()
        statistic = self._without(removed, remaining(self._table, rows))
        learned = self._learned_again(statistic)
        changed = not same(learned, self._learned)
        twin = self._twin()
        twin._store(statistic, learned)

        def commit() -> None:
            self._adopt(twin)
            self._table.erase(rows)

        return Plan(commit, changed, "exact", np.inf if changed else 0.0)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state: exact."""
        self._check_fitted()
        return Certificate.exact(
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            versions=self._versions(),
            declared="; ".join(self._declared()),
            adaptivity=self._adaptivity,
        )

    def _declared(self) -> list[str]:
        """What the claim takes on trust, clauses; see ``Certificate.declared``."""
        return []

    @property
    def state_digest_(self) -> str:
        """Digest of all that is learned and served: equal exactly when two states are, bit for bit. Private."""
        self._check_fitted()
        return digest(*_leaves((self._statistic, self._learned, self._as_given())))

    def _as_given(self) -> tuple[Any, ...]:
        """Return what is served beside what is learned: features, their names and kinds, labels of classes."""
        names, labels = (self.__dict__.get(name) for name in ("feature_names_in_", "classes_"))
        kinds = None if self._schema is None else self._schema.served()
        return int(self.n_features_in_), names, labels, kinds

    def _check_fitted(self) -> None:
        if "_statistic" not in self.__dict__:
            super()._check_fitted()

    def __sklearn_is_fitted__(self) -> bool:
        return "_statistic" in self.__dict__


def canonical(x: Any) -> Any:
    """Return numbers with one zero and one NaN, in place; of a CSR array also in one order, with no zero stored.

    -0.0 equals 0.0, and a NaN may have any of many bits: a row that goes must not leave its way of writing behind.
    """
    if issparse(x):
        x.sum_duplicates()
        canonical(x.data)
        x.eliminate_zeros()
    elif isinstance(x, Columns):
        for column in x.columns:
            canonical(column)
    elif x.dtype.kind == "f":
        x += 0.0
        x[np.isnan(x)] = np.nan
    return x
