"""Features that have to be numbers: scikit-learn's check, with messages that name the column and say what to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import validation

from certified._data.frames import eager
from certified._data.targets import known_targets
from certified.errors import InvalidInput

__all__ = ["validate_data"]


def validate_data(estimator: Any, X: Any, y: Any = "no_validation", **checks: Any) -> Any:
    """Return what scikit-learn's function of this name returns; refuse dates, and name the column of what it refuses.

    Raises
    ------
    InvalidInput
        A column holds dates, text or something else that is no number, or a missing or infinite value.
    """
    name = type(estimator).__name__
    y = known_targets(y, name)
    if checks.get("skip_check_array"):
        return validation.validate_data(estimator, X, y, **checks)
    _refuse_dates(X, name)
    try:
        return validation.validate_data(estimator, X, y, **checks)
    except (TypeError, ValueError) as error:
        found = _explained(X, name, str(error))
        if found is None:
            raise
        raise InvalidInput(found) from error


def _refuse_dates(X: Any, name: str) -> None:
    if getattr(getattr(X, "dtype", None), "kind", "") in ("M", "m"):
        raise InvalidInput(_dates(name, f"an array of type {X.dtype}"))
    frame = eager(X, name)
    for label, dtype in frame.schema.items() if frame is not None else ():
        if dtype.is_temporal():
            raise InvalidInput(_dates(name, f"column {label!r} of type {dtype}"))


def _dates(name: str, what: str) -> str:
    return (
        f"{name} got {what}: dates and durations are refused, since their ticks are no feature. Numbers are allowed; "
        "make some of them, for example days since a date, the month or the weekday. Nothing was changed."
    )


def _explained(X: Any, name: str, said: str) -> str | None:
    """Return a message that names the column, where there is one to blame."""
    if issparse(X):
        return None
    missing, infinite = "contains NaN" in said, "contains infinity" in said
    for label, values in _columns(X):
        if missing or infinite:
            numbers = _numbers(values)
            bad = (
                np.zeros(0, dtype=np.intp)
                if numbers is None
                else np.flatnonzero(np.isnan(numbers) if missing else np.isinf(numbers))
            )
            if bad.size and missing:
                return (
                    f"Input X contains NaN.\n{name} got {bad.size} missing values in column {label!r}, the first in "
                    f"row {bad[0]}. Numbers are allowed. Put certified.impute.SimpleImputer in front of it, or leave "
                    "these rows out. Nothing was changed."
                )
            if bad.size:
                return f"{said}\n{name} got it in column {label!r}, row {bad[0]}. Nothing was changed."
            continue
        for row, value in enumerate(values):
            if isinstance(value, str) and not _is_number(value):
                return (
                    f"{name} got text in column {label!r}: {value!r} in row {row} ({said}). Numbers are allowed. Put "
                    "certified.preprocessing.OneHotEncoder (or OrdinalEncoder, TargetEncoder) in front of it, for this "
                    "column in a ColumnTransformer, or leave the column out. Nothing was changed."
                )
    return None


def _columns(X: Any) -> list[tuple[Any, Any]]:
    frame = eager(X, "A step")
    if frame is not None:
        return [(label, frame[label].to_list()) for label in frame.columns]
    try:
        array = np.asarray(X, dtype=object)
    except ValueError:
        return []
    return list(enumerate(array.T)) if array.ndim == 2 else []


def _numbers(values: Any) -> Any:
    try:
        return np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
