"""Standardising by rounded moments, from exact sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import StandardScaler as _Plain

from certified._data.table import Table
from certified._exact.rounded import _with_ones, rounded_moments
from certified._exact.sums import Products
from certified._steps.estimators import ExactTransformer
from certified.base import named_like
from certified.typing import FloatArray

__all__ = ["StandardScaler"]


class StandardScaler(OneToOneFeatureMixin, ExactTransformer):
    """Standardise features by rounded moments, exactly deletable.

    The scale is the power of two nearest to the standard deviation, the centre the multiple of ``scale / 4`` nearest
    to the mean. That is enough to condition a model, and almost no deletion changes it. scikit-learn's scaler uses the
    moments themselves, which every deletion changes.

    Parameters
    ----------
    with_mean, with_std : bool, default=True
        Whether to centre and to scale.

    Attributes
    ----------
    mean_, scale_ : arrays of shape (n_features,) or None
        Centre and scale, rounded as said above.
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

    def __init__(self, *, with_mean: bool = True, with_std: bool = True) -> None:
        self.with_mean = with_mean
        self.with_std = with_std

    def inverse_transform(self, X: Any) -> FloatArray:
        """Return ``X * scale_ + mean_``."""
        self._check_fitted()
        X = np.array(X, dtype=np.float64)
        return X * (self.scale_ if self.with_std else 1.0) + (self.mean_ if self.with_mean else 0.0)

    def _count(self, table: Table) -> Products:
        table = table.some("StandardScaler")
        return Products.of(_with_ones(table.x), table.weight, limbs=2, gram=False)

    def _subtract(self, statistic: Products, removed: Table) -> Products | None:
        left = statistic.subtract(_with_ones(removed.x), removed.weight)
        return left if left is not None and left.sums[:, :, -1].any() else None  # no weight is left: refuse

    def _learned_from(self, statistic: Products) -> tuple[FloatArray, FloatArray]:
        return rounded_moments(statistic)

    def _apply(self, learned: tuple[FloatArray, FloatArray], X: FloatArray) -> FloatArray:
        mean, scale = learned
        X = X - mean if self.with_mean else X.copy()
        if self.with_std:
            X /= scale
        return X

    def _store(self, statistic: Products, learned: tuple[FloatArray, FloatArray]) -> None:
        super()._store(statistic, learned)
        self.mean_ = learned[0] if self.with_mean else None
        self.scale_ = learned[1] if self.with_std else None

    def release(self) -> _Plain:
        """Return a plain scikit-learn scaler with the same centre and scale."""
        self._check_fitted()
        out = _Plain(with_mean=self.with_mean, with_std=self.with_std)
        out.mean_ = None if self.mean_ is None else self.mean_.copy()
        out.scale_ = None if self.scale_ is None else self.scale_.copy()
        out.var_ = None if self.scale_ is None else self.scale_**2
        return named_like(out, self)
