"""Transformers agree with scikit-learn where the definition is the same, and with a refit bit for bit always."""

from fractions import Fraction

import numpy as np
import pytest
import sklearn.preprocessing as plain
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from certified._exact.simplest import between, simplest
from certified.errors import InvalidInput, InvalidRequest
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, MinMaxScaler, RobustScaler, SplineTransformer, StandardScaler

TRANSFORMERS = (
    StandardScaler(),
    MinMaxScaler(),
    MinMaxScaler((-1, 3), clip=True),
    RobustScaler(sample_size=7, unit_variance=True, key=7),
    SplineTransformer(3, knots="quantile", sample_size=7, handle_missing="zeros", key=7),
    SplineTransformer(4, degree=1, handle_missing="zeros", extrapolation="linear"),
    KBinsDiscretizer(4, encode="onehot-dense", sample_size=7, key=7),
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
    ],
    ids=str,
)
def test_outputs_agree_with_scikit_learn(ours, theirs):
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal((200, 3)) * [1e-6, 1.0, 1e6], np.full(200, 7.0)])
    ours.fit(X[:150]), theirs.fit(X[:150])
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.release().transform(X), ours.transform(X), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(X[:150])), X[:150], rtol=1e-9, atol=1e-9)
    assert ours.set_output(transform="pandas").transform(X).shape == X.shape


def test_only_a_deletion_in_the_sample_changes_a_robust_scaler():
    rng = np.random.default_rng(1)
    model = RobustScaler(sample_size=50, key=7).fit(rng.standard_normal((1000, 2)))
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
    model = RobustScaler(sample_size=7, key=7).fit(X)
    outside = int(np.flatnonzero(model._table.hashes > model._statistic.cut)[0])
    model.delete([outside])
    retained = np.arange(8) != outside
    refit = RobustScaler(sample_size=7, key=7).fit(X[retained], ids=np.arange(8)[retained])
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
        KBinsDiscretizer(sample_size=0, key=7),
        RobustScaler(quantile_range=(75, 25)),
        RobustScaler(sample_size=0, key=7),
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
    x = X[:200]  # cuts may be anywhere between the values of these
    assert np.array_equal(ours.transform(x), theirs.transform(x))
    assert np.array_equal(ours.release().transform(X), ours.transform(X))
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
    bins = KBinsDiscretizer(3, encode="onehot-dense", sample_size=100, quantile_method="inverted_cdf", key=7)
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


@pytest.mark.parametrize("quantile_range", [(25.0, 75.0), (5, 90)])
def test_a_robust_scaler_is_that_of_scikit_learn_within_half_a_standard_error_and_nobodys_value(quantile_range):
    X = np.random.default_rng(0).standard_normal((150, 3)) * [1e-6, 1.0, 1e6]
    ours, theirs = (kind(quantile_range=quantile_range).fit(X) for kind in (RobustScaler, plain.RobustScaler))
    slack = 0.5 * theirs.scale_ / np.sqrt(len(X))
    assert np.all(np.abs(ours.center_ - theirs.center_) <= slack)
    assert np.all(np.abs(ours.scale_ - theirs.scale_) <= slack)
    assert not np.isin(ours.center_, X).any()
    np.testing.assert_allclose(ours.release().transform(X), ours.transform(X), rtol=1e-12)
    np.testing.assert_allclose(ours.inverse_transform(ours.transform(X)), X, rtol=1e-9)
    ties = np.repeat([[0.0], [3.0]], [40, 10], axis=0)
    assert RobustScaler().fit(ties).center_.tolist() == [0.0]
    assert RobustScaler(with_centering=False).fit(X).center_ is None


@pytest.mark.parametrize("distribution", ["normal", "heavy", "far"])
def test_no_threshold_is_the_value_of_a_row(distribution):
    rng = np.random.default_rng(3)
    X = {"normal": rng.standard_normal((500, 2)), "heavy": rng.standard_cauchy((500, 2))}.get(distribution)
    X = 1e6 + rng.random((500, 2)) if X is None else X
    holed = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    published = [
        *KBinsDiscretizer(12).fit(X).release().bin_edges_,
        SplineTransformer(7, knots="quantile").fit(X).knots_,
        SplineTransformer(7, knots="quantile").fit(X).release().bsplines_[0].t,
        SimpleImputer(strategy="median").fit(holed).statistics_,
        RobustScaler().fit(X).release().center_,
    ]
    assert not any(np.isin(values, X).any() for values in published)
    for j, cuts in enumerate(KBinsDiscretizer(12).fit(X).bin_edges_):
        share = np.diff(np.searchsorted(np.sort(X[:, j]), cuts))
        assert share.min() >= 41  # 500 / 12: the partition is that of the quantiles
        assert share.max() <= 42
    knots = SplineTransformer(7, knots="quantile").fit(X).knots_
    assert np.all(np.diff(knots, axis=0) > 0)
    assert np.all((knots[0] < X.min(axis=0)) & (knots[-1] > X.max(axis=0)))


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30), at=st.lists(st.integers(0, 29), max_size=4))
def test_cuts_of_few_digits_part_values_as_those_they_stand_for(values, at):
    values = np.sort(np.array(values)) + 0.0
    cuts = np.unique(values[[k % len(values) for k in at]]) if at else np.empty(0)
    found = between(values, cuts)
    assert np.all(np.diff(found) > 0)
    parts = np.searchsorted(cuts, values, side="right")
    assert np.array_equal(np.searchsorted(found, values, side="right"), parts)


@given(a=st.floats(-1e9, 1e9), b=st.floats(-1e9, 1e9))
def test_the_simplest_number_is_inside_and_no_coarser_grid_has_one(a, b):
    low, high = min(a, b), max(a, b)
    found = float(simplest(low, high))
    assert low <= found <= high
    if found:
        step = 1.0
        while found % step:
            step /= 2
        while found % (2 * step) == 0:
            step *= 2
        coarser = Fraction(2 * step)
        assert Fraction(high) // coarser * coarser < Fraction(low) or (low <= 0 <= high)


@pytest.mark.parametrize(
    "column",
    [np.r_[np.zeros(40), 1.0, 2.0, 3.0], np.arange(60) % 4 * 1.0, np.full(9, 2.5), np.r_[np.zeros(30), np.ones(5)]],
    ids=["zeros", "dice", "constant", "two"],
)
@pytest.mark.parametrize("n_bins", [2, 3, 5, 10])
@pytest.mark.filterwarnings("ignore")
def test_bins_of_tied_values_are_those_of_scikit_learn_without_empty_ones(column, n_bins):
    X = column[:, None]
    ours = KBinsDiscretizer(n_bins, encode="ordinal").fit(X)
    theirs = plain.KBinsDiscretizer(n_bins, encode="ordinal", quantile_method="averaged_inverted_cdf").fit(X)
    pairs = set(zip(ours.transform(X).ravel(), theirs.transform(X).ravel(), strict=True))
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == ours.n_bins_[0]
    assert np.array_equal(ours.release().transform(X), ours.transform(X))
