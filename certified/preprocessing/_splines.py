"""Splines with stable knots: smooth features for additive models."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.preprocessing import SplineTransformer as _Plain

from certified._data.table import Table
from certified._exact.simplest import simplest
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactTransformer
from certified._steps.step import canonical
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.preprocessing._quantiles import (
    extremes,
    extremes_over,
    extremes_without,
    known,
    sample,
    sample_over,
    sample_without,
)
from certified.typing import FloatArray

__all__ = ["SplineTransformer"]


class SplineTransformer(Keyed, ExactTransformer):
    """B-spline bases of the features, exactly deletable.

    Knots divide the range of all rows evenly, which the extreme rows decide; or they are quantiles of the rows of the
    `sample_size` subjects with the smallest keyed hash, so that a deletion of others changes nothing; or they are
    given. Where quantiles coincide, the knots of that feature divide the range of the sample evenly. Quantiles are
    rounded, those at the ends outward, by less than about half a standard error to numbers of few digits, so that they
    are not values of somebody.

    Parameters
    ----------
    n_knots : int, default=5
    degree : int, default=3
    knots : {"uniform", "quantile"} or array-like of shape (n_knots, n_features), default="uniform"
    extrapolation : {"error", "constant", "linear", "continue", "periodic"}, default="constant"
    include_bias : bool, default=True
    order : {"C", "F"}, default="C"
        Accepted for scikit-learn's sake: features are in C order.
    handle_missing : {"error", "zeros"}, default="error"
        Whether missing values (NaN) are refused, or have zeros for all splines of their feature.
    sparse_output : bool, default=False
        Return a CSR array.
    sample_size : int, default=10_000
        Subjects in the sample.
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one. Inside a pipeline the pipeline's is used.

    Attributes
    ----------
    knots_ : array of shape (n_knots, n_features)
    bsplines_ : list of n_features scipy.interpolate.BSpline
    n_features_out_ : int

    Examples
    --------
    >>> from certified.preprocessing import SplineTransformer
    >>> SplineTransformer(3, degree=1).fit([[0.0], [1.0], [2.0], [3.0], [4.0]]).transform([[1.0]])
    array([[0.5, 0.5, 0. ]])
    """

    def __init__(
        self,
        n_knots: int = 5,
        degree: int = 3,
        *,
        knots: Any = "uniform",
        extrapolation: str = "constant",
        include_bias: bool = True,
        order: str = "C",
        handle_missing: str = "error",
        sparse_output: bool = False,
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.n_knots = n_knots
        self.degree = degree
        self.knots = knots
        self.extrapolation = extrapolation
        self.include_bias = include_bias
        self.order = order
        self.handle_missing = handle_missing
        self.sparse_output = sparse_output
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the knots; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    @property
    def _allow_nan(self) -> bool:  # type: ignore[override]
        return self.handle_missing == "zeros"

    def _check_parameters(self) -> None:
        if self.handle_missing not in ("error", "zeros"):
            raise InvalidInput(
                f"SplineTransformer(handle_missing={self.handle_missing!r}) is not allowed: 'error' or 'zeros'."
            )
        if isinstance(self.n_knots, bool) or not isinstance(self.n_knots, int | np.integer) or self.n_knots < 2:
            raise InvalidInput(f"SplineTransformer(n_knots={self.n_knots!r}) is not allowed: a whole number >= 2.")
        if isinstance(self.knots, str) and self.knots not in ("quantile", "uniform"):
            raise InvalidInput(
                f"SplineTransformer(knots={self.knots!r}) is not allowed: 'quantile', 'uniform' or an array."
            )

    def _count(self, table: Table) -> Any:
        self._check_parameters()
        table = table.some("SplineTransformer")
        if not isinstance(self.knots, str):
            return (table.x.shape[1],)
        if self.knots == "quantile":
            return sample(table, self.sample_size, "SplineTransformer")
        return extremes(table)

    def _count_over(self, rows: PartedTable) -> Any:
        self._check_parameters()
        if not isinstance(self.knots, str):
            return (rows.x.shape[1],)
        if self.knots == "quantile":
            return sample_over(rows, self.sample_size, "SplineTransformer")
        return extremes_over(rows)

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        if not isinstance(self.knots, str):
            return statistic
        return (sample_without if self.knots == "quantile" else extremes_without)(statistic, removed)

    def _learned_from(self, statistic: Any) -> FloatArray:
        """Return the knots, shape (n_knots, n_features)."""
        if not isinstance(self.knots, str):
            knots = np.array(self.knots, dtype=np.float64)
            if knots.ndim != 2 or knots.shape[1] != statistic[0] or not np.all(np.diff(knots, axis=0) > 0):
                raise InvalidInput(
                    f"SplineTransformer(knots=...) is not allowed: increasing knots for each of the {statistic[0]} "
                    "features, shape (n_knots, n_features)."
                )
            return knots
        columns = statistic.columns
        return np.column_stack([self._knots_of(known(column)) for column in columns])

    def _knots_of(self, column: FloatArray) -> FloatArray:
        """Knots of one feature: `column` is sorted, a sample or the two extremes."""
        if not column.size:
            column = np.zeros(1)  # nothing is observed
        low, high = column[0], column[-1]
        if low < high and self.knots == "quantile":
            knots = np.percentile(column, np.linspace(0, 100, self.n_knots))
            if np.all(np.diff(knots) > 0):
                return _rounded(knots, len(column))
        knots = np.linspace(low, high, self.n_knots)
        if np.all(np.diff(knots) > 0):
            return _rounded(knots, len(column)) if self.knots == "quantile" else knots
        beside = max(1.0, self.n_knots * float(np.spacing(max(abs(low), abs(high)))))
        return np.linspace(low - beside, high + beside, self.n_knots)  # one value, or too close for knots between

    def _basis(self, knots: FloatArray) -> _Plain:
        names = ("n_knots", "degree", "extrapolation", "include_bias", "sparse_output")
        plain = _Plain(knots=knots, **{name: getattr(self, name) for name in names})
        if self.handle_missing != "error":  # scikit-learn has it as of 1.8
            plain.set_params(handle_missing=self.handle_missing)
        return plain.fit(np.zeros((2, knots.shape[1])))  # knots are given: the rows are not looked at

    def _apply(self, learned: FloatArray, X: FloatArray) -> FloatArray:
        if not len(X):
            return np.empty((0, self._width(learned, X.shape[1])))
        mine = "_plain" in self.__dict__ and learned is self._learned
        out = (self._plain if mine else self._basis(learned)).transform(X)
        return canonical(csr_array(out)) if issparse(out) else out

    def _width(self, learned: FloatArray, n_features: int) -> int:
        per_feature = len(learned) - 1 + (0 if self.extrapolation == "periodic" else self.degree)
        return n_features * (per_feature - (not self.include_bias))

    def _store(self, statistic: Any, learned: FloatArray) -> None:
        super()._store(statistic, learned)
        self._plain = self._basis(learned)
        self.knots_, self.bsplines_ = learned, self._plain.bsplines_
        self.n_features_out_ = self._plain.n_features_out_

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out, "age_sp_0", "age_sp_1" ... for those of "age"."""
        self._check_fitted()
        named = named_like(self._basis(self._learned), self)
        return named.get_feature_names_out(input_features)

    def _release(self) -> _Plain:
        """Return a plain scikit-learn transformer with the same knots; the sample is not in it."""
        self._check_fitted()
        return named_like(self._basis(self._learned.copy()), self)


def _rounded(knots: FloatArray, n_rows: int) -> FloatArray:
    """Return knots of few digits, in the same order, beside these quantiles of so many rows; the ends outward."""
    gaps = np.diff(knots)
    gap = np.minimum(np.append(gaps, np.inf), np.insert(gaps, 0, np.inf))
    slack = gap * min(0.25, (len(knots) - 1) / (4.0 * np.sqrt(n_rows)))
    low, high = knots - slack, knots + slack
    low[-1], high[0] = knots[-1], knots[0]
    return simplest(low, high)
