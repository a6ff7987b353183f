"""Filling missing values by stable statistics."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.impute import SimpleImputer as _Plain
from sklearn.utils.validation import _check_feature_names_in, validate_data

from certified.errors import InvalidInput
from certified.exact import Products
from certified.hashing import bottom_k
from certified.preprocessing._moments import rounded_moments
from certified.stable import Table
from certified.transformer import StableTransformer, named_like
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["SimpleImputer"]

_STRATEGIES = ("mean", "median", "most_frequent", "constant")


class _Counted(NamedTuple):
    """How many values of each column are observed, among how many rows; and what the strategy needs."""

    observed: IntArray
    n_rows: int
    detail: Any


class _Learned(NamedTuple):
    """What fills each column; which columns stay; which get an indicator."""

    fill: FloatArray
    kept: BoolArray
    marked: BoolArray


class SimpleImputer(StableTransformer):
    """Fill missing values (NaN) by a statistic of the values observed, exactly deletable.

    "mean" is rounded to a multiple of a quarter of the scale (the power of two nearest to the standard deviation), so
    that almost no deletion changes it; scikit-learn's is the mean itself, which every deletion changes. "median" is
    that of the `max_subjects` subjects with the smallest keyed hash among those with an observed value.

    Parameters
    ----------
    strategy : {"mean", "median", "most_frequent", "constant"}, default="mean"
    fill_value : float or None, default=None
        For "constant"; None means 0.
    add_indicator : bool, default=False
        Append a column of 0 and 1 for each feature with a missing value in the rows held.
    keep_empty_features : bool, default=False
        Whether a feature without an observed value is filled with 0 (with `fill_value` for "constant") or dropped.
    max_subjects : int, default=10_000
        Subjects in the sample for "median".

    Attributes
    ----------
    statistics_ : array of shape (n_features,)
        What fills each feature; NaN for those dropped.

    Examples
    --------
    >>> import numpy as np
    >>> from certified.impute import SimpleImputer
    >>> imputer = SimpleImputer(strategy="most_frequent").fit([[1.0], [np.nan], [3.0], [3.0]])
    >>> imputer.statistics_
    array([3.])
    >>> imputer.delete([2]).changed
    ('SimpleImputer',)
    >>> imputer.statistics_
    array([1.])
    """

    def __init__(
        self,
        *,
        strategy: str = "mean",
        fill_value: float | None = None,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        max_subjects: int = 10_000,
    ) -> None:
        self.strategy = strategy
        self.fill_value = fill_value
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.max_subjects = max_subjects

    def fit(self, X: Any, y: Any = None, ids: Any = None) -> SimpleImputer:
        """Learn what fills each feature; ``ids`` names the subject of each row, an array or a column of X."""
        return super().fit(X, y, ids)

    # ------------------------------------------------------- count, discount

    def _count(self, table: Table) -> _Counted:
        self._check_parameters()
        table = table.some("SimpleImputer")
        seen = ~np.isnan(table.x)
        detail: Any = None
        if self.strategy == "mean":
            detail = Products.of(_filled(table.x), limbs=2, gram=False)
        elif self.strategy == "median":
            columns = zip(table.x.T, seen.T, strict=True)
            detail = tuple(_sample(column[has], table.hashes[has], self.max_subjects) for column, has in columns)
        elif self.strategy == "most_frequent":
            columns = zip(table.x.T, seen.T, strict=True)
            detail = tuple(np.unique(column[has] + 0.0, return_counts=True) for column, has in columns)
        return _Counted(seen.sum(axis=0), len(table.x), detail)

    def _discount(self, statistic: _Counted, removed: Table) -> _Counted | None:
        seen = ~np.isnan(removed.x)
        n_rows = statistic.n_rows - len(removed.x)
        detail = statistic.detail
        if n_rows == 0:
            return None
        if self.strategy == "mean":
            detail = detail.minus(_filled(removed.x), np.ones(len(removed.x)))
            if detail is None:
                return None
        elif self.strategy == "median":
            cuts = np.array([cut for cut, _ in detail])
            if np.any(seen & (removed.hashes[:, None] <= cuts)):
                return None
        elif self.strategy == "most_frequent":
            columns = zip(detail, removed.x.T, seen.T, strict=True)
            detail = tuple(_uncounted(before, column[has] + 0.0) for before, column, has in columns)
        return _Counted(statistic.observed - seen.sum(axis=0), n_rows, detail)

    # --------------------------------------------------------- derive, apply

    def _derive(self, statistic: _Counted) -> _Learned:
        observed, detail = statistic.observed, statistic.detail
        constant = 0.0 if self.fill_value is None else float(self.fill_value)
        fill = np.full(len(observed), constant if self.strategy == "constant" else 0.0)
        for j in np.flatnonzero(observed):
            if self.strategy == "median":
                fill[j] = np.median(detail[j][1])
            elif self.strategy == "most_frequent":
                values, counts = detail[j]
                fill[j] = values[np.argmax(counts)]  # the smallest of those that are most frequent
        if self.strategy == "mean":
            fill = np.where(observed > 0, rounded_moments(detail, observed)[0], 0.0) + 0.0
        kept = (observed > 0) | self.keep_empty_features
        if not kept.any():
            raise InvalidInput(
                "SimpleImputer would see no observed value in any feature. Set keep_empty_features=True to fill them "
                "all, or leave the features out. Nothing was changed."
            )
        return _Learned(fill, kept, (observed < statistic.n_rows) & self.add_indicator)

    def _apply(self, learned: _Learned, X: FloatArray) -> FloatArray:
        missing = np.isnan(X)
        filled = np.where(missing, learned.fill, X)[:, learned.kept]
        if not self.add_indicator:
            return filled
        return np.column_stack([filled, missing[:, learned.marked]])

    def _width(self, learned: _Learned, n_features: int) -> int:
        return int(learned.kept.sum() + learned.marked.sum())

    def _serve(self, statistic: _Counted, learned: _Learned) -> None:
        super()._serve(statistic, learned)
        self.statistics_ = np.where(learned.kept, learned.fill, np.nan)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out: those kept, then ``missingindicator_<name>``."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        marks = [f"missingindicator_{name}" for name in names[self._learned.marked]]
        return np.array([*names[self._learned.kept], *marks], dtype=object)

    def release(self) -> _Plain:
        """Return a plain scikit-learn imputer that fills the same; its ``strategy`` reads "mean"."""
        self._check_fitted()
        row = self.statistics_
        # the mean of one value is that value: no attribute of another library need be set by hand
        rows = np.array([row, np.where(self._learned.marked, np.nan, row)])
        return named_like(_Plain(add_indicator=self.add_indicator).fit(rows), self)

    def _validated(self, X: Any, reset: bool) -> Any:
        return validate_data(self, X, dtype=np.float64, reset=reset, ensure_all_finite="allow-nan")

    def _check_parameters(self) -> None:
        if self.strategy not in _STRATEGIES:
            raise InvalidInput(f"SimpleImputer(strategy={self.strategy!r}) is not allowed: one of {_STRATEGIES}.")
        if self.fill_value is not None and not np.isfinite(self.fill_value):
            raise InvalidInput(f"SimpleImputer(fill_value={self.fill_value!r}) is not allowed: a finite number.")
        if not self.max_subjects >= 1:
            raise InvalidInput(f"SimpleImputer(max_subjects={self.max_subjects!r}) is not allowed: at least 1.")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _filled(x: FloatArray) -> FloatArray:
    """Zeros in place of what is missing, and a column of ones."""
    return np.column_stack([np.where(np.isnan(x), 0.0, x), np.ones(len(x))])


def _sample(column: FloatArray, hashes: Any, max_subjects: int) -> tuple[Any, FloatArray]:
    cut = bottom_k(hashes, max_subjects)
    return cut, np.sort(column[hashes <= cut] + 0.0)


def _uncounted(before: tuple[FloatArray, IntArray], gone: FloatArray) -> tuple[FloatArray, IntArray]:
    values, counts = before
    counts = counts - np.bincount(np.searchsorted(values, gone), minlength=len(values))
    return values[counts > 0], counts[counts > 0]
