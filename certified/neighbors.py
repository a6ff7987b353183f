"""Models whose rows are the model: neighbours, and any learner that reads a context when it is asked.

What is learned is the set of rows itself, in an order that the rows alone determine. So deleting is exact for every
estimator that is a function of the rows it is given. Such a model cannot be released, because a release would hold
training rows: serve its predictions instead.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import clone
from sklearn.neighbors import KNeighborsClassifier as _PlainClassifier
from sklearn.neighbors import KNeighborsRegressor as _PlainRegressor
from sklearn.utils import check_array

from certified._data.hashing import subject_hash
from certified._data.row_order import row_digests
from certified._data.table import Table
from certified._keeper.probabilities import LogProbabilities
from certified._steps.estimators import ExactClassifier, ExactRegressor
from certified._steps.step import ExactStep
from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["ContextClassifier", "ContextRegressor", "KNeighborsClassifier", "KNeighborsRegressor"]

_STRIDE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that counts below 2^64 give different words


class _Context(NamedTuple):
    """Rows in an order that their content decides: equal rows are counted, and a hash of row and count sorts."""

    first: Any  # two words that name the content of a row
    second: Any
    copy: IntArray  # how many equal rows come before it
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
        first, second = row_digests(x, table.y)
        count = _among_equals(first, second)
        order = np.lexsort((second, first, _place(first, count)))
        return _Context(first[order], second[order], count[order], x[order], table.y[order])

    def _subtract(self, statistic: _Context, removed: Table) -> _Context | None:
        """Of equal rows, those that come last go."""
        gone: Counter[tuple[int, int]] = Counter(
            zip(*(part.tolist() for part in row_digests(removed.x + 0.0, removed.y)), strict=True)
        )
        wanted = np.fromiter((first for first, _ in gone), dtype=np.uint64, count=len(gone))
        spots = np.flatnonzero(np.isin(statistic.first, wanted))
        stays = np.ones(len(statistic.x), dtype=bool)
        for spot in spots[np.argsort(-statistic.copy[spots], kind="stable")].tolist():
            content = int(statistic.first[spot]), int(statistic.second[spot])
            if gone[content] > 0:
                gone[content] -= 1
                stays[spot] = False
        if +gone:
            return None
        first, second, copy, x, y = statistic
        return _Context(first[stays], second[stays], copy[stays], x[stays], y[stays])

    def _learned_from(self, statistic: _Context) -> tuple[int]:
        return (len(statistic.x),)

    def _store(self, statistic: _Context, learned: tuple[int]) -> None:
        super()._store(statistic, learned)
        self._asked = []

    def _ask(self, method: str, X: Any, *args: Any) -> Any:
        self._check_fitted()
        X = None if X is None else self._validated(X, reset=False)
        if not self._asked:
            context = self._statistic
            self._asked.append(self._made().fit(context.x, self._labels(context.y)))
        return getattr(self._asked[0], method)(X, *args)

    def _labels(self, y: Any) -> Any:
        """Return targets as the estimator is given them."""
        return y

    def predict(self, X: Any) -> Any:
        """Return the prediction for each row, shape (n_rows,)."""
        return self._ask("predict", X)


class _Classifier(LogProbabilities, _InContext, ExactClassifier):
    def _learned_from(self, statistic: _Context) -> tuple[int]:
        self._all_present(np.bincount(statistic.y, minlength=len(self.classes_)).astype(np.float64))
        return super()._learned_from(statistic)

    def _labels(self, y: Any) -> Any:
        return self.classes_[y]

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        return self._ask("predict_proba", X)


def _among_equals(first: Any, second: Any) -> IntArray:
    """Return for each row how many rows of the same content come before it."""
    order = np.lexsort((second, first))
    a, b = first[order], second[order]
    fresh = np.ones(len(order), dtype=bool)
    fresh[1:] = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    starts = np.flatnonzero(fresh)
    count = np.empty(len(order), dtype=np.int64)
    count[order] = np.arange(len(order)) - starts[np.cumsum(fresh) - 1]
    return count


def _place(first: Any, count: IntArray) -> Any:
    """Return the hash that orders rows, so that among equally near rows each is as likely to be searched first."""
    return subject_hash((first + _STRIDE * count.astype(np.uint64)).view(np.int64))


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

    def fit(self, X: Any, y: Any, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

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

    def fit(self, X: Any, y: Any, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

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

    def fit(self, X: Any, y: Any, *, ids: Any = None) -> Self:
        """Keep the rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _ready(self) -> None:
        super()._ready()
        if isinstance(self.metric, str) and self.metric == "precomputed":
            raise InvalidInput(
                f'{type(self).__name__}(metric="precomputed") is not allowed: distances to a deleted row would stay in '
                "the columns of the others. Give the rows themselves, and a metric or a function as `metric`."
            )

    def _made(self) -> Any:
        return self._plain_class(**self.get_params(deep=False))

    def kneighbors(self, X: Any = None, n_neighbors: int | None = None, return_distance: bool = True) -> Any:
        """Return the distances of the nearest neighbours and who they are, each of shape (n_rows, n_neighbors).

        Who they are is private: it points to rows retained.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features), or None
            None asks for the neighbours of each row retained, itself left out.
        n_neighbors : int or None, default=None
            None takes the parameter.
        return_distance : bool, default=True
            Whether to return the distances too.

        Returns
        -------
        distances : float array, if asked for
        indices : int array
            Positions among the rows retained, in the order of the fit.
        """
        distances, spots = self._ask("kneighbors", X, n_neighbors)
        order = self._order()
        rows = slice(None) if X is not None else np.argsort(order)
        return (distances[rows], order[spots[rows]]) if return_distance else order[spots[rows]]

    def kneighbors_graph(self, X: Any = None, n_neighbors: int | None = None, mode: str = "connectivity") -> Any:
        """Return the graph of the nearest neighbours, a sparse matrix of shape (n_rows, n_rows_retained).

        Private, as :meth:`kneighbors`. `mode` is "connectivity" or "distance".
        """
        graph, back = self._ask("kneighbors_graph", X, n_neighbors, mode), np.argsort(self._order())
        return (graph if X is not None else graph[back])[:, back]

    def _order(self) -> IntArray:
        """Return the position, among the rows retained, of each row of the context; equal rows may be exchanged."""
        table = self._table
        first, second = row_digests(table.x + 0.0, table.y)
        held = np.flatnonzero(self._subjects.retained)
        count = _among_equals(first[held], second[held])
        return np.lexsort((second[held], first[held], _place(first[held], count)))


class KNeighborsClassifier(_Neighbors, _Classifier):  # type: ignore[misc]
    """Vote of the nearest neighbours, exact under deletion.

    Parameters
    ----------
    n_neighbors, weights, algorithm, leaf_size, p, metric, metric_params, n_jobs
        As in :class:`sklearn.neighbors.KNeighborsClassifier`. Where neighbours are equally far, a hash of the rows
        decides the order in which they are searched.

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


class KNeighborsRegressor(_Neighbors, _InContext, ExactRegressor):  # type: ignore[misc]
    """Mean of the nearest neighbours, exact under deletion. Several targets are allowed.

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

    def _target(self, y: Any, n_rows: int) -> FloatArray:
        values = y if y is None or issparse(y) else np.asarray(y)
        if values is None or getattr(values, "ndim", 1) != 2 or values.shape[1] == 1:
            return super()._target(y, n_rows)
        return np.array(check_array(values, dtype=np.float64, input_name="y"))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
