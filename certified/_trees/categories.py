"""Categories by name: which ones the retained rows have, and the plain scikit-learn transformer that codes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.preprocessing import TargetEncoder

from certified._trees.binning import hashed
from certified._trees.kernels_predict import dealt_all
from certified._trees.kernels_split import ORDERS
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["Categories", "reader"]

BEFORE, AFTER = -1.0, 65535.0  # all places of categories


class Categories:
    """Categories of the rows that count; one that no row has any more is overwritten.

    Parameters
    ----------
    columns : list of arrays of shape (n_rows,)
        One for each categorical feature: text with None for missing, or numbers with NaN.
    retained : bool array of shape (n_rows,)
        Rows that count.
    """

    def __init__(self, columns: list[Any], retained: BoolArray) -> None:
        self._values: list[Any] = []  # of each feature, in any order; None for what is gone
        self._rows: IntArray = np.full((len(retained), len(columns)), -1, np.int32)  # positions in these, -1: missing
        self._counts: list[IntArray] = []
        for j, column in enumerate(columns):
            known = [v is not None for v in column] if column.dtype == object else ~np.isnan(column)
            here = retained & np.asarray(known)
            distinct, where = np.unique(column[here], return_inverse=True)
            self._rows[here, j] = where
            self._values.append(distinct.astype(object))
            self._counts.append(np.bincount(where, minlength=len(distinct)))
        self._kinds = [column.dtype for column in columns]

    def erase(self, rows: IntArray) -> None:
        """Forget what is kept of these rows."""
        for j, (values, counts) in enumerate(zip(self._values, self._counts, strict=True)):
            of_row = self._rows[rows, j]
            of_row = of_row[of_row >= 0]
            np.subtract.at(counts, of_row, 1)
            values[of_row[counts[of_row] == 0]] = None
        self._rows[rows] = -1

    def held(self, j: int) -> Any:
        """Return the categories of a feature that rows have, sorted."""
        values = self._values[j][self._counts[j] > 0]
        return np.sort(values.astype(self._kinds[j]))

    def columns(self, rows: IntArray) -> list[Any]:
        """Return the columns of these rows, as they were given."""
        out = []
        for j, kind in enumerate(self._kinds):
            nothing = None if kind.kind == "O" else np.nan
            values = np.append(self._values[j], [nothing])
            out.append(values[self._rows[rows, j]].astype(kind))
        return out


def reader(labels: Categories, categorical: BoolArray, names: Any) -> ColumnTransformer:
    """Return a plain transformer to what trees of scikit-learn split by thresholds; it was fitted on made-up rows.

    Each categorical feature becomes its places in the orders, twice: what is missing, or no row held has, stands before
    all others, then behind them. So nothing depends on how an export treats NaN. Numbers follow as they are.
    """
    where, rest = np.flatnonzero(categorical), np.flatnonzero(~categorical)
    held = [labels.held(j) for j in range(len(where))]
    held = [v if v.size else np.array(["" if v.dtype == object else 0.0], dtype=v.dtype) for v in held]
    n_rows = max(2, *(v.size for v in held))
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
            _places(values, where[k], order) if labels.held(k).size else np.full(1, place)
            for k, values in enumerate(held)
        ]
        part.target_mean_ = place
    return out


def _places(values: Any, feature: Any, order: int) -> FloatArray:
    """Return where the categories of a feature are in one of its orders."""
    return dealt_all(hashed(values).astype(np.uint16), feature, order).astype(np.float64)
