"""skops and MLflow store releases, and give back what was stored."""

import numpy as np
import pandas as pd
import pytest

from certified.compose import ColumnTransformer
from certified.ensemble import GradientBoostingClassifier, RandomForestClassifier
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from certified.tree import DecisionTreeClassifier

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {"age": RNG.normal(50, 10, 300), "pay": RNG.lognormal(size=300), "town": RNG.choice(["a", "b", "c"], 300)}
)
FRAME.loc[::7, "age"] = np.nan
LABEL = np.where(FRAME.pay + RNG.normal(size=300) > 1, "yes", "no")


def columns(encoder):
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer([("numbers", numbers, ["age", "pay"]), ("texts", encoder, ["town"])])


MODELS = [
    make_pipeline(columns(OneHotEncoder(handle_unknown="ignore")), LogisticRegression()),
    make_pipeline(columns(OrdinalEncoder()), RandomForestClassifier(5, max_depth=4, key=0)),
    make_pipeline(columns(OrdinalEncoder()), DecisionTreeClassifier(max_depth=4, key=0)),
    make_pipeline(columns(OrdinalEncoder()), GaussianNB()),
    make_pipeline(columns(OrdinalEncoder()), GradientBoostingClassifier(5, sample_size=100, key=0)),
]
NAMES = [type(model[-1]).__name__ for model in MODELS]


def released(model):
    model.fit(FRAME, LABEL, ids=np.arange(300))
    model.delete([1, 2, 3])
    return model.release()


@pytest.mark.parametrize("model", MODELS, ids=NAMES)
def test_skops_gives_back_the_release(model):
    io = pytest.importorskip("skops.io")
    release = released(model)
    stored = io.dumps(release)
    unknown = io.get_untrusted_types(data=stored)
    assert not any("keeper" in name.lower() for name in unknown)
    again = io.loads(stored, trusted=unknown)
    assert np.array_equal(again.predict_proba(FRAME), release.predict_proba(FRAME))
    assert list(again.classes_) == ["no", "yes"]


@pytest.mark.parametrize("model", MODELS[:2], ids=NAMES[:2])
def test_mlflow_gives_back_the_release(model, tmp_path):
    sklearn = pytest.importorskip("mlflow.sklearn", exc_type=ImportError)
    release = released(model)
    sklearn.save_model(release, str(tmp_path / "model"))
    again = sklearn.load_model(str(tmp_path / "model"))
    assert np.array_equal(again.predict_proba(FRAME), release.predict_proba(FRAME))
