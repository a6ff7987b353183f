"""Releases of forests with noise: all but the splits is a function of noised leaves, and mu is at most what is said."""

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone

from certified import noise
from certified._trees import tasks
from certified.ensemble import RandomForestClassifier
from certified.tree import DecisionTreeClassifier


def plain_trees(release):
    last = release[-1] if hasattr(release, "steps") else release
    return [tree.tree_ for tree in getattr(last, "estimators_", [last])]


def published(release):
    """Return everything that the trees of a release hold besides their splits, and the splits."""
    rest, splits = [], []
    for tree in plain_trees(release):
        state = tree.__getstate__()
        nodes = state["nodes"]
        rest += [state["values"].tobytes(), *(nodes[name].tobytes() for name in nodes.dtype.names)]
        splits += [nodes["feature"].tobytes(), nodes["threshold"].tobytes()]
    return rest, splits


def twins(seed, text=False, **given):
    """Return models of all rows, and of those without a subject of several rows, that have the same splits."""
    rng = np.random.default_rng(seed)
    n = 300
    X = np.round(rng.standard_normal((n, 3)) * 2.0)
    y = (X[:, 0] + rng.standard_normal(n) > 0).astype(int)
    ids = np.arange(n) // 3
    weight = rng.integers(1, 4, n).astype(float)
    weight[0] = 4.0  # the scale of the weights
    if text:
        X = pl.DataFrame({"a": [f"v{int(v)}" for v in X[:, 0]], "b": X[:, 1], "c": X[:, 2]})
    model = RandomForestClassifier(6, max_depth=3, key=seed, **given).fit(X, y, ids=ids, sample_weight=weight)
    for subject in range(1, 100):
        other = clone(model).fit(X, y, ids=ids, sample_weight=weight)
        other.delete([subject])
        if published(model.release(leaves="votes"))[1] == published(other.release(leaves="votes"))[1]:
            return model, other, subject
    raise AssertionError("no subject leaves all splits as they are")


def same_noised_leaves(monkeypatch):
    """Let every noised vector be the same, whatever the leaves hold."""
    monkeypatch.setattr(
        noise, "release", lambda w, factor, sigma: np.random.default_rng(w.size).normal(5.0, 4.0, w.size)
    )


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("leaves", ["shares", "votes"])
def test_what_is_published_depends_on_the_noised_leaves_and_the_splits_alone(monkeypatch, text, leaves):
    model, other, _ = twins(1, text)
    same_noised_leaves(monkeypatch)
    one, two = (published(m.release(leaves=leaves, sigma=2.0)) for m in (model, other))
    assert one[1] == two[1]
    assert one[0] == two[0]


def test_a_tree_that_sees_no_row_is_published_with_noise_like_any_other(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 2)), np.arange(40) % 2
    model = RandomForestClassifier(40, max_samples=0.02, max_depth=1, min_samples_split=40, key=0).fit(X, y)
    sizes = model._grown().n_rows
    assert np.any(sizes == 0)
    alone = np.flatnonzero(model._grown().seen()[sizes == 1].any(axis=0))  # subjects that some tree sees alone
    other = clone(model).fit(X, y)
    other.delete([int(alone[-1])])
    assert len(model.release(sigma=1.0).estimators_) == len(other.release(sigma=1.0).estimators_) == 40
    same_noised_leaves(monkeypatch)
    assert published(model.release(sigma=1.0)) == published(other.release(sigma=1.0))


def test_a_side_of_missing_values_that_follows_the_exact_counts_is_caught(monkeypatch):
    X = np.r_[np.zeros(11), np.ones(10)][:, None]  # as many rows on either side once one is gone
    y = np.r_[[0] * 9, [1] * 2, [1] * 8, [0] * 2]
    pair = [DecisionTreeClassifier(max_depth=1, key=0).fit(X, y) for _ in range(2)]
    pair[1].delete([0])
    assert published(pair[0].release())[1] == published(pair[1].release())[1]
    sides = [
        {int(tree.missing_go_to_left[0]) for _ in range(20) for tree in plain_trees(m.release(sigma=1000.0))}
        for m in pair
    ]
    assert sides == [{0, 1}, {0, 1}]  # one of 20 alike with 2 ** -19
    same_noised_leaves(monkeypatch)
    honest = tasks.from_leaves

    def exact(nodes, of_leaves):
        out = honest(nodes, of_leaves)
        out[0, 0] += nodes["n"][0]  # an inner node that tells its rows
        return out

    assert published(pair[0].release(sigma=1.0)) == published(pair[1].release(sigma=1.0))
    monkeypatch.setattr(tasks, "from_leaves", exact)
    assert published(pair[0].release(sigma=1.0)) != published(pair[1].release(sigma=1.0))


def test_mu_counts_the_weights_of_all_rows_of_a_person_in_all_trees():
    rng = np.random.default_rng(2)
    X, y = rng.standard_normal((90, 3)), np.arange(90) % 2
    ids, weight = np.arange(90) // 3, np.where(np.arange(90) < 6, 2.5, 1.0)
    every = RandomForestClassifier(9, bootstrap=False, max_depth=2, key=0).fit(X, y, ids=ids, sample_weight=weight)
    assert every.release_mu(5.0, [0]) == pytest.approx(3 * 2.5 * 3 / 5.0, rel=1e-3)
    assert every.release_mu(5.0, [7]) == pytest.approx(3 * 1.0 * 3 / 5.0, rel=1e-3)
    assert every.release_mu(5.0, [0, 7]) == pytest.approx(3 * 3.5 * 3 / 5.0, rel=1e-3)
    assert every.release_mu(5.0) == pytest.approx(every.release_mu(5.0, [1]), rel=1e-6)
    some = RandomForestClassifier(9, max_samples=0.5, max_depth=2, key=0).fit(X, y, ids=ids)
    sees = some._grown().seen()[:, [0, 21]]
    assert some.release_mu(1.0, [0]) == pytest.approx(3 * np.sqrt(sees[:, 0].sum()), rel=1e-3)
    assert some.release_mu(1.0, [0, 7]) == pytest.approx(np.sqrt(np.sum((3.0 * sees.sum(axis=1)) ** 2)), rel=1e-3)
    balanced = DecisionTreeClassifier(class_weight={0: 3.0}, max_depth=2, key=0).fit(X, y)
    assert balanced.release_mu(1.0, [0]) == pytest.approx(3.0, rel=1e-3)
    assert balanced.release_mu(1.0, [1]) == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("sigma", [0.3, 1.49, 2.5])
def test_no_less_noise_is_drawn_than_was_asked_for(sigma):
    X = np.repeat(np.arange(64.0), 400)[:, None]  # 64 leaves or so, far from zero
    y = np.tile([0, 1], 64 * 200)
    y[::400] = 1
    model = DecisionTreeClassifier(max_depth=6, n_thresholds=64, key=0).fit(X, y)
    exact = np.concatenate(model._leaf_weights())
    found = np.concatenate([np.concatenate(model._noised_leaves(sigma)) - exact for _ in range(40)])
    spread = found.std() / sigma
    margin = 4.5 / np.sqrt(2 * found.size)  # wrong in 1 of 10^5 runs
    assert 1.0 - margin < spread < 1.0 + margin


def measured(model, other, sigma, n_draws):
    """Return how far apart releases of two models are where they differ, in standard deviations of the noise."""
    exact = [np.concatenate([part.ravel() for part in m._leaf_weights()]) for m in (model, other)]
    where = exact[0] - exact[1]

    def statistic(m):
        found = []
        for tree in plain_trees(m.release(sigma=sigma)):
            found.append((tree.value[:, 0, :] * tree.weighted_n_node_samples[:, None])[tree.children_left < 0].ravel())
        return np.concatenate(found) @ where

    one, two = (np.array([statistic(m) for _ in range(n_draws)]) for m in (model, other))
    return (one.mean() - two.mean()) / np.sqrt((one.var() + two.var()) / 2.0)


def test_releases_are_no_easier_to_tell_apart_than_mu_says():
    model, other, subject = twins(3)
    sigma, n_draws = 8.0, 40
    mu = model.release_mu(sigma, [subject])
    found = measured(model, other, sigma, n_draws)
    margin = 4.5 * np.sqrt(2.0 / n_draws)  # wrong in 1 of 10^5 runs
    assert found < mu + margin
    assert measured(model, other, sigma / 8.0, n_draws) > mu + margin  # too little noise is caught
