"""Binning by stable edges: piecewise constant features for scorecards and additive models."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.preprocessing import KBinsDiscretizer as _Plain
from sklearn.preprocessing import OneHotEncoder as _PlainOneHot
from sklearn.utils.validation import _check_feature_names_in

from certified._data.table import Table
from certified._steps.estimators import ExactTransformer
from certified.base import named_like
from certified.errors import InvalidInput
from certified.preprocessing._quantiles import extremes, extremes_without, sample, sample_without
from certified.typing import FloatArray

__all__ = ["KBinsDiscretizer"]

_NARROW = 1e-8  # bins of this width or less are joined with the next, as in scikit-learn


class KBinsDiscretizer(ExactTransformer):
    """Bin continuous features, exactly deletable.

    Cuts are quantiles of the rows of the `sample_size` subjects with the smallest keyed hash, so that a deletion of
    others changes nothing; or they divide the range of all rows evenly; or they are given. As in scikit-learn, bins
    that are too narrow are joined, so that a deletion may change the number of features; the outermost bins are open,
    because their ends would be values of somebody.

    Parameters
    ----------
    n_bins : int or array-like of shape (n_features,), default=5
        Bins of each feature, at least 2.
    encode : {"onehot-dense", "ordinal"}, default="onehot-dense"
        One column for each bin, or the number of the bin.
    strategy : {"quantile", "uniform"} or list of n_features arrays, default="quantile"
        How cuts are found. A list gives the cuts of each feature, increasing; nothing is learned then.
    quantile_method : str, default="averaged_inverted_cdf"
        Method of :func:`numpy.percentile`.
    sample_size : int, default=10_000
        Subjects in the sample.

    Attributes
    ----------
    bin_edges_ : object array of shape (n_features,)
        Edges of each feature, from -inf to inf.
    n_bins_ : int array of shape (n_features,)

    Examples
    --------
    >>> from certified.preprocessing import KBinsDiscretizer
    >>> binned = KBinsDiscretizer(3, encode="ordinal").fit([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]])
    >>> binned.transform([[-9.0], [2.5], [4.0]])
    array([[0.],
           [1.],
           [2.]])
    """

    def __init__(
        self,
        n_bins: Any = 5,
        *,
        encode: str = "onehot-dense",
        strategy: Any = "quantile",
        quantile_method: str = "averaged_inverted_cdf",
        sample_size: int = 10_000,
    ) -> None:
        self.n_bins = n_bins
        self.encode = encode
        self.strategy = strategy
        self.quantile_method = quantile_method
        self.sample_size = sample_size

    def fit(self, X: Any, y: Any = None, ids: Any = None) -> KBinsDiscretizer:
        """Learn the cuts; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids)

    def _count(self, table: Table) -> Any:
        self._check_parameters(table.x.shape[1])
        table = table.some("KBinsDiscretizer")
        if self.strategy == "quantile":
            return sample(table, self.sample_size, "KBinsDiscretizer")
        return extremes(table) if self.strategy == "uniform" else (table.x.shape[1],)

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        if self.strategy == "quantile":
            return sample_without(statistic, removed)
        return extremes_without(statistic, removed) if self.strategy == "uniform" else statistic

    def _learned_from(self, statistic: Any) -> tuple[FloatArray, ...]:
        """Return the cuts between the bins of each feature."""
        if not isinstance(self.strategy, str):
            return tuple(np.array(cuts, dtype=np.float64) for cuts in self.strategy)
        columns = statistic.values.T if self.strategy == "quantile" else np.transpose(statistic)
        bins = np.broadcast_to(self.n_bins, len(columns))
        return tuple(self._cuts(column, int(k)) for column, k in zip(columns, bins, strict=True))

    def _cuts(self, column: FloatArray, n_bins: int) -> FloatArray:
        """Cuts of one feature: `column` is sorted, a sample or the two extremes."""
        if column[0] == column[-1]:
            return np.empty(0)
        if self.strategy == "uniform":
            return np.linspace(column[0], column[-1], n_bins + 1)[1:-1]
        levels = np.linspace(0, 100, n_bins + 1)
        edges = np.asarray(np.percentile(column, levels, method=self.quantile_method))  # type: ignore[call-overload]
        return edges[np.ediff1d(edges, to_begin=np.inf) > _NARROW][1:-1]

    def _apply(self, learned: tuple[FloatArray, ...], X: FloatArray) -> FloatArray:
        codes = [np.searchsorted(cuts, X[:, j], side="right") for j, cuts in enumerate(learned)]
        if self.encode == "ordinal":
            return np.column_stack(codes).astype(np.float64)
        sizes = [len(cuts) + 1 for cuts in learned]
        out = np.zeros((len(X), sum(sizes)))
        for start, code in zip(np.cumsum([0, *sizes[:-1]]), codes, strict=True):
            out[np.arange(len(X)), start + code] = 1.0
        return out

    def _width(self, learned: tuple[FloatArray, ...], n_features: int) -> int:
        return n_features if self.encode == "ordinal" else sum(len(cuts) + 1 for cuts in learned)

    def _store(self, statistic: Any, learned: tuple[FloatArray, ...]) -> None:
        super()._store(statistic, learned)
        self.bin_edges_ = np.empty(len(learned), dtype=object)
        for j, cuts in enumerate(learned):
            self.bin_edges_[j] = np.concatenate([[-np.inf], cuts, [np.inf]])
        self.n_bins_ = np.array([len(cuts) + 1 for cuts in learned])

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out, "age_0.0", "age_1.0" ... for the bins of "age"."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        if self.encode == "ordinal":
            return names
        pairs = zip(names, self.n_bins_, strict=True)
        return np.array([f"{name}_{float(k)}" for name, size in pairs for k in range(size)], dtype=object)

    def release(self) -> _Plain:
        """Return a plain scikit-learn discretizer with the same cuts; the sample is not in it."""
        self._check_fitted()
        out = _Plain(n_bins=self.n_bins, encode=self.encode, quantile_method=self.quantile_method, subsample=None)
        out.bin_edges_, out.n_bins_ = self.bin_edges_.copy(), self.n_bins_.copy()
        if self.encode != "ordinal":
            encoder = _PlainOneHot(categories=[np.arange(size) for size in self.n_bins_], sparse_output=False)
            out._encoder = encoder.fit(np.zeros((1, len(self.n_bins_))))
        return named_like(out, self)

    def _check_parameters(self, n_features: int) -> None:
        name = type(self).__name__
        if self.encode not in ("onehot-dense", "ordinal"):
            raise InvalidInput(f"{name}(encode={self.encode!r}) is not allowed: 'onehot-dense' or 'ordinal'.")
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
