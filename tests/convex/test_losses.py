"""Every loss states true constants: derivatives equal autodiff, and it is self-concordant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from certified._convex.losses import LogCosh, Loss, Tweedie


def _subclasses(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


CLASSES = sorted({c for c in _subclasses(Loss) if c.__module__.startswith("certified.")}, key=lambda c: c.__name__)
LOSSES = [*(c() for c in CLASSES), Tweedie(1.1), Tweedie(1.9), LogCosh(0.2)]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=str)
ONE = [loss for loss in LOSSES if loss.outputs == 1]
MANY = [loss for loss in LOSSES if loss.outputs > 1]
every_loss_of_one_predictor = pytest.mark.parametrize("loss", ONE, ids=str)
every_loss_of_many_predictors = pytest.mark.parametrize("loss", MANY, ids=str)
targets = st.sampled_from([0.0, 1.0, 0.5, 2.0, 1e-3, 17.25, 3e3, -1.5])
points = given(z=st.floats(-20, 20), y=targets)


@pytest.fixture(autouse=True)
def _in_float64():
    with jax.enable_x64(True):
        yield


def _allowed(loss, y):
    assume(bool(loss.targets[1](np.float64(y))))


def test_the_losses_are_found():
    assert {"Gamma", "LogCosh", "Logistic", "Poisson", "Softmax", "Squared", "Tweedie"} <= {c.__name__ for c in CLASSES}


@every_loss_of_one_predictor
@points
def test_slope_and_curvature_are_derivatives(loss, z, y):
    _allowed(loss, y)
    y, z = jnp.float64(y), jnp.float64(z)
    scale = float(loss.rounding_scale(y, z)) + 1.0
    assert float(loss.gradient(y, z)) == pytest.approx(
        float(jax.grad(loss.value, 1)(y, z)), rel=1e-9, abs=1e-13 * scale
    )
    bend = float(loss.curvature(y, z))
    assert bend == pytest.approx(float(jax.grad(loss.gradient, 1)(y, z)), rel=1e-9, abs=1e-14 * scale)


@every_loss_of_one_predictor
@points
def test_loss_is_self_concordant_with_the_stated_constant(loss, z, y):
    _allowed(loss, y)
    y, z = jnp.float64(y), jnp.float64(z)
    third = float(jax.grad(loss.curvature, 1)(y, z))
    bend = float(loss.curvature(y, z))
    assert 0.0 <= bend <= loss.curvature_bound * (1 + 1e-15)
    assert abs(third) <= loss.kappa * bend * (1 + 1e-9)


@every_loss_of_one_predictor
@points
def test_slope_is_bounded_by_its_size(loss, z, y):
    _allowed(loss, y)
    assert abs(float(loss.gradient(y, jnp.float64(z)))) <= float(loss.rounding_scale(y, jnp.float64(z))) * (1 + 1e-12)


@every_loss_of_one_predictor
def test_constant_is_not_larger_than_needed(loss):
    """A constant twice as large as needed would pass the inequality and cost half of every bound."""
    if loss.kappa == 0.0:
        return
    z = np.linspace(-30, 30, 241)
    allowed = [y for y in (0.0, 1.0, 0.5, 2.0) if loss.targets[1](np.float64(y))]
    third = jax.vmap(jax.grad(loss.curvature, 1), (None, 0))
    ratio = [np.abs(third(y, z)) / (loss.curvature(y, z) + 1e-300) for y in allowed]
    assert np.max(ratio) >= 0.95 * loss.kappa


@every_loss_of_many_predictors
@given(seed=st.integers(0, 2**32 - 1), reach=st.sampled_from([0.1, 1.0, 5.0]))
def test_losses_of_many_predictors(loss, seed, reach):
    rng = np.random.default_rng(seed)
    K = loss.outputs
    y, z, u, v = float(rng.integers(K)), reach * rng.normal(size=K), rng.normal(size=K), rng.normal(size=K)
    p = np.asarray(loss.curvature(y, z))
    hessian = jax.hessian(loss.value, 1)
    assert np.asarray(loss.gradient(y, z)) == pytest.approx(np.asarray(jax.grad(loss.value, 1)(y, z)), abs=1e-12)
    assert np.diag(p) - np.outer(p, p) == pytest.approx(np.asarray(hessian(y, z)), abs=1e-12)
    second = u @ hessian(y, z) @ u
    third = jax.grad(lambda t: u @ hessian(y, z + t * v) @ u)(0.0)
    assert second <= loss.curvature_bound * (u @ u) * (1 + 1e-9)
    assert abs(third) <= loss.kappa * (v.max() - v.min()) * second * (1 + 1e-9) + 1e-15
    assert np.all(np.abs(np.asarray(loss.gradient(y, z))) <= np.asarray(loss.rounding_scale(y, z)))


@every_loss
def test_losses_are_values(loss):
    twin = type(loss)(**{name: getattr(loss, name) for name in loss.__dataclass_fields__})
    assert loss == twin
    assert hash(loss) == hash(twin)
    assert loss.scale(2.0) > 0.0
    assert loss.targets[0]


def test_base_class_leaves_its_functions_to_subclasses():
    for name in ("value", "gradient", "curvature", "rounding_scale"):
        with pytest.raises(NotImplementedError, match=r"^$"):
            getattr(Loss(), name)(0.0, np.zeros(1))
