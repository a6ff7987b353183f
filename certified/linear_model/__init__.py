"""Linear models that can delete, named as in scikit-learn."""

from certified.linear_model._elastic_net import ElasticNet, Lasso
from certified.linear_model._logistic import LogisticRegression
from certified.linear_model._regressors import GammaRegressor, LogCoshRegressor, PoissonRegressor, TweedieRegressor
from certified.linear_model._ridge import LinearRegression, Ridge

__all__ = [
    "ElasticNet",
    "GammaRegressor",
    "Lasso",
    "LinearRegression",
    "LogCoshRegressor",
    "LogisticRegression",
    "PoissonRegressor",
    "Ridge",
    "TweedieRegressor",
]
