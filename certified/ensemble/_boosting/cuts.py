"""Cuts of trees that are no value of a sampled person.

XGBoost cuts at values of the rows that it learns from, to the last bit, and a release publishes its cuts. Here each cut
is replaced by the shortest binary fraction near it: a function of the sampled rows, so that keeper, refit and release
have the same trees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["rounded"]

_RANKS = 512  # a cut may pass one of so many parts of the distinct values of its feature


def rounded(model: dict[str, Any], X: NDArray[np.float32]) -> dict[str, Any]:
    """Return XGBoost's model, as JSON gives it, with cuts that are no value of these rows.

    A cut stays between the same two neighbours among the values of its feature where these are at most 512, and may
    pass one in 512 of them where they are more. Splits on categories stay as they are.
    """
    inner = model["learner"]["gradient_booster"]["model"]
    known: dict[int, NDArray[np.float64]] = {}
    for tree in inner["trees"]:
        for node, left in enumerate(tree["left_children"]):
            if left == -1 or tree["split_type"][node] == 1:
                continue
            feature = tree["split_indices"][node]
            if feature not in known:
                known[feature] = np.unique(X[~np.isnan(X[:, feature]), feature]).astype(np.float64)
            cut = float(np.float32(tree["split_conditions"][node]))  # the text has the fewest digits that give it
            tree["split_conditions"][node] = _near(cut, known[feature])
    return model


def _near(cut: float, values: NDArray[np.float64]) -> float:
    """Return a float32 near a cut that is none of these sorted values, unless there is none between two of them."""
    if not values.size:
        return cut
    above = int(np.searchsorted(values, cut, side="left"))  # the first value that goes to the right
    width = float(values[-1] - values[0]) or abs(float(values[0])) or 1.0
    if above == 0:  # all values go to the right: the missing ones part from them
        found = _shortest(values[0] - width, values[0])
    elif above == len(values):
        found = _shortest(values[-1], values[-1] + width)
    else:
        reach = max(1, len(values) // _RANKS)
        found = _shortest(values[max(above - reach, 0)], values[min(above + reach - 1, len(values) - 1)])
    if found is None:
        return cut
    at = int(np.searchsorted(values, found, side="left"))
    if at < len(values) and values[at] == found:
        found = _shortest(values[at - 1], found)
    return cut if found is None else found


def _shortest(low: float, high: float) -> float | None:
    """Return the float32 with the shortest binary fraction between two of them, or None where they are neighbours."""
    unit = 2.0 ** (int(np.frexp(max(abs(low), abs(high)))[1]) + 1)
    for _ in range(48):
        point = (np.ceil(high / unit) - 1.0) * unit
        if low < point < high and float(np.float32(point)) == point:
            return float(point)
        unit /= 2.0
    return None
