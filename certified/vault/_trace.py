"""A search for ids and values in every byte of a vault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["patterns_of_id", "patterns_of_value", "trace"]

_SHORTEST = 4  # bytes; shorter patterns are found everywhere by chance


def trace(folder: Path, ids: Any, values: Any = None) -> dict[str, list[str]]:
    """Return pattern and files of what was found."""
    from certified._data.subjects import as_ids

    wanted: dict[bytes, str] = {}
    for subject in as_ids(ids, "trace(ids=...)").tolist():
        wanted |= {pattern: f"id as {how}" for how, pattern in patterns_of_id(subject)}
    for value in np.asarray([] if values is None else values, dtype=np.float64).ravel().tolist():
        wanted |= {pattern: f"value as {how}" for how, pattern in patterns_of_value(value)}
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        data = path.read_bytes()
        for pattern, name in wanted.items():
            if pattern in data:
                found.setdefault(name, []).append(str(path.relative_to(folder)))
    return {name: sorted(set(files)) for name, files in found.items()}


def patterns_of_id(subject: Any) -> Iterator[tuple[str, bytes]]:
    """Yield how an id may stand in a file. Small integers are left out: they are found everywhere by chance."""
    if isinstance(subject, int):
        if abs(subject) >= 1 << 32:
            yield "int64, little-endian", subject.to_bytes(8, "little", signed=True)
            yield "int64, big-endian", subject.to_bytes(8, "big", signed=True)
            yield "float64", np.float64(subject).tobytes()
        subject = str(subject)
        if len(subject) < 6:
            return
    for coding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"):
        pattern = subject.encode(coding)
        if len(pattern) >= _SHORTEST:
            yield coding.upper(), pattern


def patterns_of_value(value: float) -> Iterator[tuple[str, bytes]]:
    """Yield how a number may stand in a file. Round ones are left out; as float32, four bytes would be found by "
    "chance."""
    text = repr(float(value))
    if len(text.strip("-0.").replace(".", "")) < 6:
        return
    yield "float64, little-endian", np.float64(value).tobytes()
    yield "float64, big-endian", np.float64(value).astype(">f8").tobytes()
    yield "decimal", text.encode()
    yield "hexadecimal", float(value).hex().encode()
