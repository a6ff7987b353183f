"""What a model holds in memory, array by array: to find what follows a row that was deleted."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np

__all__ = ["dumped", "held", "unlike"]


class _Pickler(pickle.Pickler):
    """Pickles records field by field: what lies between their fields means nothing, and a copy leaves it undefined."""

    def reducer_override(self, value: Any) -> Any:
        if type(value) is np.ndarray and value.dtype.names:
            return dict, ([(name, np.ascontiguousarray(value[name])) for name in value.dtype.names],)
        return NotImplemented


def dumped(value: Any) -> bytes:
    """Return the bytes of a pickle to compare states by, whatever threads run; it is not there to be loaded."""
    out = io.BytesIO()
    _Pickler(out).dump(value)
    return out.getvalue()


def unlike(one: Any, other: Any) -> list[str]:
    """Paths of the arrays that differ between two fitted objects."""
    ours, theirs = held(one), held(other)
    found = [path for path in dict.fromkeys([*ours, *theirs]) if ours.get(path) != theirs.get(path)]
    # How long scoring takes tells no row, and what was released has fresh noise.
    return [path for path in found if not path.endswith("_time']") and "._released" not in path]


def held(value: Any) -> dict[str, bytes]:
    """Every array that an object holds, as bytes, by its path."""
    out: dict[str, bytes] = {}
    todo, seen = [("", value)], set()
    while todo:
        path, value = todo.pop()
        if isinstance(value, np.ndarray) and value.dtype != object:
            out[path] = f"{value.dtype}{value.shape}".encode() + value.tobytes()
            continue
        if isinstance(value, bytes | bytearray):
            out[path] = bytes(value)
            continue
        if isinstance(value, str | int | float | type) or value is None or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            todo += [(f"{path}[{key!r}]", part) for key, part in value.items()]
        elif isinstance(value, list | tuple | set | np.ndarray):
            todo += [(f"{path}[{k}]", part) for k, part in enumerate(value)]
        else:
            parts = dict(getattr(value, "__dict__", {}))
            if working := getattr(type(value), "working_memory", ()):
                stored = value.__getstate__()
                parts |= {name: stored[name] for name in working}
            todo += [(f"{path}.{name}", part) for name, part in parts.items()]
    return out
