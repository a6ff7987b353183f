"""Additive models that can delete: sums of functions of one or two features, to be read off plots."""

from certified.additive._models import AdditiveClassifier, AdditiveRegressor
from certified.additive._shapes import Shape

__all__ = ["AdditiveClassifier", "AdditiveRegressor", "Shape"]
