"""Least squares with coefficients >= 0: scikit-learn's minimum, exact under deletion; what a linear model accepts."""

import numpy as np
import pytest
import sklearn.linear_model as plain
from hypothesis import given, settings
from hypothesis import strategies as st

from certified.linear_model import ElasticNet, Lasso, LinearRegression, Ridge
from certified.linear_model._least_squares_problem import LeastSquaresProblem

MODELS = [
    LinearRegression(positive=True),
    LinearRegression(positive=True, fit_intercept=False),
    Ridge(alpha=3.0, positive=True),
]


def objective(model, X, Y, s):
    coef, alpha = np.atleast_2d(model.coef_), getattr(model, "alpha", 0.0)
    residual = Y - X @ coef.T - model.intercept_
    return (s[:, None] * residual**2).sum(axis=0) + alpha * (coef**2).sum(axis=1)


@pytest.mark.parametrize("model", MODELS, ids=str)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_minimum_over_coefficients_not_below_zero_is_found_and_forgets(model, seed):
    rng = np.random.default_rng(seed)
    n, p = 80, int(rng.integers(1, 8))
    X = rng.standard_normal((n, p)) @ (np.eye(p) + 0.6 * rng.standard_normal((p, p))) * 10.0 ** rng.integers(-3, 4, p)
    Y = rng.standard_normal((n, 2)) + (X / X.std(axis=0)) @ rng.standard_normal((p, 2))
    s = rng.random(n) + 0.1
    ours = type(model)(**model.get_params()).fit(X, Y, sample_weight=s)
    how = {"alpha": model.alpha, "tol": 1e-9, "max_iter": 10_000} if isinstance(model, Ridge) else {}
    theirs = getattr(plain, type(model).__name__)(positive=True, fit_intercept=model.fit_intercept, **how)
    theirs.fit(X, Y, sample_weight=s)
    assert (ours.coef_ >= 0).all()
    assert (objective(ours, X, Y, s) <= objective(theirs, X, Y, s) * (1 + 1e-9)).all()
    ours.delete([1, 5, 9])
    retained = ~np.isin(np.arange(n), [1, 5, 9])
    refit = type(model)(**model.get_params()).fit(X[retained], Y[retained], sample_weight=s[retained])
    assert ours.state_digest_ == refit.state_digest_
    assert ours.release().positive


def test_an_entry_that_should_rise_is_not_left_at_zero(monkeypatch):
    """A search that proposes nothing: the conditions of the minimum find every entry by themselves."""
    monkeypatch.setattr("certified.linear_model._least_squares_problem.search", lambda Q, q, a, b, w, positive: w)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 4))
    y = X @ [1.0, 2.0, -1.0, 0.5] + 0.1 * rng.standard_normal(60)
    found = LinearRegression(positive=True).fit(X, y).coef_
    np.testing.assert_allclose(found, plain.LinearRegression(positive=True).fit(X, y).coef_, atol=1e-8)
    assert LeastSquaresProblem(np.eye(2), np.array([-1.0, -2.0]), 1.0, 0.0, 0.0, True).non_negative().tolist() == [0, 0]


def test_what_scikit_learn_accepts_and_shows():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((50, 3)), np.ones(50)])
    y = X[:, 0] + 0.1 * rng.standard_normal(50)
    assert LinearRegression(copy_X=False, n_jobs=2, tol=1e-3).fit(X, y).rank_ == 3
    assert plain.LinearRegression().fit(X, y).rank_ == 3
    same = Ridge().fit(X, y).coef_
    assert np.array_equal(Ridge(copy_X=False, max_iter=10, tol=0.1, solver="svd").fit(X, y).coef_, same)
    for model in (Lasso, ElasticNet):
        first = model(alpha=0.1).fit(X, y)
        other = model(alpha=0.1, precompute=True, copy_X=False, warm_start=True, selection="random").fit(X, y)
        assert first.state_digest_ == other.state_digest_
        np.testing.assert_array_equal(first.sparse_coef_.toarray()[0], first.coef_)
