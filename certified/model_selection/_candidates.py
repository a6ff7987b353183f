"""Where the candidates of a search come from: a grid, or draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.model_selection import ParameterGrid, ParameterSampler

from certified._data.hashing import Key
from certified.model_selection._search import Search

__all__ = ["GridSearchCV", "RandomizedSearchCV"]


class GridSearchCV(Search):
    """Exhaustive search over parameters whose choice deletes too.

    Every candidate is fitted without each fold and scored on it. ``delete`` runs through all of these models, scores
    again and chooses again. A subject's fold follows from its hash, so the winner is the one that a fresh search on the
    retained rows would pick: exactly, if the estimator is exact. If it is certified, the choice sees a noisy release
    of every model; each of ``m`` models keeps within ``1 / sqrt(m)`` of the mu that was asked for, so that all
    together keep what was asked.

    Parameters
    ----------
    estimator : estimator
        Of this package.
    param_grid : dict or list of dicts
        Lists of values by the names of the parameters.
    scoring : str, callable, list, tuple, dict or None, default=None
        As in scikit-learn: one score, or several by their names. Scores are unweighted.
    n_jobs : int or None, default=None
        Fits that run side by side, as in scikit-learn, but in threads, so that nothing is compiled or copied again. An
        exact search is the same bit for bit, whatever the number; while several run, each does its linear algebra on
        one thread. Boosted trees, shards and in-context learners, which have threads or code of their own, run one at a
        time. So do deletions, which are too short for threads to pay.
    refit : bool, str or callable, default=True
        Whether to fit the winner on all rows. With several scores the name of the one that decides; or a function of
        ``cv_results_`` without its times that returns the index of the winner. False: no model serves, and the
        certificate covers the choice alone.
    cv : int, KFold, GroupKFold or None, default=None
        Number of folds; None means 5. Subjects are dealt to them by hash, which is what ``KFold(shuffle=True)`` and
        ``GroupKFold`` ask for; their seeds are not used. Splitters that look at classes or at the order of rows are
        refused.
    verbose : int, default=0
        1 prints how many fits there are, 2 a line for each fit too. Bars: :func:`certified.progress.progress`.
    pre_dispatch : int or str, default="2*n_jobs"
        As in :class:`joblib.Parallel`.
    error_score : "raise" or float, default=nan
        Score where a fit or a scorer fails, with a warning. "raise" raises in ``fit``; a deletion goes on without a
        score.
    return_train_score : bool, default=False
        Whether ``cv_results_`` has the scores on the rows of the fits.
    key : int or None, default=None
        Key of the hash that deals subjects to folds, and from which the models derive theirs, 128 bits; None draws one.

    Attributes
    ----------
    cv_results_ : dict
        As in scikit-learn. After a deletion the times of the fits are NaN: how long a fit or a deletion took depends on
        rows that are gone. So is ``refit_time_``, unless the winner was fitted anew.
    best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_, multimetric_, refit_time_, classes_
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

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        key: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.cv = cv
        self.verbose = verbose
        self.pre_dispatch = pre_dispatch
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.key = key

    def _candidates(self, key: Key) -> Iterable[dict[str, Any]]:
        return ParameterGrid(self.param_grid)


class RandomizedSearchCV(Search):
    """Search over parameters drawn at random; see :class:`GridSearchCV`.

    Parameters
    ----------
    estimator : estimator
    param_distributions : dict or list of dicts
        Lists, or distributions with a method ``rvs``, by the names of the parameters.
    n_iter : int, default=10
        Candidates to draw.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score
        As in :class:`GridSearchCV`.
    key : int or None, default=None
        As in :class:`GridSearchCV`; it draws the candidates too.

    Attributes
    ----------
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_, certificate_
        As in :class:`GridSearchCV`.
    """

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        key: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.scoring = scoring
        self.n_jobs = n_jobs
        self.refit = refit
        self.cv = cv
        self.verbose = verbose
        self.pre_dispatch = pre_dispatch
        self.error_score = error_score
        self.return_train_score = return_train_score
        self.key = key

    def _candidates(self, key: Key) -> Iterable[dict[str, Any]]:
        return ParameterSampler(self.param_distributions, self.n_iter, random_state=key.value % 2**32)
