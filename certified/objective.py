"""What a convex head minimises, and the metric in which its releases are noised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from certified import noise
from certified.errors import CannotCertify
from certified.exact import Products
from certified.losses import Loss
from certified.typing import FloatArray

__all__ = ["Problem", "Release"]

_TINY = 2.0**-40  # Lambda0 on directions without a penalty


@dataclass(frozen=True, eq=False)
class Problem:
    """What is minimised: ``sum_i s_i l(y_i, x_i'w + o_i) + (strength/2) w' diag(pattern) w + corner ||pattern w||_1``.

    Attributes
    ----------
    loss : Loss
    pattern : array of shape (P,)
        1 where the penalty applies, 0 where not.
    strength : float
        Of the penalty. It may depend on the rows (their weight); rows that are removed take a part of it with them.
    scale : float
        The constant c of the release metric.
    gauge : array of shape (p, p) or None
        Several predictors can all be moved by the same vector without changing a probability, so at the minimiser they
        have mean 0, if only by convention. This quadratic form of their mean is added, which changes neither the
        minimiser nor the loss there, and makes the Hessian definite. Any positive definite matrix will do.
    ridged : bool
        Whether the strength depends on the rows.
    corner : float
        Strength of an L1 penalty on the coefficients that the pattern names.
    most : float
        At least the ratio of any row's weight to that with which it enters the release metric.
    """

    loss: Loss
    pattern: FloatArray
    strength: float
    scale: float
    gauge: FloatArray | None = None
    ridged: bool = False
    corner: float = 0.0
    most: float = 1.0

    @property
    def penalty(self) -> FloatArray:
        """Diagonal of the penalty, shape (P,)."""
        return self.strength * self.pattern

    def slope(self, w: FloatArray) -> FloatArray:
        """Gradient of the penalty, gauge included, shape (P,)."""
        out = self.penalty * w
        if self.gauge is not None:
            mean = w.reshape(self.loss.outputs, -1).mean(axis=0)
            out = out + np.tile(self.gauge @ mean, self.loss.outputs)
        return out

    def curvature(self) -> FloatArray:
        """Hessian of the penalty, gauge included, shape (P, P)."""
        out: FloatArray = np.diag(self.penalty)
        if self.gauge is not None:
            out = out + np.tile(self.gauge / self.loss.outputs, (self.loss.outputs, self.loss.outputs))
        return out


@dataclass(frozen=True)
class Release:
    """The release metric ``G = c sum s_i x_i x_i' + Lambda0`` of the kept rows, factorised as L L'.

    Attributes
    ----------
    products : Products
        Exact Gram matrix of the kept rows.
    scale : float
        The constant c.
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
    def of(cls, problem: Problem, products: Products, n_rows: int) -> Release:
        """Factorise; raise CannotCertify if G is singular in float64."""
        gram, K = products.matrix(), problem.loss.outputs
        matrix: FloatArray = problem.scale * gram
        if K > 1:
            matrix = np.asarray(np.kron(np.eye(K), matrix))
        matrix[np.diag_indices(len(matrix))] += np.where(problem.penalty > 0, problem.penalty, _TINY)
        try:
            if not np.all(np.isfinite(matrix)):
                raise LinAlgError
            factor = cholesky(matrix, lower=True, check_finite=False)
        except LinAlgError:
            raise CannotCertify(
                "The release metric (weighted Gram matrix plus penalty) is singular in float64, so noise cannot be "
                "calibrated. Remove duplicate columns, scale the features (StandardScaler), or add a penalty."
            ) from None
        quantum = np.ldexp(np.sqrt(float(n_rows)), products.exponents - 20)
        root_x = np.tile((np.sqrt(np.diag(gram)) + quantum) * (np.sqrt(problem.most) * (1 + 2.0**-30)), K)
        return cls(products, problem.scale, matrix, factor, np.sqrt(np.diag(matrix)) * (1 + 2.0**-30), root_x)

    def whitened(self, v: FloatArray) -> FloatArray:
        """Return a vector whose Euclidean norm is the G norm of v."""
        return self.factor.T @ v

    def noised(self, w: FloatArray, sigma: float, rng: np.random.Generator | None) -> FloatArray:
        """Return w with fresh noise of covariance ``sigma^2 G^-1``."""
        return noise.release(w, self.factor, sigma, rng)

    def covers(self, later: Release) -> bool:
        """Whether a later metric is the same but for rows that were removed, which make it smaller."""
        return later.scale == self.scale and np.array_equal(later.products.exponents, self.products.exponents)
