"""What a deletion changes in a linear model, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certified.anchor import Solution
from certified.exact import Products
from certified.objective import Problem
from certified.typing import FloatArray

__all__ = ["State", "Totals"]


@dataclass(frozen=True, eq=False)
class Totals:
    """Exact weighted sums over the kept rows: of the targets or, for several classes, of each class; and of 1."""

    products: Products
    classes: int

    @classmethod
    def of(cls, y: FloatArray, weight: FloatArray, classes: int = 0) -> Totals:
        """Sum over rows with these weights, shape (n_rows,)."""
        table = _table(np.where(weight > 0, y, 0.0), classes)
        return cls(Products.of(table, weight, limbs=2, gram=False), classes)

    def minus(self, y: FloatArray, weight: FloatArray) -> Totals | None:
        """Sums without these rows; None where they have to be formed anew."""
        products = self.products.minus(_table(y, self.classes), weight)
        return None if products is None else Totals(products, self.classes)

    @property
    def weight(self) -> float:
        """Sum of the weights, a fixed function of the kept rows."""
        return float(np.ldexp(float(self.products.integers()[-1, 1]), 2 * int(self.products.unit_exponents[-1])))

    @property
    def means(self) -> FloatArray:
        """Weighted mean of the targets, shape (1,), or share of each class, shape (classes,)."""
        sums, unit = self.products.integers(), self.products.unit_exponents
        if not sums[-1, 1]:
            return np.zeros(len(unit) - 1)
        return np.array(
            [np.ldexp(v / sums[-1, 1], int(u - unit[-1])) for v, u in zip(sums[:-1, 1], unit, strict=False)]
        )


def _table(y: FloatArray, classes: int) -> FloatArray:
    """The columns that are summed: y or the indicators of the classes, and ones."""
    parts = (y[:, None] == np.arange(classes)).astype(np.float64) if classes else y[:, None]
    return np.column_stack([parts, np.ones(len(y))])


@dataclass(frozen=True, eq=False)
class State:
    """All that a deletion changes, except the rows.

    Attributes
    ----------
    problem : Problem
        On the kept rows.
    totals : Totals or None
        Where the problem depends on them.
    anchor : Anchor or None
        None where every request takes passes.
    solution : Solution
    products : Products or ColumnSquares
        Exact sums of the kept rows for the release metric: the Gram matrix, or its diagonal.
    """

    problem: Problem
    totals: Totals | None
    anchor: Any
    solution: Solution
    products: Any
