"""Survival models that can delete: times until an event, of which some are only known to be longer than observed."""

from certified.survival._concordance import concordance_index
from certified.survival._piecewise import PiecewiseExponential

__all__ = ["PiecewiseExponential", "concordance_index"]
