"""Binning by stable edges: piecewise constant features for scorecards and additive models."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.impute import SimpleImputer as _PlainImputer
from sklearn.pipeline import Pipeline as _PlainPipeline
from sklearn.preprocessing import KBinsDiscretizer as _Plain
from sklearn.preprocessing import OneHotEncoder as _PlainOneHot
from sklearn.utils import check_array
from sklearn.utils.validation import _check_feature_names_in

from certified._data.pairwise import fold
from certified._data.table import Table
from certified._exact.simplest import between
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactTransformer
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.preprocessing._quantiles import (
    extremes,
    extremes_over,
    extremes_without,
    known,
    sample,
    sample_over,
    sample_without,
)
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["KBinsDiscretizer"]

_LARGEST = float(np.finfo(np.float64).max)
_NARROW = 1e-8  # bins of this width or less are joined with the next, as in scikit-learn


class _Binned(NamedTuple):
    """What cuts follow from, a sample, extremes or nothing; and how many rows of each feature are missing."""

    detail: Any
    missing: IntArray


class _Bins(NamedTuple):
    """Cuts between the bins of each feature, and which features have a bin of their own for what is missing."""

    cuts: tuple[FloatArray, ...]
    missing: BoolArray

    @property
    def sizes(self) -> IntArray:
        """Bins of each feature."""
        return np.array([len(cuts) + 1 for cuts in self.cuts]) + self.missing


class KBinsDiscretizer(Keyed, ExactTransformer):
    """Bin continuous features, exactly deletable.

    Cuts are quantiles of the rows of the `sample_size` subjects with the smallest keyed hash, so that a deletion of
    others changes nothing; or they divide the range of all rows evenly; or they are given. As in scikit-learn, bins
    that are too narrow are joined, so that a deletion may change the number of features. The outermost bins are open,
    and a cut is the number of fewest digits that parts the sample in the same way, because ends and quantiles would be
    values of somebody. A feature with missing values (NaN) has one bin more, the last, for
    them; it goes with the last of them.

    Parameters
    ----------
    n_bins : int or array-like of shape (n_features,), default=5
        Bins of each feature, at least 2.
    encode : {"onehot", "onehot-dense", "ordinal"}, default="onehot"
        One column for each bin, as a CSR array or dense, or the number of the bin.
    strategy : {"quantile", "uniform"} or list of n_features arrays, default="quantile"
        How cuts are found. A list gives the cuts of each feature, increasing; nothing is learned then.
    quantile_method : str, default="averaged_inverted_cdf"
        Method of :func:`numpy.percentile`.
    sample_size : int, default=10_000
        Subjects in the sample.
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one. Inside a pipeline the pipeline's is used.

    Attributes
    ----------
    bin_edges_ : object array of shape (n_features,)
        Edges of each feature, from -inf to inf.
    n_bins_ : int array of shape (n_features,)
        With the bin of what is missing.

    Examples
    --------
    >>> from certified.preprocessing import KBinsDiscretizer
    >>> binned = KBinsDiscretizer(3, encode="ordinal").fit([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    >>> binned.transform([[-9.0], [2.5], [4.0]])
    array([[0.],
           [1.],
           [2.]])
    """

    _allow_nan = True

    def __init__(
        self,
        n_bins: Any = 5,
        *,
        encode: str = "onehot",
        strategy: Any = "quantile",
        quantile_method: str = "averaged_inverted_cdf",
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.n_bins = n_bins
        self.encode = encode
        self.strategy = strategy
        self.quantile_method = quantile_method
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the cuts; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _count(self, table: Table) -> _Binned:
        self._check_parameters(table.x.shape[1])
        table = table.some("KBinsDiscretizer")
        detail: Any = (table.x.shape[1],)
        if self.strategy == "quantile":
            detail = sample(table, self.sample_size, "KBinsDiscretizer")
        elif self.strategy == "uniform":
            detail = extremes(table)
        return _Binned(detail, np.isnan(table.x).sum(axis=0))

    def _count_over(self, rows: PartedTable) -> _Binned:
        width = rows.x.shape[1]
        self._check_parameters(width)
        detail: Any = (width,)
        if self.strategy == "quantile":
            detail = sample_over(rows, self.sample_size, "KBinsDiscretizer")
        elif self.strategy == "uniform":
            detail = extremes_over(rows)
        return _Binned(detail, fold(rows.map(_missing), np.add))

    def _subtract(self, statistic: _Binned, removed: Table) -> _Binned | None:
        detail: Any = statistic.detail
        if self.strategy == "quantile":
            detail = sample_without(detail, removed)
        elif self.strategy == "uniform":
            detail = extremes_without(detail, removed)
        return None if detail is None else _Binned(detail, statistic.missing - np.isnan(removed.x).sum(axis=0))

    def _learned_from(self, statistic: _Binned) -> _Bins:
        if not isinstance(self.strategy, str):
            cuts = tuple(np.array(given, dtype=np.float64) for given in self.strategy)
        else:
            columns = [known(column) for column in statistic.detail.columns]
            bins = np.broadcast_to(self.n_bins, len(columns))
            cuts = tuple(self._cuts(column, int(k)) for column, k in zip(columns, bins, strict=True))
        return _Bins(cuts, statistic.missing > 0)

    def _cuts(self, column: FloatArray, n_bins: int) -> FloatArray:
        """Cuts of one feature: `column` is sorted, a sample or the two extremes."""
        if not column.size or column[0] == column[-1]:
            return np.empty(0)
        if self.strategy == "uniform":
            return np.unique(np.linspace(column[0], column[-1], n_bins + 1)[1:-1])  # values may be too close for all
        levels = np.linspace(0, 100, n_bins + 1)
        edges = np.asarray(np.percentile(column, levels, method=self.quantile_method))  # type: ignore[call-overload]
        return between(column, edges[np.ediff1d(edges, to_begin=np.inf) > _NARROW][1:-1])

    def _codes(self, learned: _Bins, X: FloatArray) -> IntArray:
        """Return the bin of each value, shape (n_rows, n_features)."""
        gaps = np.isnan(X)
        unknown = gaps.any(axis=0) & ~learned.missing
        if unknown.any():
            raise InvalidInput(
                f"KBinsDiscretizer got missing values (NaN) in column {int(np.argmax(unknown))}, where no row of the "
                "fit had one: there is no bin for them. Fill them, for example by certified.impute.SimpleImputer."
            )
        codes = np.column_stack([np.searchsorted(cuts, X[:, j], side="right") for j, cuts in enumerate(learned.cuts)])
        return np.where(gaps, learned.sizes - 1, codes)

    def _apply(self, learned: _Bins, X: FloatArray) -> Any:
        codes = self._codes(learned, X)
        if self.encode == "ordinal":
            return codes.astype(np.float64)
        places, width = codes + np.cumsum([0, *learned.sizes[:-1]]), int(learned.sizes.sum())
        if self.encode == "onehot":
            ends = np.arange(len(X) + 1) * codes.shape[1]
            return csr_array((np.ones(places.size), places.ravel(), ends), shape=(len(X), width))
        out = np.zeros((len(X), width))
        out[np.arange(len(X))[:, None], places] = 1.0
        return out

    def _width(self, learned: _Bins, n_features: int) -> int:
        return n_features if self.encode == "ordinal" else int(learned.sizes.sum())

    def _store(self, statistic: _Binned, learned: _Bins) -> None:
        super()._store(statistic, learned)
        self.bin_edges_ = np.empty(len(learned.cuts), dtype=object)
        for j, cuts in enumerate(learned.cuts):
            self.bin_edges_[j] = np.concatenate([[-np.inf], cuts, [np.inf]])
        self.n_bins_ = learned.sizes

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out, "age_0.0", "age_1.0" ... for the bins of "age"."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        if self.encode == "ordinal":
            return names
        pairs = zip(names, self.n_bins_, strict=True)
        return np.array([f"{name}_{float(k)}" for name, size in pairs for k in range(size)], dtype=object)

    def inverse_transform(self, X: Any) -> FloatArray:
        """Return the middle of the bin of each value, shape (n_rows, n_features): NaN in the bin of what is missing.

        The outermost bins are open: their only cut stands for them, and 0 for a bin that is all.
        """
        self._check_fitted()
        X = check_array(X, dtype=np.float64, accept_sparse="csr", estimator=self)
        sizes = self._learned.sizes
        if X.shape[1] != self._width(self._learned, len(sizes)):
            raise InvalidInput(
                f"KBinsDiscretizer.inverse_transform got {X.shape[1]} features. Those that transform gives are needed: "
                f"{self._width(self._learned, len(sizes))}."
            )
        if self.encode != "ordinal":
            X = X.toarray() if issparse(X) else X
            pieces = np.split(X, np.cumsum(sizes)[:-1], axis=1)
            X = np.column_stack([piece.argmax(axis=1) for piece in pieces])
        out = np.empty(X.shape)
        for j, (cuts, missing) in enumerate(zip(*self._learned, strict=True)):
            ends = np.concatenate([cuts[:1], cuts, cuts[-1:]]) if cuts.size else np.zeros(2)
            middles = np.append((ends[1:] + ends[:-1]) / 2.0, [np.nan] * bool(missing))
            out[:, j] = middles[X[:, j].astype(np.int64)]
        return out

    def _release(self) -> Any:
        """Return a plain scikit-learn discretizer with the same cuts; the sample is not in it.

        Where values are missing an imputer in front of it fills them with the largest number, which has its own bin.
        """
        self._check_fitted()
        out = _Plain(n_bins=self.n_bins, encode=self.encode, quantile_method=self.quantile_method, subsample=None)
        out.bin_edges_, out.n_bins_ = self.bin_edges_.copy(), self.n_bins_.copy()
        for j in np.flatnonzero(self._learned.missing):
            out.bin_edges_[j] = np.insert(out.bin_edges_[j], -1, _LARGEST)
        if self.encode != "ordinal":
            sparse = self.encode == "onehot"
            encoder = _PlainOneHot(categories=[np.arange(size) for size in self.n_bins_], sparse_output=sparse)
            out._encoder = encoder.fit(np.zeros((1, len(self.n_bins_))))
        if not self._learned.missing.any():
            return named_like(out, self)
        fill = _PlainImputer(strategy="constant", fill_value=_LARGEST, keep_empty_features=True)
        fill.fit(np.zeros((1, len(self.n_bins_))))
        return _PlainPipeline([("missing", named_like(fill, self)), ("bins", named_like(out, self))])

    def _check_parameters(self, n_features: int) -> None:
        name = type(self).__name__
        if self.encode not in ("onehot", "onehot-dense", "ordinal"):
            raise InvalidInput(f"{name}(encode={self.encode!r}) is not allowed: 'onehot', 'onehot-dense' or 'ordinal'.")
        if not isinstance(self.strategy, str):
            cuts = list(self.strategy)
            if len(cuts) != n_features or any(np.ndim(c) != 1 or not np.all(np.diff(c) > 0) for c in cuts):
                raise InvalidInput(
                    f"{name}(strategy=[...]) is not allowed: increasing cuts for each of the {n_features} features."
                )
        elif self.strategy not in ("quantile", "uniform"):
            raise InvalidInput(f"{name}(strategy={self.strategy!r}) is not allowed: 'quantile', 'uniform' or cuts.")
        bins = np.asarray(self.n_bins)
        if bins.dtype.kind not in "iu" or bins.shape not in ((), (n_features,)) or np.any(bins < 2):
            raise InvalidInput(
                f"{name}(n_bins={self.n_bins!r}) is not allowed: a whole number >= 2, or one for each of the "
                f"{n_features} features."
            )


def _missing(table: Table, weight: FloatArray) -> IntArray:
    return np.isnan(table.x).sum(axis=0)
