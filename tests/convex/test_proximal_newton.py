"""An L1 penalty beside or instead of the L2 one: scikit-learn's zeros, certificates above true distances, refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression as PlainLogistic
from test_glm_certificates import LONG, REFEREE, _derivatives, _solve, draw

from certified._convex import proximal_newton
from certified._convex.derivatives import Blocks
from certified._convex.losses import LogCosh, Logistic, Poisson
from certified._convex.problem import NoiseMetric, Problem
from certified._data.rows import Rows
from certified._exact.sums import Products
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model import LogisticRegression

LOSSES, KINDS = (Logistic(), Poisson(), LogCosh(0.5)), ("well", "weights", "offset", "tiny", "heavy")
extended = pytest.mark.skipif(np.finfo(LONG).eps > 1e-18, reason="no extended precision on this platform")


def minimise(problem, x, y, s, offset, start):
    """Minimiser in extended precision: Newton's method at fixed signs, until no sign and no zero is wrong."""
    x, y, s, offset, w = (np.asarray(a, dtype=LONG) for a in (x, y, s, offset, start))
    penalty, edge = problem.penalty.astype(LONG), problem.l1_strength * problem.penalized.astype(LONG)
    sign = np.where(edge > 0, np.sign(w), 1)
    for _ in range(200):
        w = np.where(sign != 0, w, 0)
        live = np.flatnonzero(sign)
        for _ in range(60):
            value, gradient, hessian = _derivatives(problem.loss, x, y, s, offset, penalty, w)
            slope = (gradient + edge * sign)[live]
            step = _solve(hessian[np.ix_(live, live)], slope)
            size, decrement = LONG(1), np.sqrt(abs(slope @ step))
            if decrement < 1e-15:
                break
            while decrement > 1e-3 and size > 1e-12:
                trial = w.copy()
                trial[live] -= size * step
                after = _derivatives(problem.loss, x, y, s, offset, penalty, trial)[0] + edge @ (sign * trial)
                if after <= value + edge @ (sign * w) - size * decrement**2 / 4:
                    break
                size /= 2
            w = w.copy()
            w[live] -= size * step
        wrong = (edge > 0) & (sign != 0) & (w * sign <= 0)
        gradient = _derivatives(problem.loss, x, y, s, offset, penalty, np.where(wrong, 0, w))[1]
        excess = np.where((sign == 0) & (edge > 0), abs(gradient) - edge, -1)
        if wrong.any():
            sign[np.argmax(np.where(wrong, abs(w), -1))] = 0
        elif excess.max() > 1e-14 * np.abs(edge).max():
            sign[np.argmax(excess)] = -np.sign(gradient[np.argmax(excess)])
        else:
            return w
    raise AssertionError("the referee found no signs")


def _run(seeds):
    ratios = {"measured": [], "predicted": []}
    for seed in seeds:
        rng = np.random.default_rng([seed, 17])
        loss, kind = LOSSES[seed % 3], KINDS[seed // 3 % 5]
        x, y, s, offset = draw(rng, loss, kind)
        total, share = 10.0 ** rng.uniform(-1, 1.3), float(rng.choice([0.3, 0.9, 1.0]))
        penalized = np.append(np.ones(x.shape[1] - 1), 0.0)
        scale = 2.0 ** round(np.log2(loss.scale(1.5)))
        problem = Problem(loss, penalized, (1 - share) * total, scale, l1_strength=share * total)
        rows, retained = Rows(x, y, s, offset=offset if np.any(offset) else None), np.ones(len(y), dtype=bool)

        def judge(found, key, where=(problem, x, y, s, offset, retained), seed=seed):
            problem, x, y, s, offset, retained = where
            if not np.isfinite(found.distance):
                return
            exact = minimise(problem, x[retained], y[retained], s[retained], offset[retained], found.w)
            held = Products.of(np.where(retained[:, None], x, 0.0), np.where(retained, s, 0.0))
            factor = NoiseMetric.of(problem, held, int(retained.sum())).factor
            true = float(np.sqrt(np.sum((factor.astype(LONG).T @ (found.w.astype(LONG) - exact)) ** 2)))
            assert found.distance >= true * (1 - REFEREE), f"{seed} {key}: {found.distance} < {true}"
            ratios[key].append(found.distance / true if true else np.inf)

        try:
            noise_metric = NoiseMetric.of(problem, Products.of(rows.x, rows.weight), len(y))
            target = 10.0 ** rng.uniform(-7, -2)
            anchor, found = proximal_newton.improve(
                problem, rows, rows.weight, noise_metric, np.zeros(len(penalized)), target, fresh=2.0**-7
            )
            judge(found, "measured")
            for size in (1, 2, 1):
                left = np.flatnonzero(retained)[4:]
                if left.size < len(y) // 2:
                    break
                gone = rng.choice(left, size=size, replace=False)
                part = Blocks(*rows.block_of(gone))
                retained[gone] = False
                anchor, found = proximal_newton.delete(problem, anchor, part)
                rows.erase(gone)
                judge(found, "predicted")
            noise_metric = NoiseMetric.of(problem, Products.of(rows.x, rows.weight), int(retained.sum()))
            start = found.w if np.isfinite(found.distance) else anchor.metric.point
            found = proximal_newton.improve(
                problem, rows, rows.weight, noise_metric, start, target / 10, anchor=anchor
            )[1]
            judge(found, "measured")
        except CannotCertify:
            continue
    return ratios


def _judge(ratios, cases):
    print({key: np.quantile(values, [0, 0.5, 0.95]).round(3) for key, values in ratios.items()})
    assert len(ratios["measured"]) >= 1.5 * cases
    assert len(ratios["predicted"]) >= cases


@extended
def test_no_certificate_is_below_the_true_distance():
    _judge(_run(range(30)), 30)


@extended
@pytest.mark.slow
def test_no_certificate_is_below_the_true_distance_in_many_cases():
    _judge(_run(range(1000, 1150)), 150)


def _certified_where_a_zero_is_wrong():
    """Certify at the minimiser with its smallest coefficient set to zero."""
    for seed in range(20):
        X, y, s = table(seed, n=300, d=5)
        x, offset = np.column_stack([X, np.ones(len(y))]), np.zeros(len(y))
        problem = Problem(Logistic(), np.append(np.ones(5), 0.0), 0.5, 0.25, l1_strength=2.0)
        rows = Rows(x, y, s)
        noise_metric = NoiseMetric.of(problem, Products.of(rows.x, rows.weight), len(y))
        exact = minimise(problem, x, y.astype(float), s, offset, np.zeros(6))
        w = exact.astype(np.float64)
        w[np.argmin(np.where(w == 0, np.inf, np.abs(w)))] = 0.0
        found = proximal_newton.improve(problem, rows, rows.weight, noise_metric, w, np.inf)[1]
        assert np.array_equal(found.w, w)
        true = float(np.sqrt(np.sum((noise_metric.factor.astype(LONG).T @ (w.astype(LONG) - exact)) ** 2)))
        assert found.distance >= true, f"certified {found.distance}, true {true}"


@extended
def test_a_coefficient_that_is_wrongly_zero_is_counted():
    _certified_where_a_zero_is_wrong()


@extended
def test_a_subgradient_that_is_out_of_bounds_is_caught(monkeypatch):
    monkeypatch.setattr(
        proximal_newton,
        "subgradient",
        lambda problem, w, g: np.where(w == 0, -g, problem.l1_strength * np.sign(w)) * problem.penalized,
    )
    with pytest.raises(AssertionError, match="certified"):
        _certified_where_a_zero_is_wrong()


@extended
def test_a_removal_that_removes_nothing_is_caught(monkeypatch):
    monkeypatch.setattr(
        proximal_newton.downdate, "downdate", lambda loss, w, V, before, rows, sign=1.0: (before, 0.0, 0.0)
    )
    with pytest.raises(AssertionError, match="predicted: "):
        _run(range(60))


# ------------------------------------------------------------------------------------------------------- models


def table(seed=0, n=400, d=12):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + 0.5 * rng.normal(size=(n, 1))
    return X, (X[:, :4] @ np.ones(4) - 0.5 + rng.logistic(size=n) > 0).astype(int), rng.uniform(0.2, 3.0, size=n)


@pytest.mark.parametrize("l1_ratio", [0.2, 0.9, 1.0])
@pytest.mark.parametrize("C", [0.02, 1.0])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
def test_coefficients_and_zeros_are_those_of_scikit_learn(l1_ratio, C, weighted, intercept):
    X, y, s = table()
    s = s if weighted else None
    ours = LogisticRegression(C=C, l1_ratio=l1_ratio, noise=0, tol=1e-8, fit_intercept=intercept)
    ours.fit(X, y, sample_weight=s)
    theirs = PlainLogistic(
        C=C, l1_ratio=l1_ratio, solver="saga", tol=1e-10, max_iter=100_000, fit_intercept=intercept, random_state=0
    )
    if "penalty" in theirs.get_params() and theirs.get_params()["penalty"] == "l2":  # before scikit-learn 1.8
        theirs.set_params(penalty="elasticnet")
    theirs.fit(X, y, sample_weight=s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-7)


@given(seed=st.integers(0, 10**6), l1_ratio=st.sampled_from([0.4, 1.0]), balanced=st.booleans())
@settings(max_examples=12)
def test_any_sequence_of_requests_ends_within_the_certificates_of_a_refit(seed, l1_ratio, balanced):
    X, y, _ = table(seed, n=120, d=6)
    rng, weights = np.random.default_rng(seed), "balanced" if balanced else None
    model = LogisticRegression(C=0.1, l1_ratio=l1_ratio, class_weight=weights).fit(X, y)
    for size in (1, 2, 5, 30):
        free = model.ids_[20:]
        assert model.delete(rng.choice(free, size=size, replace=False)).certificate.epsilon_at(1e-6) <= 1.0
    retained = model.ids_
    model.add(X[:3], y[:3], ids=[1000, 1001, 1002])
    refit = LogisticRegression(C=0.1, l1_ratio=l1_ratio, class_weight=weights)
    refit.fit(np.concatenate([X[retained], X[:3]]), np.append(y[retained], y[:3]))
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed
    assert np.array_equal(model.noise_metric_, refit.noise_metric_)


def test_a_deletion_of_one_row_takes_no_pass_and_a_release_has_no_zero():
    X, y, _ = table()
    model = LogisticRegression(C=0.05, l1_ratio=0.8).fit(X, y)
    receipt = model.delete([5])
    assert (receipt.method, receipt.passes) == ("predicted", 0)
    assert np.any(model.private_coef_ == 0)
    assert not np.any(model.release().coef_ == 0)


def test_what_has_no_unique_minimiser_is_refused():
    X, y, _ = table()
    twice = np.column_stack([X, X[:, 0]])
    with pytest.raises(CannotCertify, match="singular"):
        LogisticRegression(C=1.0, l1_ratio=1.0).fit(twice, y)
    LogisticRegression(C=1.0, l1_ratio=0.9).fit(twice, y)
    with pytest.raises(CannotCertify, match="singular"):
        LogisticRegression(C=1.0, l1_ratio=1.0).fit(X[:10], np.arange(10) % 2)
    with pytest.raises(InvalidInput, match="Dense features"):
        LogisticRegression(l1_ratio=0.5).fit(csr_array(X), y)
    with pytest.raises(InvalidInput, match="Only binary"):
        LogisticRegression(l1_ratio=0.5).fit(X, np.arange(len(y)) % 3)
    for wrong in (-0.1, 1.1, "l1"):
        with pytest.raises(InvalidInput, match="from 0 to 1"):
            LogisticRegression(l1_ratio=wrong).fit(X, y)
