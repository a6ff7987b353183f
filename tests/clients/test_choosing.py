"""Optuna chooses parameters; imbalanced-learn chooses rows, whose subjects stay with them."""

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score

from certified.ensemble import RandomForestClassifier
from certified.linear_model import LogisticRegression

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 3))
Y = (X[:, 0] + X[:, 1] + RNG.normal(size=400) > 1.5).astype(int)


@pytest.mark.parametrize("model", [LogisticRegression(noise=0.0), RandomForestClassifier(5, key=0)])
def test_optuna_finds_parameters_of_ours(model):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    name = "C" if "C" in model.get_params() else "min_weight_fraction_leaf"

    def score(trial):
        return cross_val_score(model.set_params(**{name: trial.suggest_float(name, 0.01, 0.4)}), X, Y, cv=3).mean()

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(score, n_trials=3)
    best = model.set_params(**study.best_params).fit(X, Y, ids=np.arange(400))
    assert best.delete([0]).n_rows == 1


@pytest.mark.parametrize("model", [LogisticRegression(noise=0.0), RandomForestClassifier(5, key=0)])
def test_rows_that_were_chosen_are_deleted_by_their_subjects(model):
    sampling = pytest.importorskip("imblearn.under_sampling")
    ids = 1000 + np.arange(400)
    chosen = sampling.RandomUnderSampler(random_state=0)
    rows, labels = chosen.fit_resample(X, Y)
    mine = ids[chosen.sample_indices_]
    model.fit(rows, labels, ids=mine)
    model.delete(mine[:3])
    again = type(model)(**model.get_params()).fit(rows[3:], labels[3:], ids=mine[3:])
    assert np.allclose(model.predict_proba(X), again.predict_proba(X), atol=1e-6)


def test_our_classifier_stands_in_a_balanced_bagging_and_in_their_pipeline():
    pytest.importorskip("imblearn")
    from imblearn.ensemble import BalancedBaggingClassifier
    from imblearn.over_sampling import RandomOverSampler
    from imblearn.pipeline import make_pipeline

    bagged = BalancedBaggingClassifier(LogisticRegression(noise=0.0), 3, random_state=0).fit(X, Y)
    piped = make_pipeline(RandomOverSampler(random_state=0), LogisticRegression(noise=0.0)).fit(X, Y)
    for model in (bagged, piped):
        assert model.score(X, Y) > 0.7
