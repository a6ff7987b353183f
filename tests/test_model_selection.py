"""A search after deletions is a fresh search on the rows that stay: same scores, same winner, same model."""

import pickle
import threading
from copy import deepcopy

import numpy as np
import polars as pl
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import RandomForestClassifier as PlainForest
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import Ridge as PlainRidge
from sklearn.model_selection import GridSearchCV as PlainSearch
from sklearn.model_selection import PredefinedSplit, cross_validate
from sklearn.model_selection import RandomizedSearchCV as PlainRandomizedSearch
from threadpoolctl import threadpool_info, threadpool_limits

import certified
from certified.accounting import compose
from certified.decomposition import PCA
from certified.ensemble import GradientBoostingClassifier, ShardedClassifier
from certified.errors import CertifiedError, InvalidInput, InvalidRequest, NotDeletable
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV, RandomizedSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import ContextClassifier, KNeighborsClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.rows import Rows, Subjects
from certified.testing import check_delete_equals_refit, yield_deletion_checks

RIDGE = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0, 100.0]}, cv=3)
CHECKS = [
    pytest.param(check, id=title)
    for search in (RIDGE, GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 0.1]}, cv=3))
    for title, check in yield_deletion_checks(search)
]


@pytest.mark.parametrize("check", CHECKS)
def test_a_search_passes_the_public_checks(check):
    check()


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
    ours = GridSearchCV(Ridge(), grid, cv=4, **given).fit(X, y)
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
    kept = np.setdiff1d(np.arange(len(y)), [3, 5, 8])
    digests = set()
    for n_jobs in (None, 2, 3):
        search = GridSearchCV(
            Ridge(), {"alpha": [0.1, 1.0, 9.0]}, scoring=BOTH, refit=refit, return_train_score=True, n_jobs=n_jobs, cv=3
        )
        live, fresh = clone(search).fit(X, y), search.fit(X[kept], y[kept], ids=kept)
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
    search = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, refit=False, cv=3).fit(X, y)
    for name in ("predict", "release", "score", "best_estimator_"):
        assert not hasattr(search, name)
    with pytest.raises(AttributeError, match="no attribute 'predict'") as raised:
        search.predict(X)
    assert "refit=False" in str(raised.value.__cause__)
    search.set_params(refit=True)  # without effect before the next fit
    certificate = search.delete([3]).certificate
    assert (certificate.claim, certificate.scope, certificate.n_rows) == ("exact", "search", 441)
    kept = np.delete(np.arange(442), 3)
    fresh = clone(search).set_params(refit=False).fit(X[kept], y[kept], ids=kept)
    assert search.state_digest_ == fresh.state_digest_
    assert search.best_params_ == fresh.best_params_
    X, y = load_breast_cancer(return_X_y=True)
    noisy = GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2, refit=False).fit(X[:, :4] / X[:, :4].std(axis=0), y)
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
    GridSearchCV(KNeighborsClassifier(), grid, n_jobs=2, scoring=score, cv=2).fit(X, y)
    assert threading.current_thread().name not in names
    names.clear()
    alone = GridSearchCV(ContextClassifier(PlainForest(3)), {"estimator__random_state": [1]}, n_jobs=2, cv=2)
    alone.set_params(scoring=score).fit(X, y)
    assert names == {threading.current_thread().name}
    names.clear()
    steps, grid = make_pipeline(StandardScaler(), GaussianNB()), {"gaussiannb": [clone(alone.estimator)]}
    GridSearchCV(steps, grid, n_jobs=2, scoring=score, cv=2).fit(X, y)
    assert names == {threading.current_thread().name}


def test_an_interrupt_in_a_thread_leaves_the_fit_before(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, n_jobs=2).fit(X[:80], y[:80])
    before, act = pickle.dumps(live), Ridge.fit
    for at in (1, 3, 7):
        stop = Interrupted(act, at)
        monkeypatch.setattr(Ridge, "fit", lambda *args, stop=stop, **kwargs: stop(*args, **kwargs))
        with pytest.raises(KeyboardInterrupt):
            live.fit(X, y)
        assert pickle.dumps(live) == before


def test_the_limit_on_threads_holds_until_the_last_model_is_done():
    X, y = load_diabetes(return_X_y=True)
    seen = []

    def look():
        seen.append({pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"})

    class Watched(Ridge):
        def fit(self, X, y, ids=None):
            super().fit(X, y, ids)
            look()
            return self

    def score(model, X, y):
        look()
        return model.score(X, y)

    with threadpool_limits(2):
        for n_jobs, calls in ((2, 4 + 4), (None, 4)):
            search = GridSearchCV(Watched() if n_jobs else Ridge(), {"alpha": [0.01, 1.0]}, n_jobs=n_jobs, cv=2)
            seen.clear()
            search.set_params(scoring=score, refit=False).fit(X, y)
            assert len(seen) == calls
            assert all(one == {1} for one in seen)


def test_verbose_tells_of_fits(capsys):
    X, y = load_diabetes(return_X_y=True)
    search = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, verbose=1).fit(X, y)
    assert capsys.readouterr().out == "Fitting 3 folds for each of 2 candidates, totalling 6 fits\n"
    search.set_params(verbose=2).fit(X, y)
    assert capsys.readouterr().out.count("END alpha=") == 6


def test_what_fails_gets_the_score_for_errors_or_raises():
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = X[:, 0] + 1.0
    search = GridSearchCV(make_pipeline(PCA(2), Ridge()), {"pca__n_components": [2, 5]}, cv=2, error_score=9.0)
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

    search = GridSearchCV(Ridge(), {"alpha": [0.1, 5.0]}, cv=2, scoring=moody)
    with pytest.warns(FitFailedWarning, match="RuntimeError: no"):
        search.fit(X, y)
    search.delete([0])
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    with pytest.raises(RuntimeError, match="no"):
        search.set_params(error_score="raise", n_jobs=2).fit(X, y)


def test_delegations_are_those_of_the_winner():
    X, _ = load_iris(return_X_y=True)
    grid, score = {"n_components": [2, 3]}, lambda model, X, y=None: float(model.n_components_)
    search = GridSearchCV(PCA(), grid, scoring=score, cv=2).fit(X)
    best = search.best_estimator_
    assert np.array_equal(search.inverse_transform(search.transform(X)), best.inverse_transform(best.transform(X)))
    assert not hasattr(search, "score_samples")
    assert not hasattr(search, "classes_")


def test_helpers_of_scikit_learn_take_ids():
    X, y = load_breast_cancer(return_X_y=True)
    ids = np.arange(len(y)) // 3
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 0.1]}, cv=2)
    for model in (GaussianNB(), make_pipeline(StandardScaler(), GaussianNB()), search):
        plain = cross_validate(model, X, y, params={"ids": ids}, return_estimator=True, cv=3)
        assert all(np.isin(one.ids_, ids).all() and one.n_rows_ > 2 * len(one.ids_) for one in plain["estimator"])
        with sklearn.config_context(enable_metadata_routing=True):
            asked = clone(model).set_fit_request(ids=True)
            routed = cross_validate(asked, X, y, params={"ids": ids}, cv=3)
        assert np.array_equal(routed["test_score"], plain["test_score"])


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4), repeats=st.integers(1, 3)
)
def test_any_sequence_ends_at_a_fresh_search_in_another_order(seed, sizes, repeats):
    rng = np.random.default_rng(seed)
    n = 90
    X = rng.standard_normal((n, 4))
    y = X[:, 0] + rng.standard_normal(n)
    ids = np.arange(n) // repeats
    search = GridSearchCV(make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 10.0, 30.0, 100.0]}, cv=3)
    live = clone(search).fit(X, y, ids=ids)
    for chunk in np.split(rng.permutation(np.unique(ids)), np.cumsum(sizes))[:-1]:
        live.delete(chunk)
    kept = np.isin(ids, live.ids_)
    order = np.flatnonzero(kept)[np.argsort(rng.integers(0, 10**6, n)[ids[kept]], kind="stable")]  # subjects shuffled
    fresh = clone(search).fit(X[order], y[order], ids=ids[order])
    assert live.best_params_ == fresh.best_params_
    for name in ("mean_test_score", "split0_test_score"):
        assert np.array_equal(live.cv_results_[name], fresh.cv_results_[name])
    assert np.array_equal(live.predict(X), fresh.predict(X))


def test_the_winner_changes_when_its_support_leaves():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((300, 6))
    y = X[:, 0] + 0.1 * rng.standard_normal(300)
    y[:150] = 5 * rng.standard_normal(150)  # noise, for which much shrinkage is best
    live = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}).fit(X, y)
    assert live.best_params_["alpha"] == 300.0
    live.delete(range(150))
    fresh = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}).fit(X[150:], y[150:], ids=range(150, 300))
    assert live.best_params_ == fresh.best_params_ == {"alpha": 0.1}
    assert live.state_digest_ == fresh.state_digest_
    assert live.certificate_.claim == "exact"
    assert "Selection: covered" in str(live.certificate_)


def test_parameters_set_after_the_fit_have_no_part_in_a_deletion():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((300, 6))
    y = 1.0 + X[:, 0] + 0.1 * rng.standard_normal(300)
    y[:150] = 5 * rng.standard_normal(150)
    live = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}, n_jobs=2).fit(X, y)
    live.set_params(estimator__fit_intercept=False, cv=2, scoring="neg_mean_squared_error", error_score="raise")
    live.delete(range(150))
    fresh = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}).fit(X[150:], y[150:], ids=range(150, 300))
    assert live.best_params_ == fresh.best_params_ == {"alpha": 0.1}
    assert live.state_digest_ == fresh.state_digest_


def test_no_subject_is_in_two_folds():
    X, y = load_iris(return_X_y=True)
    ids = np.arange(150) % 40
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=4).fit(X, y, ids=ids)
    assert all(len(np.unique(search._fold[search._ids == i])) == 1 for i in range(40))
    for f in range(4):
        trained = search._models[0][f].ids_
        assert not np.isin(trained, search._ids[search._fold == f]).any()


def test_a_certified_search_composes_all_the_releases_that_the_choice_saw():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :6]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=3
    )
    search.fit(X, y).delete([5, 9])
    certificate = search.certificate_
    parts = [m.certificate_.mu for row in search._models for m in row] + [search.best_estimator_.certificate_.mu]
    assert len(parts) == 7
    assert certificate.mu == compose(parts) > max(parts)
    assert (certificate.claim, certificate.scope, certificate.selection) == ("indistinguishable", "search", "covered")
    assert certificate.public().mu == certificate.mu_target
    assert certified.certificate.Certificate.from_json(certificate.to_json()) == certificate
    silent = GridSearchCV(LogisticRegression(noise=0), {"C": [1.0]}, cv=2).fit(X / X.std(axis=0), y)
    assert silent.certificate_.claim == "none"


def test_a_candidate_that_cannot_be_fitted_is_passed_over_and_tried_again():
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = X[:, 0] + 1.0
    search = GridSearchCV(make_pipeline(PCA(2), Ridge()), {"pca__n_components": [2, 5]}, cv=2)
    with pytest.warns(FitFailedWarning, match="PCA"):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    assert search.best_params_ == {"pca__n_components": 2}
    search.delete([0])
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    with pytest.raises(InvalidInput, match="n_components"):
        GridSearchCV(PCA(), {"n_components": [5]}, scoring=lambda m, x, y: 0.0, cv=2).fit(X, y)


def test_a_refused_request_changes_nothing():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=3).fit(X, y)
    before = search.state_digest_
    for request in (np.arange(100, 150), np.arange(150), [999], search._ids[search._fold == 0]):
        with pytest.raises(CertifiedError):
            search.delete(request)
    assert search.state_digest_ == before
    with pytest.raises(NotDeletable, match="search"):
        search.best_estimator_.delete([1])


def test_frames_and_named_ids_are_taken():
    frame = pl.DataFrame({"who": [f"p{i}" for i in range(60)], "a": np.arange(60.0), "b": np.arange(60.0) ** 2})
    search = GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2).fit(frame, np.arange(60.0), ids="who")
    assert search.delete(["p3", "p4"]).n_rows == 2
    assert search.predict(frame.drop("who")).shape == (60,)


def test_random_candidates_are_those_of_the_seed():
    X, y = load_diabetes(return_X_y=True)
    search = RandomizedSearchCV(Ridge(), {"alpha": np.geomspace(1e-3, 1e3, 50).tolist()}, n_iter=4, random_state=5)
    first, second = search.fit(X, y).cv_results_["params"], clone(search).fit(X[1:], y[1:]).cv_results_["params"]
    assert len(first) == 4
    assert first == second
    with pytest.raises(InvalidInput, match="whole number"):
        RandomizedSearchCV(Ridge(), {"alpha": [1.0]}, n_iter=1, random_state=None).fit(X, y)


def test_wrong_parameters_are_refused_with_a_reason():
    X, y = load_diabetes(return_X_y=True)
    with pytest.raises(InvalidInput, match="folds"):
        GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=1).fit(X, y)
    with pytest.raises(NotDeletable, match="cannot forget"):
        GridSearchCV(PlainRidge(), {"alpha": [1.0]}).fit(X, y)
    for refit in (True, "mae"):
        with pytest.raises(InvalidInput, match="several scores"):
            GridSearchCV(Ridge(), {"alpha": [1.0]}, scoring=BOTH, refit=refit).fit(X, y)
    for refit in (None, lambda results: 1, lambda results: "alpha"):
        with pytest.raises(InvalidInput, match="refit"):
            GridSearchCV(Ridge(), {"alpha": [1.0]}, refit=refit).fit(X, y)
    with pytest.raises(InvalidRequest, match="fold"):
        GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=20).fit(X[:10], y[:10])


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
        assert list(ours) == list(theirs)
        for name in set(ours) - {"estimator", "random_state", "error_score"}:
            assert ours[name] == theirs[name]
        assert str(ours["error_score"]) == str(theirs["error_score"])
    assert GridSearchCV(Ridge(), {"alpha": [1.0]}).fit(*load_diabetes(return_X_y=True)).n_splits_ == 5


def test_a_score_that_becomes_undefined_leaves_the_winner_in_place():
    X, y = load_iris(return_X_y=True)
    X, y = X[:100], y[:100]
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, scoring="roc_auc", cv=3).fit(X, y)
    own = search._fold == 0
    ids = search._ids[own & (y[search._ids] == 1)]
    search.delete(ids)  # no row of class 1 is left in the fold
    assert np.isnan(search.cv_results_["mean_test_score"]).all()
    assert not np.isin(ids, search.best_estimator_.ids_).any()
    assert search.n_rows_ == 100 - len(ids)
    assert search.predict(X).shape == (100,)


class Interrupted:
    """Raises KeyboardInterrupt at the call of this number."""

    def __init__(self, act, at):
        self.act, self.at, self.calls = act, at, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return self.act(*args, **kwargs)


def interrupted_anywhere(monkeypatch, make, X, y, owner, name):
    """Interrupt a deletion at every call of a function, after which the search must be as it was and forget the same.

    Returns how many calls a deletion makes.
    """
    act, gone, kept = getattr(owner, name), [3, 5, 8], np.setdiff1d(np.arange(len(y)), [3, 5, 8])
    live, at = make().fit(X, y), 1
    while True:
        before, subjects = pickle.dumps(live), live.n_rows_
        stop = Interrupted(act, at)
        monkeypatch.setattr(owner, name, lambda *args, stop=stop, **kwargs: stop(*args, **kwargs))
        try:
            live.delete(gone)
        except KeyboardInterrupt:
            assert pickle.dumps(live) == before
            assert live.n_rows_ == subjects
            at += 1
            continue
        finally:
            monkeypatch.setattr(owner, name, act)
        fresh = make().fit(X[kept], y[kept], ids=kept)
        assert np.array_equal(live.ids_, kept)
        assert live.state_digest_ == fresh.state_digest_
        return at - 1


@pytest.mark.parametrize(
    ("owner", "name"), [(Ridge, "_plan"), (Subjects, "drop"), (GridSearchCV, "_score"), (GridSearchCV, "_show")]
)
def test_an_interrupt_at_any_model_changes_nothing(monkeypatch, owner, name):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:80], y[:80]
    calls = interrupted_anywhere(
        monkeypatch, lambda: GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3), X, y, owner, name
    )
    assert calls >= (1 if name == "_show" else 6)


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_interrupt_while_rows_are_overwritten_is_made_up_for(monkeypatch, at):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:80], y[:80]
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3).fit(X, y)
    secret = X[3] + 0.0
    stop = Interrupted(Rows._erase, at)
    act = Rows._erase
    monkeypatch.setattr(Rows, "_erase", lambda *args: stop(*args))
    with pytest.raises(KeyboardInterrupt):
        live.delete([3])
    monkeypatch.setattr(Rows, "_erase", act)
    assert 3 not in live.ids_
    kept = np.delete(np.arange(80), 3)
    fresh = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3).fit(X[kept], y[kept], ids=kept)
    assert live.state_digest_ == fresh.state_digest_
    pickle.dumps(live)
    models = [model for row in live._models for model in row] + [live.best_estimator_]
    assert all(not (model._rows.x[:, :10] == secret).all(axis=1).any() for model in models)


def test_copies_share_their_rows_until_the_deletion_is_in_place(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3).fit(X, y)
    before = [id(model._rows.x) for row in live._models for model in row]
    live.delete([3, 5])
    assert [id(model._rows.x) for row in live._models for model in row] == before
    assert not any((model._rows.x[:, :10] == X[3]).all(axis=1).any() for row in live._models for model in row)
    twin = deepcopy(live)  # outside of a deletion a copy is a copy
    assert not np.shares_memory(twin.best_estimator_._rows.x, live.best_estimator_._rows.x)


def test_a_search_that_commits_model_by_model_is_caught(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    monkeypatch.setattr("certified.model_selection._search.deepcopy", lambda model: model)  # forgets in place
    with pytest.raises(AssertionError):
        interrupted_anywhere(
            monkeypatch, lambda: GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3), X[:80], y[:80], Ridge, "_plan"
        )


class KeepsItsChoice(GridSearchCV):
    """Deletes from the models and keeps the scores."""

    def _choose(self, before=None, held=None):
        return super()._choose() if before is None else None


class ForgetsOneFold(GridSearchCV):
    """Deletes from the winner and from the models of one fold only."""

    def _forgotten(self, model, k, ids, held, reasons):
        own = any(model is row[0] for row in self._models) or model is self.best_estimator_
        return super()._forgotten(model, k, ids if own else ids[:0], held, reasons)


@pytest.mark.parametrize("mutant", [KeepsItsChoice, ForgetsOneFold])
def test_a_mutant_is_caught(mutant):
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(mutant(Ridge(), {"alpha": [0.01, 1.0]}, cv=3))
