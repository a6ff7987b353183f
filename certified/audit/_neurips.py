"""The deleting score of the NeurIPS 2023 unlearning challenge, with the score of perfect unlearning beside it.

For comparison with published numbers only. The score takes the best of thousands of attacks without a confidence
bound, so refits against refits score far below 1: about 0.2 to 0.4 with 512 models of each kind. Read the ratio.

References
----------
Triantafillou et al. (2024), "Are we making progress in unlearning? Findings from the first NeurIPS unlearning
competition".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certified.audit._result import INCONCLUSIVE, SAMPLE, AuditResult
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["NeuripsScore", "neurips_score"]

_WIDTH, _CAP, _DELTA = 0.5, 50.0, 1e-5
_GRID = 100  # thresholds per unit


@dataclass(frozen=True, eq=False)
class NeuripsScore(AuditResult):
    """The competition's score and that of its control.

    Parameters
    ----------
    verdict, reason
        Always INCONCLUSIVE: the score is no test of a claim.
    score : float
        Deleting quality times the two ratios of utility.
    deleting, forgetting_control : float
        Deleting quality, and what refits against refits get.
    ratio : float
        Of the two: 1 is as good as a refit.
    retain_ratio, test_ratio : float
        Accuracy over that of refits, on retained and on test rows.
    epsilon_median, epsilon_median_control : float
        Of the estimates for each record. No bounds.
    epsilons, epsilons_control : arrays of shape (n_records,)
        For plots.
    """

    score: float
    deleting: float
    forgetting_control: float
    ratio: float
    retain_ratio: float
    test_ratio: float
    epsilon_median: float
    epsilon_median_control: float
    epsilons: FloatArray = field(repr=False, metadata=SAMPLE)
    epsilons_control: FloatArray = field(repr=False, metadata=SAMPLE)


def neurips_score(
    unlearned: Any,
    refitted: Any,
    control: Any,
    *,
    retain_ratio: float = 1.0,
    test_ratio: float = 1.0,
    intervals: bool = True,
) -> NeuripsScore:
    """Score unlearned against refitted models by the log-odds that they give to the forgotten records.

    Parameters
    ----------
    unlearned, refitted, control : arrays of shape (n_models, n_records)
        :func:`certified.audit.attacks.record_scores` of the forgotten records; `control` is a second set of refits. The
        competition had 512 models of each.
    retain_ratio, test_ratio : float
        Mean accuracy of the unlearned models over that of the refits.
    intervals : bool
        Attacks by intervals too, as in the published code; slower.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> a, b, c = rng.normal(size=(3, 128, 5))
    >>> found = neurips_score(a + 3.0, b, c, intervals=False)
    >>> found.deleting < found.forgetting_control < 1.0
    True
    """
    u, r, c = (np.asarray(x, dtype=np.float64) for x in (unlearned, refitted, control))
    if u.ndim != 2 or not u.shape == r.shape == c.shape:
        raise InvalidInput(
            f"neurips_score got arrays of shapes {u.shape}, {r.shape} and {c.shape}. Three of one shape "
            "(n_models, n_records) are needed."
        )
    found, null = (np.array([_epsilon(x, y, intervals) for x, y in zip(a.T, r.T, strict=True)]) for a in (u, c))
    bins = int(np.ceil(np.log(max(2, len(u) - 1)))) / _WIDTH
    quality, reference = (float(np.mean(_quality(e, bins))) for e in (found, null))
    ratio = quality / reference if reference > 0 else np.nan
    return NeuripsScore(
        INCONCLUSIVE,
        f"For comparison only: {quality:.3f}, where refits against refits get {reference:.3f}.",
        score=quality * retain_ratio * test_ratio,
        deleting=quality,
        forgetting_control=reference,
        ratio=ratio,
        retain_ratio=retain_ratio,
        test_ratio=test_ratio,
        epsilon_median=float(np.median(found)),
        epsilon_median_control=float(np.median(null)),
        epsilons=found,
        epsilons_control=null,
    )


def _quality(epsilons: FloatArray, bins: float) -> FloatArray:
    place = np.floor(epsilons / _WIDTH)
    return np.where(place < bins, 2.0 / 2.0 ** (1.0 + place), 0.0)


def _epsilon(first: FloatArray, second: FloatArray, intervals: bool) -> float:
    """Largest estimate over thresholds and intervals for one record."""
    pos, neg = (first, second) if np.median(first) >= np.median(second) else (second, first)
    ranges = sorted(float(np.ptp(x)) for x in (pos, neg))
    if ranges[1] == 0.0 or ranges[0] / ranges[1] < 0.01:
        return _CAP if ranges[1] > 0.0 or pos[0] != neg[0] else 0.0
    low, high = min(pos.min(), neg.min()), max(pos.max(), neg.max())
    grid = np.linspace(low, high, max(2, int(_GRID * (high - low))))
    best = _best(1 - _below(neg, grid), _below(pos, grid))
    if intervals:
        narrow, wide = (pos, neg) if np.ptp(pos) < np.ptp(neg) else (neg, pos)
        width = float(np.ptp(narrow))
        start, stop = low + width - 2.0, high + 2.0
        right = np.linspace(start, stop, max(2, int(_GRID * (stop - start))))
        left = right[:, None] - width + np.linspace(-2.0, 2.0, 400)
        inside = [_below(x, right, "right")[:, None] - _below(x, left) for x in (wide, narrow)]
        best = max(best, _best(np.maximum(inside[0], 0.0), 1 - np.maximum(inside[1], 0.0)))
    return min(best, _CAP)


def _below(values: FloatArray, thresholds: FloatArray, side: Any = "left") -> FloatArray:
    return np.searchsorted(np.sort(values), thresholds, side=side) / len(values)


def _best(fpr: FloatArray, fnr: FloatArray) -> float:
    """Largest estimate over attacks; those with one rate at 0 are left out, both at 0 is a perfect attack."""
    if np.any((fpr == 0) & (fnr == 0)):
        return _CAP
    use = (fpr > 0) & (fnr > 0)
    if not use.any():
        return 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = (np.log(1 - _DELTA - x[use]) - np.log(y[use]) for x, y in ((fpr, fnr), (fnr, fpr)))
    return max(0.0, float(np.nanmax(a)), float(np.nanmax(b)))
