"""Losses of a linear predictor, each with the constants that the theorems need.

A loss l(y, z) is convex in the linear predictor z and *generalised self-concordant*: ``|l'''| <= kappa * l''``.
To add one: subclass :class:`Loss`, write ``value``, ``slope`` and ``curvature``, state ``kappa``, ``curvature_scale``
and ``curvature_bound``, and prove them in ``docs/theory/bounds.rst``. The tests find every subclass by themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

__all__ = ["Logistic", "Loss", "Squared"]


@dataclass(frozen=True)
class Loss:
    """Base class of the losses. Instances are values: equal parameters make equal (and hashable) losses.

    Attributes
    ----------
    kappa : float
        Self-concordance constant, ``|l'''(y, z)| <= kappa * l''(y, z)`` for every y and z.
    curvature_bound : float
        Upper bound of ``l''``: the Lipschitz constant of ``l'``.
    curvature_scale : float
        The constant c of the release metric ``G = c * sum s_i x_i x_i' + Lambda0``.
    """

    kappa: ClassVar[float]
    curvature_bound: ClassVar[float]
    curvature_scale: ClassVar[float]

    def value(self, y: Any, z: Any) -> Any:
        """Return l(y, z)."""
        raise NotImplementedError

    def slope(self, y: Any, z: Any) -> Any:
        """Return l'(y, z), the derivative in z, to a few units in the last place of ``max(1, |l'|)``."""
        raise NotImplementedError

    def curvature(self, y: Any, z: Any) -> Any:
        """Return l''(y, z), to a few units in its last place."""
        raise NotImplementedError


@dataclass(frozen=True)
class Squared(Loss):
    """l = (z - y)^2 / 2, identity link. Quadratic, so kappa = 0 and a Newton step is exact."""

    kappa: ClassVar[float] = 0.0
    curvature_bound: ClassVar[float] = 1.0
    curvature_scale: ClassVar[float] = 1.0

    def value(self, y: Any, z: Any) -> Any:
        return 0.5 * (z - y) ** 2

    def slope(self, y: Any, z: Any) -> Any:
        return z - y

    def curvature(self, y: Any, z: Any) -> Any:
        return jnp.ones_like(z)


@dataclass(frozen=True)
class Logistic(Loss):
    """l = log(1 + e^z) - y z for y in {0, 1}, logit link.

    With p = 1 / (1 + e^-z): l'' = p (1 - p) <= 1/4 and l''' = (1 - 2p) l'', hence kappa = 1.
    """

    kappa: ClassVar[float] = 1.0
    curvature_bound: ClassVar[float] = 0.25
    curvature_scale: ClassVar[float] = 0.25

    def value(self, y: Any, z: Any) -> Any:
        return jnp.logaddexp(0.0, z) - y * z

    def slope(self, y: Any, z: Any) -> Any:
        return jax.nn.sigmoid(z) - y

    def curvature(self, y: Any, z: Any) -> Any:
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)
