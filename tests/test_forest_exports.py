"""Released forests in other formats, where the packages for them are installed."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from certified.ensemble import ExtraTreesRegressor, IsolationForest, RandomForestClassifier, RandomForestRegressor


def released(model):
    regression = isinstance(model, RandomForestRegressor | ExtraTreesRegressor)
    X, y = (load_diabetes if regression else load_breast_cancer)(return_X_y=True)
    X = X.astype(np.float32)
    model.fit(X, y)
    model.delete(range(20))
    return model.release(), X


MODELS = [RandomForestClassifier(10), RandomForestRegressor(10), ExtraTreesRegressor(5)]


@pytest.mark.parametrize("model", [*MODELS, IsolationForest(n_estimators=10)], ids=lambda m: type(m).__name__)
def test_a_release_turns_into_onnx(model):
    skl2onnx = pytest.importorskip("skl2onnx", reason="needs skl2onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    out, X = released(model)
    options = {id(out): {"zipmap": False}} if hasattr(out, "classes_") else None
    kind = {"": 18, "ai.onnx.ml": 3}
    made = skl2onnx.to_onnx(out, X[:1], options=options, target_opset=kind)
    said = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"X": X})
    if hasattr(out, "classes_"):
        assert np.allclose(said[1], out.predict_proba(X), atol=1e-5)
    else:
        assert np.allclose(said[0][:, 0], out.predict(X), rtol=1e-5)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_a_release_turns_into_treelite(model):
    treelite = pytest.importorskip("treelite", reason="needs treelite")
    out, X = released(model)
    made = treelite.sklearn.import_model(out)
    said = np.asarray(treelite.gtil.predict(made, X)).reshape(len(X), -1)
    truth = out.predict_proba(X) if hasattr(out, "classes_") else out.predict(X)[:, None]
    assert np.allclose(said if said.shape[1] == truth.shape[1] else said[:, -1:], truth[:, -said.shape[1] :], rtol=1e-5)
