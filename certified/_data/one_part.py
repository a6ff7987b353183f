"""What rows in one piece share with rows in many parts: passes as functions of a part, weights by position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from certified.typing import FloatArray, IntArray

__all__ = ["OnePart"]


class OnePart:
    """Base class of rows in memory: one part, whose positions are those of the rows.

    ``certified.parts`` has the same methods for rows in many parts. What serves both is written with them alone.
    """

    x: Any
    y: Any
    weight: Any
    base: Any
    unweighted = False  # whether every weight is known to be 0 or 1

    @property
    def size(self) -> int:
        """Positions, with padding."""
        return len(self.y)

    @property
    def width(self) -> int:
        """Columns, with that of ones."""
        return int(self.x.shape[1])

    def map(self, function: Callable[..., Any], *args: Any, weight: FloatArray | None = None) -> Iterator[Any]:
        """Yield ``function(part, weight, *args)`` for every part, in their order: for the one part."""
        yield function(self, self.weight if weight is None else weight, *args)

    @property
    def base_weight(self) -> FloatArray:
        """Weights before balancing, with which rows enter the noise metric."""
        found: FloatArray = self.weight if self.base is None else self.base
        return found

    def base_weight_at(self, rows: IntArray) -> FloatArray:
        """Weights before balancing, at these positions."""
        return self.base_weight[rows]

    def without(self, rows: IntArray) -> FloatArray:
        """Weights before balancing, with 0 at these positions: a copy."""
        weight = self.base_weight.copy()
        weight[rows] = 0.0
        return weight

    def balanced(self, weight: FloatArray, factors: FloatArray | None) -> FloatArray:
        """Weights times the factors of the classes."""
        return weight if factors is None else weight * factors[self.y.astype(np.int64)]

    def take(self, rows: IntArray) -> tuple[Any, FloatArray, FloatArray]:
        """Return copies of x, y, weight at these positions."""
        return self.x[rows], self.y[rows], self.weight[rows]
