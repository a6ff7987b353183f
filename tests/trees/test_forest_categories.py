"""Forests of categories: data frames in, any deletions equal to a refit, nothing left of a category without rows."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified._trees import forest, kernels_delete
from certified._trees.binning import category_codes
from certified._trees.categories import Categories
from certified.ensemble import ExtraTreesClassifier, RandomForestClassifier, RandomForestRegressor
from certified.errors import InvalidInput
from certified.tree import DecisionTreeClassifier


def table(seed, n, kinds):
    """A frame with text of few and of many values, nulls, numbers; three classes; subjects with several rows."""
    rng = np.random.default_rng(seed)
    town = rng.choice([f"town {k}" for k in range(kinds)], n).astype(object)
    town[rng.random(n) < 0.15] = None
    colour = rng.choice(["red", "green", "blue"], n).astype(object)
    frame = pl.DataFrame({"town": town.tolist(), "colour": colour.tolist(), "size": rng.standard_normal(n)})
    y = rng.integers(0, 3, n)
    y[:6] = [0, 1, 2, 0, 1, 2]
    ids = rng.permutation(np.arange(n) // rng.integers(1, 4))
    ids[:6] = 10_000 + np.arange(6)
    return frame, y, ids


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    kinds=st.sampled_from([2, 7, 60]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    large=st.sampled_from([1, 64]),
    model=st.sampled_from(
        [
            RandomForestClassifier(3, key=0),
            RandomForestClassifier(3, bootstrap=False, criterion="entropy", max_features=None, key=0),
            ExtraTreesClassifier(3, max_features=None, key=0),
            RandomForestRegressor(3, min_samples_leaf=2, key=0),
        ]
    ),
    lazy=st.booleans(),
)
def test_any_requests_end_at_a_refit(seed, kinds, sizes, large, model, lazy):
    frame, y, ids = table(seed, 90, kinds)
    rng = np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "_LARGE", large)
        patch.setattr(forest, "_SHARE", 10**9)
        live = clone(model).set_params(lazy=lazy).fit(frame, y, ids=ids)
        for request in np.split(rng.permutation(np.unique(ids[6:])), np.cumsum(sizes))[:-1]:
            if request.size:
                live.delete(request)
    retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
    again = clone(model).fit(frame[retained], y[retained], ids=ids[retained])
    assert live.state_digest_ == again.state_digest_
    assert np.array_equal(live.predict(frame), again.predict(frame))  # rows with categories that are gone included


def test_nothing_is_left_of_a_category_without_rows_and_it_is_read_as_missing():
    frame, y, ids = table(0, 400, 5)
    ids = np.arange(400)
    rare = frame.with_columns(town=pl.when(pl.Series(ids == 200)).then(pl.lit("Atlantis")).otherwise("town"))
    model = RandomForestClassifier(8, bootstrap=False, max_features=None, key=0).fit(rare, y, ids=ids)
    asked = rare[200:201]
    missing = asked.with_columns(town=pl.lit(None, dtype=pl.String))
    assert not np.array_equal(model.predict_proba(asked), model.predict_proba(missing))
    model.delete([200])
    refit = clone(model).fit(rare.filter(ids != 200), y[ids != 200], ids=ids[ids != 200])
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.predict_proba(asked), model.predict_proba(missing))
    assert b"Atlantis" not in pickle.dumps(model)
    assert b"Atlantis" not in pickle.dumps(model.release())
    assert b"town 1" in pickle.dumps(model.release())  # what rows have is named
    assert pickle.loads(pickle.dumps(model)).state_digest_ == refit.state_digest_


def test_the_order_of_rows_the_frame_and_the_type_do_not_matter():
    frame, y, ids = table(1, 200, 9)
    model = RandomForestClassifier(4, key=0)
    first = clone(model).fit(frame, y, ids=ids)
    order = np.random.default_rng(0).permutation(200)
    as_pandas = frame.to_pandas().iloc[order]
    others = [
        clone(model).fit(as_pandas, y[order], ids=ids[order]),
        clone(model).fit(as_pandas.astype({"town": "category"}), y[order], ids=ids[order]),
        clone(model).fit(frame.to_arrow(), y, ids=ids),
        clone(model).set_params(categorical_features=["town", "colour"]).fit(frame, y, ids=ids),
        clone(model).set_params(categorical_features=[True, True, False]).fit(frame, y, ids=ids),
        clone(model).set_params(categorical_features=[0, 1]).fit(frame, y, ids=ids),
    ]
    assert {other.state_digest_ for other in others} == {first.state_digest_}


def test_numbers_can_be_categories():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 40, (600, 2)).astype(float)
    y = np.isin(X[:, 0], rng.permutation(40)[:20]).astype(int)  # a set of numbers without order
    model = DecisionTreeClassifier(max_depth=6, categorical_features=[0], key=0).fit(X, y)
    assert model.score(X, y) > DecisionTreeClassifier(max_depth=3, key=0).fit(X, y).score(X, y)
    model.delete(np.flatnonzero(X[:, 0] == 3.0))
    X_new = np.array([[3.0, 1.0], [np.nan, 1.0]])
    assert len(np.unique(model.predict_proba(X_new), axis=0)) == 1


def test_sets_of_categories_are_found_where_they_matter():
    rng = np.random.default_rng(0)
    names = np.array([f"n{k}" for k in range(60)])
    good = rng.random(60) < 0.5
    which = rng.integers(0, 60, 6000)
    frame = pd.DataFrame({"name": names[which], "noise": rng.standard_normal(6000)})
    y = (good[which] ^ (rng.random(6000) < 0.1)).astype(int)
    model = RandomForestClassifier(40, max_depth=12, key=0).fit(frame[:4000], y[:4000])
    assert model.score(frame[4000:], y[4000:]) > 0.87  # 0.9 is the best possible
    assert model.feature_importances_[0] > 0.5


RELEASED = [
    RandomForestClassifier(5, key=0),
    RandomForestClassifier(5, bootstrap=False, max_features=None, min_samples_leaf=3, key=0),
    ExtraTreesClassifier(4, max_features=None, key=0),
    RandomForestRegressor(4, min_samples_leaf=2, key=0),
    DecisionTreeClassifier(max_depth=6, key=0),
]


def said(model, X):
    return model.predict_proba(X) if hasattr(model, "predict_proba") else model.predict(X)


@pytest.mark.parametrize("model", RELEASED, ids=str)
def test_a_release_is_plain_and_says_the_same_of_every_frame(model):
    frame, y, ids = table(4, 300, 30)
    gap = np.random.default_rng(0).random(300) < 0.2
    frame = frame.with_columns(size=pl.when(pl.Series(gap)).then(None).otherwise("size"))
    model = clone(model).fit(frame, y, ids=ids)
    model.delete(np.unique(ids[6:])[:40])
    out = pickle.loads(pickle.dumps(model.release()))
    assert all(type(step).__module__.startswith("sklearn.") for step in [out, *out.named_steps.values()])
    assert b"certified" not in pickle.dumps(out)
    new = frame.with_columns(town=pl.when(pl.Series(gap)).then(pl.lit("elsewhere")).otherwise("town"))
    for asked in (frame, new):
        truth = said(model, asked)
        for form in (asked, asked.to_pandas(), asked.to_pandas().astype({"town": "category"})):
            assert np.allclose(said(out, form), truth, rtol=1e-12)
    assert np.array_equal(model.apply(frame).ravel(), out[-1].apply(out[0].transform(frame)).ravel())
    assert model.feature_importances_.shape == (3,)
    assert np.isclose(model.feature_importances_.sum(), 1.0)


def test_numbers_as_categories_are_released_from_arrays():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 12, (400, 3)).astype(float)
    X[rng.random(X.shape) < 0.1] = np.nan
    y = (np.isin(X[:, 1], [1.0, 4.0, 7.0, 11.0]) ^ (X[:, 0] > 6)).astype(int)
    model = RandomForestClassifier(6, categorical_features=[1], key=0).fit(X, y)
    model.delete(np.flatnonzero(X[:, 1] == 4.0))
    assert np.allclose(model.release().predict_proba(X), model.predict_proba(X), rtol=1e-12)
    votes = model.release(leaves="votes").predict_proba(X)
    assert np.all(np.isin(np.round(votes * 6, 9), np.arange(7)))


def test_what_a_release_knows_of_categories_is_that_of_a_refit():
    frame, y, _ = table(5, 200, 40)
    live = RandomForestClassifier(3, key=0).fit(frame, y, ids=np.arange(200))
    live.delete(np.arange(50, 150))
    retained = np.r_[0:50, 150:200]
    again = RandomForestClassifier(3, key=0).fit(frame[retained], y[retained], ids=retained)
    live.add(frame[50:60], y[50:60], ids=np.arange(50, 60))
    again.add(frame[50:60], y[50:60], ids=np.arange(50, 60))
    for one, other in zip(live.release()[0].transformers_, again.release()[0].transformers_, strict=True):
        assert pickle.dumps(getattr(one[1], "categories_", 0)) == pickle.dumps(getattr(other[1], "categories_", 0))
        assert np.array_equal(
            np.concatenate(getattr(one[1], "encodings_", [[0.0]])),
            np.concatenate(getattr(other[1], "encodings_", [[0.0]])),
        )


def test_what_cannot_be_done_with_categories_is_refused():
    frame, y, ids = table(2, 100, 4)
    model = RandomForestClassifier(3, key=0).fit(frame, y, ids=ids)
    with pytest.raises(InvalidInput, match="text in column 0"):
        RandomForestClassifier(3, categorical_features=["colour"], key=0).fit(frame, y)
    with pytest.raises(InvalidInput, match="does not fit"):
        RandomForestClassifier(3, categorical_features=["weight"], key=0).fit(frame, y)
    with pytest.raises(ValueError, match="had text"):
        model.predict(frame.with_columns(town=pl.lit(1.0)))


def test_rows_with_new_categories_join():
    frame, y, _ = table(3, 120, 8)
    model = RandomForestClassifier(4, key=0)
    live = clone(model).fit(frame[:80], y[:80], ids=np.arange(80))
    live.add(frame[80:], y[80:], ids=np.arange(80, 120))
    assert live.state_digest_ == clone(model).fit(frame, y, ids=np.arange(120)).state_digest_


def test_an_order_of_categories_that_depends_on_history_is_caught(monkeypatch):
    honest = kernels_delete.delete_all

    def drifting(*args):
        out = honest(*args)
        nodes = args[10]
        nodes["path"][nodes["missing"] >= 4] += np.uint64(1)
        return out

    monkeypatch.setattr(forest.kernels_delete, "delete_all", drifting)
    caught = 0
    for seed in range(3):
        frame, y, _ = table(seed, 200, 20)
        ids = np.arange(200)
        live = RandomForestClassifier(4, bootstrap=False, max_features=None, key=0).fit(frame, y, ids=ids)
        live.delete([100])
        live.delete([101])
        retained = ~np.isin(ids, [100, 101])
        again = clone(live).fit(frame.filter(retained), y[retained], ids=ids[retained])
        caught += live.state_digest_ != again.state_digest_
    assert caught


# ------------------------------------------------------------------- codes


def test_no_two_categories_share_a_code_whatever_their_names_are():
    names = [f"shop {k}" for k in range(3_000)]
    found = category_codes(names, "test")
    assert np.unique(found).size == len(names)
    assert found.max() <= 65_534
    order = np.random.default_rng(0).permutation(len(names))
    assert np.array_equal(category_codes([names[k] for k in order], "test"), found[order])  # of the set alone
    numbers = [float(2**53 - 1), float(2**53 - 2), 0.1, 0.1 + 2.0**-55, -1.0]
    assert np.unique(category_codes(numbers, "test")).size == len(set(numbers))
    with pytest.raises(InvalidInput, match="Join rare ones"):
        category_codes([f"{k}" for k in range(65_536)], "RandomForestClassifier")


def test_a_forest_tells_any_two_categories_apart():
    rng = np.random.default_rng(9)
    names, good, which = (
        np.array([f"shop{k}" for k in range(600)]),
        rng.integers(0, 2, 600),
        np.repeat(np.arange(600), 8),
    )
    model = RandomForestClassifier(20, bootstrap=False, max_features=1.0, n_thresholds=256, key=1)
    model.fit(pd.DataFrame({"shop": names[which]}), good[which])
    assert np.array_equal(model.predict(pd.DataFrame({"shop": names})), good)


def displaced():
    """Return two names, of which the second has the code of the first once the first is gone."""
    names = [f"n{k}" for k in range(2_000)]
    alone = np.array([category_codes([name], "test")[0] for name in names])
    together = category_codes(names, "test")
    second = int(np.flatnonzero(alone != together)[0])
    first = int(np.flatnonzero((alone == alone[second]) & (alone == together))[0])
    return names[first], names[second]


def with_displaced():
    """Return a frame in which one row has a category that displaces another, targets and the forest."""
    first, second = displaced()
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"name": [first, *rng.choice([second, "a", "b", "c"], 199).tolist()]})
    return frame, rng.integers(0, 2, 200), RandomForestClassifier(4, bootstrap=False, key=2)


def test_a_category_takes_its_own_code_when_the_one_before_it_goes():
    frame, y, model = with_displaced()
    live = clone(model).fit(frame, y)
    live.delete([0])
    again = clone(model).fit(frame[1:], y[1:], ids=np.arange(1, 200))
    assert live.state_digest_ == again.state_digest_
    assert np.array_equal(live.predict_proba(frame), again.predict_proba(frame))
    assert np.array_equal(live.release().predict_proba(frame), again.predict_proba(frame))
    live.delete([1, 2, 3])
    retained = np.arange(4, 200)
    assert live.state_digest_ == clone(model).fit(frame[4:], y[4:], ids=retained).state_digest_


def test_a_code_that_remembers_a_deleted_category_is_caught(monkeypatch):
    frame, y, model = with_displaced()
    live = clone(model).fit(frame, y)
    honest = Categories.without
    monkeypatch.setattr(Categories, "without", lambda self, rows: honest(self, rows)._replace(moved=False))
    live.delete([0])
    assert live.state_digest_ != clone(model).fit(frame[1:], y[1:], ids=np.arange(1, 200)).state_digest_


class Marked(str):
    """Text that carries something else."""


def test_nothing_of_a_row_stays_in_the_names_of_categories():
    table = np.array([["a"], ["b"]] * 20, dtype=object)
    table[0, 0] = Marked("a")
    model = RandomForestClassifier(3, key=0).fit(table, np.arange(40) % 2)
    assert {type(value) for value in model._labels.held(0).tolist()} == {str}
    numbers = np.array([[-0.0], [1.0]] + [[0.0], [1.0]] * 19)
    signed = RandomForestClassifier(3, categorical_features=[0], key=0).fit(numbers, np.arange(40) % 2)
    assert not np.signbit(signed._labels.held(0)).any()


@pytest.mark.parametrize("values", [["yes", "no"], ["yes", "no", "maybe"], ["a", "b", "c", "d", "e"], [None]])
def test_a_release_of_any_number_of_categories_says_what_its_keeper_says(values):
    rng = np.random.default_rng(1)
    frame = pl.DataFrame({"c": pl.Series(rng.choice(np.array(values, object), 60).tolist(), dtype=pl.String)})
    y = rng.integers(0, 2, 60)
    model = RandomForestClassifier(4, key=0).fit(frame, y)
    asked = pl.DataFrame({"c": [*values, "new", None]}, schema={"c": pl.String})
    for X in (asked, asked.to_pandas()):
        assert np.allclose(model.release().predict_proba(X), model.predict_proba(asked), rtol=1e-12)


def test_text_in_an_array_is_read_as_categories():
    table = np.array([["Bern", 1.5], ["Basel", 2.5], ["Bern", 3.5]] * 20, dtype=object)
    y = np.arange(60) % 3 % 2
    model = RandomForestClassifier(8, key=0).fit(table, y)
    assert model.score(table, y) == 1.0
    assert np.allclose(model.release().predict_proba(table), model.predict_proba(table))
    as_frame = RandomForestClassifier(8, key=0).fit(pd.DataFrame(table, columns=["a", "b"]).astype({"b": float}), y)
    assert np.array_equal(model.predict_proba(table), as_frame.predict_proba(pd.DataFrame(table, columns=["a", "b"])))


def test_integers_that_would_become_one_category_are_refused():
    for large in (2**53, 2**60):
        for kind in (object, np.int64):
            table = np.array([[large], [large + 1]] * 20, dtype=kind)
            with pytest.raises(InvalidInput, match=r"2\*\*53"):
                RandomForestClassifier(3, categorical_features=[0], key=0).fit(table, np.arange(40) % 2)
