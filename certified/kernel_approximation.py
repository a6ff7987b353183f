"""Kernel features whose landmarks forget."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.linalg import svd
from sklearn.base import ClassNamePrefixFeaturesOutMixin
from sklearn.kernel_approximation import Nystroem as _Plain

from certified._data.reproducible import one_thread, project
from certified._data.table import Table
from certified._keeper.keyed import Keyed
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactTransformer
from certified.cluster import KMeans, distances, lonely
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Nystroem"]

_LEAST = 1e-12  # smallest singular value used, as in scikit-learn


class Nystroem(ClassNamePrefixFeaturesOutMixin, Keyed, ExactTransformer):
    """Nystroem features of a kernel, exactly deletable; with a linear model behind them, a kernel machine.

    Landmarks are the centres of :class:`certified.cluster.KMeans`, rounded means of clusters of rows, instead of rows:
    that represents the data better, a deletion seldom changes them, and a release holds no row. Clusters that consist
    of one row, or of equal ones, are left out, so that there may be fewer features than asked for.

    Parameters
    ----------
    kernel : {"rbf", "laplacian", "polynomial"}, default="rbf"
        ``exp(-gamma |x - z|^2)``, ``exp(-gamma |x - z|_1)`` or ``(gamma x'z + coef0)^degree``.
    gamma, coef0, degree : float or None, default=None
        None stands for ``1 / n_features``, 1 and 3.
    n_components : int, default=100
        Clusters to form.
    sample_size : int, default=10_000
        Subjects in the sample on which the clusters are found.
    key : int or None, default=None
        Key of the hash that chooses the sample and the starting points; see :class:`certified.cluster.KMeans`.

    Attributes
    ----------
    components_ : array of shape (n_landmarks, n_features)
    normalization_ : array of shape (n_landmarks, n_landmarks)

    References
    ----------
    Zhang, Tsang and Kwok (2008), Improved Nystroem low-rank approximation and error analysis.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.kernel_approximation import Nystroem
    >>> from certified.linear_model import LogisticRegression
    >>> from certified.pipeline import make_pipeline
    >>> from certified.preprocessing import RobustScaler
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = make_pipeline(RobustScaler(), Nystroem(gamma=0.05, n_components=30), LogisticRegression()).fit(X, y)
    >>> model.delete([3]).certificate.scope
    'pipeline'
    """

    components_: FloatArray

    def __init__(
        self,
        kernel: str = "rbf",
        *,
        gamma: float | None = None,
        coef0: float | None = None,
        degree: float | None = None,
        n_components: int = 100,
        sample_size: int = 10_000,
        key: int | None = None,
    ) -> None:
        self.kernel = kernel
        self.gamma = gamma
        self.coef0 = coef0
        self.degree = degree
        self.n_components = n_components
        self.sample_size = sample_size
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Find the landmarks; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _clusters(self, n_clusters: int) -> KMeans:
        return KMeans(n_clusters, sample_size=self.sample_size)

    def _count(self, table: Table) -> Any:
        n = self.n_components
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
            raise InvalidInput(f"Nystroem(n_components={n!r}) is not allowed: a whole number >= 1.")
        if self.kernel not in ("rbf", "laplacian", "polynomial"):
            raise InvalidInput(f"Nystroem(kernel={self.kernel!r}) is not allowed: 'rbf', 'laplacian' or 'polynomial'.")
        return self._clusters(int(n))._count(table.some("Nystroem"))

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        return self._clusters(self.n_components)._subtract(statistic, removed)

    @one_thread
    def _learned_from(self, statistic: Any) -> tuple[FloatArray, FloatArray]:
        landmarks = self._clusters(self.n_components)._learned_from(statistic)[~lonely(statistic.sums)]
        if not len(landmarks):
            raise InvalidInput(
                "Nystroem found no cluster of two different rows (it sees one sample, or each is alone), so there is "
                "nothing to take for a landmark. Ask for fewer components. Nothing was changed."
            )
        u, s, vt = svd(self._similarity(landmarks, landmarks))
        return landmarks, (u / np.sqrt(np.maximum(s, _LEAST))) @ vt

    def _similarity(self, X: FloatArray, landmarks: FloatArray) -> FloatArray:
        """Return the kernel between rows and landmarks; that of a row does not depend on the other rows."""
        gamma = 1.0 / X.shape[1] if self.gamma is None else self.gamma
        if self.kernel == "polynomial":
            coef0, degree = (1.0 if self.coef0 is None else self.coef0), (3 if self.degree is None else self.degree)
            return (gamma * project(X, landmarks) + coef0) ** degree
        return np.exp(-gamma * distances(X, landmarks, power=2 if self.kernel == "rbf" else 1))

    def _apply(self, learned: tuple[FloatArray, FloatArray], X: FloatArray) -> FloatArray:
        landmarks, normalization = learned
        return project(self._similarity(X, landmarks), normalization)

    def _width(self, learned: tuple[FloatArray, FloatArray], n_features: int) -> int:
        return len(learned[0])

    def _store(self, statistic: Any, learned: tuple[FloatArray, FloatArray]) -> None:
        super()._store(statistic, learned)
        self.components_, self.normalization_ = learned

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    def _release(self) -> _Plain:
        """Return a plain scikit-learn transformer with the same landmarks; it holds no training row."""
        self._check_fitted()
        names = ("kernel", "gamma", "coef0", "degree")
        out = _Plain(n_components=len(self.components_), **{name: getattr(self, name) for name in names})
        out.components_, out.normalization_ = self.components_.copy(), self.normalization_.copy()
        out.component_indices_ = np.arange(len(self.components_))
        out._n_features_out = len(self.components_)
        return named_like(out, self)
