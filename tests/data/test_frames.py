"""Frames of polars, pandas and pyarrow as a new user gives them: what is read, and what is refused with a way out."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from certified.additive import AdditiveClassifier
from certified.compose import make_column_transformer
from certified.errors import InvalidInput, InvalidRequest, UnknownIds
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler


def _frame(n=200):
    rng = np.random.default_rng(0)
    age = rng.integers(20, 90, n)
    frame = pl.DataFrame(
        {
            "person": rng.integers(0, 100, n),
            "age": [None if k % 17 == 0 else float(a) for k, a in enumerate(age)],
            "city": pl.Series([None if k == 3 else "abc"[k % 3] for k in range(n)]),
            "smoker": [None if k == 5 else bool(k % 2) for k in range(n)],
        }
    )
    return frame, (age > 50).astype(int)


def _pipeline():
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), ["age"]),
        (OneHotEncoder(handle_unknown="ignore"), ["city", "smoker"]),
    )
    return make_pipeline(columns, LogisticRegression(random_state=0))


KINDS = {
    "polars": lambda frame: frame.with_columns(pl.col("city").cast(pl.Categorical)),
    "pandas": lambda frame: frame.to_pandas().astype({"city": "category"}).replace({None: np.nan}),
    "pandas with nulls of its own": lambda frame: frame.to_pandas().astype({"age": "Float64", "smoker": "boolean"}),
    "pyarrow": lambda frame: frame.to_arrow(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_give_the_same_model_whatever_frame_they_come_in(kind):
    frame, y = _frame()
    given, features = KINDS[kind](frame), KINDS[kind](frame.drop("person"))
    first, other = _pipeline().fit(frame, y, ids="person"), _pipeline().fit(given, y, ids="person")
    gone = int(frame["person"][0])
    for model in (first, other):
        model.delete([gone])
    assert np.array_equal(first.private_coef_, other.private_coef_)
    assert np.allclose(other.predict_proba(features), first.predict_proba(frame.drop("person")))
    assert np.allclose(other.release().predict_proba(features), other.predict_proba(features))
    with pytest.raises(UnknownIds, match="not deleted since"):
        other.delete([gone])
    with pytest.raises(InvalidRequest, match=r"a row .*of class"):
        other.delete(np.setdiff1d(np.unique(frame["person"].to_numpy()[y == 1]), gone))
    with pytest.raises(ValueError, match="columns are missing"):
        other.predict(KINDS["polars"](frame).drop("person", "city"))


@pytest.mark.parametrize("model", [_pipeline(), StandardScaler(), LogisticRegression(), AdditiveClassifier()])
def test_a_column_of_ids_with_nulls_is_refused_and_says_which_row(model):
    frame, y = _frame()
    numbers = pl.DataFrame({"person": frame["person"], "age": frame["age"].fill_null(50.0)})
    for column in (frame["person"], frame["person"].cast(pl.String)):
        gap = pl.Series("person", [None if k == 4 else v for k, v in enumerate(column.to_list())], column.dtype)
        rows = (frame if hasattr(model, "steps") else numbers).with_columns(gap)
        for given in (rows, rows.to_pandas(), rows.to_arrow()):
            with pytest.raises(InvalidInput, match="first at position 4"):
                model.fit(given, y, ids="person")


def test_two_columns_of_one_name_and_lazy_frames_are_refused_with_what_to_do():
    frame, y = _frame()
    wide = frame.to_pandas()
    for twice in ("city", "person"):
        with pytest.raises(InvalidInput, match=r"two columns of one name.*\n.*" + twice):
            _pipeline().fit(pd.concat([wide, wide[[twice]]], axis=1), y, ids="person")
    with pytest.raises(InvalidInput, match=r"X\.collect\(\)"):
        _pipeline().fit(frame.lazy(), y, ids="person")
    with pytest.raises(InvalidInput, match="two columns of one name"):
        AdditiveClassifier().fit(pa.table([pa.array([1.0, 2.0])] * 2, names=["a", "a"]), [0, 1])


def test_a_class_whose_every_row_leaves_is_refused_in_an_additive_model_too():
    frame, y = _frame()
    model = AdditiveClassifier(interactions=0).fit(frame, y, ids="person")
    before = model.certificate_
    with pytest.raises(InvalidRequest, match=r"a row .*of class"):
        model.delete(np.unique(frame["person"].to_numpy()[y == 1]))
    with pytest.raises(ValueError, match="now missing"):
        model.predict(frame.drop("person", "city"))
    assert model.certificate_ == before


@pytest.mark.parametrize("rule", [{}, {"min_frequency": 3, "handle_unknown": "infrequent_if_exist"}])
@pytest.mark.parametrize("beside", [{}, {"city": [*"xyxyxyxy", None]}])
def test_the_release_of_an_encoder_knows_booleans_with_nulls(rule, beside):
    frame = pl.DataFrame({"smoker": [True, False] * 4 + [None], **beside})
    encoder = OneHotEncoder(**rule).fit(frame)
    assert encoder.transform(frame).sum() == frame.width * len(frame)
    for rows in (frame, frame[:8], frame[8:], frame.to_arrow()):
        found = encoder.release().transform(rows)
        assert np.array_equal(encoder.transform(rows), found.toarray() if hasattr(found, "toarray") else found)
