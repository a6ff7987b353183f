"""Pipelines of sparse features: texts and categories come to the head in CSR, and leave as from a fresh fit."""

import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse, random_array
from sklearn import compose as plain_compose
from sklearn import pipeline as plain_pipeline
from sklearn import preprocessing as plain
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.preprocessing import FunctionTransformer, Normalizer

from certified import _convert
from certified._data.frames import erase
from certified._data.rows import placed
from certified.compose import ColumnTransformer, make_column_transformer
from certified.errors import InvalidInput, InvalidRequest, NotDeletable
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression, PoissonRegressor, _solvers
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline, make_union
from certified.preprocessing import OneHotEncoder, StandardScaler

WORDS = ["tax", "loan", "river", "cat", "goal", "match", "bank", "rate", "tree", "dog", "vote", "law", "cup", "fish"]


def texts(n=200, seed=0, classes=3):
    """Texts of a few words, whose class depends on them."""
    rng = np.random.default_rng(seed)
    taste = rng.normal(size=(len(WORDS), classes)) * 2.0
    rows = [rng.choice(len(WORDS), size=rng.integers(2, 7)) for _ in range(n)]
    y = np.array([int(np.argmax(taste[row].sum(axis=0) + rng.gumbel(size=classes))) for row in rows])
    y[: 2 * classes] = np.tile(np.arange(classes), 2)
    return [" ".join(WORDS[j] for j in row) for row in rows], y


def frame(n=240, seed=0):
    """Three columns of many categories, two of numbers, a text, subjects of two rows, and a count."""
    rng = np.random.default_rng(seed)
    docs, label = texts(n, seed)
    city, job = rng.zipf(1.6, size=n) % 90, rng.zipf(1.8, size=n) % 40
    x = pl.DataFrame(
        {
            "who": np.arange(n) // 2,
            "city": [f"c{v}" for v in city],
            "job": [None if v == 3 else f"j{v}" for v in job],
            "age": rng.normal(50, 12, size=n),
            "debt": rng.lognormal(size=n),
            "note": docs,
        }
    )
    return x, label, rng


def columns(**given):
    return ColumnTransformer(
        [
            ("city", OneHotEncoder(sparse_output=True, handle_unknown="ignore"), ["city", "job"]),
            ("scale", StandardScaler(), ["age", "debt"]),
            ("note", HashingVectorizer(n_features=64, alternate_sign=False), "note"),
        ],
        **given,
    )


def same_features(a, b):
    """The retained rows by two heads are equal, bit for bit, padding and erased rows apart."""
    one, two = (model._final._rows for model in (a, b))
    assert issparse(one.x)
    first, second = (csr_array(rows.x[np.flatnonzero(rows.weight)]) for rows in (one, two))
    for x in (first, second):
        x.sort_indices()
        x.eliminate_zeros()
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def within_certificates(model, refit):
    gap = model._final._state.solution.w - refit._final._state.solution.w
    metric = model.noise_metric_
    assert (metric != refit.noise_metric_).nnz == 0
    assert np.sqrt(gap @ metric @ gap) <= model.certificate_.distance_bound + refit.certificate_.distance_bound


# ---------------------------------------------------------------------------------------------- one-hot encoding


@pytest.mark.parametrize("drop", [None, "first", "if_binary"])
@pytest.mark.parametrize("rare", [None, 3])
def test_sparse_categories_are_those_of_scikit_learn_and_of_a_refit(drop, rare):
    x, _, _ = frame()
    x = x.select("city", "job")
    given = {"drop": drop, "min_frequency": rare, "handle_unknown": "ignore"}
    ours = OneHotEncoder(sparse_output=True, **given).fit(x)
    out = ours.transform(x)
    assert issparse(out)
    theirs = plain.OneHotEncoder(**given).fit_transform(x.to_pandas())
    np.testing.assert_array_equal(out.toarray(), theirs.toarray())
    np.testing.assert_array_equal(out.toarray(), OneHotEncoder(sparse_output=False, **given).fit(x).transform(x))
    assert issparse(ours.release().transform(x.to_pandas()))
    ours.delete(range(50))
    again = OneHotEncoder(sparse_output=True, **given).fit(x[50:], ids=np.arange(50, 240))
    assert ours.state_digest_ == again.state_digest_
    np.testing.assert_array_equal(ours.transform(x[50:]).toarray(), again.transform(x[50:]).toarray())


def test_unknown_categories_are_zeros_in_sparse_rows_too():
    x = pl.DataFrame({"city": ["a", "b", "b"]})
    encoder = OneHotEncoder(sparse_output=True, handle_unknown="ignore").fit(x)
    np.testing.assert_array_equal(encoder.transform(pl.DataFrame({"city": ["z", "a"]})).toarray(), [[0, 0], [1, 0]])


# ---------------------------------------------------------------------------------------------- pipelines


def test_columns_are_sparse_where_a_part_is_and_a_threshold_does_not_ask_for_dense_ones():
    x, _, _ = frame()
    x = x.with_columns(pl.col("job").fill_null("none"))  # pandas writes what is missing in another way
    sparse, dense = columns().fit(x, ids="who"), columns(sparse_threshold=0).fit(x, ids="who")
    shown = x.drop("who")
    assert issparse(sparse.transform(shown))
    assert not issparse(dense.transform(shown))
    np.testing.assert_array_equal(sparse.transform(shown).toarray(), dense.transform(shown))
    parts = [(name, step.release(), wanted) for name, step, wanted in sparse.transformers_[:2]]
    theirs = plain_compose.ColumnTransformer(
        [
            *[(name, FrozenEstimator(step), [shown.columns[j] for j in wanted]) for name, step, wanted in parts],
            ("note", HashingVectorizer(n_features=64, alternate_sign=False), "note"),
        ],
        sparse_threshold=1.0,
    ).fit(shown.to_pandas())
    np.testing.assert_array_equal(sparse.transform(shown).toarray(), theirs.transform(shown.to_pandas()).toarray())
    for ours in (sparse, dense):
        released = ours.release().transform(shown)
        assert issparse(released) == issparse(ours.transform(shown))
        released = released.toarray() if issparse(released) else released
        np.testing.assert_array_equal(released, dense.transform(shown))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_a_pipeline_of_sparse_columns_ends_with_the_features_and_within_the_certificates_of_a_fresh_fit(seed):
    x, y, rng = frame(seed=seed)
    model = make_pipeline(columns(), LogisticRegression()).fit(x, y, ids="who")
    assert issparse(model._final._rows.x)
    before = model._final.n_features_in_
    gone = rng.permutation(np.arange(6, 120))[:30]
    for request in np.split(gone, [1, 2, 10]):
        model.delete(request)
    retained = ~np.isin(x["who"].to_numpy(), gone)
    fresh = make_pipeline(columns(), LogisticRegression()).fit(x.filter(retained), y[retained], ids="who")
    assert model._final.n_features_in_ == fresh._final.n_features_in_ < before
    assert model._before[0].state_digest_ == fresh._before[0].state_digest_
    same_features(model, fresh)
    within_certificates(model, fresh)
    released, shown = model.release(), x.drop("who")
    np.testing.assert_array_equal(released.predict(shown), model.predict(shown))


def test_a_category_that_stays_behind_is_caught(monkeypatch):
    from certified.preprocessing import _categories

    monkeypatch.setattr(_categories, "subtracted", lambda before, column: before)
    x, y, _ = frame()
    model = make_pipeline(columns(), LogisticRegression()).fit(x, y, ids="who")
    model.delete(range(10, 60))
    retained = ~np.isin(x["who"].to_numpy(), range(10, 60))
    monkeypatch.undo()
    fresh = make_pipeline(columns(), LogisticRegression()).fit(x.filter(retained), y[retained], ids="who")
    with pytest.raises(AssertionError):
        same_features(model, fresh)


def test_features_of_rows_at_the_wrong_positions_are_caught(monkeypatch):
    from certified._convex import newton_cg_rows

    monkeypatch.setattr(newton_cg_rows, "placed", lambda x, held: placed(x[::-1], held))
    x, y, _ = frame()
    model = make_pipeline(columns(), LogisticRegression()).fit(x, y, ids="who")
    while model.delete(model.ids_[20:24]).changed[0] != "columntransformer":
        pass
    retained = np.isin(x["who"].to_numpy(), model.ids_)
    fresh = make_pipeline(columns(), LogisticRegression()).fit(x.filter(retained), y[retained], ids="who")
    with pytest.raises(AssertionError):
        same_features(model, fresh)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_deletion_that_takes_columns_chooses_the_head_that_a_refit_has(monkeypatch, classes):
    """Dense features of many coefficients have another head, and another noise metric, than fewer of them."""
    x, y, _ = frame()
    y = y % classes
    gone = np.arange(10, 60)
    retained = ~np.isin(x["who"].to_numpy(), gone)
    made = lambda: make_pipeline(  # noqa: E731
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["city"]), (StandardScaler(), ["age"])),
        LogisticRegression(),
    )
    fresh = made().fit(x.filter(retained), y[retained], ids="who")
    outputs = fresh._final._state.problem.loss.outputs
    monkeypatch.setattr(_solvers, "_WIDE", fresh._final.n_features_in_ * outputs)
    model = made().fit(x, y, ids="who")
    assert model._final._solver is _solvers.NewtonCG
    with pytest.raises(InvalidRequest):
        model.delete(model.ids_)
    assert model._final._solver is _solvers.NewtonCG
    model.delete(gone)
    assert model._final._solver is fresh._final._solver is _solvers.Cholesky
    gap = model._final._state.solution.w - fresh._final._state.solution.w
    metric = model.noise_metric_
    np.testing.assert_array_equal(metric, fresh.noise_metric_)
    assert np.sqrt(gap @ metric @ gap) <= model.certificate_.distance_bound + fresh.certificate_.distance_bound
    later = np.setdiff1d(np.arange(3, 10), gone)
    model.delete(later)
    np.testing.assert_array_equal(model.release().predict(x.drop("who")), model.predict(x.drop("who")))


def test_rows_of_weight_zero_are_absent_from_sparse_features():
    x, y, rng = frame()
    s = rng.integers(0, 2, size=len(y)).astype(float)
    s[:6] = 1.0
    model = make_pipeline(columns(), LogisticRegression()).fit(x, y, ids="who", sample_weight=s)
    fresh = make_pipeline(columns(), LogisticRegression()).fit(x.filter(s > 0), y[s > 0], ids="who")
    same_features(model, fresh)
    np.testing.assert_array_equal(
        model._final._rows.x[: len(y)].toarray()[s == 0], np.zeros((int(np.sum(s == 0)), model._final.n_features_in_))
    )


def test_deleted_rows_leave_no_text_no_value_and_no_pattern_in_a_pipeline():
    x, y, _ = frame()
    who = x["who"].to_numpy() == 20
    x = x.with_columns(
        note=pl.Series(["unmistakable zyzzyva" if w else t for w, t in zip(who, x["note"], strict=True)])
    )
    model = make_pipeline(columns(), LogisticRegression()).fit(x, y, ids="who")
    assert b"zyzzyva" in pickle.dumps(model)
    model.delete([20])
    assert b"zyzzyva" not in pickle.dumps(model)
    at = np.flatnonzero(who)
    assert model._final._rows.lengths[at].max() == 0.0


# ---------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("norm", ["l2", None])
def test_hashed_texts_are_classified_as_by_scikit_learn_and_forget(classes, norm):
    docs, y = texts(classes=classes)
    hashed = HashingVectorizer(n_features=2**18, norm=norm)
    model = make_pipeline(hashed, LogisticRegression(noise=0, tol=1e-8)).fit(docs, y)
    tight = PlainLogistic(solver="newton-cg", tol=1e-10, max_iter=1000)
    theirs = plain_pipeline.make_pipeline(hashed, tight).fit(docs, y)
    np.testing.assert_allclose(model.coef_, theirs[-1].coef_, atol=1e-7)
    np.testing.assert_allclose(model.predict_proba(docs), theirs.predict_proba(docs), atol=1e-7)
    assert model._final._rows.x.nnz < 10 * len(docs)
    model.delete(range(10, 20))
    model.refine()
    retained = [doc for i, doc in enumerate(docs) if not 10 <= i < 20]
    theirs.fit(retained, np.delete(y, range(10, 20)))
    np.testing.assert_allclose(model.coef_, theirs[-1].coef_, atol=1e-7)
    published = pickle.loads(pickle.dumps(model.release()))
    assert type(published) is plain_pipeline.Pipeline
    np.testing.assert_array_equal(published.predict(docs), model.predict(docs))


@pytest.mark.parametrize("container", [list, np.array, pl.Series, lambda docs: pl.Series(docs).to_pandas()])
def test_texts_come_in_any_one_dimensional_container(container):
    docs, y = texts()
    model = make_pipeline(HashingVectorizer(n_features=32), LogisticRegression()).fit(container(docs), y)
    assert model.predict(container(docs)).shape == y.shape
    assert model.score(container(docs), y) > 0.5


def test_a_frozen_vectoriser_of_other_texts_and_steps_that_learn_nothing_stay_sparse():
    docs, y = texts()
    public, _ = texts(seed=9)
    frozen = FrozenEstimator(TfidfVectorizer().fit(public))
    head = LogisticRegression(solver="newton-cg")
    model = make_pipeline(frozen, FunctionTransformer(np.sqrt), Normalizer(), head).fit(docs, y)
    assert issparse(model._final._rows.x)
    receipt = model.delete([7])
    assert receipt.certificate.scope == "pipeline"
    fresh = make_pipeline(frozen, FunctionTransformer(np.sqrt), Normalizer(), head)
    fresh.fit(docs[:7] + docs[8:], np.delete(y, 7))
    same_features(model, fresh)
    within_certificates(model, fresh)


def test_texts_that_are_none_are_refused_with_a_reason():
    docs, y = texts()
    model = make_pipeline(HashingVectorizer(n_features=32), LogisticRegression())
    with pytest.raises(InvalidInput, match="without text, the first at position 3"):
        model.fit([*docs[:3], None, *docs[4:]], y)
    with pytest.raises(InvalidInput, match="no list of texts"):
        model.fit(pl.DataFrame({"text": docs}), y)
    with pytest.raises(InvalidInput, match="One column of text is needed"):
        model.fit(np.arange(len(y)), y)
    with pytest.raises(InvalidInput, match="One column of text is needed"):
        ColumnTransformer([("text", HashingVectorizer(), ["a", "b"])]).fit(pl.DataFrame({"a": docs, "b": docs}))
    model.fit(docs, y)
    before = pickle.dumps(model)
    with pytest.raises(InvalidInput, match="without text"):
        model.predict([None])
    assert pickle.dumps(model) == before


def _filled():
    return SimpleImputer(strategy="constant", fill_value="")


def _union():
    return make_union(HashingVectorizer(n_features=32), HashingVectorizer(n_features=32, analyzer="char"))


@pytest.mark.parametrize("framed", [lambda x: x, pl.DataFrame.to_pandas, pl.DataFrame.to_arrow])
@pytest.mark.parametrize(
    "made",
    [
        lambda: HashingVectorizer(n_features=32),
        lambda: make_pipeline(HashingVectorizer(n_features=32), Normalizer()),
        lambda: make_pipeline(_filled(), HashingVectorizer(n_features=32)),
        _union,
        lambda: make_pipeline(_filled(), _union()),
    ],
)
def test_a_release_reads_texts_wherever_the_vectoriser_stands(made, framed):
    x, y, _ = frame(n=60)
    given, shown = framed(x.select("who", "age", "note")), framed(x.select("age", "note"))
    parts = make_column_transformer((made(), ["note"]), (StandardScaler(), ["age"]))
    model = make_pipeline(parts, LogisticRegression()).fit(given, y, ids="who")
    model.delete([20])
    released = model.release()
    dump = pickle.dumps(released)
    assert b"certified" not in dump
    np.testing.assert_array_equal(pickle.loads(dump).predict_proba(shown), model.predict_proba(shown))


def test_a_release_reads_texts_after_a_first_step_and_through_a_union():
    docs, y = texts(60)
    gaps = pl.DataFrame({"note": [None, *docs[1:]]})
    model = make_pipeline(_filled(), HashingVectorizer(n_features=32), LogisticRegression()).fit(gaps, y)
    np.testing.assert_array_equal(model.release().predict_proba(gaps), model.predict_proba(gaps))
    model = make_pipeline(_union(), LogisticRegression()).fit(docs, y)
    model.delete([11])
    np.testing.assert_array_equal(model.release().predict_proba(docs), model.predict_proba(docs))
    model = make_pipeline("passthrough", HashingVectorizer(n_features=32), LogisticRegression()).fit(docs, y)
    np.testing.assert_array_equal(model.release().predict_proba(docs), model.predict_proba(docs))


def test_a_frozen_vectoriser_names_its_features_after_release():
    x, _, _ = frame(n=60)
    words = FrozenEstimator(TfidfVectorizer().fit(texts(seed=9)[0]))
    parts = make_column_transformer((words, "note"), (StandardScaler(), ["age"])).fit(x)
    assert "frozenestimator__river" in parts.get_feature_names_out()
    np.testing.assert_array_equal(parts.release().get_feature_names_out(), parts.get_feature_names_out())


def test_a_vectoriser_that_learns_is_refused_with_the_one_that_does_not():
    docs, y = texts(60)
    with pytest.raises(NotDeletable, match="Use scikit-learn's HashingVectorizer, which learns nothing"):
        make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(docs, y)


def test_a_search_over_a_pipeline_of_texts_forgets_and_releases():
    x, y, _ = frame(n=90)
    grid = {
        "columntransformer__hashingvectorizer__ngram_range": [(1, 1), (1, 2)],
        "logisticregression__C": [0.1, 1.0],
    }
    parts = make_column_transformer((HashingVectorizer(n_features=64), "note"), (StandardScaler(), ["age", "debt"]))
    search = GridSearchCV(make_pipeline(parts, LogisticRegression()), grid, cv=3).fit(x, y, ids="who")
    assert search.delete([20]).certificate.scope == "search"
    shown = x.drop("who")
    np.testing.assert_array_equal(search.release().predict(shown), search.predict(shown))


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_frames_come_out_where_features_are_dense_and_are_refused_where_they_are_sparse(kind):
    x, _, _ = frame(n=60)
    given = x.select("age", "note")
    parts = ((HashingVectorizer(n_features=8), "note"), (StandardScaler(), ["age"]))
    with pytest.raises(ValueError, match="outputs a scipy sparse matrix"):
        make_column_transformer(*parts).set_output(transform=kind).fit(given).transform(given)
    dense = make_column_transformer(*parts, sparse_threshold=0).fit(given)
    values = dense.transform(given)
    named = dense.set_output(transform=kind).transform(given)
    assert type(named).__module__.startswith(kind)
    np.testing.assert_array_equal(named.to_numpy(), values)
    assert list(named.columns) == dense.get_feature_names_out().tolist()


def test_steps_are_chosen_by_position_and_by_name():
    docs, y = texts(60)
    model = make_pipeline(HashingVectorizer(n_features=32), LogisticRegression())
    assert model[-1] is model["logisticregression"] is model.steps[1][1]
    model.fit(docs, y)
    assert len(model) == 2
    assert model[-1] is model["logisticregression"] is model.steps_[1][1]
    assert type(model[0]) is HashingVectorizer
    with pytest.raises(InvalidInput, match="One step is allowed"):
        model[:-1]


# ---------------------------------------------------------------------------------------------- sparse matrices


@pytest.mark.parametrize("steps", [(), ("passthrough",), (Normalizer(),), (FunctionTransformer(abs),)])
def test_sparse_matrices_pass_through_a_pipeline_and_forget(steps):
    rng = np.random.default_rng(0)
    X = random_array((150, 400), density=0.03, rng=rng, format="csr")
    y = rng.poisson(1.0, size=150)
    made = lambda: make_pipeline(*steps, PoissonRegressor(alpha=0.01))  # noqa: E731
    model = made().fit(X, y)
    assert issparse(model._table.x)
    model.delete([3, 77])
    model.delete([4])
    retained = np.delete(np.arange(150), [3, 4, 77])
    fresh = made().fit(X[retained], y[retained])
    same_features(model, fresh)
    within_certificates(model, fresh)
    assert model._table.x[[3, 4, 77]].nnz == 0
    assert not np.isin(X[[3, 4, 77]].data, np.frombuffer(model._table.x.data.tobytes())).any()
    assert model.predict(X).shape == y.shape


def test_erasing_rows_of_a_sparse_table_leaves_the_others():
    rng = np.random.default_rng(0)
    X = csr_array(random_array((30, 20), density=0.3, rng=rng, format="csr"))
    before = X.toarray()
    erase(X, np.array([4, 9, 29]))
    before[[4, 9, 29]] = 0.0
    np.testing.assert_array_equal(X.toarray(), before)
    assert X.nnz == np.count_nonzero(before) == len(X.data) == len(X.indices)


def test_what_takes_no_sparse_features_says_so():
    x, y, _ = frame()
    x = x.select("city", "age")
    encoded = make_column_transformer((OneHotEncoder(sparse_output=True), ["city"]), (StandardScaler(), ["age"]))
    with pytest.raises(InvalidInput, match="GaussianNB got sparse features"):
        make_pipeline(encoded, GaussianNB()).fit(x, y)
    with pytest.raises(InvalidInput, match="StandardScaler got sparse features"):
        make_pipeline(encoded, StandardScaler(), LogisticRegression()).fit(x, y)
    both = make_union(OneHotEncoder(sparse_output=True), "passthrough")
    with pytest.raises(InvalidInput, match="side by side"):
        make_pipeline(both, LogisticRegression()).fit(x.select("city"), y)


def test_sparse_steps_of_scikit_learn_have_counterparts():
    docs, y = texts()
    model = _convert.certify(plain_pipeline.make_pipeline(HashingVectorizer(n_features=64), PlainLogistic()))
    assert model.fit(docs, y).delete([3]).certificate.claim == "indistinguishable"
