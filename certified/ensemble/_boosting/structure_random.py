"""A structure that no data touched: splits drawn by the key within public ranges of the features."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certified._data.hashing import subject_hash
from certified.ensemble._boosting import structure as trees
from certified.ensemble._boosting.structure import Structure
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["drawn", "ranges_of"]

_DOMAIN = 0x73706C697473  # draws of splits share no hash with the subjects'
_DRAWS = 3  # of each node: feature, cut, side of missing values
_DEEPEST = 15


def ranges_of(given: Any, n_features: int) -> FloatArray:
    """Return public ranges as an array of shape (n_features, 2), or raise InvalidInput."""
    try:
        found = np.array(np.broadcast_to(np.asarray(given, dtype=np.float64), (n_features, 2)))
    except (TypeError, ValueError):
        found = np.full((1, 2), np.nan)
    if not (np.all(np.isfinite(np.float32(found))) and np.all(np.float32(found[:, 0]) < np.float32(found[:, 1]))):
        raise InvalidInput(
            f'structure="random" got feature_ranges={given!r}: a pair (low, high) with low < high is needed, or one '
            f"for each of the {n_features} features. They must be public, as the range of the codes of "
            "KBinsDiscretizer is, not the extremes of your rows. Nothing was changed."
        )
    return found


def drawn(
    ranges: FloatArray,
    *,
    objective: str,
    options: dict[str, Any],
    base_score: float,
    rounds: int,
    depth: int,
    constraints: str | None,
    key: int,
) -> Structure:
    """Return complete trees whose features and cuts are uniform: a function of the arguments alone.

    A cut lies within the part of its feature's range that the nodes above leave; with interaction constraints
    (XGBoost's, as JSON) a tree uses the features of one group. Leaf values are 0.
    """
    if not 0 < depth <= _DEEPEST:
        raise InvalidInput(
            f'structure="random" got max_depth={depth!r}: a whole number from 1 to {_DEEPEST} is needed. Nothing was '
            "changed."
        )
    features = np.arange(len(ranges))
    groups = [features] if constraints is None else _groups(json.loads(constraints), features)
    outputs = int(options.get("num_class", 1))
    inner = 2**depth - 1
    count = rounds * outputs
    u = subject_hash(np.arange(count * (inner + 1) * _DRAWS), key ^ _DOMAIN) >> np.uint64(11)
    uniform = (u.astype(np.float64) * 2.0**-53).reshape(count, inner + 1, _DRAWS)
    made = [_tree(ranges, groups[int(own[inner, 0] * len(groups))], own[:inner]) for own in uniform]
    return trees.assembled(made, len(ranges), objective, options, base_score, rounds)


def _groups(constraints: list[list[int]], features: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Groups of features that may share a tree; a feature that is in none is alone."""
    alone = sorted(set(features.tolist()) - {f for group in constraints for f in group})
    return [np.array(group, dtype=np.int64) for group in constraints if group] + [np.array([f]) for f in alone]


def _tree(ranges: FloatArray, allowed: NDArray[np.int64], uniform: FloatArray) -> trees.Nodes:
    """A complete tree; the children of node k are 2 k + 1 and 2 k + 2."""
    inner = len(uniform)
    nodes = trees.Nodes.empty(2 * inner + 1)
    cells = {0: ranges}
    for k in range(inner):
        cell = cells.pop(k)
        f = int(allowed[int(uniform[k, 0] * len(allowed))])
        low, high = cell[f]
        cut = float(np.float32(low + uniform[k, 1] * (high - low)))
        left, right = cell.copy(), cell.copy()
        left[f, 1], right[f, 0] = max(low, cut), min(high, cut)
        cells[2 * k + 1], cells[2 * k + 2] = left, right
        nodes.split(k, f, cut, 2 * k + 1, bool(uniform[k, 2] < 0.5))
    return nodes
