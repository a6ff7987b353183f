"""What a head knows of new columns from those it had: a factor to start with, and a bound of the leverages.

Columns that stay keep their part of the Hessian, up to what the metric says; only rows and columns of new ones are
summed. That makes a factor good for steps, of which nothing is proved. What is proved is the bound of M: the part of a
row in the columns that stay was measured before, and the rest needs one product of the rows with the new columns' part
of the factor (corollary 0 of ``docs/theory/bounds.rst``, "New columns").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certified._convex import derivatives, downdate
from certified._convex.derivatives import Blocks
from certified._convex.problem import Problem
from certified._convex.state import Anchor, Metric
from certified._data.rows import Rows
from certified.typing import FloatArray, IntArray

__all__ = ["ColumnWarmStart", "column_warm_start"]


@dataclass(frozen=True, eq=False)
class ColumnWarmStart:
    """Of a model with one predictor, where some columns are new and the retained rows keep their weights.

    Attributes
    ----------
    metric : Metric
        On the columns from before, rows that leave removed.
    z : array of shape (n_blocks, n_inner)
        Linear predictors of the rows at the base of that metric.
    order : int array of shape (p,)
        The columns: those that stay, then those that are new.
    n_new : int
    factor : array of shape (p, p)
        Inverse factor of something like the Hessian.
    largest : float
        At least the sum of the absolute terms of any predictor in `z`.
    """

    metric: Metric
    z: FloatArray
    order: IntArray
    n_new: int
    factor: FloatArray
    largest: float


def column_warm_start(
    problem: Problem, anchor: Anchor, before: Rows, after: Rows, source: IntArray
) -> ColumnWarmStart | None:
    """Return what is known of the columns of `after`, of which column j was column ``source[j]`` or is new (-1).

    None where that is not simple: several predictors, penalties that depend on the rows, too much that was removed.
    """
    metric, loss = anchor.metric, problem.loss
    simple = (
        loss.outputs == 1 and not problem.strength_depends_on_rows and problem.l1_strength == 0.0 and metric.rise == 0.0
    )
    if not (simple and anchor.strength == problem.strength and metric.low > 0.5):
        return None
    stays, fresh = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
    hessian_point = metric.origin.point
    z = derivatives.predictors(loss, _blocks(before), hessian_point)
    bends = after.weight * derivatives.bends(loss, after.y, z.ravel())
    root = np.linalg.inv(metric.inverse_factor)
    old = root @ (np.eye(len(hessian_point)) - metric.W) @ root.T
    hessian = np.empty((len(source), len(source)))
    hessian[np.ix_(stays, stays)] = old[np.ix_(source[stays], source[stays])]
    weighted = bends[:, None] * after.x[:, fresh]
    strip = after.sparse_copy.total(weighted) if after.sparse_copy is not None else after.x.T @ weighted
    hessian[:, fresh], hessian[fresh] = strip, strip.T
    hessian[fresh, fresh] += problem.penalty[fresh]
    order = np.concatenate([stays, fresh])
    factor = downdate.factorise(hessian, order)
    if factor is None:
        return None
    offset = 0.0 if before.offset is None else float(np.max(np.abs(before.offset)))
    return ColumnWarmStart(metric, z, order, len(fresh), factor, float(np.abs(hessian_point) @ before.peak) + offset)


def _blocks(rows: Rows) -> Blocks:
    return Blocks(*rows.blocks(), rows.sparse_copy if derivatives.on_host() else None)
