"""Models whose rows are the model: neighbours, and any learner that reads a context when it is asked.

What is learned is the set of rows itself, in an order that the rows alone determine. So deleting is exact for every
estimator that is a function of the rows it is given. Such a model cannot be released, because a release would hold
training rows: serve its predictions instead.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier as _PlainClassifier
from sklearn.neighbors import KNeighborsRegressor as _PlainRegressor

from certified._data.table import Table
from certified._steps.estimators import ExactClassifier, ExactRegressor
from certified._steps.step import ExactStep
from certified.typing import FloatArray

__all__ = ["ContextClassifier", "ContextRegressor", "KNeighborsClassifier", "KNeighborsRegressor"]


class _Context(NamedTuple):
    """Rows sorted by the hash of their subject, then by their values."""

    hashes: Any
    x: FloatArray
    y: Any


class _InContext(ExactStep):
    """Base class: the statistic is the context; the estimator is given it when it is first asked afterwards."""

    classes_: Any
    _validated: Any
    _asked: list[Any]  # the estimator that has read the context, once somebody has asked

    @property
    def _release(self) -> Any:
        raise AttributeError(
            f"{type(self).__name__} has no release, because the rows are the model: it would publish them. Serve its "
            "predictions instead."
        )

    def _made(self) -> Any:
        """Return the estimator that reads the context, unfitted."""
        raise NotImplementedError

    def _count(self, table: Table) -> _Context:
        table = table.some(type(self).__name__)
        x = table.x + 0.0  # -0.0 and 0.0 are one value
        order = np.argsort(table.hashes, kind="stable")
        hashes = table.hashes[order]
        shared = np.flatnonzero(hashes[1:] == hashes[:-1])
        if shared.size:  # rows of one subject, by their values
            order = np.lexsort((table.y, *x.T[::-1], table.hashes))
        return _Context(hashes, x[order], table.y[order])

    def _subtract(self, statistic: _Context, removed: Table) -> _Context | None:
        gone = np.isin(statistic.hashes, removed.hashes)
        if np.count_nonzero(gone) != len(removed.hashes):
            return None  # another subject has the same hash
        return _Context(*(part[~gone] for part in statistic))

    def _learned_from(self, statistic: _Context) -> tuple[int]:
        return (len(statistic.x),)

    def _store(self, statistic: _Context, learned: tuple[int]) -> None:
        super()._store(statistic, learned)
        self._asked = []

    def _ask(self, method: str, X: Any, *args: Any) -> Any:
        self._check_fitted()
        X = self._validated(X, reset=False)
        if not self._asked:
            _, x, y = self._statistic
            self._asked.append(self._made().fit(x, self.classes_[y] if hasattr(self, "classes_") else y))
        return getattr(self._asked[0], method)(X, *args)

    def predict(self, X: Any) -> Any:
        """Return the prediction for each row, shape (n_rows,)."""
        return self._ask("predict", X)


class _Classifier(_InContext, ExactClassifier):
    def _learned_from(self, statistic: _Context) -> tuple[int]:
        self._all_present(np.bincount(statistic.y, minlength=len(self.classes_)).astype(np.float64))
        return super()._learned_from(statistic)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        return self._ask("predict_proba", X)


class ContextClassifier(_Classifier):
    """A classifier that reads its training rows when it is asked, exact under deletion.

    When it is next asked after a deletion, the estimator is given the retained rows, in the order that a fit on these
    would give them. So this is exact for every estimator whose ``fit`` is a function of the rows in their order, and
    pays where ``fit`` does little more than keep them: neighbours, kernel methods, in-context learners for tables.

    Parameters
    ----------
    estimator : estimator
        With ``fit`` and ``predict``; deterministic, so with a fixed ``random_state`` if it has one.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import RadiusNeighborsClassifier
    >>> from certified.neighbors import ContextClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = ContextClassifier(RadiusNeighborsClassifier(2.0)).fit(X, y)
    >>> model.delete([0]).certificate.claim
    'exact'
    """

    _reentrant = False  # the estimator may be anybody's

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, ids: Any = None) -> ContextClassifier:
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids)

    def _made(self) -> Any:
        return clone(self.estimator)


class ContextRegressor(_InContext, ExactRegressor):
    """A regressor that reads its training rows when it is asked; see :class:`ContextClassifier`.

    Parameters
    ----------
    estimator : estimator
    """

    _reentrant = False  # the estimator may be anybody's

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def fit(self, X: Any, y: Any, ids: Any = None) -> ContextRegressor:
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids)

    def _made(self) -> Any:
        return clone(self.estimator)


class _Neighbors(_InContext):
    """The parameters, those of scikit-learn."""

    _plain_class: Any

    def __init__(
        self,
        n_neighbors: int = 5,
        *,
        weights: Any = "uniform",
        algorithm: str = "auto",
        leaf_size: int = 30,
        p: float = 2,
        metric: Any = "minkowski",
        metric_params: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.algorithm = algorithm
        self.leaf_size = leaf_size
        self.p = p
        self.metric = metric
        self.metric_params = metric_params
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, ids: Any = None) -> Any:
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids)

    def _made(self) -> Any:
        return self._plain_class(**self.get_params(deep=False))

    def kneighbors(self, X: Any, n_neighbors: int | None = None) -> FloatArray:
        """Return the distances of the nearest neighbours, shape (n_rows, n_neighbors). Who they are stays private."""
        return self._ask("kneighbors", X, n_neighbors)[0]


class KNeighborsClassifier(_Neighbors, _Classifier):
    """Vote of the nearest neighbours, exact under deletion.

    Parameters
    ----------
    n_neighbors, weights, algorithm, leaf_size, p, metric, metric_params, n_jobs
        As in :class:`sklearn.neighbors.KNeighborsClassifier`. Where neighbours are equally far, the hashes of the
        subjects decide the order in which they are searched.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.

    Notes
    -----
    There is no ``release``: the rows are the model. After a deletion the index is built again at the next query.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.neighbors import KNeighborsClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = KNeighborsClassifier(1).fit(X, y)
    >>> _ = model.delete([70])
    >>> y[70], model.predict(X[70:71])[0]
    (np.int64(1), np.int64(2))
    """

    _plain_class = _PlainClassifier


class KNeighborsRegressor(_Neighbors, _InContext, ExactRegressor):
    """Mean of the nearest neighbours, exact under deletion.

    Parameters
    ----------
    n_neighbors, weights, algorithm, leaf_size, p, metric, metric_params, n_jobs
        As in :class:`KNeighborsClassifier`.

    Attributes
    ----------
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.
    """

    _plain_class = _PlainRegressor
