"""Whether a copy is made to be saved: what lies in files is named in it then, not copied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["saving", "to_be_saved"]

_SAVING: ContextVar[bool] = ContextVar("saving", default=False)


@contextmanager
def to_be_saved() -> Iterator[None]:
    """While this lasts, copies are made to be saved."""
    token = _SAVING.set(True)
    try:
        yield
    finally:
        _SAVING.reset(token)


def saving() -> bool:
    """Whether copies are made to be saved."""
    return _SAVING.get()
