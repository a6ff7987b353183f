"""How the functions of this folder are compiled, and when what was compiled before is not used again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

__all__ = ["compiled", "kernel"]

_LENT: Any = {"_nrt": False}  # no reference counts: a function that needs them does not compile
_FILES = [
    path
    for path in sorted(Path(__file__).parent.glob("*.py"))
    if path == Path(__file__) or any(mark in path.read_bytes() for mark in (b"\n@compiled\n", b"\n@kernel\n"))
]
"""Those with kernels, and with what kernels take in."""
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).hexdigest()


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a function when it is first called, and keep the result on disk."""
    return _stamped(njit(cache=True, nogil=True)(function))


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that allocates nothing and keeps nothing that it is given: references cost no time."""
    return _stamped(njit(cache=True, nogil=True, **_LENT)(function))


def _stamped(function: Any) -> Any:
    """Let what is kept on disk hold for these very sources of all kernels.

    numba compares the file of the function alone, and would go on with what it took in from another one that has
    changed since.
    """
    kept: Any = getattr(getattr(function, "_cache", None), "_cache_file", None)
    if hasattr(kept, "_source_stamp"):
        kept._source_stamp = (kept._source_stamp, _SOURCES)
    return function
