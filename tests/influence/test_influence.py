"""Influence against refits, against statsmodels, through pipelines; what it refuses and what it does not tell."""

import pickle

import jax
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.datasets import load_breast_cancer

from certified._convex.losses import Logistic, Poisson, Squared
from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.errors import InvalidInput, UnknownIds
from certified.influence import influence, plots
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
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

N, P = 300, 4
RNG = np.random.default_rng(5)
X = RNG.normal(size=(N, P))
Z = X @ np.array([0.5, -0.3, 0.2, 0.0])
CLASSES = (RNG.random(N) < 1 / (1 + np.exp(-Z))).astype(int)
COUNTS = RNG.poisson(np.exp(Z)).astype(float)
NUMBERS = Z + RNG.normal(size=N)
POSITIVE = RNG.gamma(2.0, np.exp(Z) / 2) + 1e-3
IDS = np.repeat(np.arange(N // 2), 2)[RNG.permutation(N)]
CLOSE = {"noise": 0.0, "tol": 1e-9}
MODELS = {
    "logistic": (LogisticRegression(**CLOSE), CLASSES),
    "three classes": (LogisticRegression(**CLOSE), np.digitize(Z + RNG.normal(size=N), [-0.5, 0.5])),
    "poisson": (PoissonRegressor(alpha=1e-2, **CLOSE), COUNTS),
    "gamma": (GammaRegressor(alpha=1e-2, **CLOSE), POSITIVE),
    "tweedie": (TweedieRegressor(power=1.5, alpha=1e-2, **CLOSE), COUNTS),
    "log-cosh": (LogCoshRegressor(alpha=0.0, **CLOSE), NUMBERS),
    "ridge": (Ridge(alpha=3.0), NUMBERS),
    "least squares": (LinearRegression(), NUMBERS),
    "no intercept": (Ridge(fit_intercept=False), NUMBERS),
}


def _fit(model, X, y, **known):
    return type(model)(**model.get_params()).fit(X, y, **known)


def _vector(model):
    """Coefficients and intercept, as influence has them."""
    coef = np.atleast_2d(model.private_coef_)
    if not model.fit_intercept:
        return coef.ravel()
    return np.column_stack([coef, np.atleast_1d(model.private_intercept_)]).ravel()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("several", [False, True], ids=["one row", "two rows"])
def test_the_change_is_that_of_a_refit_within_its_error(name, several):
    model, y = MODELS[name]
    ids = IDS if several else np.arange(N)
    weight = RNG.uniform(0.5, 2.0, size=N)
    fitted = _fit(model, X, y, ids=ids, sample_weight=weight)
    found = influence(fitted)
    np.testing.assert_array_equal(found.ids, np.unique(ids))
    for i in range(0, len(found.ids), 40):
        retained = ids != found.ids[i]
        other = _fit(model, X[retained], y[retained], sample_weight=weight[retained])
        off = np.abs(_vector(other) - _vector(fitted) - found.coef_change[i])
        # the refit and the model are themselves known to 1e-9 standard errors
        assert np.all(off <= found.coef_error[i] + 4e-9 * found.standard_errors)
        assert found.error[i] < 0.5 * found.size[i]


def test_groups_are_left_out_as_a_whole():
    model = LogisticRegression(**CLOSE).fit(X, CLASSES, ids=IDS)
    found = influence(model, groups={"north": range(10), "south": [20, 21]})
    assert found.ids.tolist() == ["north", "south"]
    assert found.n_rows.tolist() == [20, 4]
    retained = ~np.isin(IDS, np.arange(10))
    off = np.abs(
        _vector(LogisticRegression(**CLOSE).fit(X[retained], CLASSES[retained])) - _vector(model) - found.coef_change[0]
    )
    assert np.all(off <= found.coef_error[0])
    alone = influence(model, ids=[21, 20])
    every = influence(model)
    np.testing.assert_allclose(alone.coef_change, every.coef_change[[21, 20]], rtol=1e-10)


@pytest.mark.parametrize("name", ["logistic", "poisson", "least squares"])
def test_losses_and_predictions_are_those_of_refits_within_their_errors(name):
    model, y = MODELS[name]
    rest, by = np.arange(N) >= 250, np.arange(50) % 2
    fitted = _fit(model, X[~rest], y[~rest])
    found = influence(fitted, X[rest], y[rest], by=by, ids=[3, 5, 9], prediction=True)
    assert found.groups == [0, 1]

    def seen(m):
        z = X[rest] @ m.private_coef_.ravel() + float(np.ravel(m.private_intercept_)[0])
        if name == "logistic":
            return np.logaddexp(0, z) - y[rest] * z, 1 / (1 + np.exp(-z))
        if name == "poisson":
            return np.exp(z) - y[rest] * z, np.exp(z)
        return (z - y[rest]) ** 2 / 2, z

    before = seen(fitted)
    for i, gone in enumerate([3, 5, 9]):
        retained = ~rest
        retained = retained & (np.arange(N) != gone)
        after = seen(_fit(model, X[retained], y[retained]))
        loss, mean = after[0] - before[0], after[1] - before[1]
        for g in (0, 1):
            assert abs(loss[by == g].mean() - found.loss.value[i, g]) <= found.loss.error[i, g] + 1e-9
            assert (
                abs(mean[by == g].mean() - found.mean_prediction.value[i, g])
                <= found.mean_prediction.error[i, g] + 1e-9
            )
        assert np.all(np.abs(mean - found.prediction.value[i]) <= found.prediction.error[i] + 1e-9)
        assert found.loss.error[i].max() < 0.2 * np.abs(mean).max() + 1e-6


def test_a_pipeline_is_answered_for_its_head_given_the_steps():
    model = make_pipeline(StandardScaler(), LogisticRegression(**CLOSE)).fit(X * 7.0 + 3.0, CLASSES, ids=IDS)
    found = influence(model, X[:20] * 7.0 + 3.0, CLASSES[:20])
    assert found.scope == "head given the steps"
    scaled = model[0].transform(X * 7.0 + 3.0)
    alone = influence(LogisticRegression(**CLOSE).fit(scaled, CLASSES, ids=IDS), scaled[:20], CLASSES[:20])
    np.testing.assert_allclose(found.coef_change, alone.coef_change, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.loss.value, alone.loss.value, rtol=1e-6, atol=1e-12)


def test_subjects_that_left_are_not_in_it():
    model = LogisticRegression(**CLOSE).fit(X, CLASSES)
    model.delete([4, 8])
    found = influence(model)
    assert len(found.ids) == N - 2
    retained = np.setdiff1d(np.arange(N), [4, 8])
    other = influence(LogisticRegression(**CLOSE).fit(X[retained], CLASSES[retained], ids=retained))
    assert np.all(np.abs(found.coef_change - other.coef_change) <= found.coef_error + other.coef_error)
    with pytest.raises(UnknownIds, match="influence"):
        influence(model, ids=[4])


def test_nothing_in_the_model_changes():
    model = LogisticRegression().fit(X, CLASSES)
    assert model.coef_.size  # which draws the release
    before = pickle.dumps(model)
    influence(model, X[:5], CLASSES[:5])
    assert pickle.dumps(model) == before


def test_the_conventions_are_those_of_statsmodels():
    design = sm.add_constant(X, prepend=False)
    ours = influence(LinearRegression().fit(X, NUMBERS))
    theirs = sm.OLS(NUMBERS, design).fit().get_influence()
    np.testing.assert_allclose(ours.dfbetas, theirs.dfbetas, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.cooks_distance, theirs.cooks_distance[0], rtol=1e-6)
    np.testing.assert_allclose(ours.leverage, theirs.hat_matrix_diag, rtol=1e-6)
    ours = influence(LogisticRegression(C=np.inf, **CLOSE).fit(X, CLASSES))
    theirs = sm.GLM(CLASSES, design, family=sm.families.Binomial()).fit(tol=1e-12).get_influence()
    np.testing.assert_allclose(ours.dfbetas, theirs.d_params / theirs.results.bse, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(ours.cooks_distance, theirs.cooks_distance[0], rtol=1e-5)
    np.testing.assert_allclose(ours.leverage, theirs.hat_matrix_diag, rtol=1e-5)


def test_the_table_of_who_matters_names_nobody_unless_asked():
    names = np.array([f"person-{k}" for k in range(N)])
    found = influence(LogisticRegression(**CLOSE).fit(X, CLASSES, ids=names), X[:9], CLASSES[:9])
    table = found.top(5)
    assert table.height == 5
    assert "person" not in str(table.to_dicts()) + repr(found)
    assert found.size.max() == table["size"][0]
    named = found.top(3, by="loss", ids=True)
    assert named["id"][0] == found.ids[np.argmax(np.abs(found.loss.value))]
    with pytest.raises(InvalidInput, match="by='age'"):
        found.top(by="age")


@pytest.mark.parametrize("name", ["logistic", "poisson", "three classes", "least squares"])
def test_a_group_that_is_too_large_for_one_step_takes_passes(name):
    model, y = MODELS[name]
    fitted, groups = _fit(model, X, y), {"most": np.arange(40, N), "one": [3]}
    if name not in ("three classes", "least squares"):
        assert np.isinf(influence(fitted, groups=groups, passes=0).error[0])
    found = influence(fitted, groups=groups)
    assert np.isfinite(found.error).all()
    off = np.abs(_vector(_fit(model, X[:40], y[:40])) - _vector(fitted) - found.coef_change[0])
    assert np.all(off <= found.coef_error[0] + 4e-9 * found.standard_errors)
    assert found.error[0] < 1e-3 * found.size[0]


def test_without_whom_there_is_no_minimiser_there_is_no_bound():
    classes = np.zeros(N, dtype=int)
    classes[5] = 1
    found = influence(LogisticRegression(C=1e-3, **CLOSE).fit(X, classes), ids=[5, 6])
    assert np.isinf(found.error[0])
    assert np.isfinite(found.error[1])


@pytest.mark.parametrize(
    ("model", "y", "match"),
    [
        (GaussianNB(), CLASSES, "GaussianNB"),
        (ElasticNet(alpha=0.01), NUMBERS, "ElasticNet"),
        (LogisticRegression(l1_ratio=1.0), CLASSES, "L1 penalty"),
        (LogisticRegression(solver="newton-cg"), CLASSES, "newton-cg"),
        (LogisticRegression(class_weight="balanced"), CLASSES, "balanced"),
        (Ridge(positive=True), NUMBERS, "positive"),
        (Ridge(), np.column_stack([NUMBERS, NUMBERS]), "several outputs"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_covered_is_refused(model, y, match):
    with pytest.raises(InvalidInput, match=match):
        influence(model.fit(X, y))


def test_wrong_requests_are_refused():
    model = LogisticRegression().fit(X, CLASSES)
    with pytest.raises(InvalidInput, match="fitted"):
        influence(LogisticRegression())
    with pytest.raises(InvalidInput, match="without X"):
        influence(model, y=CLASSES)
    with pytest.raises(InvalidInput, match="for 5 rows"):
        influence(model, X[:5], CLASSES[:4])
    with pytest.raises(InvalidInput, match="dict"):
        influence(model, groups=[1, 2])
    with pytest.raises(InvalidInput, match="class 7"):
        influence(model, X[:2], [7, 0])


def test_plots_name_nobody():
    pytest.importorskip("matplotlib").use("Agg")
    data, y = load_breast_cancer(return_X_y=True)
    found = influence(LogisticRegression().fit(data / data.std(axis=0), y, ids=[f"person-{k}" for k in range(len(y))]))
    for axes in (plots.changes(found), plots.changes(found, coefficient=0, name="radius"), plots.leverage(found)):
        assert axes.get_xlabel()
        assert "person" not in "".join(
            text.get_text() for text in axes.figure.findobj(lambda a: hasattr(a, "get_text"))
        )
    with pytest.raises(InvalidInput, match="coefficient=99"):
        plots.changes(found, coefficient=99)


@pytest.mark.parametrize(
    "model",
    [
        AdditiveClassifier(max_bins=6, sample_size=60, interactions=1, key=1),
        AdditiveRegressor(max_bins=6, sample_size=60, key=1),
        AdditiveRegressor(loss="poisson", max_bins=6, sample_size=60, key=1),
    ],
    ids=["classes", "numbers", "counts"],
)
def test_an_additive_model_is_answered_for_its_shapes_given_the_bins(model):
    y = CLASSES if isinstance(model, AdditiveClassifier) else COUNTS if model.loss == "poisson" else NUMBERS
    fitted = model.fit(X, y)
    found = influence(fitted, X[:10], y[:10])
    assert found.scope == "head given the steps"
    x, start = fitted._transformed(X), _vector(fitted._final)
    loss = {AdditiveClassifier: Logistic()}.get(type(model), Poisson() if y is COUNTS else Squared())
    _refits_agree(found, loss, np.column_stack([x, np.ones(N)]), y, np.append(np.ones(x.shape[1]), 0.0), start, [0, 70])


def _refits_agree(found, loss, x, y, penalty, start, which, offset=0.0):
    """The change of the minimiser, by Newton's method to rounding, is within the error."""

    def minimum(retained):
        w = start.copy()
        for _ in range(60):
            z = x[retained] @ w + np.broadcast_to(offset, len(x))[retained]
            with jax.enable_x64(True):
                slope, bend = (np.asarray(f(y[retained] * 1.0, z)) for f in (loss.gradient, loss.curvature))
            hessian = (x[retained] * bend[:, None]).T @ x[retained] + np.diag(penalty)
            w = w - np.linalg.solve(hessian, x[retained].T @ slope + penalty * w)
        return w

    whole = minimum(np.ones(len(x), dtype=bool))
    for i in which:
        retained = np.arange(len(x)) != i
        off = np.abs(minimum(retained) - whole - found.coef_change[i])
        assert np.isfinite(found.error[i])
        assert np.all(off <= found.coef_error[i] + 1e-10 * found.standard_errors)
        assert found.error[i] < 0.5 * found.size[i] + 1e-12


@pytest.mark.parametrize(
    ("kind", "shrink_to"), [("classes", "zero"), ("counts", "structure"), ("numbers", "zero")], ids=str
)
def test_boosted_trees_are_answered_for_their_leaf_values_given_the_trees(kind, shrink_to):
    pytest.importorskip("xgboost")
    from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    small = {
        "n_estimators": 4,
        "max_depth": 2,
        "sample_size": 100,
        "key": 3,
        "shrink_to": shrink_to,
        "leaf_penalty": 5.0,
    }
    model, y, loss = {
        "classes": (GradientBoostingClassifier(**small), CLASSES, Logistic()),
        "counts": (GradientBoostingRegressor(objective="count:poisson", **small), COUNTS, Poisson()),
        "numbers": (GradientBoostingRegressor(structure_weight=1.0, **small), NUMBERS, Squared()),
    }[kind]
    model.set_params(structure_weight=1.0).fit(X, y)
    found = influence(model, X[:10], y[:10])
    assert found.scope == "leaf values given the trees"
    assert np.isfinite(found.loss.error).all()
    state = model._state
    x = np.zeros((N, model.n_leaves_))
    np.put_along_axis(x, model._rows.leaves.astype(int), 1.0, axis=1)
    scale = float(model._w[0])  # of numbers, the objective is divided by their dispersion
    penalty = state.problem.penalty / scale
    start = state.solution.w - state.problem.centre
    _refits_agree(found, loss, x, y, penalty, start, [0, 70], state.base + x @ state.problem.centre)


def test_boosted_trees_that_are_too_many_or_of_many_classes_are_refused(monkeypatch):
    pytest.importorskip("xgboost")
    from certified.ensemble import GradientBoostingClassifier
    from certified.ensemble._boosting import minimised

    small = {"n_estimators": 2, "max_depth": 2, "sample_size": 100, "key": 3}
    with pytest.raises(InvalidInput, match="3 classes"):
        influence(GradientBoostingClassifier(**small).fit(X, np.digitize(Z, [-0.3, 0.3])))
    model = GradientBoostingClassifier(**small).fit(X, CLASSES)
    monkeypatch.setattr(minimised, "_MOST", 100)
    with pytest.raises(InvalidInput, match="rows and"):
        influence(model)
