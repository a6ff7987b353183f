"""Rows that are added a sharded ensemble: the state is a refit's, and only shards that get a row learn again."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from scipy import sparse
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from certified.audit._memory import dumped
from certified.ensemble import ShardedClassifier, ShardedRegressor
from certified.ensemble._sharding import fit, shard
from certified.ensemble._sharding.tables import check_finite, like
from certified.errors import InvalidInput
from certified.testing import check_rows_that_join_meet_the_refit, data_sets

SGD = SGDClassifier(loss="log_loss", max_iter=5, tol=None)
PRIVATE = {"aggregation": "private", "epsilon": 30.0}
MODELS = {
    "tree": lambda: ShardedClassifier(DecisionTreeClassifier(max_features=2), 4, key=0),
    "slices": lambda: ShardedClassifier(SGD, 2, n_slices=4, key=0),
    "warm start": lambda: ShardedClassifier(GradientBoostingClassifier(n_estimators=4), 2, n_slices=3, key=0),
    "one shard": lambda: ShardedClassifier(LogisticRegression(max_iter=20), 1, key=0),
    "private": lambda: ShardedClassifier(DecisionTreeClassifier(), 40, **PRIVATE, key=0),
    "votes": lambda: ShardedClassifier(DecisionTreeClassifier(), 6, aggregation="vote", key=0),
}


def digest_of_refit(model, X, y, ids, order=None, **fit):
    """Of a fit with the same key on these rows, in this order."""
    params = {**model.get_params(deep=False), "key": model.key_}
    order = np.arange(len(y)) if order is None else order
    return type(model)(**params).fit(X[order], y[order], ids=ids[order], **fit).state_digest_


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=4)
@given(data=data_sets(60, 3), seed=st.integers(0, 2**32 - 1), n_steps=st.integers(1, 4))
def test_a_window_of_rows_that_come_and_go_ends_at_a_refit(name, data, seed, n_steps):
    X, y, ids = data
    rng = np.random.default_rng(seed)
    held = rng.random(len(y)) < 0.6
    held[:20] = True  # both classes, and subjects of whom some rows join later
    model = MODELS[name]().fit(X[held], y[held], ids=ids[held])
    for _ in range(n_steps):
        others = np.unique(ids[held & ~np.isin(ids, ids[:6])])
        if others.size:
            gone = rng.choice(others, min(len(others), 3), replace=False)
            model.delete(gone)
            held &= ~np.isin(ids, gone)
        new = np.flatnonzero(~held)
        new = rng.permutation(new)[: rng.integers(1, len(new) + 1)]  # rows of deleted subjects may come back
        model.add(X[new], y[new], ids=ids[new])
        held[new] = True
        assert model.n_rows_ == np.count_nonzero(held)
        order = rng.permutation(np.flatnonzero(held))
        assert model.state_digest_ == digest_of_refit(model, X, y, ids, order)
    gone = ids[held][-1:]
    cost = model.deletion_cost(gone)
    receipt = model.delete(gone)
    assert bool(receipt.changed) == (cost.parts > 0)
    retained = np.flatnonzero(held & (ids != gone))
    assert model.state_digest_ == digest_of_refit(model, X, y, ids, retained)
    assert model.rekey().state_digest_ == digest_of_refit(model, X, y, ids, retained[::-1])


@pytest.mark.parametrize("name", ["slices", "private"])
def test_only_shards_with_new_rows_learn_and_from_the_first_slice_that_has_one(name, monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    model = MODELS[name]().fit(X[:-1], y[:-1])
    before, ids = model._shards, np.arange(len(y))
    runs = []
    monkeypatch.setattr(
        fit,
        "learn",
        lambda course, one, first=0: runs.append(first) or shard.learn(course, one, first),
    )
    model.add(X[-1:], y[-1:], ids=ids[-1:])
    hit = [s for s, shard in enumerate(model._shards) if len(y) - 1 in shard.positions]
    learned = [s for s in hit if s < model.n_shards]
    assert len(runs) == len(learned) < model.n_shards
    for s, (old, now) in enumerate(zip(before, model._shards, strict=True)):
        retained = runs[learned.index(s)] if s in learned else len(old.stages)
        assert all(a is b for a, b in zip(old.stages[:retained], now.stages[:retained], strict=True))
        assert all(a is not b for a, b in zip(old.stages[retained:], now.stages[retained:], strict=True))
        assert (s in hit) or now.table is old.table
    if name == "slices":
        assert runs[0] > 0  # the row is not in the first slice
    assert model.state_digest_ == digest_of_refit(model, X, y, ids)


def test_rows_that_join_the_remainder_of_private_shards_are_not_learned(monkeypatch):
    X, y = load_iris(return_X_y=True)
    model = ShardedClassifier(DecisionTreeClassifier(), 40, **PRIVATE, key=0).fit(X, y)
    place = shard.deal(
        shard.Subjects(None, 400),
        shard.Table(np.zeros((400, 1)), np.zeros(400), None),
        np.arange(400),
        0,
        40,
        True,
    )
    nowhere = place[-1].positions
    nowhere = nowhere[nowhere >= 150][:3]
    monkeypatch.setattr(fit, "learn", lambda *a: pytest.fail("a shard learns"))
    model.add(X[:3], y[:3], ids=nowhere)
    monkeypatch.undo()
    both = np.r_[np.arange(150), :3]
    assert model.state_digest_ == digest_of_refit(model, X[both], y[both], np.r_[np.arange(150), nowhere])
    assert model.deletion_cost(nowhere).parts == 0
    model.delete(nowhere)
    assert model.state_digest_ == digest_of_refit(model, X, y, np.arange(150))


def test_rows_that_join_win_back_no_answer_and_leave_the_promise_as_it_is():
    X, y = load_breast_cancer(return_X_y=True)
    model = ShardedClassifier(
        DecisionTreeClassifier(max_depth=2),
        80,
        aggregation="private",
        epsilon=8.0,
        key=None,
        n_answers=3,
        at_once=False,
    ).fit(X[:500], y[:500])
    said, sigma = model.certificate_.adaptivity, model._sigma
    model.predict(X[:2])
    model.add(X[500:], y[500:], ids=np.arange(500, len(y)))
    assert model.n_answers_left_ == 1
    assert (model.certificate_.adaptivity, model._sigma) == (said, sigma)
    assert model.state_digest_ == digest_of_refit(model, X, y, np.arange(len(y)))


def test_several_outputs_weights_and_shards_side_by_side():
    X, y = load_breast_cancer(return_X_y=True)
    X, Y, ids, weight = X[:, 2:8], X[:, :2], np.arange(len(y)) // 3, 1.0 + y
    weight[-100:-50] = 1.0
    model = ShardedRegressor(DecisionTreeRegressor(max_features=3), 3)
    model.fit(X[:-100], Y[:-100], ids=ids[:-100], sample_weight=weight[:-100])
    model.n_jobs = 2
    with parallel_config(backend="threading"):
        model.add(X[-100:-50], Y[-100:-50], ids=ids[-100:-50])
    with parallel_config(backend="threading"):
        model.add(X[-50:], Y[-50:], ids=ids[-50:], sample_weight=weight[-50:])
    model.n_jobs = None
    assert model.state_digest_ == digest_of_refit(model, X, Y, ids, sample_weight=weight)
    with pytest.raises(InvalidInput, match=r"1 outputs, the fit had 2.*Nothing was changed"):
        model.add(X[:2], Y[:2, 0], ids=[1, 2])


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_with_text_and_a_column_of_ids(kind):
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"city": rng.choice(["Ulm", "Bonn", "Kiel"], 90), "income": rng.normal(size=90).round(3)})
    frame["who"] = np.arange(90) // 2
    y = (frame["income"] + (frame["city"] == "Ulm") > 0.2).to_numpy()
    as_kind = {"pandas": lambda f: f, "polars": pl.from_pandas}[kind]
    base = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), ("passthrough", ["income"])),
        DecisionTreeClassifier(max_depth=4),
    )

    def part(start, end):
        return as_kind(frame[start:end].reset_index(drop=True))

    model = ShardedClassifier(base, 3, key=0).fit(part(0, 61), y[:61], ids="who")
    model.delete([2])
    model.add(part(61, 90), y[61:], ids="who")
    retained = frame["who"].to_numpy() != 2
    whole = as_kind(frame[retained].reset_index(drop=True))
    assert model.state_digest_ == ShardedClassifier(base, 3, key=0).fit(whole, y[retained], ids="who").state_digest_


def test_whole_numbers_join_numbers_of_a_frame_and_of_arrays_sparse_and_dense():
    X, y = load_iris(return_X_y=True)
    whole, ids = np.round(X[-20:]), np.arange(150)
    both = np.vstack([X[:-20], whole])
    for make in (np.asarray, sparse.csr_array, sparse.csr_matrix, pd.DataFrame, pl.DataFrame):
        if make in (pd.DataFrame, pl.DataFrame):
            first, more, rows = (make({f"x{j}": part[:, j] for j in range(4)}) for part in (X[:-20], whole, both))
            more = more.astype(int) if make is pd.DataFrame else more.cast(pl.Int64)
        else:
            first, more, rows = make(X[:-20]), make(whole.astype(int)), make(both)
        model = ShardedClassifier(DecisionTreeClassifier(), 3, key=0).fit(first, y[:-20])
        model.add(more, y[-20:], ids=ids[-20:])
        assert model.state_digest_ == ShardedClassifier(DecisionTreeClassifier(), 3, key=0).fit(rows, y).state_digest_


def test_tables_of_pyarrow_are_compared_by_their_types_too():
    held = pa.table({"a": [1.5, 2.0], "b": ["x", "y"]})
    assert like(pa.table({"a": [1, 2], "b": ["x", "z"]}), held, "add").schema.equals(held.schema)
    with pytest.raises(InvalidInput, match="column 'b' of type int64"):
        like(pa.table({"a": [1.5], "b": [3]}), held, "add")
    with pytest.raises(InvalidInput, match="infinite"):
        check_finite(pa.table({"a": [None, -np.inf], "b": ["x", None]}), "add")
    check_finite(pa.table({"a": [None, np.nan], "b": ["x", None]}), "add")


# ---------------------------------------------------------------- refused


class NoNines(DecisionTreeClassifier):
    """Cannot learn from a 9."""

    def fit(self, X, y, sample_weight=None):
        if np.any(np.asarray(X) == 9.0):
            raise RuntimeError("a nine")
        return super().fit(X, y, sample_weight=sample_weight)


FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.0]})


@pytest.mark.parametrize(
    ("X", "y", "ids", "more", "message"),
    [
        ([[1.0, 2.0]], [3], [1], {}, r"class 3, which the fit did not have.*Nothing was changed"),
        ([[1.0, 2.0]], [0], [1], {"sample_weight": [2.0]}, r"fit had none.*Nothing was changed"),
        ([[1.0, np.inf]], [0], [1], {}, r"infinite.*Nothing was changed"),
        ([[1.0, 9.0]], [0], [1], {}, r"cannot learn: a nine.*Nothing was changed"),
        ([["a", 2.0]], [0], [1], {}, r"type object.*Nothing was changed"),
        ([[1.0, 2.0]], [0], None, {}, "needs ids"),
        ([[1.0, 2.0]], [0], ["a"], {}, "ids of type"),
        ([[1.0, 2.0]], [0, 1], [1], {}, "inconsistent numbers of rows"),
        ([[1.0, 2.0]], None, [1], {}, "requires y"),
        (sparse.csr_array([[1.0, 2.0]]), [0], [1], {}, r"a sparse array.*a dense array"),
        (FRAME, [0, 1], [1, 2], {}, "a frame of pandas"),
    ],
)
@pytest.mark.filterwarnings("ignore:X has feature names")
def test_rows_that_cannot_join_change_nothing(X, y, ids, more, message):
    rows = np.arange(24.0).reshape(12, 2) / 10
    model = ShardedClassifier(NoNines(), 2).fit(rows, np.arange(12) % 2)
    before = dumped(model)
    with pytest.raises(InvalidInput, match=message):
        model.add(X, y, ids=ids, **more)
    assert dumped(model) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (FRAME.assign(b=["x", "y"]), "column 'b' of type"),
        (FRAME.astype({"b": pd.CategoricalDtype([1.0, 2.0])}), "column 'b' of type category"),
        (FRAME.assign(b=[1.0, np.inf]), "infinite"),
        (FRAME[:0], "without rows"),
        (pl.from_pandas(FRAME), "a frame of polars, the retained rows are a frame of pandas"),
    ],
)
def test_frames_that_are_not_like_those_held_are_refused(more, message):
    frame = pd.DataFrame(np.arange(24.0).reshape(12, 2), columns=["a", "b"])
    model = ShardedClassifier(DecisionTreeClassifier(), 2).fit(frame, np.arange(12) % 2)
    with pytest.raises(InvalidInput, match=message):
        model.add(more, np.arange(len(more)) % 2, ids=np.arange(len(more)))
    assert model.add(FRAME, [0, 1], ids=[1, 2]).certificate.n_rows == 14


# ---------------------------------------------------------------- mutants


def test_a_shard_that_does_not_learn_its_new_rows_is_caught(monkeypatch):
    right = shard.learn
    lazy = lambda course, shard, first=0: (shard, 0.0) if shard.stages else right(course, shard, first)  # noqa: E731
    monkeypatch.setattr(fit, "learn", lazy)
    with pytest.raises(AssertionError, match="not bit for bit"):
        check_rows_that_join_meet_the_refit(ShardedClassifier(DecisionTreeClassifier(), 3))


def test_new_rows_behind_the_old_ones_are_caught(monkeypatch):
    monkeypatch.setattr(
        shard.Shard,
        "added",
        lambda self, more, subjects: shard.Shard(
            np.r_[self.positions, more.positions],
            np.r_[self.hashes, more.hashes],
            shard.Table.added([self.table, more.table]),
            self.seed,
            self.stages,
        ),
    )
    with pytest.raises(AssertionError, match="not bit for bit"):
        check_rows_that_join_meet_the_refit(ShardedRegressor(Ridge(), 3))


def test_rekey_with_rows_in_the_order_they_came_is_caught(monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    mix = np.random.default_rng(0).permutation(len(y))
    ids = mix // 3

    def rekeyed():
        model = ShardedClassifier(SGD, 2).fit(X[:300], y[:300], ids=ids[:300])
        model.add(X[300:], y[300:], ids=ids[300:])
        return model.rekey()

    model = rekeyed()
    assert model.state_digest_ == digest_of_refit(model, X, y, ids)
    monkeypatch.setattr(fit, "by_subject_and_content", lambda ids, table: np.arange(len(ids)))
    model = rekeyed()
    monkeypatch.undo()
    assert model.state_digest_ != digest_of_refit(model, X, y, ids)
