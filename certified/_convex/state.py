"""The state of a certified head as values: a metric, an anchor in it, a solution with its bound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from certified._convex import bounds
from certified._convex.bounds import gamma, up
from certified._convex.problem import NoiseMetric
from certified.typing import FloatArray

__all__ = ["Anchor", "Metric", "Solution", "Terms", "on_grid", "reweighted", "with_noise_metric"]


@dataclass(frozen=True)
class Metric:
    """The metric ``A = (V'V)^-1`` and how the Hessian of the retained rows compares with it.

    In whitened coordinates the Hessian at ``point`` is ``I - W`` up to ``rho + drift``: W is what was removed since it
    was formed, rho is rounding, and drift is how far the curvature can have moved since (lemma 2).

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
        At least ``kappa max ||x_i||_{A^-1}`` over the retained rows (for several predictors: of their differences).
    k_G : float
        ``||v||_G <= k_G ||v||_A`` for the noise metric G and every v.
    ridge : array of shape (P, P) or None
        ``V diag(penalized) V'``, where rows take a part of the penalty with them.
    rise : float
        ``-W <= rise``: what was added since the Hessian was formed, so that it is at most ``1 + rise + rho + drift``.
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
    rise: float = 0.0

    @classmethod
    def formed(
        cls,
        point: FloatArray,
        inverse_factor: FloatArray,
        root: FloatArray,
        rho: float,
        ridge: FloatArray | None = None,
    ) -> Metric:
        """A metric of the Hessian at a point, from which nothing has been removed; M and k_G are NaN: not measured."""
        p = len(point)
        return cls(
            point=point,
            inverse_factor=inverse_factor,
            root=root,
            W=np.zeros((p, p)),
            P=np.eye(p),
            eta=0.0,
            rho=rho,
            drift=0.0,
            M=np.nan,
            k_G=np.nan,
            ridge=ridge,
        )

    @classmethod
    def rough(cls, point: FloatArray, inverse_factor: FloatArray) -> Metric:
        """A metric of which nothing is known: good for steps, not for certificates."""
        return cls.formed(point, inverse_factor, np.zeros(len(point)), np.inf)

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
    """A metric whose gradient at ``metric.point`` is known, and the rows deleted since it was measured.

    Attributes
    ----------
    metric : Metric
    noise_metric : NoiseMetric
        The noise metric for which ``metric.k_G`` was computed; later, smaller ones are covered.
    g : array of shape (p,)
        Whitened gradient of the retained rows at the point.
    pi : array of shape (p,)
        Whitened Newton step from the point to the present parameter.
    envelope_g : float
        Bounds the rounding error of g.
    strength : float
        Of the penalty in g.
    """

    metric: Metric
    noise_metric: NoiseMetric
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
class Terms:
    """What a bound rests on; the legend of :class:`certified._keeper.assumptions.Assumptions` says what each field is.

    Attributes
    ----------
    nu, M, b, eta, rho, k_G, step, rounding_envelope : float
    """

    nu: float
    M: float
    b: float
    eta: float
    rho: float
    k_G: float
    rounding_envelope: float
    step: float = 0.0

    def finite(self) -> Terms:
        """Return the same with inf in place of NaN."""
        return Terms(**{name: bounds.or_inf(value) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Solution:
    """A parameter and a bound of its distance to the exact minimiser on the retained rows.

    Attributes
    ----------
    w : array of shape (p,)
    distance : float
        ``||w - w*||_G <= distance``; inf where nothing can be said.
    method : {"measured", "predicted"}
    terms : Terms
        Measured values that the bound rests on.
    weight : float
        At least ``sum_j |w_j| sqrt(G_jj)``: size of the whitened parameter, for its rounding error.
    passes : int
        Passes over the retained rows.
    """

    w: FloatArray
    distance: float
    method: str
    terms: Terms
    weight: float = 0.0
    passes: int = 0


def reweighted(anchor: Anchor, spread: float) -> Anchor:
    """Return the anchor for rows whose weights have changed by factors within ``1 - spread`` and ``1 + spread``.

    Its gradient is no longer that of the rows: only its factor can be used.
    """
    metric = anchor.metric
    drift = up(metric.drift + up(spread) * (1.0 + metric.rho + metric.drift + metric.rise))
    return replace(anchor, metric=replace(metric, drift=drift))


def with_noise_metric(anchor: Anchor, noise_metric: NoiseMetric) -> Anchor:
    """Return the anchor with k_G for another noise metric, unless its own covers it (deletions shrink G)."""
    if anchor.noise_metric.covers(noise_metric):
        return anchor
    k_G = bounds.metric_constant(noise_metric.factor, anchor.metric.inverse_factor, noise_metric.root)
    return replace(anchor, metric=replace(anchor.metric, k_G=k_G), noise_metric=noise_metric)


def on_grid(w: FloatArray, size: float, root: FloatArray, length: Callable[[FloatArray], float]) -> FloatArray:
    """Return w rounded to a grid, at most `size` away: what w remembers of rows that left ends at the grid.

    Parameters
    ----------
    w, root : arrays of shape (p,)
        The step of an entry is a power of two, inversely proportional to its entry of `root`.
    size : float
        Of it the power of two below counts.
    length : callable
        The norm in which `size` is meant.
    """
    if not (0.0 < size < np.inf and np.all(np.isfinite(w)) and np.all(root > 0.0)):
        return w
    exponent = np.floor(np.log2(size)) + np.floor(0.5 * np.log2(16.0 / len(w))) - np.ceil(np.log2(root))
    for _ in range(64):
        with np.errstate(over="ignore", invalid="ignore"):
            step = np.ldexp(1.0, np.clip(exponent, -1070, 1020).astype(np.int64))
            out = np.where(np.abs(w) < step * 2.0**52, np.rint(w / step) * step, w)
        if length(out - w) <= size:
            return out
        exponent -= 1.0
    return w
