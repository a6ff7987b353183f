"""What all trees of a forest depend on, besides the rows themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._trees.binning import Coding
from certified.typing import FloatArray, IntArray

__all__ = ["SharedState", "bits_for", "rounded"]


class SharedState(NamedTuple):
    """What all trees depend on, besides the rows themselves: functions of the set of rows that seldom change."""

    coding: Coding
    exponents: IntArray  # of the largest absolute target
    weighted: bool
    exponent: int  # of the largest weight
    factors: FloatArray  # of the weights, one for each class; empty where there are none
    mass: float  # weight of all rows, rounded; 0 where nothing depends on it
    bits: int  # binary digits of a target or weight
    n_rows: float  # rounded; 0 where nothing depends on it

    def same(self, other: SharedState) -> bool:
        """Whether trees grown on one are those grown on the other."""
        return (
            self.coding.same(other.coding)
            and np.array_equal(self.exponents, other.exponents)
            and np.array_equal(self.factors, other.factors)
            and (self.weighted, self.exponent, self.mass, self.bits, self.n_rows)
            == (other.weighted, other.exponent, other.mass, other.bits, other.n_rows)
        )


def bits_for(n_rows: int) -> int:
    """Return how many binary digits a target or weight has, so that sums of all rows stay below 2^62; at most 52."""
    return min(52, 62 - (max(n_rows, 1) - 1).bit_length())


def rounded(x: Any) -> Any:
    """Return positive numbers to the nearest power of ``2 ** (1 / 16)``, in steps of 4.4 % which seldom change."""
    return np.exp2(np.rint(16.0 * np.log2(x)) / 16.0)
