"""Smaller trees that are shown of whole ones, leaves of a least weight, Poisson deviance, sparse rows."""

import heapq
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_matrix
from sklearn import ensemble as plain
from sklearn import tree as plain_tree
from sklearn.base import clone
from sklearn.metrics import mean_poisson_deviance
from sklearn.tree._tree import Tree, _build_pruned_tree_ccp

from certified.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from certified.errors import InvalidInput, InvalidRequest
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor

FORESTS = [RandomForestClassifier, ExtraTreesClassifier, RandomForestRegressor, ExtraTreesRegressor]


def rows(seed, n=220):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).round(1)
    labels = (X[:, 0] + X[:, 1] ** 2 + rng.normal(size=n) > 1).astype(int) + (X[:, 2] > 1)
    labels[:6] = [0, 1, 2, 0, 1, 2]
    counts = rng.poisson(np.exp(0.5 * X[:, 0])).astype(float)
    return rng, X, labels, counts


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(FORESTS),
    weighted=st.booleans(),
    leaves=st.sampled_from([None, 2, 7, 30]),
    alpha=st.sampled_from([0.0, 0.003, 0.03]),
    share=st.sampled_from([0.0, 0.02, 0.2]),
    more=st.sampled_from([{}, {"min_impurity_decrease": 0.002}, {"max_depth": 4}, {"other": True}]),
)
def test_deletions_end_at_a_refit(seed, kind, weighted, leaves, alpha, share, more):
    rng, X, labels, counts = rows(seed)
    y = labels if kind.__name__.endswith("Classifier") else counts
    if "other" in more:
        more = {"criterion": "entropy" if y is labels else "poisson"}
    model = kind(3, key=5, max_leaf_nodes=leaves, ccp_alpha=alpha, min_weight_fraction_leaf=share, **more)
    weight = rng.integers(0, 4, len(X)) + rng.random(len(X)) if weighted else np.ones(len(X))
    weight[:6] = 1.0  # never deleted: no class is lost
    ids = np.arange(len(X))
    live = clone(model).fit(X, y, ids=ids, sample_weight=weight)
    order = rng.permutation(np.arange(6, len(X)))
    for k in range(0, 60, 12):
        live.delete(order[k : k + 12])
    held = np.sort(np.r_[:6, order[60:]])
    again = clone(model).fit(X[held], y[held], ids=ids[held], sample_weight=weight[held])
    assert live.state_digest_ == again.state_digest_
    said = [getattr(m, "predict_proba", m.predict)(X) for m in (live, again, live.release())]
    assert np.array_equal(said[0], said[1])
    assert np.allclose(said[0], said[2], rtol=1e-12)
    for a, b in zip(live.estimators_, again.estimators_, strict=True):
        assert a.tree_.__getstate__()["nodes"].tobytes() == b.tree_.__getstate__()["nodes"].tobytes()


def whole(kind, y, X, **given):
    return kind(key=2, **given).fit(X, y).tree_


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), alpha=st.floats(1e-4, 0.1), criterion=st.sampled_from(["gini", "entropy", None]))
def test_pruning_is_that_of_scikit_learn(seed, alpha, criterion):
    _, X, labels, counts = rows(seed)
    kind, y = (DecisionTreeClassifier, labels) if criterion else (DecisionTreeRegressor, counts)
    given = {"criterion": criterion} if criterion else {}
    full = whole(kind, y, X, **given)
    pruned = Tree(full.n_features, full.n_classes, full.n_outputs)
    _build_pruned_tree_ccp(pruned, full, alpha)
    ours = whole(kind, y, X, ccp_alpha=alpha, **given)
    assert ours.node_count == pruned.node_count
    assert np.array_equal(ours.predict(X.astype(np.float32)), pruned.predict(X.astype(np.float32)))


def test_the_path_of_pruning_has_the_trees_of_its_alphas():
    _, X, labels, counts = rows(10)
    for model, y in ((DecisionTreeClassifier(key=2), labels), (DecisionTreeRegressor(key=2), counts)):
        path = model.cost_complexity_pruning_path(X, y)
        sizes = [clone(model).set_params(ccp_alpha=a * (1 + 1e-9)).fit(X, y).get_n_leaves() for a in path.ccp_alphas]
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[-1] == 1
        assert len(set(sizes)) > 5


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), leaves=st.integers(2, 40))
def test_the_leaves_are_those_of_the_splits_that_explain_most(seed, leaves):
    rng, X, _, _ = rows(seed)
    y = rng.normal(size=len(X)) + X[:, 0]  # no two splits explain the same
    full = whole(DecisionTreeRegressor, y, X)
    mass = full.weighted_n_node_samples * full.impurity
    left, right = full.children_left, full.children_right

    def ahead(k):
        return (-(mass[k] - mass[left[k]] - mass[right[k]]), k)

    heap, shown, values = [ahead(0)], 1, []
    while heap and shown < leaves:
        gain, k = heapq.heappop(heap)
        values.append(-gain)
        shown += 1
        for child in (left[k], right[k]):
            if left[child] >= 0:
                heapq.heappush(heap, ahead(child))
    ours = whole(DecisionTreeRegressor, y, X, max_leaf_nodes=leaves)
    assert ours.n_leaves == shown
    mass = ours.weighted_n_node_samples * ours.impurity
    inner = np.flatnonzero(ours.children_left >= 0)
    gains = mass[inner] - mass[ours.children_left[inner]] - mass[ours.children_right[inner]]
    assert np.allclose(np.sort(gains), np.sort(values))


@pytest.mark.parametrize("kind", FORESTS)
def test_no_leaf_is_lighter_than_asked(kind):
    rng, X, labels, counts = rows(1, 400)
    y = labels if kind.__name__.endswith("Classifier") else counts
    weight = rng.random(400)
    model = kind(5, key=1, min_weight_fraction_leaf=0.1, bootstrap=False).fit(X, y, sample_weight=weight)
    for tree in model.estimators_:
        leaf = tree.tree_.children_left < 0
        assert tree.tree_.weighted_n_node_samples[leaf].min() > 0.1 * weight.sum()
        assert leaf.sum() > 2


def test_poisson_deviance_is_explained_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    X = rng.random((3_000, 3))
    y = rng.poisson(np.exp(3.0 * X[:, 0] * X[:, 1] - 1.0)).astype(float)
    given = {"criterion": "poisson", "min_samples_leaf": 20, "max_features": 1.0}
    ours = RandomForestRegressor(30, key=0, **given).fit(X[:2000], y[:2000])
    peer = plain.RandomForestRegressor(30, random_state=0, **given).fit(X[:2000], y[:2000])
    score = [mean_poisson_deviance(y[2000:], model.predict(X[2000:])) for model in (ours, peer)]
    assert score[0] < 1.02 * score[1]
    one = plain_tree.DecisionTreeRegressor(criterion="poisson", max_depth=1).fit(X[:40].round(1), y[:40])
    two = DecisionTreeRegressor(criterion="poisson", max_depth=1, n_thresholds=1000, key=0).fit(X[:40].round(1), y[:40])
    assert two.tree_.feature[0] == one.tree_.feature[0]
    assert np.allclose(np.sort(two.tree_.value.ravel()), np.sort(one.tree_.value.ravel()))
    assert two.tree_.compute_feature_importances(False).sum() == pytest.approx(
        one.tree_.compute_feature_importances(False).sum()
    )


def test_counts_that_poisson_cannot_explain_are_refused():
    X, y = np.arange(8.0)[:, None], np.array([0.0, 0, 0, 3, 0, 0, 0, 0])
    with pytest.raises(InvalidInput, match="below 0"):
        RandomForestRegressor(2, criterion="poisson").fit(X, y - 1.0)
    with pytest.raises(InvalidInput, match="sum 0"):
        RandomForestRegressor(2, criterion="poisson").fit(X, 0.0 * y)
    model = RandomForestRegressor(2, criterion="poisson", key=0).fit(X, y, ids=range(8))
    before = model.state_digest_
    with pytest.raises(InvalidRequest, match="sum 0"):
        model.delete([3])
    assert model.state_digest_ == before
    assert model.delete([4]).certificate.claim == "exact"


def test_the_criterion_of_friedman_is_squared_error_with_the_warning_of_scikit_learn():
    _, X, _, counts = rows(3)
    with pytest.warns(FutureWarning, match="friedman_mse"):
        one = RandomForestRegressor(3, criterion="friedman_mse", key=0).fit(X, counts)
    assert one.state_digest_ == RandomForestRegressor(3, key=0).fit(X, counts).state_digest_


@pytest.mark.parametrize("kind", [*FORESTS, DecisionTreeClassifier, IsolationForest])
@pytest.mark.parametrize("form", [csr_matrix, csc_array])
def test_sparse_rows_are_dense_ones(kind, form):
    _, X, labels, counts = rows(4)
    X *= np.abs(X) > 1.0
    y = counts if kind.__name__.endswith("Regressor") else labels
    given = {"n_estimators": 3} if "n_estimators" in kind().get_params() else {}
    dense, sparse = kind(key=1, **given).fit(X, y), kind(key=1, **given).fit(form(X), y)
    assert dense.state_digest_ == sparse.state_digest_
    assert np.array_equal(dense.predict(X), sparse.predict(form(X)))
    assert np.array_equal(dense.release().predict(X), sparse.release().predict(form(X)))


def test_a_forest_is_a_sequence_of_its_trees_and_tells_what_each_has_seen():
    _, X, labels, _ = rows(5)
    model = RandomForestClassifier(4, key=1).fit(X, labels, ids=np.arange(len(X)))
    model.delete(range(20))
    assert len(model) == 4
    assert model[0] is model.estimators_[0]
    assert [tree.tree_.node_count for tree in model] == [tree.tree_.node_count for tree in model.estimators_]
    assert RandomForestClassifier()  # unfitted, too
    for seen, tree in zip(model.estimators_samples_, model, strict=True):
        assert len(seen) == tree.tree_.n_node_samples[0]
        assert np.bincount(labels[20:][seen], minlength=3) == pytest.approx(tree.tree_.value[0, 0] * len(seen))
    assert type(model.estimator_) is plain_tree.DecisionTreeClassifier


@pytest.mark.parametrize("kind", FORESTS)
def test_a_warm_start_is_refused_because_its_trees_would_hold_rows(kind):
    _, X, labels, _ = rows(6)
    with pytest.raises(InvalidInput, match=r"warm_start=True\).*would hold its rows"):
        kind(2, warm_start=True).fit(X, labels)


@pytest.mark.parametrize(
    "given", [{"max_leaf_nodes": 1}, {"max_leaf_nodes": 2.5}, {"ccp_alpha": -1.0}, {"min_weight_fraction_leaf": 0.6}]
)
def test_what_makes_no_tree_is_refused(given):
    _, X, labels, _ = rows(7)
    with pytest.raises(InvalidInput, match=next(iter(given))):
        DecisionTreeClassifier(**given).fit(X, labels)


def test_shown_trees_that_survive_a_deletion_are_caught():
    _, X, labels, _ = rows(8)
    model = RandomForestClassifier(3, key=1, max_leaf_nodes=6)
    live = clone(model).fit(X, labels, ids=range(len(X)))
    live.predict(X)
    shown = live._forest._shown
    live.delete(range(60))
    again = clone(model).fit(X[60:], labels[60:], ids=range(60, len(X)))
    assert np.array_equal(live.predict_proba(X), again.predict_proba(X))
    assert not np.array_equal(shown["feature"], live._forest._shown_nodes()["feature"])


def test_leaves_too_light_that_deletions_leave_are_caught():
    """Without the least weight in the rule of a deletion the live trees are not those of a refit."""
    rng, X, labels, _ = rows(9)
    weight = rng.random(len(X)) + 0.01
    model = RandomForestClassifier(3, key=1, min_weight_fraction_leaf=0.1)
    live = clone(model).fit(X, labels, ids=range(len(X)), sample_weight=weight)
    live._forest.growth = replace(live._forest.growth, min_weight=0)
    live._forest._rule = live._forest.growth.rule()
    same = []
    for k in range(6):
        live.delete([k])
        again = clone(model).fit(X[k + 1 :], labels[k + 1 :], ids=range(k + 1, len(X)), sample_weight=weight[k + 1 :])
        same.append(live.state_digest_ == again.state_digest_)
    assert not all(same)
