"""Bounds from counts: golden values, oracles, coverage under the null, agreement with jax-privacy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import binom, norm

from certified.accounting import epsilon_of, mu_of
from certified.audit import bounds
from certified.errors import InvalidInput

# 1,000 repetitions of a test of level 0.05: more than 79 alarms have probability 2e-5 at most.
REPEATS, LEVEL, MOST = 1000, 0.05, int(binom.isf(2e-5, 1000, 0.05))


@pytest.mark.parametrize(("n", "epsilon"), [(100, 3.281), (512, 4.929), (1000, 5.601), (10_000, 7.905)])
def test_without_an_error_epsilon_has_the_ceiling_of_the_number_of_runs(n, epsilon):
    assert bounds.epsilon_lower(0, n, 0, n, delta=1e-5) == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(("epsilon", "runs"), [(0.1, 16_195), (0.2, 4_553), (0.5, 847), (1.0, 239), (2.0, 69)])
def test_the_runs_that_an_audit_needs_are_those_of_the_table(epsilon, runs):
    mu = mu_of(epsilon, 1e-5)
    assert bounds.runs_needed(mu) == runs
    assert bounds.detectable_mu(runs) == pytest.approx(mu, rel=1e-2)  # runs are rounded up


@given(errors=st.integers(0, 60), more=st.integers(0, 60), alpha=st.sampled_from([0.01, 0.05, 0.2]))
def test_the_clopper_pearson_bound_inverts_the_binomial(errors, more, alpha):
    trials = errors + more
    bound = bounds.clopper_pearson_upper(errors, trials, alpha)
    if more == 0:
        assert bound == 1.0
        return
    oracle = brentq(lambda p: binom.cdf(errors, trials, p) - alpha, 1e-12, 1 - 1e-12, xtol=1e-13)
    assert bound == pytest.approx(oracle, abs=1e-9)


@given(fpr=st.floats(0.001, 0.999), fnr=st.floats(0.001, 0.999), delta=st.sampled_from([0.0, 1e-5, 0.01]))
def test_the_point_estimate_is_the_smallest_epsilon_that_the_rates_allow(fpr, fnr, delta):
    epsilon = bounds.epsilon_point(fpr, fnr, delta)

    def allowed(e):
        return fpr + np.exp(e) * fnr >= 1 - delta and fnr + np.exp(e) * fpr >= 1 - delta

    assert allowed(epsilon + 1e-9)
    assert epsilon == 0.0 or not allowed(epsilon - 1e-6)


def test_a_rule_that_guesses_worse_than_chance_proves_nothing():
    """The absolute value of the difference would be 2.8 here: a fault that a library once had."""
    assert bounds.mu_lower(950, 1000, 950, 1000) == 0.0
    assert bounds.epsilon_lower(950, 1000, 950, 1000) == 0.0
    assert bounds.mu_lower(50, 1000, 50, 1000) > 2.8


@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0])
def test_bounds_cover_the_truth_at_their_level(mu):
    """Rule "above mu/2" on 300 runs a side; 1,000 repetitions, see MOST for the error rate."""
    rng = np.random.default_rng(1)
    rate = norm.sf(mu / 2)
    fp, fn = rng.binomial(300, rate, (2, REPEATS))
    mus = np.array([bounds.mu_lower(a, 300, b, 300, LEVEL) for a, b in zip(fp, fn, strict=True)])
    epsilons = np.array([bounds.epsilon_lower(a, 300, b, 300, 1e-3, LEVEL) for a, b in zip(fp, fn, strict=True)])
    assert np.count_nonzero(mus > mu) <= MOST
    assert np.count_nonzero(epsilons > epsilon_of(mu, 1e-3)) <= MOST
    if mu == 1.0:
        assert np.median(mus) > 0.6  # not so cautious that it sees nothing


@pytest.mark.parametrize("mu", [0.0, 0.5])
def test_one_run_bounds_cover_the_truth_at_their_level(mu):
    """400 canaries, scores N(+-mu/2, 1), 200 guesses; 1,000 repetitions, see MOST for the error rate."""
    rng = np.random.default_rng(2)
    coin = rng.random((REPEATS, 400)) < 0.5
    order = np.argsort(rng.normal(size=coin.shape) + mu * coin, axis=1)
    sorted_coin = np.take_along_axis(coin, order, axis=1)
    correct = sorted_coin[:, -100:].sum(axis=1) + (~sorted_coin[:, :100]).sum(axis=1)
    mus = {int(v): bounds.one_run_mu(400, 200, int(v), LEVEL) for v in np.unique(correct)}
    epsilons = {int(v): bounds.one_run_epsilon(400, 200, int(v), 1e-3, LEVEL) for v in np.unique(correct)}
    assert sum(mus[int(v)] > mu for v in correct) <= MOST
    assert sum(epsilons[int(v)] > epsilon_of(mu, 1e-3) for v in correct) <= MOST
    assert bounds.one_run_mu(400, 200, 190, LEVEL) > 0.8  # not so cautious that it sees nothing


def test_the_one_run_value_without_delta_is_a_binomial_tail():
    q = 1 / (1 + np.exp(-0.7))
    assert bounds.one_run_pvalue(500, 100, 80, 0.7) == pytest.approx(binom.sf(79, 100, q))
    assert bounds.one_run_pvalue(500, 100, 80, 0.7, delta=1e-4) > bounds.one_run_pvalue(500, 100, 80, 0.7)
    assert bounds.one_run_epsilon(500, 100, 50) == 0.0


def test_the_credible_interval_is_that_of_a_simulated_posterior():
    """Case of the reference's documentation (0.145 to 6.399 there), and 400,000 draws of both rates."""
    low, high = bounds.credible_epsilon(512, 513, 0, 487, delta=1e-5, alpha=0.1)
    assert (low, high) == (pytest.approx(0.144, abs=2e-3), pytest.approx(6.416, abs=0.02))
    rng = np.random.default_rng(3)
    fn, fp = rng.beta(30.5, 70.5, 400_000), rng.beta(20.5, 80.5, 400_000)
    with np.errstate(invalid="ignore", divide="ignore"):
        pairs = ((1 - 1e-3 - fp) / fn, (1 - 1e-3 - fn) / fp, (fp - 1e-3) / (1 - fn), (fn - 1e-3) / (1 - fp))
        epsilons = np.maximum(0.0, np.max([np.log(np.maximum(r, 1e-300)) for r in pairs], axis=0))
    oracle = np.quantile(epsilons, [0.05, 0.95])
    found = bounds.credible_epsilon(20, 100, 30, 100, delta=1e-3, alpha=0.1)
    assert found == pytest.approx(tuple(oracle), abs=0.01)
    assert found[0] > bounds.epsilon_lower(20, 100, 30, 100, 1e-3, 0.05)  # Bayesian: above the bound that always holds


def test_counts_and_levels_that_cannot_be_are_refused():
    with pytest.raises(InvalidInput, match="counts"):
        bounds.clopper_pearson_upper(5, 3)
    with pytest.raises(InvalidInput, match="counts"):
        bounds.one_run_pvalue(100, 200, 50, 1.0)
    with pytest.raises(InvalidInput, match="alpha"):
        bounds.epsilon_lower(1, 10, 1, 10, alpha=0.0)
    with pytest.raises(InvalidInput, match="claim"):
        bounds.runs_needed(0.1, claim=0.2)


def test_bounds_agree_with_jax_privacy():
    auditing = pytest.importorskip("jax_privacy.auditing", reason="jax-privacy is not installed")
    for canaries, guesses, correct in ((1000, 200, 150), (1000, 1000, 600), (300, 100, 100)):
        theirs = auditing._one_run_p_value(canaries, guesses, correct, 0.4, 1e-4)
        assert bounds.one_run_pvalue(canaries, guesses, correct, 0.4, 1e-4) == pytest.approx(theirs, rel=1e-9)
        theirs = auditing._epsilon_one_run_fdp(0.0, canaries, guesses, correct, 0.05, 1e-5)
        ours = epsilon_of(bounds.one_run_mu(canaries, guesses, correct, 0.05), 1e-5)
        assert ours == pytest.approx(theirs, abs=1e-4)
    rng = np.random.default_rng(4)
    inside, outside = rng.normal(1.0, 1.0, 600), rng.normal(0.0, 1.0, 600)
    auditor = auditing.CanaryScoreAuditor(inside, outside)
    theirs = auditor.epsilon_clopper_pearson(0.05, delta=1e-5, threshold_strategy=auditing.Explicit(0.5))
    fp, fn = np.count_nonzero(outside >= 0.5), np.count_nonzero(inside < 0.5)
    assert bounds.epsilon_lower(fp, 600, fn, 600, 1e-5, 0.05) == pytest.approx(theirs, abs=0.02)
