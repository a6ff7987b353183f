"""Estimators of this package in shards: a shard keeps their releases, and no row twice."""

import pickle
import pickletools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified.ensemble import (
    GradientBoostingClassifier,
    RandomForestClassifier,
    RandomForestRegressor,
    ShardedClassifier,
    ShardedRegressor,
)
from certified.errors import InvalidInput
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

RNG = np.random.default_rng(0)
X = RNG.normal(size=(240, 4))
Y = np.where(X[:, 0] + RNG.normal(size=240) > 0, "yes", "no")
CLASSIFIERS = [
    LogisticRegression(noise=0.0),
    LogisticRegression(),
    GaussianNB(),
    make_pipeline(StandardScaler(), LogisticRegression()),
    RandomForestClassifier(3, max_depth=4),
    GradientBoostingClassifier(3, sample_size=30),
]
REGRESSORS = [Ridge(), RandomForestRegressor(3, max_depth=4)]


def ensemble(inner):
    kind = ShardedRegressor if inner in REGRESSORS else ShardedClassifier
    return kind(inner, n_shards=3, key=1), X[:, 1] if inner in REGRESSORS else Y


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), inner=st.sampled_from([*CLASSIFIERS, *REGRESSORS]))
def test_deletions_end_at_a_refit(seed, inner):
    model, y = ensemble(inner)
    order = np.random.default_rng(seed).permutation(240)
    live = model.fit(X, y, ids=np.arange(240))
    live.delete(order[:5])
    live.delete(order[5:9])
    held = np.sort(order[9:])
    again = ensemble(inner)[0].fit(X[held], y[held], ids=held)
    assert live.state_digest_ == again.state_digest_
    ask = "predict_proba" if hasattr(live, "classes_") else "predict"
    assert np.array_equal(getattr(live, ask)(X), getattr(again, ask)(X))


@pytest.mark.parametrize("inner", [*CLASSIFIERS, *REGRESSORS], ids=lambda inner: type(inner).__name__)
def test_the_release_holds_releases_and_loads_without_this_package(inner):
    model, y = ensemble(inner)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        release = model.fit(X, y, ids=np.arange(240)).release()
    ask = "predict_proba" if hasattr(model, "classes_") else "predict"
    assert np.allclose(getattr(release, ask)(X), getattr(model, ask)(X), rtol=1e-6)
    names = [value for _, value, _ in pickletools.genops(pickle.dumps(release)) if isinstance(value, str)]
    assert not [name for name in names if name.startswith("certified")]


def test_slices_of_what_deletes_by_itself_are_refused():
    with pytest.raises(InvalidInput, match=r"deletes by itself.*n_slices=1"):
        ShardedClassifier(LogisticRegression(), n_shards=2, n_slices=2, key=1).fit(X, Y)
