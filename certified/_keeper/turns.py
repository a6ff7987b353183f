"""One act at a time on a fitted model: the lock that it shares with its parts, and what an interrupt left undone."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

__all__ = ["Turn", "share", "turn_of"]


class Turn:
    """The right to act on a model, held by one thread at a time; a thread that holds it may act again.

    A change is recorded before it is carried out. It consists of assignments of prepared values, which may be repeated.
    So an interrupt in its middle loses nothing: whoever acts next carries it out first.

    Attributes
    ----------
    lock : RLock
    unfinished : callable or None
        A change that is decided and not yet carried out as a whole.
    """

    __slots__ = ("lock", "unfinished")

    def __init__(self) -> None:
        self.lock: Any = RLock()
        self.unfinished: Callable[[], None] | None = None

    def commit(self, change: Callable[[], None]) -> None:
        """Carry out a change; from here on it is made, whatever happens."""
        self.unfinished = change
        self.finish()

    def finish(self) -> None:
        """Carry out what is unfinished."""
        if self.unfinished is not None:
            try:
                self.unfinished()
            except Exception:  # it only assigns, so that the second try ends as the first should have
                self.unfinished()
            self.unfinished = None

    def __deepcopy__(self, memo: Any) -> Turn:
        return Turn()


def turn_of(model: Any) -> Turn:
    """Return the turn of a model, made when it is first needed; its copies and pickles have their own."""
    found: Turn | None = model.__dict__.get("_turn")
    if found is None:
        found = model.__dict__.setdefault("_turn", Turn())
        if "_fitted_with" in model.__dict__:  # it was copied or loaded, with its parts
            share(model)
    return found


def share(model: Any) -> None:
    """Let the parts of a fitted model take their turns with it."""
    for part in model._members():
        part.__dict__["_turn"] = turn_of(model)
        share(part)
