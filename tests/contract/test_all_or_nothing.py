"""A change happens as a whole or not at all, whatever fails in its middle, and wherever an interrupt comes."""

import pickle
import sys
from copy import deepcopy

import joblib
import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import FunctionTransformer
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.validation import has_fit_parameter

from certified._keeper.turns import Turn
from certified.additive import AdditiveRegressor
from certified.audit._memory import dumped
from certified.cluster import KMeans
from certified.compose import ColumnTransformer
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.ensemble import (
    GradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    ShardedClassifier,
)
from certified.errors import InvalidRequest
from certified.impute import SimpleImputer
from certified.kernel_approximation import Nystroem
from certified.linear_model import ElasticNet, LogisticRegression, PoissonRegressor, Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

N = 120
X, Y = load_breast_cancer(return_X_y=True)
X, Y = X[:N, :4].copy(), Y[:N]
TOWNS = np.array(["Ur", "Uruk", "Kish"])[np.arange(N) % 3]
FRAME = pl.DataFrame({"a": X[:, 0], "b": X[:, 1], "town": TOWNS})
IDS = np.arange(N) // 2
MIXED = ColumnTransformer(
    [
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["a", "b"]),
        ("town", OneHotEncoder(handle_unknown="ignore"), ["town"]),
    ]
)

FAMILIES = {
    "logistic": (LogisticRegression(noise=0.0), X),
    "balanced": (LogisticRegression(noise=0.0, class_weight="balanced"), X),
    "products": (LogisticRegression(noise=0.0, solver="newton-cg"), X),
    "L1": (LogisticRegression(noise=0.0, C=0.3, l1_ratio=0.5), X),
    "poisson": (PoissonRegressor(noise=0.0), X),
    "ridge": (Ridge(), X),
    "elastic net": (ElasticNet(alpha=0.1), X),
    "scaler": (StandardScaler(), X),
    "range": (MinMaxScaler(), X),
    "robust": (RobustScaler(), X),
    "bins": (KBinsDiscretizer(4), X),
    "splines": (SplineTransformer(3), X),
    "targets": (TargetEncoder(target_type="binary"), FRAME[["town"]]),
    "gaussian": (GaussianNB(), X),
    "discriminant": (LinearDiscriminantAnalysis(), X),
    "components": (PCA(2), X),
    "clusters": (KMeans(3), X),
    "landmarks": (Nystroem(n_components=20), X),
    "neighbours": (KNeighborsClassifier(), X),
    "forest": (RandomForestClassifier(3, max_depth=3), X),
    "lazy forest": (RandomForestClassifier(3, max_depth=3, lazy=True), X),
    "forest of towns": (RandomForestClassifier(3, max_depth=3), FRAME),
    "isolation": (IsolationForest(n_estimators=5), X),
    "boosting": (GradientBoostingClassifier(4, max_depth=2, sample_size=20, noise=0.0, key=1), X),
    "shards": (ShardedClassifier(DecisionTreeClassifier(max_depth=2, random_state=0), 2, key=1), X),
    "pipeline": (make_pipeline(FunctionTransformer(np.tanh), StandardScaler(), Ridge()), X),
    "imputed text": (
        make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"), Ridge()),
        FRAME[["town"]],
    ),
    "mixed pipeline": (make_pipeline(MIXED, StandardScaler(), LogisticRegression(noise=0.0)), FRAME),
    "mixed forest": (make_pipeline(MIXED, RandomForestClassifier(3, max_depth=3)), FRAME),
    "additive": (AdditiveRegressor(interactions=[(0, 1)], max_bins=8, smoothness=1.0), X),
    "search": (GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2), X),
}
for _estimator, _ in FAMILIES.values():  # refits have the same keys
    _names = [name for name in _estimator.get_params() if name == "key" or name.endswith("__key")]
    _estimator.set_params(**dict.fromkeys(_names, 1))
RARE = [3]  # of a subject whose values are nobody else's


def fitted(name):
    estimator, x = FAMILIES[name]
    return estimator.fit(x, Y.astype(float) if name in ("ridge", "elastic net", "search") else Y, ids=IDS)


def seen(model):
    """All that a state shows of itself."""
    out = [model.ids_.tolist(), model.n_rows_, model.certificate_.canonical_bytes()]
    out += [getattr(model, "state_digest_", None)]
    for name in ("private_coef_", "private_intercept_"):
        out.append(np.asarray(getattr(model, name)).tobytes() if hasattr(model, name) else None)
    return out


class Fault:
    """Raises at the n-th line that runs while a change is carried out, an interrupt also between; counts the lines."""

    def __init__(self, at, error):
        self.at, self.error, self.lines, self.inside = at, error, 0, False

    def __call__(self, frame, event, arg):
        if frame.f_code is Turn.finish.__code__ and not self.inside:
            self.inside = True
            return self.outermost
        return self.line if self.inside else None

    def outermost(self, frame, event, arg):
        if event == "return":
            self.inside = False
        if self.error is KeyboardInterrupt:
            self.line(frame, event, arg)
        return self.outermost

    def line(self, frame, event, arg):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                raise self.error("planted")
        return self.line


def with_fault(act, at, error):
    fault, before = Fault(at, error), sys.gettrace()
    sys.settrace(fault)
    try:
        act()
    except error as raised:
        assert "planted" in str(raised)  # noqa: PT017
        return fault.lines, True
    finally:
        sys.settrace(before)
    return fault.lines, False


def some(lines, most):
    return sorted(set(np.linspace(1, lines, most).astype(int).tolist()))


@pytest.mark.parametrize("most", [8, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_failure_or_an_interrupt_at_any_line_of_a_deletion_leaves_one_of_the_two_states(name, most):
    model = fitted(name)
    if hasattr(model, "predict"):
        model.predict(FAMILIES[name][1])
    twin, before = deepcopy(model), seen(model)
    lines, _ = with_fault(lambda: twin.delete(RARE), -1, KeyboardInterrupt)
    after = seen(twin)
    assert before != after
    assert lines > 3, "the change was not seen"
    for at in some(lines, most):
        for error in (MemoryError, KeyboardInterrupt):
            live = deepcopy(model)
            _, raised = with_fault(lambda live=live: live.delete(RARE), at, error)
            found = seen(live)
            assert found in (before, after), f"line {at} of {lines}: neither before nor after"
            assert found == (before if raised else after) or error is KeyboardInterrupt, "an error, and a change"
            if found == before:
                live.delete(RARE)
            live.delete([7])
            assert 7 not in live.ids_
    twin.delete([7])
    assert seen(live) == seen(twin), "a deletion after the interrupt ends elsewhere"


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("isolation", "search")])
def test_an_interrupt_of_an_addition_leaves_one_of_the_two_states(name):
    model, x = fitted(name), FAMILIES[name][1]
    model.delete(RARE)
    rows = np.flatnonzero(np.isin(IDS, RARE))
    y = Y[rows].astype(float) if name in ("ridge", "elastic net") else Y[rows]
    twin, before = deepcopy(model), seen(model)
    lines, _ = with_fault(lambda: twin.add(x[rows], y, ids=IDS[rows]), -1, KeyboardInterrupt)
    after = seen(twin)
    for at in some(lines, 6):
        live = deepcopy(model)
        with_fault(lambda live=live: live.add(x[rows], y, ids=IDS[rows]), at, KeyboardInterrupt)
        assert seen(live) in (before, after)


@pytest.mark.parametrize("name", [name for name, (e, _) in FAMILIES.items() if has_fit_parameter(e, "sample_weight")])
def test_a_subject_whose_rows_have_no_weight_can_be_deleted(name):
    estimator, x = FAMILIES[name]
    y, weight = Y.astype(float) if name in ("ridge", "elastic net", "search") else Y, np.ones(N)
    weight[np.isin(IDS, RARE)] = 0.0
    model = clone(estimator).fit(x, y, ids=IDS, sample_weight=weight)
    model.delete(RARE)
    retained = ~np.isin(IDS, RARE)
    rows, ones = x.filter(retained) if isinstance(x, pl.DataFrame) else x[retained], np.ones(retained.sum())
    refit = clone(estimator).fit(rows, y[retained], ids=IDS[retained], sample_weight=ones)
    if hasattr(refit, "state_digest_"):
        assert model.state_digest_ == refit.state_digest_
    assert model.n_rows_ == refit.n_rows_


def test_what_is_unfinished_is_finished_before_a_model_is_saved():
    model = fitted("ridge")
    with_fault(lambda: model.delete(RARE), 3, KeyboardInterrupt)
    loaded = pickle.loads(pickle.dumps(model))
    assert RARE[0] not in loaded.ids_
    twin = fitted("ridge")
    twin.delete(RARE)
    assert seen(loaded) == seen(model) == seen(twin)


@pytest.mark.parametrize("name", FAMILIES)
def test_planning_a_deletion_changes_nothing(name):
    model = fitted(name)
    model.predict(FAMILIES[name][1]) if hasattr(model, "predict") else None
    before = dumped(model)
    preview = model.plan(RARE)
    assert preview
    assert (preview.n_subjects, preview.n_rows) == (1, 2)
    assert dumped(model) == before
    receipt = model.delete(RARE)
    assert (receipt.method, receipt.changed, receipt.passes) == (preview.method, preview.changed, preview.passes)
    refused = model.plan(np.setdiff1d(np.unique(IDS), RARE))
    assert not refused
    assert "every row" in refused.refused


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_whose_file_stays_mapped_deletes_nothing_or_all(name, tmp_path):
    twin = fitted(name)
    joblib.dump(twin, tmp_path / "model")
    model = joblib.load(tmp_path / "model", mmap_mode="r")
    before = seen(model)
    try:
        model.delete(RARE)
    except InvalidRequest as error:
        assert "mmap_mode" in str(error)  # noqa: PT017
        assert seen(model) == before
        with pytest.raises(InvalidRequest, match="mmap_mode"):
            model.delete(RARE)
    else:
        twin.delete(RARE)
        assert seen(model) == seen(twin)
    joblib.load(tmp_path / "model").delete(RARE)


def test_a_list_that_is_run_again_counts_what_is_not_held():
    model = fitted("gaussian")
    receipt = model.delete([3, 4, 4, 999], missing="ignore")
    assert (receipt.n_subjects, receipt.n_rows, receipt.ignored, receipt.n_ignored) == (2, 4, (999,), 1)
    again = model.delete([3, 4, 5], missing="ignore")
    assert (again.n_subjects, again.ignored) == (1, (3, 4))
    assert "Not held, and ignored: 2 (3, 4)" in str(again)
    before = dumped(model)
    assert model.delete([3, 4, 5], missing="ignore").n_subjects == 0
    assert model.plan([3, 4, 5, 6], missing="ignore").ignored == (3, 4, 5)
    with pytest.raises(LookupError, match="convert"):
        model.delete(["3"], missing="ignore")  # another type is a mistake, not a subject that has gone
    with pytest.raises(InvalidRequest, match="'raise' or 'ignore'"):
        model.delete([6], missing="skip")
    with pytest.raises(LookupError):
        model.plan([3])
    assert dumped(model) == before
