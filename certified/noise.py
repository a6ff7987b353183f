"""The lattice Gaussian release: Gaussian noise for a secret vector without floating-point noise on a secret float.

The secret is whitened, rounded to a lattice, blurred by *discrete* Gaussian noise drawn exactly and with the operating
system's entropy, and mapped back by a matrix that holds nothing secret. Adding a float Gaussian to a secret float
would let the low-order bits of the sum tell which secrets are possible (Mironov 2012). How close the two worlds of a
certificate then are is computed by `certified.accounting.lattice_mu`.

References
----------
Mironov (2012), "On significance of the least significant bits for differential privacy".
Canonne, Kamath, Steinke (2020), "The discrete Gaussian for differential privacy".
Dong, Roth, Su (2022), "Gaussian differential privacy".
"""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.utils import check_random_state

from certified._data.reproducible import one_thread
from certified.errors import CannotCertify, InvalidInput, SimulatedNoise

__all__ = ["NO_NOISE", "OS_ENTROPY", "SEEDED", "STEP", "discrete_gaussian", "generator", "release", "source", "whiten"]

STEP = 2.0**-20
"""Lattice step in whitened coordinates; one unit there is one standard deviation of the noise."""

OS_ENTROPY = "lattice Gaussian, operating-system entropy"
SEEDED = "seeded, no guarantee"
NO_NOISE = "none"

_U = 2.0**-53
_LIMIT = 2.0**62


def source(sigma: float, rng: np.random.Generator | None = None) -> str:
    """Return what a certificate says about the noise: `OS_ENTROPY`, `SEEDED` or `NO_NOISE`.

    Examples
    --------
    >>> source(0.1)
    'lattice Gaussian, operating-system entropy'
    """
    if sigma == 0:
        return NO_NOISE
    return OS_ENTROPY if rng is None else SEEDED


@lru_cache(maxsize=64)
def _exact_sampler(size: int, scale: float) -> Callable[[list[int]], list[int]]:
    """OpenDP's discrete Gaussian for ``rounding_scale`` integers: an exact sampler that takes a rational scale."""
    from opendp.domains import atom_domain, vector_domain
    from opendp.measurements import make_gaussian
    from opendp.metrics import l2_distance
    from opendp.mod import enable_features

    enable_features("contrib")
    return make_gaussian(vector_domain(atom_domain(T="i64"), size=size), l2_distance(T="f64"), scale=scale)


def discrete_gaussian(size: int, scale: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return independent draws of the discrete Gaussian, P(n) proportional to exp(-n^2 / (2 scale^2)).

    Parameters
    ----------
    size : int >= 0
    scale : float > 0
        In lattice steps.
    rng : numpy.random.Generator, optional
        For simulations only: rounded normal draws from this generator. By default the draws are exact and use the
        operating system's entropy.

    Returns
    -------
    ndarray of int64, shape (size,)

    Raises
    ------
    InvalidInput
        If ``rounding_scale`` is no count, or ``scale`` is not positive and below 2^56.

    References
    ----------
    Canonne, Kamath, Steinke (2020), algorithm 3, as implemented by OpenDP.
    """
    if int(size) != size or size < 0 or not 0 < scale < 2.0**56:
        raise InvalidInput(
            f"discrete_gaussian(size, scale) got size={size!r}, scale={scale!r}. size must be an integer of at least 0 "
            "and scale a number in (0, 2^56). Pass such values; nothing was drawn."
        )
    if rng is not None:
        return np.rint(rng.normal(0.0, scale, int(size))).astype(np.int64)
    if size == 0:
        return np.zeros(0, np.int64)
    return np.array(_exact_sampler(int(size), float(scale))([0] * int(size)), dtype=np.int64)


def _check(w: np.ndarray, factor: np.ndarray, sigma: float) -> None:
    for name, array, ndims in (("w", w, (1,)), ("factor", factor, (1, 2))):
        if not isinstance(array, np.ndarray) or array.dtype != np.float64:
            _refuse(f"{name} of type {getattr(array, 'dtype', type(array).__name__)}", "a NumPy array of float64")
        if array.ndim not in ndims:
            raise InvalidInput(
                f"release(w, factor, sigma) got {name} of shape {array.shape}. w must have shape (d,) and factor "
                "(d, d), or (d,) if it is diagonal. Pass arrays of these shapes; nothing was released."
            )
        if not np.isfinite(array).all():
            _refuse(f"NaN or infinity in {name}", "finite")
    if factor.shape not in ((w.size, w.size), w.shape):
        raise InvalidInput(
            f"release(w, factor, sigma) got w of shape {w.shape} and factor of shape {factor.shape}. factor must have "
            "shape (d, d) or (d,) for w of shape (d,). Pass matching arrays; nothing was released."
        )
    diagonal = factor if factor.ndim == 1 else np.diag(factor)
    if (factor.ndim == 2 and np.triu(factor, 1).any()) or not diagonal.all():
        _refuse("a factor that is singular or not lower triangular", "the Cholesky factor of a positive definite G")
    if not 0 < sigma < math.inf:
        _refuse(f"sigma={sigma!r}", "a positive number")


def _refuse(got: str, allowed: str) -> None:
    raise CannotCertify(
        f"release(w, factor, sigma) got {got}. It must be {allowed}, or no bound on the release holds. "
        "Correct the input; nothing was released."
    )


def whiten(w: np.ndarray, factor: np.ndarray, sigma: float) -> tuple[np.ndarray, float]:
    """Return u = L'w / sigma and a bound on the 2-norm of the rounding error of the u that is returned.

    Parameters
    ----------
    w : ndarray of float64, shape (d,)
    factor : ndarray of float64, shape (d, d) or (d,)
        Lower-triangular L with G = LL'; one dimension for a diagonal L.
    sigma : float > 0

    Returns
    -------
    u : ndarray of float64, shape (d,)
        Unit: standard deviations of the noise.
    arithmetic : float
        Upper bound of ``||u - L'w/sigma||_2``, to be given to `certified.accounting.lattice_mu`, once for each of the
        two worlds that computes u in floating point.

    Raises
    ------
    CannotCertify
        If a value is not finite, a type is not float64, L is singular or not lower triangular, or sigma <= 0.
    InvalidInput
        If the shapes do not match.

    Notes
    -----
    With u = 2^-53 and gamma_k = k u/(1 - k u), an inner product of length d, summed in any order, with or without
    fused operations, is wrong by at most ``gamma_d |L|'|w|`` a coordinate (Higham 2002, section 3.1), and the division
    makes it gamma_{d+1}. The bound uses gamma_{d+2}. It is itself computed in floating point, where
    ``|| |L|'|w| ||`` comes out too small by at most a factor 1 - gamma_{2d+4}; the factor below repairs that. Underflow
    adds at most d 2^-1000/sigma to u and d 2^-400 to the norm.
    """
    _check(w, factor, sigma)
    d = w.size
    with np.errstate(over="ignore", invalid="ignore"):
        if factor.ndim == 1:
            u = (factor * w) / sigma
            size = float(np.linalg.norm(u))
        else:
            u = (factor.T @ w) / sigma
            size = float(np.linalg.norm(np.abs(factor).T @ np.abs(w))) / sigma
    relative = (d + 2) * _U / (1 - (d + 2) * _U) * (1 + (4 * d + 32) * _U)
    arithmetic = math.nextafter(size * relative + d * 2.0**-1000 / sigma + d * 2.0**-400, math.inf)
    if not (np.isfinite(u).all() and math.isfinite(arithmetic)):
        _refuse("values whose product overflows", "of moderate size")
    return u, arithmetic


@one_thread
def release(w: np.ndarray, factor: np.ndarray, sigma: float, rng: np.random.Generator | None = None) -> np.ndarray:
    """Return ``w`` with fresh lattice Gaussian noise of covariance sigma^2 G^-1.

    Parameters
    ----------
    w : ndarray of float64, shape (d,)
        The un-noised parameter; secret.
    factor : ndarray of float64, shape (d, d) or (d,)
        Lower-triangular L with G = LL'; one dimension for a diagonal L. It must be bit for bit the
        matrix that a refit on the retained rows has.
    sigma : float > 0
        Noise in the units of the norm of G, fixed before the data are seen.
    rng : numpy.random.Generator, optional
        For tests and simulations; the release then carries no guarantee. The generator moves on with each call.

    Returns
    -------
    ndarray of float64, shape (d,)

    Raises
    ------
    CannotCertify
        As in `whiten`, and if a whitened coordinate leaves the range of the lattice, ``|u| < 2^42``.
    InvalidInput
        If the shapes do not match.

    Notes
    -----
    The only step in which secret and noise meet is a sum of integers. What follows is a function of that sum, of L
    and of sigma, hence post-processing, whatever it rounds.

    Examples
    --------
    >>> theta = release(np.zeros(2), np.eye(2), sigma=0.1)
    >>> theta.shape, bool(np.abs(theta).max() < 1.0)
    ((2,), True)
    """
    u, _ = whiten(w, factor, sigma)
    scaled = u / STEP  # exact: STEP is a power of two
    if not (np.abs(scaled) < _LIMIT).all():
        _refuse("parameters more than 2^42 standard deviations of the noise from zero", "closer, or sigma larger")
    points = np.rint(scaled).astype(np.int64) + discrete_gaussian(w.size, 1 / STEP, rng)
    if factor.ndim == 1:
        return sigma * (points * STEP / factor)
    theta = solve_triangular(factor, points * STEP, lower=True, trans="T", check_finite=False) if w.size else w.copy()
    return sigma * theta


def generator(random_state: Any, noise: float) -> np.random.Generator | None:
    """Stream of simulated noise for a seed, with a warning; None (no seed) means the operating system's entropy."""
    if random_state is None:
        return None
    if noise > 0:
        warnings.warn(
            f"random_state={random_state!r} simulates the noise from a seed, so that nothing is certified (the claim "
            'is "none"). It is meant for tests and simulations. Leave random_state out for a model that is published.',
            SimulatedNoise,
            stacklevel=2,
        )
    return np.random.default_rng(check_random_state(random_state).randint(2**31))
