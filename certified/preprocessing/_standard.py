"""Standardising by rounded moments, from exact sums."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import StandardScaler as _Plain

from certified._data.pairwise import fold
from certified._data.table import Table
from certified._exact.over_parts import products_over
from certified._exact.rounded import rounded_moments
from certified._exact.sums import Products
from certified._keeper.partial_fit import PartialFit
from certified._keeper.plain import named_like
from certified.parts._table import PartedTable
from certified.preprocessing._scaling import Scaler
from certified.typing import FloatArray, IntArray

__all__ = ["StandardScaler", "seen"]


class Moments(NamedTuple):
    """Rows, how many of each column are missing, and the sums of the columns [X, which are missing, ones].

    There is a column for what is missing only where something is.
    """

    n_rows: int
    missing: IntArray
    products: Products


class StandardScaler(PartialFit, OneToOneFeatureMixin, Scaler):
    """Standardise features by rounded moments, exactly deletable.

    The scale is the power of two nearest to the standard deviation, the centre the multiple of ``scale / 4`` nearest
    to the mean. That is enough to condition a model, and almost no deletion changes it. scikit-learn's scaler uses the
    moments themselves, which every deletion changes. Missing values (NaN) are left out and stay missing.

    Parameters
    ----------
    copy : bool, default=True
        Accepted for scikit-learn's sake: rows are always copied.
    with_mean, with_std : bool, default=True
        Whether to centre and to scale.

    Attributes
    ----------
    mean_, scale_ : arrays of shape (n_features,) or None
        Centre and scale, rounded as said above.
    var_ : array of shape (n_features,) or None
        ``scale_`` squared.
    n_samples_seen_ : int or int array of shape (n_features,)
        Rows of weight > 0; of each feature where some are missing.
    state_digest_ : str
        For auditors: equal exactly when two states are equal bit for bit.

    Examples
    --------
    >>> from certified.preprocessing import StandardScaler
    >>> scaler = StandardScaler().fit([[0.0], [2.0], [4.0], [9.0]])
    >>> scaler.mean_, scaler.scale_
    (array([4.]), array([4.]))
    >>> scaler.delete([3]).changed
    ('StandardScaler',)
    """

    mean_: Any
    scale_: Any

    def __init__(self, *, copy: bool = True, with_mean: bool = True, with_std: bool = True) -> None:
        self.copy = copy
        self.with_mean = with_mean
        self.with_std = with_std

    def _count(self, table: Table) -> Moments:
        table = table.some("StandardScaler")
        missing = np.isnan(table.x).sum(axis=0)
        return Moments(
            len(table.x), missing, Products.of(_observed(table.x, missing), table.weight, limbs=2, gram=False)
        )

    def _count_over(self, rows: PartedTable) -> Moments:
        n_rows, missing = fold(rows.map(_gaps), lambda a, b: (a[0] + b[0], a[1] + b[1]))
        return Moments(n_rows, missing, products_over(rows, _columns, missing, limbs=2, gram=False))

    def _subtract(self, statistic: Moments, removed: Table) -> Moments | None:
        missing = statistic.missing - np.isnan(removed.x).sum(axis=0)
        if np.any((missing == 0) != (statistic.missing == 0)):
            return None
        left = statistic.products.subtract(_observed(removed.x, statistic.missing), removed.weight)
        if left is None or not left.sums[:, :, -1].any():
            return None  # no weight is left: refuse
        return Moments(statistic.n_rows - len(removed.x), missing, left)

    def _learned_from(self, statistic: Moments) -> tuple[FloatArray, FloatArray]:
        return rounded_moments(statistic.products, missing=(statistic.missing, statistic.n_rows))

    def _apply(self, learned: tuple[FloatArray, FloatArray], X: FloatArray) -> FloatArray:
        mean, scale = learned
        X = X - mean if self.with_mean else X.copy()
        if self.with_std:
            X /= scale
        return X

    def _store(self, statistic: Moments, learned: tuple[FloatArray, FloatArray]) -> None:
        super()._store(statistic, learned)
        self.mean_ = learned[0] if self.with_mean else None
        self.scale_ = learned[1] if self.with_std else None
        self.var_ = learned[1] ** 2 if self.with_std else None
        self.n_samples_seen_ = seen(statistic.n_rows, statistic.missing)

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """Return the scaled rows, a copy whatever `copy` says, shape (n_rows, n_features)."""
        return super().transform(X)

    def inverse_transform(self, X: Any, copy: bool | None = None) -> FloatArray:
        """Return rows of scaled features as they were before, shape (n_rows, n_features)."""
        return super().inverse_transform(X)

    def _inverse(self, X: FloatArray) -> FloatArray:
        return X * (self.scale_ if self.with_std else 1.0) + (self.mean_ if self.with_mean else 0.0)

    def _release(self) -> _Plain:
        """Return a plain scikit-learn scaler with the same centre and scale."""
        self._check_fitted()
        out = _Plain(with_mean=self.with_mean, with_std=self.with_std, copy=self.copy)
        for name in ("mean_", "scale_", "var_", "n_samples_seen_"):
            value = getattr(self, name)
            setattr(out, name, value.copy() if isinstance(value, np.ndarray) else value)
        return named_like(out, self)


def seen(n_rows: int, missing: IntArray) -> Any:
    """Return how many values there are, one number where it is the same of every feature, as scikit-learn does."""
    return n_rows - missing.astype(np.int64) if missing.any() else np.int64(n_rows)


def _gaps(table: Table, weight: FloatArray) -> tuple[int, IntArray]:
    """Rows of a part, and how many of each column are missing."""
    return len(table.x), np.isnan(table.x).sum(axis=0)


def _columns(table: Table, weight: FloatArray, missing: IntArray) -> FloatArray:
    return _observed(table.x, missing)


def _observed(values: FloatArray, missing: IntArray) -> FloatArray:
    """Zeros for what is missing, columns that say where that is for those with any, and ones."""
    gaps = np.isnan(values)
    which = gaps[:, missing > 0].astype(np.float64)
    return np.column_stack([np.where(gaps, 0.0, values), which, np.ones(len(values))])
