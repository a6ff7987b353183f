"""Releases of whole pipelines in the tools of others: ONNX, SHAP, skops."""

import numpy as np
import pandas as pd
import pytest

from certified.compose import make_column_transformer
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder, WOEEncoder

RNG = np.random.default_rng(0)
N = 120
FRAME = pd.DataFrame(
    {
        "job": RNG.choice(["a", "b", "c"], N),
        "age": RNG.normal(50, 10, N).astype(np.float32),
        "kids": RNG.integers(0, 4, N).astype(np.float32),
    }
)
FRAME.loc[::7, "age"] = np.nan
Y = (RNG.random(N) < np.where(FRAME["job"] == "a", 0.8, 0.2)).astype(int)
ENCODERS = {
    "one-hot": OneHotEncoder(handle_unknown="ignore"),
    "ordinal": OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
    "target": TargetEncoder(),
    "evidence": WOEEncoder(),
}


def released(encoder, head):
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = make_column_transformer((encoder, ["job"]), (numbers, ["age", "kids"]))
    return make_pipeline(columns, head).fit(FRAME, Y).release()


@pytest.mark.parametrize("head", [LogisticRegression(), GaussianNB(), Ridge()], ids=str)
@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_a_released_pipeline_of_columns_becomes_onnx(encoder, head):
    skl2onnx = pytest.importorskip("skl2onnx")
    runtime = pytest.importorskip("onnxruntime")
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    plain = released(encoder, head)
    types = [("job", StringTensorType([None, 1])), *((c, FloatTensorType([None, 1])) for c in ("age", "kids"))]
    options = {} if isinstance(head, Ridge) else {"zipmap": False}
    model = skl2onnx.to_onnx(plain, initial_types=types, options=options)
    given = {c: FRAME[[c]].to_numpy(dtype=object if c == "job" else np.float32) for c in FRAME}
    *_, got = runtime.InferenceSession(model.SerializeToString()).run(None, given)
    want = plain.predict_proba(FRAME) if hasattr(plain, "predict_proba") else plain.predict(FRAME)[:, None]
    np.testing.assert_allclose(got.reshape(want.shape), want, atol=1e-5)


@pytest.mark.parametrize("encoder", ENCODERS.values(), ids=ENCODERS)
def test_a_release_is_saved_by_skops(encoder):
    skops = pytest.importorskip("skops.io")
    plain = released(encoder, LogisticRegression())
    saved = skops.dumps(plain)
    again = skops.loads(saved, trusted=skops.get_untrusted_types(data=saved))
    np.testing.assert_array_equal(again.predict_proba(FRAME), plain.predict_proba(FRAME))


def test_a_release_is_explained_by_shap():
    shap = pytest.importorskip("shap")
    plain = released(ENCODERS["one-hot"], LogisticRegression())
    features = np.asarray(plain[:-1].transform(FRAME))
    values = shap.LinearExplainer(plain[-1], features).shap_values(features)
    z = plain[-1].decision_function(features)
    np.testing.assert_allclose(values.sum(axis=1) - values.sum(axis=1).mean(), z - z.mean(), atol=1e-6)
