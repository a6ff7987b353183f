"""Rows as the user's containers hold them: arrays, sparse arrays and data frames, with targets and weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse
from sklearn.utils import _safe_indexing, check_array

from certified._data.frames import is_frame
from certified.errors import InvalidInput

__all__ = ["Table", "as_table", "check_finite", "like"]


class Table(NamedTuple):
    """Rows as the user's container holds them, with targets (classes as codes) and weights or None."""

    x: Any
    y: Any
    weight: Any

    def take(self, rows: Any) -> Table:
        """Return copies of these rows, laid out in memory in one way, whatever their container went through."""
        y, weight = np.ascontiguousarray(self.y[rows]), None if self.weight is None else self.weight[rows]
        return Table(_laid_out(_safe_indexing(self.x, rows)), y, weight)

    @classmethod
    def added(cls, parts: list[Table]) -> Table:
        """Return the rows of several tables, one after the other."""
        x, y, weight = zip(*parts, strict=True)
        return cls(_concatenated(list(x)), np.concatenate(y), None if weight[0] is None else np.concatenate(weight))


def as_table(X: Any, name: str) -> Any:
    """Return X as estimators are given it: frames as they are, all else as an array or a sparse array, copied."""
    if is_frame(X):
        return X
    if not hasattr(X, "dtype") and not hasattr(X, "toarray") and np.asarray(X).dtype.kind in "US":
        X = np.asarray(X, dtype=object)  # numpy would write the numbers as text
    X = check_array(X, accept_sparse="csr", dtype=None, ensure_all_finite=False, copy=True, estimator=name)
    if sparse.issparse(X):
        X.sum_duplicates()
    return X


def _laid_out(x: Any) -> Any:
    """Return rows in one memory order: sums of an estimator, and so its last bits, may depend on it."""
    if sparse.issparse(x):
        kind = np.int32 if max(x.nnz, *x.shape) < 2**31 else np.int64
        parts = x.data, x.indices.astype(kind, copy=False), x.indptr.astype(kind, copy=False)
        return type(x)(parts, shape=x.shape)
    if not is_frame(x):
        return np.ascontiguousarray(x)
    if nw.from_native(x, eager_only=True).implementation.is_pandas():
        out = type(x)({name: x[name].array for name in x.columns})  # new blocks, and rows numbered from 0
        out.columns = x.columns
        return out
    for name in ("rechunk", "combine_chunks"):  # of polars and pyarrow
        if hasattr(x, name):
            return getattr(x, name)()
    return x


def _concatenated(parts: list[Any]) -> Any:
    if is_frame(parts[0]):
        return nw.concat([nw.from_native(part, eager_only=True) for part in parts], how="vertical").to_native()
    if sparse.issparse(parts[0]):
        return sparse.vstack(parts, format="csr")
    return np.concatenate(parts)


def like(x: Any, held: Any, caller: str) -> Any:
    """Return rows that are added in the container of those retained, provided that these keep their types when both
    are stacked.

    Raises
    ------
    InvalidInput
        There is no row, or the container or the type of a column is another one: models that stay have learned from
        what is held.
    """
    if x.shape[0] == 0:
        raise InvalidInput(f"{caller} got X without rows. At least one is needed. Nothing was changed.")
    if _kind(x) != _kind(held):
        raise InvalidInput(f"{caller} got X as {_kind(x)}, the retained rows are {_kind(held)}. {_CONVERT}")
    if is_frame(held):
        return _frame_like(x, held, caller)
    if np.result_type(x.dtype, held.dtype) != held.dtype:
        raise InvalidInput(f"{caller} got X of type {x.dtype}, the retained rows are of type {held.dtype}. {_CONVERT}")
    return type(held)(x.astype(held.dtype)) if sparse.issparse(x) else x.astype(held.dtype)


_CONVERT = "Convert it, or fit anew. Nothing was changed."


def _kind(x: Any) -> str:
    if is_frame(x):
        return f"a frame of {nw.from_native(x, eager_only=True).implementation.name.lower()}"
    return "a sparse array" if sparse.issparse(x) else "a dense array"


def _frame_like(x: Any, held: Any, caller: str) -> Any:
    new, old = nw.from_native(x, eager_only=True), nw.from_native(held, eager_only=True)
    pairs = [(name, new.schema[name], old.schema[name]) for name in old.columns]
    whole = [nw.col(name).cast(to) for name, now, to in pairs if now.is_integer() and to.is_float()]
    out = new.with_columns(*whole).to_native() if whole else x
    for name, now, to in zip(old.columns, _types(out), _types(held), strict=True):
        if now != to:
            raise InvalidInput(
                f"{caller} got column {name!r} of type {now}, the retained rows are of type {to}. {_CONVERT}"
            )
    return out


def _types(frame: Any) -> list[Any]:
    """Return the types of the columns as the library of the frame knows them, categories included."""
    return list(frame.dtypes if hasattr(frame, "dtypes") else frame.schema.types)


def check_finite(x: Any, caller: str) -> None:
    """Raise InvalidInput where a number is infinite; NaN may stand for a missing value."""
    if is_frame(x):
        frame = nw.from_native(x, eager_only=True)
        infinite = any(s.is_in([np.inf, -np.inf]).any() for s in frame.iter_columns() if s.dtype.is_float())
    else:
        values = x.data if sparse.issparse(x) else x
        infinite = values.dtype.kind == "f" and bool(np.isinf(values).any())
    if infinite:
        raise InvalidInput(
            f"{caller} got features that are infinite. Not every row that joins is seen by the estimator, which could "
            "refuse them. Correct them, or give NaN for a missing value. Nothing was changed."
        )
