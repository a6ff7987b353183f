"""Clusters whose centres forget."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, ClusterMixin
from sklearn.cluster import KMeans as _Plain
from threadpoolctl import threadpool_limits

from certified._data.hashing import bottom_k
from certified._data.table import Table
from certified._exact.sums import GroupSums
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactTransformer
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["KMeans", "distances", "lonely"]

_BLOCK = 4096


class _State(NamedTuple):
    """Largest hash in the sample, the centres found on it and the work done, the sums of all rows nearest to each."""

    cut: Any
    first: FloatArray
    n_iter: int
    sums: GroupSums


class KMeans(ClassNamePrefixFeaturesOutMixin, ClusterMixin, Keyed, ExactTransformer):
    """K-means clustering, exact under deletion.

    Lloyd's algorithm runs on the rows of the `sample_size` subjects with the smallest keyed hash. Then every row joins
    the nearest centre found, and the means of these clusters, rounded to about their standard error, are the centres.
    So a deletion outside the sample subtracts from sums, and mostly changes nothing; one inside it runs the algorithm
    again.

    Parameters
    ----------
    n_clusters : int, default=8
    init : {"k-means++", "random"}, default="k-means++"
    n_init : int or "auto", default="auto"
    max_iter : int, default=300
    tol : float, default=1e-4
        As in scikit-learn.
    sample_size : int, default=10_000
        Subjects in the sample.
    key : int or None, default=None
        Key of the hash that chooses the sample and the starting points, 128 bits; None draws one. Inside a pipeline the
        pipeline's is used.

    Attributes
    ----------
    cluster_centers_ : array of shape (n_clusters, n_features)
    n_iter_ : int
        Of the algorithm on the sample.
    inertia_ : float
        Sum of the weighted squared distances of the rows retained to their nearest centres.
    labels_ : int array of shape (n_rows,)
        Cluster of each row held.

    References
    ----------
    Ginart, Guan, Valiant and Zou (2019), Making AI forget you: data deletion in machine learning. Their quantised
    k-means rounds centres for the same reason.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.cluster import KMeans
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = KMeans(3, sample_size=50).fit(X)
    >>> model.delete([1]).certificate.claim
    'exact'
    """

    cluster_centers_: FloatArray

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: str = "k-means++",
        n_init: Any = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.sample_size = sample_size
        self.key = key

    def _made(self, seed: int | None = None) -> _Plain:
        names = ("n_clusters", "init", "n_init", "max_iter", "tol")
        return _Plain(**{name: getattr(self, name) for name in names}, algorithm="lloyd", random_state=seed)

    def _count(self, table: Table) -> _State:
        table = table.some("KMeans")
        if not self.sample_size >= 1:
            raise InvalidInput(f"KMeans(sample_size={self.sample_size!r}) is not allowed: at least 1 subject.")
        cut = bottom_k(table.hashes, self.sample_size)
        inside = table.hashes <= cut
        x, weight, hashes = table.x[inside] + 0.0, table.weight[inside], table.hashes[inside]
        order = np.lexsort((weight, *x.T[::-1], hashes))
        if len(order) < self.n_clusters:
            raise InvalidRequest(
                f"KMeans would see n_samples={len(order)} rows (of its sample), which should be >= "
                f"n_clusters={self.n_clusters}. Nothing was changed."
            )
        with threadpool_limits(limits=1):  # threads would add in an order of their own
            found = self._made(int(hashes.min() >> np.uint64(32))).fit(x[order], sample_weight=weight[order])
        first = found.cluster_centers_
        return _State(
            cut, first, int(found.n_iter_), GroupSums.of(table.x, _nearest(table.x, first), len(first), table.weight)
        )

    def _subtract(self, statistic: _State, removed: Table) -> _State | None:
        cut, first, n_iter, sums = statistic
        if np.any(removed.hashes <= cut):
            return None
        after = sums.subtract(removed.x, _nearest(removed.x, first), removed.weight)
        return None if after is None else _State(cut, first, n_iter, after)

    def _learned_from(self, statistic: _State) -> FloatArray:
        _, first, _, sums = statistic
        centres, weights = first.copy(), sums.weights()
        live = weights > 0
        some = GroupSums(sums.exponents, sums.top, sums.sums[:, :, live])
        error = np.sqrt(some.variances() / weights[live, None])
        exponent = np.frexp(np.where(error > 0, error, 1.0))[1] - 1
        mean = some.means()
        centres[live] = np.where(error > 0, np.ldexp(np.rint(np.ldexp(mean, -exponent)), exponent), mean)
        return centres

    def _apply(self, learned: FloatArray, X: FloatArray) -> FloatArray:
        return np.sqrt(distances(X, learned))

    def _width(self, learned: FloatArray, n_features: int) -> int:
        return len(learned)

    def _store(self, statistic: _State, learned: FloatArray) -> None:
        super()._store(statistic, learned)
        self.cluster_centers_, self.n_iter_ = learned, statistic.n_iter

    @property
    def _n_features_out(self) -> int:
        return len(self.cluster_centers_)

    @property
    def labels_(self) -> IntArray:
        """Cluster of each row held, in the order of ``fit``, shape (n_rows,)."""
        self._check_fitted()
        return _nearest(self._table.x[self._subjects.retained], self.cluster_centers_).astype(np.int32)

    @property
    def inertia_(self) -> float:
        """Sum of the weighted squared distances of the rows retained to their nearest centres."""
        self._check_fitted()
        table = self._table.with_weight()
        return float(table.weight @ distances(table.x, self.cluster_centers_).min(axis=1))

    def fit_predict(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> IntArray:
        """Fit, and return the cluster of each row."""
        return self.fit(X, y, ids=ids, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> IntArray:
        """Return the nearest centre of each row, shape (n_rows,)."""
        self._check_fitted()
        return _nearest(self._validated(X, reset=False), self.cluster_centers_).astype(np.int32)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the sum of squared distances to the nearest centres."""
        self._check_fitted()
        found = distances(self._validated(X, reset=False), self.cluster_centers_).min(axis=1)
        return -float(found.sum() if sample_weight is None else np.asarray(sample_weight) @ found)

    def _release(self) -> _Plain:
        """Return scikit-learn's estimator with the same centres; it holds no training row.

        Raises
        ------
        CannotCertify
            A cluster consists of one row (or of equal ones), which would be its centre.
        """
        self._check_fitted()
        alone = np.flatnonzero(lonely(self._statistic.sums))
        if alone.size:
            raise CannotCertify(
                f"KMeans.release would publish a training row: cluster {alone[0]} consists of one row, or of equal "
                "ones. Ask for fewer clusters. Nothing was released."
            )
        out = self._made()
        out.cluster_centers_, out._n_threads, out.n_iter_ = self.cluster_centers_.copy(), 1, self.n_iter_
        out._n_features_out = len(out.cluster_centers_)
        return named_like(out, self)


def lonely(sums: GroupSums) -> BoolArray:
    """Whether each cluster consists of one row, or of equal ones, so that its centre is a row. Empty ones do not."""
    live = sums.weights() > 0
    out = np.zeros(len(live), dtype=bool)
    out[live] = ~np.any(GroupSums(sums.exponents, sums.top, sums.sums[:, :, live]).variances(), axis=1)
    return out


def distances(X: FloatArray, centres: FloatArray, power: int = 2) -> FloatArray:
    """Return sums of ``|x_j - c_j|^power``; those of a row do not depend on the other rows, not even in rounding."""
    out = np.empty((len(X), len(centres)))
    for start in range(0, len(X), _BLOCK):
        part = np.ascontiguousarray(X[start : start + _BLOCK])
        for k, centre in enumerate(centres):
            total = np.zeros(len(part))
            for j in range(part.shape[1]):
                gap = np.abs(part[:, j] - centre[j])
                total += gap * gap if power == 2 else gap
            out[start : start + _BLOCK, k] = total
    return out


def _nearest(X: FloatArray, centres: FloatArray) -> IntArray:
    return np.argmin(distances(X, centres), axis=1)
