"""Steps of feature-engine and category_encoders, fitted on public rows and frozen, stand in our pipelines."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from certified.compose import ColumnTransformer
from certified.errors import NotDeletable
from certified.linear_model import LogisticRegression
from certified.pipeline import make_pipeline

RNG = np.random.default_rng(0)


def table(n, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"pay": rng.lognormal(size=n), "town": rng.choice(["a", "b", "c"], n)})
    return frame, (frame.pay + (frame.town == "b") + rng.normal(size=n) > 1.5).astype(int).to_numpy()


PUBLIC, PUBLIC_Y = table(200, 0)
FRAME, Y = table(300, 1)


def steps():
    """Return frozen steps, each fitted on public rows."""
    found = []
    try:
        from feature_engine.encoding import OrdinalEncoder
        from feature_engine.outliers import Winsorizer

        ends = Winsorizer(variables=["pay"]).fit(PUBLIC)
        codes = OrdinalEncoder(encoding_method="arbitrary", variables=["town"]).fit(ends.transform(PUBLIC))
        found.append(pytest.param(Pipeline([("ends", ends), ("codes", codes)]), id="feature-engine"))
    except ImportError:
        found.append(pytest.param(None, id="feature-engine", marks=pytest.mark.skip(reason="needs feature-engine")))
    try:
        from category_encoders import TargetEncoder

        shares = TargetEncoder(cols=["town"]).fit(PUBLIC, PUBLIC_Y)
        found.append(pytest.param(shares, id="category_encoders"))
    except ImportError:
        found.append(
            pytest.param(None, id="category_encoders", marks=pytest.mark.skip(reason="needs category_encoders"))
        )
    return found


def model_with(step):
    columns = ColumnTransformer([("frozen", FrozenEstimator(step), ["pay", "town"])])
    return make_pipeline(columns, LogisticRegression(noise=0.0))


@pytest.mark.parametrize("step", steps())
def test_frozen_steps_get_frames_and_a_deletion_is_that_of_a_refit(step):
    model = model_with(step).fit(FRAME, Y, ids=np.arange(300))
    model.delete(range(30))
    again = model_with(step).fit(FRAME[30:], Y[30:], ids=np.arange(30, 300))
    assert np.allclose(model.predict_proba(FRAME), again.predict_proba(FRAME), atol=1e-6)
    assert np.allclose(model.release().predict_proba(FRAME), model.predict_proba(FRAME), rtol=1e-12)


@pytest.mark.parametrize("step", steps())
def test_steps_that_would_learn_are_refused_by_name(step):
    learns = step[-1] if isinstance(step, Pipeline) else step
    columns = ColumnTransformer([("learns", clone(learns), ["pay", "town"])])
    with pytest.raises(NotDeletable, match=type(learns).__name__):
        make_pipeline(columns, LogisticRegression()).fit(FRAME, Y)
