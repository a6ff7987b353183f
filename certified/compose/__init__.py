"""Transformers side by side, with scikit-learn's names."""

from certified.compose._columns import ColumnTransformer, make_column_transformer
from certified.compose._parallel import Parallel
from certified.compose._selector import make_column_selector
from certified.compose._union import FeatureUnion, make_union

__all__ = [
    "ColumnTransformer",
    "FeatureUnion",
    "Parallel",
    "make_column_selector",
    "make_column_transformer",
    "make_union",
]
