"""Ensembles that can forget."""

from certified.ensemble._sharded import ShardedClassifier, ShardedRegressor
from certified.ensemble._sharded_base import DeletionCost

__all__ = ["DeletionCost", "ShardedClassifier", "ShardedRegressor"]
