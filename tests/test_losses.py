"""Every loss states true constants: derivatives equal autodiff, self-concordance and curvature bounds hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from certified.losses import Loss


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


LOSSES = sorted({c for c in _subclasses(Loss) if c.__module__.startswith("certified.")}, key=lambda c: c.__name__)
every_loss = pytest.mark.parametrize("loss", [c() for c in LOSSES], ids=[c.__name__ for c in LOSSES])
points = given(z=st.floats(-30, 30), y=st.sampled_from([0.0, 1.0]))


def _derivatives(loss, y, z):
    """First, second and third derivative in z by autodiff of ``value``, in float64."""
    with jax.enable_x64(True):
        first = jax.grad(loss.value, argnums=1)
        second = jax.grad(first, argnums=1)
        third = jax.grad(second, argnums=1)
        y, z = jnp.float64(y), jnp.float64(z)
        return float(first(y, z)), float(second(y, z)), float(third(y, z))


def _stated(loss, y, z):
    with jax.enable_x64(True):
        y, z = jnp.float64(y), jnp.float64(z)
        return float(loss.slope(y, z)), float(loss.curvature(y, z))


def test_the_losses_are_found():
    assert {"Logistic", "Squared"} <= {c.__name__ for c in LOSSES}


@every_loss
@points
def test_slope_is_the_derivative_of_value(loss, z, y):
    assert _stated(loss, y, z)[0] == pytest.approx(_derivatives(loss, y, z)[0], rel=1e-9, abs=1e-14)


@every_loss
@points
def test_curvature_is_the_second_derivative_of_value(loss, z, y):
    assert _stated(loss, y, z)[1] == pytest.approx(_derivatives(loss, y, z)[1], rel=1e-9, abs=1e-14)


@every_loss
@points
def test_loss_is_self_concordant_with_the_stated_constant(loss, z, y):
    with jax.enable_x64(True):  # the derivative of the stated curvature, which does not cancel in the tails
        third = float(jax.grad(lambda t: loss.curvature(y, t))(jnp.float64(z)))
    bend = _stated(loss, y, z)[1]
    assert bend >= 0.0
    assert abs(third) <= loss.kappa * bend * (1 + 1e-12)
    assert third == pytest.approx(_derivatives(loss, y, z)[2], rel=1e-6, abs=1e-14)


@every_loss
@points
def test_curvature_stays_below_its_bound(loss, z, y):
    assert 0.0 <= _stated(loss, y, z)[1] <= loss.curvature_bound * (1 + 2.0**-52)


@every_loss
def test_losses_are_values(loss):
    assert loss == type(loss)()
    assert hash(loss) == hash(type(loss)())


def test_base_class_leaves_its_functions_to_subclasses():
    for name in ("value", "slope", "curvature"):
        with pytest.raises(NotImplementedError, match=r"^$"):
            getattr(Loss(), name)(0.0, np.zeros(1))
