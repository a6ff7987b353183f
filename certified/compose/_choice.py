"""Which columns a transformer gets: by name, position or type, never by values."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils._indexing import _get_column_indices

from certified._data.frames import eager, is_frame
from certified.errors import NotDeletable
from certified.typing import IntArray

__all__ = ["chosen"]


def chosen(X: Any, wanted: Any) -> IntArray:
    """Return the positions of the columns asked for; raise NotDeletable if a callable looks at more than a table has.

    A callable sees the columns' names and types, and not the rows: which columns it chooses must not depend on one
    that goes. Where it would choose others of the rows it is refused.
    """
    if not callable(wanted):
        return np.asarray(_get_column_indices(X, wanted), dtype=np.intp)
    without_rows = eager(X, "ColumnTransformer").head(0).to_native() if is_frame(X) else X[:0]
    found = np.asarray(_get_column_indices(X, wanted(X)), dtype=np.intp)
    try:
        alone = np.asarray(_get_column_indices(without_rows, wanted(without_rows)), dtype=np.intp)
    except Exception:
        alone = None
    if alone is None or not np.array_equal(found, alone):
        raise NotDeletable(
            "ColumnTransformer got a callable that chooses columns by their values, so that rows which are deleted "
            "later would have had a part in the choice. Choose by name or type, for example by make_column_selector, "
            "or list the columns. Nothing was changed."
        )
    return alone
