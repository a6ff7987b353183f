"""Which pairs of features to join: the largest evidence for an interaction beyond the two features alone."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from certified.additive._bins import Axis
from certified.additive._family import Family
from certified.additive._smooth import pair_penalty
from certified.typing import FloatArray, IntArray

__all__ = ["alone", "chosen", "evidence"]

_LEAST = 1.0  # log Bayes factor
_SWEEPS = 10
_RIDGE = 2.0  # penalty of each bin while the features are fitted alone


def alone(family: Family, axes: list[Axis], codes: list[IntArray], y: FloatArray, weight: FloatArray) -> FloatArray:
    """Return the predictors of a model of every feature alone, by cycles of Newton steps on the bins of each."""
    z = np.full(len(y), family.start(y, weight))
    scores = [np.zeros(axis.rows + 1) for axis in axes]
    for _ in range(_SWEEPS):
        for axis, code, score in zip(axes, codes, scores, strict=True):
            slopes, bends = family.slopes(y, z)
            pull = np.bincount(code, slopes * weight, axis.rows + 1) - _RIDGE * score
            step = pull / (np.bincount(code, bends * weight, axis.rows + 1) + _RIDGE)
            step = np.clip(step, -2.0, 2.0)
            score += step
            z += step[code]
    return z


def evidence(first: Axis, second: Axis, slopes: Any, bends: Any) -> float:
    """Return the log Bayes factor of an interaction against none.

    Parameters
    ----------
    slopes, bends : arrays of shape (first.rows + 1, second.rows + 1)
        Sums of score and information of the rows of each cell, at the model of every feature alone.

    Notes
    -----
    Laplace's approximation at no interaction, with the diagonal of the information.
    """
    left, right, penalty = pair_penalty(first, second)
    if penalty.size == 0:
        return -np.inf
    score = np.einsum("ai,ab,bj->ij", left, slopes, right)
    information = np.einsum("ai,ab,bj->ij", left**2, bends, right**2)
    return float((0.5 * (score**2 / (information + penalty) - np.log1p(information / penalty))).sum())


def chosen(
    axes: list[Axis], codes: list[IntArray], sums: list[tuple[FloatArray, FloatArray]], most: int
) -> list[tuple[int, int]]:
    """Return the pairs with the largest evidence, at most so many, for which it is positive enough; sorted.

    `sums` are score and information of each row, of each class; the evidence of classes adds up.
    """
    found = []
    for i, j in combinations(range(len(axes)), 2):
        shape = (axes[i].rows + 1, axes[j].rows + 1)
        cell = codes[i] * shape[1] + codes[j]
        gain = 0.0
        for rows in sums:
            pull, information = (np.bincount(cell, values, shape[0] * shape[1]).reshape(shape) for values in rows)
            gain += evidence(axes[i], axes[j], pull, information)
        if gain > _LEAST:
            found.append((-gain, i, j))
    return sorted((i, j) for _, i, j in sorted(found)[:most])
