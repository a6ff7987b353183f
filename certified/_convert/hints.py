"""What to use in place of estimators that have no counterpart here: nothing that could not forget."""

from __future__ import annotations

__all__ = ["hint"]

_SHARDS = "ShardedClassifier or ShardedRegressor of certified.ensemble around it"
_BOOSTED = (
    "certified.ensemble.GradientBoosting{kind}, which grows its own trees on a sample or takes those of a booster "
    "that was grown on public rows (from_booster), or " + _SHARDS
)
_SEARCH = "certified.model_selection.GridSearchCV({model}(), {{...}}), whose choice deletes, too"
_LINEAR = "certified.linear_model.LogisticRegression (linear, too, with probabilities)"
_KERNEL = "make_pipeline(certified.kernel_approximation.Nystroem(), {model}())"
_TEXT = "scikit-learn's HashingVectorizer, which learns nothing from the texts"
_FOREST = "certified.ensemble.RandomForest{kind}, or " + _SHARDS

_HINTS = {
    "LogisticRegressionCV": _SEARCH.format(model="LogisticRegression"),
    "RidgeCV": _SEARCH.format(model="Ridge"),
    "RidgeClassifierCV": _SEARCH.format(model="LogisticRegression"),
    "LassoCV": _SEARCH.format(model="Lasso"),
    "LassoLarsCV": _SEARCH.format(model="Lasso"),
    "ElasticNetCV": _SEARCH.format(model="ElasticNet"),
    "HalvingGridSearchCV": "certified.model_selection.GridSearchCV",
    "HalvingRandomSearchCV": "certified.model_selection.RandomizedSearchCV",
    "LinearSVC": _LINEAR,
    "SGDClassifier": _LINEAR,
    "Perceptron": _LINEAR,
    "PassiveAggressiveClassifier": _LINEAR,
    "RidgeClassifier": _LINEAR,
    "SVC": _KERNEL.format(model="LogisticRegression"),
    "NuSVC": _KERNEL.format(model="LogisticRegression"),
    "GaussianProcessClassifier": _KERNEL.format(model="LogisticRegression"),
    "SVR": _KERNEL.format(model="Ridge"),
    "NuSVR": _KERNEL.format(model="Ridge"),
    "KernelRidge": _KERNEL.format(model="Ridge"),
    "GaussianProcessRegressor": _KERNEL.format(model="Ridge"),
    "LinearSVR": "certified.linear_model.Ridge",
    "SGDRegressor": "certified.linear_model.Ridge",
    "HuberRegressor": "certified.linear_model.Ridge",
    "BayesianRidge": "certified.linear_model.Ridge",
    "Lars": "certified.linear_model.Lasso",
    "LassoLars": "certified.linear_model.Lasso",
    "TfidfVectorizer": _TEXT,
    "CountVectorizer": _TEXT,
    "TfidfTransformer": _TEXT + " (norm='l2', alternate_sign=False)",
    "DictVectorizer": "a data frame and certified.preprocessing.OneHotEncoder",
    "LabelEncoder": "the labels themselves: classifiers take text",
    "CalibratedClassifierCV": "the classifier inside it; certified.linear_model.LogisticRegression gives calibrated "
    "probabilities, or calibrate a release on public rows",
    "MaxAbsScaler": "certified.preprocessing.MinMaxScaler",
    "QuantileTransformer": "certified.preprocessing.KBinsDiscretizer or SplineTransformer",
    "PowerTransformer": "certified.preprocessing.SplineTransformer, or FunctionTransformer(numpy.log1p)",
    "KNNImputer": "certified.impute.SimpleImputer",
    "IterativeImputer": "certified.impute.SimpleImputer",
    "MissingIndicator": "certified.impute.SimpleImputer(add_indicator=True)",
    "SelectKBest": "certified.linear_model.Lasso or LogisticRegression(l1_ratio=1), which choose and fit at once",
    "SelectPercentile": "certified.linear_model.Lasso or LogisticRegression(l1_ratio=1), which choose and fit at once",
    "SelectFromModel": "certified.linear_model.Lasso or LogisticRegression(l1_ratio=1), which choose and fit at once",
    "VarianceThreshold": "nothing: a constant feature does no harm",
    "TruncatedSVD": "certified.decomposition.PCA",
    "FastICA": "certified.decomposition.PCA",
    "IncrementalPCA": "certified.decomposition.PCA",
    "KernelPCA": "certified.kernel_approximation.Nystroem",
    "MiniBatchKMeans": "certified.cluster.KMeans",
    "BisectingKMeans": "certified.cluster.KMeans",
    "GaussianMixture": "certified.cluster.KMeans",
    "QuadraticDiscriminantAnalysis": "certified.naive_bayes.GaussianNB or LinearDiscriminantAnalysis",
    "ComplementNB": "certified.naive_bayes.MultinomialNB",
    "LocalOutlierFactor": "certified.ensemble.IsolationForest",
    "OneClassSVM": "certified.ensemble.IsolationForest",
    "DummyClassifier": "certified.naive_bayes.GaussianNB on few features",
    "TransformedTargetRegressor": "certified.linear_model.GammaRegressor or PoissonRegressor (log link), or a target "
    "that is transformed before the fit",
    "ExplainableBoostingClassifier": "certified.additive.AdditiveClassifier",
    "ExplainableBoostingRegressor": "certified.additive.AdditiveRegressor",
}
_FAMILIES = {
    "HistGradientBoosting": _BOOSTED,
    "XGBRF": _FOREST,
    "XGB": _BOOSTED,
    "LGBM": _BOOSTED,
    "CatBoost": _BOOSTED,
    "AdaBoost": _FOREST,
    "Bagging": _FOREST,
    "Voting": _FOREST,
    "Stacking": _FOREST,
    "ExtraTree": _FOREST,
    "MLP": _SHARDS,
    "OneVsRest": "the classifier inside it, which takes several classes",
    "OneVsOne": "the classifier inside it, which takes several classes",
}


def hint(name: str) -> str:
    """Return what to use in place of a class of this name, as the end of a sentence; empty where nothing is known."""
    found = _HINTS.get(name)
    if found is None:
        family = next((text for start, text in _FAMILIES.items() if name.startswith(start)), "")
        found = family.format(kind="Regressor" if name.endswith("Regressor") else "Classifier")
    return f" Use {found}." if found else ""
