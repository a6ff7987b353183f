"""Naive Bayes from exact sums: after a deletion the state is bit for bit that of a refit.

The parameters are functions of exact integer sums of the rows of each class, so a deletion subtracts; see
``docs/theory/exact.rst``. A release publishes these sums' means, without noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn import naive_bayes as plain
from sklearn.base import clone

from certified._data.frames import values_of
from certified._data.table import Table
from certified._exact.over_parts import group_sums_over
from certified._exact.sums import GroupSums
from certified._keeper.partial_fit import PartialFit
from certified._keeper.plain import named_like, served_as
from certified._steps.estimators import ExactClassifier
from certified._steps.step import ExactStep
from certified.errors import InvalidInput
from certified.parts._table import PartedTable
from certified.typing import FloatArray, IntArray

__all__ = ["BernoulliNB", "CategoricalNB", "GaussianNB", "MultinomialNB"]


class _NaiveBayes(PartialFit, ExactClassifier):
    """Base class. What is served are the fitted attributes of scikit-learn's estimator."""

    force_alpha: bool

    def _made(self) -> Any:
        """Return scikit-learn's estimator, unfitted."""
        raise NotImplementedError

    def _rows(self, X: Any) -> Any:
        """Return what is summed of each row; raise InvalidInput for values that cannot be."""
        return X

    def _count(self, table: Table) -> Any:
        self._check_parameters()
        table = table.some(type(self).__name__)
        statistic = GroupSums.of(self._rows(table.x), table.y, len(self.classes_), table.weight)
        self._all_present(statistic.weights())
        return statistic

    def _count_over(self, rows: PartedTable) -> Any:
        self._check_parameters()
        statistic = group_sums_over(rows, _summed, clone(self), n_groups=len(self.classes_))
        self._all_present(statistic.weights())
        return statistic

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        return statistic.subtract(self._rows(removed.x), removed.y, removed.weight)

    def _check_parameters(self) -> None:
        prior = self._prior()
        if prior is None:
            return
        prior = np.asarray(prior, dtype=np.float64)
        if prior.shape != self.classes_.shape or not np.all(prior >= 0) or not np.isclose(prior.sum(), 1.0):
            raise InvalidInput(
                f"{type(self).__name__} got priors {prior.tolist()}. One probability for each of the "
                f"{len(self.classes_)} classes is needed, with the sum 1."
            )

    def _prior(self) -> Any:
        return getattr(self, "class_prior", None)

    def _log_prior(self, weights: FloatArray) -> FloatArray:
        given = getattr(self, "class_prior", None)
        if given is not None:
            return np.log(np.asarray(given, dtype=np.float64))
        if not getattr(self, "fit_prior", True):
            return np.full(len(weights), -np.log(len(weights)))
        return np.log(weights) - np.log(weights.sum())

    def _smoothing(self) -> float:
        """Return alpha, not below 1e-10 unless ``force_alpha`` asks for it, as scikit-learn."""
        alpha = getattr(self, "alpha", 1.0)
        if not (np.ndim(alpha) == 0 and np.isfinite(alpha) and alpha >= 0):
            raise InvalidInput(
                f"{type(self).__name__}(alpha={alpha!r}) is not allowed: a finite number >= 0 is needed."
            )
        return float(alpha) if self.force_alpha else max(float(alpha), 1e-10)

    def _store(self, statistic: Any, learned: dict[str, Any]) -> None:
        super()._store(statistic, learned)
        for name, value in learned.items():
            setattr(self, name, value)
        self._plain = served_as(self._made(), {"classes_": self.classes_, **learned})
        self._plain.n_features_in_ = self.n_features_in_

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, shape (n_rows,)."""
        return self._ask("predict", X)

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, shape (n_rows, n_classes)."""
        return self._ask("predict_proba", X)

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithm of the probability of each class, shape (n_rows, n_classes)."""
        return self._ask("predict_log_proba", X)

    def predict_joint_log_proba(self, X: Any) -> FloatArray:
        """Return log P(x, class) of each class, shape (n_rows, n_classes)."""
        return self._ask("predict_joint_log_proba", X)

    def _ask(self, method: str, X: Any) -> Any:
        self._check_fitted()
        return getattr(self._plain, method)(self._validated(X, reset=False))

    def _release(self) -> Any:
        """Return scikit-learn's estimator with the same parameters; it holds no training row."""
        self._check_fitted()
        copies = {name: _copied(value) for name, value in {"classes_": self.classes_, **self._learned}.items()}
        return named_like(served_as(self._made(), copies), self)


class GaussianNB(_NaiveBayes):
    """Gaussian naive Bayes, exact under deletion.

    Parameters
    ----------
    priors : array-like of shape (n_classes,) or None, default=None
        Probabilities of the classes; None for their shares of the weights.
    var_smoothing : float, default=1e-9
        Share of the largest variance of a feature that is added to all variances.

    Attributes
    ----------
    classes_, class_count_, class_prior_ : arrays of shape (n_classes,)
    theta_, var_ : arrays of shape (n_classes, n_features)
        Means and variances.
    epsilon_ : float
        Added to the variances.
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.

    Notes
    -----
    The largest variance is that of the weighted rows; scikit-learn ignores the weights there.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from certified.naive_bayes import GaussianNB
    >>> X, y = load_iris(return_X_y=True)
    >>> model = GaussianNB().fit(X, y)
    >>> _ = model.delete(range(5))
    >>> model.state_digest_ == GaussianNB().fit(X[5:], y[5:]).state_digest_
    True
    """

    def __init__(self, *, priors: Any = None, var_smoothing: float = 1e-9) -> None:
        self.priors = priors
        self.var_smoothing = var_smoothing

    def _made(self) -> plain.GaussianNB:
        return plain.GaussianNB(priors=self.priors, var_smoothing=self.var_smoothing)

    def _prior(self) -> Any:
        if not (np.isfinite(self.var_smoothing) and self.var_smoothing >= 0):
            raise InvalidInput(f"GaussianNB(var_smoothing={self.var_smoothing!r}) is not allowed: a number >= 0.")
        return self.priors

    def _learned_from(self, statistic: GroupSums) -> dict[str, Any]:
        weights = self._all_present(statistic.weights())
        epsilon = float(self.var_smoothing * statistic.variance().max())
        prior = weights / weights.sum() if self.priors is None else np.array(self.priors, dtype=np.float64)
        variances = statistic.variances() + epsilon
        return {
            "class_count_": weights,
            "class_prior_": prior,
            "theta_": statistic.means(),
            "var_": variances,
            "epsilon_": epsilon,
        }


class MultinomialNB(_NaiveBayes):
    """Naive Bayes for counts, exact under deletion. Sparse counts stay sparse.

    Parameters
    ----------
    alpha : float, default=1.0
        Added to every count (Laplace smoothing).
    force_alpha : bool, default=True
        Whether an alpha below 1e-10 is used as it is.
    fit_prior : bool, default=True
        Whether classes have their shares of the weights as prior, or all the same.
    class_prior : array-like of shape (n_classes,) or None, default=None

    Attributes
    ----------
    classes_, class_count_, class_log_prior_ : arrays of shape (n_classes,)
    feature_count_, feature_log_prob_ : arrays of shape (n_classes, n_features)
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`certified.linear_model.Ridge`.
    """

    def __init__(
        self, *, alpha: float = 1.0, force_alpha: bool = True, fit_prior: bool = True, class_prior: Any = None
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.fit_prior = fit_prior
        self.class_prior = class_prior

    _sparse = True

    def _made(self) -> plain.MultinomialNB:
        return plain.MultinomialNB(**self.get_params())

    def _rows(self, X: Any) -> Any:
        if np.any(values_of(X) < 0):
            raise InvalidInput("Negative values in data passed to MultinomialNB (input X). Counts are needed.")
        return X

    def _learned_from(self, statistic: GroupSums) -> dict[str, Any]:
        weights, counts = self._all_present(statistic.weights()), statistic.totals()
        smoothed = counts + self._smoothing()
        with np.errstate(divide="ignore"):  # alpha = 0 and a count of 0: never
            log_prob = np.log(smoothed) - np.log(smoothed.sum(axis=1, keepdims=True))
        return {
            "class_count_": weights,
            "class_log_prior_": self._log_prior(weights),
            "feature_count_": counts,
            "feature_log_prob_": log_prob,
        }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.classifier_tags.poor_score = True
        return tags


class BernoulliNB(_NaiveBayes):
    """Naive Bayes for yes or no, exact under deletion. Sparse features stay sparse.

    Parameters
    ----------
    alpha, force_alpha, fit_prior, class_prior
        As in :class:`MultinomialNB`.
    binarize : float or None, default=0.0
        Values above it count as yes; None if X holds only 0 and 1.

    Attributes
    ----------
    classes_, class_count_, class_log_prior_, feature_count_, feature_log_prob_
        As in :class:`MultinomialNB`.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        force_alpha: bool = True,
        binarize: float | None = 0.0,
        fit_prior: bool = True,
        class_prior: Any = None,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.binarize = binarize
        self.fit_prior = fit_prior
        self.class_prior = class_prior

    _sparse = True

    def _made(self) -> plain.BernoulliNB:
        return plain.BernoulliNB(**self.get_params())

    def _rows(self, X: Any) -> Any:
        if self.binarize is not None and issparse(X):
            if self.binarize < 0:
                raise InvalidInput(
                    f"BernoulliNB(binarize={self.binarize!r}) got sparse features, where what is not stored would be "
                    "yes. A threshold >= 0 is needed; or call X.toarray(). Nothing was changed."
                )
            return csr_array(((self.binarize < X.data).astype(np.float64), X.indices, X.indptr), shape=X.shape)
        if self.binarize is not None:
            return (self.binarize < X).astype(np.float64)
        values = values_of(X)
        if np.any((values != 0) & (values != 1)):
            raise InvalidInput("BernoulliNB(binarize=None) got values other than 0 and 1. Set binarize=.")
        return X

    def _learned_from(self, statistic: GroupSums) -> dict[str, Any]:
        weights, counts, alpha = self._all_present(statistic.weights()), statistic.totals(), self._smoothing()
        with np.errstate(divide="ignore"):
            log_prob = np.log(counts + alpha) - np.log(weights + 2 * alpha)[:, None]
        return {
            "class_count_": weights,
            "class_log_prior_": self._log_prior(weights),
            "feature_count_": counts,
            "feature_log_prob_": log_prob,
        }

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags


class CategoricalNB(_NaiveBayes):
    """Naive Bayes for categories, exact under deletion.

    Features are codes 0, 1, ... as :class:`certified.preprocessing.OrdinalEncoder` makes them. A feature has one
    category more than the largest code of the retained rows, or ``min_categories``.

    Parameters
    ----------
    alpha, force_alpha, fit_prior, class_prior
        As in :class:`MultinomialNB`.
    min_categories : int, array-like of shape (n_features,) or None, default=None
        Least number of categories of all features or of each.

    Attributes
    ----------
    classes_, class_count_, class_log_prior_ : arrays of shape (n_classes,)
    category_count_, feature_log_prob_ : lists of n_features arrays of shape (n_classes, n_categories)
    n_categories_ : int array of shape (n_features,)
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        force_alpha: bool = True,
        fit_prior: bool = True,
        class_prior: Any = None,
        min_categories: Any = None,
    ) -> None:
        self.alpha = alpha
        self.force_alpha = force_alpha
        self.fit_prior = fit_prior
        self.class_prior = class_prior
        self.min_categories = min_categories

    def _made(self) -> plain.CategoricalNB:
        return plain.CategoricalNB(**self.get_params())

    def _count(self, table: Table) -> tuple[GroupSums, ...]:
        self._check_parameters()
        table = table.some("CategoricalNB")
        codes, nothing = self._codes(table.x), np.empty((len(table.x), 0))
        k = len(self.classes_)
        statistic = tuple(
            GroupSums.of(nothing, column * k + table.y, k * (int(column.max()) + 1), table.weight) for column in codes.T
        )
        self._all_present(_by_category(statistic[0], k).sum(axis=1))
        return statistic

    _count_over = ExactStep._count_over  # the groups depend on the codes of all rows

    def _subtract(self, statistic: Any, removed: Table) -> Any:
        codes, nothing, k = self._codes(removed.x), np.empty((len(removed.x), 0)), len(self.classes_)
        after = [
            found.subtract(nothing, column * k + removed.y, removed.weight)
            for found, column in zip(statistic, codes.T, strict=True)
        ]
        # the largest code of a feature left with its last row: a refit has fewer categories
        if any(found is None or not _by_category(found, k)[:, -1].any() for found in after):
            return None
        return tuple(after)

    def _codes(self, X: FloatArray) -> IntArray:
        if np.any(X < 0):
            raise InvalidInput("Negative values in data passed to CategoricalNB (input X). Codes 0, 1, ... are needed.")
        return X.astype(np.int64)

    def _learned_from(self, statistic: tuple[GroupSums, ...]) -> dict[str, Any]:
        k, alpha = len(self.classes_), self._smoothing()
        counts = [_by_category(found, k) for found in statistic]
        weights = self._all_present(counts[0].sum(axis=1))
        least = np.broadcast_to(0 if self.min_categories is None else np.asarray(self.min_categories), len(counts))
        counts = [np.pad(c, ((0, 0), (0, max(0, int(m) - c.shape[1])))) for c, m in zip(counts, least, strict=True)]
        with np.errstate(divide="ignore"):
            log_prob = [np.log(c + alpha) - np.log((c + alpha).sum(axis=1, keepdims=True)) for c in counts]
        return {
            "class_count_": weights,
            "class_log_prior_": self._log_prior(weights),
            "category_count_": counts,
            "feature_log_prob_": log_prob,
            "n_categories_": np.array([c.shape[1] for c in counts], dtype=np.int64),
        }

    def _ask(self, method: str, X: Any) -> Any:
        self._check_fitted()
        X = self._validated(X, reset=False)
        codes = self._codes(X)
        over = np.flatnonzero(codes.max(axis=0) >= self.n_categories_)
        if over.size:
            raise InvalidInput(
                f"CategoricalNB.{method} got a code of feature {over[0]} that no row has. Set min_categories=, or "
                "let OrdinalEncoder give such values a code of their own."
            )
        return getattr(self._plain, method)(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = tags.input_tags.categorical = True
        return tags


def _summed(table: Table, weight: FloatArray, model: _NaiveBayes) -> Any:
    """What is summed of each row of a part."""
    return model._rows(table.x)


def _by_category(sums: GroupSums, n_classes: int) -> FloatArray:
    """Return the weight of each class and category, shape (n_classes, n_categories)."""
    return sums.weights().reshape(-1, n_classes).T


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value.copy() if isinstance(value, np.ndarray) else value
