"""Minimise a quadratic with an L1 penalty by an active set: Newton steps at fixed signs, cut at the first zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from certified.typing import FloatArray

__all__ = ["search"]

_FLAT = 2.0**-36  # ridge, as a share of the diagonal, for the steps


def search(
    Q: FloatArray, q: FloatArray, a: Any, b: Any, w: FloatArray, positive: bool = False, settled: bool = False
) -> FloatArray:
    """Return an approximate minimiser of ``1/2 w'Qw - q'w + a ||w||_1 + b/2 ||w||^2``, zeros being exact.

    Parameters
    ----------
    Q : float64 array of shape (d, d)
    q : float64 array of shape (d,)
    a, b : float
        Numbers >= 0, or arrays of shape (d,) of the weights of each entry for a.
    w : array of shape (d,)
        Where to start: its signs are the first active set.
    positive : bool
        Allow entries >= 0 only.
    settled : bool
        Whether an entry without a penalty is active from the start.

    Notes
    -----
    No step raises the objective, but for rounding: this is float64, and at most 200 + d steps. The small ridge turns a
    direction in which Q is flat into a long step, which ends at a zero. The result is for the caller to measure.
    """
    w = w.copy()
    weight = np.broadcast_to(np.asarray(a, dtype=np.float64), w.shape)
    free = (weight == 0.0) if settled else np.zeros(len(w), dtype=bool)
    sign, lift = np.where(free, 1.0, np.sign(w)), b + _FLAT * np.diag(Q)
    for _ in range(200 + len(w)):
        live = np.flatnonzero(sign)
        rest = q[live] - weight[live] * sign[live] - Q[np.ix_(live, live)] @ w[live] - b * w[live]
        matrix = Q[np.ix_(live, live)]
        matrix[np.diag_indices(live.size)] += lift[live]
        try:
            step = cho_solve(cho_factor(matrix, lower=True, check_finite=False), rest, check_finite=False)
        except LinAlgError:
            break
        crossing = np.flatnonzero(((w[live] + step) * sign[live] <= 0.0) & ~free[live])
        if crossing.size:
            share = np.abs(w[live[crossing]]) / np.maximum(np.abs(step[crossing]), 2.0**-1000)
            first = np.argmin(share)
            w[live] += share[first] * step
            w[live[crossing[first]]] = sign[live[crossing[first]]] = 0.0
            continue
        w[live] += step
        slope = q - Q[:, live] @ w[live]
        slack = 2.0**-48 * (np.abs(q) + np.abs(Q[:, live]) @ np.abs(w[live]))
        excess = np.where(sign == 0.0, (slope if positive else np.abs(slope)) - weight - slack, -1.0)
        enters = np.argmax(excess)
        if excess[enters] <= 0.0:
            break
        sign[enters] = np.sign(slope[enters])
    return w
