"""Columns of a frame, chosen by type or by name."""

from __future__ import annotations

import re
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from sklearn.compose import make_column_selector as _PlainSelector

from certified.errors import InvalidInput

__all__ = ["make_column_selector"]


class make_column_selector:
    """Select columns by type or by name, for :class:`ColumnTransformer`; of polars, pandas and pyarrow frames.

    Parameters
    ----------
    pattern : str or None, default=None
        Regular expression that the name must contain.
    dtype_include, dtype_exclude : type, list of types or None, default=None
        "number", "integer", "float", "boolean", "string", "category" or the Python and numpy types for them; object is
        text. For a pandas frame whatever its ``select_dtypes`` takes.

    Examples
    --------
    >>> import polars as pl
    >>> from certified.compose import make_column_selector
    >>> make_column_selector(dtype_include="number")(pl.DataFrame({"age": [50], "city": ["Rome"]}))
    ['age']
    """

    def __init__(self, pattern: str | None = None, *, dtype_include: Any = None, dtype_exclude: Any = None) -> None:
        self.penalized = pattern
        self.dtype_include = dtype_include
        self.dtype_exclude = dtype_exclude

    def __call__(self, df: Any) -> list[str]:
        """Return the names of the columns of a frame."""
        if hasattr(df, "iloc"):
            plain = _PlainSelector(self.penalized, dtype_include=self.dtype_include, dtype_exclude=self.dtype_exclude)
            return plain(df)
        frame = nw.from_native(df, eager_only=True, pass_through=True)
        if not isinstance(frame, nw.DataFrame):
            raise InvalidInput("make_column_selector takes data frames of polars, pandas or pyarrow.")
        return [name for name, dtype in frame.schema.items() if self._selects(name, dtype)]

    def _selects(self, name: str, dtype: Any) -> bool:
        if self.penalized is not None and not re.search(self.penalized, name):
            return False
        if self.dtype_exclude is not None and _is_any(dtype, self.dtype_exclude):
            return False
        return self.dtype_include is None or _is_any(dtype, self.dtype_include)


def _is_any(dtype: Any, wanted: Any) -> bool:
    """Whether a column type is one of those wanted."""
    for kind in wanted if isinstance(wanted, list | tuple | set) else [wanted]:
        if kind in ("category", "categorical"):
            found = dtype in (nw.Categorical, nw.Enum)
        elif kind in ("number", np.number):
            found = dtype.is_numeric()
        elif kind in ("integer", "int", int, np.integer):
            found = dtype.is_integer()
        elif kind in ("float", float, np.floating):
            found = dtype.is_float()
        elif kind in ("boolean", "bool", bool, np.bool_):
            found = dtype == nw.Boolean
        elif kind in ("string", "str", "object", str, object):
            found = dtype in (nw.String, nw.Object)
        else:
            raise InvalidInput(f"make_column_selector does not know the type {kind!r}; see its documentation.")
        if found:
            return True
    return False
