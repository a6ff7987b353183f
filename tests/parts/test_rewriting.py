"""Subjects leave the Parquet files that their rows came from."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from certified.errors import InvalidInput
from certified.linear_model import Ridge
from certified.parts import Parts, rewrite_parquet


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
