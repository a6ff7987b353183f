"""Isolation forests: after any deletions, bit for bit the forest of a refit, and the anomalies of scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import ensemble as plain
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from certified.ensemble import IsolationForest
from certified.errors import InvalidInput
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import check_delete_equals_refit, yield_deletion_checks

KINDS = ["", "ties", "missing", "ties missing", "constant", "extreme"]


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=title)
        for title, check in yield_deletion_checks(IsolationForest(n_estimators=10, max_samples=40, key=0))
    ],
)
def test_isolation_forest_passes_the_public_check(check):
    check()


def table(seed, n, kind):
    """Rows with ties, constant columns, missing values and extremes; many rows a subject, six of one row each."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4)) * [1.0, 1e-3, 1e4, 1.0] + [0.0, 0.0, 2000.0, 0.0]
    if "ties" in kind:
        X = np.round(X)
    if "missing" in kind:
        X[rng.random(X.shape) < 0.2] = np.nan
    if "constant" in kind:
        X[:, 0] = 7.0
    if "extreme" in kind:
        X[rng.integers(n, size=2), 2] = [1e30, -1e30]
    ids = rng.permutation(np.arange(n) // rng.integers(1, 4))
    ids[:6] = 10_000 + np.arange(6)
    return X, ids


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
)
def test_any_sequence_of_requests_to_an_isolation_forest_ends_at_a_refit(seed, kind, sizes):
    X, ids = table(seed, 90, kind)
    model = IsolationForest(n_estimators=8, max_samples=12, contamination=0.1, key=0)
    live = clone(model).fit(X, ids=ids)
    rng = np.random.default_rng(seed + 1)
    for request in np.split(rng.permutation(np.unique(ids[6:])), np.cumsum(sizes))[:-1]:
        if request.size:
            live.delete(request)
    retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
    again = clone(model).fit(X[retained], ids=ids[retained])
    assert live.state_digest_ == again.state_digest_
    assert np.array_equal(live.score_samples(X), again.score_samples(X))
    released = live.release()
    assert np.allclose(released.score_samples(X), live.score_samples(X), rtol=1e-12)
    assert np.array_equal(released.predict(X), live.predict(X))


def test_an_isolation_forest_finds_what_that_of_scikit_learn_finds():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((3000, 4)), rng.uniform(-6, 6, (60, 4)), 100 + rng.standard_normal((5, 4))])
    odd = np.arange(len(X)) >= 3000
    ours, peer = IsolationForest(key=0).fit(X), plain.IsolationForest(random_state=0).fit(X)
    assert roc_auc_score(odd, -ours.score_samples(X)) > roc_auc_score(odd, -peer.score_samples(X)) - 0.005
    assert np.corrcoef(ours.score_samples(X), peer.score_samples(X))[0, 1] > 0.97
    changed = sum(bool(ours.delete([i]).changed) for i in range(20))
    assert changed == 20  # 100 trees of 256 of 3,065 rows


def test_a_tree_that_keeps_its_sample_is_caught(monkeypatch):
    honest = IsolationForest._tree

    def keeps(self, codes, coding, salt, retained, subjects, k):
        return honest(self, codes, coding, salt, retained | True, np.unique(self._hashes), k)

    monkeypatch.setattr(IsolationForest, "_tree", keeps)
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(IsolationForest(n_estimators=5, max_samples=30, key=0))


def test_what_deletions_cost_is_reported():
    rng = np.random.default_rng(0)
    model = IsolationForest(n_estimators=20, max_samples=50, key=0).fit(rng.standard_normal((3_000, 3)))
    for i in range(2_000, 2_010):
        model.delete([i])
    assert 1 <= model.work_.subtrees <= 20 * 10
    assert model.work_.rows_regrown == 50 * model.work_.subtrees
    assert model.memory_ > 0


def test_a_pipeline_may_end_in_an_isolation_forest():
    X = np.random.default_rng(0).normal(size=(200, 3))
    X[:3] *= 8.0
    recipe = make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, max_samples=50, key=0))
    model = clone(recipe).fit(X)
    model.delete([0, 7])
    retained = np.setdiff1d(np.arange(200), [0, 7])
    assert model.state_digest_ == clone(recipe).fit(X[retained], ids=retained).state_digest_
    assert np.array_equal(model.predict(X), model.release().predict(X))
    assert np.array_equal(model.score_samples(X) < -0.5, model.predict(X) < 0)
    with pytest.raises(InvalidInput, match="does not take"):
        clone(recipe).fit(X, sample_weight=np.ones(200))
