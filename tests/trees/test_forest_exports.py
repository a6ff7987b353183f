"""Released forests in other formats, where the packages for them are installed."""

import numpy as np
import pandas as pd
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


MODELS = [RandomForestClassifier(10, key=0), RandomForestRegressor(10, key=0), ExtraTreesRegressor(5, key=0)]


@pytest.mark.parametrize("model", [*MODELS, IsolationForest(n_estimators=10, key=0)], ids=lambda m: type(m).__name__)
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


def with_categories():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "town": rng.choice([f"t{k}" for k in range(25)], 500),
            "size": rng.standard_normal(500).astype(np.float32),
            "shape": rng.choice(["round", "square", "flat"], 500),
        }
    )
    y = (np.isin(frame["town"], ["t1", "t5", "t8", "t20"]) ^ (frame["size"] > 0.3)).astype(int)
    model = RandomForestClassifier(8, key=0).fit(frame, y)
    model.delete(range(20))
    frame.loc[:5, "town"] = "nowhere"
    return model, frame


def test_a_forest_of_categories_turns_into_onnx():
    skl2onnx = pytest.importorskip("skl2onnx", reason="needs skl2onnx")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    types = pytest.importorskip("skl2onnx.common.data_types", reason="needs skl2onnx")
    model, frame = with_categories()
    out = model.release()
    kinds = {"town": types.StringTensorType, "size": types.FloatTensorType, "shape": types.StringTensorType}
    made = skl2onnx.to_onnx(
        out,
        initial_types=[(name, kind([None, 1])) for name, kind in kinds.items()],
        options={id(out[-1]): {"zipmap": False}},
        target_opset={"": 18, "ai.onnx.ml": 3},
    )
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {name: frame[[name]].to_numpy(object if frame[name].dtype != np.float32 else None) for name in kinds}
    assert np.allclose(session.run(None, given)[1], model.predict_proba(frame), atol=1e-5)


def test_a_forest_of_categories_turns_into_treelite_behind_its_transformer():
    treelite = pytest.importorskip("treelite", reason="needs treelite")
    model, frame = with_categories()
    out = model.release()
    said = treelite.gtil.predict(treelite.sklearn.import_model(out[-1]), out[0].transform(frame).astype(np.float32))
    assert np.allclose(np.asarray(said).reshape(len(frame), -1)[:, -1], model.predict_proba(frame)[:, 1], rtol=1e-5)
