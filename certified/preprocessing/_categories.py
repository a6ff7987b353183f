"""Categories of columns: exact counts of each, and which are grouped as infrequent; what encoders of them share."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.pipeline import Pipeline

from certified._data.frames import columns_of
from certified._data.pairwise import fold
from certified._data.table import Table
from certified._exact.counts import Counts, as_text, codes_of, count, is_missing, merged, subtracted
from certified._steps.estimators import MixedTransformer
from certified._steps.plain_reader import read_plainly
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.typing import BoolArray, IntArray

__all__ = ["Category", "Encoder", "groups"]


class Category(NamedTuple):
    """Categories of a column, and the group that each belongs to; `joined` groups the infrequent ones, or is -1."""

    values: Any
    group: IntArray
    n_groups: int
    joined: int


def groups(category: Category, dropped: int) -> list[tuple[str, ...]]:
    """Return the categories of each group but the dropped one, as text."""
    members: list[list[str]] = [[] for _ in range(category.n_groups)]
    for value, group in zip(category.values.tolist(), category.group.tolist(), strict=True):
        members[group].append(repr(value))
    return [tuple(group) for k, group in enumerate(members) if k != dropped]


def _counts(table: Table, weight: Any) -> tuple[int, tuple[Counts, ...]]:
    """Rows of a part, and the counts of each of its columns."""
    return len(table.x), tuple(count(column) for column in columns_of(table.x))


def _merged(a: Any, b: Any) -> tuple[int, tuple[Counts, ...]]:
    return a[0] + b[0], tuple(merged(one, other) for one, other in zip(a[1], b[1], strict=True))


class Encoder(MixedTransformer):
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

    def _count_over(self, rows: PartedTable) -> Any:
        self._check_parameters()
        return fold(rows.map(_counts), _merged)

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        n_rows, counts = statistic
        columns = zip(counts, columns_of(removed.x), strict=True)
        return n_rows - len(removed.x), tuple(subtracted(before, column) for before, column in columns)

    def _learned_from(self, statistic: Any) -> tuple[Category, ...]:
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

    def _grouped(self, found: Counts, n_rows: int) -> Category:
        values, counts = found
        size = len(values)
        missing = size - self._has_apart(values)
        rare = np.zeros(size, dtype=bool)
        rare[:missing] = self._infrequent(counts[:missing], n_rows)
        group, n_frequent = np.cumsum(~rare) - 1, int(np.count_nonzero(~rare))
        if not rare.any():
            return Category(values, group, size, -1)
        group[rare] = n_frequent
        if missing < size:  # its group comes last: that of the infrequent ones takes the place before
            group[rare], group[-1] = n_frequent - 1, n_frequent
        return Category(values, group, n_frequent + 1, int(group[rare][0]))

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

    def _codes(self, learned: tuple[Category, ...], X: Any) -> list[tuple[IntArray, BoolArray]]:
        """Return the group of each row in each column, 0 for unknown ones, and which are unknown."""
        columns = zip(learned, columns_of(X), strict=True)
        return [self._coded(category, column, j) for j, (category, column) in enumerate(columns)]

    def _coded(self, category: Category, column: Any, j: int) -> tuple[IntArray, BoolArray]:
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

    def _store(self, statistic: Any, learned: tuple[Category, ...]) -> None:
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

    def _example(self, learned: tuple[Category, ...], n_features: int) -> list[Any]:
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
