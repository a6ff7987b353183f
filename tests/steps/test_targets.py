"""Encoders by the target: scikit-learn's values before rounding, a refit's state after deletions."""

import copy

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import TargetEncoder as Plain

from certified.compose import ColumnTransformer
from certified.errors import InvalidInput, InvalidRequest
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsRegressor
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, StandardScaler, TargetEncoder, WOEEncoder, _targets
from certified.testing import check_delete_equals_refit, yield_deletion_checks

BINS = KBinsDiscretizer(4, encode="ordinal", sample_size=40, key=7)
MODELS = {
    "mean": make_pipeline(BINS, TargetEncoder(key=7), Ridge()),
    "mean, classes": make_pipeline(BINS, TargetEncoder(smooth=3.0, key=7), LogisticRegression()),
    "mean, without folds, exact": make_pipeline(BINS, TargetEncoder(cv=None, key=7), GaussianNB()),
    "evidence": make_pipeline(BINS, WOEEncoder(), LogisticRegression()),
    "evidence, folds, columns": make_pipeline(
        ColumnTransformer([("w", make_pipeline(BINS, WOEEncoder(cv=3)), [0, 2])], remainder=StandardScaler()),
        LogisticRegression(),
    ),
}
CHECKS = [
    pytest.param(check, id=f"{name}: {title}")
    for name, model in MODELS.items()
    for title, check in yield_deletion_checks(model)
]


@pytest.mark.parametrize("check", CHECKS)
def test_pipeline_passes_the_public_check(check):
    check()


@pytest.fixture
def unrounded(monkeypatch):
    monkeypatch.setattr(_targets, "_rounded", lambda value, error: np.atleast_1d(value))
    monkeypatch.setattr(_targets, "_leading_bits", lambda value: value)


def _frame(seed=0, n=400):
    rng = np.random.default_rng(seed)
    city = rng.choice(["a", "b", "c", "d", None], n, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    frame = pl.DataFrame({"city": city, "grade": rng.integers(0, 6, n)})
    z = np.array([{"a": 0.0, "b": 1.0, "c": -1.0}.get(c, 2.0) for c in city]) + rng.standard_normal(n)
    return frame, z


@pytest.mark.parametrize("smooth", ["auto", 10.0])
@pytest.mark.parametrize("binary", [False, True])
def test_before_rounding_the_values_are_those_of_scikit_learn(unrounded, smooth, binary):
    frame, z = _frame()
    y = np.where(z > 0.5, "yes", "no") if binary else z
    ours = TargetEncoder(smooth=smooth, key=7).fit(frame, y)
    plain = Plain(smooth=smooth).fit(frame.to_pandas(), y)
    assert np.allclose(ours.transform(frame), plain.transform(frame.to_pandas()), rtol=1e-9)
    assert np.isclose(ours.target_mean_, plain.target_mean_)
    rows, k = clone(ours).fit_transform(frame, y), 5
    fold = ours._fold_of(ours._table.hashes)
    for f in range(k):
        others = Plain(smooth=smooth).fit(frame.filter(fold != f).to_pandas(), y[fold != f])
        assert np.allclose(rows[fold == f], others.transform(frame.filter(fold == f).to_pandas()), rtol=1e-9)
    assert not np.allclose(rows, ours.transform(frame))


def test_weight_of_evidence_is_its_formula(unrounded):
    frame, z = _frame(1)
    y = z > 0.5
    ours = WOEEncoder(smooth=0.5).fit(frame.select("grade"), y)
    g, iv = frame["grade"].to_numpy(), 0.0
    for value in range(6):
        one, zero = np.sum(y[g == value]), np.sum(~y[g == value])
        woe = np.log((one + 0.5) / (zero + 0.5)) - np.log((y.sum() + 0.5) / ((~y).sum() + 0.5))
        assert np.isclose(ours.transform(pl.DataFrame({"grade": [value]}))[0, 0], woe)
        iv += (one / y.sum() - zero / (~y).sum()) * woe
    assert np.isclose(ours.information_value_[0], iv)


def test_rounding_moves_a_value_by_at_most_a_standard_error():
    frame, z = _frame(2, 2000)
    ours = TargetEncoder(smooth=1e-9, key=7).fit(frame, z)
    for j, name in enumerate(frame.columns):
        for value, encoded in zip(ours.categories_[j], ours.encodings_[j], strict=True):
            rows = z[[v == value for v in frame[name].to_list()]]
            assert abs(encoded - rows.mean()) <= 1.05 * z.std() / np.sqrt(len(rows))


def test_few_deletions_change_what_the_model_sees():
    frame, z = _frame(3, 20_000)
    model = TargetEncoder(key=7).fit(frame, z)
    changed = sum(bool(model.delete([i]).changed) for i in range(400))
    assert 0 < changed < 120
    unseen = pl.DataFrame({"city": ["nowhere"], "grade": [77]})
    assert np.array_equal(model.transform(unseen), [[model.target_mean_] * 2])


@pytest.mark.parametrize("encoder", [TargetEncoder(key=7), WOEEncoder(cv=4), WOEEncoder()])
def test_the_release_gives_the_same_values(encoder):
    for frame, z in (_frame(4), (_frame(4)[0].select("grade"), _frame(4)[1])):
        for table in (frame, frame.to_pandas()):
            model = clone(encoder).fit(table, z > 0.5)
            model.delete([2, 3])
            assert np.array_equal(model.release().transform(table), model.transform(table))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    repeats=st.integers(1, 3),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=5),
    scale=st.sampled_from([1.0, 1e-6, 1e9]),
)
def test_any_sequence_ends_at_a_refit_in_another_order(seed, repeats, sizes, scale):
    rng = np.random.default_rng(seed)
    frame, z = _frame(seed, 60)
    z, ids = z * scale, rng.permutation(np.arange(60) // repeats)
    pool = rng.permutation(np.unique(ids))
    for encoder, y in (
        (TargetEncoder(key=7), z),
        (TargetEncoder(cv=2, smooth=2.0, key=7), z),
        (WOEEncoder(cv=3, key=7), z > 0),
    ):
        live = clone(encoder).fit(frame, y, ids=ids)
        try:
            for request in np.split(pool, np.cumsum(sizes))[:-1]:
                if request.size:
                    live.delete(request)
        except InvalidRequest:
            continue  # the last row of a class
        retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
        again = clone(encoder).fit(frame[retained], y[retained], ids=ids[retained])
        assert live.state_digest_ == again.state_digest_


def test_a_pipeline_encodes_rows_of_the_fit_without_their_fold():
    frame, z = _frame(5)
    model = make_pipeline(TargetEncoder(key=7), Ridge()).fit(frame, z)
    rows = TargetEncoder(key=7).fit_transform(frame, z)
    direct = Ridge().fit(rows, z)
    assert np.array_equal(model.private_coef_, direct.private_coef_)
    chained = make_pipeline(TargetEncoder(key=7), StandardScaler())
    assert np.array_equal(
        chained.fit_transform(frame, z), StandardScaler().fit_transform(TargetEncoder(key=7).fit_transform(frame, z))
    )
    named = chained.set_output(transform="polars").fit_transform(frame, z)
    assert named.columns == ["city", "grade"]


def test_classes_are_counted_by_encoder_and_model_alike():
    X, y = load_breast_cancer(return_X_y=True)
    X = np.round(X[:, :2])
    words = np.array(["good", "bad"])[y]
    model = make_pipeline(TargetEncoder(key=7), GaussianNB()).fit(X, words)
    assert set(model.predict(X)) == {"good", "bad"}
    with pytest.raises(InvalidInput, match="target_type"):
        make_pipeline(TargetEncoder(key=7), KNeighborsRegressor()).fit(X, y + 1.0)
    make_pipeline(TargetEncoder(target_type="continuous", key=7), KNeighborsRegressor()).fit(X, y + 1.0).delete([0])


WRONG = {
    "smooth": (TargetEncoder(smooth=-1.0, key=7), [0.5, 1.5, 2.5], "smooth"),
    "folds": (TargetEncoder(cv=1, key=7), [0.5, 1.5, 2.5], "folds"),
    "three classes": (TargetEncoder(key=7), ["a", "b", "c"], "multiclass"),
    "no targets": (TargetEncoder(key=7), None, "requires y"),
    "smooth of evidence": (WOEEncoder(smooth=0), [0, 1, 1], "smooth"),
    "one class": (WOEEncoder(), [1, 1, 1], "one class"),
}


@pytest.mark.parametrize(("model", "y", "says"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_with_a_reason(model, y, says):
    with pytest.raises(InvalidInput, match=says):
        clone(model).fit([["u"], ["v"], ["w"]], y)


class StaleFold(WOEEncoder):
    """Removes rows from the sums of another fold."""

    def _subtract(self, statistic, removed):
        wrong = copy.copy(self)
        wrong._fold_of = lambda hashes: (self._fold_of(hashes) + 1) % self.cv
        return WOEEncoder._subtract(wrong, statistic, removed)


class LeaksFolds(TargetEncoder):
    """Encodes rows of the fit by all rows, their own targets included."""

    def _apply_rows(self, learned, table):
        return self._apply(learned, table.x)


def test_a_mutant_is_caught():
    bins = clone(BINS).set_params(sample_size=10)  # which seldom change, so that sums are subtracted
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(make_pipeline(bins, StaleFold(cv=3)))
    frame, z = _frame(6)
    assert not np.array_equal(LeaksFolds(key=7).fit_transform(frame, z), TargetEncoder(key=7).fit_transform(frame, z))
