"""Transformers agree with scikit-learn where the definition is the same, and with a refit bit for bit always."""

import numpy as np
import pytest
import sklearn.preprocessing as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified.errors import InvalidInput, InvalidRequest
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, SplineTransformer, StandardScaler

TRANSFORMERS = (
    StandardScaler(),
    MinMaxScaler(),
    MinMaxScaler((-1, 3), clip=True),
    RobustScaler(sample_size=7, unit_variance=True),
    SplineTransformer(3, knots="quantile", sample_size=7, handle_missing="zeros"),
    SplineTransformer(4, degree=1, handle_missing="zeros", extrapolation="linear"),
    KBinsDiscretizer(4, encode="onehot-dense", sample_size=7),
    KBinsDiscretizer([2, 3], encode="onehot-dense", strategy="uniform"),
    KBinsDiscretizer(encode="ordinal", strategy=[[0.0, 1.0], [3.0]]),
)
VALUES = st.sampled_from([-2.0, -0.0, 0.0, 1.0, 1.0, 3.5, 1e3, 1e-3, np.nan])  # ties, both zeros, shared extremes


@st.composite
def tables(draw):
    n = draw(st.integers(6, 30))
    X = np.array(draw(st.lists(st.tuples(VALUES, VALUES), min_size=n, max_size=n)))
    ids = np.array(draw(st.lists(st.integers(0, 15), min_size=n, max_size=n)))
    ids[:2] = [0, 1]  # at least two subjects
    weight = np.array(draw(st.lists(st.sampled_from([1.0, 1.0, 2.0, 0.0]), min_size=n, max_size=n)))
    weight[:2] = 1.0
    return X, ids, weight


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
@settings(max_examples=60)
@given(table=tables(), draw=st.data())
def test_any_sequence_of_deletions_has_the_state_of_a_refit_in_any_order(transformer, table, draw):
    X, ids, weight = table
    weighted = isinstance(transformer, StandardScaler)
    model = clone(transformer).fit(X, ids=ids, **({"sample_weight": weight} if weighted else {}))
    gone = draw.draw(st.lists(st.sampled_from([*np.unique(ids[2:]).tolist(), 0]), unique=True, max_size=8))
    for subject in gone:
        if subject == 1 or subject not in ids:
            continue
        model.delete([subject])
    retained = np.flatnonzero(np.isin(ids, model.ids_))
    retained = draw.draw(st.permutations(retained.tolist()))
    refit = clone(transformer).fit(
        X[retained], ids=ids[retained], **({"sample_weight": weight[retained]} if weighted else {})
    )
    assert model.state_digest_ == refit.state_digest_
    rows = X[retained]  # a value may be missing where none was
    assert np.array_equal(model.transform(rows), refit.transform(rows), equal_nan=True)
    np.testing.assert_allclose(model.release().transform(rows), model.transform(rows), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MinMaxScaler(), plain.MinMaxScaler()),
        (MinMaxScaler((-2, 5), clip=True), plain.MinMaxScaler(feature_range=(-2, 5), clip=True)),
        (RobustScaler(), plain.RobustScaler()),
        (RobustScaler(with_centering=False, quantile_range=(5, 90)), None),
    ],
    ids=str,
)
def test_outputs_agree_with_scikit_learn(ours, theirs):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((200, 3)) * [1e-6, 1.0, 1e6], np.full(200, 7.0)])
    theirs = theirs or plain.RobustScaler(with_centering=False, quantile_range=(5, 90))
    ours.fit(X[:150]), theirs.fit(X[:150])
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.release().transform(X), ours.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(X[:150])), X[:150], rtol=1e-9, atol=1e-9)
    assert ours.set_output(transform="pandas").transform(X).shape == X.shape


def test_only_a_deletion_in_the_sample_changes_a_robust_scaler():
    rng = np.random.default_rng(1)
    model = RobustScaler(sample_size=50).fit(rng.standard_normal((1000, 2)))
    before = model.state_digest_
    inside = model._table.hashes <= model._statistic.cut
    assert inside.sum() == 50
    assert model.delete([int(np.flatnonzero(~inside)[0])]).changed == ()
    assert model.state_digest_ == before
    model.delete([int(np.flatnonzero(inside)[0])])
    assert model.state_digest_ != before
    assert len(model._statistic.values) == 50


def test_a_deletion_that_leaves_nothing_but_the_sample_is_a_refit():
    X = np.random.default_rng(3).standard_normal((8, 1))
    model = RobustScaler(sample_size=7).fit(X)
    outside = int(np.flatnonzero(model._table.hashes > model._statistic.cut)[0])
    model.delete([outside])
    retained = np.arange(8) != outside
    refit = RobustScaler(sample_size=7).fit(X[retained], ids=np.arange(8)[retained])
    assert model.state_digest_ == refit.state_digest_


def test_a_scaler_that_keeps_a_deleted_extreme_is_caught():
    class Stale(MinMaxScaler):
        def _subtract(self, statistic, removed):
            return statistic

    X = np.arange(8.0)[:, None]
    stale, refit = Stale().fit(X), MinMaxScaler().fit(X[:-1])
    stale.delete([7])
    assert stale.state_digest_ != refit.state_digest_


def test_a_changed_first_step_is_carried_through_all_that_follow():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((60, 3))
    X[11, 0] = 50.0
    y = X @ [1.0, 2.0, 3.0]
    model = make_pipeline(MinMaxScaler(), StandardScaler(), Ridge()).fit(X, y)
    receipt = model.delete([11])
    retained = np.arange(60) != 11
    refit = make_pipeline(MinMaxScaler(), StandardScaler(), Ridge()).fit(X[retained], y[retained])
    assert "minmaxscaler" in receipt.changed
    for (_, ours), (_, fresh) in zip(model.steps_, refit.steps_, strict=True):
        assert ours.state_digest_ == fresh.state_digest_


@pytest.mark.parametrize("transformer", TRANSFORMERS, ids=str)
def test_deleting_all_rows_of_positive_weight_is_refused_and_changes_nothing(transformer):
    X = np.column_stack([np.arange(4.0), np.arange(4.0) ** 2])
    model = make_pipeline(transformer, Ridge()).fit(X, X[:, 0], sample_weight=[1.0, 1.0, 0.0, 0.0])
    before = model.steps_[0][1].state_digest_
    with pytest.raises(InvalidRequest, match="weight 0"):
        model.delete([0, 1])
    assert model.steps_[0][1].state_digest_ == before
    assert model.n_rows_ == 4


@pytest.mark.parametrize(
    "wrong",
    [
        MinMaxScaler((1, 1)),
        KBinsDiscretizer(1),
        KBinsDiscretizer([3, 3]),
        KBinsDiscretizer(encode="one"),
        KBinsDiscretizer(strategy="kmeans"),
        KBinsDiscretizer(strategy=[[2.0, 1.0]]),
        KBinsDiscretizer(sample_size=0),
        RobustScaler(quantile_range=(75, 25)),
        RobustScaler(sample_size=0),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(InvalidInput, match="not allowed"):
        wrong.fit([[1.0], [2.0]])


@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
@pytest.mark.parametrize("encode", ["onehot-dense", "ordinal"])
@pytest.mark.filterwarnings("ignore:Feature 2 is constant", "ignore:Bins whose width")
def test_bins_agree_with_scikit_learn(strategy, encode):
    rng = np.random.default_rng(4)
    X = np.column_stack([rng.standard_normal((300, 2)), np.full(300, 2.0), rng.poisson(0.5, 300)])
    method = "averaged_inverted_cdf"
    ours = KBinsDiscretizer([3, 5, 4, 6], encode=encode, strategy=strategy).fit(X[:200])
    theirs = plain.KBinsDiscretizer([3, 5, 4, 6], encode=encode, strategy=strategy, quantile_method=method)
    theirs.fit(X[:200])
    assert np.array_equal(ours.transform(X), theirs.transform(X))
    assert np.array_equal(ours.release().transform(X), theirs.transform(X))
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    assert np.array_equal(ours.n_bins_, theirs.n_bins_)
    assert list(ours.set_output(transform="pandas").transform(X)) == ours.get_feature_names_out().tolist()


@pytest.mark.parametrize("head", [Ridge(), LogisticRegression(noise=0)], ids=str)
def test_a_bin_that_leaves_with_its_last_row_leaves_the_head_too(head):
    rng = np.random.default_rng(5)
    X = np.column_stack([rng.integers(0, 3, 60).astype(float), rng.standard_normal(60)])
    X[:, 0] = np.minimum(X[:, 0], 1.0)
    X[[3, 4, 5, 6], 0] = 2.0  # the upper bin of an even division in three
    y = (X[:, 1] + 0.5 * rng.standard_normal(60) > 0).astype(float)
    bins = KBinsDiscretizer(3, encode="onehot-dense", sample_size=100, quantile_method="inverted_cdf")
    model = make_pipeline(bins, StandardScaler(), head).fit(X, y)
    before = model.steps_[0][1].n_bins_.sum()
    gone = np.flatnonzero(X[:, 0] != 1.0)
    receipt = model.delete(gone)
    retained = np.setdiff1d(np.arange(60), gone)
    refit = make_pipeline(bins, StandardScaler(), head).fit(X[retained], y[retained], ids=retained)
    assert model.steps_[0][1].n_bins_.sum() < before
    assert receipt.mu_differencing == np.inf
    for (_, ours), (_, fresh) in zip(model.steps_[:-1], refit.steps_[:-1], strict=True):
        assert ours.state_digest_ == fresh.state_digest_
        assert ours.n_features_in_ == fresh.n_features_in_
    assert model.private_coef_.shape == refit.private_coef_.shape
    np.testing.assert_allclose(model.private_coef_, refit.private_coef_, rtol=0, atol=1e-5)
    assert np.array_equal(model.predict(X), refit.predict(X)) or not isinstance(head, LogisticRegression)
    np.testing.assert_allclose(model.release().predict(X), model.predict(X))
    model.delete([retained[0]])  # and the pipeline goes on
    assert model.n_rows_ == len(retained) - 1
