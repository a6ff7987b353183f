"""Pipelines from which subjects can be deleted, with scikit-learn's names."""

from certified.compose import FeatureUnion, make_union
from certified.pipeline._pipeline import Pipeline, make_pipeline

__all__ = ["FeatureUnion", "Pipeline", "make_pipeline", "make_union"]
