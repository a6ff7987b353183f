"""What a whole hands on to its parts while they are fitted: its key, and their share of its promise.

A pipeline or a search is one model with one key and one promise. While it fits its parts they find here what is theirs;
each stores it, so that deletions need no whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from certified._data.hashing import Key
from certified.errors import InvalidInput

__all__ = ["depends_on_key", "key_for", "part_of", "share_of_promise"]


class _Whole(NamedTuple):
    key: Key | None = None
    share: float = 1.0


_WHOLE: ContextVar[_Whole] = ContextVar("whole", default=_Whole())  # noqa: B039 (it is frozen)


@contextmanager
def part_of(key: Key | None = None, share: float = 1.0) -> Iterator[None]:
    """Fit what is fitted inside as part of a whole.

    Parameters
    ----------
    key : Key or None
        For parts that were given none; None hands on what the whole was handed.
    share : float in (0, 1]
        Part of the promised mu. Shares whose squares add up to at most 1 keep the promise together.
    """
    before = _WHOLE.get()
    token = _WHOLE.set(_Whole(before.key if key is None else key, before.share * share))
    try:
        yield
    finally:
        _WHOLE.reset(token)


def key_for(estimator: Any) -> Key:
    """Return the key with which to fit: one that was given to a part or all, else that of the whole, else a new one.

    What depends on no key has the key 0.

    Raises
    ------
    InvalidInput
        Parts were given several keys, or what was given is no key.
    """
    name, handed = type(estimator).__name__, _WHOLE.get().key
    parameters = estimator.get_params().items()
    given = [value for at, value in parameters if (at == "key" or at.endswith("__key")) and value is not None]
    if len(set(map(repr, given))) > 1:
        raise InvalidInput(
            f"{name} got parts with {len(given)} keys. A whole has one key, from which its parts derive theirs. Give "
            "one to the whole, or none. Nothing was changed."
        )
    if given:
        return Key.of(given[0], name)
    if not depends_on_key(estimator):
        return Key(0)
    return Key.of(None, name) if handed is None else handed


def depends_on_key(estimator: Any) -> bool:
    """Whether the state of an estimator, or of a part of it, depends on a key."""
    parts = [estimator, *estimator.get_params().values()]
    return any(getattr(part, "_depends_on_key", hasattr(part, "key") and hasattr(part, "delete")) for part in parts)


def share_of_promise() -> float:
    """Return the part of the promised mu that what is fitted now may use."""
    return _WHOLE.get().share
