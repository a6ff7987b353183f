"""One example of every public estimator, found by itself, with data that it takes."""

from typing import Any

import numpy as np
from sklearn.base import is_regressor
from sklearn.neighbors import KNeighborsClassifier as PlainNeighbors
from sklearn.neighbors import KNeighborsRegressor as PlainNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier as PlainTree
from sklearn.tree import DecisionTreeRegressor as PlainTreeRegressor
from sklearn.utils import get_tags

from certified.linear_model import LogisticRegression, Ridge
from certified.preprocessing import KBinsDiscretizer, MinMaxScaler, StandardScaler
from certified.testing import all_estimators

KINDS = dict(all_estimators())
# Parameters of those that need some, and small sizes for those that would take long.
PARAMETERS: dict[str, dict[str, Any]] = {
    "Pipeline": {"steps": [("scale", StandardScaler()), ("head", LogisticRegression())]},
    "ColumnTransformer": {"transformers": [("scale", StandardScaler(), [0, 1])], "remainder": MinMaxScaler()},
    "FeatureUnion": {"transformer_list": [("a", StandardScaler()), ("b", KBinsDiscretizer(4))]},
    "GridSearchCV": {"estimator": Ridge(), "param_grid": {"alpha": [0.1, 10.0]}, "cv": 3},
    "RandomizedSearchCV": {
        "estimator": Ridge(),
        "param_distributions": {"alpha": [0.1, 10.0, 1e3]},
        "n_iter": 2,
        "cv": 3,
    },
    "ContextClassifier": {"estimator": PlainNeighbors(5)},
    "ContextRegressor": {"estimator": PlainNeighborsRegressor(5)},
    "KMeans": {"n_clusters": 3},
    "Nystroem": {"n_components": 5},
    "AdditiveClassifier": {"max_bins": 8, "sample_size": 60, "interactions": 1},
    "AdditiveRegressor": {"max_bins": 8, "sample_size": 60, "interactions": 1},
    "GradientBoostingClassifier": {"n_estimators": 5, "max_depth": 2, "sample_size": 60},
    "GradientBoostingRegressor": {"n_estimators": 5, "max_depth": 2, "sample_size": 60},
    "ShardedClassifier": {"estimator": PlainTree(max_depth=2, random_state=0), "n_shards": 3},
    "ShardedRegressor": {"estimator": PlainTreeRegressor(max_depth=2, random_state=0), "n_shards": 3},
    **{
        name: {"n_estimators": 3}
        for name in ("RandomForestClassifier", "RandomForestRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor")
    },
    "IsolationForest": {"n_estimators": 3},
}
ENCODERS = ("OneHotEncoder", "OrdinalEncoder", "TargetEncoder", "WOEEncoder", "CategoricalNB")
N = 200


def example(name: str) -> Any:
    """An unfitted example. Its keys are given, so that two fits agree."""
    out = KINDS[name](**PARAMETERS.get(name, {}))
    return out.set_params(**{key: 7 for key in out.get_params() if key.split("__")[-1] == "key"})


def data(estimator: Any) -> tuple[Any, Any, Any]:
    """``X, y, ids`` that the estimator takes; every second subject has two rows."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, 4)) * [1.0, 2.0, 0.5, 1.0]
    late = X[:, 0] + 0.5 * X[:, 1] + 0.3 * rng.standard_normal(N)
    ids = np.array([f"S{(2 * i) // 3:03d}" for i in range(N)])
    tags = get_tags(estimator)
    if type(estimator).__name__ in ENCODERS:
        X = np.round(np.abs(X))
    elif tags.input_tags.positive_only:
        X = np.abs(np.round(X, 1))
    if is_regressor(estimator):
        return X, np.exp(0.5 * late) if tags.target_tags.positive_only else late, ids
    return X, (late > 0).astype(int), ids
