"""scikit-learn's own checks for every estimator; exceptions are listed with reasons."""

from sklearn.linear_model import LogisticRegression as PlainLogistic
from sklearn.neighbors import KNeighborsRegressor as PlainNeighbors
from sklearn.tree import DecisionTreeRegressor as PlainTree
from sklearn.utils.estimator_checks import parametrize_with_checks

from certified.additive import AdditiveClassifier, AdditiveRegressor
from certified.cluster import KMeans
from certified.compose import ColumnTransformer, make_union
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    ShardedClassifier,
    ShardedRegressor,
)
from certified.impute import SimpleImputer
from certified.kernel_approximation import Nystroem
from certified.linear_model import ElasticNet, Lasso, LinearRegression, LogisticRegression, Ridge
from certified.naive_bayes import BernoulliNB, CategoricalNB, GaussianNB, MultinomialNB
from certified.neighbors import ContextRegressor, KNeighborsClassifier, KNeighborsRegressor
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
from certified.tree import DecisionTreeClassifier, DecisionTreeRegressor

DEALT = "rows are dealt to shards by their ids, so that copies of a row and a weight are not the same"
PERSONS = "noise counts effective rows: a row of weight 2 is one row, a repeated row is two"
BY_ID = "which rows a tree sees, and the sample that codes features, are chosen by ids: repeated rows have others"
BINS = "bins hold enough rows, whatever their weights"
EXPECTED = {
    "LogisticRegression()": {
        f"check_sample_weight_equivalence_on_{kind}_data": PERSONS for kind in ("dense", "sparse")
    },
    "LinearRegression()": {"check_sample_weight_equivalence_on_dense_data": "15 rows, 30 columns, refused"},
    "KMeans(key=7)": {
        "check_sample_weight_equivalence_on_dense_data": "starting points are drawn by the number of rows"
    },
    "AdditiveClassifier(interactions=2, noise=0)": {"check_sample_weight_equivalence_on_dense_data": BINS},
    "AdditiveRegressor(interactions=2)": {"check_sample_weight_equivalence_on_dense_data": BINS},
    "Pipeline": {"check_sample_weight_equivalence_on_dense_data": PERSONS},
    "Forest": {f"check_sample_weight_equivalence_on_{kind}_data": BY_ID for kind in ("dense", "sparse")},
}


def _expected(estimator):
    if str(estimator).startswith("Sharded"):
        return {f"check_sample_weight_equivalence_on_{kind}_data": DEALT for kind in ("dense", "sparse")}
    if "ExtraTrees" in str(estimator) or "Forest" in str(estimator):
        return EXPECTED["Forest"]
    name = str(estimator) if "Pipeline" not in str(estimator) else "Pipeline"
    exact = name == "Pipeline" and "LogisticRegression" not in str(estimator)
    return {} if exact else EXPECTED.get(name, {})


@parametrize_with_checks(
    [
        LogisticRegression(noise=0),
        LogisticRegression(),
        LogisticRegression(noise=0, solver="newton-cg"),
        LogisticRegression(noise=0, l1_ratio=0.3),
        Ridge(),
        LinearRegression(),
        ElasticNet(),
        Lasso(),
        StandardScaler(),
        MinMaxScaler(),
        RobustScaler(),
        KBinsDiscretizer(),
        OneHotEncoder(handle_unknown="ignore"),
        OrdinalEncoder(),
        ColumnTransformer([("scale", StandardScaler(), [0])], remainder=MinMaxScaler()),
        make_union(StandardScaler(), MinMaxScaler()),
        SimpleImputer(),
        SplineTransformer(),
        Nystroem(n_components=2, key=7),
        TargetEncoder(target_type="continuous", key=7),
        GaussianNB(),
        MultinomialNB(),
        BernoulliNB(),
        CategoricalNB(),
        LinearDiscriminantAnalysis(),
        PCA(),
        KNeighborsClassifier(),
        KNeighborsRegressor(),
        ContextRegressor(PlainNeighbors()),
        KMeans(key=7),
        RandomForestClassifier(5, key=0),
        RandomForestRegressor(5, key=0),
        ExtraTreesClassifier(5, key=0),
        ExtraTreesRegressor(5, key=0),
        IsolationForest(n_estimators=5, key=0),
        DecisionTreeClassifier(key=0),
        DecisionTreeRegressor(key=0),
        ShardedClassifier(PlainLogistic(), 2, key=0),
        ShardedRegressor(PlainTree(max_depth=3), 2, key=0),
        AdditiveClassifier(noise=0, interactions=2),
        AdditiveRegressor(interactions=2),
        make_pipeline(SimpleImputer(), Ridge()),
        make_pipeline(SimpleImputer(), MinMaxScaler(), StandardScaler()),
        make_pipeline(StandardScaler(), LogisticRegression(random_state=0)),  # checks seed top-level parameters only
        make_pipeline(StandardScaler(), Ridge()),
        make_pipeline(StandardScaler(), GaussianNB()),
        make_pipeline(StandardScaler(), Lasso(alpha=0.01)),
    ],
    expected_failed_checks=_expected,
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
