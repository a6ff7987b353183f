"""Isolation forest whose deletion gives, bit for bit, the forest of a refit."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, Self

import numpy as np
from sklearn.base import OutlierMixin
from sklearn.ensemble import IsolationForest as _Plain
from sklearn.tree import ExtraTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from certified._data.hashing import bottom_k
from certified._data.reproducible import digest
from certified._keeper.plain import named_like
from certified._trees.binning import Coding, encode, thresholds
from certified._trees.estimator import ForestEstimator
from certified._trees.forest import Work
from certified._trees.kernels_grow import NODE
from certified._trees.kernels_isolation import isolate, mean_length
from certified._trees.kernels_predict import mean_depths, scramble
from certified.base import Plan
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["IsolationForest"]


class _Sample(NamedTuple):
    """A tree: the largest hash that its sample holds, and its nodes in preorder."""

    cut: Any
    nodes: Any


class _Stand:
    """The trees, grown on samples of the retained rows; `subjects` are the hashes of these, each once."""

    def __init__(self, trees: list[_Sample], salts: Any, codes: Any, subjects: Any, work: Work) -> None:
        self.trees, self.salts, self.codes, self.subjects, self.work = trees, salts, codes, subjects, work

    @cached_property
    def roots(self) -> IntArray:
        """Where each tree begins among the nodes."""
        sizes = np.array([len(tree.nodes) for tree in self.trees])
        return np.cumsum(sizes) - sizes

    @cached_property
    def nodes(self) -> Any:
        """The nodes of all trees, put together when somebody asks."""
        nodes = np.concatenate([tree.nodes for tree in self.trees])
        sizes = [len(tree.nodes) for tree in self.trees]
        shift = np.repeat(self.roots, sizes).astype(np.int32) * (nodes["feature"] >= 0)
        nodes["left"] += shift
        nodes["right"] += shift
        return nodes

    def hit_by(self, hashes: Any) -> IntArray:
        """Return which trees have a subject of these hashes in their samples."""
        drawn = scramble((hashes ^ self.salts[:, None]).ravel()).reshape(len(self.salts), -1)
        return np.flatnonzero(np.any(drawn <= np.array([[tree.cut] for tree in self.trees]), axis=1))

    def flush(self) -> None:
        """Nothing waits."""


class IsolationForest(OutlierMixin, ForestEstimator):
    """Isolation forest for anomalies, exact under deletion.

    Each tree sees the rows of the subjects whose hashes with the tree are smallest. A deletion of one of them lets the
    next subject in, and the tree is grown anew, which is cheap because it is small; other trees stay.

    Parameters
    ----------
    n_estimators : int, default=100
    max_samples : "auto", int or float, default="auto"
        Subjects that a tree sees; "auto" for 256. A float is a share of the rows, whose number is rounded to a power of
        ``2 ** (1 / 16)``; where a deletion changes it, all trees are grown anew.
    contamination : "auto" or float, default="auto"
        Share of the retained rows that count as anomalies, which sets ``offset_``; "auto" sets it to -0.5.
    n_jobs, verbose, warm_start
        Taken and not used.
    key : int or None, default=None
        As in :class:`RandomForestClassifier`.

    Attributes
    ----------
    offset_ : float
        Scores below it are anomalies.
    max_samples_ : int
    certificate_, ids_, n_rows_, state_digest_
        As in :class:`RandomForestClassifier`.

    References
    ----------
    Liu, Ting and Zhou (2008), Isolation forest.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from certified.ensemble import IsolationForest
    >>> X, _ = load_breast_cancer(return_X_y=True)
    >>> model = IsolationForest().fit(X)
    >>> model.delete([3, 4]).certificate.claim
    'exact'
    """

    _forest: Any

    def __init__(
        self,
        *,
        n_estimators: int = 100,
        max_samples: Any = "auto",
        contamination: Any = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
        key: int | None = None,
    ) -> None:
        self.n_estimators = n_estimators
        self.max_samples = max_samples
        self.contamination = contamination
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.warm_start = warm_start
        self.key = key

    def fit(self, X: Any, y: Any = None, *, ids: Any = None) -> Self:  # type: ignore[override]
        """Grow trees; ``ids`` names the subject of each row, an array or a column of the frame X."""
        return super().fit(X, y, ids=ids)

    def _target(self, y: Any, n_rows: int) -> Any:
        return np.zeros((n_rows, 0), dtype=np.uint16)

    def _takes_shares(self) -> bool:
        return isinstance(self.max_samples, float | np.floating)

    def _subjects_of_tree(self, shared: Any) -> int:
        given = 256 if self.max_samples == "auto" else self.max_samples
        if self._takes_shares():
            if not 0.0 < given <= 1.0:
                raise InvalidInput(
                    f"IsolationForest(max_samples={given!r}) is not allowed: 'auto', a whole number >= 1 or a share of "
                    "the rows in (0.0, 1.0]. Nothing was changed."
                )
            given = max(1, int(given * shared.n_rows))
        for name, value in (("max_samples", given), ("n_estimators", self.n_estimators)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InvalidInput(f"IsolationForest({name}={value!r}) is not allowed: a whole number >= 1.")
        c = self.contamination
        if c != "auto" and not (isinstance(c, float | int) and 0.0 < c <= 0.5):
            raise InvalidInput(f"IsolationForest(contamination={c!r}) is not allowed: 'auto' or a number in (0, 0.5].")
        return int(given)

    def _grow(self, shared: Any, retained: BoolArray, x: Any = None) -> Any:
        k = self._subjects_of_tree(shared)
        seed = np.frombuffer(self._key.to_bytes(16, "little")[:8], dtype=np.uint64)
        salts = scramble(np.arange(self.n_estimators, dtype=np.uint64) + seed)
        codes = encode(self._x if x is None else x, shared.coding)
        codes[:, ~retained] = 0
        subjects = np.unique(self._hashes[retained])
        trees = [self._tree(codes, shared.coding, salt, retained, subjects, k) for salt in salts]
        return _Stand(trees, salts, codes, subjects, Work(0, 0, 0, 0))

    def _tree(self, codes: Any, coding: Coding, salt: Any, retained: BoolArray, subjects: Any, k: int) -> _Sample:
        """Grow the tree of one salt on the rows of the k subjects that come first in its order."""
        drawn = scramble(subjects ^ salt)
        if len(drawn) > 8 * k:  # look among those that are likely to be in it
            some = drawn[drawn <= np.uint64(2.0**64 * (4.0 * k / len(drawn)))]
            drawn = some if len(some) >= k else drawn
        cut = bottom_k(drawn, k)
        rows = np.flatnonzero((scramble(self._hashes ^ salt) <= cut) & retained).astype(np.int32)
        nodes = np.zeros(2 * len(rows), NODE)
        order = np.arange(len(codes))
        depth = int(np.ceil(np.log2(max(min(k, len(rows)), 2))))
        used = isolate(
            codes, rows, salt, depth, nodes, order, np.empty_like(order), coding.centre, coding.scale,
            tuple(coding.blocks), coding.first,
        )  # fmt: skip
        return _Sample(cut, nodes[:used].copy())

    def _plan_deletion(self, rows: IntArray) -> Plan:
        forest, gone = self._grown(), rows[self._retained[rows]]
        retained = self._retained.copy()
        retained[rows] = False
        self._check_some(retained)
        shared = self._based(retained, self._shared, gone) if gone.size else self._shared
        if shared.same(self._shared):
            k, trees, gone_hashes = self._subjects_of_tree(shared), list(forest.trees), np.unique(self._hashes[gone])
            subjects = np.delete(forest.subjects, np.searchsorted(forest.subjects, gone_hashes))
            hit = forest.hit_by(gone_hashes).tolist()
            for t in hit:
                trees[t] = self._tree(forest.codes, shared.coding, forest.salts[t], retained, subjects, k)
            done = forest.work
            work = done._replace(
                subtrees=done.subtrees + len(hit),
                rows_regrown=done.rows_regrown + sum(int(trees[t].nodes["n"][0]) for t in hit),
            )
            after = _Stand(trees, forest.salts, forest.codes, subjects, work)
            regrown = bool(hit)
        else:
            after, regrown = self._grow(shared, retained), True

        erase = self._erasing(rows)

        def commit() -> None:
            self.__dict__.update(_forest=after, _shared=shared)
            after.codes[:, rows] = 0
            erase()

        return Plan(commit, regrown, "exact", np.inf if regrown else 0.0)

    @property
    def estimators_(self) -> list[Any]:
        """The trees as plain ones of scikit-learn."""
        return list(self.release().estimators_)

    @property
    def max_samples_(self) -> int:
        """Subjects that a tree sees."""
        self._check_fitted()
        return min(self._subjects_of_tree(self._shared), len(self._grown().subjects))

    def _scored(self, codes: Any) -> FloatArray:
        forest, n = self._grown(), codes.shape[1]
        out, voters = np.zeros(n), np.zeros(n, np.int64)
        lengths = mean_length(np.arange(int(forest.nodes["n"].max()) + 1))
        mean_depths(codes, 0, n, forest.roots, forest.nodes, lengths, out, voters)
        whole = float(mean_length(self.max_samples_)) * len(forest.trees)
        return -(2.0 ** (-out / whole)) if whole > 0.0 else np.full(n, -0.5)  # as scikit-learn

    def score_samples(self, X: Any) -> FloatArray:
        """Return minus the anomaly score of each row, shape (n_rows,): the lower, the easier to isolate."""
        return self._scored(self._codes(X))

    def decision_function(self, X: Any) -> FloatArray:
        """Return ``score_samples(X) - offset_``: negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> IntArray:
        """Return -1 for anomalies and 1 for the others, shape (n_rows,)."""
        return np.where(self.decision_function(X) < 0.0, -1, 1)

    def fit_predict(self, X: Any, y: Any = None, *, ids: Any = None) -> IntArray:
        """Fit, and return -1 for the anomalies among the rows and 1 for the others."""
        return self.fit(X, y, ids=ids).predict(X)

    @property
    def offset_(self) -> float:
        """Scores below it are anomalies; with a given contamination, a quantile of the scores of the retained rows."""
        self._check_fitted()
        if self.contamination == "auto":
            return -0.5
        if self._served is None:
            scores = np.sort(self._scored(self._grown().codes)[self._retained])
            self._served = float(np.percentile(scores, 100.0 * self.contamination))
        return self._served

    @property
    def memory_(self) -> int:
        """Bytes that the trees take, without the rows."""
        return self._grown().nodes.nbytes

    @property
    def state_digest_(self) -> str:
        """Digest of the trees: equal exactly when two states are equal bit for bit. Private."""
        forest, coding = self._grown(), self._shared.coding
        nodes = forest.nodes
        parts = [nodes[name] for name in ("feature", "cut", "n", "left", "right", "depth")]
        return digest(coding.centre, coding.scale, coding.first, coding.blocks, self._key, self.offset_, *parts)

    def _release(self) -> _Plain:
        """Return scikit-learn's estimator with these trees; it holds no training row."""
        forest, k = self._grown(), self.max_samples_
        out = _Plain(n_estimators=self.n_estimators, max_samples=k, contamination=self.contamination)
        out.estimators_ = [self._plain_tree(tree.nodes) for tree in forest.trees]
        out.estimators_features_ = [np.arange(self.n_features_in_)] * len(forest.trees)
        out.estimator_, out._max_features = ExtraTreeRegressor(), self.n_features_in_
        out.max_samples_ = out._max_samples = k
        out.offset_, out._n_samples = self.offset_, self.n_rows_
        out._average_path_length_per_tree = [mean_length(tree.nodes["n"]) for tree in forest.trees]
        out._decision_path_lengths = [tree.nodes["depth"] + 1.0 for tree in forest.trees]
        return named_like(out, self)

    def _plain_tree(self, nodes: Any) -> ExtraTreeRegressor:
        made = np.zeros(len(nodes), dtype=NODE_DTYPE)
        inner = nodes["feature"] >= 0
        made["left_child"], made["right_child"] = nodes["left"], nodes["right"]
        made["feature"] = np.where(inner, nodes["feature"], -2)
        made["threshold"] = -2.0
        made["threshold"][inner] = thresholds(nodes["feature"][inner], nodes["cut"][inner], self._shared.coding)
        made["n_node_samples"] = made["weighted_n_node_samples"] = nodes["n"]
        tree = Tree(int(self.n_features_in_), np.ones(1, dtype=np.intp), 1)
        depth = int(nodes["depth"].max())
        values = np.zeros((len(nodes), 1, 1))
        tree.__setstate__({"max_depth": depth, "node_count": len(nodes), "nodes": made, "values": values})
        out = ExtraTreeRegressor(max_features=1, splitter="random")
        out.tree_, out.n_features_in_, out.n_outputs_, out.max_features_ = tree, self.n_features_in_, 1, 1
        return out
