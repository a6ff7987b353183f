"""The last person of a class leaves, and the class with them, where a refit has two others to learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import is_classifier
from zoo import KINDS, data, example

from certified.audit import noise_metric, private_parameter
from certified.base import Deletable
from certified.ensemble import GradientBoostingClassifier, RandomForestClassifier
from certified.errors import InvalidInput, InvalidRequest, LastOfClass
from certified.linear_model import LogisticRegression
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import MinMaxScaler, StandardScaler

BINARY = {"AdditiveClassifier", "Pipeline"}  # the first takes two classes; pipelines are below
MODELS = {name: example(name) for name in KINDS if name not in BINARY and is_classifier(example(name))} | {
    "logistic by products": LogisticRegression(solver="newton-cg"),
    "logistic, balanced": LogisticRegression(class_weight="balanced"),
    "forest, balanced": RandomForestClassifier(3, key=7, class_weight="balanced"),
    "scaler, logistic": make_pipeline(StandardScaler(), LogisticRegression()).set_params(key=7),
    "scaler, gaussian": make_pipeline(StandardScaler(), GaussianNB()).set_params(key=7),
    "range, forest": make_pipeline(MinMaxScaler(), RandomForestClassifier(3)).set_params(key=7),
    "range, boosted": make_pipeline(
        MinMaxScaler(), GradientBoostingClassifier(n_estimators=4, max_depth=2, sample_size=60)
    ).set_params(key=7),
    "search, gaussian": GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=3, key=7),
}


def fresh(model):
    return type(model)(**model.get_params(deep=False))


def drawn(model, classes, seed):
    """Rows of so many classes, the last of which one person has."""
    X, _, ids = data(model)
    y = np.random.default_rng(seed).integers(0, classes - 1, len(X))
    y[:classes] = 0
    y[classes : 2 * classes - 1] = np.arange(classes - 1)
    y[ids == ids[90]] = classes - 1
    return X, np.array(["mild", "none", "rare", "severe"])[[0, 1, 2, 3]][y], ids


def assert_equals_refit(model, refit):
    assert model.classes_.tolist() == refit.classes_.tolist()
    if hasattr(model, "state_digest_"):
        assert model.state_digest_ == refit.state_digest_
        return
    final = (getattr(model, "_final", None) or model), (getattr(refit, "_final", None) or refit)
    gap, metric = private_parameter(final[0]) - private_parameter(final[1]), noise_metric(final[0])
    assert np.array_equal(metric, noise_metric(final[1]))
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ metric @ gap) <= allowed * (1 + 1e-9)


@settings(max_examples=4)
@given(classes=st.sampled_from([3, 4]), others=st.integers(0, 4), seed=st.integers(0, 1000))
@pytest.mark.parametrize("name", MODELS)
def test_the_class_leaves_with_its_last_person(name, classes, others, seed):
    X, y, ids = drawn(MODELS[name], classes, seed)
    request = [ids[90], *np.unique(ids)[100 : 100 + others].tolist()]
    model = fresh(MODELS[name]).fit(X, y, ids=ids)
    if classes - 1 == len(np.unique(y)) or ids[90] not in model.ids_:
        return
    receipt = model.delete(request)
    left = ~np.isin(ids, request)
    assert receipt.n_rows == np.count_nonzero(~left)
    assert receipt.mu_differencing == np.inf
    assert_equals_refit(model, fresh(MODELS[name]).fit(X[left], y[left], ids=ids[left]))
    if hasattr(model, "release"):
        assert model.release().classes_.tolist() == model.classes_.tolist()
    more = np.unique(ids)[110:112].tolist()  # and requests go on
    model.delete(more)
    left &= ~np.isin(ids, more)
    assert_equals_refit(model, fresh(MODELS[name]).fit(X[left], y[left], ids=ids[left]))


@pytest.mark.parametrize("name", MODELS)
def test_the_last_person_but_one_class_is_refused_and_nothing_changes(name):
    X, _, ids = data(MODELS[name])
    y = np.where(ids == ids[90], "rare", "usual")
    try:
        model = fresh(MODELS[name]).fit(X, y, ids=ids)
    except InvalidInput:  # a fold of a search without one of the classes
        return
    before = model.classes_.tolist()
    with pytest.raises(InvalidRequest, match="class"):
        model.delete([ids[90]])
    assert model.classes_.tolist() == before
    assert ids[90] in model.ids_
    assert model.plan([ids[90]]).refused


def test_weights_of_a_class_that_leaves_are_refused_as_a_refit_refuses_them():
    X, y, ids = drawn(MODELS["LogisticRegression"], 3, 0)
    weights = dict.fromkeys(np.unique(y).tolist(), 2.0)
    for model in (LogisticRegression(class_weight=weights), RandomForestClassifier(3, key=1, class_weight=weights)):
        model.fit(X, y, ids=ids)
        with pytest.raises(InvalidInput, match="class_weight"):
            model.delete([ids[90]])
        assert ids[90] in model.ids_


def test_a_model_that_keeps_the_class_is_caught(monkeypatch):
    """The mutant refuses what a refit does not."""
    monkeypatch.setattr(GaussianNB, "_with_classes_left", Deletable._with_classes_left)
    X, y, ids = drawn(MODELS["GaussianNB"], 3, 0)
    with pytest.raises(LastOfClass):
        fresh(MODELS["GaussianNB"]).fit(X, y, ids=ids).delete([ids[90]])
