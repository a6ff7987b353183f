"""Linear models: scikit-learn's coefficients, exact or certified deletion, clear errors that change nothing."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression as PlainLinear
from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.linear_model import Ridge as PlainRidge

from certified._convex import derivatives, downdate
from certified.errors import CertifiedError, InvalidInput, InvalidRequest, UnknownIds
from certified.linear_model import LinearRegression, LogisticRegression, Ridge

N, P = 60, 3


def table(seed=0, n=N, p=P):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * 3.0 ** np.arange(p) + 0.5
    y = (x @ (0.8 / 3.0 ** np.arange(p)) + rng.logistic(size=n) > 0.4).astype(int)
    return x, y, 2.0 * x[:, 0] - x[:, -1] + rng.normal(size=n) + 5.0, rng.uniform(0.2, 3.0, size=n)


def parameter(model):
    return np.append(np.ravel(model.private_coef_), np.ravel(model.private_intercept_))


# ------------------------------------------------------------------------------- the same as scikit-learn's


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize("C", [0.01, 1.0, np.inf])
def test_logistic_coefficients_are_those_of_scikit_learn(intercept, weighted, C):
    x, y, _, s = table()
    s = s if weighted else None
    ours = LogisticRegression(C=C, noise=0, fit_intercept=intercept, tol=1e-9).fit(x, y, sample_weight=s)
    theirs = PlainLogistic(C=C, fit_intercept=intercept, solver="newton-cholesky", tol=1e-12, max_iter=500)
    theirs.fit(x, y, sample_weight=s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), rtol=1e-6)
    np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), rtol=1e-5)
    assert np.array_equal(ours.predict(x), theirs.predict(x))


@pytest.mark.parametrize("intercept", [True, False], ids=["intercept", "no intercept"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weights", "no weights"])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(Ridge(alpha=0.7), PlainRidge(alpha=0.7, tol=1e-12)), (LinearRegression(), PlainLinear())],
    ids=["ridge", "least squares"],
)
def test_least_squares_coefficients_are_those_of_scikit_learn(intercept, weighted, ours, theirs):
    x, _, y, s = table()
    s = s if weighted else None
    ours = clone(ours).set_params(fit_intercept=intercept).fit(x, y, sample_weight=s)
    theirs = clone(theirs).set_params(fit_intercept=intercept).fit(x, y, sample_weight=s)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-6)
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-6)


def test_logistic_after_a_deletion_is_near_a_refit_by_scikit_learn():
    x, y, _, _ = table()
    model = LogisticRegression(noise=0, tol=1e-9).fit(x, y)
    model.delete(range(10))
    theirs = PlainLogistic(solver="newton-cholesky", tol=1e-12).fit(x[10:], y[10:])
    np.testing.assert_allclose(model.coef_, theirs.coef_, rtol=1e-6)


# --------------------------------------------------------------------------- exact deletion, bit for bit


@pytest.mark.parametrize("estimator", [Ridge(alpha=0.3), Ridge(fit_intercept=False), LinearRegression()], ids=str)
@given(seed=st.integers(0, 10**6), weighted=st.booleans(), heavy=st.booleans())
@settings(max_examples=25)
def test_state_after_any_deletions_is_that_of_a_refit(estimator, seed, weighted, heavy):
    rng = np.random.default_rng(seed)
    x, _, y, s = table(seed)
    x = np.where(heavy, rng.standard_t(1.5, size=x.shape), x)
    s = s if weighted else np.ones(N)
    order = rng.permutation(N)[: rng.integers(1, 41)]
    model = clone(estimator).fit(x, y, sample_weight=s)
    cuts = np.sort(rng.choice(np.arange(1, len(order)), size=min(3, len(order) - 1), replace=False))
    for group in np.split(order, cuts):
        model.delete(group)
    retained = np.setdiff1d(np.arange(N), order)
    fresh = clone(estimator).fit(x[retained], y[retained], sample_weight=s[retained])
    assert model.state_digest_ == fresh.state_digest_
    assert np.array_equal(model.coef_, fresh.coef_)
    assert model.intercept_ == fresh.intercept_
    assert model.n_rows_ == len(retained)


def test_digest_tells_states_apart():
    x, _, y, _ = table()
    model = Ridge().fit(x, y)
    before = model.state_digest_
    model.delete(0)
    assert model.state_digest_ != before


def test_subject_with_several_rows_is_deleted_whole():
    x, _, y, _ = table()
    subjects = np.arange(N) % 7
    model = Ridge().fit(x, y, ids=subjects)
    receipt = model.delete([2, 4])
    retained = ~np.isin(subjects, [2, 4])
    assert (receipt.n_subjects, receipt.n_rows) == (2, int(np.sum(~retained)))
    assert model.state_digest_ == Ridge().fit(x[retained], y[retained]).state_digest_


@pytest.mark.parametrize("request_", [{3, 5}, frozenset([3, 5]), range(3, 6, 2), (3, 5)], ids=repr)
def test_any_collection_of_ids_is_a_request(request_):
    x, _, y, _ = table()
    model = Ridge().fit(x, y)
    assert model.delete(request_).n_subjects == 2
    assert model.n_rows_ == N - 2


# --------------------------------------------------------------------------------------------------- noise


@pytest.mark.parametrize("estimator", [LogisticRegression(noise=0.3), Ridge(noise=0.3)], ids=str)
def test_noise_of_the_release_has_the_stated_covariance(estimator):
    x, labels, values, _ = table()
    y = labels if isinstance(estimator, LogisticRegression) else values
    model = clone(estimator).set_params(random_state=0).fit(x, y)
    factor = np.linalg.cholesky(model.noise_metric_)
    draws = []
    for _ in range(2000):
        model._draw()
        released = np.append(np.ravel(model.coef_), np.ravel(model.intercept_))
        draws.append(factor.T @ (released - parameter(model)) / 0.3)
    z = np.array(draws)
    assert np.all(np.abs(z.mean(axis=0)) < 5 / np.sqrt(2000))
    assert np.all(np.abs(np.cov(z.T) - np.eye(z.shape[1])) < 5 * np.sqrt(2 / 2000))


def test_release_is_drawn_once_for_each_state():
    x, y, _, _ = table()
    model = LogisticRegression().fit(x, y)
    first = model.coef_
    assert np.array_equal(first, model.coef_)
    assert not np.array_equal(first, model.private_coef_)
    model.delete(0)
    assert not np.array_equal(first, model.coef_)


# ------------------------------------------------------------------------------------------------ bad input


def _models():
    x, labels, values, _ = table()
    yield LogisticRegression().fit(x, labels)
    yield LogisticRegression(noise=0).fit(x, labels)
    yield Ridge().fit(x, values)
    yield LinearRegression(noise=0.1).fit(x, values)


MODELS = pytest.mark.parametrize("index", range(4), ids=["logistic", "logistic without noise", "ridge", "linear"])


@MODELS
@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        (999, UnknownIds, "does not hold"),
        ([0, 999], UnknownIds, r"does not hold: \[999\]"),
        (["0"], UnknownIds, "does not hold"),
        ([3, 3], InvalidRequest, "more than once"),
        ([], InvalidRequest, "got no ids"),
        (range(N), InvalidRequest, "would (leave 0 rows|remove every row)"),
        ([1.0], InvalidInput, "Integers, text and UUIDs"),
        ([np.nan], InvalidInput, "none may be missing"),
        ([[1, 2], [3, 4]], InvalidInput, "One id per row"),
    ],
    ids=["unknown", "one unknown", "text", "twice", "empty", "all", "float", "missing", "table"],
)
def test_request_that_cannot_be_carried_out_changes_nothing(index, ids, error, match):
    model = list(_models())[index]
    before = pickle.dumps(model)
    with pytest.raises(error, match=match):
        model.delete(ids)
    assert pickle.dumps(model) == before


def test_last_row_of_a_class_cannot_be_deleted():
    x, y, _, _ = table()
    model = LogisticRegression().fit(x, y)
    before = pickle.dumps(model)
    for label in (0, 1):
        with pytest.raises(InvalidRequest, match=f"without a row .* of class {label}"):
            model.delete(np.flatnonzero(y == label))
    assert pickle.dumps(model) == before


@MODELS
@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=str)
def test_values_that_are_not_finite_change_nothing(index, bad):
    model = list(_models())[index]
    before = pickle.dumps(model)
    x, labels, values, _ = table()
    y = labels if index < 2 else values
    spoilt = x.copy()
    spoilt[5, 1] = bad
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        model.fit(spoilt, y)
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        model.fit(x, np.where(np.arange(N) == 3, bad, y))
    with pytest.raises(ValueError, match=r"contains (NaN|infinity)"):
        model.predict(spoilt)
    assert pickle.dumps(model) == before


@MODELS
def test_refused_fit_with_other_features_changes_nothing(index):
    model = list(_models())[index]
    before = pickle.dumps(model)
    x, labels, values, _ = table(p=5)
    y = labels if index < 2 else values
    with pytest.raises(InvalidInput, match="got 2 ids for 60 rows"):
        model.fit(x, y, ids=[1, 2])
    assert pickle.dumps(model) == before
    assert model.predict(table()[0]).shape == (N,)


@MODELS
def test_wrong_type_and_number_of_features_are_refused(index):
    model = list(_models())[index]
    before = pickle.dumps(model)
    x, _, _, _ = table()
    with pytest.raises(ValueError, match="could not convert string to float"):
        model.predict(np.array([["a", "b", "c"]], dtype=object))
    with pytest.raises(ValueError, match="expecting 3 features"):
        model.predict(x[:, :2])
    assert pickle.dumps(model) == before


@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge(), LinearRegression()], ids=str)
def test_model_that_is_not_fitted_says_so(estimator):
    for use in (lambda m: m.delete(0), lambda m: m.predict(table()[0]), lambda m: m.certificate_, lambda m: m.ids_):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            use(clone(estimator))


@pytest.mark.parametrize(
    ("estimator", "match"),
    [
        (LogisticRegression(C=0.0), "C=0.0"),
        (LogisticRegression(epsilon=0.0), "epsilon=0.0"),
        (LogisticRegression(noise=-1.0), "noise=-1.0"),
        (LogisticRegression(delta=1.0), "delta=1.0"),
        (LogisticRegression(tol=np.nan), "tol=nan"),
        (LogisticRegression(max_iter=0), "max_iter=0"),
        (Ridge(alpha=-1.0), "alpha=-1.0"),
        (Ridge(noise=np.inf), "noise=inf"),
    ],
    ids=str,
)
def test_parameter_out_of_range_is_refused(estimator, match):
    x, y, _, _ = table()
    with pytest.raises(InvalidInput, match=match):
        estimator.fit(x, y)


def test_one_class_is_refused():
    x, y, _, _ = table()
    with pytest.raises(InvalidInput, match="only one class"):
        LogisticRegression().fit(x, np.zeros(N))
    with pytest.raises(InvalidInput, match="only one class"):
        LogisticRegression().fit(x, y, sample_weight=y.astype(float))


def test_separable_classes_without_penalty_are_refused():
    x = np.linspace(-1, 1, 20)[:, None]
    with pytest.raises(CertifiedError, match="separate without error"):
        LogisticRegression(C=np.inf, noise=0).fit(x, (x[:, 0] > 0).astype(int))


@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["weight 0", "weight 1"])
def test_duplicate_columns_without_penalty_are_refused(weight):
    x, labels, values, s = table()
    s[0] = weight
    twice = np.column_stack([x, x[:, 0]])
    with pytest.raises(CertifiedError, match="duplicate"):
        LogisticRegression(C=np.inf).fit(twice, labels, sample_weight=s)
    with pytest.raises(CertifiedError, match="duplicate"):
        LinearRegression().fit(twice, values, sample_weight=s)


# ------------------------------------------------------------------------------------------------ machinery


def test_later_deletions_compile_nothing():
    x, y, _, _ = table(n=300)
    model = LogisticRegression(noise=0.3).fit(x, y)
    assert model.delete(0).method == "predicted"
    assert model.delete(range(1, 6)).method == "predicted"
    names = ("_gradient", "_slopes", "_predictors", "_most", "_bends", "_weighted_bends", "_hessian", "_leverage")
    programs = [downdate._both, *(getattr(derivatives, name) for name in names)]
    before = [f._cache_size() for f in programs]
    for i in range(20):
        model.delete(10 + i if i % 2 else [100 + 7 * i + j for j in range(2 + i % 6)])
    assert [f._cache_size() for f in programs] == before


def test_deleted_rows_are_overwritten():
    x, y, _, _ = table()
    model = LogisticRegression().fit(x, y)
    assert x[7].tobytes() in pickle.dumps(model)
    model.delete(7)
    assert x[7].tobytes() not in pickle.dumps(model)
    assert not model._rows.x[7].any()


@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge(noise=0.1), LinearRegression()], ids=str)
def test_release_is_plain_scikit_learn_without_rows(estimator, tmp_path):
    x, labels, values, _ = table()
    model = estimator.fit(x, labels if isinstance(estimator, LogisticRegression) else values)
    plain = model.release()
    saved = pickle.dumps(plain)
    assert type(plain).__module__.startswith("sklearn.linear_model")
    assert np.array_equal(plain.predict(x), model.predict(x))
    assert len(saved) < 1500
    assert b"certified" not in saved
    assert not any(row.tobytes() in saved for row in x)
    (tmp_path / "model.pkl").write_bytes(saved)
    np.save(tmp_path / "x.npy", x)
    script = (
        "import pickle, sys, numpy as np\n"
        "sys.modules['certified'] = None\n"
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "print(repr(model.predict(np.load('x.npy')).tolist()))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == repr(plain.predict(x).tolist())


def test_keeper_pickles_and_goes_on():
    x, y, _, _ = table()
    model = pickle.loads(pickle.dumps(LogisticRegression(noise=0.3).fit(x, y)))
    model.delete(3)
    assert model.n_rows_ == N - 1


def test_refined_model_is_measured():
    x, y, _, _ = table()
    model = LogisticRegression(noise=0.3, epsilon=5.0).fit(x, y)
    model.delete([1, 2, 3])
    found = model.refine()
    assert found.method == "measured"
    assert found.distance_bound <= model.tol
