"""Where rows end in trees, without XGBoost; trees grown leaf by leaf."""

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from certified.ensemble import GradientBoostingClassifier  # noqa: E402
from certified.ensemble._boosting import structure  # noqa: E402
from certified.ensemble._boosting.leaf_lookup import walked  # noqa: E402
from certified.errors import InvalidInput  # noqa: E402
from certified.testing import check_delete_equals_refit  # noqa: E402


def trained(seed, categories=False, **params):
    """A structure of three classes, and rows on and next to its cuts, some with missing values."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(200, 4)), 1).astype(np.float32)
    X[rng.random(X.shape) < 0.2] = np.nan
    types = None
    if categories:
        X[:, 1], types = rng.integers(0, 6, 200), ["q", "c", "q", "q"]
    y = np.nan_to_num(np.nansum(X, axis=1)).astype(int) % 3
    data = xgboost.DMatrix(X, label=y, feature_types=types, enable_categorical=categories)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1, **params}, data, 4)
    found = structure.Structure.of(booster)
    trees = found.model["learner"]["gradient_booster"]["model"]["trees"]
    cuts = np.array([c for t in trees for c in t["split_conditions"]], dtype=np.float32)
    near = np.concatenate([cuts, np.nextafter(cuts, np.float32(-np.inf)), [np.nan, -0.0, np.inf]]).astype(np.float32)
    rows = rng.choice(near, size=(130, 4))
    if categories:
        rows[:, 1] = rng.integers(0, 6, 130)
    return found, [trees[t] for t in found.order], booster, np.vstack([X, rows])


def by_xgboost(found, booster, X):
    nodes = booster.predict(xgboost.DMatrix(X, missing=np.nan), pred_leaf=True).astype(int)[:, found.order]
    return np.take_along_axis(found.index.T, nodes, axis=0)


@given(st.integers(0, 10**6), st.sampled_from(["depthwise", "lossguide"]), st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_rows_end_where_xgboost_says(seed, policy, leaves):
    found, trees, booster, X = trained(seed, grow_policy=policy, max_leaves=leaves, max_depth=6, min_child_weight=0.1)
    X[np.isinf(X)] = 3e38
    np.testing.assert_array_equal(walked(trees, found.index, X), by_xgboost(found, booster, X))


def test_a_row_on_a_cut_or_a_missing_value_on_the_wrong_side_is_noticed():
    found, trees, booster, X = trained(0, max_depth=4)
    X[np.isinf(X)] = 3e38
    truth = by_xgboost(found, booster, X)
    above = [{**t, "split_conditions": np.nextafter(np.float32(t["split_conditions"]), np.float32(9))} for t in trees]
    flipped = [{**t, "default_left": [1 - d for d in t["default_left"]]} for t in trees]
    for mutant in (above, flipped):
        assert not np.array_equal(walked(mutant, found.index, X), truth)


def test_sets_of_categories_are_left_to_xgboost():
    found, trees, _, X = trained(1, categories=True, max_cat_to_onehot=2)
    X[np.isinf(X)] = 3e38
    assert walked(trees, found.index, X) is None
    np.testing.assert_array_equal(found.leaves(X)[:200], found.leaves(X[:200]))


def test_trees_grown_leaf_by_leaf_forget_like_others():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4))
    y = (X[:, 0] * X[:, 1] + 0.3 * rng.normal(size=400) > 0).astype(int)
    model = GradientBoostingClassifier(
        5, max_depth=8, grow_policy="lossguide", max_leaves=6, sample_size=150, leaf_penalty=10.0
    )
    model.fit(X, y)
    assert model.n_leaves_ == 30
    assert (
        max(dump.count("\t") for dump in model.release().get_booster().get_dump()[0].splitlines()) > 2
    )  # deeper than 2
    assert model.release().get_params()["max_leaves"] == 6
    check_delete_equals_refit(model)


@pytest.mark.parametrize(
    ("given", "match"),
    [({"grow_policy": "best"}, "depthwise"), ({"max_leaves": -1}, "max_leaves"), ({"subsample": 2.0}, "subsample")],
)
def test_what_xgboost_refuses_is_said_in_our_words(given, match):
    X, y = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    with pytest.raises(InvalidInput, match=f"(?s)XGBoost refused.*{match}.*Nothing was changed"):
        GradientBoostingClassifier(3, **given).fit(X, y)
