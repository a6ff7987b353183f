"""Bins, smoothness and pairs of additive models: what they are, and that they delete exactly."""

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from certified.additive import _smooth
from certified.additive._bins import Axis, cuts_of, halfway
from certified.additive._smooth import LEVELS, level, main_table, pair_table
from certified.additive._terms import Terms
from certified.errors import InvalidInput, NotDeletable

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: x + 0.0)


@given(NUMBERS, NUMBERS)
def test_a_branch_splits_inside_at_a_number_that_no_shorter_one_inside_could_replace(a, b):
    low, high = sorted((a, b))
    if low < 0.0 < high:
        assert halfway(low, high) == 0.0
    if low == high or low <= 0.0:
        return
    cut = halfway(low, high)
    assert low <= cut < high  # low where there is no room
    if cut == low:
        assert high / low < 1.0 + 1e-15
        return
    exponent = Decimal(repr(cut)).normalize().as_tuple().exponent + 1  # any multiple of this has a digit less
    step = Decimal(1).scaleb(exponent)
    multiple = (Decimal(repr(high)) / step).to_integral_value(rounding="ROUND_CEILING") * step - step
    assert not low < float(multiple) < high, f"{multiple} is shorter than {cut}"


VALUES = st.lists(st.integers(-30, 30) | NUMBERS, min_size=1, max_size=300)


@given(VALUES, st.integers(2, 20), st.randoms())
def test_cuts_are_few_increasing_and_have_enough_values_between_them(values, most, random):
    values = np.sort(np.array(values, dtype=float))
    cuts = cuts_of(values, most)
    assert np.all(np.diff(cuts) > 0)
    counts = np.bincount(np.searchsorted(cuts, values, side="right"), minlength=len(cuts) + 1)
    assert np.all(counts >= min(4, 2 ** int(np.log2(max(len(values), 4) / 4)))) or not len(cuts)
    assert len(cuts) <= 4 * most


def test_a_value_that_many_share_has_a_bin_of_its_own():
    values = np.sort(np.repeat([0.0, 1.0, 1.5, 7298.0, 99999.0], [900, 40, 40, 60, 50]))
    codes = np.searchsorted(cuts_of(values, 16), values, side="right")
    assert len(set(codes)) == 5
    assert np.array_equal(np.unique(values, return_inverse=True)[1], codes)


@pytest.mark.parametrize("K", [2, 5, 9])
def test_the_ridge_penalty_of_the_coordinates_is_that_of_neighbouring_differences(K):
    table = main_table(Axis(np.arange(K - 1.0)), 0.7)
    w = np.random.default_rng(K).standard_normal(table.shape[1])
    f = (table @ w)[:K]
    assert table.shape == (K + 1, K - 1)  # all functions but the constant; nothing for what is in no bin
    assert w @ w == pytest.approx(0.7 * K * np.sum(np.diff(f) ** 2), rel=1e-12)
    assert f.sum() == pytest.approx(0.0, abs=1e-12)
    assert not table[K].any()


def test_a_wrong_eigenvalue_is_caught(monkeypatch):
    right = _smooth.basis
    monkeypatch.setattr(_smooth, "basis", lambda axis, rank: (right(axis, rank)[0], right(axis, rank)[1] ** 1.1))
    with pytest.raises(AssertionError):
        test_the_ridge_penalty_of_the_coordinates_is_that_of_neighbouring_differences(5)


def test_the_ridge_penalty_of_categories_is_that_of_their_spread_and_of_missing_values_their_own():
    names = np.array(["a", "b", "c", "d"], dtype=object)
    table = main_table(Axis(None, names, pooled=True, missing=True), 0.7)
    w = np.random.default_rng(0).standard_normal(table.shape[1])
    f = table @ w
    assert w @ w == pytest.approx(2 * 0.7 * np.sum(f[:5] ** 2) + f[5] ** 2, rel=1e-12)
    assert f[:5].sum() == pytest.approx(0.0, abs=1e-12)


def test_the_ridge_penalty_of_pairs_is_that_of_neighbouring_cells():
    first, second = Axis(np.arange(4.0)), Axis(np.arange(3.0))
    table = pair_table(first, second)
    w = np.random.default_rng(0).standard_normal(table.shape[1])
    f = (table @ w).reshape(6, 5)[:5, :4]
    expected = _smooth._PAIR * (5 * np.sum(np.diff(f, axis=0) ** 2) + 4 * np.sum(np.diff(f, axis=1) ** 2))
    assert w @ w == pytest.approx(expected, rel=1e-12)
    assert np.allclose(f.sum(axis=0), 0.0)
    assert np.allclose(f.sum(axis=1), 0.0)


@pytest.mark.parametrize("ordered", [True, False])
def test_smoothness_has_the_largest_evidence_of_a_dense_gaussian_model(ordered):
    rng = np.random.default_rng(3)
    for roughness in (0.05, 0.5, 5.0):
        K = 12
        axis = Axis(np.arange(K - 1.0)) if ordered else Axis(None, np.arange(K).astype(str).astype(object))
        bends = rng.uniform(0.5, 30.0, K)
        truth = roughness * (np.cumsum(rng.standard_normal(K)) / 3 if ordered else rng.standard_normal(K))
        slopes = bends * truth + np.sqrt(bends) * rng.standard_normal(K)
        found = []
        for s in LEVELS:
            steps = np.minimum.outer(np.arange(K), np.arange(K)) / (s * K) if ordered else np.eye(K) / (2 * s)
            prior = steps + 100.0
            found.append(multivariate_normal(np.zeros(K), prior + np.diag(1 / bends)).logpdf(slopes / bends))
        assert level(axis, [(np.append(slopes, 0.0), np.append(bends, 0.0))]) == LEVELS[int(np.argmax(found))]


def _frame(seed, n, gaps=0.15):
    """Rows with text, ties, spikes, missing values and about two rows for each subject, in an order of their own."""
    rng = np.random.default_rng(seed)
    amount = np.where(rng.random(n) < 0.4, 0.0, np.round(rng.lognormal(5, 2, n), 2))
    town = rng.choice(["Ur", "Uruk", "Kish", "Nippur", "Eridu"], n, p=[0.5, 0.25, 0.15, 0.06, 0.04])
    grade = rng.integers(0, 4, n)
    y = (amount > 100) ^ (grade > 1) ^ (rng.random(n) < 0.2)
    frame = pl.DataFrame(
        {
            "amount": [None if gap else v for v, gap in zip(amount.tolist(), rng.random(n) < gaps, strict=True)],
            "town": [None if gap else v for v, gap in zip(town.tolist(), rng.random(n) < gaps / 2, strict=True)],
            "grade": grade,
            "noise": np.round(rng.standard_normal(n), 1),
        }
    )
    return frame, y.astype(int), rng.integers(0, n // 2, n)


def _steps_agree(parameters, seed, n, sizes, order):
    frame, y, ids = _frame(seed, n)
    terms = Terms(**parameters).fit(frame, y, ids=ids)
    rng = np.random.default_rng(order)
    for size in sizes:
        held = terms.ids_
        terms.delete(rng.permutation(held)[: max(1, min(size, len(held) - 12))])
    rows = rng.permutation(np.flatnonzero(np.isin(ids, terms.ids_)))
    fresh = Terms(**parameters).fit(frame[rows], y[rows], ids=ids[rows])
    return terms.state_digest_ == fresh.state_digest_ and np.array_equal(terms.transform(frame), fresh.transform(frame))


REQUESTS = st.lists(st.integers(1, 30), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=REQUESTS,
    order=st.integers(0, 99),
    most=st.sampled_from([8, 40, 10_000]),
    loss=st.sampled_from(["logistic", "squared_error"]),
)
def test_bins_smoothness_and_pairs_after_deletions_are_those_of_a_refit_in_any_order(seed, sizes, order, most, loss):
    parameters = dict(sample_size=most, loss=loss, interactions=2, max_bins=16, min_frequency=6, max_categories=4)
    assert _steps_agree(parameters, seed, 150, sizes, order)


class KeepsItsSample(Terms):
    def _subtract(self, statistic, removed):
        return super()._subtract(statistic._replace(cut=np.uint64(0)), removed)._replace(cut=statistic.cut)


class KeepsItsCategories(Terms):
    def _subtract(self, statistic, removed):
        return None if np.any(removed.hashes <= statistic.cut) else statistic


@pytest.mark.parametrize("mutant", [KeepsItsSample, KeepsItsCategories])
def test_a_step_that_forgets_only_in_part_is_caught(mutant, monkeypatch):
    monkeypatch.setitem(globals(), "Terms", mutant)
    parameters = dict(sample_size=12, max_bins=16, min_frequency=6)
    found = []
    for seed in range(6):
        try:
            found.append(_steps_agree(parameters, seed, 150, [4, 2], seed))
        except AttributeError:  # the mutant meets what it cannot discount
            found.append(False)
    assert not all(found)


def test_a_deletion_outside_the_sample_changes_nothing_that_is_served():
    frame, y, ids = _frame(1, 4000)
    terms = Terms(sample_size=50, max_bins=16).fit(frame, y, ids=ids)
    changed = [bool(terms.delete([i]).changed) for i in terms.ids_[:200]]
    assert sum(changed) <= 20  # about 5 of 200 are in the sample


def test_most_deletions_inside_the_sample_move_no_cut():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.lognormal(size=3000), rng.standard_normal(3000)])
    terms = Terms(interactions=0, smoothness=1.0).fit(X, rng.integers(0, 2, 3000))
    assert terms._learned.axes[0].size > 60
    changed = [bool(terms.delete([i]).changed) for i in range(100)]
    assert sum(changed) <= 30  # cuts at quantiles change with each of them


def test_a_planted_interaction_is_found_and_an_additive_model_has_none():
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (3000, 5))
    noise = rng.logistic(size=3000)
    planted = Terms(interactions=1).fit(X, (4 * X[:, 1] * X[:, 3] + X[:, 0] + 0.5 * noise > 0).astype(int))
    assert planted._learned.pairs.tolist() == [[1, 3]]
    sums = [2 * X[:, k] + 2 * X[:, 3] ** 2 for k in range(3)]
    found = [len(Terms(interactions=20).fit(X, (z + noise > 0.5).astype(int))._learned.pairs) for z in sums]
    assert sum(found) <= 9  # of 30


def test_pairs_are_given_by_name_or_position():
    frame, y, _ = _frame(0, 200)
    terms = Terms(interactions=[("town", "amount"), (2, 3)]).fit(frame, y)
    assert terms._learned.pairs.tolist() == [[0, 1], [2, 3]]
    assert len(terms.get_feature_names_out()) == terms.transform(frame).shape[1]
    assert terms.get_feature_names_out()[-1].startswith("grade & noise_")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"interactions": [(0, 0)]}, "pairs of different"),
        ({"interactions": [(0, 9)]}, "pairs of different"),
        ({"interactions": [("town", "sea")]}, "pairs of different"),
        ({"interactions": -1}, "whole number >= 0"),
        ({"smoothness": 0.0}, "a number > 0"),
        ({"smoothness": "rough"}, "'auto'"),
        ({"max_bins": 1}, "whole number >= 2"),
        ({"loss": "tweedie"}, "one of .*gamma"),
    ],
)
def test_parameters_that_cannot_be_used_are_refused(parameters, message):
    frame, y, _ = _frame(0, 50)
    with pytest.raises(InvalidInput, match=message):
        Terms(**parameters).fit(frame, y)


def test_terms_are_not_released_alone():
    frame, y, _ = _frame(0, 50)
    with pytest.raises(NotDeletable, match="with its coefficients"):
        Terms().fit(frame, y).release()
