"""Transformers in sequence as one: each deletes with the features that those before it make.

A step is a :class:`certified._steps.step.ExactStep`, or wrapped as one: what learns nothing from the rows
(``StatelessStep``), and pipelines of steps (``StepSequence``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import Columns, Schema, values_of
from certified._data.reproducible import same
from certified._data.table import Table
from certified._steps.remaining import after
from certified._steps.stateless import StatelessStep, as_named, is_of_text, is_stateless, of_table
from certified._steps.step import ExactStep
from certified.errors import InvalidInput, NotDeletable
from certified.parts._table import PartedTable

__all__ = [
    "StepSequence",
    "admit",
    "as_step",
    "delete_through",
    "fit_through",
    "served",
    "targets",
]


def as_step(step: Any, name: str, caller: str) -> ExactStep:
    """Return a transformer as an unfitted step, a clone; raise NotDeletable if it cannot delete rows."""
    step = as_named(step)
    if isinstance(step, ExactStep):
        step = clone(step)
        step._ready()
        step._owned = True
        return step
    if isinstance(step, _BaseComposition) and hasattr(step, "steps"):
        return StepSequence([(inner, as_step(part, f"{name}__{inner}", caller)) for inner, part in step.steps])
    if is_stateless(step):
        return StatelessStep(step)
    shown = repr(step) if isinstance(step, str) else f"a {type(step).__name__}"
    reads_text = hasattr(step, "__sklearn_tags__") and is_of_text(step)
    other = (
        "scikit-learn's HashingVectorizer, which learns nothing" if reads_text else "its counterpart from `certified`"
    )
    raise NotDeletable(
        f"{caller} got the step {name!r}, {shown}, which learns from the data and cannot delete rows. Use "
        f"{other}, wrap it in FrozenEstimator if it was fitted on other "
        "data that are not subject to deletion, or use FunctionTransformer if it learns nothing."
    )


class StepSequence(ExactStep):
    """Steps in sequence, one step of something larger.

    Parameters
    ----------
    steps : list of (str, Stable)
        From :func:`as_step`.
    """

    _own = ("steps",)

    def __init__(self, steps: list[tuple[str, ExactStep]]) -> None:
        self.steps = steps

    @property
    def parts(self) -> list[ExactStep]:
        """The steps without their names."""
        return [step for _, step in self.steps]

    def _members(self) -> tuple[Any, ...]:
        return tuple(self.parts)

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        super()._see(X, names, schema)
        self.parts[0]._see(X, names, schema)

    def _count(self, table: Table) -> tuple[Any, ...]:
        return fit_through(self.parts, table)[0]

    def _count_over(self, rows: PartedTable) -> tuple[Any, ...]:
        return fit_through(self.parts, rows)[0]

    def _update_statistic(self, statistic: Any, removed: Table, left: Callable[[], Table]) -> tuple[Any, ...]:
        return delete_through(self.parts, removed, left)[0]

    def _learned_from(self, statistic: Any) -> tuple[Any, ...]:
        return tuple(step._learned_again(part) for step, part in zip(self.parts, statistic, strict=True))

    def _apply(self, learned: Any, X: Any) -> Any:
        for step, part in zip(self.parts, learned, strict=True):
            admit(step, X)
            X = step._apply(part, X)
        return X

    def _apply_rows(self, learned: Any, table: Table) -> Any:
        for step, part in zip(self.parts, learned, strict=True):
            table = table._replace(x=step._apply_rows(part, table))
        return table.x

    def _changed_features(self, learned: Any, left: Callable[[], Table]) -> list[Any]:
        entered = left
        for step, part in zip(self.parts[:-1], learned, strict=False):
            if not same(part, step._learned):
                return [self._apply_rows(learned, left())]
            entered = _then(step, part, entered)
        return self.parts[-1]._changed_features(learned[-1], entered)

    def _target(self, y: Any, n_rows: int) -> Any:
        return targets([step for step in self.parts if step._supervised], y, n_rows)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        return targets([step for step in self.parts if step._supervised], y, n_rows, more=True)

    @property
    def _supervised(self) -> bool:  # type: ignore[override]
        return any(step._supervised for step in self.parts)

    def _width(self, learned: Any, n_features: int) -> int:
        for step, part in zip(self.parts, learned, strict=True):
            n_features = step._width(part, n_features)
        return n_features

    def _example(self, learned: Any, n_features: int) -> list[Any]:
        return self.parts[0]._example(learned[0], n_features)

    def _twin(self) -> StepSequence:
        out = super()._twin()
        out.steps = [(name, step._twin()) for name, step in self.steps]
        return out

    def _adopt(self, twin: StepSequence) -> None:
        for step, other in zip(self.parts, twin.parts, strict=True):
            step._adopt(other)
        super()._adopt(twin)

    def _declared(self) -> list[str]:
        return [clause for step in self.parts for clause in step._declared()]

    def _store(self, statistic: Any, learned: Any) -> None:
        n_features = self.n_features_in_
        for step, counted, part in zip(self.parts, statistic, learned, strict=True):
            n_features = served(step, counted, part, n_features)
        super()._store(statistic, learned)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out of the last step."""
        names = _check_feature_names_in(self, input_features)
        for step in self.parts:
            names = step.get_feature_names_out(names)
        return names

    def _release(self) -> Pipeline:
        """Return a plain pipeline of the released steps."""
        (name, first), *rest = self.steps
        return Pipeline([(name, first.release()), *((name, of_table(step, step.release())) for name, step in rest)])


def targets(steps: Sequence[ExactStep], y: Any, n_rows: int, *, more: bool = False) -> Any:
    """Return the targets as all of these steps use them, of the fit or of rows that are added; None for no steps."""
    found = [step._more_targets(y, n_rows) if more else step._target(y, n_rows) for step in steps]
    for step, other in zip(steps, found, strict=True):
        if not np.array_equal(other, found[0]):
            raise InvalidInput(
                f"{type(step).__name__} and {type(steps[0]).__name__} take y for different things, classes and "
                "numbers. Set target_type= of the encoder."
            )
    return found[0] if found else None


def served(step: ExactStep, statistic: Any, learned: Any, n_features: int) -> int:
    """Let a step serve what it has learned from so many features, a twin where it is fitted; return how many leave."""
    step.n_features_in_ = n_features
    if not (statistic is step.__dict__.get("_statistic") and learned is step._learned):
        step._store(statistic, learned)
    return step._width(learned, n_features)


def fit_through(steps: Sequence[ExactStep], table: Any) -> tuple[tuple[Any, ...], tuple[Any, ...], Any]:
    """Return the statistics of the steps, what they learn, and the features that come out of the last one.

    Of rows in parts these are a table in parts.
    """
    statistics, learned = [], []
    for step in steps:
        admit(step, table.x)
        statistics.append(step._counted(table))
        learned.append(step._learned_from(statistics[-1]))
        table = after(table, step, learned[-1])
    return tuple(statistics), tuple(learned), table if isinstance(table, PartedTable) else table.x


def delete_through(
    steps: Sequence[ExactStep], removed: Table, left: Callable[[], Table]
) -> tuple[tuple[Any, ...], tuple[Any, ...], list[bool], Callable[..., list[Any]]]:
    """Return statistics, what is learned, which steps serve something else, and the features of the retained rows.

    Everything is counted anew from the first step that serves something else. Features are made only when asked for,
    in the pieces of ``ExactStep._changed_features``; with ``whole=True`` the table that comes out, in one piece.
    """
    statistics: list[Any] = []
    learned: list[Any] = []
    changed: list[bool] = []
    entered = left
    for step in steps:
        entered = left
        if any(changed):
            admit(step, left().x)
            statistics.append(step._counted(left()))
        else:
            statistics.append(step._without(removed, left))
        learned.append(step._learned_again(statistics[-1]))
        changed.append(not same(learned[-1], step._learned))
        if not any(changed) and len(removed.weight):
            removed = removed._replace(x=step._apply_rows(step._learned, removed))
        left = _then(step, learned[-1], left)

    def pieces(whole: bool = False) -> list[Any]:
        if whole:
            return [left()]
        return [left().x] if any(changed[:-1]) else steps[-1]._changed_features(learned[-1], entered)

    return tuple(statistics), tuple(learned), changed, pieces


def admit(step: ExactStep, x: Any) -> None:
    """Raise InvalidInput if a step cannot take these features."""
    if isinstance(step, StatelessStep | StepSequence):
        return  # what follows is theirs to say
    tags, name = get_tags(step).input_tags, type(step).__name__
    if isinstance(x, Columns):
        if not tags.categorical:
            raise InvalidInput(
                f"{name} got features that are text. Put certified.preprocessing.OneHotEncoder in front of it, or "
                "choose other columns."
            )
        return
    if issparse(x) and not tags.sparse:
        raise InvalidInput(
            f"{name} got sparse features, and takes dense ones. Set sparse_output=False in the encoder "
            "(encode='onehot-dense' for bins), or sparse_threshold=0 in the ColumnTransformer in front of it."
        )
    if not (tags.allow_nan or np.isfinite(values_of(x)).all()):
        raise InvalidInput(
            f"{name} got features that are missing (NaN) or infinite from the steps before it. Put "
            "certified.impute.SimpleImputer in front of it, or correct the rows."
        )


def _then(step: ExactStep, learned: Any, left: Callable[[], Table]) -> Callable[[], Table]:
    return cache(lambda: after(left(), step, learned))
