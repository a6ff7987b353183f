"""The rows of a table that a deletion leaves, and a table after a step: in one part or in many."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from certified._data.table import RemainingRows
from certified.parts._table import PartedTable
from certified.typing import IntArray

__all__ = ["after", "remaining"]


def remaining(table: Any, rows: IntArray) -> Callable[[], Any]:
    """Return what gives the rows without these when they are asked for."""
    if isinstance(table, PartedTable):
        return cache(lambda: table.left(rows))
    return RemainingRows(table, rows)


def after(table: Any, step: Any, learned: Any) -> Any:
    """Return the table as it comes out of a step that has learned this."""
    if isinstance(table, PartedTable):
        return table.then(step, learned)
    return table._replace(x=step._apply_rows(learned, table))
