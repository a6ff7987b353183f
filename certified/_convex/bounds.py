"""Upper bounds of the distance to the exact minimiser, rounded outward.

Everything is measured in one fixed metric per anchor, ``A = (V'V)^-1``, where V is the *computed* inverse Cholesky
factor of the Hessian. Because A is defined by V, a whitened vector ``V g`` has the A^-1 norm of g by definition, and
the one number ``rho`` (:func:`sandwich`) carries every rounding error of the Hessian, of its factorisation and of the
inversion: ``(1 - rho) A <= H <= (1 + rho) A``.

Proofs: ``docs/theory/bounds.rst`` (theorems 1 and 2) and ``docs/theory/rounding.rst``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cholesky
from scipy.sparse import issparse
from scipy.sparse.linalg import ArpackError, eigsh

from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = [
    "LARGEST",
    "TINY",
    "UNIT",
    "check_range",
    "gamma",
    "gradient_envelope",
    "largest_eigenvalue",
    "measured_distance",
    "metric_constant",
    "or_inf",
    "remainder",
    "sandwich",
    "theorem1",
    "theorem2",
    "up",
]

UNIT = 2.0**-53
"""Unit roundoff of float64."""

LARGEST = 2.0**200
"""Features, targets, weights and offsets of a certified head are at most this in absolute value."""

TINY = 2.0**-560
"""Times 1 + l'' at least the sum of what underflow adds to an entry of a gradient (``docs/theory/rounding.rst``)."""

_DENSE = 64  # eigenvalues of smaller matrices come from a dense routine
_WIDEN = 1.0 + 2.0**-40  # covers the few dozen roundings of a scalar formula, with room


def up(value: float) -> float:
    """Return a value above the exact one, for a scalar formula of a few dozen float64 operations on terms >= 0."""
    return float(value) * _WIDEN + 1e-300


def or_inf(value: float) -> float:
    """Return the bound, infinity where the computation gave none (NaN)."""
    return math.inf if math.isnan(value) else float(value)


def check_range(caller: str, **parts: Any) -> None:
    """Raise InvalidInput where an array has entries beyond those for which the model of rounding holds.

    Parameters
    ----------
    caller : str
    **parts : array, sparse array or None
        By their names in the message.
    """
    for name, values in parts.items():
        held = getattr(values, "data", values) if issparse(values) else values
        if held is None or not np.size(held):
            continue
        most = max(float(np.max(held)), -float(np.min(held)))
        if not most <= LARGEST:
            raise InvalidInput(
                f"{caller} got {name} of up to {most:.3g} in absolute value. At most 2^200 (1.6e60) is allowed, so "
                "that nothing over- or underflows unseen. Scale the values, or leave out codes for missing ones. "
                "Nothing was changed."
            )


def gamma(k: float) -> float:
    """Return an upper bound of ``k u / (1 - k u)``: relative error of k successive roundings (Higham 2002, 3.1)."""
    return up(k * UNIT / (1.0 - k * UNIT))


def remainder(b: float) -> float:
    """Return an upper bound of ``(e^b - 1 - b) / b`` for b >= 0; about b/2 for small b."""
    if not b < 700.0:
        return math.inf
    if b < 0.5:  # b/2 * (1 + b/3 + b^2/12 + ...), the tail bounded by a geometric series
        term, total = 1.0, 0.0
        for k in range(2, 24):
            total += term
            term *= b / (k + 1)
        return up(0.5 * b * (total + 2.0 * term))
    return up((math.exp(b) - 1.0 - b) / b * (1.0 + 16.0 * UNIT * math.exp(b) / (math.exp(b) - 1.0 - b)))


def theorem1(nu: float, M: float, q: float = 1.0) -> float:
    """Bound the distance to the minimiser from the gradient, in the norm of A.

    If ``M nu < q`` the minimiser w* exists, is unique, and ``||w* - w||_A <= -log(1 - M nu / q) / M``.

    Parameters
    ----------
    nu : float
        Upper bound of ``||grad F(w)||_{A^-1}``.
    M : float
        Upper bound of ``kappa * max_i ||x_i||_{A^-1}`` over the retained rows.
    q : float
        Lower bound of the Hessian at w: ``Hess F(w) >= q A``.

    Returns
    -------
    float
        The bound; inf where the theorem does not apply.
    """
    if not (q > 0.0 and np.isfinite(nu) and np.isfinite(M)):
        return math.inf
    ratio = up(up(M * nu) / q)
    if ratio >= 0.999:
        return math.inf
    if ratio < 1e-6:  # -log(1-r)/r <= 1 + r/2 + r^2/2 for r <= 1/3
        return up(up(nu / q) * (1.0 + 0.5 * ratio + 0.5 * ratio * ratio))
    return up(up(-math.log1p(-ratio)) / M)


def theorem2(linear: float, step: float, M: float, rho: float, rise: float = 0.0) -> float:
    """Bound the gradient after a Newton step without a pass over the data, in the norm of A^-1.

    Parameters
    ----------
    linear : float
        Upper bound of ``||g~ + pi - W pi||``, the whitened residual of the linear system that was solved, with the
        rounding envelope of the gradient added.
    step : float
        ``||pi||``, the length ``||p||_A`` of the step ``p = V' pi``.
    M : float
        As in :func:`theorem1`; ``b = M * step`` bounds the change of every retained row's linear predictor (times
        kappa).
    rho : float
        ``||V H V' - I|| <= rho`` for the Hessian H at the anchor before the changes counted in W.
    rise : float
        ``-W <= rise``: what was added.

    Returns
    -------
    float
        Upper bound of ``||grad F_{D'}(w0 + p)||_{A^-1}``.
    """
    return up(linear + rho * step + (1.0 + rho + rise) * remainder(up(M * step)) * step)


def measured_distance(
    *,
    nu: float,
    M: float,
    low: float,
    rho: float,
    newton: float,
    step: float,
    residual: float,
    k_G: float,
    rise: float = 0.0,
) -> float:
    """Bound the distance to the minimiser in the noise metric G, from a measured gradient g.

    Sharper than ``k_G * theorem1``: the Newton step ``V' pi`` is known, only its deviation is bounded by k_G.

    Parameters
    ----------
    nu, M : float
        As in :func:`theorem1`.
    low, rho : float
        ``low * I <= K`` and ``||K - B|| <= rho`` for the whitened Hessian ``K = V Hess F(w) V'`` and a matrix B with
        ``||B|| <= 1 + rise``.
    newton : float
        Upper bound of ``||V' pi||_G``.
    step, residual : float
        Upper bounds of ``||pi||`` and ``||V g - B pi||``.
    k_G : float
        ``||v||_G <= k_G ||v||_A`` for every v.

    Returns
    -------
    float
        ``min(k_G t, newton + k_G dev)`` where t is the bound of theorem 1 and dev the deviation of the exact step from
        pi (Corollary 1 of the proof).
    """
    t = theorem1(nu, M, low)
    if not np.isfinite(t):
        return math.inf
    x = up(M * t)
    least = low * (1.0 - 0.5 * x) * (1.0 - 4.0 * UNIT)  # (1 - e^-x)/x >= 1 - x/2
    if least <= 0.0:
        return up(k_G * t)
    deviation = up(residual + up(rho + (1.0 + rho + rise) * remainder(x)) * step) / least
    return min(up(k_G * t), up(newton + k_G * deviation))


def sandwich(hessian: FloatArray, inverse_factor: FloatArray, root: FloatArray, relative: float) -> float:
    """Bound rho in ``(1 - rho) A <= H <= (1 + rho) A`` for the exact Hessian H and ``A = (V'V)^-1``.

    Parameters
    ----------
    hessian : array of shape (p, p)
        Computed Hessian.
    inverse_factor : array of shape (p, p)
        V, lower triangular, ``V H V' ~ I``.
    root : array of shape (p,)
        Upper bounds of the square roots of the diagonal of every term that was added up to the Hessian.
    relative : float
        The computed Hessian differs from the exact one by at most ``relative * root_i * root_j`` in each entry.

    Returns
    -------
    float
        ``||fl(V H V') - I||_F + (relative + gamma) ||a||^2`` with ``a = |V| root``.
    """
    p = len(root)
    middle = inverse_factor @ hessian @ inverse_factor.T
    middle[np.diag_indices(p)] -= 1.0
    a = np.abs(inverse_factor) @ root
    size = up(float(a @ a) * (1.0 + gamma(2 * p)))
    return up(float(np.linalg.norm(middle)) * (1.0 + gamma(p * p)) + (relative + gamma(3 * p + 4)) * size)


def largest_eigenvalue(matrix: FloatArray) -> float:
    """Return an upper bound of the largest eigenvalue of a symmetric matrix, at least 0.

    An estimate t is accepted only when a floating-point Cholesky factorisation of ``t I - K`` runs to its end, which
    proves ``t I - K > -gamma_{p+1} / (1 - gamma_{p+1}) trace(t I - K)`` (Rump 2006, theorem 2.3). Otherwise the
    Frobenius norm bounds it.
    """
    p = len(matrix)
    if not np.all(np.isfinite(matrix)):
        return math.inf
    most = float(np.linalg.norm(matrix)) * (1.0 + gamma(p * p))
    diagonal = float(np.abs(np.diag(matrix)).sum())
    t = max(_top_eigenvalue(matrix), 0.0)
    slack = 2.0**-30 if p <= _DENSE else 2.0**-10
    while slack <= 2.0:
        t_try = t * (1.0 + slack) + 1e-300
        shifted = -matrix
        shifted[np.diag_indices(p)] += t_try
        try:
            cholesky(shifted, lower=True, check_finite=False)
        except LinAlgError:
            slack *= 4.0
            continue
        return min(up(most), up(t_try + gamma(2 * p + 4) * (p * t_try + diagonal)))
    return up(most)


def _top_eigenvalue(matrix: FloatArray) -> float:
    """Largest eigenvalue, not proved: where the matrix is large, from a Lanczos iteration."""
    if len(matrix) > _DENSE:
        try:
            return float(
                eigsh(matrix, k=1, which="LA", tol=1e-4, v0=np.ones(len(matrix)), return_eigenvectors=False)[0]
            )
        except ArpackError:
            pass
    try:
        return float(np.linalg.eigvalsh(matrix)[-1])
    except LinAlgError:  # no convergence: a poor proposal, which the factorisation judges
        return float(np.linalg.norm(matrix))


def metric_constant(factor: FloatArray, inverse_factor: FloatArray, root: FloatArray) -> float:
    """Bound k_G in ``||v||_G <= k_G ||v||_A``, for the metric ``G = L L'`` now and after any deletions.

    Deleted rows only make the exact Gram matrix smaller; the Cholesky factor of a later G is covered by the term in
    ``a = |V| root``, root being the square roots of the diagonal of G.
    """
    p = len(root)
    product = inverse_factor @ factor
    absolute = float(np.linalg.norm(np.abs(inverse_factor) @ np.abs(factor)))
    a = np.abs(inverse_factor) @ root
    top = largest_eigenvalue(product @ product.T)
    top = top * (1.0 + gamma(2 * p)) + gamma(p + 2) * float(np.linalg.norm(product)) ** 2
    k = math.sqrt(up(top)) + gamma(p + 2) * absolute
    return up(math.sqrt(up(k * k + 8.0 * gamma(p + 4) * float(a @ a) * (1.0 + gamma(2 * p)))))


def gradient_envelope(
    reach: float,
    slopes: float,
    sizes: float,
    predictor: float,
    penalty: float,
    n_terms: int,
    p: int,
    bend: float,
) -> float:
    """Bound ``||V (computed gradient - exact gradient)||`` (Theorem 3 of ``docs/theory/rounding.rst``).

    Parameters
    ----------
    reach : float
        ``|| |V| root ||_2`` with ``root_j >= sqrt(sum_i s_i x_ij^2)``.
    slopes, sizes : float
        ``sqrt(sum_i s_i l'_i^2)`` and ``sqrt(sum_i s_i size_i^2)``; l' is off by 32 units in the last place of size.
    predictor : float
        At least ``sqrt(sum_i s_i (|o_i| + sum_j |x_ij| |w_j|)^2)``, for example ``sum_j |w_j| root_j`` without offset.
    penalty : float
        ``|| |V| |Lambda w| ||_2``.
    n_terms : int
        Longest chain of additions in the sum over rows.
    p : int
        Number of columns.
    bend : float
        Upper bound of every row's curvature l'' at and near its predictor.
    """
    score = bend * gamma(p + 4) * predictor
    rows = gamma(n_terms + 4) * (slopes + score) + score + 32.0 * UNIT * sizes
    return up(reach * rows + gamma(n_terms + 8) * penalty)
