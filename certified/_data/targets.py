"""Targets: one column, and classes as codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, column_or_1d

from certified.errors import InvalidInput
from certified.typing import BoolArray, IntArray

__all__ = ["classes_left", "codes_among", "known_targets", "target_column"]


def target_column(y: Any, n_rows: int, name: str) -> Any:
    """Return targets, one for each row, all known."""
    if y is None:
        raise InvalidInput(f"{name} requires y to be passed, but the target y is None.")
    if issparse(y):
        raise InvalidInput(f"{name} got a sparse y. A dense array is needed; call y.toarray() first.")
    y = known_targets(y, name)
    y = column_or_1d(y.to_numpy() if hasattr(y, "to_numpy") else y, warn=True)
    if len(y) != n_rows:
        raise InvalidInput(f"{name} got X and y of inconsistent numbers of rows: {n_rows} and {len(y)}.")
    assert_all_finite(y, estimator_name=name, input_name="y")
    return y


def known_targets(y: Any, name: str) -> Any:
    """Return targets as an array where they are one of Arrow; raise where one among Python objects is missing."""
    if hasattr(y, "to_pylist") and hasattr(y, "type"):  # an array of Arrow
        y = np.array(y.to_pylist(), dtype=None if y.null_count == 0 else object)
    if isinstance(y, str) or y is None or issparse(y):
        return y
    values = np.asarray(y, dtype=object) if isinstance(y, list | tuple) or hasattr(y, "to_numpy") else y
    if isinstance(values, np.ndarray) and values.dtype == object and values.ndim == 1:
        missing = [v is None or type(v).__name__ in ("NAType", "NaTType") for v in values.tolist()]
        if any(missing):
            raise InvalidInput(
                f"{name} got a target y that is missing in {sum(missing)} rows, the first at position "
                f"{missing.index(True)}. Input y contains NaN: a target is needed in every row. Leave these rows out. "
                "Nothing was changed."
            )
    return y


def codes_among(labels: Any, y: Any, n_rows: int, caller: str) -> IntArray:
    """Return targets as positions among these labels, sorted; raise if there are others."""
    y = np.asarray(target_column(y, n_rows, caller))
    known = np.isin(y, labels)
    if not known.all():
        raise InvalidInput(
            f"{caller} got the class {y[~known].tolist()[0]!r}, which the fit did not have. "
            f"{np.asarray(labels).tolist()} are allowed; fit anew for others. Nothing was changed."
        )
    return np.searchsorted(labels, y).astype(np.int64)


def classes_left(codes: IntArray, left: BoolArray, n_classes: int) -> tuple[IntArray, IntArray] | None:
    """Return the codes of the classes that rows are left of, and the new codes of all rows, 0 where a class leaves.

    Parameters
    ----------
    codes : int array of shape (n_rows,)
    left : bool array of shape (n_rows,)
        Rows that are left, of whatever weight.

    Returns
    -------
    tuple or None
        None where all classes stay, or fewer than two.
    """
    stay = np.bincount(codes[left], minlength=n_classes) > 0
    if stay.all() or np.count_nonzero(stay) < 2:
        return None
    return np.flatnonzero(stay), np.where(stay, np.cumsum(stay) - 1, 0)[codes]
