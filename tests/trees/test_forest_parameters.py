"""Keys, parameters of scikit-learn, what is served besides predictions, forests of hardly any rows."""

import inspect
import pickle

import numpy as np
import pytest
from sklearn import ensemble as plain
from sklearn import tree as plain_tree
from sklearn.base import clone
from sklearn.datasets import load_iris

from certified.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from certified.errors import InvalidInput
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor

TREES = [
    RandomForestClassifier,
    RandomForestRegressor,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    DecisionTreeClassifier,
    DecisionTreeRegressor,
    IsolationForest,
]
X, Y = load_iris(return_X_y=True)


@pytest.mark.parametrize("kind", TREES)
def test_a_key_is_drawn_unless_it_is_given(kind):
    drawn = [kind().fit(X, Y) for _ in range(2)]
    assert drawn[0].key_ != drawn[1].key_
    assert "fresh key, requests" in drawn[0].certificate_.adaptivity
    given = kind(key=drawn[0].key_).fit(X, Y)
    assert given.state_digest_ == drawn[0].state_digest_
    assert "given, not drawn" in given.certificate_.adaptivity
    again = pickle.loads(pickle.dumps(given)).rekey()
    assert again.key_ != given.key_
    assert "fresh key, requests" in again.certificate_.adaptivity
    assert given.rekey(5).state_digest_ == kind(key=5).fit(X, Y).state_digest_
    before = given.state_digest_
    with pytest.raises(InvalidInput, match="whole number"):
        given.rekey(-1)
    assert given.state_digest_ == before


@pytest.mark.parametrize("kind", TREES)
def test_a_seed_is_never_taken_for_a_key_in_silence(kind):
    with pytest.raises(InvalidInput, match=r"random_state=42\).*follows from the key"):
        kind(random_state=42)
    assert "random_state" not in inspect.signature(kind).parameters
    assert "random_state" not in kind(random_state=None).get_params()
    assert clone(kind(key=3)).get_params() == kind(key=3).get_params()
    with pytest.raises(TypeError, match="unexpected keyword argument 'keys'"):
        kind(keys=3)


UNSUPPORTED = {
    "monotonic_cst": np.array([1, 0, 0, 0]),
}


@pytest.mark.parametrize("kind", TREES[:-1])
def test_what_cannot_be_had_is_refused_by_name_and_the_default_of_scikit_learn_is_none_of_it(kind):
    for name, value in UNSUPPORTED.items():
        with pytest.raises(InvalidInput, match=rf"{kind.__name__}\({name}=.*Use|Leave"):
            kind(**{name: value})
    peer = getattr(plain, kind.__name__, None) or getattr(plain_tree, kind.__name__)
    defaults = {k: v for k, v in peer().get_params().items() if k in UNSUPPORTED}
    assert kind(**defaults).get_params() == kind().get_params()


def test_parameters_about_work_alone_are_taken():
    one = RandomForestClassifier(3, key=0, n_jobs=2, verbose=1, warm_start=False).fit(X, Y)
    assert one.state_digest_ == RandomForestClassifier(3, key=0).fit(X, Y).state_digest_
    assert IsolationForest(n_jobs=2, verbose=0, warm_start=False, bootstrap=False, max_features=1.0, key=0).fit(X)
    with pytest.raises(InvalidInput, match=r"max_features=0\.5"):
        IsolationForest(max_features=0.5)


@pytest.mark.parametrize("kind", TREES)
def test_the_trees_themselves_are_those_of_scikit_learn(kind):
    model = kind(key=0, **({"n_estimators": 4} if "n_estimators" in kind().get_params() else {})).fit(X, Y)
    if hasattr(model, "tree_"):
        assert np.array_equal(model.tree_.apply(X.astype(np.float32)), model.apply(X).ravel())
        assert model.max_features_ == 4
    else:
        assert len(model.estimators_) == 4
        assert model.estimators_[0].tree_.n_features == 4
    with pytest.raises((AttributeError, InvalidInput), match="fit"):
        getattr(kind(), "tree_" if hasattr(model, "tree_") else "estimators_")


def test_states_that_serve_other_names_or_classes_have_other_digests():
    model = DecisionTreeClassifier(max_depth=3, key=0)
    digests = {
        clone(model).fit(X, Y).state_digest_,
        clone(model).fit(X, Y + 1).state_digest_,
        clone(model).fit(X, np.array(["a", "b", "c"])[Y]).state_digest_,
    }
    assert len(digests) == 3


def test_the_state_does_not_depend_on_threads_order_or_pickling():
    rng = np.random.default_rng(28)
    Z = np.column_stack([rng.standard_normal(600), rng.integers(0, 5, 600)])
    y, ids, mixed = (Z[:, 0] > 0).astype(int), np.arange(600), rng.permutation(600)
    for kind in (RandomForestClassifier, ExtraTreesClassifier, IsolationForest):
        one = kind(n_estimators=6, n_jobs=1, key=7).fit(Z, y, ids=ids)
        two = kind(n_estimators=6, n_jobs=2, key=7).fit(Z[mixed], y[mixed], ids=ids[mixed])
        stored = pickle.loads(pickle.dumps(one))
        one.delete([5, 6, 7])
        two.delete([7])
        two.delete([5, 6])
        stored.delete([6, 5, 7])
        retained = np.delete(ids, [5, 6, 7])
        refit = kind(n_estimators=6, key=7).fit(Z[retained], y[retained], ids=retained)
        assert {m.state_digest_ for m in (one, two, stored)} == {refit.state_digest_}


@pytest.mark.parametrize("n_trees", [1, 3])
def test_a_forest_whose_trees_see_no_row_answers_as_one_leaf_of_all_rows(n_trees):
    ids, t = np.arange(30), np.column_stack([X[:30, 0], -X[:30, 1]])
    y = ids % 3
    model = RandomForestClassifier(n_trees, max_samples=1e-6, key=0).fit(X[:30], y, ids=ids)
    model.delete([0, 3])
    shares = np.bincount(y[~np.isin(ids, [0, 3])]) / 28
    for said in (model.predict_proba(X), model.release().predict_proba(X)):
        assert np.allclose(said, shares, rtol=1e-12)
    assert model.release(sigma=1.0).predict_proba(X).shape == (150, 3)
    assert model.apply(X).max() == 0
    weight = np.arange(30) + 1.0
    means = RandomForestRegressor(n_trees, max_samples=1e-6, key=0).fit(X[:30], t, sample_weight=weight)
    for said in (means.predict(X), means.release().predict(X)):
        assert np.allclose(said, np.average(t, axis=0, weights=weight), rtol=1e-9)


def test_an_isolation_forest_of_one_row_says_the_same_as_its_release():
    model = IsolationForest(n_estimators=5, key=0).fit(X[:1])
    assert np.array_equal(model.predict(X), model.release().predict(X))
    assert np.array_equal(model.score_samples(X), model.release().score_samples(X))
    assert np.array_equal(model.predict(X), plain.IsolationForest(n_estimators=5).fit(X[:1]).predict(X))
    pair = IsolationForest(n_estimators=5, key=0).fit(X[:2])
    pair.delete([1])
    assert pair.state_digest_ == model.state_digest_
    assert np.array_equal(pair.predict(X), pair.release().predict(X))


def test_a_tree_sees_as_many_rows_as_a_sample_with_replacement_has():
    ids = np.arange(4_000)
    Z, y = np.random.default_rng(0).standard_normal((4_000, 2)), ids % 2
    for given, share in ((None, 0.632), (1.0, 0.632), (0.1, 0.0952), (400, 0.0952), (4_000, 0.632)):
        model = RandomForestClassifier(4, max_depth=2, max_samples=given, key=0).fit(Z, y, ids=ids)
        assert np.isclose(model._grown().n_rows.mean() / 4_000, share, rtol=0.06)
        model.delete(ids[:150])
        again = RandomForestClassifier(4, max_depth=2, max_samples=given, key=0).fit(Z[150:], y[150:], ids=ids[150:])
        assert model.state_digest_ == again.state_digest_
    with pytest.raises(InvalidInput, match="number of rows"):
        RandomForestClassifier(max_samples=0).fit(Z, y)


def test_an_isolation_forest_may_see_a_share_of_the_rows():
    model = IsolationForest(n_estimators=8, max_samples=0.3, key=0).fit(X)
    assert 42 <= model.max_samples_ <= 48
    for request in ([3, 4], list(range(10, 60))):
        model.delete(request)
    retained = np.setdiff1d(np.arange(150), [3, 4, *range(10, 60)])
    again = IsolationForest(n_estimators=8, max_samples=0.3, key=0).fit(X[retained], ids=retained)
    assert model.state_digest_ == again.state_digest_
    with pytest.raises(InvalidInput, match=r"max_samples=1\.5"):
        IsolationForest(max_samples=1.5).fit(X)
