"""Transformers side by side: what those of columns and of unions share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import get_tags
from sklearn.utils._indexing import _safe_indexing
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_feature_names_in, validate_data

from certified._data.frames import Columns, Schema, eager, is_frame, joined, read, select
from certified._data.table import RemainingRows, Table
from certified._steps.estimators import MixedTransformer
from certified._steps.sequence import admit, served, targets
from certified._steps.stateless import as_named
from certified._steps.step import ExactStep
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.typing import IntArray

__all__ = ["Parallel", "Part"]


class Part(NamedTuple):
    """One of the transformers, and the columns that were asked for."""

    name: str
    step: ExactStep
    wanted: Any


class Parallel(MixedTransformer, _BaseComposition):
    """Base class: the statistic and what is served are the columns of each part, and one entry for each part."""

    _own = ("_parts",)
    _parts: list[Part]
    _resolved: tuple[IntArray, ...] | None = None  # columns of the parts in the table; None in an inner step
    _entered: IntArray | None = None  # which of the features given are in the table; None for all of them
    transformer_weights: Any = None
    sparse_threshold: float = 0.3

    def _ready(self) -> None:
        self._parts = self._made()
        self._validate_names([part.name for part in self._parts if part.name != "remainder"])

    def _made(self) -> list[Part]:
        raise NotImplementedError

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        """Return the columns of each part in a frame or an array."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Fit every transformer on its columns.

        Parameters
        ----------
        X : data frame or array-like of shape (n_rows, n_features)
        y : ignored
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row. A column named here is not a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0, for the transformers that use them. A row of weight 0 counts as absent.

        Returns
        -------
        self
        """
        return super().fit(X, y, ids=ids, sample_weight=sample_weight)

    def _validated(self, X: Any, reset: bool) -> Any:
        if reset:
            return self._enter(X)
        x = read(self, self._of_fit(X), self._schema or Schema(("float",) * self.n_features_in_), check=False)[0]
        if not reset:
            for part, columns, _ in self._used(self._learned):
                admit(part.step, select(x, columns))
        return x

    def _enter(self, X: Any) -> Any:
        """Return the table of the columns that any part asks for, and remember which these are: others are not read."""
        self._resolved = self._entered = None
        if (is_frame(X) or isinstance(X, np.ndarray)) and len(X.shape) == 2 and 0 not in X.shape:
            validate_data(self, X, reset=True, skip_check_array=True)
            chosen = self._columns_of(X)
            used = np.unique(np.concatenate([np.empty(0, dtype=np.intp), *chosen]))
            if 0 < used.size < self.n_features_in_:
                self._entered = used
                self._resolved = tuple(np.searchsorted(used, columns) for columns in chosen)
                X = _safe_indexing(X, used, axis=1)
                x, self._schema = read(self, X, check=False)
                return x
        x, self._schema = read(self, X)
        return x

    def _of_fit(self, X: Any) -> Any:
        """Return the columns of new rows that the table of the fit has: by name where both have names, in any order."""
        frame, names = eager(X, type(self).__name__), getattr(self, "feature_names_in_", None)
        if frame is not None and names is not None:
            wanted = names if self._entered is None else names[self._entered]
            absent = [str(name) for name in wanted if name not in frame.columns]
            if absent:
                raise InvalidInput(
                    f"{type(self).__name__} got a frame in which columns are missing: {absent}. Those that the fit "
                    "used are needed, in any order."
                )
            return frame.select(list(wanted)).to_native()
        if not isinstance(X, np.ndarray) or X.ndim == 2:  # else it is refused when it is read
            validate_data(self, X, reset=False, skip_check_array=True)
        if self._entered is None or getattr(X, "ndim", 2) != 2:
            return X
        return _safe_indexing(
            X if is_frame(X) or hasattr(X, "shape") else np.asarray(X, dtype=object), self._entered, axis=1
        )

    # --------------------------------------------------------- pure steps

    def _see(self, X: Any, names: Any, schema: Schema | None) -> None:
        super()._see(X, names, schema)
        if self._entered is None:
            self._resolved = self._columns_of(X)
        for part, columns in zip(self._parts, self._resolved or (), strict=True):
            if columns.size:
                some = None if schema is None else schema.take(columns)
                given = self._given(columns)
                if isinstance(X, Columns):
                    own = select(X, columns)
                else:
                    own = _safe_indexing(X, given if is_frame(X) else columns, axis=1)
                part.step._see(own, None if names is None else names[given], some)

    def _count_over(self, rows: PartedTable) -> Any:
        return self._count(rows)

    def _count(self, table: Any) -> Any:
        chosen = self._columns_of(table.x) if self._resolved is None else self._resolved
        counted: list[Any] = []
        for part, columns in zip(self._parts, chosen, strict=True):
            if not columns.size:
                counted.append(None)
                continue
            some = table.select(columns)
            admit(part.step, some.x)
            counted.append(part.step._counted(some))
        if all(found is None for found in counted):
            raise InvalidInput(
                f"{type(self).__name__} selects no column. Name columns, or set remainder='passthrough'."
            )
        return chosen, tuple(counted)

    def _update_statistic(self, statistic: Any, removed: Table, left: Callable[[], Table]) -> Any:
        chosen, counted = statistic
        after = []
        for part, columns, found in zip(self._parts, chosen, counted, strict=True):
            if found is not None:
                gone = removed._replace(x=select(removed.x, columns))
                found = part.step._update_statistic(found, gone, _selected(left, columns))
            after.append(found)
        return chosen, tuple(after)

    def _learned_from(self, statistic: Any) -> Any:
        chosen, counted = statistic
        pairs = zip(self._parts, counted, strict=True)
        return chosen, tuple(None if found is None else part.step._learned_again(found) for part, found in pairs)

    def _given(self, columns: IntArray) -> IntArray:
        """Return the positions of columns of the table among the features given."""
        return columns if self._entered is None else self._entered[columns]

    def _used(self, learned: Any) -> list[tuple[Part, IntArray, Any]]:
        """Return the parts that have columns, with these and with what they have learned."""
        triples = zip(self._parts, *learned, strict=True)
        return [(part, columns, known) for part, columns, known in triples if known is not None]

    def _apply(self, learned: Any, X: Any) -> Any:
        return self._side_by_side(learned, lambda step, known, columns: step._apply(known, select(X, columns)))

    def _apply_rows(self, learned: Any, table: Table) -> Any:
        def made(step: ExactStep, known: Any, columns: IntArray) -> Any:
            return step._apply_rows(known, table._replace(x=select(table.x, columns)))

        return self._side_by_side(learned, made)

    def _side_by_side(self, learned: Any, transform: Callable[[ExactStep, Any, IntArray], Any]) -> Any:
        weights = self.transformer_weights or {}
        out = []
        for part, columns, known in self._used(learned):
            made = transform(part.step, known, columns)
            if part.name in weights:
                made = made * float(weights[part.name])
            out.append(self._formed(made))
        return joined(out)

    def _formed(self, made: Any) -> Any:
        """Return features of a part, dense where sparse ones are not wanted."""
        return made.toarray() if issparse(made) and not self.sparse_threshold > 0 else made

    def _changed_features(self, learned: Any, left: Callable[[], Table]) -> list[Any]:
        weights, out = self.transformer_weights or {}, []
        for part, columns, known in self._used(learned):
            start, factor = self.output_indices_[part.name].start, float(weights.get(part.name, 1.0))
            for piece in part.step._changed_features(known, _selected(left, columns)):
                moved = isinstance(piece, slice)
                out.append(slice(start + piece.start, start + piece.stop) if moved else self._formed(piece * factor))
        return out

    def _target(self, y: Any, n_rows: int) -> Any:
        return targets([part.step for part in self._parts if part.step._supervised], y, n_rows)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        return targets([part.step for part in self._parts if part.step._supervised], y, n_rows, more=True)

    @property
    def _supervised(self) -> bool:  # type: ignore[override]
        return any(part.step._supervised for part in self._parts)

    def _width(self, learned: Any, n_features: int) -> int:
        return sum(part.step._width(known, len(columns)) for part, columns, known in self._used(learned))

    def _example(self, learned: Any, n_features: int) -> list[Any]:
        out: list[Any] = [0.0] * n_features
        for part, columns, known in self._used(learned):
            for j, value in zip(self._given(columns), part.step._example(known, len(columns)), strict=True):
                if value != 0.0:
                    out[j] = value
        return out

    def _members(self) -> tuple[Any, ...]:
        return tuple(part.step for part in self.__dict__.get("_parts", ()))

    def _twin(self) -> Any:
        out = super()._twin()
        out._parts = [part._replace(step=part.step._twin()) for part in self._parts]
        return out

    def _adopt(self, twin: Any) -> None:
        for part, other in zip(self._parts, twin._parts, strict=True):
            part.step._adopt(other.step)
        super()._adopt(twin)

    def _declared(self) -> list[str]:
        return [clause for part in self._parts for clause in part.step._declared()]

    def _store(self, statistic: Any, learned: Any) -> None:
        start = 0
        self.output_indices_: dict[str, slice] = {}
        for part, columns, counted, known in zip(self._parts, learned[0], statistic[1], learned[1], strict=True):
            width = 0 if known is None else served(part.step, counted, known, len(columns))
            self.output_indices_[part.name] = slice(start, start + width) if width else slice(0, 0)
            start += width
        super()._store(statistic, learned)

    # ------------------------------------------------------------- names

    verbose_feature_names_out: bool

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out, "scale__age" for "age" from the transformer "scale"."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        out = []
        for part, columns, _ in self._used(self._learned):
            made = part.step.get_feature_names_out(names[self._given(columns)])
            out += [f"{part.name}__{name}" for name in made] if self.verbose_feature_names_out else list(made)
        if len(set(out)) < len(out):
            raise ValueError(
                "Output feature names are not unique. Please set verbose_feature_names_out=True to add prefixes to "
                "feature names"
            )
        return np.array(out, dtype=object)

    _steps: Any

    def _sk_visual_block_(self) -> _VisualBlock:
        steps = self._steps
        return _VisualBlock("parallel", [step for _, step in steps], names=[name for name, _ in steps])

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with those of the transformers."""
        return self._get_params("_steps", deep=deep)

    def set_params(self, **kwargs: Any) -> Any:
        """Set parameters, ``name__parameter=value`` for those of a transformer."""
        self._set_params("_steps", **kwargs)
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        steps = [step for _, step in self._steps if not isinstance(as_named(step), str)]
        tags.input_tags.allow_nan = all(get_tags(step).input_tags.allow_nan for step in steps)
        return tags


def _selected(left: Callable[[], Table], columns: IntArray) -> Callable[[], Table]:
    return left.select(columns) if isinstance(left, RemainingRows) else cache(lambda: left().select(columns))
