"""Least squares with several outputs and with L1 penalties: the minimum, and bit for bit the state of a refit."""

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import ElasticNet as PlainElasticNet
from sklearn.linear_model import Lasso as PlainLasso
from sklearn.linear_model import LinearRegression as PlainLinear
from sklearn.linear_model import Ridge as PlainRidge

from certified.errors import CannotCertify, InvalidInput, InvalidRequest, NotDeletable
from certified.linear_model import ElasticNet, Lasso, LinearRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import MinMaxScaler, StandardScaler
from certified.testing import check_deletable, check_delete_equals_refit, deletion_requests

N, P, M = 60, 4, 3


def table(seed=0, n=N, p=P, m=M):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * 3.0 ** np.arange(p) + 0.5
    w = rng.normal(size=(p, m)) * (rng.random((p, m)) < 0.7) / 3.0 ** np.arange(p)[:, None]
    return x, x @ w + rng.normal(size=(n, m)) + 5.0, rng.uniform(0.2, 3.0, size=n)


def theirs(model):
    """The plain estimator with the same parameters, at a tight tolerance where it iterates."""
    plain = {Ridge: PlainRidge, LinearRegression: PlainLinear, ElasticNet: PlainElasticNet, Lasso: PlainLasso}
    own = {k: v for k, v in model.get_params().items() if k not in ("noise", "random_state", "tol", "max_iter")}
    tight = {"tol": 1e-13, "max_iter": 100_000} if isinstance(model, ElasticNet) else {}
    return plain[type(model)](**own, **tight)


ALL = [
    Ridge(alpha=0.7),
    LinearRegression(),
    ElasticNet(alpha=0.1),
    ElasticNet(alpha=0.1, l1_ratio=0.0),
    Lasso(alpha=0.2),
    Lasso(alpha=0.05, positive=True),
    ElasticNet(alpha=0.1, l1_ratio=0.3, positive=True),
]
EVERY = pytest.mark.parametrize("estimator", ALL, ids=str)


# ------------------------------------------------------------------------------- the same as scikit-learn's


@EVERY
@pytest.mark.parametrize("outputs", ["vector", "column", "three"])
@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "no weights"])
@pytest.mark.filterwarnings("ignore:Coordinate descent without L1:UserWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_values_and_shapes_are_those_of_scikit_learn(estimator, outputs, intercept, weighted):
    x, y, s = table()
    y = {"vector": y[:, 0], "column": y[:, :1], "three": y}[outputs]
    s = s if weighted else None
    ours = clone(estimator).set_params(fit_intercept=intercept).fit(x, y, sample_weight=s)
    plain = theirs(ours).fit(x, y, sample_weight=s)
    for found, wanted in (
        (ours.coef_, plain.coef_),
        (ours.intercept_, plain.intercept_),
        (ours.predict(x), plain.predict(x)),
        (ours.release().predict(x), plain.predict(x)),
    ):
        assert np.shape(found) == np.shape(wanted)
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert np.array_equal(np.asarray(ours.coef_) == 0.0, np.abs(plain.coef_) < 1e-12)
    assert ours.score(x, y) == pytest.approx(plain.score(x, y), rel=1e-6)


def test_a_penalty_for_each_output_is_that_of_separate_models():
    x, y, s = table()
    alpha = np.array([0.0, 0.5, 100.0])
    model = Ridge(alpha=alpha).fit(x, y, sample_weight=s)
    np.testing.assert_allclose(model.coef_, PlainRidge(alpha=alpha).fit(x, y, sample_weight=s).coef_, rtol=1e-6)
    for k in range(M):
        alone = Ridge(alpha=alpha[k]).fit(x, y[:, k], sample_weight=s)
        assert np.array_equal(model.coef_[k], alone.coef_)
        assert model.intercept_[k] == alone.intercept_


@pytest.mark.parametrize("estimator", [ElasticNet(alpha=0.1), Lasso(alpha=0.2)], ids=str)
def test_report_has_the_shape_of_scikit_learn(estimator):
    x, y, _ = table()
    model, plain = clone(estimator).fit(x, y), theirs(estimator).fit(x, y)
    assert model.dual_gap_.shape == plain.dual_gap_.shape
    assert len(model.n_iter_) == len(plain.n_iter_)
    model, plain = clone(estimator).fit(x, y[:, 0]), theirs(estimator).fit(x, y[:, 0])
    assert np.ndim(model.dual_gap_) == np.ndim(plain.dual_gap_) == np.ndim(model.n_iter_) == 0


# --------------------------------------------------------------------------- exact deletion, bit for bit

ESTIMATORS = st.one_of(
    st.builds(Ridge, alpha=st.sampled_from([0.3, 10.0]), fit_intercept=st.booleans()),
    st.builds(LinearRegression, fit_intercept=st.booleans()),
    st.builds(
        ElasticNet,
        alpha=st.sampled_from([1e-3, 0.1, 1.0]),
        l1_ratio=st.sampled_from([0.0, 0.5, 1.0]),
        fit_intercept=st.booleans(),
        positive=st.booleans(),
    ),
    st.builds(Lasso, alpha=st.sampled_from([1e-3, 0.1])),
)


@given(
    estimator=ESTIMATORS,
    seed=st.integers(0, 10**6),
    requests=deletion_requests(np.arange(20), max_share=0.6),
    outputs=st.integers(0, 3),
    weighted=st.booleans(),
    heavy=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_state_after_any_deletions_is_that_of_a_refit(estimator, seed, requests, outputs, weighted, heavy):
    x, y, s = table(seed, m=max(outputs, 1))
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(20), 3))
    x = np.where(heavy, rng.standard_t(1.5, size=x.shape), x)
    y = y if outputs else y[:, 0]
    s = s if weighted else np.ones(N)
    model = clone(estimator).fit(x, y, ids=ids, sample_weight=s)
    for request in requests:
        assert model.delete(request).certificate.claim == "exact"
    retained = rng.permutation(np.flatnonzero(np.isin(ids, model.ids_)))  # the order of the rows does not matter
    fresh = clone(estimator).fit(x[retained], y[retained], ids=ids[retained], sample_weight=s[retained])
    assert model.state_digest_ == fresh.state_digest_
    assert np.array_equal(model.coef_, fresh.coef_)
    assert np.array_equal(model.intercept_, fresh.intercept_)
    assert np.array_equal(model.noise_metric_, fresh.noise_metric_)


@pytest.mark.parametrize("estimator", [Ridge(), Ridge(alpha=[1.0, 2.0, 3.0]), Lasso(alpha=0.1)], ids=str)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=10, deadline=None)
def test_pipeline_after_a_deletion_is_a_refit(estimator, seed):
    x, y, s = table(seed)
    x[:5] *= 50.0  # without these rows the scaler serves other features
    for request in (range(5), [7, 20]):
        model = make_pipeline(StandardScaler(), clone(estimator)).fit(x, y, sample_weight=s)
        certificate = model.delete(request).certificate
        assert (certificate.claim, certificate.scope, certificate.mu) == ("exact", "pipeline", 0.0)
        retained = np.setdiff1d(np.arange(N), request)
        fresh = make_pipeline(StandardScaler(), clone(estimator)).fit(
            x[retained], y[retained], sample_weight=s[retained]
        )
        assert model._final.state_digest_ == fresh._final.state_digest_
        assert np.array_equal(model.predict(x), fresh.predict(x))
        assert model.release().predict(x).shape == (N, M)
        with pytest.raises(NotDeletable, match="the pipeline"):
            model._final.delete(30)


def test_values_of_deleted_rows_are_overwritten():
    x, y, _ = table()
    for estimator in (Ridge(), Lasso(alpha=0.1)):
        model = clone(estimator).fit(x, y)
        assert y[7].tobytes() in pickle.dumps(model)
        model.delete(7)
        assert x[7].tobytes() not in pickle.dumps(model)
        assert y[7].tobytes() not in pickle.dumps(model)


@pytest.mark.parametrize("estimator", [ElasticNet(alpha=0.1), Lasso(alpha=0.05), Lasso(alpha=0.05, noise=0.1)], ids=str)
def test_estimator_passes_the_public_checks(estimator):
    check_deletable(estimator)


# ------------------------------------------------------------------------------------------------- mutants


class WarmStart(Lasso):
    """Starts where the last solution lies: near a refit, and not bit for bit one."""

    def _coefficients(self, moments):
        coef, report = super()._coefficients(moments)
        self._last = 0.5 * (coef + getattr(self, "_last", coef))
        return self._last.copy(), report


class StaleSums(ElasticNet):
    """Forgets the rows, keeps the sums."""

    def _store(self, products, solution, differencing):
        super()._store(getattr(self, "_products", products), solution, differencing)


class OneOutput(Ridge):
    """Forgets in the first of its outputs only."""

    def _store(self, products, solution, differencing):
        before = getattr(self, "_solution", None)
        if before is not None:
            solution.parameter[1:] = before.parameter[1:]
        super()._store(products, solution, differencing)


@pytest.mark.parametrize("mutant", [WarmStart(alpha=0.01), StaleSums(alpha=0.01)], ids=lambda m: type(m).__name__)
def test_a_mutant_that_does_not_delete_is_caught(mutant):
    with pytest.raises(AssertionError, match=r"state|coefficients"):
        check_delete_equals_refit(mutant)


def test_an_output_that_is_left_behind_is_caught():
    x, y, _ = table()
    model = OneOutput().fit(x, y)
    model.delete(0)
    fresh = OneOutput().fit(x[1:], y[1:])
    assert np.array_equal(model.coef_[0], fresh.coef_[0])
    assert model.state_digest_ != fresh.state_digest_


# --------------------------------------------------------------------------------------------------- noise


def _columns(model):
    return np.column_stack([model.coef_, model.intercept_]).ravel()


@pytest.mark.parametrize("estimator", [Ridge(alpha=[1.0, 5.0, 20.0]), Lasso(alpha=0.1)], ids=str)
def test_noise_of_several_outputs_has_the_stated_covariance(estimator):
    x, y, _ = table()
    y = y * [1.0, 10.0, 0.1]
    model = clone(estimator).set_params(noise=0.3, random_state=0).fit(x, y)
    private = np.column_stack([model.private_coef_, model.private_intercept_]).ravel()
    factor = np.linalg.cholesky(model.noise_metric_)
    draws = []
    for _ in range(2000):
        model._draw()
        draws.append(factor.T @ (_columns(model) - private) / 0.3)
    z = np.array(draws)
    assert z.shape[1] == M * (P + 1)
    assert np.all(np.abs(z.mean(axis=0)) < 5 / np.sqrt(2000))
    assert np.all(np.abs(np.cov(z.T) - np.eye(z.shape[1])) < 5.5 * np.sqrt(2 / 2000))


def test_metric_has_a_block_for_each_output():
    x, y, s = table()
    alpha = np.array([1.0, 5.0, 20.0])
    model = Ridge(alpha=alpha).fit(x, y, sample_weight=s)
    metric = model.noise_metric_
    assert metric.shape == (M * (P + 1), M * (P + 1))
    for k in range(M):
        block = slice(k * (P + 1), (k + 1) * (P + 1))
        assert np.array_equal(
            metric[block, block], Ridge(alpha=alpha[k]).fit(x, y[:, k], sample_weight=s).noise_metric_
        )
        metric[block, block] = 0.0
    assert not metric.any()


def test_metric_is_the_penalised_gram_matrix_over_the_residual_variance():
    x, y, s = table()
    y = y[:, 0]
    model = ElasticNet(alpha=0.2, l1_ratio=0.25).fit(x, y, sample_weight=s)
    design = np.column_stack([x, np.ones(N)])
    wanted = (design * s[:, None]).T @ design + 0.2 * 0.75 * s.sum() * np.diag([1.0] * P + [0.0])
    ratio = model.noise_metric_ / wanted
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-6)
    residual = np.average((y - model.predict(x)) ** 2, weights=s)
    assert 2**-0.51 <= residual * ratio[0, 0] <= 2**0.51
    assert np.log2(1 / ratio[0, 0]) == pytest.approx(round(float(np.log2(1 / ratio[0, 0]))), abs=1e-6)


def test_certificate_counts_every_parameter_and_says_the_gap():
    x, y, _ = table()
    assert Ridge(noise=0.2).fit(x, y).certificate_.expected_excess_loss == pytest.approx(0.02 * M * (P + 1))
    certificate = Lasso(alpha=0.1, noise=0.2, fit_intercept=False).fit(x, y).certificate_
    assert certificate.expected_excess_loss == pytest.approx(0.02 * M * P)
    assert 0.0 <= certificate.assumptions["dual_gap"] < 1e-12


def test_noise_falls_on_zero_coefficients_too():
    x, y, _ = table()
    model = Lasso(alpha=1e6, noise=0.1).fit(x, y)
    assert not model.private_coef_.any()
    assert model.coef_.all()


def test_noise_on_duplicate_columns_without_l2_is_refused():
    x, y, _ = table()
    twice = np.column_stack([x, x])
    assert Lasso(alpha=0.1).fit(twice, y).coef_.shape == (M, 2 * P)
    with pytest.raises(CannotCertify, match=r"singular|positive definite|duplicate"):
        Lasso(alpha=0.1, noise=0.1).fit(twice, y)


def test_distance_between_releases_adds_over_outputs():
    x, y, _ = table()
    model = Ridge(noise=0.5).fit(x, y)
    before = np.column_stack([model.private_coef_, model.private_intercept_]).ravel()
    metric = model.noise_metric_
    receipt = model.delete([3, 4])
    change = np.column_stack([model.private_coef_, model.private_intercept_]).ravel() - before
    assert receipt.mu_differencing == pytest.approx(np.sqrt(change @ metric @ change) / 0.5, rel=1e-9)


# ----------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (Lasso(alpha=0.0), "Use LinearRegression"),
        (ElasticNet(alpha=0), "Use LinearRegression"),
        (ElasticNet(alpha=-1.0), "alpha=-1.0"),
        (ElasticNet(alpha=np.nan), "alpha=nan"),
        (ElasticNet(alpha="much"), "alpha='much'"),
        (ElasticNet(l1_ratio=1.5), "l1_ratio=1.5"),
        (ElasticNet(l1_ratio=-0.1), "l1_ratio=-0.1"),
        (Lasso(tol=0.0), "tol=0.0"),
        (Lasso(max_iter=0), "max_iter=0"),
        (Lasso(max_iter=2.5), "max_iter=2.5"),
        (Lasso(noise=-1.0), "noise=-1.0"),
        (Ridge(alpha=[1.0, 2.0]), "2 penalties .* for 3 outputs"),
        (Ridge(alpha=[1.0, 2.0, -3.0]), "finite number >= 0"),
        (Ridge(alpha="much"), "alpha='much'"),
    ],
    ids=str,
)
def test_parameter_out_of_range_is_refused(estimator, match):
    x, y, _ = table()
    with pytest.raises(InvalidInput, match=match):
        estimator.fit(x, y)


@pytest.mark.parametrize("estimator", [Ridge(), Lasso(alpha=0.1)], ids=str)
def test_bad_targets_and_requests_change_nothing(estimator):
    from scipy.sparse import csr_array

    x, y, _ = table()
    model = clone(estimator).fit(x, y)
    before = pickle.dumps(model)
    bad = y.copy()
    bad[3, 1] = np.nan
    for targets, match in (
        (bad, "contains NaN"),
        (y[:-1], "inconsistent numbers of samples"),
        (np.zeros((N, 2, 2)), "dim 3"),
        (np.zeros((N, 0)), "[Aa]t least one output|0 feature"),
        (csr_array(y), "sparse y"),
        (np.full((N, 2), "a"), "could not convert"),
    ):
        with pytest.raises(ValueError, match=match):
            model.fit(x, targets)
        assert pickle.dumps(model) == before
    with pytest.raises(ValueError, match=r"weights? must contain at least one non-zero|0 for every row"):
        model.fit(x, y, sample_weight=np.zeros(N))
    with pytest.raises(InvalidRequest, match="would remove every row"):
        model.delete(range(N))
    assert pickle.dumps(model) == before


def test_rows_of_weight_zero_alone_cannot_be_left():
    x, y, _ = table()
    s = (np.arange(N) < 5).astype(float)
    model = Lasso(alpha=0.1).fit(x, y, sample_weight=s)
    before = pickle.dumps(model)
    with pytest.raises(InvalidRequest, match="weight 0"):
        model.delete(range(5))
    assert pickle.dumps(model) == before


def test_values_beyond_float64_are_refused():
    x, y, _ = table()
    with pytest.raises(InvalidInput, match="Scale values or weights"):
        Lasso(alpha=0.1).fit(x * 1e200, y)


def test_constant_columns_and_targets_have_coefficients_of_zero():
    x, y, _ = table()
    x[:, 1], y[:, 2] = 7.0, 3.0
    for estimator in ALL:
        model = clone(estimator).fit(x, y)
        assert not model.coef_[:, 1].any()
        assert not model.coef_[2].any()
        assert model.intercept_[2] == 3.0


def test_the_digest_does_not_depend_on_the_number_of_threads():
    """Wide enough that the linear algebra library shares the work where it may."""
    code = (
        "import numpy as np\n"
        "from certified.linear_model import Ridge, ElasticNet\n"
        "rng = np.random.default_rng(0)\n"
        "x = rng.normal(size=(600, 300)); y = x[:, :50].sum(axis=1) + rng.normal(size=600)\n"
        "print([m.fit(x, y).state_digest_ for m in (Ridge(), ElasticNet(alpha=0.05))])"
    )
    found = set()
    for threads in ("1", "2", "4"):
        names = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
        run = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | dict.fromkeys(names, threads),
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(run.stdout)
    assert len(found) == 1


def test_a_deletion_that_changes_features_leaves_no_fewer_rows_than_a_fit_needs():
    X, y = np.array([[1.0, 2.0], [3.0, 5.0], [9.0, 4.0]]), np.array([1.0, 2.0, 4.0])
    model = make_pipeline(MinMaxScaler(), Ridge()).fit(X, y)
    before = model.state_digest_
    with pytest.raises(InvalidRequest, match="At least 2 are needed"):
        model.delete([1, 2])
    assert model.state_digest_ == before
    model.delete([2])
    assert model.state_digest_ == make_pipeline(MinMaxScaler(), Ridge()).fit(X[:2], y[:2]).state_digest_
