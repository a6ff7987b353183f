"""Parameters of scikit-learn's trees that these do not have, with reasons."""

from __future__ import annotations

__all__ = ["REASONS"]

REASONS: dict[str, str] = {
    "max_leaf_nodes": "the nodes of the whole tree would compete for being split, so that one row could change any of "
    "them. Use max_depth, min_samples_leaf or min_impurity_decrease",
    "min_weight_fraction_leaf": "a share of all rows changes with every deletion. Use min_samples_leaf",
    "ccp_alpha": "pruning compares whole subtrees, so that one row could bring back any part of one. Use "
    "min_impurity_decrease or min_samples_leaf",
    "monotonic_cst": "the limits of a node come from the values of those above it, which change with every deletion. "
    "Leave it out",
    "warm_start": "a refit has to grow the same forest in one go. Fit with more n_estimators: the first trees "
    "are the same",
}
