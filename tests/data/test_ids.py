"""What names a subject: one form for each type, checked value by value before anything is cast."""

import inspect
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.naive_bayes import GaussianNB as PlainBayes

from certified._data.ids import as_ids
from certified.ensemble import ShardedClassifier
from certified.errors import InvalidInput, InvalidRequest, UnknownIds
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

X = np.random.default_rng(0).normal(size=(40, 2))
Y = np.arange(40) % 2
KINDS = {
    "integer": st.integers(-(2**70), 2**70),
    "text": st.text(max_size=3),
    "uuid": st.uuids(),
    "bool": st.booleans(),
    "float": st.floats(),
    "nothing": st.sampled_from([None, pd.NA, pd.NaT, np.nan]),
    "numpy": st.sampled_from([np.int8(3), np.str_("3"), np.bool_(True), np.float64(3.0)]),
}


def form(value):
    """The one form of a value, or None where it is no id."""
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, int | np.integer):
        return int(value) if abs(int(value)) < 2**63 else None
    if isinstance(value, str):
        return None if value.endswith("\0") or any("\ud800" <= c <= "\udfff" for c in value) else str(value)
    return str(value) if isinstance(value, uuid.UUID) else None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(*KINDS.values()), min_size=1, max_size=6), st.sampled_from([list, tuple, "object", "series"]))
def test_ids_are_read_as_they_are_or_refused(values, container):
    """Two values are one subject exactly when they are the same value of the same type."""
    kinds = {"text" if isinstance(v, str) else "uuid" if isinstance(v, uuid.UUID) else "number" for v in values}
    given_ids = values
    if container == "object":
        given_ids = np.empty(len(values), dtype=object)
        given_ids[:] = values
    elif container == "series":
        given_ids = pd.Series(values, dtype=object)
    elif container is tuple:
        given_ids = tuple(values)
    if len(kinds) == 1 and all(form(v) is not None for v in values):
        assert as_ids(given_ids, "fit(ids=...)").tolist() == [form(v) for v in values]
    else:
        with pytest.raises(InvalidInput, match="Nothing was changed"):
            as_ids(given_ids, "fit(ids=...)")


@pytest.mark.parametrize(
    ("ids", "match"),
    [
        ([7, "7"], "several types: int at position 0, str at position 1"),
        ([1, True, 2], "several types"),
        ([1.5, "a"], "several types"),
        (["a", np.nan], "1 ids that are missing"),
        ([pd.NA, "a"], "1 ids that are missing"),
        (["a", "a\x00"], "ends in a NUL"),
        ([uuid.UUID(int=1), str(uuid.UUID(int=1))], "several types"),
        (np.array([True, False]), r"model.ids_\[mask\]"),
        (np.ma.array([1, 2], mask=[False, True]), "missing"),
        (pa.array(["a", None]), "missing"),
        (pl.Series([1, None]), "missing"),
        (np.array([2**63], dtype=np.uint64), "beyond 64 bits"),
        (["\ud800"], "Unicode"),
        (["x" * 1_000_000, *map(str, range(100))], "an id of 1000000 characters among shorter ones"),
    ],
)
def test_what_names_nobody_is_refused_by_its_position(ids, match):
    with pytest.raises(InvalidInput, match=match):
        as_ids(ids, "fit(ids=...)")


def test_a_long_id_cannot_be_added_to_short_ones():
    model = GaussianNB().fit(X, Y, ids=[f"p{k}" for k in range(40)])
    with pytest.raises(InvalidInput, match="among shorter ones"):
        model.add(X[:1], Y[:1], ids=["x" * 1_000_000])


@pytest.mark.parametrize("kind", ["pyarrow", "chunked", "polars", "series", "index", "categorical", "arrow column"])
def test_text_of_every_container_is_ids(kind):
    names = [f"p{k}" for k in range(40)]
    ids = {
        "pyarrow": pa.array(names),
        "chunked": pa.chunked_array([names]),
        "polars": pl.Series(names),
        "series": pd.Series(names),
        "index": pd.Index(names),
        "categorical": pd.Series(names, dtype="category"),
        "arrow column": pd.Series(names, dtype=pd.ArrowDtype(pa.string())),
    }[kind]
    model = GaussianNB().fit(X, Y, ids=ids)
    assert model.delete(ids[:3]).n_rows == 3
    assert model.delete(ids[5]).n_rows == 1
    assert "p5" not in model.ids_.tolist()


# -------------------------------------------------------------------------------------------- no ids given

MODELS = {
    "naive Bayes": GaussianNB,
    "logistic": LogisticRegression,
    "pipeline": lambda: make_pipeline(StandardScaler(), Ridge()),
    "search": lambda: GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2),
    "shards": lambda: ShardedClassifier(PlainBayes(), 2),
}


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_without_ids_an_index_names_the_rows(make):
    frame = pd.DataFrame(X, columns=["a", "b"], index=np.arange(100, 140)[::-1])
    model = make().fit(frame, Y)
    assert sorted(model.ids_.tolist()) == list(range(100, 140))
    assert model._subjects.source == "index"
    model.delete([139])
    assert 139 not in model.ids_
    with pytest.raises(UnknownIds, match=r"\[6\]"):
        model.delete([6])


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("index", [np.arange(40) // 2, np.arange(40) + 0.5], ids=["twice", "halves"])
def test_an_index_of_numbers_that_names_no_row_is_asked_about(make, index):
    model = make().fit(pd.DataFrame(X, columns=["a", "b"], index=index), Y)
    with pytest.raises(InvalidRequest, match="numbers of rows or labels"):
        model.delete([6])
    assert make().fit(pd.DataFrame(X, columns=["a", "b"]), Y).delete([6]).n_rows == 1


def test_an_index_of_dates_leaves_the_numbers_of_rows():
    frame = pd.DataFrame(X, index=pd.date_range("2020-01-01", periods=40))
    model = GaussianNB().fit(frame, Y)
    assert model._subjects.source == "row numbers"
    assert model.delete([39]).n_rows == 1


def test_ids_are_given_by_name_alone():
    """The third argument of fit is sample_weight in scikit-learn."""
    with pytest.raises(TypeError, match="positional argument"):
        GaussianNB().fit(X, Y, np.ones(40))
    for module in (
        "linear_model",
        "preprocessing",
        "ensemble",
        "compose",
        "pipeline",
        "model_selection",
        "naive_bayes",
    ):
        space = __import__(f"certified.{module}", fromlist=["__all__"])
        for name in space.__all__:
            for call in ("fit", "fit_transform", "fit_predict", "add"):
                method = getattr(getattr(space, name), call, None)
                parameters = {} if method is None else inspect.signature(method).parameters
                if "ids" in parameters and call != "add":
                    assert parameters["ids"].kind is inspect.Parameter.KEYWORD_ONLY, f"{module}.{name}.{call}"


def test_the_receipt_says_what_the_ids_are():
    given, numbered = GaussianNB().fit(X, Y, ids=np.arange(40) + 7), GaussianNB().fit(X, Y)
    labelled = GaussianNB().fit(pd.DataFrame(X, index=np.arange(40) + 7), Y)
    assert [m.delete([9]).ids for m in (given, numbered, labelled)] == ["given", "row numbers", "index"]
    assert "row numbers" in str(numbered.delete([10]))
