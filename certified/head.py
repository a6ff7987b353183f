"""The certified convex head: fit once, delete many times, and always know how far the exact minimiser can be.

F(w) = sum_i s_i l(y_i, x_i'w) + (1/2) w' Lambda w. The state is an :class:`Anchor`: a point, its gradient and a
factorised Hessian (the metric A), less the rows removed since. Two ways to a certified :class:`Solution`:

* :func:`forget`: one Newton step from the anchor, bounded by theorem 2, no pass over the rows;
* :func:`improve`: passes over the kept rows with the factor at hand, measured by theorem 1, until a target is met.

Values are frozen and functions return new ones, so that a deletion that fails half-way changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.linalg import LinAlgError, cholesky

from certified import bounds, newton
from certified.bounds import gamma, up
from certified.errors import CannotCertify
from certified.exact import Products
from certified.losses import Loss
from certified.newton import Removal
from certified.rows import Rows
from certified.typing import FloatArray

__all__ = ["Anchor", "Metric", "Problem", "Release", "Solution", "forget", "improve", "with_release"]

_STALE = 0.2  # rebuild the Hessian when a pass shrinks the gradient by less than this factor
_TINY = 2.0**-40  # Lambda0 on directions without a penalty


@dataclass(frozen=True)
class Problem:
    """What is minimised: the loss and the diagonal penalty Lambda, shape (p,)."""

    loss: Loss
    penalty: FloatArray


@dataclass(frozen=True)
class Release:
    """The release metric ``G = c sum s_i x_i x_i' + Lambda0`` of the kept rows, factorised as L L'.

    Attributes
    ----------
    products : Products
        Exact Gram matrix of the kept rows.
    matrix, factor : arrays of shape (p, p)
        G and L. The norm ``||v||_G`` is defined as ``||L'v||``.
    root : array of shape (p,)
        Upper bounds of ``sqrt(G_jj)``.
    root_x : array of shape (p,)
        Upper bounds of ``sqrt(sum s_i x_ij^2)``.
    """

    products: Products
    matrix: FloatArray
    factor: FloatArray
    root: FloatArray
    root_x: FloatArray

    @classmethod
    def of(cls, problem: Problem, products: Products, n_rows: int) -> Release:
        """Factorise; raise CannotCertify if G is singular in float64."""
        gram = products.matrix()
        matrix = problem.loss.curvature_scale * gram
        matrix[np.diag_indices(len(gram))] += np.where(problem.penalty > 0, problem.penalty, _TINY)
        try:
            if not np.all(np.isfinite(matrix)):
                raise LinAlgError
            factor = cholesky(matrix, lower=True, check_finite=False)
        except LinAlgError:
            raise CannotCertify(
                "The release metric (weighted Gram matrix plus penalty) is singular in float64, so noise cannot be "
                "calibrated. Remove duplicate columns, scale the features (StandardScaler), or add a penalty."
            ) from None
        quantum = np.ldexp(np.sqrt(float(n_rows)), products.exponents - 20)
        root_x = (np.sqrt(np.diag(gram)) + quantum) * (1 + 2.0**-30)
        return cls(products, matrix, factor, np.sqrt(np.diag(matrix)) * (1 + 2.0**-30), root_x)


@dataclass(frozen=True)
class Metric:
    """The metric ``A = (V'V)^-1`` and what is known of it.

    Attributes
    ----------
    point : array of shape (p,)
        Where the Hessian was formed.
    hessian, inverse_factor : arrays of shape (p, p)
        H and V.
    root : array of shape (p,)
        Upper bounds of the square roots of the diagonal of everything added up to H.
    relative : float
        Entry-wise rounding error of H in units of ``root_i root_j``.
    rho : float
        ``(1 - rho) A <= Hess F(point) <= (1 + rho) A``.
    M : float
        At least ``kappa max ||x_i||_{A^-1}`` over the kept rows.
    k_G : float
        ``||v||_G <= k_G ||v||_A``.
    to_release : array of shape (p, p)
        ``L' V'``: takes a whitened vector to the release metric.
    """

    point: FloatArray
    hessian: FloatArray
    inverse_factor: FloatArray
    root: FloatArray
    relative: float
    rho: float
    M: float
    k_G: float
    to_release: FloatArray


@dataclass(frozen=True)
class Anchor:
    """A metric, a point w whose gradient was measured, and the rows removed since then.

    Attributes
    ----------
    metric : Metric
    release : Release
        The release metric for which ``metric.k_G`` was computed; later, smaller ones are covered.
    w : array of shape (p,)
    rho : float
        As ``metric.rho``, for the Hessian at w and the rows at the time of the anchor.
    removal : Removal
        In whitened coordinates.
    pi : array of shape (p,)
        Whitened Newton step from w to the present parameter.
    envelope_g, envelope_W, relative : float
        Rounding envelopes of ``removal.g``, ``removal.W`` (whitened) and ``removal.H`` (relative).
    """

    metric: Metric
    release: Release
    w: FloatArray
    rho: float
    removal: Removal
    pi: FloatArray
    envelope_g: float
    envelope_W: float
    relative: float


@dataclass(frozen=True)
class Solution:
    """A parameter and a bound of its distance to the exact minimiser on the kept rows.

    Attributes
    ----------
    w : array of shape (p,)
    distance : float
        ``||w - w*||_G <= distance``; inf where nothing can be said.
    method : {"theorem-1", "theorem-2"}
    assumptions : dict
        Measured values that the bound rests on.
    weight : float
        At least ``sum_j |w_j| sqrt(G_jj)``: size of the whitened parameter, for its rounding error.
    passes : int
        Passes over the kept rows.
    """

    w: FloatArray
    distance: float
    method: str
    assumptions: dict[str, float] = field(default_factory=dict)
    weight: float = 0.0
    passes: int = 0


def forget(problem: Problem, anchor: Anchor, x: FloatArray, y: FloatArray, s: FloatArray) -> tuple[Anchor, Solution]:
    """Remove rows by theorem 2: O(k p^2) for k rows, whatever the number of rows kept."""
    metric, p = anchor.metric, len(anchor.w)
    removal, report = newton.remove(
        problem.loss, anchor.w, metric.inverse_factor, anchor.release.root, anchor.removal, x, y, s
    )
    step, linear, norm_w, more_g, more_w, more_h, weight, spread = report.numbers.tolist()
    after = replace(
        anchor,
        removal=removal,
        pi=report.pi,
        envelope_g=up(anchor.envelope_g + more_g),
        envelope_W=up(anchor.envelope_W + more_w),
        relative=up(anchor.relative + more_h),
    )
    # The norms below were computed with O(p) roundings each.
    widen = 1.0 + gamma(p * p + 8)
    step, norm_w = step * widen, norm_w * widen
    linear = linear * widen + gamma(p + 8) * (step * (2.0 + norm_w) + 2.0 * float(np.linalg.norm(removal.g)))
    rho = up(anchor.rho + after.envelope_W)
    eta = norm_w
    nu = bounds.theorem2(up(linear + after.envelope_g), step, metric.M, rho) if np.isfinite(step) else np.inf
    b = up(metric.M * step)
    q = (1.0 - rho - eta) * float(np.exp(-min(b, 700.0))) * (1.0 - 1e-12)
    t = bounds.theorem1(nu, metric.M, q)
    # w was rounded after the step: w = w0 + V'pi + delta with |delta| <= u |w| + gamma |V|'|pi|.
    place = up(weight) * bounds.UNIT * 4.0 + gamma(p + 4) * up(spread)
    distance = up(metric.k_G * t + place)
    assumptions = {
        "nu": nu,
        "M": metric.M,
        "b": b,
        "eta": eta,
        "rho": rho,
        "k_G": metric.k_G,
        "step": step,
        "rounding_envelope": up(metric.k_G * after.envelope_g + place),
    }
    return after, Solution(report.w, _finite(distance), "theorem-2", assumptions, up(weight))


def improve(
    problem: Problem,
    rows: Rows,
    weight: FloatArray,
    release: Release,
    start: FloatArray,
    target: float,
    *,
    anchor: Anchor | None = None,
    fresh: float = 2.0**-6,
    max_passes: int = 100,
) -> tuple[Anchor, Solution]:
    """Make passes over the kept rows until the distance in the release metric is at most `target`.

    Parameters
    ----------
    weight : array like ``rows.weight``
        Weights, 0 for rows that are being deleted.
    start : array of shape (p,)
    target : float
        In the G norm. Where rounding makes it unreachable, the best bound found is returned.
    anchor : Anchor or None
        State before, rows removed included; its factor is used as long as it serves.
    fresh : float
        Form the Hessian anew at the end if linear predictors have moved by more than this (over kappa) since it was
        formed. Small values make the bound sharp and the anchor good for many deletions.

    Raises
    ------
    CannotCertify
        The Hessian is singular in float64 at a point of the search.
    """
    work = _Work(problem, rows, weight, release, max_passes)
    metric = None if anchor is None else work.downdated(anchor)
    w = start
    if metric is None:
        metric = work.metric(w)
    g = work.gradient(w, metric)
    while True:
        metric, found = work.certify(w, g, metric, target)
        done = found is not None and found.distance <= target
        if done and problem.loss.kappa * g.moved > fresh:
            metric = work.metric(w)
            g = replace(g, moved=0.0)
            continue
        if not done and work.passes < max_passes:
            step = work.advance(w, g, metric)
            if step is not None:
                w, g, metric = step
                continue
        metric, found = work.certify(w, g, metric, np.inf)
        assert found is not None
        return work.anchor(w, g, metric, found), found


@dataclass(frozen=True)
class _Gradient:
    """Gradient at a point, penalty included, with what its rounding envelope needs."""

    value: FloatArray
    slopes: float
    moved: float


class _Work:
    """Passes over the kept rows, counted."""

    def __init__(self, problem: Problem, rows: Rows, weight: FloatArray, release: Release, max_passes: int) -> None:
        self.problem, self.release = problem, release
        self.x, self.y, _ = rows.blocks()
        self.s = weight.reshape(self.y.shape)
        self.peak = rows.peak
        self.total_weight = float(weight.sum())
        self.passes, self.max_passes = 0, max_passes

    def gradient(self, w: FloatArray, metric: Metric) -> _Gradient:
        self.passes += 1
        value, slopes, moved = newton.gradient(self.problem.loss, self.x, self.y, self.s, w, metric.point)
        return _Gradient(value + self.problem.penalty * w, float(slopes), float(moved))

    def metric(self, w: FloatArray) -> Metric:
        """Form and factorise the Hessian at w. M and k_G follow in `certify`, where they are needed."""
        self.passes += 1
        loss, p = self.problem.loss, len(w)
        hessian = newton.curvature(loss, self.x, self.y, self.s, w) + np.diag(self.problem.penalty)
        inverse = newton.factorise(hessian)
        if inverse is None:
            raise CannotCertify(
                "The Hessian is singular in float64, so the minimiser is not unique or does not exist (separable "
                "classes, duplicate columns). Add a penalty (a smaller C or a larger alpha) or remove columns. "
                "Nothing was changed."
            )
        score = gamma(p + 2) * float(self.peak @ np.abs(w))
        relative = gamma(newton.chain(len(self.s), self.s[0].size) + 64) + 4.0 * loss.kappa * score
        root = np.sqrt(np.diag(hessian)) * (1 + 2.0**-20)
        return self._bounded(w, hessian, inverse, root, relative)

    def _bounded(
        self, w: FloatArray, hessian: FloatArray, inverse: FloatArray, root: FloatArray, relative: float
    ) -> Metric:
        rho = bounds.sandwich(hessian, inverse, root, relative)
        if not rho < 0.5:
            raise CannotCertify(
                f"The Hessian is too ill-conditioned to bound in float64 (relative uncertainty {rho:.2g}, below 0.5 "
                "is needed). Scale the features (StandardScaler), remove nearly duplicate columns or add a penalty. "
                "Nothing was changed."
            )
        to_release = self.release.factor.T @ inverse.T
        return Metric(w, hessian, inverse, root, relative, rho, np.nan, np.nan, to_release)

    def downdated(self, anchor: Anchor) -> Metric | None:
        """The anchor's metric after its removals, factorised anew; None where that would not serve."""
        removal, old = anchor.removal, anchor.metric
        if not np.any(removal.W):
            return with_release(anchor, self.release).metric
        eta = float(np.linalg.norm(removal.W)) * (1 + 2.0**-30) + anchor.envelope_W
        low = 1.0 - anchor.rho - eta
        inverse = newton.factorise(removal.H) if low > 0.05 else None
        if inverse is None:
            return None
        metric = self._bounded(anchor.w, removal.H, inverse, old.root, anchor.relative)
        # Between the point of the old Hessian and the anchor the curvature drifted by at most anchor.rho - old.rho.
        drift = up(max(anchor.rho - old.rho, 0.0) * (1.0 + metric.rho) / low)
        rho = up(metric.rho + drift)
        if not rho < 0.5:
            return None
        M = up(old.M * np.sqrt(up((1.0 + rho) / low)))
        return replace(metric, rho=rho, M=M, k_G=self._k_G(inverse))

    def _k_G(self, inverse: FloatArray) -> float:
        return bounds.metric_constant(self.release.factor, inverse, self.release.root)

    def _M(self, inverse: FloatArray) -> float:
        kappa = self.problem.loss.kappa
        if kappa == 0.0:
            return 0.0
        self.passes += 1
        squared = float(newton.leverage(self.x, self.s, inverse))
        rounding = gamma(2 * len(inverse) + 8) * float(np.linalg.norm(np.abs(inverse) @ self.peak))
        return up(kappa * (np.sqrt(squared) * (1 + 2.0**-40) + 2.0 * rounding))

    def certify(self, w: FloatArray, g: _Gradient, metric: Metric, target: float) -> tuple[Metric, Solution | None]:
        """Bound the distance by theorem 1; None (and no further work) where it is plainly above the target."""
        p = len(w)
        white = metric.inverse_factor @ g.value
        newton_length = float(np.linalg.norm(metric.to_release @ white))
        if newton_length > 2.0 * target:
            return metric, None
        if np.isnan(metric.M):
            metric = replace(metric, M=self._M(metric.inverse_factor))
        if np.isnan(metric.k_G):
            metric = replace(metric, k_G=self._k_G(metric.inverse_factor))
        envelope = self._envelope(w, g, metric)
        nu = up(float(np.linalg.norm(white)) * (1.0 + gamma(p + 4)) + envelope)
        grow = float(np.exp(min(self.problem.loss.kappa * g.moved * (1.0 + gamma(p + 8)), 600.0))) * (1.0 + 2.0**-40)
        low, high = (1.0 - metric.rho) / grow * (1.0 - 2.0**-40), up((1.0 + metric.rho) * grow)
        newton_length = up(newton_length * (1.0 + gamma(p + 4)) + metric.k_G * (envelope + gamma(3 * p) * nu))
        distance = bounds.measured_distance(nu, metric.M, low, high, newton_length, metric.k_G)
        assumptions = {
            "nu": nu,
            "M": metric.M,
            "b": up(metric.M * nu),
            "eta": 0.0,
            "rho": up(max(1.0 - low, high - 1.0)),
            "k_G": metric.k_G,
            "step": 0.0,
            "rounding_envelope": up(metric.k_G * envelope),
        }
        weight = up(float(np.abs(w) @ self.release.root))
        return metric, Solution(w, _finite(distance), "theorem-1", assumptions, weight, self.passes)

    def _envelope(self, w: FloatArray, g: _Gradient, metric: Metric) -> float:
        absolute = np.abs(metric.inverse_factor)
        root, p = self.release.root_x, len(w)
        widen = 1.0 + 2.0**-30
        rows = bounds.gradient_envelope(
            reach=float(np.linalg.norm(absolute @ root)) * widen,
            slopes=float(np.sqrt(g.slopes)) * widen,
            weights=float(np.sqrt(self.total_weight)) * widen,
            predictor=float(np.abs(w) @ root) * widen,
            penalty=float(np.linalg.norm(absolute @ np.abs(self.problem.penalty * w))) * widen,
            n_terms=newton.chain(len(self.s), self.s[0].size),
            p=p,
            curvature_bound=self.problem.loss.curvature_bound,
        )
        return up(rows + gamma(p + 4) * float(np.linalg.norm(absolute @ np.abs(g.value))) * widen)

    def advance(self, w: FloatArray, g: _Gradient, metric: Metric) -> tuple[FloatArray, _Gradient, Metric] | None:
        """Take a step that shrinks the gradient; None at the rounding floor."""
        at_w = metric.point is w
        white = metric.inverse_factor @ g.value
        alpha = 1.0
        while self.passes < self.max_passes:
            size = float(np.linalg.norm(white))
            trial = w - alpha * (metric.inverse_factor.T @ white)
            found = self.gradient(trial, metric)
            left = float(np.linalg.norm(metric.inverse_factor @ found.value))
            if left <= (1.0 - 0.25 * alpha) * size:
                if left > _STALE * size:
                    metric, found = self.metric(trial), replace(found, moved=0.0)
                return trial, found, metric
            if size <= 4.0 * self._envelope(w, g, metric):
                return None
            if not at_w:
                metric, at_w, alpha = self.metric(w), True, 1.0
                white = metric.inverse_factor @ g.value
                continue
            alpha *= 0.5
            if alpha < 2.0**-30:
                return None
        return None

    def anchor(self, w: FloatArray, g: _Gradient, metric: Metric, found: Solution) -> Anchor:
        p = len(w)
        removal = Removal(np.zeros((p, p)), np.eye(p), metric.inverse_factor @ g.value, metric.hessian)
        return Anchor(
            metric=metric,
            release=self.release,
            w=w,
            rho=found.assumptions["rho"],
            removal=removal,
            pi=np.zeros(p),
            envelope_g=self._envelope(w, g, metric),
            envelope_W=0.0,
            relative=metric.relative,
        )


def with_release(anchor: Anchor, release: Release) -> Anchor:
    """Return the anchor with its constants for another release metric (new exponents of the exact Gram matrix)."""
    metric = anchor.metric
    k_G = bounds.metric_constant(release.factor, metric.inverse_factor, release.root)
    metric = replace(metric, k_G=k_G, to_release=release.factor.T @ metric.inverse_factor.T)
    return replace(anchor, metric=metric, release=release)


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("inf")
