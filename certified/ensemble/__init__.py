"""Ensembles that can forget."""

from certified.ensemble._sharded import ShardedClassifier, ShardedRegressor

__all__ = ["ShardedClassifier", "ShardedRegressor"]
