"""Membership inference as a result: ROC, TPR at low FPR, bounds, per record and per group."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from certified.audit._result import INCONCLUSIVE, NOT_REFUTED, REFUTED, SAMPLE, AuditResult
from certified.audit.bounds import clopper_pearson_upper, epsilon_lower
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray

__all__ = ["Membership", "auc", "membership", "roc", "tpr_at"]


@dataclass(frozen=True, eq=False)
class Membership(AuditResult):
    """How well an attack tells records that were in from records that never were.

    Parameters
    ----------
    verdict, reason
        Of the statement "they cannot be told apart". NOT REFUTED needs a control in which the same attack succeeds.
    method : str
    members, others : int
        Decisions, over all target models.
    auc, p_value : float
        Area under the ROC curve, and the one-sided p-value of Mann and Whitney for 0.5.
    tpr_at_01_percent, tpr_at_1_percent : float
        True positive rate at these false positive rates.
    tpr_low : float
        Lower confidence bound of the true positive rate at 1 percent.
    epsilon_lower : float
        Pure epsilon of a record, from a threshold chosen on one half and counted on the other.
    auc_control : float
        Of the control; NaN without one.
    groups : mapping of str to float
        AUC in each group of records.
    scores, member : arrays of shape (n_targets, n_records)
        For plots.
    record_auc : array of shape (n_records,)
        Per record, over the target models; NaN where it was in all or in none.
    """

    method: str
    members: int
    others: int
    auc: float
    p_value: float
    tpr_at_01_percent: float
    tpr_at_1_percent: float
    tpr_low: float
    epsilon_lower: float
    auc_control: float
    groups: dict[str, float]
    scores: FloatArray = field(repr=False, metadata=SAMPLE)
    member: BoolArray = field(repr=False, metadata=SAMPLE)
    record_auc: FloatArray = field(repr=False, metadata=SAMPLE)


def membership(
    scores: Any,
    member: Any,
    *,
    method: str = "scores",
    groups: Any = None,
    alpha: float = 0.05,
    control: Membership | None = None,
) -> Membership:
    """Summarise the scores of an attack.

    Parameters
    ----------
    scores : array of shape (n_targets, n_records) or (n_records,)
        High for "was in".
    member : bool array of the same shape
        Drawn by a fair coin for each target and record, independent of everything else: then the p-value is right
        however the scores depend on one another.
    method : str
    groups : array of shape (n_records,) or None
        Label of each record.
    alpha : float
    control : Membership or None
        The same attack on models that removed nothing.

    Examples
    --------
    >>> found = membership([0.9, 0.8, 0.3, 0.1], [True, True, False, False])
    >>> found.auc, found.verdict
    (1.0, 'INCONCLUSIVE')
    """
    s, m = np.atleast_2d(np.asarray(scores, dtype=np.float64)), np.atleast_2d(np.asarray(member, dtype=bool))
    if s.shape != m.shape or m.all() or not m.any() or np.isnan(s).any():
        raise InvalidInput(
            f"membership got scores of shape {s.shape} and member of shape {m.shape}. Equal shapes, numbers "
            "without NaN, and both members and others are needed."
        )
    area, p_value = auc(s, m), _mann_whitney(s, m)
    fpr, tpr = roc(s, m)
    at = tpr_at(fpr, tpr, 0.01)
    if p_value < alpha:
        verdict, reason = REFUTED, f"{method}: AUC {area:.3f}, which chance reaches with probability {p_value:.2g}."
    elif control is not None and control.p_value < alpha:
        verdict, reason = NOT_REFUTED, f"{method}: AUC {area:.3f}; where nothing is removed it is {control.auc:.3f}."

    else:
        verdict, reason = INCONCLUSIVE, f"{method}: AUC {area:.3f}, and no control in which the attack succeeds."
    labels = np.array([]) if groups is None else np.asarray(groups).astype(str)
    return Membership(
        verdict,
        reason,
        method=method,
        members=int(m.sum()),
        others=int((~m).sum()),
        auc=area,
        p_value=p_value,
        tpr_at_01_percent=tpr_at(fpr, tpr, 0.001),
        tpr_at_1_percent=at,
        tpr_low=1.0 - clopper_pearson_upper(round((1 - at) * float(m.sum())), int(m.sum()), alpha),
        epsilon_lower=_epsilon(s, m, alpha),
        auc_control=np.nan if control is None else control.auc,
        groups={label: auc(s[:, labels == label], m[:, labels == label]) for label in np.unique(labels).tolist()},
        scores=s,
        member=m,
        record_auc=np.array([auc(s[:, i], m[:, i]) for i in range(s.shape[1])]),
    )


def auc(scores: Any, member: Any) -> float:
    """Return the area under the ROC curve, ties counted half; NaN without members or without others.

    Examples
    --------
    >>> auc([3.0, 1.0, 2.0], [True, False, True])
    1.0
    """
    s, m = np.ravel(scores), np.ravel(np.asarray(member, dtype=bool))
    n, k = int(m.sum()), int((~m).sum())
    if not n or not k:
        return np.nan
    return float((rankdata(s)[m].sum() - n * (n + 1) / 2) / (n * k))


def roc(scores: Any, member: Any) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates of all thresholds, from (0, 0) to (1, 1)."""
    s, m = np.ravel(scores), np.ravel(np.asarray(member, dtype=bool))
    order = np.argsort(-s, kind="stable")
    last = np.append(np.diff(s[order]) != 0, True)
    true, false = (np.cumsum(x[order])[last] for x in (m, ~m))
    return np.append(0.0, false / max(1, false[-1])), np.append(0.0, true / max(1, true[-1]))


def tpr_at(fpr: FloatArray, tpr: FloatArray, level: float) -> float:
    """Return the largest true positive rate at a false positive rate of at most `level`."""
    return float(tpr[fpr <= level].max())


def _mann_whitney(scores: FloatArray, member: BoolArray) -> float:
    """One-sided p-value that members score higher, by the normal approximation, ties and continuity counted."""
    s, m = scores.ravel(), member.ravel()
    n, k = int(m.sum()), int((~m).sum())
    _, ties = np.unique(s, return_counts=True)
    total = n + k
    variance = n * k / 12 * (total + 1 - float(np.sum(ties**3.0 - ties)) / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    above = rankdata(s)[m].sum() - n * (n + 1) / 2 - n * k / 2 - 0.5
    return float(norm.sf(above / np.sqrt(variance)))


def _epsilon(scores: FloatArray, member: BoolArray, alpha: float) -> float:
    """Lower bound of epsilon: the threshold that looks best on the even records is counted on the odd ones."""
    learn, count = (slice(0, None, 2), slice(1, None, 2))
    s, m = scores.ravel(), member.ravel()
    if min(m[learn].sum(), (~m[learn]).sum(), m[count].sum(), (~m[count]).sum()) < 1:
        return 0.0
    candidates = np.quantile(s[learn], np.linspace(0.01, 0.99, 50))

    def bound(part: slice, threshold: float) -> float:
        guess, truth = s[part] > threshold, m[part]
        fp, fn = np.count_nonzero(guess & ~truth), np.count_nonzero(~guess & truth)
        return epsilon_lower(int(fp), int((~truth).sum()), int(fn), int(truth.sum()), 0.0, alpha)

    return bound(count, max(candidates, key=lambda t: bound(learn, float(t))))
