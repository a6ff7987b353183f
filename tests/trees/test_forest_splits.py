"""What decides whether a node is split, and when a deletion need not ask: least decrease, lead of the best split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_classification

from certified._trees import kernels_split
from certified.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from certified.errors import InvalidInput
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor


def decreases(tree, n_rows):
    """Return of every inner node of a plain tree by how much it lowers the impurity, with its share of the rows."""
    inner = np.flatnonzero(tree.feature >= 0)
    weight, impurity = tree.weighted_n_node_samples, tree.impurity
    sides = [weight[c[inner]] * impurity[c[inner]] for c in (tree.children_left, tree.children_right)]
    return (weight[inner] * impurity[inner] - sum(sides)) / n_rows


@pytest.mark.parametrize(
    "model",
    [DecisionTreeClassifier(key=0), DecisionTreeClassifier(criterion="entropy", key=0), DecisionTreeRegressor(key=0)],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_node_is_split_where_it_explains_enough(model, weighted):
    X, y = load_breast_cancer(return_X_y=True)
    weight = np.random.default_rng(0).integers(1, 4, len(y)) * 0.7 if weighted else None
    n_rows = len(y) if weight is None else weight.sum()
    model = model.set_params(max_depth=8)
    free = clone(model).fit(X, y, sample_weight=weight)
    least = 0.015 if model.criterion == "entropy" else 0.004
    retained = clone(model).set_params(min_impurity_decrease=least).fit(X, y, sample_weight=weight)
    found = decreases(retained.release().tree_, n_rows)
    assert found.min() >= least * 2.0 ** (-1 / 32)  # the number of rows is rounded
    assert 2 < len(found) < len(decreases(free.release().tree_, n_rows))
    # a leaf that is none without the limit would explain too little: the trees begin alike
    a, b = free.release().tree_, retained.release().tree_
    pairs, stack = [], [(0, 0)]
    while stack:
        k, m = stack.pop()
        if b.feature[m] >= 0:
            assert a.feature[k] == b.feature[m]
            stack += [(a.children_left[k], b.children_left[m]), (a.children_right[k], b.children_right[m])]
        elif a.feature[k] >= 0:
            pairs.append(k)
    inner = np.flatnonzero(a.feature >= 0)
    of_node = dict(zip(inner.tolist(), decreases(a, n_rows).tolist(), strict=True))
    assert pairs
    assert max(of_node[k] for k in pairs) < least * 2.0 ** (1 / 32)


def test_a_leaf_may_be_split_after_a_deletion():
    rng = np.random.default_rng(0)
    X, ids = rng.standard_normal((400, 3)), np.arange(400)
    y = (X[:, 0] > 0).astype(int) ^ (rng.random(400) < 0.35)
    model = RandomForestClassifier(10, bootstrap=False, min_impurity_decrease=0.012, key=0)
    live = clone(model).fit(X, y, ids=ids)
    grown = []
    for request in np.array_split(rng.permutation(np.flatnonzero(y != (X[:, 0] > 0))), 20):
        before = [tree.tree_.node_count for tree in live.release().estimators_]
        live.delete(request)
        after = [tree.tree_.node_count for tree in live.release().estimators_]
        grown.append(any(a > b for a, b in zip(after, before, strict=True)))
        retained = np.isin(ids, live.ids_)
        assert live.state_digest_ == clone(model).fit(X[retained], y[retained], ids=ids[retained]).state_digest_
    assert any(grown)


def test_min_impurity_decrease_is_checked():
    X, y = np.arange(20.0)[:, None], np.arange(20) % 2
    for wrong in (-1.0, np.nan, True, "much"):
        with pytest.raises(InvalidInput, match="min_impurity_decrease"):
            RandomForestClassifier(min_impurity_decrease=wrong, key=0).fit(X, y)
    with pytest.raises(InvalidInput, match="a model for each target"):
        RandomForestRegressor(min_impurity_decrease=0.1, key=0).fit(X, np.column_stack([y, 1000 * y]))


def test_features_with_and_without_missing_values_compete_fairly():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 2))
    y = (X[:, 0] > 0).astype(int)
    X[:3, 1] = np.nan  # noise, and some of it is missing
    for model in (DecisionTreeClassifier(max_depth=1, key=0), DecisionTreeRegressor(max_depth=1, key=0)):
        assert model.fit(X, y).release().tree_.feature[0] == 0


@settings(max_examples=300)
@given(
    counts=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=2, max_size=6),
    label=st.integers(0, 1),
    where=st.integers(0, 5),
)
def test_one_row_changes_the_value_of_a_split_by_less_than_one(counts, label, where):
    counts = np.array(counts)
    cell = where % len(counts)
    if counts[cell, label] == 0:
        counts[cell, label] = 1
    fewer = counts.copy()
    fewer[cell, label] -= 1
    for cut in range(1, len(counts)):
        a, b, n = counts[:cut].sum(axis=0), fewer[:cut].sum(axis=0), counts.sum()
        if min(a.sum(), n - a.sum(), b.sum(), n - 1 - b.sum()) <= 0:
            continue
        before = kernels_split.two_classes(a[0], a.sum(), counts[:, 0].sum(), n)
        after = kernels_split.two_classes(b[0], b.sum(), fewer[:, 0].sum(), n - 1)
        assert -1e-9 <= after - before < 1.0
        # Gini impurity as it is otherwise computed: the same, twice, less the row itself
        sides = [kernels_split.purity(c, 0, 0) + kernels_split.purity(whole - c, 0, 0)
                 for c, whole in ((a, counts.sum(axis=0)), (b, fewer.sum(axis=0)))]  # fmt: skip
        assert -1.0 - 1e-9 <= sides[1] - sides[0] < 1.0


@pytest.mark.parametrize(
    "made",
    [
        RandomForestClassifier(6, bootstrap=False, key=0),
        ExtraTreesClassifier(6, n_thresholds=8, max_features=4, key=0),
    ],
)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_lead_that_is_overrated_is_caught(made, classes):
    X, y = make_classification(1500, 6, n_informative=4, flip_y=0.2, n_classes=classes, random_state=0)
    ids = np.arange(len(y))
    order = np.random.default_rng(0).permutation(len(y))[:250]
    retained = np.setdiff1d(ids, order)
    refit = clone(made).fit(X[retained], y[retained], ids=retained).state_digest_
    found = []
    for wrong in (0, 1000):
        live = clone(made).fit(X, y, ids=ids)
        leads = live._forest._trees.spans[:, 0, 7]
        assert np.any(leads > 3)  # it is used
        leads += wrong
        for subject in order:
            live.delete([subject])
        found.append(live.state_digest_ == refit)
    assert found == [True, False]
