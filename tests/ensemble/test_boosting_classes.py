"""Boosted trees for more than two classes, structures from elsewhere, categories, constraints."""

import json

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from certified._convex.losses import Softmax  # noqa: E402
from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402
from certified.ensemble._boosting import kernels  # noqa: E402
from certified.ensemble._boosting import leaf_metric as metric  # noqa: E402
from certified.ensemble._boosting import leaf_solver as head  # noqa: E402
from certified.errors import InvalidInput, InvalidRequest  # noqa: E402
from certified.testing import check_delete_equals_refit  # noqa: E402

SMALL = {"key": 0, "n_estimators": 4, "max_depth": 2, "sample_size": 40, "leaf_penalty": 2.0}


def data(seed=0, n=240, classes=3):
    """Three features, classes, weights, subjects with two rows."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 3)), 1)
    z = np.column_stack([X[:, 0], X[:, 1] * X[:, 2], 0.5 * X[:, 2], X[:, 1]])[:, :classes]
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
    y[:20] = np.arange(20) % classes
    return X, y, rng.uniform(0.5, 2.0, n), np.arange(n) // 2


def indicators(model, X):
    """Dense X_i, shape (n, K, n_leaves), from the leaf numbers that XGBoost itself gives."""
    part, K = model._state.structures[0], len(model.classes_)
    nodes = part.booster().predict(xgboost.DMatrix(X.astype(np.float32)), pred_leaf=True).astype(int)
    Z = np.zeros((len(X), K, model.n_leaves_))
    for place, tree in enumerate(part.order):
        Z[np.arange(len(X)), tree % K, part.index[place, nodes[:, tree]]] = 1.0
    return Z


def minimiser(model, X, y, s):
    """Leaf values by dense Newton steps, written anew."""
    Z, K = indicators(model, X), len(model.classes_)
    s = s * np.where(model.in_structure_[model._rows.s > 0], model.structure_weight, 1.0)
    v = np.zeros(model.n_leaves_)
    for _ in range(60):
        z = Z @ v
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        gradient = np.einsum("ikd,ik->d", Z, s[:, None] * (p - np.eye(K)[y])) + model.leaf_penalty * v
        bend = s[:, None, None] * (p[:, :, None] * np.eye(K) - p[:, :, None] * p[:, None, :])
        hessian = np.einsum("ikd,ikl,ile->de", Z, bend, Z) + model.leaf_penalty * np.eye(len(v))
        v = v - np.linalg.solve(hessian, gradient)
    assert np.linalg.norm(gradient) < 1e-9 * len(y), "the oracle has not converged"
    return v


def distances(model, X, y, s, ids):
    """True and certified distance."""
    retained = np.isin(ids, model.ids_)
    gap = model.private_coef_ - minimiser(model, X[retained], y[retained], s[retained])
    return np.sqrt(gap @ model.noise_metric_ @ gap), model.certificate_.distance_bound


@pytest.mark.parametrize("classes", [3, 4])
def test_the_certificate_of_several_classes_covers_the_distance_to_an_independent_minimiser(classes):
    X, y, s, ids = data(classes, classes=classes)
    model = GradientBoostingClassifier(**SMALL, tol=1e-2, noise=10.0).fit(X, y, ids=ids, sample_weight=s)
    outside = np.unique(ids[model._sample < 0])
    methods = set()
    for request in (outside[:1], outside[1:4], np.unique(ids[model._sample >= 0])[:1], outside[4:12]):
        methods.add(model.delete(request).method)
        true, certified = distances(model, X, y, s, ids)
        assert true <= certified + 1e-11
    assert "predicted" in methods


def test_structure_and_metric_of_several_classes_are_those_of_a_refit_in_any_row_order():
    X, y, s, ids = data(1)
    model = GradientBoostingClassifier(**SMALL).fit(X, y, ids=ids, sample_weight=s)
    gone = np.concatenate([ids[model._sample >= 0][:3], ids[model._sample < 0][-5:]])
    model.delete(np.unique(gone))
    order = np.random.default_rng(0).permutation(np.flatnonzero(~np.isin(ids, gone)))
    refit = GradientBoostingClassifier(**SMALL).fit(X[order], y[order], ids=ids[order], sample_weight=s[order])
    assert model.structure_digest_ == refit.structure_digest_
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)


def test_a_wrong_reach_of_several_classes_is_caught(monkeypatch):
    """Where the spread of the predictors is said to move less than it does, some certificate is below the distance."""
    X, y, s, ids = data(5)
    true_reach = metric.tree_reach
    monkeypatch.setattr(head, "tree_reach", lambda problem, p: 1e-6 * true_reach(problem, p))
    model = GradientBoostingClassifier(**{**SMALL, "leaf_penalty": 0.05}, tol=1e-8, noise=10.0)
    model.fit(X, y, ids=ids, sample_weight=s)
    model.delete(np.unique(ids[model._sample < 0])[:20])
    true, certified = distances(model, X, y, s, ids)
    assert true > certified


class NoOpOnLeaves(GradientBoostingClassifier):
    """Leaves the leaf values alone."""

    def _planned(self, rows, state, moved):
        return super()._planned(rows, self._state, moved)


def test_a_mutant_that_keeps_the_leaf_values_is_caught():
    with pytest.raises((AssertionError, ValueError), match=r"refit|metric|shapes"):
        check_delete_equals_refit(NoOpOnLeaves(**SMALL))


def test_sums_and_bounds_of_several_classes_agree_with_dense_ones():
    rng = np.random.default_rng(0)
    K, T, sizes, n = 3, 3, 4, 200
    d = K * T * sizes
    leaves = (rng.integers(0, sizes, (n, K * T)) + sizes * np.arange(K * T)).astype(np.int16)
    Z = np.zeros((n, K, d))
    for t in range(K * T):
        Z[np.arange(n), t // T, leaves[:, t]] = 1.0
    problem = metric.LeafProblem(
        Softmax(K), np.ones(d), np.zeros(d), np.repeat(np.arange(K * T), sizes), np.full(d, float(n))
    )
    rows = metric.LeafRows(leaves, rng.integers(0, K, n).astype(float), rng.random(n), np.zeros(n))
    v = rng.normal(size=d)
    assert np.allclose(metric.scores(problem, rows, v), Z @ v)
    moved = Z @ v
    assert np.max(moved.max(axis=1) - moved.min(axis=1)) <= metric.tree_reach(problem, v)
    a = metric.metric_weights(K, rows.s, kernels.reference_shares(0.1 * moved))
    full = a[:, :, None] * np.eye(K) * a.sum(axis=1)[:, None, None] - a[:, :, None] * a[:, None, :]
    release = metric.LeafNoiseMetric.of(problem, rows, a)
    assert np.array_equal(release.gram, np.einsum("ikd,ikl,ile->de", Z, full, Z))
    release.subtracting(leaves[:7], a[:7])()
    assert np.array_equal(release.gram, np.einsum("ikd,ikl,ile->de", Z[7:], full[7:], Z[7:]))
    B = rng.normal(size=(d, d))
    matrix = B @ B.T
    found = kernels.block_maxima(matrix, problem.tree_of, K * T, K)
    for k in range(K):
        for m in range(K):
            sign = 1.0 if k == m else -1.0
            assert np.max(sign * np.einsum("id,de,ie->i", Z[:, k], matrix, Z[:, m])) <= found[k, m] * (1 + 1e-12)


def test_the_release_of_several_classes_is_an_xgboost_model_without_statistics():
    X, y, s, ids = data(2)
    names = np.array(["a", "b", "c"])[y]
    model = GradientBoostingClassifier(**SMALL).fit(X, names, ids=ids, sample_weight=s)
    released = model.release(bare=True)
    assert np.allclose(released.predict_proba(X), model.predict_proba(X), atol=1e-6)
    assert np.allclose(model.decision_function(X), indicators(model, X) @ model.coef_, atol=1e-5)
    assert set(model.predict(X)) <= {"a", "b", "c"}
    text = json.loads(released.get_booster().save_raw("json"))
    private = set(np.float32(model.private_coef_).tolist()) - {0.0}
    for tree in text["learner"]["gradient_booster"]["model"]["trees"]:
        for name in ("sum_hessian", "base_weights"):
            assert not np.any(tree[name])
        assert not private & set(np.float32(tree["split_conditions"]).tolist())


def test_a_structure_from_public_data_is_never_grown_anew():
    X, y, _, ids = data(3)
    public = xgboost.XGBClassifier(n_estimators=3, max_depth=2, n_jobs=1).fit(X[:80], y[:80])
    model = GradientBoostingClassifier(structure=public, leaf_penalty=2.0).fit(X[80:], y[80:], ids=ids[80:])
    before = model.structure_digest_
    assert model.deletion_cost().parts == 0.0
    model.delete(ids[90:100:2])
    assert model.structure_digest_ == before
    true, certified = distances(model, X[80:], y[80:], np.ones(160), ids[80:])
    assert true <= certified + 1e-11
    with pytest.raises(InvalidInput, match="of 3 features"):
        GradientBoostingClassifier(structure=public).fit(X[80:, :2], y[80:])
    numbers = xgboost.XGBRegressor(n_estimators=3, max_depth=2, n_jobs=1).fit(X[:80], X[:80, 0])
    assert GradientBoostingRegressor(structure=numbers).fit(X[80:], X[80:, 0]).n_leaves_ > 3
    with pytest.raises(InvalidInput, match=r"xgboost\.Booster"):
        GradientBoostingClassifier(structure="public").fit(X, y)


def test_codes_of_categories_split_as_xgboost_splits_them():
    rng = np.random.default_rng(0)
    n = 400
    X = np.column_stack([rng.integers(0, 9, n), rng.normal(size=n)]).astype(float)
    X[::17, 0] = np.nan
    y = (np.isin(X[:, 0], [1, 4, 6]) ^ (rng.random(n) < 0.1)).astype(int)
    model = GradientBoostingClassifier(
        n_estimators=4, max_depth=2, sample_size=150, leaf_penalty=1.0, categorical_features=[0]
    ).fit(X, y)
    trees = json.loads(model.release().get_booster().save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    assert any(tree["categories"] for tree in trees)
    assert model.score(X, y) > 0.85
    assert np.allclose(model.release().predict_proba(X), model.predict_proba(X), atol=1e-7)
    model.delete([0, 1, 2])
    assert model.n_rows_ == n - 3


def test_interaction_constraints_hold_for_the_released_model():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    y = (X[:, 0] * X[:, 1] + X[:, 2] > 0).astype(int)
    model = GradientBoostingClassifier(
        n_estimators=6, sample_size=200, interaction_constraints=[[0], [1, 2]], noise=0
    ).fit(X, y)
    trees = json.loads(model.release().get_booster().save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"]
    for tree in trees:
        used = {f for f, left in zip(tree["split_indices"], tree["left_children"], strict=True) if left != -1}
        assert used <= {0} or used <= {1, 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"categorical_features": [False, True]}, "3 features"),
        ({"categorical_features": "from_dtype"}, "categorical_features"),
        ({"categorical_features": [0]}, "no codes"),
        ({"structure_groups": 2}, "structure_groups"),
        ({"objective": "binary:logistic"}, "3 classes"),
        ({"structure": "public"}, "structure"),
    ],
)
def test_what_several_classes_and_categories_refuse(changed, message):
    X, y, _, ids = data()
    with pytest.raises(InvalidInput, match=message):
        GradientBoostingClassifier(**{**SMALL, **changed}).fit(X, y, ids=ids)


def test_a_structure_of_other_features_or_rounds_is_refused():
    X, y, _, ids = data()
    narrow = xgboost.XGBClassifier(n_estimators=2).fit(X[:, :2], y)
    several = xgboost.XGBClassifier(n_estimators=2, num_parallel_tree=2).fit(X, y)
    two = xgboost.XGBClassifier(n_estimators=2).fit(X, y > 0)
    for booster, message in (
        (narrow, "2 features"),
        (several, "num_parallel_tree"),
        (two, "binary:logistic"),
        (xgboost.XGBClassifier(), "get_booster"),
    ):
        with pytest.raises(InvalidInput, match=message):
            GradientBoostingClassifier(structure=booster).fit(X, y, ids=ids)


@pytest.mark.parametrize("labels", [(0, 1), (1, 2), ("bad", "good"), ("a", "b", "c")], ids=str)
def test_the_weight_of_a_class_is_that_of_its_rows(labels):
    rng = np.random.default_rng(5)
    X = rng.normal(size=(300, 3))
    codes = np.digitize(X[:, 0] + rng.normal(size=300), [0.0] if len(labels) == 2 else [-0.7, 0.7])
    y, given = np.array(labels)[codes], dict(zip(labels, (1.0, 6.0, 2.5), strict=False))
    small = {"n_estimators": 4, "max_depth": 2, "sample_size": 150, "key": 0}
    weights = np.array([given[label] for label in y.tolist()])
    by_class = GradientBoostingClassifier(**small, class_weight=given).fit(X[:280], y[:280])
    by_row = GradientBoostingClassifier(**small).fit(X[:280], y[:280], sample_weight=weights[:280])
    outside = np.flatnonzero(~by_class.in_structure_)[:5]
    inside = np.flatnonzero(by_class.in_structure_)[:1]
    for model, more in ((by_class, {}), (by_row, {"sample_weight": weights[280:]})):
        model.delete(outside)
        model.delete(inside)
        model.add(X[280:], y[280:], ids=np.arange(280, 300), **more)
        model.refine()
    assert by_class.structure_digest_ == by_row.structure_digest_
    assert np.array_equal(by_class.private_coef_, by_row.private_coef_)


def test_balanced_classes_are_those_of_the_sample_and_others_are_refused():
    rng = np.random.default_rng(6)
    X = rng.normal(size=(400, 3))
    y = np.where(X[:, 0] + rng.normal(size=400) > 1.5, "rare", "common")
    small = {"n_estimators": 4, "max_depth": 2, "sample_size": 200, "key": 0}
    model = GradientBoostingClassifier(**small, class_weight="balanced").fit(X, y)
    counts = np.array([np.sum(y[model.in_structure_] == label) for label in model.classes_])
    same = dict(zip(model.classes_.tolist(), 200 / (2 * counts), strict=True))
    other = GradientBoostingClassifier(**small, class_weight=same).fit(X, y)
    assert np.array_equal(model.private_coef_, other.private_coef_)
    assert np.mean(model.predict(X) == "rare") > 2 * np.mean(y == "rare")
    for given in ({"rare": 0.0}, {"unknown": 2.0}, "equal", {"rare": np.inf}):
        with pytest.raises(InvalidInput, match=r"class_weight=.*\['common', 'rare'\].*Nothing was changed"):
            GradientBoostingClassifier(**small, class_weight=given).fit(X, y)
    other = GradientBoostingClassifier(**{**small, "structure": other.release(bare=True)}, class_weight="balanced")
    with pytest.raises(InvalidInput, match="balanced"):
        other.fit(X, y)
    with pytest.raises(InvalidInput, match=r"numbers have no classes"):
        GradientBoostingRegressor(**small, class_weight={0: 2.0}).fit(X, X[:, 0])


@pytest.mark.parametrize("structure", ["sample", "random"])
@pytest.mark.parametrize("classes", [3, 4])
def test_the_only_person_of_a_class_takes_it_along(structure, classes):
    X, codes, s, ids = data(3)
    y = np.array(["a", "b", "c"])[codes].astype(object)
    y[[0, 1]], y[[2, 3]] = "rare", "rare"  # subjects 0 and 1
    if classes == 3:
        y[y == "c"] = "a"
    small = {
        **SMALL,
        "key": 3,
        "structure": structure,
        "feature_ranges": (-3.0, 3.0) if structure == "random" else None,
    }
    model = GradientBoostingClassifier(**small).fit(X, y, ids=ids, sample_weight=s)
    model.delete([0])
    assert "rare" in model.classes_
    receipt = model.delete([1, 5])
    assert "rare" not in model.classes_
    assert receipt.certificate.mu <= receipt.certificate.mu_target
    retained = np.isin(ids, model.ids_)
    refit = GradientBoostingClassifier(**small).fit(
        X[retained], y[retained], ids=ids[retained], sample_weight=s[retained]
    )
    assert model.structure_digest_ == refit.structure_digest_
    assert np.array_equal(model.classes_, refit.classes_)
    assert np.allclose(model.private_coef_, refit.private_coef_, atol=1e-3)
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)
    assert np.array_equal(model.release().classes_, refit.classes_)
    assert not np.any(model._X[~np.isin(ids, model.ids_)])
    model.delete([7])
    model.add(X[14:16], y[14:16], ids=ids[14:16], sample_weight=s[14:16])
    assert model.structure_digest_ == refit.structure_digest_


def test_a_class_that_a_refit_could_not_leave_out_is_refused():
    X, y, s, _ = data(4)
    for labels, structure in ((np.minimum(y, 1), "sample"), (y, None)):
        if structure is None:
            inner = xgboost.XGBClassifier(n_estimators=2, max_depth=2).fit(X, labels)
            structure = inner.get_booster()
        model = GradientBoostingClassifier(**{**SMALL, "structure": structure}).fit(X, labels)
        before = model.structure_digest_
        with pytest.raises(InvalidRequest, match=r"class 1.*Nothing was changed"):
            model.delete(np.flatnonzero(labels == 1))
        assert model.structure_digest_ == before
    s[y == 2] = 0.0
    s[np.flatnonzero(y == 2)[0]] = 1.0
    model = GradientBoostingClassifier(**SMALL).fit(X, y, sample_weight=s)
    with pytest.raises(InvalidRequest, match="class 2"):  # rows of weight 0 stay, and a refit refuses them
        model.delete([np.flatnonzero(y == 2)[0]])
