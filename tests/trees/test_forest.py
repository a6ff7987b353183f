"""Forests: after any deletions, in any order and number of threads, bit for bit the forest of a refit."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sklearn import ensemble as plain
from sklearn import tree as plain_tree
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, make_classification
from sklearn.metrics import roc_auc_score

from certified._trees import forest
from certified.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from certified.errors import InvalidInput, InvalidRequest
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import check_delete_equals_refit, yield_deletion_checks
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor

SMALL = {
    "random forest": RandomForestClassifier(4, key=0),
    "random forest, a tenth, lazy": RandomForestClassifier(12, max_samples=0.1, lazy=True, key=0),
    "random forest, entropy, every row": RandomForestClassifier(3, criterion="entropy", bootstrap=False, key=0),
    "regression forest": RandomForestRegressor(4, key=0),
    "extra trees": ExtraTreesClassifier(4, key=0),
    "extra trees, regression": ExtraTreesRegressor(4, max_depth=5, key=0),
    "tree": DecisionTreeClassifier(key=0),
    "regression tree": DecisionTreeRegressor(max_depth=6, min_samples_leaf=3, key=0),
    "scaler, forest": make_pipeline(StandardScaler(), RandomForestClassifier(3, key=0)),
}
CHECKS = [
    pytest.param(check, id=f"{name}: {title}")
    for name, model in SMALL.items()
    for title, check in yield_deletion_checks(model)
]


@pytest.mark.parametrize("check", CHECKS)
def test_forest_passes_the_public_check(check):
    check()


def table(seed, n, kind):
    """Rows with ties, constant columns, missing values, extremes, repeats; classes and targets; many rows a subject."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4)) * [1.0, 1e-3, 1e4, 1.0] + [0.0, 0.0, 2000.0, 0.0]
    if "ties" in kind:
        X = np.round(X)
    if "missing" in kind:
        X[rng.random(X.shape) < 0.2] = np.nan
        X[:, 3] = np.where(rng.random(n) < 0.7, np.nan, X[:, 3])
    if "constant" in kind:
        X[:, 0] = 7.0
    if "extreme" in kind:
        X[rng.integers(n, size=3), 2] = [1e30, -1e30, 1e12]
    if "repeats" in kind:
        X[n // 2 :] = X[: n - n // 2]
    y = rng.integers(0, 3, n)
    y[:6] = [0, 1, 2, 0, 1, 2]
    t = rng.standard_normal((n, 2)) * [1.0, 1e6]
    ids = rng.permutation(np.arange(n) // rng.integers(1, 4))
    ids[:6] = 10_000 + np.arange(6)  # never deleted: no class is lost
    return X, y, t, ids


KINDS = ["", "ties", "missing", "ties missing", "constant", "extreme", "repeats ties", "extreme missing"]


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    large=st.sampled_from([1, 8, 64]),
    which=st.sampled_from(["gini", "entropy", "regression", "random", "two outputs"]),
    weighted=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "max_depth": st.sampled_from([None, 3]),
            "min_samples_leaf": st.integers(1, 4),
            "max_features": st.sampled_from([1, 2, None]),
            "n_thresholds": st.sampled_from([2, 5, 16]),
            "min_impurity_decrease": st.sampled_from([0.0, 0.0, 0.01]),
            "lazy": st.booleans(),
        }
    ),
)
def test_any_sequence_of_requests_ends_at_a_refit(seed, kind, sizes, large, which, weighted, options):
    X, y, t, ids = table(seed, 90, kind)
    rng = np.random.default_rng(seed + 1)
    weight = rng.integers(0, 4, len(y)) * rng.choice([1.0, 0.3]) if weighted else np.ones(len(y))
    weight[:6] = 1.0
    model, target = {
        "gini": (RandomForestClassifier(3, key=0), y),
        "entropy": (RandomForestClassifier(3, criterion="entropy", bootstrap=False, key=0), y),
        "regression": (RandomForestRegressor(3, key=0), t[:, 0]),
        "two outputs": (ExtraTreesRegressor(3, key=0), t),
        "random": (ExtraTreesClassifier(3, bootstrap=True, max_samples=0.4, key=0), y),
    }[which]
    if which == "two outputs":
        options["min_impurity_decrease"] = 0.0
    model = model.set_params(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "_LARGE", large)  # counts are kept in nodes of any size, or in none
        patch.setattr(forest, "_SHARE", 10**9)
        live = clone(model).fit(X, target, ids=ids, sample_weight=weight)
        pool = rng.permutation(np.unique(ids[6:]))
        for request in np.split(pool, np.cumsum(sizes)):
            if request.size and request.size < pool.size:
                live.delete(request)
                if rng.random() < 0.3:
                    live.predict(X[:2])  # a query in between grows what waits
    retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
    again = (
        clone(model)
        .set_params(lazy=False, n_jobs=2)
        .fit(X[retained], target[retained], ids=ids[retained], sample_weight=weight[retained])
    )
    assert live.state_digest_ == again.state_digest_
    assert np.array_equal(live.predict(X[:20]), again.predict(X[:20]))


class Requests(RuleBasedStateMachine):
    """One forest through interleaved single and bulk deletions, queries, pickling and refused requests."""

    @initialize(
        seed=st.integers(0, 2**32 - 1),
        kind=st.sampled_from(KINDS),
        lazy=st.booleans(),
        share=st.sampled_from([None, 0.3]),
    )
    def start(self, seed, kind, lazy, share):
        self.X, self.y, _, self.ids = table(seed, 150, kind)
        self.model = RandomForestClassifier(4, lazy=lazy, max_samples=share, min_samples_leaf=2, key=0)
        self.live = clone(self.model).fit(self.X, self.y, ids=self.ids)
        self.rng = np.random.default_rng(seed)

    def _free(self):
        return [i for i in self.live.ids_.tolist() if i < 10_000]

    @precondition(lambda self: len(self._free()) > 0)
    @rule()
    def one(self):
        self.live.delete([int(self.rng.choice(self._free()))])

    @precondition(lambda self: len(self._free()) > 0)
    @rule(share=st.floats(0.05, 0.9))
    def many(self, share):
        free = self._free()
        self.live.delete(self.rng.choice(free, max(1, int(share * len(free))), replace=False))

    @rule()
    def ask(self):
        self.live.predict_proba(self.X[:5])

    @rule()
    def store(self):
        self.live = pickle.loads(pickle.dumps(self.live))

    @rule()
    def refused(self):
        others = np.unique(self.ids[self.y != self.live.classes_[0]])
        with pytest.raises(InvalidRequest, match=r"class|every row"):
            self.live.delete(np.intersect1d(others, self.live.ids_))

    @invariant()
    def equals_a_refit(self):
        retained = self.rng.permutation(np.flatnonzero(np.isin(self.ids, self.live.ids_)))
        again = clone(self.model).fit(self.X[retained], self.y[retained], ids=self.ids[retained])
        assert self.live.state_digest_ == again.state_digest_


Requests.TestCase.settings = settings(max_examples=12, stateful_step_count=8, deadline=None)
TestRequests = Requests.TestCase


@pytest.mark.slow
@pytest.mark.parametrize("depth", [10, None])
def test_a_forest_of_realistic_size_is_that_of_a_refit(depth):
    X, y = make_classification(30_000, 20, n_informative=10, flip_y=0.05, random_state=0)
    ids = np.arange(len(y))
    model = RandomForestClassifier(20, max_depth=depth, n_jobs=2, key=0)
    live = clone(model).fit(X, y, ids=ids)
    rng = np.random.default_rng(0)
    order = rng.permutation(ids)
    for subject in order[:150]:
        live.delete([subject])
    live.delete(order[150:600])
    live.delete(order[600:9_000])
    retained = rng.permutation(order[9_000:])
    assert (
        live.state_digest_
        == clone(model).set_params(n_jobs=1).fit(X[retained], y[retained], ids=retained).state_digest_
    )


def test_deletion_goes_down_to_a_handful_of_rows():
    X, y = load_iris(return_X_y=True)
    model = RandomForestClassifier(5, max_samples=0.1, key=0)  # most trees lose all of their rows
    live = clone(model).fit(X, y)
    left = np.array([0, 1, 50, 51, 100])
    for i in np.setdiff1d(np.arange(150), left):
        live.delete([i])
    assert live.state_digest_ == clone(model).fit(X[left], y[left], ids=left).state_digest_
    said = live.predict_proba(X[left])
    assert np.all(np.isnan(said)) or np.allclose(said.sum(axis=1), 1.0)


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(60, max_depth=8, max_features=0.3, key=0), ExtraTreesClassifier(60, key=0)]
)
def test_a_forest_is_as_good_as_that_of_scikit_learn(model):
    X, y = make_classification(6_000, 20, n_informative=10, flip_y=0.05, random_state=1)
    X, y, X_new, y_new = X[:4_000], y[:4_000], X[4_000:], y[4_000:]
    names = ("n_estimators", "max_depth", "max_features", "bootstrap")
    given = {name: getattr(model, name) for name in names}
    peer = getattr(plain, type(model).__name__)(**given, random_state=0).fit(X, y)
    ours = clone(model).fit(X, y)
    gap = roc_auc_score(y_new, ours.predict_proba(X_new)[:, 1]) - roc_auc_score(y_new, peer.predict_proba(X_new)[:, 1])
    assert gap > -0.01


def test_a_regression_forest_is_as_good_as_that_of_scikit_learn():
    X, y = load_diabetes(return_X_y=True)
    ours = RandomForestRegressor(100, min_samples_leaf=5, oob_score=True, key=0).fit(X, y)
    peer = plain.RandomForestRegressor(100, min_samples_leaf=5, oob_score=True, random_state=0).fit(X, y)
    assert ours.oob_score_ > peer.oob_score_ - 0.03
    assert np.corrcoef(ours.feature_importances_, peer.feature_importances_)[0, 1] > 0.95


@pytest.mark.parametrize("criterion", ["gini", "entropy"])
def test_a_stump_is_the_best_of_all_candidates(criterion):
    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    ours = DecisionTreeClassifier(criterion=criterion, max_depth=1, n_thresholds=1000, key=0).fit(X, y)
    peer = plain_tree.DecisionTreeClassifier(criterion=criterion, max_depth=1).fit(X, y)
    a, b = ours.release().tree_, peer.tree_
    explained = [t.impurity[0] - (t.n_node_samples[1:] * t.impurity[1:]).sum() / len(y) for t in (a, b)]
    assert a.impurity[0] == pytest.approx(b.impurity[0], rel=1e-12)
    assert explained[0] == pytest.approx(explained[1], rel=0.02)


def test_a_release_predicts_the_same_and_reads_missing_values_the_same_way():
    X, y, t, ids = table(3, 300, "ties missing")
    for model, target in (
        (RandomForestClassifier(7, key=0), y),
        (RandomForestRegressor(7, key=0), t),
        (DecisionTreeClassifier(key=0), y),
    ):
        live = clone(model).fit(X, target, ids=ids)
        live.delete(np.unique(ids)[:20])
        new = np.random.default_rng(0).standard_normal((200, 4)) * [1.0, 1.0, 1e5, 1.0]
        new[::3, 1] = np.nan
        new[::7, 0] = np.nan
        method = "predict_proba" if hasattr(live, "predict_proba") else "predict"
        out = live.release()
        assert np.allclose(getattr(out, method)(new), getattr(live, method)(new), rtol=1e-12)
        assert np.array_equal(out.apply(new), live.apply(new))
        assert live.decision_path(new) is not None


def test_no_threshold_is_a_value_that_a_row_could_have():
    X, y = load_breast_cancer(return_X_y=True)
    X = X.astype(np.float32)
    for tree in RandomForestClassifier(5, key=0).fit(X, y).release().estimators_:
        cuts = tree.tree_.threshold[tree.tree_.feature >= 0]
        assert not np.any(cuts.astype(np.float32).astype(np.float64) == cuts)


def test_votes_and_noise_say_less_than_shares():
    X, y = load_breast_cancer(return_X_y=True)
    model = RandomForestClassifier(30, key=0).fit(X, y)
    votes = model.release(leaves="votes")
    leaf = votes.estimators_[0].tree_
    assert set(np.unique(leaf.value)) == {0.0, 1.0}
    assert set(leaf.n_node_samples) == {1}
    assert votes.score(X, y) > 0.97
    noisy = [model.release(sigma=1.0) for _ in range(2)]
    assert not np.array_equal(noisy[0].predict_proba(X), noisy[1].predict_proba(X))  # fresh at each release
    assert noisy[0].score(X, y) > 0.9
    with pytest.raises(InvalidInput, match="votes"):
        model.release(leaves="none")


def test_weights_count_as_repeated_rows():
    X, y = load_iris(return_X_y=True)
    given = {"bootstrap": False, "max_depth": 4}
    weight = np.arange(150) % 3 + 1.0
    by_weight = RandomForestClassifier(5, **given, key=0).fit(X, y, sample_weight=2.0 * weight)
    doubled = RandomForestClassifier(5, **given, key=0).fit(X, y, sample_weight=weight)
    assert np.array_equal(by_weight.predict_proba(X), doubled.predict_proba(X))
    zero = RandomForestClassifier(5, **given, key=0).fit(
        X, y, sample_weight=(np.arange(150) >= 10) * 1.0, ids=np.arange(150)
    )
    assert (
        zero.state_digest_
        == RandomForestClassifier(5, **given, key=0).fit(X[10:], y[10:], ids=np.arange(10, 150)).state_digest_
    )


def test_a_new_key_gives_the_forest_of_a_fit_with_it():
    X, y = load_iris(return_X_y=True)
    model = RandomForestClassifier(5, key=0).fit(X, y)
    model.delete([3])
    model.rekey(2**100 + 7)
    retained = np.arange(150) != 3
    assert (
        model.state_digest_
        == RandomForestClassifier(5, key=2**100 + 7)
        .fit(X[retained], y[retained], ids=np.flatnonzero(retained))
        .state_digest_
    )
    drawn = RandomForestClassifier(5, key=None).fit(X, y)
    assert drawn.state_digest_ != RandomForestClassifier(5, key=None).fit(X, y).state_digest_
    assert drawn.state_digest_ == RandomForestClassifier(5, key=drawn.key_).fit(X, y).state_digest_


@pytest.mark.parametrize(
    "model", [RandomForestClassifier(3, key=0), RandomForestRegressor(3, key=0), IsolationForest(n_estimators=5, key=0)]
)
def test_rows_join_and_leave(model):
    X, y = load_iris(return_X_y=True)
    ids = np.arange(150) // 2
    live = clone(model).fit(X[:100:2], y[:100:2] + 0, ids=ids[:100:2])
    live.delete([3, 4])
    live.add(X[1:100:2], y[1:100:2], ids=ids[1:100:2])
    live.delete([10])
    retained = np.r_[0:100][(ids[:100] != 10) & ~(np.isin(ids[:100], [3, 4]) & (np.arange(100) % 2 == 0))]
    again = clone(model).fit(X[retained], y[retained], ids=ids[retained])
    assert live.state_digest_ == again.state_digest_
    before = live.state_digest_
    with pytest.raises(ValueError, match=r"ids|class"):
        live.add(X[100:], y[100:], ids=ids[100:] if hasattr(live, "classes_") else ids[100:103])
    assert live.state_digest_ == before


@pytest.mark.parametrize("head", [RandomForestClassifier(2, key=0), RandomForestRegressor(2, key=0)])
def test_trees_that_are_grown_anew_keep_no_target_of_who_left(head):
    X, y = load_iris(return_X_y=True)
    model = make_pipeline(StandardScaler(), head).fit(X, y + 1)  # the scaler moves, so that every tree is grown anew
    model.delete([140])
    assert not model.steps_[1][1]._forest.targets[140].any()


def test_what_is_stored_does_not_tell_in_which_leaf_somebody_was():
    X, y = make_classification(4_000, 6, random_state=0)
    model = RandomForestClassifier(3, max_depth=6, bootstrap=False, key=0)
    live = clone(model).fit(X, y)
    for i in range(2_000, 2_100):
        live.delete([i])
    retained = np.r_[0:2_000, 2_100:4_000]
    stored = live._forest.__getstate__()["_trees"]
    fresh = clone(model).fit(X[retained], y[retained], ids=retained)._forest.__getstate__()["_trees"]
    assert np.array_equal(stored.nodes["start"], fresh.nodes["start"])
    assert np.array_equal(stored.nodes["stop"], fresh.nodes["stop"])
    assert np.array_equal(stored.rows, retained[fresh.rows])
    again = pickle.loads(pickle.dumps(live))
    again.delete([3_000, 3_001])
    live.delete([3_000, 3_001])
    assert again.state_digest_ == live.state_digest_


def test_what_a_deletion_costs_is_reported():
    X, y = make_classification(5_000, 10, random_state=0)
    model = RandomForestClassifier(10, max_samples=0.2, lazy=True, key=0).fit(X, y)
    for i in range(1500, 1600):
        model.delete([i])
    work = model.work_
    assert work.nodes > 0
    assert work.subtrees == 0
    model.flush()
    assert model.work_.subtrees > 0
    assert model.work_.rows_regrown > 0
    assert model.memory_ > 1000


WRONG = {
    "share of rows in a leaf": (RandomForestClassifier(min_samples_leaf=1.5, key=0), "min_samples_leaf"),
    "more rows than there are": (RandomForestClassifier(max_samples=1.5, key=0), "max_samples"),
    "criterion": (RandomForestRegressor(criterion="absolute_error", key=0), "criterion"),
    "no depth": (DecisionTreeClassifier(max_depth=0, key=0), "max_depth"),
    "features": (RandomForestClassifier(max_features="auto", key=0), "max_features"),
    "thresholds": (RandomForestClassifier(n_thresholds=5_000, key=0), "n_thresholds"),
    "generator": (RandomForestClassifier(key=np.random.RandomState(0)), "key"),
    "rows outside": (ExtraTreesClassifier(oob_score=True, key=0), "oob_score"),
    "weights of each tree": (RandomForestClassifier(class_weight="balanced_subsample", key=0), "every deletion"),
    "weight of no class": (RandomForestClassifier(class_weight={7: 1.0}, key=0), "class_weight"),
    "share without bootstrap": (ExtraTreesClassifier(max_samples=0.5, key=0), "max_samples"),
}


@pytest.mark.parametrize(("model", "says"), WRONG.values(), ids=WRONG)
def test_wrong_parameters_are_refused_with_a_reason(model, says):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidInput, match=says):
        clone(model).fit(X, y)


def test_wrong_data_are_refused_with_a_reason():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="infinity"):
        RandomForestClassifier(2, key=0).fit(np.where(X > 7, np.inf, X), y)
    with pytest.raises(InvalidInput, match="one class"):
        RandomForestClassifier(2, key=0).fit(X, np.zeros(150))
    with pytest.raises(ValueError, match="non-zero"):
        RandomForestClassifier(2, key=0).fit(X, y, sample_weight=np.zeros(150))
    model = RandomForestClassifier(2, key=0).fit(X, y == 1)
    before = model.state_digest_
    with pytest.raises(InvalidRequest, match="class"):
        model.delete(np.flatnonzero(y == 1))
    assert model.state_digest_ == before


def test_more_rows_than_sums_can_hold_are_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidInput, match="together"):
        RandomForestClassifier(2**25, key=0).fit(X, y)


# ----------------------------------------------------------------- mutants


def test_a_split_that_is_not_asked_again_is_caught(monkeypatch):
    def stale(self):
        for part, _ in self._trees.stale:
            self._trees.nodes["stale"][part] = 0
        self._trees.stale = []

    monkeypatch.setattr(forest.Forest, "flush", stale)
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(RandomForestClassifier(4, key=0))


def test_a_tree_that_keeps_a_row_is_caught(monkeypatch):
    honest = forest.Forest.delete
    monkeypatch.setattr(forest.Forest, "delete", lambda self, rows: honest(self, rows[1:]))
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(RandomForestClassifier(4, key=0))
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(RandomForestRegressor(4, key=0))


def test_a_map_of_codes_that_remembers_deleted_rows_is_caught(monkeypatch):
    from certified._trees import estimator as models

    monkeypatch.setattr(models.SharedState, "same", lambda self, other: True)
    same = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X, y = rng.standard_normal((40, 3)), np.arange(40) % 2
        live = RandomForestClassifier(3, key=0).fit(X, y)
        live.delete(range(10, 30))
        retained = np.r_[0:10, 30:40]
        same.append(
            live.state_digest_
            == RandomForestClassifier(3, key=0).fit(X[retained], y[retained], ids=retained).state_digest_
        )
    assert not all(same)
