"""Models from exact sums, samples and contexts: those of scikit-learn, and after deletions a refit, bit for bit."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import (
    cluster,
    decomposition,
    discriminant_analysis,
    kernel_approximation,
    naive_bayes,
    neighbors,
    preprocessing,
)
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.metrics import pairwise_kernels

from certified._data.reproducible import project
from certified._data.row_order import row_digests
from certified._exact.sums import GroupSums
from certified.cluster import KMeans
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.kernel_approximation import Nystroem
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from certified.neighbors import ContextClassifier, ContextRegressor, KNeighborsClassifier, KNeighborsRegressor
from certified.pipeline import make_pipeline
from certified.preprocessing import KBinsDiscretizer, MinMaxScaler, OrdinalEncoder, SplineTransformer, StandardScaler
from certified.testing import check_delete_equals_refit, yield_deletion_checks

MODELS = {
    "gaussian": GaussianNB(),
    "bernoulli": BernoulliNB(),
    "counts": make_pipeline(MinMaxScaler(), MultinomialNB()),
    "categories": make_pipeline(KBinsDiscretizer(encode="ordinal", sample_size=30, key=7), CategoricalNB()),
    "discriminant": LinearDiscriminantAnalysis(),
    "shrunk discriminant": LinearDiscriminantAnalysis(shrinkage=0.2),
    "components": PCA(2),
    "components of a sample": PCA(2, whiten=True, sample_size=30, key=7),
    "components, logistic": make_pipeline(PCA(2, sample_size=30, key=7), LogisticRegression()),
    "components, ridge": make_pipeline(PCA(2, sample_size=30, key=7), Ridge()),
    "components of all rows, ridge": make_pipeline(PCA(2), Ridge()),
    "landmarks": make_pipeline(StandardScaler(), Nystroem(n_components=6, sample_size=40, key=7), Ridge()),
    "landmarks, polynomial": make_pipeline(
        StandardScaler(), Nystroem("polynomial", n_components=4, sample_size=40, key=7), LogisticRegression()
    ),
    "splines": SplineTransformer(),
    "splines, evenly": SplineTransformer(4, knots="uniform", include_bias=False),
    "splines of a sample, logistic": make_pipeline(
        SplineTransformer(knots="quantile", sample_size=30, key=7), LogisticRegression()
    ),
    "scaler, gaussian": make_pipeline(StandardScaler(), GaussianNB()),
    "neighbours": KNeighborsClassifier(),
    "neighbours, regression": make_pipeline(StandardScaler(), KNeighborsRegressor()),
    "context": ContextClassifier(neighbors.RadiusNeighborsClassifier(1e6)),
    "clusters": KMeans(3, key=7),
    "clusters of a sample": KMeans(3, sample_size=30, key=7),
}
CHECKS = [
    pytest.param(check, id=f"{name}: {title}")
    for name, model in MODELS.items()
    for title, check in yield_deletion_checks(model)
]


@pytest.mark.parametrize("check", CHECKS)
def test_model_passes_the_public_check(check):
    check()


BAYES = (
    (GaussianNB(), naive_bayes.GaussianNB()),
    (GaussianNB(priors=[0.2, 0.3, 0.5]), naive_bayes.GaussianNB(priors=[0.2, 0.3, 0.5])),
    (MultinomialNB(alpha=0.3), naive_bayes.MultinomialNB(alpha=0.3)),
    (MultinomialNB(fit_prior=False), naive_bayes.MultinomialNB(fit_prior=False)),
    (BernoulliNB(binarize=3.0), naive_bayes.BernoulliNB(binarize=3.0)),
    (CategoricalNB(min_categories=12), naive_bayes.CategoricalNB(min_categories=12)),
)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("ours", "plain"), BAYES, ids=lambda m: repr(m)[:40])
def test_naive_bayes_is_that_of_scikit_learn(ours, plain, weighted):
    X, y = load_iris(return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(y)) if weighted else None
    ours, plain = clone(ours).fit(X, y, sample_weight=weight), clone(plain).fit(X, y, sample_weight=weight)
    # the variance added is 1e-9 of the largest one, in which scikit-learn has no weights
    assert np.allclose(ours.predict_proba(X), plain.predict_proba(X), atol=1e-8 if weighted else 1e-10)
    assert np.array_equal(ours.release().predict(X), ours.predict(X))
    for name in ("class_count_", "theta_", "feature_log_prob_", "class_log_prior_"):
        if hasattr(plain, name):
            found, expected = getattr(ours, name), getattr(plain, name)
            for a, b in zip(found, expected, strict=True):
                assert np.allclose(a, b, rtol=1e-10)


@pytest.mark.parametrize("load", [load_iris, load_breast_cancer])
@pytest.mark.parametrize("balanced", [False, True])
def test_discriminant_analysis_is_that_of_scikit_learn(load, balanced):
    X, y = load(return_X_y=True)
    X = X[:, :8]
    k = len(np.unique(y))
    priors = [1 / k] * k if balanced else None
    ours = LinearDiscriminantAnalysis(priors=priors).fit(X, y)
    n = len(y)
    means = np.array([X[y == c].mean(axis=0) for c in range(k)])
    within = sum((X[y == c] - means[c]).T @ (X[y == c] - means[c]) for c in range(k)) / n
    share = np.array(priors) if balanced else np.bincount(y) / n
    scores = X @ np.linalg.solve(within, means.T) - 0.5 * np.einsum("kj,jk->k", means, np.linalg.solve(within, means.T))
    scores += np.log(share)
    log_odds = scores - scores[:, :1]
    found = ours.predict_log_proba(X)
    far = log_odds.max(axis=1) - log_odds.min(axis=1) < 300  # beyond, a probability is 0
    assert np.allclose((found - found[:, :1])[far], log_odds[far], rtol=1e-6, atol=1e-6)
    plain = discriminant_analysis.LinearDiscriminantAnalysis(priors=priors).fit(X, y)
    assert np.mean(ours.predict(X) == plain.predict(X)) > 0.99  # older versions divide by n - k
    assert np.allclose(ours.explained_variance_ratio_, plain.explained_variance_ratio_, rtol=1e-6)
    projected, expected = ours.transform(X), plain.transform(X)
    for j in range(projected.shape[1]):
        assert abs(np.corrcoef(projected[:, j], expected[:, j])[0, 1]) > 1 - 1e-9
    released = ours.release()
    assert np.allclose(released.predict_proba(X), ours.predict_proba(X), rtol=1e-8)
    assert np.allclose(released.transform(X), projected, rtol=1e-6)


@pytest.mark.parametrize("asked", [None, 3, 0.9])
@pytest.mark.parametrize("whiten", [False, True])
def test_components_are_those_of_scikit_learn(asked, whiten):
    X = load_digits().data + 1000.0  # far from zero: a sum of squares without care would lose the digits
    ours = PCA(asked, whiten=whiten).fit(X)
    plain = decomposition.PCA(asked, whiten=whiten, svd_solver="full").fit(X)
    assert ours.n_components_ == plain.n_components_
    live = plain.explained_variance_ > 1e-6
    for name in ("components_", "explained_variance_", "explained_variance_ratio_", "singular_values_"):
        assert np.allclose(getattr(ours, name)[live], getattr(plain, name)[live], rtol=1e-7, atol=1e-9), name
    assert np.allclose(ours.transform(X)[:, live], plain.transform(X)[:, live], rtol=1e-6, atol=1e-7)
    assert np.allclose(ours.inverse_transform(ours.transform(X)), plain.inverse_transform(plain.transform(X)))
    assert np.allclose(ours.release().transform(X)[:, live], ours.transform(X)[:, live], rtol=1e-6, atol=1e-7)


def test_a_deletion_outside_the_sample_leaves_components_alone():
    X, y = load_breast_cancer(return_X_y=True)
    model = PCA(3, sample_size=50, key=7).fit(X)
    changed = [bool(model.delete([i]).changed) for i in range(300)]
    assert 1 <= sum(changed) <= 60  # about 300 * 50 / 569 leave the sample
    head = make_pipeline(PCA(3, sample_size=50, key=7), LogisticRegression()).fit(X, y)
    assert head.delete([int(np.flatnonzero(~np.array(changed))[0])]).changed == ("logisticregression",)


def test_neighbours_are_those_of_scikit_learn():
    X, y = load_diabetes(return_X_y=True)
    target = y > 140
    for weights in ("uniform", "distance"):
        ours = KNeighborsClassifier(7, weights=weights).fit(X, target)
        plain = neighbors.KNeighborsClassifier(7, weights=weights).fit(X, target)
        assert np.allclose(ours.predict_proba(X), plain.predict_proba(X))
        regressor = KNeighborsRegressor(7, weights=weights).fit(X, y)
        assert np.allclose(regressor.predict(X), neighbors.KNeighborsRegressor(7, weights=weights).fit(X, y).predict(X))
    for asked in ((X[:5], 3), (None, 2)):
        for mine, theirs in zip(ours.kneighbors(*asked), plain.kneighbors(*asked), strict=True):
            assert np.allclose(mine, theirs)
        assert np.array_equal(ours.kneighbors(*asked, return_distance=False), plain.kneighbors(*asked)[1])
        for mode in ("connectivity", "distance"):
            mine, theirs = ours.kneighbors_graph(*asked, mode), plain.kneighbors_graph(*asked, mode)
            assert np.allclose(mine.toarray(), theirs.toarray())
    several = np.column_stack([y, -y, y**2])
    two = KNeighborsRegressor(3).fit(X, several)
    two.delete([4, 9])
    retained = np.delete(np.arange(len(y)), [4, 9])
    assert two.state_digest_ == KNeighborsRegressor(3).fit(X[retained], several[retained], ids=retained).state_digest_
    assert np.allclose(two.predict(X), neighbors.KNeighborsRegressor(3).fit(X[retained], several[retained]).predict(X))
    assert np.array_equal(two.kneighbors(X[:1], 1, return_distance=False), [[0]])
    assert np.array_equal(two.kneighbors(X[10:11], 1, return_distance=False), [[8]])  # two rows before it are gone
    with pytest.raises(InvalidInput, match="distances to a deleted row would stay"):
        KNeighborsClassifier(metric="precomputed").fit(X[:5, :5], target[:5])
    assert not hasattr(ours, "release")  # it would hold training rows
    with pytest.raises(AttributeError, match="no attribute 'release'") as raised:
        ours.release()
    assert "the rows are the model" in str(raised.value.__cause__)
    assert not hasattr(make_pipeline(StandardScaler(), KNeighborsClassifier()).fit(X, target), "release")


def test_any_learner_of_a_context_forgets():
    X, y = load_diabetes(return_X_y=True)
    X, y, ids = X[:80], y[:80], np.arange(80)
    model = ContextRegressor(GaussianProcessRegressor(alpha=1.0)).fit(X, y, ids=ids)
    before = model.predict(X)
    model.delete([3, 4])
    retained = np.isin(ids, model.ids_)
    shuffled = np.random.default_rng(0).permutation(np.flatnonzero(retained))
    refit = ContextRegressor(GaussianProcessRegressor(alpha=1.0)).fit(X[shuffled], y[shuffled], ids=ids[shuffled])
    assert np.array_equal(model.predict(X), refit.predict(X))
    assert not np.array_equal(model.predict(X), before)


def test_clusters_are_as_good_as_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.standard_normal((3000, 5)) + 4 * rng.standard_normal(5) for _ in range(6)])
    ours = KMeans(6, n_init=5, sample_size=3000, key=7).fit(X)
    plain = cluster.KMeans(6, n_init=5, random_state=0).fit(X)
    assert ours.score(X) > 1.001 * plain.score(X)  # scores are negative
    assert np.array_equal(ours.labels_, ours.predict(X))
    assert np.array_equal(ours.release().predict(X), ours.predict(X))
    changed = sum(bool(ours.delete([i]).changed) for i in range(200))
    assert changed < 80
    assert len(ours.labels_) == len(X) - 200


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["gauss", "counts", "huge", "constant", "ties"]),
    repeats=st.integers(1, 3),
    weighted=st.booleans(),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5),
)
def test_any_sequence_ends_at_a_refit_in_another_order(seed, kind, repeats, weighted, sizes):
    rng = np.random.default_rng(seed)
    n = 60
    X = rng.poisson(1.5, (n, 3)).astype(float)
    if kind == "gauss":
        X = rng.standard_normal((n, 3)) * [1e-3, 1.0, 1e6]
    elif kind == "huge":
        X[rng.integers(n)] *= 2.0**30  # one row needs the exponent
    elif kind == "constant":
        X[:, 1] = 3.0
    elif kind == "ties":
        X[n // 2 :] = X[: n - n // 2]
    y = rng.permutation(np.arange(n) % 3)
    ids = rng.permutation(np.arange(n) // repeats)
    weight = rng.integers(0, 3, n) * rng.choice([1.0, 0.37]) if weighted else np.ones(n)
    weight[:9] = 1.0
    y[:9], ids[:9] = np.arange(9) % 3, 1000 + np.arange(9)  # never deleted: no class is lost
    pool = rng.permutation(np.unique(ids[9:]))
    requests = [chunk for chunk in np.split(pool, np.cumsum(sizes))[:-1] if chunk.size]
    models = [GaussianNB(), BernoulliNB(binarize=1.0), PCA(2), PCA(2, sample_size=10, key=7), KNeighborsClassifier(3)]
    models += [
        KMeans(3, sample_size=12, key=7),
        LinearDiscriminantAnalysis(shrinkage=0.5),
        SplineTransformer(knots="quantile", sample_size=9, key=7),
    ]
    if X.min() >= 0:
        models += [MultinomialNB()] + ([CategoricalNB()] if kind != "huge" else [])
    for model in models:
        takes = isinstance(model, (GaussianNB, BernoulliNB, MultinomialNB, CategoricalNB, KMeans))

        def fitted(rows, model=model, takes=takes):
            given = {"sample_weight": weight[rows]} if takes else {}
            return clone(model).fit(X[rows], y[rows], ids=ids[rows], **given)

        live = fitted(np.arange(n))
        for request in requests:
            live.delete(request)
        retained = rng.permutation(np.flatnonzero(np.isin(ids, live.ids_)))
        again = fitted(retained)
        assert live.state_digest_ == again.state_digest_, type(model).__name__
        method = "predict" if hasattr(live, "predict") else "transform"
        assert np.array_equal(getattr(live, method)(X[:9]), getattr(again, method)(X[:9]))


@pytest.mark.parametrize("kernel", ["rbf", "laplacian", "polynomial"])
def test_landmarks_represent_the_kernel_better_than_rows(kernel):
    X = StandardScaler().fit_transform(load_breast_cancer().data[:, :6])
    ours = Nystroem(kernel, n_components=40, key=7).fit(X)
    plain = kernel_approximation.Nystroem(kernel, n_components=40, random_state=0).fit(X)
    exact = pairwise_kernels(X, metric=kernel)
    gap = [
        np.linalg.norm(exact - made @ made.T) / np.linalg.norm(exact)
        for made in (ours.transform(X), plain.transform(X))
    ]
    assert gap[0] < gap[1]
    assert np.allclose(ours.release().transform(X), ours.transform(X), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("extrapolation", ["constant", "linear", "periodic"])
@pytest.mark.parametrize("knots", ["quantile", "uniform"])
@pytest.mark.parametrize("include_bias", [True, False])
def test_splines_are_those_of_scikit_learn(extrapolation, knots, include_bias):
    X = load_diabetes().data[:, [0, 2, 3]]
    given = {"knots": knots, "extrapolation": extrapolation, "include_bias": include_bias}
    ours, plain = SplineTransformer(6, **given).fit(X), preprocessing.SplineTransformer(6, **given).fit(X)
    if knots == "quantile":  # rounded, see the tests of thresholds
        quantiles = np.percentile(X, np.linspace(0, 100, 6), axis=0)
        assert np.all(np.abs(ours.knots_ - quantiles) <= 0.1 * np.max(np.diff(quantiles, axis=0), axis=0))
        plain.set_params(knots=ours.knots_).fit(X)
    assert np.allclose(ours.transform(1.2 * X), plain.transform(1.2 * X))
    assert ours.get_feature_names_out().tolist() == plain.get_feature_names_out().tolist()
    assert ours._width(ours._learned, 3) == ours.n_features_out_ == plain.n_features_out_
    assert np.array_equal(ours.release().transform(X), ours.transform(X))


def test_splines_take_given_knots_and_columns_without_distinct_quantiles():
    X = np.column_stack([np.arange(50) % 2, np.full(50, 3.0), np.arange(50.0)])
    assert np.isfinite(SplineTransformer().fit_transform(X)).all()
    given = np.column_stack([np.linspace(0, 60, 4)] * 3)
    model = SplineTransformer(4, knots=given).fit(X)
    assert model.delete([49]).changed == ()
    with pytest.raises(InvalidInput, match="increasing"):
        SplineTransformer(4, knots=given[::-1]).fit(X)


def test_a_projection_of_a_row_does_not_depend_on_the_others():
    rng = np.random.default_rng(0)
    X, W = rng.standard_normal((3001, 37)), rng.standard_normal((11, 37))
    out = project(X, W)
    assert np.allclose(out, X @ W.T)
    for rows in ([5], [2, 9, 3000], rng.permutation(3001), np.arange(7, 1500)):
        assert np.array_equal(project(X[rows], W), out[rows])


def test_a_release_of_clusters_holds_no_row():
    X = np.concatenate([np.random.default_rng(0).standard_normal((50, 2)), [[1000.0, 1234.5678]]])
    model = KMeans(2, key=7).fit(X)
    with pytest.raises(CannotCertify, match="one row"):
        model.release()
    landmarks = Nystroem(n_components=2, key=7).fit(X).components_
    assert len(landmarks) == 1


def test_the_last_row_of_a_category_takes_the_category_with_it():
    X = np.array([[0.0], [1.0], [1.0], [0.0], [5.0]])
    model = CategoricalNB().fit(X, [0, 1, 0, 1, 1])
    assert model.n_categories_[0] == 6
    model.delete([4])
    assert model.n_categories_[0] == 2
    with pytest.raises(InvalidInput, match="no row has"):
        model.predict([[5.0]])


def test_frames_of_text_reach_naive_bayes():
    frame = pl.DataFrame({"city": ["Rome", "Bern", None, "Rome", "Bern", "Rome"], "subject": list("abcdef")})
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=3, encoded_missing_value=2)
    model = make_pipeline(encoder, CategoricalNB(min_categories=4))
    y = ["yes", "no", "no", "yes", "yes", "no"]
    model.fit(frame, y, ids="subject")
    model.delete(["a"])
    assert set(model.predict(frame.drop("subject"))) <= {"yes", "no"}
    assert model.certificate_.claim == "exact"


WRONG = {
    "negative counts": (MultinomialNB(), [[-1.0], [2.0]], [0, 1], "Negative"),
    "alpha": (MultinomialNB(alpha=-1), [[1.0], [2.0]], [0, 1], "alpha"),
    "priors": (GaussianNB(priors=[0.9, 0.9]), [[1.0], [2.0]], [0, 1], "priors"),
    "not binary": (BernoulliNB(binarize=None), [[0.5], [1.0]], [0, 1], "binarize"),
    "negative codes": (CategoricalNB(), [[-1.0], [2.0]], [0, 1], "Negative"),
    "one class": (GaussianNB(), [[1.0], [2.0]], [0, 0], "one class"),
    "no targets": (GaussianNB(), [[1.0], [2.0]], None, "requires y"),
    "too many components": (PCA(3), [[1.0], [2.0]], None, "n_components"),
    "share of components": (PCA(1.5), [[1.0], [2.0]], None, "n_components"),
    "collinear": (LinearDiscriminantAnalysis(), [[1, 1], [2, 2], [3, 3], [5, 5]], [0, 1, 0, 1], "dependent"),
    "constant": (LinearDiscriminantAnalysis(), [[1, 1], [2, 1], [3, 1], [5, 1]], [0, 1, 0, 1], "does not vary"),
    "automatic shrinkage": (LinearDiscriminantAnalysis(shrinkage="auto"), [[1], [2], [4]], [0, 1, 0], "auto"),
    "fewer rows than clusters": (KMeans(3, key=7), [[1.0], [2.0]], None, "n_clusters"),
}


@pytest.mark.parametrize(("model", "X", "y", "says"), WRONG.values(), ids=WRONG)
def test_wrong_input_is_refused_with_a_reason(model, X, y, says):
    with pytest.raises((InvalidInput, InvalidRequest, CannotCertify), match=says):
        clone(model).fit(X, y)


@pytest.mark.parametrize("model", [GaussianNB(), LinearDiscriminantAnalysis(shrinkage=0.1), KNeighborsClassifier()])
def test_one_of_two_classes_keeps_its_last_row(model):
    X, y = load_iris(return_X_y=True)
    y = np.minimum(y, 1)
    live = make_pipeline(StandardScaler(), clone(model)).fit(X, y)
    before = live.named_steps[type(model).__name__.lower()].state_digest_
    with pytest.raises(InvalidRequest, match="class"):
        live.delete(np.flatnonzero(y == 0))
    assert live.named_steps[type(model).__name__.lower()].state_digest_ == before
    assert live.n_rows_ == len(y)


def test_group_sums_are_those_of_fractions():
    from fractions import Fraction

    rng = np.random.default_rng(1)
    x = np.ldexp(rng.integers(-(2**20), 2**20, (50, 2)).astype(float), -13)  # 40 digits hold these exactly
    groups = rng.integers(0, 3, 50)
    sums = GroupSums.of(x, groups, 3, np.ones(50))
    for g in range(3):
        rows = [[Fraction(v) for v in row] for row in x[groups == g]]
        for j in range(2):
            column = [row[j] for row in rows]
            mean = sum(column) / len(column)
            assert sums.means()[g, j] == float(mean)
            assert sums.variances()[g, j] == float(sum((v - mean) ** 2 for v in column) / len(column))


class SumsKeepALimb(GaussianNB):
    """Subtracts the high digits only."""

    def _subtract(self, statistic, removed):
        rounded = np.ldexp(np.rint(np.ldexp(removed.x, 20 - statistic.exponents[:-1])), statistic.exponents[:-1] - 20)
        return statistic.subtract(rounded, removed.y, removed.weight)


class StaleSample(KMeans):
    """Keeps the centres found on a sample that has lost a row."""

    def _subtract(self, statistic, removed):
        return super()._subtract(statistic._replace(cut=np.uint64(0)), removed)


class StaleClass(LinearDiscriminantAnalysis):
    """Removes rows from the sums of another class."""

    def _subtract(self, statistic, removed):
        return super()._subtract(statistic, removed._replace(y=1 - removed.y))


class OrderedContext(KNeighborsClassifier):
    """Deletes one row of those that go."""

    def _subtract(self, statistic, removed):
        gone = np.flatnonzero(np.isin(statistic.first, row_digests(removed.x, removed.y)[0]))[:1]
        return type(statistic)(*(np.delete(part, gone, axis=0) for part in statistic))


@pytest.mark.parametrize(
    "mutant",
    [SumsKeepALimb(), StaleSample(3, sample_size=100), StaleClass(), OrderedContext()],
    ids=lambda m: type(m).__name__,
)
def test_a_mutant_is_caught(mutant):
    with pytest.raises(AssertionError, match="refit"):
        check_delete_equals_refit(mutant)
