"""The models of a search: every candidate without each fold, side by side in threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from numbers import Real
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone
from sklearn.metrics import check_scoring
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed
from threadpoolctl import threadpool_limits

from certified._data.hashing import Key
from certified._data.subjects import Subjects
from certified._data.whole import part_of
from certified.base import Deletable
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.model_selection._serving import Serving
from certified.progress import track
from certified.typing import IntArray

__all__ = ["Models", "fold_hashes", "number_of_folds"]


class Models(Serving):
    """Base class: what a search was asked for, as it was at the fit, and how one of its models is fitted."""

    scoring: Any
    n_jobs: Any
    cv: Any
    verbose: Any
    pre_dispatch: Any
    error_score: Any
    return_train_score: Any
    _ids: Any
    _models: list[list[Any]]  # of each candidate and fold; None where it cannot be fitted

    def _candidates(self, key: Key) -> Iterable[dict[str, Any]]:
        raise NotImplementedError

    def _check_parameters(self) -> None:
        """Refuse what no search can have; set the number of folds, the scorer, and the score of what has none."""
        name = type(self).__name__
        if not isinstance(self.estimator, Deletable):
            raise NotDeletable(
                f"{name} got a {type(self.estimator).__name__}, which cannot delete. Use an estimator of `certified`, "
                "or certified.certify(...) to convert the whole search."
            )
        cv = number_of_folds(self.cv)
        if cv is None:
            raise InvalidInput(
                f"{name}(cv={self.cv!r}) is not allowed: a number of folds >= 2, KFold(shuffle=True) or GroupKFold. "
                "Which fold a subject is in follows from its hash, so that no row influences the fold of another; "
                "folds by the order of rows or by classes are not like that."
            )
        if not (isinstance(self.error_score, Real) or self.error_score == "raise"):
            raise InvalidInput(f'{name}(error_score={self.error_score!r}) is not allowed: a number, nan or "raise".')
        if not (isinstance(self.refit, bool | str) or callable(self.refit)):
            raise InvalidInput(f"{name}(refit={self.refit!r}) is not allowed: True, False, a name or a function.")
        self._base, self._refit = clone(self.estimator), self.refit  # as they are now
        self.n_splits_, self._raises = cv, self.error_score == "raise"
        self._missing = np.nan if self._raises else float(self.error_score)
        self._scorer = self.scoring
        if not callable(self.scoring):
            self._scorer = check_scoring(self.estimator, self.scoring, raise_exc=self._raises)
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
        with part_of(self._subjects.key.derive("model"), self._share()):
            model = model.fit(_safe_indexing(self._X, rows), y, ids=self._ids[rows], **weight)
        model._owned = True
        return model

    def _share(self) -> float:
        """Return each model's part of the promised mu: the choice sees a release of all, so their squares add up."""
        count = len(self._parameters) * self.n_splits_ + bool(self._refit)
        return (1.0 - 2.0**-40) / np.sqrt(count)

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
        if found[1] is not None and self._raises:
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

    def _part(self, rows: Any) -> tuple[Any, ...]:
        """Return what a scorer gets of these rows: features and, where there are any, targets."""
        rows = np.flatnonzero(rows)
        x = _safe_indexing(self._X, rows)
        return (x,) if self._y is None else (x, _safe_indexing(self._y, rows))

    def _every(self) -> list[Any]:
        """All models that had a part in the choice, and the one that serves."""
        found = [model for row in self._models for model in row if model is not None]
        return [*found, self.best_estimator_] if self._refit else found


def number_of_folds(cv: Any) -> int | None:
    """Return how many folds are asked for, None where folds by the hashes of subjects are something else."""
    if cv is None:
        return 5
    if type(cv) is GroupKFold or (type(cv) is KFold and cv.shuffle):  # subjects are the groups
        return int(cv.n_splits)
    whole = isinstance(cv, int | np.integer) and not isinstance(cv, bool)
    return int(cv) if whole and cv >= 2 else None


def fold_hashes(subjects: Subjects, key: Key) -> Any:
    return subjects.hashes(key.derive("fold").value)


def _within(context: Context, act: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    """Call `act` with what the caller's context variables were."""
    return context.run(act, *job)
