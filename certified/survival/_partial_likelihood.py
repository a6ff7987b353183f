"""The partial likelihood of Cox: value, gradient and Hessian, with bounds of their rounding errors.

Every sum that is divided by or accumulated is one of terms >= 0, so that relative errors stay small. Formulas and
proofs: "Survival" in the theory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from certified._convex.bounds import UNIT, gamma, up
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["Evaluation", "RiskSets"]

_SPREAD = 200.0  # largest difference of two predictors of a stratum; beyond, small terms could be lost unseen


@dataclass(frozen=True)
class Evaluation:
    """The sum over events at a point, without the penalty.

    Attributes
    ----------
    value : float
    gradient : array of shape (p,)
    gradient_error : array of shape (p,)
        Bounds the rounding error of each entry.
    hessian : array of shape (p, p)
    diagonal : array of shape (p,)
        Of the larger of the two terms whose difference is the Hessian.
    relative : float
        The error of entry (i, j) of the Hessian is at most ``relative sqrt(diagonal_i diagonal_j)``.
    """

    value: float
    gradient: FloatArray
    gradient_error: FloatArray
    hessian: FloatArray
    diagonal: FloatArray
    relative: float


class _Stratum:
    """Rows of one stratum in the order of time, and the groups of events at one time."""

    def __init__(self, time: FloatArray, event: BoolArray, weight: FloatArray, efron: bool) -> None:
        self.order = np.lexsort((~event, time))  # of one time the events first
        time, event, self.weight = time[self.order], event[self.order], weight[self.order]
        self.events = np.flatnonzero(event)
        times, self.first, self.group, counts = np.unique(
            time[self.events], return_index=True, return_inverse=True, return_counts=True
        )
        self.after = self.events[self.first] + counts  # rows from here on are at risk and have no event in the group
        self.before = np.searchsorted(times, time, side="right")  # groups up to the time of each row
        of_group = np.bincount(self.group, self.weight[self.events], len(times))
        self.share = (of_group / counts)[self.group]
        rank = np.arange(len(self.events)) - self.first[self.group]
        self.part = 1.0 - rank / counts[self.group] if efron else np.ones(len(self.events))


class RiskSets:
    """Rows with a positive weight, ordered once, on which the partial likelihood is evaluated.

    Parameters
    ----------
    x : array of shape (n_rows, p)
    time, event, weight : arrays of shape (n_rows,)
    stratum : int array of shape (n_rows,)
    efron : bool
        How ties are treated: Efron's way, or Breslow's.
    """

    def __init__(
        self, x: FloatArray, time: FloatArray, event: BoolArray, weight: FloatArray, stratum: IntArray, *, efron: bool
    ) -> None:
        self.x = x - x.mean(axis=0)  # the likelihood is that of any shift; the rounding is in the bounds
        self.absolute = np.abs(self.x)
        self.strata = []
        for label in np.unique(stratum):
            rows = np.flatnonzero(stratum == label)
            part = _Stratum(time[rows], event[rows], weight[rows], efron)
            if part.events.size:
                part.order = rows[part.order]
                self.strata.append(part)

    def at(self, w: FloatArray) -> Evaluation | None:
        """Return the evaluation at w; None where predictors lie too far apart to bound anything."""
        n, p = self.x.shape
        with np.errstate(over="ignore", invalid="ignore"):
            z = self.x @ w
            size = float(np.max(self.absolute @ np.abs(w)))
        slack = 4.0 * gamma(p + 8) * size + 32.0 * UNIT  # relative error of exp(z)
        if not slack < 2.0**-10:
            return None
        relative = up(3.0 * slack + gamma(5 * n + 64))
        value, gradient, error = 0.0, np.zeros(p), np.zeros(p)
        larger, smaller = np.zeros((p, p)), np.zeros((p, p))
        for part in self.strata:
            x, zs, s = self.x[part.order], z[part.order], part.weight
            top = float(np.max(zs))
            if not top - float(np.min(zs)) <= _SPREAD:
                return None
            a = s * np.exp(zs - top)
            later = np.append(np.cumsum(a[::-1])[::-1], 0.0)[part.after]
            here = np.add.reduceat(a[part.events], part.first)
            total = later[part.group] + part.part * here[part.group]
            rate = part.share / total
            of_group = np.bincount(part.group, rate)
            own = np.bincount(part.group, part.part * rate)
            passed = np.concatenate([[0.0], np.cumsum(of_group)])
            hazard = passed[part.before]
            hazard[part.events] = passed[part.group] + own[part.group]
            expected = a * hazard
            seen = np.zeros(len(s))
            seen[part.events] = s[part.events]
            value += float(part.share @ (np.log(total) + top)) - float(seen @ zs)
            gradient += x.T @ (expected - seen)
            error += np.abs(x).T @ (expected * relative + (expected + seen) * gamma(n + 16))
            larger += (x * expected[:, None]).T @ x
            moments = a[:, None] * x
            behind = np.vstack([np.cumsum(moments[::-1], axis=0)[::-1], np.zeros((1, p))])[part.after]
            among = np.add.reduceat(moments[part.events], part.first, axis=0)
            mean = (behind[part.group] + part.part[:, None] * among[part.group]) / total[:, None]
            smaller += (mean * part.share[:, None]).T @ mean
        return Evaluation(
            value=value,
            gradient=gradient,
            gradient_error=error * (1.0 + 2.0**-20) + gamma(len(self.strata) + 4) * (np.abs(gradient) + error),
            hessian=larger - smaller,
            diagonal=np.diag(larger) * (1.0 + 2.0**-20),
            relative=up(4.0 * relative + 4.0 * gamma(n + 64)),
        )

    def reach(self, inverse_factor: FloatArray) -> float:
        """Bound M: twice the largest length of a row in the metric, which bounds the difference of any two rows."""
        p = len(inverse_factor)
        lengths = np.linalg.norm(self.x @ inverse_factor.T, axis=1)
        rounding = gamma(2 * p + 16) * float(np.linalg.norm(np.abs(inverse_factor) @ self.absolute.max(axis=0)))
        return up(2.0 * (float(lengths.max()) * (1.0 + 2.0**-40) + rounding))
