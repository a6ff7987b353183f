"""Parameters of scikit-learn's trees that these do not have, with reasons."""

from __future__ import annotations

from typing import Any

from certified.errors import InvalidInput

__all__ = ["REASONS", "refuse"]

# Name: what it is where nothing is asked for, and why more cannot be had.
REASONS: dict[str, tuple[Any, str]] = {
    "max_leaf_nodes": (
        None,
        "the nodes of the whole tree would compete for being split, so that one row could change any of them. Use "
        "max_depth, min_samples_leaf or min_impurity_decrease",
    ),
    "min_weight_fraction_leaf": (0.0, "a share of all rows changes with every deletion. Use min_samples_leaf"),
    "ccp_alpha": (
        0.0,
        "pruning compares whole subtrees, so that one row could bring back any part of one. Use min_impurity_decrease "
        "or min_samples_leaf",
    ),
    "monotonic_cst": (
        None,
        "the limits of a node come from the values of those above it, which change with every deletion. Leave it out",
    ),
    "warm_start": (
        False,
        "a refit has to grow the same forest in one go. Fit with more n_estimators: the first trees are the same",
    ),
    "verbose": (0, "nothing is printed. Leave it out"),
}


def refuse(model: Any, others: dict[str, Any]) -> None:
    """Raise InvalidInput for a parameter of scikit-learn that asks for what cannot be had, TypeError for any other."""
    name = type(model).__name__
    for parameter, value in others.items():
        if parameter not in REASONS:
            raise TypeError(f"{name}.__init__() got an unexpected keyword argument {parameter!r}")
        default, why = REASONS[parameter]
        if value != default:
            raise InvalidInput(f"{name}({parameter}={value!r}) is not supported: {why}.")
