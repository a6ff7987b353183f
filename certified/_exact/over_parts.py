"""Exact sums over rows in parts: exponents first, then sums, which merge without rounding.

So their bits do not depend on the number of the parts, on their order or on where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from certified._data.pairwise import fold
from certified._exact.sums import GroupSums, Products, exponents_of, peak
from certified.typing import FloatArray, IntArray

__all__ = ["group_sums_over", "products_over"]


def products_over(
    rows: Any, columns: Callable[..., FloatArray], *args: Any, weight: Any = None, limbs: int = 1, gram: bool = True
) -> Products:
    """Return the exact sums of a table over all rows.

    Parameters
    ----------
    rows : rows in parts
        What has ``map``: :class:`certified._data.rows.Rows`, or rows in many parts.
    columns : callable
        ``columns(part, weight, *args)`` is the table of a part, shape (n, p).
    weight : weights of these rows, or None for those retained
    """
    peaks = rows.map(_peak_in, columns, args, weight=weight)
    exponents = exponents_of(reduce(np.maximum, peaks))
    return fold(rows.map(_sums_in, columns, args, exponents, limbs, gram, weight=weight), Products.merged)


def group_sums_over(rows: Any, columns: Callable[..., FloatArray], *args: Any, n_groups: int) -> GroupSums:
    """Return the exact sums of the groups that the targets of a table in parts name; parameters as above."""
    exponents = exponents_of(reduce(np.maximum, rows.map(_group_peak, columns, args)))
    return fold(rows.map(_group_sums, columns, args, n_groups, exponents), GroupSums.merged)


def _group_peak(table: Any, weight: FloatArray, columns: Callable[..., FloatArray], args: tuple[Any, ...]) -> Any:
    return GroupSums.peak(columns(table, weight, *args), weight)


def _group_sums(
    table: Any,
    weight: FloatArray,
    columns: Callable[..., FloatArray],
    args: tuple[Any, ...],
    n_groups: int,
    exponents: IntArray,
) -> GroupSums:
    return GroupSums.of(columns(table, weight, *args), table.y, n_groups, weight, exponents)


def _peak_in(part: Any, weight: FloatArray, columns: Callable[..., FloatArray], args: tuple[Any, ...]) -> FloatArray:
    return peak(columns(part, weight, *args), weight)


def _sums_in(
    part: Any,
    weight: FloatArray,
    columns: Callable[..., FloatArray],
    args: tuple[Any, ...],
    exponents: IntArray,
    limbs: int,
    gram: bool,
) -> Products:
    return Products.of(columns(part, weight, *args), weight, limbs=limbs, gram=gram, exponents=exponents)
