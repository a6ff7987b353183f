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

from certified import bounds, newton
from certified.bounds import gamma, up
from certified.errors import CannotCertify
from certified.newton import Blocks, Removal
from certified.objective import Problem, Release
from certified.rows import Rows
from certified.typing import FloatArray

__all__ = ["Anchor", "Metric", "Solution", "forget", "improve", "reweighted", "with_release"]

_STALE = 0.2  # rebuild the Hessian when a pass shrinks the gradient by less than this factor
_STILL = 2.0**-7  # movement of the predictors below which a bound will do
_LOWEST = 0.25  # rebuild the Hessian when the kept rows may have less than this part of it in some direction
_SPECTRAL, _MANY = 0.25, 32  # removals worth an eigenvalue: size of W, number of rows


@dataclass(frozen=True)
class Metric:
    """The metric ``A = (V'V)^-1`` and how the Hessian of the kept rows compares with it.

    In whitened coordinates the Hessian at ``point`` is ``I - W`` up to ``rho + drift``: W is what was removed since it
    was formed, rho is rounding, and drift is how far the curvature can have moved between the points used since.

    Attributes
    ----------
    point : array of shape (p,)
    inverse_factor : array of shape (p, p)
        V.
    root : array of shape (p,)
        Upper bounds of the square roots of the diagonal of everything added up to the Hessian.
    W, P : arrays of shape (p, p)
        What was removed, and an approximate inverse of ``I - W``.
    eta, rho, drift : float
        ``||W||_2 <= eta`` and ``||V Hess F(point) V' - (I - W)||_2 <= rho + drift``.
    M : float
        At least ``kappa max ||x_i||_{A^-1}`` over the kept rows (for several predictors: of their differences).
    k_G : float
        ``||v||_G <= k_G ||v||_A`` for the release metric G and every v.
    ridge : array of shape (P, P) or None
        ``V diag(pattern) V'``, where rows take a part of the penalty with them.
    """

    point: FloatArray
    inverse_factor: FloatArray
    root: FloatArray
    W: FloatArray
    P: FloatArray
    eta: float
    rho: float
    drift: float
    M: float
    k_G: float
    ridge: FloatArray | None = None

    @property
    def low(self) -> float:
        """Lower bound of the Hessian at the point: ``Hess F(point) >= low A``."""
        return 1.0 - up(self.rho + self.drift + self.eta)

    def place(self, w: FloatArray, pi: FloatArray, root: FloatArray) -> float:
        """Bound the rounding of ``w = point + V'pi`` in any norm whose unit vectors have lengths at most `root`."""
        spread = (np.abs(pi) @ np.abs(self.inverse_factor)) @ root
        return up(up(float(np.abs(w) @ root)) * 4.0 * bounds.UNIT + gamma(len(w) + 4) * up(float(spread)))


@dataclass(frozen=True)
class Anchor:
    """A metric whose gradient at ``metric.point`` is known, and the rows removed since it was measured.

    Attributes
    ----------
    metric : Metric
    release : Release
        The release metric for which ``metric.k_G`` was computed; later, smaller ones are covered.
    g : array of shape (p,)
        Whitened gradient of the kept rows at the point.
    pi : array of shape (p,)
        Whitened Newton step from the point to the present parameter.
    envelope_g : float
        Bounds the rounding error of g.
    strength : float
        Of the penalty in g.
    """

    metric: Metric
    release: Release
    g: FloatArray
    pi: FloatArray
    envelope_g: float
    strength: float

    @property
    def here(self) -> FloatArray:
        """The present parameter, shape (p,)."""
        with np.errstate(all="ignore"):
            return self.metric.point + self.pi @ self.metric.inverse_factor


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


def forget(problem: Problem, anchor: Anchor, rows: Blocks) -> tuple[Anchor, Solution]:
    """Remove rows by theorem 2: O(k p^2) for k rows, whatever the number of rows kept.

    `problem` is that of the rows kept; if its penalty is weaker than the anchor's, the difference is removed as well.
    """
    old, p = anchor.metric, len(anchor.g)
    with np.errstate(all="ignore"):
        before = Removal(old.W, old.P, anchor.g)
        (W, P, g), more_g, more_W = newton.remove(problem.loss, old.point, old.inverse_factor, before, rows)
        if old.ridge is not None:
            W, g, add_g, add_W = _less_penalty(problem, anchor, W, g)
            more_g, more_W = more_g + add_g, more_W + add_W
        pi = -(P @ g)
        linear = float(np.linalg.norm(g + pi - W @ pi))
    # The norms were computed with O(p) roundings each.
    widen = 1.0 + gamma(p * p + 8)
    step = float(np.linalg.norm(pi)) * widen
    eta = frobenius = float(np.linalg.norm(W)) * widen
    if eta > _SPECTRAL and rows.s.size > _MANY:
        eta = min(eta, bounds.largest_eigenvalue(W))
    linear = linear * widen + gamma(p + 8) * (step * (2.0 + frobenius) + 2.0 * float(np.linalg.norm(g)))
    metric = replace(old, W=W, P=P, eta=eta, rho=up(old.rho + more_W))
    after = replace(
        anchor, metric=metric, g=g, pi=pi, envelope_g=up(anchor.envelope_g + more_g), strength=problem.strength
    )
    rho = up(metric.rho + metric.drift)
    nu = bounds.theorem2(up(linear + after.envelope_g), step, metric.M, rho) if np.isfinite(step) else np.inf
    b = up(metric.M * step)
    t = bounds.theorem1(nu, metric.M, metric.low * float(np.exp(-min(b, 700.0))) * (1.0 - 1e-12))
    w = after.here
    place = metric.place(w, pi, anchor.release.root)
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
    distance = up(metric.k_G * t + place)
    return after, Solution(w, _finite(distance), "theorem-2", assumptions, up(float(np.abs(w) @ anchor.release.root)))


def _less_penalty(
    problem: Problem, anchor: Anchor, W: FloatArray, g: FloatArray
) -> tuple[FloatArray, FloatArray, float, float]:
    """Remove the part of the penalty that went with the rows; return W, g and their added rounding envelopes."""
    metric, p = anchor.metric, len(g)
    assert metric.ridge is not None
    lost = anchor.strength - problem.strength
    pull = problem.pattern * metric.point
    absolute = np.abs(metric.inverse_factor)
    g = g - lost * (metric.inverse_factor @ pull)
    W = W + lost * metric.ridge
    length = float(np.linalg.norm(absolute @ np.abs(pull)))
    square = float(np.sum((absolute * problem.pattern) ** 2))
    of_g = (gamma(p + 8) * abs(lost) + 4.0 * bounds.UNIT * anchor.strength) * length + 4.0 * bounds.UNIT * _length(g)
    of_W = (gamma(2 * p + 8) * abs(lost) + 4.0 * bounds.UNIT * anchor.strength) * square + 4.0 * bounds.UNIT * _length(
        W
    )
    return W, g, up(of_g), up(of_W)


def _length(array: FloatArray) -> float:
    return float(np.linalg.norm(array))


def improve(
    problem: Problem,
    rows: Rows,
    weight: FloatArray,
    release: Release,
    start: FloatArray,
    target: float,
    *,
    anchor: Anchor | None = None,
    fresh: float = 2.0**-5,
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
        Form the Hessian anew if the curvature can have drifted by more than this since it was formed. Small values
        make the anchor good for many deletions.

    Raises
    ------
    CannotCertify
        The Hessian is singular in float64 at a point of the search.
    """
    work = _Work(problem, rows, weight, release, max_passes)
    metric = None if anchor is None else work.reused(anchor)
    w, moved = start, np.inf
    if anchor is None or metric is None:
        metric = work.metric(w)
    elif np.array_equal(w, anchor.here):
        moved = work.moved(0.0, metric, w, anchor.pi)
    g = work.gradient(w, metric, moved)
    while True:
        near = work.newton_length(g, metric) <= 2.0 * target
        if near and up(g.moved + metric.drift) > fresh and work.passes < max_passes:
            metric = work.metric(w)
            g = replace(g, moved=0.0)
            continue
        if near:
            metric = work.measured(metric)
            found = work.certify(w, g, metric)
        if not (near and found.distance <= target) and work.passes < max_passes:
            step = work.advance(w, g, metric)
            if step is not None:
                w, g, metric = step
                continue
        metric = work.measured(metric)
        found = work.certify(w, g, metric)
        return work.anchor(w, g, metric), found


@dataclass(frozen=True)
class _Gradient:
    """Gradient at a point, penalty included, with what its rounding envelope needs.

    ``moved`` bounds kappa times the change of any kept row's linear predictor since ``metric.point``.
    """

    value: FloatArray
    slopes: float
    sizes: float
    bend: float
    moved: float


class _Work:
    """Passes over the kept rows, counted."""

    def __init__(self, problem: Problem, rows: Rows, weight: FloatArray, release: Release, max_passes: int) -> None:
        self.problem, self.release = problem, release
        x, y, _, offset = rows.blocks()
        self.rows = Blocks(x, y, weight.reshape(y.shape), offset)
        self.chain = newton.chain(len(y), y[0].size)
        # Upper bounds of the root mean square and of the largest offset, for rounding.
        self.offset = 0.0 if rows.offset is None else up(float(np.sqrt(np.sum(self.rows.s * offset**2))))
        self.most_offset = 0.0 if rows.offset is None else float(np.max(np.abs(offset)))
        # At least the largest absolute value of each column; it serves bounds of rounding errors only.
        self.peak = np.ldexp(1.0, release.products.exponents) if rows.unweighted else rows.peak
        self.passes, self.max_passes = 0, max_passes

    def gradient(self, w: FloatArray, metric: Metric, moved: float = np.inf) -> _Gradient:
        """Pass at w. The predictors' movement is measured too, unless a small bound of it is given."""
        self.passes += 1
        loss = self.problem.loss
        found = newton.gradient(loss, self.rows, w)
        move = w - metric.point
        if loss.kappa == 0.0 or not np.any(move):
            moved = 0.0
        elif not moved <= _STILL:
            measured = float(newton.reach(loss, self.rows, move))
            moved = up(loss.kappa * (measured + 2.0 * gamma(len(w) + 8) * self._largest_predictor(move)))
        value = found.gradient + self.problem.slope(w)
        return _Gradient(value, float(found.slopes), float(found.sizes), float(found.bend), moved)

    def _largest_predictor(self, w: FloatArray) -> float:
        """Upper bound of the sum of the absolute terms of any predictor."""
        return up(float(np.max(np.abs(w).reshape(self.problem.loss.outputs, -1) @ self.peak)))

    def metric(self, w: FloatArray) -> Metric:
        """Form and factorise the Hessian at w. M and k_G follow in `measured`, when they are needed."""
        self.passes += 1
        loss, p = self.problem.loss, len(w)
        hessian = newton.curvature(loss, self.rows, w) + self.problem.curvature()
        inverse = newton.factorise(hessian)
        if inverse is None:
            raise CannotCertify(
                "The Hessian is singular in float64, so the minimiser is not unique or does not exist (separable "
                "classes, duplicate columns). Add a penalty (a smaller C or a larger alpha) or remove columns. "
                "Nothing was changed."
            )
        score = gamma(p + 4) * (self._largest_predictor(w) + self.most_offset)
        relative = gamma(self.chain + 2048) + 4.0 * loss.kappa * score
        diagonal = np.diag(hessian) if loss.outputs == 1 else self.release.root_x**2 + np.diag(self.problem.curvature())
        root = np.sqrt(diagonal) * (1 + 2.0**-20)
        rho = bounds.sandwich(hessian, inverse, root, relative)
        if not rho < 0.5:
            raise CannotCertify(
                f"The Hessian is too ill-conditioned to bound in float64 (relative uncertainty {rho:.2g}, below 0.5 "
                "is needed). Scale the features (StandardScaler), remove nearly duplicate columns or add a penalty. "
                "Nothing was changed."
            )
        ridge = (inverse * self.problem.pattern) @ inverse.T if self.problem.ridged else None
        return Metric(w, inverse, root, np.zeros((p, p)), np.eye(p), 0.0, rho, 0.0, np.nan, np.nan, ridge)

    def reused(self, anchor: Anchor) -> Metric | None:
        """The anchor's metric for the release metric at hand; None where too much was removed for it to serve."""
        if not anchor.metric.low > _LOWEST:
            return None
        return with_release(anchor, self.release).metric

    def measured(self, metric: Metric) -> Metric:
        """Return the metric with M (one pass) and k_G."""
        if np.isnan(metric.M):
            metric = replace(metric, M=self._M(metric.inverse_factor))
        if np.isnan(metric.k_G):
            k_G = bounds.metric_constant(self.release.factor, metric.inverse_factor, self.release.root)
            metric = replace(metric, k_G=k_G)
        return metric

    def _M(self, inverse: FloatArray) -> float:
        loss = self.problem.loss
        if loss.kappa == 0.0:
            return 0.0
        self.passes += 1
        squared = float(newton.leverage(loss, self.rows, inverse))
        rounding = gamma(2 * len(inverse) + 8) * _length(np.abs(inverse) @ np.tile(self.peak, loss.outputs))
        return up(loss.kappa * (np.sqrt(squared) * (1 + 2.0**-40) + 2.0 * rounding))

    def newton_length(self, g: _Gradient, metric: Metric) -> float:
        """Length of the Newton step in the release metric, roughly."""
        return float(np.linalg.norm(self.release.factor.T @ self.step(g, metric)[2]))

    def step(self, g: _Gradient, metric: Metric) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Whitened gradient, whitened Newton step and Newton step, the steps with the sign of the gradient."""
        white = metric.inverse_factor @ g.value
        pi = metric.P @ white
        return white, pi, pi @ metric.inverse_factor

    def certify(self, w: FloatArray, g: _Gradient, metric: Metric) -> Solution:
        """Bound the distance by theorem 1 and its corollary."""
        p = len(w)
        white, pi, step = self.step(g, metric)
        envelope = self._envelope(w, g, metric)
        nu = up(float(np.linalg.norm(white)) * (1.0 + gamma(p + 4)) + envelope)
        length = up(float(np.linalg.norm(pi)) * (1.0 + gamma(p + 4)))
        residual = float(np.linalg.norm(white - pi + metric.W @ pi)) * (1.0 + gamma(p + 4))
        residual = up(residual + gamma(p + 8) * (nu + length * (2.0 + float(np.linalg.norm(metric.W)))) + envelope)
        spread = (np.abs(pi) @ np.abs(metric.inverse_factor)) @ self.release.root
        in_release = float(np.linalg.norm(self.release.factor.T @ step)) * (1.0 + gamma(p + 4))
        in_release = up(in_release + gamma(3 * p + 8) * float(spread))
        low, rho = self._drifted(g, metric)
        distance = bounds.measured_distance(nu, metric.M, low, rho, in_release, length, residual, metric.k_G)
        assumptions = {
            "nu": nu,
            "M": metric.M,
            "b": up(metric.M * nu),
            "eta": metric.eta,
            "rho": rho,
            "k_G": metric.k_G,
            "step": 0.0,
            "rounding_envelope": up(metric.k_G * envelope),
        }
        weight = up(float(np.abs(w) @ self.release.root))
        return Solution(w, _finite(distance), "theorem-1", assumptions, weight, self.passes)

    def _drifted(self, g: _Gradient, metric: Metric) -> tuple[float, float]:
        """Lower bound and uncertainty of the whitened Hessian after the predictors have moved (lemma 1)."""
        grow = up(np.expm1(min(g.moved, 600.0)))
        rho = up(metric.rho + metric.drift)
        return metric.low / (1.0 + grow) * (1.0 - 2.0**-40), up(rho + grow * (1.0 + rho))

    def _envelope(self, w: FloatArray, g: _Gradient, metric: Metric) -> float:
        absolute = np.abs(metric.inverse_factor)
        root, p = self.release.root_x, len(w)
        widen = 1.0 + 2.0**-30
        rows = bounds.gradient_envelope(
            reach=float(np.linalg.norm(absolute @ root)) * widen,
            slopes=float(np.sqrt(g.slopes)) * widen,
            sizes=float(np.sqrt(g.sizes)) * widen,
            predictor=(float(np.abs(w) @ root) + self.problem.loss.outputs * self.offset) * widen,
            penalty=float(np.linalg.norm(absolute @ (np.abs(self.problem.curvature()) @ np.abs(w)))) * widen,
            n_terms=self.chain,
            p=p,
            bend=2.0 * g.bend,
        )
        return up(rows + gamma(p + 4) * float(np.linalg.norm(absolute @ np.abs(g.value))) * widen)

    def advance(self, w: FloatArray, g: _Gradient, metric: Metric) -> tuple[FloatArray, _Gradient, Metric] | None:
        """Take a step that shrinks the gradient; None at the rounding floor."""
        formed_here = metric.point is w and metric.drift == 0.0
        white, pi, step = self.step(g, metric)
        alpha = 1.0
        while self.passes < self.max_passes:
            size = float(np.linalg.norm(white))
            trial = w - alpha * step
            found = self.gradient(trial, metric, self.moved(g.moved, metric, trial, alpha * pi))
            left = float(np.linalg.norm(metric.inverse_factor @ found.value))
            if left <= (1.0 - 0.25 * alpha) * size:
                if left > _STALE * size:
                    metric, found = self.metric(trial), replace(found, moved=0.0)
                return trial, found, metric
            if size <= 4.0 * self._envelope(w, g, metric):
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

    def moved(self, before: float, metric: Metric, w: FloatArray, pi: FloatArray) -> float:
        """Bound kappa times the movement of any predictor after a further step, by Cauchy-Schwarz; NaN without M."""
        length = float(np.linalg.norm(pi)) * (1.0 + 2.0**-30) + 2.0 * metric.place(w, pi, metric.root)
        return up(before + metric.M * length)

    def anchor(self, w: FloatArray, g: _Gradient, metric: Metric) -> Anchor:
        """The state to delete from: the same metric, seen from w."""
        _, rho = self._drifted(g, metric)
        here = replace(metric, point=w, drift=up(max(rho - metric.rho, 0.0)) if g.moved else metric.drift)
        white = metric.inverse_factor @ g.value
        envelope = self._envelope(w, g, metric)
        return Anchor(here, self.release, white, np.zeros(len(w)), envelope, self.problem.strength)


def reweighted(anchor: Anchor, spread: float) -> Anchor:
    """Return the anchor for rows whose weights have changed by factors within ``1 - spread`` and ``1 + spread``.

    Its gradient is no longer that of the rows: only its factor can be used.
    """
    metric = anchor.metric
    drift = up(metric.drift + up(spread) * (1.0 + metric.rho + metric.drift))
    return replace(anchor, metric=replace(metric, drift=drift))


def with_release(anchor: Anchor, release: Release) -> Anchor:
    """Return the anchor with k_G for another release metric, unless its own covers it (deletions shrink G)."""
    if anchor.release.covers(release):
        return anchor
    k_G = bounds.metric_constant(release.factor, anchor.metric.inverse_factor, release.root)
    return replace(anchor, metric=replace(anchor.metric, k_G=k_G), release=release)


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else float("inf")
