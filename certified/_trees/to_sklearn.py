"""Grown trees as scikit-learn's own, for releases."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.tree._tree import NODE_DTYPE, Tree

from certified._trees.binning import Coding, thresholds
from certified._trees.forest import Forest
from certified._trees.kernels_predict import orders_of
from certified._trees.kernels_split import CATEGORIES, LARGER, LAST, LEFT, ORDERS, SIDES
from certified.typing import FloatArray, IntArray

__all__ = ["Said", "columns_of", "folded", "from_leaves", "leaf_values", "plain_tree", "voted", "width_of"]


class Said(NamedTuple):
    """What is published of the nodes of a tree besides its splits.

    Attributes
    ----------
    values : array of shape (n_nodes, n_values)
    weight : array of shape (n_nodes,)
        In the units of the weights that were given.
    size : array of shape (n_nodes,)
        Where no row of a node has a missing value, missing values go to the child of larger size.
    """

    values: FloatArray
    weight: FloatArray
    size: Any


def width_of(coding: Coding) -> int:
    """Return the number of features that plain trees are given: see :func:`certified._trees.categories.reader`."""
    return len(coding.centre) + (2 * ORDERS - 1) * int(coding.categorical.sum())


def folded(importances: FloatArray, coding: Coding) -> FloatArray:
    """Return for each feature the sum over its columns in plain trees."""
    is_categorical, n = coding.categorical == 1, int(coding.categorical.sum())
    first = 2 * ORDERS * n
    out = np.empty(len(is_categorical))
    out[is_categorical], out[~is_categorical] = (
        importances[:first].reshape(2 * ORDERS, n).sum(axis=0),
        importances[first:],
    )
    return out


def columns_of(nodes: Any, missing_left: Any, coding: Coding) -> IntArray:
    """Return the feature of a plain tree that each node splits."""
    is_categorical, feature = coding.categorical == 1, nodes["feature"]
    n = int(is_categorical.sum())
    first = np.where(is_categorical, np.cumsum(is_categorical) - 1, 2 * ORDERS * n + np.cumsum(~is_categorical) - 1)[
        feature
    ]
    block = orders_of(nodes["path"], feature) + ORDERS * missing_left
    return first + np.where(is_categorical[feature], n * block, 0)


def leaf_values(forest: Forest, stats: Any, scale: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return what every node says, shape (n_nodes, n_values), and the weight of its rows, shape (n_nodes,)."""
    plan = forest.growth
    if plan.classes:
        counts = stats[:, : plan.classes].astype(np.float64)
        weight = counts.sum(axis=1)
        return counts / weight[:, None], weight
    weight = stats[:, 0].astype(np.float64)
    return stats[:, 1 : 1 + plan.outputs] / weight[:, None] * scale, weight


def from_leaves(nodes: Any, of_leaves: FloatArray) -> FloatArray:
    """Return for every node of a tree in preorder the sum over its leaves, which have these values."""
    out = np.zeros((len(nodes), of_leaves.shape[1]))
    out[nodes["feature"] < 0] = of_leaves
    for k in np.flatnonzero(nodes["feature"] >= 0)[::-1].tolist():  # children come after their parents
        out[k] = out[nodes["left"][k]] + out[nodes["right"][k]]
    return out


def voted(values: FloatArray) -> FloatArray:
    """Return 1 for the most frequent class of every node, the first of equals, 0 for the others."""
    return np.eye(values.shape[1])[np.argmax(values, axis=1)]


def plain_tree(forest: Forest, t: int, coding: Coding, says: Any) -> Any:
    """Return tree t as a :class:`sklearn.tree._tree.Tree`.

    Parameters
    ----------
    t : int
        Its number; -1 for a single leaf of all rows.
    says : callable
        From the tree's number, its nodes and their sums to :class:`Said`.
    """
    nodes, stats = forest.tree(t, shown=True) if t >= 0 else (forest.stump(), forest.whole())
    said, weight, size = says(t, nodes, stats)
    inner = np.flatnonzero(nodes["feature"] >= 0)
    out = np.zeros(len(nodes), dtype=NODE_DTYPE)
    out["left_child"], out["right_child"], out["feature"], out["threshold"] = -1, -1, -2, -2.0
    left, right = nodes["left"][inner], nodes["right"][inner]
    out["left_child"][inner], out["right_child"][inner] = left, right
    cut = nodes["cut"][inner]
    at = thresholds(nodes["feature"][inner], cut, coding)
    of_places = nodes["missing"][inner] >= CATEGORIES  # in an order of categories
    side, larger = nodes["missing"][inner] & SIDES, size[left] > size[right]
    missing_left = np.where(side == LARGER, larger, side == LEFT)
    out["feature"][inner] = columns_of(nodes[inner], missing_left, coding)
    out["threshold"][inner] = np.where(of_places, cut + 0.5, np.where(cut == LAST, np.inf, at))
    out["missing_go_to_left"][inner] = missing_left
    out["n_node_samples"], out["weighted_n_node_samples"] = nodes["n"], weight
    out["impurity"] = _impurity(forest.growth.criterion, said, weight, inner, left, right)
    plan = forest.growth
    tree = Tree(width_of(coding), np.full(plan.outputs or 1, plan.classes or 1, dtype=np.intp), plan.outputs or 1)
    shape = (-1, 1, plan.classes) if plan.classes else (-1, plan.outputs or 1, 1)
    tree.__setstate__(
        {
            "max_depth": int(nodes["depth"].max()),
            "node_count": len(nodes),
            "nodes": out,
            "values": np.ascontiguousarray(said.reshape(shape)),
        }
    )
    return tree


def _impurity(criterion: str, said: FloatArray, weight: FloatArray, inner: Any, left: Any, right: Any) -> FloatArray:
    """Impurity of every node; with squared errors, the part of it that the splits below explain."""
    if criterion == "gini":
        return 1.0 - np.sum(said**2, axis=1)
    if criterion in ("entropy", "log_loss"):
        return -np.sum(said * np.log2(np.where(said > 0, said, 1.0)), axis=1)
    out = np.zeros(len(weight))
    if criterion == "poisson":
        for k, a, b in zip(inner[::-1], left[::-1], right[::-1], strict=True):
            share = weight[a] / weight[k]
            between = [_y_log_y(said[c]) for c in (a, b, k)]
            out[k] = share * (out[a] + between[0]) + (1.0 - share) * (out[b] + between[1]) - between[2]
        return out
    if criterion in ("squared_error", "friedman_mse"):
        for k, a, b in zip(inner[::-1], left[::-1], right[::-1], strict=True):  # children come after their parents
            share = weight[a] / weight[k]
            between = share * (1.0 - share) * np.mean((said[a] - said[b]) ** 2)
            out[k] = share * out[a] + (1.0 - share) * out[b] + between
    return out


def _y_log_y(means: FloatArray) -> float:
    return float(np.mean(means * np.log(means)))
