"""Scores of all models, and the choice among the candidates."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from certified._data.reproducible import on_one_thread
from certified.errors import CannotCertify, CertifiedError, InvalidInput
from certified.model_selection._models import Models
from certified.model_selection._results import Measured, read, table, without_times

__all__ = ["Choice"]


class Choice(Models):
    """Base class: scores every model, chooses, and stores the results."""

    def _choose(self, before: int | None = None, served: Any = (None, None)) -> list[Measured]:
        """Score every candidate, and let the best one that can be fitted on all rows serve; return the scores.

        `before` is the candidate that served before a deletion (-1: none), `served` its model without the deleted
        rows, or None and why there is none.
        """
        late = before is not None
        jobs = [(model, f) for row in self._models for f, model in enumerate(row)]
        with on_one_thread():  # so that a score does not depend on how many run
            found = self._side_by_side(self._measured, jobs, "scores", 1 if late else self.n_jobs)
        several = getattr(self._scorer, "_scorers", None)
        names = next((list(one.test) for one in found if one.test), list(several or ["score"]))
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
            model, error, seconds = (*served, np.nan) if k == before else self._try(k, every)
            if model is not None:
                self._show(results, k, model, seconds)
                return found
            problem = error
            if self._raises:
                break
        if isinstance(problem, CertifiedError):
            raise problem
        raise CannotCertify(
            f"{type(self).__name__}: no candidate has a score in every fold and can be fitted. {problem or ''}"
        ) from problem

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

    def _measured(self, model: Any, fold: int) -> Measured:
        """Return the scores of a model on the fold it was fitted without and, where asked for, on the others."""
        if model is None:
            return Measured({}, {}, None, 0.0)
        started = time.perf_counter()
        test, problem = self._score(model, self._part(self._fold == fold))
        seconds = time.perf_counter() - started
        if not self.return_train_score:
            return Measured(test, {}, problem, seconds)
        train, other = self._score(model, self._part(self._fold != fold))
        return Measured(test, train, problem or other, seconds)

    def _score(self, model: Any, part: tuple[Any, ...]) -> tuple[dict[str, float], Exception | None]:
        """Return the scores by name, none where the scorer fails, for example with one class, and why."""
        try:
            return read(self._scorer(model, *part), self._missing)
        except Exception as error:
            if self._raises:
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
