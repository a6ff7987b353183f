"""The order of rows that the set of rows alone determines."""

from __future__ import annotations

import hashlib
from operator import add
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from scipy import sparse

from certified._data.frames import is_frame
from certified.typing import IntArray

__all__ = ["by_owner_and_content", "row_digests"]


def by_owner_and_content(owners: Any, x: Any, y: Any = None, weight: Any = None) -> IntArray:
    """Return the order of rows by their owners, and rows of one owner by content.

    Rows that share both are equal, so what is computed in this order does not depend on the order given.

    Parameters
    ----------
    owners : array of shape (n_rows,)
        Subjects, or their hashes.
    x : array, sparse matrix or data frame of shape (n_rows, n_features)
    y : array-like of shape (n_rows,) or (n_rows, n_outputs), or None
    weight : float array of shape (n_rows,) or None

    Examples
    --------
    >>> by_owner_and_content([7, 3, 7], np.array([[2.0], [1.0], [1.0]])).tolist()
    [1, 0, 2]
    """
    _, owner, counts = np.unique(owners, return_inverse=True, return_counts=True)
    shared = np.flatnonzero(counts[owner] > 1)
    content = np.zeros((2, len(owner)), dtype=np.uint64)
    if shared.size:
        content[:, shared] = row_digests(*[_take(part, shared) for part in (x, y, weight)])
    return np.lexsort((*content, owner))


def row_digests(x: Any, y: Any = None, weight: Any = None) -> Any:
    """Return a digest of each row, its target and its weight, uint64 array of shape (2, n_rows)."""
    if is_frame(x):
        lines = [repr(row).encode() for row in nw.from_native(x, eager_only=True).rows()]
    elif sparse.issparse(x):
        x = sparse.csr_array(x)
        parts = [slice(start, end) for start, end in zip(x.indptr[:-1], x.indptr[1:], strict=True)]
        lines = [x.indices[part].astype(np.int64).tobytes() + x.data[part].tobytes() for part in parts]
    else:
        lines = _lines(x)
    for part in (y, weight):
        if part is not None:
            lines = list(map(add, lines, _lines(part)))
    digests = [hashlib.blake2b(line, digest_size=16).digest() for line in lines]
    return np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2).T


def _take(part: Any, rows: IntArray) -> Any:
    if part is None:
        return None
    if is_frame(part):
        return nw.from_native(part, eager_only=True)[rows.tolist()].to_native()
    return sparse.csr_array(part)[rows] if sparse.issparse(part) else np.asarray(part)[rows]


def _lines(values: Any) -> list[bytes]:
    """Return the bytes of each row of an array."""
    values = np.asarray(values)
    if values.dtype.kind in "OUT":
        return [repr(row).encode() for row in values.tolist()]
    raw, size = values.tobytes(), values.dtype.itemsize * (values.size // max(len(values), 1))
    return [raw[k * size : (k + 1) * size] for k in range(len(values))]
