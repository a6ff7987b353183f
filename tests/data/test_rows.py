"""Rows are found by subject, overwritten when deleted, and a deleted id leaves no trace."""

import pickle
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._data.ids import as_ids
from certified._data.rows import BLOCK, Rows, padded
from certified._data.subjects import Subjects
from certified.errors import InvalidInput, InvalidRequest, UnknownIds

ABC = ["b", "a", "b", "c", "a", "b"]


def holds(subjects, wanted):
    """Whether an id is anywhere in the object's arrays."""
    return any(
        array.dtype == subjects._sorted.dtype and wanted in array.tolist()
        for name, array in vars(subjects).items()
        if isinstance(array, np.ndarray) and name not in ("_order", "_rank", "retained")
    )


def delete(subjects, ids):
    rows = subjects.rows_of(ids)
    subjects.drop(rows)
    return sorted(rows.tolist())


# ------------------------------------------------------------------------------------------------ subjects


def test_rows_of_a_subject_are_found():
    subjects = Subjects(ABC, 6)
    assert sorted(subjects.rows_of("b").tolist()) == [0, 2, 5]
    assert sorted(subjects.rows_of(["a", "c"]).tolist()) == [1, 3, 4]
    assert subjects.ids.tolist() == ["a", "b", "c"]
    assert subjects.n_rows == 6


def test_no_ids_means_the_numbers_of_the_rows():
    subjects = Subjects(None, 4)
    assert subjects.ids.tolist() == [0, 1, 2, 3]
    assert subjects.rows_of(2).tolist() == [2]


def test_subjects_are_shared_and_not_copied():
    subjects = Subjects(None, 4)
    assert Subjects.of(subjects, 4) is subjects
    assert Subjects.of([5, 6], 2).ids.tolist() == [5, 6]


def test_uuids_are_ids():
    names = [uuid.UUID(int=i) for i in range(3)]
    assert Subjects(names, 3).rows_of(names[1]).tolist() == [1]


def test_sets_ranges_and_python_integers_are_ids():
    subjects = Subjects(np.array([3, 1, 2], dtype=object), 3)
    assert sorted(subjects.rows_of({1, 3}).tolist()) == [0, 1]
    assert sorted(subjects.rows_of(range(1, 3)).tolist()) == [1, 2]


@pytest.mark.parametrize(
    "ids", [[1.0, 2.0], [1, None], ["a", None], [True, False], np.array(["2020-01-01"], dtype="M8[D]")]
)
def test_ids_of_other_types_are_refused(ids):
    with pytest.raises(InvalidInput, match=r"Integers, text and UUIDs without missing values|are missing"):
        as_ids(ids, "delete(ids=...)")


def test_table_of_ids_is_refused():
    with pytest.raises(InvalidInput, match=r"shape \(2, 2\)"):
        as_ids([[1, 2], [3, 4]], "fit(ids=...)")


def test_wrong_number_of_ids_is_refused():
    with pytest.raises(InvalidInput, match="got 2 ids for 3 rows"):
        Subjects([1, 2], 3)


@pytest.mark.parametrize("empty", [[], np.array([]), set(), np.array([], dtype=str)], ids=repr)
def test_empty_request_is_refused(empty):
    with pytest.raises(InvalidRequest, match="got no ids"):
        Subjects(None, 3).rows_of(empty)


def test_repeated_id_is_refused():
    with pytest.raises(InvalidRequest, match=r"got \[1\] more than once"):
        Subjects(None, 3).rows_of([1, 0, 1])


@pytest.mark.parametrize("ids", [7, [0, 7], "0", ["0", "1"], [-1]])
def test_unknown_id_is_refused(ids):
    subjects = Subjects(None, 3)
    with pytest.raises(UnknownIds, match="that this model does not hold"):
        subjects.rows_of(ids)
    assert subjects.n_rows == 3


def test_ids_of_the_other_kind_are_told_apart():
    with pytest.raises(UnknownIds, match="Those retained are text, these are integers"):
        Subjects(["17", "18"], 2).rows_of(17)
    with pytest.raises(UnknownIds, match="Those retained are integers, these are text"):
        Subjects([17, 18], 2).rows_of(["17"])


@pytest.mark.parametrize("ids", [1, [1, 2]])
def test_deleted_id_is_unknown(ids):
    subjects = Subjects(None, 4)
    delete(subjects, 1)
    with pytest.raises(UnknownIds, match=r"does not hold: \[1\]"):
        subjects.rows_of(ids)


@pytest.mark.parametrize("n", [5, 300], ids=["small", "large"])
@pytest.mark.parametrize("which", ["first", "middle", "last"])
@pytest.mark.parametrize("text", [False, True], ids=["integers", "text"])
def test_deleted_id_leaves_no_trace(n, which, text):
    ids = np.random.default_rng(0).permutation(n) + 1000
    ids = ids.astype(str) if text else ids
    subjects = Subjects(ids, n)
    gone = np.sort(ids)[{"first": 0, "middle": n // 2, "last": -1}[which]]
    assert holds(subjects, gone)
    delete(subjects, [gone])
    assert not holds(subjects, gone)
    assert str(gone).encode() not in pickle.dumps(subjects) or not text
    assert gone not in subjects.ids


@pytest.mark.parametrize("n", [40, 400])
@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_ids_leave_no_trace_until_one_is_left(n, order):
    rng = np.random.default_rng(1)
    ids = rng.permutation(n) + 5000
    subjects = Subjects(ids, n)
    queue = {"ascending": np.sort(ids), "descending": np.sort(ids)[::-1], "random": rng.permutation(ids)}[order]
    for gone in queue[:-1]:
        delete(subjects, gone)
        assert not holds(subjects, gone)
    assert subjects.ids.tolist() == [queue[-1]]
    assert subjects.rows_of(queue[-1]).tolist() == [int(np.flatnonzero(ids == queue[-1])[0])]


@given(data=st.data(), n=st.sampled_from([6, 40, 300]), text=st.booleans(), seed=st.integers(0, 10**6))
@settings(max_examples=150)
def test_subjects_behave_as_a_dictionary_of_rows(data, n, text, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, max(2, n // 2), size=n) * 7 + 10_000
    ids = ids.astype(str) if text else ids
    subjects = Subjects(ids, n)
    model = {}
    for row, name in enumerate(ids.tolist()):
        model.setdefault(name, []).append(row)
    past = []
    for _ in range(data.draw(st.integers(1, 8), label="requests")):
        if len(model) < 2:
            break
        size = data.draw(st.integers(1, min(len(model) - 1, 25)), label="size")
        gone = rng.permutation(sorted(model))[:size].tolist()
        expected = sorted(row for name in gone for row in model.pop(name))
        assert delete(subjects, gone) == expected
        past += gone
        assert subjects.ids.tolist() == sorted(model)
        assert subjects.n_rows == sum(map(len, model.values())) == int(subjects.retained.sum())
        assert not set(past) & set(subjects._sorted.tolist())
        assert np.all(subjects._sorted[:-1] <= subjects._sorted[1:])
        with pytest.raises(UnknownIds, match="does not hold"):
            subjects.rows_of(past[-2:])
    for name, rows in model.items():
        assert sorted(subjects.rows_of(name).tolist()) == rows
    left = rng.permutation(sorted(model)).tolist()
    assert sorted(subjects.rows_of(left).tolist()) == sorted(row for rows in model.values() for row in rows)


# ---------------------------------------------------------------------------------------------------- rows


def aligned(rows):
    return all(getattr(rows, name).ctypes.data % 64 == 0 for name in ("x", "y", "weight"))


def small():
    rng = np.random.default_rng(2)
    return Rows(rng.normal(size=(20, 3)), rng.normal(size=20), rng.uniform(1, 2, size=20), intercept=True)


def test_padding_is_zero_with_weight_zero():
    rows = small()
    assert rows.x.shape == (32, 4)
    assert np.all(rows.x[:20, 3] == 1.0)
    assert not rows.x[20:].any()
    assert not rows.y[20:].any()
    assert not rows.weight[20:].any()
    assert aligned(rows)


def test_missing_target_and_weight_are_zero_and_one():
    rows = Rows(np.ones((17, 2)))
    assert not rows.y.any()
    assert rows.weight.tolist() == [1.0] * 17 + [0.0] * 15


def test_erase_overwrites_the_rows_and_no_others():
    rows, before = small(), small()
    where = rows.x.ctypes.data
    rows.erase(np.array([0, 5, 19]))
    retained = np.setdiff1d(np.arange(32), [0, 5, 19])
    for name in ("x", "y", "weight"):
        assert not getattr(rows, name)[[0, 5, 19]].any()
        assert np.array_equal(getattr(rows, name)[retained], getattr(before, name)[retained])
    assert rows.x.ctypes.data == where


def test_erased_values_are_not_in_the_pickle():
    rows = small()
    secret = rows.x[5].tobytes(), rows.y[5].tobytes(), rows.weight[5].tobytes()
    assert all(s in pickle.dumps(rows) for s in secret)
    rows.erase(np.array([5]))
    assert not any(s in pickle.dumps(rows) for s in secret)


def test_take_returns_copies():
    rows = small()
    x, y, s = rows.take(np.array([3, 1]))
    assert np.array_equal(x, rows.x[[3, 1]])
    assert np.array_equal(y, rows.y[[3, 1]])
    assert np.array_equal(s, rows.weight[[3, 1]])
    x[:] = y[:] = s[:] = -9.0
    assert not np.any(rows.x == -9.0)


@given(n=st.integers(1, 3_000_000))
def test_padded_length_holds_all_rows_with_at_most_an_eighth_to_spare(n):
    size = padded(n)
    assert size >= max(n, 16)
    assert size % min(size, BLOCK) == 0
    if n <= BLOCK:
        assert size & (size - 1) == 0
        assert size < 2 * n or size == 16
    else:
        assert size - n < n / 8 + BLOCK


@given(n=st.integers(1, 3_000_000))
def test_padded_length_of_a_padded_length_is_itself(n):
    assert padded(padded(n)) == padded(n)


def test_blocks_are_views():
    rows = Rows(np.arange(3000.0)[:, None], np.arange(3000.0))
    x, y, s, offset = rows.blocks()
    assert not offset.any()
    assert x.shape[1:] == (BLOCK, 1)
    assert y.shape == s.shape == x.shape[:2]
    assert np.shares_memory(x, rows.x)
    assert np.array_equal(y.ravel()[:3000], np.arange(3000.0))


def test_peak_is_the_largest_absolute_value_of_each_column():
    rows = small()
    assert np.array_equal(rows.peak, np.abs(rows.x).max(axis=0))


def test_every_takes_whole_blocks():
    rows = Rows(np.arange(5000.0)[:, None], np.arange(5000.0))
    some, _ = rows.sample(2)
    inside = some.weight > 0
    assert set(np.unique(some.y[inside] // BLOCK)) == {0.0, 2.0, 4.0}
    assert not np.shares_memory(some.x, rows.x)


def test_buffers_are_aligned_after_a_pickle():
    rows = small()
    for _ in range(3):
        again = pickle.loads(pickle.dumps(rows))
        assert aligned(again)
        for name in ("x", "y", "weight"):
            assert np.array_equal(getattr(again, name), getattr(rows, name))


@pytest.mark.parametrize(
    "request_",
    [{3: "a", 4: "b"}.keys(), (i for i in (3, 4)), (3, 4), {3, 4}, range(3, 5), np.array([3, 4], dtype=object)],
)
def test_any_collection_of_ids_is_a_request(request_):
    assert np.sort(Subjects(None, 10).rows_of(request_)).tolist() == [3, 4]


def test_ids_of_another_kind_or_size_are_refused_with_what_to_do():
    with pytest.raises(UnknownIds, match=r"\['3'\]. Those retained are integers, these are text: convert"):
        Subjects(None, 10).rows_of(["3"])
    with pytest.raises(UnknownIds, match="these are integers: convert"):
        Subjects(["a", "b"], 2).rows_of([3])
    with pytest.raises(InvalidInput, match=r"beyond 64 bits. Give them as text"):
        Subjects([2**70, 1], 2)
