"""The scalar bounds of :mod:`certified._convex.bounds` for arrays: many subjects at once."""

from __future__ import annotations

import numpy as np

from certified.typing import FloatArray

__all__ = ["above", "distance", "remainder"]

_WIDEN = 1.0 + 2.0**-40
_FACTORS = [1.0]  # b^k / (3 4 ... (k + 2))
for _k in range(1, 10):
    _FACTORS.append(_FACTORS[-1] / (_k + 2))


def above(values: FloatArray) -> FloatArray:
    """Return values above the exact ones, for formulas of a few dozen operations on terms >= 0."""
    return values * _WIDEN + 1e-300


def remainder(b: FloatArray) -> FloatArray:
    """Return upper bounds of ``(e^b - 1 - b) / b`` for b >= 0."""
    small = b < 0.25
    t = np.where(small, b, 0.25)
    series = np.full_like(t, 2.0 * _FACTORS[-1])  # the tail is at most a geometric series
    for factor in _FACTORS[-2::-1]:
        series = series * t + factor
    large = np.where(small, 1.0, np.minimum(b, 700.0))
    rest = np.exp(large) - 1.0 - large
    direct = (rest + 2.0**-49 * np.exp(large)) / large
    return np.where(b < 700.0, above(np.where(small, 0.5 * b * series, direct)), np.inf)


def distance(nu: FloatArray, M: float, q: FloatArray) -> FloatArray:
    """Theorem 1 for many gradients: upper bounds of ``-log(1 - M nu / q) / M``, inf where it does not apply."""
    good = (q > 0.0) & np.isfinite(nu)
    q = np.where(good, q, 1.0)
    ratio = above(above(M * nu) / q)
    good &= ratio < 0.999
    small = ratio < 1e-6
    flat = above(above(nu / q) * (1.0 + 0.5 * ratio + 0.5 * ratio * ratio))
    if M == 0.0:
        return np.where(good, flat, np.inf)
    curved = above(above(-np.log1p(-np.where(good, ratio, 0.5))) / M)
    return np.where(good, np.where(small, flat, curved), np.inf)
