"""What a head knows of new columns from those it had: a factor for its first steps.

Columns that stay keep their part of the Hessian, up to what the metric says; only rows and columns of new ones are
summed. That makes a factor good for steps, of which nothing is proved: where a deletion changed features, the state
that is stored is measured on the retained rows alone.
"""

from __future__ import annotations

import numpy as np

from certified._convex import derivatives, downdate
from certified._convex.derivatives import Blocks
from certified._convex.problem import Problem
from certified._convex.state import Anchor
from certified._data.rows import Rows
from certified.typing import FloatArray, IntArray

__all__ = ["column_warm_start"]


def column_warm_start(
    problem: Problem, anchor: Anchor, before: Rows, after: Rows, source: IntArray
) -> FloatArray | None:
    """Return an inverse factor of about the Hessian of `after`, of which column j was ``source[j]`` or is new (-1).

    None where that is not simple: several predictors, penalties that depend on the rows, too much that was removed.
    """
    metric, loss = anchor.metric, problem.loss
    simple = (
        loss.outputs == 1 and not problem.strength_depends_on_rows and problem.l1_strength == 0.0 and metric.rise == 0.0
    )
    if not (simple and anchor.strength == problem.strength and metric.low > 0.5):
        return None
    stays, fresh = np.flatnonzero(source >= 0), np.flatnonzero(source < 0)
    z = derivatives.predictors(loss, _blocks(before), metric.point)
    bends = np.where(after.weight > 0.0, after.weight * derivatives.bends(loss, after.y, z.ravel()), 0.0)
    root = np.linalg.inv(metric.inverse_factor)
    old = root @ (np.eye(len(root)) - metric.W) @ root.T
    hessian = np.empty((len(source), len(source)))
    hessian[np.ix_(stays, stays)] = old[np.ix_(source[stays], source[stays])]
    weighted = bends[:, None] * after.x[:, fresh]
    strip = after.sparse_copy.total(weighted) if after.sparse_copy is not None else after.x.T @ weighted
    hessian[:, fresh], hessian[fresh] = strip, strip.T
    hessian[fresh, fresh] += problem.penalty[fresh]
    return downdate.factorise(hessian)


def _blocks(rows: Rows) -> Blocks:
    return Blocks(*rows.blocks(), rows.sparse_copy if derivatives.on_host() else None)
