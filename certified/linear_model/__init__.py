"""Linear models that can forget, named as in scikit-learn."""

from certified.linear_model._logistic import LogisticRegression
from certified.linear_model._regressors import GammaRegressor, LogCoshRegressor, PoissonRegressor, TweedieRegressor
from certified.linear_model._ridge import LinearRegression, Ridge

__all__ = [
    "GammaRegressor",
    "LinearRegression",
    "LogCoshRegressor",
    "LogisticRegression",
    "PoissonRegressor",
    "Ridge",
    "TweedieRegressor",
]
