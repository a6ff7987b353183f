"""One key for each fitted whole: drawn by default, derived for each purpose, said on the certificate, replaceable."""

import importlib
import inspect
import pkgutil
from copy import deepcopy

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.linear_model import Ridge as PlainRidge

import certified
from certified._data.hashing import Key
from certified.additive import AdditiveRegressor
from certified.cluster import KMeans
from certified.compose import make_column_transformer
from certified.decomposition import PCA
from certified.errors import InvalidInput
from certified.impute import SimpleImputer
from certified.kernel_approximation import Nystroem
from certified.linear_model import Ridge
from certified.model_selection import GridSearchCV, RandomizedSearchCV
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, RobustScaler, SplineTransformer
from certified.testing import same_key

FRESH = "all requests, against a refit with the same key; against a refit with a fresh key, requests that do not"
SEARCHED = {"GridSearchCV": (Ridge(), {"alpha": [0.1, 9.0]}), "RandomizedSearchCV": (Ridge(), {"alpha": [0.1, 9.0]})}
KEYED = [
    KMeans(3, n_init=1, sample_size=60),
    Nystroem(n_components=8, sample_size=60),
    PCA(2, sample_size=60),
    RobustScaler(sample_size=60),
    KBinsDiscretizer(4, sample_size=60),
    SplineTransformer(4, knots="quantile", sample_size=60),
    SimpleImputer(strategy="median", sample_size=60),
    AdditiveRegressor(interactions=0, sample_size=60),
    make_pipeline(RobustScaler(sample_size=60), Ridge()),
    make_pipeline(make_column_transformer((SplineTransformer(4, knots="quantile", sample_size=60), [0, 1])), Ridge()),
    make_pipeline(PCA(2), KMeans(3, n_init=1, sample_size=60)),
    GridSearchCV(Ridge(), {"alpha": [0.1, 9.0]}, cv=3),
    RandomizedSearchCV(Ridge(), {"alpha": np.geomspace(1e-3, 1e3, 60).tolist()}, n_iter=2, cv=3),
    GridSearchCV(make_pipeline(RobustScaler(sample_size=40), Ridge()), {"ridge__alpha": [0.1, 9.0]}, cv=3),
]


def _name(model):
    return type(model).__name__


def _estimators():
    """Every public class with a parameter ``key``."""
    for module in pkgutil.walk_packages(certified.__path__, "certified."):
        if "._" in module.name or module.name.endswith((".cli", ".plots")):
            continue
        found = importlib.import_module(module.name)
        for name in getattr(found, "__all__", ()):
            kind = getattr(found, name)
            if inspect.isclass(kind) and hasattr(kind, "delete") and "key" in inspect.signature(kind).parameters:
                yield kind


def _state(model):
    """What tells two states apart: the digest of an exact one, the private solution of another."""
    return getattr(model, "state_digest_", None) or model.private_coef_.tobytes()


@pytest.fixture(scope="module")
def rows():
    X, y = load_diabetes(return_X_y=True)
    return X[:200, :4], y[:200]


@pytest.mark.parametrize("model", KEYED, ids=_name)
def test_a_key_is_drawn_decides_the_state_and_can_be_replaced(model, rows):
    X, y = rows
    first, second = clone(model).fit(X, y), clone(model).fit(X, y)
    assert first.key_ != second.key_
    assert _state(first) != _state(second)
    assert _state(same_key(first).fit(X, y)) == _state(first)
    for fitted in (first, same_key(first).fit(X, y)):
        text = fitted.certificate_.adaptivity
        assert text.startswith(FRESH) if fitted is first else "was given, not drawn" in text
    assert str(first.key_) not in repr(first) + str(vars(first).get("_subjects", ""))
    retained = np.delete(np.arange(200), [3, 40, 41])
    first.delete([3, 40, 41])
    fresh = same_key(first).fit(X[retained], y[retained], ids=retained)
    if first.certificate_.claim == "exact":
        assert _state(first) == _state(fresh)
    before = deepcopy(first)
    assert first.rekey() is first
    assert first.key_ != before.key_
    assert _state(first) != _state(before)
    assert first.certificate_.adaptivity.startswith(FRESH)
    assert first.rekey(17).key_ == first.key == 17
    assert "was given" in first.certificate_.adaptivity
    again = clone(first).fit(X[retained], y[retained], ids=retained)
    if first.certificate_.claim == "exact":
        assert _state(first) == _state(again)
    with pytest.raises(InvalidInput, match=r"rekey\(key=-1\) is not allowed"):
        first.rekey(-1)
    assert first.key_ == 17


def test_every_estimator_with_a_key_says_so():
    X, y = load_breast_cancer(return_X_y=True)
    X, y = X[:150, :3], y[:150]
    tried = []
    for kind in _estimators():
        if kind.__name__ in ("Pipeline", "FeatureUnion", "ColumnTransformer"):
            continue  # their steps have
        arguments = SEARCHED.get(kind.__name__, ())
        needed = [p for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
        if len(needed) > len(arguments):
            arguments = (PlainLogistic(),) if kind.__name__.endswith("Classifier") else (PlainRidge(),)
        small = {"n_estimators": 3} if "n_estimators" in inspect.signature(kind).parameters else {}
        small |= {"n_iter": 2} if kind.__name__ == "RandomizedSearchCV" else {}
        model = kind(*arguments, **small)
        assert model.key is None, f"{kind.__name__} does not draw its key"
        model.fit(X, y + 0.0 if kind.__name__.endswith("Regressor") else y)
        text = model.certificate_.adaptivity
        assert text.startswith("all requests, against a refit with the same key"), kind.__name__
        assert hasattr(model, "key_"), kind.__name__
        assert hasattr(model, "rekey"), kind.__name__
        tried.append(kind.__name__)
    assert len(tried) >= 9


def test_purposes_have_keys_of_their_own():
    key = Key(5, True)
    derived = [key.derive(purpose) for purpose in ("sample", "fold", "model", "candidates")]
    assert len({k.value for k in derived}) == 4
    assert all(k.drawn and k.value != 5 for k in derived)
    assert Key(6).derive("fold") != Key(5).derive("fold")
    assert "5" not in repr(key)
    search = GridSearchCV(PCA(1, sample_size=30), {"whiten": [True]}, scoring=lambda m, X, y=None: 0.0, cv=2, key=3)
    search.fit(np.random.default_rng(0).standard_normal((200, 2)))
    cut = int(search.best_estimator_._statistic.cut)
    sampled = search.best_estimator_._table.hashes <= cut
    folds = search._fold  # in the order of folds' hashes; rows of the model come in the same
    assert 0.2 < folds[sampled].mean() < 0.8  # a fold is no function of the sample's hash


def test_parts_with_several_keys_are_refused(rows):
    X, y = rows
    with pytest.raises(InvalidInput, match="A whole has one key"):
        make_pipeline(RobustScaler(key=1), SplineTransformer(key=2), Ridge()).fit(X, y)
    assert make_pipeline(RobustScaler(key=1), SplineTransformer(key=1), Ridge()).fit(X, y).key_ == 1
    for wrong in (1.0, True, "1", 2**128):
        with pytest.raises(InvalidInput, match="2\\*\\*128 - 1"):
            KMeans(key=wrong).fit(X)


def test_whoever_picks_ids_does_not_pick_the_sample():
    rng = np.random.default_rng(0)
    X = np.r_[rng.standard_normal(10_000), np.full(100, 50.0)][:, None]
    public = Key(0).derive("sample").value
    from certified._data.hashing import subject_hash

    pool = np.arange(10_000, 400_000)
    chosen = pool[np.argsort(subject_hash(pool, public))[:100]]  # ids that a known key would put into the sample
    ids = np.r_[np.arange(10_000), chosen]
    known = RobustScaler(sample_size=150, key=0).fit(X, ids=ids)
    assert known.center_[0] > 40.0  # who knows the key can
    secret = RobustScaler(sample_size=150).fit(X, ids=ids)
    assert abs(secret.center_[0]) < 1.0
