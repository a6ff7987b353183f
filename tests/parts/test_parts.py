"""Rows in parts give what rows in memory give: the same bits of exact sums, solutions within the certified distance."""

import copy
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._convex import derivatives
from certified._convex.losses import Gamma, Logistic, Poisson
from certified._convex.passes import Passes
from certified._data.pairwise import additions, fold
from certified.errors import CertifiedError, InvalidInput, InvalidRequest, UnknownIds
from certified.linear_model import (
    ElasticNet,
    GammaRegressor,
    Lasso,
    LinearRegression,
    LogCoshRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)
from certified.parts import Parts, _rows, _source
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

N, FEATURES = 1500, ["a", "b", "c"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(N, 3)) * [1.0, 10.0, 0.1]
    z = x @ [0.5, 0.05, 2.0]
    return pl.DataFrame(
        {
            **{name: x[:, j] for j, name in enumerate(FEATURES)},
            "who": rng.integers(0, 600, N),
            "class2": np.where(rng.random(N) < 1 / (1 + np.exp(-z)), "bad", "good"),
            "class3": np.digitize(z + rng.normal(size=N), [-0.5, 0.5]),
            "count": rng.poisson(np.exp(0.3 * z)),
            "cost": np.exp(0.3 * z) * rng.gamma(2.0, size=N),
            "real": z + rng.normal(size=N),
            "w": rng.choice([0.0, 0.5, 1.0, 3.0], N),
            "time": rng.uniform(0.5, 2.0, N),
        }
    )


def parts(table, *columns, n_parts=7, **options):
    """Parts of these columns and the features, about so many."""
    width = len(columns) + 3
    return Parts(table.select(*FEATURES, *columns), part_bytes=max(1024, 8 * width * N // n_parts), **options)


# ------------------------------------------------------------------------------- merging


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=70))
def test_values_are_merged_in_their_order_and_each_few_times(values):
    depth = [(1, [0]) for _ in values]
    merged = fold(depth, lambda a, b: (1, [d + 1 for d in a[1]] + [d + 1 for d in b[1]]))
    assert max(merged[1]) <= additions(len(values))
    assert fold([[v] for v in values], list.__add__) == values


@given(n_parts=st.integers(1, 70))
@settings(max_examples=10, deadline=None)
def test_the_bound_of_rounding_counts_the_additions_over_the_parts(table, n_parts):
    rows = Ridge().fit(parts(table, "real", n_parts=n_parts, in_memory=True), "real")._rows
    longest = max(derivatives.chain(*part.open().blocks()[1].shape) for part in rows.stored)
    more = Passes(rows, None).chain - longest
    assert more == (0 if len(rows.stored) == 1 else additions(len(rows.stored)))


@given(n_parts=st.integers(2, 30), loss=st.sampled_from([Logistic(), Poisson(), Gamma()]), seed=st.integers(0, 9))
@settings(max_examples=12, deadline=None)
def test_a_pass_finds_in_many_parts_what_it_finds_in_one(table, n_parts, loss, seed):
    source = table.select(*FEATURES, y=pl.col("cost") if isinstance(loss, Gamma) else pl.col("count").clip(0, 1))
    one, many = (
        Passes(PoissonRegressor().fit(Parts(source, in_memory=True, part_bytes=size), "y")._rows, None)
        for size in (1 << 24, max(1024, 8 * 5 * N // n_parts))
    )
    w = np.random.default_rng(seed).normal(size=4) * [0.5, 0.05, 5.0, 1.0]
    for found, wanted in zip(many.gradient(loss, w), one.gradient(loss, w), strict=True):
        assert np.allclose(found, wanted, rtol=1e-12)
    assert np.allclose(many.curvature(loss, w), one.curvature(loss, w), rtol=1e-12)
    assert np.isclose(many.reach(loss, w), one.reach(loss, w), rtol=1e-14)
    assert np.isclose(many.leverage(loss, np.eye(4)), one.leverage(loss, np.eye(4)), rtol=1e-14)
    assert np.array_equal(many.peak(), one.peak())


# ------------------------------------------------------------------ the same as in memory


@pytest.mark.parametrize("n_parts", [1, 2, 7, 64])
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 99), weighted=st.booleans())
def test_exact_sums_have_the_same_bits_over_any_number_of_shuffled_parts(table, n_parts, seed, weighted):
    shuffled = table.sample(fraction=1.0, shuffle=True, seed=seed)
    weight = {"sample_weight": "w"} if weighted else {}
    columns = ["real", "who", *weight.values()]
    model = Ridge().fit(parts(shuffled, *columns, n_parts=n_parts, in_memory=True), "real", ids="who", **weight)
    whole = Ridge().fit(
        table.select(FEATURES),
        table["real"].to_numpy(),
        ids=table["who"].to_numpy(),
        sample_weight=table["w"].to_numpy() if weighted else None,
    )
    assert model.state_digest_ == whole.state_digest_
    gone = whole.ids_[seed::100]
    assert model.delete(gone).n_rows == whole.delete(gone).n_rows
    assert model.state_digest_ == whole.state_digest_


@pytest.mark.parametrize(
    "model", [LinearRegression(), Lasso(0.01), ElasticNet(0.01), Ridge(2.0, positive=True)], ids=str
)
def test_least_squares_ends_at_the_same_bits(table, model):
    found = copy.copy(model).fit(parts(table, "real"), "real")
    assert found.state_digest_ == model.fit(table.select(FEATURES), table["real"].to_numpy()).state_digest_


@pytest.mark.parametrize("in_memory", [True, False], ids=["memory", "files"])
@pytest.mark.parametrize(
    ("model", "y", "known"),
    [
        (LogisticRegression(), "class2", {}),
        (LogisticRegression(class_weight="balanced"), "class2", {"sample_weight": "w"}),
        (LogisticRegression(class_weight={"bad": 2.0}, l1_ratio=0.5), "class2", {}),
        (LogisticRegression(fit_intercept=False), "class3", {}),
        (PoissonRegressor(alpha=0.01), "count", {"exposure": "time"}),
        (GammaRegressor(), "cost", {"sample_weight": "time"}),
        (TweedieRegressor(power=1.5), "count", {"offset": "time"}),
        (LogCoshRegressor(), "real", {}),
    ],
    ids=lambda value: str(value).replace("\n", "") if not isinstance(value, dict) else "",
)
def test_solutions_are_within_the_certified_distance_of_those_in_memory(table, model, y, known, in_memory):
    found = copy.copy(model).fit(parts(table, y, "who", *known.values(), in_memory=in_memory), y, ids="who", **known)
    arrays = {name: table[column].to_numpy() for name, column in known.items()}
    whole = model.fit(table.select(FEATURES), table[y].to_numpy(), ids=table["who"].to_numpy(), **arrays)

    def check():
        gap = whole._noise_metric_now().whitened(found._state.solution.w - whole._state.solution.w)
        allowed = found.certificate_.distance_bound + whole.certificate_.distance_bound
        assert np.linalg.norm(gap) <= allowed
        assert found._state.products.same(whole._state.products)

    check()
    gone = whole.ids_[3::50]
    for request in (gone[:1], gone[1:]):
        receipts = found.delete(request), whole.delete(request)
        assert receipts[0].n_rows == receipts[1].n_rows
        assert receipts[0].method == receipts[1].method
        check()
    found.refine(), whole.refine()
    check()
    assert np.array_equal(found.ids_, whole.ids_)
    assert type(found.release()) is type(whole.release())


# ------------------------------------------------------------------- where a subject lives


@given(n_parts=st.integers(1, 40), text=st.booleans())
@settings(max_examples=15, deadline=None)
def test_a_subject_lives_in_one_part_and_every_row_is_in_one(table, n_parts, text):
    some = table.with_columns(pl.col("who").cast(pl.String)) if text else table
    model = Ridge().fit(parts(some, "real", "who", n_parts=n_parts, in_memory=True), "real", ids="who")
    opened = [part.open() for part in model._rows.stored]
    held = [set(part.ids[part.retained].tolist()) for part in opened]
    assert sum(map(len, held)) == len(set.union(*held)) == some["who"].n_unique()
    assert sum(int(part.retained.sum()) for part in opened) == model.n_rows_ == N


def test_a_deletion_changes_one_file_and_leaves_no_byte_of_the_row(table, tmp_path):
    marked = table.with_columns(pl.when(pl.col("who") == 17).then(0.123456789).otherwise(pl.col("a")).alias("a"))
    marked = marked.with_columns(who=pl.format("client {}.", "who"))
    model = Ridge().fit(parts(marked, "real", "who", folder=tmp_path), "real", ids="who")
    files = sorted(tmp_path.rglob("part-*"))
    before = [path.read_bytes() for path in files]
    marks = np.float64(0.123456789).tobytes(), "client 17.".encode("utf-32-le")
    assert [sum(mark in content for content in before) for mark in marks] == [1, 1]
    model.delete("client 17.")
    after = [path.read_bytes() for path in files]
    assert sum(a != b for a, b in zip(before, after, strict=True)) == 1
    assert not any(mark in content for content in after for mark in marks)
    del model
    assert list(tmp_path.iterdir()) == []


def test_unknown_ids_change_nothing(table):
    model = Ridge().fit(parts(table, "real", "who"), "real", ids="who")
    before = model.state_digest_
    for request, error in (
        ([17, 10**6], UnknownIds),
        (["17"], UnknownIds),
        ([], InvalidRequest),
        ([1, 1], InvalidRequest),
    ):
        with pytest.raises(error, match="Nothing was changed"):
            model.delete(request)
    receipt = model.delete([17, 10**6], missing="ignore")
    assert receipt.ignored == (10**6,)
    assert model.state_digest_ != before
    with pytest.raises(UnknownIds, match="does not hold"):
        model.delete(17)


def test_rows_without_ids_are_numbered_as_the_source_has_them(table):
    model = Ridge().fit(parts(table, "real"), "real")
    model.delete([0, 1499])
    rest = table[1:-1]
    assert model.state_digest_ == Ridge().fit(rest.select(FEATURES), rest["real"].to_numpy()).state_digest_


def test_a_deletion_that_changes_exponents_sums_all_parts_again(table):
    far = table.with_columns(pl.when(pl.int_range(N) == 700).then(1e6).otherwise(pl.col("b")).alias("b"))
    model = Ridge().fit(parts(far, "real"), "real")
    model.delete(700)
    rest = far.filter(pl.int_range(N) != 700)
    assert model.state_digest_ == Ridge().fit(rest.select(FEATURES), rest["real"].to_numpy()).state_digest_


# ------------------------------------------------------------------------------ sources


def test_every_kind_of_source_has_the_same_rows(table, tmp_path):
    wanted = table.select(*FEATURES, "real", "who")
    for k, piece in enumerate(wanted.iter_slices(400)):
        piece.write_parquet(tmp_path / f"{k}.parquet")
    pieces = list(wanted.iter_slices(500))
    sources = [
        wanted,
        wanted.lazy(),
        wanted.to_pandas(),
        wanted.to_arrow(),
        pieces,
        lambda: iter(pieces),
        tmp_path,
        str(tmp_path / "*.parquet"),
        pl.scan_parquet(tmp_path),
    ]
    digests = {Ridge().fit(Parts(source, in_memory=True), "real", ids="who").state_digest_ for source in sources}
    assert len(digests) == 1


def test_a_duckdb_relation_is_a_source(table):
    duckdb = pytest.importorskip("duckdb")
    wanted = table.select(*FEATURES, "real", "who")
    relation = duckdb.connect().from_arrow(wanted.to_arrow())
    model = Ridge().fit(Parts(relation, in_memory=True), "real", ids="who")
    assert model.state_digest_ == Ridge().fit(Parts(wanted, in_memory=True), "real", ids="who").state_digest_


def test_a_delta_table_is_a_source(table, tmp_path):
    pytest.importorskip("deltalake")
    wanted = table.select(*FEATURES, "real", "who")
    wanted.write_delta(tmp_path / "delta")
    model = Ridge().fit(Parts(pl.scan_delta(str(tmp_path / "delta")), in_memory=True), "real", ids="who")
    assert model.state_digest_ == Ridge().fit(Parts(wanted, in_memory=True), "real", ids="who").state_digest_


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "call", "message"),
    [
        ({"a": None}, {}, r"missing or infinite values \(NaN\) in the column 'a'"),
        ({"a": np.inf}, {}, "missing or infinite"),
        ({"a": "text"}, {}, "column 'a' of type String"),
        ({"a": 2**53}, {}, "identifier"),
        ({"w": -1.0}, {"sample_weight": "w"}, "negative values"),
        ({"who": 1.5}, {"ids": "who"}, "float"),
        ({}, {"ids": "whom"}, "does not have: \\['whom'\\]"),
        ({}, {"ids": "class2", "sample_weight": "class2"}, "twice"),
        ({}, {"sample_weight": np.ones(N)}, "name of a column"),
        ({"class2": 0.5}, {}, "continuous"),
        ({"class2": None}, {}, "missing values"),
        ({"class2": 1}, {}, "one class"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_left(table, tmp_path, change, call, message):
    spoiled = table.select(*FEATURES, "class2", "w", "who").with_columns(**{k: pl.lit(v) for k, v in change.items()})
    with pytest.raises(CertifiedError, match=message):
        LogisticRegression().fit(Parts(spoiled, folder=tmp_path), "class2", **call)
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_or_disk_is_told_before_anything_is_written(table, tmp_path, monkeypatch):
    monkeypatch.setattr(_source, "available_memory", lambda: 1 << 20)
    with pytest.raises(InvalidInput, match="part_bytes"):
        Ridge().fit(Parts(table.select(*FEATURES, "real"), folder=tmp_path), "real")
    wide = table.select(*FEATURES, *[pl.col("a").alias(f"a{j}") for j in range(90)], "real")
    with pytest.raises(InvalidInput, match="free in memory"):
        Ridge().fit(Parts(wide, in_memory=True, part_bytes=1024), "real")
    monkeypatch.setattr(_source.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(InvalidInput, match="would write"):
        Ridge().fit(Parts(table.select(*FEATURES, "real"), folder=tmp_path, part_bytes=1024), "real")
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_changes_while_it_is_read_is_refused(table):
    calls = []

    def reading():
        calls.append(1)
        return iter([table.select(*FEATURES, "real")[: N - len(calls)]])

    with pytest.raises(InvalidInput, match="other rows the second time"):
        Ridge().fit(Parts(reading), "real")


def test_a_copy_has_files_of_its_own_and_a_pickle_is_refused(table, tmp_path):
    model = Ridge().fit(parts(table, "real", "who", folder=tmp_path), "real", ids="who")
    other = copy.deepcopy(model)
    other.delete(5)
    assert model.n_rows_ == N
    model.delete(5)
    assert model.state_digest_ == other.state_digest_
    with pytest.raises(InvalidRequest, match="keep=True"):
        pickle.dumps(model)
    in_memory = Ridge().fit(parts(table, "real", "who", in_memory=True), "real", ids="who")
    again = pickle.loads(pickle.dumps(in_memory))
    again.delete(5)
    assert again.state_digest_ == model.state_digest_
    assert in_memory.n_rows_ == N
    with pytest.raises(InvalidRequest, match="cannot be added"):
        in_memory.add(table.select(FEATURES)[:1], [0.0], ids=[10**6])


@given(n_parts=st.integers(1, 64), at_least=st.sampled_from([1, 3, 16]), most=st.sampled_from([64, 1024, 4096]))
@settings(max_examples=20, deadline=None)
def test_a_first_guess_looks_at_no_more_rows_the_more_there_are(table, n_parts, at_least, most):
    rows = Ridge().fit(parts(table, "real", n_parts=n_parts, in_memory=True), "real")._rows
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rows, "_SAMPLE", 8 * rows.width * most)
        patch.setattr(_rows, "BLOCK", 16)
        some, step = rows.sample(at_least)
    assert 0 < np.count_nonzero(some.weight) <= 2 * max(most, 16 * rows.width) + 64
    assert step >= at_least


def test_a_saved_model_finds_its_parts_until_they_change(table, tmp_path):
    model = Ridge().fit(parts(table, "real", "who", folder=tmp_path, keep=True), "real", ids="who")
    early = pickle.dumps(model)
    model.delete(5)
    late = pickle.dumps(model)
    before = model.state_digest_
    del model
    again = pickle.loads(late)
    assert again.state_digest_ == before
    for act in (lambda old: old.delete(6), lambda old: old.ids_):
        with pytest.raises(InvalidRequest, match="changed 1 times, and this model knows 0"):
            act(pickle.loads(early))
    other = pickle.loads(late)
    again.delete(6)
    with pytest.raises(InvalidRequest, match="another copy of it has deleted"):
        other.delete(7)
    assert again.delete(7).n_rows > 0


def test_a_pipeline_on_parts_that_stay_is_saved_and_deletes_anew(table, tmp_path):
    far = table.with_columns(pl.when(pl.col("who") == 5).then(1e4).otherwise(pl.col("a")).alias("a"))
    pipeline = make_pipeline(StandardScaler(), Ridge())
    model = pipeline.fit(parts(far, "real", "who", folder=tmp_path, keep=True), "real", ids="who")
    again = pickle.loads(pickle.dumps(model))
    assert again.delete(5).changed == ("standardscaler", "ridge")  # the model has new parts
    last = pickle.loads(pickle.dumps(again))
    last.delete(6)
    rest = far.filter(~pl.col("who").is_in([5, 6]))
    whole = make_pipeline(StandardScaler(), Ridge()).fit(rest.select(FEATURES), rest["real"].to_numpy())
    assert last._final.state_digest_ == whole._final.state_digest_
    assert len(list(tmp_path.iterdir())) == 2  # the folder of the features before is gone
