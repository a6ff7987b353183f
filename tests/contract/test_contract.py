"""Every estimator fulfils the deletion contract, and planted faults are caught."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.preprocessing import FunctionTransformer
from sklearn.preprocessing import MinMaxScaler as PlainMinMax
from sklearn.preprocessing import StandardScaler as PlainScaler

from certified import noise
from certified._convex import newton_cholesky
from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.compose import ColumnTransformer, make_union
from certified.errors import NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import KBinsDiscretizer, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
from certified.testing import (
    check_deletable,
    check_delete_equals_refit,
    check_noise_is_fresh,
    data_sets,
    deletion_requests,
    yield_deletion_checks,
)

ESTIMATORS = {
    "logistic": LogisticRegression(),
    "logistic without intercept": LogisticRegression(fit_intercept=False),
    "logistic, weak penalty": LogisticRegression(C=100.0),
    "logistic by products": LogisticRegression(solver="newton-cg"),
    "logistic, elastic net": LogisticRegression(C=0.3, l1_ratio=0.6),
    "poisson by products": PoissonRegressor(solver="newton-cg"),
    "ridge": Ridge(),
    "ridge with noise": Ridge(noise=0.1),
    "least squares": LinearRegression(),
    "scaler": StandardScaler(),
    "range scaler": MinMaxScaler(),
    "robust scaler": RobustScaler(),
    "robust scaler, small sample": RobustScaler(sample_size=20, key=7),
    "range scaler, scaler, logistic": make_pipeline(MinMaxScaler(), StandardScaler(), LogisticRegression()),
    "robust scaler, ridge": make_pipeline(RobustScaler(sample_size=20, key=7), Ridge()),
    "imputer": SimpleImputer(),
    "median, scaler, ridge": make_pipeline(
        SimpleImputer(strategy="median", sample_size=20, key=7), StandardScaler(), Ridge()
    ),
    "bins": KBinsDiscretizer(),
    "bins, small sample, logistic": make_pipeline(KBinsDiscretizer(sample_size=30, key=7), LogisticRegression()),
    "categories": OneHotEncoder(handle_unknown="ignore"),
    "columns": ColumnTransformer(
        [
            ("scale", make_pipeline(RobustScaler(sample_size=30, key=7), StandardScaler()), [0, 1]),
            ("bins", KBinsDiscretizer(), [1]),
        ],
        remainder="passthrough",
    ),
    "pipeline without a model": make_pipeline(MinMaxScaler(), KBinsDiscretizer(sample_size=30, key=7)),
    "union, bins, ridge": make_pipeline(make_union(MinMaxScaler(), StandardScaler()), KBinsDiscretizer(3), Ridge()),
    "additive classifier": AdditiveClassifier(max_bins=8, smoothness=1.0, interactions=[(0, 1)], sample_size=40, key=7),
    "additive regressor": AdditiveRegressor(interactions=2, sample_size=60, key=7),
    "scaler, logistic": make_pipeline(StandardScaler(), LogisticRegression()),
    "scaler, ridge": make_pipeline(StandardScaler(), Ridge()),
    "function, scaler, logistic": make_pipeline(FunctionTransformer(np.tanh), StandardScaler(), LogisticRegression()),
}
CHECKS = [
    pytest.param(check, id=f"{name}: {title}")
    for name, estimator in ESTIMATORS.items()
    for title, check in yield_deletion_checks(estimator)
]


@pytest.mark.parametrize("check", CHECKS)
def test_estimator_passes_the_public_check(check):
    check()


@settings(max_examples=25)
@given(data=data_sets(60, 3), draw=st.data())
def test_any_sequence_of_requests_ends_at_a_refit(data, draw):
    X, y, ids = data
    requests = draw.draw(deletion_requests(ids))
    for estimator in (make_pipeline(StandardScaler(), LogisticRegression()), make_pipeline(StandardScaler(), Ridge())):
        model = estimator.fit(X, y, ids=ids)
        for request in requests:
            model.delete(request)
        retained = np.isin(ids, model.ids_)
        refit = make_pipeline(*[step for _, step in estimator.steps]).fit(X[retained], y[retained], ids=ids[retained])
        scaler, fresh = (m.named_steps["standardscaler"] for m in (model, refit))
        assert scaler.state_digest_ == fresh.state_digest_
        if hasattr(model._final, "state_digest_"):
            assert model._final.state_digest_ == refit._final.state_digest_
            continue
        gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
        allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
        assert np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed


class NoOpDelete(LogisticRegression):
    """Forgets the id and nothing else."""

    def _plan_deletion(self, rows):
        from certified.base import Plan

        return Plan(lambda: None, True, "measured")


class StaleScaler(StandardScaler):
    """Forgets the rows, keeps the sums."""

    def _store(self, statistic, learned):
        if not hasattr(self, "_statistic"):
            super()._store(statistic, learned)


class ForgottenIntercept(LogisticRegression):
    """Serves the intercept from before the deletions."""

    def _store(self, state, differencing):
        super()._store(state, differencing)
        self._first = getattr(self, "_first", state.solution.w[-1])

    @property
    def private_intercept_(self):
        return np.array([self._first])


@pytest.mark.parametrize("mutant", [NoOpDelete(), StaleScaler(), ForgottenIntercept()], ids=lambda m: type(m).__name__)
def test_a_mutant_that_does_not_delete_is_caught(mutant):
    with pytest.raises(AssertionError, match=r"refit|state|noise metric"):
        check_delete_equals_refit(mutant)


def test_a_step_in_the_wrong_direction_is_caught(monkeypatch):
    right = newton_cholesky.downdate.downdate

    def wrong(loss, w, inverse_factor, before, rows, sign=1.0):
        after, *envelopes = right(loss, w, inverse_factor, before, rows)
        return after._replace(g=2 * before.g - after.g), *envelopes

    monkeypatch.setattr(newton_cholesky.downdate, "downdate", wrong)
    with pytest.raises(AssertionError, match="certificates allow"):
        check_delete_equals_refit(LogisticRegression())


def test_reused_noise_is_caught(monkeypatch):
    monkeypatch.setattr(noise, "discrete_gaussian", lambda size, scale, rng=None: np.full(size, 2**20))
    with pytest.raises(AssertionError, match=r"fresh|same parameters"):
        check_noise_is_fresh(LogisticRegression())


def _check_covariance_of_releases():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :3] / X[:, :3].std(axis=0)
    model = LogisticRegression().fit(X, y)
    precision = model.noise_metric_ / model.noise**2
    draws = []
    for _ in range(400):
        model._released = None
        draws.append(np.append(model.coef_, model.intercept_))
    gap = np.array(draws) - np.append(model.private_coef_, model.private_intercept_)
    statistic = float(np.einsum("ij,jk,ik->", gap, precision, gap)) / gap.size
    # a mean of 1,600 chi-squares of one degree: standard deviation 0.035, seven of them are 0.25 (error rate 1e-11);
    # a halved sigma gives 0.25 and fails by far
    assert abs(statistic - 1.0) < 0.25, f"the variance of the releases is {statistic:.3g} times that promised"


def test_releases_have_the_covariance_that_is_promised():
    _check_covariance_of_releases()


def test_halved_noise_is_caught_by_the_covariance_of_many_releases(monkeypatch):
    honest = noise.discrete_gaussian
    monkeypatch.setattr(noise, "discrete_gaussian", lambda size, scale, rng=None: honest(size, scale / 2, rng))
    with pytest.raises(AssertionError, match="variance of the releases"):
        _check_covariance_of_releases()


def test_a_plain_step_that_learned_is_refused_with_a_reason():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(NotDeletable, match="cannot delete"):
        make_pipeline(PlainScaler(), LogisticRegression()).fit(X, y)
    with pytest.raises(NotDeletable, match="final step"):
        Pipeline([("scale", StandardScaler()), ("model", PlainRidge())]).fit(X, y)


def test_a_frozen_step_is_accepted_and_a_step_cannot_delete_on_its_own():
    X, y = load_breast_cancer(return_X_y=True)
    frozen = FrozenEstimator(PlainMinMax().fit(X))
    model = make_pipeline(frozen, StandardScaler(), LogisticRegression()).fit(X, y)
    assert model.delete([3]).certificate.scope == "pipeline"
    with pytest.raises(NotDeletable, match="the pipeline"):
        model.named_steps["logisticregression"].delete([4])


def test_check_deletable_runs_every_check():
    check_deletable(Ridge())
