"""Class weights of forests: factors of the weights of rows, those of a refit after any deletions."""

import numpy as np
import pytest
from sklearn.base import clone

from certified._trees import tasks
from certified.ensemble import RandomForestClassifier
from certified.tree import DecisionTreeClassifier


def table(seed, n):
    """Rows with ties and missing values, three classes, subjects with several rows."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.standard_normal((n, 4)) * 2.0)
    X[rng.random(X.shape) < 0.2] = np.nan
    y = rng.choice(3, n, p=[0.6, 0.3, 0.1])
    y[:6] = [0, 1, 2, 0, 1, 2]
    ids = rng.permutation(np.arange(n) // 2)
    ids[:6] = 10_000 + np.arange(6)
    return X, y, ids


@pytest.mark.parametrize("given", ["balanced", {0: 0.25, 2: 3.0}])
@pytest.mark.parametrize("made", [RandomForestClassifier(4, key=0), DecisionTreeClassifier(max_depth=5, key=0)])
def test_class_weights_are_those_of_a_refit(made, given):
    X, y, ids = table(5, 160)
    model = clone(made).set_params(class_weight=given)
    live = clone(model).fit(X, y, ids=ids)
    rng, factors = np.random.default_rng(0), {live._shared.factors.tobytes()}
    for request in np.array_split(rng.permutation(np.unique(ids[ids < 10_000]))[:-3], 12):
        live.delete(request)
        factors.add(live._shared.factors.tobytes())
        retained = np.isin(ids, live.ids_)
        assert live.state_digest_ == clone(model).fit(X[retained], y[retained], ids=ids[retained]).state_digest_
    assert (len(factors) > 1) == (given == "balanced")


def test_class_weights_are_factors_of_sample_weights():
    X, y, _ = table(6, 200)
    weight = np.array([0.5, 1.0, 2.0])[y]
    by_class = RandomForestClassifier(4, class_weight={0: 0.5, 2: 2.0}, key=0).fit(X, y)
    assert by_class.state_digest_ == RandomForestClassifier(4, key=0).fit(X, y, sample_weight=weight).state_digest_
    balanced = RandomForestClassifier(4, class_weight="balanced", key=0).fit(X, y)
    exact = 200 / (3 * np.bincount(y))
    assert np.allclose(balanced._shared.factors, exact, rtol=0.0219)


def test_a_balance_that_remembers_deleted_rows_is_caught(monkeypatch):
    X, y, ids = table(7, 160)
    model = RandomForestClassifier(4, class_weight="balanced", key=0)
    live = clone(model).fit(X, y, ids=ids)
    before = live._shared.factors
    with monkeypatch.context() as patch:
        patch.setattr(tasks.ClassifierTrees, "_factors", lambda self, retained: before)
        live.delete(np.unique(ids[(y == 0) & (ids < 10_000)]))
    retained = np.isin(ids, live.ids_)
    assert live.state_digest_ != clone(model).fit(X[retained], y[retained], ids=ids[retained]).state_digest_
