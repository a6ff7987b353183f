"""``removal="influence"``: the same promise as the Newton way, kept by passes where one step is not enough."""

import numpy as np
import pytest

from certified.audit import exact_gap
from certified.errors import InvalidInput
from certified.linear_model import (
    GammaRegressor,
    LogCoshRegressor,
    LogisticRegression,
    PoissonRegressor,
    TweedieRegressor,
)
from certified.model_selection import GridSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import parametrize_with_deletion_checks
from certified.vault import Vault

N = 400
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 4))
Z = X @ np.array([0.6, -0.4, 0.2, 0.0])
CLASSES = (RNG.random(N) < 1 / (1 + np.exp(-Z))).astype(int)
COUNTS = RNG.poisson(np.exp(Z)) + 0.0
IDS = np.arange(N) // 2


@parametrize_with_deletion_checks(
    [
        LogisticRegression(removal="influence"),
        PoissonRegressor(alpha=1e-2, removal="influence"),
        make_pipeline(StandardScaler(), LogisticRegression(removal="influence"), key=1),
    ]
)
def test_every_deletion_check_passes(deletion_check):
    deletion_check()


@pytest.mark.parametrize(
    ("model", "y"),
    [
        (LogisticRegression(removal="influence"), CLASSES),
        (LogisticRegression(removal="influence"), np.digitize(Z + RNG.normal(size=N), [-0.5, 0.5])),
        (LogisticRegression(removal="influence", class_weight="balanced"), CLASSES),
        (PoissonRegressor(alpha=1e-2, removal="influence"), COUNTS),
        (GammaRegressor(alpha=1e-2, removal="influence"), COUNTS + 0.5),
        (TweedieRegressor(power=1.5, alpha=1e-2, removal="influence"), COUNTS),
        (TweedieRegressor(alpha=1e-2, removal="influence"), Z + RNG.normal(size=N)),
        (LogCoshRegressor(removal="influence"), Z + RNG.normal(size=N)),
    ],
    ids=["logistic", "classes", "balanced", "poisson", "gamma", "tweedie", "normal", "log-cosh"],
)
def test_the_certificate_is_above_the_true_gap_through_many_requests(model, y):
    model.set_params(noise=0.3).fit(X, y, ids=IDS)
    methods = set()
    for start in range(0, 60, 6):
        gone = np.arange(start, start + 6) if start % 12 else [start]
        methods.add(model.delete(gone).method)
        retained = np.isin(IDS, model.ids_)
        gap = exact_gap(model, X[retained], y[retained])
        assert not gap.refuted
        assert gap.mu <= model.certificate_.mu * (1 + 1e-6)
    assert methods <= {"predicted", "measured"}
    if model.get_params().get("class_weight") is None:
        assert "predicted" in methods


def test_a_request_that_one_step_does_not_reach_takes_passes():
    model = LogisticRegression(removal="influence").fit(X, CLASSES, ids=IDS)
    receipt = model.delete(np.arange(60))
    assert receipt.method == "measured"
    assert receipt.passes > 0
    assert receipt.certificate.mu <= receipt.certificate.mu_target


def test_a_refined_state_is_that_of_the_newton_way():
    """After `refine` nothing is left of how the rows were taken out."""
    models = [LogisticRegression(removal=way, noise=0.3).fit(X, CLASSES, ids=IDS) for way in ("newton", "influence")]
    for model in models:
        assert model.delete([7]).method == "predicted"
        model.refine()
        metric = model._state.anchor.metric
        assert not metric.W.any()
        assert (metric.eta, metric.rise) == (0.0, 0.0)
        assert metric.drift < 1e-15  # rounding
    np.testing.assert_array_equal(models[0].private_coef_, models[1].private_coef_)
    np.testing.assert_array_equal(models[0]._state.anchor.g, models[1]._state.anchor.g)


def test_the_influence_way_leaves_the_hessian_as_it_was():
    model = LogisticRegression(removal="influence", noise=0.3).fit(X, CLASSES, ids=IDS)
    before = model._state.anchor.metric
    assert model.delete([7]).method == "predicted"
    after = model._state.anchor.metric
    np.testing.assert_array_equal(before.P, after.P)
    assert after.drift > before.drift


def test_it_serves_in_a_search_and_in_a_vault(tmp_path):
    pytest.importorskip("cryptography")
    search = GridSearchCV(LogisticRegression(noise=0.3), {"removal": ["influence"], "C": [0.1, 1.0]}, cv=3, key=5)
    search.fit(X, CLASSES, ids=IDS)
    with Vault.create(tmp_path / "v", search) as vault:
        vault.request([3, 4], key="a")
        assert vault.process().sealed
        assert vault.verify(replay=True), vault.verify().problems
    with Vault.open(tmp_path / "v") as vault:
        assert 3 not in vault.model.ids_
        assert vault.model.best_estimator_.removal == "influence"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"removal": "cook"}, "removal='cook'"),
        ({"removal": "influence", "l1_ratio": 1.0}, "L1"),
        ({"removal": "influence", "solver": "newton-cg"}, "newton-cholesky"),
    ],
)
def test_what_it_cannot_do_is_refused(options, match):
    with pytest.raises(InvalidInput, match=match):
        LogisticRegression(**options).fit(X, CLASSES)
