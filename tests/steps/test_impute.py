"""Imputers agree with scikit-learn where the definition is the same, and with a refit bit for bit always."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.impute as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified.compose import make_column_transformer
from certified.errors import InvalidInput, InvalidRequest
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler

IMPUTERS = [
    SimpleImputer(strategy=strategy, add_indicator=add, keep_empty_features=keep, sample_size=6, key=7)
    for strategy in ("mean", "median", "most_frequent", "constant")
    for add, keep in ((False, False), (True, True))
]
VALUES = st.sampled_from([np.nan, np.nan, -0.0, 0.0, 1.0, 2.5, -1e3, 1e-3])


@pytest.mark.parametrize("imputer", IMPUTERS, ids=str)
@settings(max_examples=60)
@given(data=st.data(), n=st.integers(5, 24))
def test_any_sequence_of_deletions_has_the_state_of_a_refit_in_any_order(imputer, data, n):
    X = np.array(data.draw(st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=n, max_size=n)))
    X[0, 0] = 1.0  # subject 0 stays, so that something is observed
    ids = np.array(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)))
    ids[0] = 0
    model = clone(imputer).fit(X, ids=ids)
    for subject in data.draw(st.permutations(np.unique(ids[ids > 0]).tolist()))[:8]:
        model.delete([subject])
    retained = data.draw(st.permutations(np.flatnonzero(np.isin(ids, model.ids_)).tolist()))
    refit = clone(imputer).fit(X[retained], ids=ids[retained])
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.transform(X), refit.transform(X))
    assert not np.isnan(model.transform(X)).any()


@pytest.mark.parametrize("imputer", IMPUTERS, ids=str)
def test_outputs_agree_with_scikit_learn(imputer):
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((200, 4)) * 8) * 0.5
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 2], X[:, 3] = np.nan, np.nan_to_num(X[:, 3])
    ours = clone(imputer).set_params(sample_size=10_000).fit(X)
    names = ("strategy", "add_indicator", "keep_empty_features")
    theirs = plain.SimpleImputer(**{name: getattr(imputer, name) for name in names}).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn says that it skips features
        a, b, c = ours.transform(X), theirs.transform(X), ours.release().transform(X)
    assert np.array_equal(a, c)
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    if imputer.strategy == "mean":  # ours is rounded to a quarter of a scale within sqrt(2) of the deviation
        spread = np.nanstd(X[:, :2], axis=0)
        assert np.all(np.abs(a - b)[:, :2] <= spread * np.sqrt(2) / 8 + 1e-12)
    else:
        assert np.array_equal(a, b)


def test_the_mean_is_that_of_the_observed_values():
    X = np.array([[100.0, np.nan], [104.0, 3.0], [np.nan, 5.0], [np.nan, 7.0], [96.0, 9.0]])
    assert SimpleImputer().fit(X).statistics_.tolist() == [100.0, 6.0]


def test_an_imputer_that_keeps_a_deleted_mode_is_caught():
    class Stale(SimpleImputer):
        def _subtract(self, statistic, removed):
            return statistic

    X = np.array([[1.0], [2.0], [2.0]])
    stale, refit = Stale(strategy="most_frequent").fit(X), SimpleImputer(strategy="most_frequent").fit(X[:-1])
    stale.delete([2])
    assert stale.state_digest_ != refit.state_digest_
    assert stale.statistics_ != refit.statistics_


@pytest.mark.parametrize("head", [Ridge(), LogisticRegression(noise=0)], ids=str)
@pytest.mark.parametrize("strategy", ["mean", "median"])
def test_a_pipeline_takes_missing_values_and_forgets_that_they_were_missing(head, strategy):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((80, 3))
    y = (X[:, 0] + rng.standard_normal(80) > 0).astype(float)
    X[[5, 6], 1], X[9, 2] = np.nan, np.nan
    imputer = SimpleImputer(strategy=strategy, add_indicator=True)
    model = make_pipeline(imputer, StandardScaler(), head).fit(X, y)
    model.delete([5])  # the indicator of feature 1 stays with row 6
    assert model.steps_[1][1].n_features_in_ == 5
    assert "simpleimputer" in model.delete([6]).changed  # and goes with it
    retained = np.setdiff1d(np.arange(80), [5, 6])
    refit = make_pipeline(imputer, StandardScaler(), head).fit(X[retained], y[retained], ids=retained)
    for (_, ours), (_, fresh) in zip(model.steps_[:-1], refit.steps_[:-1], strict=True):
        assert ours.state_digest_ == fresh.state_digest_
        assert ours.n_features_in_ == fresh.n_features_in_
    np.testing.assert_allclose(model.private_coef_, refit.private_coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.release().predict(X), model.predict(X))


def test_missing_values_are_refused_where_no_step_takes_them():
    X = np.array([[1.0], [np.nan], [3.0]])
    with pytest.raises(ValueError, match="NaN"):
        make_pipeline(StandardScaler(), Ridge()).fit(X, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="infinite"):
        SimpleImputer().fit([[np.inf], [1.0]])


def test_a_deletion_that_leaves_nothing_observed_is_refused_and_changes_nothing():
    X = np.array([[1.0], [np.nan], [np.nan]])
    model = SimpleImputer().fit(X)
    before = model.state_digest_
    with pytest.raises(InvalidInput, match="keep_empty_features"):
        model.delete([0])
    assert model.state_digest_ == before
    assert model.n_rows_ == 3
    model = make_pipeline(SimpleImputer(), Ridge()).fit(X, [1.0, 2.0, 3.0], sample_weight=[1.0, 0.0, 0.0])
    with pytest.raises(InvalidRequest, match="weight 0"):
        model.delete([0])


@pytest.mark.parametrize(
    "wrong",
    [SimpleImputer(strategy="mode"), SimpleImputer(fill_value=np.nan), SimpleImputer(sample_size=0, key=7)],
    ids=str,
)
def test_parameters_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(InvalidInput, match="not allowed"):
        wrong.fit([[1.0], [2.0]])


TEXT = [
    SimpleImputer(strategy=strategy, add_indicator=add, keep_empty_features=add, key=7)
    for strategy in ("most_frequent", "constant")
    for add in (False, True)
]
WORDS = st.sampled_from([None, "Rome", "Oslo", "Bern", ""])


@pytest.mark.parametrize("imputer", TEXT, ids=str)
@settings(max_examples=30)
@given(data=st.data(), n=st.integers(4, 14))
def test_text_forgets_in_any_sequence_and_order(imputer, data, n):
    rows = data.draw(st.lists(st.tuples(WORDS, st.sampled_from([None, 1.0, 2.0]), WORDS), min_size=n, max_size=n))
    rows[0] = ("Rome", 1.0, None)
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.Float64, "c": pl.String}, orient="row")
    ids = np.array([0, *data.draw(st.lists(st.integers(0, 6), min_size=n - 1, max_size=n - 1))])
    model = clone(imputer).fit(frame, ids=ids)
    for subject in data.draw(st.permutations(np.unique(ids[ids > 0]).tolist()))[:5]:
        model.delete([subject])
    retained = data.draw(st.permutations(np.flatnonzero(np.isin(ids, model.ids_)).tolist()))
    refit = clone(imputer).fit(frame[retained], ids=ids[retained])
    assert model.state_digest_ == refit.state_digest_
    out = model.transform(frame)
    assert np.array_equal(out, refit.transform(frame))
    assert None not in out.ravel().tolist()
    assert np.array_equal(model.release().transform(frame), out)


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_text_is_filled_as_by_scikit_learn(make, strategy):
    rng = np.random.default_rng(0)
    words = np.array(["Rome", "Oslo", "Bern", None], dtype=object)
    frame = make({"a": rng.choice(words, 60).tolist(), "b": rng.choice(words, 60, p=[0.1, 0.1, 0.7, 0.1]).tolist()})
    ours = SimpleImputer(strategy=strategy, add_indicator=True).fit(frame)
    missing = None if make is pl.DataFrame else np.nan
    theirs = plain.SimpleImputer(strategy=strategy, add_indicator=True, missing_values=missing)
    if make is pd.DataFrame:
        frame = frame.astype(object).where(frame.notna(), np.nan)
    wanted = theirs.fit_transform(frame)
    assert np.array_equal(ours.transform(frame), wanted)
    assert np.array_equal(ours.release().transform(frame), wanted)
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    if make is pd.DataFrame:  # numbers and text together
        both = frame.assign(n=np.where(rng.random(60) < 0.2, np.nan, rng.integers(0, 3, 60)))
        ours = SimpleImputer(strategy=strategy, add_indicator=True).fit(both)
        assert np.array_equal(ours.transform(both), ours.release().transform(both))


def test_filled_text_goes_on_to_an_encoder_and_is_forgotten():
    frame = pl.DataFrame({"city": ["Rome", "Rome", None, "Oslo", "Oslo", "Reykjavik", None], "n": range(7)})
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["city"]), remainder="passthrough"
    )
    model = make_pipeline(columns, Ridge()).fit(frame, np.arange(7.0))
    assert model.steps_[0][1].transform(frame)[2, :3].tolist() == [1.0, 0.0, 0.0]  # Oslo, the smaller of two
    model.delete([3, 5])
    assert model.steps_[0][1].transform(frame[[2]])[0, :2].tolist() == [0.0, 1.0]
    assert b"Reykjavik" not in pickle.dumps(model)
    rest = [0, 1, 2, 4, 6]
    assert model.state_digest_ == make_pipeline(columns, Ridge()).fit(frame[rest], np.array(rest)).state_digest_


def test_text_that_cannot_be_filled_is_refused():
    frame = pl.DataFrame({"a": ["Rome", None], "b": [1.0, None]})
    with pytest.raises(InvalidInput, match="column 0 of text"):
        SimpleImputer().fit(frame)
    with pytest.raises(InvalidInput, match="column 1, which holds numbers"):
        SimpleImputer(strategy="constant", fill_value="none").fit(frame)
    with pytest.raises(InvalidInput, match="column 0, which holds text"):
        SimpleImputer(strategy="constant", fill_value=-1.0).fit(frame)


MARKED = [(-999.0, "mean"), (0, "median"), (0, "most_frequent"), (-1, "constant")]


@pytest.mark.parametrize(("marker", "strategy"), MARKED)
@pytest.mark.parametrize("keep", [True, False])
def test_a_number_may_stand_for_what_is_missing(marker, strategy, keep):
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((120, 3)) * 8) + 0.5
    gaps = rng.random(X.shape) < 0.3
    gaps[:, 2] = True
    X[gaps] = marker
    given = {"strategy": strategy, "add_indicator": True, "keep_empty_features": keep}
    ours = SimpleImputer(missing_values=marker, **given).fit(X)
    theirs = plain.SimpleImputer(missing_values=marker, **given).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn says that it skips features
        got, wanted = ours.transform(X), theirs.transform(X)
        assert np.array_equal(ours.release().transform(X), got)
    assert got.shape == wanted.shape
    if strategy in ("mean", "median"):
        assert np.abs(got - wanted).max() < 3.0  # rounded
    else:
        assert np.array_equal(got, wanted)
    nan = SimpleImputer(**given).fit(np.where(gaps, np.nan, X))
    same = nan.transform(np.where(gaps, np.nan, X))
    assert np.abs(same - got).max() < (1.5 if strategy == "median" else 1e-12)  # a median is no marker
    ours.delete(range(60))
    refit = SimpleImputer(missing_values=marker, **given).fit(X[60:], ids=np.arange(60, 120))
    assert ours.state_digest_ == refit.state_digest_


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame])
def test_text_may_stand_for_what_is_missing(make):
    frame = make({"a": ["?", "Rome", "Rome", "Oslo"], "b": ["Bern", "?", "?", "Bern"]})
    model = SimpleImputer(missing_values="?", strategy="most_frequent", add_indicator=True).fit(frame)
    wanted = plain.SimpleImputer(missing_values="?", strategy="most_frequent", add_indicator=True).fit_transform(frame)
    assert np.array_equal(model.transform(frame), wanted)
    assert np.array_equal(model.release().transform(frame), wanted)
    model.delete([1, 2])
    assert model.transform(frame)[:, 0].tolist() == ["Oslo", "Rome", "Rome", "Oslo"]


@pytest.mark.parametrize(
    ("parameters", "frame", "match"),
    [
        ({"missing_values": -1}, [[np.nan], [1.0]], "values in one way"),
        ({"missing_values": "?", "strategy": "most_frequent"}, pl.DataFrame({"a": ["?", None]}), "in one way"),
        ({"missing_values": "?"}, [[1.0], [2.0]], "both numerical or both text"),
        ({"missing_values": -1, "strategy": "most_frequent"}, pl.DataFrame({"a": ["x", "y"]}), "both numerical"),
        ({"missing_values": [1]}, [[1.0], [2.0]], "a number or text"),
        ({"missing_values": -1, "strategy": "constant", "fill_value": -1}, [[1.0], [2.0]], "filled with itself"),
    ],
)
def test_what_stands_for_missing_values_is_checked(parameters, frame, match):
    with pytest.raises(InvalidInput, match=match):
        SimpleImputer(**parameters).fit(frame)
