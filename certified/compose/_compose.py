"""Transformers side by side: columns of a frame, each deleting by its own steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer as _PlainColumns
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import FeatureUnion as _PlainUnion
from sklearn.pipeline import _name_estimators
from sklearn.utils import Bunch, get_tags
from sklearn.utils._indexing import _get_column_indices, _safe_indexing
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils.metaestimators import _BaseComposition
from sklearn.utils.validation import _check_feature_names_in, validate_data

from certified._data.frames import Columns, Schema, eager, is_frame, joined, read, row_of, select
from certified._data.table import RemainingRows, Table
from certified._steps.estimators import MixedTransformer
from certified._steps.sequence import admit, as_step, served, targets
from certified._steps.stateless import is_of_text, of_table
from certified._steps.step import ExactStep
from certified.base import named_like
from certified.compose._selector import make_column_selector
from certified.errors import InvalidInput, NotDeletable
from certified.typing import IntArray

__all__ = [
    "ColumnTransformer",
    "FeatureUnion",
    "make_column_selector",
    "make_column_transformer",
    "make_union",
]


class _Part(NamedTuple):
    """One of the transformers, and the columns that were asked for."""

    name: str
    step: ExactStep
    wanted: Any


class Parallel(MixedTransformer, _BaseComposition):
    """Base class: the statistic and what is served are the columns of each part, and one entry for each part."""

    _parts: list[_Part]
    _resolved: tuple[IntArray, ...] | None = None  # columns of the parts in the table; None in an inner step
    _entered: IntArray | None = None  # which of the features given are in the table; None for all of them
    transformer_weights: Any = None
    sparse_threshold: float = 0.3

    def _ready(self) -> None:
        self._parts = self._made()
        self._validate_names([part.name for part in self._parts if part.name != "remainder"])

    def _made(self) -> list[_Part]:
        raise NotImplementedError

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        """Return the columns of each part in a frame or an array."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any = None, ids: Any = None, sample_weight: Any = None) -> Any:
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
        return super().fit(X, y, ids, sample_weight)

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

    def _count(self, table: Table) -> Any:
        chosen = self._columns_of(table.x) if self._resolved is None else self._resolved
        counted: list[Any] = []
        for part, columns in zip(self._parts, chosen, strict=True):
            if not columns.size:
                counted.append(None)
                continue
            x = select(table.x, columns)
            admit(part.step, x)
            counted.append(part.step._count(table._replace(x=x)))
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

    def _used(self, learned: Any) -> list[tuple[_Part, IntArray, Any]]:
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

    def _twin(self) -> Any:
        out = super()._twin()
        out._parts = [part._replace(step=part.step._twin()) for part in self._parts]
        return out

    def _adopt(self, twin: Any) -> None:
        for part, other in zip(self._parts, twin._parts, strict=True):
            part.step._adopt(other.step)
        parts = self._parts
        super()._adopt(twin)
        self._parts = parts

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
        steps = [step for _, step in self._steps if not isinstance(step, str)]
        tags.input_tags.allow_nan = all(get_tags(step).input_tags.allow_nan for step in steps)
        return tags


class ColumnTransformer(Parallel):
    """Apply transformers to columns of a frame, exactly deletable.

    As scikit-learn's. A transformer whose statistic a deletion cannot update counts its own columns again; the others
    are not touched.

    Parameters
    ----------
    transformers : list of (name, transformer, columns)
        Transformers of this package, pipelines of them, stateless ones, "passthrough" or "drop". Columns are names,
        positions, a slice, a mask, or a callable such as :func:`make_column_selector`.
    remainder : {"drop", "passthrough"} or transformer, default="drop"
        For the columns that are not named.
    sparse_threshold : float, default=0.3
        0 for dense features. Otherwise they are sparse where a transformer gives sparse ones, however dense they are:
        a density that a deletion moves past a threshold would turn every feature around.
    transformer_weights : dict or None, default=None
        Factors of the output, by name of the transformer.
    verbose_feature_names_out : bool, default=True
        Prefix the names of the features that come out by that of the transformer.

    Attributes
    ----------
    transformers_ : list of (name, fitted transformer, columns)
    named_transformers_ : Bunch
    output_indices_ : dict of slices

    Examples
    --------
    >>> import polars as pl
    >>> from certified.compose import ColumnTransformer
    >>> from certified.preprocessing import OneHotEncoder, StandardScaler
    >>> X = pl.DataFrame({"patient": [7, 8, 9], "age": [50, 60, 70], "city": ["Rome", "Oslo", "Rome"]})
    >>> columns = ColumnTransformer([("scale", StandardScaler(), ["age"]), ("city", OneHotEncoder(), ["city"])])
    >>> columns.fit(X, ids="patient").delete([8]).changed
    ('ColumnTransformer',)
    >>> columns.get_feature_names_out()
    array(['scale__age', 'city__city_Rome'], dtype=object)
    """

    def __init__(
        self,
        transformers: list[tuple[str, Any, Any]],
        *,
        remainder: Any = "drop",
        sparse_threshold: float = 0.3,
        transformer_weights: Any = None,
        verbose_feature_names_out: bool = True,
    ) -> None:
        self.transformers = transformers
        self.remainder = remainder
        self.sparse_threshold = sparse_threshold
        self.transformer_weights = transformer_weights
        self.verbose_feature_names_out = verbose_feature_names_out

    def _made(self) -> list[_Part]:
        named = [*self.transformers, ("remainder", self.remainder, None)]
        return [
            _Part(name, as_step(step, name, "ColumnTransformer.fit"), wanted)
            for name, step, wanted in named
            if not (isinstance(step, str) and step == "drop")
        ]

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        X = np.empty((0, X.shape[1])) if isinstance(X, Columns) else X
        found = {name: _indices(X, wanted) for name, _, wanted in self.transformers}
        taken = np.concatenate([np.empty(0, dtype=np.intp), *found.values()])
        found["remainder"] = np.setdiff1d(np.arange(X.shape[1]), taken)
        return tuple(found[part.name] for part in self._parts)

    @property
    def transformers_(self) -> list[tuple[str, Any, Any]]:
        """The fitted transformers and the positions of their columns."""
        self._check_fitted()
        used = self._used(self._learned)
        return [(part.name, part.step, self._given(columns).tolist()) for part, columns, _ in used]

    @property
    def named_transformers_(self) -> Bunch:
        """The fitted transformers by name."""
        return Bunch(**{name: step for name, step, _ in self.transformers_})

    def release(self) -> _PlainColumns:
        """Return a plain scikit-learn transformer with the released parts; it was fitted on a row that is made up."""
        self._check_fitted()
        parts, remainder = [], "drop"
        for part, columns, _ in self._used(self._learned):
            plain = of_table(part.step, part.step.release())
            plain = plain if isinstance(plain, str) else FrozenEstimator(plain)
            if part.name == "remainder":
                remainder = plain
            else:
                parts.append((part.name, plain, self._given(columns).tolist()))
        values = self._example(self._learned, self.n_features_in_)
        row: Any = np.asarray(row_of(values))
        if hasattr(self, "feature_names_in_"):
            row = pl.DataFrame(
                [_cell(*cell) for cell in zip(self.feature_names_in_, values, self._kinds(), strict=True)]
            )
        out = _PlainColumns(
            parts,
            remainder=remainder,
            sparse_threshold=1.0 if self.sparse_threshold > 0 else 0.0,
            transformer_weights=self.transformer_weights,
            verbose_feature_names_out=self.verbose_feature_names_out,
        )
        return named_like(out.fit(row), self)

    def _kinds(self) -> tuple[str, ...]:
        kinds = ["float"] * self.n_features_in_
        if self._schema is not None:
            for j, kind in zip(self._given(np.arange(len(self._schema.kinds))), self._schema.kinds, strict=True):
                kinds[j] = kind
        return tuple(kinds)

    @property
    def _steps(self) -> list[tuple[str, Any]]:
        try:
            return [(name, step) for name, step, _ in self.transformers]
        except (TypeError, ValueError):
            return self.transformers  # type: ignore[return-value]  # what it is will be said in fit

    @_steps.setter
    def _steps(self, value: list[tuple[str, Any]]) -> None:
        pairs = zip(value, self.transformers, strict=True)
        self.transformers = [(name, step, columns) for (name, step), (_, _, columns) in pairs]


class FeatureUnion(Parallel):
    """Features of several transformers of the same columns, side by side, exactly deletable.

    Parameters
    ----------
    transformer_list : list of (name, transformer)
        As those of :class:`ColumnTransformer`.
    transformer_weights : dict or None, default=None
        Factors of the output, by name of the transformer.
    verbose_feature_names_out : bool, default=True

    Examples
    --------
    >>> from certified.compose import make_union
    >>> from certified.preprocessing import MinMaxScaler, StandardScaler
    >>> make_union(MinMaxScaler(), StandardScaler()).fit([[0.0], [2.0], [4.0]]).transform([[2.0]])
    array([[0.5, 0. ]])
    """

    def __init__(
        self,
        transformer_list: list[tuple[str, Any]],
        *,
        transformer_weights: Any = None,
        verbose_feature_names_out: bool = True,
    ) -> None:
        self.transformer_list = transformer_list
        self.transformer_weights = transformer_weights
        self.verbose_feature_names_out = verbose_feature_names_out

    @property
    def _steps(self) -> list[tuple[str, Any]]:
        return self.transformer_list

    @_steps.setter
    def _steps(self, value: list[tuple[str, Any]]) -> None:
        self.transformer_list = value

    def _made(self) -> list[_Part]:
        return [
            _Part(name, as_step(step, name, "FeatureUnion.fit"), None)
            for name, step in self.transformer_list
            if not (isinstance(step, str) and step == "drop")
        ]

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        return (np.arange(X.shape[1]),) * len(self._parts)

    def release(self) -> _PlainUnion:
        """Return a plain scikit-learn union of the released transformers."""
        self._check_fitted()
        whole = is_of_text(self)
        released = [(part.name, part.step, part.step.release()) for part, _, _ in self._used(self._learned)]
        return _PlainUnion(
            [(name, plain if whole else of_table(step, plain)) for name, step, plain in released],
            transformer_weights=self.transformer_weights,
            verbose_feature_names_out=self.verbose_feature_names_out,
        )


def make_column_transformer(
    *transformers: tuple[Any, Any],
    remainder: Any = "drop",
    sparse_threshold: float = 0.3,
    verbose_feature_names_out: bool = True,
) -> ColumnTransformer:
    """Return a :class:`ColumnTransformer` of (transformer, columns), named after their classes as in scikit-learn."""
    names = [name for name, _ in _name_estimators([step for step, _ in transformers])]
    parts = [(name, step, columns) for name, (step, columns) in zip(names, transformers, strict=True)]
    return ColumnTransformer(
        parts,
        remainder=remainder,
        sparse_threshold=sparse_threshold,
        verbose_feature_names_out=verbose_feature_names_out,
    )


def make_union(*transformers: Any, verbose_feature_names_out: bool = True) -> FeatureUnion:
    """Return a :class:`FeatureUnion` of these transformers, named after their classes as in scikit-learn."""
    return FeatureUnion(_name_estimators(transformers), verbose_feature_names_out=verbose_feature_names_out)


def _cell(name: str, value: Any, kind: str) -> pl.Series:
    """Return a column of one value; missing text is an object, as scikit-learn's encoders see it in other frames."""
    missing_text = kind == "text" and not isinstance(value, str)
    return pl.Series(name, [value], dtype=pl.Object if missing_text else None)


def _indices(X: Any, wanted: Any) -> IntArray:
    """Return the positions of the columns asked for; raise NotDeletable if a callable looks at more than a table has.

    A callable sees the columns' names and types, and not the rows: which columns it chooses must not depend on one
    that goes. Where it would choose others of the rows it is refused.
    """
    if not callable(wanted):
        return np.asarray(_get_column_indices(X, wanted), dtype=np.intp)
    without_rows = eager(X, "ColumnTransformer").head(0).to_native() if is_frame(X) else X[:0]
    found = np.asarray(_get_column_indices(X, wanted(X)), dtype=np.intp)
    try:
        alone = np.asarray(_get_column_indices(without_rows, wanted(without_rows)), dtype=np.intp)
    except Exception:
        alone = None
    if alone is None or not np.array_equal(found, alone):
        raise NotDeletable(
            "ColumnTransformer got a callable that chooses columns by their values, so that rows which are deleted "
            "later would have had a part in the choice. Choose by name or type, for example by make_column_selector, "
            "or list the columns. Nothing was changed."
        )
    return alone


def _selected(left: Callable[[], Table], columns: IntArray) -> Callable[[], Table]:
    return left.select(columns) if isinstance(left, RemainingRows) else cache(lambda: left().select(columns))
