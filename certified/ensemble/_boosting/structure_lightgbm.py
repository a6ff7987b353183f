"""The splits of a trained LightGBM model, as XGBoost has them. LightGBM itself is not imported."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.ensemble._boosting import structure as trees
from certified.ensemble._boosting.objective import Objective
from certified.ensemble._boosting.structure import Structure
from certified.errors import InvalidInput

__all__ = ["is_lightgbm", "names_of", "structure_of"]

_NAMES = {
    "binary:logistic": "binary",
    "multi:softprob": "multiclass",
    "reg:squarederror": "regression",
    "count:poisson": "poisson",
    "reg:gamma": "gamma",
    "reg:tweedie": "tweedie",
}


def is_lightgbm(model: Any) -> bool:
    """Whether this is a Booster or an estimator of LightGBM."""
    return any(kind.__module__.split(".")[0] == "lightgbm" for kind in type(model).__mro__)


def names_of(model: Any) -> list[str]:
    """Names of the columns that a model was trained on; none where LightGBM has given them itself."""
    raw = model if hasattr(model, "dump_model") else getattr(model, "_Booster", None)
    found = [] if raw is None else list(raw.feature_name())
    return [] if found == [f"Column_{j}" for j in range(len(found))] else found


def structure_of(model: Any, objective: Objective) -> Structure:
    """Return the trees of a trained model, or raise InvalidInput where XGBoost cannot have them.

    LightGBM sends ``x <= t`` left, XGBoost ``x < t``: for float32 features the next float32 after the largest one that
    is at most t is the same cut. Its initial score is part of the first tree's leaf values, so predictors start at 0.
    """
    raw = model if hasattr(model, "dump_model") else getattr(model, "_Booster", None)
    if raw is None:
        raise InvalidInput(f"The structure is a {type(model).__name__} that is not fitted. Fit it first.")
    dumped = raw.dump_model()
    found = str(dumped.get("objective", "none")).split(" ")[0]
    if found != _NAMES[objective.name] or dumped.get("average_output"):
        raise InvalidInput(
            f"The structure is a LightGBM model with the objective {found!r}, or a random forest; boosted trees with "
            f"{_NAMES[objective.name]!r} are needed. Train it so."
        )
    made = [_tree(tree["tree_structure"]) for tree in dumped["tree_info"]]
    rounds = len(made) // int(dumped["num_tree_per_iteration"])
    n_features = int(dumped["max_feature_idx"]) + 1
    return trees.assembled(made, n_features, objective.name, objective.options, objective.mean(0.0), rounds)


def _tree(root: dict[str, Any]) -> trees.Nodes:
    found = [root]
    for node in found:  # by breadth: XGBoost takes it that the right child comes next to the left one
        if "split_feature" in node:
            found += [node["left_child"], node["right_child"]]
    number = {id(node): k for k, node in enumerate(found)}
    out = trees.Nodes.empty(len(found))
    for k, node in enumerate(found):
        if "split_feature" not in node:
            _check_leaf(node)
            out.values[k] = float(np.float32(node["leaf_value"]))
            continue
        cut, missing_left = _split(node)
        out.split(k, int(node["split_feature"]), cut, number[id(node["left_child"])], missing_left)
    return out


def _split(node: dict[str, Any]) -> tuple[float, bool]:
    if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
        raise InvalidInput(
            "The structure is a LightGBM model that splits on sets of categories or takes zeros for missing values, "
            "which is not supported. Encode categories as numbers before, and leave zero_as_missing out."
        )
    t = float(node["threshold"])
    with np.errstate(over="ignore"):
        below = np.float32(t)
    if float(below) > t:
        below = np.nextafter(below, np.float32(-np.inf))
    cut = float(np.nextafter(below, np.float32(np.inf)))
    cut = float(np.clip(cut, -_HUGE, _HUGE))
    return cut, bool(node["default_left"]) if node["missing_type"] == "NaN" else t >= 0.0


_HUGE = float(np.finfo(np.float32).max)


def _check_leaf(node: dict[str, Any]) -> None:
    if node.get("leaf_coeff"):
        raise InvalidInput("The structure is a LightGBM model with linear leaves; constant ones are needed.")
