"""A search after deletions is a fresh search on the rest: state, scores, winner and refusals."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone, is_classifier
from threadpoolctl import threadpool_limits

from certified.cluster import KMeans
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.errors import CertifiedError
from certified.kernel_approximation import Nystroem
from certified.linear_model import LinearRegression, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import BernoulliNB, GaussianNB
from certified.neighbors import KNeighborsClassifier, KNeighborsRegressor
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, RobustScaler, StandardScaler
from certified.tree import DecisionTreeClassifier

SEARCHES = (
    (GaussianNB(), {"var_smoothing": [1e-9, 0.1, 10.0]}),
    (BernoulliNB(), {"alpha": [0.1, 1.0]}),
    (LinearRegression(), {"fit_intercept": [False, True]}),
    (LinearDiscriminantAnalysis(), {"tol": [1e-4, 1e-2]}),
    (KNeighborsClassifier(), {"n_neighbors": [1, 4, 12]}),
    (DecisionTreeClassifier(), {"max_depth": [1, 3]}),
    (make_pipeline(StandardScaler(), GaussianNB()), {"gaussiannb__var_smoothing": [1e-9, 1.0]}),
    (make_pipeline(KBinsDiscretizer(3), BernoulliNB()), {"kbinsdiscretizer__n_bins": [2, 4]}),
    (make_pipeline(PCA(2), Ridge()), {"pca__n_components": [1, 3], "ridge__alpha": [0.1, 10.0]}),
    (make_pipeline(RobustScaler(), Ridge()), {"ridge__alpha": [0.1, 10.0]}),
    (KNeighborsRegressor(), {"n_neighbors": [1, 12]}),
    (KMeans(2, max_iter=20, n_init=1, key=7), {"n_clusters": [2, 6]}),
)
SCORINGS = {True: [None, "roc_auc", "neg_log_loss", ["accuracy", "f1"]], False: [None, "neg_mean_absolute_error"]}
ONCE = ("best_params_", "best_index_", "classes_", "n_features_in_", "multimetric_")


def _draw(seed, which):
    """Rows of few subjects with a rare class, so that folds lose classes and candidates fail."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(25, 60))
    X = rng.standard_normal((n, 3)).round(1)
    y = (X[:, 0] + rng.standard_normal(n) > 0).astype(int)
    y[rng.permutation(n)[: rng.integers(0, 4)]] = 2
    ids = rng.integers(0, max(12, n // rng.integers(1, 4)), n)
    estimator, grid = SEARCHES[which]
    y = y if is_classifier(estimator) else X[:, 0] + y
    weighted = "sample_weight" in estimator.fit.__code__.co_varnames and rng.random() < 0.5
    weight = {"sample_weight": rng.integers(0, 3, n).astype(float)} if weighted else {}
    scorings = SCORINGS[is_classifier(estimator)] if not isinstance(estimator, KMeans) else [None]
    scoring = scorings[rng.integers(len(scorings))]
    refit = scoring[0] if isinstance(scoring, list) else True
    error_score = [np.nan, 0.0, -1.0, "raise"][rng.integers(4)]
    train = bool(rng.random() < 0.3)
    search = GridSearchCV(
        estimator, grid, cv=3, scoring=scoring, refit=refit, error_score=error_score, return_train_score=train, key=7
    )
    return rng, search, X, y, ids, weight


def _fitted(search, *args, **kwargs):
    """The search, fitted, or the error."""
    try:
        return search.fit(*args, **kwargs)
    except Exception as error:
        return error


def _predicted(search, X):
    """What the winner predicts, or why it cannot: too few neighbours, where a failed candidate has won."""
    try:
        return search.predict(X).tolist()
    except ValueError as error:
        return str(error)


def compare(seed, which, search=None):
    """Delete at random; raise AssertionError where the search is not a fresh one. Return what was compared."""
    rng, made, X, y, ids, weight = _draw(seed, which)
    search = made if search is None else search(made)
    live = _fitted(clone(search), X, y, ids=ids, **weight)
    if isinstance(live, Exception):
        return "no fit"
    order = rng.permutation(len(y))
    for chunk in np.array_split(rng.permutation(np.unique(ids)), rng.integers(2, 8))[:-1]:
        left = order[np.isin(ids[order], np.setdiff1d(live.ids_, chunk))]
        fresh = _fitted(clone(search), X[left], y[left], ids=ids[left], **{n: w[left] for n, w in weight.items()})
        before = live.state_digest_
        if isinstance(fresh, Exception):
            with pytest.raises(Exception, match=r"[.]"):
                live.delete(chunk)
            assert live.state_digest_ == before
            return "refused"
        live.delete(chunk)
        assert live.state_digest_ == fresh.state_digest_
        for name in ONCE:
            assert np.array_equal(getattr(live, name, None), getattr(fresh, name, None)), name
        assert list(live.cv_results_) == list(fresh.cv_results_)
        for name, values in fresh.cv_results_.items():
            if name.endswith("score") or "split" in name:
                assert np.array_equal(live.cv_results_[name], values, equal_nan=True), name
        assert _predicted(live, X) == _predicted(fresh, X)
        assert live.certificate_ == fresh.certificate_
    return "same"


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), which=st.integers(0, len(SEARCHES) - 1))
def test_a_search_after_deletions_is_a_fresh_one(seed, which):
    compare(seed, which)


class GivesUp(GridSearchCV):
    """A model that refuses a deletion is lost, where a fresh fit would do."""

    def _deleted_from(self, model, k, ids, held):
        if model is not None and len(ids):
            try:
                model._planned_deletion(model._subjects.rows_of(ids))
            except CertifiedError as error:
                return None, error
        return super()._deleted_from(model, k, ids, held)


@pytest.mark.filterwarnings("ignore")
def test_a_search_fits_anew_where_a_model_refuses_and_one_that_does_not_is_caught(monkeypatch):
    """The model refuses to lose a class; a fresh fit would do without it."""
    monkeypatch.setattr(GaussianNB, "_with_classes_left", lambda self, rows: None)
    for seed in range(60):
        compare(seed, 0)

    def many():
        for seed in range(60):
            compare(seed, 0, lambda made: GivesUp(**made.get_params(deep=False)))

    with pytest.raises(AssertionError):
        many()


@pytest.mark.parametrize(
    ("estimator", "grid"),
    [
        (Nystroem("polynomial", n_components=140, key=7), {"degree": [2, 3]}),
        (KMeans(n_init=1, key=7), {"n_clusters": [3, 8]}),
    ],
    ids=["Nystroem", "KMeans"],
)
def test_no_digest_depends_on_jobs_or_threads(estimator, grid):
    X = np.random.default_rng(0).standard_normal((600, 20))
    digests = set()
    for n_jobs, threads in ((None, 1), (None, 2), (2, 2)):
        search = GridSearchCV(estimator, grid, scoring=lambda m, X, y=None: 0.0, cv=2, n_jobs=n_jobs, key=7)
        with threadpool_limits(threads):
            digests.add(search.fit(X).state_digest_)
    assert len(digests) == 1


if __name__ == "__main__":  # by hand: python tests/model_selection/test_search_exactness.py FIRST LAST
    import collections
    import sys
    import traceback

    warnings.simplefilter("ignore")
    found = collections.Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        for which in range(len(SEARCHES)):
            try:
                found[compare(seed, which)] += 1
            except BaseException as error:
                found["differs"] += 1
                print(seed, which, type(error).__name__, str(error)[:300].replace("\n", " "))
                if found["differs"] < 3:
                    traceback.print_exc()
    print(found)
