"""Additive models that delete: the terms, and a certified convex head on their coordinates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.linear_model import GammaRegressor as _PlainGamma
from sklearn.linear_model import LogisticRegression as _PlainLogistic
from sklearn.linear_model import PoissonRegressor as _PlainPoisson
from sklearn.linear_model import Ridge as _PlainRidge
from sklearn.pipeline import Pipeline as _PlainPipeline

from certified._convex.losses import Loss
from certified._convex.problem import Problem
from certified.additive._release import plain_features
from certified.additive._shapes import Shape, as_frame, find, plot
from certified.additive._terms import Terms
from certified.errors import InvalidInput
from certified.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor, Ridge
from certified.pipeline import Pipeline
from certified.typing import FloatArray, IntArray

__all__ = ["AdditiveClassifier", "AdditiveRegressor"]


class _Prior:
    """The penalty is that of a prior: it does not grow with the rows, as ``alpha`` does."""

    def _problem_of(self, loss: Loss, n_columns: int, totals: Any) -> Problem:
        problem = super()._problem_of(loss, n_columns, totals)  # type: ignore[misc]
        return replace(problem, strength=1.0, strength_depends_on_rows=False)


class _Poisson(_Prior, PoissonRegressor):
    """Poisson regression with the penalty ``||w||^2 / 2`` on the sum of the losses."""


class _Gamma(_Prior, GammaRegressor):
    """Gamma regression with the penalty ``||w||^2 / 2`` on the sum of the losses."""


_REGRESSORS = {
    "squared_error": (Ridge, _PlainRidge),
    "poisson": (_Poisson, _PlainPoisson),
    "gamma": (_Gamma, _PlainGamma),
}


class _Additive(Pipeline):
    """Base class: a pipeline of two steps, seen as a sum of functions."""

    _depends_on_key = True

    max_bins: int
    max_interaction_bins: int
    max_categories: int
    min_frequency: int
    smoothness: Any
    interactions: Any
    sample_size: int

    def _terms_for(self, loss: str) -> Terms:
        return Terms(
            loss,
            max_bins=self.max_bins,
            max_interaction_bins=self.max_interaction_bins,
            max_categories=self.max_categories,
            min_frequency=self.min_frequency,
            smoothness=self.smoothness,
            interactions=self.interactions,
            sample_size=self.sample_size,
        )

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters."""
        return BaseEstimator.get_params(self, deep=deep)

    def set_params(self, **kwargs: Any) -> Any:
        """Set parameters."""
        return BaseEstimator.set_params(self, **kwargs)

    @property
    def n_iter_(self) -> Any:
        """Passes over the rows that the present state took, shape (1,); 1 where it is exact. Not part of a release."""
        self._check_fitted()
        return getattr(self._final, "n_iter_", np.ones(1, dtype=np.int64))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.target_tags.multi_output = False
        return tags

    # ------------------------------------------------------- functions of bins

    @property
    def _terms(self) -> Terms:
        self._check_fitted()
        return self.steps_[0][1]

    def _scores(self) -> list[FloatArray]:
        """Released values of each term, one for every code; of more than two classes, one for each class."""
        tables, coef = self._terms._served, np.atleast_2d(self.coef_)
        coef = coef[0] if len(coef) == 1 else coef.T
        parts = tables.scored(self._terms._statistic.tallies)
        return [part @ coef[spot] for part, spot in zip(parts, tables.spots, strict=True)]

    @property
    def _several(self) -> Any:
        """The classes, where there are more than two."""
        classes = getattr(self, "classes_", None)
        return classes if classes is not None and len(classes) > 2 else None

    @property
    def term_names_(self) -> list[str]:
        """Names of the terms: features, then pairs as "first & second"."""
        terms = self._terms
        names = [str(v) for v in getattr(terms, "feature_names_in_", [f"x{j}" for j in range(self.n_features_in_)])]
        return [*names, *(f"{names[i]} & {names[j]}" for i, j in terms._learned.pairs.tolist())]

    @property
    def term_features_(self) -> list[tuple[int, ...]]:
        """Features of each term."""
        return [*((j,) for j in range(self.n_features_in_)), *map(tuple, self._terms._learned.pairs.tolist())]

    @property
    def shape_functions_(self) -> list[Shape]:
        """Released function of each term, with the mean 0 over the retained rows; they add up with :attr:`baseline_`.

        Of more than two classes, with an axis for the classes.
        """
        return self._centred()[0]

    @property
    def baseline_(self) -> Any:
        """Released linear predictor where every shape function is 0; of more than two classes, of each."""
        return self._centred()[1]

    def _centred(self) -> tuple[list[Shape], Any]:
        terms, table, classes = self._terms, self._table.with_weight(), self._several
        layout = terms._learned
        baseline: Any = float(np.ravel(self.intercept_)[0]) if classes is None else self.intercept_
        shapes = []
        together = zip(self.term_names_, self.term_features_, self._scores(), terms._served.codes(table.x), strict=True)
        for name, features, scores, codes in together:
            axes = tuple((layout.axes if len(features) == 1 else layout.coarse)[j] for j in features)
            weights = np.bincount(codes, table.weight, len(scores))
            mean = weights @ scores / weights.sum()
            whole, inner = tuple(axis.rows + 1 for axis in axes), tuple(slice(axis.rows) for axis in axes)
            values = (scores - mean).reshape(*whole, *scores.shape[1:])[inner]
            shapes.append(Shape(name, features, axes, values, weights.reshape(whole)[inner], classes))
            baseline = baseline + (float(mean) if classes is None else mean)
        return shapes, baseline

    def term_importances(self) -> FloatArray:
        """Return the weighted mean of the absolute scores of each term, shape (n_terms,)."""
        return np.array([shape.importance for shape in self.shape_functions_])

    def eval_terms(self, X: Any) -> FloatArray:
        """Return what each term adds to ``baseline_`` for each row, shape (n_rows, n_terms).

        Of more than two classes, of shape (n_rows, n_terms, n_classes).
        """
        terms = self._terms
        table = self._table.with_weight()
        held, asked = terms._served.codes(table.x), terms._served.codes(self._read(X)[0])
        columns = []
        for scores, before, codes in zip(self._scores(), held, asked, strict=True):
            weights = np.bincount(before, table.weight, len(scores))
            columns.append(scores[codes] - weights @ scores / weights.sum())
        return np.stack(columns, axis=1)

    def explain(self) -> pl.DataFrame:
        """Return the shape functions as a frame: term, bin, second_bin, score, weight; class, if there are several."""
        return as_frame(self.shape_functions_)

    def plot(self, term: Any, ax: Any = None, label: Any = None) -> Any:
        """Draw the shape function of a term with matplotlib.

        Parameters
        ----------
        term : int or str
            Position or name of the term; see :attr:`term_names_`.
        ax : matplotlib axes or None
            Where to draw; None for a new figure.
        label : one of ``classes_`` or None
            Of which class, where there are more than two.

        Returns
        -------
        matplotlib axes
        """
        return plot(find(self.shape_functions_, term).of(label), ax)

    def _plain_head(self) -> Any:
        raise NotImplementedError

    def _release(self) -> _PlainPipeline:
        """Return a plain scikit-learn pipeline with the released functions; it holds no training row."""
        self._check_fitted()
        features, coef, start = plain_features(self._terms, self._scores())
        head = self._plain_head()
        classifies = isinstance(head, _PlainLogistic)
        head.coef_ = np.ascontiguousarray(np.atleast_2d(coef.T)) if classifies else coef
        intercept = np.ravel(self.intercept_) + start
        head.intercept_ = intercept if classifies else float(intercept[0])
        head.n_features_in_ = len(coef)
        return _PlainPipeline([("bins", features), ("head", head)])


class AdditiveClassifier(ClassifierMixin, _Additive):
    """Sum of smooth functions of single features and chosen pairs, for classes; deletable, with a certificate.

    The log-odds are ``baseline_ + sum_j f_j(x_j) + sum_jk f_jk(x_j, x_k)``: every prediction can be read off plots.
    With more than two classes there is such a sum for each class, and the probabilities are their softmax. It
    is the counterpart of explainable boosting machines and of generalised additive models whose bins, smoothness,
    pairs and functions all forget. Each function is constant on bins; differences of neighbouring bins are penalised
    with the strength of a prior, and the coefficients are those of a certified logistic regression.

    Parameters
    ----------
    max_bins : int, default=128
        About the most bins of a feature of numbers; missing values have one more. Cuts are short decimal numbers.
    max_interaction_bins : int, default=8
        The same in pairs, and the most categories.
    max_categories : int, default=32
        Most bins of a feature of text; the rarest categories, and unknown ones, share the last.
    min_frequency : int, default=10
        Rows from which on a category has a bin of its own.
    smoothness : "auto" or float, default="auto"
        1 / s is the prior variance of the difference between the two ends of a feature (between two categories), on
        the scale of the log-odds. "auto" takes for each feature the power of 4 of the largest evidence in the sample.
    interactions : int or list of pairs, default=20
        How many pairs are chosen at most, or which pairs (positions or names) there are.
    sample_size : int, default=10_000
        Subjects in the hash sample, from which cuts, smoothness and pairs come. A deletion of any other subject
        changes none of these.
    key : int or None, default=None
        Key of the hash that chooses the sample, 128 bits; None draws one.
    epsilon, delta, noise, tol, max_iter, random_state
        As in :class:`certified.linear_model.LogisticRegression`.

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
    term_names_, term_features_ : list
    shape_functions_ : list of Shape
        Scores and weights of the bins of each term.
    baseline_ : float
    certificate_, ids_, n_rows_
        Of the whole model; the scope is "pipeline".
    steps_, coef_, intercept_, private_coef_, private_intercept_, release_metric_
        The terms and the head, and the coefficients of the coordinates in between.

    Notes
    -----
    Theory: "Additive models" in the documentation. All classes share bins, smoothness and pairs, for which the evidence
    of each class against the others adds up. A feature of numbers with few values is ordered; give codes as
    text where they have no order.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.additive import AdditiveClassifier
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> model = AdditiveClassifier(interactions=2).fit(X[:, :4], y)
    >>> model.delete([17, 42]).n_rows
    2
    >>> model.explain().columns
    ['term', 'bin', 'second_bin', 'score', 'weight']
    """

    def __init__(
        self,
        *,
        max_bins: int = 128,
        max_interaction_bins: int = 8,
        max_categories: int = 32,
        min_frequency: int = 10,
        smoothness: Any = "auto",
        interactions: Any = 20,
        sample_size: int = 10_000,
        key: int | None = None,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.max_bins = max_bins
        self.max_interaction_bins = max_interaction_bins
        self.max_categories = max_categories
        self.min_frequency = min_frequency
        self.smoothness = smoothness
        self.interactions = interactions
        self.sample_size = sample_size
        self.key = key
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _with_classes_left(self, rows: IntArray) -> None:
        """Bins, smoothness and pairs follow the classes: a model of fewer would have to be fitted anew."""

    @property
    def steps(self) -> list[tuple[str, Any]]:  # type: ignore[override]
        """The two steps, unfitted."""
        names = ("epsilon", "delta", "noise", "tol", "max_iter", "random_state")
        head = LogisticRegression(**{name: getattr(self, name) for name in names})
        return [("terms", self._terms_for("logistic")), ("head", head)]

    def _plain_head(self) -> _PlainLogistic:
        head = _PlainLogistic()
        head.classes_ = self.classes_.copy()
        return head


class AdditiveRegressor(RegressorMixin, _Additive):
    """Sum of smooth functions of single features and chosen pairs, for numbers; deletable.

    As :class:`AdditiveClassifier`. With the squared loss the model is exact: after a deletion its state is bit for bit
    that of a refit. The Poisson and the gamma loss have the log link and a certificate; of a frequency, give the
    exposure as ``sample_weight``.

    Parameters
    ----------
    loss : {"squared_error", "poisson", "gamma"}, default="squared_error"
    max_bins, max_interaction_bins, max_categories, min_frequency, interactions, sample_size
        As in :class:`AdditiveClassifier`.
    smoothness : "auto" or float, default="auto"
        As there, on the scale of the linear predictor; for the squared loss, of the noise: ``sigma^2 / s`` is the prior
        variance.
    noise : float or None, default=None
        Standard deviation of the noise on a release, in standard errors. None is 0 for the squared loss, 0.1 otherwise.
    epsilon, delta, tol, max_iter
        As in :class:`certified.linear_model.PoissonRegressor`; without a meaning for the squared loss.
    random_state : int, RandomState or None, default=None
        For simulations.

    Attributes
    ----------
    term_names_, term_features_, shape_functions_, baseline_, certificate_, ids_, n_rows_, steps_, coef_, intercept_
        As in :class:`AdditiveClassifier`.
    state_digest_ : str
        With the squared loss: equal exactly when two states are equal bit for bit.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.additive import AdditiveRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = AdditiveRegressor(interactions=[(2, 8)]).fit(X, y)
    >>> _ = model.delete(range(10))
    >>> refit = AdditiveRegressor(interactions=[(2, 8)]).fit(X[10:], y[10:], ids=range(10, len(y)))
    >>> model.state_digest_ == refit.state_digest_
    True
    """

    def __init__(
        self,
        loss: str = "squared_error",
        *,
        max_bins: int = 128,
        max_interaction_bins: int = 8,
        max_categories: int = 32,
        min_frequency: int = 10,
        smoothness: Any = "auto",
        interactions: Any = 20,
        sample_size: int = 10_000,
        key: int | None = None,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float | None = None,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.loss = loss
        self.max_bins = max_bins
        self.max_interaction_bins = max_interaction_bins
        self.max_categories = max_categories
        self.min_frequency = min_frequency
        self.smoothness = smoothness
        self.interactions = interactions
        self.sample_size = sample_size
        self.key = key
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _kind(self) -> tuple[Any, Any]:
        if self.loss not in _REGRESSORS:
            raise InvalidInput(
                f"AdditiveRegressor(loss={self.loss!r}) is not allowed: one of {list(_REGRESSORS)} is needed."
            )
        return _REGRESSORS[self.loss]

    @property
    def steps(self) -> list[tuple[str, Any]]:  # type: ignore[override]
        """The two steps, unfitted."""
        kind = self._kind()[0]
        exact = kind is Ridge
        noise = self.noise if self.noise is not None else 0.0 if exact else 0.1
        names = () if exact else ("epsilon", "delta", "tol", "max_iter")
        head = kind(noise=noise, random_state=self.random_state, **{name: getattr(self, name) for name in names})
        return [("terms", self._terms_for(self.loss)), ("head", head)]

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None) -> float:
        """Return the share of the deviance that is explained; R^2 for the squared loss."""
        return Pipeline.score(self, X, y, sample_weight=sample_weight, offset=offset, exposure=exposure)

    def _plain_head(self) -> Any:
        head = self._kind()[1]()
        if self.loss != "squared_error":
            head._base_loss = head._get_loss()
        return head
