"""Rows that are added boosted trees: structure bit for bit a refit's, leaf values within the certificate."""

import pickle

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost", reason="the extra `trees` is not installed")
pytest.importorskip("numba", reason="the extra `trees` is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from sklearn.base import clone  # noqa: E402

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor  # noqa: E402
from certified.ensemble._boosting import model as model_module  # noqa: E402
from certified.ensemble._boosting import structure  # noqa: E402
from certified.errors import InvalidInput  # noqa: E402
from certified.pipeline import make_pipeline  # noqa: E402
from certified.preprocessing import StandardScaler  # noqa: E402

SMALL = {"key": 0, "n_estimators": 5, "max_depth": 2, "sample_size": 40, "leaf_penalty": 2.0, "tol": 1e-2}


def window(seed, n=240, classes=2):
    """Features with missing values, classes or counts, weights, subjects with two rows."""
    rng = np.random.default_rng(seed)
    X = np.round(rng.normal(size=(n, 3)), 1)
    X[rng.random(X.shape) < 0.1] = np.nan
    z = np.nan_to_num(X[:, 0] - X[:, 1] * X[:, 2]) + rng.logistic(size=n)
    y = np.digitize(z, [0.0, 1.0][: classes - 1])
    y[:30] = np.arange(30) % classes
    return X, y, rng.uniform(0.5, 2.0, n), 1000 + np.arange(n) // 2


def distance(model, refit):
    """Distance of the states in the metric of the noise."""
    apart = model._state.solution.w - refit._state.solution.w
    return float(np.sqrt(apart @ refit.noise_metric_ @ apart))


def check_window(estimator, seed, classes=2):
    X, y, s, ids = window(seed, classes=classes)
    rng = np.random.default_rng(seed)
    held = np.arange(len(y)) < 150
    model = clone(estimator).fit(X[held], y[held], ids=ids[held], sample_weight=s[held])
    for first in range(150, 240, 30):
        new = np.arange(len(y)) // 30 == first // 30
        model.add(X[new], y[new], ids=ids[new], sample_weight=s[new])
        held |= new
        gone = rng.choice(np.unique(ids[held][30:]), 3, replace=False)
        model.delete(gone)
        held &= ~np.isin(ids, gone)
        refit = clone(estimator).set_params(tol=1e-8)
        refit.fit(X[held], y[held], ids=ids[held], sample_weight=s[held])
        assert model.structure_digest_ == refit.structure_digest_, "trees are not a refit's"
        assert model.n_rows_ == held.sum()
        np.testing.assert_array_equal(model.noise_metric_, refit.noise_metric_)
        bound = model.certificate_.distance_bound + refit.certificate_.distance_bound
        assert distance(model, refit) <= bound


@given(st.integers(0, 10**6), st.sampled_from([1, 2]))
@settings(max_examples=8, deadline=None)
def test_a_sliding_window_stays_within_the_certificate(seed, groups):
    estimator = GradientBoostingClassifier(**{**SMALL, "sample_size": 40 // groups}, structure_groups=groups)
    check_window(estimator, seed)


@pytest.mark.parametrize(
    ("estimator", "classes"),
    [
        (GradientBoostingClassifier(**SMALL), 3),
        (GradientBoostingClassifier(**{**SMALL, "sample_size": 0.3}), 2),
        (GradientBoostingRegressor(**SMALL, objective="count:poisson"), 3),
        (GradientBoostingRegressor(**SMALL), 3),
        (GradientBoostingClassifier(**SMALL, structure="random", feature_ranges=(-3.0, 3.0)), 2),
    ],
)
def test_windows_of_other_losses_and_structures(estimator, classes):
    check_window(estimator, 0, classes)


def test_a_structure_that_does_not_see_the_new_rows_is_caught(monkeypatch):
    sampled = model_module.BoostedTrees._sampled

    def as_before(self, retained):
        return (
            np.asarray(self._sample)
            if len(self.__dict__.get("_sample", ())) == len(retained)
            else sampled(self, retained)
        )

    monkeypatch.setattr(model_module.BoostedTrees, "_sampled", as_before)
    with pytest.raises(AssertionError, match="trees are not a refit's"):
        check_window(GradientBoostingClassifier(**SMALL), 1)


def test_trees_are_grown_anew_only_where_the_sample_changes(monkeypatch):
    X, y, _, ids = window(2)
    model = GradientBoostingClassifier(**SMALL).fit(X[:200], y[:200], ids=ids[:200])
    reach = model._hashes[model._sample >= 0].max()
    grown = []
    monkeypatch.setattr(structure, "grow", lambda *a, grow=structure.grow: grown.append(1) or grow(*a))
    names = np.arange(5000, 5200)
    hashes = GradientBoostingClassifier(**SMALL).fit(X[:200], y[:200], ids=names)._hashes
    outside, inside = names[hashes > reach][0], names[hashes < reach][0]
    grown.clear()
    before = model.structure_digest_
    model.add(X[200:202], y[200:202], ids=[outside, outside])
    assert not grown
    assert model.structure_digest_ == before
    model.add(X[202:203], y[202:203], ids=[inside])
    assert grown
    assert model.structure_digest_ != before


def test_rows_join_a_declared_structure_and_whole_pipelines():
    X, y, _, ids = window(3)
    plain = xgboost.XGBClassifier(n_estimators=4, max_depth=2).fit(X[:100], y[:100])
    model = GradientBoostingClassifier.from_booster(
        plain, X[:200], y[:200], ids=ids[:200], structure_ids=ids[:100], n_estimators=4
    )
    before = model.structure_digest_
    model.add(X[200:], y[200:], ids=ids[200:])
    assert model.structure_digest_ == before
    model.delete(ids[[50, 210]])  # of the declared ones: trees are grown anew on those that are left
    assert model.structure_digest_ != before
    assert model.in_structure_.sum() == 98
    chain = make_pipeline(StandardScaler(), GradientBoostingClassifier(**SMALL))
    model = clone(chain).fit(np.nan_to_num(X[:200]), y[:200], ids=ids[:200])
    model.add(np.nan_to_num(X[200:]), y[200:], ids=ids[200:])
    refit = clone(chain).fit(np.nan_to_num(X), y, ids=ids)
    assert model[-1].structure_digest_ == refit[-1].structure_digest_
    model.delete(ids[[0, 239]])
    assert model.n_rows_ == 236


@pytest.mark.parametrize(
    ("estimator", "y", "match"),
    [
        (GradientBoostingClassifier(**SMALL), [0, 7], "class 7, which the fit did not have"),
        (GradientBoostingClassifier(**SMALL), [0], "inconsistent numbers of rows"),
        (GradientBoostingRegressor(**SMALL, objective="count:poisson"), [1.0, -1.0], "targets outside"),
        (GradientBoostingRegressor(**SMALL), [1.0, np.nan], "NaN"),
        (GradientBoostingRegressor(**SMALL), [1.0, 2.0, 3.0], "inconsistent numbers of rows"),
    ],
)
def test_wrong_targets_are_refused_and_change_nothing(estimator, y, match):
    X, target, _, ids = window(4)
    model = clone(estimator).fit(X[:200], target[:200], ids=ids[:200])
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=match) as error:
        model.add(X[200:202], y, ids=ids[200:202])
    assert isinstance(error.value, InvalidInput) or "NaN" in match
    assert pickle.dumps(model) == before
