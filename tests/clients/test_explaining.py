"""SHAP explains keepers and releases alike."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from certified.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

shap = pytest.importorskip("shap")
X, Y = (part[:200] for part in load_breast_cancer(return_X_y=True))
X = X[:, :6]


def deleted(model):
    model.fit(X, Y, ids=np.arange(len(X)))
    model.delete([3, 4, 5])
    return model


@pytest.mark.parametrize(
    "model",
    [
        RandomForestClassifier(10, max_depth=4, key=0),
        RandomForestClassifier(10, max_leaf_nodes=8, key=0),
        ExtraTreesRegressor(10, max_depth=4, key=0),
        GradientBoostingClassifier(5, sample_size=100, key=0),
    ],
    ids=lambda model: type(model).__name__,
)
def test_trees_are_explained_and_what_explains_adds_up_to_what_is_said(model):
    release = deleted(model).release()
    boosted = hasattr(release, "get_booster")  # whose release has no statistics of rows: the background stands for them
    explainer = shap.TreeExplainer(release, X[20:60]) if boosted else shap.TreeExplainer(release)
    found = np.asarray(explainer.shap_values(X[:20]))
    if found.ndim == 3:
        found = found[..., 1]
    base = np.ravel(explainer.expected_value)[-1]
    said = (
        release.predict(X[:20], output_margin=True)
        if boosted
        else release.predict_proba(X[:20])[:, 1]
        if hasattr(release, "classes_")
        else release.predict(X[:20])
    )
    assert np.allclose(base + found.sum(axis=1), said, atol=1e-4)


def test_linear_models_are_explained_through_their_scaler():
    model = deleted(make_pipeline(StandardScaler(), LogisticRegression()))
    release = model.release()
    scaled = release[:-1].transform(X)
    found = shap.LinearExplainer(release[-1], scaled)(scaled[:20])
    assert np.allclose(found.values.sum(axis=1) + found.base_values, release.decision_function(X[:20]))


@pytest.mark.parametrize(
    "model", [Ridge(noise=0.0), IsolationForest(n_estimators=10, key=0)], ids=lambda model: type(model).__name__
)
def test_a_keeper_is_explained_as_its_release_is(model):
    deleted(model)
    ask = "score_samples" if hasattr(model, "score_samples") else "predict"
    pair = [shap.Explainer(getattr(m, ask), X[:20], seed=0)(X[20:23]).values for m in (model, model.release())]
    assert np.allclose(pair[0], pair[1], atol=1e-9)
