"""Filling missing values by stable statistics."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import clone
from sklearn.impute import SimpleImputer as _Plain
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import Columns, columns_of, joined, table_of
from certified._data.hashing import bottom_k
from certified._data.pairwise import fold
from certified._data.table import Table
from certified._exact.counts import count, merged, subtracted
from certified._exact.over_parts import products_over
from certified._exact.rounded import rounded_moments
from certified._exact.simplest import simplest
from certified._exact.sums import Products
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import MixedTransformer
from certified._steps.plain_reader import reader
from certified.errors import InvalidInput
from certified.parts._samples import cuts_over
from certified.parts._table import PartedTable
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["SimpleImputer"]

_MISSING = "missing_value"  # fills text where nothing else is said, as in scikit-learn
_STRATEGIES = ("mean", "median", "most_frequent", "constant")


class _Counted(NamedTuple):
    """How many values of each column are observed, among how many rows; which hold text; what the strategy needs."""

    observed: IntArray
    n_rows: int
    text: BoolArray
    detail: Any


class _Learned(NamedTuple):
    """What fills each column; which columns stay; which get an indicator."""

    fill: Any
    kept: BoolArray
    marked: BoolArray


class SimpleImputer(Keyed, MixedTransformer):
    """Fill missing values by a statistic of the values observed, exactly deletable.

    "mean" is rounded to a multiple of a quarter of the scale (the power of two nearest to the standard deviation), so
    that almost no deletion changes it; scikit-learn's is the mean itself, which every deletion changes. "median" is
    that of the `sample_size` subjects with the smallest keyed hash among those with an observed value, rounded by less
    than about half a standard error to a number of few digits, so that it is not the value of somebody. Columns of text
    take "most_frequent" and "constant".

    Parameters
    ----------
    missing_values : float, str or None, default=NaN
        What stands for a missing value: NaN or None for both of these, or a number (-999) or text ("?"), beside which
        NaN and None are refused.
    strategy : {"mean", "median", "most_frequent", "constant"}, default="mean"
    fill_value : float, str or None, default=None
        For "constant"; None means 0, and "missing_value" for text.
    add_indicator : bool, default=False
        Append a column of 0 and 1 for each feature with a missing value in the retained rows.
    keep_empty_features : bool, default=False
        Whether a feature without an observed value is filled with 0 (with `fill_value` for "constant"; text with
        "missing_value") or dropped.
    sample_size : int, default=10_000
        Subjects in the sample for "median".
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one. Inside a pipeline the pipeline's is used.

    Attributes
    ----------
    statistics_ : array of shape (n_features,)
        What fills each feature; NaN for those dropped. Objects where a feature is text.

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
        missing_values: float | str | None = np.nan,
        strategy: str = "mean",
        fill_value: float | str | None = None,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.missing_values = missing_values
        self.strategy = strategy
        self.fill_value = fill_value
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn what fills each feature; ``ids`` names the subject of each row, an array or a column of X."""
        return super().fit(X, y, ids=ids)

    # ------------------------------------------------------- count, discount

    def _count_over(self, rows: PartedTable) -> _Counted:
        self._check_parameters()
        plain = clone(self)
        found = fold(rows.map(_counted, plain), _merged)
        if self.strategy == "median":
            cuts = cuts_over(rows, _mask, plain, k=self.sample_size)
            values = fold(rows.hashed().map(_below, plain, cuts), _joined)
            return found._replace(detail=tuple((cut, np.sort(v)) for cut, v in zip(cuts, values, strict=True)))
        if self.strategy != "mean":
            return found
        return found._replace(detail=products_over(rows.unweighted(), _filled_of, plain, limbs=2, gram=False))

    def _check_text(self, x: Any) -> BoolArray:
        """Return which columns hold text; raise InvalidInput where the strategy takes none."""
        text = np.array([column.dtype == object for column in columns_of(x)])
        if text.any() and self.strategy in ("mean", "median"):
            raise InvalidInput(
                f"SimpleImputer(strategy={self.strategy!r}) got column {int(np.argmax(text))} of text. Use "
                "strategy='most_frequent' or 'constant' for it, or choose other columns."
            )
        return text

    def _count(self, table: Table) -> _Counted:
        self._check_parameters()
        table = table.some("SimpleImputer")
        columns, text = columns_of(table.x), self._check_text(table.x)
        seen = self._seen(table.x)
        detail: Any = None
        if self.strategy == "mean":
            detail = Products.of(_filled(table.x, seen), limbs=2, gram=False)
        elif self.strategy == "median":
            cuts: dict[bytes, Any] = {}  # columns that are observed in the same rows have the same sample
            detail = tuple(self._sample(*pair, table.hashes, cuts) for pair in zip(columns, seen.T, strict=True))
        elif self.strategy == "most_frequent":
            detail = tuple(count(column[has]) for column, has in zip(columns, seen.T, strict=True))
        return _Counted(seen.sum(axis=0), len(table.x), text, detail)

    def _seen(self, x: Any) -> BoolArray:
        """Return which values are observed, shape (n_rows, n_features)."""
        empty = _empty(x)
        if (marker := self._marker()) is None:
            return ~empty
        if empty.any():
            raise InvalidInput(
                f"Input X contains NaN or None in column {int(np.argmax(empty.any(axis=0)))}, and "
                f"SimpleImputer(missing_values={marker!r}) takes these for no missing values. Write all missing "
                "values in one way, or fill in two steps."
            )
        columns = columns_of(x)
        other = [(column.dtype == object) != isinstance(marker, str) for column in columns]
        if any(other):
            raise InvalidInput(
                f"SimpleImputer(missing_values={marker!r}): 'X' and 'missing_values' types are expected to be both "
                f"numerical or both text, and column {other.index(True)} is not. Fill numbers and text apart."
            )
        return np.column_stack([column != marker for column in columns])

    def _marker(self) -> float | str | None:
        """What stands for a missing value, None where NaN and None do."""
        given: Any = self.missing_values
        if given is None or given != given:  # NaN
            return None
        return given if isinstance(given, str) else float(given)

    def _sample(
        self, column: FloatArray, has: BoolArray, hashes: Any, cuts: dict[bytes, Any]
    ) -> tuple[Any, FloatArray]:
        """Return the largest hash in the sample of a column, and its values there, sorted."""
        mask = has.tobytes()
        if mask not in cuts:
            cuts[mask] = bottom_k(hashes[has], self.sample_size)
        return cuts[mask], np.sort(column[has & (hashes <= cuts[mask])] + 0.0)

    def _subtract(self, statistic: _Counted, removed: Table) -> _Counted | None:
        seen = self._seen(removed.x)
        n_rows = statistic.n_rows - len(removed.x)
        detail = statistic.detail
        if n_rows == 0:
            return None
        if self.strategy == "mean":
            detail = detail.subtract(_filled(removed.x, seen), np.ones(len(removed.x)))
            if detail is None:
                return None
        elif self.strategy == "median":
            cuts = np.array([cut for cut, _ in detail])
            if np.any(seen & (removed.hashes[:, None] <= cuts)):
                return None
        elif self.strategy == "most_frequent":
            columns = zip(detail, columns_of(removed.x), seen.T, strict=True)
            detail = tuple(subtracted(before, column[has]) for before, column, has in columns)
        return _Counted(statistic.observed - seen.sum(axis=0), n_rows, statistic.text, detail)

    # --------------------------------------------------------- derive, apply

    def _learned_from(self, statistic: _Counted) -> _Learned:
        observed, detail, text = statistic.observed, statistic.detail, statistic.text
        fill = np.array([_MISSING if t else 0.0 for t in text], dtype=object if text.any() else np.float64)
        if self.strategy == "constant" and self.fill_value is not None:
            fill[:] = self._constant(text)
        for j in np.flatnonzero(observed):
            if self.strategy == "median":
                fill[j] = _middle(detail[j][1], self._marker())
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

    def _constant(self, text: BoolArray) -> Any:
        """Return the value given, which every column must be able to hold."""
        given = isinstance(self.fill_value, str)
        if np.any(text != given):
            raise InvalidInput(
                f"SimpleImputer(fill_value={self.fill_value!r}) does not go with column {int(np.argmax(text != given))}"
                f", which holds {'numbers' if given else 'text'}. Fill numbers and text apart."
            )
        return self.fill_value

    def _apply(self, learned: _Learned, X: Any) -> Any:
        missing = ~self._seen(X)
        if isinstance(X, Columns):
            pairs = zip(X.columns, missing.T, learned.fill, learned.kept, strict=True)
            filled: Any = table_of([_with(column, gaps, value) for column, gaps, value, kept in pairs if kept])
        else:
            filled = np.where(missing, learned.fill, X)[:, learned.kept]
        if not self.add_indicator:
            return filled
        return joined([filled, missing[:, learned.marked].astype(np.float64)])

    def _width(self, learned: _Learned, n_features: int) -> int:
        return int(learned.kept.sum() + learned.marked.sum())

    def _store(self, statistic: _Counted, learned: _Learned) -> None:
        super()._store(statistic, learned)
        self.statistics_ = np.where(learned.kept, learned.fill, np.nan)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out: those kept, then ``missingindicator_<name>``."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        marks = [f"missingindicator_{name}" for name in names[self._learned.marked]]
        return np.array([*names[self._learned.kept], *marks], dtype=object)

    def _example(self, learned: Any, n_features: int) -> list[Any]:
        return [value if isinstance(value, str) else 0.0 for value in learned[0]]

    def _release(self) -> Any:
        """Return a plain scikit-learn imputer that fills the same; its ``strategy`` is another one.

        Where a feature is text, a pipeline of a reader and the imputer: see :mod:`certified._steps.plain_reader`.
        """
        self._check_fitted()
        fill, kept, marked = self._learned
        marker = self._marker()
        out = _Plain(add_indicator=self.add_indicator, missing_values=np.nan if marker is None else marker)
        if isinstance(marker, str) or fill.dtype == object:
            out.set_params(strategy="most_frequent")
        elif marker == 0.0:  # which also fills what was never observed
            out.set_params(keep_empty_features=self.keep_empty_features)
        rows = np.stack([fill, fill])
        rows[:, ~kept] = rows[1, marked] = out.missing_values
        # the mean, or most frequent, of one value is that value: no attribute of another library need be set by hand
        out.fit(rows)
        if marker is not None or fill.dtype != object:
            return named_like(out, self)
        names = getattr(self, "feature_names_in_", None)
        return Pipeline([("read", reader(self._statistic.text.tolist(), names)), ("fill", out)])

    def _check_parameters(self) -> None:
        if self.strategy not in _STRATEGIES:
            raise InvalidInput(f"SimpleImputer(strategy={self.strategy!r}) is not allowed: one of {_STRATEGIES}.")
        if not (self.missing_values is None or isinstance(self.missing_values, str | Real)):
            raise InvalidInput(
                f"SimpleImputer(missing_values={self.missing_values!r}) is not allowed: NaN or None (for both, and for "
                "the nulls of frames), a number or text."
            )
        if self.missing_values in (self.fill_value, _MISSING) and self._marker() is not None:
            raise InvalidInput(
                f"SimpleImputer(missing_values={self.missing_values!r}) would be filled with itself. Give another "
                "fill_value."
            )
        if not (self.fill_value is None or isinstance(self.fill_value, str) or np.isfinite(self.fill_value)):
            raise InvalidInput(
                f"SimpleImputer(fill_value={self.fill_value!r}) is not allowed: text, or a finite number."
            )
        if not self.sample_size >= 1:
            raise InvalidInput(f"SimpleImputer(sample_size={self.sample_size!r}) is not allowed: at least 1.")


def _counted(table: Table, weight: Any, imputer: SimpleImputer) -> _Counted:
    """What is counted in a part; exact sums of values come apart, as they need the exponents of all parts."""
    columns, text, seen = columns_of(table.x), imputer._check_text(table.x), imputer._seen(table.x)
    detail = None
    if imputer.strategy == "most_frequent":
        detail = tuple(count(column[has]) for column, has in zip(columns, seen.T, strict=True))
    return _Counted(seen.sum(axis=0), len(table.x), text, detail)


def _merged(a: _Counted, b: _Counted) -> _Counted:
    detail = a.detail and tuple(merged(one, other) for one, other in zip(a.detail, b.detail, strict=True))
    return _Counted(a.observed + b.observed, a.n_rows + b.n_rows, a.text, detail)


def _mask(table: Table, imputer: SimpleImputer) -> BoolArray:
    return imputer._seen(table.x)


def _below(table: Table, weight: Any, imputer: SimpleImputer, cuts: list[Any]) -> list[FloatArray]:
    """The values of each column that are in its sample."""
    seen = imputer._seen(table.x)
    columns = zip(table.x.T, seen.T, cuts, strict=True)
    return [column[has & (table.hashes <= cut)] + 0.0 for column, has, cut in columns]


def _joined(a: list[FloatArray], b: list[FloatArray]) -> list[FloatArray]:
    return [np.concatenate(pair) for pair in zip(a, b, strict=True)]


def _filled_of(table: Table, weight: Any, imputer: SimpleImputer) -> FloatArray:
    return _filled(table.x, imputer._seen(table.x))


def _empty(x: Any) -> BoolArray:
    """Return which values are NaN or None, shape (n_rows, n_features)."""
    if not isinstance(x, Columns):
        return np.isnan(x)
    columns = [
        np.array([v is None for v in c.tolist()], dtype=bool) if c.dtype == object else np.isnan(c) for c in x.columns
    ]
    return np.column_stack(columns)


def _middle(values: FloatArray, marker: Any) -> float:
    """Return the median of sorted values, rounded by half a standard error or so: nobody's value, nor a marker."""
    middle = (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2.0
    low, high = np.percentile(values, (25.0, 75.0))
    slack = 0.5 * (high - low) / np.sqrt(len(values))
    low, high = middle - slack, middle + slack
    found = float(simplest(low, high))
    if found != marker:
        return found
    return float(simplest(np.nextafter(found, np.inf), high) if high > found else simplest(low, middle))


def _with(column: Any, gaps: BoolArray, value: Any) -> Any:
    """Return a copy of a column with a value in its gaps."""
    out = column.copy()
    out[gaps] = value
    return out


def _filled(x: FloatArray, seen: BoolArray) -> FloatArray:
    """Zeros in place of what is missing, and a column of ones."""
    return np.column_stack([np.where(seen, x, 0.0), np.ones(len(x))])
