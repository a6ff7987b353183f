"""Encoding of categories: every category has a row that is held, and is forgotten with its last one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import OneToOneFeatureMixin
from sklearn.preprocessing import OneHotEncoder as _PlainOneHot
from sklearn.preprocessing import OrdinalEncoder as _PlainOrdinal
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import columns_of, row_of
from certified._data.reproducible import same
from certified._data.table import Table
from certified._exact.counts import codes_of
from certified.errors import InvalidInput
from certified.preprocessing._categories import Category, Encoder, groups
from certified.typing import FloatArray, IntArray

__all__ = ["OneHotEncoder", "OrdinalEncoder"]


class OneHotEncoder(Encoder):
    """One column of 0 and 1 for each category, exactly deletable.

    As scikit-learn's, but dense by default. A category goes with its last row, so that a deletion may change the number
    of features; ``min_frequency`` groups rare categories, which makes that rare and hides who is alone in one.

    Parameters
    ----------
    categories : "auto" or list of n_features arrays, default="auto"
        Those of the retained rows, or given for each feature.
    drop : {"first", "if_binary"}, array of shape (n_features,) or None, default=None
        Category of each feature without a column.
    sparse_output : bool, default=False
        Return a CSR array; in a pipeline, where the next step takes one. A linear model behind takes passes over the
        rows for a deletion then: with some hundreds of columns or fewer, dense ones let it delete without.
    handle_unknown : {"error", "ignore", "infrequent_if_exist", "warn"}, default="error"
    min_frequency : int, float or None, default=None
        Categories with fewer rows (a smaller share of the rows) are one, "infrequent_sklearn".
    max_categories : int or None, default=None
        Columns of a feature, with that of the infrequent categories; the least frequent are grouped.
    feature_name_combiner : "concat" or callable, default="concat"
        Makes the name of a column from those of the feature and the category.

    Attributes
    ----------
    categories_ : list of arrays
    infrequent_categories_ : list of arrays or None

    Examples
    --------
    >>> from certified.preprocessing import OneHotEncoder
    >>> encoder = OneHotEncoder().fit([["a"], ["b"], ["b"], ["c"]])
    >>> encoder.delete([0]).changed
    ('OneHotEncoder',)
    >>> encoder.get_feature_names_out()
    array(['x0_b', 'x0_c'], dtype=object)
    """

    _unknowns = ("error", "ignore", "infrequent_if_exist", "warn")

    def __init__(
        self,
        *,
        categories: Any = "auto",
        drop: Any = None,
        sparse_output: bool = False,
        handle_unknown: str = "error",
        min_frequency: Any = None,
        max_categories: Any = None,
        feature_name_combiner: Any = "concat",
    ) -> None:
        self.categories = categories
        self.drop = drop
        self.sparse_output = sparse_output
        self.handle_unknown = handle_unknown
        self.min_frequency = min_frequency
        self.max_categories = max_categories
        self.feature_name_combiner = feature_name_combiner

    def _learned_from(self, statistic: Any) -> tuple[Category, ...]:
        learned = super()._learned_from(statistic)
        self._dropped(learned)
        return learned

    def _dropped(self, learned: tuple[Category, ...]) -> list[int]:
        """Return the group of each column that has no feature, -1 for none."""
        if self.drop is None:
            return [-1] * len(learned)
        if isinstance(self.drop, str):
            return [0 if self.drop == "first" or category.n_groups == 2 else -1 for category in learned]
        if len(self.drop) != len(learned):
            raise InvalidInput(f"OneHotEncoder(drop=[...]) names {len(self.drop)} categories, X has {len(learned)}.")
        out = []
        for j, (value, category) in enumerate(zip(self.drop, learned, strict=True)):
            text = category.values.dtype == object
            unknown = value is None or value != value  # None and NaN are one category, missing
            asked = (None if text else np.nan) if unknown else value
            code = codes_of(category.values, columns_of(row_of([asked]))[0])[0]
            if code < 0 or category.group[code] == category.joined:
                raise InvalidInput(
                    f"OneHotEncoder(drop=[...]) names {value!r} of column {j}, which no row would have or which would "
                    "be infrequent. Drop another category. Nothing was changed."
                )
            out.append(int(category.group[code]))
        return out

    def _apply(self, learned: tuple[Category, ...], X: Any) -> Any:
        triples = zip(learned, self._dropped(learned), columns_of(X), strict=True)
        return self._made([(j, *triple) for j, triple in enumerate(triples)], len(X))

    def _made(self, features: list[tuple[int, Category, int, Any]], n_rows: int) -> Any:
        """Return the columns of some features, from their position, category, dropped group and column."""
        widths = [category.n_groups - (dropped >= 0) for _, category, dropped, _ in features]
        where = np.full((n_rows, len(features)), -1, dtype=np.int64)
        start = 0
        for k, (j, category, dropped, column) in enumerate(features):
            found = self._marked(category, dropped, column, j)
            where[:, k] = np.where(found < 0, -1, start + found)
            start += widths[k]
        rows, _ = marked = np.nonzero(where >= 0)
        if self.sparse_output:
            ends = np.append(0, np.cumsum(np.bincount(rows, minlength=n_rows)))
            return csr_array((np.ones(rows.size), where[marked], ends), shape=(n_rows, start))
        out = np.zeros((n_rows, start))
        out[rows, where[marked]] = 1.0
        return out

    def _marked(self, category: Category, dropped: int, column: Any, j: int) -> IntArray:
        """Return which of the columns that feature j makes is 1 in each row, -1 for none."""
        codes, unknown = self._coded(category, column, j)
        if unknown.any():
            if self.handle_unknown == "warn":
                warnings.warn(f"Unknown categories in column {j} are encoded as infrequent or zeros.", stacklevel=5)
            if self.handle_unknown != "ignore" and category.joined >= 0:
                codes, unknown = np.where(unknown, category.joined, codes), np.zeros_like(unknown)
        marked = ~unknown & (codes != dropped)
        if dropped >= 0:
            codes = codes - (codes > dropped)
        return np.where(marked, codes, -1)

    def _changed_features(self, learned: tuple[Category, ...], left: Callable[[], Table]) -> list[Any]:
        out: list[Any] = []
        start = 0
        before = zip(self._learned, self._dropped(self._learned), strict=True)
        after = zip(learned, self._dropped(learned), strict=True)
        for j, (old, new) in enumerate(zip(before, after, strict=True)):
            width = old[0].n_groups - (old[1] >= 0)
            if same(old, new):
                out.append(slice(start, start + width))
            else:
                out += self._renewed_feature(j, start, old, new, columns_of(left().x)[j])
            start += width
        return out

    def _renewed_feature(self, j: int, start: int, old: Any, new: Any, column: Any) -> list[Any]:
        """Return the columns of feature j in pieces: those of groups of categories that were a group before stay."""
        if not isinstance(self.categories, str):  # rows of no category may be in a group
            return [self._made([(j, *new, column)], len(column))]
        before = {group: start + k for k, group in enumerate(groups(*old))}
        found = self._marked(new[0], new[1], column, j)
        out: list[Any] = []
        for k, group in enumerate(groups(*new)):
            if group in before:
                out.append(slice(before[group], before[group] + 1))
            else:
                made = (found == k).astype(np.float64)[:, None]
                out.append(csr_array(made) if self.sparse_output else made)
        return out

    def _width(self, learned: tuple[Category, ...], n_features: int) -> int:
        pairs = zip(learned, self._dropped(learned), strict=True)
        return sum(category.n_groups - (dropped >= 0) for category, dropped in pairs)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out, "city_Rome" for the category Rome of the feature city."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        combine = self.feature_name_combiner if callable(self.feature_name_combiner) else lambda f, c: f"{f}_{c}"
        out = []
        columns = zip(names, self.categories_, self._learned, self._dropped(self._learned), strict=True)
        for name, shown, category, dropped in columns:
            labels = [*shown[category.group != category.joined]]
            if category.joined >= 0:
                labels.append("infrequent_sklearn")
            out += [combine(name, label) for k, label in enumerate(labels) if k != dropped]
        return np.array(out, dtype=object)

    def _release(self) -> Any:
        """Return a plain scikit-learn encoder of the same categories; the counts are not in it.

        Where something was missing, a pipeline of a reader and the encoder: see :mod:`certified._steps.plain_reader`.
        """
        self._check_fitted()
        return self._plain(
            _PlainOneHot,
            drop=self.drop,
            sparse_output=self.sparse_output,
            feature_name_combiner=self.feature_name_combiner,
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if isinstance(self.drop, str) and self.drop not in ("first", "if_binary"):
            raise InvalidInput(f"OneHotEncoder(drop={self.drop!r}) is not allowed: 'first', 'if_binary' or a list.")


class OrdinalEncoder(OneToOneFeatureMixin, Encoder):
    """The number of each category in sorted order, exactly deletable.

    As scikit-learn's. A category goes with its last row, and those after it get other numbers.

    Parameters
    ----------
    categories : "auto" or list of n_features arrays, default="auto"
    handle_unknown : {"error", "use_encoded_value"}, default="error"
    unknown_value : float or None, default=None
        What unknown categories become, for "use_encoded_value"; not the number of a category.
    encoded_missing_value : float, default=nan
        What missing values become.
    min_frequency : int, float or None, default=None
        Categories with fewer rows (a smaller share of the rows) get one number, after all others.
    max_categories : int or None, default=None
        Numbers of a feature; the least frequent categories are grouped.

    Attributes
    ----------
    categories_ : list of arrays
    infrequent_categories_ : list of arrays or None

    Examples
    --------
    >>> from certified.preprocessing import OrdinalEncoder
    >>> encoder = OrdinalEncoder().fit([["low"], ["mid"], ["high"]])
    >>> encoder.transform([["mid"], ["high"]])
    array([[2.],
           [0.]])
    """

    _unknowns = ("error", "use_encoded_value")
    _apart = True

    def __init__(
        self,
        *,
        categories: Any = "auto",
        handle_unknown: str = "error",
        unknown_value: float | None = None,
        encoded_missing_value: float = np.nan,
        min_frequency: Any = None,
        max_categories: Any = None,
    ) -> None:
        self.categories = categories
        self.handle_unknown = handle_unknown
        self.unknown_value = unknown_value
        self.encoded_missing_value = encoded_missing_value
        self.min_frequency = min_frequency
        self.max_categories = max_categories

    def _apply(self, learned: tuple[Category, ...], X: Any) -> FloatArray:
        out = []
        for category, (codes, unknown) in zip(learned, self._codes(learned, X), strict=True):
            values = codes.astype(np.float64)
            if self._has_apart(category.values):
                values[~unknown & (codes == category.n_groups - 1)] = self.encoded_missing_value
            values[unknown] = np.nan if self.unknown_value is None else self.unknown_value
            out.append(values)
        return np.column_stack(out)

    def _learned_from(self, statistic: Any) -> tuple[Category, ...]:
        learned = super()._learned_from(statistic)
        value = self.unknown_value
        if value is not None and any(0 <= value < c.n_groups - self._has_apart(c.values) for c in learned):
            raise InvalidInput(f"OrdinalEncoder(unknown_value={value!r}) is the number of a category. Choose another.")
        missing = self.encoded_missing_value
        if any(self._has_apart(c.values) and missing in range(c.n_groups - 1) for c in learned):
            raise InvalidInput(
                f"OrdinalEncoder(encoded_missing_value={missing!r}) is the number of a category of a feature in which "
                "values are missing. Choose another, for example -1. Nothing was changed."
            )
        return learned

    def _release(self) -> Any:
        """Return a plain scikit-learn encoder of the same categories; the counts are not in it.

        Where something was missing, a pipeline of a reader and the encoder: see :mod:`certified._steps.plain_reader`.
        """
        self._check_fitted()
        return self._plain(_PlainOrdinal, encoded_missing_value=self.encoded_missing_value)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if (self.handle_unknown == "use_encoded_value") != (self.unknown_value is not None):
            raise InvalidInput(
                f"OrdinalEncoder(handle_unknown={self.handle_unknown!r}, unknown_value={self.unknown_value!r}) is not "
                "allowed: unknown_value goes with handle_unknown='use_encoded_value', a number or NaN."
            )
