"""Transformers of columns of a frame, each deleting by its own steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import issparse
from sklearn.compose import ColumnTransformer as _PlainColumns
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import _name_estimators
from sklearn.utils import Bunch

from certified._data.frames import Columns, row_of
from certified._keeper.plain import named_like
from certified._steps.plain_reader import fitted_columns
from certified._steps.sequence import as_step
from certified._steps.stateless import of_table
from certified.compose._choice import chosen
from certified.compose._parallel import Parallel, Part
from certified.typing import IntArray

__all__ = ["ColumnTransformer", "make_column_transformer"]


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
    n_jobs : int or None, default=None
        Accepted for scikit-learn's sake: transformers work one after the other.
    transformer_weights : dict or None, default=None
        Factors of the output, by name of the transformer.
    verbose : bool, default=False
        Accepted for scikit-learn's sake.
    verbose_feature_names_out : bool, default=True
        Prefix the names of the features that come out by that of the transformer.

    Attributes
    ----------
    transformers_ : list of (name, fitted transformer, columns)
    named_transformers_ : Bunch
    sparse_output_ : bool
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
        n_jobs: int | None = None,
        transformer_weights: Any = None,
        verbose: bool = False,
        verbose_feature_names_out: bool = True,
    ) -> None:
        self.transformers = transformers
        self.remainder = remainder
        self.sparse_threshold = sparse_threshold
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.transformer_weights = transformer_weights
        self.verbose_feature_names_out = verbose_feature_names_out

    def _made(self) -> list[Part]:
        named = [*self.transformers, ("remainder", self.remainder, None)]
        return [
            Part(name, as_step(step, name, "ColumnTransformer.fit"), wanted)
            for name, step, wanted in named
            if not (isinstance(step, str) and step == "drop")
        ]

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        X = np.empty((0, X.shape[1])) if isinstance(X, Columns) else X
        found = {name: chosen(X, wanted) for name, _, wanted in self.transformers}
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
    def sparse_output_(self) -> bool:
        """Whether the features that come out are sparse."""
        self._check_fitted()
        return issparse(self._apply(self._learned, self._table.x[:1]))

    @property
    def named_transformers_(self) -> Bunch:
        """The fitted transformers by name."""
        return Bunch(**{name: step for name, step, _ in self.transformers_})

    def _release(self) -> _PlainColumns:
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
        return named_like(fitted_columns(out, row), self)

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


def _cell(name: str, value: Any, kind: str) -> pl.Series:
    """Return a column of one value; missing text is an object, as scikit-learn's encoders see it in other frames."""
    missing_text = kind == "text" and not isinstance(value, str)
    return pl.Series(name, [value], dtype=pl.Object if missing_text else None)
