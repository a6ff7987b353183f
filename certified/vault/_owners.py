"""Which arrays of a keeper have a row for every row of the data, and which of these rows are still held.

A search holds models that were fitted on other rows than it was, each with places of its own. So every array is judged
by the subjects of the object that holds it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from certified._data.rows import Rows, padded
from certified._data.table import Table

__all__ = ["rows_by_owner"]

_IN_ROWS = (Rows, Table)  # everything in them has a row for every row of the data


def rows_by_owner(model: Any, mapped: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, array, and which of its rows are held.

    Parameters
    ----------
    model : fitted estimator
    mapped : callable
        ``mapped(array)`` tells whether an array lies in a file of rows. Of the others, which are stored with the state,
        only those are yielded whose class says that they hold rows: a coefficient may be as long as a table.
    """
    todo: list[tuple[str, Any, Any, bool]] = [("model", model, None, False)]
    seen: set[tuple[int, int]] = set()
    while todo:
        path, value, held, in_rows = todo.pop()
        if isinstance(value, str | bytes | int | float | type) or value is None:
            continue
        if isinstance(value, np.ndarray) and value.dtype != object:
            if held is not None and value.ndim and len(value) in _lengths(held) and (in_rows or mapped(value)):
                yield path, value, _as_long(held, len(value))
            continue
        parts = _parts(value)
        subjects = parts.get("_subjects")
        if subjects is not None:
            held = subjects.retained
        if (id(value), id(held)) in seen:
            continue
        seen.add((id(value), id(held)))
        in_rows = in_rows or isinstance(value, _IN_ROWS)
        todo += [(f"{path}.{name}", part, held, in_rows) for name, part in parts.items()]


def _lengths(held: Any) -> tuple[int, int]:
    return held.size, padded(held.size)


def _as_long(held: Any, n: int) -> Any:
    out = np.zeros(n, dtype=bool)
    out[: held.size] = held
    return out


def _parts(value: Any) -> dict[str, Any]:
    """What an object is made of, by name."""
    if isinstance(value, dict):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, list | set | frozenset | np.ndarray) or (isinstance(value, tuple) and not _named(value)):
        items = value.ravel().tolist() if isinstance(value, np.ndarray) else value
        return {str(k): part for k, part in enumerate(items)}
    if isinstance(value, tuple):
        return value._asdict()  # type: ignore[attr-defined]
    slots = [name for base in type(value).__mro__ for name in vars(base).get("__slots__", ()) if hasattr(value, name)]
    return {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in slots}}


def _named(value: Any) -> bool:
    return hasattr(value, "_fields")
