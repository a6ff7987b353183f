"""What a convex head minimises, and the metric in which its releases are noised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from certified import noise
from certified._convex.losses import Loss
from certified._data.reproducible import one_thread
from certified._exact.sums import Products
from certified.errors import CannotCertify
from certified.typing import FloatArray

__all__ = ["NoiseMetric", "Problem"]

_TINY = 2.0**-40  # Lambda0 on directions without a penalty


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised: ``sum_i s_i l(y_i, x_i'w + o_i) + (strength/2) w' diag(penalized) w + l1_strength ||penalized
    w||_1``.

    Attributes
    ----------
    loss : Loss
    penalized : array of shape (P,)
        1 where the penalty applies, 0 where not.
    strength : float
        Of the penalty. It may depend on the rows (their weight); rows that are deleted take a part of it with them.
    scale : float
        The constant c of the noise metric.
    unit : float
        A power of two near ``sum_i s_i / sum_i s_i^2``: times it, weights add up to about the effective number of rows,
        ``(sum_i s_i)^2 / sum_i s_i^2``. The noise metric is measured in it, so that it is the same in whatever unit
        the weights are given.
    identifiability : array of shape (p, p) or None
        Several predictors can all be moved by the same vector without changing a probability, so at the minimiser they
        have mean 0, if only by convention. This quadratic form of their mean is added, which changes neither the
        minimiser nor the loss there, and makes the Hessian definite. Any positive definite matrix will do.
    strength_depends_on_rows : bool
        Whether the strength depends on the rows.
    l1_strength : float
        Strength of an L1 penalty on the coefficients that the pattern names.
    max_weight_ratio : float
        At least the ratio of any row's weight to that with which it enters the noise metric.
    """

    loss: Loss
    penalized: FloatArray
    strength: float
    scale: float
    identifiability: FloatArray | None = None
    strength_depends_on_rows: bool = False
    l1_strength: float = 0.0
    max_weight_ratio: float = 1.0
    unit: float = 1.0

    @property
    def penalty(self) -> FloatArray:
        """Diagonal of the penalty, shape (P,)."""
        return self.strength * self.penalized

    def gradient(self, w: FloatArray) -> FloatArray:
        """Gradient of the penalty, gauge included, shape (P,)."""
        out = self.penalty * w
        if self.identifiability is not None:
            mean = w.reshape(self.loss.outputs, -1).mean(axis=0)
            out = out + np.tile(self.identifiability @ mean, self.loss.outputs)
        return out

    def curvature(self) -> FloatArray:
        """Hessian of the penalty, gauge included, shape (P, P)."""
        out: FloatArray = np.diag(self.penalty)
        if self.identifiability is not None:
            out = out + np.tile(self.identifiability / self.loss.outputs, (self.loss.outputs, self.loss.outputs))
        return out


@dataclass(frozen=True)
class NoiseMetric:
    """The noise metric ``G = t (c sum s_i x_i x_i' + Lambda0)`` of the retained rows, factorised as L L'.

    Attributes
    ----------
    products : Products
        Exact Gram matrix of the retained rows.
    scale : float
        The constant ``c t``, t being the unit of the weights.
    matrix, factor : arrays of shape (p, p)
        G and L. The norm ``||v||_G`` is defined as ``||L'v||``.
    root : array of shape (p,)
        Upper bounds of ``sqrt(G_jj)``.
    root_x : array of shape (P,)
        Upper bounds of ``sqrt(sum s_i x_ij^2)``, for every predictor.
    """

    products: Products
    scale: float
    matrix: FloatArray
    factor: FloatArray
    root: FloatArray
    root_x: FloatArray

    @classmethod
    @one_thread
    def of(cls, problem: Problem, products: Products, n_rows: int) -> NoiseMetric:
        """Factorise; raise CannotCertify if G is singular in float64."""
        gram, K = np.ascontiguousarray(products.matrix()), problem.loss.outputs
        matrix: FloatArray = problem.scale * gram
        if K > 1:
            matrix = np.asarray(np.kron(np.eye(K), matrix))
        matrix[np.diag_indices(len(matrix))] += np.where(problem.penalty > 0, problem.penalty, _TINY)
        matrix *= problem.unit
        try:
            if not np.all(np.isfinite(matrix)):
                raise LinAlgError
            factor = cholesky(matrix, lower=True, check_finite=False)
        except LinAlgError:
            raise CannotCertify(
                "The noise metric (weighted Gram matrix plus penalty) is singular in float64, so noise cannot be "
                "calibrated. Remove duplicate columns, scale the features (StandardScaler), or add a penalty."
            ) from None
        quantum = np.ldexp(np.sqrt(float(n_rows)), products.exponents - 20)
        root_x = np.tile((np.sqrt(np.diag(gram)) + quantum) * (np.sqrt(problem.max_weight_ratio) * (1 + 2.0**-30)), K)
        scale = problem.scale * problem.unit
        return cls(products, scale, matrix, factor, np.sqrt(np.diag(matrix)) * (1 + 2.0**-30), root_x)

    def whitened(self, v: FloatArray) -> FloatArray:
        """Return a vector whose Euclidean norm is the G norm of v."""
        return self.factor.T @ v

    def noised(self, w: FloatArray, sigma: float, rng: np.random.Generator | None) -> FloatArray:
        """Return w with fresh noise of covariance ``sigma^2 G^-1``."""
        return noise.release(w, self.factor, sigma, rng)

    def covers(self, later: NoiseMetric) -> bool:
        """Whether a later metric is the same but for rows that were deleted, which make it smaller."""
        return later.scale == self.scale and np.array_equal(later.products.exponents, self.products.exponents)
