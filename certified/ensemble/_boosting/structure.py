"""The structure of a boosted model: XGBoost on a hash sample, a deterministic function of the set of sampled rows.

One thread, a fixed seed, rows sorted by the hash of their subject and then by their content: the same sample gives the
same bits whatever the order of the rows. Nothing here sees a row outside the sample, except to find its leaves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xgboost
from numpy.typing import NDArray

from certified._data.hashing import bottom_k
from certified.ensemble._boosting import kernels
from certified.ensemble._boosting.cuts import rounded
from certified.ensemble._boosting.leaf_lookup import walked
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = [
    "Nodes",
    "Structure",
    "accepted",
    "assembled",
    "check_codes",
    "check_names",
    "groups_of",
    "grow",
    "ordered",
    "released",
    "sampled",
]

_MOST_CATEGORIES = 2**24  # XGBoost's limit of codes

_GROUP_KEY = 0x67726F7570  # a second hash, by which subjects are dealt to groups


@dataclass(frozen=True, eq=False)
class Structure:
    """The trees of one group.

    Attributes
    ----------
    model : dict
        XGBoost's model as JSON gives it.
    order : array of shape (n_trees,)
        XGBoost's trees by class and then by round: here the trees of the first class come first.
    index : array of shape (n_trees, most_nodes)
        Number of the leaf, -1 for an inner node.
    values : array of shape (n_leaves,)
        XGBoost's own leaf values.
    tree_of : array of shape (n_leaves,)
    """

    model: dict[str, Any]
    order: IntArray
    index: IntArray
    values: FloatArray
    tree_of: IntArray

    @classmethod
    def of(cls, booster: xgboost.Booster) -> Structure:
        """Read the trees of a booster."""
        return cls.read(json.loads(booster.save_raw("json")))

    @classmethod
    def read(cls, model: dict[str, Any]) -> Structure:
        """Read the trees of XGBoost's model as JSON gives it."""
        inner = model["learner"]["gradient_booster"]["model"]
        order = np.argsort(inner["tree_info"], kind="stable")
        trees = [inner["trees"][t] for t in order]
        width = max(len(tree["left_children"]) for tree in trees)
        index = np.full((len(trees), width), -1, dtype=np.int64)
        values: list[float] = []
        tree_of: list[int] = []
        for t, tree in enumerate(trees):
            for node, left in enumerate(tree["left_children"]):
                if left == -1:
                    index[t, node] = len(values)
                    values.append(tree["split_conditions"][node])
                    tree_of.append(t)
        own = np.array(values, dtype=np.float32).astype(np.float64)
        return cls(model, order, index, own, np.array(tree_of, dtype=np.int64))

    @property
    def text(self) -> str:
        """The model as text: equal exactly where the trees are."""
        return json.dumps(self.model, sort_keys=True)

    @property
    def n_trees(self) -> int:
        """Number of trees."""
        return len(self.index)

    @property
    def base_score(self) -> float:
        """Mean where every leaf value is 0."""
        return float(self.model["learner"]["learner_model_param"]["base_score"].strip("[]").split(",")[0])

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.model["learner"]["learner_model_param"]["num_feature"])

    def booster(self) -> xgboost.Booster:
        """The booster again."""
        return _booster(self.model)

    def leaves(self, X: NDArray[np.float32]) -> NDArray[np.int16]:
        """Return the leaf of each row in each tree, shape (n_rows, n_trees), numbered from 0 within the group."""
        inner = self.model["learner"]["gradient_booster"]["model"]["trees"]
        found = walked([inner[t] for t in self.order], self.index, X)
        if found is not None:
            return found
        booster = self.booster()
        booster.set_param({"nthread": 0})  # whole numbers: the same with any number of threads
        nodes = booster.predict(xgboost.DMatrix(X), pred_leaf=True, strict_shape=True, validate_features=False)
        return kernels.renumbered(nodes.reshape(len(X), -1), self.order, self.index)


def groups_of(hashes: NDArray[np.uint64], n_groups: int) -> IntArray:
    """Return the group whose sample a subject may be in, shape (n_rows,): a second hash of the hash."""
    if n_groups == 1:
        return np.zeros(len(hashes), dtype=np.int64)
    mixed = (hashes ^ np.uint64(_GROUP_KEY)) * np.uint64(0x9E3779B97F4A7C15)
    return ((mixed >> np.uint64(33)) % np.uint64(n_groups)).astype(np.int64)


def sampled(hashes: NDArray[np.uint64], groups: IntArray, n_groups: int, size: float, least: int) -> IntArray:
    """Return the group in whose sample each row is, -1 for none, shape (n_rows,).

    A whole `size` is the number of subjects in the sample of each group: those with the smallest hashes. A share is
    of all subjects, all groups together: those whose hash lies below it, and at least `least` subjects in each group.
    """
    out = np.full(len(hashes), -1, dtype=np.int64)
    for group in range(n_groups):
        mine = groups == group
        if not np.any(mine):
            continue
        cut = np.asarray(bottom_k(hashes[mine], least if isinstance(size, float) else int(size)))
        if isinstance(size, float):
            share = np.uint64(min(int(size * 2.0**64), 2**64 - 1))
            cut = np.maximum(cut, share)
        out[mine & (hashes <= cut)] = group
    return out


def ordered(X: NDArray[np.float32], y: FloatArray, s: FloatArray, hashes: NDArray[np.uint64]) -> IntArray:
    """Return the order of rows by hash, then by content: rows that tie are the same."""
    if len(np.unique(hashes)) == len(hashes):
        return np.argsort(hashes, kind="stable")
    return np.lexsort([s, y, *X.T[::-1], hashes])


def grow(
    X: NDArray[np.float32],
    y: FloatArray,
    s: FloatArray,
    types: list[str] | None,
    params: dict[str, Any],
    rounds: int,
) -> Structure:
    """Train XGBoost on sampled rows in this order and round its cuts; `params` as of ``xgboost.train``.

    Raises InvalidInput where XGBoost refuses them.
    """
    data = xgboost.DMatrix(X, label=y, weight=s, nthread=1, feature_types=types, enable_categorical=types is not None)
    fixed = {"tree_method": "hist", "device": "cpu", "nthread": 1, "seed": 0, "verbosity": 0}
    try:
        grown = xgboost.train({**params, **fixed}, data, num_boost_round=rounds)
    except xgboost.core.XGBoostError as error:
        said = str(error).partition("\n")[0].rstrip(".")
        raise InvalidInput(
            f"XGBoost refused to grow the trees: {said}. Change the parameter that it names. Nothing was changed."
        ) from None
    return Structure.read(rounded(json.loads(grown.save_raw("json")), X[s > 0]))


class Nodes(NamedTuple):
    """A tree made by other means than XGBoost: arrays with an entry for each node, -1 where there is no child."""

    left: IntArray
    right: IntArray
    parent: IntArray
    feature: IntArray
    values: FloatArray
    missing_left: BoolArray

    @classmethod
    def empty(cls, n: int) -> Nodes:
        """So many leaves of value 0."""
        left, right, parent = np.full((3, n), -1, dtype=np.int64)
        return cls(left, right, parent, np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n, dtype=bool))

    def split(self, node: int, feature: int, cut: float, left: int, missing_left: bool) -> None:
        """Give a node children, the right one next to the left one (XGBoost's way): left where the feature is below."""
        right = left + 1
        self.left[node], self.right[node], self.feature[node] = left, right, feature
        self.parent[left] = self.parent[right] = node
        self.values[node], self.missing_left[node] = cut, missing_left


def assembled(
    made: list[Nodes], n_features: int, objective: str, options: dict[str, Any], base_score: float, rounds: int
) -> Structure:
    """Return trees, round after round and in a round by class, as a structure: a model that XGBoost reads."""
    outputs = len(made) // rounds
    data = xgboost.DMatrix(np.zeros((max(outputs, 2), n_features)), label=np.arange(max(outputs, 2)), nthread=1)
    given = {**options, "objective": objective, "base_score": base_score, "verbosity": 0}
    model = json.loads(xgboost.train(given, data, num_boost_round=0).save_raw("json"))
    inner = model["learner"]["gradient_booster"]["model"]
    inner["trees"] = [_plain(nodes, t, n_features) for t, nodes in enumerate(made)]
    inner["tree_info"] = [t % outputs for t in range(len(made))]
    inner["iteration_indptr"] = list(range(0, len(made) + 1, outputs))
    inner["gbtree_model_param"]["num_trees"] = str(len(made))
    return Structure.of(_booster(model))


def _plain(nodes: Nodes, number: int, n_features: int) -> dict[str, Any]:
    n = len(nodes.left)
    no_parent = 2**31 - 1
    zeros = [0.0] * n
    return {
        "base_weights": zeros,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": nodes.missing_left.astype(int).tolist(),
        "id": number,
        "left_children": nodes.left.tolist(),
        "loss_changes": zeros,
        "parents": [no_parent if p < 0 else p for p in nodes.parent.tolist()],
        "right_children": nodes.right.tolist(),
        "split_conditions": nodes.values.tolist(),
        "split_indices": nodes.feature.tolist(),
        "split_type": [0] * n,
        "sum_hessian": zeros,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(n_features),
            "num_nodes": str(n),
            "size_leaf_vector": "1",
        },
    }


def check_codes(types: list[str] | None, X: NDArray[np.float32]) -> None:
    """Raise InvalidInput where a feature of categories holds what is no code."""
    if types is None:
        return
    for j in (j for j, kind in enumerate(types) if kind == "c"):
        codes = X[~np.isnan(X[:, j]), j]
        if np.any((codes < 0) | (codes >= _MOST_CATEGORIES) | (codes != np.floor(codes))):
            raise InvalidInput(
                f"Feature {j} is of categories (categorical_features) and holds values that are no codes: whole "
                f"numbers from 0 to {_MOST_CATEGORIES - 1}, or NaN, are needed. Encode it, by OrdinalEncoder say. "
                "Nothing was changed."
            )


def accepted(booster: Any, objective: str) -> xgboost.Booster:
    """Return the booster of a model of XGBoost, or raise InvalidInput where its leaves cannot be learned anew."""
    fitted = getattr(booster, "__sklearn_is_fitted__", lambda: True)()
    raw = booster.get_booster() if fitted and hasattr(booster, "get_booster") else booster
    if not isinstance(raw, xgboost.Booster):
        raise InvalidInput(
            'structure=... is "sample", "random", or a model: an xgboost.Booster or a fitted estimator of XGBoost or '
            f"LightGBM; got {raw if isinstance(raw, str) else type(raw)!r}. "
            "(scikit-learn's clone() makes an estimator unfitted: give the booster, get_booster(), to a search.)"
        )
    best = getattr(booster, "early_stopping_rounds", None) and raw.attr("best_iteration")
    if best:  # an estimator predicts with these trees alone
        raw = raw[: int(best) + 1]
    learner = json.loads(raw.save_raw("json"))["learner"]
    kind, found = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind != "gbtree" or found != objective:
        raise InvalidInput(
            f"The structure is a {kind} model with the objective {found!r}; trees (gbtree) with {objective!r} are "
            "needed. Train it so."
        )
    inner = learner["gradient_booster"]["model"]
    vectors = any(int(tree["tree_param"]["size_leaf_vector"]) > 1 for tree in inner["trees"])
    if vectors or inner["gbtree_model_param"]["num_parallel_tree"] != "1":
        raise InvalidInput(
            "The structure has several trees in a round, or vectors in its leaves; one tree for each round and class "
            "is needed. Leave num_parallel_tree and multi_strategy out."
        )
    return raw


def check_names(found: Any, names: Any) -> None:
    """Raise InvalidInput where a structure was trained on columns of other names, or in another order."""
    if not found or names is None or list(found) == list(map(str, names)):
        return
    raise InvalidInput(
        f"The structure was trained on the columns {list(found)}, and X has {list(map(str, names))}. The same columns "
        "in the same order are needed: its cuts belong to them. Select them, X[booster.feature_names] say. Nothing "
        "was changed."
    )


def _booster(model: dict[str, Any]) -> xgboost.Booster:
    return xgboost.Booster({"nthread": 1}, model_file=bytearray(json.dumps(model).encode()))


def released(
    structures: tuple[Structure, ...],
    v: FloatArray,
    base_score: float,
    names: tuple[str, ...] = (),
    categories: dict[str, Any] | None = None,
) -> bytearray:
    """Return XGBoost's model with these leaf values, as JSON, without statistics of the rows.

    Sums of Hessians and weights of inner nodes are overwritten with 0, the gain of a split with what the released leaf
    values alone say of it: the squared difference of their means on its two sides. `names` are those of the features,
    `categories` those that a booster brought, as its model has them.
    """
    trees: list[dict[str, Any]] = []
    start = 0
    for part in structures:
        values = np.asarray(v[start : start + len(part.values)], dtype=np.float32).astype(np.float64).tolist()
        own: list[Any] = [None] * part.n_trees
        grown = part.model["learner"]["gradient_booster"]["model"]["trees"]
        for t, index in zip(part.order, part.index.tolist(), strict=True):
            cuts = [cut if j < 0 else values[j] for cut, j in zip(grown[t]["split_conditions"], index, strict=False)]
            zeros = [0.0] * len(cuts)
            bare = {
                "loss_changes": _gains(grown[t], cuts),
                "sum_hessian": zeros,
                "base_weights": zeros,
                "split_conditions": cuts,
            }
            own[t] = {**grown[t], **bare}
        trees += own
        start += len(part.values)
    learner = structures[0].model["learner"]
    outputs = len(set(learner["gradient_booster"]["model"]["tree_info"]))
    inner = {
        **learner["gradient_booster"]["model"],
        "trees": [{**tree, "id": t} for t, tree in enumerate(trees)],
        "tree_info": [t % outputs for t in range(len(trees))],
        "iteration_indptr": list(range(0, len(trees) + 1, outputs)),
    }
    inner["gbtree_model_param"] = {**inner["gbtree_model_param"], "num_trees": str(len(trees))}
    if categories is not None:  # also where trees were grown anew on their codes
        inner["cats"] = categories
    learned = dict(learner["learner_model_param"])
    learned["base_score"] = "[" + ",".join([repr(base_score)] * (learned["base_score"].count(",") + 1)) + "]"
    booster = {**learner["gradient_booster"], "model": inner}
    if any(set(name) & set("[]<") for name in names):  # XGBoost cannot have them
        names = ()
    learner = {
        **learner,
        "attributes": {},
        "feature_names": list(names),
        "gradient_booster": booster,
        "learner_model_param": learned,
    }
    return bytearray(json.dumps({**structures[0].model, "learner": learner}).encode())


def _gains(tree: dict[str, Any], values: list[float]) -> list[float]:
    """Return a number for each node: 0 of a leaf, else how far apart the means of the leaves on its two sides are."""
    gains, means, count = [0.0] * len(values), list(values), [1] * len(values)
    for node in reversed(_from_the_root(tree)):
        left, right = tree["left_children"][node], tree["right_children"][node]
        if left == -1:
            continue
        gains[node] = float(np.float32((means[left] - means[right]) ** 2))
        count[node] = count[left] + count[right]
        means[node] = (count[left] * means[left] + count[right] * means[right]) / count[node]
    return gains


def _from_the_root(tree: dict[str, Any]) -> list[int]:
    """Return the nodes of a tree, each after its parent."""
    found = [0]
    for node in found:
        if tree["left_children"][node] != -1:
            found += [tree["left_children"][node], tree["right_children"][node]]
    return found
