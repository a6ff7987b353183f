"""A search is refined as a whole: each of its models, and then the choice among them."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import FitFailedWarning

from certified.audit import private_parameter
from certified.audit._memory import unlike
from certified.base import Plan
from certified.decomposition import PCA
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import check_nothing_follows_the_deleted_row

RNG = np.random.default_rng(2)
N = 300
X = RNG.standard_normal((N, 3))
Y = (X[:, 0] + RNG.standard_normal(N) > 0) * 1
LOSS = {"cv": 2, "key": 7, "scoring": "neg_log_loss"}
SEARCHES = {
    "models": GridSearchCV(LogisticRegression(), {"C": [1e-7, 1.0]}, **LOSS),
    "pipelines": GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [1e-7, 1.0]}, **LOSS
    ),
}


def models_of(search):
    return [*[model for row in search._models for model in row], search.best_estimator_]


@pytest.mark.parametrize("name", SEARCHES)
def test_every_model_is_at_its_minimum_and_the_certificate_says_so(name):
    search = clone(SEARCHES[name]).fit(X, Y, ids=np.arange(N))
    search.delete(np.arange(20))
    before = search.certificate_.mu
    told = search.refine()
    assert told == search.certificate_
    assert told.mu < before
    assert told.mu <= told.mu_target
    folds = [search._fold != f for row in search._models for f in range(len(row))]
    for model, held in zip(models_of(search), [*folds, np.ones(N - 20, dtype=bool)], strict=True):
        ids = search._ids[held]
        referee = clone(model)
        referee.set_params(**{name: 1e-10 for name in referee.get_params() if name.split("__")[-1] == "tol"})
        head, exact = (getattr(m, "_final", m) for m in (model, referee.fit(X[ids], Y[ids], ids=ids)))
        gap = private_parameter(head) - private_parameter(exact)
        allowed = head.certificate_.distance_bound + exact.certificate_.distance_bound  # the referee is not exact
        assert np.sqrt(gap @ head.noise_metric_ @ gap) <= allowed
    assert search.delete([25]).n_rows == 1


@pytest.mark.parametrize("name", SEARCHES)
def test_no_model_of_a_refined_search_follows_the_deleted_row(name):
    """As the public check does, for each model of the search, whose scores alone have noise."""
    told = set()
    for place in (17, 40, 63):
        other = X.copy()
        other[place] = 3.0 * X[place - 1] - X[place]
        twins = [clone(SEARCHES[name]).fit(values, Y, ids=np.arange(N)) for values in (X, other)]
        for twin in twins:
            twin.delete([place])
            twin.refine()
        told = _unlike(*twins)
        if not told:
            return
    raise AssertionError(sorted(told)[:8])


def _unlike(one, other):
    return {path for pair in zip(models_of(one), models_of(other), strict=True) for path in unlike(*pair)}


def test_a_search_that_does_not_refine_is_caught(monkeypatch):
    monkeypatch.setattr(GridSearchCV, "_plan_refinement", lambda self: Plan(lambda: None))
    with pytest.raises(AssertionError, match="anchor"):
        test_no_model_of_a_refined_search_follows_the_deleted_row("models")


def test_a_search_of_exact_models_has_nothing_to_refine():
    search = GridSearchCV(PCA(), {"n_components": [1, 2]}, cv=2, scoring=lambda m, x, y: 0.0)
    assert not hasattr(search, "refine")
    assert not hasattr(search.fit(X, Y), "refine")
    check_nothing_follows_the_deleted_row(GridSearchCV(Ridge(), {"alpha": [0.1, 1e9]}, cv=2, key=7))


def test_no_error_of_a_candidate_that_cannot_be_fitted_is_kept():
    """Its traceback holds the rows that it was fitted on."""
    search = GridSearchCV(PCA(), {"n_components": [2, 5]}, scoring=lambda m, x, y: 0.0, cv=2, key=7)
    with pytest.warns(FitFailedWarning, match="failed"):
        search.fit(X, Y, ids=np.arange(N))
    search.delete([3])
    assert not [name for name, value in vars(search).items() if isinstance(value, BaseException)]
