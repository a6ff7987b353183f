"""Generalised linear regressors and multinomial logistic regression: oracles, deletions, wrong inputs."""

import pickle

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import linear_model as plain

from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.linear_model import (
    GammaRegressor,
    LogCoshRegressor,
    LogisticRegression,
    PoissonRegressor,
    TweedieRegressor,
)
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import yield_deletion_checks

N = 300
TIGHT = {"solver": "newton-cholesky", "tol": 1e-12, "max_iter": 1000}
MODELS = [
    PoissonRegressor(alpha=0.01),
    GammaRegressor(alpha=0.1),
    TweedieRegressor(power=1.5, alpha=0.01),
    LogCoshRegressor(width=0.7, alpha=0.001),
]
each_model = pytest.mark.parametrize("model", MODELS, ids=str)


def table(seed=0, n=N):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    z = x @ [0.4, -0.3, 0.0] + 0.5
    exposure = rng.uniform(0.1, 2.0, size=n)
    return x, z, exposure, rng


def target(model, z, rng):
    mean = np.exp(z)
    if isinstance(model, PoissonRegressor):
        return rng.poisson(mean).astype(float)
    if isinstance(model, GammaRegressor):
        return rng.gamma(2.0, mean / 2) + 1e-6
    if isinstance(model, TweedieRegressor):
        return rng.poisson(mean) * rng.gamma(2.0, 1.0, size=len(z))
    return z + rng.standard_t(3, size=len(z))


def fresh(model):
    return type(model)(**model.get_params())


def private(model):
    return np.append(np.ravel(model.private_coef_), model.private_intercept_)


def distance(model, refit):
    K = len(np.ravel(model.private_intercept_))
    gap = (private(model) - private(refit)).reshape(-1)
    if K > 1:  # [coef | intercept] class by class
        gap = np.column_stack(
            [model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_]
        ).ravel()
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


# ------------------------------------------------------------------------------------------------ oracles


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("model", "oracle"),
    [
        (PoissonRegressor(alpha=0.03), plain.PoissonRegressor(alpha=0.03, **TIGHT)),
        (PoissonRegressor(alpha=0.0), plain.PoissonRegressor(alpha=0.0, **TIGHT)),
        (GammaRegressor(alpha=0.03), plain.GammaRegressor(alpha=0.03, **TIGHT)),
        *(
            (
                TweedieRegressor(1.3, alpha=0.03, link=link),
                plain.TweedieRegressor(power=1.3, alpha=0.03, link=link, **TIGHT),
            )
            for link in ("auto", "log")
        ),
    ],
    ids=lambda m: str(m)[:22],
)
def test_coefficients_are_those_of_scikit_learn(model, oracle, weighted, intercept):
    x, z, weight, rng = table()
    y = target(model, z, rng)
    s = weight if weighted else None
    found = fresh(model).set_params(tol=1e-9, fit_intercept=intercept).fit(x, y, sample_weight=s)
    oracle.set_params(fit_intercept=intercept).fit(x, y, sample_weight=s)
    assert found.private_coef_ == pytest.approx(oracle.coef_, rel=1e-6, abs=1e-8)
    assert found.private_intercept_ == pytest.approx(oracle.intercept_, rel=1e-6, abs=1e-8)


def test_offset_and_exposure_are_those_of_statsmodels():
    x, z, exposure, rng = table()
    y = rng.poisson(np.exp(z) * exposure).astype(float)
    oracle = sm.GLM(y, sm.add_constant(x), family=sm.families.Poisson(), exposure=exposure).fit(tol=1e-14)
    by_exposure = PoissonRegressor(alpha=0.0, tol=1e-9).fit(x, y, exposure=exposure)
    by_offset = PoissonRegressor(alpha=0.0, tol=1e-9).fit(x, y, offset=np.log(exposure))
    as_frequency = PoissonRegressor(alpha=0.0, tol=1e-9).fit(x, y / exposure, sample_weight=exposure)
    for model in (by_exposure, by_offset, as_frequency):
        assert private(model)[[3, 0, 1, 2]] == pytest.approx(oracle.params, rel=1e-7, abs=1e-9)
    plain_mean = by_exposure.predict(x)
    assert by_exposure.predict(x, exposure=exposure) == pytest.approx(plain_mean * exposure)


def test_logistic_offset_is_that_of_statsmodels():
    x, z, offset, rng = table()
    y = (rng.random(N) < 1 / (1 + np.exp(-z - offset))).astype(float)
    oracle = sm.GLM(y, sm.add_constant(x), family=sm.families.Binomial(), offset=offset).fit(tol=1e-14)
    model = LogisticRegression(C=np.inf, tol=1e-9).fit(x, y, offset=offset)
    assert private(model)[[3, 0, 1, 2]] == pytest.approx(oracle.params, rel=1e-6, abs=1e-8)


def test_log_cosh_is_least_squares_for_a_wide_loss_and_resists_outliers():
    x, z, _, rng = table()
    y = z + 0.1 * rng.normal(size=N)
    squares = plain.LinearRegression().fit(x, y)
    wide = LogCoshRegressor(width=1e4, tol=1e-9).fit(x, y)
    assert wide.private_coef_ == pytest.approx(squares.coef_, rel=1e-5, abs=1e-7)
    y[:10] += 1000.0
    robust = LogCoshRegressor(width=0.2).fit(x, y)
    assert np.abs(robust.private_coef_ - [0.4, -0.3, 0.0]).max() < 0.05
    assert np.abs(plain.LinearRegression().fit(x, y).coef_ - [0.4, -0.3, 0.0]).max() > 1.0


@pytest.mark.parametrize("C", [np.inf, 1.0, 0.01])
@pytest.mark.parametrize("intercept", [True, False])
def test_multinomial_coefficients_are_those_of_scikit_learn(C, intercept):
    x, z, weight, rng = table()
    labels = np.array(["bad", "fair", "good"])[np.digitize(z + rng.logistic(size=N), [0.0, 1.0])]
    model = LogisticRegression(C=C, tol=1e-9, fit_intercept=intercept).fit(x, labels, sample_weight=weight)
    oracle = plain.LogisticRegression(C=C, fit_intercept=intercept, **TIGHT).fit(x, labels, sample_weight=weight)
    assert model.private_coef_ == pytest.approx(oracle.coef_, rel=1e-6, abs=1e-7)
    assert model.private_intercept_ == pytest.approx(oracle.intercept_, rel=1e-6, abs=1e-7)
    bare = LogisticRegression(C=C, noise=0, fit_intercept=intercept).fit(x, labels, sample_weight=weight)
    assert bare.predict_proba(x) == pytest.approx(oracle.predict_proba(x), abs=1e-5)
    assert np.exp(bare.predict_log_proba(x)) == pytest.approx(bare.predict_proba(x))
    assert bare.release().predict_proba(x) == pytest.approx(bare.predict_proba(x))
    assert np.mean(bare.predict(x) == oracle.predict(x)) > 0.99


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("how", ["balanced", {0: 0.5, 1: 3.0}])
@pytest.mark.parametrize("weighted", [True, False])
def test_class_weights_are_those_of_scikit_learn(classes, how, weighted):
    x, z, weight, rng = table()
    labels = np.digitize(z + rng.logistic(size=N), [0.5, 2.0][: classes - 1])
    s = weight if weighted else None
    model = LogisticRegression(class_weight=how, tol=1e-9).fit(x, labels, sample_weight=s)
    oracle = plain.LogisticRegression(class_weight=how, **TIGHT).fit(x, labels, sample_weight=s)
    assert model.private_coef_ == pytest.approx(oracle.coef_, rel=1e-6, abs=1e-7)
    gone = rng.choice(N, 20, replace=False)
    model.delete(gone[0])
    model.delete(gone[1:])
    model.refine()
    retained = np.isin(np.arange(N), model.ids_)
    oracle.fit(x[retained], labels[retained], sample_weight=None if s is None else s[retained])
    assert model.private_coef_ == pytest.approx(oracle.coef_, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("wrong", ["even", {0: 1.0, 7: 2.0}, {0: -1.0}, 3])
def test_wrong_class_weights_are_refused(wrong):
    x, z, _, _ = table()
    with pytest.raises(InvalidInput, match="class_weight"):
        LogisticRegression(class_weight=wrong).fit(x, z > 0.5)


# ------------------------------------------------------------------------------------------------ deletion


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.sampled_from([1, 3, 20]), min_size=1, max_size=4),
    classes=st.sampled_from([2, 3]),
    weighted=st.booleans(),
)
def test_balanced_deletion_stays_within_the_certificate(seed, sizes, classes, weighted):
    x, z, weight, rng = table(seed)
    labels = np.digitize(z + rng.logistic(size=N), [0.5, 2.0][: classes - 1])
    s = weight if weighted else np.ones(N)
    model = LogisticRegression(class_weight="balanced", noise=0.5).fit(x, labels, sample_weight=s)
    for size in sizes:
        model.delete(rng.choice(model.ids_, size=size, replace=False))
    retained = np.isin(np.arange(N), model.ids_)
    refit = LogisticRegression(class_weight="balanced", tol=1e-9).fit(
        x[retained], labels[retained], sample_weight=s[retained]
    )
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)


@each_model
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 3, 40]), how=st.sampled_from(["", "offset", "weight"]))
def test_deletion_stays_within_the_certificate(model, seed, size, how):
    x, z, given_, rng = table(seed)
    y = target(model, z, rng)
    extra = {how: np.log(given_)} if how == "offset" else {"sample_weight": given_} if how == "weight" else {}
    found = fresh(model).set_params(noise=0.5).fit(x, y, **extra)
    for gone in (rng.choice(N, size=size, replace=False),):
        found.delete(gone)
    retained = np.isin(np.arange(N), found.ids_)
    refit = (
        fresh(model).set_params(tol=1e-9).fit(x[retained], y[retained], **{k: v[retained] for k, v in extra.items()})
    )
    allowed = found.certificate_.distance_bound + refit.certificate_.distance_bound
    assert distance(found, refit) <= allowed
    assert np.array_equal(found.noise_metric_, refit.noise_metric_)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([1, 3, 40]), penalised=st.booleans())
def test_multinomial_deletion_stays_within_the_certificate(seed, size, penalised):
    x, z, _, rng = table(seed)
    labels = np.digitize(z + rng.logistic(size=N), [0.0, 1.0])
    C = 1.0 if penalised else np.inf
    model = LogisticRegression(C=C, noise=0.5).fit(x, labels)
    model.delete(rng.choice(N, size=size, replace=False))
    retained = np.isin(np.arange(N), model.ids_)
    refit = LogisticRegression(C=C, tol=1e-9).fit(x[retained], labels[retained])
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)


def _checks():
    balanced = LogisticRegression(class_weight="balanced")
    for model in [*MODELS, make_pipeline(StandardScaler(), PoissonRegressor()), balanced]:
        for name, check in yield_deletion_checks(model):
            yield pytest.param(check, id=f"{str(model)[:24]}-{name}")


@pytest.mark.parametrize("check", list(_checks()))
def test_deletion_checks(check):
    check()


def test_a_single_deletion_needs_no_pass():
    for model in MODELS:
        x, z, _, rng = table(n=5000)
        found = fresh(model).fit(x, target(model, z, rng))
        assert found.delete(7).method == "predicted", str(model)


def test_columns_may_be_named():
    x, z, exposure, rng = table()
    y = rng.poisson(np.exp(z) * exposure)
    frame = pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(
        pl.Series("policy", np.arange(N) + 100), pl.Series("years", exposure)
    )
    model = PoissonRegressor(alpha=0.1).fit(frame, y, ids="policy", exposure="years")
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    assert model.delete(100).n_rows == 1
    same = PoissonRegressor(alpha=0.1).fit(x, y, exposure=exposure)
    same.delete(0)
    assert private(model) == pytest.approx(private(same), abs=1e-9)
    with pytest.raises(InvalidInput, match="names a column"):
        PoissonRegressor().fit(frame, y, exposure="nothing")


def test_a_pipeline_passes_the_exposure_on():
    x, z, exposure, rng = table()
    y = rng.poisson(np.exp(z) * exposure)
    frame = pl.DataFrame(x * 100, schema=["a", "b", "c"]).with_columns(pl.Series("years", exposure))
    model = make_pipeline(StandardScaler(), PoissonRegressor(alpha=0.0)).fit(frame, y, exposure="years")
    model.delete([3, 4])
    retained = np.isin(np.arange(N), model.ids_)
    refit = make_pipeline(StandardScaler(), PoissonRegressor(alpha=0.0, tol=1e-9))
    refit.fit(x[retained] * 100, y[retained], exposure=exposure[retained])
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert model.predict(x * 100, exposure=exposure) == pytest.approx(model.predict(x * 100) * exposure)
    assert model.score(x * 100, y, exposure=exposure) > model.score(x * 100, y)
    with pytest.raises(InvalidInput, match="does not take"):
        make_pipeline(LogisticRegression()).fit(x, z > 0.5, exposure=exposure)


# ------------------------------------------------------------------------------------------------ wrong inputs


def _wrong():
    ones = np.ones(N)
    yield PoissonRegressor(), {"y": -ones}, "out of the valid range"
    yield GammaRegressor(), {"y": np.zeros(N)}, "out of the valid range"
    yield TweedieRegressor(), {"y": -ones}, "out of the valid range"
    yield PoissonRegressor(), {"y": np.zeros(N)}, "every target is 0"
    yield PoissonRegressor(), {"exposure": np.zeros(N)}, "positive and finite"
    yield PoissonRegressor(), {"exposure": -ones}, "positive and finite"
    yield PoissonRegressor(), {"exposure": ones[:-1]}, "for each of the"
    yield PoissonRegressor(), {"offset": ones * np.nan}, "finite number"
    yield PoissonRegressor(), {"offset": ones, "exposure": ones}, "both offset and exposure"
    yield LogCoshRegressor(), {"exposure": ones}, "identity link"
    yield PoissonRegressor(), {"sample_weight": -ones}, "[Nn]egative"
    yield PoissonRegressor(), {"sample_weight": np.zeros(N)}, "at least one non-zero"
    yield PoissonRegressor(alpha=-1.0), {}, "alpha=-1"
    yield TweedieRegressor(power=2.0), {}, "between 1 and 2"
    yield TweedieRegressor(link="identity"), {}, "both the log link"
    yield LogCoshRegressor(width=0.0), {}, "width"


@pytest.mark.parametrize(("model", "wrong", "message"), list(_wrong()))
def test_wrong_input_is_refused_and_changes_nothing(model, wrong, message):
    x, z, _, _ = table()
    y = np.abs(z) + 0.1
    fitted = type(model)().fit(x, y)
    before = pickle.dumps(fitted)
    arguments = {"y": y} | wrong
    with pytest.raises((ValueError, CannotCertify), match=message):
        fitted.set_params(**model.get_params()).fit(x, **arguments)
    fitted.set_params(**type(model)().get_params())
    assert pickle.dumps(fitted) == before


def test_the_last_rows_and_the_last_of_a_class_are_refused():
    x, z, _, rng = table()
    model = PoissonRegressor().fit(x, rng.poisson(np.exp(z)))
    with pytest.raises(InvalidRequest, match="no row with a positive weight"):
        model.delete(np.arange(N))
    labels = np.digitize(z, [0.0, 1.0])
    classifier = LogisticRegression().fit(x, labels)
    before = pickle.dumps(classifier)
    with pytest.raises(InvalidRequest, match="every row of class 1"):
        classifier.delete(np.flatnonzero(labels == 1))
    assert pickle.dumps(classifier) == before


def test_separated_classes_without_a_penalty_are_refused():
    x = np.linspace(-1, 1, 60)[:, None]
    with pytest.raises(CannotCertify, match=r"Add a penalty|add a penalty"):
        LogisticRegression(C=np.inf).fit(x, np.digitize(x[:, 0], [-0.3, 0.3]))
