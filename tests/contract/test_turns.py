"""One act at a time: threads see the state before or after a change, and the parameters are those of the fit."""

import pickle
import sys
import threading
from copy import copy, deepcopy

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression as PlainRegression
from sklearn.tree import DecisionTreeClassifier

from certified._keeper.turns import turn_of
from certified.additive import AdditiveRegressor
from certified.compose import ColumnTransformer
from certified.ensemble import GradientBoostingClassifier, RandomForestClassifier, ShardedClassifier
from certified.errors import InvalidRequest, OtherVersions, SimulatedNoise
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

N = 240
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4))
Y = (X[:, 0] + 0.3 * RNG.normal(size=N) > 0).astype(int)
FRAME = pl.DataFrame({"a": X[:, 0], "town": np.array(["Ur", "Uruk", "Kish"])[np.arange(N) % 3]})
COLUMNS = ColumnTransformer([("a", StandardScaler(), ["a"]), ("town", OneHotEncoder(), ["town"])])

EXACT = {
    "scaler": (StandardScaler(), X),
    "range": (MinMaxScaler(), X),
    "gaussian": (GaussianNB(), X),
    "ridge": (Ridge(), X),
    "neighbours": (KNeighborsClassifier(), X),
    "forest": (RandomForestClassifier(3, max_depth=3), X),
    "pipeline": (make_pipeline(StandardScaler(), Ridge()), X),
    "columns": (make_pipeline(COLUMNS, Ridge()), FRAME),
    "additive": (AdditiveRegressor(interactions=[], max_bins=8, smoothness=1.0), X),
    "shards": (ShardedClassifier(DecisionTreeClassifier(max_depth=1, random_state=0), 4, key=1), X),
}

for _estimator, _ in EXACT.values():  # refits have the same keys
    _names = [name for name in _estimator.get_params() if name == "key" or name.endswith("__key")]
    _estimator.set_params(**dict.fromkeys(_names, 1))


@pytest.fixture
def switching():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*acts):
    start, errors = threading.Barrier(len(acts)), []

    def run(act):
        start.wait()
        try:
            act()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


@pytest.mark.parametrize("name", EXACT)
def test_threads_that_delete_and_read_end_at_the_refit(name, switching):
    estimator, x = EXACT[name]
    model = clone(estimator).fit(x, Y)
    rounds = 4 if name in ("shards", "additive", "columns") else 12

    def delete(first):
        for k in range(first, first + rounds):
            model.delete([k])

    def read():
        for _ in range(rounds):
            model.predict(x[:5]) if hasattr(model, "predict") else model.transform(x[:5])
            loaded = pickle.loads(pickle.dumps(model))
            assert loaded.n_rows_ == len(loaded.ids_) == loaded.certificate_.n_rows

    together(*(lambda first=first: delete(first) for first in (0, 40, 80)), read)
    gone = [k for first in (0, 40, 80) for k in range(first, first + rounds)]
    retained = np.setdiff1d(np.arange(N), gone)
    assert model.state_digest_ == clone(estimator).fit(x[retained], Y[retained], ids=retained).state_digest_


def test_what_is_saved_while_others_delete_is_the_state_of_one_moment(switching):
    model, saved = StandardScaler().fit(X), []
    together(
        lambda: [model.delete([k]) for k in range(60)], lambda: saved.extend(pickle.dumps(model) for _ in range(20))
    )
    for dump in saved:
        loaded = pickle.loads(dump)
        retained = loaded.ids_
        assert loaded.state_digest_ == StandardScaler().fit(X[retained], ids=retained).state_digest_


@pytest.mark.parametrize("estimator", [LogisticRegression(), Ridge(noise=0.1)], ids=str)
def test_threads_that_ask_after_a_deletion_are_served_one_release(estimator, switching):
    model = estimator.fit(X, Y)
    for k in range(20):
        model.delete([k])
        served = []
        together(*[lambda served=served: served.append(np.ravel(model.coef_).tobytes())] * 4)
        assert len(set(served)) == 1
    assert model._transcript.releases == 21


def test_a_release_that_was_saved_is_the_one_that_is_served():
    for estimator in (LogisticRegression(), Ridge(noise=0.1)):
        model = estimator.fit(X, Y)
        model.delete([3])
        saved = pickle.dumps(model)
        assert np.array_equal(model.coef_, pickle.loads(saved).coef_), "two releases of one state, and one counted"
        assert model._transcript.releases == pickle.loads(saved)._transcript.releases == 2


def test_a_frame_that_comes_out_while_others_delete_has_its_own_names(switching):
    towns = np.array([f"t{k}" for k in range(60)])
    model = (
        OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(towns[:, None]).set_output(transform="pandas")
    )
    together(
        lambda: [model.delete([k]) for k in range(50)],
        lambda: [model.transform(towns[50:, None]) for _ in range(200)],
    )


def test_parts_share_the_turn_and_copies_have_their_own():
    model = make_pipeline(COLUMNS, Ridge()).fit(FRAME, Y)
    inner = model.steps_[0][1].named_transformers_["a"]
    assert turn_of(model) is turn_of(inner) is turn_of(model.steps_[-1][1])
    for other in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert turn_of(other) is not turn_of(model)
        assert turn_of(other) is turn_of(other.steps_[0][1].named_transformers_["a"])
    assert turn_of(copy(model)) is turn_of(model)  # it has the same rows


# ------------------------------------------------------------------------------------------------------- parameters

CHANGES = {
    "strength": (LogisticRegression(class_weight="balanced"), {"C": 1e4}),
    "noise": (LogisticRegression(), {"noise": 10.0}),
    "promise": (Ridge(noise=0.1), {"noise": 0.0}),
    "penalty": (Ridge(), {"alpha": 2.0}),
    "scaling": (StandardScaler(), {"with_mean": False}),
    "depth": (RandomForestClassifier(3), {"max_depth": 2}),
    "smoothing": (GaussianNB(), {"var_smoothing": 1e-3}),
    "neighbours": (KNeighborsClassifier(), {"n_neighbors": 1}),
    "leaves": (GradientBoostingClassifier(3, max_depth=2, sample_size=30), {"leaf_penalty": 1.0}),
    "in a pipeline": (make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": 3.0}),
    "a step": (make_pipeline(StandardScaler(), Ridge()), {"ridge": Ridge(3.0)}),
    "in a column": (COLUMNS, {"a__with_std": False}),
    "of a search": (GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2), {"param_grid": {"alpha": [5.0]}}),
    "in a search": (GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2), {"estimator__fit_intercept": False}),
    "in shards": (
        ShardedClassifier(DecisionTreeClassifier(max_depth=1), 3, aggregation="private", epsilon=20.0, n_answers=1),
        {"n_answers": 1000},
    ),
    "of others in shards": (
        ShardedClassifier(DecisionTreeClassifier(max_depth=1, random_state=0), 3),
        {"estimator__max_depth": 3},
    ),
}


def acts_of(model, x):
    return {
        "delete": lambda: model.delete([3]),
        "plan": lambda: model.plan([3]),
        "certificate_": lambda: model.certificate_,
        "predict": lambda: (model.predict if hasattr(model, "predict") else model.transform)(x[:3]),
        **({"release": model.release} if hasattr(model, "release") else {}),
    }


@pytest.mark.parametrize("name", CHANGES)
def test_an_act_with_other_parameters_than_at_the_fit_is_refused_by_name(name):
    estimator, change = CHANGES[name]
    x = FRAME if estimator is COLUMNS else X
    model = clone(estimator).fit(x, Y)
    (parameter,) = change
    before = model.get_params()[parameter]
    model.set_params(**change)
    for act, call in acts_of(model, x).items():
        with pytest.raises(InvalidRequest, match=parameter.rpartition("__")[2]) as error:
            call()
        assert f"{act} was called" in str(error.value).replace("transform", "predict")
        assert "Nothing was changed" in str(error.value)
    model.set_params(**{parameter: before})
    assert 3 in model.ids_
    if name == "in shards":
        return
    model.delete([3])
    model.set_params(**change).fit(x, Y)
    assert model.certificate_ is not None


def test_a_part_of_a_fitted_pipeline_stands_by_its_parameters_too():
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model.steps_[-1][1].set_params(noise=10.0)
    with pytest.raises(InvalidRequest, match=r"noise was 0\.1 at fit and is 10\.0 now"):
        model.delete([3])


def test_parameters_that_concern_work_alone_may_be_changed():
    forest = RandomForestClassifier(3).fit(X, Y).set_params(n_jobs=2)
    forest.delete([3])
    model = LogisticRegression().fit(X, Y).set_params(max_iter=200)
    model.delete([3])


@pytest.mark.parametrize(
    ("estimator", "value"),
    [
        (KNeighborsClassifier(weights=lambda d: 1.0 / (1.0 + d)), {}),
        (GaussianNB(priors=np.array([0.5, 0.5])), {}),
        (LogisticRegression(class_weight={0: 1.0, 1: 2.0}), {}),
        (KNeighborsClassifier(metric_params={"w": np.ones(4)}, metric="minkowski"), {}),
    ],
    ids=lambda v: type(v).__name__,
)
def test_a_copy_of_a_model_stands_by_the_same_parameters(estimator, value):
    model = estimator.fit(X, Y)
    deepcopy(model).delete([3])
    if not callable(getattr(estimator, "weights", None)):
        pickle.loads(pickle.dumps(model)).delete([3])
    with pytest.raises(NotFittedError):
        clone(model).delete([3])


def test_a_change_within_a_parameter_is_seen():
    model = LogisticRegression(class_weight={0: 1.0, 1: 2.0}).fit(X, Y)
    model.class_weight[1] = 9.0
    with pytest.raises(InvalidRequest, match="class_weight"):
        model.delete([3])
    priors = np.array([0.5, 0.5])
    model = GaussianNB(priors=priors).fit(X, Y)
    priors[0] = 0.9
    with pytest.raises(InvalidRequest, match="priors"):
        model.predict(X[:2])


def test_a_fit_that_fails_leaves_the_parameters_of_the_fit_before():
    model = Ridge().fit(X, Y)
    model.set_params(alpha=-1.0)
    with pytest.raises(ValueError, match="alpha"):
        model.fit(X, Y)
    with pytest.raises(InvalidRequest, match=r"alpha was 1\.0 at fit"):
        model.delete([3])


# -------------------------------------------------------------------------------------------------------------- acts


@pytest.mark.parametrize("estimator", [LogisticRegression(random_state=0), Ridge(noise=0.1, random_state=0)], ids=str)
def test_noise_from_a_seed_is_told_loudly(estimator):
    with pytest.warns(SimulatedNoise, match="nothing is certified"):
        estimator.fit(X, Y)


def test_a_seed_without_noise_needs_no_warning(recwarn):
    Ridge(random_state=0).fit(X, Y)
    LogisticRegression().fit(X, Y)
    assert not [w for w in recwarn if issubclass(w.category, SimulatedNoise)]


def test_rows_without_ids_are_not_added():
    with pytest.raises(ValueError, match="add needs ids"):
        GaussianNB().fit(X, Y).add(X[:1], Y[:1])
    with pytest.raises(ValueError, match="exposure, which its fit does not take"):
        GaussianNB().fit(X, Y).add(X[:1], Y[:1], ids=[999], exposure=[1.0])


def test_what_cannot_be_done_has_no_method():
    assert not hasattr(GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}), "add")
    assert not hasattr(GaussianNB(), "refine")
    assert not hasattr(make_pipeline(StandardScaler(), Ridge()), "refine")
    assert hasattr(make_pipeline(StandardScaler(), LogisticRegression()), "refine")
    with pytest.raises(AttributeError) as error:
        KNeighborsClassifier().fit(X, Y).release()
    assert "rows are the model" in f"{error.value} {error.value.__cause__}"


def test_others_wait_while_one_act_is_going_on():
    model, order = GaussianNB().fit(X, Y), []

    def guard(before, after):
        other.start()
        other.join(0.2)
        order.append("guard")
        return type("Audit", (), {"refuted": False, "reason": "", "to_dict": dict})()

    other = threading.Thread(target=lambda: order.append(model.n_rows_))
    model.delete([3], guard=guard)
    other.join()
    assert order == ["guard", N - 1]


def test_a_frozen_estimator_of_others_in_a_pipeline_stands_by_its_parameters():
    from sklearn.frozen import FrozenEstimator

    from certified.preprocessing import KBinsDiscretizer

    plain = PlainRegression()
    assert plain is not None
    frozen = FrozenEstimator(StandardScaler().fit(X).release())
    model = make_pipeline(frozen, KBinsDiscretizer(3), Ridge()).fit(X, Y)
    pickle.loads(pickle.dumps(model)).delete([3])


@pytest.mark.parametrize("estimator", [GaussianNB(), StandardScaler(), MinMaxScaler()], ids=str)
def test_partial_fit_is_the_fit_and_then_the_addition(estimator):
    whole, ids = clone(estimator).fit(X, Y), np.arange(N)
    parts = clone(estimator)
    for some in (slice(0, 100), slice(100, 240)):
        assert parts.partial_fit(X[some], Y[some], classes=[0, 1], ids=ids[some]) is parts
    assert parts.state_digest_ == whole.state_digest_
    parts.delete([3, 200])
    retained = np.setdiff1d(ids, [3, 200])
    assert parts.state_digest_ == clone(estimator).fit(X[retained], Y[retained], ids=retained).state_digest_
    with pytest.raises(ValueError, match="add needs ids"):
        parts.partial_fit(X[:1], Y[:1])
    with pytest.raises(ValueError, match="not among classes"):
        parts.partial_fit(X[:1], [7], classes=[0, 1], ids=[999])


@pytest.mark.parametrize("name", EXACT)
def test_what_a_deletion_costs_is_measured_and_changes_nothing(name):
    if name == "shards":
        return
    estimator, x = EXACT[name]
    model = clone(estimator).fit(x, Y)
    before = model.state_digest_, model.ids_.tolist()
    for cost in (model.deletion_cost(), model.deletion_cost([3, 5])):
        assert 0.0 < cost.seconds < 60.0
        assert cost.share > 0.0
    assert (model.state_digest_, model.ids_.tolist()) == before
    with pytest.raises(LookupError):
        model.deletion_cost([999])


def test_a_model_of_other_versions_is_loaded_with_a_warning(recwarn):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    pickle.loads(pickle.dumps(model))
    assert not [w for w in recwarn if issubclass(w.category, OtherVersions)]
    model._fitted_by["numpy"] = "1.0"
    with pytest.warns(OtherVersions, match=r"numpy 1\.0 \(now"):
        pickle.loads(pickle.dumps(model))


def test_a_certificate_names_what_has_computed_and_speaks_of_no_deletion_after_the_fit():
    for estimator, module in (
        (GradientBoostingClassifier(3, max_depth=2, sample_size=30), "xgboost"),
        (make_pipeline(StandardScaler(), RandomForestClassifier(2)), "numba"),
        (GridSearchCV(RandomForestClassifier(2), {"max_depth": [1, 2]}, cv=2), "numba"),
        (Ridge(), "scipy"),
    ):
        certificate = estimator.fit(X, Y).certificate_
        assert module in certificate.versions
        for word in ("Removed", "removed", "without them", "deleted"):
            assert word not in str(certificate)
        assert "Removed" in str(estimator.delete([3]))
