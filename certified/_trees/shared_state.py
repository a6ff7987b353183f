"""What all trees of a forest depend on, besides the rows themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._trees.binning import Coding
from certified.typing import FloatArray, IntArray

__all__ = ["BITS", "SharedState", "rounded"]

BITS = 38
"""Of a target or weight: sums of 2^24 rows stay below 2^62."""


class SharedState(NamedTuple):
    """What all trees depend on, besides the rows themselves: functions of the set of rows that seldom change."""

    coding: Coding
    exponents: IntArray  # of the largest absolute target
    weighted: bool
    exponent: int  # of the largest weight
    factors: FloatArray  # of the weights, one for each class; empty where there are none
    mass: float  # weight of all rows, rounded; 0 where nothing depends on it

    def same(self, other: SharedState) -> bool:
        """Whether trees grown on one are those grown on the other."""
        a, b = self.coding, other.coding
        return (
            (a is b or (np.array_equal(a.centre, b.centre) and np.array_equal(a.scale, b.scale)))
            and np.array_equal(self.exponents, other.exponents)
            and np.array_equal(self.factors, other.factors)
            and (self.weighted, self.exponent, self.mass) == (other.weighted, other.exponent, other.mass)
        )


def rounded(x: Any) -> Any:
    """Return positive numbers to the nearest power of ``2 ** (1 / 16)``, in steps of 4.4 % which seldom change."""
    return np.exp2(np.rint(16.0 * np.log2(x)) / 16.0)
