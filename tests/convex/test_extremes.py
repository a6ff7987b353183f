"""Every finite input: a certificate that holds, or an error of our own, in bounded work."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._exact.sums import GroupSums, Products
from certified.errors import CertifiedError, InvalidInput
from certified.linear_model import (
    ElasticNet,
    GammaRegressor,
    LinearRegression,
    LogCoshRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)

LONG = np.longdouble
HEADS = {
    "logistic": LogisticRegression(),
    "without a penalty": LogisticRegression(C=np.inf),
    "three classes": LogisticRegression(),
    "L1": LogisticRegression(l1_ratio=0.5),
    "balanced": LogisticRegression(class_weight="balanced"),
    "wide": LogisticRegression(solver="newton-cg"),
    "wide, three classes": LogisticRegression(solver="newton-cg"),
    "wide poisson": PoissonRegressor(alpha=0.1, solver="newton-cg"),
    "wide log-cosh": LogCoshRegressor(alpha=0.1, solver="newton-cg"),
    "poisson": PoissonRegressor(alpha=1e-3),
    "gamma": GammaRegressor(alpha=1e-3),
    "tweedie": TweedieRegressor(power=1.5, alpha=1e-3),
    "log-cosh": LogCoshRegressor(),
    "ridge": Ridge(),
    "ridge with noise": Ridge(noise=0.1),
    "least squares": LinearRegression(),
    "elastic net": ElasticNet(),
}
SIZES = [0.0, 5e-324, 1e-310, 1e-200, 1e-100, 1e-30, 1e30, 1e59, 1e61, 1e100, 1e150, 1e200, 1e300, 1.7e308]


def table(name, rng, n=40, p=3):
    """Ordinary data with something extreme in them."""
    X, s = rng.standard_normal((n, p)), rng.random(n) + 0.5
    classifier = isinstance(HEADS[name], LogisticRegression)
    if classifier:
        y = rng.integers(0, 3 if "three" in name else 2, n).astype(float)
        y[:3] = [0.0, 1.0, 2.0 if "three" in name else 1.0]
    else:
        y = np.abs(rng.standard_normal(n)) + 0.1
    size = rng.choice(SIZES)
    what = rng.choice(["entry", "column", "row", "all", "weight", "weights", "target", "targets"])
    i, j = rng.integers(0, n), rng.integers(0, p)
    with np.errstate(all="ignore"):
        if what == "entry":
            X[i, j] = size * rng.choice([-1.0, 1.0])
        elif what == "column":
            X[:, j] = np.clip(X[:, j], -1, 1) * size
        elif what == "row":
            X[i] = np.clip(X[i], -1, 1) * size
        elif what == "all":
            X = np.clip(X, -1, 1) * size
        elif what == "weight":
            s[i] = size
        elif what == "weights":
            s = np.minimum(s, 1.0) * size
        elif not classifier and what == "target":
            y[i] = size
        elif not classifier:
            y = np.minimum(y, 1.0) * size
    return X, y, s


def gradient(model, X, y, s):
    """Gradient at the private parameter in extended precision and range, for one predictor and no corner."""
    w = np.append(model.private_coef_.ravel(), np.ravel(model.private_intercept_)).astype(LONG)
    x = np.column_stack([X, np.ones(len(X))]).astype(LONG)
    z, y, s = x @ w, y.astype(LONG), s.astype(LONG)
    loss = model._state.problem.loss
    name = type(loss).__name__
    with np.errstate(all="ignore"):
        slope = {
            "Logistic": lambda: 1 / (1 + np.exp(-z)) - y,
            "Poisson": lambda: np.exp(z) - y,
            "Gamma": lambda: 1 - y * np.exp(-z),
            "Tweedie": lambda: np.exp(z / 2) - y * np.exp(-z / 2),
            "LogCosh": lambda: loss.width * np.tanh((z - y) / loss.width),
        }[name]()
    return x.T @ (s * slope) + model._state.problem.penalty.astype(LONG) * w


def judge(name, seed):
    rng = np.random.default_rng(seed)
    X, y, s = table(name, rng)
    model = HEADS[name]
    model = type(model)(**model.get_params())
    try:
        model.fit(X, y, sample_weight=s)
        held(name, model, X, y, s)
        gone = rng.choice(40, 2, replace=False)
        retained = ~np.isin(np.arange(40), gone)
        model.delete(gone)
        held(name, model, X[retained], y[retained], s[retained])
        if hasattr(model, "refine"):
            model.refine()
        model.release()
    except CertifiedError:
        return False
    except ValueError as error:
        if "at least one non-zero number" not in str(error):  # scikit-learn's own check of weights
            raise
        return False
    return True


def held(name, model, X, y, s):
    """What was accepted is finite, and where the bound has a gradient, that of the exact one is in it."""
    certificate = model.certificate_
    assert np.isfinite(np.ravel(model.private_coef_)).all() if hasattr(model, "private_coef_") else True
    assert np.isfinite(np.ravel(model.coef_)).all()
    if certificate.claim == "exact":
        return
    assert np.isfinite(certificate.distance_bound)
    state = model._state
    if state.anchor is None or "three" in name or "L1" in name or certificate.method in ("predicted", "predicted"):
        return
    weight = model._rows.weight[model._rows.weight > 0] if "balanced" in name else s
    if len(weight) != len(s):
        return
    white = state.anchor.metric.inverse_factor.astype(LONG) @ gradient(model, X, y, weight)
    true = float(np.sqrt(np.sum(white**2)))
    assert certificate.assumptions["nu"] >= true * (1 - 1e-9), (name, certificate.assumptions["nu"], true)


@pytest.mark.parametrize("name", HEADS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_finite_input_gets_a_valid_certificate_or_an_error_of_ours(name, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge(name, seed)


@pytest.mark.parametrize("name", ["logistic", "wide", "poisson", "log-cosh", "ridge"])
def test_ordinary_data_with_one_large_number_in_range_are_accepted(name):
    accepted = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, y, s = rng.standard_normal((40, 3)), rng.integers(0, 2, 40).astype(float), np.ones(40)
        X[3, 1] = 10.0 ** rng.integers(0, 5)
        model = HEADS[name]
        try:
            type(model)(**model.get_params()).fit(X, y, sample_weight=s)
            accepted += 1
        except CertifiedError:
            pass
    assert accepted >= 30


@pytest.mark.parametrize("model", [PoissonRegressor(), LogCoshRegressor(), GammaRegressor()], ids=str)
def test_targets_near_the_end_of_float64_are_refused(model):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 2))
    with pytest.raises(InvalidInput, match=r"got targets of up to .*Nothing was changed"):
        model.fit(X, np.exp(X[:, 0]) * 1e307)


def test_rows_beyond_the_range_do_not_join():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 2)), rng.integers(0, 2, 50)
    model = LogisticRegression().fit(X, y)
    with pytest.raises(InvalidInput, match=r"add got features of up to 1e\+200"):
        model.add([[1e200, 0.0]], [1], ids=[77])
    assert model.n_rows_ == 50


@pytest.mark.parametrize("gram", [True, False])
def test_sums_that_would_overflow_are_refused(gram):
    x, s = np.array([[1e300, 1.0], [1.0, 2.0]]), np.array([1e20, 1.0])
    with pytest.raises(InvalidInput, match=r"Below 2\^400"):
        Products.of(x, s, limbs=2, gram=gram)
    with pytest.raises(InvalidInput, match=r"Below 2\^400"):
        GroupSums.of(x, np.array([0, 1]), 2, s)
    sums = Products.of(x[1:], s[1:], limbs=2, gram=gram)
    assert sums.plus(x[:1], s[:1]) is None  # formed anew, and refused there


def test_without_the_limit_a_bound_is_false(monkeypatch):
    """Targets so large that exp(-z) is flushed to 0: nu would be 1e-11, and is 0.9."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 2))
    y = np.exp(X[:, 0]) * 1e307
    monkeypatch.setattr("certified._convex.bounds.LARGEST", np.inf)
    monkeypatch.setattr("certified._exact.sums._LARGEST", np.inf)
    monkeypatch.setattr("certified.linear_model._certified._WEAKEST", 1e-307)
    model = GammaRegressor(alpha=1e-3).fit(X, y)
    with pytest.raises(AssertionError):
        held("gamma", model, X, y, np.ones(50))
