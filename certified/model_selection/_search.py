"""What searches share: fit every candidate without each fold, choose, and do both again without what is deleted."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from itertools import product
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin
from sklearn.exceptions import FitFailedWarning
from sklearn.utils import _safe_indexing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, _num_samples

from certified._data.frames import split_ids
from certified._data.hashing import Key
from certified._data.ids import named
from certified._data.reproducible import digest
from certified._data.row_order import by_owner_and_content
from certified._data.rows import sharing
from certified._data.subjects import Subjects
from certified._keeper.keyed import Keyed
from certified.accounting import compose
from certified.base import Plan, all_or_nothing
from certified.certificate import Certificate
from certified.errors import CertifiedError, InvalidRequest
from certified.model_selection._choice import Choice
from certified.model_selection._models import fold_hashes
from certified.progress import track
from certified.typing import IntArray

__all__ = ["Search"]

_FOUND = (
    *("best_estimator_", "best_index_", "best_params_", "best_score_"),
    *("refit_time_", "classes_", "feature_names_in_", "_names"),
)


def _some_can_be_refined(search: Any) -> bool:
    models = search._every() if hasattr(search, "_models") else [search.estimator]
    return any(hasattr(model, "refine") for model in models)


def _refined(model: Any) -> Any:
    """Return a copy that is refined, or the model where there is nothing to refine."""
    if not hasattr(model, "refine"):
        return model
    model = deepcopy(model)
    model._plan_refinement().commit()
    return model


class Search(MetaEstimatorMixin, Keyed, Choice):
    """Base class. Rows are held in an order that their subjects' hashes and their content decide."""

    _problem: Any = None  # why the last model could not be fitted, while a deletion is worked out

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> Self:
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
            The estimator cannot delete rows.
        """
        self._check_parameters()
        for name in _FOUND:
            self.__dict__.pop(name, None)
        X, ids = split_ids(X, ids)
        X = X if hasattr(X, "shape") else np.asarray(X)
        n_rows = _num_samples(X)
        ids, source = named(ids, n_rows, f"{type(self).__name__}.fit(ids=...)")
        subjects = Subjects(ids, n_rows)
        y = y if y is None or hasattr(y, "shape") else np.asarray(y)
        weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)
        key = Key.of(self.key, type(self).__name__)
        order = by_owner_and_content(fold_hashes(subjects, key), X, y, weight)
        self._subjects, self._ids = Subjects(ids[order], n_rows, key, source), ids[order]
        self._X = _safe_indexing(X, order)
        self._y = None if y is None else _safe_indexing(y, order)
        self._weight = None if weight is None else weight[order]
        self._fold = (fold_hashes(self._subjects, key) % np.uint64(self.n_splits_)).astype(np.int64)
        self._check_folds(self._fold)
        self._parameters = list(self._candidates(key.derive("candidates")))
        shape = len(self._parameters), self.n_splits_
        if self.verbose > 0:
            print(f"Fitting {shape[1]} folds for each of {shape[0]} candidates, totalling {shape[0] * shape[1]} fits")
        each = self._side_by_side(self._learned, list(product(range(shape[0]), range(shape[1]))), "fits", self.n_jobs)
        self._models = [[model for model, *_ in each[k * shape[1] : (k + 1) * shape[1]]] for k in range(shape[0])]
        self._seconds = np.reshape([seconds for *_, seconds in each], shape)
        problems: list[Any] = [error for _, error, _ in each if error is not None]
        if self._hopeless(self._models):
            raise problems[0]
        problems += [one.problem for one in self._choose()]
        if problems := [problem for problem in problems if problem is not None]:
            warnings.warn(
                f"{len(problems)} fits or scores failed, of {len(each)} each; their score is {self._missing}, and "
                f"error_score='raise' raises. The first: {type(problems[0]).__name__}: {problems[0]}",
                FitFailedWarning,
                stacklevel=3,
            )
        return self

    def _plan_rekeying(self, subjects: Subjects) -> Plan:
        draft = self._draft()
        draft.key = subjects.key
        draft.fit(self._X, self._y, ids=self._ids, sample_weight=self._weight)
        return Plan(lambda: self._become(draft), True, "exact", np.inf)

    # --------------------------------------------------------------- delete

    def _plan_deletion(self, rows: IntArray) -> Plan:
        """Delete from copies of every model, score and choose; what is left to do is to put the result in place.

        The copies share the buffers of their rows with the models, so that only then these rows are overwritten.
        """
        with sharing() as later:
            after = self._without(rows)

        def commit() -> None:
            for name in _FOUND:
                self.__dict__.pop(name, None)
            self._become(after)
            for overwrite in later:
                overwrite()

        return Plan(commit, True, after.certificate_.method, np.inf)

    def _carried_out(self, plan: Plan, rows: IntArray) -> Callable[[], None]:
        return plan.commit  # the subjects too

    def _without(self, rows: IntArray) -> Any:
        """Return this search without these rows; the search itself does not change."""
        stay = self._subjects.retained.copy()
        stay[rows] = False
        stay = stay[self._subjects.retained]
        self._check_folds(self._fold[stay])
        gone, first = np.unique(self._ids[~stay], return_index=True)
        fold_of = self._fold[~stay][first]
        after = self._on(np.flatnonzero(stay))
        try:
            after._models = [
                [after._deleted_from(model, k, gone[fold_of != f], after._fold != f)[0] for f, model in enumerate(row)]
                for k, row in enumerate(track(self._models, "candidates"))
            ]
            after._choose_again(self, gone)
        except CertifiedError:
            raise
        except Exception as error:
            raise InvalidRequest(
                f"{type(self).__name__}.delete: a fresh search on the retained rows raises {type(error).__name__}: "
                f"{error} Fit a search with another error_score, or delete other subjects too. Nothing was changed."
            ) from error
        after._subjects = deepcopy(self._subjects)
        after._subjects.drop(rows)
        after.__dict__.pop("_problem", None)  # its traceback holds rows
        return after

    # --------------------------------------------------------------- refine

    @available_if(_some_can_be_refined)
    def _plan_refinement(self) -> Plan:
        """Refine copies of every model, score and choose again: scores are functions of the models."""
        with sharing() as later:
            after = self._draft()
            for name in _FOUND:
                after.__dict__.pop(name, None)
            after._models = [[_refined(model) for model in row] for row in track(self._models, "candidates")]
            served = (_refined(self.best_estimator_), None) if self._refit else (None, None)
            after._choose(getattr(self, "best_index_", -1), served)

        def commit() -> None:
            self._become(after)
            for overwrite in later:
                overwrite()

        return Plan(commit, True, after.certificate_.method, np.inf)

    # --------------------------------------------------------------- choose

    def _choose_again(self, before: Any, gone: Any) -> None:
        """Choose as a fresh search would; `before` is the search with the rows `gone`."""
        if self._hopeless(self._models):
            raise InvalidRequest(
                f"{type(self).__name__}: after this deletion no candidate can be fitted without each fold. "
                f"{self._problem or ''} Nothing was changed."
            ) from self._problem
        served: tuple[Any, Exception | None] = (None, None)
        if self._refit:
            every = np.ones(len(self._ids), dtype=bool)
            served = self._deleted_from(before.best_estimator_, before.best_index_, gone, every)
        self._choose(getattr(before, "best_index_", -1), served)

    def _on(self, retained: IntArray) -> Any:
        """Return this search with these rows and nothing found yet; the search itself does not change."""
        after = self._draft()
        for name in _FOUND:
            after.__dict__.pop(name, None)
        after._X = _safe_indexing(self._X, retained)
        after._ids, after._fold = self._ids[retained], self._fold[retained]
        after._seconds = np.full(self._seconds.shape, np.nan)  # these depend on rows that are gone
        after._y = None if self._y is None else _safe_indexing(self._y, retained)
        after._weight = None if self._weight is None else self._weight[retained]
        return after

    def _deleted_from(self, model: Any, k: int, ids: Any, held: Any) -> tuple[Any, Exception | None]:
        """Return a copy of a model without these subjects, or None and why not, as a fresh fit on `held` would.

        It is a copy because a model that deletes does so in place, and an interrupt must find every model as it was.
        A model may refuse a deletion that a fresh fit does not mind.
        """
        if model is not None and not len(ids):
            return model, None
        if model is not None:
            model = deepcopy(model)
            rows = model._subjects.rows_of(ids)
            try:
                plan = model._planned_deletion(rows)
            except Exception:
                model = None
            else:
                model._carried_out(plan, rows)()
                return model, None
        model, problem, _ = self._try(k, held)
        if problem is not None and self._raises:
            raise problem
        self._problem = problem or self._problem
        return model, problem

    def _modules(self) -> Iterator[str]:
        for model in self._every():
            yield from model._modules()

    def _members(self) -> tuple[Any, ...]:
        best = self.__dict__.get("best_estimator_")
        return () if best is None else (best,)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the search: of the choice and of the model chosen.

        The choice is a function of all models' releases and of the retained rows, so its mu is theirs composed. Where
        no model serves, it is of the choice alone, and its other fields are those of the model with the largest mu.
        """
        self._check_fitted()
        found = [model.certificate_ for model in self._every()]
        final = found[-1] if self._refit else max(found, key=lambda c: c.mu)
        name = f"{type(self).__name__} > {final.estimator}"
        adaptivity = self._subjects.key.adaptivity
        if all(c.claim == "exact" for c in found):
            return Certificate.exact(
                scope="search",
                estimator=name,
                n_rows=self.n_rows_,
                n_features=final.n_features,
                versions=self._versions(),
                adaptivity=adaptivity,
            )
        claim = "none" if any(c.claim == "none" for c in found) else "indistinguishable"
        return replace(
            final,
            n_rows=self.n_rows_,
            claim=claim,
            scope="search",
            estimator=name,
            mu=np.inf if claim == "none" else compose([c.mu for c in found]),
            mu_target=self._promise(found),
            adaptivity=adaptivity,
            mu_transcript=np.nan,
            mu_differencing=np.nan,
            method=final.method if final.method != "exact" else "measured",
        )

    def _promise(self, found: list[Certificate]) -> float:
        """Return the largest mu with which a release leaves: of every fold's model, and of the winner, whoever it is.

        Each model promises its share of what its candidate was asked for. So this is at most what was asked for, and
        the largest of it where candidates were asked for several.
        """
        targets = [c.mu_target for c in found]
        return compose([*targets[:-1], max(targets)] if self._refit else targets)

    @property
    def state_digest_(self) -> str:
        """Digest of all models and scores, where all are exact: equal if the states are, bit for bit. Private."""
        self._check_fitted()
        missing = [[model is None for model in row] for row in self._models]
        scores = [values for name, values in self.cv_results_.items() if name.startswith("split")]
        best = getattr(self, "best_index_", -1)
        return digest(*[model.state_digest_ for model in self._every()], np.array(missing), *scores, best)
