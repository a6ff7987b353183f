"""Transformers that delete exactly: what they learn is a stable function of the set of rows.

Stable: maintained exactly (a deletion gives bit for bit the state of a refit) and piecewise constant (few deletions
change what is served to the next step).
"""

from certified.preprocessing._bins import KBinsDiscretizer
from certified.preprocessing._encoders import OneHotEncoder, OrdinalEncoder
from certified.preprocessing._quantiles import MinMaxScaler, RobustScaler
from certified.preprocessing._splines import SplineTransformer
from certified.preprocessing._standard import StandardScaler
from certified.preprocessing._targets import TargetEncoder, WOEEncoder

__all__ = [
    "KBinsDiscretizer",
    "MinMaxScaler",
    "OneHotEncoder",
    "OrdinalEncoder",
    "RobustScaler",
    "SplineTransformer",
    "StandardScaler",
    "TargetEncoder",
    "WOEEncoder",
]
