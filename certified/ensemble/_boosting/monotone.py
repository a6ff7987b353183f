"""Leaf values that keep monotone constraints, made from leaf values that do not: post-processing of a release.

A tree is monotone in a feature if, at each of its splits on it, no leaf on the side of the lower values exceeds a leaf
on the other side. Proof: ``docs/theory/leaves.rst``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.ensemble._boosting.structure import Structure
from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["clipped", "sides_of", "signs_of"]


def signs_of(given: Any, names: Any, types: Any, n_features: int) -> IntArray:
    """Return 1 (rising), -1 (falling) or 0 for each feature, or raise InvalidInput."""
    signs: Any = None
    if isinstance(given, dict):
        places = {name: k for k, name in enumerate(names)} | {k: k for k in range(n_features)}
        if set(given) <= set(places):
            signs = np.zeros(n_features)
            signs[[places[name] for name in given]] = list(given.values())
    elif not isinstance(given, str):
        signs = np.asarray(given)
    if signs is None or signs.shape != (n_features,) or not np.all(np.isin(signs, (-1, 0, 1))):
        raise InvalidInput(
            f"monotone_constraints={given!r} is not allowed with {n_features} features: 1, -1 or 0 for each of them, "
            "or a dict of them by the feature's name or number, is needed. Nothing was changed."
        )
    if types is not None and any(sign and kind == "c" for sign, kind in zip(signs, types, strict=True)):
        raise InvalidInput(
            f"monotone_constraints={given!r} holds a feature of categories (categorical_features), which have no "
            "order. Set it to 0. Nothing was changed."
        )
    return np.asarray(signs, dtype=np.int64)


def sides_of(structures: tuple[Structure, ...], signs: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Return lower and upper leaves of each split on a constrained feature, children before parents.

    Leaves are numbered one group after the other.
    """
    out: list[tuple[IntArray, IntArray]] = []
    start = 0
    for part in structures:
        made = part.model["learner"]["gradient_booster"]["model"]["trees"]
        for t, index in zip(part.order, part.index, strict=True):
            out += _sides(made[t], index + start, signs)
        start += len(part.values)
    return out


def clipped(v: FloatArray, sides: list[tuple[IntArray, IntArray]]) -> FloatArray:
    """Return leaf values of which no lower one exceeds an upper one: the sides of a split are clipped where they meet.

    Clipping is a rising function: it leaves the order of leaves below the split as it is.
    """
    out = v.copy()
    for low, high in sides:
        most, least = out[low].max(), out[high].min()
        if most > least:
            cut = 0.5 * (most + least)
            out[low], out[high] = np.minimum(out[low], cut), np.maximum(out[high], cut)
    return out


def _sides(tree: dict[str, Any], index: IntArray, signs: IntArray) -> list[tuple[IntArray, IntArray]]:
    """Lower and upper leaves of the splits of a tree on constrained features, children before parents."""
    left, right = tree["left_children"], tree["right_children"]
    order = [0]
    for node in order:
        if left[node] != -1:
            order += [left[node], right[node]]
    below: dict[int, IntArray] = {}
    out = []
    for node in reversed(order):
        if left[node] == -1:
            below[node] = index[node : node + 1]
            continue
        low, high = below[left[node]], below[right[node]]
        sign = signs[tree["split_indices"][node]]
        if sign:
            out.append((low, high) if sign > 0 else (high, low))
        below[node] = np.concatenate([low, high])
    return out
