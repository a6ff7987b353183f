"""Sums about the means from exact sums, in integers, and linear systems in extended precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky

from certified._data.reproducible import one_thread
from certified._exact.sums import Products
from certified.typing import IntArray

__all__ = ["Moments", "solved"]

_DIGIT = 28  # bits of a digit: a product of two has at most 56, and sums of eight such products fit in 64
_N_DIGITS = 4  # of a sum: 80 bits of each product and the number of rows, below 2^31


class Moments:
    """Sums of products of the columns [X, Y] about their means (or about 0), as exact integers.

    The integers are written as digits of 28 bits, so that numpy multiplies them.

    Parameters
    ----------
    products : Products
        Gram matrix of the columns [X, Y, 1], two limbs.
    n_features : int
    centre : bool
        About the means, for a model with an intercept.

    Attributes
    ----------
    n_features, n_outputs : int
    weight : int
        Sum of the weights, in units of ``4^unit[-1]``.
    unit : int array of shape (n_features + n_outputs + 1,)
        A value of column j counts ``2^unit[j]``.
    mean : float array of shape (n_features + n_outputs,)
        Weighted means of the columns, each rounded once.
    """

    def __init__(self, products: Products, n_features: int, centre: bool) -> None:
        p = len(products.exponents)
        self.n_features, self.n_outputs = n_features, p - 1 - n_features
        self.unit = products.unit_exponents
        self._upper = i, j = np.triu_indices(p - 1)
        total = _digits(products.sums[:, :, i, j])
        column = _digits(products.sums[:, :, :, -1])
        sums = [sum(int(d) << _DIGIT * k for k, d in enumerate(value)) for value in column.T]
        self.weight = sums[-1]
        # centred sums times the sum of weights: exact integers, no cancellation
        out = np.zeros((2 * _N_DIGITS, i.size), dtype=np.int64)
        for k in range(_N_DIGITS):
            out[k : k + _N_DIGITS] += total * column[k, -1]
            if centre:
                out[k : k + _N_DIGITS] -= column[:, i] * column[k, j]
        # digits in [-2^27, 2^27): a small number has small digits, so that their sum from below is accurate
        for k in range(len(out) - 1):
            carry = (out[k] + (1 << _DIGIT - 1)) >> _DIGIT
            out[k] -= carry << _DIGIT
            out[k + 1] += carry
        self._values = out[0].astype(np.longdouble)
        for k in range(1, len(out)):
            self._values += np.ldexp(out[k].astype(np.longdouble), _DIGIT * k)
        ratio = np.array([value / self.weight for value in sums[:-1]])  # true division of integers rounds correctly
        self.mean = np.ldexp(ratio, self.unit[:-1] - self.unit[-1])

    @property
    def bits(self) -> IntArray:
        """Bit length of the sum of squares of each column of [X, Y]; 0 for a constant one."""
        i, j = self._upper
        return np.frexp(self._values[i == j])[1].astype(np.int64)

    def covariance(self) -> Any:
        """Return the weighted covariance matrix (divided by the weight), in extended precision, shape (q, q)."""
        unit, weight = self.unit[:-1], np.longdouble(self.weight)
        out = self.scaled(np.zeros(len(unit), dtype=np.int64)) / weight / weight
        return np.ldexp(out, unit[:, None] + unit[None, :] - 2 * self.unit[-1])

    def scaled(self, shift: IntArray) -> Any:
        """Return entry (j, k) divided by ``2^(shift[j] + shift[k])``, in extended precision, shape (q, q)."""
        i, j = self._upper
        out = np.empty((len(shift), len(shift)), dtype=np.longdouble)
        out[i, j] = np.ldexp(self._values, -(shift[i] + shift[j]))
        out[j, i] = out[i, j]
        return out


def _digits(sums: IntArray) -> IntArray:
    """Digits of the sums of two limbs, shape (2, 3, ...), as shape (4, ...): ``sum_k d_k 2^(28 k)``.

    All lie in [0, 2^28) but the last, which has the sign.
    """
    mask = (1 << _DIGIT) - 1
    out = np.zeros((_N_DIGITS, *sums.shape[2:]), dtype=np.int64)
    for k in range(3):
        for word, start in ((sums[1, k], 20 * (2 - k)), (sums[0, k], 20 * (2 - k) + 32)):
            for part, place in ((word & mask, start), (word >> _DIGIT, start + _DIGIT)):
                out[place // _DIGIT] += part << place % _DIGIT
    for k in range(_N_DIGITS - 1):
        out[k + 1] += out[k] >> _DIGIT
        out[k] &= mask
    return out


@one_thread
def solved(matrix: Any, target: Any) -> Any:
    """Solve a positive definite system in extended precision: float64 factor, residuals as given.

    Parameters
    ----------
    matrix : longdouble array of shape (d, d)
        Scaled, so that its diagonal is at least about 1.
    target : longdouble array of shape (d, m)

    Returns
    -------
    longdouble array of shape (d, m), or None where the matrix is singular in float64.
    """
    try:
        factor = cholesky(matrix.astype(np.float64), lower=True, check_finite=False)
    except LinAlgError:
        return None
    if len(factor) and np.min(np.diag(factor)) < 1e-7:
        return None
    solution = np.zeros(target.shape, dtype=np.longdouble)
    for _ in range(4):
        residual = (target - matrix @ solution).astype(np.float64)
        solution = solution + cho_solve((factor, True), residual, check_finite=False)
    return solution
