"""What long work tells: bars where the caller asks for them, and lines of the logger ``certified``.

The logger says what was deleted (counts, never ids), when a deletion needs passes over the rows, and how long long work
took. Nothing is shown until the caller sets a level: ``logging.basicConfig(level="INFO")``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from certified.errors import MissingExtra

__all__ = ["progress", "track"]

_T = TypeVar("_T")
log = logging.getLogger("certified")  # no handler and no level: these are the caller's
_bars: ContextVar[Any] = ContextVar("certified_progress", default=None)


@contextmanager
def progress(console: Any = None) -> Iterator[None]:
    """Show bars for long work inside the block: searches, forests, audits that repeat runs.

    Parameters
    ----------
    console : rich.console.Console or None
        Where to draw; None for the standard error.

    Raises
    ------
    ImportError
        `rich <https://rich.readthedocs.io>`_ is not installed (extra ``cli``).

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import Ridge
    >>> from certified.model_selection import GridSearchCV
    >>> from certified.progress import progress
    >>> X, y = load_diabetes(return_X_y=True)
    >>> with progress():
    ...     model = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}).fit(X, y)
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise MissingExtra("progress", "rich", "cli") from error
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console or Console(stderr=True), transient=True) as bars:
        before = _bars.set(bars)
        try:
            yield
        finally:
            _bars.reset(before)


def track(items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
    """Yield the items; inside :func:`progress` a bar counts them. The log has when it starts and ends."""
    log.info("%s: started", what)
    started = time.perf_counter()
    yield from _counted(items, what, total)
    log.info("%s: done in %.3g s", what, time.perf_counter() - started)


def _counted(items: Iterable[_T], what: str, total: int | None) -> Iterator[_T]:
    bars = _bars.get()
    if bars is None:
        yield from items
        return
    task = bars.add_task(what, total=len(items) if isinstance(items, Sized) else total)
    try:
        for item in items:
            yield item
            bars.advance(task)
    finally:
        bars.remove_task(task)
