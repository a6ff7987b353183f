"""Cox regression: the model of statsmodels, certificates against a referee, faults that are caught."""

import numpy as np
import pytest
from referee import Long, derivatives, example, minimiser, worst_ratio
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from statsmodels.duration.hazard_regression import PHReg

from certified.errors import CannotCertify, InvalidInput
from certified.survival import CoxPH, _cox
from certified.survival._partial_likelihood import RiskSets
from certified.testing import check_delete_equals_refit, yield_deletion_checks


def patients(seed=0, n=300, ties=True):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)) * [1.0, 5.0, 0.2] + [0.0, 50.0, 1.0]
    time = rng.exponential(np.exp(-0.5 * X[:, 0])) + 0.01
    time = np.ceil(5.0 * time) if ties else time
    return X, np.column_stack([rng.random(n) < 0.6, time])


def sets_of(case):
    """The risk sets of a random case, on rows of positive weight, and these rows."""
    live = case["weight"] > 0
    y = case["y"][live]
    parts = case["X"][live], y, case["weight"][live], case["stratum"][live]
    sets = RiskSets(parts[0], y[:, 1], y[:, 0] == 1, parts[2], parts[3], efron=case["ties"] == "efron")
    return sets, parts


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("strata", [False, True])
def test_coefficients_are_those_of_statsmodels(ties, strata):
    X, y = patients()
    labels = np.random.default_rng(1).integers(0, 3, len(y)) if strata else None
    model = CoxPH(0, ties=ties, noise=0, tol=1e-9).fit(X, y, strata=labels)
    expected = PHReg(y[:, 1], X, status=y[:, 0], ties=ties, strata=labels).fit(tol=1e-14).params
    np.testing.assert_allclose(model.coef_, expected, rtol=1e-8, atol=1e-10)


def test_a_whole_weight_is_a_row_that_is_repeated():
    X, y = patients(2)
    weight = np.random.default_rng(0).integers(0, 4, len(y))
    recipe = CoxPH(ties="breslow", noise=0, tol=1e-9)
    weighted = clone(recipe).fit(X, y, sample_weight=weight)
    repeated = clone(recipe).fit(np.repeat(X, weight, axis=0), np.repeat(y, weight, axis=0))
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("seed", range(40))
def test_value_and_derivatives_are_those_of_the_referee_within_the_bounds(seed):
    case = example(seed)
    sets, rows = sets_of(case)
    w = np.random.default_rng(seed).normal(size=case["X"].shape[1]) / (1.0 + np.abs(case["X"]).max(axis=0))
    found = sets.at(w)
    value, gradient, hessian = derivatives(*rows, case["ties"], 0.0, w)
    assert found.value == pytest.approx(float(value), rel=1e-9, abs=1e-9)
    assert np.all(np.abs(found.gradient - gradient) <= found.gradient_error)
    scale = np.sqrt(np.outer(found.diagonal, found.diagonal))
    assert np.all(np.abs(found.hessian - hessian) <= found.relative * scale)


@pytest.mark.parametrize("seed", range(20))
def test_the_hessian_changes_no_faster_than_the_constant_says(seed):
    case = example(seed)
    sets, rows = sets_of(case)
    rng = np.random.default_rng(seed)
    p = case["X"].shape[1]
    w = rng.normal(size=p) / (1.0 + np.abs(case["X"]).max(axis=0))
    hessian = derivatives(*rows, case["ties"], case["alpha"], w)[2].astype(float)
    inverse = np.linalg.inv(np.linalg.cholesky(hessian))
    M = sets.reach(inverse)
    for _ in range(5):
        v = rng.normal(size=p) @ inverse  # length about sqrt(p) in the metric of the Hessian
        b = M * np.linalg.norm(np.linalg.solve(inverse.T, v))
        for t in (0.1, 1.0):
            moved = derivatives(*rows, case["ties"], case["alpha"], w + t * v)[2].astype(float)
            values = np.linalg.eigvalsh(inverse @ moved @ inverse.T)
            assert np.exp(-t * b) * (1 - 1e-9) <= values[0]
            assert values[-1] <= np.exp(t * b) * (1 + 1e-9)


@pytest.mark.parametrize("block", range(4))
def test_certificates_hold_against_the_referee(block):
    for seed in range(1000 + 15 * block, 1015 + 15 * block):
        assert worst_ratio(seed) <= 1.0 + 1e-9, seed


def test_the_referee_finds_a_certificate_that_claims_too_much(monkeypatch):
    measured = CoxPH._measured

    def bold(self, sets, metric, w, passes):
        found = measured(self, sets, metric, w, passes)
        return _cox.Solution(w, 0.5 * found.distance, found.method, found.terms, found.weight, passes)

    monkeypatch.setattr(CoxPH, "_measured", bold)
    assert max(worst_ratio(seed) for seed in range(1000, 1020)) > 1.0


def test_a_person_left_in_the_risk_sets_of_others_is_caught(monkeypatch):
    plan = CoxPH._plan_deletion

    def events_only(self, rows):
        """Delete the own event, and stay in every other's risk set."""
        left, held = self._subjects.without, self._held
        self._subjects.without = lambda rows: left(rows[:0])
        held.event[rows] = False
        try:
            return plan(self, rows)
        finally:
            del self._subjects.without

    monkeypatch.setattr(CoxPH, "_plan_deletion", events_only)
    with pytest.raises(AssertionError):
        check_delete_equals_refit(CoxPH())


def test_after_a_deletion_and_a_refinement_it_is_the_refit():
    X, y = patients(4, ties=False)
    ids, labels = np.arange(len(y)) // 2, np.arange(len(y)) % 3
    model = CoxPH(tol=1e-8).fit(X, y, ids=ids, strata=labels)
    receipt = model.delete([3, 40, 77])
    assert receipt.n_rows == 6
    assert receipt.method == "measured"
    model.refine()
    left = ~np.isin(ids, [3, 40, 77])
    refit = CoxPH(tol=1e-8).fit(X[left], y[left], ids=ids[left], strata=labels[left])
    np.testing.assert_array_equal(model.private_coef_, refit.private_coef_)
    np.testing.assert_array_equal(model.noise_metric_, refit.noise_metric_)
    exact = minimiser(X[left], y[left], np.ones(left.sum()), labels[left], "efron", 1.0, model.private_coef_)
    gap = (model.private_coef_.astype(Long) - exact).astype(float)
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= model.certificate_.distance_bound <= 1e-7


def test_order_of_risks_is_told_by_the_score():
    X, y = patients(5, n=1000)
    model = CoxPH().fit(X, y)
    assert 0.6 < model.score(X, y) < 0.8
    np.testing.assert_allclose(model.release().predict(X), model.predict(X))


def test_what_has_no_minimiser_is_refused():
    time = np.arange(1.0, 41.0)
    with pytest.raises(CannotCertify, match="alpha"):
        CoxPH(0).fit(-time[:, None] + 0.0, time)  # a perfect order: the coefficient grows for ever
    with pytest.raises(CannotCertify, match=r"alpha|penalty"):
        CoxPH(0).fit(np.ones((40, 1)), time)
    y = np.column_stack([np.arange(40) == 4, time])
    model = CoxPH(noise=1.0).fit(np.sin(time)[:, None], y)
    with pytest.raises(CannotCertify, match="no event"):
        model.delete([4])
    assert model.n_rows_ == 40


def test_what_makes_no_sense_is_refused():
    X, y = patients()
    for wrong, match in (({"alpha": -1.0}, "alpha"), ({"ties": "exact"}, "ties"), ({"noise": -1.0}, "noise")):
        with pytest.raises(InvalidInput, match=match):
            CoxPH(**wrong).fit(X, y)
    with pytest.raises(InvalidInput, match="strata"):
        CoxPH().fit(X, y, strata=[1, 2])
    model = CoxPH().fit(X, y, strata=np.arange(len(y)) % 2)
    with pytest.raises(InvalidInput, match="strata"):
        model.add(X[:1], y[:1], ids=[1000])


@pytest.mark.parametrize(("title", "check"), list(yield_deletion_checks(CoxPH())))
def test_the_public_checks_pass(title, check):
    check()


@parametrize_with_checks([CoxPH(noise=0, tol=1e-9, ties="breslow")])
def test_scikit_learn_checks(estimator, check):
    check(estimator)
