"""Steps and pipelines on rows in parts end where those in memory do, with text and with missing values."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

import certified
from certified._exact.counts import count, merged
from certified.compose import make_column_transformer
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge
from certified.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from certified.parts import Parts
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
)

N = 2400
FEATURES = ["income", "age", "job", "city"]


@pytest.fixture(scope="module")
def loans():
    rng = np.random.default_rng(1)
    income = rng.normal(50, 20, N)
    who = rng.integers(0, 900, N)
    return pl.DataFrame(
        {
            "income": income,
            "age": [None if v < 26 else float(v) for v in rng.integers(18, 90, N)],
            "job": np.where(who == 5, "diver", rng.choice(["clerk", "miner", "chef"], N)),
            "city": [str(v) if v < 3 else None for v in rng.integers(0, 4, N)],
            "who": who,
            "late": rng.random(N) < 1 / (1 + np.exp(-(income - 50) / 20)),
            "loss": 2 * income + rng.normal(size=N),
            "claims": rng.poisson(np.exp(income / 50)),
            "w": rng.choice([0.0, 1.0, 2.0], N),
        }
    )


def behind_encoders(final):
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    words = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(drop="first", sparse_output=False))
    return make_pipeline(make_column_transformer((numbers, ["income", "age"]), (words, ["job", "city"])), final)


def both(model, loans, features, y, n_parts=9, weight=None, **where):
    """The model on parts, and in memory."""
    columns = [*features, *([] if y is None else [y]), "who", *([] if weight is None else [weight])]
    source = Parts(loans.select(columns), part_bytes=max(1024, 8 * len(columns) * N // n_parts), **where)
    given = {} if weight is None else {"sample_weight": weight}
    targets = None if y is None else loans[y].to_numpy()
    known = {} if weight is None else {"sample_weight": loans[weight].to_numpy()}
    return (
        clone(model).fit(source, y, ids="who", **given),
        clone(model).fit(loans.select(features), targets, ids=loans["who"].to_numpy(), **known),
    )


def requests(whole):
    """A few subjects, and so many that the steps learn something else: the only diver is among them."""
    yield whole.ids_[:3]
    yield whole.ids_[:500]


@pytest.mark.parametrize("where", [{"in_memory": True}, {}], ids=["memory", "files"])
@pytest.mark.parametrize(
    ("final", "y"), [(LogisticRegression(), "late"), (PoissonRegressor(), "claims"), (Ridge(), "loss")], ids=str
)
def test_a_pipeline_ends_where_one_in_memory_does(loans, final, y, where):
    model, whole = both(behind_encoders(final), loans, FEATURES, y, **where)

    def check():
        assert model.steps_[0][1].state_digest_ == whole.steps_[0][1].state_digest_
        if y == "loss":
            assert np.array_equal(model.private_coef_, whole.private_coef_)
            return
        head, other = model._final, whole._final
        gap = other._noise_metric_now().whitened(head._state.solution.w - other._state.solution.w)
        assert np.linalg.norm(gap) <= head.certificate_.distance_bound + other.certificate_.distance_bound
        assert head._state.products.same(other._state.products)

    check()
    changed = []
    for request in requests(whole):
        receipts = model.delete(request), whole.delete(request)
        assert receipts[0].n_rows == receipts[1].n_rows
        assert receipts[0].changed == receipts[1].changed
        changed.append(len(receipts[0].changed))
        check()
    assert changed == [1, 2]  # the second request changes the encoders, so that the head has new parts
    assert model.certificate_.scope == "pipeline"
    assert np.array_equal(model.ids_, whole.ids_)
    rows = loans.select(FEATURES)[:9]
    assert np.allclose(model.release().predict(rows), model.predict(rows))


@pytest.mark.parametrize(
    ("step", "features", "y"),
    [
        (StandardScaler(), ["income", "age"], None),
        (SimpleImputer(add_indicator=True), ["income", "age"], None),
        (SimpleImputer(strategy="most_frequent"), FEATURES, None),
        (SimpleImputer(strategy="constant", fill_value="?"), ["city"], None),
        (SimpleImputer(strategy="median", sample_size=90, key=1), ["income", "age"], None),
        (SimpleImputer(strategy="median", key=1), ["age"], None),
        (MinMaxScaler(), ["income", "age"], None),
        (RobustScaler(sample_size=100, key=1), ["income", "age"], None),
        (RobustScaler(key=1), ["income"], None),
        (KBinsDiscretizer(sample_size=100, key=1), ["income", "loss"], None),
        (KBinsDiscretizer(strategy="uniform", key=1), ["income", "loss"], None),
        (SplineTransformer(knots="quantile", sample_size=100, key=1), ["income"], None),
        (SplineTransformer(key=1), ["income"], None),
        (make_pipeline(SimpleImputer(strategy="median"), RobustScaler(), key=3), ["age", "income"], None),
        (OneHotEncoder(min_frequency=0.3), ["job", "city"], None),
        (OrdinalEncoder(), FEATURES, None),
        (GaussianNB(), ["income"], "late"),
        (BernoulliNB(binarize=40.0), ["income"], "late"),
        (MultinomialNB(), ["claims"], "late"),
        (LinearDiscriminantAnalysis(), ["income", "loss"], "late"),
        (PCA(), ["income", "loss"], None),
        (make_pipeline(SimpleImputer(), StandardScaler()), ["income", "age"], None),
        (make_pipeline("passthrough", SimpleImputer(), GaussianNB()), ["income", "age"], "late"),
        (make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["job"])), FEATURES, None),
    ],
    ids=lambda value: str(value).replace("\n", "")[:40],
)
def test_steps_end_at_the_same_bits(loans, step, features, y):
    model, whole = both(step, loans, features, y, in_memory=True)
    for request in requests(whole):
        assert model.state_digest_ == whole.state_digest_
        assert model.delete(request).n_rows == whole.delete(request).n_rows
    assert model.state_digest_ == whole.state_digest_


@pytest.mark.parametrize(
    ("step", "features"),
    [
        (StandardScaler(), ["income", "age"]),
        (SimpleImputer(), ["income", "age"]),
        (make_pipeline(SimpleImputer(strategy="median"), RobustScaler(), key=2), ["age"]),
        (OneHotEncoder(drop="first", sparse_output=False), ["job"]),
        (KBinsDiscretizer(encode="ordinal", key=2), ["income"]),
        (PCA(), ["income", "claims"]),
    ],
    ids=lambda value: str(value).replace("\n", "")[:40],
)
def test_weights_are_those_of_memory_for_every_step(loans, step, features):
    final = make_pipeline(step, SimpleImputer(), Ridge(), key=2)
    model, whole = both(final, loans, features, "loss", weight="w", n_parts=60)
    for request in (whole.ids_[:3], whole.ids_[3:300]):
        assert model._final.state_digest_ == whole._final.state_digest_
        assert model[0].state_digest_ == whole[0].state_digest_
        assert model.delete(request).n_rows == whole.delete(request).n_rows
    assert model._final.state_digest_ == whole._final.state_digest_


def test_what_steps_look_at_has_no_deleted_row(loans):
    """Every value is one person's: a step that looks at a row that leaves would not know its category."""
    model = make_pipeline(OrdinalEncoder(), Ridge())
    source = Parts(loans.select("income", "loss"), in_memory=True, part_bytes=2048)
    model.fit(source, "loss").delete(np.arange(0, N, 2))
    rest = loans[1::2]
    whole = make_pipeline(OrdinalEncoder(), Ridge()).fit(rest.select("income"), rest["loss"].to_numpy())
    assert model._final.state_digest_ == whole._final.state_digest_


_VALUES = st.one_of(
    st.lists(st.sampled_from(["a", "b", "", None]), min_size=2, max_size=30).map(lambda v: np.array(v, dtype=object)),
    st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=2, max_size=30).map(np.array),
)


@given(_VALUES, st.integers(1, 29))
def test_counts_of_two_parts_are_those_of_the_whole(column, cut):
    cut = min(cut, len(column) - 1)
    found, wanted = merged(count(column[:cut]), count(column[cut:])), count(column)
    assert repr(found.values.tolist()) == repr(wanted.values.tolist())
    assert np.array_equal(found.counts, wanted.counts)


def test_text_leaves_no_byte_behind(loans, tmp_path):
    marked = loans.with_columns(job=pl.when(pl.col("who") == 8).then(pl.lit("astronaut")).otherwise(pl.col("job")))
    source = Parts(marked.select(*FEATURES, "who", "loss"), folder=tmp_path / "parts", part_bytes=1 << 13)
    model = behind_encoders(Ridge()).fit(source, "loss", ids="who")
    mark = "astronaut".encode("utf-32-le")
    files = list(tmp_path.rglob("part-*"))
    (tmp_path / "links").mkdir()
    assert any(mark in path.read_bytes() for path in files)
    links = [tmp_path / "links" / str(k) for k in range(len(files))]  # what is deleted can be read through them
    for path, link in zip(files, links, strict=True):
        link.hardlink_to(path)
    assert model.delete(8).changed == ("columntransformer", "ridge")
    assert not any(mark in path.read_bytes() for path in [*tmp_path.rglob("part-*"), *links])
    given_up = [link for path, link in zip(files, links, strict=True) if not path.exists()]
    assert len(given_up) > 1  # the features are others now
    assert not any(any(link.read_bytes()) for link in given_up)
    _, rest = both(behind_encoders(Ridge()), marked.filter(pl.col("who") != 8), FEATURES, "loss")
    assert model._final.state_digest_ == rest._final.state_digest_


def test_threads_count_for_steps_too(loans):
    with certified.engine("joblib", n_jobs=2):
        model, whole = both(behind_encoders(Ridge()), loans, FEATURES, "loss")
        assert model._final.state_digest_ == whole._final.state_digest_


@pytest.mark.parametrize(
    ("model", "features", "error", "message"),
    [
        (make_pipeline(PCA(sample_size=9), Ridge()), ["income"], NotDeletable, "PCA does not count rows in parts"),
        (make_pipeline(StandardScaler(), CategoricalNB()), ["income"], NotDeletable, "CategoricalNB"),
        (make_pipeline(StandardScaler(), Ridge()), ["job"], InvalidInput, "job|text|convert"),
        (make_pipeline(StandardScaler(), Ridge()), ["age"], InvalidInput, r"missing \(NaN\)"),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), Ridge()), ["job"], InvalidInput, "text"),
    ],
    ids=lambda value: "",
)
def test_what_parts_do_not_have_is_refused_and_nothing_is_left(loans, tmp_path, model, features, error, message):
    y = "late" if "NB" in str(model) else "loss"
    with pytest.raises((error, ValueError), match=message):
        model.fit(Parts(loans.select(*features, y), folder=tmp_path), y)
    assert list(tmp_path.iterdir()) == []


def test_acts_that_need_rows_in_memory_are_refused(loans):
    model, _ = both(make_pipeline(StandardScaler(), Ridge()), loans, ["income"], "loss")
    for act in (lambda: model.rekey(3), lambda: model.add(loans.select("income")[:1], [1.0], ids=[10**6])):
        with pytest.raises(InvalidRequest, match="Nothing was changed"):
            act()
