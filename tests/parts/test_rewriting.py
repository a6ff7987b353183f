"""Subjects leave the Parquet files that their rows came from."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from certified.errors import InvalidInput
from certified.linear_model import Ridge
from certified.parts import Parts, rewrite_delta, rewrite_parquet


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)
    table = pl.DataFrame({"a": rng.normal(size=900), "y": rng.normal(size=900), "who": np.arange(900) // 3})
    for k, piece in enumerate(table.iter_slices(300)):
        piece.write_parquet(tmp_path / f"{k}.parquet")
    return tmp_path, table


def test_their_rows_leave_the_files_and_the_others_stay_as_they_are(files):
    folder, table = files
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = rewrite_parquet(folder, "who", [3, 150, 10**6])
    assert (found.files, found.rows, found.searched) == (2, 6, 3)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [name for name in sorted(before) if before[name] != after[name]] == ["0.parquet", "1.parquet"]
    assert_frame_equal(pl.read_parquet(folder / "*.parquet"), table.filter(~pl.col("who").is_in([3, 150])))
    gone = table.filter(pl.col("who") == 3)["a"].to_numpy()
    assert not any(value.tobytes() in content for value in gone for content in after.values())
    assert rewrite_parquet(folder, "who", [3, 150]).files == 0  # again


def test_a_fit_on_the_rewritten_files_is_the_model_after_the_deletion(files):
    folder, _ = files
    model = Ridge().fit(Parts(folder, part_bytes=4096), "y", ids="who")
    model.delete([3, 150])
    rewrite_parquet(folder, "who", [3, 150])
    assert Ridge().fit(Parts(folder), "y", ids="who").state_digest_ == model.state_digest_


def test_a_crash_leaves_the_old_file(files, monkeypatch):
    folder, table = files

    def crash(*args):
        raise OSError("no room")

    monkeypatch.setattr("certified.parts._rewriting.os.replace", crash)
    with pytest.raises(OSError, match="no room"):
        rewrite_parquet(folder, "who", [3])
    assert len(list(folder.iterdir())) == 3
    assert_frame_equal(pl.read_parquet(folder / "*.parquet"), table)


def test_what_names_no_subjects_is_refused(files):
    folder, _ = files
    with pytest.raises(InvalidInput, match="no such column"):
        rewrite_parquet(folder, "whom", [3])
    with pytest.raises(InvalidInput, match="another type"):
        rewrite_parquet(folder, "who", ["3"])
    with pytest.raises(InvalidInput, match="no Parquet file"):
        rewrite_parquet(folder / "absent", "who", [3])


@pytest.mark.parametrize("odd", [{"whom": [3]}, {"who": ["3"]}, {"who": [3.0]}], ids=["no column", "text", "floats"])
def test_files_that_do_not_fit_are_found_before_any_is_written(files, odd):
    folder, _ = files
    pl.DataFrame(odd).write_parquet(folder / "9.parquet")  # the last one
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InvalidInput, match="Nothing was changed"):
        rewrite_parquet(folder, "who", [3])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.fixture
def delta(tmp_path):
    pytest.importorskip("deltalake")
    rng = np.random.default_rng(0)
    names = [f"O'client-{k // 3}" for k in range(900)]
    table = pl.DataFrame({"a": rng.normal(size=900), "y": rng.normal(size=900), "who": names})
    for piece in table.iter_slices(300):
        piece.write_delta(tmp_path / "table", mode="append")
    return tmp_path / "table", table


def holds(folder, text):
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_their_rows_leave_a_delta_table_with_its_old_files_and_its_log(delta):
    folder, table = delta
    last = "O'client-99"  # the largest name of a file, which the log has among its statistics
    assert holds(folder / "_delta_log", last.encode())
    assert holds(folder, table["a"][298:299].to_numpy().tobytes())
    gone = [last, "O'client-3", "nobody"]
    found = rewrite_delta(folder, "who", gone)
    assert (found.files, found.rows, found.searched) == (1, 6, 3)
    assert not holds(folder, last.encode())
    assert not holds(folder, b"nobody")  # the request is not in the log either
    assert not any(holds(folder, np.float64(value).tobytes()) for value in table.filter(pl.col("who") == last)["a"])
    rest = table.filter(~pl.col("who").is_in(gone))
    assert_frame_equal(pl.read_delta(str(folder)).sort("a"), rest.sort("a"))
    assert rewrite_delta(folder, "who", gone).rows == 0  # again
    model = Ridge().fit(Parts(pl.scan_delta(str(folder)), in_memory=True), "y", ids="who")
    assert model.state_digest_ == Ridge().fit(Parts(rest, in_memory=True), "y", ids="who").state_digest_


def test_a_delta_table_without_the_column_is_left_alone(delta):
    folder, table = delta
    for column, ids, message in (("whom", ["a"], "no such column"), ("who", [3], "another type")):
        with pytest.raises(InvalidInput, match=message):
            rewrite_delta(folder, column, ids)
    assert pl.read_delta(str(folder)).height == table.height
