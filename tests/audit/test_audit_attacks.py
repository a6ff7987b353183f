"""Membership inference, the competition's score, utility and plots."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.metrics import brier_score_loss, log_loss, mean_absolute_error, r2_score, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from certified.audit import (
    INCONCLUSIVE,
    NOT_REFUTED,
    REFUTED,
    attacks,
    exact_gap,
    membership,
    neurips_score,
    plots,
    utility,
)
from certified.audit._membership import auc, roc, tpr_at
from certified.audit._utility import calibration_error, group_gaps, metrics, psi
from certified.errors import InvalidInput
from certified.linear_model import LogisticRegression, Ridge

X, Y = load_breast_cancer(return_X_y=True)
X = X[:, :6] / X[:, :6].std(axis=0)
XD, YD = load_diabetes(return_X_y=True)
ROWS = np.arange(40)


@given(seed=st.integers(0, 2**32 - 1), ties=st.booleans())
def test_the_area_is_that_of_scikit_learn(seed, ties):
    rng = np.random.default_rng(seed)
    member = np.append(rng.random(30) < 0.5, [True, False])
    scores = rng.integers(0, 4, 32) if ties else rng.normal(size=32)
    assert auc(scores, member) == pytest.approx(roc_auc_score(member, scores))
    fpr, tpr = roc(scores, member)
    assert np.trapezoid(tpr, fpr) == pytest.approx(auc(scores, member))
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_the_true_positive_rate_at_a_low_false_positive_rate_is_read_off_the_curve():
    member = np.array([True] * 10 + [False] * 100)
    scores = np.append(np.linspace(10, 1, 10), np.linspace(5.5, -5, 100))
    fpr, tpr = roc(scores, member)
    assert tpr_at(fpr, tpr, 0.001) == 0.5
    assert tpr_at(fpr, tpr, 1.0) == 1.0


def test_attacks_find_members_of_models_that_memorise():
    for estimator, x, y in (
        (DecisionTreeClassifier(random_state=0), X, Y),
        (DecisionTreeRegressor(random_state=0), XD, YD),
        (KNeighborsClassifier(1), X, Y),
    ):
        found = attacks.attack(attacks.trained(estimator, x, y, ROWS), x[ROWS], y[ROWS], n_shadows=32, n_targets=8)
        assert found["lira"].verdict == REFUTED
        assert found["lira"].auc > 0.55
        assert found["rmia"].auc > 0.5
        assert found["lira"].record_auc.shape == (40,)


def test_attacks_find_nothing_after_an_exact_deletion_and_the_control_says_that_they_could():
    """With seeds; the alarm rate of each method is alpha."""
    learn, base = attacks.unlearned, attacks.trained
    calls = {"n_shadows": 32, "n_targets": 16, "alpha": 0.01}
    some = {"candidates": ROWS, "base": np.arange(40, 80)}
    control = attacks.attack(base(Ridge(alpha=1e-6), XD, YD, **some), XD[ROWS], YD[ROWS], **calls)
    found = attacks.attack(learn(Ridge(alpha=1e-6), XD, YD, **some), XD[ROWS], YD[ROWS], control=control, **calls)
    assert control["lira"].verdict == REFUTED
    assert found["lira"].verdict == NOT_REFUTED
    assert found["lira"].auc_control == control["lira"].auc
    assert attacks.attack(base(Ridge(), XD, YD, ROWS), XD[ROWS], YD[ROWS], n_shadows=8, n_targets=2, methods=("loss",))
    with pytest.raises(InvalidInput, match="methods"):
        attacks.attack(base(Ridge(), XD, YD, ROWS), XD[ROWS], YD[ROWS], methods=("guess",))


def test_records_that_stay_are_attacked_too():
    learn = attacks.retained(Ridge(alpha=1e-6), XD, YD, ROWS, deleted=np.arange(40, 60), base=np.arange(60, 90))
    model = learn(np.ones(40, dtype=bool))
    oracle = PlainRidge(alpha=1e-6).fit(XD[np.r_[:40, 60:90]], YD[np.r_[:40, 60:90]])
    assert np.allclose(model.coef_, oracle.coef_, rtol=1e-6)
    found = attacks.attack(learn, XD[ROWS], YD[ROWS], n_shadows=32, n_targets=16, methods=("lira",))
    assert found["lira"].verdict == REFUTED  # it is no fault: they were trained on, and are still there


def test_scores_are_log_odds_and_residuals():
    model = PlainLogistic(max_iter=2000).fit(X, Y)
    z = model.decision_function(X)
    assert np.allclose(attacks.record_scores(model, X, Y), np.where(Y == 1, z, -z), atol=1e-6)
    x, y = load_iris(return_X_y=True)
    many = PlainLogistic(max_iter=2000).fit(x, y)
    p = many.predict_proba(x)[np.arange(150), y]
    assert np.allclose(attacks.record_scores(many, x, y), np.log(p / (1 - p)), atol=1e-6)
    assert np.allclose(attacks.densities(attacks.record_scores(many, x, y), True), p)
    unknown = attacks.record_scores(many, x[:1], np.array([7]))
    assert unknown[0] < -100  # a class that the model has never seen
    line = PlainRidge().fit(XD, YD)
    assert np.array_equal(attacks.record_scores(line, XD, YD), YD - line.predict(XD))


def test_lira_is_the_likelihood_ratio_where_both_laws_are_known():
    """Oracle: with scores N(1, 1) in and N(0, 1) out, log ratio = score - 1/2; 4,000 reference models."""
    rng = np.random.default_rng(0)
    member = rng.random((4000, 3)) < 0.5
    shadow = attacks.Shadows(member, rng.normal(size=member.shape) + member, np.ones(member.shape), True)
    target = np.linspace(-2, 3, 5)[:, None] * np.ones(3)
    assert np.allclose(attacks.lira(target, shadow), target - 0.5, atol=0.4)
    offline = attacks.lira(target, shadow, offline=True)
    assert np.argmin(offline[:, 0]) == np.argmin(np.abs(target[:, 0]))
    with pytest.raises(InvalidInput, match="fewer than two"):
        attacks.lira(target, shadow[:1])


def test_rmia_counts_the_pairs_that_a_record_beats():
    rng = np.random.default_rng(1)
    half = rng.random((3, 5)) < 0.5
    shadow = attacks.Shadows(np.vstack([half, ~half]), np.zeros((6, 5)), rng.random((6, 5)) + 0.1, True)
    target = rng.random((2, 5))
    ratio = target / shadow.density.mean(axis=0)
    for gamma in (1.0, 1.5):
        oracle = [[np.mean(r[i] / r > gamma) for i in range(5)] for r in ratio]
        assert np.allclose(attacks.rmia(target, shadow, gamma=gamma), oracle)
    assert attacks.rmia(target[0], shadow, offline=True).shape == (5,)
    with pytest.raises(InvalidInput, match="every reference"):
        attacks.rmia(
            target, attacks.Shadows(np.ones((2, 5), bool), np.zeros((2, 5)), np.ones((2, 5)), True), offline=True
        )


def test_ridge_predictions_are_those_of_refits():
    base, some = np.arange(100, 200), np.arange(20)
    member = attacks.coins(4, 20, seed=3)
    found = attacks.ridge_predictions(XD, YD, member, base, some, alpha=0.3)
    for row, included in zip(found, member, strict=True):
        rows = np.append(base, some[included])
        assert np.allclose(row, PlainRidge(alpha=0.3).fit(XD[rows], YD[rows]).predict(XD[some]), rtol=1e-8)


def test_a_canary_pulls_harder_than_any_row():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 4)) * [1.0, 1.0, 1.0, 0.05]
    y = x @ [1.0, -1.0, 0.5, 3.0] + 0.1 * rng.normal(size=200)
    row, target = attacks.canary(x, y, classifier=False)
    whole = PlainRidge(alpha=1.0).fit(x, y)

    def pull(r, t):
        return np.linalg.norm(PlainRidge(alpha=1.0).fit(np.vstack([x, r]), np.append(y, t)).coef_ - whole.coef_)

    assert pull(row, target) > 5 * max(pull(x[i], y[i]) for i in range(40))
    label = (y > 0).astype(int)
    row, target = attacks.canary(x, label, classifier=True)
    model = PlainLogistic(C=100.0).fit(x, label)
    assert model.predict([row])[0] != target


def test_groups_and_shapes_are_checked():
    with pytest.raises(InvalidInput, match="shape"):
        membership([1.0, 2.0], [True, True])
    found = membership([3.0, 1.0, 2.0, 0.0], [True, False, True, False], groups=["a", "a", "b", "b"])
    assert found.groups == {"a": 1.0, "b": 1.0}
    assert found.verdict == INCONCLUSIVE  # four records prove nothing
    assert found.to_dict()["groups"] == {"a": 1.0, "b": 1.0}


# -------------------------------------------------------------- competition


def test_perfect_unlearning_scores_far_below_one():
    """512 models of each kind and 60 records: 0.36 by thresholds, 0.20 with intervals, more where models differ."""
    a, b, c = np.random.default_rng(0).normal(size=(3, 512, 60))
    plain = neurips_score(a, b, c, intervals=False)
    assert 0.28 < plain.deleting < 0.44
    assert plain.epsilon_median == pytest.approx(1.10, abs=0.15)
    assert 0.8 < plain.ratio < 1.25
    full = neurips_score(a[:, :12], b[:, :12], c[:, :12], retain_ratio=0.9)
    assert 0.1 < full.deleting < 0.35
    assert full.score == pytest.approx(0.9 * full.deleting)
    assert neurips_score(a + 1.0, b, c, intervals=False).ratio < 0.1
    assert plain.verdict == INCONCLUSIVE
    with pytest.raises(InvalidInput, match="one shape"):
        neurips_score(a, b[:100], c)


def test_collapsed_models_get_the_largest_epsilon():
    a, b, c = np.random.default_rng(1).normal(size=(3, 64, 2))
    assert np.all(neurips_score(np.zeros_like(a), b, c, intervals=False).epsilons == 50.0)
    assert np.all(neurips_score(np.zeros_like(a), np.zeros_like(b), c, intervals=False).epsilons == 0.0)


# ------------------------------------------------------------------ utility


def test_metrics_are_those_of_scikit_learn():
    model = PlainLogistic(max_iter=2000).fit(X[:300], Y[:300])
    p = model.predict_proba(X[300:])
    found = metrics(model, X[300:], Y[300:])
    assert found["accuracy"] == pytest.approx(model.score(X[300:], Y[300:]))
    assert found["log_loss"] == pytest.approx(log_loss(Y[300:], p))
    assert found["brier"] == pytest.approx(brier_score_loss(Y[300:], p[:, 1]))
    assert found["auc"] == pytest.approx(roc_auc_score(Y[300:], p[:, 1]))
    line = PlainRidge().fit(XD[:300], YD[:300])
    found = metrics(line, XD[300:], YD[300:], groups=XD[300:, 1] > 0)
    served = line.predict(XD[300:])
    assert found["rmse"] ** 2 == pytest.approx(np.mean((served - YD[300:]) ** 2))
    assert found["mae"] == pytest.approx(mean_absolute_error(YD[300:], served))
    assert found["r2"] == pytest.approx(r2_score(YD[300:], served))
    assert found["group_rmse_gap"] > 0


def test_calibration_and_stability_are_measured_by_bins():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1.0, 50_000)
    assert calibration_error(confidence, rng.random(50_000) < confidence) < 0.01
    assert calibration_error(confidence, np.ones(50_000)) == pytest.approx(0.25, abs=0.01)
    assert psi(confidence, confidence[:1000]) < 0.05
    assert psi(confidence, confidence + 0.3) > 1
    assert psi(np.zeros(10), np.zeros(10)) == 0.0


def test_a_forgotten_model_is_told_from_a_forgetting_one():
    model = LogisticRegression().fit(X[:400], Y[:400])
    before = model.release()
    model.delete(range(40))
    refit = LogisticRegression().fit(X[40:400], Y[40:400])
    groups = np.where(X[400:, 0] > 3, "large", "small")
    good = utility(before, model.release(), X[400:], Y[400:], refit=refit, groups=groups, tolerance=0.05)
    assert good.verdict == NOT_REFUTED, good.reason
    assert good.psi < 0.25
    broken = model.release()
    broken.coef_ = np.zeros_like(broken.coef_)
    bad = utility(before, broken, X[400:], Y[400:], refit=refit)
    assert bad.verdict == REFUTED
    assert bad.psi > 1
    assert bad.flipped > 0.1
    assert "group" not in str(bad.worst)
    with pytest.raises(InvalidInput, match="label"):
        utility(before, broken, X[400:], Y[400:], groups=groups[:5])


def test_group_gaps_are_differences_of_rates():
    p = np.array([1, 1, 0, 0, 1, 0, 0, 0], dtype=bool)
    t = np.array([1, 0, 1, 0, 1, 0, 1, 0], dtype=bool)
    found = group_gaps(p, t, list("aaaabbbb"))
    assert found == {"parity_gap": 0.25, "odds_gap": 0.5, "group_accuracy": 0.5}


# -------------------------------------------------------------------- plots


def test_plots_are_drawn_and_show_what_was_measured():
    plt = pytest.importorskip("matplotlib.pyplot", reason="matplotlib is not installed")
    plt.switch_backend("Agg")
    found = membership(np.random.default_rng(0).normal(size=400) + np.arange(400) % 2, np.arange(400) % 2 == 1)
    axes = plots.roc_curves(found)
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert f"{found.auc:.3f}" in axes.get_legend().get_texts()[1].get_text()
    model = LogisticRegression().fit(X, Y)
    model.delete([1])
    gap = exact_gap(model, np.delete(X, 1, 0), np.delete(Y, 1))
    axes = plots.epsilon_curves(gap)
    true, certified = (line.get_ydata() for line in axes.get_lines())
    assert np.all(true <= certified)
    axes = plots.null_distribution(np.zeros(10), shift=2.0, observed=1.0)
    assert "nothing removed" in " ".join(t.get_text() for t in axes.get_legend().get_texts())
    plt.close("all")


def test_the_package_is_imported_without_matplotlib():
    import subprocess
    import sys

    code = "import sys; sys.modules['matplotlib'] = None; import certified.audit.plots as p"
    code += "\ntry: p.null_distribution([0.0])"
    code += "\nexcept ImportError as e: assert 'certified-unlearning[plot]' in str(e)\nelse: raise SystemExit(1)"
    subprocess.run([sys.executable, "-c", code], check=True)
