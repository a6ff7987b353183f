"""From values to codes and back, by the map of :mod:`certified._trees.binning`: compiled."""

from __future__ import annotations

import math

import numpy as np

from certified._trees.compile import compiled
from certified._trees.kernels_split import LAST, MISSING

__all__ = ["code_of", "encode_all", "ordered", "value_of"]

ZERO = 32768
"""Code of the centre of a feature that has one."""


@compiled
def ordered(bits):
    """Return the whole number of a float32 with these bits: in the order of the values, the same for 0.0 and -0.0."""
    if bits == -2147483648:
        return np.int64(0)
    return np.int64(bits) if bits >= 0 else -(np.int64(bits) & 0x7FFFFFFF) - 1


@compiled
def block_of(number, low, start, stop):
    """Return the last of the blocks start..stop whose smallest number is not above this one."""
    a, b = start, stop
    while b - a > 1:
        middle = (a + b) >> 1
        if low[middle] <= number:
            a = middle
        else:
            b = middle
    return a


@compiled
def code_in_blocks(number, blocks, first, f):
    """Return the code of an ordered number of a feature with blocks."""
    low, size, base, width = blocks
    k = block_of(number, low, first[f], first[f + 1])
    return base[k] + (((number - low[k]) * width[k]) >> size[k])


@compiled
def encode_all(X, bits, centre, inverse, categorical, blocks, first, out):
    """Write the codes of float32 rows, whose bits are given too, to out[feature, row]."""
    one = np.float64(1.0)
    cell = np.empty(1, np.float64)
    bits_of_cell = cell.view(np.int64)
    cell[0] = one
    zero = bits_of_cell[0]
    for i in range(X.shape[0]):
        for j in range(X.shape[1]):
            x = np.float64(X[i, j])
            if np.isnan(x):
                out[j, i] = MISSING
            elif categorical[j]:
                out[j, i] = np.uint16(x)
            elif first[j + 1] > first[j]:
                out[j, i] = code_in_blocks(ordered(bits[i, j]), blocks, first, j)
            else:
                u = (x - centre[j]) * inverse[j]
                cell[0] = abs(u) + one
                k = min((bits_of_cell[0] - zero) >> 42, 32766)
                out[j, i] = ZERO + k if u >= 0.0 else ZERO - 1 - k


@compiled
def value_of(code, centre, scale, blocks, first, f):
    """Return the smallest value of a code of feature f; for codes below the centre the largest."""
    if first[f + 1] > first[f]:
        low, size, base, width = blocks
        k = block_of(code, base, first[f], first[f + 1])
        number = low[k] + (((code - base[k]) << size[k]) + width[k] - 1) // width[k]
        bits = np.empty(1, np.int32)
        bits[0] = np.int32(number) if number >= 0 else np.int32(-number - 1) | np.int32(-2147483648)
        return np.float64(bits.view(np.float32)[0])
    k = code - ZERO if code >= ZERO else ZERO - 1 - code
    value = math.ldexp(1.0 + (k & 1023) / 1024.0, k >> 10) - 1.0
    return centre[f] + scale[f] * (value if code >= ZERO else -value)


@compiled
def code_of(value, centre, scale, blocks, first, f):
    """Return the code of a value of feature f."""
    if first[f + 1] > first[f]:
        single = np.empty(1, np.float32)
        single[0] = np.float32(value)
        return np.int64(code_in_blocks(ordered(single.view(np.int32)[0]), blocks, first, f))
    u = (value - centre[f]) / scale[f]
    m, e = math.frexp(abs(u) + 1.0)
    k = ((e - 1) << 10) + np.int64((2.0 * m - 1.0) * 1024.0)
    return min(ZERO + k, np.int64(LAST)) if u >= 0.0 else max(ZERO - 1 - k, np.int64(0))
