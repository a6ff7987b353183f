"""Targets: one column, and classes as codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, column_or_1d

from certified.errors import InvalidInput
from certified.typing import IntArray

__all__ = ["codes_among", "target_column"]


def target_column(y: Any, n_rows: int, name: str) -> Any:
    """Return targets, one for each row, all known."""
    if y is None:
        raise InvalidInput(f"{name} requires y to be passed, but the target y is None.")
    if issparse(y):
        raise InvalidInput(f"{name} got a sparse y. A dense array is needed; call y.toarray() first.")
    y = column_or_1d(y.to_numpy() if hasattr(y, "to_numpy") else y, warn=True)
    if len(y) != n_rows:
        raise InvalidInput(f"{name} got X and y of inconsistent numbers of rows: {n_rows} and {len(y)}.")
    assert_all_finite(y, estimator_name=name, input_name="y")
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
