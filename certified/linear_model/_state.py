"""What a deletion changes in a linear model, as values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from certified._convex.problem import Problem
from certified._convex.state import Solution
from certified._data.feature_change import FeatureChange
from certified._data.rows import Rows
from certified._exact.over_parts import products_over
from certified._exact.sums import Products
from certified.typing import FloatArray

__all__ = ["Sizes", "State", "Totals", "carried"]

_COLLINEAR = 2.0**-30  # smaller eigenvalues of a correlation matrix are rounding


@dataclass(frozen=True, eq=False)
class Totals:
    """Exact weighted sums over the retained rows: of the targets or, for several classes, of each class; and of 1."""

    products: Products
    classes: int

    @classmethod
    def of(cls, rows: Any, weight: Any, classes: int = 0) -> Totals:
        """Sum over rows with these weights."""
        return cls(products_over(rows, _targets, classes, weight=weight, limbs=2, gram=False), classes)

    def subtract(self, y: FloatArray, weight: FloatArray) -> Totals | None:
        """Sums without these rows; None where they have to be formed anew."""
        products = self.products.subtract(_table(y, self.classes), weight)
        return None if products is None else Totals(products, self.classes)

    @property
    def weight(self) -> float:
        """Sum of the weights, a fixed function of the retained rows."""
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


@dataclass(frozen=True, eq=False)
class Sizes:
    """Exact sums of the weights of the retained rows and of their squares; none where every weight is 0 or 1."""

    products: Products | None

    @classmethod
    def of(cls, rows: Any, weight: Any) -> Sizes:
        """Sum over rows with these weights."""
        if (rows.base is None and rows.unweighted) or all(rows.map(_plain, weight=weight)):
            return cls(None)
        return cls(products_over(rows, _roots, weight=weight, limbs=2, gram=False))

    def subtract(self, weight: FloatArray) -> Sizes | None:
        """Sums without rows of these weights; None where they have to be formed anew."""
        if self.products is None:
            return self
        products = self.products.subtract(_of_sizes(weight), weight)
        return None if products is None else Sizes(products)

    @property
    def unit(self) -> float:
        """A power of two near ``sum_i s_i / sum_i s_i^2``, 1 where every weight is 1."""
        if self.products is None:
            return 1.0
        (squares, _), (_, total) = self.products.integers()
        of_squares, of_total = self.products.unit_exponents.tolist()
        if not squares:
            return 1.0
        return 2.0 ** round(math.log2(total) - math.log2(squares) + 2 * (of_total - of_squares))


def _plain(part: Any, weight: FloatArray) -> bool:
    """Whether every weight is 0 or 1."""
    return bool(np.all((weight == 0.0) | (weight == 1.0)))


def _roots(part: Any, weight: FloatArray) -> FloatArray:
    return _of_sizes(weight)


def _targets(part: Any, weight: FloatArray, classes: int) -> FloatArray:
    return _table(np.where(weight > 0, part.y, 0.0), classes)


def _of_sizes(weight: FloatArray) -> FloatArray:
    """Columns whose sums of squares, with these weights, are those of the squared weights and of the weights."""
    return np.column_stack([np.sqrt(weight), np.ones(len(weight))])


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
        On the retained rows.
    totals : Totals or None
        Where the problem depends on them.
    sizes : Sizes
    anchor : Anchor or None
        None where every request takes passes.
    solution : Solution
    products : Products or ColumnSquares
        Exact sums of the retained rows for the noise metric: the Gram matrix, or its diagonal.
    """

    problem: Problem
    totals: Totals | None
    sizes: Sizes
    anchor: Any
    solution: Solution
    products: Any


def carried(w: FloatArray, before: Rows, after: Rows, new: FeatureChange) -> FloatArray:
    """Return where to start with new columns: coefficients that give nearly the same predictors, shape (P,).

    Columns that are the same keep theirs, those of `w`. The new ones, and what follows the features (ones), take by
    least squares over the retained rows what the columns that left have contributed.
    """
    old, p = w.reshape(-1, before.x.shape[1]), after.x.shape[1]
    source = np.concatenate([new.source(), np.full(p - new.n_features, -1)])
    stays, free = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
    gone = np.setdiff1d(np.arange(old.shape[1]), source[stays])
    out = np.zeros((len(old), p))
    out[:, stays] = old[:, source[stays]]
    root = np.sqrt(after.base_weight)[:, None]
    design, lost = after.x[:, free] * root, before.x[:, gone] @ old[:, gone].T * root
    gram, shares = design.T @ design, design.T @ lost
    unit = np.sqrt(np.where(np.diag(gram) > 0.0, np.diag(gram), 1.0))
    solved = np.linalg.lstsq(gram / np.outer(unit, unit), shares / unit[:, None], rcond=_COLLINEAR)[0]
    out[:, free] = (solved / unit[:, None]).T
    return out.ravel()
