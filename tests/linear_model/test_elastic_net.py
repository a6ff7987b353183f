"""The elastic net reaches the minimum, and says how near: exact arithmetic, conditions of optimality, rivals."""

import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import ElasticNet as PlainElasticNet

from certified._exact.moments import Moments
from certified._exact.sums import Products
from certified.errors import CannotCertify
from certified.linear_model import ElasticNet, Lasso
from certified.linear_model._least_squares_problem import LeastSquaresProblem

N, P = 60, 4


def table(p=P):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, p)) * 3.0 ** np.arange(p) + 0.5
    return x, x[:, 0] - x[:, -1] / 3.0 ** (p - 1) + rng.normal(size=N) + 5.0


def objective(model, x, y):
    """Objective of an elastic net in exact arithmetic, at the coefficients and the intercept given."""
    x, y = [[Fraction(v) for v in row] for row in x], [Fraction(v) for v in y]
    w, b = [Fraction(v) for v in model.coef_], Fraction(float(model.intercept_))
    fit = sum((t - b - sum(a * c for a, c in zip(row, w, strict=True))) ** 2 for row, t in zip(x, y, strict=True))
    l1, l2 = sum(abs(c) for c in w), sum(c * c for c in w)
    alpha, share = Fraction(model.alpha), Fraction(getattr(model, "l1_ratio", 1.0))
    return fit / (2 * len(y)) + alpha * share * l1 + alpha * (1 - share) / 2 * l2


@pytest.mark.parametrize("estimator", [ElasticNet(alpha=0.125), Lasso(alpha=0.25), Lasso(alpha=0.0625)], ids=str)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_rival_is_further_below_than_the_gap(estimator):
    x, y = table()
    x, y = np.round(x * 64) / 64, np.round(y * 64) / 64  # read without rounding
    model = clone(estimator).fit(x, y)
    ours = objective(model, x, y)
    rng = np.random.default_rng(0)
    plain = PlainElasticNet(alpha=model.alpha, l1_ratio=getattr(model, "l1_ratio", 1.0), max_iter=100_000)
    rivals = [clone(plain).set_params(tol=tol).fit(x, y) for tol in (1e-4, 1e-8, 1e-13)]
    for scale in 10.0 ** -np.arange(1, 12):
        rival = model.release()
        rival.coef_ = model.coef_ + scale * rng.normal(size=P)
        rival.intercept_ = np.mean(y) - np.mean(x, axis=0) @ rival.coef_
        rivals.append(rival)
    for rival in rivals:
        assert float(ours - objective(rival, x, y)) <= model.dual_gap_ + 1e-25
    assert model.dual_gap_ <= 1e-14 * y.var()


@given(seed=st.integers(0, 10**6), kind=st.sampled_from(["plain", "wide", "twice", "binary", "common", "scales"]))
@settings(max_examples=100, deadline=None)
def test_any_problem_is_solved_to_rounding(seed, kind):
    """Checked against the conditions of optimality on the rows, which the solver never sees."""
    rng = np.random.default_rng(seed)
    n, p = (12, 30) if kind == "wide" else (40, 8)
    x = rng.normal(size=(n, p))
    if kind == "twice":
        x = np.column_stack([x, x])
    elif kind == "binary":
        x = (x > 0.0).astype(float)
    elif kind == "common":
        x += 10.0 ** rng.uniform(0, 2) * rng.normal(size=(n, 1))
    elif kind == "scales":
        x *= 10.0 ** rng.integers(-2, 3, p)
    y = x[:, :3].sum(axis=1) + rng.choice([0.0, 1.0]) * rng.normal(size=n)
    curvature_bound = np.abs((x - x.mean(axis=0)).T @ (y - y.mean())).max() / n
    share = rng.choice([0.1, 0.5, 1.0])
    alpha = curvature_bound * 10.0 ** rng.uniform(-4, 0.2)
    model = ElasticNet(alpha=alpha, l1_ratio=share, positive=bool(rng.integers(2))).fit(x, y)
    assert model.dual_gap_ <= 1e-12 * max(y.var(), 1e-300)
    w = model.coef_
    slope = (x - x.mean(axis=0)).T @ (y - model.predict(x)) / n - alpha * (1 - share) * w
    rounding = 1e-9 * (np.abs(x).max(axis=0) * np.abs(y).max() + alpha)
    live = w != 0.0
    assert np.all(np.abs(slope - alpha * share * np.sign(w))[live] <= rounding[live])
    assert np.all((slope if model.positive else np.abs(slope))[~live] <= alpha * share + rounding[~live])


def test_highest_penalty_gives_zeros_and_the_mean():
    x, y = table()
    model = Lasso(alpha=1e6).fit(x, y)
    assert not model.coef_.any()
    assert model.intercept_ == pytest.approx(y.mean(), rel=1e-12)
    assert model.dual_gap_ == 0.0


def test_the_gap_of_a_wrong_point_is_large():
    gram, side = np.array([[2.0, 0.5], [0.5, 1.0]], dtype=np.longdouble), np.array([1.0, 1.0], dtype=np.longdouble)
    problem = LeastSquaresProblem(gram, side, 4.0, 0.1, 0.0, False)
    best, gap, _ = problem.minimise(100)
    assert gap < 1e-14

    def value(w):
        return float(w @ gram @ w / 2 - side @ w + 2.0 + 0.1 * np.abs(w).sum())

    for w in np.random.default_rng(0).normal(size=(50, 2)):
        assert problem.gap(w) >= value(w) - value(best)


def test_a_solver_that_stops_early_is_refused(monkeypatch):
    x, y = table(p=12)
    model = Lasso(alpha=0.01).fit(x, y)
    before = pickle.dumps(model)
    monkeypatch.setattr(LeastSquaresProblem, "search", lambda self, w: w)
    monkeypatch.setattr(LeastSquaresProblem, "polish", lambda self, w: w)
    monkeypatch.setattr(LeastSquaresProblem, "descend", lambda self, w, tol, passes: (w, passes))
    with pytest.raises(CannotCertify, match="Raise max_iter"):
        model.delete(0)
    assert pickle.dumps(model) == before


@given(seed=st.integers(0, 10**6), centre=st.booleans(), weighted=st.booleans())
@settings(max_examples=30, deadline=None)
def test_moments_are_those_of_the_integers(seed, centre, weighted):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(int(rng.integers(2, 80)), 4)) * 10.0 ** rng.integers(-5, 6, 4)
    x += 10.0 ** rng.integers(-3, 9, 4) * rng.integers(-1, 2, 4)  # means far from 0: the sums nearly cancel
    s = rng.uniform(0.0, 3.0, len(x)) if weighted else np.ones(len(x))
    products = Products.of(np.column_stack([x, np.ones(len(x))]), s, limbs=2)
    total = products.integers()
    wanted = total[:4, :4] * total[-1, -1] - (np.outer(total[:4, -1], total[-1, :4]) if centre else 0)
    moments = Moments(products, 3, centre)
    assert moments.weight == total[-1, -1]
    shift = rng.integers(0, 100, 4)
    found = moments.scaled(shift)
    for j in range(4):
        for k in range(4):
            exact = Fraction(int(wanted[j, k])) / 2 ** int(shift[j] + shift[k])
            high = float(found[j, k])
            error = abs(Fraction(high) + Fraction(float(found[j, k] - high)) - exact)
            assert error <= 2 * Fraction(float(np.finfo(np.longdouble).eps)) * abs(exact)
