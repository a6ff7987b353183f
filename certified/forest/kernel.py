"""How functions that allocate nothing are compiled: arrays that they are lent are not counted, which costs time."""

from __future__ import annotations

from typing import Any

from numba import njit

__all__ = ["kernel"]

_LENT: Any = {"_nrt": False}  # no reference counts: a function that needs them does not compile
kernel: Any = njit(cache=True, nogil=True, **_LENT)
"""Decorator of compiled functions that allocate nothing and keep nothing that they are given."""
