"""Bins follow the data at every scale: codes among numbers, clusters far apart, heavy tails, targets of two scales."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble as plain
from sklearn.base import clone
from sklearn.metrics import r2_score, roc_auc_score

from certified._data.hashing import subject_hash
from certified._trees import binning
from certified._trees.binning import MISSING, coding_of, encode, thresholds
from certified.ensemble import IsolationForest, RandomForestClassifier, RandomForestRegressor


def columns(rng, n):
    """Return columns that live at several scales, and what of them decides: numbers of mean about 0."""
    z, u = rng.standard_normal(n), rng.random(n)
    hidden, many, near = rng.random(n) < 0.4, rng.random(n) < 0.85, rng.random(n) < 0.6
    coin = rng.standard_normal(n)
    return {
        "a code for two fifths": (np.where(hidden, 9_999_999.0, z), np.where(hidden, coin, z)),
        "a code below the rest": (np.where(hidden, -9_999_999.0, z), np.where(hidden, coin, z)),
        "a code for most": (np.where(many, 9_999_999.0, z), np.where(many, coin, 3.0 * z)),
        "two clusters": (np.where(near, u, 1e6 * (1.0 + u)), np.where(near, u, 1.0 - u) - 0.5),
        "two clusters, nearer": (np.where(near, u, 500.0 * (1.0 + u)), np.where(near, u, 1.0 - u) - 0.5),
        "three clusters": (np.choose(rng.integers(0, 3, n), [1e-5 * u, u, 1e7 * (1.0 + u)]), np.sin(10.0 * u)),
        "heavy tails": (np.exp(3.0 * z), np.sin(4.0 * z)),
        "heavier tails": (np.exp(6.0 * z), np.sin(4.0 * z)),
        "many zeros": (np.where(many, 0.0, np.exp(3.0 * z)), np.where(many, coin, 2.0 * z)),
        "years and a code": (np.where(hidden, 9999.0, 1990.0 + np.floor(30 * u)), np.where(hidden, coin, u - 0.5)),
        "one scale": (z, np.sin(4.0 * z)),
    }


NAMES = list(columns(np.random.default_rng(0), 1))
SQUEEZED = [name for name in NAMES if name != "one scale"]


@pytest.mark.parametrize("name", NAMES)
def test_a_forest_sees_what_that_of_scikit_learn_sees(name):
    gaps = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        x, decides = columns(rng, 4_000)[name]
        X = np.column_stack([x, rng.standard_normal(4_000)])
        y = (decides + 0.3 * rng.standard_normal(4_000) > 0).astype(int)
        given = {"n_estimators": 30, "min_samples_leaf": 10, "max_features": None}
        pair = RandomForestClassifier(**given, key=seed), plain.RandomForestClassifier(**given, random_state=seed)
        said = [model.fit(X[:2_000], y[:2_000]).predict_proba(X[2_000:])[:, 1] for model in pair]
        gaps.append(roc_auc_score(y[2_000:], said[0]) - roc_auc_score(y[2_000:], said[1]))
    assert np.mean(gaps) > -0.003


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.sampled_from(NAMES),
    factor=st.sampled_from([1.0, -1.0, 1e-20, 1e20]),
    place=st.sampled_from([0.0, 0.0, 1e4]),
)
def test_codes_of_several_scales_are_monotone_and_thresholds_are_where_they_change(seed, name, factor, place):
    rng = np.random.default_rng(seed)
    x = (columns(rng, 400)[name][0] * factor + place).astype(np.float32)
    x[:3] = [0.0, -0.0, np.nan]
    coding = coding_of(x[:, None], subject_hash(np.arange(400)), 300)
    code = encode(x[:, None], coding)[0].astype(int)
    assert (code == MISSING).sum() == 1
    assert code[0] == code[1]
    known = np.flatnonzero(code != MISSING)
    order = known[np.argsort(x[known], kind="stable")]
    assert np.all(np.diff(code[order]) >= 0)
    cuts = rng.choice(code[known], 30).astype(np.uint16)
    for cut, threshold in zip(cuts, thresholds(np.zeros(30, int), cuts, coding), strict=True):
        assert np.array_equal(code[known] <= cut, x[known].astype(np.float64) <= threshold)
    shuffled = rng.permutation(400)
    assert coding_of(x[shuffled, None], subject_hash(np.arange(400))[shuffled], 300).same(coding)


@pytest.mark.parametrize("name", NAMES)
def test_no_sixteenth_of_the_codes_holds_much_that_should_be_told_apart(name):
    x = columns(np.random.default_rng(5), 20_000)[name][0].astype(np.float32)
    coding = coding_of(x[:, None], subject_hash(np.arange(len(x))), 1000)
    assert (coding.blocks.shape[1] > 0) == (name in SQUEEZED)
    code = encode(x[:, None], coding)[0].astype(int)
    cell = (code - code.min()) * 16 // (code.max() - code.min() + 1)
    parts = [np.unique(x[cell == k], return_counts=True)[1] for k in range(16)]
    free = len(x) - np.unique(x, return_counts=True)[1].max()
    assert max(part.sum() - part.max(initial=0) for part in parts) < 0.2 * free


def test_the_map_seldom_changes():
    changed, n = 0, 20_000
    for seed in range(2):
        for x, _ in columns(np.random.default_rng(seed), n).values():
            x = x.astype(np.float32)[:, None]
            hashes, rng = subject_hash(np.arange(n)), np.random.default_rng(0)
            first = coding_of(x, hashes, 1000)
            for _ in range(10):
                retained = rng.random(n) > 0.001  # 20 rows at once, one of them in the sample
                changed += not coding_of(x[retained], hashes[retained], 1000).same(first)
    assert changed < 15  # 4,400 single deletions: about 30 / n each for such a feature would be 7


def test_deletions_that_change_the_blocks_end_at_a_refit():
    rng = np.random.default_rng(1)
    values = columns(rng, 700)
    X = np.column_stack([values[name][0] for name in NAMES])
    y, ids = rng.integers(0, 2, 700), np.arange(700)
    model = RandomForestClassifier(3, max_depth=6, key=3)
    live = clone(model).fit(X, y, ids=ids)
    maps = {live._shared.coding.blocks.tobytes()}
    order = rng.permutation(700)
    for k in range(0, 300, 20):
        live.delete(order[k : k + 20])
        maps.add(live._shared.coding.blocks.tobytes())
    retained = order[300:]
    assert len(maps) > 3
    assert live.state_digest_ == clone(model).fit(X[retained], y[retained], ids=retained).state_digest_


def test_blocks_that_remember_deleted_rows_are_caught(monkeypatch):
    rng = np.random.default_rng(2)
    X = np.column_stack([values for values, _ in columns(rng, 400).values()])
    y, ids = rng.integers(0, 2, 400), np.arange(400)
    model = RandomForestClassifier(3, max_depth=6, key=3)
    honest = binning.Coding.same
    live = clone(model).fit(X, y, ids=ids)
    monkeypatch.setattr(binning.Coding, "same", lambda self, other: np.array_equal(self.scale, other.scale))
    live.delete(ids[:100])
    monkeypatch.setattr(binning.Coding, "same", honest)
    again = clone(model).fit(X[100:], y[100:], ids=ids[100:])
    assert live.state_digest_ != again.state_digest_


def test_anomalies_beside_a_large_code_are_found():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((2_000, 3))
    X[:20] = rng.uniform(-9.0, 9.0, (20, 3))
    X[rng.random(X.shape) < 0.3] = 9_999_999.0
    odd = np.arange(len(X)) < 20
    ours = IsolationForest(key=0, n_estimators=200).fit(X)
    peer = plain.IsolationForest(random_state=0, n_estimators=200).fit(X)
    scores = [roc_auc_score(odd, -model.score_samples(X)) for model in (ours, peer)]
    assert scores[0] > scores[1] - 0.02
    assert np.allclose(ours.release().score_samples(X), ours.score_samples(X), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e3, 1e9, 1e13])
def test_targets_of_two_scales_are_both_learned(scale):
    rng = np.random.default_rng(4)
    X = rng.random((3_000, 2))
    large = X[:, 1] > 0.9
    t = np.where(large, scale * (1.0 + X[:, 0]), np.sin(6.0 * X[:, 0]) + 0.1 * rng.standard_normal(3_000))
    ours = RandomForestRegressor(20, max_features=None, key=0).fit(X[:2_000], t[:2_000])
    peer = plain.RandomForestRegressor(20, random_state=0).fit(X[:2_000], t[:2_000])
    for part in (large[2_000:], X[2_000:, 1] < 0.88):
        scores = [r2_score(t[2_000:][part], model.predict(X[2_000:][part])) for model in (ours, peer)]
        assert scores[0] > scores[1] - 0.02
