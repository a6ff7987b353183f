"""What noisy answers tell about a secret key, and how much noise a promise needs.

The shards of a private ensemble are drawn independently, each with a key of its own, so the sum of their votes is a sum
of independent terms: over keys it moves by about the square root of their number, and by this distance alone an
answer can depend on the key. The theorems, with their proofs, are in ``docs/theory/sharding.rst``.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import ndtr, ndtri

from certified.accounting import delta_of
from certified.errors import CannotCertify, InvalidInput
from certified.noise import STEP, discrete_gaussian
from certified.typing import FloatArray

__all__ = ["adaptive_delta", "distributions", "noise_for", "noisy_sum"]

_SLACK = 1 + 1e-9  # errors of ndtr and ndtri, both below 1e-12, and of the sums


def adaptive_delta(
    epsilon: float, n_shards: int, n_answers: int, sigma: float, n_outputs: int = 1, at_once: bool = True
) -> float:
    """Return an upper bound of delta at epsilon for requests that depend on noisy answers.

    The pair of key and answers is compared with a pair in which the answers are drawn without the key.

    Parameters
    ----------
    epsilon : float >= 0
    n_shards : int
        Drawn independently of each other.
    n_answers : int
        Rows answered.
    sigma : float > 0
        Standard deviation of the noise of an answer, in votes.
    n_outputs : int
        1 where a vote is a number in [0, 1], else the number of classes over which it is a distribution.
    at_once : bool
        Whether no question depends on an answer, and no deletion lies between answers.

    Returns
    -------
    float
        In [0, 1].

    Notes
    -----
    Theorems 8 (at once) and 9 of ``docs/theory/sharding.rst``. Votes are rounded to a lattice and the noise is
    discrete, which lengthens distances by less than ``n_outputs * 2**-18`` of them.

    Examples
    --------
    >>> adaptive_delta(1.0, n_shards=100, n_answers=10, sigma=1000.0) < 1e-6
    True
    """
    mean, reach = (0.5, 1.0) if n_outputs == 1 else (math.sqrt(1 - 1 / n_outputs), math.sqrt(2.0))
    factor = 1.0
    if n_outputs == n_answers == 1:  # Hoeffding's inequality instead of McDiarmid's
        mean, factor = 0.0, 2.0
    unit = math.sqrt(n_shards * n_answers) / sigma * (1 + n_outputs * 2.0**-18) * _SLACK
    levels = np.arange(1, 129) / 16 if at_once else np.arange(1, 33) / 4  # exp(-2 * 8**2) is 3e-56
    mus = [unit * (mean + reach * level) for level in levels]
    beyond = [min(1.0, factor * math.exp(-2 * level**2) * _SLACK) for level in levels]
    before = [1.0, *beyond[:-1]]
    if at_once:
        shares = np.subtract(before, beyond)
        total = float(np.dot(shares, [delta_of(epsilon, mu) for mu in mus])) + beyond[-1]
    else:
        total = sum(min(delta_of(epsilon, mu), _moved(tail, mu)) for mu, tail in zip(mus, before, strict=True))
        total += _moved(beyond[-1], mus[-1])
    return min(1.0, total * _SLACK)


def _moved(tail: float, mu: float) -> float:
    """Return the largest probability, in a world mu away, of an event of probability `tail`."""
    return float(ndtr(ndtri(tail) + mu)) * _SLACK


def noise_for(
    epsilon: float, delta: float, n_shards: int, n_answers: int, n_outputs: int = 1, at_once: bool = True
) -> float:
    """Return the noise, in votes, at which :func:`adaptive_delta` is at most delta; checked.

    Raises
    ------
    InvalidInput
        epsilon or delta is out of range.
    CannotCertify
        The noise would exceed the number of votes, so that answers would tell nothing.
    """
    if not (epsilon > 0 and 0 < delta < 1):
        raise InvalidInput(
            f"The private aggregation got epsilon={epsilon!r} and delta={delta!r}. epsilon > 0 and 0 < delta < 1 are "
            "allowed. Nothing was fitted."
        )
    good = float(n_shards)
    if adaptive_delta(epsilon, n_shards, n_answers, good, n_outputs, at_once) > delta:
        raise CannotCertify(
            f"The private aggregation cannot give n_answers={n_answers} answers from n_shards={n_shards} shards within "
            f"epsilon={epsilon:g} at delta={delta:g}: the noise would exceed the number of votes. Use more shards, "
            "fewer answers or a larger epsilon; or the plain aggregation, and `rekey()` before each release. Nothing "
            "was fitted."
        )
    bad = 0.0
    for _ in range(40):
        middle = (good + bad) / 2
        if adaptive_delta(epsilon, n_shards, n_answers, middle, n_outputs, at_once) <= delta:
            good = middle
        else:
            bad = middle
    return good


def distributions(votes: FloatArray) -> FloatArray:
    """Return votes as the promise takes them, shape (n_rows, n_classes): numbers >= 0 whose sum is at most 1.

    An estimator may answer anything. What is negative becomes 0, a row with a larger sum is scaled down, and a row
    with what is no number is as good as none.
    """
    votes = np.where(np.isnan(votes).any(axis=1, keepdims=True), 1.0 / votes.shape[1], np.clip(votes, 0.0, 1.0))
    return np.asarray(votes / np.maximum(votes.sum(axis=1, keepdims=True), 1.0))


def noisy_sum(votes: FloatArray, sigma: float) -> FloatArray:
    """Return the sum of votes with fresh discrete Gaussian noise, drawn from the operating system's entropy.

    Parameters
    ----------
    votes : float array of shape (n_shards, ...)
        In [0, 1]. Each vote is rounded to the lattice before the sum, so that its range stays what it is.
    sigma : float
        In votes.
    """
    points = np.rint(votes / STEP).astype(np.int64).sum(axis=0)
    return (points + discrete_gaussian(points.size, sigma / STEP).reshape(points.shape)) * STEP
