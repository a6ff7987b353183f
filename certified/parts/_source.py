"""Where rows come from and where their parts are to live: what is given to ``fit`` in place of a table."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from certified.errors import InvalidInput
from certified.parts._dealing import Dealt, Roles, deal
from certified.parts._part import Layout
from certified.parts._rows import PartedRows
from certified.parts._subjects import PartedSubjects
from certified.parts._tables import batches_of

__all__ = ["Opened", "Parts"]

_LARGEST = 1 << 31  # rows: what the exact sums of moments hold
_SHARE = 0.5  # of the memory that a part and what is made of it may take
_COPIES = 4.0  # arrays of the size of a part that a pass may hold


class Parts:
    """Rows of a source, dealt to parts by their subjects, for ``fit`` in place of X.

    Nothing is read before ``fit``. Then ids and classes are read, to count the rows of every part, and then all
    columns, once. Every row is copied to its part as float64; passes and deletions work on the parts.

    Parameters
    ----------
    source : path, pattern, LazyFrame, relation, frame, list of frames or callable
        A folder, a file or a pattern of Parquet files; a polars ``LazyFrame``, for example of ``scan_delta``; a DuckDB
        relation; a data frame of polars, pandas or pyarrow, or a list of them; or a function that returns an iterator
        of frames each time it is called.
    folder : path or None, default=None
        Where the parts live: every fit makes a folder of its own in it. It goes with the model,
        unless `keep` is true.
    in_memory : bool, default=False
        Keep the parts in memory. Without it and without a folder they live in a temporary one.
    part_bytes : int, default=32 MiB
        Bytes of the features of a part: what a pass has in memory is a few times as much.
    keep : bool, default=False
        Whether the part files outlive the model, so that it can be pickled and loaded where they are. A pickle is good
        until the next deletion: save the model again then.

    Examples
    --------
    >>> import numpy as np, polars as pl
    >>> from certified.linear_model import LogisticRegression
    >>> from certified.parts import Parts
    >>> rng = np.random.default_rng(0)
    >>> loans = pl.DataFrame({"customer": np.arange(900) // 2, "income": rng.normal(size=900)})
    >>> loans = loans.with_columns(default=pl.col("income") < rng.normal(size=900))
    >>> model = LogisticRegression().fit(Parts(loans.lazy()), "default", ids="customer")
    >>> model.delete([17]).n_rows
    2
    """

    def __init__(
        self,
        source: Any,
        *,
        folder: str | Path | None = None,
        in_memory: bool = False,
        part_bytes: int = 32 << 20,
        keep: bool = False,
    ) -> None:
        if keep and folder is None:
            raise InvalidInput("Parts(keep=True) got no folder. Say where the files are to stay.")
        if in_memory and folder is not None:
            raise InvalidInput("Parts(in_memory=True) got a folder, too. Give one of them.")
        if not (isinstance(part_bytes, int | np.integer) and part_bytes >= 1 << 10):
            raise InvalidInput(f"Parts(part_bytes={part_bytes!r}) is not allowed: a whole number >= 1024 is needed.")
        self.source, self.in_memory, self.part_bytes, self.keep = source, in_memory, int(part_bytes), keep
        self.folder = None if folder is None else Path(folder)
        self._batches = batches_of(source)

    def open(self, caller: str, roles: Roles) -> Opened:
        """Deal the rows, for a fit with these roles of the columns.

        Raises
        ------
        InvalidInput
            Memory or disk would not do, before anything is written; or a column is unfit.
        """
        first = next(iter(self._batches(None)), None)
        p = 1 if first is None else max(1, len(first.columns) - len(roles.named())) + len(roles.targets) + 1
        rows_per_part = max(16, self.part_bytes // (8 * p))
        self._check_memory(caller, p, rows_per_part)
        folder = self._own_folder()
        try:
            dealt = deal(caller, self._checked(caller, p, folder), roles, rows_per_part, folder)
        except BaseException:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        return Opened(dealt, roles, folder if folder is not None and not self.keep else None)

    def _own_folder(self) -> Path | None:
        if self.in_memory:
            return None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="certified-parts-", dir=self.folder))

    def _check_memory(self, caller: str, p: int, rows_per_part: int) -> None:
        needed = _COPIES * Layout(rows_per_part, p, True, "<i8").n_bytes
        there = available_memory()
        if there is not None and needed > _SHARE * there:
            raise InvalidInput(
                f"{caller} would need about {needed / 2**20:.0f} MiB for a pass over one part of {rows_per_part} rows, "
                f"and {there / 2**20:.0f} MiB of memory are free. Make parts smaller: Parts(..., part_bytes=...). "
                "Nothing was changed."
            )

    def _checked(self, caller: str, p: int, folder: Path | None) -> Any:
        """The batches, after a look at how many rows there are and what room there is for their copies."""
        n = sum(batch.height for batch in self._batches(next(iter(self._batches(None))).columns[:1]))
        if n >= _LARGEST:
            raise InvalidInput(
                f"{caller} got {n} rows. Below 2^31 are allowed, which is what exact sums of moments hold. Fit shards, "
                "or leave rows out. Nothing was changed."
            )
        needed = n * 8 * (p + 4)
        there = available_memory() if folder is None else shutil.disk_usage(folder).free
        if there is not None and needed > 0.9 * there:
            raise InvalidInput(
                f"{caller} would write {needed / 2**20:.0f} MiB of parts, and {there / 2**20:.0f} MiB are free "
                f"{'in memory' if folder is None else f'in {folder.parent}'}. Give another folder= with more room, or "
                "read fewer columns. Nothing was changed."
            )
        return self._batches

    def __repr__(self) -> str:
        return f"Parts({self.source if isinstance(self.source, str | Path) else type(self.source).__name__!s})"


class Opened:
    """Parts of one fit, in a ``with`` block that gives them up on an error.

    Attributes
    ----------
    rows : PartedRows
    subjects : PartedSubjects
    features : list of str
    classes : array or None
    """

    def __init__(self, dealt: Dealt, roles: Roles, owned: Path | None) -> None:
        self.rows = PartedRows(dealt.stored, dealt.unweighted, owned)
        n = sum(part.layout.n_rows for part in dealt.stored)
        self.subjects = PartedSubjects(self.rows, n, roles.ids is not None)
        self.features, self.classes, self.n_rows = dealt.features, dealt.classes, n
        self.text, self.example = dealt.text, dealt.example

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None:
            self.rows.remove()


def available_memory() -> int | None:
    """Return the bytes of memory that are free, None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None
