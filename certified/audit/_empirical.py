"""Samples of two procedures, unlearned and refitted: lower bounds on what tells them apart, with controls.

Half of the runs choose a direction and a threshold, the other half are counted, so that the bounds hold whatever was
chosen. Two rules are tried, each at half of alpha: one for a shift of the mean, one for a change of the spread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri

from certified.accounting import epsilon_of
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, SAMPLE, AuditResult
from certified.audit.bounds import detectable_mu, epsilon_lower, mu_lower
from certified.errors import InvalidInput
from certified.progress import track
from certified.typing import FloatArray

__all__ = ["Empirical", "empirical", "per_run"]

Sampler = Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class Empirical(AuditResult):
    """Lower bounds from samples of two procedures.

    Parameters
    ----------
    verdict, reason
        See :class:`AuditResult`. INCONCLUSIVE: the positive control was missed, the negative one was not, or effects as
        large as the claim could not have been seen.
    runs, runs_counted : int
        Per side: all, and those in the bounds.
    alpha, delta : float
    claim : float
        mu that is claimed.
    mu_lower : float
        Valid if releases are Gaussian, as those of this package are; NaN otherwise.
    epsilon_lower, epsilon_claim : float
        At ``delta``; the lower one is valid for any procedure. NaN if a direction was given, since no run is left to
        fix a threshold with.
    mu_control, epsilon_control : float
        The same bounds for refit against refit. Above 0 with probability alpha at most.
    mu_nothing, epsilon_nothing : float
        The same for models that removed nothing, against refits: what this audit can see. NaN if not run.
    mu_estimate : float
        Of the shift, not a bound.
    detectable : float
        Smallest mu that the audit refutes the claim at, with the power asked for.
    resolution : float
        Smallest mu that it tells from 0.
    projected_unlearned, projected_refit : arrays of shape (runs_counted,)
        The statistic of the shift, for plots.
    """

    runs: int
    runs_counted: int
    alpha: float
    delta: float
    claim: float
    mu_lower: float
    epsilon_lower: float
    epsilon_claim: float
    mu_control: float
    epsilon_control: float
    mu_nothing: float
    epsilon_nothing: float
    mu_estimate: float
    detectable: float
    resolution: float
    projected_unlearned: FloatArray = field(repr=False, metadata=SAMPLE)
    projected_refit: FloatArray = field(repr=False, metadata=SAMPLE)


class _Found(NamedTuple):
    mu: float
    epsilon: float
    estimate: float
    counted: int
    first: FloatArray
    second: FloatArray

    def beyond(self, claim: float, epsilon_claim: float) -> bool:
        return bool(self.mu > claim or self.epsilon > epsilon_claim)


def per_run(run: Callable[[int], Any]) -> Sampler:
    """Turn a function of a seed, which returns one outcome, into a sampler of many; seeds are never used twice.

    Examples
    --------
    >>> per_run(lambda seed: [float(seed), 1.0])(3).tolist()
    [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]]
    """
    used = 0

    def draw(n: int) -> FloatArray:
        nonlocal used
        start, used = used, used + n
        return np.array([np.ravel(run(seed)) for seed in track(range(start, start + n), "runs")], dtype=np.float64)

    return draw


def empirical(
    unlearn: Sampler,
    refit: Sampler,
    nothing: Sampler | None = None,
    *,
    n_runs: int = 1000,
    claim: float = 0.0,
    delta: float = 1e-5,
    alpha: float = 0.05,
    power: float = 0.9,
    detect: float | None = None,
    gaussian: bool = True,
    whitening: Any = None,
    direction: Any = None,
) -> Empirical:
    """Sample both procedures and bound from below how well they can be told apart.

    Parameters
    ----------
    unlearn, refit : callable
        ``unlearn(n)`` returns n outcomes of training, deletion and release, shape (n, p): parameters, or predictions on
        fixed rows. ``refit(n)`` those of training without the deleted rows. Each outcome with fresh randomness, that of
        the training included. See :func:`per_run`.
    nothing : callable or None
        The positive control: training and release without any deletion.
    n_runs : int
        Per side, fixed in advance. See :func:`certified.audit.bounds.runs_needed`.
    claim : float
        mu of the certificate; 0 for "the same law".
    delta, alpha : float
        Where epsilon is bounded, and the probability that a true claim is refuted.
    power, detect : float
        The verdict is INCONCLUSIVE unless mu = `detect` would be told from 0 with this power. By default `detect` is
        the claim; for a claim of 0 there is no default.
    gaussian : bool
        Whether releases have Gaussian noise of one covariance, so that mu can be bounded. False for black boxes.
    whitening : array of shape (p, p) or None
        ``outcome @ whitening`` has unit covariance, ``L / sigma`` for a release of this package. The noise is then
        known, and means are compared by a z-test, which needs a third of the runs.
    direction : array of shape (p,) or None
        In whitened coordinates, pointing from the refit to the alternative, fixed in advance: then no run is spent on
        finding it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = empirical(
    ...     lambda n: rng.normal(0.0, 1.0, (n, 3)),
    ...     lambda n: rng.normal(0.0, 1.0, (n, 3)),
    ...     lambda n: rng.normal(1.0, 1.0, (n, 3)),
    ... )
    >>> found.verdict, found.mu_nothing > 1
    ('NOT REFUTED', True)
    """
    if direction is not None and whitening is None:
        raise InvalidInput("empirical got a direction without a whitening, in whose coordinates it would be.")
    white = None if whitening is None else np.asarray(whitening, dtype=np.float64)
    rule = _Rule(delta, alpha, gaussian, white, direction)
    retained = _outcomes(refit, n_runs)
    found = rule.compare(_outcomes(unlearn, n_runs), retained)
    control = rule.compare(_outcomes(refit, n_runs), retained)
    positive = None if nothing is None else rule.compare(_outcomes(nothing, n_runs), retained)
    epsilon_claim = epsilon_of(claim, delta)
    target = detect if detect is not None else (claim or np.inf)
    values = retained.shape[1]
    resolution = rule.detectable(n_runs, values, 0.0, power)
    if found.beyond(claim, epsilon_claim):
        verdict = REFUTED
        reason = f"mu is at least {found.mu:.3g} and epsilon at least {found.epsilon:.3g}; {claim:.3g} was claimed."
    elif control.beyond(0.0, 0.0):
        verdict, reason = INCONCLUSIVE, "Refits differ from refits: the runs are not comparable, or it was chance."
    elif positive is not None and not positive.beyond(claim, epsilon_claim):
        verdict, reason = INCONCLUSIVE, "Models that removed nothing pass as well."
    elif resolution > target:
        verdict = INCONCLUSIVE
        reason = f"Effects below mu = {resolution:.3g} are not seen with {n_runs} runs; {target:.3g} is needed."
    else:
        verdict, reason = NOT_REFUTED, f"Nothing seen; effects from mu = {resolution:.3g} on would have been."
    none = (np.nan, np.nan) if positive is None else (positive.mu, positive.epsilon)
    return Empirical(
        verdict,
        reason,
        runs=n_runs,
        runs_counted=found.counted,
        alpha=alpha,
        delta=delta,
        claim=claim,
        mu_lower=found.mu,
        epsilon_lower=found.epsilon,
        epsilon_claim=epsilon_claim,
        mu_control=control.mu,
        epsilon_control=control.epsilon,
        mu_nothing=none[0],
        epsilon_nothing=none[1],
        mu_estimate=found.estimate,
        detectable=rule.detectable(n_runs, values, claim, power),
        resolution=resolution,
        projected_unlearned=found.first,
        projected_refit=found.second,
    )


class _Rule:
    """How two samples are compared, the same way for the claim and for both controls."""

    def __init__(self, delta: float, alpha: float, gaussian: bool, whitening: Any, direction: Any) -> None:
        self.delta, self.alpha, self.gaussian, self.whitening = delta, alpha, gaussian, whitening
        self.direction = None if direction is None else np.asarray(direction, dtype=np.float64)

    def detectable(self, runs: int, values: int, claim: float, power: float) -> float:
        """Smallest mu at which the claim is refuted with this power, for outcomes of so many values."""
        if self.direction is not None:
            return detectable_mu(runs, claim, self.alpha, power)
        half = runs // 2
        # Counts at a threshold, with a bound for either rate, do what a z-test does with a third of the runs.
        seen = detectable_mu(half if self.whitening is not None else half // 3, claim, self.alpha / 2, power)
        # A direction learned from h runs a side shows mu / sqrt(1 + 2 p / (h mu^2)) of mu; solved for mu.
        return float(np.sqrt(0.5 * (seen**2 + np.sqrt(seen**4 + 8.0 * seen**2 * values / max(half, 1)))))

    def compare(self, first: FloatArray, second: FloatArray) -> _Found:
        """Bounds for telling `first` from `second`, each of shape (runs, p)."""
        if self.whitening is not None:
            first, second = first @ self.whitening, second @ self.whitening
        half = 0 if self.direction is not None else len(first) // 2
        learn, count = (first[:half], second[:half]), (first[half:], second[half:])
        axis = self.direction if self.direction is not None else _discriminant(*learn, self.whitening is not None)
        size = float(np.linalg.norm(axis))
        axis = axis / size if size > 0 else axis
        a, b = count[0] @ axis, count[1] @ axis
        n, share = len(a), self.alpha / 2 if half else self.alpha
        epsilon = mu = np.nan
        estimate = float(a.mean() - b.mean())
        if self.whitening is not None:
            mu = max(0.0, estimate - float(ndtri(1 - share)) * float(np.sqrt(2.0 / n)))
        else:
            estimate /= float(np.sqrt(0.5 * (a.var() + b.var()))) or 1.0
        if half:
            threshold = 0.5 * float((learn[0] @ axis).mean() + (learn[1] @ axis).mean())
            fp, fn = int(np.count_nonzero(b > threshold)), int(np.count_nonzero(a <= threshold))
            epsilon = max(epsilon_lower(fp, n, fn, n, self.delta, share), self._spread(learn, count, share))
            if self.gaussian and self.whitening is None:
                mu = mu_lower(fp, n, fn, n, share)
        return _Found(mu, epsilon, estimate, n, a, b)

    def _spread(self, learn: tuple[FloatArray, ...], count: tuple[FloatArray, ...], share: float) -> float:
        """Bound from the lengths of outcomes, in the metric of the second sample."""
        centre = learn[1].mean(axis=0)
        metric = np.eye(learn[0].shape[1]) if self.whitening is not None else _precision(learn[1])
        lengths = [np.sum(((x - centre) @ metric) * (x - centre), axis=1) for x in (*learn, *count)]
        threshold = float(np.median(np.concatenate(lengths[:2])))
        sign = 1.0 if np.mean(lengths[0] > threshold) >= np.mean(lengths[1] > threshold) else -1.0
        fp = int(np.count_nonzero(sign * (lengths[3] - threshold) > 0))
        fn = int(np.count_nonzero(sign * (lengths[2] - threshold) <= 0))
        return epsilon_lower(fp, len(lengths[3]), fn, len(lengths[2]), self.delta, share)


def _outcomes(sampler: Sampler, n: int) -> FloatArray:
    found = np.asarray(sampler(n), dtype=np.float64)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != n or not np.isfinite(found).all():
        raise InvalidInput(
            f"empirical asked a sampler for {n} outcomes and got shape {found.shape}. Finite numbers of shape "
            f"({n}, n_values) are needed."
        )
    return found


def _discriminant(first: FloatArray, second: FloatArray, white: bool) -> FloatArray:
    """Direction that separates two samples best (LDA), pointing from the second to the first."""
    shift = first.mean(axis=0) - second.mean(axis=0)
    return shift if white else _precision(np.vstack([first - first.mean(axis=0), second - second.mean(axis=0)])) @ shift


def _precision(sample: FloatArray) -> FloatArray:
    """Inverse covariance, with a little added so that constant outcomes can be inverted."""
    covariance = np.atleast_2d(np.cov(sample, rowvar=False))
    diagonal = np.diag(covariance)
    floor = 1e-9 * max(float(diagonal.max(initial=0.0)), 1e-300)
    return np.asarray(np.linalg.inv(covariance + np.diag(1e-6 * diagonal + floor)))
