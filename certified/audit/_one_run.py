"""One run with many canaries: weak, but it needs a single model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certified.accounting import epsilon_of
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, AuditResult
from certified.audit.bounds import one_run_epsilon, one_run_mu
from certified.errors import InvalidInput

__all__ = ["OneRun", "one_run"]


@dataclass(frozen=True, eq=False)
class OneRun(AuditResult):
    """Lower bounds from canaries in a single model.

    Parameters
    ----------
    verdict, reason
        See :class:`AuditResult`. Never NOT REFUTED without a detectable effect below the claim.
    canaries, guesses, correct : int
    alpha, delta, claim : float
        ``claim`` is mu, of the whole batch of canaries together.
    mu_lower, epsilon_lower : float
        Of the inclusion of one canary; a claim of unlearning about the batch allows twice its mu.
    detectable : float
        mu of the claim that all guesses right would refute.
    """

    canaries: int
    guesses: int
    correct: int
    alpha: float
    delta: float
    claim: float
    mu_lower: float
    epsilon_lower: float
    detectable: float


def one_run(
    scores: Any, included: Any, guesses: int, *, claim: float = 0.0, delta: float = 1e-5, alpha: float = 0.05
) -> OneRun:
    """Guess which canaries had been trained (and deleted again) from the scores of a single model.

    Parameters
    ----------
    scores : array of shape (n_canaries,)
        High where the canary seems to have been in.
    included : bool array of shape (n_canaries,)
        By a fair coin each, before training: trained and then deleted, or never there.
    guesses : int
        The highest half of them are guessed in, the lowest half out; about the rest nothing is said. Fixed in advance.
    claim : float
        mu of the certificate for the deletion of all canaries that were in.
    delta, alpha : float

    Notes
    -----
    Let P_S be the release where the canaries S were in and are deleted, Q that of a refit without any. The claim says
    that each P_S is within mu of Q, so P_S and P_S' are within 2 mu of each other (group privacy): the release is 2
    mu-GDP in each coin. That is refuted only where the bound exceeds 2 mu.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coin = rng.random(1000) < 0.5
    >>> one_run(rng.normal(size=1000) + 3.0 * coin, coin, guesses=200).verdict
    'REFUTED'
    """
    scores, included = np.asarray(scores, dtype=np.float64), np.asarray(included, dtype=bool)
    n, each = len(scores), guesses // 2
    if scores.shape != included.shape or scores.ndim != 1 or not 0 < 2 * each <= n:
        raise InvalidInput(
            f"one_run got scores of shape {scores.shape}, included of shape {included.shape} and {guesses} guesses. "
            "One of each per canary, and between 2 guesses and one per canary, are needed."
        )
    order = np.argsort(scores, kind="stable")
    correct = int(np.count_nonzero(included[order[-each:]]) + np.count_nonzero(~included[order[:each]]))
    mu = one_run_mu(n, 2 * each, correct, alpha)
    best = one_run_mu(n, 2 * each, 2 * each, alpha) / 2
    allowed = epsilon_of(claim, delta)
    grown = min(1.0, delta * (1.0 + float(np.exp(min(allowed, 700.0)))))
    epsilon = one_run_epsilon(n, 2 * each, correct, grown, alpha)
    if mu > 2 * claim or epsilon > 2 * allowed:
        verdict, reason = REFUTED, f"{correct} of {2 * each} guesses are right: mu of one canary is at least {mu:.3g}."
    elif best > claim:
        verdict, reason = NOT_REFUTED, f"{correct} of {2 * each} guesses are right, which the claim allows."
    else:
        verdict, reason = INCONCLUSIVE, "Even if all guesses were right, the claim would not be refuted."
    return OneRun(verdict, reason, n, 2 * each, correct, alpha, delta, claim, mu, epsilon, best)
