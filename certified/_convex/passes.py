"""Passes over rows in parts: each a pure function of one part; what they find is merged in the order of the parts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._convex import derivatives
from certified._convex.bounds import up
from certified._convex.derivatives import Blocks, Pass
from certified._convex.losses import Loss
from certified._data.pairwise import additions, fold
from certified.typing import FloatArray

__all__ = ["Passes"]


class _Facts(NamedTuple):
    """What a part tells for the bounds of rounding."""

    chain: int
    offset: float | None  # sum of s o^2
    most_offset: float


class Passes:
    """Passes over rows with some weights.

    Attributes
    ----------
    chain : int
        Upper bound of the number of additions that any summand goes through, in its part and over the parts.
    offset, most_offset : float
        Upper bounds of the root mean square and of the largest offset.
    """

    def __init__(self, rows: Any, weight: Any) -> None:
        self._rows, self._weight = rows, weight
        facts = list(rows.map(_facts, weight=weight))
        self.chain = max(part.chain for part in facts) + (additions(len(facts)) if len(facts) > 1 else 0)
        known = [part.offset for part in facts if part.offset is not None]
        self.offset = up(float(np.sqrt(fold(known, float.__add__)))) if known else 0.0
        self.most_offset = max(part.most_offset for part in facts)

    def gradient(self, loss: Loss, w: FloatArray) -> Pass:
        """Pass at w."""
        return fold(self._rows.map(_gradient, loss, w, weight=self._weight), _both)

    def curvature(self, loss: Loss, w: FloatArray) -> FloatArray:
        """Return the Hessian of the data term at w, shape (P, P), without the penalty."""
        return fold(self._rows.map(_curvature, loss, w, weight=self._weight), np.add)

    def reach(self, loss: Loss, move: FloatArray) -> float:
        """Return how far a move of w moves any predictor, as :func:`certified._convex.derivatives.reach`."""
        return max(self._rows.map(_reach, loss, move, weight=self._weight))

    def leverage(self, loss: Loss, inverse_factor: FloatArray) -> float:
        """Return the largest leverage, as :func:`certified._convex.derivatives.leverage`."""
        return max(self._rows.map(_leverage, loss, inverse_factor, weight=self._weight))

    def peak(self) -> FloatArray:
        """Largest absolute value of each column, shape (p,)."""
        return np.maximum.reduce(list(self._rows.map(_peak)))


def _blocks(part: Any, weight: FloatArray) -> Blocks:
    x, y, _, offset = part.blocks()
    sparse_copy = part.sparse_copy if derivatives.on_host() else None
    return Blocks(x, y, weight.reshape(y.shape), offset, sparse_copy)


def _facts(part: Any, weight: FloatArray) -> _Facts:
    rows = _blocks(part, weight)
    chain = derivatives.chain(len(rows.y), rows.y[0].size)
    if rows.sparse_copy is not None:
        chain = max(chain, rows.sparse_copy.chain)
    if part.offset is None:
        return _Facts(chain, None, 0.0)
    return _Facts(chain, float(np.sum(rows.s * rows.offset**2)), float(np.max(np.abs(rows.offset))))


def _gradient(part: Any, weight: FloatArray, loss: Loss, w: FloatArray) -> Pass:
    found: Pass = derivatives.gradient(loss, _blocks(part, weight), w)
    return found


def _both(a: Pass, b: Pass) -> Pass:
    return Pass(a.gradient + b.gradient, a.slopes + b.slopes, a.sizes + b.sizes, np.maximum(a.bend, b.bend))


def _curvature(part: Any, weight: FloatArray, loss: Loss, w: FloatArray) -> FloatArray:
    return np.asarray(derivatives.curvature(loss, _blocks(part, weight), w))


def _reach(part: Any, weight: FloatArray, loss: Loss, move: FloatArray) -> float:
    return float(derivatives.reach(loss, _blocks(part, weight), move))


def _leverage(part: Any, weight: FloatArray, loss: Loss, inverse_factor: FloatArray) -> float:
    return float(derivatives.leverage(loss, _blocks(part, weight), inverse_factor))


def _peak(part: Any, weight: FloatArray) -> FloatArray:
    found: FloatArray = part.peak
    return found
