"""Two releases, before and after a deletion: what somebody who holds both can rebuild of the deleted row.

The gradient of the deleted rows is ``H (w_after - w_before)``, with H the Hessian of the retained rows between the two
(Bertran et al. 2024), and for a generalised linear model the gradient of one row is a multiple of the row itself. With
an intercept the multiple is known: the last entry belongs to a feature that is 1. "Indistinguishable from a refit"
does not hide this; fresh noise does, and batches help a little.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.base import is_classifier

from certified.audit._models import features, final, parameter, private_parameter, refit
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, SAMPLE, AuditResult
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Differencing", "differencing"]


@dataclass(frozen=True, eq=False)
class Differencing(AuditResult):
    """What two releases tell about the rows that were deleted between them.

    Parameters
    ----------
    verdict, reason
        Of the statement that a deleted row cannot be picked out: REFUTED if an outsider or an insider ranks it first
        among the candidates.
    n_deleted : int
    n_candidates : int
        Rows among which the deleted one is looked for: those kept, and it.
    cosine_outsider, cosine_insider : float
        Between the rebuilt direction and the deleted row, both centred on the retained rows and scaled by their
        deviations; mean over the deleted rows.
    cosine_chance : float
        The same for a retained row, in the median.
    error_outsider, error_insider : float
        Largest error of a rebuilt feature, in standard deviations of the feature; NaN without an intercept.
    rank_outsider, rank_insider : int
        Place of the deleted row among the candidates by closeness to what was rebuilt, 1 is found.
    mu_outsider, mu_insider : float
        Stated in the receipt; NaN if none was given.
    rebuilt_outsider, rebuilt_insider : array of shape (n_features,)
        In units of the features, or a direction without an intercept.
    """

    n_deleted: int
    n_candidates: int
    cosine_outsider: float
    cosine_insider: float
    cosine_chance: float
    error_outsider: float
    error_insider: float
    rank_outsider: int
    rank_insider: int
    mu_outsider: float
    mu_insider: float
    rebuilt_outsider: FloatArray = field(repr=False, metadata=SAMPLE)
    rebuilt_insider: FloatArray = field(repr=False, metadata=SAMPLE)


def differencing(
    before: Any,
    after: Any,
    X_retained: Any,
    y_retained: Any,
    X_deleted: Any,
    *,
    X_public: Any = None,
    recipe: Any = None,
    receipt: Any = None,
    curvature: Callable[[FloatArray], FloatArray] | None = None,
) -> Differencing:
    """Rebuild the deleted row from two published linear models, as an outsider and as an insider.

    Parameters
    ----------
    before, after : fitted scikit-learn models
        Linear, with one output, or pipelines that end in one and whose features did not change.
    X_retained, y_retained : array-like
        Rows that stay: the candidates, and what an insider knows.
    X_deleted : array-like of shape (n_deleted, n_features)
        The truth that the attack is compared with.
    X_public : array-like or None
        Rows of the same kind that an outsider has, for the shape of the Hessian. None: the retained rows.
    recipe : estimator or None
        How the models were fitted. With it the insider refits on the retained rows and so removes the noise of the
        release after; without it the insider has the true Hessian only.
    receipt : Receipt or None
        Its ``mu_differencing`` is recorded beside what was measured.
    curvature : callable or None
        Second derivative of the loss as a function of the linear predictor. None: by the kind of model; logistic for
        classifiers, exponential for the log link, 1 otherwise.

    Raises
    ------
    InvalidInput
        The models have no single output, or their features differ.

    References
    ----------
    Bertran et al. (2024), "Reconstruction attacks on machine unlearning: simple models are vulnerable".
    """
    retained, gone = (np.asarray(features(after, X), dtype=np.float64) for X in (X_retained, X_deleted))
    theta_1, theta_2 = parameter(before), parameter(after)
    head = final(after)
    single = np.atleast_2d(head.coef_).shape[0] == 1
    if not single or len(theta_1) != len(theta_2) or not np.array_equal(features(before, X_retained), retained):
        raise InvalidInput(
            "differencing got models with several outputs or with different features. One output is needed, and a "
            "pipeline whose transformers did not change between the two releases."
        )
    bend = curvature or _curvature(head)
    public = retained if X_public is None else np.asarray(features(after, X_public), dtype=np.float64)
    share = len(retained) / len(public)
    outside = _gradient(head, public, theta_1, theta_2, bend, len(gone), share)
    last = theta_2
    if recipe is not None:
        last = _joined(theta_2, private_parameter(refit(final(recipe), retained, y_retained)))
    inside = _gradient(head, retained, theta_1, last, bend, len(gone))
    intercept = bool(getattr(head, "fit_intercept", True))
    scored = [_score(z, retained, gone, intercept) for z in (outside, inside)]
    (out_cos, out_error, out_rank, out_row), (in_cos, in_error, in_rank, in_row) = scored
    found = [name for name, rank in (("an outsider", out_rank), ("an insider", in_rank)) if rank == 1]
    mu = float(receipt.mu_differencing) if receipt is not None else np.nan
    if found:
        verdict = REFUTED
        reason = f"Among {len(retained) + 1} candidates {' and '.join(found)} picks out a deleted row."
    else:
        verdict = NOT_REFUTED if np.isfinite(mu) and mu < 1.0 else INCONCLUSIVE
        reason = "This attack does not pick out the deleted row; see mu for attacks that know more."
    return Differencing(
        verdict,
        reason,
        n_deleted=len(gone),
        n_candidates=len(retained) + 1,
        cosine_outsider=out_cos,
        cosine_insider=in_cos,
        cosine_chance=_chance(inside, retained, intercept),
        error_outsider=out_error,
        error_insider=in_error,
        rank_outsider=out_rank,
        rank_insider=in_rank,
        mu_outsider=mu / float(np.sqrt(2.0)),
        mu_insider=mu,
        rebuilt_outsider=out_row,
        rebuilt_insider=in_row,
    )


def _joined(theta: FloatArray, private: FloatArray) -> FloatArray:
    """Return the private parameter with a zero intercept where the published one has it and the private one has not."""
    return private if len(private) == len(theta) else np.append(private, 0.0)


def _curvature(head: Any) -> Callable[[FloatArray], FloatArray]:
    if is_classifier(head):
        return lambda z: expit(z) * expit(-z)
    if any(word in type(head).__name__ for word in ("Poisson", "Gamma", "Tweedie")):
        return np.exp
    return np.ones_like


def _penalty(head: Any, n_rows: float) -> float:
    """Curvature of the penalty on the scale of a sum over rows, by scikit-learn's parameters."""
    if hasattr(head, "C"):
        return 1.0 / float(head.C)
    alpha = float(np.mean(getattr(head, "alpha", 0.0)))
    return alpha if type(head).__name__ == "Ridge" else alpha * n_rows


def _gradient(
    head: Any, X: FloatArray, first: FloatArray, second: FloatArray, bend: Any, n_gone: int, share: float = 1.0
) -> FloatArray:
    """Gradient of the deleted rows at the first parameter: the mean Hessian of the retained rows times the change.

    Rows whose weight sets the strength of the penalty took a part of it with them, which is known and subtracted.
    """
    table = np.column_stack([X, np.ones(len(X))])
    nodes, weights = np.polynomial.legendre.leggauss(5)
    z_1, z_2 = table @ first, table @ second
    bent = sum(0.5 * w * bend(z_1 + 0.5 * (1 + t) * (z_2 - z_1)) for t, w in zip(nodes, weights, strict=True))
    change = second - first
    n_retained = share * len(X)
    penalised = np.append(np.ones(X.shape[1]), 0.0)
    found: FloatArray = share * (table.T @ (bent * (table @ change))) + _penalty(head, n_retained) * penalised * change
    found -= (_penalty(head, n_retained + n_gone) - _penalty(head, n_retained)) * penalised * first
    if not getattr(head, "fit_intercept", True):
        found[-1] = 0.0
    return found


def _row(z: FloatArray, intercept: bool) -> FloatArray:
    """The row that has this gradient: up to a factor without an intercept."""
    return z[:-1] / z[-1] if intercept and z[-1] != 0.0 else z[:-1]


def _score(
    z: FloatArray, retained: FloatArray, gone: FloatArray, intercept: bool
) -> tuple[float, float, int, FloatArray]:
    """Cosine, error, rank, and the row that was rebuilt."""
    row = _row(z, intercept)
    rows = np.vstack([gone, retained])
    cosines = _cosines(row, rows, retained, intercept)
    mine = cosines[: len(gone)]
    rank = int(min(1 + np.count_nonzero(cosines[len(gone) :] >= value) for value in mine))
    error = np.nan
    if intercept:
        best = gone[int(np.argmax(mine))]
        error = float(np.max(np.abs(row - best) / _scale(retained)))
    return float(np.mean(mine)), error, rank, row


def _chance(z: FloatArray, retained: FloatArray, intercept: bool) -> float:
    return float(np.median(_cosines(_row(z, intercept), retained, retained, intercept)))


def _scale(retained: FloatArray) -> FloatArray:
    deviation = retained.std(axis=0)
    return np.where(deviation > 0.0, deviation, 1.0)


def _cosines(row: FloatArray, rows: FloatArray, retained: FloatArray, intercept: bool) -> FloatArray:
    """Cosines after centring and scaling; without an intercept the sign is not known, and nothing can be centred."""
    centre = retained.mean(axis=0) if intercept else np.zeros(retained.shape[1])
    a, b = (row - centre) / _scale(retained), (rows - centre) / _scale(retained)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (b @ a) / (np.linalg.norm(b, axis=1) * np.linalg.norm(a))
    found = np.nan_to_num(found)
    return found if intercept else np.abs(found)
