"""Batches of rows from wherever they are, in one order each time: frames of polars of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import narwhals.stable.v2 as nw
import polars as pl

from certified.errors import InvalidInput

__all__ = ["BATCH", "Batches", "batches_of", "parquet_files"]

BATCH = 1 << 16
"""Rows that are read at a time."""

Batches = Callable[[list[str] | None], Iterator[pl.DataFrame]]
"""Columns, or None for all of them -> their rows, batch by batch."""

_ALLOWED = (
    "Allowed are a folder, a file or a pattern of Parquet files, a polars LazyFrame (for example of scan_parquet or "
    "scan_delta), a DuckDB relation, a data frame, a list of frames, or a function that returns an iterator of frames "
    "each time it is called."
)


def parquet_files(source: str | Path) -> list[Path]:
    """Return the files of a folder, a pattern or a path, sorted by name; raise InvalidInput for none."""
    path = Path(source)
    if path.is_dir():
        found = [file for file in path.rglob("*.parquet") if not file.name.startswith(("_", "."))]
    elif path.is_file():
        found = [path]
    else:
        found = list(path.parent.glob(path.name))
    if not found:
        raise InvalidInput(f"Parts({str(source)!r}) names no Parquet file. {_ALLOWED}")
    return sorted(found)


def batches_of(source: Any) -> Batches:
    """Return a function that reads the source from its beginning, as often as it is called."""
    if isinstance(source, str | Path):
        files = parquet_files(source)
        return lambda columns: _chained(_lazy(pl.scan_parquet(path), columns) for path in files)
    if isinstance(source, pl.LazyFrame):
        return lambda columns: _lazy(source, columns)
    if type(source).__module__.partition(".")[0] in ("duckdb", "_duckdb"):
        return lambda columns: _relation(source, columns)
    if isinstance(source, list | tuple):
        return lambda columns: _chained(_frame(frame, columns) for frame in source)
    if callable(source) and not hasattr(source, "columns"):
        return lambda columns: _chained(_frame(frame, columns) for frame in source())
    _eager(source)
    return lambda columns: _frame(source, columns)


def _chained(parts: Iterator[Iterator[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    for part in parts:
        yield from part


def _lazy(frame: pl.LazyFrame, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    if not hasattr(frame, "collect_batches"):
        raise InvalidInput(
            f"Parts(...) reads files and lazy frames in batches, as polars can since 1.34; {pl.__version__} is "
            "installed. Install a later one, or give an iterator of frames. Nothing was changed."
        )
    if columns is not None:
        frame = frame.select(columns)
    for batch in frame.collect_batches(chunk_size=BATCH, maintain_order=True):
        yield from batch.iter_slices(BATCH)


def _relation(relation: Any, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    if columns is not None:
        relation = relation.select(*columns)
    for batch in relation.to_arrow_reader(BATCH):
        yield from pl.DataFrame(pl.from_arrow(batch)).iter_slices(BATCH)


def _eager(frame: Any) -> pl.DataFrame:
    if isinstance(frame, pl.DataFrame):
        return frame
    try:
        return nw.from_native(frame, eager_only=True).to_polars()
    except TypeError:
        raise InvalidInput(f"Parts(...) got {type(frame).__name__}. {_ALLOWED}") from None


def _frame(frame: Any, columns: list[str] | None) -> Iterator[pl.DataFrame]:
    found = _eager(frame)
    yield from (found if columns is None else found.select(columns)).iter_slices(BATCH)
