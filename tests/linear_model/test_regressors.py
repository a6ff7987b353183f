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
    yield TweedieRegressor(power=1.5), {"y": -ones}, "out of the valid range"
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
    yield TweedieRegressor(power=3.0), {}, "0, or a number from 1 to 2 is"
    yield TweedieRegressor(power=1.0, link="identity"), {}, "'auto' and 'log' are"
    yield TweedieRegressor(link="log"), {}, "'auto' and 'identity' are"
    yield PoissonRegressor(epsilon="1"), {}, "epsilon='1'"
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
    with pytest.raises(InvalidRequest, match="every row of PoissonRegressor"):
        model.delete(np.arange(N))
    labels = np.digitize(z, [0.0])
    classifier = LogisticRegression().fit(x, labels)
    before = pickle.dumps(classifier)
    with pytest.raises(InvalidRequest, match=r"without a row .* of class 1"):
        classifier.delete(np.flatnonzero(labels == 1))
    assert pickle.dumps(classifier) == before


def test_separated_classes_without_a_penalty_are_refused():
    x = np.linspace(-1, 1, 60)[:, None]
    with pytest.raises(CannotCertify, match="Give a finite C"):
        LogisticRegression(C=np.inf).fit(x, np.digitize(x[:, 0], [-0.3, 0.3]))


# ------------------------------------------------------------------------------------------ as in scikit-learn


@pytest.mark.parametrize("power", [0, 1, 1.5, 2])
def test_every_power_of_tweedie_is_scikit_learns_and_forgets(power):
    x, z, _, _ = table()
    y = np.abs(z) + 0.1
    ours = TweedieRegressor(power=power, alpha=0.01, noise=0, tol=1e-9).fit(x, y)
    theirs = plain.TweedieRegressor(power=power, alpha=0.01, **TIGHT).fit(x, y)
    np.testing.assert_allclose(ours.private_coef_, theirs.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ours.release().predict(x), ours.predict(x), rtol=1e-9)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), rel=1e-6)
    ours.delete(range(10))
    refit = TweedieRegressor(power=power, alpha=0.01, noise=0, tol=1e-9).fit(x[10:], y[10:])
    gap = np.append(ours.private_coef_ - refit.private_coef_, ours.private_intercept_ - refit.private_intercept_)
    distance = float(np.sqrt(gap @ refit.noise_metric_ @ gap))
    assert distance <= ours.certificate_.distance_bound + refit.certificate_.distance_bound + 1e-9
    assert plain.TweedieRegressor().power == TweedieRegressor().power


def test_what_a_frame_names_when_fitting_it_names_when_predicting():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    policies = pd.DataFrame({"age": rng.normal(size=300), "years": rng.uniform(0.1, 1.0, 300)})
    claims = rng.poisson(np.exp(0.3 * policies["age"]) * policies["years"])
    model = PoissonRegressor(alpha=1e-4).fit(policies, claims, exposure="years")
    expected = model.predict(policies[["age"]], exposure=policies["years"])
    np.testing.assert_array_equal(model.predict(policies, exposure="years"), expected)
    assert model.score(policies, claims, exposure="years") == model.score(
        policies[["age"]], claims, exposure=policies["years"]
    )
    with pytest.raises(InvalidInput, match=r"predict\(exposure='month'\) names a column that X does not have"):
        model.predict(policies, exposure="month")


def test_counts_with_exposure_and_frequencies_with_weights_are_one_model():
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(4)
    n = 600
    x, years = rng.normal(size=(n, 2)), rng.uniform(0.02, 1.0, n)
    claims = rng.poisson(np.exp(-1.0 + 0.5 * x[:, 0]) * years)
    counts = PoissonRegressor(alpha=0.0, noise=0).fit(x, claims, exposure=years)
    rates = PoissonRegressor(alpha=0.0, noise=0).fit(x, claims / years, sample_weight=years)
    for retained in (np.arange(n), np.arange(2, n)):
        if len(retained) < n:
            counts.delete([0, 1])
            rates.delete([0, 1])
        family = sm.families.Poisson()
        oracle = (
            sm.GLM(claims[retained], sm.add_constant(x[retained]), family=family, exposure=years[retained]).fit().params
        )
        for model in (counts, rates):
            found = np.append(model.private_intercept_, model.private_coef_)
            np.testing.assert_allclose(found, oracle, atol=1e-5)


def test_parameters_that_concern_work_alone_are_accepted_and_change_nothing():
    x, z, _, _ = table()
    labels = (z > 0) * 1
    first = LogisticRegression(noise=0).fit(x, labels)
    for how in (
        {"n_jobs": 2, "verbose": 1, "warm_start": True},
        {"solver": "lbfgs"},
        {"solver": "saga", "penalty": "l2"},
        {"dual": False, "intercept_scaling": 1},
    ):
        assert np.array_equal(LogisticRegression(noise=0, **how).fit(x, labels).private_coef_, first.private_coef_)
    assert PoissonRegressor(warm_start=True, verbose=1).fit(x, labels).n_rows_ == N


def _mistakes():
    x, z, _, _ = table()
    labels = (z > 0) * 1
    yield LogisticRegression(penalty="l1"), (x, labels), "l1_ratio=1 for 'l1'"
    yield LogisticRegression(C=np.inf), (x, (x[:, 0] > 0) * 1), "separate without error"
    yield LogisticRegression(C=np.inf), (x, (x[:, 0] > 0) * 1 + (x[:, 0] > 1)), "separate without error"
    yield LogisticRegression(l1_ratio=1.0), (x, np.digitize(z, [0.0, 1.0])), "an L1 penalty with 3 classes. Only binary"
    yield LogisticRegression(solver="liblinear"), (x, labels), "solver='liblinear'"
    yield LogisticRegression(dual=True), (x, labels), "belong to liblinear"


@pytest.mark.parametrize(("model", "data", "message"), list(_mistakes()))
def test_a_mistake_is_told_by_its_one_cause(model, data, message):
    with pytest.raises((InvalidInput, CannotCertify), match=message):
        model.fit(*data)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_ids_in_the_place_of_the_target_are_told_before_any_work():
    x = table()[0]
    with pytest.raises(InvalidInput, match=r"one row each .* Are these the ids\?"):
        LogisticRegression().fit(x, np.arange(N))
