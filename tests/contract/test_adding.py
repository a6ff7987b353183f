"""Rows that are added: within the certificate of a refit, with the noise metric of the refit; errors change nothing."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_regressor

from certified._convex import newton_cholesky
from certified.additive import AdditiveClassifier
from certified.audit._memory import dumped
from certified.compose import make_column_transformer
from certified.ensemble import RandomForestClassifier
from certified.errors import InvalidInput, NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogCoshRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
)
from certified.naive_bayes import GaussianNB
from certified.pipeline import _pipeline as pipeline
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder

N, P = 240, 3
MODELS = (
    LogisticRegression(),
    LogisticRegression(C=0.1, class_weight="balanced"),
    PoissonRegressor(alpha=0.01),
    GammaRegressor(alpha=0.1),
    LogCoshRegressor(alpha=0.01),
)


def table(model, seed=0, classes=2):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(N, P))
    z = x @ [0.5, -0.4, 0.1]
    if isinstance(model, LogisticRegression):
        y = np.digitize(z + rng.logistic(size=N), [0.0, 1.5][: classes - 1])
        y[: 2 * classes] = np.tile(np.arange(classes), 2)
    elif isinstance(model, PoissonRegressor):
        y = rng.poisson(np.exp(z)) + (np.arange(N) == 0)
    elif isinstance(model, GammaRegressor):
        y = rng.gamma(2.0, np.exp(z) / 2) + 1e-6
    else:
        y = z + rng.standard_t(3, size=N)
    return x, y, rng


def fresh(model, **parameters):
    return type(model)(**(model.get_params() | parameters))


def distance(model, refit):
    coef = np.atleast_2d(model.private_coef_) - np.atleast_2d(refit.private_coef_)
    gap = np.column_stack([coef, np.ravel(model.private_intercept_) - np.ravel(refit.private_intercept_)]).ravel()
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


def check_window(model, seed, steps, classes=2):
    """Rows come and go; the state stays within its certificate of a refit on the retained rows."""
    x, y, rng = table(model, seed, classes)
    held = list(range(N // 2))
    found = fresh(model, noise=0.5).fit(x[held], y[held], ids=held)
    waiting = list(range(N // 2, N))
    for come, go in steps:
        new, waiting = waiting[:come], waiting[come:]
        if new:
            found.add(x[new], y[new], ids=new)
            held += new
        gone = rng.choice(held[2 * classes :], size=min(go, len(held) // 3), replace=False).tolist()
        if gone:
            found.delete(gone)
            held = [i for i in held if i not in gone]
        rows = np.sort(held)
        assert found.ids_.tolist() == rows.tolist()
        refit = fresh(model, tol=1e-9).fit(x[rows], y[rows], ids=rows)
        allowed = found.certificate_.distance_bound + refit.certificate_.distance_bound
        assert distance(found, refit) <= allowed, "not within the certificate"
        assert np.array_equal(found.noise_metric_, refit.noise_metric_)
    return found


@pytest.mark.parametrize("model", MODELS, ids=str)
@settings(max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.sampled_from([0, 1, 7, 40]), st.sampled_from([0, 1, 7, 40])), min_size=1, max_size=4),
)
def test_a_sliding_window_stays_within_the_certificate(model, seed, steps):
    check_window(model, seed, steps)


@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_window_of_three_classes_stays_within_the_certificate(seed):
    check_window(LogisticRegression(), seed, [(7, 3), (1, 0), (20, 7)], classes=3)


def test_a_single_new_row_needs_no_pass():
    model = LogisticRegression(noise=0.5)
    x, y, _ = table(model)
    model.fit(x[:-1], y[:-1])
    assert model.add(x[-1:], y[-1:], ids=[N]).method == "predicted"
    assert model.n_rows_ == N


def test_offsets_join_with_their_rows():
    x, y, rng = table(PoissonRegressor())
    years = rng.uniform(0.2, 2.0, size=N)
    model = PoissonRegressor(alpha=0.1).fit(x[:200], y[:200], exposure=years[:200])
    model.add(x[200:], y[200:], ids=range(200, N), exposure=years[200:])
    refit = PoissonRegressor(alpha=0.1, tol=1e-9).fit(x, y, exposure=years)
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound


def test_a_leverage_that_is_not_updated_is_caught(monkeypatch):
    """A new row far outside, whose leverage is left out of M."""
    x, y = np.ones((400, 1)), np.zeros(400)
    y[:8] = 1.0

    def ratio():
        model = LogisticRegression(C=1e4, noise=10.0, epsilon=5.0, fit_intercept=False, random_state=0).fit(x, y)
        found = model.add(np.full((1, 1), 6.0), [1], ids=[400]).certificate
        both, labels = np.append(x, [[6.0]], axis=0), np.append(y, 1.0)
        refit = LogisticRegression(C=1e4, tol=1e-9, fit_intercept=False, noise=0).fit(both, labels)
        gap = float(np.abs(model.private_coef_ - refit.private_coef_)[0, 0] * np.sqrt(model.noise_metric_[0, 0]))
        assert found.distance_bound >= gap, "below the true distance"
        return found.method

    ratio()
    honest = newton_cholesky.downdate.longest
    monkeypatch.setattr(newton_cholesky.downdate, "longest", lambda *args: honest(*args) / 1e3)
    metric = newton_cholesky.Iteration.measured
    monkeypatch.setattr(
        newton_cholesky.Iteration, "measured", lambda self, m: newton_cholesky.replace(metric(self, m), M=1e-4)
    )
    with pytest.raises(AssertionError, match="below the true distance"):
        ratio()


def test_wrong_rows_are_refused_and_change_nothing():
    x, y, _ = table(LogisticRegression())
    model = LogisticRegression().fit(x[:200], y[:200])
    before = dumped(model)
    wrong = [
        ((x[200:], y[200:], range(3)), "ids for"),
        ((x[200:], y[200:] + 7, range(200, N)), "which the fit did not have"),
        ((x[200:, :2], y[200:], range(200, N)), "features"),
        ((x[200:] * np.nan, y[200:], range(200, N)), "NaN"),
        ((x[200:], y[200:], [str(i) for i in range(200, N)]), "type"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.add(*arguments[:2], ids=arguments[2])
        assert dumped(model) == before
    with pytest.raises(InvalidInput, match="valid range"):
        PoissonRegressor().fit(x, y).add(x[:1], [-1.0], ids=[N])
    pipeline = make_pipeline(LogisticRegression()).fit(x, y)
    with pytest.raises(NotDeletable, match="part of a fitted pipeline"):
        pipeline.named_steps["logisticregression"].add(x[:1], y[:1], ids=[N])


# --------------------------------------------------------------------------------------- least squares, exactly


@pytest.mark.parametrize("estimator", [Ridge(), LinearRegression(), ElasticNet(alpha=0.1), Lasso(alpha=0.1)], ids=str)
@given(seed=st.integers(0, 10**6), outputs=st.sampled_from([0, 2]), far=st.booleans())
@settings(max_examples=8)
def test_least_squares_after_rows_that_join_and_leave_is_that_of_a_refit(estimator, seed, outputs, far):
    rng = np.random.default_rng(seed)
    x, s = rng.normal(size=(50, P)), rng.uniform(0.2, 3.0, size=50)
    y = x @ rng.normal(size=(P, max(outputs, 1))) + rng.normal(size=(50, max(outputs, 1)))
    if far:
        x[40:] *= 1e3  # new exponents
    y = y if outputs else y[:, 0]
    model = clone(estimator).fit(x[:40], y[:40], sample_weight=s[:40])
    model.delete(range(5))
    certificate = model.add(x[40:], y[40:], ids=np.arange(100, 110), sample_weight=s[40:]).certificate
    assert certificate.claim == "exact"
    model.delete([7, 101])
    retained = np.setdiff1d(np.arange(50), [0, 1, 2, 3, 4, 7, 41])
    refit = clone(estimator).fit(x[retained], y[retained], sample_weight=s[retained])
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)
    assert np.array_equal(model.coef_, refit.coef_)
    assert model.ids_.size == retained.size


def test_rows_that_cannot_join_least_squares_change_nothing():
    x, _, rng = table(LogisticRegression())
    y = x @ [1.0, 2.0, 3.0] + rng.normal(size=N)
    model = Ridge().fit(x, y)
    before = dumped(model)
    for wrong, error, match in (
        ((x[:2], np.ones((2, 3)), [1000, 1001]), InvalidInput, "outputs"),
        ((x[:2, :2], y[:2], [1000, 1001]), ValueError, "features"),
        ((x[:2], y[:2], [1000]), InvalidInput, "1 ids for 2 rows"),
        ((x[:2], y[:2], ["a", "b"]), InvalidInput, "ids of type"),
        ((x[:2], [1.0, np.nan], [1000, 1001]), ValueError, "NaN"),
    ):
        with pytest.raises(error, match=match):
            model.add(*wrong[:2], ids=wrong[2])
        assert dumped(model) == before


# ------------------------------------------------------------------------------------------------- pipelines


def customers(seed, n=240):
    rng = np.random.default_rng(seed)
    towns = rng.choice(["Ur", "Uruk", "Kish", "Lagash", "Nippur"], size=n, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    income = np.exp(rng.normal(size=n) + np.linspace(0.0, 1.0, n))  # the later, the larger: scales move
    gaps = rng.random(n) < 0.1
    frame = pl.DataFrame(
        {
            "who": rng.integers(0, n // 2, size=n),
            "income": [None if gap else float(v) for v, gap in zip(income, gaps, strict=True)],
            "town": [None if v == "Nippur" else str(v) for v in towns],
        }
    )
    z = np.log(income) * (towns == "Ur") + rng.logistic(size=n) > 0.3
    return frame, np.where(z, "bad", "good")


def scoring(final):
    numbers = make_pipeline(SimpleImputer(strategy="median", sample_size=40, key=7), StandardScaler())
    text = OrdinalEncoder if isinstance(final, RandomForestClassifier) else OneHotEncoder
    target = TargetEncoder(smooth=2.0, cv=3, target_type="continuous" if is_regressor(final) else "binary", key=7)
    columns = make_column_transformer((numbers, ["income"]), (text(), ["town"]), (target, ["town"]))
    return make_pipeline(columns, final)


def check_pipeline(final, seed, steps):
    """A window slides over customers; the columns are those of a refit, the head is within its certificate."""
    frame, y = customers(seed)
    y = np.where(y == "bad", 1.0, 0.0) if is_regressor(final) else y
    rng = np.random.default_rng(seed)
    held = np.arange(100)
    model = scoring(final).fit(frame[held], y[held], ids="who")
    for come, go in steps:
        new = np.arange(held.max() + 1, min(held.max() + 1 + come, len(y)))
        if new.size:
            model.add(frame[new], y[new], ids="who")
            held = np.append(held, new)
        who = np.unique(frame["who"].to_numpy()[held])
        gone = rng.choice(who, size=min(go, len(who) // 4), replace=False)
        if gone.size:
            model.delete(gone)
            held = held[~np.isin(frame["who"].to_numpy()[held], gone)]
    refit = scoring(final).fit(frame[held], y[held], ids="who")
    assert model.n_rows_ == len(held)
    assert model.steps_[0][1].state_digest_ == refit.steps_[0][1].state_digest_, "columns differ"
    if hasattr(refit.steps_[-1][1], "state_digest_"):
        assert model.state_digest_ == refit.state_digest_
    else:
        allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
        assert distance(model, refit) <= allowed, "not within the certificate"
        assert np.array_equal(model.noise_metric_, refit.noise_metric_)
    return model


@pytest.mark.parametrize(
    "final",
    [LogisticRegression(noise=0.5), Ridge(), GaussianNB(), RandomForestClassifier(n_estimators=5, max_depth=4, key=7)],
    ids=str,
)
@settings(max_examples=8)
@given(
    seed=st.integers(0, 2**32 - 1),
    steps=st.lists(st.tuples(st.sampled_from([0, 1, 7, 40]), st.sampled_from([0, 1, 7])), min_size=1, max_size=3),
)
def test_a_window_slides_over_a_whole_pipeline(final, seed, steps):
    check_pipeline(final, seed, steps)


def test_rows_that_change_no_feature_need_no_pass_and_leave_the_steps_alone():
    x, y, _ = table(LogisticRegression())
    model = make_pipeline(StandardScaler(), LogisticRegression(noise=0.5)).fit(x[:-1], y[:-1])
    scaler = model[0]
    assert model.add(x[-1:], y[-1:], ids=[N]).method == "predicted"
    assert model[0] is scaler
    assert model.certificate_.scope == "pipeline"
    model.delete([N, 3])
    assert model.n_rows_ == N - 2


def test_transformers_that_do_not_count_the_new_rows_are_caught(monkeypatch):
    honest = pipeline.fit_through

    def stale(steps, table):
        if "_statistic" not in steps[0].__dict__:
            return honest(steps, table)
        for step in steps:
            table = table._replace(x=step._apply_rows(step._learned, table))
        return tuple(s._statistic for s in steps), tuple(s._learned for s in steps), table.x

    check_pipeline(GaussianNB(), 3, [(40, 1)])
    monkeypatch.setattr(pipeline, "fit_through", stale)
    with pytest.raises((AssertionError, ValueError)):
        check_pipeline(GaussianNB(), 3, [(40, 1)])


def test_weights_and_exposures_join_by_name_and_one_class_is_enough():
    x, y, rng = table(PoissonRegressor())
    frame = pl.DataFrame(x, schema=["a", "b", "c"]).with_columns(
        years=pl.Series(rng.uniform(0.2, 2.0, size=N)), who=pl.Series(np.arange(N) // 2)
    )
    s = rng.uniform(0.0, 2.0, size=N) * (rng.random(N) < 0.9)
    model, refit = (make_pipeline(StandardScaler(), PoissonRegressor(alpha=0.1, tol=tol)) for tol in (1e-6, 1e-9))
    model.fit(frame[:200], y[:200], ids="who", exposure="years", sample_weight=s[:200])
    model.add(frame[200:], y[200:], ids="who", exposure="years", sample_weight=s[200:])
    refit.fit(frame, y, ids="who", exposure="years", sample_weight=s)
    assert model[0].state_digest_ == refit[0].state_digest_
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound
    frame, y = customers(0)
    model = scoring(LogisticRegression()).fit(frame[:200], y[:200], ids="who")
    ones = np.flatnonzero(y == "good")[-5:]
    model.add(frame[ones].drop("who"), y[ones], ids=range(1000, 1005))
    both, whose = pl.concat([frame[:200], frame[ones]]), np.append(frame["who"].to_numpy()[:200], range(1000, 1005))
    refit = scoring(LogisticRegression()).fit(both.drop("who"), np.append(y[:200], y[ones]), ids=whose)
    assert model[0].state_digest_ == refit[0].state_digest_
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound


def test_an_error_half_way_changes_nothing_in_any_step(monkeypatch):
    frame, y = customers(1)
    model = scoring(LogisticRegression()).fit(frame[:150], y[:150], ids="who")
    before = dumped(model)

    def fails(*args, **kwargs):
        raise KeyboardInterrupt

    for rows in (slice(150, 151), slice(150, 240)):  # features stay, features change
        with monkeypatch.context() as patch:
            patch.setattr(LogisticRegression, "_with", fails)
            with pytest.raises(KeyboardInterrupt):
                model.add(frame[rows], y[rows], ids="who")
        assert dumped(model) == before
    with pytest.raises(InvalidInput, match="which the fit did not have"):
        model.add(frame[150:152], ["good", "ugly"], ids="who")
    with pytest.raises(InvalidInput, match="names a column"):
        model.add(frame[150:152], y[150:152], ids="whom")
    assert dumped(model) == before


def test_additive_models_take_new_rows():
    frame, y = customers(2)
    model = AdditiveClassifier(interactions=0, sample_size=50, key=7).fit(frame[:150], y[:150], ids="who")
    model.add(frame[150:], y[150:], ids="who")
    refit = AdditiveClassifier(interactions=0, sample_size=50, tol=1e-9, key=7).fit(frame, y, ids="who")
    assert model[0].state_digest_ == refit[0].state_digest_
    assert distance(model, refit) <= model.certificate_.distance_bound + refit.certificate_.distance_bound
