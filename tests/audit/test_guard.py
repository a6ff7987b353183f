"""A guard may withhold a release after a deletion; it never keeps a row."""

import importlib
import pickle
import pkgutil

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.tree import DecisionTreeClassifier

import certified
from certified import audit
from certified.audit._memory import dumped
from certified.base import Deletable
from certified.ensemble import RandomForestClassifier, ShardedClassifier
from certified.errors import InvalidInput, InvalidRequest, ReleaseWithheld
from certified.linear_model import LogisticRegression
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler

X, Y = load_breast_cancer(return_X_y=True)
X, HELD_OUT = X[:400, :6], (X[400:, :6], Y[400:])
Y = Y[:400]
BENIGN = np.flatnonzero(Y == 1)

ESTIMATORS = [
    make_pipeline(StandardScaler(), LogisticRegression(random_state=None)),
    GaussianNB(),
    RandomForestClassifier(5, max_depth=3, key=0),
    ShardedClassifier(DecisionTreeClassifier(max_depth=2), 2, key=0),
    GridSearchCV(GaussianNB(), {"var_smoothing": [1e-9, 1e-3]}, cv=2, key=0),  # each fold keeps both classes
]


def utility(before, after):
    return audit.utility(before, after, *HELD_OUT, tolerance=0.05)


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_deletion_that_harms_the_model_is_carried_out_and_its_release_withheld(estimator):
    model = estimator.fit(X, Y)
    assert model.delete([3], guard=utility).certificate.extra["audit"][0]["verdict"] == "NOT REFUTED"
    assert model.release() is not None

    harm = np.setdiff1d(BENIGN, [3])[2:-4]  # nearly a whole class
    receipt = model.delete(harm, guard=utility)
    assert receipt.n_rows == len(harm)
    assert not np.isin(harm, model.ids_).any()
    assert receipt.certificate.extra["audit"][0]["verdict"] == "REFUTED"
    with pytest.raises(ReleaseWithheld, match="worse than that of the model before"):
        model.release()
    with pytest.raises(ReleaseWithheld):
        pickle.loads(pickle.dumps(model)).release()
    model.approve()
    assert model.release() is not None


def test_what_is_withheld_stays_so_until_a_guard_passes_or_the_model_is_fitted_again():
    model = GaussianNB().fit(X, Y)
    model.delete(BENIGN[2:-4], guard=utility)
    model.delete([BENIGN[0]])  # without a guard nothing new is known
    with pytest.raises(ReleaseWithheld):
        model.release()
    model.delete([BENIGN[1]], guard=lambda before, after: audit.utility(before, after, *HELD_OUT, tolerance=1.0))
    assert model.release() is not None
    model.delete([0, 1], guard=lambda before, after: audit.utility(before, after, *HELD_OUT, tolerance=-1.0))
    with pytest.raises(ReleaseWithheld):
        model.release()
    assert model.fit(X, Y).release() is not None


def test_the_guard_sees_the_releases_of_both_states_and_changes_none():
    model = GaussianNB().fit(X, Y)
    was, seen = model.release(), []
    model.delete([3, 5], guard=lambda *releases: (seen.extend(releases), utility(*releases))[1])
    before, after = seen
    retained = np.setdiff1d(np.arange(len(Y)), [3, 5])
    assert np.array_equal(before.theta_, was.theta_)
    assert np.array_equal(after.theta_, GaussianNB().fit(X[retained], Y[retained]).release().theta_)
    assert model.state_digest_ == GaussianNB().fit(X[retained], Y[retained], ids=retained).state_digest_


@pytest.mark.parametrize("fault", ["raises", "interrupted", "answers with something else"])
def test_a_guard_that_fails_withholds_the_release(fault):
    def guard(before, after):
        if fault == "answers with something else":
            return True
        raise {"raises": ZeroDivisionError, "interrupted": KeyboardInterrupt}[fault]

    model = GaussianNB().fit(X, Y)
    with pytest.raises((ZeroDivisionError, KeyboardInterrupt, InvalidInput)):
        model.delete([3], guard=guard)
    assert 3 not in model.ids_
    with pytest.raises(ReleaseWithheld, match="did not come to an end"):
        model.release()


def test_a_refused_request_asks_no_guard_and_withholds_nothing():
    model = GaussianNB().fit(X, Y)
    dump = dumped(model)
    with pytest.raises(InvalidRequest):
        model.delete([3, 3], guard=utility)
    with pytest.raises(InvalidInput, match="has no release"):
        KNeighborsClassifier().fit(X, Y).delete([3], guard=utility)
    assert dumped(model) == dump


def test_every_act_of_the_package_is_the_template():
    kinds, found = ("add", "delete", "refine", "release"), set()
    for info in pkgutil.walk_packages(certified.__path__, "certified."):
        found |= {
            kind
            for kind in vars(importlib.import_module(info.name)).values()
            if isinstance(kind, type) and issubclass(kind, Deletable) and kind is not Deletable
        }
    assert len(found) > 60
    assert not [kind for kind in found for name in kinds if name in vars(kind)]
    for name in kinds:
        with pytest.raises(TypeError, match="Give the hook"):
            type("Own", (GaussianNB,), {name: lambda self: None})


@pytest.mark.parametrize("act", ["delete", "add"])
def test_what_is_no_guard_is_refused_before_anything_happens(act):
    model = GaussianNB().fit(X, Y)
    dump = dumped(model)
    with pytest.raises(InvalidInput, match="got no function"):
        model.delete([3], guard=3) if act == "delete" else model.add(X[:1], Y[:1], ids=[999], guard=3)
    assert dumped(model) == dump


def test_an_addition_takes_a_guard_as_a_deletion_does():
    model = GaussianNB().fit(X, Y)
    receipt = model.add(X[:300] * 50, 1 - Y[:300], ids=np.arange(1000, 1300), guard=utility)
    assert receipt.act == "add"
    assert receipt.n_rows == 300
    assert receipt.certificate.extra["audit"][0]["verdict"] == "REFUTED"
    with pytest.raises(ReleaseWithheld, match="worse"):
        model.release()
    model.delete(np.arange(1000, 1300), guard=utility)
    assert model.release() is not None
