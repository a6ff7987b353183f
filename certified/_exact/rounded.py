"""Moments rounded so that few deletions change them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from certified._exact.sums import Products
from certified.typing import FloatArray, IntArray

__all__ = ["rounded_moments"]


def rounded_moments(
    products: Products, observed: Any = None, missing: tuple[IntArray, int] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale of every column but the last (the ones): functions of the exact sums alone.

    In the sums a missing value is 0. `observed`, int array of shape (n_features,), counts the rows of each column that
    are not missing, where rows have no weights. `missing` counts those that are, and all rows; then the sums have a
    column more for each feature with any, before the ones. None means that nothing is missing. Where nothing is
    observed: 0 and 1.
    """
    total, unit = products.integers(), products.unit_exponents
    one = int(unit[-1])
    if missing is None:
        weights = [total[-1, 1] if observed is None else int(n) << (-2 * one) for n in _counts(total, observed)]
    else:
        weights = _weights(total, unit, *missing)
    square, first = total[: len(weights), 0], total[: len(weights), 1]
    scale, mean = np.ones(len(first)), np.zeros(len(first))
    for j, weight in enumerate(weights):  # in units of the last limb of the ones, as `first` is: 4^one
        if weight <= 0:
            continue
        value = square[j] * weight - first[j] * first[j]  # variance = value / weight^2 in units 4^(u - one)
        u = int(unit[j]) - one
        # Below four units of the last limb a column counts as constant.
        if Fraction(value) * Fraction(4) ** -one > 16 * weight * weight:
            k = _nearest_power(value, weight * weight)
            scale[j] = np.ldexp(1.0, k + u)
            mean[j] = np.ldexp(_nearest(first[j], weight, k - 2), k - 2 + u)
        else:
            mean[j] = np.ldexp(_nearest(first[j], weight, -2 - u), -2)
    return mean, scale


def _counts(total: Any, observed: Any) -> Any:
    return range(len(total) - 1) if observed is None else observed


def _weights(total: Any, unit: IntArray, missing: IntArray, n_rows: int) -> list[int]:
    """Return the weight of what is observed of each feature, in units of the last limb of the ones; 0 for nothing."""
    out, k, one = [], len(missing), int(unit[-1])
    for count in missing.tolist():
        if count == n_rows:
            out.append(0)
        elif count:  # the columns of what is missing have units no larger than that of the ones
            shift = one - int(unit[k])
            out.append(int(total[-1, 1]) - (int(total[k, 1]) >> shift))
        else:
            out.append(int(total[-1, 1]))
        k += count > 0
    return out


def _nearest_power(value: int, unit: int) -> int:
    """The k with ``2^(2k-1) <= value / unit < 2^(2k+1)``: 2^k is nearest to the root in ratio."""
    k = (value.bit_length() - unit.bit_length()) // 2
    while value * 2 < unit << (2 * k) if k >= 0 else value * 2 << (-2 * k) < unit:
        k -= 1
    while value >= (unit << (2 * k + 1)) if k >= 0 else value << (-2 * k) >= 2 * unit:
        k += 1
    return k


def _nearest(value: int, weight: int, exponent: int) -> float:
    """``value / (weight 2^exponent)`` rounded to the nearest integer, half to even."""
    return float(round(Fraction(value, weight) / Fraction(2) ** exponent))
