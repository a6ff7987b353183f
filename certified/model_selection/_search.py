"""What searches share: fit every candidate without each fold, choose, and do both again without what is deleted."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from copy import deepcopy
from dataclasses import replace
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_sample_weight, _num_samples
from threadpoolctl import threadpool_limits

from certified._data.frames import split_ids
from certified._data.reproducible import digest, on_one_thread
from certified._data.rows import sharing
from certified._data.subjects import Subjects, as_ids
from certified.accounting import compose
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate
from certified.errors import CannotCertify, CertifiedError, InvalidInput, InvalidRequest, NotDeletable
from certified.model_selection._results import Measured, read, table, without_times
from certified.model_selection._serving import Serving
from certified.progress import track
from certified.typing import IntArray

__all__ = ["Search"]

_FOUND = (
    *("best_estimator_", "best_index_", "best_params_", "best_score_"),
    *("refit_time_", "classes_", "feature_names_in_", "_names"),
)


class Search(MetaEstimatorMixin, Serving):
    """Base class. Rows are held in the order of their subjects' hashes, which does not depend on the order given."""

    scoring: Any
    n_jobs: Any
    cv: Any
    verbose: Any
    pre_dispatch: Any
    error_score: Any
    return_train_score: Any
    _ids: Any
    _models: list[list[Any]]  # of each candidate and fold; None where it cannot be fitted

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
            The estimator cannot delete rows.
        """
        self._check_parameters()
        for name in _FOUND:
            self.__dict__.pop(name, None)
        X, ids = split_ids(X, ids)
        X = X if hasattr(X, "shape") else np.asarray(X)
        n_rows = _num_samples(X)
        ids = np.arange(n_rows) if ids is None else as_ids(ids, f"{type(self).__name__}.fit(ids=...)")
        subjects = Subjects(ids, n_rows)
        order = np.argsort(subjects.hashes(), kind="stable")
        self._subjects, self._ids = Subjects(ids[order], n_rows), ids[order]
        self._X = _safe_indexing(X, order)
        self._y = None if y is None else _safe_indexing(y if hasattr(y, "shape") else np.asarray(y), order)
        self._weight = None if sample_weight is None else _check_sample_weight(sample_weight, X)[order]
        self._fold = (self._subjects.hashes() % np.uint64(self.n_splits_)).astype(np.int64)
        self._check_folds(self._fold)
        self._parameters = list(self._candidates())
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

    def _check_parameters(self) -> None:
        """Refuse what no search can have; set the number of folds, the scorer, and the score of what has none."""
        name = type(self).__name__
        if not isinstance(self.estimator, Deletable):
            raise NotDeletable(
                f"{name} got a {type(self.estimator).__name__}, which cannot delete. Use an estimator of `certified`, "
                "or certified.certify(...) to convert the whole search."
            )
        cv = 5 if self.cv is None else self.cv
        if isinstance(cv, bool) or not isinstance(cv, int | np.integer) or cv < 2:
            raise InvalidInput(
                f"{name}(cv={self.cv!r}) is not allowed: a number of folds >= 2. Which fold a subject is in follows "
                "from its hash, so that no row influences the fold of another."
            )
        if not (isinstance(self.error_score, Real) or self.error_score == "raise"):
            raise InvalidInput(f'{name}(error_score={self.error_score!r}) is not allowed: a number, nan or "raise".')
        if not (isinstance(self.refit, bool | str) or callable(self.refit)):
            raise InvalidInput(f"{name}(refit={self.refit!r}) is not allowed: True, False, a name or a function.")
        self._base, self._refit = clone(self.estimator), self.refit  # as they are now
        self.n_splits_, raising = int(cv), self.error_score == "raise"
        self._missing = np.nan if raising else float(self.error_score)
        self._scorer = self.scoring
        if not callable(self.scoring):
            self._scorer = check_scoring(self.estimator, self.scoring, raise_exc=raising)
        if hasattr(self._scorer, "_scorers"):
            self._check_refit(list(self._scorer._scorers))

    def _check_refit(self, names: list[str]) -> None:
        if self._refit is True or (isinstance(self._refit, str) and self._refit not in names):
            raise InvalidInput(
                f"{type(self).__name__}(refit={self._refit!r}) is not allowed with several scores: one of {names} that "
                "decides, a function of cv_results_ that returns an index, or False."
            )

    def _side_by_side(self, act: Callable[..., Any], jobs: list[Any], what: str, n_jobs: Any) -> list[Any]:
        """Return what `act` gives for each job, in their order.

        In threads, which share memory: each sees the context of the caller, and none lifts the limit on the threads of
        linear algebra while another counts on it, because the limit is set around all of them.
        """
        if effective_n_jobs(n_jobs) == 1 or not self._in_threads():
            return [act(*job) for job in track(jobs, what)]
        contexts = [copy_context() for _ in jobs]
        run = Parallel(
            n_jobs=n_jobs, require="sharedmem", pre_dispatch=self.pre_dispatch, return_as="generator", batch_size=1
        )
        with threadpool_limits(1):
            done = run(delayed(_within)(context, act, job) for context, job in zip(contexts, jobs, strict=True))
            return list(track(done, what, total=len(jobs)))

    def _in_threads(self) -> bool:
        """Whether every part of every candidate can work while another does."""
        parts = [self._base, *self._base.get_params().values()]
        for chosen in self._parameters:
            for value in chosen.values():
                parts += [value, *(value.get_params().values() if isinstance(value, Deletable) else ())]
        return all(part._reentrant for part in parts if isinstance(part, Deletable))

    def _made(self, k: int, rows: Any) -> Any:
        """Return the candidate fitted on these rows."""
        model = clone(self._base).set_params(**{n: clone(v, safe=False) for n, v in self._parameters[k].items()})
        weight = {} if self._weight is None else {"sample_weight": self._weight[rows]}
        y = None if self._y is None else _safe_indexing(self._y, rows)
        model = model.fit(_safe_indexing(self._X, rows), y, ids=self._ids[rows], **weight)
        model._owned = True
        return model

    def _try(self, k: int, held: Any) -> tuple[Any, Exception | None, float]:
        """Return the candidate fitted on these rows, or None and why not, and the seconds."""
        started = time.perf_counter()
        try:
            return self._made(k, np.flatnonzero(held)), None, time.perf_counter() - started
        except Exception as error:
            return None, error, time.perf_counter() - started

    def _learned(self, k: int, f: int) -> tuple[Any, Exception | None, float]:
        """Return a candidate fitted without a fold, or None and why not, and the seconds."""
        found = self._try(k, self._fold != f)
        if self.verbose > 1:
            text = ", ".join(f"{name}={value}" for name, value in self._parameters[k].items())
            print(f"[CV {f + 1}/{self.n_splits_}] END {text}; total time={found[2]:6.1f}s")
        if found[1] is not None and self.error_score == "raise":
            raise found[1]
        return found

    def _hopeless(self, models: list[list[Any]]) -> bool:
        """Whether no candidate can have a score, because a fold of each has no model."""
        missing = [[model is None for model in row] for row in models]
        return bool(np.all(missing) if not np.isnan(self._missing) else np.any(missing, axis=1).all())

    def _check_folds(self, folds: IntArray) -> None:
        empty = np.flatnonzero(np.bincount(folds, minlength=self.n_splits_) == 0)
        if empty.size:
            raise InvalidRequest(
                f"{type(self).__name__}(cv={self.n_splits_}) has no subject in fold {empty[0]}: folds follow from the "
                "hashes of the subjects. Fewer folds or more subjects are needed. Nothing was changed."
            )

    def _choose(self, before: int | None = None, held: Any = None) -> list[Measured]:
        """Score every candidate, and let the best one that can be fitted on all rows serve; return the scores.

        `before` is the candidate that served before a deletion (-1: none), `held` the estimator without the deleted
        rows, or None where it cannot be without them. If no candidate has a score any more, it goes on serving.
        """
        late = before is not None
        jobs = [(model, f, late) for row in self._models for f, model in enumerate(row)]
        with on_one_thread():  # so that a score does not depend on how many run
            found = self._side_by_side(self._measured, jobs, "scores", 1 if late else self.n_jobs)
        several = getattr(self._scorer, "_scorers", None)
        names = next((list(one.test) for one in found if one.test), getattr(self, "_names", list(several or ["score"])))
        self._names, self.multimetric_ = names, several is not None or names != ["score"]
        if self.multimetric_:
            self._check_refit(names)
        results = table(self._parameters, found, names, self._seconds, self._missing)
        if self.multimetric_ and self._refit is False:
            self._show(results, None, None)
            return found
        every = np.ones(len(self._ids), dtype=bool)
        problem: Exception | None = next((one.problem for one in found if one.problem is not None), None)
        for k in self._order(results):
            if self._refit is False:
                self._show(results, k, None)
                return found
            model, error, seconds = (held, None, np.nan) if k == before else self._try(k, every)
            if model is not None:
                self._show(results, k, model, seconds)
                return found
            problem = error
            if not late and self.error_score == "raise":
                break
        if before is None:
            name = type(self).__name__
            if isinstance(problem, CertifiedError):
                raise problem
            raise CannotCertify(f"{name}: no candidate has a score in every fold and can be fitted.") from problem
        self._show(results, before, held)
        return found

    def _order(self, results: dict[str, Any]) -> list[int]:
        """Return the candidates that have a score, the best first; where a function chooses, its choice."""
        if callable(self._refit):
            index = self._refit(without_times(results))
            if not isinstance(index, int | np.integer) or index not in range(len(self._parameters)):
                raise InvalidInput(
                    f"{type(self).__name__}(refit=...) got {index!r} from the function. The index of a candidate, a "
                    f"whole number below {len(self._parameters)}, is needed. Nothing was changed."
                )
            return [int(index)]
        means = results[f"mean_test_{self._metric}"]
        order = np.lexsort((np.arange(len(means)), -np.where(np.isnan(means), -np.inf, means)))
        return [int(k) for k in order if not np.isnan(means[k])]

    @property
    def _metric(self) -> Any:
        return self._refit if self.multimetric_ else "score"

    def _part(self, rows: Any) -> tuple[Any, ...]:
        """Return what a scorer gets of these rows: features and, where there are any, targets."""
        rows = np.flatnonzero(rows)
        x = _safe_indexing(self._X, rows)
        return (x,) if self._y is None else (x, _safe_indexing(self._y, rows))

    def _measured(self, model: Any, fold: int, late: bool) -> Measured:
        """Return the scores of a model on the fold it was fitted without and, where asked for, on the others."""
        if model is None:
            return Measured({}, {}, None, 0.0)
        started = time.perf_counter()
        test, problem = self._score(model, self._part(self._fold == fold), late)
        seconds = time.perf_counter() - started
        if not self.return_train_score:
            return Measured(test, {}, problem, seconds)
        train, other = self._score(model, self._part(self._fold != fold), late)
        return Measured(test, train, problem or other, seconds)

    def _score(self, model: Any, part: tuple[Any, ...], late: bool) -> tuple[dict[str, float], Exception | None]:
        """Return the scores by name, none where the scorer fails, for example with one class, and why."""
        try:
            return read(self._scorer(model, *part), self._missing)
        except Exception as error:
            if self.error_score == "raise" and not late:
                raise
            return {}, error

    def _show(self, results: dict[str, Any], best: int | None, model: Any, seconds: float = np.nan) -> None:
        """Store the results and the winner, its model too if one serves."""
        self.cv_results_ = results
        self.scorer_ = getattr(self._scorer, "_scorers", self._scorer)
        if best is not None:
            self.best_index_, self.best_params_ = best, self._parameters[best]
            if not callable(self._refit):
                self.best_score_ = float(results[f"mean_test_{self._metric}"][best])
        if self._refit:
            self.best_estimator_, self.refit_time_ = model, seconds
            for name in ("classes_", "feature_names_in_"):
                if model is not None and hasattr(model, name):
                    setattr(self, name, getattr(model, name))
        self.n_features_in_ = next(model for model in self._every() if model is not None).n_features_in_

    # --------------------------------------------------------------- delete

    def _plan_deletion(self, rows: IntArray) -> Plan:
        """Delete from copies of every model, score and choose; what is left to do is to put the result in place.

        The copies share the buffers of their rows with the models, so that only then these rows are overwritten.
        """
        with sharing() as later:
            after = self._without(rows)

        def commit() -> None:
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
        reasons: list[str] = []
        models = [
            [
                self._forgotten(model, k, gone[fold_of != f], stay & (self._fold != f), reasons)
                for f, model in enumerate(row)
            ]
            for k, row in enumerate(track(self._models, "candidates"))
        ]
        if self._hopeless(models):
            self._refuse(reasons)
        best = self._forgotten(self.best_estimator_, self.best_index_, gone, stay, reasons) if self._refit else None
        after = self._on(np.flatnonzero(stay), models)
        after._choose(getattr(self, "best_index_", -1), best)
        if self._refit and after.best_estimator_ is None:
            self._refuse(reasons)
        after._subjects = deepcopy(self._subjects)
        after._subjects.drop(rows)
        return after

    def _refuse(self, reasons: list[str]) -> None:
        raise InvalidRequest(
            f"{type(self).__name__}: after this deletion no candidate could be fitted without each fold and on all "
            f"rows. {(reasons or ['Nothing was changed.'])[0]}"
        )

    def _on(self, retained: IntArray, models: list[list[Any]]) -> Any:
        """Return this search with these rows and models, to choose anew; the search itself does not change."""
        after = self._draft()
        after._models, after._X = models, _safe_indexing(self._X, retained)
        after._ids, after._fold = self._ids[retained], self._fold[retained]
        after._seconds = np.full(self._seconds.shape, np.nan)  # these depend on rows that are gone
        after._y = None if self._y is None else _safe_indexing(self._y, retained)
        after._weight = None if self._weight is None else self._weight[retained]
        return after

    def _forgotten(self, model: Any, k: int, ids: Any, held: Any, reasons: list[str]) -> Any:
        """Return a copy of a model without these subjects, or None where it cannot be, and add why to the reasons.

        It is a copy because a model that deletes does so in place, and an interrupt must find every model as it was.
        """
        if model is None:  # it could not be fitted before; a fresh search would try
            return self._try(k, held)[0]
        if not len(ids):
            return model
        model = deepcopy(model)
        rows = model._subjects.rows_of(ids)
        try:
            plan = model._planned_deletion(rows)
        except CertifiedError as error:
            reasons.append(str(error))
            return None
        model._carried_out(plan, rows)()
        return model

    def _modules(self) -> Iterator[str]:
        for model in self._every():
            yield from model._modules()

    def _members(self) -> tuple[Any, ...]:
        best = self.__dict__.get("best_estimator_")
        return () if best is None else (best,)

    def _every(self) -> list[Any]:
        """All models that had a part in the choice, and the one that serves."""
        found = [model for row in self._models for model in row if model is not None]
        return [*found, self.best_estimator_] if self._refit else found

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
        if all(c.claim == "exact" for c in found):
            return Certificate.exact(
                scope="search",
                estimator=name,
                n_rows=self.n_rows_,
                n_features=final.n_features,
                versions=self._versions(),
                adaptivity=final.adaptivity,
            )
        claim = "none" if any(c.claim == "none" for c in found) else "indistinguishable"
        return replace(
            final,
            n_rows=self.n_rows_,
            claim=claim,
            scope="search",
            estimator=name,
            mu=np.inf if claim == "none" else compose([c.mu for c in found]),
            mu_target=compose([c.mu_target for c in found]),
            mu_transcript=np.nan,
            mu_differencing=np.nan,
            method=final.method if final.method != "exact" else "measured",
        )

    @property
    def state_digest_(self) -> str:
        """Digest of all models and scores, where all are exact: equal if the states are, bit for bit. Private."""
        self._check_fitted()
        missing = [[model is None for model in row] for row in self._models]
        scores = [values for name, values in self.cv_results_.items() if name.startswith("split")]
        best = getattr(self, "best_index_", -1)
        return digest(*[model.state_digest_ for model in self._every()], np.array(missing), *scores, best)


def _within(context: Context, act: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """Call `act` with what the caller's context variables were."""
    return context.run(act, *job)
