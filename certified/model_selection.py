"""Searches that forget: after a deletion the winner is the one that a fresh search on the rows that stay would pick.

A hyper-parameter chosen by cross-validation on rows that were deleted later keeps their influence. So a search keeps
the model of every candidate and fold, deletes from each, scores again and chooses again.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy, deepcopy
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import ParameterGrid, ParameterSampler
from sklearn.utils import _safe_indexing, get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, _num_samples

from certified.accounting import compose
from certified.base import Deletable, Plan, all_or_nothing, digest, split_ids, versions
from certified.certificate import Certificate
from certified.errors import CannotCertify, CertifiedError, InvalidInput, InvalidRequest, NotDeletable
from certified.progress import track
from certified.rows import Subjects, as_ids, sharing
from certified.typing import FloatArray, IntArray

__all__ = ["GridSearchCV", "RandomizedSearchCV"]


def _best_has(name: str) -> Any:
    return lambda self: hasattr(getattr(self, "best_estimator_", self.estimator), name)


class _Search(MetaEstimatorMixin, Deletable):
    """Base class. Rows are held in the order of their subjects' hashes, which does not depend on the order given."""

    estimator: Any
    scoring: Any
    cv: Any
    best_estimator_: Any
    _ids: Any
    _models: list[list[Any]]  # of each candidate and fold; None where it cannot be fitted
    _unfinished: Any = ()  # what is still to be overwritten

    def _candidates(self) -> Iterable[dict[str, Any]]:
        raise NotImplementedError

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, ids: Any = None, sample_weight: Any = None) -> Any:
        """Fit every candidate without each fold, choose, and fit the winner on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row. A subject is in one fold with all its rows. A column named here is not a feature.
        sample_weight : array-like of shape (n_rows,) or None
            For the fits; scores are unweighted.

        Returns
        -------
        self

        Raises
        ------
        InvalidInput
            A fold has no subject, or no candidate can be fitted without each fold.
        NotDeletable
            The estimator cannot forget.
        """
        name = type(self).__name__
        if not isinstance(self.estimator, Deletable):
            raise NotDeletable(
                f"{name} got a {type(self.estimator).__name__}, which cannot forget. Use an estimator of `certified`, "
                "or certified.certify(...) to convert the whole search."
            )
        if isinstance(self.cv, bool) or not isinstance(self.cv, int | np.integer) or self.cv < 2:
            raise InvalidInput(
                f"{name}(cv={self.cv!r}) is not allowed: a number of folds >= 2. Which fold a subject is in follows "
                "from its hash, so that no row influences the fold of another."
            )
        X, ids = split_ids(X, ids)
        X = X if hasattr(X, "shape") else np.asarray(X)
        n_rows = _num_samples(X)
        ids = np.arange(n_rows) if ids is None else as_ids(ids, f"{name}.fit(ids=...)")
        subjects = Subjects(ids, n_rows)
        order = np.argsort(subjects.hashes(), kind="stable")
        self._subjects, self._ids = Subjects(ids[order], n_rows), ids[order]
        self._X = _safe_indexing(X, order)
        self._y = None if y is None else _safe_indexing(y if hasattr(y, "shape") else np.asarray(y), order)
        self._weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)[order]
        self._fold = (self._subjects.hashes() % np.uint64(self.cv)).astype(np.int64)
        self._check_folds(self._fold)
        self._parameters = list(self._candidates())
        self._scorer = check_scoring(self.estimator, self.scoring)
        held = np.ones(n_rows, dtype=bool)
        places = list(product(range(len(self._parameters)), range(self.cv)))
        each = [self._try(k, held & (self._fold != f)) for k, f in track(places, "fits")]
        made = [each[k * self.cv : (k + 1) * self.cv] for k in range(len(self._parameters))]
        self._models = [[model for model, _ in row] for row in made]
        if not any(None not in row for row in self._models):
            raise next(error for row in made for _, error in row if error is not None)
        self._choose()
        self.n_features_in_ = self.best_estimator_.n_features_in_
        return self

    def _made(self, k: int, rows: Any) -> Any:
        """Return the candidate fitted on these rows."""
        model = clone(self.estimator).set_params(**{n: clone(v, safe=False) for n, v in self._parameters[k].items()})
        weight = {} if self._weight is None else {"sample_weight": self._weight[rows]}
        y = None if self._y is None else _safe_indexing(self._y, rows)
        model = model.fit(_safe_indexing(self._X, rows), y, ids=self._ids[rows], **weight)
        model._owned = True
        return model

    def _try(self, k: int, held: Any) -> tuple[Any, CertifiedError | None]:
        """Return the candidate fitted on these rows, or None and why not."""
        try:
            return self._made(k, np.flatnonzero(held)), None
        except CertifiedError as error:
            return None, error

    def _check_folds(self, folds: IntArray) -> None:
        empty = np.flatnonzero(np.bincount(folds, minlength=self.cv) == 0)
        if empty.size:
            raise InvalidRequest(
                f"{type(self).__name__}(cv={self.cv}) has no subject in fold {empty[0]}: folds follow from the hashes "
                "of the subjects. Fewer folds or more subjects are needed. Nothing was changed."
            )

    def _choose(self, before: int | None = None, held: Any = None) -> None:
        """Score every candidate, and let the best one that can be fitted on all rows serve.

        `before` is the candidate that served before a deletion, `held` the estimator without the deleted rows, or None
        where it cannot be without them. If no candidate has a score any more, it goes on serving.
        """
        late = before is not None
        folds = [self._part(f) for f in range(self.cv)]
        scores = np.array(
            [[self._score(m, *part, late) for m, part in zip(row, folds, strict=True)] for row in self._models]
        )
        means = scores.mean(axis=1)
        every = np.ones(len(self._ids), dtype=bool)
        problem: CertifiedError | None = None
        for k in np.lexsort((np.arange(len(means)), -np.where(np.isnan(means), -np.inf, means))):
            if np.isnan(means[k]):
                break
            model, problem = (held, None) if k == before else self._try(int(k), every)
            if model is not None:
                self._show(scores, int(k), model)
                return
        if before is None:
            raise problem or CannotCertify(f"{type(self).__name__}: no candidate has a score in every fold.")
        self._show(scores, before, held)

    def _part(self, fold: int) -> tuple[Any, Any]:
        """Return the rows of a fold, and their targets."""
        rows = np.flatnonzero(self._fold == fold)
        return _safe_indexing(self._X, rows), None if self._y is None else _safe_indexing(self._y, rows)

    def _score(self, model: Any, x: Any, y: Any, late: bool) -> float:
        if model is None:
            return np.nan
        try:
            return float(self._scorer(model, x) if y is None else self._scorer(model, x, y))
        except Exception as error:
            if late or isinstance(error, ValueError):  # not defined on these rows, for example with one class
                return np.nan
            raise

    def _show(self, scores: FloatArray, best: int, model: Any) -> None:
        means = scores.mean(axis=1)
        filled = np.where(np.isnan(means), -np.inf, means)
        names = sorted({name for parameters in self._parameters for name in parameters})
        results: dict[str, Any] = {}
        for name in names:
            column = np.ma.masked_all(len(means), dtype=object)
            for k, parameters in enumerate(self._parameters):
                if name in parameters:
                    column[k] = parameters[name]
            results[f"param_{name}"] = column
        results["params"] = self._parameters
        for f in range(self.cv):
            results[f"split{f}_test_score"] = scores[:, f].copy()
        results["mean_test_score"], results["std_test_score"] = means, scores.std(axis=1)
        results["rank_test_score"] = np.array(
            [1 + np.count_nonzero(filled > value) for value in filled], dtype=np.int32
        )
        self.cv_results_, self.n_splits_, self.scorer_ = results, self.cv, self._scorer
        self.best_index_, self.best_params_, self.best_score_ = best, self._parameters[best], float(means[best])
        self.best_estimator_ = model
        if model is not None and hasattr(model, "classes_"):
            self.classes_ = model.classes_

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        """Delete from copies of every model, score and choose; what is left to do is to put the result in place.

        The copies share the buffers of their rows with the models, so that only then these rows are overwritten.
        """
        self._finish()
        with sharing() as later:
            after = self._without(rows)
        after._unfinished = later
        method = after.best_estimator_.certificate_.method

        def commit() -> None:
            self.__dict__.update(after.__dict__)  # one step, before or after which an interrupt finds a whole search
            self._finish()

        return Plan(commit, True, method, np.inf)

    def _finish(self) -> None:
        """Overwrite what a deletion has left to be overwritten; after an interrupt the next call goes on."""
        while self._unfinished:
            self._unfinished[-1]()
            self._unfinished.pop()

    def __getstate__(self) -> Any:
        self._finish()
        return super().__getstate__()

    def _without(self, rows: IntArray) -> Any:
        """Return this search without these rows; the search itself does not change."""
        stay = self._subjects.kept.copy()
        stay[rows] = False
        stay = stay[self._subjects.kept]
        if not stay.any():
            raise InvalidRequest("delete(ids=...) would remove every row. Nothing was changed.")
        self._check_folds(self._fold[stay])
        gone, first = np.unique(self._ids[~stay], return_index=True)
        fold_of = self._fold[~stay][first]
        reasons: list[str] = []
        models = [
            [
                self._forgotten(model, k, gone[fold_of != f], stay & (self._fold != f), reasons)
                for f, model in enumerate(row)
            ]
            for k, row in enumerate(track(self._models, "candidates"))
        ]
        if all(None in row for row in models):
            self._refuse(reasons)
        best = self._forgotten(self.best_estimator_, self.best_index_, gone, stay, reasons)
        after = self._on(np.flatnonzero(stay), models)
        after._choose(self.best_index_, best)
        if after.best_estimator_ is None:
            self._refuse(reasons)
        after._subjects = deepcopy(self._subjects)
        after._subjects.drop(rows)
        return after

    def _refuse(self, reasons: list[str]) -> None:
        raise InvalidRequest(
            f"{type(self).__name__}: after this deletion no candidate could be fitted without each fold and on all "
            f"rows. {(reasons or ['Nothing was changed.'])[0]}"
        )

    def _on(self, kept: IntArray, models: list[list[Any]]) -> Any:
        """Return this search with these rows and models, to choose anew; the search itself does not change."""
        after = copy(self)
        after._models, after._X = models, _safe_indexing(self._X, kept)
        after._ids, after._fold = self._ids[kept], self._fold[kept]
        after._y = None if self._y is None else _safe_indexing(self._y, kept)
        after._weight = None if self._weight is None else self._weight[kept]
        return after

    def _forgotten(self, model: Any, k: int, ids: Any, held: Any, reasons: list[str]) -> Any:
        """Return a copy of a model without these subjects, or None where it cannot be, and add why to the reasons.

        It is a copy because a model that forgets does so in place, and an interrupt must find every model as it was.
        """
        if model is None:  # it could not be fitted before; a fresh search would try
            return self._try(k, held)[0]
        if not len(ids):
            return model
        model = deepcopy(model)
        rows = model._subjects.rows_of(ids)
        try:
            plan = model._plan(rows)
        except CertifiedError as error:
            reasons.append(str(error))
            return None
        model._carry_out(plan, rows)
        return model

    def _carry_out(self, plan: Plan, rows: IntArray) -> None:
        plan.commit()  # the subjects too

    def _every(self) -> list[Any]:
        """All models that had a part in the choice, and the one chosen."""
        return [model for row in self._models for model in row if model is not None] + [self.best_estimator_]

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the search: of the choice and of the model chosen.

        The choice is a function of all models' releases and of the rows that stay, so its mu is theirs composed.
        """
        self._check_fitted()
        found = [model.certificate_ for model in self._every()]
        final = found[-1]
        name = f"{type(self).__name__} > {final.estimator}"
        if all(c.claim == "exact" for c in found):
            return Certificate.exact(
                scope="search",
                estimator=name,
                n_rows=self.n_rows_,
                n_features=final.n_features,
                versions=versions(),
                adaptivity=final.adaptivity,
            )
        claim = "none" if any(c.claim == "none" for c in found) else "indistinguishable"
        return replace(
            final,
            claim=claim,
            scope="search",
            estimator=name,
            mu=np.inf if claim == "none" else compose([c.mu for c in found]),
            mu_target=compose([c.mu_target for c in found]),
            mu_transcript=np.nan,
            mu_differencing=np.nan,
            method=final.method if final.method != "exact" else "theorem-1",
        )

    @property
    def state_digest_(self) -> str:
        """Digest of all models and scores, where all are exact: equal if the states are, bit for bit. Private."""
        self._check_fitted()
        missing = [[model is None for model in row] for row in self._models]
        scores = [self.cv_results_[f"split{f}_test_score"] for f in range(self.cv)]
        return digest(*[model.state_digest_ for model in self._every()], np.array(missing), *scores, self.best_index_)

    # -------------------------------------------------------------- predict

    @available_if(_best_has("predict"))
    def predict(self, X: Any) -> Any:
        """Predict with the winner."""
        return self._ask("predict", X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, of the winner."""
        return self._ask("predict_proba", X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithm of the probability of each class, of the winner."""
        return self._ask("predict_log_proba", X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> FloatArray:
        """Return the decision function of the winner."""
        return self._ask("decision_function", X)

    @available_if(_best_has("transform"))
    def transform(self, X: Any) -> Any:
        """Transform with the winner."""
        return self._ask("transform", X)

    def score(self, X: Any, y: Any = None) -> float:
        """Return the score of the winner by ``scoring``."""
        self._check_fitted()
        return self._scorer(self.best_estimator_, X) if y is None else self._scorer(self.best_estimator_, X, y)

    @available_if(_best_has("release"))
    def release(self) -> Any:
        """Return the release of the winner, a plain scikit-learn object."""
        self._check_fitted()
        return self.best_estimator_.release()

    def _ask(self, method: str, X: Any) -> Any:
        self._check_fitted()
        if self.best_estimator_ is None:
            raise CannotCertify(f"{type(self).__name__} has no candidate that can be fitted on the rows left.")
        return getattr(self.best_estimator_, method)(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type, tags.target_tags = inner.estimator_type, inner.target_tags
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tags.transformer_tags, tags.input_tags = inner.transformer_tags, inner.input_tags
        return tags


class GridSearchCV(_Search):
    """Exhaustive search over parameters whose choice forgets too.

    Every candidate is fitted without each fold and scored on it. ``delete`` runs through all of these models, scores
    again and chooses again. A subject's fold follows from its hash, so the winner is the one that a fresh search on the
    rows that stay would pick: exactly, if the estimator is exact; within the ``mu`` of all models composed, if it is
    certified, because the choice sees their noisy releases.

    Parameters
    ----------
    estimator : estimator
        Of this package.
    param_grid : dict or list of dicts
        Lists of values by the names of the parameters.
    scoring : str, callable or None, default=None
    cv : int, default=5
        Number of folds.

    Attributes
    ----------
    best_estimator_, best_params_, best_score_, best_index_, cv_results_, scorer_, n_splits_
        As in scikit-learn.
    certificate_ : Certificate
        Of the scope "search": the selection is covered.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import Ridge
    >>> from certified.model_selection import GridSearchCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.01, 0.1, 1.0]}).fit(X, y)
    >>> search.delete([3, 5]).certificate.selection
    'covered'
    """

    def __init__(self, estimator: Any, param_grid: Any, *, scoring: Any = None, cv: int = 5) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.cv = cv

    def _candidates(self) -> Iterable[dict[str, Any]]:
        return ParameterGrid(self.param_grid)


class RandomizedSearchCV(_Search):
    """Search over parameters drawn at random; see :class:`GridSearchCV`.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dicts
        Lists, or distributions with a method ``rvs``, by the names of the parameters.
    n_iter : int, default=10
        Candidates to draw.
    scoring : str, callable or None, default=None
    cv : int, default=5
    random_state : int, default=0
        Seed of the candidates. A fresh search has to draw the same ones, so a whole number is needed.

    Attributes
    ----------
    best_estimator_, best_params_, best_score_, best_index_, cv_results_, scorer_, n_splits_, certificate_
        As in :class:`GridSearchCV`.
    """

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        cv: int = 5,
        random_state: int = 0,
    ) -> None:
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.scoring = scoring
        self.cv = cv
        self.random_state = random_state

    def _candidates(self) -> Iterable[dict[str, Any]]:
        if not isinstance(self.random_state, int | np.integer):
            raise InvalidInput(
                f"RandomizedSearchCV(random_state={self.random_state!r}) is not allowed: a whole number, so that a "
                "fresh search draws the same candidates."
            )
        return ParameterSampler(self.param_distributions, self.n_iter, random_state=self.random_state)
