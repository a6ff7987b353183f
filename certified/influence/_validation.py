"""Changes of losses, mean predictions and predictions on validation rows, from changes of the coefficients.

Theorem 5 of ``docs/theory/influence.rst``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from certified._convex import bounds, derivatives
from certified._convex.bounds import UNIT, gamma, up
from certified._convex.derivatives import Blocks
from certified._convex.leave_out import LeftOut, Setting
from certified._convex.losses import LogCosh, Logistic, Loss, Squared
from certified.influence._record import Change
from certified.typing import FloatArray

__all__ = ["by_group", "predictions"]

_NONE = np.zeros((1, 1))
_AT_ONCE = 1 << 22  # entries of a matrix of subjects and rows


class _Quantity(NamedTuple):
    """A sum of smooth functions of the predictors, near the point.

    ``|D^2[v, v]| <= v'H v``, which changes by factors within ``exp(+-M ||move||_A)``.
    """

    gradient: FloatArray
    H: FloatArray
    convex: bool  # H is the second derivative itself
    M: float
    rounding: float  # of the gradient, whitened and rounded up


def by_group(
    base: Setting, found: LeftOut, errors: FloatArray, x: FloatArray, y: Any, s: FloatArray, offset: FloatArray, by: Any
) -> tuple[list[Any], Change | None, Change | None]:
    """Return the groups, the changes of the mean loss (with y) and of the mean prediction (of one predictor)."""
    groups = [None] if by is None else np.unique(by).tolist()
    losses, means = [], []
    for group in groups:
        rows = np.ones(len(x), dtype=bool) if group is None else np.asarray(by) == group
        share = s[rows] / max(float(s[rows].sum()), 1e-300)
        if y is not None:
            losses.append(_changed(base, found, errors, _loss(base, x[rows], y[rows], share, offset[rows])))
        if base.problem.loss.outputs == 1:
            means.append(_changed(base, found, errors, _mean(base, x[rows], share, offset[rows])))
    return ([] if by is None else groups), _together(losses, by), _together(means, by)


def _together(parts: list[Change], by: Any) -> Change | None:
    if not parts:
        return None
    if by is None:
        return parts[0]
    return Change(np.column_stack([c.value for c in parts]), np.column_stack([c.error for c in parts]))


def _changed(base: Setting, found: LeftOut, errors: FloatArray, of: _Quantity) -> Change:
    """Theorem 5."""
    step, e, d, V = found.size, errors, base.distance, base.inverse_factor
    P = len(of.gradient)
    white = V @ of.H @ V.T
    a = float(base.errors @ np.sqrt(np.diag(of.H)))
    top = up(bounds.largest_eigenvalue(white) + gamma(4 * P + 4096) * a * a)
    slope = up(float(np.linalg.norm(V @ of.gradient)) * (1.0 + gamma(2 * P)) + of.rounding)
    linear = found.change @ of.gradient
    square = np.einsum("mp,mp->m", found.change @ of.H, found.change)
    far = step + e + d
    with np.errstate(all="ignore"):
        factor = np.where(of.M * far < 700.0, np.exp(np.minimum(of.M * far, 700.0)), np.inf)
        error = e * (slope + top * factor * far) + d * top * factor * step
        if of.convex:
            value = linear + 0.5 * square
            error = error + (of.M * step / 6.0) * factor * top * step**2
        else:
            value = linear
            error = error + 0.5 * factor * top * step**2
        error = error + of.rounding * step + gamma(2 * P + 16) * (slope * step + a * a * step**2)
        error = error * (1.0 + 2.0**-30) + 1e-300
    return Change(value, np.where(np.isnan(error), np.inf, error))


def _longest(loss: Loss, x: FloatArray, base: Setting) -> float:
    """At least kappa times the length of any row, whitened."""
    if loss.kappa == 0.0 or not len(x):
        return 0.0
    rows = Blocks(x[None], _NONE, np.ones((1, len(x))), _NONE)
    squared = float(derivatives.leverage(loss, rows, base.inverse_factor))
    rounding = (
        2.0
        * gamma(2 * len(base.point) + 8)
        * float(np.max(np.abs(x) @ base.errors.reshape(loss.outputs, -1).sum(axis=0)))
    )
    return up(loss.kappa * (np.sqrt(squared) + rounding))


def _loss(base: Setting, x: FloatArray, y: FloatArray, s: FloatArray, offset: FloatArray) -> _Quantity:
    loss, w = base.problem.loss, base.point
    rows = Blocks(x[None], y[None], s[None], offset[None])
    found = derivatives.gradient(loss, rows, w)
    H = np.asarray(derivatives.curvature(loss, rows, w))
    p = x.shape[1]
    chain = gamma(derivatives.chain(1, len(x)) + 4 * p + 64)
    reach = np.abs(x) @ base.errors.reshape(loss.outputs, -1).T
    score = np.abs(x) @ np.abs(w.reshape(loss.outputs, -1)).T + np.abs(offset)[:, None]
    slopes = float(np.sqrt(found.slopes)) + 32.0 * UNIT * float(np.sqrt(found.sizes))
    bend = 2.0 * float(found.bend) * gamma(p + 4)
    # Cauchy-Schwarz: sum s |x| |slope| <= (sum s |x|^2)^(1/2) (sum s slope^2)^(1/2)
    root = float(np.sqrt(s @ np.square(reach).sum(axis=1)))
    rounding = root * (chain * slopes + 32.0 * UNIT * float(np.sqrt(found.sizes)))
    rounding += bend * root * float(np.sqrt(s @ np.square(score).sum(axis=1)))
    return _Quantity(np.asarray(found.gradient), H, True, _longest(loss, x, base), up(rounding))


def _response(loss: Loss, z: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The mean of the target and its derivative in the predictor."""
    if isinstance(loss, Logistic):
        p = 1.0 / (1.0 + np.exp(-np.clip(z, -700.0, 700.0)))
        return p, p * (1.0 / (1.0 + np.exp(np.clip(z, -700.0, 700.0))))
    if isinstance(loss, Squared | LogCosh):
        return z, np.ones_like(z)
    mean = np.exp(z)
    return mean, mean


def _mean(base: Setting, x: FloatArray, s: FloatArray, offset: FloatArray) -> _Quantity:
    """The mean prediction; the second derivative of a response is at most its first one, times the link's 0 or 1."""
    loss, w = base.problem.loss, base.point
    slope = _response(loss, x @ w + offset)[1]
    curved = 0.0 if isinstance(loss, Squared | LogCosh) else 1.0
    scaled = x * np.sqrt(s * slope)[:, None]
    H = curved * (scaled.T @ scaled)
    score = np.abs(x) @ np.abs(w) + np.abs(offset)
    rounding = float((s * slope) @ ((np.abs(x) @ base.errors) * (gamma(len(x) + 64) + 2.0 * gamma(len(w) + 8) * score)))
    M = _longest(loss, x, base) / loss.kappa if curved else 0.0
    return _Quantity(x.T @ (s * slope), H, False, up(M), up(rounding))


def predictions(base: Setting, found: LeftOut, errors: FloatArray, x: FloatArray, offset: FloatArray) -> Change:
    """Changes of the prediction for every row, shape (m, n), with bounds."""
    loss, w, P = base.problem.loss, base.point, len(base.point)
    reach = np.abs(x) @ base.errors
    length = np.sqrt(np.square(x @ base.inverse_factor.T).sum(axis=1)) * (1.0 + gamma(P + 4)) + gamma(P + 4) * reach
    z = x @ w + offset
    off = length * base.distance + gamma(P + 8) * (np.abs(x) @ np.abs(w) + np.abs(offset))
    m, n = len(errors), len(x)
    value, error = np.empty((m, n)), np.empty((m, n))
    for start in range(0, m, max(1, _AT_ONCE // max(n, 1))):
        part = slice(start, start + max(1, _AT_ONCE // max(n, 1)))
        moved = found.change[part] @ x.T
        with np.errstate(all="ignore"):
            spread = np.multiply.outer(errors[part], length)
            spread += 3.0 * gamma(P + 8) * np.multiply.outer(found.size[part], reach)
            before, slope = _response(loss, z)
            after = _response(loss, z + moved)[0]
            value[part] = after - before
            if isinstance(loss, Squared | LogCosh):
                error[part] = spread + 4.0 * UNIT * (np.abs(z) + np.abs(moved))
            else:
                # f(z + a + move + e) - f(z + a): along e f' is at most its value times exp of the distance; along a
                # the difference of two slopes, again f' times exp - 1.
                far = np.abs(moved) + spread + off
                rise = slope * np.exp(np.minimum(far, 700.0))
                error[part] = rise * (spread + off * np.expm1(np.minimum(far, 700.0)))
                error[part] += 64.0 * UNIT * (np.abs(before) + np.abs(after)) + 8.0 * UNIT * rise * np.abs(z)
            error[part] = np.where(np.isnan(error[part]), np.inf, error[part] * (1.0 + 2.0**-30))
    return Change(value, error)
