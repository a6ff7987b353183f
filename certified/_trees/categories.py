"""Categories by name: which ones the retained rows have, and the plain scikit-learn transformer that codes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import TargetEncoder

from certified._trees.binning import category_codes
from certified._trees.kernels_predict import dealt_all
from certified._trees.kernels_split import ORDERS
from certified.typing import BoolArray, IntArray

__all__ = ["Categories", "reader"]

BEFORE, AFTER = -1.0, 65535.0  # all places of categories


class Remaining(NamedTuple):
    """What is left of the categories after a deletion: rows and code of each, whether one that stays got another."""

    counts: list[IntArray]
    codes: list[Any]
    moved: bool


class Categories:
    """Categories of the rows that count, with their codes; one that no row has any more is overwritten.

    Parameters
    ----------
    columns : list of arrays of shape (n_rows,)
        One for each categorical feature: text with None for missing, or numbers with NaN.
    retained : bool array of shape (n_rows,)
        Rows that count.
    caller : str
        Name of the estimator, for messages.
    """

    def __init__(self, columns: list[Any], retained: BoolArray, caller: str) -> None:
        self._values: list[Any] = []  # of each feature, in any order; None for what is gone
        self._rows: IntArray = np.full((len(retained), len(columns)), -1, np.int32)  # positions in these, -1: missing
        self._counts: list[IntArray] = []
        self._kinds = [column.dtype for column in columns]
        self._caller = caller
        for j, column in enumerate(map(_plain_values, columns)):
            known = [v is not None for v in column] if column.dtype == object else ~np.isnan(column)
            here = retained & np.asarray(known)
            distinct, where = np.unique(column[here], return_inverse=True)
            self._rows[here, j] = where
            self._values.append(distinct.astype(object))
            self._counts.append(np.bincount(where, minlength=len(distinct)))
        self._codes = [self._new_codes(j, counts) for j, counts in enumerate(self._counts)]
        self._lookup: dict[int, Any] = {}

    def _new_codes(self, j: int, counts: IntArray) -> Any:
        """Return the codes that the categories of a feature have where so many rows have each; 0 for none."""
        out = np.zeros(len(counts), np.uint16)
        out[counts > 0] = category_codes(self._values[j][counts > 0], self._caller)
        return out

    def without(self, rows: IntArray) -> Remaining:
        """Return what a deletion of these rows leaves; nothing is changed."""
        counts, codes, moved = [], [], False
        for j, (before, old) in enumerate(zip(self._counts, self._codes, strict=True)):
            of_row = self._rows[rows, j]
            after = before - np.bincount(of_row[of_row >= 0], minlength=len(before))
            new = old
            if np.any((after == 0) & (before > 0)):
                new = self._new_codes(j, after)
                moved = moved or bool(np.any((new != old) & (after > 0)))
            counts.append(after)
            codes.append(new)
        return Remaining(counts, codes, moved)

    def codes_of_rows(self, remaining: Remaining | None = None) -> Any:
        """Return the codes of all rows, shape (n_rows, n_columns), NaN for missing; as they are after a deletion."""
        out = np.full(self._rows.shape, np.nan, np.float32)
        for j, codes in enumerate(self._codes if remaining is None else remaining.codes):
            known = self._rows[:, j] >= 0
            out[known, j] = codes[self._rows[known, j]]
        return out

    def encode(self, j: int, column: Any) -> Any:
        """Return the codes of a column, float32; NaN for missing values and those that no row has."""
        if j not in self._lookup:
            self._lookup[j] = dict(zip(self.held(j).tolist(), self.codes(j).tolist(), strict=True))
        codes, values = self._lookup[j], _plain_values(column).tolist()
        return np.array([codes.get(value, np.nan) for value in values], dtype=np.float32)

    def erasing(self, rows: IntArray, remaining: Remaining) -> Callable[[], None]:
        """Return what erases all that is held of these rows, as :meth:`without` has planned it; it may be repeated."""

        def erase() -> None:
            self.__dict__.update(_counts=remaining.counts, _codes=remaining.codes, _lookup={})
            for values, counts in zip(self._values, remaining.counts, strict=True):
                values[counts == 0] = None
            self._rows[rows] = -1

        return erase

    def _order(self, j: int) -> IntArray:
        """Return where the categories of a feature that rows have are, sorted by their values."""
        here = np.flatnonzero(self._counts[j] > 0)
        return here[np.argsort(self._values[j][here].astype(self._kinds[j]), kind="stable")]

    def held(self, j: int) -> Any:
        """Return the categories of a feature that rows have, sorted."""
        return self._values[j][self._order(j)].astype(self._kinds[j])

    def codes(self, j: int) -> Any:
        """Return the codes of these categories, uint16."""
        return self._codes[j][self._order(j)]

    def columns(self, rows: IntArray) -> list[Any]:
        """Return the columns of these rows, as they were given."""
        out = []
        for j, kind in enumerate(self._kinds):
            nothing = None if kind.kind == "O" else np.nan
            values = np.append(self._values[j], [nothing])
            out.append(values[self._rows[rows, j]].astype(kind))
        return out


def _plain_values(column: Any) -> Any:
    """Return a column without what a row's own object could add: subclasses of text, the sign of zero."""
    if column.dtype != object:
        return column + 0.0
    out = np.empty(len(column), dtype=object)
    out[:] = [None if v is None else str.__str__(v) for v in column]
    return out


def reader(labels: Categories, categorical: BoolArray, names: Any) -> ColumnTransformer:
    """Return a plain transformer to what trees of scikit-learn split by thresholds; it was fitted on made-up rows.

    Each categorical feature becomes its places in the orders, twice: what is missing, or no row held has, stands before
    all others, then behind them. So nothing depends on how an export treats NaN. Numbers follow as they are.
    """
    where, rest = np.flatnonzero(categorical), np.flatnonzero(~categorical)
    held = [labels.held(j) for j in range(len(where))]
    held = [v if v.size else np.array(["" if v.dtype == object else 0.0], dtype=v.dtype) for v in held]
    n_rows = max(5, *(v.size for v in held))  # as many as the encoder divides its rows into
    made_up: list[Any] = [np.zeros(n_rows)] * len(categorical)
    for j, values in zip(where.tolist(), held, strict=True):
        made_up[j] = values[np.arange(n_rows) % values.size]
    table: Any = np.column_stack([c.astype(object) for c in made_up])
    if all(v.dtype != object for v in held):
        table = table.astype(np.float64)
    if names is not None:
        table = pl.DataFrame({str(name): column.tolist() for name, column in zip(names, made_up, strict=True)})
    encoder = TargetEncoder(target_type="continuous", smooth=1.0)
    columns = [(order, place) for place in (AFTER, BEFORE) for order in range(ORDERS)]
    parts: list[Any] = [(f"order {order}, {place:g}", encoder, where.tolist()) for order, place in columns]
    out = ColumnTransformer([*parts, ("numbers", "passthrough", rest.tolist())], sparse_threshold=0.0)
    out.fit(table, np.arange(n_rows) + 0.5)
    for (order, place), (name, *_) in zip(columns, parts, strict=True):
        part = out.named_transformers_[name]
        part.categories_ = held
        part.encodings_ = [
            dealt_all(labels.codes(k), where[k], order).astype(np.float64) if labels.held(k).size else np.full(1, place)
            for k in range(len(held))
        ]
        part.target_mean_ = place
    return out
