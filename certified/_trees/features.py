"""Features as trees read them: float32, with columns of categories as codes."""

from __future__ import annotations

from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_array, get_tags
from sklearn.utils.validation import validate_data

from certified._data.categorical import categorical_mask
from certified._data.frames import Schema, columns_of, is_frame, read
from certified.errors import InvalidInput
from certified.typing import BoolArray

__all__ = ["ReadsFeatures"]


class ReadsFeatures:
    """What estimators of trees know of their features: which are categories, and the names of these."""

    _schema: Schema | None = None  # of a table with categories
    _categorical: Any = None  # bool array of shape (n_features,)
    _labels: Any = None  # the categories of the retained rows

    def _table_kind(self, X: Any) -> tuple[Schema | None, Any]:
        """Return the schema of a table with categories and which features are these; None where there are none."""
        given = getattr(self, "categorical_features", None)
        from_dtype = isinstance(given, str) and given == "from_dtype"
        if given is None or (from_dtype and not (framed := is_frame(X)) and not _may_hold_text(X)):
            return None, None
        schema = read(self, X)[1]
        n = len(schema.kinds)
        mask: BoolArray = np.zeros(n, dtype=bool)
        if from_dtype:
            types = list(nw.from_native(X, eager_only=True).schema.values()) if framed else [None] * n
            mask[:] = [
                kind == "text" or dtype in (nw.Categorical, nw.Enum)
                for kind, dtype in zip(schema.kinds, types, strict=True)
            ]
        else:
            names = [str(name) for name in getattr(self, "feature_names_in_", [])]
            mask = categorical_mask(given, names, n, type(self).__name__, "None, 'from_dtype'")
        left = [j for j, kind in enumerate(schema.kinds) if kind == "text" and not mask[j]]
        if left:
            raise InvalidInput(
                f"{type(self).__name__}.fit got text in column {left[0]}, which is not among categorical_features="
                f"{given!r}. Name it there, or encode it."
            )
        return (schema, mask) if mask.any() else (None, None)

    def _validated(self, X: Any, reset: bool) -> Any:
        """Return features as float32, a category that no row held has as missing."""
        return self._read(X, reset)[0]

    def _read(self: Any, X: Any, reset: bool) -> tuple[Any, list[Any]]:
        """Return features as float32, and the columns of those that are categories."""
        if self._categorical is not None:
            columns = columns_of(read(self, X, self._schema)[0])
            where = np.flatnonzero(self._categorical).tolist()
            x = np.empty((len(columns[0]), self.n_features_in_), dtype=np.float32)
            for j, column in enumerate(columns):
                if j not in where:
                    x[:, j] = column
                else:  # without labels the codes are not known yet
                    x[:, j] = 0.0 if self._labels is None else self._labels.encode(where.index(j), column)
            x = check_array(x, dtype=np.float32, ensure_all_finite="allow-nan")
            return x, [columns[j] for j in where]
        nan: Any = "allow-nan" if get_tags(self).input_tags.allow_nan else True
        x = validate_data(
            self,
            X,
            dtype=np.float32,
            reset=reset,
            ensure_all_finite=nan,
            accept_sparse="csr",
            accept_large_sparse=False,
        )
        return x.toarray() if issparse(x) else x, []


def _may_hold_text(X: Any) -> bool:
    """Whether some of these rows are text, so that columns may be categories."""
    kind = getattr(getattr(X, "dtype", None), "kind", "")
    if kind == "O":
        return any(isinstance(value, str) for value in X.ravel().tolist())
    if not hasattr(X, "dtype") and isinstance(X, list | tuple) and len(X):
        return any(isinstance(value, str) for value in np.ravel(np.asarray(X[0], dtype=object)).tolist())
    return kind in ("U", "T")
