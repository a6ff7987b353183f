"""Take subjects out of the Parquet files that rows came from: each file that has any is written anew, in its place."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from certified._data.ids import as_ids
from certified.errors import InvalidInput
from certified.parts._tables import parquet_files

__all__ = ["Rewritten", "rewrite_parquet"]


@dataclass(frozen=True)
class Rewritten:
    """What was taken out of files.

    Attributes
    ----------
    files : int
        Files written anew.
    rows : int
        Rows taken out.
    searched : int
        Files whose ids were read.
    """

    files: int
    rows: int
    searched: int


def rewrite_parquet(source: str | Path, column: str, ids: Any) -> Rewritten:
    """Take the rows of these subjects out of the Parquet files of a source.

    A file that has any is written anew beside itself, brought to the disk and put in its place: at a crash there is the
    old file or the new one. When this returns, no file of the source has these rows. What the file system, backups
    and versions of a table format keep of the old files is not covered.

    Parameters
    ----------
    source : path or pattern
        As for :class:`Parts`.
    column : str
        The subjects.
    ids : array-like
        Subjects; those without rows are no error, so that a request can be run again.

    Raises
    ------
    InvalidInput
        A file has no such column.
    """
    gone, files, rows = as_ids(ids, "rewrite_parquet(ids=...)"), 0, 0
    found = parquet_files(source)
    for path in found:
        schema = pl.read_parquet_schema(path)
        if column not in schema:
            raise InvalidInput(
                f"rewrite_parquet(column={column!r}): {path.name} has no such column. Files before it were rewritten; "
                "name the column of the subjects."
            )
        held = as_ids(pl.read_parquet(path, columns=[column])[column], "rewrite_parquet")
        if held.dtype.kind != gone.dtype.kind:
            raise InvalidInput(
                f"rewrite_parquet got ids of another type than {path.name} has in {column!r}. Convert them. "
                f"{files} files were rewritten before."
            )
        leaves = np.isin(held, gone)
        if leaves.any():
            _written(path, pl.Series(~leaves))
            files, rows = files + 1, rows + int(leaves.sum())
    return Rewritten(files, rows, len(found))


def _written(path: Path, stays: pl.Series) -> None:
    """Write the rows that stay to a file beside it, bring it to the disk, and put it in the place of the old one."""
    table = pl.read_parquet(path).filter(stays)
    handle, name = tempfile.mkstemp(prefix=".rewritten-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            table.write_parquet(out)
            out.flush()
            os.fsync(out.fileno())
        os.chmod(name, path.stat().st_mode)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
