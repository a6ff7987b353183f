"""Boosted trees: structure bit for bit a refit's, leaf values within the certificate, releases without statistics."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from certified._convex.losses import Logistic  # noqa: E402
from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402
from certified.ensemble._boosting import building, kernels  # noqa: E402
from certified.ensemble._boosting import leaf_metric as metric  # noqa: E402
from certified.ensemble._boosting.objective import Given  # noqa: E402
from certified.errors import CannotCertify, InvalidInput, InvalidRequest  # noqa: E402
from certified.pipeline import make_pipeline  # noqa: E402
from certified.preprocessing import RobustScaler  # noqa: E402
from certified.testing import check_delete_equals_refit, yield_deletion_checks  # noqa: E402

SMALL = {"key": 0, "n_estimators": 5, "max_depth": 2, "sample_size": 40}
ESTIMATORS = {
    "classifier, two groups": GradientBoostingClassifier(**{**SMALL, "sample_size": 15}, structure_groups=2),
    "regressor": GradientBoostingRegressor(**SMALL),
}
CHECKS = [
    pytest.param(check, id=f"{name}: {title}")
    for name, estimator in ESTIMATORS.items()
    for title, check in yield_deletion_checks(estimator)
]
OBJECTIVES = ["binary:logistic", "reg:squarederror", "count:poisson", "reg:gamma", "reg:tweedie"]


@pytest.mark.parametrize("check", CHECKS)
def test_boosted_trees_pass_the_public_check(check):
    check()


@parametrize_with_checks(
    [
        GradientBoostingClassifier(n_estimators=3, noise=0),
        GradientBoostingRegressor(n_estimators=10, leaf_penalty=1.0, noise=0),
    ]
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)


def data(seed=0, n=160, repeats=2, missing=0.1):
    """Features with ties and missing values, classes, weights, subjects with several rows."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 3)), 1)
    X[rng.random((n, 3)) < missing] = np.nan
    z = np.nan_to_num(X[:, 0]) + np.nan_to_num(X[:, 1] * X[:, 2])
    y = (z + rng.logistic(size=n) > 0).astype(float)
    y[:20] = np.arange(20) % 2
    return X, y, rng.uniform(0.5, 2.0, n), 100 + np.arange(n) // repeats


def make(objective="binary:logistic", **changed):
    parameters = {**SMALL, "sample_size": 30, "leaf_penalty": 2.0, **changed}
    if objective == "binary:logistic":
        return GradientBoostingClassifier(**parameters)
    return GradientBoostingRegressor(objective=objective, **parameters)


def target(objective, X, y):
    """A target that the objective allows."""
    z = np.nan_to_num(X[:, 0])
    return {
        "binary:logistic": y,
        "reg:squarederror": 50.0 + 20.0 * y + 7.0 * z,
        "count:poisson": np.floor(y * 3.0 + np.abs(z)),
        "reg:gamma": 0.2 + y + np.abs(z),
        "reg:tweedie": y * (1.0 + np.abs(z)),
    }[objective]


def derivatives_of(objective, y, z):
    """l' and l'' written anew, for the oracle."""
    if objective == "binary:logistic":
        p = 1.0 / (1.0 + np.exp(-z))
        return p - y, p * (1.0 - p)
    if objective == "reg:squarederror":
        return z - y, np.ones_like(z)
    if objective == "count:poisson":
        return np.exp(z) - y, np.exp(z)
    if objective == "reg:gamma":
        return 1.0 - y * np.exp(-z), y * np.exp(-z)
    up, down = np.exp(0.5 * z), y * np.exp(-0.5 * z)
    return up - down, 0.5 * up + 0.5 * down


def true_leaf_values(model, objective, X, y, s):
    """Minimiser on these rows by dense Newton steps, on indicators from the structure's own leaf numbers."""
    part = model._state.structures[0]
    nodes = (
        part.booster().predict(xgboost.DMatrix(X.astype(np.float32)), pred_leaf=True).astype(int).reshape(len(X), -1)
    )
    Z = np.zeros((len(X), model.n_leaves_))
    for t in range(nodes.shape[1]):
        Z[np.arange(len(X)), part.index[t, nodes[:, t]]] = 1.0
    scale = 1.0
    if objective == "reg:squarederror":
        scale = model.leaf_penalty / model._state.problem.penalty[0]
    s = s * np.where(model.in_structure_[model._rows.s > 0], model.structure_weight, 1.0)
    v, base = np.zeros(model.n_leaves_), model.intercept_[0]
    for _ in range(60):
        slope, bend = derivatives_of(objective, y, base + Z @ v)
        gradient = Z.T @ (s * slope) + model.leaf_penalty * v
        hessian = (Z * (s * bend)[:, None]).T @ Z + model.leaf_penalty * np.eye(len(v))
        v = v - np.linalg.solve(hessian, gradient)
    assert np.linalg.norm(gradient) < 1e-8 * (1.0 + np.linalg.norm(s * y)), "the oracle has not converged"
    return v, scale


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_certificate_covers_the_distance_to_an_independent_minimiser(objective):
    for seed in range(2):
        X, y, s, ids = data(seed)
        y = target(objective, X, y)
        model = make(objective, tol=1e-2, noise=2.0).fit(X, y, ids=ids, sample_weight=s)
        outside = np.unique(ids[model._sample < 0])
        methods = set()
        for request in (outside[:1], outside[1:3], np.unique(ids[model._sample >= 0])[:1], outside[3:9]):
            methods.add(model.delete(request).method)
            retained = np.isin(ids, model.ids_)
            true, _ = true_leaf_values(model, objective, X[retained], y[retained], s[retained])
            gap = model.private_coef_ - true
            distance = np.sqrt(gap @ model.noise_metric_ @ gap)
            assert distance <= model.certificate_.distance_bound + 1e-11
        assert "predicted" in methods


@settings(max_examples=5)
@given(seed=st.integers(0, 1000), order=st.randoms(use_true_random=False), share=st.floats(0.02, 0.3))
def test_structure_and_metric_are_those_of_a_refit_in_any_row_order(seed, order, share):
    X, y, s, ids = data(seed, n=120, repeats=1 + seed % 3)
    changed = {"sample_size": 20, "structure_groups": 1 + seed % 2, "subsample": 0.8, "colsample_bytree": 0.7}
    model = make(**changed).fit(X, y, ids=ids, sample_weight=s)
    wanted = order.sample(np.unique(ids[20:]).tolist(), max(1, int(share * len(np.unique(ids)))))
    for start in range(0, len(wanted), 8):
        model.delete(wanted[start : start + 8])
    shuffled = order.sample(range(len(ids)), len(ids))
    retained = np.array([i for i in shuffled if ids[i] not in wanted])
    refit = make(**changed)
    refit.fit(X[retained], y[retained], ids=ids[retained], sample_weight=s[retained])
    assert model.structure_digest_ == refit.structure_digest_
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)
    gap = model.private_coef_ - refit.private_coef_
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed


def test_a_deletion_outside_the_sample_makes_no_pass_and_keeps_the_structure():
    X, y, _, ids = data(3, n=800, repeats=1)
    model = GradientBoostingClassifier(n_estimators=8, sample_size=60).fit(X, y, ids=ids)
    before = model.structure_digest_
    receipt = model.delete(ids[model._sample < 0][-1])
    assert (receipt.method, receipt.passes) == ("predicted", 0)
    assert model.structure_digest_ == before
    assert model.delete(ids[model._sample >= 0][-1]).passes > 0
    assert model.structure_digest_ != before


def test_the_structure_is_what_xgboost_grows_on_the_sample():
    X, y, s, ids = data(1, repeats=1)
    model = make().fit(X, y, ids=ids, sample_weight=s)
    chosen = np.flatnonzero(model._sample == 0)
    chosen = chosen[np.argsort(model._hashes[chosen])]
    plain = xgboost.train(
        {
            **model._xgboost_parameters(),
            "objective": "binary:logistic",
            "base_score": float(1 / (1 + np.exp(-model.intercept_[0]))),
            "nthread": 1,
        },
        xgboost.DMatrix(X[chosen].astype(np.float32), label=y[chosen], weight=s[chosen]),
        model.n_estimators,
    )
    assert len(chosen) == 30
    ours = model._state.structures[0].booster()
    matrix = xgboost.DMatrix(X[chosen].astype(np.float32))
    assert np.array_equal(ours.predict(matrix), plain.predict(matrix))


def gains(tree):
    """What the leaf values in the file say of each split."""

    def leaves(node):
        left, right = tree["left_children"][node], tree["right_children"][node]
        return [tree["split_conditions"][node]] if left == -1 else leaves(left) + leaves(right)

    sides = zip(tree["left_children"], tree["right_children"], strict=True)
    return [0.0 if left == -1 else (np.mean(leaves(left)) - np.mean(leaves(right))) ** 2 for left, right in sides]


def check_scrubbed(model, released):
    """No un-noised leaf value and no statistic of the rows in the file, at any node."""
    text = json.loads(released.get_booster().save_raw("json"))
    trees = text["learner"]["gradient_booster"]["model"]["trees"]
    private = set(np.float32(model.private_coef_).tolist())
    private |= {v for part in model._state.structures for v in np.float32(part.values).tolist()} - {0.0}
    for tree in trees:
        for name in ("sum_hessian", "base_weights"):
            assert not np.any(tree[name]), f"{name} holds statistics of the rows"
        assert tree["loss_changes"] == pytest.approx(gains(tree), rel=1e-3, abs=1e-9), (
            "loss_changes holds statistics of the rows"
        )
        leaf = np.array(tree["left_children"]) == -1
        values = np.float32(tree["split_conditions"])[leaf].tolist()
        assert not private & set(values), "an un-noised leaf value is in the file"


def test_the_released_file_holds_no_statistic_and_predicts_as_we_do():
    X, y, s, ids = data(2)
    model = make(structure_groups=2, sample_size=15).fit(X, y, ids=ids, sample_weight=s)
    model.delete(ids[30])
    released = model.release(bare=True)
    check_scrubbed(model, released)
    assert np.allclose(released.predict_proba(X), model.predict_proba(X), rtol=0, atol=1e-7)
    retained = model._rows.s > 0
    ours = model.intercept_[0] + model.coef_[model._rows.leaves[retained]].sum(axis=1)
    assert np.allclose(released.predict(X[retained], output_margin=True), ours, rtol=1e-5, atol=1e-5)


def test_an_unscrubbed_file_is_caught(monkeypatch):
    X, y, s, ids = data(2)
    model = make().fit(X, y, ids=ids, sample_weight=s)
    plain = xgboost.XGBClassifier()
    plain.load_model(bytearray(json.dumps(model._state.structures[0].model).encode()))
    with pytest.raises(AssertionError, match="statistics of the rows"):
        check_scrubbed(model, plain)
    quiet = make(noise=0).fit(X, y, ids=ids, sample_weight=s)
    with pytest.raises(AssertionError, match="un-noised leaf value"):
        check_scrubbed(quiet, quiet.release(bare=True))


def test_the_released_file_predicts_where_only_xgboost_is_installed(tmp_path):
    X, y, _, ids = data(4, missing=0.2)
    model = make().fit(X, y, ids=ids)
    model.release(bare=True).save_model(tmp_path / "model.json")
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "p.npy", model.predict_proba(X)[:, 1])
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('certified', 'jax', 'numba'), None))\n"
        "import numpy, xgboost\n"
        "booster = xgboost.Booster(model_file=sys.argv[1] + '/model.json')\n"
        "p = booster.predict(xgboost.DMatrix(numpy.load(sys.argv[1] + '/X.npy')))\n"
        "assert numpy.abs(p - numpy.load(sys.argv[1] + '/p.npy')).max() < 1e-6"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


class StaleStructure(GradientBoostingClassifier):
    """Never grows trees anew."""

    def _build(self, X, rows, retained, old, target):
        if old is not None:
            self._sample[:] = -1
            self._given = Given(None, np.zeros(len(retained), dtype=bool))
            sample, leaves = self._sampled(retained), [self._rows.leaves.astype(np.int64)]
            known = {"started": 0.0, "old": old, "fresh": [False]}
            return self._solve(rows, retained, sample, old.base, old.structures, leaves, target, **known)
        return super()._build(X, rows, retained, old, target)


class NoOpOnLeaves(GradientBoostingClassifier):
    """Grows trees anew, but leaves the leaf values alone."""

    def _planned(self, rows, state, moved):
        return super()._planned(rows, self._state, moved)


class ForgottenMetric(GradientBoostingClassifier):
    """Keeps the deleted rows in the metric of the noise."""

    def _erase(self, rows):
        self._state.noise_metric.subtracting(self._rows.leaves[rows], -self._m[rows])()
        super()._erase(rows)


@pytest.mark.parametrize("mutant", [StaleStructure, NoOpOnLeaves, ForgottenMetric])
def test_a_mutant_that_does_not_delete_is_caught(mutant):
    with pytest.raises((AssertionError, ValueError), match=r"refit|metric|shapes"):
        check_delete_equals_refit(mutant(**{**SMALL, "leaf_penalty": 1.0}))


def test_a_wrong_reach_is_caught(monkeypatch):
    """With predictors that are said to move less than they do, some certificate falls below the distance."""
    X, y, _, ids = data(5, n=200, repeats=1)
    true_reach = metric.tree_reach
    monkeypatch.setattr("certified.ensemble._boosting.leaf_solver.tree_reach", lambda p, v: 1e-6 * true_reach(p, v))
    model = make(leaf_penalty=0.05, tol=1e-8, noise=10.0).fit(X, y, ids=ids)
    model.delete(ids[model._sample < 0][:25])
    retained = np.isin(ids, model.ids_)
    true, _ = true_leaf_values(model, "binary:logistic", X[retained], y[retained], np.ones(retained.sum()))
    gap = model.private_coef_ - true
    assert np.sqrt(gap @ model.noise_metric_ @ gap) > model.certificate_.distance_bound


def leaf_problem(rng, n=300, trees=7, most=5):
    """Random leaf indices, with the problem and the dense indicators."""
    sizes = rng.integers(1, most, trees)
    firsts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    leaves = np.stack([first + rng.integers(0, size, n) for first, size in zip(firsts, sizes, strict=True)], axis=1)
    d = int(sizes.sum())
    Z = np.zeros((n, d))
    np.put_along_axis(Z, leaves, 1.0, axis=1)
    problem = metric.LeafProblem(Logistic(), np.ones(d), np.zeros(d), np.repeat(np.arange(trees), sizes), np.ones(d))
    return leaves.astype(np.int16), Z, problem


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_kernels_agree_with_dense_indicators_and_bounds_hold(seed):
    rng = np.random.default_rng(seed)
    leaves, Z, problem = leaf_problem(rng)
    n, d = Z.shape
    v, a, offset = rng.normal(size=d), rng.normal(size=n), rng.normal(size=n)
    assert np.allclose(kernels.predictors(leaves, v, offset), offset + Z @ v, rtol=1e-12, atol=1e-12)
    assert np.allclose(kernels.scatter(leaves, a, d), Z.T @ a, rtol=1e-12, atol=1e-11)
    whole = rng.integers(0, 2**20, n).astype(float)
    assert np.array_equal(kernels.gram(leaves, whole, d), (Z * whole[:, None]).T @ Z)
    assert np.max(np.abs(Z @ v)) <= metric.tree_reach(problem, v)
    B = rng.normal(size=(d, d))
    K = B @ B.T
    bound = kernels.block_maxima(K, problem.tree_of, problem.trees)
    assert np.max(np.einsum("ij,jk,ik->i", Z, K, Z)) <= bound[0, 0] * (1 + 1e-12)


def test_an_existing_booster_gets_leaves_that_forget():
    X, y, s, ids = data(6, repeats=1)
    plain = xgboost.XGBClassifier(n_estimators=6, max_depth=2, n_jobs=1).fit(X[:50], y[:50])
    model = GradientBoostingClassifier.from_booster(plain, X, y, ids=ids, structure_ids=ids[:50], leaf_penalty=2.0)
    nodes = plain.get_booster().predict(xgboost.DMatrix(X), pred_leaf=True)
    assert np.array_equal(model.release().get_booster().predict(xgboost.DMatrix(X), pred_leaf=True), nodes)
    assert model.deletion_cost().parts == 50 / len(X)
    before = model.structure_digest_
    model.delete(ids[60])
    assert model.structure_digest_ == before
    true, _ = true_leaf_values(model, "binary:logistic", *(np.delete(part, 60, axis=0) for part in (X, y, s * 0 + 1)))
    gap = model.private_coef_ - true
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= model.certificate_.distance_bound + 1e-11
    model.delete(ids[10])
    assert model.structure_digest_ != before
    assert np.count_nonzero(model._sample == 0) == 49
    free = GradientBoostingClassifier.from_booster(plain, X, y, ids=ids)
    assert free.deletion_cost().parts == 0.0


def test_foreign_boosters_that_cannot_be_covered_are_refused():
    X, y, _, ids = data(6, repeats=1)
    dart = xgboost.XGBClassifier(n_estimators=3, booster="dart").fit(X, y)
    with pytest.raises(InvalidInput, match="gbtree"):
        GradientBoostingClassifier.from_booster(dart, X, y, ids=ids)
    counts = xgboost.XGBRegressor(n_estimators=3, objective="count:poisson").fit(X, y)
    with pytest.raises(InvalidInput, match="count:poisson"):
        GradientBoostingRegressor.from_booster(counts, X, y, ids=ids)


def test_a_refused_rebuild_changes_nothing(monkeypatch):
    X, y, _, ids = data(7)
    model = make().fit(X, y, ids=ids)
    before = pickle.dumps(model)

    def fail(*args, **kwargs):
        raise CannotCertify("no")

    monkeypatch.setattr(building, "settle", fail)
    with pytest.raises(CannotCertify, match="no"):
        model.delete(ids[model._sample >= 0][:1])
    assert pickle.dumps(model) == before


def test_a_pipeline_forgets_through_its_trees():
    X, y, _, ids = data(10, n=300, repeats=1, missing=0.0)
    steps = RobustScaler(sample_size=25), make(sample_size=25)
    model = make_pipeline(*steps).fit(X, y, ids=ids)
    for request in (ids[200:203], ids[210:260], ids[20:150]):
        model.delete(request)
    retained = np.isin(ids, model.ids_)
    refit = make_pipeline(*(clone(step) for step in steps)).fit(X[retained], y[retained], ids=ids[retained])
    first, second = model._final, refit._final
    assert first.structure_digest_ == second.structure_digest_
    assert np.array_equal(first.noise_metric_, second.noise_metric_)
    gap = first.private_coef_ - second.private_coef_
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ first.noise_metric_ @ gap) <= allowed
    assert np.array_equal(model.release().predict(X), model.predict(X))


def test_refining_forgets_the_rows_removed_since_the_hessian():
    X, y, _, ids = data(8, n=400, repeats=1)
    model = make().fit(X, y, ids=ids)
    model.delete(ids[model._sample < 0][-3:])
    assert len(model._state.anchor.metric.gone.bend) == 3
    certificate = model.refine()
    assert len(model._state.anchor.metric.gone.bend) == 0
    assert certificate.method == "measured"
    assert certificate.distance_bound <= 1e-4


def test_many_deletions_stay_within_the_target_and_a_batch_shares_a_rebuild():
    X, y, _, ids = data(9, n=500, repeats=1)
    model = make().fit(X, y, ids=ids)
    rng = np.random.default_rng(0)
    for i in rng.permutation(ids[(model._sample < 0) & (np.arange(500) > 20)])[:80]:
        if i in model.ids_:
            assert model.delete(i).certificate.epsilon <= 1.0
    inside = ids[model._sample >= 0]
    receipt = model.delete(inside[:10])
    assert receipt.n_rows == 10
    assert receipt.certificate.epsilon <= 1.0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sample_size": 0}, "sample_size"),
        ({"sample_size": 1.5}, "sample_size"),
        ({"leaf_penalty": 0.0}, "leaf_penalty"),
        ({"shrink_to": "mean"}, "shrink_to"),
        ({"structure_weight": 0.0, "sample_size": 1.0}, "structure_weight=0"),
        ({"structure_groups": 9}, "structure_groups"),
    ],
)
def test_what_cannot_be_certified_is_refused(changed, message):
    X, y, _, ids = data()
    with pytest.raises(InvalidInput, match=message):
        make(**changed).fit(X, y, ids=ids)


def test_bad_targets_and_features_are_refused():
    X, y, _, ids = data()
    with pytest.raises(InvalidInput, match="structure_groups=2"):
        make(structure_groups=2).fit(X, np.arange(len(y)) % 3, ids=ids)
    with pytest.raises(InvalidInput, match="numbers > 0"):
        make("reg:gamma").fit(X, y, ids=ids)
    with pytest.raises(InvalidInput, match="float32"):
        make().fit(np.where(np.isnan(X), 1e300, X), y, ids=ids)
    model = make("reg:squarederror").fit(X, y, ids=ids)
    with pytest.raises(InvalidRequest, match="every row"):
        model.delete(model.ids_)


@pytest.mark.slow
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_certificate_is_below_the_true_distance_in_many_random_cases(objective):
    rng = np.random.default_rng(0)
    ratios = []
    for seed in range(10):
        X, y, s, ids = data(100 + seed, n=int(rng.integers(100, 400)), repeats=int(rng.integers(1, 4)))
        y, s = target(objective, X, y), s * 10.0 ** rng.uniform(-1, 1)
        changed = {
            "leaf_penalty": 10.0 ** rng.uniform(-1, 2),
            "structure_weight": float(rng.choice([0.0, 0.5, 1.0])),
            "n_estimators": int(rng.integers(1, 12)),
            "max_depth": int(rng.integers(1, 5)),
            "shrink_to": "zero",
            "tol": 1e-3,
            "noise": float(rng.choice([0.1, 1.0, 10.0])),
        }
        model = make(objective, **changed).fit(X, y, ids=ids, sample_weight=s)
        for request in np.array_split(rng.permutation(np.unique(ids[20:]))[:40], 8):
            method = model.delete(request).method
            retained = np.isin(ids, model.ids_)
            true, _ = true_leaf_values(model, objective, X[retained], y[retained], s[retained])
            gap = model.private_coef_ - true
            distance = np.sqrt(gap @ model.noise_metric_ @ gap)
            assert distance <= model.certificate_.distance_bound + 1e-10
            if distance > 1e-8:
                ratios.append((method, model.certificate_.distance_bound / distance))
    for method in ("measured", "predicted"):
        found = [ratio for name, ratio in ratios if name == method]
        if found:
            print(f"{objective}, {method}: median of certified over true {np.median(found):.3g}, {len(found)} states")


def test_rows_of_weight_0_do_not_touch_the_sums_whatever_their_leaves():
    rng = np.random.default_rng(0)
    n, trees, sizes = 20_000, 8, 6
    leaves = (rng.integers(0, sizes, (n, trees)) + sizes * np.arange(trees)).astype(np.int16)
    weight = np.rint(rng.random(n) * 100) * (rng.random(n) < 0.5)
    leaves[weight == 0] = 0  # a leaf of the first tree, in the columns of all
    Z = np.zeros((n, trees * sizes))
    for t in range(trees):
        Z[np.arange(n), leaves[:, t]] += 1.0
    expected = (Z * weight[:, None]).T @ Z
    for _ in range(20):  # threads that added 0 to rows of others have lost some of their additions
        assert np.array_equal(kernels.gram(leaves, weight, trees * sizes), expected)
