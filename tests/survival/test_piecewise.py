"""Piecewise constant hazards: the model that is meant, and its deletion."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.integrate import quad
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from certified.errors import CannotCertify, InvalidInput
from certified.survival import PiecewiseExponential
from certified.survival._periods import split
from certified.testing import check_delete_equals_refit, yield_deletion_checks

BREAKS = (0.3, 0.8)


def patients(seed=0, n=400):
    """Rows of which most have an event, every second subject with two rows; some times lie on a break."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    time = np.minimum(rng.exponential(np.exp(-0.5 * X[:, 0] + 0.2 * X[:, 1])), rng.uniform(0.1, 3.0, n))
    time[::17], time[::23] = BREAKS
    event = rng.random(n) < 0.7
    return X, np.column_stack([event, time]), np.arange(n) * 2 // 3


@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_and_hazards_are_those_of_statsmodels(weighted):
    X, y, _ = patients()
    weight = np.random.default_rng(1).integers(1, 4, len(y)).astype(float) if weighted else np.ones(len(y))
    model = PiecewiseExponential(BREAKS, alpha=0, smoothness=0, noise=0, tol=1e-10).fit(X, y, sample_weight=weight)
    rows, events, exposure = [], [], []
    for x, (event, time), s in zip(X, y, weight, strict=True):  # split by hand
        for k, (start, end) in enumerate(zip((0.0, *BREAKS), (*BREAKS, np.inf), strict=True)):
            if time > start:
                rows.append([*x, *(float(k == j) for j in range(3)), s])
                events.append(float(event and time <= end))
                exposure.append(min(time, end) - start)
    rows = np.array(rows)
    family = sm.families.Poisson()
    found = sm.GLM(events, rows[:, :-1], family=family, offset=np.log(exposure), freq_weights=rows[:, -1])
    expected = found.fit(tol=1e-14).params
    np.testing.assert_allclose(np.concatenate([model.coef_, model.log_hazard_]), expected, rtol=1e-8, atol=1e-9)


def test_without_features_the_hazard_is_events_by_time():
    _, y, _ = patients(3)
    model = PiecewiseExponential(BREAKS, smoothness=0, noise=0).fit(np.zeros((len(y), 1)), y)
    for k, (start, end) in enumerate(zip((0.0, *BREAKS), (*BREAKS, np.inf), strict=True)):
        events = np.sum(y[(y[:, 1] > start) & (y[:, 1] <= end), 0])
        observed = np.clip(np.minimum(y[:, 1], end) - start, 0.0, None).sum()
        assert np.exp(model.log_hazard_[k]) == pytest.approx(events / observed, rel=1e-6)


def test_survival_is_the_exponential_of_the_integrated_hazard():
    X, y, _ = patients()
    model = PiecewiseExponential(BREAKS).fit(X, y)
    times = [0.0, 0.2, 0.3, 0.5, 0.8, 2.0]
    curves = model.predict_survival_function(X[:3], times)

    def hazard(t):
        return np.exp(model.log_hazard_[np.searchsorted(BREAKS, t)])

    for row, risk in zip(curves, np.exp(model.predict(X[:3])), strict=True):
        for value, t in zip(row, times, strict=True):
            integral = quad(hazard, 0.0, t, points=[b for b in BREAKS if b < t] or None)[0]
            assert value == pytest.approx(np.exp(-risk * integral), rel=1e-8)
    assert np.all(np.diff(curves) < 0)
    assert model.score(X, y) > 0.6


@pytest.mark.parametrize("seed", range(12))
def test_a_deletion_meets_the_refit(seed):
    X, y, ids = patients(seed, n=150)
    rng = np.random.default_rng(100 + seed)
    weight = rng.uniform(0.5, 2.0, len(y))
    recipe = PiecewiseExponential(BREAKS, alpha=10.0 ** rng.uniform(-2, 1))
    model = clone(recipe).fit(X, y, ids=ids, sample_weight=weight)
    gone = []
    for size in (1, 3, 20):
        request = rng.choice(model.ids_, size, replace=False)
        gone.extend(request.tolist())
        receipt = model.delete(request)
        stay = ~np.isin(ids, gone)
        assert receipt.n_rows == np.isin(ids, request).sum()
        assert model.n_rows_ == model.certificate_.n_rows == stay.sum()
        exact = clone(recipe).set_params(tol=1e-10).fit(X[stay], y[stay], ids=ids[stay], sample_weight=weight[stay])
        assert np.array_equal(model.noise_metric_, exact.noise_metric_)
        gap = np.append(model.private_coef_, model.private_intercept_)
        gap -= np.append(exact.private_coef_, exact.private_intercept_)
        distance = np.sqrt(gap @ model.noise_metric_ @ gap)
        assert distance <= model.certificate_.distance_bound + exact.certificate_.distance_bound
    model.refine()
    assert model.certificate_.distance_bound <= 1e-6


def test_rows_are_added_with_their_periods():
    X, y, ids = patients(5, n=150)
    model = PiecewiseExponential(BREAKS).fit(X[:100], y[:100], ids=ids[:100])
    model.add(X[100:], y[100:], ids=ids[100:])
    model.delete([ids[0], ids[120]])
    stay = ~np.isin(ids, ids[[0, 120]])
    refit = PiecewiseExponential(BREAKS).fit(X[stay], y[stay], ids=ids[stay])
    gap = model.private_coef_ - refit.private_coef_
    assert np.abs(gap).max() < 1e-3
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)


def test_all_forms_of_targets_are_one():
    X, y, _ = patients()
    structured = np.array([(bool(e), t) for e, t in y], dtype=[("cens", "?"), ("time", "f8")])
    models = [PiecewiseExponential(BREAKS, noise=0).fit(X, form) for form in (y, structured, y.tolist())]
    assert np.array_equal(models[0].coef_, models[1].coef_)
    assert np.array_equal(models[0].coef_, models[2].coef_)
    alone = PiecewiseExponential(noise=0).fit(X, y[:, 1])
    every = PiecewiseExponential(noise=0).fit(X, np.column_stack([np.ones(len(y)), y[:, 1]]))
    assert np.array_equal(alone.coef_, every.coef_)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda X, y: (X, np.where(np.arange(2) == 1, 0.0, y)), "times that are not positive"),
        (lambda X, y: (X, y + np.array([1.0, 0.0])), "neither 0 nor 1"),
        (lambda X, y: (X, y[:-1]), "inconsistent numbers"),
        (lambda X, y: (X, np.column_stack([y, y])), "structured array"),
        (lambda X, y: (X, y * np.array([0.0, 1.0])), "no event"),
        (lambda X, y: (X, y * np.array([1.0, np.nan])), "NaN"),
    ],
)
def test_targets_that_make_no_sense_are_refused(change, match):
    with pytest.raises(InvalidInput, match=match):
        PiecewiseExponential(BREAKS).fit(*change(*patients()[:2]))


@pytest.mark.parametrize("breaks", [[0.0], [1.0, 1.0], [2.0, 1.0], [np.nan], [[1.0]], "many"])
def test_breaks_that_make_no_intervals_are_refused(breaks):
    with pytest.raises(InvalidInput, match="breaks"):
        PiecewiseExponential(breaks).fit(*patients()[:2])


def test_a_deletion_that_leaves_no_event_is_refused_and_changes_nothing():
    X, y, _ = patients(n=30)
    y[:, 0] = np.arange(30) == 4
    model = PiecewiseExponential(noise=0.5).fit(X, y)
    before = model.private_coef_.copy()
    with pytest.raises(CannotCertify, match="Nothing was changed"):
        model.delete([4])
    assert np.array_equal(model.private_coef_, before)
    assert model.n_rows_ == 30


def test_a_split_keeps_time_and_events():
    X, y, _ = patients(9)
    periods = split(X, y[:, 1], y[:, 0] == 1, np.array(BREAKS))
    np.testing.assert_allclose(np.bincount(periods.row, np.exp(periods.log_time)), y[:, 1], rtol=1e-12)
    assert np.array_equal(np.bincount(periods.row, periods.event), y[:, 0])


def test_a_deletion_that_forgets_a_period_is_caught(monkeypatch):
    find = PiecewiseExponential._plan_deletion

    def first_period_only(self, rows):
        subjects = self._head._subjects
        monkeypatch.setattr(subjects, "rows_of", lambda ids: type(subjects).rows_of(subjects, ids)[:1], raising=False)
        return find(self, rows)

    monkeypatch.setattr(PiecewiseExponential, "_plan_deletion", first_period_only)
    with pytest.raises(AssertionError):
        check_delete_equals_refit(PiecewiseExponential([0.05, 0.2], noise=0, tol=1e-9))


@pytest.mark.parametrize(("title", "check"), list(yield_deletion_checks(PiecewiseExponential())))
def test_the_public_checks_pass(title, check):
    check()


@parametrize_with_checks([PiecewiseExponential(noise=0, tol=1e-10)])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
