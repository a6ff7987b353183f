"""Passes over the retained rows, counted: gradients, Hessians, steps, and the certificate of theorem 1."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from certified._convex import bounds, downdate
from certified._convex.bounds import gamma, or_inf, up
from certified._convex.passes import Passes
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.state import Anchor, Metric, Solution, Terms, on_grid, with_noise_metric
from certified.errors import CannotCertify
from certified.typing import FloatArray

__all__ = ["Gradient", "Iteration"]

_STALE = 0.5  # rebuild the Hessian when a pass shrinks the gradient by less than this factor
_PATIENCE = 16  # a new Hessian costs P / 16 passes
_STILL = 2.0**-7  # movement of the predictors below which a bound will do
_LEAST = 2.0**-800  # entries of the diagonal of a Hessian, below which underflow could be seen
_LOWEST = 0.25  # rebuild the Hessian when the retained rows may have less than this part of it in some direction


@dataclass(frozen=True)
class Gradient:
    """Gradient at a point, penalty included, with what its rounding envelope needs.

    ``moved`` bounds kappa times the change of any retained row's linear predictor since the point of the metric; inf or
    NaN where that has not been measured. ``seen`` is that change where it was measured here, else 0.
    """

    value: FloatArray
    slopes: float
    sizes: float
    bend: float
    moved: float
    seen: float = 0.0


class Iteration:
    """Passes over the rows of positive weight, for one problem."""

    def __init__(self, problem: Problem, rows: Any, weight: Any, noise_metric: NoiseMetric, max_passes: int) -> None:
        self.problem, self.noise_metric = problem, noise_metric
        self.rows = Passes(rows, weight)
        # At least the largest absolute value of each column; it serves bounds of rounding errors only.
        self.peak = np.ldexp(1.0, noise_metric.products.exponents) if rows.unweighted else self.rows.peak()
        self.passes, self.max_passes = 0, max_passes

    def gradient(self, w: FloatArray, moved: float) -> Gradient:
        """Pass at w; moved as far as it is known."""
        self.passes += 1
        loss = self.problem.loss
        found = self.rows.gradient(loss, w)
        value = found.gradient + self.problem.gradient(w)
        return Gradient(value, float(found.slopes), float(found.sizes), float(found.bend), moved)

    def still(self, w: FloatArray, g: Gradient, metric: Metric) -> Gradient:
        """Measure how far the predictors have moved, unless a bound is known that is hardly above the last measure."""
        loss, move = self.problem.loss, w - metric.point
        if loss.kappa == 0.0 or not np.any(move):
            return replace(g, moved=0.0)
        if g.moved <= g.seen + _STILL:
            return g
        # The difference of two points is rounded, too.
        largest = self._largest_predictor(np.abs(move) + np.abs(w) + np.abs(metric.point))
        measured = self.rows.reach(loss, move)
        moved = up(loss.kappa * (measured + 2.0 * gamma(len(w) + 8) * largest))
        return replace(g, moved=moved, seen=moved)

    def _largest_predictor(self, w: FloatArray) -> float:
        """Upper bound of the sum of the absolute terms of any predictor."""
        return up(float(np.max(np.abs(w).reshape(self.problem.loss.outputs, -1) @ self.peak)))

    def metric(self, w: FloatArray) -> Metric:
        """Form and factorise the Hessian at w. M and k_G follow in `measured`, when they are needed."""
        self.passes += 1
        loss, p = self.problem.loss, len(w)
        hessian = self.rows.curvature(loss, w) + self.problem.curvature()
        inverse = downdate.factorise(hessian) if float(np.min(np.diag(hessian))) >= _LEAST else None
        if inverse is None:
            raise CannotCertify(
                "The Hessian is singular in float64, so the minimiser is not unique or does not exist (separable "
                "classes, duplicate columns). Add a penalty (a smaller C or a larger alpha) or remove columns. "
                "Nothing was changed."
            )
        score = gamma(p + 4) * (self._largest_predictor(w) + self.rows.most_offset)
        relative = gamma(self.rows.chain + 2048) + 4.0 * loss.kappa * score
        diagonal = (
            np.diag(hessian) if loss.outputs == 1 else self.noise_metric.root_x**2 + np.diag(self.problem.curvature())
        )
        root = np.sqrt(diagonal) * (1 + 2.0**-20)
        rho = bounds.sandwich(hessian, inverse, root, relative)
        if not rho < 0.5:
            raise CannotCertify(
                f"The Hessian is too ill-conditioned to bound in float64 (relative uncertainty {rho:.2g}, below 0.5 "
                "is needed). Scale the features (StandardScaler), remove nearly duplicate columns or add a penalty. "
                "Nothing was changed."
            )
        ridge = (inverse * self.problem.penalized) @ inverse.T if self.problem.strength_depends_on_rows else None
        return Metric.formed(w, inverse, root, rho, ridge)

    def reused(self, anchor: Anchor) -> Metric | None:
        """The anchor's metric for the noise metric at hand; None where too much was removed for it to serve."""
        if not (anchor.metric.low > _LOWEST and anchor.metric.rise < 1.0):
            return None
        return with_noise_metric(anchor, self.noise_metric).metric

    def measured(self, metric: Metric) -> Metric:
        """Return the metric with M (one pass) and k_G."""
        if np.isnan(metric.M):
            metric = replace(metric, M=self._M(metric.inverse_factor))
        if np.isnan(metric.k_G):
            k_G = bounds.metric_constant(self.noise_metric.factor, metric.inverse_factor, self.noise_metric.root)
            metric = replace(metric, k_G=k_G)
        return metric

    def _M(self, inverse: FloatArray) -> float:
        loss = self.problem.loss
        if loss.kappa == 0.0:
            return 0.0
        self.passes += 1
        squared = self.rows.leverage(loss, inverse)
        rounding = gamma(2 * len(inverse) + 8) * float(
            np.linalg.norm(np.abs(inverse) @ np.tile(self.peak, loss.outputs))
        )
        return up(loss.kappa * (np.sqrt(squared) * (1 + 2.0**-40) + 2.0 * rounding))

    def newton_length(self, g: Gradient, metric: Metric) -> float:
        """Length of the Newton step in the noise metric, roughly."""
        return float(np.linalg.norm(self.noise_metric.factor.T @ self.step(g, metric)[2]))

    def step(self, g: Gradient, metric: Metric) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Whitened gradient, whitened Newton step and Newton step, the steps with the sign of the gradient."""
        white = metric.inverse_factor @ g.value
        pi = metric.P @ white
        return white, pi, pi @ metric.inverse_factor

    def certify(self, w: FloatArray, g: Gradient, metric: Metric) -> Solution:
        """Bound the distance by theorem 1 and its corollary."""
        p = len(w)
        white, pi, step = self.step(g, metric)
        envelope = self.envelope(w, g, metric)
        nu = up(float(np.linalg.norm(white)) * (1.0 + gamma(p + 4)) + envelope)
        length = up(float(np.linalg.norm(pi)) * (1.0 + gamma(p + 4)))
        residual = float(np.linalg.norm(white - pi + metric.W @ pi)) * (1.0 + gamma(p + 4))
        residual = up(residual + gamma(p + 8) * (nu + length * (2.0 + float(np.linalg.norm(metric.W)))) + envelope)
        spread = (np.abs(pi) @ np.abs(metric.inverse_factor)) @ self.noise_metric.root
        in_release = float(np.linalg.norm(self.noise_metric.factor.T @ step)) * (1.0 + gamma(p + 4))
        in_release = up(in_release + gamma(3 * p + 8) * float(spread))
        low, rho = self.drifted(g, metric)
        distance = bounds.measured_distance(
            nu=nu,
            M=metric.M,
            low=low,
            rho=rho,
            newton=in_release,
            step=length,
            residual=residual,
            k_G=metric.k_G,
            rise=metric.rise,
        )
        terms = Terms(
            nu=nu,
            M=metric.M,
            b=up(metric.M * nu),
            eta=metric.eta,
            rho=rho,
            k_G=metric.k_G,
            rounding_envelope=up(metric.k_G * envelope),
        )
        weight = up(float(np.abs(w) @ self.noise_metric.root))
        return Solution(w, or_inf(distance), "measured", terms, weight, self.passes)

    def drifted(self, g: Gradient, metric: Metric) -> tuple[float, float]:
        """Lower bound and uncertainty of the whitened Hessian after the predictors have moved (lemma 2)."""
        grow, rho = up(np.expm1(min(g.moved, 600.0))), up(metric.rho + metric.drift)
        low = (1.0 - up(rho + metric.eta)) / (1.0 + grow)
        return low - 2.0**-40 * abs(low), up(rho + grow * (1.0 + rho + metric.rise))

    def old(self, g: Gradient, metric: Metric, fresh: float) -> bool:
        """Whether the curvature may have drifted by more than `fresh` since the Hessian was formed."""
        return bool(np.isinf(metric.rho) or self.drifted(g, metric)[1] - metric.rho > fresh)

    def envelope(self, w: FloatArray, g: Gradient, metric: Metric) -> float:
        absolute = np.abs(metric.inverse_factor)
        root, p = self.noise_metric.root_x, len(w)
        widen = 1.0 + 2.0**-30
        rows = bounds.gradient_envelope(
            reach=float(np.linalg.norm(absolute @ root)) * widen,
            slopes=float(np.sqrt(g.slopes)) * widen,
            sizes=float(np.sqrt(g.sizes)) * widen,
            predictor=(float(np.abs(w) @ root) + self.problem.loss.outputs * self.rows.offset) * widen,
            penalty=float(np.linalg.norm(absolute @ (np.abs(self.problem.curvature()) @ np.abs(w)))) * widen,
            n_terms=self.rows.chain,
            p=p,
            bend=2.0 * g.bend,
        )
        lost = bounds.TINY * (1.0 + g.bend) * float(absolute.sum())
        return up(rows + lost + gamma(p + 4) * float(np.linalg.norm(absolute @ np.abs(g.value))) * widen)

    def advance(
        self, w: FloatArray, g: Gradient, metric: Metric, target: float, fresh: float
    ) -> tuple[FloatArray, Gradient, Metric] | None:
        """Take a step that shrinks the gradient; None at the rounding floor.

        The Hessian is formed anew where further steps with the factor at hand would cost more.
        """
        formed_here = metric.point is w and metric.drift == 0.0 and np.isfinite(metric.rho)
        white, pi, step = self.step(g, metric)
        if float(np.linalg.norm(white)) <= self.envelope(w, g, metric):
            return None  # no more than what rounding may have made of zero
        alpha = 1.0
        while self.passes < self.max_passes:
            size = float(np.linalg.norm(white))
            trial = w - alpha * step
            found = self.gradient(trial, self.moved(g.moved, metric, trial, alpha * pi))
            left = float(np.linalg.norm(metric.inverse_factor @ found.value))
            if left <= (1.0 - 0.25 * alpha) * size:
                rate = left / size if size else 0.0
                ahead = self.newton_length(found, metric) / target
                steps = np.log(ahead) / -np.log(rate) if 0.0 < rate < 1.0 and ahead > 1.0 else 0.0
                many = steps > max(4.0, 2.0 * len(w) / _PATIENCE)  # a new Hessian about halves the passes ahead
                if rate > _STALE or (many and self._would_stay(found, metric, fresh)):
                    metric, found = self.metric(trial), replace(found, moved=0.0)
                return trial, found, metric
            if size <= 4.0 * self.envelope(w, g, metric):
                return None
            if not formed_here:
                metric, formed_here, alpha = self.metric(w), True, 1.0
                g = replace(g, moved=0.0)
                white, pi, step = self.step(g, metric)
                continue
            alpha *= 0.5
            if alpha < 2.0**-30:
                return None
        return None

    def _would_stay(self, g: Gradient, metric: Metric, fresh: float) -> bool:
        """Whether a Hessian formed here would still be fresh at the minimiser, as far as the next step tells."""
        loss = self.problem.loss
        return loss.kappa * self.rows.reach(loss, self.step(g, metric)[2]) <= 0.5 * fresh

    def moved(self, before: float, metric: Metric, w: FloatArray, pi: FloatArray) -> float:
        """Bound kappa times the movement of any predictor after a further step, by Cauchy-Schwarz; NaN without M."""
        length = float(np.linalg.norm(pi)) * (1.0 + 2.0**-30) + 2.0 * metric.place(w, pi, metric.root)
        return up(before + metric.M * length)

    def settled(self, w: FloatArray, size: float) -> tuple[FloatArray, Gradient, Metric]:
        """A point on the grid near w, with a metric and a gradient that the retained rows and this point determine."""
        w = on_grid(w, size, self.noise_metric.root, lambda v: float(np.linalg.norm(self.noise_metric.whitened(v))))
        metric = self.measured(self.metric(w))
        return w, self.gradient(w, 0.0), metric

    def anchor(self, w: FloatArray, g: Gradient, metric: Metric) -> Anchor:
        """The state to delete from: the same metric, seen from w."""
        _, rho = self.drifted(g, metric)
        here = replace(metric, point=w, drift=up(max(rho - metric.rho, 0.0)))
        white = metric.inverse_factor @ g.value
        envelope = self.envelope(w, g, metric)
        return Anchor(here, self.noise_metric, white, np.zeros(len(w)), envelope, self.problem.strength)
