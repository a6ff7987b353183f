"""Classification and regression by exact trees: parameters, targets, predictions, releases."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.pipeline import Pipeline
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.multiclass import check_classification_targets

from certified import accounting, noise
from certified._data.targets import classes_left, codes_among, target_column
from certified._keeper.plain import named_like
from certified._keeper.probabilities import LogProbabilities
from certified._trees.categories import Remaining, reader
from certified._trees.parameters import GrowthParameters
from certified._trees.shared_state import SharedState, rounded
from certified._trees.to_sklearn import Said, folded, from_leaves, leaf_values, plain_tree, voted, width_of
from certified.errors import InvalidInput, InvalidRequest
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["PLAIN", "ClassifierTrees", "RegressorTrees", "Trees"]

PLAIN = (
    "criterion",
    "max_depth",
    "min_samples_split",
    "min_samples_leaf",
    "min_weight_fraction_leaf",
    "min_impurity_decrease",
    "max_features",
    "max_leaf_nodes",
    "ccp_alpha",
)
"""Parameters that a plain tree or forest of scikit-learn has too."""


class Trees(GrowthParameters):
    """Base class of trees that are asked for a prediction; subclasses have scikit-learn's parameters."""

    _plain_class: Any  # of a tree

    # ---------------------------------------------------------------- serve

    def _tree(self, t: int, says: Any) -> Any:
        """Return tree t as a plain scikit-learn tree."""
        forest, coding = self._grown(), self._shared.coding
        out = self._plain_class(**{name: getattr(self, name) for name in PLAIN})
        out.tree_ = plain_tree(forest, t, coding, says)
        out.n_outputs_, out.max_features_, out.n_features_in_ = 1, forest.growth.max_features, width_of(coding)
        return out

    @property
    def _unit(self) -> float:
        """Of the weights."""
        return float(np.ldexp(1.0, self._shared.exponent - self._shared.bits)) if self._shared.weighted else 1.0

    def _said(self, t: int, nodes: Any, stats: Any) -> Said:
        values, weight = leaf_values(self._grown(), stats, self._scale)
        return Said(values, weight * self._unit, nodes["n"])

    def _plain(self) -> Any:
        """Return the release, made once after each change."""
        self._check_fitted()
        if self._served is None:
            self._served = self._released(self._said)
        return self._served

    def _released(self, says: Any, trees: Any = None) -> Any:
        """Return the plain scikit-learn estimator, with what its nodes say; of these trees, or of those with rows."""
        raise NotImplementedError

    def _reader(self) -> Any:
        """Return the plain transformer to the features of the plain trees."""
        return reader(self._labels, self._categorical, getattr(self, "feature_names_in_", None))

    def _public(self, trees: Any) -> Any:
        """Return plain trees as they are published: behind the transformer of categories, where there are any."""
        if self._categorical is None:
            return named_like(trees, self)
        return Pipeline([("categories", self._reader()), ("trees", trees)])

    def _features(self, X: Any) -> Any:
        """Return the features of the plain trees."""
        x = self._validated(X, reset=False)
        return x if self._categorical is None else self._reader().transform(X)

    @property
    def n_outputs_(self) -> int:
        """Targets of a row."""
        self._check_fitted()
        return self._values()[1] or 1

    @property
    def feature_importances_(self) -> FloatArray:
        """Share of each feature in what the splits explain, as scikit-learn's."""
        return folded(self._plain().feature_importances_, self._shared.coding)

    def apply(self, X: Any) -> Any:
        """Return the leaf of each row, as the position in the released tree."""
        self._check_fitted()
        return self._plain().apply(self._features(X))

    def decision_path(self, X: Any) -> Any:
        """Return the nodes on the way of each row, as scikit-learn does."""
        self._check_fitted()
        return self._plain().decision_path(self._features(X))


class ClassifierTrees(LogProbabilities, ClassifierMixin, Trees):
    """Trees that say the shares of the classes."""

    _criteria = ("gini", "entropy", "log_loss")
    class_weight: Any
    _class_rows: Any

    def _target(self, y: Any, n_rows: int) -> Any:
        name = type(self).__name__
        y = target_column(y, n_rows, name)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        self.n_classes_ = len(self.classes_)
        if self.n_classes_ < 2:
            raise InvalidInput(f"{name}.fit got y with one class ({self.classes_[0]!r}). Two classes are needed.")
        return codes.astype(np.uint16)[:, None]

    def _in_classes(self, rows: IntArray) -> IntArray:
        """Return how many of these rows that count are in each class."""
        return np.bincount(self._y[rows, 0][self._retained[rows]], minlength=len(self.classes_))

    def _factors(self, retained: BoolArray) -> FloatArray:
        given, name = self.class_weight, type(self).__name__
        if given is None:
            return np.empty(0)
        if isinstance(given, str) and given == "balanced":
            counts = np.bincount(self._y[retained, 0], minlength=len(self.classes_))
            shares = counts.sum() / (len(counts) * np.maximum(counts, 1))
            return rounded(shares)
        known = self.classes_.tolist()
        if not isinstance(given, dict) or not all(k in known and 0.0 < w < np.inf for k, w in given.items()):
            why = " Counts of each tree's rows would change with every deletion." if isinstance(given, str) else ""
            raise InvalidInput(
                f"{name}(class_weight={given!r}) is not allowed: None, 'balanced', or positive numbers for classes "
                f"among {known}.{why} Nothing was changed."
            )
        return np.array([float(given.get(k, 1.0)) for k in known])

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        return codes_among(self.classes_, y, n_rows, f"{type(self).__name__}.add").astype(np.uint16)[:, None]

    def _values(self) -> tuple[int, int]:
        return len(self.classes_), 0

    def _count_classes(self) -> None:
        self._class_rows = self._in_classes(np.flatnonzero(self._retained))

    def _class_counts(self, rows: IntArray) -> Any:
        counts = self._class_rows - self._in_classes(rows)
        return counts if counts.any() else None  # that no row is left is for others to say

    def _erasing(self, rows: IntArray, names: Remaining | None = None) -> Callable[[], None]:
        erase, counts = super()._erasing(rows, names), self._class_rows - self._in_classes(rows)

        def erase_and_count() -> None:
            erase()
            self._class_rows = counts

        return erase_and_count

    def _with_classes_left(self, rows: IntArray) -> tuple[Any, Callable[[], None]] | None:
        left = self._subjects.retained[: len(self._y)].copy()
        left[rows] = False
        found = classes_left(self._y[:, 0].astype(np.int64), left, len(self.classes_))
        if found is None:
            return None
        draft, before = self._draft(), self._y
        draft.classes_, draft.n_classes_ = self.classes_[found[0]], len(found[0])
        draft._y = found[1].astype(np.uint16)[:, None]
        draft._forest = draft._shared = None  # every tree is grown anew
        draft._count_classes()

        def clear() -> None:
            before[:] = 0

        return draft, clear

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the mean over the trees of the shares of the classes, shape (n_rows, n_classes)."""
        return self._mean(self._codes(X))

    def predict(self, X: Any) -> Any:
        """Return the class of the largest probability, shape (n_rows,)."""
        self._check_fitted()
        said = self.predict_proba(X)
        return self.classes_[np.argmax(said, axis=1)]

    def _tree(self, t: int, says: Any) -> Any:
        out = super()._tree(t, says)
        out.classes_, out.n_classes_ = np.arange(len(self.classes_), dtype=np.float64), len(self.classes_)
        return out

    def _release(self, leaves: str = "shares", sigma: float = 0.0) -> Any:
        """Return scikit-learn's estimator with these trees; it holds no training row.

        With categorical features it is a pipeline: a transformer that turns each of them into its places in 8 orders,
        and the trees. It names the categories that rows have.

        An exact model publishes the counts of its leaves. Whoever holds the releases before and after a deletion sees
        which leaves changed, and so where the deleted row lay. The two parameters say less.

        Parameters
        ----------
        leaves : {"shares", "votes"}, default="shares"
            "votes" keeps of each leaf the most frequent class alone, and no counts.
        sigma : float, default=0.0
            Standard deviation of the noise that is added to the weight of every class in every leaf, fresh at each
            release, in the units of the weights. Whatever else is published of a node besides its split is computed
            from the noised leaves. :meth:`release_mu` says how well two releases can be told apart. The splits, and the
            names of categories, are not noised.
        """
        self._check_fitted()
        if leaves not in ("shares", "votes") or not (np.isfinite(sigma) and sigma >= 0.0):
            raise InvalidInput(
                f"{type(self).__name__}.release(leaves={leaves!r}, sigma={sigma!r}) is not allowed: leaves is 'shares' "
                "or 'votes', sigma a finite number >= 0. Nothing was released."
            )
        noised = self._noised_leaves(sigma) if sigma > 0.0 else None

        def says(t: int, nodes: Any, stats: Any) -> Said:
            if noised is None:
                said = self._said(t, nodes, stats)
            else:
                counts = from_leaves(nodes, noised[t])
                weight = counts.sum(axis=1)
                said = Said(counts / weight[:, None], weight, weight)
            return said._replace(values=voted(said.values), weight=np.ones(len(nodes))) if leaves == "votes" else said

        out = self._released(says, None if noised is None else range(self._grown().growth.trees))
        for tree in getattr(out, "estimators_", [out]):
            if sigma > 0.0 or leaves == "votes":
                state = tree.tree_.__getstate__()
                state["nodes"]["n_node_samples"] = 1
                tree.tree_.__setstate__(state)
        return self._public(out)

    def _leaf_weights(self) -> list[FloatArray]:
        """Return for each tree the weights of the classes in its leaves, shape (n_leaves, n_classes)."""
        forest, K = self._grown(), len(self.classes_)
        trees = [forest.tree(t, shown=True) for t in range(forest.growth.trees)]
        return [stats[nodes["feature"] < 0, :K] * self._unit for nodes, stats in trees]

    def _noised_leaves(self, sigma: float) -> list[FloatArray]:
        """Return the same with noise; less than nothing is nothing, and a leaf of nothing has all classes alike."""
        exact = self._leaf_weights()
        flat = np.concatenate([part.ravel() for part in exact])
        flat = np.maximum(noise.release(flat, np.ones_like(flat), float(sigma)), 0.0)
        parts = np.split(flat, np.cumsum([part.size for part in exact])[:-1])
        out = [part.reshape(one.shape) for part, one in zip(parts, exact, strict=True)]
        for part in out:
            part[~part.any(axis=1)] = float(sigma)
        return out

    def release_mu(self, sigma: float, ids: Any = None) -> float:
        """Return mu between ``release(sigma=sigma)`` with and without these subjects, where both have equal splits.

        A subject counts in full: with the weights of all its rows, in every tree that sees them.

        Parameters
        ----------
        sigma : float
        ids : array-like or None
            Subjects held, taken together; None for the one subject that changes most.
        """
        forest = self._grown()
        weights = forest.weights if self._shared.weighted else np.ones(len(forest.retained), np.int64)
        seen = forest.seen()
        if ids is not None:
            rows = self._subjects.rows_of(ids, f"{type(self).__name__}.release_mu(ids=...)")
            squares = sum(int(w) ** 2 for w in (seen[:, rows] * weights[rows]).sum(axis=1))
        else:
            rows = np.flatnonzero(forest.retained)
            distinct, first, where = np.unique(forest.hashes[rows], return_index=True, return_inverse=True)
            of_subject = np.zeros(len(distinct), np.int64)
            np.add.at(of_subject, where, weights[rows])
            trees = seen[:, rows[first]].sum(axis=0)
            squares = max(int(w) ** 2 * int(t) for w, t in zip(of_subject, trees, strict=True))
        flat = np.concatenate([part.ravel() for part in self._leaf_weights()])
        size = float(np.linalg.norm(flat / sigma)) * (1.0 + 2.0**-20)
        rounding = 2.0 * (noise.whiten(flat, np.ones_like(flat), float(sigma))[1] + size * 2.0**-52)
        distance = math.sqrt(squares) * (1.0 + 2.0**-50) * self._unit  # upwards
        return accounting.lattice_mu(distance, float(sigma), flat.size, noise.STEP, rounding)


class RegressorTrees(RegressorMixin, Trees):
    """Trees that say means of targets."""

    _criteria = ("squared_error", "friedman_mse", "poisson")

    def _target(self, y: Any, n_rows: int) -> Any:
        name = type(self).__name__
        if y is None:
            raise InvalidInput(f"{name} requires y to be passed, but the target y is None.")
        y = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
        if y.ndim != 2 or y.shape[1] == 1:
            y = target_column(y, n_rows, name)
        self._flat = y.ndim == 1
        y = np.array(check_array(y, ensure_2d=False, dtype=np.float64))
        assert_all_finite(y, estimator_name=name, input_name="y")
        if self.criterion == "poisson" and np.any(y < 0.0):
            raise InvalidInput(
                f"{name}(criterion='poisson') got targets below 0. Some value(s) of y are negative which is not "
                "allowed for Poisson regression: counts and rates >= 0 are. Nothing was changed."
            )
        if len(y) != n_rows:
            raise InvalidInput(f"{name}.fit got X and y of inconsistent numbers of rows: {n_rows} and {len(y)}.")
        return y.reshape(n_rows, -1)

    def _based(self, retained: BoolArray, before: SharedState | None, gone: Any, x: Any = None) -> SharedState:
        if self.criterion == "poisson" and not np.all((self._y * self._weight[:, None])[retained].sum(axis=0) > 0.0):
            raise (InvalidInput if before is None else InvalidRequest)(
                f"{type(self).__name__}(criterion='poisson') has targets of sum 0 in the rows that would count. Sum of "
                "y is not strictly positive which is necessary for Poisson regression. Nothing was changed."
            )
        return super()._based(retained, before, gone, x)

    def _values(self) -> tuple[int, int]:
        return 0, self._y.shape[1]

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        flat, more = self._flat, self._target(y, n_rows)
        self._flat = flat
        if more.shape[1] != self._y.shape[1]:
            raise InvalidInput(
                f"{type(self).__name__}.add got {more.shape[1]} targets, the fit had {self._y.shape[1]}. Nothing was "
                "changed."
            )
        return more

    def predict(self, X: Any) -> FloatArray:
        """Return the mean over the trees of the means in the leaves, shape (n_rows,) or (n_rows, n_outputs)."""
        out = self._mean(self._codes(X))
        return out[:, 0] if self._flat else out

    def _tree(self, t: int, says: Any) -> Any:
        out = super()._tree(t, says)
        out.n_outputs_ = self._y.shape[1]
        return out

    def _release(self) -> Any:
        """Return scikit-learn's estimator with these trees, or a pipeline for categories; it holds no training row.

        The mean of a leaf is a function of the rows in it: with ``min_samples_leaf=1`` it may be the target of one row.
        """
        self._check_fitted()
        return self._public(self._released(self._said))


def scored(model: Any, truth: Any, said: FloatArray) -> float:
    """Return accuracy or R2 of rows that are predicted; NaN where none is."""
    known = ~np.isnan(said).any(axis=1)
    if not known.any():
        return float("nan")
    if hasattr(model, "classes_"):
        return float(accuracy_score(truth[known, 0], np.argmax(said[known], axis=1)))
    return float(r2_score(truth[known], said[known]))
