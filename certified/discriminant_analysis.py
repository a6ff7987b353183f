"""Linear discriminant analysis from exact sums."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, eigh
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis as _Plain
from sklearn.utils.extmath import softmax

from certified._data.reproducible import one_thread, project
from certified._data.table import Table
from certified._exact.moments import Moments
from certified._exact.over_parts import products_over
from certified._exact.sums import Products
from certified._keeper.plain import named_like
from certified._steps.estimators import ExactClassifier
from certified.errors import CannotCertify, InvalidInput
from certified.parts._table import PartedTable
from certified.typing import FloatArray

__all__ = ["LinearDiscriminantAnalysis"]

_LEAST = 1e-12  # smallest eigenvalue of the correlation matrix inside classes that float64 can work with


class LinearDiscriminantAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ExactClassifier):
    """Linear discriminant analysis, exact under deletion: a classifier and a supervised projection.

    The covariance inside the classes is divided by the number of rows, as scikit-learn does as of 1.9 (before, its
    default solver subtracted the number of classes).

    Parameters
    ----------
    solver : {"svd", "lsqr", "eigen"}, default="svd"
        Accepted for scikit-learn's sake: there is one way here, from exact sums, to what all of them compute. It takes
        `shrinkage` and transforms whichever is named.
    priors : array-like of shape (n_classes,) or None, default=None
        Probabilities of the classes; None for their shares of the rows.
    n_components : int or None, default=None
        Directions that ``transform`` keeps, at most ``min(n_classes - 1, n_features)``.
    shrinkage : float in [0, 1] or None, default=None
        The covariance is moved this far towards a multiple of the identity with the same trace.
    store_covariance : bool, default=False
        Accepted for scikit-learn's sake: ``covariance_`` is always there.
    tol : float, default=1e-4
        Accepted for scikit-learn's sake: features that depend on each other inside the classes are refused.
    covariance_estimator : None
        Another estimator is refused, since it would have to see the rows.

    Attributes
    ----------
    classes_, priors_ : arrays of shape (n_classes,)
    means_ : array of shape (n_classes, n_features)
    covariance_ : array of shape (n_features, n_features)
        Inside the classes.
    coef_ : array of shape (1, n_features) or (n_classes, n_features)
    intercept_ : array of shape (1,) or (n_classes,)
    scalings_ : array of shape (n_features, rank)
        The entry of largest absolute value of each direction is positive.
    explained_variance_ratio_ : array
    xbar_ : array of shape (n_features,)
        Mean of the classes by their priors.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.discriminant_analysis import LinearDiscriminantAnalysis
    >>> X, y = load_iris(return_X_y=True)
    >>> model = LinearDiscriminantAnalysis().fit(X, y)
    >>> _ = model.delete(range(5))
    >>> model.state_digest_ == LinearDiscriminantAnalysis().fit(X[5:], y[5:]).state_digest_
    True
    """

    coef_: FloatArray
    intercept_: FloatArray

    def __init__(
        self,
        *,
        solver: str = "svd",
        shrinkage: float | None = None,
        priors: Any = None,
        n_components: int | None = None,
        store_covariance: bool = False,
        tol: float = 1e-4,
        covariance_estimator: None = None,
    ) -> None:
        self.solver = solver
        self.shrinkage = shrinkage
        self.priors = priors
        self.n_components = n_components
        self.store_covariance = store_covariance
        self.tol = tol
        self.covariance_estimator = covariance_estimator

    def fit(self, X: Any, y: Any, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Fit on all rows; ``ids`` names the subject of each, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _columns(self, table: Table) -> FloatArray:
        return _with_classes(table, None, len(self.classes_))

    def _count(self, table: Table) -> Products:
        table = table.some("LinearDiscriminantAnalysis")
        self._check_parameters(table.x.shape[1])
        return Products.of(self._columns(table), limbs=2)

    def _count_over(self, rows: PartedTable) -> Products:
        self._check_parameters(rows.x.shape[1])
        return products_over(rows.unweighted(), _with_classes, len(self.classes_), limbs=2)

    def _subtract(self, statistic: Products, removed: Table) -> Products | None:
        return statistic.subtract(self._columns(removed), np.ones(len(removed.x)))  # weights are not used

    @one_thread
    def _learned_from(self, statistic: Products) -> dict[str, Any]:
        k = len(self.classes_)
        d = len(statistic.exponents) - k - 1
        moments = Moments(statistic, d, centre=True)
        mean, share = moments.mean[:d].astype(np.float64), self._all_present(moments.mean[d:].astype(np.float64))
        n_rows = round(float(np.ldexp(float(moments.weight), 2 * int(moments.unit[-1]))))
        if n_rows <= k:
            raise InvalidInput(
                f"The number of samples ({n_rows}) must be more than the number of classes ({k}) for "
                "LinearDiscriminantAnalysis. Nothing was changed."
            )
        both = moments.covariance()  # of [X, indicators of the classes]
        shift = (both[:d, d:] / share).T  # class means about the mean of all, (k, d)
        within = both[:d, :d] - (shift.T * share) @ shift
        within = within.astype(np.float64)
        if self.shrinkage is not None:
            identity = np.trace(within) / d * np.eye(d)
            within = (1.0 - self.shrinkage) * within + self.shrinkage * identity
        priors = share / share.sum() if self.priors is None else np.asarray(self.priors, dtype=np.float64)
        about = shift.astype(np.float64)
        centre = priors @ about  # from the mean of all to the mean by the priors
        spread = np.sqrt(priors)[:, None] * (about - centre)
        values, vectors = self._directions(within, spread)
        coef, shares = (about - centre) @ vectors, values / values.sum() if values.sum() > 0 else values
        intercept = -0.5 * np.sum(coef**2, axis=1) + np.log(priors)
        coef = coef @ vectors.T
        xbar = mean + centre
        intercept = intercept - coef @ xbar
        if k == 2:
            coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        most = min(k - 1, d) if self.n_components is None else int(self.n_components)
        return {
            "priors_": priors,
            "means_": mean + about,
            "xbar_": xbar,
            "covariance_": within,
            "scalings_": vectors,
            "explained_variance_ratio_": shares[:most].copy(),
            "coef_": coef,
            "intercept_": intercept,
            "_max_components": most,
        }

    @one_thread
    def _directions(self, within: FloatArray, spread: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return variances between the classes and directions, (d, rank), in units of the covariance inside them."""
        scale = np.sqrt(np.diag(within))
        live = scale > 0
        flat = np.flatnonzero(~live)
        if flat.size:
            raise CannotCertify(
                f"LinearDiscriminantAnalysis found that feature {flat[0]} does not vary inside the classes. Remove it, "
                "or set shrinkage=. Nothing was changed."
            )
        correlation = within / scale[:, None] / scale[None, :]
        try:
            least = eigh(correlation, eigvals_only=True, subset_by_index=[0, 0])[0]
            if least < _LEAST:
                raise LinAlgError
            between = (spread / scale).T @ (spread / scale)
            values, vectors = eigh(between, correlation)
        except LinAlgError:
            raise CannotCertify(
                "LinearDiscriminantAnalysis found linearly dependent features inside the classes, so the directions "
                "are not unique in float64. Remove derived columns, or set shrinkage=. Nothing was changed."
            ) from None
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1] / scale[:, None]
        rank = min(len(spread) - 1, len(scale))
        values, vectors = values[:rank], vectors[:, :rank]
        largest = np.argmax(np.abs(vectors), axis=0)
        return values, vectors * np.sign(vectors[largest, np.arange(rank)])

    def _check_parameters(self, n_features: int) -> None:
        k, name = len(self.classes_), type(self).__name__
        if self.solver not in ("svd", "lsqr", "eigen"):
            raise InvalidInput(f"{name}(solver={self.solver!r}) is not allowed: 'svd', 'lsqr' or 'eigen'.")
        if self.covariance_estimator is not None:
            raise InvalidInput(
                f"{name}(covariance_estimator=...) is not allowed: it would have to see the rows, and only sums of "
                "them can be subtracted from. Use shrinkage= for a covariance that is smoothed."
            )
        if self.priors is not None:
            priors = np.asarray(self.priors, dtype=np.float64)
            if priors.shape != (k,) or not np.all(priors > 0) or not np.isclose(priors.sum(), 1.0):
                raise InvalidInput(
                    f"{name}(priors=...) is not allowed: {k} probabilities > 0 with the sum 1 are needed."
                )
        most = min(k - 1, n_features)
        if self.n_components is not None and not 1 <= self.n_components <= most:
            raise InvalidInput(
                f"{name}(n_components={self.n_components!r}) is not allowed: 1 to min(n_features, n_classes - 1) = "
                f"{most}."
            )
        if self.shrinkage is not None and not (
            isinstance(self.shrinkage, float | int) and 0.0 <= self.shrinkage <= 1.0
        ):
            raise InvalidInput(
                f"{name}(shrinkage={self.shrinkage!r}) is not allowed: a number in [0, 1], or None. 'auto' needs sums "
                "that are not kept."
            )

    def _apply(self, learned: dict[str, Any], X: FloatArray) -> FloatArray:
        return project(X - learned["xbar_"], learned["scalings_"][:, : learned["_max_components"]].T)

    def _width(self, learned: dict[str, Any], n_features: int) -> int:
        return learned["_max_components"]

    def _store(self, statistic: Products, learned: dict[str, Any]) -> None:
        super()._store(statistic, learned)
        for name, value in learned.items():
            setattr(self, name, value)

    @property
    def _n_features_out(self) -> int:
        return self._learned["_max_components"]

    def transform(self, X: Any) -> FloatArray:
        """Return the rows along the directions, shape (n_rows, n_components)."""
        self._check_fitted()
        return self._apply(self._learned, self._validated(X, reset=False))

    def fit_transform(self, X: Any, y: Any = None, *, ids: Any = None) -> FloatArray:
        """Fit, and return the transformed rows."""
        return self.fit(X, y, ids=ids).transform(X)

    def decision_function(self, X: Any) -> FloatArray:
        """Return the log odds of the second class, shape (n_rows,), or a score for each class."""
        self._check_fitted()
        scores = self._validated(X, reset=False) @ self.coef_.T + self.intercept_
        return scores.ravel() if len(self.classes_) == 2 else scores

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, shape (n_rows,)."""
        scores = self.decision_function(X)
        codes = (scores > 0).astype(np.int64) if scores.ndim == 1 else scores.argmax(axis=1)
        return self.classes_[codes]

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        scores = self.decision_function(X)
        return softmax(np.column_stack([np.zeros(len(scores)), scores]) if scores.ndim == 1 else scores)

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithm of the probability of each class, shape (n_rows, n_classes)."""
        return np.log(np.maximum(self.predict_proba(X), np.finfo(np.float64).smallest_normal))

    def _release(self) -> _Plain:
        """Return scikit-learn's estimator with the same parameters; it holds no training row."""
        self._check_fitted()
        out = _Plain(priors=self.priors, n_components=self.n_components)
        for name, value in {"classes_": self.classes_, **self._learned}.items():
            setattr(out, name, value.copy() if isinstance(value, np.ndarray) else value)
        out._n_features_out = len(self.get_feature_names_out())
        return named_like(out, self)


def _with_classes(table: Table, weight: Any, n_classes: int) -> FloatArray:
    """The columns that are summed: features, indicators of the classes, ones."""
    member = (table.y[:, None] == np.arange(n_classes)).astype(np.float64)
    return np.column_stack([table.x, member, np.ones(len(table.x))])
