"""Columns of frames: every transformer deletes exactly, agrees with scikit-learn, and leaves a plain release."""

import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn.compose
import sklearn.decomposition
import sklearn.pipeline
import sklearn.preprocessing
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_approximation import PolynomialCountSketch, RBFSampler
from sklearn.preprocessing import Binarizer, FunctionTransformer, PolynomialFeatures
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from certified import impute
from certified._data.frames import read
from certified._steps import stateless
from certified._steps.sequence import delete_through
from certified.compose import (
    ColumnTransformer,
    FeatureUnion,
    make_column_selector,
    make_column_transformer,
    make_union,
)
from certified.decomposition import PCA
from certified.errors import InvalidInput, NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    _quantiles,
)
from certified.testing import check_bad_requests_change_nothing, check_release_stands_alone

MAKERS = {"polars": pl.DataFrame, "pandas": pd.DataFrame, "pyarrow": pa.table}


def columns(**options):
    return ColumnTransformer(
        [
            (
                "num",
                make_pipeline(SimpleImputer(strategy="median", sample_size=9, key=7), StandardScaler()),
                ["age", "stay"],
            ),
            ("range", make_pipeline(SimpleImputer(), MinMaxScaler()), ["stay"]),
            ("bins", KBinsDiscretizer(3, encode="onehot-dense", sample_size=9, key=7), ["visits"]),
            ("poly", PolynomialFeatures(2), ["visits", "smoker"]),
            ("city", OneHotEncoder(min_frequency=2, handle_unknown="infrequent_if_exist"), ["city", "smoker"]),
            ("ward", OrdinalEncoder(encoded_missing_value=-1), ["ward"]),
        ],
        **options,
    )


def frame(seed, n):
    rng = np.random.default_rng(seed)
    some = rng.random(n) < 0.2
    city = rng.choice(np.array(["Rome", "Oslo", "Bern", "Lima", None], dtype=object), n, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    return {
        "patient": np.sort(rng.integers(0, max(2, n // 2), n)),
        "age": [None if missing else float(v) for v, missing in zip(rng.integers(20, 90, n), some, strict=True)],
        "stay": rng.choice([0.5, 1.0, 2.5, 40.0], n).tolist(),
        "visits": rng.integers(0, 5, n).tolist(),
        "smoker": (rng.random(n) < 0.3).tolist(),
        "city": city.tolist(),
        "ward": rng.choice(["a", "b", "c"], n).tolist(),
    }


def rows_of(data, rows):
    return {name: np.asarray(values, dtype=object)[rows].tolist() for name, values in data.items()}


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(8, 40), data=st.data(), kind=st.sampled_from(sorted(MAKERS)))
def test_any_sequence_of_deletions_has_the_state_of_a_refit_in_any_order(seed, n, data, kind):
    table = frame(seed, n)
    model = columns(remainder="drop").fit(MAKERS[kind](table), ids="patient")
    subjects = np.unique(table["patient"]).tolist()
    for subject in data.draw(st.permutations(subjects))[: data.draw(st.integers(1, len(subjects) - 1))]:
        model.delete([subject])
    retained = data.draw(st.permutations(np.flatnonzero(np.isin(table["patient"], model.ids_)).tolist()))
    # the schema is that of the frame given: keep it where the retained rows would suggest another
    whole = MAKERS[kind](table)
    rest = whole.take(retained) if kind == "pyarrow" else whole.iloc[retained] if kind == "pandas" else whole[retained]
    refit = columns().fit(rest, ids="patient")
    assert model.state_digest_ == refit.state_digest_
    features = rest.drop(columns="patient") if kind == "pandas" else nameless(rest)
    assert np.array_equal(model.transform(features), refit.transform(features))
    assert model.get_feature_names_out().tolist() == refit.get_feature_names_out().tolist()
    assert model.transform(features).shape[1] == len(model.get_feature_names_out())
    released = model.release()
    assert np.array_equal(np.asarray(released.transform(features)), model.transform(features), equal_nan=True)
    assert released.get_feature_names_out().tolist() == model.get_feature_names_out().tolist()


def nameless(rest):
    return rest.drop(["patient"])


@pytest.fixture
def unrounded(monkeypatch):
    monkeypatch.setattr(impute, "_middle", lambda values, marker: float(np.median(values)))
    monkeypatch.setattr(_quantiles, "_rounded", lambda values, slack: values)


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_outputs_agree_with_scikit_learn_before_rounding(unrounded, kind):
    table = frame(3, 200)
    X = MAKERS[kind]({name: values for name, values in table.items() if name != "patient"})

    def parts(encode, ordinal, scale, bins, pipeline, impute):
        return [
            ("city", encode(min_frequency=20, handle_unknown="ignore"), ["city", "smoker"]),
            ("ward", ordinal(), make_column_selector("ward")),
            ("range", scale(), slice(1, 2)),
            ("age", pipeline([("fill", impute(strategy="median", add_indicator=True)), ("scale", scale())]), ["age"]),
            ("bins", bins(2, encode="ordinal", quantile_method="averaged_inverted_cdf"), [1]),
            ("none", "drop", ["city"]),
        ]

    ours = ColumnTransformer(
        parts(OneHotEncoder, OrdinalEncoder, MinMaxScaler, KBinsDiscretizer, Pipeline, SimpleImputer),
        remainder="passthrough",
        transformer_weights={"ward": 2.0},
    ).fit(X)
    plain = sklearn.preprocessing
    theirs = sklearn.compose.ColumnTransformer(
        parts(
            plain.OneHotEncoder,
            plain.OrdinalEncoder,
            plain.MinMaxScaler,
            plain.KBinsDiscretizer,
            sklearn.pipeline.Pipeline,
            sklearn.impute.SimpleImputer,
        ),
        remainder="passthrough",
        sparse_threshold=0,
        transformer_weights={"ward": 2.0},
    ).fit(X)
    assert np.array_equal(ours.transform(X), theirs.transform(X))
    assert ours.get_feature_names_out().tolist() == theirs.get_feature_names_out().tolist()
    assert ours.output_indices_ | {"none": slice(0, 0)} == theirs.output_indices_
    assert ours.output_indices_["remainder"] == slice(12, 13)
    named = ours.set_output(transform=kind).transform(X)
    assert list(named.columns) == ours.get_feature_names_out().tolist()
    assert isinstance(named, MAKERS[kind])


def test_a_union_agrees_with_scikit_learn_before_rounding_and_forgets(unrounded):
    rng = np.random.default_rng(0)
    X = np.round(rng.standard_normal((50, 3)), 1)
    ours = make_union(MinMaxScaler(), make_pipeline(RobustScaler(), PolynomialFeatures(2))).fit(X)
    plain = sklearn.preprocessing
    theirs = sklearn.pipeline.make_union(
        plain.MinMaxScaler(), sklearn.pipeline.make_pipeline(plain.RobustScaler(), PolynomialFeatures(2))
    ).fit(X)
    assert np.array_equal(ours.transform(X), theirs.transform(X))
    ours.delete([int(np.argmax(X[:, 0])), 3])
    refit = clone(ours).fit(X[ours.ids_], ids=ours.ids_)
    assert ours.state_digest_ == refit.state_digest_
    assert np.array_equal(ours.release().transform(X), ours.transform(X))
    assert (
        FeatureUnion([("a", StandardScaler()), ("b", "passthrough"), ("c", "drop")]).fit(X).transform(X).shape[1] == 6
    )


DRAWN = [
    RBFSampler(n_components=29, random_state=0),
    GaussianRandomProjection(29, random_state=0),
    SparseRandomProjection(29, random_state=0),
    PolynomialCountSketch(n_components=29, random_state=0),
    FunctionTransformer(lambda X: X @ np.sin(np.arange(37 * 29.0).reshape(37, 29))),  # rounds by the number of rows
    FrozenEstimator(sklearn.decomposition.PCA(5).fit(np.random.default_rng(9).normal(size=(50, 37)))),
    Binarizer(threshold=0.1),
]


@pytest.mark.filterwarnings("ignore:The number of components")
@pytest.mark.parametrize("step", DRAWN, ids=lambda step: type(step).__name__)
def test_what_learns_nothing_makes_the_same_of_a_row_whichever_rows_are_beside_it(step):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 37)), rng.integers(0, 2, size=300)
    for behind in ([MinMaxScaler(), Ridge()], [StandardScaler(), GaussianNB()]):
        model = make_pipeline(step, *behind).fit(X, y)
        out = model[0].transform(X)
        for i in np.unique(
            [out.argmin(axis=0), out.argmax(axis=0)]
        ):  # the extremes, which a scaler knows by their bits
            model.delete([i])
        retained = model.ids_
        refit = make_pipeline(step, *behind).fit(X[retained], y[retained], ids=retained)
        assert model.state_digest_ == refit.state_digest_
        plain = step.transform(X) if isinstance(step, FrozenEstimator) else clone(step).fit(X).transform(X)
        np.testing.assert_allclose(model[0].transform(X), plain, rtol=1e-12, atol=1e-12)


def test_rows_handed_over_as_they_come_are_caught(monkeypatch):
    rounds = FunctionTransformer(lambda X: X[:, :1] * (1.0 - 2.0**-52 * (len(X) == 1)))  # as a product may
    test_what_learns_nothing_makes_the_same_of_a_row_whichever_rows_are_beside_it(rounds)
    monkeypatch.setattr(stateless, "_in_blocks", lambda transform, X, name: stateless._dense(transform(X)))
    with pytest.raises(NotDeletable, match="other rows are beside it"):
        test_what_learns_nothing_makes_the_same_of_a_row_whichever_rows_are_beside_it(rounds)
    monkeypatch.setattr(stateless.StatelessStep, "_check_rows_apart", lambda self, x: None)
    with pytest.raises(AssertionError):
        test_what_learns_nothing_makes_the_same_of_a_row_whichever_rows_are_beside_it(rounds)


def test_a_function_that_looks_at_other_rows_is_refused():
    X = np.random.default_rng(0).normal(size=(60, 3))
    for learns in (
        FunctionTransformer(lambda X: X - X.mean(axis=0)),
        FunctionTransformer(lambda X: np.argsort(np.argsort(X, axis=0), axis=0)),
    ):
        with pytest.raises(NotDeletable, match="FunctionTransformer makes another value"):
            make_pipeline(learns, Ridge()).fit(X, X[:, 0])
        with pytest.raises(NotDeletable, match="FunctionTransformer makes another value"):
            make_column_transformer((learns, [0])).fit(X)
    for drawn in (RBFSampler(), RBFSampler(gamma="scale", random_state=0), GaussianRandomProjection(random_state=0)):
        with pytest.raises(NotDeletable, match="learns from the data"):
            make_pipeline(drawn, Ridge()).fit(X, X[:, 0])


@pytest.mark.parametrize("head", [Ridge(), LogisticRegression(noise=0)], ids=str)
@pytest.mark.parametrize("kind", sorted(MAKERS))
def test_a_pipeline_from_a_frame_to_a_model_ends_where_a_refit_starts(head, kind):
    table = frame(5, 120)
    y = np.array([(v or 40) > 50 for v in table["age"]]) ^ (np.random.default_rng(0).random(120) < 0.2)
    model = make_pipeline(columns(), head).fit(MAKERS[kind](table), y, ids="patient")
    changed = [model.delete([i]).changed for i in model.ids_[3:9]]
    assert {step for steps in changed for step in steps} >= {type(head).__name__.lower()}
    rows = np.flatnonzero(np.isin(table["patient"], model.ids_))
    whole = MAKERS[kind](table)
    rest = whole.take(rows) if kind == "pyarrow" else whole.iloc[rows] if kind == "pandas" else whole[rows.tolist()]
    refit = make_pipeline(columns(), head).fit(rest, y[rows], ids="patient")
    assert model.steps_[0][1].state_digest_ == refit.steps_[0][1].state_digest_
    gap = np.ravel(model.private_coef_) - np.ravel(refit.private_coef_)
    assert np.abs(gap).max() < 1e-4
    features = rest.drop(columns="patient") if kind == "pandas" else nameless(rest)
    assert np.array_equal(model.release().predict(features), model.predict(features))
    dump = pickle.dumps(model)
    for name, values in table.items():
        gone = {values[k] for k in range(120) if k not in rows} - {values[k] for k in rows}
        for value in gone:
            assert str(value).encode() not in dump if name == "city" else True


def test_text_that_only_a_deleted_subject_had_is_nowhere_in_the_model():
    X = pl.DataFrame({"patient": [1, 2, 3, 4], "city": ["Rome", "Reykjavik", "Rome", "Oslo"], "n": [1, 2, 3, 4]})
    model = make_pipeline(make_column_transformer((OneHotEncoder(), ["city"]), remainder="passthrough"), Ridge())
    model.fit(X, [0.0, 1.0, 2.0, 3.0], ids="patient")
    assert b"Reykjavik" in pickle.dumps(model)
    model.delete([2])
    assert b"Reykjavik" not in pickle.dumps(model)
    assert b"Reykjavik" not in pickle.dumps(model.release())


def test_only_the_parts_that_a_deletion_touches_are_counted_again(monkeypatch):
    table = pl.DataFrame(frame(2, 60))
    model = columns().fit(table, ids="patient")
    again = []
    for part in model._parts:
        monkeypatch.setattr(part.step, "_count", lambda table, name=part.name: again.append(name))
    city = model.named_transformers_["city"]
    before = city.state_digest_
    deleted = next(i for i in model.ids_ if not model._table.hashes[table["patient"].to_numpy() == i].min() <= 0)
    try:
        model.delete([deleted])
    except TypeError:  # a part that has to be counted again was given no statistic
        assert "city" not in again
    else:
        assert city.state_digest_ != before


def test_a_chain_that_keeps_a_deleted_value_is_caught(monkeypatch):
    X = np.array([[0.0], [1.0], [2.0], [50.0]])
    model = make_union(make_pipeline(MinMaxScaler(), KBinsDiscretizer(2, strategy="uniform"))).fit(X)
    monkeypatch.setattr(
        "certified._steps.sequence.delete_through",
        lambda steps, removed, left: (
            tuple(step._statistic for step in steps),
            *delete_through(steps, removed, left)[1:],
        ),
    )
    model.delete([3])
    assert model.state_digest_ != clone(model).fit(X[:3]).state_digest_


@pytest.mark.parametrize("check", [check_bad_requests_change_nothing, check_release_stands_alone])
def test_public_checks(check):
    parts = [("a", StandardScaler(), [0, 1]), ("b", make_pipeline(RobustScaler(), FunctionTransformer(np.tanh)), [2])]
    check(ColumnTransformer(parts, remainder="passthrough"))


def test_selectors_agree_between_frames():
    table = {"a": [1, 2], "b": [1.5, 2.5], "c": ["x", "y"], "d": [True, False]}
    for maker in MAKERS.values():
        X = maker(table)
        assert make_column_selector(dtype_include="number")(X) == ["a", "b"]
        assert make_column_selector(dtype_exclude=["number", "bool"])(X) == ["c"]
        assert make_column_selector("[ab]", dtype_include=[int, "bool"])(X) == ["a"]
    with pytest.raises(InvalidInput, match="does not know"):
        make_column_selector(dtype_include="colour")(pl.DataFrame(table))
    with pytest.raises(InvalidInput, match="data frames"):
        make_column_selector()(np.eye(2))


def test_what_cannot_be_used_is_refused_with_a_reason():
    X = pl.DataFrame({"city": ["Rome", "Oslo"], "n": [1.0, None]})
    with pytest.raises(NotDeletable, match="cannot delete"):
        make_column_transformer((sklearn.preprocessing.StandardScaler(), ["n"])).fit(X)
    with pytest.raises(InvalidInput, match="text"):
        make_column_transformer((StandardScaler(), ["city"])).fit(X)
    with pytest.raises(InvalidInput, match="SimpleImputer"):
        make_column_transformer((PCA(1), ["n"])).fit(X)
    with pytest.raises(ValueError, match="not columns"):
        make_column_transformer((StandardScaler(), ["age"])).fit(X)
    with pytest.raises(InvalidInput, match="no column"):
        make_column_transformer((StandardScaler(), [])).fit(X)
    with pytest.raises(InvalidInput, match="text"):
        make_pipeline(make_column_transformer(("passthrough", ["city"])), Ridge()).fit(X, [0.0, 1.0])
    model = make_column_transformer((OneHotEncoder(), ["city"])).fit(X)
    with pytest.raises(InvalidInput, match=re.escape("unknown categories ['Paris']")):
        model.transform(pl.DataFrame({"city": ["Paris"], "n": [1.0]}))
    with pytest.raises(InvalidInput, match="text in fit"):
        model.transform(pl.DataFrame({"city": [3], "n": [1.0]}))
    with pytest.raises(NotDeletable, match="the pipeline"):
        model.named_transformers_["onehotencoder"].delete([0])


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (pl.Series([1, 2]).cast(pl.Date), "dates"),
        (pl.Series([2**53 + 1, 0]), "2\\*\\*53"),
        (pl.Series([np.inf, 0.0]), "infinite"),
        (pl.Series([[1], [2]]), "Numbers, booleans and text"),
    ],
)
def test_columns_that_cannot_be_read_are_refused(values, match):
    with pytest.raises(InvalidInput, match=match):
        OneHotEncoder().fit(pl.DataFrame({"a": values}))


@settings(max_examples=60)
@given(values=st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=3)), min_size=1))
@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical])
def test_text_of_a_polars_column_is_that_of_its_list(dtype, values):
    x, schema = read(OneHotEncoder(), pl.DataFrame({"a": pl.Series(values, dtype=pl.String).cast(dtype)}))
    assert schema.kinds == ("text",)
    assert x.columns[0].tolist() == values
    assert len({id(v) for v in x.columns[0]}) == len(set(values))


def test_a_column_of_numbers_and_text_is_refused():
    with pytest.raises(InvalidInput, match="int, str"):
        OneHotEncoder().fit(np.array([["a"], [1]], dtype=object))


@pytest.mark.parametrize("make", [lambda: columns(), lambda: make_pipeline(columns(), StandardScaler())])
def test_fit_transform_takes_the_ids_from_a_column(make):
    table = pl.DataFrame(frame(1, 30))
    model = make()
    assert np.array_equal(model.fit_transform(table, ids="patient"), model.transform(table.drop("patient")))
    assert model.ids_.tolist() == sorted(set(table["patient"]))
