"""What the transformers share: fit with ids, transform, and exact forgetting."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import _check_sample_weight, validate_data

from certified.base import all_or_nothing, split_ids
from certified.columns import Columns, Schema, is_frame, read
from certified.rows import Subjects
from certified.stable import Stable, Table

__all__ = ["MixedTransformer", "StableTransformer", "named_like"]


class StableTransformer(TransformerMixin, Stable):
    """Base class. ``_validated(X, reset)`` makes the array that the steps of :class:`certified.stable.Stable` take."""

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, ids: Any = None, sample_weight: Any = None) -> Any:
        """Learn from all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : ignored
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0. A row of weight 0 counts as absent.

        Returns
        -------
        self
        """
        self._ready()
        X, ids = split_ids(X, ids)
        x = self._validated(X, reset=True)
        self._see(X if is_frame(X) else x, getattr(self, "feature_names_in_", None), self._schema)
        x = x if isinstance(x, Columns) else np.array(x)
        ones = np.ones(len(x))
        weight = np.array(_check_sample_weight(sample_weight, ones, dtype=np.float64, ensure_non_negative=True))
        subjects = Subjects(ids, len(x))
        self._learn(Table(x, weight, None, subjects.hashes()), subjects)
        return self

    def fit_transform(self, X: Any, y: Any = None, ids: Any = None, **fit_params: Any) -> Any:
        """Fit, and return the transformed rows; ``ids`` may name a column, which is not a feature."""
        X, ids = split_ids(X, ids)
        return self.fit(X, y, ids=ids, **fit_params).transform(X)

    def transform(self, X: Any) -> Any:
        """Return the transformed rows, shape (n_rows, n_features_out)."""
        self._check_fitted()
        out = self._apply(self._learned, self._validated(X, reset=False))
        return np.asarray(out) if isinstance(out, Columns) else out

    def _validated(self, X: Any, reset: bool) -> Any:
        return validate_data(self, X, dtype=np.float64, reset=reset)

    def _check_fitted(self) -> None:
        if "_statistic" not in self.__dict__:
            super()._check_fitted()


class MixedTransformer(StableTransformer):
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


def named_like(out: Any, model: Any) -> Any:
    """Return `out` with the number and the names of the features that `model` was fitted on."""
    out.n_features_in_ = model.n_features_in_
    if hasattr(model, "feature_names_in_"):
        out.feature_names_in_ = model.feature_names_in_.copy()
    return out
