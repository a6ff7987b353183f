"""Splits that do not come from the sample: drawn by the key, or a LightGBM model's."""

import json
import pickle

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from hypothesis import example, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from test_boosting import data, target, true_leaf_values  # noqa: E402

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402
from certified.ensemble._boosting.structure_lightgbm import _split  # noqa: E402
from certified.errors import InvalidInput, InvalidRequest, UnknownIds  # noqa: E402
from certified.pipeline import make_pipeline  # noqa: E402
from certified.preprocessing import KBinsDiscretizer  # noqa: E402
from certified.testing import check_delete_equals_refit, yield_deletion_checks  # noqa: E402

RANDOM = {"n_estimators": 5, "max_depth": 3, "structure": "random", "feature_ranges": (-3.0, 3.0), "leaf_penalty": 2.0}
CHECKS = [pytest.param(check, id=title) for title, check in yield_deletion_checks(GradientBoostingClassifier(**RANDOM))]


@pytest.mark.parametrize("check", CHECKS)
def test_splits_drawn_by_the_key_pass_the_public_check(check):
    check()


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 2**64), st.integers(2, 3))
def test_no_row_is_in_splits_drawn_by_the_key(seed, key, classes):
    rng = np.random.default_rng(seed)
    found = []
    for n in (40, 60):
        X, y = rng.normal(size=(n, 3)), np.arange(n) % classes
        model = GradientBoostingClassifier(**RANDOM, key=key).fit(X, y, ids=rng.integers(0, 30, n))
        found.append(model._state.structures[0].text)
    assert found[0] == found[1]
    other = GradientBoostingClassifier(**RANDOM, key=key + 1).fit(X, y)
    assert other._state.structures[0].text != found[0]


def paths(tree, node=0, seen=()):
    """Splits above each leaf: feature, cut, whether it is below."""
    if tree["left_children"][node] == -1:
        yield seen
        return
    for side, child in ((True, tree["left_children"][node]), (False, tree["right_children"][node])):
        split = (tree["split_indices"][node], tree["split_conditions"][node], side)
        yield from paths(tree, child, (*seen, split))


def test_cuts_are_within_what_the_nodes_above_leave_and_constraints_hold():
    X, y, _, ids = data()
    ranges = np.array([[-1.0, 1.0], [0.0, 7.0], [-5.0, -4.0]])
    changed = {"feature_ranges": ranges, "n_estimators": 40, "interaction_constraints": [[0, 2]]}
    model = GradientBoostingClassifier(**{**RANDOM, **changed}).fit(X, y, ids=ids)
    trees = model._state.structures[0].model["learner"]["gradient_booster"]["model"]["trees"]
    used, sides = [], []
    for tree in trees:
        used.append(frozenset(f for path in paths(tree) for f, _, _ in path))
        sides += tree["default_left"][:7]
        for path in paths(tree):
            cell = ranges.copy()
            for f, cut, below in path:
                assert cell[f, 0] <= cut <= cell[f, 1]
                cell[f, 1 if below else 0] = cut
    assert set(used) <= {frozenset({0}), frozenset({2}), frozenset({0, 2}), frozenset({1})}
    assert frozenset({1}) in used
    assert frozenset({0, 2}) in used
    assert 0.3 < np.mean(sides) < 0.7


@pytest.mark.parametrize("objective", ["binary:logistic", "reg:squarederror", "count:poisson"])
def test_no_request_grows_trees_and_the_certificate_covers_the_distance(objective):
    X, y, s, ids = data(3)
    y = target(objective, X, y)
    kind = GradientBoostingClassifier if objective == "binary:logistic" else GradientBoostingRegressor
    model = kind(**RANDOM, objective=objective).fit(X, y, ids=ids, sample_weight=s)
    before = model.structure_digest_
    assert model.deletion_cost().parts == 0.0
    for gone in ([ids[0]], [ids[9], ids[40]], np.unique(ids)[20:40]):
        gone = [i for i in gone if i in set(model.ids_)]
        model.delete(gone)
        assert model.structure_digest_ == before
    retained = np.isin(ids, model.ids_)
    true, _ = true_leaf_values(model, objective, X[retained], y[retained], s[retained])
    gap = model.private_coef_ - true
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= model.certificate_.distance_bound + 1e-11


def test_a_pipeline_of_stable_codes_has_public_ranges():
    made = make_pipeline(
        KBinsDiscretizer(8, encode="ordinal", sample_size=100),
        GradientBoostingClassifier(**{**RANDOM, "feature_ranges": (-0.5, 7.5)}),
    )
    check_delete_equals_refit(made)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"feature_ranges": None}, "feature_ranges"),
        ({"feature_ranges": (3.0, -3.0)}, "low < high"),
        ({"feature_ranges": (0.0, np.inf)}, "feature_ranges"),
        ({"feature_ranges": [(0, 1)] * 2}, "3 features"),
        ({"feature_ranges": "wide"}, "feature_ranges"),
        ({"max_depth": 0}, "max_depth"),
        ({"max_depth": 16}, "max_depth"),
        ({"structure_groups": 2}, "structure_groups"),
        ({"categorical_features": [2]}, "sets of"),
        ({"structure": "Random"}, r"xgboost\.Booster"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changed, message):
    X, y, _, ids = data(missing=0.0)
    with pytest.raises(InvalidInput, match=message):
        GradientBoostingClassifier(**{**RANDOM, **changed}).fit(np.abs(X).round(), y, ids=ids)


# --------------------------------------------------------------- LightGBM


def ties(seed, n=400):
    """Features of whole numbers, of close floats and with missing values: float32 already."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4))
    X[:, 0] = rng.integers(-2, 3, n)
    X[:, 1] = 1.0 + rng.integers(0, 5, n) * 2.0**-23
    X = X.astype(np.float32)
    z = X[:, 0] + (X[:, 1] > 1.0 + 2.0**-22) + X[:, 2] * (X[:, 0] > 0)
    return X.astype(np.float64), z, rng


@pytest.mark.parametrize("missing", ["none", "in training", "later"])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_splits_of_lightgbm_part_the_rows_as_it_does(classes, missing):
    lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")
    X, z, rng = ties(classes)
    hidden = X.copy()
    hidden[rng.random(X.shape) < 0.1] = np.nan
    seen = hidden if missing == "in training" else X
    if classes == 1:
        kind, maker, y = GradientBoostingRegressor, lightgbm.LGBMRegressor, z
    else:
        kind, maker = GradientBoostingClassifier, lightgbm.LGBMClassifier
        y = np.digitize(z, [0.5, 1.5][: classes - 1])
    plain = maker(n_estimators=8, num_leaves=9, min_child_samples=5, verbose=-1, n_jobs=1).fit(seen, y)
    model = kind.from_booster(plain, seen, y, leaf_penalty=2.0)
    asked = X if missing == "none" else hidden
    theirs = plain.predict(asked, pred_leaf=True).reshape(len(X), -1)
    structure = model._state.structures[0]
    ours = structure.leaves(asked.astype(np.float32))[:, np.argsort(structure.order)]
    for a, b in zip(theirs.T, ours.T, strict=True):
        pairs = set(zip(a.tolist(), b.tolist(), strict=True))
        assert len(pairs) == len(np.unique(a)) == len(np.unique(b))
    raw = structure.booster().predict(xgboost.DMatrix(asked), output_margin=True)
    assert np.allclose(raw, plain.predict(asked, raw_score=True), atol=1e-5)
    before = model.structure_digest_
    model.delete([1, 2])
    assert model.structure_digest_ == before
    assert type(model.release()).__module__.startswith("xgboost")


def node(t, missing="NaN"):
    return {"decision_type": "<=", "missing_type": missing, "threshold": t, "default_left": True}


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e30, 1e30), st.integers(-3, 3))
@example(1.0, 0)
@example(0.1, 0)
def test_a_cut_sends_each_float32_where_lightgbm_sends_it(t, steps):
    x = np.float32(t)
    for _ in range(abs(steps)):
        x = np.nextafter(x, np.float32(np.sign(steps) * np.inf))
    if 0.0 < abs(float(x)) < 2.0**-126:
        return  # XGBoost's text of such numbers is its own affair
    cut, _ = _split(node(t))
    assert (x < np.float32(cut)) == (float(x) <= t)


@pytest.mark.parametrize("t", [0.1, 1.0])
def test_a_cut_that_is_only_rounded_is_caught(t):
    x = np.float32(t)  # of 0.1 it is above t, of 1.0 it is t: the first belongs to the right, the second to the left
    left = float(x) <= t
    assert (x < np.float32(_split(node(t))[0])) == left
    naive = {0.1: np.nextafter(x, np.float32(np.inf)), 1.0: x}[t]  # one step too far, and none
    assert (x < naive) != left


def test_structures_of_lightgbm_that_cannot_be_had_are_refused():
    lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")
    X, z, _ = ties(0)
    y = (z > 0.5).astype(int)
    quiet = {"n_estimators": 3, "num_leaves": 5, "verbose": -1, "n_jobs": 1}
    with pytest.raises(InvalidInput, match="not fitted"):
        GradientBoostingClassifier.from_booster(lightgbm.LGBMClassifier(), X, y)
    with pytest.raises(InvalidInput, match="'binary'"):
        GradientBoostingClassifier.from_booster(lightgbm.LGBMRegressor(**quiet).fit(X, z), X, y)
    forest = lightgbm.LGBMClassifier(boosting_type="rf", subsample=0.5, subsample_freq=1, **quiet).fit(X, y)
    with pytest.raises(InvalidInput, match="random forest"):
        GradientBoostingClassifier.from_booster(forest, X, y)
    codes = X.copy()
    codes[:, 0] += 2
    sets = lightgbm.LGBMClassifier(**quiet, min_child_samples=2, max_cat_to_onehot=1).fit(
        codes, (codes[:, 0] % 2 > 0).astype(int), categorical_feature=[0]
    )
    with pytest.raises(InvalidInput, match="sets of categories"):
        GradientBoostingClassifier.from_booster(sets, codes, y)
    linear = lightgbm.LGBMClassifier(linear_tree=True, **quiet).fit(X, y)
    with pytest.raises(InvalidInput, match="linear leaves"):
        GradientBoostingClassifier.from_booster(linear, X, y)
    dumped = pickle.dumps(GradientBoostingClassifier.from_booster(lightgbm.LGBMClassifier(**quiet).fit(X, y), X, y))
    assert b"lightgbm" not in dumped.lower()


def test_the_declared_rows_of_a_lightgbm_model_grow_trees_anew_when_they_go():
    lightgbm = pytest.importorskip("lightgbm", reason="needs lightgbm")
    X, z, _ = ties(0)
    y, ids = (z > 0.5).astype(int), np.arange(len(X))
    plain = lightgbm.LGBMClassifier(n_estimators=3, num_leaves=5, verbose=-1, n_jobs=1).fit(X[:100], y[:100])
    model = GradientBoostingClassifier.from_booster(
        plain.booster_, X, y, ids=ids, structure_ids=ids[:100], n_estimators=3
    )
    before = model.structure_digest_
    model.delete([300])
    assert model.structure_digest_ == before
    model.delete([5])
    assert model.structure_digest_ != before
    assert len(json.loads(model.release().get_booster().save_raw("json"))["learner"]) > 0
    with pytest.raises(InvalidRequest):
        model.delete([5])


def test_declared_subjects_may_repeat_and_unknown_ones_are_told_by_their_parameter():
    X, z, _ = ties(0)
    y, ids = (z > 0.5).astype(int), np.arange(len(X)) // 2
    plain = xgboost.XGBClassifier(n_estimators=3, max_depth=2).fit(X[:100], y[:100])
    model = GradientBoostingClassifier.from_booster(plain, X, y, ids=ids, structure_ids=ids[:100])
    assert np.flatnonzero(model.in_structure_).tolist() == list(range(100))
    with pytest.raises(UnknownIds, match=r"from_booster\(structure_ids=...\) got 1 ids that this model does not hold"):
        GradientBoostingClassifier.from_booster(plain, X, y, ids=ids, structure_ids=[0, 99999])
