"""Estimators of other libraries in shards: checkpoints, memory orders, labels and votes as a refit has them."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from certified.ensemble import ShardedClassifier, ShardedRegressor
from certified.ensemble._sharding import estimators, shard, tables
from certified.ensemble._sharding.fingerprint import fingerprint
from certified.ensemble._sharding.private_answers import distributions
from certified.errors import CannotCertify, InvalidInput, InvalidRequest, NotDeletable

RNG = np.random.default_rng(0)
N = 240
X = RNG.normal(size=(N, 4))
Y = (X[:, 0] + RNG.normal(size=N) > 0).astype(int)
IDS = np.arange(N)


def xgboost(**parameters):
    found = pytest.importorskip("xgboost", reason="xgboost is not installed")
    return found.XGBClassifier(n_estimators=6, max_depth=3, **parameters)


def lightgbm(**parameters):
    found = pytest.importorskip("lightgbm", reason="lightgbm is not installed")
    return found.LGBMClassifier(n_estimators=6, verbose=-1, **parameters)


def catboost(**parameters):
    found = pytest.importorskip("catboost", reason="catboost is not installed")
    return found.CatBoostClassifier(iterations=6, verbose=False, **parameters)


DRAWN = {
    "rows": lambda: xgboost(subsample=0.7),
    "columns, own seed": lambda: xgboost(colsample_bynode=0.5, colsample_bytree=0.8, random_state=4),
    "dart": lambda: xgboost(booster="dart", rate_drop=0.3),
    "lightgbm": lambda: lightgbm(subsample=0.7, subsample_freq=1, colsample_bytree=0.5),
    "lightgbm dart": lambda: lightgbm(boosting_type="dart", extra_trees=True, random_state=3),
    "catboost": catboost,
    "catboost, own seed": lambda: catboost(random_seed=3, rsm=0.5),
}


@pytest.mark.parametrize("name", DRAWN)
@settings(max_examples=3)
@given(draw=st.data(), n_slices=st.sampled_from([1, 2, 3]), saved=st.booleans())
def test_estimators_that_draw_end_at_a_refit_from_any_checkpoint(name, draw, n_slices, saved):
    def fitted(rows):
        return ShardedClassifier(DRAWN[name](), 2, n_slices=n_slices, key=0).fit(X[rows], Y[rows], ids=IDS[rows])

    model = fitted(IDS)
    if saved:
        model = pickle.loads(pickle.dumps(model))
    for _ in range(2):
        model.delete(draw.draw(st.sampled_from(model.ids_.tolist())))
    refit = fitted(model.ids_)
    assert model.state_digest_ == refit.state_digest_
    assert np.array_equal(model.predict_proba(X), refit.predict_proba(X))


def test_a_checkpoint_that_is_gone_on_from_with_the_state_of_a_generator_is_caught(monkeypatch):
    model = ShardedClassifier(xgboost(subsample=0.7), 3, n_slices=3, key=0)
    honest = shard.Course.made

    def made(self, seed, classes, r=0):
        return honest(self, seed, classes).set_params(seed_per_iteration=False)

    monkeypatch.setattr(shard.Course, "made", made)
    with pytest.raises(NotDeletable, match="same checkpoint"):
        model.fit(X, Y)


def test_catboost_leaves_no_files_and_two_fits_of_it_are_one_state(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (ShardedClassifier(catboost(), 2, key=0).fit(X, Y) for _ in range(2))
    assert first.state_digest_ == second.state_digest_
    assert not list(tmp_path.iterdir())
    inner = first._shards[0].stages[-1].model
    assert fingerprint(inner) == fingerprint(pickle.loads(pickle.dumps(inner)))
    assert fingerprint(inner) != fingerprint(first._shards[1].stages[-1].model)


LAYOUTS = {
    "C": lambda rows: np.ascontiguousarray(X[rows]),
    "Fortran": lambda rows: np.asfortranarray(X[rows]),
    "pandas of C": lambda rows: pd.DataFrame(np.ascontiguousarray(X[rows]), columns=list("abcd")),
    "pandas of Fortran": lambda rows: pd.DataFrame(np.asfortranarray(X[rows]), columns=list("abcd"), index=rows + 7),
    "pandas by columns": lambda rows: pd.DataFrame({name: X[rows, j] for j, name in enumerate("abcd")}),
    "polars": lambda rows: pl.concat(
        [pl.DataFrame(X[part], schema=list("abcd")) for part in (rows[:9], rows[9:])], rechunk=False
    ),
    "pyarrow": lambda rows: pl.DataFrame(X[rows], schema=list("abcd")).to_arrow(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_state_depends_on_how_rows_lie_in_memory(layout):
    def fitted(of, key, rows):
        return ShardedRegressor(Ridge(), 3, key=key).fit(LAYOUTS[of](rows), X[rows, 0] + Y[rows], ids=IDS[rows])

    model = fitted(layout, None, IDS)
    model.delete(range(20))
    model.add(LAYOUTS[layout](IDS[:5]), X[:5, 0] + Y[:5], ids=IDS[:5])
    model.rekey()
    rows = model.ids_[::-1]
    same = {"pandas": [name for name in LAYOUTS if "pandas" in name], "other": ["C", "Fortran"]}
    for of in next((found for found in same.values() if layout in found), [layout]):
        assert model.state_digest_ == fitted(of, model.key_, rows).state_digest_
    dense, thin = fitted("C", 0, IDS), sparse.csr_array(X)
    thin.indices, thin.indptr = thin.indices.astype(np.int64), thin.indptr.astype(np.int64)
    wide = ShardedRegressor(Ridge(solver="lsqr"), 3, key=0).fit(thin, X[:, 0] + Y, ids=IDS)
    thin = ShardedRegressor(Ridge(solver="lsqr"), 3, key=0).fit(sparse.csr_array(X), X[:, 0] + Y, ids=IDS)
    assert wide.state_digest_ == thin.state_digest_
    assert np.allclose(dense.predict(X), thin.predict(X), atol=1e-2)


def test_rows_that_keep_their_layout_are_caught(monkeypatch):
    monkeypatch.setattr(tables, "_laid_out", lambda x: x)
    with pytest.raises(AssertionError):
        test_no_state_depends_on_how_rows_lie_in_memory("pandas of C")


@pytest.mark.parametrize("labels", [(1, 2), (-1, 1), ("bad", "good"), (False, True)], ids=str)
@pytest.mark.parametrize(
    "base",
    [
        lambda weight: LogisticRegression(class_weight=weight),
        lambda weight: SGDClassifier(loss="log_loss", class_weight=weight),
        lambda weight: make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=3, class_weight=weight)),
        lambda weight: lightgbm(class_weight=weight),
        lambda weight: catboost(class_weights=weight),
    ],
    ids=["logistic", "sgd", "pipeline", "lightgbm", "catboost"],
)
def test_the_weight_of_a_class_goes_to_that_class(base, labels):
    y = np.array(labels)[Y]
    share = [
        np.mean(ShardedClassifier(base({label: 20.0}), 2, key=0).fit(X, y).predict(X) == label) for label in labels
    ]
    assert min(share) > 0.6


def test_a_shard_that_lacks_a_class_weighs_those_it_has():
    y = np.array(["a", "b", "c"])[np.r_[Y[:-1], 2]]
    weight = {"a": 1.0, "b": 9.0, "c": 5.0}
    model = ShardedClassifier(LogisticRegression(class_weight=weight), 2, key=0).fit(X, y)
    for one in model._shards[:2]:
        rows = np.sort(one.positions)
        names = np.unique(y[rows])
        inner = LogisticRegression(class_weight={name: weight[name] for name in names}).fit(X[rows], y[rows])
        assert np.allclose(inner.coef_, one.stages[-1].model.coef_, atol=1e-3)
    with pytest.raises(InvalidInput, match=r"no class 'd'.*Nothing was fitted"):
        ShardedClassifier(LogisticRegression(class_weight={"d": 2.0}), 2).fit(X, y)


def test_more_shards_than_subjects_are_refused_at_fit_and_after_a_deletion():
    with pytest.raises(InvalidInput, match=r"n_shards=5.*n_samples=4.*Nothing was fitted"):
        ShardedRegressor(Ridge(), 5).fit(X, X[:, 0], ids=IDS % 4)
    model = ShardedRegressor(Ridge(), 4).fit(X, X[:, 0], ids=IDS % 4)
    with pytest.raises(InvalidRequest, match=r"leave 3 subjects.*with fewer.*Nothing was changed"):
        model.delete([1])
    assert model.ids_.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("n_features", [1, 4])
def test_no_release_holds_quantiles_or_rows_of_one_feature(n_features):
    some = X[:, :n_features]
    for step, where in ((QuantileTransformer(n_quantiles=20), "quantiles_"), (KeepsRows(), "memory_")):
        model = ShardedClassifier(make_pipeline(step, LogisticRegression()), 2).fit(some, Y)
        with pytest.raises(CannotCertify, match=where):
            model.release()
    plain = ShardedClassifier(make_pipeline(StandardScaler(), LogisticRegression()), 2).fit(some, Y)
    assert plain.release().predict(some).shape == (N,)


class KeepsRows(TransformerMixin, BaseEstimator):
    """Remembers some rows."""

    def fit(self, X, y=None):
        self.memory_ = X[:5].copy()
        return self

    def transform(self, X):
        return X


class Shouts(ClassifierMixin, BaseEstimator):
    """Gives what no probability is."""

    def __init__(self, says=(1e6, -3.0, 0.5)):
        self.says = says

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.tile(self.says[: len(self.classes_)], (len(X), 1))

    def predict(self, X):
        return np.zeros(len(X), dtype=int)


class ShoutsNumbers(RegressorMixin, BaseEstimator):
    """Predicts what is no number."""

    def fit(self, X, y):
        self.mean_ = np.mean(y)
        return self

    def predict(self, X):
        return np.resize([np.nan, np.inf, -np.inf, 1e300], len(X))


@pytest.mark.parametrize(
    "says", [(1e6, -3.0, 0.5), (np.nan, 0.2, 0.1), (np.inf, np.inf, 0.0), (0.7, 0.7, 0.7)], ids=str
)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_no_vote_is_larger_than_the_promise_takes_it(says, n_classes, monkeypatch):
    seen = []
    monkeypatch.setattr(estimators, "noisy_sum", lambda votes, sigma: seen.append(votes) or votes.sum(axis=0))
    y = np.resize([0, 1, 2], N) if n_classes == 3 else Y
    promise = {"aggregation": "private", "epsilon": 30.0, "key": 0}
    ShardedClassifier(Shouts(says), 40, **promise).fit(X, y).predict_proba(X[:1])
    ShardedRegressor(ShoutsNumbers(), 40, output_range=(-1.0, 3.0), n_answers=4, **promise).fit(X, Y).predict(X[:4])
    for votes in seen:
        assert np.all((votes >= 0) & (votes <= 1))
    if n_classes == 3:
        assert np.all(seen[0].sum(axis=2) <= 1 + 1e-12)


@given(votes=st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5))
def test_distributions_stay_as_they_are(votes):
    votes = np.array(votes)
    votes = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1.0)
    assert np.allclose(distributions(votes), votes, atol=1e-15)
