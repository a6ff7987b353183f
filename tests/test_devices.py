"""Passes run where JAX runs: nothing is bound to the first device."""

import os
import subprocess
import sys

CODE = """
import jax, numpy as np
from sklearn.datasets import load_iris
from certified import newton
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
    def seen(*args, inner=getattr(newton, name)):
        out = inner(*args)
        used.update(device for leaf in jax.tree_util.tree_leaves(out) for device in leaf.devices())
        return out
    setattr(newton, name, seen)
second = jax.devices()[1]
with jax.default_device(second):
    assert digests() == first, "another device gives other bits"
assert used == {second}, used
"""


def test_another_device_gives_the_same_bits():
    env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", CODE], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
