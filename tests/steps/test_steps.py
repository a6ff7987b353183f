"""What steps of pipelines promise: a row comes out by itself, kinds come from retained rows, a commit cannot fail."""

import itertools
import pickle
import sys
from copy import deepcopy

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.kernel_approximation import RBFSampler
from sklearn.preprocessing import (
    FunctionTransformer,
    KernelCenterer,
    Normalizer,
    PolynomialFeatures,
)
from sklearn.preprocessing import StandardScaler as PlainScaler

from certified._steps import stateless
from certified._steps.step import ExactStep
from certified.compose import ColumnTransformer, make_column_selector, make_column_transformer
from certified.decomposition import PCA
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, Ridge
from certified.pipeline import make_pipeline
from certified.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

# ---------------------------------------------------------------- a row comes out by itself

rng = np.random.default_rng(8)
HEAVY = rng.standard_t(5, size=(600, 3))
LEARNERS = {
    "outliers become the median": lambda X: np.where(np.abs(X) > 3, np.median(X, axis=0), X),
    "what is missing becomes the mean": lambda X: np.where(np.abs(X) > 4, X.mean(axis=0), X),
    "the largest is clipped": lambda X: np.minimum(X, np.sort(X, axis=0)[-2]),
    "rare values are joined": lambda X: np.where(
        (np.round(X[:, :1]) == np.round(X[:, 0])).sum(axis=1)[:, None] < 2, 0, X
    ),
    "ranks": lambda X: np.argsort(np.argsort(X, axis=0), axis=0),
    "the first row is subtracted": lambda X: X - X[:1],
    "the row before": lambda X: X + np.roll(X, 1, axis=0) * (X > 2.5),
    "constant columns go": lambda X: X[:, X.std(axis=0) > 1e-9],
}
BY_THEMSELVES = {
    "logarithm": FunctionTransformer(np.log1p, kw_args=None),
    "clipped": FunctionTransformer(lambda X: np.clip(X, -2, 2)),
    "ratio": FunctionTransformer(lambda X: X[:, :1] / (1 + np.abs(X[:, 1:]))),
    "product": FunctionTransformer(lambda X: X @ np.sin(np.arange(9.0).reshape(3, 3))),
    "norm": Normalizer("l1"),
    "powers": PolynomialFeatures(3),
    "waves": RBFSampler(n_components=7, random_state=1),
    "frozen": FrozenEstimator(PlainScaler().fit(HEAVY)),
    "centred kernel": FrozenEstimator(KernelCenterer().fit(np.abs(HEAVY[:3]))),
}


@pytest.mark.parametrize("what", sorted(LEARNERS))
@pytest.mark.parametrize("n", [40, 300, 600])
def test_a_function_that_learns_from_other_rows_is_refused(what, n):
    X = HEAVY[np.argsort(-np.abs(HEAVY).max(axis=1))[:n]] if n == 40 else HEAVY[:n]
    with pytest.raises(NotDeletable, match="rows"):
        make_pipeline(FunctionTransformer(LEARNERS[what]), Ridge()).fit(X, X[:, 0])


@pytest.mark.parametrize("what", sorted(BY_THEMSELVES))
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_what_treats_every_row_by_itself_is_taken_and_the_certificate_says_on_what_it_rests(what):
    step = BY_THEMSELVES[what]
    X = np.abs(HEAVY) if what == "logarithm" else HEAVY
    model = make_pipeline(step, MinMaxScaler()).fit(X)
    receipt = model.delete(range(0, 600, 7))
    refit = make_pipeline(step, MinMaxScaler()).fit(X[model.ids_], ids=model.ids_)
    assert model.state_digest_ == refit.state_digest_
    declared = receipt.certificate.declared
    users = what in ("clipped", "ratio", "product", "frozen", "centred kernel")
    assert ("treats every row by itself" in declared) == users == ("Taken on trust" in str(receipt.certificate))
    assert type(receipt.certificate).from_json(receipt.certificate.to_json()).declared == declared


def test_a_search_for_learners_that_looks_at_few_rows_is_caught(monkeypatch):
    monkeypatch.setattr(stateless, "_company", lambda n, alone: iter([np.array([0]), np.array([n - 1])]))
    taken = 0
    for learns in LEARNERS.values():
        try:
            make_pipeline(FunctionTransformer(learns), Ridge()).fit(HEAVY, HEAVY[:, 0])
            taken += 1
        except NotDeletable:
            pass
    assert taken >= 3


# ------------------------------------------------------- no order of memory, no container

STEPS = [
    lambda: StandardScaler(),
    lambda: RobustScaler(sample_size=20, key=7),
    lambda: SplineTransformer(4),
    lambda: KBinsDiscretizer(3, encode="onehot-dense"),
    lambda: Normalizer("l1"),
    lambda: Normalizer("l2"),
    lambda: PolynomialFeatures(2),
    lambda: FunctionTransformer(lambda X: X.sum(axis=1, keepdims=True)),
    lambda: RBFSampler(n_components=9, random_state=0),
    lambda: FrozenEstimator(PlainScaler().fit(HEAVY[:, [0, 1, 2] * 4])),
    lambda: PCA(3),
]
ORDERS = {
    "F": np.asfortranarray,
    "columns apart": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": lambda X: np.frombuffer(X.tobytes()).reshape(X.shape),
    "negative zeros": lambda X: np.where(X == 0.0, -0.0, X),
}


@pytest.mark.parametrize("inside", [True, False], ids=["in columns", "in front"])
def test_no_digest_depends_on_the_order_of_memory(inside):
    X = np.random.default_rng(3).normal(size=(90, 12))
    X[::9] = np.round(X[::9])
    names = [f"c{j}" for j in range(12)]
    frames = [pd.DataFrame(X, columns=names), pd.DataFrame(dict(zip(names, X.T, strict=True))), pl.DataFrame(X, names)]
    for make in STEPS:

        def fitted(table, make=make):
            step = make_column_transformer((make(), slice(0, 12))) if inside else make()
            model = make_pipeline(step, MinMaxScaler()).fit(table, X[:, 0])
            model.delete(range(0, 90, 5))
            return model.state_digest_

        want = fitted(X)
        assert {fitted(order(X)) for order in ORDERS.values()} == {want}, make()
        assert len({fitted(frame) for frame in frames}) == 1, make()


# ------------------------------------------------------------ kinds come from retained rows


class Tagged(str):
    """Text that carries something of whoever wrote it."""

    def __repr__(self):
        return f"Tagged({self!s})"


def test_kinds_of_python_objects_do_not_depend_on_rows_that_go():
    values = [1, 3, 2.5, 3, 7.0, 1]
    X = np.array([["m", v] for v in values], dtype=object)
    for make in (OneHotEncoder, OrdinalEncoder, lambda: TargetEncoder(target_type="continuous", cv=None, key=7)):
        model = make().fit(X, np.arange(6.0))
        model.delete([2])
        retained = [0, 1, 3, 4, 5]
        refit = make().fit(X[retained], np.array(retained, dtype=float), ids=retained)
        assert model.state_digest_ == refit.state_digest_
        assert model.get_feature_names_out().tolist() == refit.get_feature_names_out().tolist()
    with pytest.raises(InvalidInput, match="booleans among numbers"):
        OneHotEncoder().fit(np.array([[True], [2]], dtype=object))


@pytest.mark.parametrize("last", [4.0, 4, True])
def test_the_last_number_of_a_column_that_no_type_declares_is_not_deleted(last):
    X = np.array([["a", None], ["b", last], ["c", None], ["a", last]], dtype=object)
    for model in (OneHotEncoder(), make_pipeline(make_column_transformer((OneHotEncoder(), [0, 1])))):
        model.fit(X).delete([1])
        before = model.state_digest_
        with pytest.raises(InvalidRequest, match="last number of column 1"):
            model.delete([3])
        assert model.state_digest_ == before
    text = np.where(last == X, "x", X)
    model = OneHotEncoder().fit(text)
    model.delete([1, 3])
    assert model.state_digest_ == OneHotEncoder().fit(text[[0, 2]], ids=[0, 2]).state_digest_


def test_subclasses_of_text_and_ways_to_write_zero_leave_with_their_row():
    X = np.array([[Tagged("a"), -0.0], ["a", 0.0], ["b", 1.0]], dtype=object)
    model = make_pipeline(ColumnTransformer([("o", OneHotEncoder(), [0, 1])], sparse_threshold=0)).fit(X)
    model.delete([0])
    refit = clone(model).fit(X[1:], ids=[1, 2])
    assert model.state_digest_ == refit.state_digest_
    assert [type(v) for v in model[0].named_transformers_["o"].categories_[0]] == [str, str]


@pytest.mark.parametrize("y", [[0, 1] * 2 + [1] * 16, ["n", "y"] * 2 + ["y"] * 16])
def test_a_class_that_an_encoder_would_lose_is_refused(y):
    X = np.array([["a"], ["b"]] * 10, dtype=object)
    model = TargetEncoder(key=7).fit(X, y)
    with pytest.raises(InvalidRequest, match=r"without a row .*of class"):
        model.delete([0, 2])
    assert model.target_type_ == "binary"
    assert model.n_rows_ == 20


def test_a_target_that_would_become_classes_is_refused():
    X, y = np.array([["a"], ["b"]] * 10 + [["a"]], dtype=object), np.array([1.0, 2.0] * 10 + [3.5])
    model = TargetEncoder(key=7).fit(X, y)
    with pytest.raises(InvalidRequest, match="target_type='continuous'"):
        model.delete([20])
    model.add(X[:1], [2.0], ids=[77])  # a whole number alone is no class
    told = TargetEncoder(target_type="continuous", key=7).fit(X, y)
    told.delete([20])
    assert told.state_digest_ == TargetEncoder(target_type="continuous", key=7).fit(X[:20], y[:20]).state_digest_


def test_what_is_served_is_in_the_digest():
    X = pl.DataFrame({"a": [1, 2, 3, 2]})
    whole, broken = OneHotEncoder().fit(X), OneHotEncoder().fit(X.cast(pl.Float64))
    assert whole.get_feature_names_out().tolist() != broken.get_feature_names_out().tolist()
    assert whole.state_digest_ != broken.state_digest_
    assert StandardScaler().fit(X).state_digest_ != StandardScaler().fit(X.rename({"a": "b"})).state_digest_


def test_fractions_do_not_join_whole_numbers():
    model = OneHotEncoder().fit(pl.DataFrame({"a": [1, 2, 3]}), ids=[0, 1, 2])
    with pytest.raises(InvalidInput, match="whole numbers in fit"):
        model.add(pl.DataFrame({"a": [2.5]}), ids=[3])
    model.add(pl.DataFrame({"a": [2.0]}), ids=[3])
    assert model.categories_[0].tolist() == [1, 2, 3]


def test_columns_are_not_chosen_by_values():
    X = np.random.default_rng(0).integers(0, 3, (60, 2)).astype(float)
    X[7, 1] = 9.0
    for looks in (
        lambda X: [j for j in range(X.shape[1]) if len(np.unique(np.asarray(X)[:, j])) <= 3],
        lambda X: np.flatnonzero(np.asarray(X).max(axis=0) > 5).tolist(),
        lambda X: [j for j in range(2) if np.asarray(X)[0, j] >= 0],
    ):
        with pytest.raises(NotDeletable, match="by their values"):
            ColumnTransformer([("oh", OneHotEncoder(), looks)], remainder=StandardScaler()).fit(X)
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    columns = ColumnTransformer([("n", StandardScaler(), make_column_selector(dtype_include="number"))])
    assert columns.fit(frame).transformers_[0][2] == [0]


def test_columns_that_no_part_asks_for_are_neither_read_nor_needed():
    n = 12
    X = pd.DataFrame({"x": np.arange(n) * 1.0, "when": pd.date_range("2021-01-01", periods=n), "t": ["u", "v"] * 6})
    parts = [("s", StandardScaler(), ["x"]), ("o", OneHotEncoder(), ["t"])]
    model = make_pipeline(ColumnTransformer(parts), Ridge()).fit(X, X["x"])
    want = model.predict(X)
    assert np.array_equal(model.predict(X[["t", "x"]]), want)  # fewer, in another order
    assert np.array_equal(model.predict(X.assign(more="?")), want)
    np.testing.assert_allclose(model.release().predict(X), want)
    np.testing.assert_allclose(model.release().predict(X[["t", "x"]]), want)
    with pytest.raises(InvalidInput, match="columns are missing"):
        model.predict(X[["t"]])
    model.delete([3])
    refit = clone(model).fit(X.drop(index=3), X["x"].drop(index=3), ids=np.delete(np.arange(n), 3))
    assert model.state_digest_ == refit.state_digest_


# ---------------------------------------------------------------------- all or nothing


def mixed():
    parts = [
        ("a", make_pipeline(SimpleImputer(), StandardScaler(), KBinsDiscretizer(3, encode="onehot-dense")), ["u", "v"]),
        ("b", make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder()), ["t"]),
        ("c", SplineTransformer(3), ["w"]),
    ]
    return make_pipeline(ColumnTransformer(parts, sparse_threshold=0), FunctionTransformer(np.tanh), MinMaxScaler())


def table(n=60, seed=0):
    rng = np.random.default_rng(seed)
    u = np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n))
    t = rng.choice(["p", "q", None], n).tolist()
    return pl.DataFrame({"u": u, "v": rng.integers(0, 4, n) * 1.0, "w": rng.normal(size=n), "t": t}, strict=False)


COMMITTING = {"commit", "carry_out", "_carry_out"}
MAY_RUN = {
    "commit",
    "carry_out",
    "_carry_out",
    "_adopt",
    "erase",
    "drop",
    "ids_at",
    "_spots",
    "columns_of",
    "__setitem__",
}
MAY_RUN |= {
    "_nothing",
    "_drop",
    "in_turn",
    "turn_of",
    "<dictcomp>",
    "<genexpr>",
    "<listcomp>",
    "parts",
    "finish",
    "drop_rows",
    "__enter__",
    "__exit__",
    "inner",
}


class Tracer:
    """Counts the lines of the package that run, raises at one of them, and notes what runs in a commit."""

    def __init__(self, at=None):
        self.at, self.lines, self.inside, self.committed = at, 0, [], set()

    def __call__(self, frame, event, arg):
        if "certified" not in frame.f_code.co_filename or "tests" in frame.f_code.co_filename:
            return None
        name = frame.f_code.co_name
        if event == "call" and name in COMMITTING:
            self.inside.append(frame)
        if event == "call" and self.inside:
            self.committed.add(name)
        if event == "return" and self.inside and frame is self.inside[-1]:
            self.inside.pop()
        if event == "line" and not self.inside and not self.committed:
            self.lines += 1
            if self.lines == self.at:
                raise MemoryError("injected")
        return self


def traced(call, at=None):
    tracer, before = Tracer(at), sys.gettrace()
    sys.settrace(tracer)
    try:
        call()
    except MemoryError:
        pass
    finally:
        sys.settrace(before)
    return tracer


def test_a_failure_at_any_line_of_a_deletion_changes_nothing_and_a_commit_runs_nothing_that_can_fail():
    X, model = table(), mixed()
    model.fit(X)
    copied = deepcopy(model)
    lines = traced(lambda: copied.delete([5, 9])).lines
    before, ids = model.state_digest_, model.ids_.tolist()
    for at in np.unique(np.linspace(1, lines, 40).astype(int)):
        traced(lambda: model.delete([5, 9]), int(at))
        assert model.ids_.tolist() == ids, at
        assert model.state_digest_ == before, at
    done = traced(lambda: model.delete([5, 9]))
    assert done.committed <= MAY_RUN, done.committed - MAY_RUN
    rows = np.delete(np.arange(60), [5, 9])
    assert model.state_digest_ == mixed().fit(X[rows], ids=rows).state_digest_


def test_a_step_that_serves_in_the_commit_is_caught(monkeypatch):
    monkeypatch.setattr(ExactStep, "_twin", lambda self: self)  # serves in place, while the deletion is planned
    with pytest.raises(AssertionError):
        test_a_failure_at_any_line_of_a_deletion_changes_nothing_and_a_commit_runs_nothing_that_can_fail()


@pytest.mark.parametrize("knots", ["uniform", "quantile"])
@pytest.mark.parametrize("x", [[0.3, 0.1 + 0.2, 5.0], [1e300, np.nextafter(1e300, 2e300), 0.0], [7.0, 7.0, 9.0]])
def test_knots_of_values_that_lie_too_close_are_made_before_a_deletion_changes_anything(x, knots):
    X = np.array(x)[:, None]
    make = lambda: SplineTransformer(3, knots=knots)  # noqa: E731
    model = make().fit(X, ids=[1, 2, 3])
    model.delete([3])
    assert model.state_digest_ == make().fit(X[:2], ids=[1, 2]).state_digest_
    assert np.isfinite(model.transform(X[:2])).all()


def test_a_pipeline_of_columns_is_loaded_as_it_was_saved_and_deletes_on():
    X, model = table(), mixed()
    model.fit(X)
    loaded = pickle.loads(pickle.dumps(model))
    for one in (model, loaded):
        one.delete([5, 9])
    assert loaded.state_digest_ == model.state_digest_
    assert pickle.loads(pickle.dumps(mixed())).get_params().keys() == mixed().get_params().keys()


def test_sparse_rows_in_any_order_give_the_same_state():
    rng = np.random.default_rng(0)
    X, y = sparse.random(200, 30, density=0.2, random_state=1, format="csr"), rng.integers(0, 2, 200)
    mixed_up = X.copy()
    for start, stop in itertools.pairwise(mixed_up.indptr):
        order = rng.permutation(stop - start)
        mixed_up.indices[start:stop] = mixed_up.indices[start:stop][order]
        mixed_up.data[start:stop] = mixed_up.data[start:stop][order]
    mixed_up.has_sorted_indices = False
    zero = sparse.csr_matrix(
        (np.append(X.data, 0.0), (np.append(X.nonzero()[0], 5), np.append(X.nonzero()[1], 7))), X.shape
    )
    for step in (Normalizer("l1"), Normalizer("l2"), FunctionTransformer(accept_sparse=True)):
        states = set()
        for rows in (X, mixed_up, zero, X.tocsc()):
            model = make_pipeline(step, LogisticRegression(noise=0)).fit(rows, y)
            model.delete(range(0, 200, 9))
            states.add((model._table.x.data.tobytes(), model.private_coef_.tobytes()))
        assert len(states) == 1, step
    learns = FunctionTransformer(lambda X: X.multiply(1.0 / (X.max() + 1.0)).tocsr(), accept_sparse=True)
    with pytest.raises(NotDeletable, match="other rows are beside it"):
        make_pipeline(learns, LogisticRegression()).fit(X, y)


def test_text_that_a_function_makes_is_refused_with_a_reason():
    upper = FunctionTransformer(lambda X: np.char.upper(X.astype(str)).astype(object))
    with pytest.raises(InvalidInput, match="made values that are no numbers, for example 'A'"):
        make_pipeline(make_column_transformer((upper, ["t"])), Ridge()).fit(pl.DataFrame({"t": ["a", "b"]}), [0, 1])


def test_a_subject_of_weight_zero_can_be_deleted_behind_text():
    X, w = pl.DataFrame({"t": ["a", "b", None] * 10}), np.ones(30)
    w[3] = 0
    model = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(), LogisticRegression())
    model.fit(X, [0, 1, 1] * 10, sample_weight=w)
    before = model[1].state_digest_
    model.delete([3])
    assert model[1].state_digest_ == before
    assert 3 not in model.ids_
