"""The public checks as third parties use them: decorator, command line, adversaries, an estimator from elsewhere."""

import hashlib
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import check_is_fitted, validate_data

from certified import cli
from certified.audit._memory import dumped
from certified.certificate import Certificate
from certified.ensemble import ShardedClassifier
from certified.errors import InvalidRequest, UnknownIds
from certified.linear_model import LogisticRegression, Ridge
from certified.testing import (
    Adversary,
    adversaries,
    check_deletable,
    data_sets,
    deletion_requests,
    parametrize_with_deletion_checks,
    yield_deletion_checks,
)


class Median(RegressorMixin, BaseEstimator):
    """Predicts the median; the example of the documentation, with nothing of this package but records and errors."""

    def fit(self, X, y, ids=None):
        X, y = validate_data(self, X, y, y_numeric=True)
        self._y = np.array(y, dtype=float)
        self._ids = np.arange(len(y)) if ids is None else np.array(ids)
        self.median_ = float(np.median(self._y))
        return self

    def delete(self, ids):
        ids = np.atleast_1d(ids)
        unknown = np.setdiff1d(ids, self._ids)
        if unknown.size:
            raise UnknownIds(f"delete got ids that are not retained: {unknown.tolist()}. Nothing was changed.")
        retained = ~np.isin(self._ids, ids)
        if not ids.size or np.unique(ids).size < ids.size or not retained.any():
            raise InvalidRequest("delete got no id, one twice, or all of them. Nothing was changed.")
        self._ids, self._y = self._ids[retained], self._y[retained]
        self.median_ = float(np.median(self._y))

        class Receipt:
            n_rows = int(np.count_nonzero(~retained))

        return Receipt()

    @property
    def ids_(self):
        check_is_fitted(self)
        return np.unique(self._ids)

    @property
    def state_digest_(self):
        return hashlib.sha256(np.sort(self._y).tobytes() + np.float64(self.median_).tobytes()).hexdigest()

    @property
    def certificate_(self):
        return Certificate.exact(estimator="Median", n_rows=len(self._y), n_features=self.n_features_in_)

    def predict(self, X):
        check_is_fitted(self)
        return np.full(len(X), self.median_)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "median_")


class Forgetful(Median):
    """A fault: the median is that of the fit."""

    def delete(self, ids):
        before = self.median_
        receipt = super().delete(ids)
        self.median_ = before
        return receipt


class Fragile(Median):
    """A fault that few requests show: once the row with the largest target was deleted, the median stays as it is."""

    def fit(self, X, y, ids=None):
        super().fit(X, y, ids=ids)
        self._top, self._stuck = float(self._y.max()), None
        return self

    def delete(self, ids):
        if self._y[np.isin(self._ids, np.atleast_1d(ids))].max(initial=-np.inf) == self._top:
            self._stuck = self.median_
        receipt = super().delete(ids)
        self.median_ = self.median_ if self._stuck is None else self._stuck
        return receipt


MADE = Median()


@parametrize_with_deletion_checks([Median()])
def test_an_estimator_from_elsewhere_passes_the_checks(deletion_check):
    deletion_check()


def test_its_fault_is_caught():
    with pytest.raises(AssertionError, match="bit for bit"):
        check_deletable(Forgetful())


def test_a_fault_that_only_chosen_requests_show_is_caught_by_an_adversary():
    checks = dict(yield_deletion_checks(Fragile()))
    checks["check_delete_equals_refit"]()
    checks["check_order_and_grouping_do_not_matter"]()
    with pytest.raises(AssertionError, match="bit for bit"):
        checks["check_adaptive_requests_meet_the_refit"]()


def test_the_decorator_names_estimator_and_check():
    marks = parametrize_with_deletion_checks([Ridge(), Ridge(alpha=2.0)]).args
    assert marks[0] == "deletion_check"
    names = [param.id for param in marks[1]]
    assert "Ridge(alpha=2.0): check_adaptive_requests_meet_the_refit" in names
    assert len(names) == len(set(names))


def test_an_adversary_looks_at_the_release():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 2))
    y = X[:, 0] + 0.01 * rng.normal(size=50)
    y[7] = -100.0
    model = Ridge().fit(X, y, ids=np.arange(100, 150))
    ids = np.arange(100, 150)
    extreme = Adversary("extreme", size=1).request(model, X, y, ids)
    assert extreme == [100 + int(np.argmax(model.predict(X)))]
    swing = Adversary("swinging", size=1, rounds=2).play(model, X, y, ids)
    assert swing[0] == extreme
    assert len(model.ids_) == 48


@settings(max_examples=10)
@given(data=data_sets(60, 3), adversary=adversaries(), draw=st.data())
def test_an_adversary_ends_at_the_same_refit_as_anybody(data, adversary, draw):
    X, y, ids = data
    first = draw.draw(deletion_requests(ids, max_share=0.1))[0]
    model = LogisticRegression().fit(X, y, ids=ids)
    model.delete(first)
    adversary.play(model, X, y, ids)
    retained = np.isin(ids, model.ids_)
    refit = LogisticRegression().fit(X[retained], y[retained], ids=ids[retained])
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    allowed = model.certificate_.distance_bound + refit.certificate_.distance_bound
    assert np.sqrt(gap @ model.noise_metric_ @ gap) <= allowed


def test_the_command_runs_the_checks(capsys, monkeypatch):
    assert cli.main(["check", "certified.linear_model:Ridge", "--params", '{"alpha": 2.0}', "--only", "order"]) == 0
    out = capsys.readouterr().out
    assert "passed  check_order_and_grouping_do_not_matter" in out
    assert "1 of 1 checks passed for Ridge(alpha=2.0)" in out
    monkeypatch.syspath_prepend(str(__import__("pathlib").Path(__file__).parent))
    assert cli.main(["check", "test_testing:MADE", "--only", "bad"]) == 0
    assert cli.main(["check", "test_testing:Forgetful", "--only", "refit"]) == 1
    assert "FAILED  check_delete_equals_refit" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["nothing", "no.such.module:X", "certified.linear_model:Absent"])
def test_the_command_says_what_it_could_not_load(path, capsys):
    assert cli.main(["check", path]) == 2
    assert path in capsys.readouterr().out
    assert cli.main(["check", "certified.linear_model:Ridge", "--only", "no such check"]) == 1


def test_states_are_compared_alike_whatever_threads_run():
    """Records of scikit-learn's trees have bytes between their fields, which a copy leaves undefined."""
    X, y = load_iris(return_X_y=True)
    model = ShardedClassifier(DecisionTreeClassifier(max_depth=2), 2, key=0).fit(X[:100], y[:100])
    alone, ends = dumped(model), threading.Event()
    thread = threading.Thread(target=ends.wait)
    thread.start()
    try:
        assert dumped(model) == dumped(model) == alone
    finally:
        ends.set()
        thread.join()
    model.delete([3])
    assert dumped(model) != alone
