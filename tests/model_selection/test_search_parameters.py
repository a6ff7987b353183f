"""Searches take scikit-learn's parameters, and their results are scikit-learn's on the same folds."""

import threading

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier as PlainForest
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.model_selection import GridSearchCV as PlainSearch
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, ShuffleSplit, StratifiedKFold, cross_validate
from sklearn.model_selection import RandomizedSearchCV as PlainRandomizedSearch
from threadpoolctl import threadpool_info, threadpool_limits

import certified
from certified.accounting import compose
from certified.decomposition import PCA
from certified.ensemble import GradientBoostingClassifier, ShardedClassifier
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import ContextClassifier, KNeighborsClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler


def folds_of(search):
    """The fold of each row, in the order in which the rows were given."""
    folds = np.empty(len(search._fold), dtype=int)
    folds[search._ids] = search._fold
    return PredefinedSplit(folds)


BOTH = ["r2", "neg_mean_squared_error"]


def two_scores(model, X, y):
    wrong = np.abs(model.predict(X) - y)
    return {"mean": -wrong.mean(), "worst": -wrong.max()}


@pytest.mark.parametrize(
    ("scoring", "refit"), [(None, True), (BOTH, "r2"), (BOTH, False), (two_scores, "worst"), ({"a": "r2"}, "a")]
)
def test_results_are_those_of_scikit_learn_on_the_same_folds(scoring, refit):
    X, y = load_diabetes(return_X_y=True)
    grid = [{"alpha": [0.01, 0.1, 1.0, 10.0]}, {"fit_intercept": [False]}]
    given = {"scoring": scoring, "refit": refit, "return_train_score": True}
    ours = GridSearchCV(Ridge(), grid, cv=4, **given, key=7).fit(X, y)
    plain = PlainSearch(PlainRidge(), grid, cv=folds_of(ours), **given).fit(X, y)
    assert list(ours.cv_results_) == list(plain.cv_results_)
    for name, values in plain.cv_results_.items():
        found = ours.cv_results_[name]
        if name.startswith("param_"):
            assert found.dtype == values.dtype
            assert found.tolist() == values.tolist()
        elif name == "params" or name.startswith("rank_"):
            assert list(found) == list(values)
        elif name.endswith("_time"):
            assert (found >= 0).all()
        else:
            assert np.allclose(found, values, rtol=1e-8)
    assert (ours.multimetric_, ours.n_splits_) == (plain.multimetric_, 4)
    assert isinstance(ours.scorer_, dict) == isinstance(plain.scorer_, dict)
    for name in ("best_index_", "best_params_", "best_score_", "refit_time_", "predict", "best_estimator_", "classes_"):
        assert hasattr(ours, name) == hasattr(plain, name)
    if refit:
        assert ours.best_params_ == plain.best_params_
        assert np.isclose(ours.best_score_, plain.best_score_)
        assert np.allclose(ours.predict(X), plain.predict(X))
        assert np.isclose(ours.score(X, y), plain.score(X, y))
        assert np.allclose(ours.release().predict(X), plain.predict(X))
        assert ours.refit_time_ > 0


def second_best(results):
    assert not any(name.endswith("_time") for name in results)
    return int(np.argsort(results["rank_test_r2"])[1])


@pytest.mark.parametrize("refit", ["r2", False, second_best], ids=["name", "none", "function"])
def test_with_several_scores_a_deletion_gives_a_fresh_search_whatever_runs_side_by_side(refit):
    X, y = load_diabetes(return_X_y=True)
    retained = np.setdiff1d(np.arange(len(y)), [3, 5, 8])
    digests = set()
    for n_jobs in (None, 2, 3):
        search = GridSearchCV(
            Ridge(),
            {"alpha": [0.1, 1.0, 9.0]},
            scoring=BOTH,
            refit=refit,
            return_train_score=True,
            n_jobs=n_jobs,
            cv=3,
            key=7,
        )
        live, fresh = clone(search).fit(X, y), search.fit(X[retained], y[retained], ids=retained)
        before = live.state_digest_
        live.delete([3, 5, 8])
        digests.add((before, live.state_digest_))
        assert live.state_digest_ == fresh.state_digest_ != before
        for name, values in fresh.cv_results_.items():
            if name.endswith("fit_time"):
                assert np.isnan(live.cv_results_[name]).all()  # these depend on rows that are gone
            elif not name.endswith("time"):
                assert np.array_equal(live.cv_results_[name], values)
        assert hasattr(live, "best_score_") == isinstance(refit, str)
        assert getattr(live, "best_params_", None) == getattr(fresh, "best_params_", None)
    assert len(digests) == 1


def test_a_choice_that_no_model_serves_is_certified_alone():
    X, y = load_diabetes(return_X_y=True)
    search = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, refit=False, cv=3, key=7).fit(X, y)
    for name in ("predict", "release", "score", "best_estimator_"):
        assert not hasattr(search, name)
    with pytest.raises(AttributeError, match="no attribute 'predict'") as raised:
        search.predict(X)
    assert "refit=False" in str(raised.value.__cause__)
    certificate = search.delete([3]).certificate
    assert (certificate.claim, certificate.scope, certificate.n_rows) == ("exact", "search", 441)
    retained = np.delete(np.arange(442), 3)
    fresh = clone(search).fit(X[retained], y[retained], ids=retained)
    assert search.state_digest_ == fresh.state_digest_
    assert search.best_params_ == fresh.best_params_
    X, y = load_breast_cancer(return_X_y=True)
    noisy = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2, refit=False, key=7).fit(
        X[:, :4] / X[:, :4].std(axis=0), y
    )
    parts = [model.certificate_.mu for model in noisy._models[0]]
    assert len(parts) == 2
    assert noisy.certificate_.mu == compose(parts) > max(parts)
    assert noisy.certificate_.n_rows == 569
    again = noisy.set_params(refit=True).fit(X[:, :4] / X[:, :4].std(axis=0), y)
    assert len(again._every()) == 3
    again.set_params(refit=False).fit(X[:, :4] / X[:, :4].std(axis=0), y)
    assert not hasattr(again, "best_estimator_")  # nothing of the fit before stays


def test_models_with_threads_of_their_own_run_one_at_a_time():
    assert not any(kind._reentrant for kind in (ContextClassifier, ShardedClassifier, GradientBoostingClassifier))
    X, y = load_iris(return_X_y=True)
    names = set()

    def score(model, X, y):
        names.add(threading.current_thread().name)
        return model.score(X, y)

    grid = {"n_neighbors": [1, 3]}
    GridSearchCV(KNeighborsClassifier(), grid, n_jobs=2, scoring=score, cv=2, key=7).fit(X, y)
    assert threading.current_thread().name not in names
    names.clear()
    alone = GridSearchCV(ContextClassifier(PlainForest(3)), {"estimator__random_state": [1]}, n_jobs=2, cv=2, key=7)
    alone.set_params(scoring=score).fit(X, y)
    assert names == {threading.current_thread().name}
    names.clear()
    steps, grid = make_pipeline(StandardScaler(), GaussianNB()), {"gaussiannb": [clone(alone.estimator)]}
    GridSearchCV(steps, grid, n_jobs=2, scoring=score, cv=2, key=7).fit(X, y)
    assert names == {threading.current_thread().name}


def test_the_limit_on_threads_holds_until_the_last_model_is_done():
    X, y = load_diabetes(return_X_y=True)
    seen = []

    def look():
        seen.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})

    class Watched(Ridge):
        def fit(self, X, y, ids=None):
            super().fit(X, y, ids=ids)
            look()
            return self

    def score(model, X, y):
        look()
        return model.score(X, y)

    with threadpool_limits(2):
        for n_jobs, calls in ((2, 4 + 4), (None, 4)):
            search = GridSearchCV(Watched() if n_jobs else Ridge(), {"alpha": [0.01, 1.0]}, n_jobs=n_jobs, cv=2, key=7)
            seen.clear()
            search.set_params(scoring=score, refit=False).fit(X, y)
            assert len(seen) == calls
            assert all(one == {1} for one in seen)


def test_verbose_tells_of_fits(capsys):
    X, y = load_diabetes(return_X_y=True)
    search = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, verbose=1, key=7).fit(X, y)
    assert capsys.readouterr().out == "Fitting 3 folds for each of 2 candidates, totalling 6 fits\n"
    search.set_params(verbose=2).fit(X, y)
    assert capsys.readouterr().out.count("END alpha=") == 6


def test_what_fails_gets_the_score_for_errors_or_raises():
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = X[:, 0] + 1.0
    search = GridSearchCV(make_pipeline(PCA(2), Ridge()), {"pca__n_components": [2, 5]}, cv=2, error_score=9.0, key=7)
    with pytest.warns(FitFailedWarning, match="2 fits or scores failed, of 4 each"):
        search.fit(X, y)
    assert search.cv_results_["mean_test_score"][1] == 9.0
    assert search.best_params_ == {"pca__n_components": 2}  # the other cannot be fitted on all rows
    with pytest.raises(InvalidInput, match="n_components"):
        search.set_params(error_score="raise").fit(X, y)
    with pytest.raises(InvalidInput, match="error_score"):
        search.set_params(error_score="nan").fit(X, y)

    def moody(model, X, y):
        if model.alpha > 1:
            raise RuntimeError("no")
        return model.score(X, y)

    search = GridSearchCV(Ridge(), {"alpha": [0.1, 5.0]}, cv=2, scoring=moody, key=7)
    with pytest.warns(FitFailedWarning, match="RuntimeError: no"):
        search.fit(X, y)
    search.delete([0])
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    with pytest.raises(RuntimeError, match="no"):
        search.set_params(error_score="raise", n_jobs=2).fit(X, y)


def test_delegations_are_those_of_the_winner():
    X, _ = load_iris(return_X_y=True)
    grid, score = {"n_components": [2, 3]}, lambda model, X, y=None: float(model.n_components_)
    search = GridSearchCV(PCA(), grid, scoring=score, cv=2, key=7).fit(X)
    best = search.best_estimator_
    assert np.array_equal(search.inverse_transform(search.transform(X)), best.inverse_transform(best.transform(X)))
    assert not hasattr(search, "decision_function")
    assert not hasattr(search, "classes_")


def test_helpers_of_scikit_learn_take_ids():
    X, y = load_breast_cancer(return_X_y=True)
    ids = np.arange(len(y)) // 3
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 0.1]}, cv=2, key=7)
    for model in (GaussianNB(), make_pipeline(StandardScaler(), GaussianNB()), search):
        plain = cross_validate(model, X, y, params={"ids": ids}, return_estimator=True, cv=3)
        assert all(np.isin(one.ids_, ids).all() and one.n_rows_ > 2 * len(one.ids_) for one in plain["estimator"])
        with sklearn.config_context(enable_metadata_routing=True):
            asked = clone(model).set_fit_request(ids=True)
            routed = cross_validate(asked, X, y, params={"ids": ids}, cv=3)
        assert np.array_equal(routed["test_score"], plain["test_score"])


def test_wrong_parameters_are_refused_with_a_reason():
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(InvalidInput, match="folds"):
        GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=1, key=7).fit(X, y)
    with pytest.raises(NotDeletable, match="cannot delete"):
        GridSearchCV(PlainRidge(), {"alpha": [1.0]}, key=7).fit(X, y)
    for refit in (True, "mae"):
        with pytest.raises(InvalidInput, match="several scores"):
            GridSearchCV(Ridge(), {"alpha": [1.0]}, scoring=BOTH, refit=refit, key=7).fit(X, y)
    for refit in (None, lambda results: 1, lambda results: "alpha"):
        with pytest.raises(InvalidInput, match="refit"):
            GridSearchCV(Ridge(), {"alpha": [1.0]}, refit=refit, key=7).fit(X, y)
    with pytest.raises(InvalidRequest, match="fold"):
        GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=20, key=7).fit(X[:10], y[:10])


def test_splitters_are_taken_where_folds_are_a_function_of_subjects():
    X, y = load_diabetes(return_X_y=True)
    plain = GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=4, key=7).fit(X, y)
    for cv in (KFold(4, shuffle=True, random_state=3), GroupKFold(4)):
        assert clone(plain).set_params(cv=cv).fit(X, y).state_digest_ == plain.state_digest_
    for cv in (KFold(4), StratifiedKFold(4, shuffle=True), ShuffleSplit(4)):
        with pytest.raises(InvalidInput, match="is not allowed: a number of folds"):
            clone(plain).set_params(cv=cv).fit(X, y)


def test_a_search_of_scikit_learn_is_converted_with_its_parameters():
    given = {"scoring": BOTH, "n_jobs": 2, "refit": "r2", "verbose": 3, "pre_dispatch": 2, "error_score": "raise"}
    given |= {"return_train_score": True}
    for plain in (
        PlainSearch(PlainRidge(), {"alpha": [1.0, 2.0]}, cv=3, **given),
        PlainRandomizedSearch(PlainRidge(), {"alpha": [1.0, 2.0]}, n_iter=2, random_state=5, **given),
        PlainSearch(PlainRidge(), {"alpha": [1.0, 2.0]}),
    ):
        found = certified.certify(plain)
        assert isinstance(found.estimator, Ridge)
        ours, theirs = found.get_params(deep=False), plain.get_params(deep=False)
        assert set(ours) - {"key"} == set(theirs) - {"random_state"}
        assert ours["key"] == theirs.get("random_state")
        for name in set(ours) - {"estimator", "key", "error_score"}:
            assert ours[name] == theirs[name]
        assert str(ours["error_score"]) == str(theirs["error_score"])
    assert GridSearchCV(Ridge(), {"alpha": [1.0]}, key=7).fit(*load_diabetes(return_X_y=True)).n_splits_ == 5
