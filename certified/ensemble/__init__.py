"""Ensembles of trees that can forget, named as in scikit-learn. Needs the extra ``certified[trees]``."""

from certified.ensemble._boosting import GradientBoostingClassifier, GradientBoostingRegressor

__all__ = ["GradientBoostingClassifier", "GradientBoostingRegressor"]
