"""What estimators that delete exactly share: fit with ids, transform or predict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.base import ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.utils import get_tags
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight

from certified._data.frames import Columns, Schema, is_frame, read, split_column, split_ids
from certified._data.numbers import validate_data
from certified._data.subjects import Subjects
from certified._data.table import Table, table_left
from certified._data.targets import codes_among, target_column
from certified._data.whole import depends_on_key, key_for
from certified._keeper.acts import take_turns
from certified._steps.step import ExactStep, canonical
from certified.base import Plan, all_or_nothing
from certified.errors import InvalidInput, LastOfClass
from certified.parts._dealing import Roles
from certified.parts._source import Parts
from certified.parts._table import PartedTable
from certified.typing import FloatArray, IntArray

__all__ = ["ExactClassifier", "ExactRegressor", "ExactTransformer", "MixedTransformer"]


class _Fitted(ExactStep):
    """``_validated(X, reset)`` makes the array that the steps of :class:`certified._steps.step.ExactStep` take."""

    _weighted = False  # whether the rows of the fit came with weights

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Learn from all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
            Ignored by what learns without targets.
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row.
        sample_weight : array-like of shape (n_rows,), column name or None
            Weights >= 0. A row of weight 0 counts as absent.

        Returns
        -------
        self
        """
        self._ready()
        if isinstance(X, Parts):
            return self._fit_source(X, y, ids, sample_weight)
        X, ids = split_ids(X, ids)
        X, sample_weight = split_column(X, sample_weight, "sample_weight")
        self._weighted = sample_weight is not None
        x = self._validated(X, reset=True)
        self._see(X if is_frame(X) else x, getattr(self, "feature_names_in_", None), self._schema)
        x = _owned(x)
        y = self._target(y, x.shape[0])
        ones = np.ones(x.shape[0])
        weight = np.array(_check_sample_weight(sample_weight, ones, dtype=np.float64, ensure_non_negative=True))
        subjects = Subjects(ids, x.shape[0], key_for(self))
        self._adaptivity = subjects.key.adaptivity if depends_on_key(self) else ""
        self._learn(Table(x, weight, y, subjects.hashes()), subjects).commit()
        return self

    def _fit_source(self, X: Parts, y: Any, ids: Any, sample_weight: Any) -> Self:
        """Learn from rows in parts; y, ids and sample_weight name columns."""
        name, classifies = type(self).__name__, isinstance(self, ClassifierMixin)
        if self._supervised and not classifies:
            raise InvalidInput(f"{name}.fit got Parts, which it cannot learn from yet. Fit it on rows in memory.")
        nan = bool(get_tags(self).input_tags.allow_nan)
        roles = Roles.named_by(
            f"{name}.fit",
            y if self._supervised else None,
            ids,
            sample_weight,
            as_classes=classifies,
            ones=False,
            raw=nan,
        )
        with X.open(f"{name}.fit", roles) as found:
            self._weighted = sample_weight is not None
            self._validated(found.example, reset=True)
            self._see(found.example, self.feature_names_in_, self._schema)
            table = PartedTable(found.rows, found.text, classifies)
            if classifies:
                self.classes_ = found.classes
                if len(self.classes_) < 2:
                    raise InvalidInput(f"{name}.fit got y with one class. Two classes are needed.")
            entered = getattr(self, "_entered", None)
            key = found.subjects.key = key_for(self)
            table = replace(table, key=key.derive("sample").value)
            self._adaptivity = key.adaptivity if depends_on_key(self) else ""
            self._learn(table if entered is None else table.select(entered), found.subjects).commit()
            return self

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        if self._weighted and sample_weight is None:
            raise InvalidInput(
                f"{type(self).__name__}.add got no sample_weight, which the rows of the fit had. Give those "
                "of the new rows too. Nothing was changed."
            )
        x = self._validated(X, reset=False)
        x = _owned(x)
        if self._schema is not None:
            self._schema.check_added(x, f"{type(self).__name__}.add")
        ones = np.ones(x.shape[0])
        weight = np.array(_check_sample_weight(sample_weight, ones, dtype=np.float64, ensure_non_negative=True))
        retained, subjects = self._subjects.added(ids, x.shape[0])
        new = Table(x, weight, self._more_targets(y, x.shape[0]))
        return self._learn(self._table.added(retained, new, subjects.hashes()), subjects)

    def _plan_rekeying(self, subjects: Subjects) -> Plan:
        """Plan to learn anew from the rows retained, for subjects with another key."""
        hashes = np.where(subjects.retained, subjects.hashes(), np.uint64(0))
        return self._learn(self._table._replace(hashes=hashes), subjects)

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        """Return the targets of rows that are added, as the table holds them."""
        if hasattr(self, "classes_"):
            return codes_among(self.classes_, y, n_rows, f"{type(self).__name__}.add")
        return self._target(y, n_rows)

    _allow_nan = False  # whether missing values may enter
    _sparse = False  # whether sparse features may, and stay so

    def _validated(self, X: Any, reset: bool) -> Any:
        nan: Any = "allow-nan" if self._allow_nan else True
        sparse: Any = "csr" if self._sparse else False
        return validate_data(self, X, dtype=np.float64, reset=reset, ensure_all_finite=nan, accept_sparse=sparse)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan, tags.input_tags.sparse = self._allow_nan, self._sparse
        return tags


@take_turns  # once more, outside of what scikit-learn does with the output
class ExactTransformer(TransformerMixin, _Fitted):
    """Base class of transformers."""

    def fit_transform(self, X: Any, y: Any = None, *, ids: Any = None, **fit_params: Any) -> Any:
        """Fit, and return the transformed rows; ``ids`` may name a column, which is not a feature."""
        X, ids = split_ids(X, ids)
        self.fit(X, y, ids=ids, **fit_params)
        return self._fitted_rows() if self._supervised else self.transform(X)

    def _fitted_rows(self) -> Any:
        """Return the rows of the fit as the steps behind see them; rows of weight 0 as new ones."""
        table, retained = self._table, self._table.weight > 0.0
        if retained.all():
            out = self._apply_rows(self._learned, table)
            return np.asarray(out) if isinstance(out, Columns) else out
        out = np.array(self._apply(self._learned, table.x))
        out[retained] = np.asarray(self._apply_rows(self._learned, table.with_weight()))
        return out

    def transform(self, X: Any) -> Any:
        """Return the transformed rows, shape (n_rows, n_features_out)."""
        self._check_fitted()
        out = self._apply(self._learned, self._validated(X, reset=False))
        return np.asarray(out) if isinstance(out, Columns) else out


class MixedTransformer(ExactTransformer):
    """Base class of those that take text and missing values, and frames with both."""

    def _validated(self, X: Any, reset: bool) -> Any:
        if reset:
            x, self._schema = read(self, X)
            return x
        return read(self, X, self._schema or Schema(("float",) * self.n_features_in_))[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags


class ExactClassifier(ClassifierMixin, _Fitted):
    """Base class of classifiers: targets are counted as codes, the positions of their values in ``classes_``."""

    _supervised = True

    def _target(self, y: Any, n_rows: int) -> IntArray:
        name = type(self).__name__
        y = target_column(y, n_rows, name)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidInput(f"{name}.fit got y with one class ({self.classes_[0]!r}). Two classes are needed.")
        return codes.astype(np.int64)

    def _all_present(self, weights: FloatArray) -> FloatArray:
        """Return the weights of the classes; raise if one has none."""
        if np.all(weights > 0):
            return weights
        gone = self.classes_.tolist()[np.flatnonzero(~(weights > 0))[0]]
        raise LastOfClass(
            f"{type(self).__name__} would be left without a row (of weight > 0) of class {gone!r}. A class leaves with "
            "its last row where two others stay; here a refit is refused too. Discard the model, or leave out the "
            "rows of weight 0. Nothing was changed."
        )

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        if isinstance(self._table, PartedTable):
            return None
        found = table_left(self._table, self._subjects, rows, len(self.classes_))
        if found is None:
            return None
        draft, (stay, table) = self._draft(), found
        draft.classes_ = self.classes_[stay]
        draft._learn(table, self._subjects).commit()
        before = self._table

        def clear() -> None:
            before.y[:] = 0
            before.weight[:] = 0.0

        return draft, clear


class ExactRegressor(RegressorMixin, _Fitted):
    """Base class of regressors."""

    _supervised = True

    def _target(self, y: Any, n_rows: int) -> FloatArray:
        return np.array(target_column(y, n_rows, type(self).__name__), dtype=np.float64)


def _owned(x: Any) -> Any:
    """Return a copy of validated features, each value written in one way."""
    if isinstance(x, Columns):
        return canonical(x)
    return canonical(csr_array(x, copy=True) if issparse(x) else np.array(x))
