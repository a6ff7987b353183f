"""Moments rounded so that few deletions change them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from certified._exact.sums import Products
from certified.typing import FloatArray

__all__ = ["rounded_moments"]


def _with_ones(values: FloatArray) -> FloatArray:
    return np.column_stack([values, np.ones(len(values))])


def rounded_moments(products: Products, observed: Any = None) -> tuple[FloatArray, FloatArray]:
    """Return centre and scale of every column but the last (the ones): functions of the exact sums alone.

    `observed`, int array of shape (n_features,), counts the rows of each column that are not missing; in the sums a
    missing value is 0. None means all, with the weights that the sums have. Where nothing is observed: 0 and 1.
    """
    total, unit = products.integers(), products.unit_exponents
    square, first = total[:-1, 0], total[:-1, 1]
    scale, mean, one = np.ones(len(first)), np.zeros(len(first)), int(unit[-1])
    for j in range(len(first)):
        # in units of the last limb of the ones, as `first` is: 4^one
        weight = total[-1, 1] if observed is None else int(observed[j]) << (-2 * one)
        if weight == 0:
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
