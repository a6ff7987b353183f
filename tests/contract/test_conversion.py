"""certify: a scikit-learn pipeline becomes one that deletes, or the error names every step that cannot."""

from inspect import signature

import numpy as np
import polars as pl
import pytest
from sklearn.base import BaseEstimator
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.decomposition import PCA, FastICA
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, TweedieRegressor
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)
from sklearn.svm import LinearSVC
from sklearn.utils import all_estimators

import certified
from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.errors import InvalidInput, NotDeletable
from certified.linear_model import LogisticRegression as Ours


def test_a_pipeline_is_converted_and_agrees():
    X, y = load_breast_cancer(return_X_y=True)
    plain = make_pipeline(
        FeatureUnion([("range", MinMaxScaler()), ("pca", PCA(3, svd_solver="full", random_state=1))]),
        FunctionTransformer(np.tanh),
        LogisticRegression(C=0.3, max_iter=1000, tol=1e-8, solver="newton-cholesky", random_state=3),
    )
    ours = certified.certify(plain).fit(X, y)
    final = ours.named_steps["logisticregression"]
    assert (final.C, final.max_iter, final.tol, final.random_state) == (0.3, 1000, 1e-8, None)
    assert ours.named_steps["featureunion"].transformer_list[1][1].n_components == 3
    plain.fit(X, y)
    gap = np.max(np.abs(final.private_coef_ - plain[-1].coef_))
    assert gap < 1e-5
    assert ours.delete([3]).certificate.scope == "pipeline"


def test_frames_and_columns_are_converted():
    frame = pl.DataFrame({"age": [30.0, None, 50.0, 40.0] * 5, "city": ["a", "b", None, "a"] * 5})
    plain = make_pipeline(
        ColumnTransformer(
            [
                ("n", make_pipeline(SimpleImputer(), StandardScaler(copy=False)), ["age"]),
                ("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
            ],
            remainder=KBinsDiscretizer(4, encode="onehot", random_state=0),
            n_jobs=2,
        ),
        LogisticRegression(penalty="l2") if "penalty" in LogisticRegression().get_params() else LogisticRegression(),
    )
    ours = certified.certify(plain).fit(frame, [0, 1, 0, 1] * 5)
    assert ours.delete([1]).n_rows == 1
    assert ours.steps[0][1].remainder.n_bins == 4


@pytest.mark.parametrize("plain", [Ridge(alpha=2.0), GaussianNB(var_smoothing=1e-6)])
def test_a_single_estimator_is_converted(plain):
    ours = certified.certify(plain)
    assert type(ours).__module__.startswith("certified.")
    assert {k: v for k, v in plain.get_params().items() if k in ours.get_params()}.items() >= {
        k: v for k, v in ours.get_params().items() if k in plain.get_params()
    }.items()
    X, y = load_diabetes(return_X_y=True)
    ours.fit(X, y > 100 if isinstance(plain, GaussianNB) else y).delete([0])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"l1_ratio": 0.4, "solver": "saga", "C": 0.2}, {"l1_ratio": 0.4, "C": 0.2}),
        ({"penalty": "elasticnet", "l1_ratio": 0.4, "solver": "saga"}, {"l1_ratio": 0.4}),
        ({"penalty": "l1", "solver": "liblinear"}, {"l1_ratio": 1.0}),
        ({"penalty": "l2", "l1_ratio": 0.4}, {"l1_ratio": 0.0}),
        ({"penalty": None, "solver": "newton-cg"}, {"C": np.inf, "l1_ratio": 0.0}),
    ],
)
def test_penalties_of_logistic_regression_keep_their_meaning(given, expected):
    if not set(given) <= set(LogisticRegression().get_params()):
        pytest.skip("this scikit-learn has no such parameter")
    ours = certified.certify(LogisticRegression(**given)).get_params()
    assert {k: ours[k] for k in expected} == expected
    assert ours["solver"] == "auto"


def test_what_is_ours_already_stays():
    model = Ours(C=3.0)
    found = certified.certify(model)
    assert found is not model
    assert found.C == 3.0


def test_every_step_that_cannot_be_converted_is_named():
    plain = make_pipeline(
        FeatureUnion([("ica", FastICA()), ("poly", PolynomialFeatures())]),
        MaxAbsScaler(),
        KBinsDiscretizer(dtype="float32"),
        AdaBoostClassifier(),
    )
    with pytest.raises(NotDeletable) as error:
        certified.certify(plain)
    text = str(error.value)
    for named in ("featureunion__ica: FastICA", "maxabsscaler", "dtype=", "adaboostclassifier"):
        assert named in text
    assert "poly" not in text


def test_a_stateless_transformer_alone_has_no_counterpart():
    with pytest.raises(NotDeletable, match="PolynomialFeatures"):
        certified.certify(PolynomialFeatures())


def test_a_forest_is_converted():
    from certified.ensemble import RandomForestClassifier as Forest

    X, y = load_breast_cancer(return_X_y=True)
    model = certified.certify(make_pipeline(StandardScaler(), RandomForestClassifier(5, max_depth=3, n_jobs=2)))
    assert isinstance(model.steps[-1][1], Forest)
    assert model.fit(X, y).delete([3]).certificate.claim == "exact"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"monotonic_cst": [1, 0]}, "monotonic_cst="),
        ({"warm_start": True}, "warm_start=True.*would hold its rows"),
        ({"criterion": "squared"}, "criterion='squared'"),
        ({"class_weight": "balanced_subsample"}, "balanced_subsample"),
        ({"random_state": np.random.RandomState(0)}, "whole number"),
    ],
)
def test_what_a_forest_cannot_take_over_is_named(given, named):
    with pytest.raises(NotDeletable, match=named):
        certified.certify(make_pipeline(StandardScaler(), RandomForestClassifier(5, **given)))


def test_what_a_forest_can_take_over_is_kept():
    plain = RandomForestClassifier(
        5, min_impurity_decrease=1e-3, min_samples_split=0.02, class_weight="balanced", max_samples=0.5, random_state=3
    )
    found = certified.certify(plain).get_params()
    for name in ("min_impurity_decrease", "min_samples_split", "class_weight", "max_samples"):
        assert found[name] == plain.get_params()[name]
    assert found["key"] == 3  # what random_state decides there: rows and candidates


class ExplainableBoostingRegressor(BaseEstimator):
    """What certify sees of interpret's model: its name, its module and its parameters."""

    def __init__(self, max_bins=1024, interactions="3x", learning_rate=0.015, objective="rmse", n_jobs=-2):
        self.max_bins = max_bins
        self.interactions = interactions
        self.learning_rate = learning_rate
        self.objective = objective
        self.n_jobs = n_jobs


def test_explainable_boosting_machines_become_additive_models_by_their_name(monkeypatch):
    assert isinstance(ExplainableBoostingRegressor(), BaseEstimator)
    with pytest.raises(NotDeletable, match="no counterpart"):  # another library's class of this name
        certified.certify(ExplainableBoostingRegressor())
    monkeypatch.setattr(ExplainableBoostingRegressor, "__module__", "interpret.glassbox._ebm._ebm")
    plain = ExplainableBoostingRegressor(max_bins=32, interactions=5, objective="poisson_deviance", n_jobs=1)
    found = certified.certify(plain)
    assert type(found) is AdditiveRegressor
    assert (found.max_bins, found.interactions, found.loss) == (32, 5, "poisson")
    assert certified.certify(ExplainableBoostingRegressor()).get_params() == AdditiveRegressor().get_params()
    for wrong in ({"learning_rate": 0.1}, {"objective": "quantile"}, {"interactions": "2x"}):
        with pytest.raises(NotDeletable, match=next(iter(wrong))):
            certified.certify(ExplainableBoostingRegressor(**wrong))


def test_the_models_of_interpret_itself_are_converted():
    glassbox = pytest.importorskip("interpret.glassbox")
    found = certified.certify(glassbox.ExplainableBoostingClassifier(interactions=3, random_state=7))
    assert type(found) is AdditiveClassifier
    assert (found.interactions, found.random_state) == (3, None)


@pytest.mark.parametrize("given", ["LogisticRegression", LogisticRegression, None, 3], ids=str)
def test_what_is_no_estimator_is_refused(given):
    with pytest.raises(InvalidInput, match="An estimator, a pipeline or a search is needed"):
        certified.certify(given)


def test_folds_that_rows_would_influence_are_named_before_a_fit():
    with pytest.raises(NotDeletable, match="folds follow from the hashes"):
        certified.certify(GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=StratifiedKFold(3)))
    assert certified.certify(GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=np.int64(3))).cv == 3


@pytest.mark.parametrize(
    ("plain", "name"),
    [
        (GradientBoostingClassifier(), "max_depth"),
        (GradientBoostingRegressor(max_depth=3), "max_depth"),
        (TweedieRegressor(), "power"),
        (make_pipeline(SplineTransformer(), Ridge()), "splinetransformer__knots"),
        (make_pipeline(OneHotEncoder(), LogisticRegression()), "onehotencoder__sparse_output"),
        (make_pipeline(KBinsDiscretizer(), LogisticRegression()), "kbinsdiscretizer__encode"),
    ],
)
def test_a_value_that_is_the_default_of_scikit_learn_keeps_its_meaning(plain, name):
    """It is carried over where the default here is another one, or refused by its name."""
    found, refused = None, ""
    try:
        found = certified.certify(plain)
    except NotDeletable as error:
        refused = str(error)
    if found is None:
        assert name.rpartition("__")[2] in refused
    else:
        assert found.get_params()[name] == plain.get_params()[name]


def test_every_parameter_of_every_counterpart_has_the_value_it_had():
    """Whatever says what is fitted; how the work is done is ours where it was left at the default."""
    from certified._convert import _WORK, _counterpart

    seen = 0
    for _, kind in all_estimators():
        if _counterpart(kind.__new__(kind)) is None or signature_needs_more(kind):
            continue
        plain = kind()
        try:
            found = certified.certify(plain)
        except NotDeletable:
            continue
        seen += 1
        ours = found.get_params(deep=False)
        for name, value in plain.get_params(deep=False).items():
            if name in ours and name not in _WORK:
                assert repr(ours[name]) == repr(value), f"{kind.__name__}({name}={value!r}) became {ours[name]!r}"
    assert seen > 25


def signature_needs_more(kind):
    return any(p.default is p.empty for p in list(signature(kind.__init__).parameters.values())[1:])


@pytest.mark.parametrize(
    ("plain", "match"),
    [
        (SimpleImputer(strategy="constant", fill_value=np.inf), "fill_value=inf"),
        (GridSearchCV(LogisticRegression(), {"gama": [1.0, 2.0]}), "the search is over 'gama'"),
        (make_pipeline(SimpleImputer(strategy="constant", fill_value=np.inf), Ridge()), "simpleimputer: .*fill_value"),
    ],
)
def test_what_a_fit_would_refuse_is_refused_before(plain, match):
    with pytest.raises(NotDeletable, match=match):
        certified.certify(plain)


@pytest.mark.parametrize(
    ("plain", "match"),
    [
        (HistGradientBoostingClassifier(), "GradientBoostingClassifier.*from_booster.*ShardedClassifier"),
        (LogisticRegressionCV(), "GridSearchCV"),
        (LinearSVC(), "LogisticRegression"),
        (TfidfVectorizer(), "HashingVectorizer"),
        (CalibratedClassifierCV(), "calibrated"),
    ],
)
def test_what_has_no_counterpart_has_a_hint(plain, match):
    with pytest.raises(NotDeletable, match=match):
        certified.certify(plain)


def test_the_promise_is_given_to_every_part_that_adds_noise():
    found = certified.certify(make_pipeline(StandardScaler(), LogisticRegression()), epsilon=0.5, delta=1e-7, noise=0.2)
    final = found.steps[-1][1]
    assert (final.epsilon, final.delta, final.noise) == (0.5, 1e-7, 0.2)
    search = certified.certify(GridSearchCV(LogisticRegression(), {"C": [1.0]}), epsilon=0.5)
    assert search.estimator.epsilon == 0.5
    with pytest.raises(InvalidInput, match="no part of which adds noise"):
        certified.certify(GaussianNB(), epsilon=1.0)
