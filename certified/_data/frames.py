"""Tables of numbers and of text: polars, pandas and pyarrow frames, lists and object arrays in; one form inside.

Inside, a column of numbers is float64 with NaN for what is missing, a column of text is an object array with None for
it. A table of numbers alone is a plain array of shape (n_rows, n_features), or a CSR array; any other is a
:class:`Columns`.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
import polars as pl
from narwhals.exceptions import DuplicateError
from scipy.sparse import csr_array, hstack, issparse, vstack
from sklearn.utils.validation import (
    check_array,
    validate_data,
)

from certified._data.ids import labels_of
from certified.errors import InvalidInput, InvalidRequest
from certified.typing import FloatArray

__all__ = [
    "Columns",
    "Schema",
    "columns_of",
    "eager",
    "erase",
    "is_frame",
    "joined",
    "read",
    "row_of",
    "select",
    "split_column",
    "split_ids",
    "stacked",
    "table_of",
    "values_of",
]

_NUMBERS = (float, int, bool, Decimal, np.number, np.bool_)
_LARGEST = 2**53
_TOO_LARGE = "{} got integers beyond 2**53, which float64 cannot tell apart. Give them as text."


class Columns:
    """Columns of equal length, of numbers or of text, that take rows as a two-dimensional array does."""

    dtype = np.dtype(object)
    ndim = 2

    def __init__(self, columns: Iterable[Any]) -> None:
        self.columns = list(columns)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_rows, n_features)``."""
        return len(self.columns[0]), len(self.columns)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: Any) -> Columns:
        return Columns([column[rows] for column in self.columns])

    def __setitem__(self, rows: Any, value: None) -> None:
        """Overwrite rows with nothing."""
        assert value is None
        for column in self.columns:
            column[rows] = None if column.dtype == object else 0.0

    def __deepcopy__(self, memo: Any) -> Columns:
        """Copy the columns; text does not change, so that a copy shares it."""
        return Columns([column.copy() for column in self.columns])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        out = np.empty(self.shape, dtype=object)
        for j, column in enumerate(self.columns):
            out[:, j] = column
        return out


class Schema(NamedTuple):
    """What the columns of a table were when they were first read.

    Attributes
    ----------
    kinds : tuple of {"float", "int", "bool", "number", "text"}
        Types that the container declares; "number" of Python objects, of which some may be whole and some not: which
        type they have must not depend on a row that goes.
    missing : None or NaN
        How missing text is written where the table came from.
    objects : tuple of int
        Columns of numbers or booleans that no type declares, only their values, which are Python objects.
    """

    kinds: tuple[str, ...]
    missing: Any = np.nan
    objects: tuple[int, ...] = ()

    def take(self, indices: Any) -> Schema:
        """Return the schema of these columns."""
        objects = tuple(k for k, j in enumerate(indices) if j in self.objects)
        return Schema(tuple(self.kinds[j] for j in indices), self.missing, objects)

    def check_rest(self, x: Any, rest: Any) -> None:
        """Raise InvalidRequest if a column that only its values make one of numbers would have none in the rest."""
        for j in self.objects:
            column = columns_of(x)[j][rest]
            if column.dtype != object and np.isnan(column).all():
                raise InvalidRequest(
                    f"delete(ids=...) would take the last number of column {j}, whose values are Python objects: a fit "
                    "without them would take the column for text. Fit with a column of type float, which a missing "
                    "value does not change. Nothing was changed."
                )

    def served(self) -> tuple[Any, ...]:
        """Return what encoders and releases show of it: how missing text is written only where there is text."""
        return self.kinds, repr(self.missing) if "text" in self.kinds else None

    def check_added(self, x: Any, caller: str) -> None:
        """Raise InvalidInput if rows that are added have values that a column of their type cannot hold."""
        holding = {"int": "whole numbers", "bool": "booleans"}
        for j, (kind, column) in enumerate(zip(self.kinds, columns_of(x), strict=True)):
            if kind not in holding:
                continue
            known = column[~np.isnan(column)]
            wrong = known[(known % 1 != 0) if kind == "int" else (known != 0) & (known != 1)]
            if wrong.size:
                raise InvalidInput(
                    f"{caller} got {wrong[0]} in column {j}, which held {holding[kind]} in fit. Cast it, or fit "
                    "anew with a column of another type. Nothing was changed."
                )


def read(estimator: Any, X: Any, schema: Schema | None = None, *, check: bool = True) -> tuple[Any, Schema]:
    """Return X in the form used inside, a copy, and its schema.

    Parameters
    ----------
    estimator : estimator
        Remembers the number and the names of the features (without a schema), or checks them.
    X : data frame or array-like of shape (n_rows, n_features)
    schema : Schema or None
        That of the data seen by ``fit``, which X must have; None to find it.
    check : bool
        Whether the estimator is to remember or to check number and names.

    Raises
    ------
    InvalidInput
        A column holds dates, a mixture of numbers and text, infinite values, integers that float64 cannot hold, or
        another kind than in ``fit``.
    """
    name = type(estimator).__name__
    frame = eager(X, name)
    if frame is not None:
        if 0 in frame.shape:
            raise ValueError(
                f"Found array with {frame.shape[0]} sample(s) and {frame.shape[1]} feature(s) (shape={frame.shape}) "
                f"while a minimum of 1 is required by {name}."
            )
        found = [_of_series(column, name) for column in frame.iter_columns()]
        missing = np.nan if frame.implementation.is_pandas_like() else None
    else:
        X = _array(X, name)
        if X.dtype != object:
            found = [(column, {"b": "bool", "f": "float"}.get(X.dtype.kind, "int")) for column in _exact(X, name).T]
        else:
            found = [_of_objects(column, f"column {j}", name) for j, column in enumerate(X.T)]
        missing = np.nan
    if check:
        given = X if frame is None else frame.to_native()
        validate_data(estimator, given, reset=schema is None, skip_check_array=True)
    columns, kinds = [column for column, _ in found], tuple(kind for _, kind in found)
    if schema is None:
        objects = tuple(j for j, kind in enumerate(kinds) if kind != "text" and _is_of_objects(X, frame, j))
        return table_of(columns), Schema(kinds, missing, objects)
    return table_of(
        [_conform(*pair, kind, j, name) for j, (pair, kind) in enumerate(zip(found, schema.kinds, strict=True))]
    ), schema


def _is_of_objects(X: Any, frame: Any, j: int) -> bool:
    """Whether the values of a column are Python objects, of a type that nothing declares."""
    return X.dtype == object if frame is None else frame[:, j].dtype == nw.Object


def eager(X: Any, caller: str) -> Any:
    """Return a data frame of polars, pandas or pyarrow as one of narwhals, None for anything else.

    Raises
    ------
    InvalidInput
        The frame is lazy, or two of its columns have the same name.
    """
    lazy = "{} got a lazy frame. The rows themselves are needed: call X.{}() first. Nothing was changed."
    if type(X).__module__.partition(".")[0] == "dask":
        raise InvalidInput(lazy.format(caller, "compute"))
    try:
        frame = nw.from_native(X, pass_through=True)
    except DuplicateError as error:
        raise InvalidInput(f"{caller} got a frame with two columns of one name. Rename or drop one: {error}") from None
    if isinstance(frame, nw.LazyFrame):
        raise InvalidInput(lazy.format(caller, "collect" if frame.implementation.is_polars() else "compute"))
    return frame if isinstance(frame, nw.DataFrame) else None


def is_frame(X: Any) -> bool:
    """Whether this is a data frame of polars, pandas or pyarrow."""
    return eager(X, "A step") is not None


def select(x: Any, indices: Any) -> Any:
    """Return these columns of a table."""
    if isinstance(x, Columns):
        return table_of([x.columns[j] for j in indices])
    return x[:, np.asarray(indices, dtype=np.intp)]


def joined(parts: list[Any]) -> Any:
    """Return tables side by side; a sparse one where one of them is sparse."""
    if any(isinstance(part, Columns) for part in parts):
        if any(issparse(part) for part in parts):
            raise InvalidInput(
                "Text and sparse features cannot stand side by side. Encode the text, or set sparse_output=False."
            )
        return Columns([column for part in parts for column in columns_of(part)])
    if any(issparse(part) for part in parts):
        return csr_array(hstack([csr_array(part) for part in parts], format="csr"))
    return np.hstack(parts)


def stacked(first: Any, second: Any) -> Any:
    """Return the rows of a table, followed by those of another one with the same columns."""
    if isinstance(first, Columns):
        pairs = zip(first.columns, columns_of(second), strict=True)
        return Columns([np.concatenate([before, after]) for before, after in pairs])
    if issparse(first):
        return csr_array(vstack([first, second], format="csr"))
    return np.concatenate([first, second])


def erase(x: Any, rows: Any) -> None:
    """Overwrite rows of an array with nothing; those of a CSR array lose their entries too."""
    if not issparse(x):
        x[rows] = None if x.dtype == object else 0
        return
    for low, high in zip(x.indptr[rows].tolist(), x.indptr[np.asarray(rows) + 1].tolist(), strict=True):
        x.data[low:high] = 0.0
        x.indices[low:high] = 0
    x.eliminate_zeros()
    x.data, x.indices = x.data.copy(), x.indices.copy()  # nothing behind the end


def values_of(x: Any) -> Any:
    """Return the numbers that a table of numbers holds, in any order; of a sparse one those that are stored."""
    return x.data if issparse(x) else x


def columns_of(x: Any) -> list[Any]:
    """Return the columns of a table."""
    return x.columns if isinstance(x, Columns) else list(x.T)


def row_of(values: list[Any]) -> Any:
    """Return a table of one row."""
    return table_of([np.array([v], dtype=object if v is None or isinstance(v, str) else np.float64) for v in values])


def table_of(columns: list[Any]) -> Any:
    """Return columns as a table: an array where all hold numbers."""
    if any(column.dtype == object for column in columns):
        return Columns([np.array(column) for column in columns])
    return np.column_stack(columns).astype(np.float64, copy=False)


def _array(X: Any, name: str) -> Any:
    """Return an array of numbers or of objects with two dimensions."""
    if not hasattr(X, "dtype") and not hasattr(X, "toarray") and np.asarray(X).dtype.kind in "US":
        X = np.asarray(X, dtype=object)  # numpy would write the numbers as text
    X = check_array(X, dtype=None, ensure_all_finite=False, estimator=name)
    return X.astype(object) if X.dtype.kind in "UST" else X


def _of_series(series: Any, name: str) -> tuple[Any, str]:
    dtype = series.dtype
    if dtype == nw.Boolean or dtype.is_numeric():
        kind = "bool" if dtype == nw.Boolean else "int" if dtype.is_integer() else "float"
        known = series.drop_nulls() if kind == "int" else series
        if kind == "int" and len(known) and max(abs(known.min()), abs(known.max())) > _LARGEST:
            raise InvalidInput(_TOO_LARGE.format(name))
        return _exact(series.cast(nw.Float64).to_numpy(), name), kind
    if dtype in (nw.String, nw.Categorical, nw.Enum) and series.implementation.is_polars():
        return _of_polars(series.to_native().cast(pl.String)), "text"
    if dtype in (nw.String, nw.Categorical, nw.Enum, nw.Object):
        return _of_objects(series.to_list(), f"column {series.name!r}", name)
    if dtype == nw.Unknown and all(value is None for value in series.to_list()):  # a column without a single value
        return np.array(series.to_list(), dtype=object), "text"
    raise InvalidInput(
        f"{name} got column {series.name!r} of type {dtype}. Numbers, booleans and text are allowed"
        + (
            "; turn dates into numbers, for example days since a date."
            if dtype.is_temporal()
            else ": cast the column, for example to text by `.astype(str)`, or leave it out."
        )
    )


def _of_polars(series: pl.Series) -> Any:
    """Return a column of text, with one object for equal text: made once for each value, not for each row."""
    values = series.unique().drop_nulls()
    codes = series.cast(pl.Enum(values)).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    objects = np.empty(len(values) + 1, dtype=object)  # the last one stands for what is missing
    objects[:-1] = values.to_list()
    return objects[codes]


def _of_objects(values: Any, where: str, name: str) -> tuple[Any, str]:
    """Return a column of Python objects as numbers or as text."""
    values = [v if isinstance(v, str) or not _is_missing(v) else None for v in values]
    types = set(map(type, values)) - {type(None)}
    if not types or all(issubclass(t, str) for t in types):
        once: dict[Any, Any] = {}
        column = np.empty(len(values), dtype=object)
        column[:] = [
            v if v is None else once.setdefault(v, str.__str__(v)) for v in values
        ]  # one object for equal text
        return column, "text"
    if all(issubclass(t, _NUMBERS) for t in types):
        kind = "bool" if types <= {bool, np.bool_} else "number"
        if kind == "number" and types & {bool, np.bool_}:
            raise InvalidInput(
                f"{name} got {where} with booleans among numbers. Numbers or booleans alone are allowed: cast them."
            )
        if any(isinstance(v, int | np.integer) and abs(int(v)) > _LARGEST for v in values):
            raise InvalidInput(_TOO_LARGE.format(name))
        return _exact(np.array([np.nan if v is None else v for v in values], dtype=np.float64), name), kind
    shown = ", ".join(sorted(t.__name__ for t in types))
    raise InvalidInput(
        f"{name} got {where} with values of the types {shown}. A column of numbers or a column of text is allowed: "
        "cast it, argument must be a string or a number."
    )


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, NaT (which differ from themselves) or pandas' NA (which is not even that)."""
    same = value is not None and value == value
    return not (isinstance(same, bool | np.bool_) and same)


def _exact(values: Any, name: str) -> FloatArray:
    """Return numbers as float64; refuse infinite ones and integers that would be rounded."""
    out = np.asarray(values, dtype=np.float64)
    if np.isinf(out).any():
        raise InvalidInput(f"{name} got features that are infinite. Correct them, or give NaN for a missing value.")
    given = np.asarray(values)
    if given.dtype.kind in "iu" and np.any((given > _LARGEST) | (given < -_LARGEST)):
        raise InvalidInput(_TOO_LARGE.format(name))
    return out


def _conform(column: Any, kind: str, expected: str, j: int, name: str) -> Any:
    """Return a column of the kind that ``fit`` has seen."""
    if (kind == "text") == (expected == "text"):
        return column
    if expected == "text" and np.isnan(column).all():
        return np.full(len(column), None, dtype=object)
    if expected != "text" and all(value is None for value in column):
        return np.full(len(column), np.nan)
    words = {"text": "text"}
    raise InvalidInput(
        f"{name} got {words.get(kind, 'numbers')} in column {j}, which had {words.get(expected, 'numbers')} in fit. "
        "Cast the column."
    )


def split_ids(X: Any, ids: Any) -> tuple[Any, Any]:
    """Return X and ids; where ids is the name of a column of the frame X, take that column out of X.

    Without ids, those of the index of a pandas frame (:func:`certified._data.ids.labels_of`).

    Raises
    ------
    InvalidInput
        X is a lazy frame or has two columns of one name, or ids names no column of it.
    """
    eager(X, "fit")
    return (X, labels_of(X)) if ids is None else split_column(X, ids, "ids")


def split_column(X: Any, values: Any, what: str, call: str = "fit") -> tuple[Any, Any]:
    """Return X and values; where values is the name of a column of the frame X, take that column out of X."""
    if not isinstance(values, str):
        return X, values
    frame = eager(X, f"{call}({what}={values!r})")
    if frame is None or values not in frame.columns:
        raise InvalidInput(
            f"{call}({what}={values!r}) names a column that X does not have. Give the name of a column of the data "
            f"frame X, or an array with the {what} of each row."
        )
    return frame.drop(values).to_native(), frame[values].to_numpy()
