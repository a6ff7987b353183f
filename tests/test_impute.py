"""Imputers agree with scikit-learn where the definition is the same, and with a refit bit for bit always."""

import warnings

import numpy as np
import pytest
import sklearn.impute as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified.errors import InvalidInput, InvalidRequest
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

IMPUTERS = [
    SimpleImputer(strategy=strategy, add_indicator=add, keep_empty_features=keep, max_subjects=6)
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
    kept = data.draw(st.permutations(np.flatnonzero(np.isin(ids, model.ids_)).tolist()))
    refit = clone(imputer).fit(X[kept], ids=ids[kept])
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.transform(X), refit.transform(X))
    assert not np.isnan(model.transform(X)).any()


@pytest.mark.parametrize("imputer", IMPUTERS, ids=str)
def test_outputs_agree_with_scikit_learn(imputer):
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((200, 4)) * 8) * 0.5
    X[rng.random(X.shape) < 0.3] = np.nan
    X[:, 2], X[:, 3] = np.nan, np.nan_to_num(X[:, 3])
    ours = clone(imputer).set_params(max_subjects=10_000).fit(X)
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
        def _discount(self, statistic, removed):
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
    kept = np.setdiff1d(np.arange(80), [5, 6])
    refit = make_pipeline(imputer, StandardScaler(), head).fit(X[kept], y[kept], ids=kept)
    for (_, ours), (_, fresh) in zip(model.steps_[:-1], refit.steps_[:-1], strict=True):
        assert ours.state_digest_ == fresh.state_digest_
        assert ours.n_features_in_ == fresh.n_features_in_
    np.testing.assert_allclose(model.private_coef_, refit.private_coef_, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.release().predict(X), model.predict(X))


def test_missing_values_are_refused_where_no_step_takes_them():
    X = np.array([[1.0], [np.nan], [3.0]])
    with pytest.raises(ValueError, match="NaN"):
        make_pipeline(StandardScaler(), Ridge()).fit(X, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="infinity"):
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
    [SimpleImputer(strategy="mode"), SimpleImputer(fill_value=np.nan), SimpleImputer(max_subjects=0)],
    ids=str,
)
def test_parameters_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(InvalidInput, match="not allowed"):
        wrong.fit([[1.0], [2.0]])
