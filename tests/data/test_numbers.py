"""What cannot be read is refused by its column, and says what to do; nothing is read as what it is not."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from certified.additive import AdditiveClassifier
from certified.errors import InvalidInput
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler

Y = [0, 1, 0, 1]
DAYS = [datetime.date(2020, 1, k + 1) for k in range(4)]
MODELS = {
    "scaler": lambda X: StandardScaler().fit(X),
    "naive Bayes": lambda X: GaussianNB().fit(X, Y),
    "logistic": lambda X: LogisticRegression().fit(X, Y),
    "ridge": lambda X: Ridge().fit(X, Y),
    "pipeline": lambda X: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
}


@pytest.mark.parametrize("fit", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(
    ("X", "match"),
    [
        (pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "day": DAYS}), "column 'day' of type Date: dates"),
        (pd.DataFrame({"day": pd.to_datetime(DAYS)}), "column 'day' of type Datetime"),
        (pa.table({"day": DAYS}), "column 'day' of type Date"),
        (np.array(DAYS, dtype="M8[D]")[:, None], "datetime64"),
        (pd.DataFrame({"x": [1, 2, 3, 4], "city": ["Bern", "Rome", "Oslo", "Rome"]}), "column 'city': 'Bern' in row 0"),
        ([[1, 2], [1, "Rome"], [1, 3], [2, 4]], "column 1: 'Rome' in row 1.*OneHotEncoder"),
        (pl.DataFrame({"x": [1.0, 2.0, 3.0, 4.0], "y": [np.inf, 1.0, 2.0, 3.0]}), "column 'y', row 0"),
    ],
    ids=["dates", "pandas dates", "Arrow dates", "an array of dates", "text", "a list with text", "infinity"],
)
def test_what_is_no_number_is_refused_by_its_column(fit, X, match):
    with pytest.raises(InvalidInput, match=match):
        fit(X)


@pytest.mark.parametrize("fit", [f for name, f in MODELS.items() if name not in ("scaler", "pipeline")])
def test_what_is_missing_is_refused_by_its_column(fit):
    with pytest.raises(InvalidInput, match=r"contains NaN.*\n.*column 'x', the first in row 2.*SimpleImputer"):
        fit(pl.DataFrame({"w": [1.0, 2.0, 3.0, 4.0], "x": [1.0, 2.0, None, 4.0]}))


def test_nullable_columns_without_values_are_read():
    full = pd.DataFrame({"a": pd.array([1, 2, 3, 4], dtype="Int64"), "b": pd.array([1, 0, 1, 0], dtype="Int64")})
    empty = full.assign(b=pd.array([None] * 4, dtype="Int64"))
    model = make_pipeline(SimpleImputer(strategy="median"), LogisticRegression())
    assert model.fit(empty, Y).predict(empty).shape == (4,)
    model = model.fit(full, Y)
    np.testing.assert_array_equal(model.predict(empty[:1]), model.release().predict(empty[:1]))


@pytest.mark.parametrize("model", [LogisticRegression(), GaussianNB(), AdditiveClassifier(interactions=0)], ids=str)
def test_targets_are_read_from_every_container_and_none_may_be_missing(model):
    X = np.linspace(-1.0, 1.0, 8)[:, None]
    words = ["a", "a", "a", "b", "a", "b", "b", "b"]
    want = model.fit(X, words).predict(X).tolist()
    for y in (pa.array(words), pa.chunked_array([words]), pl.Series(words), pd.Series(words, dtype="string")):
        assert model.fit(X, y).classes_.tolist() == ["a", "b"]
        assert len(model.predict(X)) == len(want)
    for nothing in (None, pd.NA):
        with pytest.raises(InvalidInput, match="missing in 1 rows, the first at position 2"):
            model.fit(X, [*words[:2], nothing, *words[3:]])


def test_frames_that_are_not_there_yet_say_how_to_get_them():
    with pytest.raises(InvalidInput, match=r"X\.collect\(\)"):
        OneHotEncoder().fit(pl.LazyFrame({"a": ["x", "y"]}))
    dask = pytest.importorskip("dask.dataframe")
    with pytest.raises(InvalidInput, match=r"X\.compute\(\)"):
        OneHotEncoder().fit(dask.from_pandas(pd.DataFrame({"a": [1, 2]}), npartitions=1))


def test_declared_categories_that_are_numbers_are_no_line():
    frame = pd.DataFrame({"branch": pd.Categorical([3, 1, 2, 1]), "x": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(InvalidInput, match="column 'branch', a categorical whose categories are numbers"):
        AdditiveClassifier().fit(frame, Y)


def test_a_text_never_seen_scores_as_the_mean_row():
    rng = np.random.default_rng(0)
    kind = np.where(rng.random(800) < 0.9, "A", "B")
    y = (rng.random(800) < np.where(kind == "A", 0.05, 0.95)).astype(int)
    frame = pd.DataFrame({"kind": kind, "z": rng.normal(size=800)})
    model = AdditiveClassifier(interactions=0, noise=0.01).fit(frame, y)
    asked = pd.DataFrame({"kind": ["A", "B", "new", None], "z": [0.0] * 4})
    p = model.predict_proba(asked)
    np.testing.assert_allclose(model.release().predict_proba(asked), p, atol=1e-9)
    z = np.log(p[:, 1] / p[:, 0])
    shares = [np.mean(kind == "A"), np.mean(kind == "B")]
    np.testing.assert_allclose(z[2:], shares @ z[:2], atol=1e-9)
    model.delete(np.flatnonzero(kind == "B")[:20])
    after = model.predict_proba(asked)
    z, left = np.log(after[:, 1] / after[:, 0]), np.delete(kind, np.flatnonzero(kind == "B")[:20])
    np.testing.assert_allclose(z[2], [np.mean(left == "A"), np.mean(left == "B")] @ z[:2], atol=1e-9)
