"""Smoothness as coordinates: in which a penalty on neighbouring bins is the plain ridge penalty of a certified head.

The penalty ``K s sum_k (f_{k+1} - f_k)^2 / 2`` on the K bins of a feature has the cosines as eigenvectors, with the
eigenvalues ``K s (2 - 2 cos(pi k / K))``. Columns of cosines over the roots of their eigenvalues are therefore
coordinates in which it is ``||w||^2 / 2``. Bins are near-equal shares of the rows, so that the penalty is about
``s / 2`` times the integral of ``f'(u)^2`` over the share u, whatever K: 1/s is the prior variance of the difference
between the two ends of a feature. The constant is left to the intercept. See the theory in the documentation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.additive._bins import Axis
from certified.typing import FloatArray

__all__ = ["LEVELS", "basis", "level", "main_table", "pair_penalty", "pair_table"]

LEVELS = 4.0 ** np.arange(1, -6, -1)
"""Smoothness that is chosen from, the smoothest first."""
_MISSING = 1.0  # penalty of the bin of missing values: a prior standard deviation of 1
_ROUGH = 25.0  # frequencies whose penalty is larger are left out, but for the first ones
_FIRST = 8
_ANYWHERE = 100.0  # prior variance of the level of a feature
_PAIR, _PAIR_RANK = 8.0, 4  # smoothness of interactions, and how many cosines of each of the two features


def basis(axis: Axis, rank: int) -> tuple[FloatArray, FloatArray]:
    """Return an orthonormal basis of the functions of the bins without the constant, and its eigenvalues.

    Parameters
    ----------
    rank : int
        Cosines of ordered bins that are kept, the slowest.

    Returns
    -------
    functions : array of shape (axis.rows + 1, n_functions)
        The last row, of what belongs in no bin, is 0.
    eigenvalues : array of shape (n_functions,)
        Of the graph of the bins: a path of ordered ones; without an order, all alike, 1; NaN for the missing.
    """
    K = axis.size
    k = np.arange(1, (min(rank, K - 1) if axis.ordered else K - 1) + 1)
    functions = np.zeros((axis.rows + 1, len(k) + axis.missing))
    if K:  # a column of text without a value has no bin but that of missing values
        functions[:K, : len(k)] = np.sqrt(2.0 / K) * np.cos(np.pi / K * k * (np.arange(K)[:, None] + 0.5))
    eigenvalues = 2.0 - 2.0 * np.cos(np.pi / K * k) if axis.ordered else np.ones(len(k))
    if axis.missing:
        functions[K, -1] = 1.0
        eigenvalues = np.append(eigenvalues, np.nan)
    return functions, eigenvalues


def main_table(axis: Axis, smoothness: float) -> FloatArray:
    """Return the features of each bin, shape (axis.rows + 1, n_features), whose penalty is ``||w||^2 / 2``."""
    K = axis.size
    rank = max(_FIRST, int(np.sqrt(_ROUGH * K / smoothness) / np.pi))
    functions, eigenvalues = basis(axis, rank)
    strength = smoothness * K if axis.ordered else 2.0 * smoothness
    return functions / np.sqrt(np.where(np.isnan(eigenvalues), _MISSING, strength * eigenvalues))


def pair_penalty(first: Axis, second: Axis) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return bases of both axes, and the penalty of the products of their functions, shape (n_first, n_second)."""
    left, a = basis(first, _PAIR_RANK)
    right, b = basis(second, _PAIR_RANK)
    a, b = (np.where(np.isnan(v), 1.0, v) * axis.size for v, axis in ((a, first), (b, second)))
    return left, right, _PAIR * (a[:, None] + b)


def pair_table(first: Axis, second: Axis) -> FloatArray:
    """Return the features of each cell, the bins of `second` running faster; those of the two alone are not in it."""
    left, right, penalty = pair_penalty(first, second)
    cells = left[:, None, :, None] * right[None, :, None, :] / np.sqrt(penalty)
    return cells.reshape(len(left) * len(right), -1)


def level(axis: Axis, sums: list[tuple[Any, Any]]) -> float:
    """Return the smoothness of the largest evidence, for the sums of score and information of each bin, per class."""
    if axis.size < 2:
        return float(LEVELS[0])
    return float(LEVELS[int(np.argmax(sum(_evidence(axis, *found) for found in sums)))])


def _evidence(axis: Axis, slopes: Any, bends: Any) -> FloatArray:
    """Return the evidence of each level, for one set of sums.

    The evidence is that of a random walk over the bins (independent values, where they have no order) seen with the
    noise of the bins: a recursion in plain numbers, so that nothing depends on how sums are split.
    """
    K = axis.size
    seen = bends[:K] > 0.0
    noise = np.divide(1.0, bends[:K], out=np.zeros(K), where=seen)
    values = slopes[:K] * noise
    if axis.ordered:
        return _walk(values, noise, seen, 1.0 / (LEVELS * K))
    return _independent(values[seen], noise[seen], 0.5 / LEVELS)


def _walk(values: Any, noise: Any, seen: Any, steps: Any) -> FloatArray:
    evidence, here = np.zeros(len(steps)), np.zeros(len(steps))
    variance = np.full(len(steps), _ANYWHERE)
    for value, error, known in zip(values, noise, seen, strict=True):
        if known:
            spread = variance + error
            gap = value - here
            evidence -= 0.5 * (np.log(spread) + gap * gap / spread)
            here = here + variance / spread * gap
            variance = variance * error / spread
        variance = variance + steps
    return evidence


def _independent(values: Any, noise: Any, variances: Any) -> FloatArray:
    precision = 1.0 / (noise + variances[:, None])
    total, weighted = precision.sum(axis=1), (precision * values).sum(axis=1)
    evidence = 0.5 * (np.log(precision) - precision * values**2).sum(axis=1)
    evidence += 0.5 * (weighted**2 / (total + 1.0 / _ANYWHERE) - np.log1p(_ANYWHERE * total))
    return np.asarray(evidence)
