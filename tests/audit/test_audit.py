"""Audits of correct models and of what people use instead: gap, differencing, samples, one run, records."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer, load_diabetes

from certified import noise
from certified.accounting import delta_of
from certified.audit import (
    INCONCLUSIVE,
    NOT_REFUTED,
    REFUTED,
    audited,
    differencing,
    draws,
    empirical,
    exact_gap,
    gaussian_mu,
    one_run,
    per_run,
    release_test,
    state_equal,
    whitened_test,
)
from certified.audit._models import join, private_parameter, refit, release_factor, split
from certified.certificate import Certificate
from certified.errors import InvalidInput
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :8] / X[:, :8].std(axis=0)
XD, YD = load_diabetes(return_X_y=True)
XD = XD / XD.std(axis=0)


# ------------------------------------------------------------------ exact gap


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_the_exact_mu_gives_the_divergence_of_the_two_densities(seed):
    """Oracle: delta(epsilon) by Monte Carlo over densities of scipy, 40,000 draws, within six standard errors."""
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(3, 3))) + 2.0 * np.eye(3)
    a, b = rng.normal(size=(2, 3)) * 0.2
    sigma = 0.7
    laws = [multivariate_normal(m, sigma**2 * np.linalg.inv(factor @ factor.T)) for m in (a, b)]
    mu = gaussian_mu(a, b, factor, sigma)
    draw = laws[0].rvs(40_000, random_state=rng)
    for epsilon in (0.0, 0.5):
        inside = np.maximum(0.0, 1.0 - np.exp(epsilon - laws[0].logpdf(draw) + laws[1].logpdf(draw)))
        error = inside.std() / 200 + 1e-6
        assert abs(inside.mean() - delta_of(epsilon, mu)) < 6 * error


def test_the_gap_holds_for_frames_pipelines_classes_and_counts():
    frame = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "who": np.arange(len(X))})
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y, ids="who")
    model.delete([1, 2, 3])
    retained = np.delete(np.arange(len(Y)), [1, 2, 3])
    gap = exact_gap(model, frame.drop("who")[retained], Y[retained], ids=retained)
    assert gap.verdict == NOT_REFUTED
    assert gap.slack > 1
    three = np.digitize(X[:, 0], np.quantile(X[:, 0], [0.3, 0.7]))
    for recipe, y in ((LogisticRegression(), three), (PoissonRegressor(alpha=1.0), three.astype(float))):
        model = recipe.fit(X, y)
        model.delete(range(6))
        gap = exact_gap(model, X[6:], y[6:])
        assert gap.verdict == NOT_REFUTED, gap.reason
        assert gap.mu <= gap.mu_certified < 1


def test_a_certificate_that_claims_nothing_is_inconclusive():
    model = LogisticRegression(noise=0).fit(X, Y)
    model.delete([3])
    gap = exact_gap(model, np.delete(X, 3, 0), np.delete(Y, 3))
    assert gap.verdict == INCONCLUSIVE
    assert gap.mu == np.inf


def test_parameters_go_to_the_order_of_the_metric_and_back():
    coef, intercept = np.arange(6.0).reshape(2, 3), np.array([10.0, 20.0])
    vector = join(coef, intercept)
    assert vector.tolist() == [0, 1, 2, 10, 3, 4, 5, 20]
    back = split(vector, 2)
    assert np.array_equal(back[0], coef)
    assert np.array_equal(back[1], intercept)
    assert join(coef, 0.0, 6).tolist() == coef.ravel().tolist()
    model = LogisticRegression().fit(X, np.digitize(X[:, 0], [1.0, 3.0]))
    assert np.array_equal(private_parameter(model), model._state.solution.w)


def test_draws_have_the_law_of_releases():
    """2,000 draws of 9 parameters: chi-square of 18,000 degrees, a fourth of its 5-sigma band is a halved sigma."""
    model = LogisticRegression().fit(X, Y)
    u = (draws(model, 2000) - private_parameter(model)) @ release_factor(model) / 0.1
    assert abs(np.mean(u**2) - 1.0) < 5 * np.sqrt(2 / u.size)
    assert np.array_equal(draws(model, 3, random_state=1), draws(model, 3, random_state=1))
    assert np.array_equal(draws(Ridge().fit(XD, YD), 2)[0], private_parameter(Ridge().fit(XD, YD)))


def test_draws_are_releases_bit_for_bit_up_to_the_solver(monkeypatch):
    model = LogisticRegression().fit(X, Y)
    jumps = np.arange(27).reshape(3, 9) * 10**5
    monkeypatch.setattr(noise, "discrete_gaussian", lambda size, scale, rng=None: jumps.ravel()[:size])
    found = draws(model, 3)
    for k in range(3):
        monkeypatch.setattr(noise, "discrete_gaussian", lambda size, scale, rng=None, k=k: jumps[k])
        expected = noise.release(private_parameter(model), release_factor(model), 0.1)
        assert np.allclose(found[k], expected, rtol=1e-12, atol=0)


def test_states_of_models_from_elsewhere_are_compared_by_what_their_fit_made():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression as Plain

    a, b = Plain().fit(X, Y), Plain().fit(X, Y)
    assert state_equal(a, b).equal
    b.coef_ = b.coef_ + 1e-15
    assert not state_equal(a, b).equal
    forests = [RandomForestClassifier(3, random_state=0).fit(X[k:], Y[k:]) for k in (0, 0, 1)]
    assert state_equal(*forests[:2]).equal
    assert not state_equal(*forests[1:]).equal


# -------------------------------------------------------------- release test


def test_a_release_test_without_power_is_inconclusive_and_more_releases_give_it_power():
    model = LogisticRegression().fit(X, Y)
    model.delete([0])
    one = release_test(model.release(), model, X[1:], Y[1:], X_deleted=X[:1], y_deleted=Y[:1], alpha=1e-6)
    assert one.verdict == INCONCLUSIVE
    assert one.power < 0.5
    many = whitened_test(np.random.default_rng(0).normal(size=(4000, 9)), np.eye(9)[0] * one.detectable / 30)
    assert many.power > 0.5
    assert many.verdict == NOT_REFUTED
    blind = release_test(model.release(), model, X[1:], Y[1:], alpha=1e-6)
    assert blind.verdict == INCONCLUSIVE
    assert np.isnan(blind.z)


@pytest.mark.parametrize("size", [0.5, 2.93])
def test_the_power_of_the_directional_test_is_that_foretold(size):
    """2,000 releases; the share refuted is within five standard errors of the power in the record."""
    rng = np.random.default_rng(3)
    direction = size * np.ones(6) / np.sqrt(6)
    tests = [whitened_test(rng.normal(size=6) + direction, direction, alpha=0.1) for _ in range(2000)]
    found = np.mean([t.p_direction < 0.05 for t in tests])
    assert abs(found - tests[0].power) < 5 * np.sqrt(0.25 / 2000)


def test_several_outputs_and_text_are_tested_as_well():
    y = np.column_stack([YD, 2.0 * YD + XD[:, 0]])
    model = Ridge(noise=0.5).fit(XD, y)
    before = model.release()
    model.delete(range(60))
    gone = {"X_deleted": XD[:60], "y_deleted": y[:60]}
    assert release_test(before, model, XD[60:], y[60:], **gone).n_parameters == 22
    frame = pl.DataFrame({"a": np.where(X[:, 0] > 2, "high", "low"), "b": np.where(X[:, 1] > 2, "u", "v")})
    model = make_pipeline(OneHotEncoder(drop="first"), LogisticRegression()).fit(frame, Y)
    model.delete(range(100))
    test = release_test(
        model.release(),
        model,
        frame[100:],
        Y[100:],
        ids=range(100, len(Y)),
        X_deleted=frame[:100],
        y_deleted=Y[:100],
        alpha=1e-6,
    )
    assert test.verdict == NOT_REFUTED


def test_a_recipe_without_noise_and_without_an_exact_claim_cannot_be_tested():
    model = LogisticRegression(noise=0).fit(X, Y)
    with pytest.raises(InvalidInput, match="noise=0"):
        release_test(model.release(), model, X, Y)


# -------------------------------------------------------------- differencing


def pair(recipe, x, y, row):
    model = recipe.fit(x, y)
    before = model.release()
    receipt = model.delete([row])
    return before, model.release(), receipt


@pytest.mark.parametrize("row", [7, 100, 250])
def test_two_exact_releases_give_the_deleted_row_away(row):
    before, after, receipt = pair(Ridge(), XD, YD, row)
    retained = np.delete(np.arange(len(YD)), row)
    found = differencing(before, after, XD[retained], YD[retained], XD[[row]], receipt=receipt)
    assert found.verdict == REFUTED
    assert found.error_insider < 1e-8
    assert found.mu_insider == np.inf
    assert np.allclose(found.rebuilt_insider, XD[row], atol=1e-8)


def test_an_outsider_with_public_rows_finds_the_direction():
    before, after, _ = pair(Ridge(), XD[:300], YD[:300], 7)
    retained = np.delete(np.arange(300), 7)
    found = differencing(before, after, XD[retained], YD[retained], XD[[7]], X_public=XD[300:])
    assert found.cosine_outsider > 0.9
    assert found.rank_outsider == 1
    assert abs(found.cosine_chance) < 0.3


def test_the_cosine_falls_with_the_noise_as_mu_foretells():
    """The rebuilt gradient is the true one plus noise; with little mu nothing is found. Mean over 30 pairs."""
    means, mus = [], []
    for sigma in (0.003, 0.03, 3.0):
        cosines = []
        for seed in range(30):
            before, after, receipt = pair(Ridge(noise=sigma, random_state=seed), XD, YD, 7)
            retained = np.delete(np.arange(len(YD)), 7)
            found = differencing(
                before, after, XD[retained], YD[retained], XD[[7]], recipe=Ridge(noise=sigma), receipt=receipt
            )
            cosines.append((found.cosine_insider, found.cosine_outsider))
        means.append(np.mean(cosines, axis=0))
        mus.append(found.mu_insider)
    assert mus[0] > 50 > mus[1] > 5 > 0.1 > mus[2]
    assert means[0].min() > 0.97
    assert means[1][0] > means[1][1] > 0.4  # an insider sees one noise, an outsider two
    assert np.abs(means[2]).max() < 0.35  # standard error about 0.06


def test_differencing_works_for_logistic_and_poisson_models():
    y = np.round(np.exp(XD[:, 2] / 2)).astype(float)
    for recipe, x, t in (
        (LogisticRegression(noise=0, tol=1e-10), X, Y.astype(float)),
        (PoissonRegressor(alpha=0.1, noise=0, tol=1e-10), XD, y),
    ):
        model = recipe.fit(x, t)
        before = model.release()
        model.delete([11])
        model.refine()
        retained = np.delete(np.arange(len(t)), 11)
        found = differencing(before, model.release(), x[retained], t[retained], x[[11]])
        assert found.rank_outsider == 1
        assert found.error_insider < 1e-3


def test_models_with_several_outputs_or_other_features_are_refused():
    before, after, _ = pair(Ridge(), XD, np.column_stack([YD, YD]), 7)
    with pytest.raises(InvalidInput, match="several outputs"):
        differencing(before, after, XD[8:], YD[8:], XD[[7]])
    before, after, _ = pair(make_pipeline(OneHotEncoder(), Ridge()), np.round(XD[:, :1]), YD, int(np.argmax(XD[:, 0])))
    if before[-1].coef_.shape != after[-1].coef_.shape:
        with pytest.raises((InvalidInput, ValueError), match=r"features|categories"):
            differencing(before, after, np.round(XD[8:, :1]), YD[8:], np.round(XD[[7], :1]))


# ----------------------------------------------------------------- empirical


def gaussian(mu, p=4, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)

    def sample(n):
        out = rng.normal(0.0, scale, (n, p))
        out[:, 0] += mu
        return out

    return sample


def test_verdicts_follow_from_claim_controls_and_power():
    refits, off = gaussian(0.0, seed=1), gaussian(1.0, seed=2)
    same = empirical(gaussian(0.0, seed=3), refits, off, n_runs=2000, claim=0.3)
    assert same.verdict == NOT_REFUTED
    assert same.resolution < 0.3 < same.mu_nothing
    assert empirical(gaussian(1.0, seed=4), refits, off, n_runs=2000, claim=0.3).verdict == REFUTED
    blind = empirical(gaussian(0.0, seed=5), refits, off, n_runs=100, claim=0.1)
    assert blind.verdict == INCONCLUSIVE
    assert "not seen" in blind.reason
    missed = empirical(gaussian(0.0, seed=6), refits, gaussian(0.0, seed=7), n_runs=2000, claim=0.3)
    assert missed.verdict == INCONCLUSIVE
    assert "removed nothing" in missed.reason
    assert empirical(gaussian(0.0, seed=3), refits, off, n_runs=2000, detect=0.3).verdict == NOT_REFUTED


def test_a_spread_that_differs_is_refuted_where_the_mean_does_not():
    wide = empirical(gaussian(0.0, scale=2.0), gaussian(0.0, seed=1), n_runs=1000)
    assert wide.verdict == REFUTED
    assert wide.epsilon_lower > 0.3
    fixed = empirical(lambda n: np.zeros((n, 4)), gaussian(0.0, seed=1), n_runs=1000, gaussian=False)
    assert fixed.verdict == REFUTED
    assert np.isnan(fixed.mu_lower)


def test_the_resolution_is_the_effect_that_is_found_in_nine_of_ten_audits():
    """40 audits at the resolution, power 0.9: fewer than 28 found with probability 3e-4; at half of it, far fewer."""
    for known in (None, np.eye(4)):
        resolution = empirical(gaussian(0.0), gaussian(0.0, seed=1), n_runs=800, whitening=known).resolution
        counts = [
            sum(
                empirical(
                    gaussian(size * resolution, seed=2 * s), gaussian(0.0, seed=2 * s + 1), n_runs=800, whitening=known
                ).refuted
                for s in range(40)
            )
            for size in (1.0, 0.5)
        ]
        assert counts[0] >= 28
        assert counts[1] < counts[0]


def test_runs_get_seeds_of_their_own():
    seen = []
    sampler = per_run(lambda seed: seen.append(seed) or [seed])
    sampler(3), sampler(2)
    assert seen == [0, 1, 2, 3, 4]
    with pytest.raises(InvalidInput, match="shape"):
        empirical(lambda n: np.zeros((n - 1, 2)), sampler, n_runs=10)
    with pytest.raises(InvalidInput, match="whitening"):
        empirical(sampler, sampler, direction=[1.0])


def test_our_certificate_is_not_refuted_by_samples_at_epsilon_one():
    model = LogisticRegression().fit(X, Y)
    model.delete(range(5))
    fresh = refit(model, X[5:], Y[5:])
    whole = refit(model, X, Y)
    found = empirical(
        lambda n: draws(model, n),
        lambda n: draws(fresh, n),
        lambda n: draws(whole, n),
        n_runs=1000,
        alpha=1e-3,  # the claim of the certificate is far above what is true here, so alarms are rarer still
        claim=model.certificate_.mu_target,
        whitening=release_factor(fresh) / 0.1,
        direction=(private_parameter(whole) - private_parameter(fresh)) @ release_factor(fresh),
    )
    assert found.verdict == NOT_REFUTED, found.reason
    assert found.mu_nothing > 1


def test_one_run_refutes_canaries_that_stayed_and_only_beyond_twice_the_claim():
    rng = np.random.default_rng(0)
    coin = rng.random(1000) < 0.5
    leaking, silent = rng.normal(size=1000) + 4.0 * coin, rng.normal(size=1000)
    assert one_run(leaking, coin, guesses=200).verdict == REFUTED
    found = one_run(silent, coin, guesses=200)
    assert found.verdict == NOT_REFUTED
    strong = one_run(leaking, coin, guesses=200)
    assert (
        one_run(leaking, coin, guesses=200, claim=0.51 * max(strong.mu_lower, strong.epsilon_lower)).verdict != REFUTED
    )
    assert one_run(leaking, coin, guesses=200, claim=50.0).verdict == INCONCLUSIVE
    with pytest.raises(InvalidInput, match="guesses"):
        one_run(leaking, coin, guesses=2000)


# ------------------------------------------------------------------- records


def test_results_enter_a_certificate_and_survive_the_round_trip():
    model = Ridge().fit(XD, YD)
    model.delete([1])
    retained = np.delete(np.arange(len(YD)), 1)
    results = exact_gap(model, XD[retained], YD[retained]), one_run([2.0, 1.0], [True, False], guesses=2)
    certificate = audited(model.certificate_, *results)
    again = Certificate.from_json(certificate.to_json())
    assert again.digest == certificate.digest != model.certificate_.digest
    assert [entry["audit"] for entry in again.extra["audit"]] == ["ExactGap", "OneRun"]
    assert len(audited(certificate, results[0]).extra["audit"]) == 3
    assert "audit" not in certificate.public().extra
    assert replace(certificate, extra={}) == model.certificate_


def test_a_record_is_canonical_text_without_its_samples():
    found = empirical(gaussian(0.0), gaussian(0.0, seed=1), n_runs=100)
    values = json.loads(found.to_json())
    assert values["audit"] == "Empirical"
    assert "projected_refit" not in values
    assert found.digest == replace(found).digest
    assert str(found).startswith("Empirical: ")
    with pytest.raises(AttributeError):
        found.verdict = REFUTED
