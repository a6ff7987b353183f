"""Transformers side by side, with scikit-learn's names."""

from certified.compose._compose import ColumnTransformer, FeatureUnion, make_column_transformer, make_union
from certified.compose._selector import make_column_selector

__all__ = ["ColumnTransformer", "FeatureUnion", "make_column_selector", "make_column_transformer", "make_union"]
