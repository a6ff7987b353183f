"""Aliases used in signatures; shapes are written in the docstrings."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoolArray", "Features", "FloatArray", "Ids", "IntArray", "Targets"]

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]

Features: TypeAlias = Any
"""X: an array-like, a sparse matrix, or a data frame of polars, pandas or pyarrow, shape (n_rows, n_features)."""

Targets: TypeAlias = Any
"""y: an array-like or a column, shape (n_rows,) or (n_rows, n_outputs); None where nothing is predicted."""

Ids: TypeAlias = Any
"""ids: the subject of each row, integers, text or UUIDs, shape (n_rows,); or the name of a column of X."""
