"""A search after deletions is a fresh search on the retained rows: same scores, same winner, same model."""

import pickle
from copy import deepcopy

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.exceptions import FitFailedWarning

import certified
from certified._data.rows import Rows
from certified._data.subjects import Subjects
from certified.accounting import compose, mu_of
from certified.audit import private_parameter
from certified.audit._memory import dumped
from certified.decomposition import PCA
from certified.errors import CannotCertify, CertifiedError, InvalidInput, NotDeletable
from certified.linear_model import LogisticRegression, Ridge
from certified.model_selection import GridSearchCV, RandomizedSearchCV
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.testing import check_delete_equals_refit, yield_deletion_checks

RIDGE = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0, 100.0]}, cv=3, key=7)
CHECKS = [
    pytest.param(check, id=title)
    for search in (RIDGE, GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 0.1]}, cv=3, key=7))
    for title, check in yield_deletion_checks(search)
]


@pytest.mark.parametrize("check", CHECKS)
def test_a_search_passes_the_public_checks(check):
    check()


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
    search = GridSearchCV(
        make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 10.0, 30.0, 100.0]}, cv=3, key=7
    )
    live = clone(search).fit(X, y, ids=ids)
    for chunk in np.split(rng.permutation(np.unique(ids)), np.cumsum(sizes))[:-1]:
        live.delete(chunk)
    retained = np.isin(ids, live.ids_)
    order = np.flatnonzero(retained)[
        np.argsort(rng.integers(0, 10**6, n)[ids[retained]], kind="stable")
    ]  # subjects shuffled
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
    live = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}, key=7).fit(X, y)
    assert live.best_params_["alpha"] == 300.0
    live.delete(range(150))
    fresh = GridSearchCV(Ridge(), {"alpha": [0.1, 300.0]}, key=7).fit(X[150:], y[150:], ids=range(150, 300))
    assert live.best_params_ == fresh.best_params_ == {"alpha": 0.1}
    assert live.state_digest_ == fresh.state_digest_
    assert live.certificate_.claim == "exact"
    assert "Selection: covered" in str(live.certificate_)


def test_no_subject_is_in_two_folds():
    X, y = load_iris(return_X_y=True)
    ids = np.arange(150) % 40
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9]}, cv=4, key=7).fit(X, y, ids=ids)
    assert all(len(np.unique(search._fold[search._ids == i])) == 1 for i in range(40))
    for f in range(4):
        trained = search._models[0][f].ids_
        assert not np.isin(trained, search._ids[search._fold == f]).any()


def test_a_certified_search_composes_all_the_releases_that_the_choice_saw():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :6]
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=3, key=7
    )
    search.fit(X, y).delete([5, 9])
    certificate = search.certificate_
    parts = [m.certificate_.mu for row in search._models for m in row] + [search.best_estimator_.certificate_.mu]
    assert len(parts) == 7
    assert certificate.mu == compose(parts) > max(parts)
    assert (certificate.claim, certificate.scope, certificate.selection) == ("indistinguishable", "search", "covered")
    assert certificate.public().mu == certificate.mu_target
    assert certified.certificate.Certificate.from_json(certificate.to_json()) == certificate
    silent = GridSearchCV(LogisticRegression(noise=0), {"C": [1.0]}, cv=2, key=7).fit(X / X.std(axis=0), y)
    assert silent.certificate_.claim == "none"


def test_all_models_of_a_search_together_keep_the_promise_that_was_asked_for():
    X, y = load_breast_cancer(return_X_y=True)
    X = X[:, :4] / X[:, :4].std(axis=0)
    search = GridSearchCV(LogisticRegression(epsilon=1), {"C": [0.1, 1.0, 10.0]}, cv=3, key=7).fit(X, y)
    retained, asked = np.arange(60, len(y)), mu_of(1.0, 1e-6)
    spent = 0.0
    for rows in (np.arange(30), np.arange(30, 60)):
        certificate = search.delete(rows).certificate
        assert certificate.mu <= certificate.mu_target <= asked
        assert certificate.mu_target > asked * (1 - 1e-9)
        assert certificate.public().epsilon <= 1.0
    models = [(model, search._fold[:] != f) for row in search._models for f, model in enumerate(row)]
    for model, held in [*models, (search.best_estimator_, np.ones(len(retained), dtype=bool))]:
        assert model.certificate_.mu_target <= asked / np.sqrt(10)
        ids = search._ids[held]
        exact = clone(model).set_params(tol=1e-10).fit(X[ids], y[ids], ids=ids)  # the referee
        gap = private_parameter(model) - private_parameter(exact)
        spent += gap @ model.noise_metric_ @ gap / model.noise**2
    assert np.sqrt(spent) <= certificate.mu
    assert search.best_estimator_.get_params()["epsilon"] == 1  # the share is no parameter
    assert clone(search.best_estimator_).fit(X, y).certificate_.mu_target == asked


def test_a_candidate_that_cannot_be_fitted_is_passed_over_and_tried_again():
    X = np.random.default_rng(0).standard_normal((40, 3))
    y = X[:, 0] + 1.0
    search = GridSearchCV(make_pipeline(PCA(2), Ridge()), {"pca__n_components": [2, 5]}, cv=2, key=7)
    with pytest.warns(FitFailedWarning, match="PCA"):
        search.fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    assert search.best_params_ == {"pca__n_components": 2}
    search.delete([0])
    assert np.isnan(search.cv_results_["mean_test_score"][1])
    with pytest.raises(InvalidInput, match="n_components"):
        GridSearchCV(PCA(), {"n_components": [5]}, scoring=lambda m, x, y: 0.0, cv=2, key=7).fit(X, y)


def test_a_refused_request_changes_nothing():
    X, y = load_iris(return_X_y=True)
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=3, key=7).fit(X, y)
    before = search.state_digest_
    for request in (np.arange(150), [999], search._ids[search._fold == 0], np.arange(50, 150)):
        with pytest.raises(CertifiedError):
            search.delete(request)
    assert search.state_digest_ == before
    with pytest.raises(NotDeletable, match="search"):
        search.best_estimator_.delete([1])


def test_frames_and_named_ids_are_taken():
    frame = pl.DataFrame({"who": [f"p{i}" for i in range(60)], "a": np.arange(60.0), "b": np.arange(60.0) ** 2})
    search = GridSearchCV(Ridge(), {"alpha": [1.0, 2.0]}, cv=2, key=7).fit(frame, np.arange(60.0), ids="who")
    assert search.delete(["p3", "p4"]).n_rows == 2
    assert search.predict(frame.drop("who")).shape == (60,)


def test_random_candidates_are_those_of_the_key():
    X, y = load_diabetes(return_X_y=True)
    search = RandomizedSearchCV(Ridge(), {"alpha": np.geomspace(1e-3, 1e3, 50).tolist()}, n_iter=4, key=5)
    first, second = search.fit(X, y).cv_results_["params"], clone(search).fit(X[1:], y[1:]).cv_results_["params"]
    assert len(first) == 4
    assert first == second
    other = clone(search).set_params(key=6).fit(X, y)
    assert other.cv_results_["params"] != first
    with pytest.raises(InvalidInput, match="whole number"):
        search.set_params(key=1.5).fit(X, y)


def test_a_deletion_after_which_nothing_has_a_score_is_refused_as_a_fresh_search_is():
    X, y = load_iris(return_X_y=True)
    X, y = X[:100], y[:100]
    search = GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, scoring="roc_auc", cv=3, key=7).fit(X, y)
    ids, before = search._ids[(search._fold == 0) & (y[search._ids] == 1)], search.state_digest_
    retained = np.setdiff1d(np.arange(100), ids)
    with pytest.raises(CannotCertify, match="no candidate has a score in every fold"):
        clone(search).fit(X[retained], y[retained], ids=retained)
    with pytest.raises(CannotCertify, match="no candidate has a score in every fold"):
        search.delete(ids)  # no row of class 1 is left in the fold
    assert search.state_digest_ == before


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
    act, gone, retained = getattr(owner, name), [3, 5, 8], np.setdiff1d(np.arange(len(y)), [3, 5, 8])
    live, at = make().fit(X, y), 1
    while True:
        before, subjects = dumped(live), live.n_rows_
        stop = Interrupted(act, at)
        monkeypatch.setattr(owner, name, lambda *args, stop=stop, **kwargs: stop(*args, **kwargs))
        try:
            live.delete(gone)
        except KeyboardInterrupt:
            assert dumped(live) == before
            assert live.n_rows_ == subjects
            at += 1
            continue
        finally:
            monkeypatch.setattr(owner, name, act)
        fresh = make().fit(X[retained], y[retained], ids=retained)
        assert np.array_equal(live.ids_, retained)
        assert live.state_digest_ == fresh.state_digest_
        return at - 1


@pytest.mark.parametrize(
    ("owner", "name"),
    [(Ridge, "_plan_deletion"), (Subjects, "_drop"), (GridSearchCV, "_score"), (GridSearchCV, "_show")],
)
def test_an_interrupt_at_any_model_changes_nothing(monkeypatch, owner, name):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:80], y[:80]
    calls = interrupted_anywhere(
        monkeypatch, lambda: GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, key=7), X, y, owner, name
    )
    assert calls >= (1 if name == "_show" else 6)


def test_an_interrupt_in_a_thread_leaves_the_fit_before(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, n_jobs=2, key=7).fit(X[:80], y[:80])
    before, act = live.state_digest_, Ridge.fit
    for at in (1, 3, 7):
        stop = Interrupted(act, at)
        monkeypatch.setattr(Ridge, "fit", lambda *args, stop=stop, **kwargs: stop(*args, **kwargs))
        with pytest.raises(KeyboardInterrupt):
            live.fit(X, y)
        assert live.state_digest_ == before
        assert live.n_rows_ == 80


@pytest.mark.parametrize("at", [1, 2, 5])
def test_an_interrupt_while_rows_are_overwritten_is_made_up_for(monkeypatch, at):
    X, y = load_diabetes(return_X_y=True)
    X, y = X[:80], y[:80]
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, key=7).fit(X, y)
    secret = X[3] + 0.0
    stop = Interrupted(Rows._erase, at)
    act = Rows._erase
    monkeypatch.setattr(Rows, "_erase", lambda *args: stop(*args))
    with pytest.raises(KeyboardInterrupt):
        live.delete([3])
    monkeypatch.setattr(Rows, "_erase", act)
    assert 3 not in live.ids_
    retained = np.delete(np.arange(80), 3)
    fresh = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, key=7).fit(X[retained], y[retained], ids=retained)
    assert live.state_digest_ == fresh.state_digest_
    pickle.dumps(live)
    models = [model for row in live._models for model in row] + [live.best_estimator_]
    assert all(not (model._rows.x[:, :10] == secret).all(axis=1).any() for model in models)


def test_copies_share_their_rows_until_the_deletion_is_in_place(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    live = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, key=7).fit(X, y)
    before = [id(model._rows.x) for row in live._models for model in row]
    live.delete([3, 5])
    assert [id(model._rows.x) for row in live._models for model in row] == before
    assert not any((model._rows.x[:, :10] == X[3]).all(axis=1).any() for row in live._models for model in row)
    twin = deepcopy(live)  # outside of a deletion a copy is a copy
    assert not np.shares_memory(twin.best_estimator_._rows.x, live.best_estimator_._rows.x)


def test_a_search_that_commits_model_by_model_is_caught(monkeypatch):
    X, y = load_diabetes(return_X_y=True)
    monkeypatch.setattr("certified.model_selection._search.deepcopy", lambda model: model)  # deletes in place
    with pytest.raises(AssertionError):
        interrupted_anywhere(
            monkeypatch,
            lambda: GridSearchCV(Ridge(), {"alpha": [0.01, 1.0]}, cv=3, key=7),
            X[:80],
            y[:80],
            Ridge,
            "_plan_deletion",
        )


class KeepsItsChoice(GridSearchCV):
    """Deletes from the models and keeps the scores."""

    def _choose_again(self, before, gone):
        super()._choose_again(before, gone)
        self.cv_results_, self.best_index_ = before.cv_results_, before.best_index_


class ForgetsOneFold(GridSearchCV):
    """Deletes from the winner and from the models of one fold only."""

    def _deleted_from(self, model, k, ids, held):
        own = any(model is row[0] for row in self._models) or held.all()
        return super()._deleted_from(model, k, ids if own else ids[:0], held)


@pytest.mark.parametrize("mutant", [KeepsItsChoice, ForgetsOneFold])
def test_a_mutant_is_caught(mutant):
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(mutant(Ridge(), {"alpha": [0.01, 1.0]}, cv=3))
