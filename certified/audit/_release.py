"""One published model and the retained rows, no secret: is it a release of a refit, with the noise that was promised?

In whitened coordinates ``u = L'(theta - w_retained) / sigma`` a release of a refit is exactly N(0, I). A release to
which nothing was done is N(d, I), with ``d = L'(w_all - w_retained) / sigma``. So the most powerful test that nothing
was removed is ``z = <u, d> / ||d||``, which is N(0, 1) in the one world and N(||d||, 1) in the other (Neyman-Pearson).
The length of u has a chi-square law: too long and too short both speak against the certificate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import chi2, ncx2, norm

from certified.accounting import mu_of
from certified.audit._models import features, final, parameter, private_parameter, refit, release_factor, steps
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, SAMPLE, AuditResult
from certified.audit.bounds import _level
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["ReleaseTest", "release_test", "whitened_test"]


@dataclass(frozen=True, eq=False)
class ReleaseTest(AuditResult):
    """Whether releases are consistent with a refit at the certified noise.

    Parameters
    ----------
    verdict, reason
        See :class:`AuditResult`. INCONCLUSIVE: a release to which nothing was done would have passed too.
    n_releases, n_parameters : int
    alpha : float
        Probability that a correct model is refuted, over all tests together.
    mu : float
        Allowed by the certificate: the null hypothesis is a release within it of a refit's.
    p_length : float
        Chi-square of all whitened releases, two-sided. Noise of the wrong size, or a state that is far off.
    p_spread : float
        Chi-square of the releases around their mean, two-sided: noise of the wrong size, or noise used twice. NaN for a
        single release.
    z, p_direction : float
        Along the influence of the deleted rows; NaN without them.
    effect : float
        Mean of z if nothing was removed: ``sqrt(n_releases) ||d||``.
    power : float
        Probability that the directional test refutes a model that removed nothing.
    detectable : float
        Length of d from which the power is 0.9.
    whitened : array of shape (n_releases, n_parameters)
        For plots.
    """

    n_releases: int
    n_parameters: int
    alpha: float
    mu: float
    p_length: float
    p_spread: float
    z: float
    p_direction: float
    effect: float
    power: float
    detectable: float
    whitened: FloatArray = field(repr=False, metadata=SAMPLE)


def release_test(
    published: Any,
    recipe: Any,
    X_retained: Any,
    y_retained: Any,
    *,
    ids: Any = None,
    X_deleted: Any = None,
    y_deleted: Any = None,
    mu: float | None = None,
    alpha: float = 0.05,
    power: float = 0.5,
    **fit: Any,
) -> ReleaseTest:
    """Test whether a published model is a release of a refit on the retained rows.

    Parameters
    ----------
    published : fitted scikit-learn model or list of them
        What ``release()`` gave: a linear model or a pipeline that ends in one. Several must be fresh releases of the
        same state; k of them see effects that are ``sqrt(k)`` times smaller.
    recipe : estimator
        Of this package, with the parameters that were used; it is cloned, and its ``noise`` is the noise promised.
    X_kept, y_kept, ids, **fit
        The retained rows, and other arguments of ``fit``.
    X_deleted, y_deleted : array-like or None
        The deleted rows, for the directional test.
    mu : float or None
        What the certificate allows. None: what the recipe's epsilon and delta promise; 0 for exact models.
    alpha : float
        Error rate of all tests together (Bonferroni).
    power : float
        Without it against a model that removed nothing, the verdict is INCONCLUSIVE.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X, gone = X / X.std(axis=0), range(200)
    >>> model = LogisticRegression().fit(X, y)
    >>> nothing_removed = model.release()
    >>> test = release_test(nothing_removed, model, X[200:], y[200:], X_deleted=X[:200], y_deleted=y[:200])
    >>> test.verdict
    'REFUTED'
    """
    releases = list(published) if isinstance(published, list | tuple) else [published]
    fresh = refit(recipe, X_retained, y_retained, ids, **fit)
    if len(steps(fresh)) > 1:
        wrong = _other_features(releases, fresh.release(), X_retained)
        if wrong:
            return _refuted_outright(wrong, len(releases), alpha)
    w, factor, sigma = private_parameter(fresh), release_factor(fresh), float(fresh.certificate_.sigma)
    theta = np.array([parameter(model, len(w)) for model in releases])
    if theta.shape[1] != len(w):
        return _refuted_outright("The number of features is not that of a refit.", len(releases), alpha)
    if sigma == 0.0:
        if fresh.certificate_.claim != "exact":
            raise InvalidInput("release_test got a recipe with noise=0, whose releases carry no promise to be tested.")
        if np.all(theta == w):
            return _settled(NOT_REFUTED, "The parameters are bit for bit those of a refit.", len(releases), alpha)
        return _refuted_outright(
            "The parameters are not those of a refit, and no noise hides it.", len(releases), alpha
        )
    direction = None
    if X_deleted is not None:
        direction = _influence(fresh, w, factor, sigma, (X_retained, y_retained), (X_deleted, y_deleted))
    allowed = _promise(fresh) if mu is None else float(mu)
    return whitened_test(((theta - w) @ factor) / sigma, direction, mu=allowed, alpha=alpha, power=power)


def whitened_test(
    whitened: Any, direction: Any = None, *, mu: float = 0.0, alpha: float = 0.05, power: float = 0.5
) -> ReleaseTest:
    """Test releases that are whitened already; see :func:`release_test`.

    Parameters
    ----------
    whitened : array of shape (n_releases, p)
        ``L'(theta - w_retained) / sigma``, each N(0, I) for a refit and N(shift, I), ``||shift|| <= mu``, under the
        claim.
    direction : array of shape (p,) or None
        ``L'(w_all - w_retained) / sigma``.
    mu, alpha, power : float
        As in :func:`release_test`.
    """
    _level(alpha)
    u = np.atleast_2d(np.asarray(whitened, dtype=np.float64))
    k, p = u.shape
    tests: dict[str, float] = {}
    # Under the claim the length is a noncentral chi-square with noncentrality at most k mu^2: safe on either side.
    length = float(np.sum(u * u))
    upper = float(ncx2.sf(length, k * p, k * mu * mu)) if mu > 0 else float(chi2.sf(length, k * p))
    tests["length"] = min(1.0, 2.0 * min(upper, float(chi2.cdf(length, k * p))))
    if k > 1:
        around = float(np.sum((u - u.mean(axis=0)) ** 2))
        tests["spread"] = 2.0 * min(float(f(around, (k - 1) * p)) for f in (chi2.sf, chi2.cdf))
    z = effect = strength = np.nan
    share = alpha / (len(tests) + (direction is not None))
    critical = float(ndtri(1.0 - share)) + np.sqrt(k) * mu
    if direction is not None:
        size = float(np.linalg.norm(direction))
        if size > 0.0:
            z = float(np.sqrt(k) * u.mean(axis=0) @ np.asarray(direction)) / size
            tests["direction"] = float(norm.sf(z - np.sqrt(k) * mu))
        effect = float(np.sqrt(k)) * size
        strength = float(norm.sf(critical - effect))
    failed = [name for name, value in tests.items() if value < share]
    reasons = {
        "length": "the size of the noise, or the state, is not a refit's",
        "spread": "the noise is not fresh, or not of the promised size",
        "direction": "the release still points where the deleted rows pulled it",
    }
    if failed:
        verdict, reason = REFUTED, "; ".join(reasons[name] for name in failed).capitalize() + "."
    elif direction is None:
        verdict, reason = INCONCLUSIVE, "Size and spread of the noise are right; without deleted rows no more is seen."
    elif not strength >= power:
        verdict = INCONCLUSIVE
        reason = f"A model that removed nothing would be found with probability {strength:.2g} only."
    else:
        verdict, reason = NOT_REFUTED, "Consistent with a refit at the promised noise."
    return ReleaseTest(
        verdict,
        reason,
        n_releases=k,
        n_parameters=p,
        alpha=alpha,
        mu=mu,
        p_length=tests["length"],
        p_spread=tests.get("spread", np.nan),
        z=z,
        p_direction=tests.get("direction", np.nan),
        effect=effect,
        power=strength,
        detectable=float((critical + ndtri(0.9)) / np.sqrt(k)),
        whitened=u,
    )


def _promise(fresh: Any) -> float:
    head = final(fresh)
    if fresh.certificate_.claim == "exact" or not hasattr(head, "epsilon"):
        return 0.0
    return mu_of(head.epsilon, head.delta)


def _influence(
    fresh: Any, w: FloatArray, factor: FloatArray, sigma: float, retained: tuple[Any, Any], deleted: tuple[Any, Any]
) -> FloatArray:
    """Whitened shift of the parameter if the deleted rows had stayed, in the features of the refit."""
    steps_of = fresh.release()
    X = np.vstack([features(steps_of, part) for part in (retained[0], deleted[0])])
    y = np.concatenate([np.asarray(retained[1]), np.asarray(deleted[1])])
    everything = refit(final(fresh), X, y)
    return (private_parameter(everything) - w) @ factor / sigma


def _other_features(releases: list[Any], reference: Any, X: Any) -> str:
    """Say which step of a release does not transform the retained rows as the refit's does; empty if all do."""
    for release in releases:
        left, right = X, X
        for (name, ours), (_, theirs) in zip(steps(release)[:-1], steps(reference)[:-1], strict=False):
            left, right = (x if isinstance(s, str) else s.transform(x) for s, x in ((ours, left), (theirs, right)))
            if np.shape(left) != np.shape(right) or not np.array_equal(np.asarray(left), np.asarray(right)):
                return f"Step {name!r} does not transform the retained rows as that of a refit does."
    return ""


def _settled(verdict: str, reason: str, k: int, alpha: float) -> ReleaseTest:
    nan = np.nan
    return ReleaseTest(verdict, reason, k, 0, alpha, 0.0, nan, nan, nan, nan, nan, 1.0, 0.0, np.zeros((k, 0)))


def _refuted_outright(reason: str, k: int, alpha: float) -> ReleaseTest:
    return _settled(REFUTED, reason, k, alpha)
