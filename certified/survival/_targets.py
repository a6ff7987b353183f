"""Times and events from the forms in which they come."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import DataConversionWarning

from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray

__all__ = ["times_and_events"]


def times_and_events(caller: str, y: Any, n_rows: int) -> tuple[FloatArray, BoolArray]:
    """Return times > 0, and whether each is that of an event.

    Parameters
    ----------
    caller : str
        For messages.
    y : structured array, array-like of shape (n_rows, 2), or array-like of shape (n_rows,)
        Fields or columns are (event, time), as in scikit-survival; one column is of times that all are of events.
    n_rows : int

    Raises
    ------
    InvalidInput
        Something else, a time that is not positive and finite, an event that is neither 0 nor 1.
    """
    if y is None:
        raise InvalidInput(f"{caller} requires y to be passed, but the target y is None. Nothing was changed.")
    values = np.asarray(y)
    try:
        if values.dtype.names is not None:
            if len(values.dtype.names) != 2 or values.ndim != 1:
                raise ValueError
            event, time = (np.asarray(values[name], dtype=np.float64) for name in values.dtype.names)
        else:
            values = values.astype(np.float64)
            if values.ndim == 2 and values.shape[1] == 1:
                warnings.warn(
                    "A column-vector y was passed when a 1d array was expected. Times are taken, all of events.",
                    DataConversionWarning,
                    stacklevel=3,
                )
                values = values[:, 0]
            if values.ndim == 1:
                event, time = np.ones(len(values)), values
            elif values.ndim == 2 and values.shape[1] == 2:
                event, time = values[:, 0], values[:, 1]
            else:
                raise ValueError
    except (TypeError, ValueError):
        raise InvalidInput(
            f"{caller} got a y of type {values.dtype} and shape {values.shape}. A structured array with the fields "
            "(event, time), two columns (event, time), or one column of times that are all of events is needed. "
            "Nothing was changed."
        ) from None
    if len(time) != n_rows:
        raise InvalidInput(
            f"{caller} got inconsistent numbers of samples: {n_rows} rows of X and {len(time)} of y. One time for "
            "each row is needed. Nothing was changed."
        )
    if not np.all(np.isfinite(time)) or not np.all(np.isfinite(event)):
        raise InvalidInput(
            f"{caller}: Input y contains NaN or infinity. Finite times and events are needed; leave rows out whose "
            "time is unknown. Nothing was changed."
        )
    wrong = np.flatnonzero(~(time > 0.0))
    if wrong.size:
        raise InvalidInput(
            f"{caller} got {wrong.size} times that are not positive, the first in row {wrong[0]}. Times > 0 since "
            "the start of observation are needed. Correct them, or leave these rows out. Nothing was changed."
        )
    wrong = np.flatnonzero((event != 0.0) & (event != 1.0))
    if wrong.size:
        raise InvalidInput(
            f"{caller} got {wrong.size} events that are neither 0 nor 1, the first in row {wrong[0]}. The first field "
            "or column of y tells whether there was an event, the second the time. Nothing was changed."
        )
    return np.ascontiguousarray(time), event == 1.0
