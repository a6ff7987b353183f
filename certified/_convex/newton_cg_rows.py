"""The rows of a wide model, sparse or dense: products with them, in blocks and on all cores; erasing of single rows.

Rows keep their positions. A deleted sparse row gives up its values and its pattern at once, which features it had being
as telling as their values; the freed room goes when it is worth a copy, and from every pickle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack, issparse, vstack

from certified._data.feature_change import FeatureChange
from certified._data.one_part import OnePart
from certified._data.rows import padded, placed
from certified.typing import FloatArray, IntArray

__all__ = ["WideRows"]

_ENTRIES = 1 << 17  # entries worth a block of their own
_MOST = 64  # blocks
_SPARSE = 0.1  # share of entries other than zero, below which dense rows are held as sparse ones


class WideRows(OnePart):
    """Features, targets and weights of the retained rows; without a column of ones.

    Parameters
    ----------
    x : sparse or dense array of shape (n_rows, p)
    y, weight, offset : arrays of shape (n_rows,) or None
        As in :class:`certified._data.rows.Rows`.
    intercept : bool
        Whether the model has an intercept.

    Attributes
    ----------
    x : csr_array or float64 array of shape (n_padded, p)
    y, weight : float64 arrays of shape (n_padded,)
        Padding and deleted rows are zero, with weight 0.
    offset, base : float64 arrays of shape (n_padded,), or None
    lengths : float64 array of shape (n_padded,)
        Upper bounds of the Euclidean norms of the rows.
    longest : int
        Largest number of entries of a row.
    """

    def __init__(
        self, x: Any, y: Any = None, weight: Any = None, *, offset: Any = None, intercept: bool = False
    ) -> None:
        n, p = x.shape
        size = padded(n)
        self.intercept = intercept
        if not issparse(x) and np.count_nonzero(x) < _SPARSE * x.size:  # of categories, mostly
            x = csr_array(x)
        if issparse(x):
            x = csr_array(x, dtype=np.float64, copy=True)
            x.sum_duplicates()
            x.eliminate_zeros()
            indptr = np.concatenate([x.indptr, np.full(size - n, x.indptr[-1], dtype=x.indptr.dtype)])
            self.x: Any = csr_array((x.data, x.indices, indptr), shape=(size, p))
        else:
            self.x = np.zeros((size, p))
            self.x[:n] = x
        self.y, self.weight = _long(y, size), _long(np.ones(n) if weight is None else weight, size)
        self.base: FloatArray | None = None
        self.offset = None if offset is None else _long(offset, size)
        self.longest = int(np.diff(self.x.indptr).max(initial=0)) if issparse(x) else p
        self._erased = 0
        self._blocks: list[tuple[slice, Any]] | None = None
        self.lengths = self._lengths()

    def _lengths(self) -> FloatArray:
        squares = [_squares(block) for _, block in self.blocks]
        return np.sqrt(np.concatenate(squares)) * (1.0 + 2.0**-52 * (self.longest + 8))

    @property
    def blocks(self) -> list[tuple[slice, Any]]:
        """Positions and views of the rows, in blocks that do not depend on the machine."""
        if self._blocks is None:
            self._blocks = list(_blocks(self.x))
        return self._blocks

    @property
    def chain(self) -> int:
        """Upper bound of the number of additions that any summand of :meth:`pull` goes through."""
        return max(part.stop - part.start for part, _ in self.blocks) + len(self.blocks) + 2

    def push(self, v: FloatArray) -> FloatArray:
        """Return ``x v`` for each row v of an array of shape (K, p), shape (n_padded, K)."""
        out = np.empty((len(self.y), len(v)))

        def work(part: slice, block: Any) -> None:
            out[part] = block @ v.T if len(v) > 1 else (block @ v[0])[:, None]

        _on_all(work, self.blocks)
        return out

    def pull(self, r: FloatArray) -> FloatArray:
        """Return ``x' r`` for each column r of an array of shape (n_padded, K), shape (K, p)."""
        total = np.zeros((self.x.shape[1], r.shape[1]))

        def work(part: slice, block: Any) -> Any:
            return block.T @ r[part] if r.shape[1] > 1 else (block.T @ r[part, 0])[:, None]

        for found in _on_all(work, self.blocks):
            total += found
        return np.ascontiguousarray(total.T)

    def reweight(self, weight: FloatArray) -> None:
        """Give the rows these weights; the first time, remember those they had."""
        if self.base is None:
            self.base = self.weight.copy()
        self.weight[...] = weight

    def erase(self, rows: IntArray) -> None:
        """Overwrite these rows with zeros, their pattern too."""
        if issparse(self.x):
            start, stop = self.x.indptr[rows], self.x.indptr[rows + 1]
            for low, high in zip(start.tolist(), stop.tolist(), strict=True):
                self.x.data[low:high] = 0.0
                self.x.indices[low:high] = 0
            self._erased, self._blocks = self._erased + int(np.sum(stop - start)), None
        else:
            self.x[rows] = 0.0
        for part in (self.y, self.weight, self.lengths, self.offset, self.base):
            if part is not None:
                part[rows] = 0.0
        if issparse(self.x) and 4 * self._erased > self.x.nnz:
            self.x, self._blocks, self._erased = _compact(self.x), None, 0

    def clear(self) -> None:
        """Overwrite everything with zeros."""
        self.erase(np.flatnonzero(self.weight))

    def with_features(self, new: FeatureChange) -> WideRows:
        """Return the retained rows, at their positions and with new columns."""
        n = len(new.retained)
        if issparse(self.x):
            stays = self.x[:n][new.retained]
            parts = [stays[:, p] if isinstance(p, slice) else csr_array(p) for p in new.pieces]
            x: Any = placed(csr_array(hstack(parts, format="csr")), new.retained)
        else:
            x = np.zeros((n, new.n_features))
            new.write(x, self.x)
        offset = None if self.offset is None else self.offset[:n] * new.retained
        base = self.base_weight[:n] * new.retained
        return WideRows(x, self.y[:n] * new.retained, base, offset=offset, intercept=self.intercept)

    def added(self, retained: IntArray, block: Any) -> WideRows:
        """Return a copy of the rows at these positions, followed by those of a block (weights not balanced)."""
        x, y, weight, offset = (part[0] for part in block[:4])
        known = None
        if self.offset is not None or np.any(offset):
            before = np.zeros(retained.size) if self.offset is None else self.offset[retained]
            known = np.concatenate([before, np.broadcast_to(offset, y.shape)])
        both = vstack([self.x[retained], x]) if issparse(self.x) else np.concatenate([self.x[retained], x])
        return WideRows(
            both,
            np.concatenate([self.y[retained], y]),
            np.concatenate([self.base_weight[retained], weight]),
            offset=known,
            intercept=self.intercept,
        )

    def __getstate__(self) -> dict[str, Any]:
        x = _compact(self.x) if issparse(self.x) else self.x
        return self.__dict__ | {"x": x, "_blocks": None, "_erased": 0}


def _long(values: Any, size: int) -> FloatArray:
    """Return a float64 copy with zeros up to this length."""
    out = np.zeros(size)
    if values is not None:
        out[: len(values)] = values
    return out


def _compact(x: Any) -> Any:
    """Return a copy without explicit zeros, which only erased rows have."""
    x = x.copy()
    x.eliminate_zeros()
    return x


def _squares(block: Any) -> FloatArray:
    if issparse(block):
        return np.asarray(block.multiply(block).sum(axis=1)).ravel()
    return np.einsum("ij,ij->i", block, block)


def _blocks(x: Any) -> Iterator[tuple[slice, Any]]:
    """Yield blocks of sparse rows: large enough to be worth a sum of length p, small enough for short chains.

    Dense rows are one block: their products have cores of their own.
    """
    n, p = x.shape
    if not issparse(x):
        yield slice(0, n), x
        return
    count = int(np.clip(x.nnz // max(2 * p, _ENTRIES), 1, _MOST))
    edges = np.unique(np.append(np.searchsorted(x.indptr, np.linspace(0, x.nnz, count, endpoint=False)), n))
    edges[0] = 0
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        low, high = int(x.indptr[start]), int(x.indptr[stop])
        part = (x.data[low:high], x.indices[low:high], x.indptr[start : stop + 1] - x.indptr[start])
        yield slice(start, stop), csr_array(part, shape=(stop - start, p))


def _on_all(work: Callable[[slice, Any], Any], blocks: list[tuple[slice, Any]]) -> Iterator[Any]:
    """Run on every block, sparse ones side by side; the results come in order, whatever the number of cores."""
    cores = os.cpu_count() or 1
    if min(cores, len(blocks)) == 1 or not issparse(blocks[0][1]):
        return iter([work(*block) for block in blocks])
    with ThreadPoolExecutor(cores) as pool:
        return iter(list(pool.map(lambda block: work(*block), blocks)))
