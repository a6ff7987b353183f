"""Linear models that can forget, named as in scikit-learn."""

from certified.linear_model._logistic import LogisticRegression
from certified.linear_model._ridge import LinearRegression, Ridge

__all__ = ["LinearRegression", "LogisticRegression", "Ridge"]
