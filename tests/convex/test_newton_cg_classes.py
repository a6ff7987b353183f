"""Sparse and wide heads with several classes: metric, certificates above true distances, models."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_array, csr_array, random_array
from sklearn import linear_model as plain
from test_newton_cg import case, extended, run

from certified._convex import newton_cg, newton_cg_metric
from certified._convex.losses import Softmax
from certified._exact.column_squares import ColumnSquares
from certified.errors import InvalidInput, InvalidRequest
from certified.linear_model import LogisticRegression

CLASSES = (Softmax(3), Softmax(5))


# ---------------------------------------------------------------------- the metric, as dense matrices


def _dense(problem, point, metric, x, s):
    """Hessian, the metric A, and a basis of the vectors whose intercepts have mean 0."""
    K, (n, p) = problem.loss.outputs, x.shape
    prob = point.bends[:n]
    blocks = [[(x * (s * prob[:, k] * ((k == m) - prob[:, m]))[:, None]).T @ x for m in range(K)] for k in range(K)]
    hessian = np.block(blocks) + np.diag(problem.penalty)
    A = np.diag(problem.penalty)
    basis = np.eye(K * p)
    if metric.edges is not None:
        for signs, mean, per_s in zip(metric.edges.signs, metric.mean, metric.per_s, strict=True):
            lean = np.kron(signs, np.append(mean, 1.0))
            A = A + np.outer(lean, lean) / per_s
        level = np.kron(np.ones(K), np.append(np.zeros(p - 1), 1.0))[:, None]
        basis = np.linalg.svd(level)[0][:, 1:]
    return hessian, A, basis


def _judge(seed):
    rng, _, problem, rows, (x, _, s, _) = case(seed, CLASSES)
    K = problem.loss.outputs
    work = newton_cg._Search(
        problem, rows, rows.weight, newton_cg.DiagonalNoiseMetric.of(problem, ColumnSquares.of(rows.x, rows.weight))
    )
    point = work.at(work.centred(0.3 * rng.normal(size=len(problem.penalized))))
    metric = work.metric(point)
    hessian, A, basis = _dense(problem, point, metric, x, s)
    inner, outer = basis.T @ A @ basis, basis.T @ hessian @ basis
    scale = np.sqrt(np.diag(outer))
    assert np.linalg.eigvalsh((outer - metric.low * inner) / np.outer(scale, scale))[0] >= -1e-12
    inverse = basis @ np.linalg.inv(inner) @ basis.T
    g = point.gradient
    dual = np.sqrt(g @ inverse @ g)
    assert dual * (1 - 1e-9) <= metric.nu(*work.split(g)) <= dual * (1 + 1e-6)
    moves = [np.kron(np.eye(K)[j] - np.eye(K)[k], x[s > 0]) for j in range(K) for k in range(j)]
    longest = max(np.sqrt(np.einsum("ij,jk,ik->i", part, inverse, part).max()) for part in moves)
    closer = metric.closer(work.kappa, rows, work.lengths, work.weight)
    assert longest * (1 - 1e-9) <= closer.M <= min(metric.M, longest * (1 + 1e-6))
    root = np.linalg.cholesky(np.linalg.inv(inner))
    top = np.sqrt(np.linalg.eigvalsh(root.T @ basis.T @ np.diag(work.noise_metric.root**2) @ basis @ root)[-1])
    assert metric.k_G >= top * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(42))
def test_the_hessian_is_above_the_metric_and_its_lengths_are_those_of_the_dense_matrix(seed):
    _judge(seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_flow_goes_to_every_class_of_a_tree(seed):
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 9))
    weights = rng.random((K, K)) ** 3
    edges = newton_cg_metric.Edges.of(weights + weights.T)
    g = rng.normal(size=K)
    g -= g.mean()
    np.testing.assert_allclose(edges.signs.T @ (edges.flow @ g), g, atol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_rounding_of_the_sum_of_the_intercepts_does_not_pass_for_curvature(seed):
    rng = np.random.default_rng(seed)
    K = int(rng.integers(2, 9))
    p = rng.dirichlet(np.full(K, 0.3), size=50)
    among = np.diag(p.sum(axis=0)) - p.T @ p
    level = np.ones((K, K)) / K
    rounded = among + rng.choice([-1.0, 1.0]) * 3e-15 * np.trace(among) * level
    true = np.linalg.pinv(among, rcond=1e-12, hermitian=True)
    np.testing.assert_allclose(newton_cg._inverse(rounded), true, rtol=1e-6, atol=1e-9 * np.abs(true).max())
    assert np.abs(np.linalg.pinv(rounded, hermitian=True)).max() > 1e6 * np.abs(true).max()  # what this is about


def test_a_tree_that_takes_curvature_twice_is_caught(monkeypatch):
    honest = newton_cg_metric._curvatures

    def wrong(bends, weight):
        edges, h = honest(bends, weight)
        return edges, 2.0 * h

    monkeypatch.setattr(newton_cg_metric, "_curvatures", wrong)
    with pytest.raises(AssertionError, match="-1e-12"):
        _judge(0)


# ---------------------------------------------------------------------- certified distance and true distance


@extended
def test_no_certificate_of_several_classes_is_below_the_true_distance():
    ratios = run(range(84), losses=CLASSES)
    assert len(ratios) >= 150  # of 168: a bound was given


@extended
@pytest.mark.slow
def test_no_certificate_of_several_classes_is_below_the_true_distance_in_many_cases():
    ratios = run(range(1000, 1600), losses=CLASSES)
    print(f"\n{np.nanquantile(ratios, [0, 0.5, 0.95, 1])}, {np.sum(~np.isnan(ratios))} above the rounding envelope")
    assert len(ratios) >= 1080


@extended
def test_intercepts_that_are_not_those_of_the_convention_are_caught(monkeypatch):
    """All intercepts can move together without a change of a probability: the gradient does not see it."""
    run(range(14), losses=CLASSES, start=1.0)
    monkeypatch.setattr(newton_cg._Search, "centred", lambda self, w: w)
    run(range(14), losses=CLASSES, start=1.0)  # refused or covered: the mean is measured
    monkeypatch.setattr(newton_cg._Search, "_slip", lambda self, w: 0.0)
    with pytest.raises(AssertionError, match="<"):
        run(range(14), losses=CLASSES, start=1.0)


@extended
def test_a_gradient_of_several_classes_without_its_rounding_envelope_is_caught(monkeypatch):
    monkeypatch.setattr(newton_cg._Search, "_envelope", lambda self, point, metric: 0.0)
    with pytest.raises(AssertionError, match="<"):
        run(range(84, 150), lowest=-18, losses=CLASSES)


@extended
def test_classes_whose_deleted_rows_are_still_in_the_gradient_are_caught(monkeypatch):
    honest = newton_cg._Search.__init__

    def wrong(self, problem, rows, weight, noise_metric):
        honest(self, problem, rows, rows.weight, noise_metric)

    monkeypatch.setattr(newton_cg._Search, "__init__", wrong)
    with pytest.raises(AssertionError, match="<"):
        run(range(28), lowest=-4, losses=CLASSES)


# --------------------------------------------------------------------------------------- models


def table(seed=0, n=300, d=60, K=4, density=0.1):
    rng = np.random.default_rng(seed)
    X = random_array((n, d), density=density, rng=rng, format="csr")
    X.data += 0.5
    z = X @ rng.normal(size=(d, K)) + rng.normal(size=K)
    y = np.argmax(z + rng.gumbel(size=z.shape), axis=1)
    y[: 2 * K] = np.tile(np.arange(K), 2)
    return X, y, rng


@pytest.mark.parametrize("container", [csr_array, csc_array, np.asarray])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("intercept", [True, False])
def test_coefficients_of_classes_and_refits_are_those_of_scikit_learn(container, weighted, intercept):
    X, codes, rng = table()
    y = np.array(["d", "a", "c", "b"])[codes]
    s = rng.uniform(0.2, 3.0, size=len(y)) if weighted else None
    factors = {"a": 2.0, "c": 0.5} if weighted else None
    held = X.toarray() if container is np.asarray else container(X)
    given = {"C": 0.7, "fit_intercept": intercept, "solver": "newton-cg", "class_weight": factors}
    ours = LogisticRegression(noise=0, tol=1e-8, **given).fit(held, y, sample_weight=s)
    assert ours._state.anchor is None
    theirs = plain.LogisticRegression(tol=1e-12, max_iter=1000, **given).fit(X, y, sample_weight=s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-7)
    for call in ("decision_function", "predict_proba", "predict_log_proba"):
        np.testing.assert_allclose(getattr(ours, call)(held), getattr(theirs, call)(X), atol=1e-6)
    assert ours.score(held, y) == theirs.score(X, y)
    ours.delete(range(8, 13))
    ours.refine()
    retained = np.delete(np.arange(len(y)), range(8, 13))
    theirs.fit(X[retained], y[retained], sample_weight=None if s is None else s[retained])
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-7)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-7)
    assert type(ours.release()) is plain.LogisticRegression
    np.testing.assert_array_equal(ours.release().predict(X), ours.predict(held))


@given(seed=st.integers(0, 10**6), balanced=st.booleans())
@settings(max_examples=8)
def test_any_requests_end_within_the_certificates_of_a_refit_of_all_classes(seed, balanced):
    X, y, rng = table(seed, n=120, d=200, K=3, density=0.03)
    ids = np.arange(len(y)) // 2
    weights = "balanced" if balanced else None
    model = LogisticRegression(class_weight=weights).fit(X, y, ids=ids)
    for request in np.split(rng.permutation(np.arange(3, 60))[:8], [2, 3]):
        receipt = model.delete(request)
        assert receipt.certificate.claim == "indistinguishable"
        assert receipt.certificate.epsilon_at(1e-6) <= 1.0
    model.add(X[:6], y[:6], ids=np.full(6, 1000))
    retained = np.append(np.flatnonzero(np.isin(ids, model.ids_)), np.arange(6))
    refit = LogisticRegression(class_weight=weights).fit(X[retained], y[retained])
    assert (model.noise_metric_ != refit.noise_metric_).nnz == 0
    gap = model._state.solution.w - refit._state.solution.w
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed


def test_a_deleted_row_of_several_classes_leaves_neither_values_nor_pattern():
    X, y, _ = table(n=64, d=5000, K=3, density=0.002)
    X = X.tolil()
    X[7] = 0.0
    X[7, 4321], X[7, 1234] = 0.123456789, 0.987654321
    X = X.tocsr()
    model = LogisticRegression().fit(X, y)
    assert 4321 in model._rows.x.indices
    model.delete([7])
    assert 4321 not in model._rows.x.indices
    dump = pickle.dumps(model)
    assert np.float64(0.123456789).tobytes() not in dump
    assert np.int32(4321).tobytes() not in dump
    assert model._rows.lengths[7] == 0.0


def test_requests_that_no_classes_survive_change_nothing():
    X, y, _ = table()
    model = LogisticRegression().fit(X, y)
    before = pickle.dumps(model)
    with pytest.raises(InvalidRequest, match=r"without a row .* of class [01]"):
        model.delete(np.flatnonzero(y != 2))
    with pytest.raises(InvalidInput, match="which the fit did not have"):
        model.add(X[:1], [9], ids=[5000])
    assert pickle.dumps(model) == before


def test_dense_classes_of_many_coefficients_are_solved_by_products():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 1001))
    y = np.argmax(X[:, :5], axis=1)
    model = LogisticRegression(C=0.01).fit(X, y)
    assert model._state.anchor is None
    assert model.delete([3]).certificate.distance_bound < 1.0
    assert LogisticRegression(C=0.01).fit(X[:, :50], y)._state.anchor is not None
