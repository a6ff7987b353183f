"""What users of scikit-learn expect of pipelines and transformers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.decomposition
import sklearn.impute
import sklearn.pipeline
import sklearn.preprocessing as plain
from sklearn.frozen import FrozenEstimator
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures

from certified.cluster import KMeans
from certified.compose import ColumnTransformer, FeatureUnion, make_column_transformer, make_union
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.errors import InvalidInput
from certified.impute import SimpleImputer
from certified.linear_model import PoissonRegressor, Ridge
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsClassifier
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
    WOEEncoder,
)

rng = np.random.default_rng(0)
X, Y, W = rng.normal(size=(60, 3)), rng.integers(0, 2, 60), rng.uniform(0.5, 2.0, 60)
FRAME = pd.DataFrame(X, columns=list("abc")).assign(years=W, customer=np.arange(60) % 20, weight=W[::-1])


# --------------------------------------------------------------- what is given is used


@pytest.mark.parametrize("last", [KNeighborsClassifier(), LinearDiscriminantAnalysis(), PCA(), MinMaxScaler()], ids=str)
def test_weights_that_the_last_step_would_ignore_are_refused(last):
    with pytest.raises(InvalidInput, match="sample_weight, which its last step"):
        make_pipeline(StandardScaler(), last).fit(X, Y, sample_weight=W)


def test_weights_of_the_final_step_alone():
    model = make_pipeline(StandardScaler(), Ridge()).fit(X, Y, ridge__sample_weight=W)
    assert model[0].state_digest_ == make_pipeline(StandardScaler(), Ridge()).fit(X, Y)[0].state_digest_
    alone = Ridge().fit(model[0].transform(X), Y, sample_weight=W)
    np.testing.assert_allclose(model.private_coef_, alone.private_coef_)
    model.delete([4])
    model.add(X[4:5], Y[4:5], ids=[4], sample_weight=W[4:5])
    np.testing.assert_allclose(model.private_coef_, alone.private_coef_, atol=1e-6)
    for wrong in ({"standardscaler__sample_weight": W}, {"ridge__check_input": True}, {"sample_weights": W}):
        with pytest.raises(InvalidInput, match="are allowed, and ridge__sample_weight"):
            make_pipeline(StandardScaler(), Ridge()).fit(X, Y, **wrong)
    with pytest.raises(InvalidInput, match="are allowed"):
        make_pipeline(StandardScaler(), GaussianNB()).fit(X, Y, gaussiannb__sample_weight=W)


def test_columns_are_named_alike_in_fit_predict_and_score():
    model = make_pipeline(StandardScaler(), PoissonRegressor(noise=0))
    model.fit(FRAME, Y, ids="customer", exposure="years", sample_weight="weight")
    arrays = make_pipeline(StandardScaler(), PoissonRegressor(noise=0))
    arrays.fit(FRAME[["a", "b", "c"]], Y, ids=FRAME["customer"], exposure=W, sample_weight=W[::-1])
    assert np.array_equal(model.private_coef_, arrays.private_coef_)
    want = arrays.predict(FRAME[["a", "b", "c"]], exposure=W)
    assert np.array_equal(model.predict(FRAME, exposure="years"), want)
    assert np.array_equal(model.predict(FRAME), arrays.predict(FRAME[["a", "b", "c"]]))  # rates
    score = arrays.score(FRAME[["a", "b", "c"]], Y, sample_weight=W[::-1], exposure=W)
    assert model.score(FRAME, Y, sample_weight="weight", exposure="years") == score


def test_rows_that_are_added_need_what_the_rows_of_the_fit_had():
    for given in ({"sample_weight": W}, {"exposure": W}, {"offset": W}, {"poissonregressor__sample_weight": W}):
        model = make_pipeline(StandardScaler(), PoissonRegressor()).fit(X, Y, **given)
        name = next(iter(given)).rpartition("__")[2]
        with pytest.raises(InvalidInput, match=f"add got no {name}, which the rows of the fit had"):
            model.add(X[:2], Y[:2], ids=[100, 101])
        model.add(X[:2], Y[:2], ids=[100, 101], **{name: W[:2]})
        assert model.n_rows_ == 62
    scaler = StandardScaler().fit(FRAME[["a", "b", "weight"]], sample_weight="weight")
    assert scaler.state_digest_ == StandardScaler().fit(FRAME[["a", "b"]], sample_weight=FRAME["weight"]).state_digest_
    with pytest.raises(InvalidInput, match="add got no sample_weight"):
        scaler.add(FRAME[["a", "b"]].iloc[:2], ids=[100, 101])


# ---------------------------------------------------------------------- shapes of pipelines


def test_pipelines_without_steps_and_steps_that_are_none():
    with pytest.raises(ValueError, match="pipeline is empty"):
        Pipeline([]).fit(X, Y)
    assert not hasattr(Pipeline([]), "predict")
    nothing = Pipeline([("a", None), ("b", Ridge())]).fit(X, Y)
    assert np.array_equal(nothing.private_coef_, make_pipeline(Ridge()).fit(X, Y).private_coef_)
    for last in (None, "passthrough"):
        model = Pipeline([("a", StandardScaler()), ("b", last)]).fit(X)
        assert np.array_equal(model.transform(X), StandardScaler().fit_transform(X))
        assert np.array_equal(model.release().transform(X), model.transform(X))
        model.delete([3])
    both = make_union(StandardScaler(), None)
    assert np.array_equal(make_pipeline(both, None).fit(X).transform(X)[:, 3:], X)
    with pytest.raises(InvalidInput, match="memory="):
        make_pipeline(StandardScaler(), Ridge(), memory="cache").fit(X, Y)
    assert make_pipeline(StandardScaler(), Ridge(), verbose=True).fit(X, Y).n_rows_ == 60


def test_a_pipeline_may_end_in_what_learns_nothing():
    make = lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2))  # noqa: E731
    model = make().fit(X)
    assert np.array_equal(model.transform(X), PolynomialFeatures(2).fit_transform(StandardScaler().fit_transform(X)))
    model.delete([3, 9])
    retained = np.delete(np.arange(60), [3, 9])
    assert model.state_digest_ == make().fit(X[retained], ids=retained).state_digest_
    assert model.get_feature_names_out().tolist() == model.release().get_feature_names_out().tolist()


@pytest.mark.parametrize("encoder", [OneHotEncoder(), OrdinalEncoder(), TargetEncoder(cv=None)], ids=str)
def test_a_pipeline_may_end_in_an_encoder_of_text(encoder):
    table = pd.DataFrame({"u": ["p", "q", None, "p", "p"], "v": ["m", None, "m", "n", "n"]}, dtype=object)
    table = table.where(table.notna(), np.nan)
    model = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder).fit(table, [0, 1, 0, 1, 1])
    filled = sklearn.impute.SimpleImputer(strategy="most_frequent").fit_transform(table)
    want = encoder.fit(filled, [0, 1, 0, 1, 1]).transform(filled)
    dense = lambda out: out.toarray() if hasattr(out, "toarray") else np.asarray(out)  # noqa: E731
    assert np.array_equal(dense(model.transform(table)), dense(want))
    assert np.array_equal(dense(model.release().transform(table)), dense(want))


def test_frozen_steps_and_functions_get_frames_with_names():
    named = FRAME[["a", "b", "c"]]
    inside = {"a": lambda frame: frame[["a", "b"]] * 2.0, "b": lambda frame: frame.loc[:, ["c"]]}
    for table in (named, pl.from_pandas(named)):
        for function in list(inside.values())[: 2 if table is named else 1]:
            model = make_pipeline(FunctionTransformer(function), StandardScaler(), Ridge()).fit(table, Y)
            want = make_pipeline(StandardScaler(), Ridge()).fit(np.asarray(function(named)), Y)
            assert np.array_equal(model.predict(table), want.predict(np.asarray(function(named))))
            model.delete([3])
    asks = FunctionTransformer(lambda frame: frame.assign(d=frame["a"] * frame["b"]))
    frozen = FrozenEstimator(sklearn.pipeline.make_pipeline(asks, plain.StandardScaler()).fit(named))
    model = make_column_transformer((frozen, ["a", "b", "c"])).fit(named)
    np.testing.assert_allclose(model.transform(named), frozen.transform(named))


def test_predictions_and_inverses_in_one_call():
    model = make_pipeline(StandardScaler(), KMeans(2))
    assert np.array_equal(
        model.fit_predict(FRAME[["a", "b", "c", "customer"]], ids="customer"), model.predict(FRAME[list("abc")])
    )
    scaled = make_pipeline(StandardScaler(), MinMaxScaler(), None).fit(X)
    np.testing.assert_allclose(scaled.inverse_transform(scaled.transform(X)), X, atol=1e-12)
    assert not hasattr(make_pipeline(StandardScaler(), PolynomialFeatures()), "inverse_transform")


def test_parameters_of_work_and_names_of_parts():
    columns = ColumnTransformer([("bins", KBinsDiscretizer(2), [0])], n_jobs=2, verbose=True).fit(X)
    assert columns.sparse_output_
    assert not ColumnTransformer([("scale", StandardScaler(), [0])]).fit(X).sparse_output_
    union = FeatureUnion([("a", StandardScaler()), ("b", MinMaxScaler())], n_jobs=2)
    assert union.named_transformers["a"] is union.transformer_list[0][1]
    assert union.fit(X).named_transformers["b"].n_samples_seen_ == 60
    scaler = StandardScaler(copy=False).fit(X)
    assert np.array_equal(scaler.inverse_transform(scaler.transform(X, copy=False), copy=True).round(9), X.round(9))


def test_diagrams_show_the_steps():
    columns = make_column_transformer((make_union(StandardScaler(), MinMaxScaler()), [0]), remainder="passthrough")
    shown = Pipeline([("columns", columns), ("nothing", None), ("model", Ridge())])._repr_html_()
    assert all(name in shown for name in ("StandardScaler", "MinMaxScaler", "passthrough", "Ridge"))


# ------------------------------------------------------------------------------ transformers


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MinMaxScaler(clip=True), plain.MinMaxScaler(clip=True)),
        (RobustScaler(unit_variance=True), plain.RobustScaler(unit_variance=True)),
        (
            SplineTransformer(4, handle_missing="zeros", sparse_output=True),
            plain.SplineTransformer(4, handle_missing="zeros", sparse_output=True),
        ),
    ],
    ids=lambda model: type(model).__name__,
)
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_missing_values_are_left_out_as_in_scikit_learn(ours, theirs):
    table = np.where(rng.random((50, 4)) < 0.3, np.nan, rng.normal(size=(50, 4)))
    ours.fit(table), theirs.fit(table)
    dense = lambda out: out.toarray() if hasattr(out, "toarray") else out  # noqa: E731
    near = 0.3 if isinstance(ours, RobustScaler) else 1e-12  # its quantiles have few digits
    np.testing.assert_allclose(dense(ours.transform(table)), dense(theirs.transform(table)), atol=near)
    np.testing.assert_allclose(dense(ours.release().transform(table)), dense(ours.transform(table)), atol=1e-12)


def test_a_standard_scaler_leaves_missing_values_out():
    table = np.where(rng.random((80, 3)) < 0.3, np.nan, rng.normal(3.0, 2.0, size=(80, 3)))
    model = StandardScaler().fit(table)
    for j in range(3):
        known = table[~np.isnan(table[:, j])][:, [j]]
        alone = StandardScaler().fit(known)
        assert model.mean_[j] == alone.mean_[0]
        assert model.scale_[j] == alone.scale_[0]
        assert model.n_samples_seen_[j] == len(known)
    assert np.array_equal(np.isnan(model.transform(table)), np.isnan(table))
    np.testing.assert_allclose(model.release().transform(table), model.transform(table))
    empty = StandardScaler().fit(np.full((4, 1), np.nan))
    assert (empty.mean_[0], empty.scale_[0]) == (0.0, 1.0)


@pytest.mark.parametrize("encode", ["onehot", "onehot-dense", "ordinal"])
@pytest.mark.parametrize("strategy", ["quantile", "uniform"])
def test_missing_values_have_a_bin_of_their_own_which_goes_with_the_last(encode, strategy):
    table = rng.normal(size=(40, 2))
    table[[3, 8], 1] = np.nan
    make = lambda: KBinsDiscretizer(3, encode=encode, strategy=strategy)  # noqa: E731
    dense = lambda out: out.toarray() if hasattr(out, "toarray") else out  # noqa: E731
    model = make().fit(table)
    assert model.n_bins_.tolist() == [3, 4]
    released = model.release()
    assert np.array_equal(dense(released.transform(table)), dense(model.transform(table)))
    assert released.get_feature_names_out().tolist() == model.get_feature_names_out().tolist()
    back = model.inverse_transform(model.transform(table))
    assert np.array_equal(np.isnan(back), np.isnan(table))
    model.delete([3])
    model.delete([8])
    retained = np.delete(np.arange(40), [3, 8])
    assert model.state_digest_ == make().fit(table[retained], ids=retained).state_digest_
    assert model.n_bins_.tolist() == [3, 3]
    with pytest.raises(InvalidInput, match="no row of the fit had one"):
        model.transform(table)


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler(), PCA(2)], ids=str)
def test_inverses_refuse_another_number_of_features(scaler):
    model = scaler.fit(X)
    np.testing.assert_allclose(StandardScaler().fit(X).inverse_transform(StandardScaler().fit_transform(X)), X)
    with pytest.raises(InvalidInput, match="inverse_transform got 1"):
        model.inverse_transform(X[:, :1])


def test_components_have_scores_and_covariances():
    for k in (2, None):
        ours, theirs = PCA(k, svd_solver="full").fit(X), sklearn.decomposition.PCA(k).fit(X)
        np.testing.assert_allclose(ours.get_covariance(), theirs.get_covariance(), atol=1e-9)
        np.testing.assert_allclose(ours.get_precision(), theirs.get_precision(), atol=1e-8)
        np.testing.assert_allclose(ours.score_samples(X), theirs.score_samples(X), atol=1e-8)
        assert ours.score(X) == pytest.approx(theirs.score(X))
    for solver in ("svd", "lsqr", "eigen"):
        model = LinearDiscriminantAnalysis(solver=solver, store_covariance=True).fit(X, Y)
        assert model.covariance_.shape == (3, 3)
    with pytest.raises(InvalidInput, match="covariance_estimator"):
        LinearDiscriminantAnalysis(covariance_estimator=PCA()).fit(X, Y)


# --------------------------------------------------------------------- scorecards and ties


@pytest.mark.parametrize("n_bins", [2, 3, 5, 10])
@pytest.mark.filterwarnings("ignore:Bins whose width", "ignore:Feature 0 is constant")
def test_bins_of_tied_values_are_those_of_scikit_learn_and_none_is_empty(n_bins):
    generator = np.random.default_rng(8)
    for values in (
        np.r_[np.zeros(40), 1.0, 2.0, 3.0],
        generator.integers(0, 4, 60) * 1.0,
        np.full(9, 2.5),
        np.r_[np.zeros(30), np.ones(5)],
    ):
        column = values[:, None]
        ours = KBinsDiscretizer(n_bins, encode="ordinal").fit(column)
        theirs = plain.KBinsDiscretizer(n_bins, encode="ordinal", quantile_method="averaged_inverted_cdf").fit(column)
        mine, other = ours.transform(column).ravel(), theirs.transform(column).ravel()
        assert len(set(zip(mine, other, strict=True))) == len(set(mine)) == len(set(other))
        assert np.array_equal(ours.release().transform(column).ravel(), mine)
        assert np.all(np.diff(ours.bin_edges_[0]) > 0)


def test_codes_and_missing_values_have_weights_of_evidence_of_their_own():
    generator = np.random.default_rng(3)
    x = generator.choice([-999.0, np.nan, 0.0, 1.0, 2.0], 3000)
    risk = np.select([x == -999.0, np.isnan(x), x == 0.0], [0.7, 0.1, 0.4], 0.3)
    y = (generator.random(3000) < risk).astype(int)
    encoder = WOEEncoder().fit(x[:, None], y)
    probe = np.array([[-999.0], [np.nan], [0.0], [-0.0], [7.0]])
    found = encoder.transform(probe).ravel()
    base = np.log(y.sum() / (3000 - y.sum()))
    masks = (x == -999.0, np.isnan(x), x == 0.0)
    want = [np.log(y[mask].sum() / (mask.sum() - y[mask].sum())) - base for mask in masks]
    assert np.abs(found[:3] - want).max() < 0.25
    assert found[2] == found[3]
    assert found[4] == 0.0
    assert np.array_equal(encoder.release().transform(probe).ravel(), found)


def test_a_column_leaves_with_its_last_value():
    table = np.column_stack([rng.normal(size=80), np.full(80, np.nan)])
    table[11, 1] = 4.0
    make = lambda: make_pipeline(SimpleImputer(), StandardScaler(), Ridge())  # noqa: E731
    y, retained = rng.normal(size=80), np.delete(np.arange(80), 11)
    model = make().fit(table, y)
    model.delete([11])
    refit = make().fit(table[retained], y[retained], ids=retained)
    assert model.state_digest_ == refit.state_digest_
    assert model.private_coef_.shape == (1,)
    np.testing.assert_allclose(model.release().predict(table), model.predict(table))
