"""Encoding of categories: every category has a row that is held, and is forgotten with its last one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_array
from sklearn.base import OneToOneFeatureMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder as _PlainOneHot
from sklearn.preprocessing import OrdinalEncoder as _PlainOrdinal
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import columns_of, row_of
from certified._data.reproducible import same
from certified._data.table import Table
from certified._exact.counts import Counts, as_text, codes_of, count, is_missing, subtracted
from certified._steps.estimators import MixedTransformer
from certified._steps.plain_reader import read_plainly
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["OneHotEncoder", "OrdinalEncoder"]


class _Category(NamedTuple):
    """Categories of a column, and the group that each belongs to; `joined` groups the infrequent ones, or is -1."""

    values: Any
    group: IntArray
    n_groups: int
    joined: int


def _groups(category: _Category, dropped: int) -> list[tuple[str, ...]]:
    """Return the categories of each group but the dropped one, as text."""
    members: list[list[str]] = [[] for _ in range(category.n_groups)]
    for value, group in zip(category.values.tolist(), category.group.tolist(), strict=True):
        members[group].append(repr(value))
    return [tuple(group) for k, group in enumerate(members) if k != dropped]


class _Encoder(MixedTransformer):
    """Base class: exact counts of the categories of each column, and which of them are grouped as infrequent."""

    categories: Any
    handle_unknown: str
    min_frequency: Any
    max_categories: Any
    _unknowns: tuple[str, ...]
    _apart = False  # whether a missing value (NaN) is no category like others

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Count the categories; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _count(self, table: Table) -> Any:
        self._check_parameters()
        table = table.some(type(self).__name__)
        return len(table.x), tuple(count(column) for column in columns_of(table.x))

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        n_rows, counts = statistic
        columns = zip(counts, columns_of(removed.x), strict=True)
        return n_rows - len(removed.x), tuple(subtracted(before, column) for before, column in columns)

    def _learned_from(self, statistic: Any) -> tuple[_Category, ...]:
        n_rows, counts = statistic
        if isinstance(self.categories, str):
            return tuple(self._grouped(found, n_rows) for found in counts)
        if len(self.categories) != len(counts):
            raise InvalidInput(
                f"{type(self).__name__}(categories=[...]) lists categories of {len(self.categories)} features, X has "
                f"{len(counts)}."
            )
        return tuple(
            self._grouped(self._given(given, found, j), n_rows)
            for j, (given, found) in enumerate(zip(self.categories, counts, strict=True))
        )

    def _given(self, given: Any, found: Counts, j: int) -> Counts:
        """Return the categories that were given, with the counts found."""
        if found.values.dtype == object:
            values = as_text([v if isinstance(v, str) else None for v in given])
        else:
            values = np.asarray(given, dtype=np.float64) + 0.0
            if np.any(np.diff(values) <= 0):
                raise InvalidInput(f"{type(self).__name__}(categories=[...]): numbers must be sorted, NaN last.")
        if len(set(values.tolist())) < len(values) or len(values) == 0:
            raise InvalidInput(
                f"{type(self).__name__}(categories=[...]) repeats a category of column {j}, or has none."
            )
        codes = codes_of(values, found.values)
        if self.handle_unknown == "error" and np.any(codes < 0):
            raise self._unknown(found.values[codes < 0], j, "fit")
        counts = np.zeros(len(values), dtype=np.int64)
        counts[codes[codes >= 0]] = found.counts[codes >= 0]
        return Counts(values, counts)

    def _grouped(self, found: Counts, n_rows: int) -> _Category:
        values, counts = found
        size = len(values)
        missing = size - self._has_apart(values)
        rare = np.zeros(size, dtype=bool)
        rare[:missing] = self._infrequent(counts[:missing], n_rows)
        group, n_frequent = np.cumsum(~rare) - 1, int(np.count_nonzero(~rare))
        if not rare.any():
            return _Category(values, group, size, -1)
        group[rare] = n_frequent
        if missing < size:  # its group comes last: that of the infrequent ones takes the place before
            group[rare], group[-1] = n_frequent - 1, n_frequent
        return _Category(values, group, n_frequent + 1, int(group[rare][0]))

    def _has_apart(self, values: Any) -> bool:
        """Whether the last of these values is a missing one that is encoded apart."""
        is_nan = values.dtype != object or self._missing() is not None
        return bool(self._apart and is_nan and len(values) and is_missing(values[-1:])[0])

    def _infrequent(self, counts: IntArray, n_rows: int) -> BoolArray:
        """Which categories are infrequent, by scikit-learn's rule."""
        limit = self.min_frequency
        rare = np.zeros(len(counts), dtype=bool)
        if limit is not None:
            rare = counts < (limit if isinstance(limit, int | np.integer) else limit * n_rows)
        if self.max_categories is not None and self.max_categories < len(counts) - np.count_nonzero(rare) + 1:
            frequent = self.max_categories - 1
            rare[np.argsort(counts, kind="stable")[: len(counts) - frequent]] = True
        return rare

    def _codes(self, learned: tuple[_Category, ...], X: Any) -> list[tuple[IntArray, BoolArray]]:
        """Return the group of each row in each column, 0 for unknown ones, and which are unknown."""
        columns = zip(learned, columns_of(X), strict=True)
        return [self._coded(category, column, j) for j, (category, column) in enumerate(columns)]

    def _coded(self, category: _Category, column: Any, j: int) -> tuple[IntArray, BoolArray]:
        """Return the group of each row, 0 for unknown ones, and which are unknown, in column j."""
        codes = codes_of(category.values, column)
        unknown = codes < 0
        if unknown.any() and self.handle_unknown == "error":
            raise self._unknown(column[unknown], j, "transform")
        return category.group[np.where(unknown, 0, codes)], unknown

    def _unknown(self, values: Any, j: int, where: str) -> InvalidInput:
        shown = list(dict.fromkeys(values.tolist()))[:5]
        return InvalidInput(
            f"Found unknown categories {shown} in column {j} during {where}. Correct them, or set handle_unknown= to "
            f"one of {[how for how in self._unknowns if how != 'error']}."
        )

    def _store(self, statistic: Any, learned: tuple[_Category, ...]) -> None:
        super()._store(statistic, learned)
        self.categories_ = [self._shown(category.values, j) for j, category in enumerate(learned)]

    def inverse_transform(self, X: Any) -> Any:
        """Return the categories of encoded rows, shape (n_rows, n_features), as the released encoder does.

        An unknown category is None, and so is an infrequent one where there is no name for it.
        """
        self._check_fitted()
        plain = self._release()
        return (plain[-1] if isinstance(plain, Pipeline) else plain).inverse_transform(X)

    def _release(self) -> Any:
        raise NotImplementedError

    def _shown(self, values: Any, j: int) -> Any:
        """Return categories as the user wrote them."""
        if values.dtype == object:
            return as_text([self._missing() if v is None else v for v in values])
        kind = self._schema.kinds[j] if self._schema else "float"
        if kind == "bool" and self._missing() is None and np.isnan(values).any():
            return as_text([v if np.isnan(v) else bool(v) for v in values.tolist()])  # objects, as in such a frame
        if kind == "float" or np.isnan(values).any() or (kind == "number" and np.any(values % 1)):
            return values.copy()
        return values.astype(bool if kind == "bool" else np.int64)

    def _missing(self) -> Any:
        return self._schema.missing if self._schema else np.nan

    @property
    def infrequent_categories_(self) -> list[Any]:
        """Infrequent categories of each feature; None where there are none."""
        self._check_fitted()
        return [
            None if category.joined < 0 else shown[category.group == category.joined]
            for category, shown in zip(self._learned, self.categories_, strict=True)
        ]

    def _example(self, learned: tuple[_Category, ...], n_features: int) -> list[Any]:
        return [self._shown(category.values, j)[0] for j, category in enumerate(learned)]

    def _plain(self, kind: Any, **params: Any) -> Any:
        """Return a plain encoder of these categories, fitted on rows made up to show which ones are infrequent."""
        limit = 2  # rows that make a category frequent
        n_rows = max(limit * max(int(np.count_nonzero(c.group != c.joined)) for c in self._learned), 1)
        grouped = any(category.joined >= 0 for category in self._learned)
        columns = []
        for shown, category in zip(self.categories_, self._learned, strict=True):
            often = np.repeat(shown[category.group != category.joined], limit)
            column = np.empty(n_rows, dtype=object)
            column[:] = "x".join(["", *[str(v) for v in shown]]) if category.values.dtype == object else -np.inf
            if not grouped:
                column[:] = shown[0]
            elif shown.dtype != object:
                column[:] = float(np.nanmax(shown.astype(float), initial=0.0)) + 1.0
            column[: len(often)] = often
            columns.append(column if shown.dtype == object else column.astype(np.float64))
        rows = np.column_stack([c.astype(object) for c in columns])
        if all(c.dtype != object for c in columns):
            rows = rows.astype(np.float64)
        rule = {"min_frequency": limit} if grouped else {}
        out = kind(categories=[c.copy() for c in self.categories_], **rule, **params)
        how = {"OrdinalEncoder": {"handle_unknown": "use_encoded_value", "unknown_value": -1}}
        out.set_params(**how.get(kind.__name__, {"handle_unknown": "ignore"})).fit(rows)
        out.set_params(
            **{name: getattr(self, name) for name in ("handle_unknown", "unknown_value") if hasattr(self, name)}
        )
        out.categories_ = [c.copy() for c in self.categories_]  # numbers beside text would stay objects
        return read_plainly(out, self, [category.values for category in self._learned])

    def _check_parameters(self) -> None:
        name = type(self).__name__
        if self.handle_unknown not in self._unknowns:
            raise InvalidInput(
                f"{name}(handle_unknown={self.handle_unknown!r}) is not allowed: one of {self._unknowns}."
            )
        if isinstance(self.categories, str) and self.categories != "auto":
            raise InvalidInput(f"{name}(categories={self.categories!r}) is not allowed: 'auto' or a list.")
        low, most = self.min_frequency, self.max_categories
        whole = isinstance(low, int | np.integer) and low >= 1
        if not (low is None or whole or (isinstance(low, float) and 0 < low < 1)):
            raise InvalidInput(f"{name}(min_frequency={low!r}) is not allowed: an integer >= 1 or 0 < share < 1.")
        if not (most is None or (isinstance(most, int | np.integer) and most >= 1)):
            raise InvalidInput(f"{name}(max_categories={most!r}) is not allowed: an integer >= 1.")


class OneHotEncoder(_Encoder):
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

    def _learned_from(self, statistic: Any) -> tuple[_Category, ...]:
        learned = super()._learned_from(statistic)
        self._dropped(learned)
        return learned

    def _dropped(self, learned: tuple[_Category, ...]) -> list[int]:
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

    def _apply(self, learned: tuple[_Category, ...], X: Any) -> Any:
        triples = zip(learned, self._dropped(learned), columns_of(X), strict=True)
        return self._made([(j, *triple) for j, triple in enumerate(triples)], len(X))

    def _made(self, features: list[tuple[int, _Category, int, Any]], n_rows: int) -> Any:
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

    def _marked(self, category: _Category, dropped: int, column: Any, j: int) -> IntArray:
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

    def _changed_features(self, learned: tuple[_Category, ...], left: Callable[[], Table]) -> list[Any]:
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
        before = {group: start + k for k, group in enumerate(_groups(*old))}
        found = self._marked(new[0], new[1], column, j)
        out: list[Any] = []
        for k, group in enumerate(_groups(*new)):
            if group in before:
                out.append(slice(before[group], before[group] + 1))
            else:
                made = (found == k).astype(np.float64)[:, None]
                out.append(csr_array(made) if self.sparse_output else made)
        return out

    def _width(self, learned: tuple[_Category, ...], n_features: int) -> int:
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


class OrdinalEncoder(OneToOneFeatureMixin, _Encoder):
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

    def _apply(self, learned: tuple[_Category, ...], X: Any) -> FloatArray:
        out = []
        for category, (codes, unknown) in zip(learned, self._codes(learned, X), strict=True):
            values = codes.astype(np.float64)
            if self._has_apart(category.values):
                values[~unknown & (codes == category.n_groups - 1)] = self.encoded_missing_value
            values[unknown] = np.nan if self.unknown_value is None else self.unknown_value
            out.append(values)
        return np.column_stack(out)

    def _learned_from(self, statistic: Any) -> tuple[_Category, ...]:
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
