"""What a fitted model shows of itself: nothing private, and nothing is drawn for it."""

import inspect
import logging

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.utils import estimator_html_repr

from certified.compose import ColumnTransformer
from certified.ensemble import GradientBoostingClassifier, RandomForestClassifier
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler

X, Y = load_breast_cancer(return_X_y=True)
X, Y = X[:200, :4] / X[:200, :4].std(axis=0), Y[:200]
IDS = np.array([f"person {k}" for k in range(200)])

MODELS = [
    LogisticRegression(),
    Ridge(noise=0.1),
    make_pipeline(StandardScaler(), LogisticRegression()),
    make_pipeline(ColumnTransformer([("a", StandardScaler(), [0, 1])]), LogisticRegression()),
    GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2),
    GradientBoostingClassifier(3, max_depth=2, sample_size=30),
    RandomForestClassifier(3, max_depth=2),
]


def inner(model):
    best = getattr(model, "best_estimator_", model)
    return getattr(best, "_final", best)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_a_representation_shows_what_may_be_public_and_draws_nothing(model, caplog):
    model.fit(X, Y, ids=IDS)
    model.delete(["person 3"])
    final = inner(model)
    before = final.__dict__.get("_released"), getattr(getattr(final, "_transcript", None), "releases", 0)
    with caplog.at_level(logging.INFO):
        logging.getLogger("any").info("fitted %s %r", model, model)
    shown = [repr(model), str(model), model._repr_html_(), estimator_html_repr(model), caplog.text]
    shown.append(str(model._repr_mimebundle_()))
    after = final.__dict__.get("_released"), getattr(getattr(final, "_transcript", None), "releases", 0)
    assert after[0] is before[0]
    assert after[1] == before[1], "a release was drawn to be shown"
    for text in shown:
        for secret in ("private_", "noise_metric_", "person ", "state_digest_", "key_", ">ids_", "coef_"):
            assert secret not in text, secret
    assert "n_features_in_" in model._repr_html_()


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_what_is_private_is_not_listed(model):
    model.fit(X, Y, ids=IDS)
    listed = {name for name in dir(model) if not name.startswith("_")}
    assert not {name for name in listed if name.startswith("private_")}
    assert not listed & {"ids_", "noise_metric_", "key_", "state_digest_"}
    assert {"delete", "add" if hasattr(model, "add") else "delete", "certificate_"} <= listed
    assert "private_coef_" not in dict(inspect.getmembers(model))
    assert "private_coef_" not in vars(model)


def test_a_model_whose_parameters_have_changed_can_still_be_shown():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y).set_params(logisticregression__C=3.0)
    assert "StandardScaler" in model._repr_html_()
    encoder = OneHotEncoder().fit(X[:, :1].round()).set_params(min_frequency=2)
    assert "OneHotEncoder" in encoder._repr_html_()
