"""Names of subjects: what a caller gives as ids, checked value by value, in one form for each type.

Nothing is cast before it is checked. An array of numpy gives all its values one type, so that a list with 7 and "7",
with True and 1, or with NaN among texts would name subjects that nobody meant.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np

from certified.errors import InvalidInput

__all__ = ["RowLabels", "as_ids", "check_padding", "labels_of", "named"]

GIVEN, INDEX, NUMBERS = "given", "index", "row numbers"
UNCLEAR = "row numbers beside an index"

_LARGEST = np.iinfo(np.int64).max
_WASTE = 1 << 22  # characters of padding that any array of ids may have
_ALLOWED = "Integers, text and UUIDs without missing values are allowed, of one type."


class RowLabels(NamedTuple):
    """Ids taken from the index of a pandas frame whose rows were given no others."""

    values: Any
    source: str


def labels_of(X: Any) -> RowLabels | None:
    """Return the labels of the rows of a pandas frame or series as ids; None where the rows have no labels.

    Labels 0, 1, ... are the numbers of the rows. Others that are whole numbers or text, each once, name the rows. Where
    numbers occur twice, or are no whole numbers, the rows are numbered: then 6 could mean the row or the label.
    """
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(X, pandas.DataFrame | pandas.Series):
        return None
    index = X.index
    if isinstance(index, pandas.RangeIndex) and index.start == 0 and index.step == 1:
        return None
    if not isinstance(index, pandas.MultiIndex) and index.is_unique:
        try:
            return RowLabels(as_ids(index, "fit"), INDEX)
        except InvalidInput:
            pass  # dates, numbers that are not whole, several types
    if index.inferred_type in ("integer", "floating", "mixed-integer", "mixed-integer-float", "decimal"):
        return RowLabels(np.arange(len(index)), UNCLEAR)
    return None


def named(ids: Any, n_rows: int, caller: str = "fit(ids=...)") -> tuple[Any, str]:
    """Return the ids of so many rows, an array, and where they come from: `GIVEN`, `INDEX`, `NUMBERS` or `UNCLEAR`.

    Without ids the rows have their labels, where :func:`labels_of` found some, or their numbers.
    """
    if ids is None:
        return np.arange(n_rows), NUMBERS
    array, source = ids if isinstance(ids, RowLabels) else (as_ids(ids, caller), GIVEN)
    if len(array) != n_rows:
        raise InvalidInput(
            f"{caller} got {len(array)} ids for {n_rows} rows. One id per row is allowed, naming the subject "
            "that the row belongs to; several rows may share one. Nothing was changed."
        )
    return array, source


def as_ids(ids: Any, caller: str) -> Any:
    """Return ids as a one-dimensional array of int64 or text, or raise InvalidInput.

    Integers, text and UUIDs are ids. Floats and booleans are refused: 17.0 and a missing value would both pass for an
    id, and True for 1. A UUID has the form of its text.
    """
    values = _values(ids)
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InvalidInput(f"{caller} got ids of shape {values.shape}. One id per row is allowed, shape (n_rows,).")
        if values.dtype.kind in "iu":
            if values.size and values.dtype.kind == "u" and values.max() > _LARGEST:
                raise InvalidInput(f"{caller} got integers beyond 64 bits. Give them as text. Nothing was changed.")
            return values.astype(np.int64)
        if values.dtype.kind == "U":
            return values.astype(np.str_)
        if values.dtype.kind == "b" and values.size:
            raise InvalidInput(
                f"{caller} got a mask of {values.size} booleans, {np.count_nonzero(values)} of them true, and ids are "
                f"needed. For the subjects of a mask over model.ids_, give model.ids_[mask]. {_ALLOWED} "
                "Nothing was changed."
            )
        if values.dtype.kind not in "fOTMmb":
            raise InvalidInput(f"{caller} got ids of type {values.dtype}. {_ALLOWED} {_advice()}")
        values = values.tolist() if values.dtype.kind not in "Mm" else list(values)
    return _of_objects(values, caller)


def check_padding(width: int, n_characters: int, n_rows: int, caller: str) -> None:
    """Raise InvalidInput where arrays of text this wide would be nearly all padding."""
    if width * n_rows > 16 * n_characters + _WASTE:
        raise InvalidInput(
            f"{caller} got an id of {width} characters among shorter ones: every row would take as much memory. Give "
            "a short name in its place, for example its SHA-256. Nothing was changed."
        )


def _values(ids: Any) -> Any:
    """Return ids as an array of numpy whose values have kept their type, or a list of Python objects."""
    if isinstance(ids, RowLabels):
        return ids.values
    if isinstance(ids, str | bytes | uuid.UUID):
        return [ids]
    if hasattr(ids, "as_py"):  # a value of Arrow
        return [ids.as_py()]
    if hasattr(ids, "to_pylist"):  # an array of Arrow
        return ids.to_pylist()
    if isinstance(ids, np.ma.MaskedArray):
        return ids.tolist() if np.ma.is_masked(ids) else ids.filled()
    if hasattr(ids, "to_numpy"):
        return np.asarray(ids.to_numpy())
    if isinstance(ids, Collection | Iterator) and not hasattr(ids, "__array__"):
        return [v.as_py() if hasattr(v, "as_py") else v for v in ids]
    array = np.asarray(ids)
    if array.ndim == 0:
        return [ids.item() if isinstance(ids, np.ndarray | np.generic) else ids]
    return array


def _of_objects(values: list[Any], caller: str) -> Any:
    types = set(map(type, values))
    if all(issubclass(t, int | np.integer) and t is not bool for t in types):
        if any(abs(int(v)) > _LARGEST for v in values):
            raise InvalidInput(f"{caller} got integers beyond 64 bits. Give them as text. Nothing was changed.")
        return np.array([int(v) for v in values], dtype=np.int64)
    if all(issubclass(t, str) for t in types):
        return _text([str.__str__(v) for v in values], caller)
    if all(issubclass(t, uuid.UUID) for t in types):
        return _text([str(v) for v in values], caller)
    if shaped := [v for v in values if isinstance(v, list | tuple | np.ndarray)]:
        raise InvalidInput(
            f"{caller} got ids of shape ({len(values)}, {len(shaped[0])}). One id per row is allowed, shape (n_rows,)."
        )
    absent = np.flatnonzero([_is_missing(v) for v in values])
    if absent.size:
        raise InvalidInput(
            f"{caller} got {absent.size} ids that are missing (null) among {len(values)}, the first at position "
            f"{absent[0]}. An id names a subject, so none may be missing: leave these out, or give rows without one "
            "an id of their own. Nothing was changed."
        )
    names = sorted(t.__name__ for t in types)
    first = {t: k for k, t in reversed(list(enumerate(map(type, values))))}
    where = ", ".join(f"{t.__name__} at position {k}" for t, k in sorted(first.items(), key=lambda item: item[1])[:3])
    what = f"of type {names[0]}" if len(names) == 1 else f"of several types: {where}"
    raise InvalidInput(f"{caller} got ids {what}. {_ALLOWED} {_advice()}")


def _advice() -> str:
    return "Convert all of them, for example with `.astype(str)`. Nothing was changed."


def _text(values: list[str], caller: str) -> Any:
    """Return text as an array, which must be able to hold each value as it is."""
    for k, value in enumerate(values):
        if value.endswith("\x00"):
            raise InvalidInput(
                f"{caller} got an id that ends in a NUL character, at position {k}: {value!r}. Arrays of text drop it, "
                "so that two subjects would be one. Give it another name. Nothing was changed."
            )
    try:
        "".join(values).encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{caller} got an id that is no valid Unicode: {error}. Nothing was changed.") from None
    lengths = list(map(len, values))
    check_padding(max(lengths), sum(lengths), len(values), caller)
    return np.array(values, dtype=np.str_)


def _is_missing(value: Any) -> bool:
    """Whether it is None, NaN, NaT (which differ from themselves) or pandas' NA (which is not even that)."""
    same = value is not None and value == value
    return not (isinstance(same, bool | np.bool_) and same)
