"""Take subjects out of what their rows came from: Parquet files, Delta tables."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from certified._data.ids import as_ids
from certified.errors import CertifiedError, InvalidInput, MissingExtra
from certified.parts._tables import parquet_files

__all__ = ["Rewritten", "rewrite_delta", "rewrite_parquet"]

_AT_ONCE = 1000  # subjects named in one deletion of a table
_RETENTION = "delta.logRetentionDuration"
_USUAL = "interval 30 days"  # where a table says nothing


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
        A file has no such column, or its values have another type.
    """
    gone, files, rows = as_ids(ids, "rewrite_parquet(ids=...)"), 0, 0
    found = parquet_files(source)
    for path in found:  # before any of them is written
        kind = pl.read_parquet_schema(path).get(column)
        if kind is None:
            raise InvalidInput(
                f"rewrite_parquet(column={column!r}): {path.name} has no such column. Name the column of the subjects. "
                "Nothing was changed."
            )
        if not (kind.is_integer() if gone.dtype.kind == "i" else kind in (pl.String, pl.Categorical, pl.Enum)):
            raise InvalidInput(
                f"rewrite_parquet got ids of another type than {path.name} has in {column!r}, {kind}. Convert them. "
                "Nothing was changed."
            )
    for path in found:
        held = as_ids(pl.read_parquet(path, columns=[column])[column], "rewrite_parquet")
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


def rewrite_delta(table: str | Path, column: str, ids: Any) -> Rewritten:
    """Take the rows of these subjects out of a Delta table, its old files and its log.

    A deletion alone leaves the rows in files of earlier versions, and smallest and largest values, and the ids that
    the request named, in the log. So the files that no version needs any more are removed, the log is closed by a
    checkpoint, and what is older is removed. Earlier versions of the table cannot be read afterwards. Nobody may write
    to the table meanwhile, and readers of earlier versions fail.

    Parameters
    ----------
    table : path
        Of a table on a file system.
    column : str
        The subjects.
    ids : array-like
        Subjects; those without rows are no error, so that a request can be run again.

    Raises
    ------
    InvalidInput
        The table has no such column, or its values have another type.
    CertifiedError
        A file of an earlier version is still there.
    MissingExtra
        ``deltalake`` is not installed (extra ``delta``).
    """
    try:
        from deltalake import DeltaTable
    except ImportError as error:
        raise MissingExtra("rewrite_delta", "deltalake", "delta") from error
    gone, found = as_ids(ids, "rewrite_delta(ids=...)"), DeltaTable(str(table))
    kinds = pl.read_delta(str(table), version=found.version()).head(0).schema
    if column not in kinds:
        raise InvalidInput(f"rewrite_delta(column={column!r}): the table has no such column. Nothing was changed.")
    if kinds[column].is_integer() != (gone.dtype.kind == "i"):
        raise InvalidInput(
            f"rewrite_delta got ids of another type than the table has in {column!r}. Convert them. Nothing was "
            "changed."
        )
    searched, files, rows = len(found.file_uris()), 0, 0
    for start in range(0, len(gone), _AT_ONCE):
        done = found.delete(f'"{column}" IN ({", ".join(map(_quoted, gone[start : start + _AT_ONCE].tolist()))})')
        files, rows = files + int(done["num_removed_files"]), rows + int(done["num_deleted_rows"])
    found.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    before = found.metadata().configuration.get(_RETENTION, _USUAL)
    found.alter.set_table_properties({_RETENTION: "interval 0 days"})
    found.create_checkpoint()
    found.cleanup_metadata()
    found.alter.set_table_properties({_RETENTION: before})
    _check_delta(Path(table), found)
    return Rewritten(files, rows, searched)


def _quoted(value: Any) -> str:
    """A value as the language of the table writes it."""
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"


def _check_delta(folder: Path, found: Any) -> None:
    """Raise where a file is left that the present version does not need, or an older entry of the log."""
    needed = {Path(uri.removeprefix("file://")).name for uri in found.file_uris()}
    files = [path for path in folder.rglob("*.parquet") if "_delta_log" not in path.parts]
    left = [path.name for path in files if path.name not in needed]
    log = folder / "_delta_log"
    closed = max(int(path.name[:20]) for path in log.glob("*.checkpoint*.parquet"))
    left += [path.name for path in log.glob("*.json") if path.name[:20].isdigit() and int(path.name[:20]) < closed]
    if left:
        raise CertifiedError(
            f"rewrite_delta took the rows out of the table, and {len(left)} files of earlier versions are still there: "
            f"{left[:3]}. Remove them by the tools of the table."
        )
