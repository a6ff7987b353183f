"""Sharded ensembles have the state of a refit, for any estimator, and say for which requests."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from certified.audit._memory import dumped
from certified.certificate import Certificate
from certified.ensemble import ShardedClassifier, ShardedRegressor
from certified.ensemble._sharding import base, fit, shard
from certified.ensemble._sharding.fingerprint import fingerprint
from certified.errors import CannotCertify, InvalidInput, InvalidRequest, NotDeletable
from certified.model_selection import GridSearchCV
from certified.testing import check_delete_equals_refit, data_sets, deletion_requests, yield_deletion_checks

pytestmark = pytest.mark.filterwarnings(f"ignore::{ConvergenceWarning.__module__}.{ConvergenceWarning.__name__}")


def xgboost_classifier():
    return pytest.importorskip("xgboost", reason="xgboost is not installed").XGBClassifier(n_estimators=4, max_depth=3)


def lightgbm_classifier():
    lightgbm = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    return lightgbm.LGBMClassifier(n_estimators=4, min_child_samples=2, verbose=-1)


BASES = {
    "logistic regression": LogisticRegression,
    "decision tree": lambda: DecisionTreeClassifier(max_features=2),
    "xgboost": xgboost_classifier,
    "lightgbm": lightgbm_classifier,
    "neural network": lambda: MLPClassifier((8,), max_iter=6),
    "pipeline": lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss")),
}
CONTRACT = {
    "tree": ShardedClassifier(DecisionTreeClassifier(), 4),
    "slices": ShardedClassifier(SGDClassifier(loss="log_loss"), 3, n_slices=3),
    "regressor": ShardedRegressor(Ridge(), 3),
    "private": ShardedClassifier(DecisionTreeClassifier(), 40, aggregation="private", epsilon=30.0),
}


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, id=f"{name}: {title}")
        for name, estimator in CONTRACT.items()
        for title, check in yield_deletion_checks(estimator)
        # an adversary wants more answers than the private one gives; test_sharding_private_answers.py has its attack
        if (name, title) != ("private", "check_adaptive_requests_meet_the_refit")
    ],
)
def test_a_sharded_ensemble_passes_the_public_check(check):
    check()


def assert_is_refit(model, X, y, ids, order=None):
    """The state is that of a fit of the retained rows, in this or in reversed order."""
    retained = np.flatnonzero(np.isin(ids, model.ids_))[:: -1 if order is None else order]
    params = {**model.get_params(deep=False), "key": model.key_}
    refit = type(model)(**params).fit(X[retained], y[retained], ids=ids[retained])
    assert model.state_digest_ == refit.state_digest_
    return refit


@pytest.mark.parametrize("base", BASES)
@settings(max_examples=6)
@given(data=data_sets(60, 3), draw=st.data(), n_shards=st.sampled_from([1, 3, 7]))
def test_any_requests_end_at_a_refit_for_any_estimator(base, data, draw, n_shards):
    X, y, ids = data
    model = ShardedClassifier(BASES[base](), n_shards).fit(X, y, ids=ids)
    for request in draw.draw(deletion_requests(ids)):
        model.delete(request)
    refit = assert_is_refit(model, X, y, ids)
    assert np.array_equal(model.predict_proba(X), refit.predict_proba(X))


@pytest.mark.parametrize(
    "base",
    [
        SGDClassifier(loss="log_loss"),
        MLPClassifier((4,), max_iter=3, warm_start=True),
        LogisticRegression(warm_start=True),
        GradientBoostingClassifier(n_estimators=6),
        RandomForestClassifier(6),
        "xgboost",
        "lightgbm",
    ],
    ids=lambda base: base if isinstance(base, str) else type(base).__name__,
)
@settings(max_examples=4)
@given(data=data_sets(60, 3), draw=st.data(), n_slices=st.sampled_from([2, 5]))
def test_any_requests_end_at_a_refit_with_checkpoints(base, data, draw, n_slices):
    X, y, ids = data
    if isinstance(base, str):
        base = BASES[base]().set_params(n_estimators=6)
    model = ShardedClassifier(base, 2, n_slices=n_slices).fit(X, y, ids=ids)
    for request in draw.draw(deletion_requests(ids)):
        model.delete(request)
    assert_is_refit(model, X, y, ids)


def test_regressors_and_slices_of_regressors_end_at_a_refit():
    X, y = load_breast_cancer(return_X_y=True)
    ids = np.arange(len(y))
    for model in (
        ShardedRegressor(DecisionTreeRegressor(max_features=3), 5),
        ShardedRegressor(MLPRegressor(hidden_layer_sizes=(4,), max_iter=3), 3, n_slices=3),
    ):
        model.fit(X[:, 1:], X[:, 0]).delete([3, 100, 200])
        assert_is_refit(model, X[:, 1:], X[:, 0], ids)


def test_several_outputs_end_at_a_refit_and_are_predicted_together():
    X, y = load_breast_cancer(return_X_y=True)
    Y, X, ids = X[:, :2], X[:, 2:8], np.arange(len(y))
    model = ShardedRegressor(DecisionTreeRegressor(max_depth=3), 3).fit(X, Y)
    model.delete([3, 100])
    refit = assert_is_refit(model, X, Y, ids)
    each = [stage.model.predict(X) for stage in model._served()]
    assert np.array_equal(model.predict(X), np.mean(each, axis=0))
    assert np.array_equal(model.predict(X), refit.predict(X))
    with pytest.raises(CannotCertify, match="2 outputs"):
        model.release()
    with pytest.raises(InvalidInput, match="one output"):
        ShardedRegressor(Ridge(), 3, aggregation="private", output_range=(0, 1)).fit(X, Y)


def test_a_pipeline_takes_weights_in_its_last_step():
    X, y = load_breast_cancer(return_X_y=True)
    weight = np.where(y == 1, 3.0, 1.0)
    base = make_pipeline(StandardScaler(), LogisticRegression())
    model = ShardedClassifier(base, 1, key=0).fit(X, y, sample_weight=weight)
    order = np.concatenate([shard.positions for shard in model._shards])
    plain = clone(base).fit(X[order], y[order], logisticregression__sample_weight=weight[order])
    assert np.array_equal(model.predict_proba(X), plain.predict_proba(X))
    model.delete([5, 6])
    retained = np.setdiff1d(np.arange(len(y)), [5, 6])
    again = ShardedClassifier(base, 1, key=0).fit(
        X[retained], y[retained], ids=retained, sample_weight=weight[retained]
    )
    assert model.state_digest_ == again.state_digest_
    with pytest.raises(InvalidInput, match="does not take"):
        ShardedClassifier(make_pipeline(StandardScaler(), KNeighborsClassifier()), 2).fit(X, y, sample_weight=weight)


# ------------------------------------------------------------------ rows


def mixed_rows(n=90):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "city": rng.choice(["Ulm", "Bonn", "Kiel"], n),
            "income": rng.normal(size=n).round(3),
            "note": [f"note {k}" for k in range(n)],
        }
    )
    return frame, (frame["income"] + (frame["city"] == "Ulm") > 0.2).to_numpy(), np.arange(n) // 2


def of_columns():
    return make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), ("passthrough", ["income"])),
        DecisionTreeClassifier(max_depth=4),
    )


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_with_text_go_to_the_estimator_as_they_are_and_lose_what_is_deleted(kind):
    frame, y, ids = mixed_rows()
    mix = np.random.default_rng(0).permutation(len(y))
    frames = {"pandas": lambda rows: frame.iloc[rows], "polars": lambda rows: pl.from_pandas(frame)[rows]}
    model = ShardedClassifier(of_columns(), 4, key=0).fit(frames[kind](np.arange(len(y))), y, ids=ids)
    model.delete([5, 20])
    retained = mix[np.isin(ids[mix], model.ids_)]
    refit = ShardedClassifier(of_columns(), 4, key=0).fit(frames[kind](retained), y[retained], ids=ids[retained])
    assert model.state_digest_ == refit.state_digest_
    assert model.release().predict(frames[kind](retained)).tolist() == model.predict(frames[kind](retained)).tolist()
    dump = dumped(model)
    assert b"note 12" in dump
    assert b"note 10" not in dump
    assert b"note 41" not in dump


def test_sparse_rows_and_ids_in_a_column():
    frame, y, ids = mixed_rows()
    dense = np.column_stack([frame["income"], frame["city"] == "Ulm"]).astype(float)
    model = ShardedClassifier(LogisticRegression(), 3).fit(sparse.csr_array(dense), y, ids=ids).delete([7])
    assert model.n_rows == 2
    named = frame.assign(who=ids)
    ensemble = ShardedClassifier(of_columns(), 3).fit(named, y, ids="who")
    assert ensemble.feature_names_in_.tolist() == ["city", "income", "note"]
    assert ensemble.ids_.tolist() == sorted(set(ids.tolist()))


def test_rows_of_a_subject_share_its_shard_and_their_order_does_not_matter():
    X, y = load_breast_cancer(return_X_y=True)
    ids = np.arange(len(y)) % 100
    mix = np.random.default_rng(1).permutation(len(y))
    # a stochastic fit sees the order of its rows
    model = ShardedClassifier(SGDClassifier(loss="log_loss"), 4, key=0).fit(X, y, ids=ids)
    again = ShardedClassifier(SGDClassifier(loss="log_loss"), 4, key=0).fit(X[mix], y[mix], ids=ids[mix])
    assert model.state_digest_ == again.state_digest_
    assert model.deletion_cost([17]).parts == 1


def test_subjects_whose_hashes_collide_are_told_apart_by_their_ids(monkeypatch):
    colliding = lambda ids, key=0: np.asarray(ids).astype(np.uint64) % 7  # noqa: E731
    monkeypatch.setattr("certified._data.subjects.subject_hash", colliding)
    X, y = load_breast_cancer(return_X_y=True)
    model = ShardedClassifier(SGDClassifier(loss="log_loss"), 3).fit(X, y)
    model.delete([7, 11])
    assert_is_refit(model, X, y, np.arange(len(y)))


def test_weights_reach_the_estimator_and_are_refused_where_it_takes_none():
    X, y = load_iris(return_X_y=True)
    weight = np.arange(150.0)
    mean = ShardedRegressor(DummyRegressor(), 1).fit(X, y, sample_weight=weight).predict(X[:1])
    assert mean[0] == pytest.approx(np.average(y, weights=weight))
    with pytest.raises(InvalidInput, match="does not take"):
        ShardedClassifier(KNeighborsClassifier(), 3).fit(X, y, sample_weight=weight)


# --------------------------------------------------------- shards that run dry


@pytest.mark.parametrize("base", ["decision tree", "xgboost"])
def test_a_shard_that_becomes_empty_or_loses_a_class_is_what_a_refit_has(base):
    X, y = load_iris(return_X_y=True)
    some = np.r_[0:6, 50:56, 100:106]
    X, y, ids = X[some], y[some], some
    for request in (ids[[0, 1]], ids[[0, 7, 8, 14]], ids[[1, 2, 3, 8, 9, 10, 14, 15, 16, 17]]):
        model = ShardedClassifier(BASES[base](), 8).fit(X, y, ids=ids)
        model.delete(request)
        refit = assert_is_refit(model, X, y, ids)
        assert np.array_equal(model.predict_proba(X), refit.predict_proba(X))
        assert np.allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert any(len(shard.positions) == 0 for shard in model._shards[:8])
    assert any(stage.model is None and stage.classes.size == 1 for stage in model._served())


def test_a_constant_shard_is_released_and_a_partly_lacking_class_is_refused():
    X, y = load_iris(return_X_y=True)
    two = y < 2
    model = ShardedClassifier(DecisionTreeClassifier(), 40).fit(X[two], y[two])
    assert any(stage.model is None and stage.classes.size == 1 for stage in model._served())
    for ensemble in (model, ShardedClassifier(DecisionTreeClassifier(), 40, aggregation="vote").fit(X[two], y[two])):
        assert np.array_equal(ensemble.release().predict(X), ensemble.predict(X))
    with pytest.raises(CannotCertify, match=r"without a row of class .* Nothing was released"):
        ShardedClassifier(DecisionTreeClassifier(), 40).fit(X, y).release()


class NeedsThree(DecisionTreeClassifier):
    """Does not learn from fewer than three rows."""

    def fit(self, X, y, sample_weight=None):
        if len(y) < 3:
            raise RuntimeError("three rows are needed")
        return super().fit(X, y, sample_weight=sample_weight)


def test_a_shard_that_cannot_learn_refuses_the_request_and_changes_nothing():
    X, y = np.arange(24.0).reshape(12, 2), np.arange(12) % 2
    model = ShardedClassifier(NeedsThree(), 2).fit(X, y)
    shard = model._shards[0]
    keep = np.r_[shard.positions[shard.table.y == 0][:1], shard.positions[shard.table.y == 1][:1]]
    before = dumped(model)
    with pytest.raises(InvalidRequest, match=r"three rows are needed.*Nothing was changed"):
        model.delete(np.setdiff1d(shard.positions, keep))
    assert dumped(model) == before


# ---------------------------------------------------------------- release


@pytest.mark.parametrize(
    ("base", "where"),
    [
        (KNeighborsClassifier(), "_fit_X"),
        (SVC(), "support_vectors_"),
        (make_pipeline(StandardScaler(), SVC()), "support_vectors_"),
        (make_pipeline(StandardScaler(), Nystroem(n_components=20), SGDClassifier()), "components_"),
    ],
    ids=["neighbours", "support vectors", "scaled support vectors", "landmarks"],
)
def test_no_release_of_an_estimator_that_keeps_rows(base, where):
    X, y = load_breast_cancer(return_X_y=True)
    model = ShardedClassifier(base, 4, aggregation="vote").fit(X, y)
    with pytest.raises(CannotCertify, match=where):
        model.release()


def test_the_release_of_a_regressor_and_of_xgboost_predicts_the_same():
    X, y = load_breast_cancer(return_X_y=True)
    trees = ShardedClassifier(xgboost_classifier(), 4).fit(X, y)
    # xgboost's probabilities are float32, and scikit-learn averages them as such
    assert np.allclose(trees.release().predict_proba(X), trees.predict_proba(X), rtol=1e-6)
    line = ShardedRegressor(Ridge(), 4).fit(X[:, 1:], X[:, 0])
    assert np.allclose(line.release().predict(X[:, 1:]), line.predict(X[:, 1:]), rtol=1e-12)


# ---------------------------------------------- costs, keys, certificates


@pytest.mark.parametrize("n_slices", [1, 4])
def test_the_expected_cost_is_the_mean_over_all_requests(n_slices):
    X, y = load_iris(return_X_y=True)
    model = ShardedClassifier(SGDClassifier(loss="log_loss"), 5, n_slices=n_slices).fit(X, y, ids=np.arange(150) // 2)
    costs = np.array([(c.parts, c.rows) for c in map(model.deletion_cost, model.ids_.tolist())])
    expected = model.deletion_cost()
    assert expected.parts == pytest.approx(costs[:, 0].mean())
    # the rows of the subject itself are no longer learned
    assert costs[:, 1].mean() <= expected.rows <= costs[:, 1].mean() + 2 + 1e-9
    assert 0 < expected.share < 1


def test_a_bulk_request_lets_each_shard_learn_once(monkeypatch):
    X, y = load_iris(return_X_y=True)
    model = ShardedClassifier(DecisionTreeClassifier(), 3).fit(X, y)
    seen = []
    monkeypatch.setattr(fit, "learn", lambda *a: seen.append(1) or shard.learn(*a))
    cost = model.deletion_cost(range(40))
    model.delete(range(40))
    assert len(seen) == cost.parts == 3
    assert cost.rows == sum(len(shard.positions) for shard in model._shards)


def test_a_key_is_drawn_where_none_is_given_and_rekey_is_a_fresh_fit():
    X, y = load_iris(return_X_y=True)
    first, second = (ShardedClassifier(DecisionTreeClassifier(), 4, key=None).fit(X, y) for _ in range(2))
    assert first.key_ != second.key_
    assert first.state_digest_ != second.state_digest_
    first.delete([4, 70])
    first.delete(range(10, 40))
    old = first.key_
    first.rekey()
    assert first.key_ != old
    assert_is_refit(first, X, y, np.arange(150))


def test_the_certificate_says_against_which_refit_and_for_which_requests():
    X, y = load_iris(return_X_y=True)
    given_key = ShardedClassifier(DecisionTreeClassifier(), 4, key=0).fit(X, y)
    assert "key was given" in given_key.certificate_.adaptivity
    drawn = ShardedClassifier(DecisionTreeClassifier(), 4).fit(X, y)
    assert "do not depend on what this model answered" in drawn.certificate_.adaptivity
    assert "fresh key" in str(drawn.certificate_)
    assert drawn.certificate_.public().adaptivity == drawn.certificate_.adaptivity
    assert Certificate.from_json(drawn.certificate_.to_json()) == drawn.certificate_
    assert given_key.rekey().certificate_.adaptivity == drawn.certificate_.adaptivity


class Unseeded(ClassifierMixin, BaseEstimator):
    """Learns something else every time."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.draw_ = np.random.default_rng().random()
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=int)


def test_an_estimator_that_does_not_repeat_itself_is_refused():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(NotDeletable, match="two different models"):
        ShardedClassifier(Unseeded(), 3, aggregation="vote").fit(X, y)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_shards": 0}, "n_shards"),
        ({"aggregation": "median"}, "aggregation"),
        ({"key": -1}, "key"),
        ({"n_slices": 2}, "partial_fit"),
        ({"estimator": GradientBoostingClassifier(n_estimators=3), "n_slices": 4}, "n_estimators=3"),
        ({"estimator": SVC()}, "predict_proba"),
        ({"estimator": Ridge()}, "classifier"),
    ],
)
def test_parameters_that_cannot_be_are_refused(changed, message):
    X, y = load_iris(return_X_y=True)
    with pytest.raises(InvalidInput, match=message):
        ShardedClassifier(**{"estimator": DecisionTreeClassifier(), **changed}).fit(X, y)


def test_a_search_over_sharded_ensembles_forgets_and_says_for_which_requests():
    X, y = load_iris(return_X_y=True)
    grid = {"estimator__max_depth": [1, 3], "n_shards": [2, 4]}
    search = GridSearchCV(ShardedClassifier(DecisionTreeClassifier()), grid, cv=3, key=0).fit(X, y)
    search.delete([3, 100])
    retained = np.isin(np.arange(150), search.ids_)
    fresh = GridSearchCV(ShardedClassifier(DecisionTreeClassifier()), grid, cv=3, key=0)
    fresh.fit(X[retained], y[retained], ids=np.flatnonzero(retained))
    assert search.state_digest_ == fresh.state_digest_
    assert "same key" in search.certificate_.adaptivity


# ---------------------------------------------------------------- mutants


def test_a_stale_checkpoint_is_caught(monkeypatch):
    right = shard.learn
    monkeypatch.setattr(
        fit,
        "learn",
        lambda course, shard, first=0: right(course, shard, min(first + 1, 2) if shard.stages else first),
    )
    with pytest.raises(AssertionError, match="not bit for bit"):
        check_delete_equals_refit(ShardedClassifier(SGDClassifier(loss="log_loss"), 2, n_slices=3))


def test_shards_by_position_are_caught(monkeypatch):
    monkeypatch.setattr(
        shard.Subjects, "hashes", lambda self, key=0: np.arange(self.retained.size, dtype=np.uint64) * np.uint64(7919)
    )
    with pytest.raises(AssertionError, match="not bit for bit"):
        check_delete_equals_refit(ShardedClassifier(DecisionTreeClassifier(), 4))


def test_copies_without_a_seed_are_caught(monkeypatch):
    monkeypatch.setattr(shard.Course, "made", lambda self, *seed: clone(self.estimator))
    with pytest.raises(NotDeletable, match="two different models"):
        check_delete_equals_refit(ShardedClassifier(DecisionTreeClassifier(max_features=1), 4))
    monkeypatch.setattr(base.Sharded, "_check_repeats", lambda *a: None)
    with pytest.raises(AssertionError, match="not bit for bit"):
        check_delete_equals_refit(ShardedClassifier(DecisionTreeClassifier(max_features=1), 4))


def test_rows_in_the_order_they_came_are_caught(monkeypatch):
    monkeypatch.setattr(fit, "by_subject_and_content", lambda ids, table: np.argsort(ids, kind="stable"))
    X, y = load_breast_cancer(return_X_y=True)
    model = ShardedClassifier(SGDClassifier(loss="log_loss"), 2).fit(X, y, ids=np.arange(len(y)) // 3)
    with pytest.raises(AssertionError):
        assert_is_refit(model, X, y, np.arange(len(y)) // 3)


# ------------------------------------------------------------- fingerprints


@pytest.mark.parametrize("base", ["neural network", "decision tree", "xgboost", "lightgbm"])
def test_a_fingerprint_sees_the_values_of_a_model_and_nothing_else(base):
    X, y = load_iris(return_X_y=True)
    model, again, other = (BASES[base]().set_params(random_state=0).fit(X[k:], y[k:]) for k in (0, 0, 1))
    assert fingerprint(model) == fingerprint(again) == fingerprint(pickle.loads(pickle.dumps(model)))
    assert fingerprint(model) != fingerprint(other)


def test_a_fingerprint_does_not_depend_on_order_sharing_or_padding():
    assert fingerprint({"a": 1, "b": {2, 3}}) != fingerprint({"a": 1, "b": {2, 4}})
    assert fingerprint({1, 2, 300}) == fingerprint({300, 2, 1})
    assert fingerprint(0.0) != fingerprint(-0.0)
    loop = []
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)
    padded = np.zeros(2, dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True))
    other = padded.copy()
    other.view(np.uint8)[3] = 9  # a byte between the fields
    assert fingerprint(padded) == fingerprint(other)
    with pytest.raises(NotDeletable, match="cannot be pickled"):
        fingerprint(DummyClassifier(constant=(k for k in range(3))))
