"""What a released booster turns into: ONNX, treelite, SHAP values with a public background."""

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402

SMALL = {"key": 0, "n_estimators": 6, "max_depth": 3, "sample_size": 200}


def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 4)).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    z = np.nan_to_num(X)
    return X, z[:, 0] * z[:, 1] + z[:, 2], rng


def released(kind):
    """A release after a deletion, and features with missing values."""
    X, z, rng = rows()
    y = (z + rng.logistic(size=len(z)) > 0).astype(int)
    model, target = {
        "two classes": (GradientBoostingClassifier(**SMALL), y),
        "three classes": (GradientBoostingClassifier(**SMALL), y + (np.nan_to_num(X[:, 3]) > 0.5)),
        "squared": (GradientBoostingRegressor(**SMALL), z),
        "counts": (GradientBoostingRegressor(objective="count:poisson", **SMALL), rng.poisson(np.exp(0.3 * z))),
        "monotone": (GradientBoostingClassifier(monotone_constraints=(0, 0, 1, 0), **SMALL), y),
        "random splits": (GradientBoostingClassifier(**SMALL, structure="random", feature_ranges=(-2.0, 2.0)), y),
    }[kind]
    model.fit(X.astype(np.float64), target)
    model.delete([3, 5])
    return model.release(), X


KINDS = ["two classes", "three classes", "squared", "counts", "monotone", "random splits"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_released_booster_turns_into_onnx(kind):
    onnxmltools = pytest.importorskip("onnxmltools", reason="needs onnxmltools")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    from onnxmltools.convert.common.data_types import FloatTensorType

    out, X = released(kind)
    made = onnxmltools.convert_xgboost(out, initial_types=[("X", FloatTensorType([None, X.shape[1]]))])
    said = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"X": X})
    if hasattr(out, "classes_"):
        assert np.allclose(said[1], out.predict_proba(X), atol=1e-6)
    else:
        assert np.allclose(said[0][:, 0], out.predict(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_released_booster_turns_into_treelite(kind):
    treelite = pytest.importorskip("treelite", reason="needs treelite")
    out, X = released(kind)
    made = treelite.frontend.from_xgboost(out.get_booster())
    said = np.asarray(treelite.gtil.predict(made, X)).reshape(len(X), -1)
    truth = out.get_booster().predict(xgboost.DMatrix(X)).reshape(len(X), -1)
    assert np.allclose(said, truth, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_shap_values_with_a_public_background_add_up_to_the_predictor(kind):
    shap = pytest.importorskip("shap", reason="needs shap")
    out, X = released(kind)
    public = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)  # rows of nobody
    explainer = shap.TreeExplainer(out.get_booster(), data=public, feature_perturbation="interventional")
    said = explainer.shap_values(X[:60]).sum(axis=1) + np.asarray(explainer.expected_value)
    truth = out.get_booster().predict(xgboost.DMatrix(X[:60]), output_margin=True)
    assert np.allclose(said, truth, atol=1e-5)
    mean = out.get_booster().predict(xgboost.DMatrix(public), output_margin=True).mean(axis=0)
    assert np.allclose(explainer.expected_value, mean, atol=1e-5)


def test_contributions_that_need_the_statistics_of_the_rows_are_nan_and_not_wrong():
    out, X = released("two classes")
    for options in ({}, {"approx_contribs": True}):
        said = out.get_booster().predict(xgboost.DMatrix(X), pred_contribs=True, **options)
        assert np.all(np.isnan(said.sum(axis=1)))
