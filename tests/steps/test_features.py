"""A deletion that changes features: only what changed is made anew, and the head starts from what it knew."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.preprocessing import FunctionTransformer

from certified._data.feature_change import FeatureChange
from certified._data.rows import Rows
from certified.compose import ColumnTransformer, make_column_transformer, make_union
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge, _solvers
from certified.linear_model._state import carried
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

NUMBERS, TEXT = ["age", "stay"], ["city", "ward"]


def frame(seed, n):
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "patient": rng.integers(0, max(2, n // 2), n),
            "age": np.where(rng.random(n) < 0.2, None, rng.integers(20, 90, n)).tolist(),
            "stay": rng.choice([0.5, 1.0, 2.5, 40.0], n, p=[0.5, 0.3, 0.15, 0.05]),
            "city": rng.choice(["Rome", "Oslo", "Bern", "Lima"], n, p=[0.6, 0.3, 0.05, 0.05]),
            "ward": rng.choice(["a", "b", "c"], n).tolist(),
        },
        strict=False,
    )


def columns(**options):
    return ColumnTransformer(
        [
            (
                "scale",
                make_pipeline(SimpleImputer(strategy="median", sample_size=9, key=7), StandardScaler()),
                NUMBERS,
            ),
            ("hot", OneHotEncoder(min_frequency=3, drop="first", handle_unknown="infrequent_if_exist"), TEXT),
            (
                "bins",
                make_pipeline(
                    SimpleImputer(add_indicator=True), KBinsDiscretizer(3, encode="onehot-dense", sample_size=9, key=7)
                ),
                ["age"],
            ),
            ("square", make_pipeline(MinMaxScaler(), FunctionTransformer(np.square)), ["stay"]),
            ("target", TargetEncoder(target_type="continuous", key=7), ["city"]),
            ("two", make_union(RobustScaler(sample_size=9, key=7), "passthrough"), ["stay"]),
            ("number", OrdinalEncoder(), ["ward"]),
        ],
        transformer_weights={"square": 2.0, "hot": 0.5},
        **options,
    )


HEADS = [
    Ridge(),
    LogisticRegression(noise=0),
    LogisticRegression(noise=0, class_weight="balanced", fit_intercept=False),
    PoissonRegressor(noise=0),
]


@pytest.mark.parametrize("head", HEADS, ids=str)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1), upstream=st.booleans(), data=st.data())
def test_the_head_holds_the_columns_that_a_fresh_fit_would_make(head, seed, upstream, data):
    table = frame(seed, 40)
    y = np.random.default_rng(seed).permutation(np.arange(40) % 2)
    steps = [columns(), StandardScaler(), head] if upstream else [columns(), head]
    model = make_pipeline(*steps).fit(table, y, ids="patient")
    for patient in data.draw(st.permutations(model.ids_.tolist()))[:4]:
        model.delete([patient])
        retained = np.isin(table["patient"], model.ids_)
        refit = make_pipeline(*map(clone, steps)).fit(table.filter(retained), y[retained], ids="patient")
        width = model._final.n_features_in_
        assert width == refit._final.n_features_in_
        assert np.array_equal(
            model._final._rows.x[:40][retained, :width], refit._final._rows.x[: retained.sum(), :width]
        )
        assert not model._final._rows.x[:40][~retained].any()
        assert np.array_equal(model.noise_metric_, refit.noise_metric_)
        gap = np.ravel(model.private_coef_) - np.ravel(refit.private_coef_)
        assert np.abs(gap).max() < 1e-4
        if head is HEADS[0]:
            assert model.state_digest_ == refit.state_digest_


def test_a_part_that_says_it_did_not_change_is_caught(monkeypatch):
    table = pl.DataFrame({"x": [0.0, 1.0, 2.0, 3.0, 50.0, 1.0], "city": ["a", "b", "a", "b", "a", "b"]})
    model = make_pipeline(make_column_transformer((MinMaxScaler(), ["x"]), (OneHotEncoder(), ["city"])), Ridge())
    y = np.arange(6.0)
    honest = clone(model).fit(table, y)
    honest.delete([4])
    fresh = clone(model).fit(table[[0, 1, 2, 3, 5]], y[[0, 1, 2, 3, 5]])
    assert honest.state_digest_ == fresh.state_digest_
    monkeypatch.setattr(MinMaxScaler, "_changed_features", lambda self, learned, left: [slice(0, 1)])
    stale = clone(model).fit(table, y)
    stale.delete([4])
    assert stale.state_digest_ != fresh.state_digest_


def test_only_what_changed_is_made_anew(monkeypatch):
    table = pl.DataFrame({"x": [1.0, *[0.0, 2.0] * 19, 1.0], "a": ["u", *["v", "w"] * 19, "v"], "b": ["r", "s"] * 20})
    features = make_column_transformer((OneHotEncoder(), ["a", "b"]), (StandardScaler(), ["x"]))
    model = make_pipeline(features, Ridge()).fit(table, np.arange(40.0))
    made = []
    honest = OneHotEncoder._marked

    def counted(self, category, dropped, column, j):
        made.append((j, len(column)))
        return honest(self, category, dropped, column, j)

    monkeypatch.setattr(OneHotEncoder, "_marked", counted)
    monkeypatch.setattr(StandardScaler, "_apply", lambda self, learned, X: pytest.fail("features made again"))
    assert model.delete([0]).changed == ("columntransformer", "ridge")
    assert made == [(0, 39)]


@pytest.mark.parametrize("change", ["scale", "merge", "edge"])
def test_a_start_is_carried_over_to_other_columns(change):
    rng = np.random.default_rng(0)
    n = 200
    same = rng.standard_normal((n, 2))
    retained = rng.random(n) < 0.9
    if change == "scale":  # the same span with the intercept: predictors can be had exactly
        column = rng.standard_normal((n, 1))
        old, new = column, (column[retained] - 0.25) / 4.0
    elif change == "merge":
        groups = rng.integers(0, 3, n)
        old = np.eye(3)[groups]
        new = np.eye(2)[np.minimum(groups, 1)][retained]
    else:
        x = rng.random(n)
        old, new = np.eye(2)[(x > 0.5).astype(int)], np.eye(2)[(x > 0.51).astype(int)][retained]
    before = Rows(np.hstack([same[:, :1], old, same[:, 1:]]), intercept=True)
    w = rng.standard_normal((2, before.x.shape[1]))
    if change == "merge":  # two groups of equal coefficients become one
        w[:, 3] = w[:, 2]
    renewal = FeatureChange(retained, [slice(0, 1), new, slice(old.shape[1] + 1, old.shape[1] + 2)])
    after = before.with_features(renewal, 1)
    found = carried(w.ravel(), before, after, renewal).reshape(2, -1)
    assert np.array_equal(found[:, [0, -2]], w[:, [0, -2]])
    gap = (after.x @ found.T - before.x @ w.T)[:n][retained]
    if change == "edge":
        assert np.abs(gap).mean() < 0.05
    else:
        assert np.abs(gap).max() < 1e-12


def test_a_category_that_leaves_and_a_scale_that_is_rounded_anew_cost_few_passes():
    rng = np.random.default_rng(1)
    n = 4000
    x = rng.standard_normal(n)
    x[1] = 400.0  # without it the scale is another
    city = ["Lima", *rng.choice(["Rome", "Oslo", "Bern"], n - 1)]
    table = pl.DataFrame({"city": city, "x": x, "z": rng.standard_normal(n)})
    y = rng.logistic(size=n) < table["z"].to_numpy() + (table["city"] == "Oslo").to_numpy()
    features = make_column_transformer((OneHotEncoder(), ["city"]), (StandardScaler(), ["x"]), remainder="passthrough")
    model = make_pipeline(features, LogisticRegression()).fit(table, y)
    for row, width in ((0, 5), (1, 5)):
        receipt = model.delete([row])
        assert "columntransformer" in receipt.changed
        assert model._final.n_features_in_ == width
        assert receipt.passes <= 10  # two Hessians with their constants, and the gradients of a few steps


def test_a_poor_start_is_no_obstacle(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 2)), rng.integers(0, 2, 60)
    X[3] = 90.0
    model = make_pipeline(StandardScaler(), LogisticRegression(noise=0)).fit(X, y)
    monkeypatch.setattr(_solvers, "carried", lambda w, *rest: np.full_like(w, 1e6))
    assert "standardscaler" in model.delete([3]).changed
    refit = clone(model).fit(np.delete(X, 3, axis=0), np.delete(y, 3))
    assert np.allclose(model.private_coef_, refit.private_coef_, atol=1e-5)


def test_the_column_of_ids_is_no_feature_also_where_it_stays():
    table = frame(0, 40)
    model = make_pipeline(columns(), Ridge()).fit(table, np.arange(40) % 2, ids="patient")
    assert np.array_equal(model.predict(table), model.predict(table.drop("patient")))
    with pytest.raises(ValueError, match="columns are missing"):
        model.predict(table.drop("city"))
