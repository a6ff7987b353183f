"""Rows that join: within the certificate of a refit, exactly the refit's release metric, errors that change nothing."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified import head
from certified.errors import InvalidInput, NotDeletable
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
from certified.pipeline import make_pipeline

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
    return float(np.sqrt(gap @ model.release_metric_ @ gap))


def check_window(model, seed, steps, classes=2):
    """Rows come and go; the state stays within its certificate of a refit on the rows held."""
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
        assert np.array_equal(found.release_metric_, refit.release_metric_)
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
    assert model.add(x[-1:], y[-1:], ids=[N]).method == "theorem-2"
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
        found = model.add(np.full((1, 1), 6.0), [1], ids=[400])
        both, labels = np.append(x, [[6.0]], axis=0), np.append(y, 1.0)
        refit = LogisticRegression(C=1e4, tol=1e-9, fit_intercept=False, noise=0).fit(both, labels)
        gap = float(np.abs(model.private_coef_ - refit.private_coef_)[0, 0] * np.sqrt(model.release_metric_[0, 0]))
        assert found.distance_bound >= gap, "below the true distance"
        return found.method

    ratio()
    honest = head.newton.longest
    monkeypatch.setattr(head.newton, "longest", lambda *args: honest(*args) / 1e3)
    metric = head.Passes.measured
    monkeypatch.setattr(head.Passes, "measured", lambda self, m: head.replace(metric(self, m), M=1e-4))
    with pytest.raises(AssertionError, match="below the true distance"):
        ratio()


def test_wrong_rows_are_refused_and_change_nothing():
    x, y, _ = table(LogisticRegression())
    model = LogisticRegression().fit(x[:200], y[:200])
    before = pickle.dumps(model)
    wrong = [
        ((x[200:], y[200:], range(3)), "ids for"),
        ((x[200:], y[200:] + 7, range(200, N)), "which the fit did not have"),
        ((x[200:, :2], y[200:], range(200, N)), "features"),
        ((x[200:] * np.nan, y[200:], range(200, N)), "NaN"),
        ((x[200:], y[200:], [str(i) for i in range(200, N)]), "type"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            model.add(*arguments)
        assert pickle.dumps(model) == before
    with pytest.raises(InvalidInput, match="valid range"):
        PoissonRegressor().fit(x, y).add(x[:1], [-1.0], ids=[N])
    pipeline = make_pipeline(LogisticRegression()).fit(x, y)
    with pytest.raises(NotDeletable, match="step of a fitted pipeline"):
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
    certificate = model.add(x[40:], y[40:], ids=np.arange(100, 110), sample_weight=s[40:])
    assert certificate.claim == "exact"
    model.delete([7, 101])
    kept = np.setdiff1d(np.arange(50), [0, 1, 2, 3, 4, 7, 41])
    refit = clone(estimator).fit(x[kept], y[kept], sample_weight=s[kept])
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.release_metric_, refit.release_metric_)
    assert np.array_equal(model.coef_, refit.coef_)
    assert model.ids_.size == kept.size


def test_rows_that_cannot_join_least_squares_change_nothing():
    x, _, rng = table(LogisticRegression())
    y = x @ [1.0, 2.0, 3.0] + rng.normal(size=N)
    model = Ridge().fit(x, y)
    before = pickle.dumps(model)
    for wrong, error, match in (
        ((x[:2], np.ones((2, 3)), [1000, 1001]), InvalidInput, "outputs"),
        ((x[:2, :2], y[:2], [1000, 1001]), ValueError, "features"),
        ((x[:2], y[:2], [1000]), InvalidInput, "1 ids for 2 rows"),
        ((x[:2], y[:2], ["a", "b"]), InvalidInput, "ids of type"),
        ((x[:2], [1.0, np.nan], [1000, 1001]), ValueError, "NaN"),
    ):
        with pytest.raises(error, match=match):
            model.add(*wrong)
        assert pickle.dumps(model) == before
