"""Requests that depend on answers: the bound against exact values, the noise, the budget, and the attack itself."""

import importlib.util
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, kstest, multinomial, norm
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeClassifier

from certified.accounting import delta_of
from certified.ensemble import ShardedClassifier, ShardedRegressor
from certified.ensemble._sharding import base, estimators, private_answers
from certified.ensemble._sharding.private_answers import adaptive_delta, noise_for, noisy_sum
from certified.errors import CannotCertify, InvalidInput, InvalidRequest

PATH = Path(__file__).resolve().parents[2] / "benchmarks" / "adaptive_requests.py"


def exact_delta(epsilon, n_shards, n_answers, sigma):
    """The same question asked n_answers times of shards that vote by a coin: known in closed form."""
    votes = np.arange(n_shards + 1)
    moved = np.abs(votes - n_shards / 2) * math.sqrt(n_answers) / sigma
    return float(binom.pmf(votes, n_shards, 0.5) @ [delta_of(epsilon, mu) for mu in moved])


def exact_delta_of_classes(epsilon, n_shards, n_classes, sigma):
    """One question, every class as probable as any other."""
    counts = np.array([c for c in product(range(n_shards + 1), repeat=n_classes) if sum(c) == n_shards])
    moved = np.linalg.norm(counts - n_shards / n_classes, axis=1) / sigma
    chance = multinomial.pmf(counts, n_shards, np.full(n_classes, 1 / n_classes))
    return float(chance @ [delta_of(epsilon, mu) for mu in moved])


@settings(max_examples=60)
@given(
    epsilon=st.floats(0.01, 6),
    n_shards=st.integers(1, 200),
    n_answers=st.integers(1, 50),
    ratio=st.floats(0.3, 30),
)
def test_the_bound_is_above_the_exact_value(epsilon, n_shards, n_answers, ratio):
    sigma = ratio * math.sqrt(n_shards * n_answers)
    exact = exact_delta(epsilon, n_shards, n_answers, sigma)
    at_once = adaptive_delta(epsilon, n_shards, n_answers, sigma)
    assert exact <= at_once <= 1.0
    assert exact <= adaptive_delta(epsilon, n_shards, n_answers, sigma, at_once=False)


@pytest.mark.parametrize("epsilon", [2.0, 4.0, 8.0])
def test_two_thirds_of_the_noise_would_break_the_promise(epsilon):
    sigma = noise_for(epsilon, 1e-6, 400, 1)
    assert exact_delta(epsilon, 400, 1, sigma) <= 1e-6 < exact_delta(epsilon, 400, 1, sigma * 2 / 3)


@settings(max_examples=20)
@given(epsilon=st.floats(0.01, 6), n_shards=st.integers(1, 12), n_classes=st.integers(3, 4), ratio=st.floats(0.3, 30))
def test_the_bound_for_several_classes_is_above_the_exact_value(epsilon, n_shards, n_classes, ratio):
    sigma = ratio * math.sqrt(n_shards)
    exact = exact_delta_of_classes(epsilon, n_shards, n_classes, sigma)
    assert exact <= adaptive_delta(epsilon, n_shards, 1, sigma, n_classes)
    assert exact <= adaptive_delta(epsilon, n_shards, 1, sigma, n_classes, at_once=False)


def test_a_bound_that_takes_shards_or_answers_for_one_is_caught_by_the_exact_value():
    sigma = 50.0  # 10,000 shards: votes move by 50; so do 10,000 answers of one shard
    assert adaptive_delta(0.1, 1, 1, sigma) < exact_delta(0.1, 10_000, 1, sigma) < 0.5
    assert adaptive_delta(0.1, 1, 1, sigma) < exact_delta(0.1, 1, 10_000, sigma) < 0.5


@pytest.mark.parametrize("at_once", [True, False])
def test_more_answers_need_more_noise_and_the_promise_holds_at_the_noise_found(at_once):
    found = [noise_for(4.0, 1e-6, 900, n, 1, at_once) for n in (2, 4, 8)]
    for n, sigma in zip((2, 4, 8), found, strict=True):
        assert adaptive_delta(4.0, 900, n, sigma, 1, at_once) <= 1e-6
        assert adaptive_delta(4.0, 900, n, 0.99 * sigma, 1, at_once) > 1e-6
        assert sigma == pytest.approx(found[0] * math.sqrt(n / 2), rel=1e-6)


def test_a_promise_that_would_drown_the_votes_is_refused():
    with pytest.raises(CannotCertify, match=r"more shards, fewer answers.*Nothing was fitted"):
        noise_for(1.0, 1e-6, 10, 100)
    with pytest.raises(InvalidInput, match="epsilon"):
        noise_for(0.0, 1e-6, 10, 1)


# ---------------------------------------------------------------- answers


def private(**changes):
    promise = {"aggregation": "private", "epsilon": 8.0, "key": None}
    return ShardedClassifier(**{"estimator": DecisionTreeClassifier(max_depth=2), "n_shards": 60, **promise, **changes})


def test_answers_are_counted_and_refused_beyond_the_promise():
    X, y = load_breast_cancer(return_X_y=True)
    model = private(n_answers=3, n_shards=80, at_once=False).fit(X, y)
    model.predict(X[:2])
    model.delete([5])
    assert model.n_answers_left_ == 1
    with pytest.raises(CannotCertify, match=r"asked for 2 answers and has 1 left.*rekey\(\).*Nothing was answered"):
        model.predict_proba(X[:2])
    assert model.n_answers_left_ == 1
    assert model.rekey().n_answers_left_ == 3
    said = model.certificate_
    assert "at most 3, within" in said.adaptivity
    assert said.sigma == model._sigma > 0
    assert said.assumptions["epsilon_adaptive"] == 8.0
    assert not hasattr(model, "release")


def test_one_call_uses_up_a_promise_for_answers_at_once():
    X, y = load_breast_cancer(return_X_y=True)
    model = private(n_answers=3).fit(X, y)
    assert "to one call" in model.certificate_.adaptivity
    model.predict(X[:2])
    with pytest.raises(CannotCertify, match="has 0 left"):
        model.predict(X[:1])


@pytest.mark.parametrize(
    "changed", [{"epsilon": 0.01}, {"n_answers": 1000}, {"aggregation": "average"}, {"at_once": False}, {"n_shards": 3}]
)
def test_what_the_promise_rests_on_is_that_of_the_fit(changed):
    X, y = load_breast_cancer(return_X_y=True)
    model = private(n_answers=3).fit(X, y)
    before = {name: model.get_params()[name] for name in changed}
    model.set_params(**changed)
    for act in (lambda: model.predict(X[:1]), lambda: model.certificate_, lambda: model.n_answers_left_):
        with pytest.raises(InvalidRequest, match=rf"{next(iter(changed))}.*Nothing was changed"):
            act()
    model.set_params(**before)
    assert model.n_answers_left_ == 3
    assert model.predict(X[:3]).shape == (3,)


def test_shards_of_a_private_ensemble_are_drawn_independently():
    X, y = load_breast_cancer(return_X_y=True)
    model = private().fit(X, y)
    held = np.zeros((60, len(y)), dtype=bool)
    for s, shard in enumerate(model._shards[:60]):
        held[s, shard.positions] = True
    # 34,140 draws with probability 1/60: mean 569, standard deviation 24; six of them are 142 (error rate 2e-9)
    assert abs(held.sum() - len(y)) < 142
    # a subject in no shard has probability (59/60)^60 = 0.365: mean 208, standard deviation 11.5
    assert abs(np.count_nonzero(~held.any(axis=0)) - 208) < 6 * 11.5
    assert len(model._shards[60].positions) == np.count_nonzero(~held.any(axis=0))


def test_a_subject_that_is_in_no_shard_is_forgotten_without_learning():
    X, y = load_breast_cancer(return_X_y=True)
    model = private(key=0).fit(X, y)
    nowhere = model._shards[60].positions[0]
    assert model.deletion_cost([nowhere]).parts == 0
    receipt = model.delete([nowhere])
    assert receipt.changed == ()
    assert receipt.mu_differencing == 0
    retained = model.ids_
    assert model.state_digest_ == private(key=0).fit(X[retained], y[retained], ids=retained).state_digest_
    assert model.rekey().n_rows_ == len(y) - 1


def _check_size_of_noise():
    votes = np.full((10, 400), 0.25)
    draws = np.concatenate([noisy_sum(votes, 3.0) for _ in range(5)])
    # 2,000 standard normal draws against their law; a false alarm has probability 1e-6
    assert kstest((draws - 2.5) / 3.0, norm.cdf).pvalue > 1e-6, "the noise is not what is promised"


def test_answers_have_the_noise_that_is_promised(monkeypatch):
    _check_size_of_noise()
    honest = private_answers.discrete_gaussian
    monkeypatch.setattr(private_answers, "discrete_gaussian", lambda size, scale: honest(size, scale / 2))
    with pytest.raises(AssertionError, match="not what is promised"):
        _check_size_of_noise()


def test_private_answers_for_several_classes_and_for_a_regressor():
    X, y = load_iris(return_X_y=True)
    many = private(n_shards=300, n_answers=2, epsilon=8.0).fit(np.repeat(X, 20, axis=0), np.repeat(y, 20))
    proba = many.predict_proba(X[[0, 149]])
    assert proba.shape == (2, 3)
    assert np.allclose(proba.sum(axis=1), 1.0)
    model = ShardedRegressor(
        Ridge(), 60, aggregation="private", epsilon=8.0, output_range=(0, 3), key=None, n_answers=1
    )
    assert 0 <= model.fit(X[:, :3], X[:, 3]).predict(X[:1, :3])[0] <= 3
    with pytest.raises(InvalidInput, match="output_range"):
        ShardedRegressor(Ridge(), 60, aggregation="private").fit(X[:, :3], X[:, 3])


# ----------------------------------------------------------------- attack


@pytest.fixture(scope="module")
def requests():
    spec = importlib.util.spec_from_file_location("adaptive_requests", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told_apart(marks):
    """Whether a two-sample Kolmogorov-Smirnov test tells the columns apart; false alarm with probability 1e-4."""
    return kstest(marks[:, 0], marks[:, 1]).pvalue < 1e-4


def test_adaptive_requests_leave_a_mark_in_plain_shards(requests):
    # 100 runs give an advantage of 0.91; 30 have a standard deviation of 0.06 about it, and 0.3 at most between equals
    marks = requests.marks(private=False, n_runs=30, n_pairs=40)
    assert requests.advantage(marks) > 0.6
    assert told_apart(marks)


@pytest.mark.slow
def test_adaptive_requests_leave_no_mark_in_private_shards(requests):
    marks = requests.marks(private=True, n_runs=40, n_pairs=8)
    assert not told_apart(marks)


@pytest.mark.slow
def test_without_its_noise_the_private_ensemble_is_marked_too(requests, monkeypatch):
    monkeypatch.setattr(estimators, "noisy_sum", lambda votes, sigma: votes.sum(axis=0))
    # 25 runs miss it three times in ten, 60 more seldom; 120 in none of 8,000 resamplings of 60 measured runs
    marks = requests.marks(private=True, n_runs=120, n_pairs=8)
    assert told_apart(marks)


def test_requests_that_do_not_depend_on_answers_leave_no_mark(requests, monkeypatch):
    monkeypatch.setattr(base.Sharded, "_seen", lambda self, X: np.random.default_rng().permutation(np.asarray(X)))
    marks = requests.marks(private=False, n_runs=30, n_pairs=40)
    assert not told_apart(marks)
