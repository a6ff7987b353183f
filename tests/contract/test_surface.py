"""One public surface: what an estimator has follows from what it is; one thing has one name and one signature."""

import inspect

import numpy as np
import pytest
from zoo import KINDS, data, example

from certified.base import Deletable

HASHED = {"key_", "rekey"}
FITTED = {}


def fitted(name):
    if name not in FITTED:
        model = example(name)
        X, y, ids = data(model)
        FITTED[name] = model.fit(X, y, ids=ids)
    return FITTED[name]


@pytest.mark.parametrize("name", KINDS)
def test_what_an_estimator_has_follows_from_what_it_is(name):
    model = fitted(name)
    has = {public for public in dir(type(model)) if not public.startswith("_") and hasattr(model, public)}
    assert {"certificate_", "delete", "deletion_cost", "fit", "ids_", "n_rows_", "plan"} <= has
    exact = model.certificate_.claim == "exact"
    assert ("state_digest_" in has or "state_digest_" in vars(model)) == exact
    assert ("refine" in has) == (not exact)
    keyed = "key" in model.get_params(deep=False)
    assert has >= HASHED if keyed else not HASHED & has
    if "predict_proba" in has:
        assert "predict_log_proba" in has
    if hasattr(model, "n_estimators") and name != "IsolationForest":
        assert "feature_importances_" in has


@pytest.mark.parametrize("name", KINDS)
def test_an_act_has_one_signature(name):
    model = fitted(name)
    for act in ("delete", "plan", "deletion_cost", "add", "rekey", "refine"):
        if hasattr(model, act):
            base = inspect.signature(getattr(Deletable, act, None) or SHARED[act])
            assert list(inspect.signature(getattr(type(model), act)).parameters) == list(base.parameters)


def _rekey(self, key=None):
    """What the families with keys have."""


def _refine(self):
    """What the families with bounds have."""


SHARED = {"rekey": _rekey, "refine": _refine}


@pytest.mark.parametrize("name", [name for name in KINDS if hasattr(KINDS[name], "predict_log_proba")])
def test_logarithms_are_those_of_the_probabilities(name):
    model = fitted(name)
    if hasattr(model, "predict_log_proba"):
        X = data(model)[0][:20]
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(
                model.predict_log_proba(X), np.log(model.predict_proba(X)), rtol=1e-6, atol=1e-12
            )


@pytest.mark.parametrize("name", KINDS)
def test_the_cost_of_a_request_is_told_and_changes_nothing(name):
    model = fitted(name)
    before = model.n_rows_
    for ids in (None, ["S003"], ["S003", "S004", "S009"]):
        cost = model.deletion_cost(ids)
        assert cost.seconds >= 0
        assert cost.share >= 0
        assert cost.rows >= 0
    assert model.n_rows_ == before
    preview = model.plan(["S003"])
    assert preview.n_rows == np.count_nonzero(np.isin(data(model)[2], ["S003"]))
