"""Additive models: penalised fits, shape functions, releases, and deletion through bins and head."""

import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from test_additive_terms import _frame

from certified.additive import AdditiveClassifier, AdditiveRegressor, _terms
from certified.additive._terms import Terms
from certified.errors import InvalidInput, InvalidRequest
from certified.testing import check_delete_equals_refit

SMALL = dict(max_bins=8, interactions=[(0, 1)], max_interaction_bins=4, smoothness=0.5, min_frequency=5)
PAIR = 8.0  # smoothness of interactions


def _dense(X, y, loss, model):
    """Minimise the penalised likelihood over the values of all bins and cells; return the linear predictors."""
    layout = model._terms._learned
    fine = [axis.codes(x) for axis, x in zip(layout.axes, X.T, strict=True)]
    rough = [axis.codes(x) for axis, x in zip(layout.coarse, X.T, strict=True)]
    sizes = [axis.size for axis in layout.axes]
    n, m = (axis.size for axis in layout.coarse)
    starts = np.cumsum([1, *sizes])
    n_all = starts[-1] + n * m

    def parts(theta):
        return (
            theta[0],
            [theta[a : a + k] for a, k in zip(starts, sizes, strict=False)],
            theta[starts[-1] :].reshape(n, m),
        )

    def predictors(theta):
        b, mains, cells = parts(theta)
        cells = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
        return b + sum(f[c] for f, c in zip(mains, fine, strict=True)) + cells[rough[0], rough[1]]

    def objective(theta):
        z = predictors(theta)
        losses = {
            "logistic": lambda: np.logaddexp(0.0, z) - y * z,
            "squared_error": lambda: 0.5 * (y - z) ** 2,
            "poisson": lambda: np.exp(z) - y * z,
            "gamma": lambda: z + y * np.exp(-z),
        }[loss]()
        _, mains, cells = parts(theta)
        rough_ = sum(0.5 * len(f) * np.sum(np.diff(f) ** 2) + 1e-9 * f.sum() ** 2 for f in mains)
        cells = cells - cells.mean(axis=0) - cells.mean(axis=1)[:, None] + cells.mean()
        rough_ += PAIR * (n * np.sum(np.diff(cells, axis=0) ** 2) + m * np.sum(np.diff(cells, axis=1) ** 2))
        return losses.sum() + 0.5 * rough_

    found = minimize(objective, np.zeros(n_all), method="BFGS", options={"gtol": 1e-5, "maxiter": 3000})
    return predictors(found.x)


@pytest.mark.parametrize("loss", ["logistic", "squared_error", "poisson", "gamma"])
def test_the_fit_minimises_the_penalised_likelihood_over_all_bins_and_cells(loss):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (80, 2))
    z = np.sin(3 * X[:, 0]) + X[:, 0] * X[:, 1]
    draws = {
        "logistic": lambda: (z + rng.logistic(size=80) > 0).astype(float),
        "squared_error": lambda: z + 0.3 * rng.standard_normal(80),
        "poisson": lambda: rng.poisson(np.exp(z)).astype(float),
        "gamma": lambda: rng.gamma(2.0, np.exp(z) / 2.0),
    }
    y = draws[loss]()
    parameters = SMALL | {"max_bins": 3, "max_interaction_bins": 2}
    model = AdditiveClassifier(**parameters) if loss == "logistic" else AdditiveRegressor(loss, **parameters)
    model.set_params(noise=0).fit(X, y)
    layout = model._terms._learned
    assert max(axis.size for axis in layout.axes) <= 9
    assert min(axis.size for axis in layout.axes) >= 3
    assert max(axis.size for axis in layout.coarse) <= 5
    assert min(axis.size for axis in layout.coarse) >= 3
    ours = model.baseline_ + model.eval_terms(X).sum(axis=1)
    assert np.allclose(ours, _dense(X, y, loss, model), atol=2e-4)


def _agrees(model, frame, y, ids, parameters):
    """Whether the state is that of a refit within both certificates, the features bit for bit."""
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(ids, model.ids_)))
    fresh = type(model)(**{"key": model.key_} | parameters).fit(frame[rows], y[rows], ids=ids[rows])
    same = model.steps_[0][1].state_digest_ == fresh.steps_[0][1].state_digest_
    if hasattr(model, "state_digest_"):
        return same and model.state_digest_ == fresh.state_digest_
    pairs = [np.column_stack([np.atleast_2d(m.private_coef_), np.ravel(m.private_intercept_)]) for m in (model, fresh)]
    gap = (pairs[0] - pairs[1]).ravel()
    allowed = model.certificate_.distance_bound + fresh.certificate_.distance_bound
    return same and np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 25), min_size=1, max_size=3))
@pytest.mark.parametrize("kind", [AdditiveClassifier, AdditiveRegressor])
def test_any_requests_on_frames_with_text_and_missing_values_end_at_a_refit(kind, seed, sizes):
    frame, y, ids = _frame(seed, 160)
    parameters = SMALL | {"sample_size": 30}
    model = kind(**parameters).fit(frame, y, ids=ids)
    for size in sizes:
        model.delete(model.ids_[:size])
    assert _agrees(model, frame, y, ids, parameters)


def _renewals(monkeypatch, change=lambda pieces: pieces):
    """Delete rows of the sample one by one; return how many terms were kept and made anew, and whether all are right.

    `change` breaks the pieces that the step hands on.
    """
    seen = []
    act = Terms._changed_features
    monkeypatch.setattr(Terms, "_changed_features", lambda *args: seen.append(change(act(*args))) or seen[-1])
    right = True
    for seed in range(3):
        frame, y, ids = _frame(seed, 160)
        model = AdditiveClassifier(**SMALL | {"sample_size": 60, "min_frequency": 2}, key=7).fit(frame, y, ids=ids)
        for subject in model.ids_[:30]:
            if "terms" in model.delete([subject]).changed:
                table = model._table.with_weight()
                rows = model._final._rows.x[: len(y)][model._table.weight > 0, :-1]
                right &= np.array_equal(rows, model._terms._served.features(table.x))
    kinds = [isinstance(piece, slice) for pieces in seen for piece in pieces]
    return kinds.count(True), kinds.count(False), right


def test_a_deletion_makes_only_the_terms_anew_whose_bins_or_smoothness_changed(monkeypatch):
    retained, made, right = _renewals(monkeypatch)
    assert retained > made > 0
    assert right


def test_a_term_that_is_kept_where_it_should_not_be_is_caught(monkeypatch):
    def moved(pieces):
        return [slice(p.start + 1, p.stop + 1) if isinstance(p, slice) and p.start == 0 else p for p in pieces]

    assert not _renewals(monkeypatch, moved)[2]


class StaleBins(AdditiveRegressor):
    """Forgets the rows in the head alone."""

    def _plan_deletion(self, rows):
        terms = self.steps_[0][1]
        plan, statistic, learned = super()._plan_deletion(rows), terms._statistic, terms._learned

        def commit(first=plan.commit):
            first()
            terms._store(statistic, learned)

        object.__setattr__(plan, "commit", commit)
        return plan


def test_a_model_that_keeps_its_bins_is_caught():
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(StaleBins(interactions=0, smoothness=1.0))


def test_a_deletion_outside_the_sample_takes_no_pass_and_changes_the_head_alone():
    frame, y, ids = _frame(3, 3000)
    model = AdditiveClassifier(sample_size=60, interactions=2, key=7).fit(frame, y, ids=ids)
    receipts = [model.delete([i]) for i in model.ids_[:30]]
    fast = [r for r in receipts if r.method == "predicted" and r.changed == ("head",)]
    assert len(fast) >= 25  # about 1 of 30 is in the sample
    assert _agrees(model, frame, y, ids, {"sample_size": 60, "interactions": 2})


@pytest.mark.parametrize("kind", [AdditiveClassifier, AdditiveRegressor])
@pytest.mark.parametrize("to", [lambda f: f, lambda f: f.to_pandas()], ids=["polars", "pandas"])
def test_the_release_is_plain_scikit_learn_and_predicts_the_same_on_frames(kind, to):
    frame, y, ids = _frame(5, 300)
    model = kind(interactions=[("town", "amount"), ("amount", "noise")], min_frequency=20).fit(to(frame), y, ids=ids)
    model.delete(model.ids_[:3])
    new = _frame(6, 50)[0].with_columns(town=pl.Series(["Lagash", *_frame(6, 50)[0]["town"][1:]]))
    method = "predict_proba" if kind is AdditiveClassifier else "predict"
    dump = pickle.dumps(model.release())
    assert b"certified" not in dump
    for given_ in (frame, new):
        served = getattr(model, method)(to(given_))
        assert np.allclose(getattr(pickle.loads(dump), method)(to(given_)), served, rtol=1e-9)


def test_the_release_of_the_log_link_predicts_means():
    rng = np.random.default_rng(0)
    X = rng.uniform(size=(200, 2))
    y = rng.poisson(np.exp(X[:, 0]))
    model = AdditiveRegressor("poisson", interactions=0).fit(X, y, sample_weight=rng.uniform(0.5, 2.0, 200))
    assert np.allclose(model.release().predict(X), model.predict(X), rtol=1e-9)
    assert model.score(X, y) == pytest.approx(model.release().score(X, y))


def test_shape_functions_have_mean_0_and_add_up_to_the_predictor():
    frame, y, _ = _frame(7, 400)
    model = AdditiveClassifier(interactions=[("amount", "grade")]).fit(frame, y)
    assert model.term_names_ == ["amount", "town", "grade", "noise", "amount & grade"]
    assert model.term_features_ == [(0,), (1,), (2,), (3,), (0, 2)]
    for shape in model.shape_functions_:
        assert shape.weights.sum() == 400
        assert np.sum(shape.weights * shape.scores) == pytest.approx(0.0, abs=1e-9)
    assert np.allclose(model.baseline_ + model.eval_terms(frame).sum(axis=1), model.decision_function(frame))
    assert np.allclose(np.abs(model.eval_terms(frame)).mean(axis=0), model.term_importances())
    told = model.explain()
    assert told.filter(term="town")["bin"].to_list()[-1] == "missing"
    assert told.filter(term="amount")["weight"].sum() == 400
    assert told.filter(term="amount & grade")["second_bin"].null_count() == 0


def test_a_jump_is_kept_and_noise_is_smoothed():
    rng = np.random.default_rng(0)
    X = rng.uniform(0, 1, (4000, 2))
    y = (rng.random(4000) < np.where(X[:, 0] > 0.37, 0.8, 0.2)).astype(int)
    jump, nothing = AdditiveClassifier(interactions=0, noise=0).fit(X, y).shape_functions_
    edge = np.searchsorted(jump.axes[0].cuts, 0.37)
    assert jump.scores[edge + 5 :].mean() - jump.scores[: edge - 5].mean() == pytest.approx(2 * np.log(4), abs=0.3)
    assert np.ptp(nothing.scores) < 0.3


def test_plots_need_matplotlib_and_say_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(ImportError, match=r"certified-unlearning\[plot\]"):
        AdditiveRegressor(interactions=0).fit(X[:, :2], y).plot(0)


def test_plots_draw_every_kind_of_term():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    frame, y, _ = _frame(7, 300)
    model = AdditiveRegressor(interactions=[("amount", "town")]).fit(frame, y)
    axes = [model.plot(name) for name in model.term_names_]
    assert [ax.get_title() for ax in axes] == model.term_names_
    assert [tick.get_text() for tick in axes[0].get_xticklabels()][-1] == "missing"
    assert [tick.get_text() for tick in axes[4].get_xticklabels()][-1] == "missing"
    with pytest.raises(InvalidInput, match="one of"):
        model.plot("age")


def test_importing_additive_models_loads_no_matplotlib():
    code = "import sys, certified.additive; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_cannot_be_fitted_is_refused_with_a_reason():
    X, y = load_breast_cancer(return_X_y=True)
    with pytest.raises(InvalidInput, match="loss='hinge'"):
        AdditiveRegressor("hinge").fit(X, y)
    with pytest.raises(InvalidInput, match="all constant"):
        AdditiveRegressor().fit(np.ones((9, 2)), np.arange(9))
    with pytest.raises(InvalidInput, match="1 sample"):
        AdditiveRegressor().fit(np.ones((1, 2)), [0.0])


def test_frames_of_pandas_with_categories_and_booleans_are_read():
    frame = pd.DataFrame({"kind": pd.Categorical(["a", "b"] * 30), "flag": [True, False, False] * 20})
    model = AdditiveRegressor(interactions=0, min_frequency=1).fit(frame, np.arange(60) % 2)
    assert model.predict(frame)[:2] == pytest.approx([0.0, 1.0], abs=0.2)
    assert np.allclose(model.release().predict(frame), model.predict(frame))


# ----------------------------------------------------------------- more classes


def _of_classes(seed, n=400):
    """Rows of three classes, of which the last depends on a product of two features that the others do not know."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (n, 3))
    z = np.column_stack([np.sin(3 * X[:, 0]), X[:, 1], 3 * np.sign(X[:, 1] * X[:, 2])])
    names = np.array(["a", "b", "c"])
    return X, names[np.argmax(z + rng.gumbel(size=(n, 3)), axis=1)]


def test_several_classes_are_one_multinomial_model_of_the_terms():
    X, y = _of_classes(0)
    model = AdditiveClassifier(interactions=2, noise=0, tol=1e-8).fit(X, y)
    features = model._terms._served.features(model._table.x)
    plain = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(features, y)
    assert np.allclose(model.coef_, plain.coef_, atol=1e-4)
    assert np.allclose(model.predict_proba(X), plain.predict_proba(features), atol=1e-5)


def test_functions_of_several_classes_add_up_and_are_released():
    X, y = _of_classes(1)
    frame = pl.DataFrame({"u": X[:, 0], "v": X[:, 1], "w": np.where(X[:, 2] > 0, "up", "down")})
    model = AdditiveClassifier(interactions=[("v", "w")]).fit(frame, y)
    together = model.baseline_ + model.eval_terms(frame).sum(axis=1)
    assert np.allclose(together, model.decision_function(frame))
    release = model.release()
    assert np.allclose(release.predict_proba(frame), model.predict_proba(frame))
    assert (release.predict(frame) == model.predict(frame)).all()
    assert release.score(frame, y) > 0.5
    for shape in model.shape_functions_:
        assert shape.scores.shape == (*shape.weights.shape, 3)
        means = (shape.scores * shape.weights[..., None]).sum(axis=tuple(range(shape.weights.ndim)))
        assert np.allclose(means, 0.0, atol=1e-9)
        assert np.array_equal(shape.of("b").scores, shape.scores[..., 1])
    assert model.term_importances().shape == (4,)
    table = model.explain()
    assert table.columns == ["term", "bin", "second_bin", "score", "weight", "class"]
    assert table["class"].unique().sort().to_list() == ["a", "b", "c"]
    found = table.filter(pl.col("term") == "u", pl.col("class") == "c")["score"].to_numpy()
    assert np.allclose(found, model.shape_functions_[0].of("c").scores)


def test_the_plot_of_a_class_is_asked_for_by_its_name():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    X, y = _of_classes(1)
    model = AdditiveClassifier(interactions=0).fit(X, y)
    assert model.plot("x0", label="b").get_title() == "x0"
    with pytest.raises(InvalidInput, match=r"one of \['a', 'b', 'c'\]"):
        model.plot("x0")
    with pytest.raises(InvalidInput, match="leave it out"):
        AdditiveClassifier(interactions=0).fit(X, y == "a").plot("x0", label="b")


def test_a_pair_that_one_class_alone_needs_is_chosen(monkeypatch):
    X, y = _of_classes(2, 1500)
    model = AdditiveClassifier(interactions=1).fit(X, y)
    assert model._terms._learned.pairs.tolist() == [[1, 2]]
    honest = _terms.chosen
    monkeypatch.setattr(_terms, "chosen", lambda axes, codes, sums, most: honest(axes, codes, sums[:0], most))
    assert not AdditiveClassifier(interactions=1).fit(X, y)._terms._learned.pairs.size


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 25), min_size=1, max_size=3))
def test_any_requests_of_several_classes_end_at_a_refit(seed, sizes):
    frame, y, ids = _frame(seed, 160)
    y = np.where(np.random.default_rng(seed).random(160) < 0.35, 2, y > np.median(y)).astype(int)
    parameters = SMALL | {"sample_size": 30}
    model = AdditiveClassifier(**parameters).fit(frame, y, ids=ids)
    for size in sizes:
        model.delete(model.ids_[:size])
    assert _agrees(model, frame, y, ids, parameters)
    last = np.unique(ids[(y == 2) & np.isin(ids, model.ids_)])
    with pytest.raises((InvalidInput, InvalidRequest), match=r"class|every row"):
        model.delete(last)
