"""A released booster says what its keeper says: labels, names, importances, in every container, by itself."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import BaggingClassifier, BaggingRegressor

from certified.audit import utility
from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from certified.ensemble._boosting import estimators, structure
from certified.ensemble._boosting.cuts import _near, rounded
from certified.errors import InvalidInput
from certified.model_selection import GridSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

NAMES = ["income", "debt [k]", "age", "<rate>"]
RNG = np.random.default_rng(0)
N = 700
X = RNG.normal(size=(N, 4))
Z = X[:, 0] - 2 * X[:, 1]
X[RNG.random(X.shape) < 0.1] = np.nan
SMALL = {"key": 0, "n_estimators": 6, "max_depth": 3, "sample_size": 300, "noise": 0.02}
LABELS = {
    "0, 1": (0, 1),
    "1, 2": (1, 2),
    "-1, 1": (-1, 1),
    "text": ("good", "bad"),
    "booleans": (False, True),
    "three": ("a", "b", "c"),
    "three numbers": (2, 4, 9),
}
CONTAINERS = {
    "pandas": lambda names, X: pd.DataFrame(X, columns=names),
    "pandas of objects": lambda names, X: pd.DataFrame(X, columns=names).astype(object),
    "pandas, nullable": lambda names, X: pd.DataFrame(X, columns=names).astype("Float64"),
    "polars": lambda names, X: pl.DataFrame(X, schema=names).fill_nan(None),
    "pyarrow": lambda names, X: pl.DataFrame(X, schema=names).to_arrow(),
}


def targets(labels):
    return np.array(labels)[np.digitize(Z, [0.0] if len(labels) == 2 else [-1.0, 1.0])]


@pytest.fixture(scope="module", params=["1, 2", "text", "three"])
def named(request):
    """A keeper fitted on a frame, with each kind of labels."""
    frame = pd.DataFrame(X, columns=NAMES)
    return GradientBoostingClassifier(**SMALL).fit(frame, targets(LABELS[request.param]))


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_release_reads_every_frame_as_its_keeper_does_or_refuses_it(named, container):
    make, out = CONTAINERS[container], named.release()
    wanted = named.predict_proba(make(NAMES, X))
    try:
        found = out.predict_proba(make(NAMES, X))
    except (ValueError, TypeError):
        assert container in ("pandas of objects", "pandas, nullable")  # refused, not read otherwise
    else:
        assert np.allclose(found, wanted, atol=1e-6)
        assert np.array_equal(out.predict(make(NAMES, X)), named.predict(make(NAMES, X)))
    other = [2, 0, 3, 1]
    for names, columns in (
        ([NAMES[j] for j in other], X[:, other]),
        ([*NAMES, "more"], np.c_[X, Z]),
        (NAMES[:3], X[:, :3]),
    ):
        with pytest.raises(ValueError, match="feature"):
            out.predict(make(names, columns))


@pytest.mark.parametrize("kind", LABELS)
def test_a_release_of_arrays_keeps_its_labels(kind):
    y = targets(LABELS[kind])
    model = GradientBoostingClassifier(**SMALL).fit(X, y)
    model.delete([3])
    out = model.release()
    assert isinstance(out, xgboost.XGBClassifier if kind == "0, 1" else BaggingClassifier)
    assert np.array_equal(out.classes_, model.classes_)
    for given_X in (X, X.tolist()):
        found = out.predict(given_X) if kind != "0, 1" else out.predict(np.array(given_X))
        assert np.array_equal(found, model.predict(X))
        assert found.dtype == model.predict(X).dtype or kind == "0, 1"
    assert np.allclose(out.predict_proba(X), model.predict_proba(X), atol=1e-6)
    assert np.array_equal(out.feature_importances_, model.feature_importances_.astype(np.float32))
    assert out.feature_importances_.sum() == pytest.approx(1.0)
    assert out.feature_importances_[:2].sum() > 0.5
    bare = model.release(bare=True)
    assert isinstance(bare, xgboost.XGBClassifier)
    assert np.array_equal(out.get_booster().save_raw("json"), bare.get_booster().save_raw("json"))
    assert out.score(X, y) == model.score(X, y)


def test_labels_go_through_pipelines_and_searches():
    y = targets(("good", "bad"))
    pipeline = make_pipeline(StandardScaler(), GradientBoostingClassifier(**SMALL))
    search = GridSearchCV(GradientBoostingClassifier(**SMALL), {"max_depth": [2, 3]}, cv=2)
    for model in (pipeline, search):
        whole = np.nan_to_num(X)
        model.fit(whole, y)
        assert np.array_equal(model.release().predict(whole), model.predict(whole))


def test_a_regressor_and_a_saved_model_keep_their_names(tmp_path):
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(X, columns=names)
    model = GradientBoostingRegressor(**SMALL).fit(frame, Z)
    out = model.release()
    assert isinstance(out, BaggingRegressor)
    assert np.allclose(out.predict(frame), model.predict(frame), atol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        out.predict(frame[names[::-1]])
    out.save_model(tmp_path / "model.ubj")
    back = xgboost.XGBRegressor()
    back.load_model(tmp_path / "model.ubj")
    assert np.allclose(back.predict(frame), model.predict(frame), atol=1e-6)
    back.importance_type = "total_gain"
    assert np.array_equal(back.feature_importances_, out.feature_importances_)
    with pytest.raises(ValueError, match="feature_names mismatch"):
        back.predict(frame[names[::-1]])


def test_a_release_with_labels_and_names_is_loaded_without_this_package(named, tmp_path):
    frame = pd.DataFrame(X, columns=NAMES)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps((named.release(), frame, named.predict(frame))))
    code = (
        "import pickle, sys; sys.modules.update(dict.fromkeys(('certified', 'jax', 'numba'), None))\n"
        "model, frame, wanted = pickle.load(open(sys.argv[1], 'rb'))\n"
        "assert (model.predict(frame) == wanted).all()"
    )
    if len(named.classes_) == 2 and named.classes_.dtype.kind == "U":
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pkl")], check=True)
    text = (tmp_path / "model.pkl").read_bytes()
    assert b"certified" not in text


@pytest.mark.parametrize("labels", [(1, 2), ("bad", "good")], ids=str)
def test_a_guard_sees_a_ruined_model_whatever_its_labels(labels):
    y = targets(labels)
    good, ruined = (
        GradientBoostingClassifier(**{**SMALL, "noise": noise}).fit(X, y).release() for noise in (0.02, 300.0)
    )
    assert utility(good, ruined, X, y).refuted
    assert not utility(good, good, X, y).refuted


def test_a_release_without_labels_is_caught(monkeypatch):
    monkeypatch.setattr(estimators, "labelled", lambda bare, model: bare)
    with pytest.raises(AssertionError):
        test_a_release_of_arrays_keeps_its_labels("text")


# ----------------------------------------------------------------------------------------------------------- cuts


def cuts_of(model):
    for tree in model["learner"]["gradient_booster"]["model"]["trees"]:
        for node, left in enumerate(tree["left_children"]):
            if left != -1 and tree["split_type"][node] == 0:
                yield tree["split_indices"][node], float(np.float32(tree["split_conditions"][node]))


def check_cuts(model, rows):
    known = [set(np.float32(rows[:, j]).tolist()) for j in range(rows.shape[1])]
    found = list(cuts_of(json.loads(model.release(bare=True).get_booster().save_raw("json"))))
    assert found
    assert not [cut for j, cut in found if cut in known[j]], "a cut is a value of a sampled row"


SHAPES = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: np.exp(4 * rng.normal(size=size)),
    "whole numbers": lambda rng, size: rng.integers(-30, 30, size).astype(float),
    "two scales": lambda rng, size: np.where(rng.random(size) < 0.4, 9_999_999.0, rng.normal(size=size)),
    "tiny": lambda rng, size: 1e-30 * rng.normal(size=size),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n", [300, 2500])
def test_no_released_cut_is_a_value_of_a_sampled_row(shape, n):
    rng = np.random.default_rng(n)
    rows = SHAPES[shape](rng, (n, 3))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    y = (np.nan_to_num(rows[:, 0]) + np.nanstd(rows[:, 0]) * rng.normal(size=n) > np.nanmedian(rows[:, 0])).astype(int)
    check_cuts(GradientBoostingClassifier(12, max_depth=3, sample_size=n).fit(rows, y), rows)


def test_cuts_as_xgboost_makes_them_are_caught(monkeypatch):
    monkeypatch.setattr(structure, "rounded", lambda model, X: model)
    with pytest.raises(AssertionError, match="value of a sampled row"):
        test_no_released_cut_is_a_value_of_a_sampled_row("normal", 300)


@given(
    values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=60, unique=True),
    where=st.integers(0, 60),
    between=st.booleans(),
)
def test_a_rounded_cut_parts_the_same_values_and_is_none_of_them(values, where, between):
    values = np.sort(np.array(values) + 0.0)
    values = np.unique(values)
    cut = float(values[where % len(values)])
    if between and where % len(values):
        cut = float(np.float32((cut + values[where % len(values) - 1]) / 2))
    found = _near(cut, values)
    assert np.array_equal(values < found, values < cut)
    assert float(np.float32(found)) == found
    gap = np.nextafter(np.float32(values[:-1]), np.float32(np.inf)) < np.float32(values[1:])
    assert found not in values or not gap.all()


def test_the_same_sample_gives_the_same_cuts_and_trees_of_the_sample_stay():
    rows = np.float32(np.nan_to_num(X))
    grown = xgboost.train({"max_depth": 4, "seed": 0}, xgboost.DMatrix(rows, label=Z), 10)
    plain = json.loads(grown.save_raw("json"))
    ours = rounded(json.loads(grown.save_raw("json")), rows[:500])  # distinct values: at most 512, nothing moves
    back = xgboost.Booster(model_file=bytearray(json.dumps(ours).encode()))
    same = xgboost.DMatrix(rows[:500])
    assert np.array_equal(back.predict(same, pred_leaf=True), grown.predict(same, pred_leaf=True))
    bits = [
        np.mean([len(bin(int(abs(np.frexp(c)[0]) * 2**24)).rstrip("0")) for _, c in cuts_of(m)]) for m in (ours, plain)
    ]
    assert [j for j, _ in cuts_of(ours)] == [j for j, _ in cuts_of(plain)]
    assert bits[0] < bits[1] - 5


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["north", "south"] * 150),
        pd.Categorical([1, 2] * 150),
        pd.Series(["a", "b"] * 150, dtype="str"),
        pd.Series(pd.date_range("2020", periods=300)),
    ],
    ids=["text categories", "number categories", "text", "dates"],
)
def test_a_column_that_is_no_number_is_refused_by_its_name(column):
    frame = pd.DataFrame({"x": np.arange(300.0), "town": column})
    y = np.arange(300) % 2
    model = GradientBoostingClassifier(**{**SMALL, "sample_size": 100})
    with pytest.raises(InvalidInput, match=r"'town'.*OrdinalEncoder.*Nothing was changed"):
        model.fit(frame, y)
    if isinstance(column, pd.Categorical) and column.categories.dtype.kind == "i":
        model.set_params(categorical_features=["town"]).fit(frame, y)
        assert np.allclose(model.release().predict_proba(frame), model.predict_proba(frame), atol=1e-6)


def test_a_structure_of_other_columns_is_refused_and_early_stopping_is_kept():
    names = ["a", "b", "c", "d"]
    frame, y = pd.DataFrame(X, columns=names), targets((0, 1))
    inner = xgboost.XGBClassifier(n_estimators=40, max_depth=2, early_stopping_rounds=2, learning_rate=1.0)
    inner.fit(frame[:300], y[:300], eval_set=[(frame[300:], y[300:])], verbose=False)
    assert inner.best_iteration + 1 < inner.get_booster().num_boosted_rounds()
    model = GradientBoostingClassifier.from_booster(inner, frame, y, noise=0.02)
    assert model.release(bare=True).get_booster().num_boosted_rounds() == inner.best_iteration + 1
    for given_model in (inner, inner.get_booster()):
        other = GradientBoostingClassifier(structure=given_model, noise=0.02)
        with pytest.raises(InvalidInput, match=r"trained on the columns.*same order.*Nothing was changed"):
            other.fit(frame[names[::-1]], y)
    GradientBoostingClassifier.from_booster(inner, X, y, noise=0.02)  # an array has no names
