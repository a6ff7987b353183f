"""Scaling by order statistics: extremes of all rows, quantiles of a sample that the subjects' hashes choose."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import MinMaxScaler as _PlainMinMax
from sklearn.preprocessing import RobustScaler as _PlainRobust

from certified._data.hashing import bottom_k
from certified._data.pairwise import fold
from certified._data.table import Table
from certified._exact.simplest import simplest
from certified._keeper.keyed import Keyed
from certified._keeper.partial_fit import PartialFit
from certified._keeper.plain import named_like
from certified.errors import InvalidInput
from certified.parts._samples import cuts_over
from certified.parts._table import PartedTable
from certified.preprocessing._scaling import Scaler
from certified.typing import FloatArray, IntArray

__all__ = [
    "Extremes",
    "MinMaxScaler",
    "RobustScaler",
    "Sample",
    "extremes",
    "extremes_without",
    "known",
    "sample",
    "sample_without",
]

_Scaling = tuple[FloatArray, FloatArray]


class Sample(NamedTuple):
    """Rows of the subjects with the smallest hashes; each column sorted by itself, what is missing (NaN) last."""

    cut: NDArray[np.uint64]
    values: FloatArray

    @property
    def columns(self) -> FloatArray:
        """The values of each column, shape (n_features, n_rows)."""
        return self.values.T


def sample(table: Table, sample_size: int, caller: str) -> Sample:
    """Return all rows of this many subjects."""
    if not sample_size >= 1:
        raise InvalidInput(f"{caller}(sample_size={sample_size!r}) is not allowed: at least 1.")
    cut = bottom_k(table.hashes, sample_size)
    return Sample(cut, np.sort(table.x[table.hashes <= cut] + 0.0, axis=0))


def sample_over(rows: PartedTable, sample_size: int, caller: str) -> Sample:
    """Return the same of rows in parts."""
    if not sample_size >= 1:
        raise InvalidInput(f"{caller}(sample_size={sample_size!r}) is not allowed: at least 1.")
    (cut,) = cuts_over(rows, _every, k=sample_size)
    values = np.concatenate(list(rows.hashed().map(_sampled, cut)))
    return Sample(cut, np.sort(values + 0.0, axis=0))


def _every(table: Table) -> Any:
    return np.ones((len(table.weight), 1), dtype=bool)


def _sampled(table: Table, weight: FloatArray, cut: Any) -> FloatArray:
    found: FloatArray = table.x[table.hashes <= cut]
    return found


def sample_without(before: Sample, removed: Table) -> Sample | None:
    """Return the sample after a deletion, None where it must be drawn again."""
    return None if np.any(removed.hashes <= before.cut) else before


class Extremes(NamedTuple):
    """Smallest and largest value of each column, NaN where all are missing; rows, and how many are missing."""

    low: FloatArray
    high: FloatArray
    n_rows: int
    missing: IntArray

    @property
    def columns(self) -> FloatArray:
        """Both of each column, shape (n_features, 2)."""
        return np.stack([self.low, self.high], axis=1)


def extremes(table: Table) -> Extremes:
    """Return the smallest and the largest value of each column."""
    low, high = np.fmin.reduce(table.x, axis=0) + 0.0, np.fmax.reduce(table.x, axis=0) + 0.0  # one zero
    return Extremes(low, high, len(table.x), np.isnan(table.x).sum(axis=0))


def extremes_over(rows: PartedTable) -> Extremes:
    """Return the same of rows in parts."""
    return fold(rows.map(_extremes), _wider)


def _extremes(table: Table, weight: FloatArray) -> Extremes:
    return extremes(table)


def _wider(a: Extremes, b: Extremes) -> Extremes:
    low, high = np.fmin(a.low, b.low), np.fmax(a.high, b.high)
    return Extremes(low, high, a.n_rows + b.n_rows, a.missing + b.missing)


def extremes_without(before: Extremes, removed: Table) -> Extremes | None:
    """Return the extremes after a deletion, None where they must be looked for again."""
    if np.any((removed.x <= before.low) | (removed.x >= before.high)):
        return None
    gone = np.isnan(removed.x).sum(axis=0)
    return before._replace(n_rows=before.n_rows - len(removed.x), missing=before.missing - gone)


def known(column: FloatArray) -> FloatArray:
    """Return the values of a sorted column that are not missing."""
    return column[: len(column) - int(np.isnan(column).sum())]


class MinMaxScaler(PartialFit, OneToOneFeatureMixin, Scaler):
    """Scale each feature to a range by its smallest and largest value, exactly deletable.

    As scikit-learn's. What is served changes only when a deletion takes the last row that holds an extreme. The
    extremes are values of somebody: a release publishes them. Missing values (NaN) stay missing.

    Parameters
    ----------
    feature_range : tuple (min, max), default=(0, 1)
    copy : bool, default=True
        Accepted for scikit-learn's sake: rows are always copied.
    clip : bool, default=False
        Whether to clip transformed values to ``feature_range``.

    Attributes
    ----------
    data_min_, data_max_, data_range_ : arrays of shape (n_features,)
    n_samples_seen_ : int
        Rows of weight > 0.
    scale_, min_ : arrays of shape (n_features,)
        ``X * scale_ + min_`` is the transformed X.

    Examples
    --------
    >>> from certified.preprocessing import MinMaxScaler
    >>> scaler = MinMaxScaler().fit([[0.0], [2.0], [8.0]])
    >>> scaler.delete([2]).changed
    ('MinMaxScaler',)
    >>> scaler.transform([[1.0]])
    array([[0.5]])
    """

    def __init__(self, feature_range: tuple[float, float] = (0, 1), *, copy: bool = True, clip: bool = False) -> None:
        self.feature_range = feature_range
        self.copy = copy
        self.clip = clip

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the extremes of all rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _check_parameters(self) -> None:
        low, high = self.feature_range
        if not low < high:
            raise InvalidInput(
                f"MinMaxScaler(feature_range={self.feature_range!r}) is not allowed: the minimum must be below the "
                "maximum."
            )

    def _count(self, table: Table) -> Extremes:
        self._check_parameters()
        return extremes(table.some("MinMaxScaler"))

    def _count_over(self, rows: PartedTable) -> Extremes:
        self._check_parameters()
        return extremes_over(rows)

    def _subtract(self, statistic: Extremes, removed: Table) -> Extremes | None:
        return extremes_without(statistic, removed)

    def _learned_from(self, statistic: Extremes) -> _Scaling:
        low, high = self.feature_range
        span = statistic.high - statistic.low
        scale = (high - low) / np.where(_constant(span), 1.0, span)
        return scale, low - statistic.low * scale

    def _apply(self, learned: _Scaling, X: FloatArray) -> FloatArray:
        out = X * learned[0] + learned[1]
        return np.clip(out, *self.feature_range) if self.clip else out

    def _store(self, statistic: Extremes, learned: _Scaling) -> None:
        super()._store(statistic, learned)
        self.data_min_, self.data_max_ = statistic.low, statistic.high
        self.data_range_ = statistic.high - statistic.low
        self.n_samples_seen_ = statistic.n_rows
        self.scale_, self.min_ = learned

    def _inverse(self, X: FloatArray) -> FloatArray:
        return (X - self.min_) / self.scale_

    def _release(self) -> _PlainMinMax:
        """Return a plain scikit-learn scaler with the same extremes."""
        self._check_fitted()
        out = _PlainMinMax(feature_range=self.feature_range, copy=self.copy, clip=self.clip)
        out.data_min_, out.data_max_ = self.data_min_.copy(), self.data_max_.copy()
        out.data_range_, out.n_samples_seen_ = out.data_max_ - out.data_min_, self.n_samples_seen_
        out.scale_, out.min_ = self.scale_.copy(), self.min_.copy()
        return named_like(out, self)


class RobustScaler(OneToOneFeatureMixin, Keyed, Scaler):
    """Centre by the median and scale by a range of quantiles, exactly deletable.

    The quantiles are those of all rows of the `sample_size` subjects with the smallest keyed hash, so that a deletion
    of others changes nothing. Centre and scale are rounded by less than about half a standard error to numbers of few
    digits, so that they are not values of somebody.

    Parameters
    ----------
    with_centering, with_scaling : bool, default=True
    quantile_range : tuple (q_min, q_max), default=(25.0, 75.0)
        In percent.
    copy : bool, default=True
        Accepted for scikit-learn's sake: rows are always copied.
    unit_variance : bool, default=False
        Whether to scale so that a normal feature has the variance 1.
    sample_size : int, default=10_000
        Subjects in the sample.
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one. Inside a pipeline the pipeline's is used.

    Attributes
    ----------
    center_, scale_ : arrays of shape (n_features,) or None

    Examples
    --------
    >>> from certified.preprocessing import RobustScaler
    >>> RobustScaler().fit([[0.0], [1.0], [2.0], [3.0], [4.0]]).transform([[4.0]])
    array([[1.]])
    """

    center_: Any
    scale_: Any

    def __init__(
        self,
        *,
        with_centering: bool = True,
        with_scaling: bool = True,
        quantile_range: tuple[float, float] = (25.0, 75.0),
        copy: bool = True,
        unit_variance: bool = False,
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.with_centering = with_centering
        self.with_scaling = with_scaling
        self.quantile_range = quantile_range
        self.copy = copy
        self.unit_variance = unit_variance
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the quantiles; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _check_parameters(self) -> None:
        low, high = self.quantile_range
        if not 0 <= low < high <= 100:
            raise InvalidInput(
                f"RobustScaler(quantile_range={self.quantile_range!r}) is not allowed: 0 <= q_min < q_max <= 100."
            )

    def _count(self, table: Table) -> Sample:
        self._check_parameters()
        return sample(table.some("RobustScaler"), self.sample_size, "RobustScaler")

    def _count_over(self, rows: PartedTable) -> Sample:
        self._check_parameters()
        return sample_over(rows, self.sample_size, "RobustScaler")

    def _subtract(self, statistic: Sample, removed: Table) -> Sample | None:
        return sample_without(statistic, removed)

    def _learned_from(self, statistic: Sample) -> _Scaling:
        found = [known(column) for column in statistic.columns]
        center = np.array([np.median(column) if column.size else np.nan for column in found])
        ends = [np.percentile(column, self.quantile_range) if column.size else (np.nan, np.nan) for column in found]
        low, high = np.array(ends, dtype=np.float64).T
        scale = np.where(_constant(high - low), 0.0, high - low)
        slack = 0.5 * scale / np.sqrt([max(column.size, 1) for column in found])
        center = _rounded(center, slack)
        scale = np.where(scale == 0.0, 1.0, _rounded(scale, slack))
        if self.unit_variance:
            scale = scale / (ndtri(self.quantile_range[1] / 100.0) - ndtri(self.quantile_range[0] / 100.0))
        return center, scale

    def _apply(self, learned: _Scaling, X: FloatArray) -> FloatArray:
        out = X - learned[0] if self.with_centering else X.copy()
        if self.with_scaling:
            out /= learned[1]
        return out

    def _store(self, statistic: Sample, learned: _Scaling) -> None:
        super()._store(statistic, learned)
        self.center_ = learned[0] if self.with_centering else None
        self.scale_ = learned[1] if self.with_scaling else None

    def _inverse(self, X: FloatArray) -> FloatArray:
        out = X * (self.scale_ if self.with_scaling else 1.0)
        return out + (self.center_ if self.with_centering else 0.0)

    def _release(self) -> _PlainRobust:
        """Return a plain scikit-learn scaler with the same centre and scale; the sample is not in it."""
        self._check_fitted()
        names = ("with_centering", "with_scaling", "quantile_range", "copy", "unit_variance")
        out = _PlainRobust(**{name: getattr(self, name) for name in names})
        out.center_ = None if self.center_ is None else self.center_.copy()
        out.scale_ = None if self.scale_ is None else self.scale_.copy()
        return named_like(out, self)


def _constant(span: FloatArray) -> Any:
    """Where a range is nothing but rounding, as scikit-learn sees it."""
    return span < 10 * np.finfo(np.float64).eps


def _rounded(values: FloatArray, slack: FloatArray) -> FloatArray:
    """Return the numbers of fewest digits within `slack` of these; NaN for NaN."""
    out, known = values.copy(), ~np.isnan(values)
    out[known] = simplest((values - slack)[known], (values + slack)[known])
    return out
