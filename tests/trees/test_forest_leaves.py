"""A leaf may have to be split once rows are gone: limits on rows, weights and categories, every parameter drawn."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from certified._trees import forest
from certified.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor

KINDS = [
    RandomForestClassifier(3, key=1),
    ExtraTreesClassifier(3, key=2, bootstrap=True, max_samples=0.5),
    DecisionTreeClassifier(key=3, criterion="entropy"),
    RandomForestRegressor(2, key=4),
    ExtraTreesRegressor(3, key=5),
    DecisionTreeRegressor(key=6),
]
ROWS = st.one_of(st.integers(2, 8), st.sampled_from([0.03, 0.1]))


def table(rng, n, text):
    """Rows with extremes and ties, in which a single row decides how wide the cells of a node are."""
    X = rng.standard_normal((n, 4))
    X[:, 1] = np.round(X[:, 1])
    X[rng.random(n) < 0.2, 2] = np.nan
    for _ in range(4):
        X[rng.integers(n), rng.integers(4)] = rng.choice([1e12, -1e12, 1e30])
    X[rng.random(n) < rng.choice([0.0, 0.4]), 3] = 9_999_999.0
    if not text:
        return X
    town = rng.choice([f"town {k}" for k in range(12)], n).astype(object)
    town[rng.random(n) < 0.1] = None
    return pl.DataFrame({"town": town.tolist(), **{f"x{j}": X[:, j] for j in range(3)}})


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    model=st.sampled_from(KINDS),
    options=st.fixed_dictionaries(
        {
            "min_samples_leaf": ROWS,
            "min_samples_split": ROWS,
            "max_depth": st.sampled_from([None, 4]),
            "max_features": st.sampled_from([1, None]),
            "n_thresholds": st.sampled_from([2, 4, 16]),
            "min_impurity_decrease": st.sampled_from([0.0, 0.0, 0.02]),
        }
    ),
    weighted=st.booleans(),
    text=st.booleans(),
    large=st.sampled_from([1, 64]),
)
def test_leaves_are_those_of_a_refit(seed, model, options, weighted, text, large):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(40, 120))
    X, y = table(rng, n, text), rng.integers(0, 3, n)
    y[:6] = [0, 1, 2, 0, 1, 2]
    ids = rng.permutation(np.arange(n) // rng.integers(1, 4))
    ids[:6] = 10_000 + np.arange(6)  # never deleted: no class is lost
    weight = rng.choice([0.0, 0.3, 1.0, 40.0], n) if weighted else np.ones(n)
    weight[:6] = 1.0
    model = clone(model).set_params(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "_LARGE", large)
        patch.setattr(forest, "_SHARE", 10**9)
        live = clone(model).fit(X, y, ids=ids, sample_weight=weight)
        pool = rng.permutation(np.unique(ids[6:]))[:-1]
        for request in np.array_split(pool, 5)[: int(rng.integers(1, 6))]:
            if request.size:
                live.delete(request)
    retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
    again = clone(model).fit(X[retained], y[retained], ids=ids[retained], sample_weight=weight[retained])
    assert live.state_digest_ == again.state_digest_


N_OF_A_LEAF = 14  # so few rows that no shape is seen in them
X_OF_A_LEAF = np.r_[np.arange(N_OF_A_LEAF), 1e12][:, None]
Y_OF_A_LEAF = np.r_[np.arange(N_OF_A_LEAF) >= 7, False].astype(int)


def test_a_leaf_is_split_once_the_row_is_gone_that_made_its_cells_wide():
    model = ExtraTreesClassifier(5, min_samples_leaf=2, n_thresholds=16, key=0)
    live = clone(model).fit(X_OF_A_LEAF, Y_OF_A_LEAF)
    assert [tree.get_n_leaves() for tree in live] == [1] * 5
    live.delete([N_OF_A_LEAF])
    again = clone(model).fit(X_OF_A_LEAF[:-1], Y_OF_A_LEAF[:-1])
    assert live.state_digest_ == again.state_digest_
    assert max(tree.get_n_leaves() for tree in live) > 1


def many_leaves():
    """Return how many of two forests on heavy tails differ from a refit after a tenth of the rows went."""
    differ = 0
    for key in range(2):
        rng = np.random.default_rng(0)
        X, y, order = rng.standard_cauchy((3000, 5)), rng.integers(0, 2, 3000), rng.permutation(3000)
        model = ExtraTreesClassifier(4, min_samples_leaf=8, n_thresholds=4, key=key)
        live = clone(model).fit(X, y)
        for request in np.array_split(order[:300], 60):
            live.delete(request)
        retained = order[300:]
        differ += live.state_digest_ != clone(model).fit(X[retained], y[retained], ids=retained).state_digest_
    return differ


def test_leaves_are_those_of_a_refit_once_extreme_rows_are_gone():
    assert many_leaves() == 0


def test_leaves_that_are_never_asked_again_are_caught(monkeypatch):
    honest = forest.kernels_delete.delete_all

    def stays(*args):
        n, nodes, stale = honest(*args), args[10], args[15]
        leaves = stale[:n][nodes["feature"][stale[:n]] < 0]
        nodes["stale"][leaves] = 0  # not to be grown anew
        return n

    monkeypatch.setattr(forest.kernels_delete, "delete_all", stays)
    assert many_leaves() > 0


def test_shares_of_the_rows_are_those_of_scikit_learn_within_what_is_rounded():
    X, y = load_breast_cancer(return_X_y=True)
    model = DecisionTreeClassifier(min_samples_leaf=0.1, min_samples_split=0.3, key=0).fit(X, y)
    nodes = model.tree_.n_node_samples
    leaf = model.tree_.children_left < 0
    assert nodes[leaf].min() >= 0.1 * len(y) * 2.0 ** (-1 / 32)
    assert nodes[~leaf].min() >= 0.3 * len(y) * 2.0 ** (-1 / 32)
    whole = clone(model).set_params(min_samples_leaf=1.0)
    with pytest.raises(ValueError, match="a share of the rows"):
        whole.fit(X, y)
