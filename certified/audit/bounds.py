"""What counts of right and wrong guesses prove about epsilon and mu: lower bounds, from numpy and scipy alone.

A test tries to tell two worlds apart: *positive* runs (the model that unlearned) from *negative* ones (the refit). With
``fp`` of ``negatives`` and ``fn`` of ``positives`` guessed wrong, the bounds below hold with probability at least
``1 - alpha``, whatever the two worlds are, if the rule that guesses was fixed before these runs were seen. They never
say that a claim holds: only a proof can.

References
----------
Clopper, Pearson (1934), "The use of confidence or fiducial limits illustrated in the case of the binomial".
Nasr et al. (2023), "Tight auditing of differentially private machine learning".
Steinke, Nasr, Jagielski (2023), "Privacy auditing with one (1) training run".
Mahloujifar, Melis, Chaudhuri (2024), "Auditing f-differential privacy in one run".
Zanella-Béguelin et al. (2023), "Bayesian estimation of differential privacy".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import betaincinv, expit, ndtr, ndtri
from scipy.stats import beta, binom

from certified.errors import InvalidInput

__all__ = [
    "clopper_pearson_upper",
    "credible_epsilon",
    "detectable_mu",
    "epsilon_lower",
    "epsilon_point",
    "mu_lower",
    "one_run_epsilon",
    "one_run_mu",
    "one_run_pvalue",
    "runs_needed",
]


def clopper_pearson_upper(errors: int, trials: int, alpha: float = 0.05) -> float:
    """Return an upper bound of an error rate that holds with probability at least ``1 - alpha``.

    Parameters
    ----------
    errors, trials : int
        ``0 <= errors <= trials``; without a trial nothing is known, and the bound is 1.
    alpha : float in (0, 1)

    Examples
    --------
    >>> round(clopper_pearson_upper(0, 100, 0.05), 4)
    0.0295
    """
    _counts("clopper_pearson_upper(errors, trials)", errors, trials)
    _level(alpha)
    return 1.0 if errors == trials else float(betaincinv(errors + 1, trials - errors, 1.0 - alpha))


def epsilon_point(fpr: float, fnr: float, delta: float = 0.0) -> float:
    """Return the smallest epsilon that these error rates allow, as if they were known exactly.

    An estimate, not a bound: on samples of identical worlds it is above 0.

    Examples
    --------
    >>> round(epsilon_point(0.1, 0.2), 4)
    2.0794
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = [_log((1.0 - delta - b), a) for a, b in ((fnr, fpr), (fpr, fnr))]
    return max(0.0, *logs)


def epsilon_lower(fp: int, negatives: int, fn: int, positives: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Return epsilon_lo: with probability at least ``1 - alpha`` no (epsilon, delta) claim below it is true.

    Each rate gets an upper Clopper-Pearson bound at ``alpha / 2``.

    Examples
    --------
    >>> round(epsilon_lower(0, 512, 0, 512, delta=1e-5), 3)
    4.929
    """
    _level(alpha)
    high_fp = clopper_pearson_upper(fp, negatives, alpha / 2)
    high_fn = clopper_pearson_upper(fn, positives, alpha / 2)
    return epsilon_point(high_fp, high_fn, delta)


def mu_lower(fp: int, negatives: int, fn: int, positives: int, alpha: float = 0.05) -> float:
    """Return mu_lo: with probability at least ``1 - alpha`` no mu-GDP claim below it is true.

    A trade-off curve that is Gaussian allows ``mu >= Phi^-1(1 - FPR) - Phi^-1(FNR)``. The difference is cut off at 0
    and never taken absolute: a rule that guesses worse than chance proves nothing. The other direction is a rule of
    its own and needs its own share of alpha.

    Examples
    --------
    >>> round(mu_lower(200, 1000, 200, 1000), 3)
    1.503
    >>> mu_lower(800, 1000, 800, 1000)
    0.0
    """
    _level(alpha)
    high_fp = clopper_pearson_upper(fp, negatives, alpha / 2)
    high_fn = clopper_pearson_upper(fn, positives, alpha / 2)
    return max(0.0, float(ndtri(1.0 - high_fp) - ndtri(high_fn)))


def one_run_pvalue(canaries: int, guesses: int, correct: int, epsilon: float, delta: float = 0.0) -> float:
    """Return the largest probability of so many correct guesses under (epsilon, delta)-DP, from a single run.

    Each of `canaries` records was in or out by a fair coin; about `guesses` of them the auditor guessed which.

    Notes
    -----
    With W binomial(guesses, 1/(1 + e^-epsilon)) and b = P[W >= correct], the value is at most
    ``b + 2 canaries delta max_i P[correct - i <= W < correct] / i`` (Steinke et al. 2023, theorem 5.2).

    Examples
    --------
    >>> one_run_pvalue(1000, 100, 65, epsilon=0.1) < 0.05 < one_run_pvalue(1000, 100, 65, epsilon=0.5)
    True
    """
    _counts("one_run_pvalue(canaries, guesses, correct)", correct, guesses, canaries)
    rate = float(expit(epsilon))
    base = float(binom.sf(correct - 1, guesses, rate))
    if delta <= 0.0 or correct == 0:
        return min(1.0, base)
    i = np.arange(1, correct + 1)
    slack = float(np.max(np.cumsum(binom.pmf(correct - i, guesses, rate)) / i))
    return min(1.0, base + 2.0 * canaries * delta * max(slack, 0.0))


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float = 0.0, alpha: float = 0.05) -> float:
    """Return the largest epsilon that one run refutes at level alpha; 0 if none.

    For a claim of unlearning about a whole batch (a canary is trained and deleted, or was never there) two worlds
    differ by *two* releases of a refit's distance: refute (epsilon, delta) only if this, at ``(1 + e^epsilon) delta``,
    exceeds ``2 epsilon``.
    """
    _level(alpha)
    return _largest(lambda epsilon: one_run_pvalue(canaries, guesses, correct, epsilon, delta) <= alpha)


def one_run_mu(canaries: int, guesses: int, correct: int, alpha: float = 0.05) -> float:
    """Return the largest mu of Gaussian DP that one run refutes at level alpha; 0 if none (Mahloujifar et al. 2024).

    For a claim of unlearning about a batch, refute mu only if this exceeds ``2 mu``.
    """
    _counts("one_run_mu(canaries, guesses, correct)", correct, guesses, canaries)
    _level(alpha)
    return _largest(lambda mu: _gaussian_recursion(canaries, guesses, correct, mu, alpha) > guesses / canaries)


def _gaussian_recursion(canaries: int, guesses: int, correct: int, mu: float, alpha: float) -> float:
    right, wrong = alpha * correct / canaries, alpha * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        more = max(wrong, float(ndtr(ndtri(right) - mu)))
        if more == wrong:  # then neither changes any more
            break
        right = min(1.0, right + i / (guesses - i) * (more - wrong))
        wrong = more
    return right + wrong


def credible_epsilon(
    fp: int, negatives: int, fn: int, positives: int, delta: float = 0.0, alpha: float = 0.1, points: int = 20_000
) -> tuple[float, float]:
    """Return an equal-tailed credible interval of epsilon (Zanella-Béguelin et al. 2023).

    Bayesian, with Jeffreys priors on both rates: its lower end is larger than that of :func:`epsilon_lower` and its
    error rate is not bounded for every pair of worlds. For verdicts use :func:`epsilon_lower`.

    Parameters
    ----------
    fp, negatives, fn, positives : int
    delta : float
    alpha : float
        Probability left outside, half on each side.
    points : int
        Quantiles over which the false negative rate is averaged.
    """
    _counts("credible_epsilon", fp, negatives)
    _counts("credible_epsilon", fn, positives)
    _level(alpha)
    x = betaincinv(0.5 + fn, 0.5 + positives - fn, (np.arange(points) + 0.5) / points)
    law = beta(0.5 + fp, 0.5 + negatives - fp)

    def inside(epsilon: float) -> float:
        grow, shrink = np.exp(epsilon), np.exp(-epsilon)
        low = np.maximum(0.0, np.maximum(1 - delta - x * grow, (1 - delta - x) * shrink))
        high = np.minimum(1.0, np.minimum(1 + (delta - x) * shrink, delta + (1 - x) * grow))
        return float(np.mean(law.cdf(high) - law.cdf(low)))

    return _largest(lambda e: inside(e) <= alpha / 2), _largest(lambda e: inside(e) <= 1 - alpha / 2)


def runs_needed(mu: float, claim: float = 0.0, alpha: float = 0.05, power: float = 0.9) -> int:
    """Return how many runs per side the best test needs to refute `claim` where the truth is `mu`.

    The runs are projected on the direction in which the two worlds differ, and the noise is known:
    ``N = 2 (z_{1-alpha} + z_power)^2 / (mu - claim)^2``.

    Examples
    --------
    >>> runs_needed(0.2681)
    239
    """
    if not mu > claim >= 0.0:
        raise InvalidInput(f"runs_needed got mu={mu!r} and claim={claim!r}. mu > claim >= 0 is needed.")
    return int(np.ceil(2.0 * ((ndtri(1 - alpha) + ndtri(power)) / (mu - claim)) ** 2))


def detectable_mu(runs: int, claim: float = 0.0, alpha: float = 0.05, power: float = 0.9) -> float:
    """Return the smallest mu that `runs` per side refute `claim` with, with the given power: the inverse of
    :func:`runs_needed`.

    Examples
    --------
    >>> round(detectable_mu(16195), 4)
    0.0325
    """
    return claim + float(ndtri(1 - alpha) + ndtri(power)) * float(np.sqrt(2.0 / runs)) if runs else np.inf


def _largest(refuted: Callable[[float], bool]) -> float:
    """Return the largest value of a monotone test that is seen refuted, to 1e-9; 0 if 0 is not."""
    if not refuted(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while refuted(high):
        low, high = high, 2.0 * high
        if high > 1e3:
            return low
    while high - low > 1e-9 * max(1.0, high):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return low


def _log(numerator: float, denominator: float) -> float:
    if numerator <= 0.0:
        return 0.0
    return float(np.log(numerator / denominator)) if denominator > 0.0 else np.inf


def _counts(call: str, *rising: int) -> None:
    if any(int(n) != n or n < 0 for n in rising) or list(rising) != sorted(rising):
        raise InvalidInput(f"{call} got the counts {rising}. Whole numbers >= 0 that do not fall are needed.")


def _level(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise InvalidInput(f"alpha={alpha!r} is not allowed: a number in (0, 1) is needed.")
