"""Monotone constraints: kept by every release, exactly, by a function of the release alone."""

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402
from certified.ensemble._boosting import release as release_module  # noqa: E402
from certified.ensemble._boosting.monotone import clipped, sides_of, signs_of  # noqa: E402
from certified.errors import InvalidInput  # noqa: E402

SIGNS = (1, 0, -1)


def data(seed=0, n=200):
    """A target that breaks the constraints in places."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).round(1)
    X[rng.random((n, 3)) < 0.05] = np.nan
    z = np.nan_to_num(X)
    return X, z[:, 0] * z[:, 1] + np.sin(3 * z[:, 0]) + np.cos(2 * z[:, 2]) + 0.3 * rng.normal(size=n)


def make(kind=GradientBoostingClassifier, **changed):
    given = {"n_estimators": 6, "max_depth": 4, "sample_size": 120, "leaf_penalty": 1.0}
    return kind(**{**given, "monotone_constraints": SIGNS, **changed})


def worst(booster, seed=0):
    """Largest step against the constraints between rows that differ in one feature, in XGBoost's own predictions."""
    rng = np.random.default_rng(seed)
    found = 0.0
    for j, sign in enumerate(SIGNS):
        X = rng.normal(size=(500, 3)).round(1)
        X[rng.random(X.shape) < 0.1] = np.nan
        low, high = X.copy(), X.copy()
        low[:, j], high[:, j] = np.sort(rng.normal(size=(2, 500)).round(1), axis=0)
        below, above = (booster.predict(xgboost.DMatrix(part), output_margin=True) for part in (low, high))
        found = max(found, float(np.max(sign * (below - above)))) if sign else found
    return found


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["sample", "two groups", "random", "booster", "squared"]))
def test_every_release_keeps_the_constraints(seed, kind):
    X, z = data(seed)
    changed = {}
    if kind == "two groups":
        changed = {"structure_groups": 2}
    if kind == "random":
        changed = {"structure": "random", "feature_ranges": (-2.5, 2.5)}
    if kind == "booster":
        changed = {"structure": xgboost.XGBClassifier(n_estimators=6, max_depth=4).fit(X, z > 0)}
    if kind == "squared":
        model = make(GradientBoostingRegressor, noise=0.5).fit(X, z)
    else:
        model = make(**changed, noise=0.5).fit(X, (z > 0).astype(int))
    assert worst(model.release().get_booster()) <= 0.0
    model.delete([1, 7])
    assert worst(model.release().get_booster()) <= 0.0
    assert model.certificate_.claim == "indistinguishable"


def test_a_release_that_is_not_clipped_is_caught(monkeypatch):
    monkeypatch.setattr(release_module, "clipped", lambda v, sides: v)
    X, z = data()
    assert worst(make().fit(X, (z > 0).astype(int)).release().get_booster()) > 0.01


def test_a_sign_that_is_turned_is_caught():
    X, z = data()
    assert worst(make(monotone_constraints=(-1, 0, 1)).fit(X, (z > 0).astype(int)).release().get_booster()) > 0.01


@pytest.fixture(scope="module")
def fitted():
    X, z = data(1)
    return make().fit(X, (z > 0).astype(int))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_clipping_keeps_what_is_in_order_and_is_done_once(fitted, seed):
    model, sides = fitted, sides_of(fitted._state.structures, np.array(SIGNS))
    assert sides
    v = np.random.default_rng(seed).normal(size=model.n_leaves_)
    once = clipped(v, sides)
    assert all(once[low].max() <= once[high].min() for low, high in sides)
    assert np.array_equal(clipped(once, sides), once)
    assert np.ptp(once) <= np.ptp(v)


def test_a_release_is_a_function_of_the_noisy_leaf_values_and_the_splits():
    X, z = data()
    y = (z > 0).astype(int)
    model = make(random_state=0).fit(X, y)
    free = make(monotone_constraints=None, structure=model._state.structures[0].booster(), random_state=0).fit(X, y)
    assert np.array_equal(free.private_coef_, GradientBoostingClassifier.from_booster(
        model._state.structures[0].booster(), X, y, leaf_penalty=1.0, monotone_constraints=SIGNS
    ).private_coef_)  # fmt: skip
    assert np.array_equal(clipped(free.coef_, sides_of(free._state.structures, np.array(SIGNS))), _held(free))


def _held(free):
    """Released leaf values of the same model with constraints, from the same noise."""
    model = make(structure=free._state.structures[0].booster(), random_state=0)
    X, z = data()
    return model.fit(X, (z > 0).astype(int)).coef_


def test_constraints_by_name_and_wrong_ones():
    names = ("age", "income", "debt")
    assert signs_of({"age": 1, "debt": -1}, names, None, 3).tolist() == [1, 0, -1]
    assert signs_of({0: 1}, (), None, 3).tolist() == [1, 0, 0]
    X, z = data()
    y = (z > 0).astype(int)
    for changed, message in (
        ({"monotone_constraints": (1, 0)}, "3 features"),
        ({"monotone_constraints": "(1,0,0)"}, "monotone_constraints"),
        ({"monotone_constraints": (2, 0, 0)}, "monotone_constraints"),
        ({"monotone_constraints": {"age": 1}}, "monotone_constraints"),
    ):
        with pytest.raises(InvalidInput, match=message):
            make(**changed).fit(X, y)
    with pytest.raises(InvalidInput, match="no order"):
        make(categorical_features=[0]).fit(np.nan_to_num(np.abs(X)).round(), y)
    with pytest.raises(InvalidInput, match="3 classes"):
        make().fit(X, np.arange(len(y)) % 3)
