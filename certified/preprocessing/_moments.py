"""Standardising by rounded moments, from exact sums."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import StandardScaler as _Plain

from certified.exact import Products
from certified.stable import Table
from certified.transformer import StableTransformer, named_like
from certified.typing import FloatArray

__all__ = ["StandardScaler", "rounded_moments"]


class StandardScaler(OneToOneFeatureMixin, StableTransformer):
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

    def _discount(self, statistic: Products, removed: Table) -> Products | None:
        left = statistic.minus(_with_ones(removed.x), removed.weight)
        return left if left is not None and left.sums[:, :, -1].any() else None  # no weight is left: refuse

    def _derive(self, statistic: Products) -> tuple[FloatArray, FloatArray]:
        return rounded_moments(statistic)

    def _apply(self, learned: tuple[FloatArray, FloatArray], X: FloatArray) -> FloatArray:
        mean, scale = learned
        X = X - mean if self.with_mean else X.copy()
        if self.with_std:
            X /= scale
        return X

    def _serve(self, statistic: Products, learned: tuple[FloatArray, FloatArray]) -> None:
        super()._serve(statistic, learned)
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


def _with_ones(values: FloatArray) -> FloatArray:
    return np.column_stack([values, np.ones(len(values))])


def rounded_moments(products: Products, observed: Any = None) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale of every column but the last (the ones): functions of the exact sums alone.

    `observed`, int array of shape (n_features,), counts the rows of each column that are not missing; in the sums a
    missing value is 0. None means all, with the weights that the sums have. Where nothing is observed: 0 and 1.
    """
    total, unit = products.integers(), products.unit_exponents
    square, first = total[:-1, 0], total[:-1, 1]
    scale, mean, one = np.ones(len(first)), np.zeros(len(first)), int(unit[-1])
    for j in range(len(first)):
        # in units of the last limb of the ones, as `first` is: 4^one
        weight = total[-1, 1] if observed is None else int(observed[j]) << (-2 * one)
        if weight == 0:
            continue
        value = square[j] * weight - first[j] * first[j]  # variance = value / weight^2 in units 4^(u - one)
        u = int(unit[j]) - one
        # Below four units of the last limb a column counts as constant.
        if Fraction(value) * Fraction(4) ** -one > 16 * weight * weight:
            k = _nearest_power(value, weight * weight)
            scale[j] = np.ldexp(1.0, k + u)
            mean[j] = np.ldexp(_nearest(first[j], weight, k - 2), k - 2 + u)
        else:
            mean[j] = np.ldexp(_nearest(first[j], weight, -2 - u), -2)
    return mean, scale


def _nearest_power(value: int, unit: int) -> int:
    """The k with ``2^(2k-1) <= value / unit < 2^(2k+1)``: 2^k is nearest to the root in ratio."""
    k = (value.bit_length() - unit.bit_length()) // 2
    while value * 2 < unit << (2 * k) if k >= 0 else value * 2 << (-2 * k) < unit:
        k -= 1
    while value >= (unit << (2 * k + 1)) if k >= 0 else value << (-2 * k) >= 2 * unit:
        k += 1
    return k


def _nearest(value: int, weight: int, exponent: int) -> float:
    """``value / (weight 2^exponent)`` rounded to the nearest integer, half to even."""
    return float(round(Fraction(value, weight) / Fraction(2) ** exponent))
