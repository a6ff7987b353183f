"""Transformers that forget exactly: what they learn is a stable function of the set of rows.

Stable: maintained exactly (a deletion gives bit for bit the state of a refit) and piecewise constant (almost no
deletion changes what is served to the next step).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin, TransformerMixin
from sklearn.preprocessing import StandardScaler as _SklearnStandardScaler
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from certified.base import Deletable, Plan, all_or_nothing, digest, split_ids, versions
from certified.certificate import Certificate
from certified.errors import InvalidRequest
from certified.exact import Products
from certified.rows import Rows, Subjects
from certified.typing import FloatArray, IntArray

__all__ = ["StandardScaler"]


class StandardScaler(OneToOneFeatureMixin, TransformerMixin, Deletable):
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

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, ids: Any = None, sample_weight: Any = None) -> StandardScaler:
        """Learn the rounded moments of all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : ignored
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row.
        sample_weight : array-like of shape (n_rows,) or None

        Returns
        -------
        self
        """
        X, ids = split_ids(X, ids)
        X = validate_data(self, X, dtype=np.float64, order="C")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        subjects = Subjects(ids, len(X))
        rows = Rows(X, None, weight, intercept=True)
        self._learn(rows.x, rows.weight)
        self._subjects, self._rows = subjects, rows
        return self

    def transform(self, X: Any) -> FloatArray:
        """Return ``(X - mean_) / scale_``, shape (n_rows, n_features)."""
        check_is_fitted(self)
        return self._transform(validate_data(self, X, dtype=np.float64, reset=False))

    def _transform(self, X: FloatArray) -> FloatArray:
        X = X - self.mean_ if self.with_mean else X.copy()
        if self.with_std:
            X /= self.scale_
        return X

    def inverse_transform(self, X: Any) -> FloatArray:
        """Return ``X * scale_ + mean_``."""
        check_is_fitted(self)
        X = np.array(X, dtype=np.float64)
        return X * (self.scale_ if self.with_std else 1.0) + (self.mean_ if self.with_mean else 0.0)

    # ---------------------------------------------------- used by pipelines

    def _learn(self, x: FloatArray, weight: FloatArray) -> None:
        """Learn from rows with a last column of ones, without keeping them."""
        self._serve(Products.of(x, weight, limbs=2, gram=False))

    def _serve(self, products: Products) -> None:
        self._products = products
        mean, scale = _rounded_moments(products)
        self.mean_ = mean if self.with_mean else None
        self.scale_ = scale if self.with_std else None
        self._learned = (mean, scale)

    def _without(self, x: FloatArray, weight: FloatArray) -> tuple[Products | None, bool]:
        """Sums without these rows and whether the served moments change; (None, True): sum all rows again."""
        products = self._products.minus(x, weight)
        if products is None:
            return None, True
        mean, scale = _rounded_moments(products)
        return products, not (np.array_equal(mean, self._learned[0]) and np.array_equal(scale, self._learned[1]))

    def _plan(self, rows: IntArray) -> Plan:
        if rows.size >= self.n_rows_:
            raise InvalidRequest(
                "delete(ids=...) would remove every row. Discard the model instead. Nothing was changed."
            )
        x, _, weight = self._rows.take(rows)
        products, changed = self._without(x, weight)
        if products is None:
            kept = self._rows.weight.copy()
            kept[rows] = 0.0
            products = Products.of(self._rows.x, kept, limbs=2, gram=False)
            mean, scale = _rounded_moments(products)
            changed = not (np.array_equal(mean, self._learned[0]) and np.array_equal(scale, self._learned[1]))

        def commit() -> None:
            self._rows.erase(rows)
            self._serve(products)

        return Plan(commit, changed, "exact", np.inf if changed else 0.0)

    # -------------------------------------------------------------- release

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state: exact."""
        check_is_fitted(self)
        return Certificate(
            claim="exact",
            scope="estimator",
            method="exact",
            mu=0.0,
            delta=0.0,
            distance_bound=0.0,
            sigma=0.0,
            noise="none",
            mu_target=0.0,
            mu_transcript=0.0,
            mu_differencing=float("nan"),
            assumptions={},
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            versions=versions(),
        )

    @property
    def state_digest_(self) -> str:
        """Digest of the learned state: equal exactly when two states are equal bit for bit. Private."""
        check_is_fitted(self)
        p = self._products
        return digest(p.exponents, p.top, p.sums, *self._learned)

    def release(self) -> _SklearnStandardScaler:
        """Return a plain scikit-learn scaler with the same centre and scale."""
        check_is_fitted(self)
        out = _SklearnStandardScaler(with_mean=self.with_mean, with_std=self.with_std)
        out.mean_ = None if self.mean_ is None else self.mean_.copy()
        out.scale_ = None if self.scale_ is None else self.scale_.copy()
        out.var_ = None if self.scale_ is None else self.scale_**2
        out.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_products")


def _rounded_moments(products: Products) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale of every column but the last (the ones): functions of the exact sums alone."""
    total, unit = products.integers(), products.unit_exponents
    weight = total[-1, 1]
    square, first = total[:-1, 0], total[:-1, 1]
    spread = square * weight - first * first  # variance = spread / weight^2 in units 4^(u - one)
    scale, mean, one = np.ones(len(spread)), np.zeros(len(spread)), int(unit[-1])
    for j, value in enumerate(spread):
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
