"""Losses of a linear predictor, each with the constants that the theorems need.

A loss l(y, z) is convex in the linear predictor z and *generalised self-concordant*: ``|l'''| <= kappa * l''``.
To add one: subclass :class:`Loss`, write ``value``, ``gradient``, ``curvature`` and ``rounding_scale``, state
``kappa`` and prove it in ``docs/theory/losses.rst``. The tests find every subclass by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Gamma", "LogCosh", "Logistic", "Loss", "Poisson", "Softmax", "Squared", "Tweedie"]


@dataclass(frozen=True)
class Loss:
    """Base class of the losses. Instances are values: equal parameters make equal (and hashable) losses."""

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        """Which y are allowed: in words, and as a function of an array that is true where they are."""
        return "finite numbers", np.isfinite

    @property
    def kappa(self) -> float:
        """Self-concordance constant: ``|l'''(y, z)| <= kappa * l''(y, z)`` for every y and z."""
        raise NotImplementedError

    @property
    def outputs(self) -> int:
        """Number of linear predictors of a row."""
        return 1

    @property
    def curvature_bound(self) -> float:
        """Upper bound of l'' in any direction, infinity where there is none."""
        return math.inf

    def scale(self, mean: float) -> float:
        """Return a typical curvature where targets have this mean: the c of ``G = c sum s_i x_i x_i' + Lambda0``."""
        raise NotImplementedError

    def value(self, y: Any, z: Any) -> Any:
        """Return l(y, z)."""
        raise NotImplementedError

    def gradient(self, y: Any, z: Any) -> Any:
        """Return l'(y, z), the derivative in z, to 32 units in the last place of :meth:`rounding_scale`."""
        raise NotImplementedError

    def curvature(self, y: Any, z: Any) -> Any:
        """Return l''(y, z), to a few units in its last place."""
        raise NotImplementedError

    def rounding_scale(self, y: Any, z: Any) -> Any:
        """Return the sum of the absolute values of the terms of l', the scale of its rounding error."""
        raise NotImplementedError


@dataclass(frozen=True)
class Squared(Loss):
    """l = (z - y)^2 / 2, identity link. Quadratic, so kappa = 0 and a Newton step is exact."""

    kappa = 0.0
    curvature_bound = 1.0

    def scale(self, mean: float) -> float:
        return 1.0

    def value(self, y: Any, z: Any) -> Any:
        return 0.5 * (z - y) ** 2

    def gradient(self, y: Any, z: Any) -> Any:
        return z - y

    def curvature(self, y: Any, z: Any) -> Any:
        return jnp.ones_like(z)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return jnp.abs(y) + jnp.abs(z)


@dataclass(frozen=True)
class Logistic(Loss):
    """l = log(1 + e^z) - y z for y in {0, 1}, logit link.

    With p = 1 / (1 + e^-z): l'' = p (1 - p) and l''' = (1 - 2p) l'', hence kappa = 1.
    """

    kappa = 1.0
    curvature_bound = 0.25

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        return "0 and 1", lambda y: (y == 0) | (y == 1)

    def scale(self, mean: float) -> float:
        return 0.25

    def value(self, y: Any, z: Any) -> Any:
        return jnp.logaddexp(0.0, z) - y * z

    def gradient(self, y: Any, z: Any) -> Any:
        return jax.nn.sigmoid(z) - y

    def curvature(self, y: Any, z: Any) -> Any:
        return jax.nn.sigmoid(z) * jax.nn.sigmoid(-z)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return jnp.ones_like(z)


@dataclass(frozen=True)
class Poisson(Loss):
    """l = e^z - y z for y >= 0, log link. l''' = l'' = e^z, hence kappa = 1."""

    kappa = 1.0

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        return "numbers >= 0", lambda y: (y >= 0) & np.isfinite(y)

    def scale(self, mean: float) -> float:
        return mean

    def value(self, y: Any, z: Any) -> Any:
        return jnp.exp(z) - y * z

    def gradient(self, y: Any, z: Any) -> Any:
        return jnp.exp(z) - y

    def curvature(self, y: Any, z: Any) -> Any:
        return jnp.exp(z)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return jnp.exp(z) + y


@dataclass(frozen=True)
class Gamma(Loss):
    """l = z + y e^-z for y > 0, log link. l'' = y e^-z = -l''', hence kappa = 1."""

    kappa = 1.0

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        return "numbers > 0", lambda y: (y > 0) & np.isfinite(y)

    def scale(self, mean: float) -> float:
        return 1.0

    def value(self, y: Any, z: Any) -> Any:
        return z + y * jnp.exp(-z)

    def gradient(self, y: Any, z: Any) -> Any:
        return 1.0 - y * jnp.exp(-z)

    def curvature(self, y: Any, z: Any) -> Any:
        return y * jnp.exp(-z)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return 1.0 + y * jnp.exp(-z)


@dataclass(frozen=True)
class Tweedie(Loss):
    """l = e^((2-q)z) / (2-q) - y e^((1-q)z) / (1-q) for y >= 0 and power 1 < q < 2, log link.

    l'' = (2-q) e^((2-q)z) + (q-1) y e^((1-q)z), and l''' multiplies its terms by 2-q and by -(q-1): kappa is the larger
    of the two.
    """

    power: float = 1.5

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        return "numbers >= 0", lambda y: (y >= 0) & np.isfinite(y)

    @property
    def kappa(self) -> float:
        return max(2.0 - self.power, self.power - 1.0)

    def scale(self, mean: float) -> float:
        return float(mean ** (2.0 - self.power))

    def _terms(self, y: Any, z: Any) -> tuple[Any, Any]:
        return jnp.exp((2.0 - self.power) * z), y * jnp.exp((1.0 - self.power) * z)

    def value(self, y: Any, z: Any) -> Any:
        up, down = self._terms(y, z)
        return up / (2.0 - self.power) + down / (self.power - 1.0)

    def gradient(self, y: Any, z: Any) -> Any:
        up, down = self._terms(y, z)
        return up - down

    def curvature(self, y: Any, z: Any) -> Any:
        up, down = self._terms(y, z)
        return (2.0 - self.power) * up + (self.power - 1.0) * down

    def rounding_scale(self, y: Any, z: Any) -> Any:
        up, down = self._terms(y, z)
        return up + down


@dataclass(frozen=True)
class LogCosh(Loss):
    """l = d^2 log cosh((z - y) / d), identity link: squared for residuals well below d, d times absolute above.

    With t = tanh((z - y) / d): l' = d t, l'' = 1 - t^2 and l''' = -(2/d) t l'', hence kappa = 2/d.
    """

    width: float = 1.0
    curvature_bound = 1.0

    @property
    def kappa(self) -> float:
        return 2.0 / self.width

    def scale(self, mean: float) -> float:
        return 1.0

    def value(self, y: Any, z: Any) -> Any:
        r = jnp.abs(z - y) / self.width
        return self.width**2 * (r + jnp.log1p(jnp.exp(-2.0 * r)) - jnp.log(2.0))

    def gradient(self, y: Any, z: Any) -> Any:
        return self.width * jnp.tanh((z - y) / self.width)

    def curvature(self, y: Any, z: Any) -> Any:
        # 4 p (1 - p) with p the logistic function of twice the residual: no cancellation in the tails.
        r = 2.0 * (z - y) / self.width
        return 4.0 * jax.nn.sigmoid(r) * jax.nn.sigmoid(-r)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return self.width + jnp.abs(y) + jnp.abs(z)


@dataclass(frozen=True)
class Softmax(Loss):
    """l = log sum_k e^(z_k) - z_y for y in {0, ..., K-1}, K predictors in a row.

    With p the probabilities, ``|D^3 l[u, u, v]| <= (max_k v_k - min_k v_k) D^2 l[u, u]``: kappa = 1 in the spread of
    the change of the predictors, which takes the place of its absolute value.
    """

    classes: int = 3
    kappa = 1.0
    curvature_bound = 0.5

    @property
    def targets(self) -> tuple[str, Callable[[Any], Any]]:
        return (
            "whole numbers from 0 to the number of classes less one",
            lambda y: (y >= 0) & (y < self.classes) & (y == np.floor(y)),
        )

    @property
    def outputs(self) -> int:
        return self.classes

    def scale(self, mean: float) -> float:
        return (self.classes - 1.0) / self.classes**2

    def _one_hot(self, y: Any) -> Any:
        return (jnp.asarray(y)[..., None] == jnp.arange(self.classes)).astype(jnp.float64)

    def value(self, y: Any, z: Any) -> Any:
        return jax.nn.logsumexp(z, axis=-1) - jnp.sum(self._one_hot(y) * z, axis=-1)

    def gradient(self, y: Any, z: Any) -> Any:
        return jax.nn.softmax(z, axis=-1) - self._one_hot(y)

    def curvature(self, y: Any, z: Any) -> Any:
        """Return the probabilities p: l'' is ``diag(p) - p p'``."""
        return jax.nn.softmax(z, axis=-1)

    def rounding_scale(self, y: Any, z: Any) -> Any:
        return jnp.ones_like(z)
