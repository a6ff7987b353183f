"""fairlearn measures keepers by groups, and works with our estimators inside."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from certified.ensemble import RandomForestClassifier
from certified.linear_model import LogisticRegression

pytest.importorskip("fairlearn")
from fairlearn.metrics import MetricFrame, demographic_parity_difference
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import DemographicParity, ExponentiatedGradient

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3))
GROUP = np.where(X[:, 0] > 0, "a", "b")
Y = (X[:, 0] + X[:, 1] + RNG.normal(size=400) > 0).astype(int)


@pytest.mark.parametrize("model", [LogisticRegression(noise=0.0), RandomForestClassifier(10, key=0)])
def test_what_is_measured_by_group_is_that_of_the_release_and_of_a_refit(model):
    model.fit(X, Y, ids=np.arange(400))
    model.delete(range(40))
    frames = [
        MetricFrame(metrics=accuracy_score, y_true=Y, y_pred=m.predict(X), sensitive_features=GROUP).by_group
        for m in (model, model.release())
    ]
    assert frames[0].equals(frames[1])


def test_thresholds_are_chosen_for_a_release():
    release = LogisticRegression(noise=0.0).fit(X, Y).release()
    fair = ThresholdOptimizer(estimator=release, prefit=True, predict_method="predict_proba")
    fair.fit(X, Y, sensitive_features=GROUP)
    said = fair.predict(X, sensitive_features=GROUP, random_state=0)
    assert demographic_parity_difference(Y, said, sensitive_features=GROUP) < demographic_parity_difference(
        Y, release.predict(X), sensitive_features=GROUP
    )


def test_a_reduction_fits_our_classifier_with_weights():
    fair = ExponentiatedGradient(LogisticRegression(noise=0.0), DemographicParity(), max_iter=5)
    fair.fit(X, Y, sensitive_features=GROUP)
    assert np.isin(fair.predict(X, random_state=0), [0, 1]).all()
