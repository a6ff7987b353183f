"""Passes run where JAX runs: nothing is bound to the first device."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from certified._exact.sums import Products
from certified.linear_model import LogisticRegression, Ridge
from certified.testing import check_delete_equals_refit

CODE = """
import jax, numpy as np
from sklearn.datasets import load_iris
from certified._convex import derivatives
from certified.linear_model import LogisticRegression, PoissonRegressor, Ridge

X, y = load_iris(return_X_y=True)

def digests():
    found = []
    for model in (LogisticRegression(), LogisticRegression(solver="newton-cg"), PoissonRegressor(), Ridge()):
        model.fit(X, y > 0 if isinstance(model, LogisticRegression) else y)
        model.delete([3, 70])
        model.refine() if hasattr(model, "refine") else None
        found.append((model.private_coef_.tobytes(), model.certificate_.distance_bound))
    return found

first = digests()
used = set()
for name in ("_gradient", "_hessian", "_leverage"):
    def seen(*args, inner=getattr(derivatives, name)):
        out = inner(*args)
        used.update(device for leaf in jax.tree_util.tree_leaves(out) for device in leaf.devices())
        return out
    setattr(derivatives, name, seen)
second = jax.devices()[1]
with jax.default_device(second):
    assert digests() == first, "another device gives other bits"
assert used == {second}, used
"""


def test_another_device_gives_the_same_bits():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """The host forms symmetric products itself; an accelerator would run all passes in JAX, as the host does here."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge()], ids=lambda e: type(e).__name__)
def test_deletions_meet_the_refit_on_either_path(estimator):
    check_delete_equals_refit(estimator)


@settings(max_examples=30)
@given(
    x=arrays(np.float64, (37, 3), elements=st.floats(-1e9, 1e9, allow_subnormal=False)),
    weight=arrays(np.float64, 37, elements=st.floats(0.0, 1e3, allow_subnormal=False)),
)
def test_exact_sums_have_the_same_bits_on_either_path(x, weight):
    found = []
    for name in ("cpu", "gpu"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda name=name: name)
            found.append(Products.of(x, weight, limbs=2))
    host, device = found
    assert np.array_equal(host.sums, device.sums)
    assert np.array_equal(host.top, device.top)
    assert np.array_equal(host.exponents, device.exponents)


def test_fits_agree_on_either_path():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 4))
    y = X[:, 0] + rng.logistic(size=500) > 0
    found = []
    for name in ("cpu", "gpu"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda name=name: name)
            found.append(LogisticRegression(tol=1e-10).fit(X, y))
    assert np.allclose(found[0].private_coef_, found[1].private_coef_, rtol=0, atol=1e-9)
    assert np.array_equal(found[0].noise_metric_, found[1].noise_metric_)
