"""What a deletion did to the quality of a model, beside what a refit would have done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from certified.audit._membership import auc
from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, AuditResult
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Utility", "calibration_error", "group_gaps", "metrics", "psi", "utility"]

_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Utility(AuditResult):
    """Quality on unseen rows, before and after a deletion and after a refit.

    Parameters
    ----------
    verdict, reason
        Of the statement that no metric is worse than the refit's by more than `tolerance`.
    rows : int
    tolerance : float
    before, after, refit : mapping of str to float
        Metrics; ``refit`` is empty if none was given.
    change : mapping of str to float
        After less before.
    gap : mapping of str to float
        After less the refit.
    worst : str
        Metric that lost most against the refit (against before, without a refit), on the scale of the tolerance.
    psi : float
        Population stability index of the predictions, after against before: below 0.1 counts as stable.
    flipped : float
        Share of predictions that differ: other classes, or numbers that moved by over 1 percent of their spread.
    """

    rows: int
    tolerance: float
    before: dict[str, float]
    after: dict[str, float]
    refit: dict[str, float]
    change: dict[str, float]
    gap: dict[str, float]
    worst: str
    psi: float
    flipped: float


def utility(
    before: Any, after: Any, X: Any, y: Any, *, refit: Any = None, groups: Any = None, tolerance: float = 0.01
) -> Utility:
    """Compare the quality of three models on unseen rows.

    Parameters
    ----------
    before, after : fitted models
    X, y : array-like
        Rows that none of them has seen.
    refit : fitted model or None
        A refit without the deleted rows, the fair comparison: data that left may have been worth something.
    groups : array-like of shape (n_rows,) or None
        Labels, for differences between groups.
    tolerance : float
        Loss of a metric that counts as harm; errors on the scale of y are divided by its standard deviation.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = Ridge(alpha=0.1).fit(X[:300], y[:300])
    >>> before = model.release()
    >>> _ = model.delete(range(30))
    >>> found = utility(before, model.release(), X[300:], y[300:], refit=Ridge(alpha=0.1).fit(X[30:300], y[30:300]))
    >>> found.verdict, found.gap["rmse"]
    ('NOT REFUTED', 0.0)
    """
    y = np.asarray(y)
    tables = [{} if model is None else metrics(model, X, y, groups) for model in (before, after, refit)]
    was, now, fresh = tables
    change = {name: now[name] - was[name] for name in now}
    gap = {name: now[name] - fresh[name] for name in fresh}
    scale = 1.0 if is_classifier(after) else float(np.std(y.astype(np.float64))) or 1.0
    losses = {
        name: _worse(name, value) / (scale if name in ("rmse", "mae") else 1.0)
        for name, value in (gap or change).items()
    }
    known = {name: value for name, value in losses.items() if np.isfinite(value)}
    worst = max(known, key=lambda name: known[name], default="")
    harm = known.get(worst, np.nan)
    against = "a refit" if fresh else "the model before"
    if harm > tolerance:
        verdict, reason = REFUTED, f"{worst} is worse than that of {against} by {harm:.3g}; {tolerance:g} is tolerated."
    elif np.isnan(harm):
        verdict, reason = INCONCLUSIVE, "No metric is defined on these rows."
    else:
        verdict, reason = NOT_REFUTED, f"No metric is worse than that of {against} by more than {tolerance:g}."
    served, new = _served(before, X), _served(after, X)
    return Utility(
        verdict,
        reason,
        rows=len(y),
        tolerance=tolerance,
        before=was,
        after=now,
        refit=fresh,
        change=change,
        gap=gap,
        worst=worst,
        psi=psi(served, new),
        flipped=_flipped(before, after, X),
    )


def metrics(model: Any, X: Any, y: Any, groups: Any = None) -> dict[str, float]:
    """Return the metrics of one model: for classifiers accuracy, log loss, Brier score, calibration error and, with two
    classes, AUC; for regressors RMSE, MAE and R2; with groups the largest differences between them.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    >>> round(metrics(model, [[0.0], [2.0]], [0.0, 3.0])["mae"], 6)
    0.5
    """
    y = np.asarray(y)
    predicted = np.asarray(model.predict(X))
    if not is_classifier(model):
        error = predicted - y.astype(np.float64)
        total = float(np.sum((y - y.mean()) ** 2))
        out = {
            "rmse": float(np.sqrt(np.mean(error**2))),
            "mae": float(np.mean(np.abs(error))),
            "r2": 1.0 - float(np.sum(error**2)) / total if total > 0 else np.nan,
        }
        if groups is not None:
            out["group_rmse_gap"] = _gap([float(np.sqrt(np.mean(error[g] ** 2))) for g in _masks(groups, len(y))])
        return out
    right = predicted == y
    out = {"accuracy": float(np.mean(right))}
    if hasattr(model, "predict_proba"):
        p = np.asarray(model.predict_proba(X), dtype=np.float64)
        truth = (y[:, None] == np.asarray(model.classes_)).astype(np.float64)
        mine = np.sum(p * truth, axis=1)
        out["log_loss"] = float(-np.mean(np.log(np.maximum(mine, _TINY))))
        out["brier"] = float(np.mean(np.sum((p - truth) ** 2, axis=1)) / (2.0 if p.shape[1] == 2 else 1.0))
        out["calibration"] = calibration_error(p.max(axis=1), right)
        if p.shape[1] == 2:
            out["auc"] = auc(p[:, 1], truth[:, 1] == 1)
    if groups is not None:
        positive = predicted == model.classes_[-1]
        out |= group_gaps(positive, y == model.classes_[-1], groups)
    return out


def group_gaps(predicted: Any, truth: Any, groups: Any) -> dict[str, float]:
    """Return the largest differences between groups, for a positive class.

    ``parity_gap`` of the rate of positive predictions, ``odds_gap`` the larger of those of true and false positive
    rates, ``group_accuracy`` the lowest accuracy of a group.

    Examples
    --------
    >>> group_gaps([True, True, False, False], [True, False, True, False], ["a", "a", "b", "b"])
    {'parity_gap': 1.0, 'odds_gap': 1.0, 'group_accuracy': 0.5}
    """
    p, t = np.asarray(predicted, dtype=bool), np.asarray(truth, dtype=bool)
    masks = _masks(groups, len(p))
    rates = [[_rate(p[g & side]) for g in masks] for side in (np.ones(len(p), dtype=bool), t, ~t)]
    return {
        "parity_gap": _gap(rates[0]),
        "odds_gap": float(np.nanmax([_gap(rates[1]), _gap(rates[2])])),
        "group_accuracy": float(min(np.mean(p[g] == t[g]) for g in masks)),
    }


def calibration_error(confidence: Any, right: Any, bins: int = 10) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy over bins of equal width.

    Examples
    --------
    >>> calibration_error([0.75, 0.75, 0.75, 0.75], [True, True, True, False])
    0.0
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = np.bincount(place, confidence - right, minlength=bins)
    return float(np.sum(np.abs(sums)) / len(confidence))


def psi(before: Any, after: Any, bins: int = 10) -> float:
    """Return the population stability index of two samples, over the deciles of the first.

    Examples
    --------
    >>> psi(range(100), range(100))
    0.0
    """
    a, b = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    cuts = np.unique(np.quantile(a, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for x in (a, b):
        counts = np.bincount(np.searchsorted(cuts, x, side="right"), minlength=len(cuts) + 1)
        shares.append((counts + 0.5) / (len(x) + 0.5 * len(counts)))
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def _worse(name: str, change: float) -> float:
    return -change if name in ("accuracy", "auc", "r2", "group_accuracy") else change


def _served(model: Any, X: Any) -> FloatArray:
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(X), dtype=np.float64)[:, -1]
    predicted = np.asarray(model.predict(X))
    if predicted.dtype.kind in "OUS":
        predicted = np.searchsorted(model.classes_, predicted)
    return np.ravel(predicted).astype(np.float64)


def _flipped(before: Any, after: Any, X: Any) -> float:
    old, new = np.asarray(before.predict(X)), np.asarray(after.predict(X))
    if is_classifier(after):
        return float(np.mean(old != new))
    return float(np.mean(np.abs(new - old) > 0.01 * (float(np.std(old)) or 1.0)))


def _masks(groups: Any, n: int) -> list[Any]:
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InvalidInput(f"groups of shape {labels.shape} were given for {n} rows. One label per row is needed.")
    return [labels == label for label in np.unique(labels)]


def _rate(values: Any) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _gap(rates: list[float]) -> float:
    known = [r for r in rates if not np.isnan(r)]
    return max(known) - min(known) if known else np.nan
