"""Survival models that can delete: times until an event, of which some are only known to be longer than observed."""

from certified.survival._concordance import concordance_index
from certified.survival._cox import CoxPH
from certified.survival._piecewise import PiecewiseExponential

__all__ = ["CoxPH", "PiecewiseExponential", "concordance_index"]
