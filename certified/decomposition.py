"""Principal components from exact sums."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from scipy.linalg import eigh
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.decomposition import PCA as _Plain
from sklearn.utils import check_array

from certified._data.hashing import bottom_k
from certified._data.reproducible import one_thread, project
from certified._data.table import Table
from certified._exact.moments import Moments
from certified._exact.over_parts import products_over
from certified._exact.sums import Products
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactTransformer
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.typing import FloatArray

__all__ = ["PCA"]


class _Sums(NamedTuple):
    """Largest hash in the sample, and the sums over its rows."""

    cut: Any
    products: Products


class PCA(ClassNamePrefixFeaturesOutMixin, Keyed, ExactTransformer):
    """Principal component analysis, exact under deletion.

    The components are eigenvectors of the covariance matrix, a function of exact sums. Every deletion changes them, and
    with them the features of the steps behind. With ``sample_size`` they are those of the rows of the subjects with
    the smallest keyed hash, and a deletion of others changes nothing.

    Parameters
    ----------
    n_components : int, float in (0, 1) or None, default=None
        How many; the least number whose share of the variance exceeds this; all.
    copy : bool, default=True
        Accepted for scikit-learn's sake: rows are always copied.
    whiten : bool, default=False
        Whether to divide by the standard deviation of each component.
    svd_solver, tol, iterated_power, n_oversamples, power_iteration_normalizer, random_state
        Accepted for scikit-learn's sake. There is one way here: eigenvectors of the exact covariance matrix, which is
        that of svd_solver="covariance_eigh"; nothing is approximated or drawn.
    sample_size : int or None, default=None
        Subjects in the sample; None for all.
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one. Inside a pipeline the pipeline's is used.

    Attributes
    ----------
    components_ : array of shape (n_components, n_features)
        The entry of largest absolute value of each is positive.
    explained_variance_, explained_variance_ratio_, singular_values_ : arrays of shape (n_components,)
    mean_ : array of shape (n_features,)
    n_components_ : int
    noise_variance_ : float
        Mean variance of the components left out.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.decomposition import PCA
    >>> X, _ = load_iris(return_X_y=True)
    >>> PCA(2).fit(X).explained_variance_ratio_.round(3)
    array([0.925, 0.053])
    """

    components_: FloatArray

    def __init__(
        self,
        n_components: Any = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: str = "auto",
        tol: float = 0.0,
        iterated_power: Any = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: str = "auto",
        random_state: Any = None,
        sample_size: int | None = None,
        key: int | None = None,
    ) -> None:
        self.n_components = n_components
        self.copy = copy
        self.whiten = whiten
        self.svd_solver = svd_solver
        self.tol = tol
        self.iterated_power = iterated_power
        self.n_oversamples = n_oversamples
        self.power_iteration_normalizer = power_iteration_normalizer
        self.random_state = random_state
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Learn the components; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _count(self, table: Table) -> _Sums:
        table = table.some("PCA")
        self._number(np.ones(table.x.shape[1]))
        k = len(table.x) if self.sample_size is None else self.sample_size
        if not k >= 1:
            raise InvalidInput(f"PCA(sample_size={self.sample_size!r}) is not allowed: at least 1, or None.")
        cut = np.array(2**64 - 1, dtype=np.uint64) if self.sample_size is None else bottom_k(table.hashes, k)
        x = table.x if self.sample_size is None else table.x[table.hashes <= cut]
        return _Sums(cut, Products.of(_with_ones(x), limbs=2))

    def _count_over(self, rows: PartedTable) -> _Sums:
        self._number(np.ones(rows.x.shape[1]))
        if self.sample_size is not None:
            return super()._count_over(rows)
        cut = np.array(2**64 - 1, dtype=np.uint64)
        return _Sums(cut, products_over(rows.unweighted(), _columns, limbs=2))

    def _subtract(self, statistic: _Sums, removed: Table) -> _Sums | None:
        if self.sample_size is not None:
            return None if np.any(removed.hashes <= statistic.cut) else statistic
        products = statistic.products.subtract(_with_ones(removed.x), np.ones(len(removed.x)))  # weights are not used
        return None if products is None else _Sums(statistic.cut, products)

    @one_thread
    def _learned_from(self, statistic: _Sums) -> dict[str, Any]:
        d = len(statistic.products.exponents) - 1
        moments = Moments(statistic.products, d, centre=True)
        n_rows = round(float(np.ldexp(float(moments.weight), 2 * int(moments.unit[-1]))))
        if n_rows < 2:
            raise InvalidInput(
                f"PCA would see n_samples = {n_rows}: two rows (of its sample) are needed. Nothing was changed."
            )
        covariance = moments.covariance() * (n_rows / (n_rows - 1))
        values, vectors = eigh(covariance.astype(np.float64))
        values, vectors = np.maximum(values[::-1], 0.0), vectors.T[::-1]
        values, vectors = values[: min(d, n_rows)], vectors[: min(d, n_rows)]
        largest = np.argmax(np.abs(vectors), axis=1)
        vectors = vectors * np.sign(vectors[np.arange(len(vectors)), largest])[:, None]
        k, total = self._number(values), float(np.trace(covariance))
        rest = values[k:]
        return {
            "components_": vectors[:k].copy(),
            "explained_variance_": values[:k].copy(),
            "explained_variance_ratio_": values[:k] / total if total > 0 else np.zeros(k),
            "singular_values_": np.sqrt(values[:k] * (n_rows - 1)),
            "mean_": moments.mean.astype(np.float64),
            "n_components_": k,
            "n_samples_": n_rows,
            "noise_variance_": float(rest.mean()) if rest.size else 0.0,
        }

    def _number(self, values: FloatArray) -> int:
        """Return how many components are asked for, given all variances."""
        asked = self.n_components
        if asked is None:
            return len(values)
        if isinstance(asked, int | np.integer) and not isinstance(asked, bool) and asked >= 1:
            if asked <= len(values):
                return int(asked)
            raise InvalidInput(
                f"PCA(n_components={asked}) is more than {len(values)}, the smaller one of rows and features. "
                "Nothing was changed."
            )
        if isinstance(asked, float) and 0.0 < asked < 1.0:
            share = np.cumsum(values) / max(values.sum(), np.finfo(np.float64).tiny)
            return min(int(np.searchsorted(share, asked, side="right")) + 1, len(values))
        raise InvalidInput(f"PCA(n_components={asked!r}) is not allowed: a count, a share in (0, 1) or None.")

    def _apply(self, learned: dict[str, Any], X: FloatArray) -> FloatArray:
        out = project(X - learned["mean_"], learned["components_"])
        return out / _scale(learned) if self.whiten else out

    def _width(self, learned: dict[str, Any], n_features: int) -> int:
        return learned["n_components_"]

    def _store(self, statistic: _Sums, learned: dict[str, Any]) -> None:
        super()._store(statistic, learned)
        for name, value in learned.items():
            setattr(self, name, value)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def inverse_transform(self, X: Any) -> FloatArray:
        """Return rows of the original features, shape (n_rows, n_features)."""
        self._check_fitted()
        X = check_array(X, dtype=np.float64, estimator=self)
        if X.shape[1] != self.n_components_:
            raise InvalidInput(f"PCA.inverse_transform got {X.shape[1]} components. {self.n_components_} are needed.")
        return (X * _scale(self._learned) if self.whiten else X) @ self.components_ + self._learned["mean_"]

    def get_covariance(self) -> FloatArray:
        """Return the covariance matrix of the model with this many components and noise, (n_features, n_features)."""
        return self._model().get_covariance()

    def get_precision(self) -> FloatArray:
        """Return the inverse of :meth:`get_covariance`."""
        return self._model().get_precision()

    def score_samples(self, X: Any) -> FloatArray:
        """Return the log-likelihood of each row under the model of :meth:`get_covariance`, shape (n_rows,)."""
        self._check_fitted()
        return self._model().score_samples(self._validated(X, reset=False))

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of :meth:`score_samples`."""
        return float(np.mean(self.score_samples(X)))

    def _model(self) -> _Plain:
        """Return scikit-learn's estimator with what was learned, without names."""
        self._check_fitted()
        out = _Plain(n_components=self.n_components, whiten=self.whiten)
        out.n_features_in_ = self.n_features_in_
        for name, value in self._learned.items():
            setattr(out, name, value)
        return out

    def _release(self) -> _Plain:
        """Return a plain scikit-learn PCA with the same components; it holds no training row."""
        self._check_fitted()
        out = _Plain(n_components=self.n_components, whiten=self.whiten)
        for name, value in self._learned.items():
            setattr(out, name, value.copy() if isinstance(value, np.ndarray) else value)
        return named_like(out, self)


def _scale(learned: dict[str, Any]) -> FloatArray:
    """Standard deviation of each component, not below rounding, as scikit-learn divides by it."""
    return np.maximum(np.sqrt(learned["explained_variance_"]), np.finfo(np.float64).eps)


def _with_ones(x: FloatArray) -> FloatArray:
    return np.column_stack([x, np.ones(len(x))])


def _columns(table: Table, weight: Any) -> FloatArray:
    return _with_ones(table.x)
