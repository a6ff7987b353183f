"""The true distance between a release after deletions and that of a refit: both laws are known, nothing is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certified.accounting import delta_of
from certified.audit._models import private_parameter, refit, release_factor
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, AuditResult
from certified.audit._state import state_equal
from certified.typing import FloatArray

__all__ = ["EPSILONS", "ExactGap", "exact_gap", "gaussian_mu"]

EPSILONS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class ExactGap(AuditResult):
    """True distance of a release after deletions to that of a refit.

    Parameters
    ----------
    verdict, reason
        See :class:`AuditResult`.
    claim : str
        Of the certificate.
    mu : float
        Between the two releases: infinite where they differ and nothing hides it.
    mu_certified : float
    distance, distance_certified : float
        In standard errors: measured, and as the certificate bounds it.
    distance_error : float
        How far the refit may be from the minimiser: the measured distance is right up to this.
    slack : float
        Certified over measured distance; NaN where the measured one is within its error.
    sigma : float
    differing : tuple of str
        Parts that must be bit for bit those of a refit and are not.
    epsilons, deltas : tuple of float
        The true curve delta(epsilon) of this pair of releases.
    """

    claim: str
    mu: float
    mu_certified: float
    distance: float
    distance_certified: float
    distance_error: float
    slack: float
    sigma: float
    differing: tuple[str, ...]
    epsilons: tuple[float, ...]
    deltas: tuple[float, ...]


def gaussian_mu(first: FloatArray, second: FloatArray, factor: FloatArray, sigma: float) -> float:
    """Return mu between ``N(first, sigma^2 (L L')^-1)`` and the same law around `second`: exact, no bound.

    The likelihood ratio of two Gaussians of one covariance is a function of one coordinate, along which they are
    ``||L'(first - second)|| / sigma`` standard deviations apart.

    Examples
    --------
    >>> gaussian_mu(np.array([3.0, 0.0]), np.array([0.0, 4.0]), np.eye(2), sigma=10.0)
    0.5
    """
    distance = float(np.linalg.norm(factor.T @ (np.asarray(first) - np.asarray(second))))
    if sigma == 0.0:
        return np.inf if distance > 0.0 else 0.0
    return distance / sigma


def exact_gap(
    model: Any, X_retained: Any, y_retained: Any, ids: Any = None, *, recipe: Any = None, **fit: Any
) -> ExactGap:
    """Refit on the retained rows, tightly, and return the true mu between the two releases.

    REFUTED if the parameter is farther from the refit's than the certificate allows, or if anything that has to be bit
    for bit a refit's (an exact model, a transformer, the metric of the noise) is not.

    Parameters
    ----------
    model : fitted keeper after deletions
    X_retained, y_retained : array-like
        The rows that it should still know, in any order.
    ids : array-like or None
        Their subjects. Needed where the model depends on them (samples by hash, folds).
    recipe : estimator or None
        What to refit with. None: a clone of the model. A fault that fitting and deletion share, such as a state in
        single precision, is seen only with a recipe that does not have it.
    **fit
        Other arguments of ``fit``, such as ``sample_weight``.

    Notes
    -----
    With ``d`` the distance to the refit and ``e`` the refit's own certified distance to the minimiser, the distance
    that the certificate is about lies in ``[d - e, d + e]``. It is refuted only if ``d - e`` exceeds it.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = X / X.std(axis=0)
    >>> model = LogisticRegression().fit(X, y)
    >>> _ = model.delete([3, 5])
    >>> gap = exact_gap(model, X[model.ids_], y[model.ids_])
    >>> gap.verdict, gap.mu < gap.mu_certified
    ('NOT REFUTED', True)
    """
    fresh = refit(model if recipe is None else recipe, X_retained, y_retained, ids, **fit)
    certificate = model.certificate_
    state = state_equal(model, fresh)
    if certificate.claim != "exact" and hasattr(model, "best_estimator_"):
        reason = "A choice among noisy models is random; audit the candidates one by one, or the whole by `empirical`."
        return _gap(INCONCLUSIVE, reason, np.nan, np.nan, np.nan, _common(certificate, ()))
    measured = _measured(model, fresh)
    sigma = certificate.sigma
    common = _common(certificate, state.differing)
    if certificate.claim == "exact" or state.differing or measured is None:
        verdict, reason = state.verdict, state.reason
        distance = np.nan if measured is None else measured[0]
        if measured is None and not state.differing and certificate.claim != "exact":
            verdict, reason = INCONCLUSIVE, "The model has no parameter vector to compare; use `empirical`."
            return _gap(verdict, reason, np.nan, np.nan, np.nan, common)
        mu = 0.0 if state.equal else np.inf
        return _gap(verdict, reason, mu, distance, 0.0, common)
    distance, error = measured
    mu = distance / sigma if sigma > 0 else (np.inf if distance > 0 else 0.0)
    if certificate.claim == "none":
        return _gap(INCONCLUSIVE, "The certificate claims nothing.", mu, distance, error, common)
    if not distance - error <= certificate.distance_bound:
        reason = (
            f"The parameter is {distance:.3g} standard errors from the refit's; the certificate allows "
            f"{certificate.distance_bound:.3g}."
        )
        return _gap(REFUTED, reason, mu, distance, error, common)
    return _gap(NOT_REFUTED, "The parameter is within the certified distance.", mu, distance, error, common)


def _common(certificate: Any, differing: tuple[str, ...]) -> dict[str, Any]:
    return {
        "claim": certificate.claim,
        "mu_certified": certificate.mu,
        "distance_certified": certificate.distance_bound,
        "sigma": certificate.sigma,
        "differing": differing,
    }


def _measured(model: Any, fresh: Any) -> tuple[float, float] | None:
    """Distance of the parameters in the refit's metric and the refit's own error; None where they do not compare."""
    if not (hasattr(model, "private_coef_") and hasattr(fresh, "noise_metric_")):
        return None
    ours, theirs = private_parameter(model), private_parameter(fresh)
    if ours.shape != theirs.shape:
        return None
    distance = gaussian_mu(ours, theirs, release_factor(fresh), 1.0)
    return distance, float(fresh.certificate_.distance_bound)


def _gap(verdict: str, reason: str, mu: float, distance: float, error: float, common: dict[str, Any]) -> ExactGap:
    bound = common["distance_certified"]
    clear = np.isfinite(distance) and distance > 2.0 * error
    deltas = tuple(np.nan if np.isnan(mu) else delta_of(epsilon, mu) for epsilon in EPSILONS)
    return ExactGap(
        verdict,
        reason,
        mu=float(mu),
        distance=float(distance),
        distance_error=float(error),
        slack=float(bound / distance) if clear and bound > 0 else np.nan,
        epsilons=EPSILONS,
        deltas=deltas,
        **common,
    )
