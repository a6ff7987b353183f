"""Deal the rows of a source to parts by their subjects: two readings, of which the first sees ids and targets alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from certified._data.hashing import subject_hash
from certified._data.ids import as_ids
from certified.errors import InvalidInput
from certified.parts._part import MISSING, InFile, InMemory, Layout, Stored
from certified.parts._tables import Batches
from certified.typing import FloatArray, IntArray

__all__ = ["Dealt", "Roles", "deal", "part_of"]

_CLASSES = 10_000
_EXAMPLE = 50
_LONGEST = 200
_WHOLE = 2.0**53


@dataclass(frozen=True)
class Roles:
    """What the columns of the source are.

    Attributes
    ----------
    ids, weight, offset, exposure : str or None
    targets : tuple of str
    as_classes : bool
        Whether the target is the name of a class.
    targets_last : bool
        Whether the targets are columns after the features, and not y.
    ones : bool
        Whether a column of ones follows.
    raw : bool
        Whether features may be text or missing: other steps come before a model sees them.
    """

    ids: str | None
    targets: tuple[str, ...]
    weight: str | None = None
    offset: str | None = None
    exposure: str | None = None
    as_classes: bool = False
    targets_last: bool = False
    ones: bool = True
    raw: bool = False

    @classmethod
    def named_by(
        cls,
        caller: str,
        y: Any,
        ids: Any,
        sample_weight: Any = None,
        offset: Any = None,
        exposure: Any = None,
        **kinds: bool,
    ) -> Roles:
        """Return the roles that the arguments of a fit name; raise InvalidInput for what is no name of a column.

        ``y`` may be a list of names where the targets follow the features, and None where there are none.
        """
        targets = (
            tuple(y) if isinstance(y, list | tuple) and kinds.get("targets_last") else (y,) if y is not None else ()
        )
        known = {"ids": ids, "sample_weight": sample_weight, "offset": offset, "exposure": exposure}
        for name, value in [*(("y", target) for target in targets), *known.items()]:
            if not (isinstance(value, str) or (value is None and name != "y")):
                raise InvalidInput(
                    f"{caller} got Parts and {name} of type {type(value).__name__}. The name of a column of the source "
                    f"is needed, for example {name}='{name}'. Nothing was changed."
                )
        if offset is not None and exposure is not None:
            raise InvalidInput(f"{caller} got both offset and exposure. Give one: offset = log(exposure).")
        return cls(ids, targets, sample_weight, offset, exposure, **kinds)

    def named(self) -> list[str]:
        """Columns that are no features."""
        some = (self.ids, *self.targets, self.weight, self.offset, self.exposure)
        return [name for name in some if name is not None]


@dataclass(frozen=True, eq=False)
class Dealt:
    """The parts, and what was learned while dealing.

    Attributes
    ----------
    stored : list of Stored
    features : list of str
    classes : array or None
        Sorted.
    unweighted : bool
        Whether every weight is 0 or 1.
    text : tuple of bool
        Which features are columns of text.
    example : frame
        The features of some first rows.
    """

    stored: list[Stored]
    features: list[str]
    classes: Any
    unweighted: bool
    text: tuple[bool, ...]
    example: pl.DataFrame


def part_of(ids: Any, n_parts: int) -> IntArray:
    """Return the part in which each subject lives: a function of its id alone."""
    return (subject_hash(ids) % np.uint64(n_parts)).astype(np.int64)


def deal(caller: str, batches: Batches, roles: Roles, rows_per_part: int, folder: Path | None) -> Dealt:
    """Write the rows of the source to parts; on an error nothing is left behind."""
    counted = _Count(caller, batches, roles)
    if counted.n_rows == 0:
        raise InvalidInput(f"{caller} got a source without rows. Nothing was changed.")
    n_parts = max(1, -(-counted.n_rows // rows_per_part))
    counts = counted.rows_of_parts(n_parts)
    p = len(counted.features) - len(counted.widths) + len(roles.targets) * roles.targets_last + roles.ones
    known = roles.offset is not None or roles.exposure is not None
    stored: list[Stored] = []
    try:
        for k, n in enumerate(counts.tolist()):
            layout = Layout(n, p, known, counted.id_type, tuple(counted.widths.values()))
            stored.append(InMemory.new(layout) if folder is None else InFile.new(layout, folder / f"part-{k:06d}"))
        unweighted = _write(caller, batches, roles, counted, stored)
    except BaseException:
        for part in stored:
            part.discard()
        raise
    text = tuple(name in counted.widths for name in counted.features)
    return Dealt(stored, counted.features, counted.classes, unweighted, text, counted.example)


class _Count:
    """The first reading: columns, classes, the type of the ids, and how many rows every part gets."""

    def __init__(self, caller: str, batches: Batches, roles: Roles) -> None:
        first = next(iter(batches(None)), None)
        if first is None:
            raise InvalidInput(f"{caller} got a source without rows. Nothing was changed.")
        lacking = [name for name in roles.named() if name not in first.columns]
        if lacking:
            raise InvalidInput(
                f"{caller} names columns that the source does not have: {lacking}. It has {first.columns[:20]}. "
                "Nothing was changed."
            )
        twice = {name for name in roles.named() if roles.named().count(name) > 1}
        if twice:
            raise InvalidInput(f"{caller} names the column {sorted(twice)[0]!r} twice. Nothing was changed.")
        self.features = [name for name in first.columns if name not in roles.named()]
        if not self.features:
            raise InvalidInput(f"{caller} got a source without a column of features. Nothing was changed.")
        self._batches, self._roles, self._caller = batches, roles, caller
        self.example = first.head(_EXAMPLE).select(self.features)
        self.widths = {name: 1 for name in self.features if roles.raw and _is_text(first[name])}
        self.n_rows, width, kinds, seen = 0, 1, set(), set()
        wanted = [name for name in (roles.ids, *(roles.targets if roles.as_classes else ())) if name is not None]
        wanted += self.widths
        for batch in batches(wanted or self.features[:1]):
            self.n_rows += batch.height
            if roles.ids is not None:
                ids = as_ids(batch[roles.ids], f"{caller}(ids={roles.ids!r})")
                kinds.add(ids.dtype.kind)
                width = max(width, ids.dtype.itemsize // 4)
            if roles.as_classes:
                seen.update(batch[roles.targets[0]].unique().to_list())
                if len(seen) > _CLASSES:
                    raise InvalidInput(
                        f"{caller}(y={roles.targets[0]!r}) names a column with more than {_CLASSES} values. Classes "
                        "are needed. Nothing was changed."
                    )
            for name in self.widths:
                longest: Any = batch[name].cast(pl.String).str.len_chars().max()
                self.widths[name] = max(self.widths[name], int(longest or 0))
        for name, characters in self.widths.items():
            if characters > _LONGEST:
                raise InvalidInput(
                    f"{caller} got a text of {characters} characters in the column {name!r}. Up to {_LONGEST} are "
                    "allowed: every row takes as much room. Leave the column out. Nothing was changed."
                )
        self.id_type = f"<U{width}" if "U" in kinds else "<i8"
        self.classes = None if not roles.as_classes else self._sorted(seen)

    def _sorted(self, seen: set[Any]) -> Any:
        name = self._roles.targets[0]
        if None in seen:
            raise InvalidInput(
                f"{self._caller}(y={name!r}) names a column with missing values. Leave these rows out. "
                "Nothing was changed."
            )
        if any(isinstance(value, float) and not value.is_integer() for value in seen):
            raise InvalidInput(
                f"{self._caller}(y={name!r}) got continuous targets, and a classifier needs classes. Unknown label "
                "type: continuous. Nothing was changed."
            )
        return np.array(sorted(seen))

    def rows_of_parts(self, n_parts: int) -> IntArray:
        """How many rows go to every part; reads the ids again."""
        counts, done = np.zeros(n_parts, dtype=np.int64), 0
        if self._roles.ids is None:
            for start in range(0, self.n_rows, 1 << 20):
                numbers = np.arange(start, min(start + (1 << 20), self.n_rows))
                counts += np.bincount(part_of(numbers, n_parts), minlength=n_parts)
            return counts
        for batch in self._batches([self._roles.ids]):
            done += batch.height
            ids = as_ids(batch[self._roles.ids], self._caller)
            counts += np.bincount(part_of(ids, n_parts), minlength=n_parts)
        return counts


def _write(caller: str, batches: Batches, roles: Roles, counted: _Count, stored: list[Stored]) -> bool:
    """The second reading: every row to its part. Return whether all weights are 0 or 1."""
    used, done, unweighted = np.zeros(len(stored), dtype=np.int64), 0, True
    for batch in batches([*counted.features, *roles.named()]):
        n = batch.height
        ids = (
            np.arange(done, done + n)
            if roles.ids is None
            else as_ids(batch[roles.ids], caller).astype(counted.id_type, copy=False)
        )
        done += n
        arrays = _arrays(caller, batch, roles, counted)
        unweighted &= bool(np.all((arrays["weight"] == 0.0) | (arrays["weight"] == 1.0)))
        place = part_of(ids, len(stored))
        order = np.argsort(place, kind="stable")
        ends = np.cumsum(np.bincount(place, minlength=len(stored)))
        arrays |= {"ids": ids, "retained": np.ones(n, dtype=bool)}
        for k in np.unique(place).tolist():
            rows = order[(ends[k - 1] if k else 0) : ends[k]]
            if used[k] + rows.size > stored[k].layout.n_rows:
                raise InvalidInput(_changed(caller))
            for name, values in arrays.items():
                stored[k].put(name, int(used[k]), values[rows])
            used[k] += rows.size
    if any(int(n) != part.layout.n_rows for n, part in zip(used, stored, strict=True)):
        raise InvalidInput(_changed(caller))
    return unweighted


def _changed(caller: str) -> str:
    return (
        f"{caller} read the source twice and found other rows the second time. Give a source that does not change "
        "meanwhile and has one order, such as files or a table at one version. Nothing was changed."
    )


def _arrays(caller: str, batch: pl.DataFrame, roles: Roles, counted: _Count) -> dict[str, Any]:
    n_numbers = len(counted.features) - len(counted.widths)
    x = np.ones((batch.height, n_numbers + len(roles.targets) * roles.targets_last + roles.ones))
    columns = [name for name in counted.features if name not in counted.widths]
    for j, values in enumerate(_numbers(caller, batch, columns, missing=roles.raw)):
        x[:, j] = values
    if roles.targets_last:
        for j, values in enumerate(_numbers(caller, batch, list(roles.targets))):
            x[:, len(columns) + j] = values
    out: dict[str, Any] = {"x": x}
    for j, name in enumerate(counted.widths):
        out[f"text{j}"] = _text(caller, name, batch[name])
    if roles.as_classes:
        name = roles.targets[0]
        known = np.asarray(counted.classes).tolist()
        codes = batch[name].replace_strict(known, list(range(len(known))), return_dtype=pl.Float64)
        out["y"] = codes.to_numpy()
    elif roles.targets and not roles.targets_last:
        out["y"] = next(_numbers(caller, batch, list(roles.targets)))
    out["weight"] = np.ones(batch.height)
    if roles.weight is not None:
        out["weight"] = next(_numbers(caller, batch, [roles.weight]))
        if np.any(out["weight"] < 0):
            raise InvalidInput(
                f"{caller}(sample_weight={roles.weight!r}) names a column with negative values. Numbers >= 0 are "
                "needed. Nothing was changed."
            )
    if roles.offset is not None:
        out["offset"] = next(_numbers(caller, batch, [roles.offset]))
    elif roles.exposure is not None:
        exposure = next(_numbers(caller, batch, [roles.exposure]))
        if not np.all(exposure > 0):
            raise InvalidInput(
                f"{caller}(exposure={roles.exposure!r}) names a column with values <= 0. Positive numbers are needed. "
                "Nothing was changed."
            )
        out["offset"] = np.log(exposure)
    return out


def _is_text(column: pl.Series) -> bool:
    return column.dtype == pl.String or column.dtype in (pl.Categorical, pl.Enum)


def _text(caller: str, name: str, column: pl.Series) -> Any:
    """Return a column of text as an array of numpy, which must be able to hold each value as it is."""
    column = column.cast(pl.String)
    if column.str.contains(f"[{MISSING}\x00]").any():
        raise InvalidInput(
            f"{caller} got text with a NUL or U+10FFFF in the column {name!r}, which is no character. Replace it. "
            "Nothing was changed."
        )
    return column.fill_null(MISSING).to_numpy().astype(np.str_)


def _numbers(caller: str, batch: pl.DataFrame, columns: list[str], *, missing: bool = False) -> Iterator[FloatArray]:
    """Yield columns as float64; raise InvalidInput for what is no number, infinite, or missing where it must not be."""
    for name in columns:
        column = batch[name]
        if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            raise InvalidInput(
                f"{caller} got a column {name!r} of type {column.dtype}. Numbers are needed: encode it, or leave it "
                "out. Nothing was changed."
            )
        values = column.cast(pl.Float64).to_numpy()
        if missing:  # one zero and one NaN, as in memory
            values = np.where(np.isnan(values), np.nan, values + 0.0)
            wrong = bool(np.any(np.isinf(values)))
        else:
            wrong = column.null_count() > 0 or not np.all(np.isfinite(values))
        if wrong:
            raise InvalidInput(
                f"{caller} got missing or infinite values (NaN) in the column {name!r}. Fill them in, or leave these "
                "rows out. Nothing was changed."
            )
        if column.dtype.is_integer() and np.any(np.abs(values) >= _WHOLE):
            raise InvalidInput(
                f"{caller} got whole numbers of 2^53 or more in the column {name!r}, which float64 does not hold. Is "
                "it an identifier? Leave it out, or give it as ids. Nothing was changed."
            )
        yield values
