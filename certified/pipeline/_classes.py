"""Pipelines of classifiers: a class that leaves with its last row, in every step that knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from certified._data.table import table_left
from certified._steps.sequence import fit_through
from certified._steps.step import ExactStep
from certified.parts._table import PartedTable
from certified.typing import IntArray

__all__ = ["ClassesLeft"]


class ClassesLeft:
    """What a pipeline adds to :meth:`certified.base.Deletable._with_classes_left`."""

    _before: list[ExactStep]
    _draft: Callable[[], Any]
    _final: Any
    _labels: Any
    _subjects: Any
    _table: Any
    steps_: list[tuple[str, Any]]

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        final: Any = self._final
        if isinstance(self._table, PartedTable) or not hasattr(final, "classes_"):
            return None
        exact, draft, before = isinstance(final, ExactStep), self._draft(), self._table
        coded = table_left(before, self._subjects, rows, len(final.classes_)) if before.y is not None else None
        if exact:
            other, clear = final._draft(), _nothing
        elif (found := final._with_classes_left(rows)) is not None:
            other, clear = found
        else:
            return None
        if exact or self._labels is not None:
            if coded is None:
                return None
            stay, draft._table = coded
            draft._labels = None if self._labels is None else self._labels[stay]
            if exact:
                other.classes_ = final.classes_[stay]
        draft._before = [other if step is final else step for step in self._before]
        draft.steps_ = [(name, other if step is final else step) for name, step in self.steps_]
        draft.classes_ = other.classes_
        if exact:
            statistics, learned, _ = fit_through(draft._before, draft._table.with_weight())
            draft._before, draft.steps_ = draft._served(statistics, learned)

        def clear_all() -> None:
            clear()
            if draft._table is not before:
                before.y[:] = 0
                before.weight[:] = 0.0

        return draft, clear_all


def _nothing() -> None:
    """Overwrite nothing: an exact step keeps no rows."""
