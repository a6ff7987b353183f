"""A least squares problem with L1 and L2 penalties, from its exact sums: descent, active set, the gap that is left."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import enet_path

from certified._convex.active_set import search
from certified._exact.moments import solved
from certified.typing import FloatArray, IntArray

__all__ = ["LeastSquaresProblem"]

_ROUNDS = ((1e-4, 100), (1e-7, 1000), (1e-10, 10_000), (1e-13, 10**9))  # tolerance and passes of coordinate descent
_ENOUGH = 1e-14  # gap, as a share of y'y, below which rounding is all that is left
_LEAST = 2.0**-40  # slope of a coefficient at 0, in units of its rounding size, that counts as none


@dataclass(frozen=True, eq=False)
class LeastSquaresProblem:
    """Minimise ``1/2 w'Qw - q'w + y'y/2 + a ||w||_1 + b/2 ||w||^2``, with w >= 0 if positive.

    Attributes
    ----------
    Q : longdouble array of shape (d, d)
    q : longdouble array of shape (d,)
    yy : float
    a, b : float
    positive : bool
    """

    Q: Any
    q: Any
    yy: float
    a: float
    b: float
    positive: bool

    def gradient(self, w: FloatArray) -> tuple[Any, Any]:
        """Return ``q - (Q + b) w`` and a bound on its rounding error, shape (d,) each."""
        live = np.flatnonzero(w)
        wide = w.astype(np.longdouble)
        slope = self.q - self.Q[:, live] @ wide[live] - self.b * wide
        size = np.abs(self.q) + np.abs(self.Q[:, live]) @ np.abs(wide[live]) + self.b * np.abs(wide)
        return slope, (live.size + 8) * np.finfo(np.longdouble).eps * size

    def gap(self, w: FloatArray) -> float:
        """Upper bound on how far the objective at w is above its minimum: the smaller one of two bounds.

        With g the slope and c = min(1, a / max|g|), the point c (y - Xw, -sqrt(b) w) is feasible for the dual, and the
        gap to it is ``(1-c)^2 r/2 + sum(a |w_j| - c w_j g_j)``, r = y'y - q'w - w'g; its terms are all >= 0. With
        b > 0 the objective is strongly convex, and the gap is at most ``|v|^2 / (2 b)`` for every subgradient v.
        """
        slope, error = self.gradient(w)
        wide = w.astype(np.longdouble)
        size, live = np.abs(wide), w != 0.0
        steep = (slope if self.positive else np.abs(slope)) + error
        highest = np.max(steep, initial=0.0)
        bounds = [np.inf]
        if self.a > 0:
            c = min(np.longdouble(1.0), self.a / highest) if highest > 0 else np.longdouble(1.0)
            rounding = (len(w) + 16) * np.finfo(np.longdouble).eps * (size @ np.abs(self.q) + size @ np.abs(slope))
            rest = max(self.yy - self.q @ wide - wide @ slope, 0.0) + rounding + 2.0**-51 * self.yy
            terms = np.maximum(self.a * size - c * wide * slope, 0.0) + size * error
            bounds.append((1 - c) ** 2 * rest / 2 + np.sum(terms))
        if self.b > 0:
            v = np.where(live, np.abs(slope - self.a * np.sign(wide)) + error, np.maximum(steep - self.a, 0.0))
            bounds.append(v @ v / (2 * self.b))
        return float(min(bounds)) * (1 + 2.0**-40)

    def descend(self, w: FloatArray, tol: float, max_iter: int) -> tuple[FloatArray, int]:
        """Coordinate descent of scikit-learn on the Gram matrix, in the order of the features, from w."""
        penalty = self.a + self.b
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what was reached is measured, see `gap`
            _, coefs, _, n_iter = enet_path(
                np.zeros((1, len(w)), order="F"),  # one row: scikit-learn multiplies the penalty by their number
                np.array([np.sqrt(self.yy)]),
                l1_ratio=self.a / penalty,
                alphas=[penalty],
                precompute=self.Q.astype(np.float64),
                Xy=self.q.astype(np.float64),
                coef_init=w.copy(),
                positive=self.positive,
                tol=tol,
                max_iter=max_iter,
                random_state=0,
                return_n_iter=True,
                check_input=False,
            )
        return np.ascontiguousarray(coefs[:, 0]), int(n_iter[0])

    def search(self, w: FloatArray) -> FloatArray:
        """Active-set descent from w."""
        return search(self.Q.astype(np.float64), self.q.astype(np.float64), self.a, self.b, w, self.positive)

    def polish(self, w: FloatArray) -> FloatArray:
        """Solve for the coefficients whose signs w proposes; return w where they are not determined."""
        sign = np.sign(w)
        if self.a == 0 and not self.positive:
            sign = np.where(np.diag(self.Q) > 0, 1.0, 0.0)
        live = np.flatnonzero(sign)
        found = self._on(live, sign[live])
        if found is None:
            return w
        out = np.zeros_like(w)
        out[live] = found
        return np.maximum(out, 0.0) if self.positive else out

    def _on(self, live: IntArray, sign: FloatArray) -> FloatArray | None:
        """Minimise over these coefficients with the signs held, or None where that has no single solution."""
        matrix = self.Q[np.ix_(live, live)]
        matrix[np.diag_indices(live.size)] += self.b
        half = np.frexp(np.diag(matrix).astype(np.float64))[1] // 2
        target = np.ldexp(self.q[live] - self.a * sign, -half)[:, None]
        found = solved(np.ldexp(matrix, -(half[:, None] + half[None, :])), target)
        return None if found is None else np.ldexp(found[:, 0], -half).astype(np.float64)

    def minimise(self, max_iter: int) -> tuple[FloatArray, float, int]:
        """Return coefficients, the bound on their gap, and the passes of coordinate descent over the features."""
        w = best = np.zeros(len(self.q))
        gap, used = self.gap(w), 0
        for tol, passes in _ROUNDS:
            if gap <= _ENOUGH * self.yy or used >= max_iter:
                break
            w, n_iter = self.descend(w, tol, min(max_iter - used, passes))
            used += n_iter
            found = self.search(w)
            for candidate in (self.polish(found), found, w):
                reached = self.gap(candidate)
                if reached < gap:
                    best, gap = candidate, reached
                if gap <= _ENOUGH * self.yy:
                    break
            w = found
        return best, gap, used

    def non_negative(self) -> FloatArray | None:
        """Return the minimiser over w >= 0 without an L1 penalty; None where it is not determined in float64.

        An active set proposes which entries are positive; these are solved for, and every entry at 0 must have no slope
        that would raise it. Entries that come out negative leave, at most once each.
        """
        scale = np.where(np.diag(self.Q) > 0, np.sqrt(np.diag(self.Q).astype(np.float64)), 1.0)
        Q = self.Q.astype(np.float64) / np.outer(scale, scale) + np.diag(self.b / scale**2)
        w = search(Q, self.q.astype(np.float64) / scale, 0.0, 0.0, np.zeros(len(scale)), True)
        live = (w > 0) & (np.diag(self.Q) > 0)
        for _ in range(2 * len(w) + 2):
            some = np.flatnonzero(live)
            found = self._on(some, np.zeros(some.size)) if some.size else np.zeros(0)
            if found is None:
                return None
            if np.any(found < 0.0):
                live[some[found < 0.0]] = False
                continue
            out = np.zeros(len(w))
            out[some] = found
            slope, error = self.gradient(out)
            size = scale * np.sqrt(max(self.yy, 0.0))
            rising = np.where(live, 0.0, (slope - error).astype(np.float64) / np.where(size > 0, size, 1.0))
            if np.max(rising, initial=0.0) <= _LEAST:
                return out
            live[int(np.argmax(rising))] = True
        return None
