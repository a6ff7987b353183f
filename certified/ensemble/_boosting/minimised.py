"""The leaf values as the coefficients of indicators: what they would be without somebody, given the trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified._convex.leave_out import Minimised
from certified._convex.problem import NoiseMetric, Problem
from certified._data.rows import Rows
from certified._exact.sums import Products
from certified.ensemble._boosting.building import BoostedFit
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["MinimisedTrees"]

_MOST = 1 << 26  # entries of a dense table of indicators


class MinimisedTrees(BoostedFit):
    """Base class: answers :func:`certified.influence.influence`, for two classes and for numbers."""

    _held = "leaf values given the trees"

    def _minimised(self) -> Minimised:
        """What is minimised, and where the model is; raise InvalidInput where no influence is bounded."""
        state, rows = self._state, self._rows
        problem, d = state.problem, len(state.problem.penalty)
        name = type(self).__name__
        if problem.outputs > 1:
            raise InvalidInput(
                f"influence(model) got a {name} of {problem.outputs} classes. Two classes, or numbers, are allowed. "
                "Nothing was changed."
            )
        if len(rows.y) * d > _MOST:
            raise InvalidInput(
                f"influence(model) got a {name} of {len(rows.y)} rows and {d} leaves. At most {_MOST:,} rows times "
                "leaves are allowed. Take fewer or smaller trees, or delete subjects from a copy. Nothing was changed."
            )
        x = _indicators(rows.leaves, d)
        held = Rows(x, rows.y, self._w, offset=rows.offset + x @ problem.centre)
        # v = centre + u turns the penalty into that of u.
        convex = Problem(problem.loss, problem.penalty, 1.0, 1.0)
        metric = NoiseMetric.of(convex, Products.of(held.x, held.weight), int(np.count_nonzero(self._w)))
        return Minimised(convex, held, metric, state.solution.w - problem.centre, min(self.tol, 1e-6), self.max_iter)

    def _features_of(self, X: Any, offset: Any) -> tuple[FloatArray, FloatArray]:
        """Other rows as those retained are stored, and the known part of their predictors."""
        if offset is not None:
            raise InvalidInput(f"influence(offset=...) got a {type(self).__name__}, which takes none. Leave it out.")
        state = self._state
        firsts = np.cumsum([0] + [len(s.values) for s in state.structures])
        X = self._read(X)
        own = [s.leaves(X) + np.int16(k) for s, k in zip(state.structures, firsts, strict=False)]
        x = _indicators(np.concatenate(own, axis=1), len(state.problem.penalty))
        return x, state.base + x @ state.problem.centre

    def _encoded(self, y: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Targets as the loss takes them."""
        found: FloatArray = self._more_targets(y, weight)
        return found, weight


def _indicators(leaves: Any, d: int) -> FloatArray:
    """One 1 for each tree, shape (n, d)."""
    out = np.zeros((len(leaves), d))
    np.put_along_axis(out, leaves.astype(np.int64), 1.0, axis=1)
    return out
