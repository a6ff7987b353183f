"""Trees in flat arrays: grown once, reduced in place, equal at every moment to what a refit would grow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from certified._trees import kernels_delete, kernels_predict
from certified._trees.kernels_grow import NODE, RULES, grow
from certified._trees.kernels_split import ENTROPY, GINI, LEAD, POISSON, SMALL, SQUARES
from certified.progress import track
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["Forest", "Growth", "Work"]

_LARGE = 64  # rows in a node whose counts are kept at least
_SHARE = 8  # bytes of counts for each row and level of a tree at most
CRITERIA = {
    "gini": GINI,
    "entropy": ENTROPY,
    "log_loss": ENTROPY,
    "squared_error": SQUARES,
    "friedman_mse": SQUARES,
    "poisson": POISSON,
}


@dataclass(frozen=True)
class Growth:
    """How trees are grown: parameters as in scikit-learn, all of them resolved to numbers.

    Attributes
    ----------
    classes : int
        0 for regression.
    outputs : int
        Targets of regression.
    weighted : bool
    key : int
        64 bits that, with the ids, decide all that is random.
    share : float
        Of the trees that see a row.
    floor : float
        What a split explains at least, in units of the integers.
    min_weight : int
        Of a leaf, where rows have weights.
    max_leaves : int
        Leaves that a tree shows at most; 0 for all.
    alpha : float
        What each leaf that is shown explains at least, in units of the integers, for each unit of weight of the tree.
    """

    trees: int
    criterion: str
    classes: int
    outputs: int
    weighted: bool
    max_features: int
    n_bins: int
    depth: int
    min_samples_leaf: int
    min_samples_split: int
    random: bool
    share: float
    key: int
    threads: int = 1
    floor: float = 0.0
    min_weight: int = 0
    max_leaves: int = 0
    alpha: float = 0.0

    @property
    def kind(self) -> int:
        """0 and 1: counts of classes, without and with weights; 2 and 3: sums of targets."""
        return (0 if self.classes else 2) + self.weighted

    @property
    def width(self) -> int:
        """Integers of a node or cell."""
        return (self.classes or 1 + self.outputs) + self.weighted

    @property
    def integer(self) -> Any:
        """Their type."""
        return np.int32 if self.kind == 0 else np.int64

    def rule(self) -> Any:
        """What the kernels need."""
        counts = self.max_features * (self.n_bins + 1) * self.width * np.dtype(self.integer).itemsize
        out = np.zeros(1, dtype=RULES)
        out["kind"], out["criterion"], out["random"] = self.kind, CRITERIA[self.criterion], self.random
        out["n_bins"], out["max_features"], out["depth"] = self.n_bins, self.max_features, self.depth
        out["min_samples_leaf"], out["min_samples_split"], out["large"] = (
            self.min_samples_leaf,
            self.min_samples_split,
            max(_LARGE, counts // _SHARE),
        )
        out["floor"], out["min_weight"] = self.floor, self.min_weight
        return out[0]

    def salts(self) -> Any:
        """One number for each tree, uint64."""
        seed = hashlib.blake2b(self.key.to_bytes(16, "little"), digest_size=8).digest()
        numbers = np.arange(self.trees, dtype=np.uint64) + np.frombuffer(seed, dtype=np.uint64)
        return kernels_predict.scramble(numbers)


class Work(NamedTuple):
    """What deletions have cost: nodes visited, rows counted again, subtrees grown again, rows in these."""

    nodes: int
    rows_counted: int
    subtrees: int
    rows_regrown: int


@dataclass
class _Trees:
    """All trees in arrays; ``places[t]`` are the bounds of tree t in nodes, slots and rows, `counts` what is free."""

    nodes: Any
    stats: Any
    hists: Any
    spans: Any
    rows: Any
    free: Any
    free_slots: Any
    places: Any
    counts: Any
    roots: Any
    stale: list[tuple[Any, Any]] = field(default_factory=list)


class Forest:
    """Trees and the rows that they were grown on, as codes and integers.

    Parameters
    ----------
    growth : Plan
    codes : uint16 array of shape (n_features, n_rows)
    targets : integer array of shape (n_rows, n_targets)
        Codes of classes (uint16), or integers (int64), already weighted.
    weights : int64 array of shape (n_rows,), empty where there are none
    retained : bool array of shape (n_rows,)
        Rows that count.
    hashes : uint64 array of shape (n_rows,)
        Of the subject of each row.
    is_categorical : uint8 array of shape (n_features,)
        1 for categories, 0 for numbers.
    """

    # Where trees lie, what is left in the memory that they grow in, and what deletions have cost follow from the past.
    # None of it is stored: a pickle lays the trees out anew.
    working_memory = ("_scratch", "_trees", "_work", "_shown")

    def __init__(
        self,
        growth: Growth,
        codes: Any,
        targets: Any,
        weights: Any,
        retained: BoolArray,
        hashes: Any,
        is_categorical: Any,
    ) -> None:
        self.growth, self.codes, self.targets, self.weights, self._sorts = (
            growth,
            codes,
            targets,
            weights,
            is_categorical,
        )
        self.retained, self.hashes = retained, hashes
        self._work = np.zeros(4, np.int64)
        self._salts = growth.salts()
        self._rule = growth.rule()
        self._cut = np.uint64(min(int(growth.share * 2.0**64), 2**64 - 1))
        self._scratch: list[Any] = []
        self._shown: Any = None
        self._trees = self._packed(
            list(track(self._one_by_one(self._grown, range(growth.trees)), "trees", growth.trees))
        )

    # ----------------------------------------------------------------- grow

    def _each(self, call: Any, items: Any) -> list[Any]:
        """Call for every item, in threads where there are several."""
        return list(self._one_by_one(call, items))

    def _one_by_one(self, call: Any, items: Any) -> Iterator[Any]:
        threads = min(self.growth.threads, len(items))
        if threads <= 1:
            yield from map(call, items)
            return
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(call, items)

    def _memory(self, n: int) -> Any:
        """Return memory to grow a tree of n rows in, of this thread until it is given back."""
        for k, memory in enumerate(self._scratch):
            if len(memory[0][4]) >= n:
                return self._scratch.pop(k)
        growth, K = self.growth, self.growth.width
        most = 2 * max(n, 1) if growth.depth > 40 else min(2 * max(n, 1), 2 ** (growth.depth + 1))
        slots = min(most, 4 * n // int(self._rule["large"]) + 16)
        shape = (growth.max_features, growth.n_bins + 1, K)
        fresh = (
            np.zeros(most, NODE),
            np.zeros((most, K), growth.integer),
            np.zeros((slots, *shape), growth.integer),
            np.zeros((slots, growth.max_features, 8), np.int32),
            np.empty(n, np.int32),
        )
        scratch = (
            np.arange(len(self.codes)),
            np.empty(len(self.codes), np.int64),
            np.empty(n, np.uint16),
            np.empty((n, self.targets.shape[1]), self.targets.dtype),
            np.empty(n if growth.weighted else 0, np.int64),
            np.zeros(shape, growth.integer),
            np.zeros((growth.max_features, 8), np.int32),
            np.zeros((2, K), growth.integer),
            np.empty(2),
            np.zeros(5, np.int64),
            np.empty(n, np.int32),
            self._sorts,
            np.empty(SMALL, np.int64),
        )
        return fresh, scratch

    def seen(self, rows: Any = slice(None)) -> BoolArray:
        """Return which tree sees which of these rows, shape (n_trees, n_rows)."""
        if self.growth.share >= 1.0:
            return np.broadcast_to(self.retained[rows], (self.growth.trees, len(self.hashes[rows])))
        return kernels_predict.member(self.hashes[rows], self._salts, self._cut) & self.retained[rows]

    def _grown(self, t: int) -> Any:
        """Grow tree t; return its nodes, sums, slots and rows."""
        inside = self.retained
        if self.growth.share < 1.0:
            inside = inside & kernels_predict.member(self.hashes, self._salts[t : t + 1], self._cut)[0]
        rows = np.flatnonzero(inside).astype(np.int32)
        memory = self._memory(len(self.hashes))
        (nodes, stats, hists, spans, _), scratch = memory
        used, slots = grow(
            self.codes, rows, self.targets, self.weights, self._rule, self._salts[t], 0, 0, len(rows), nodes, stats,
            hists, spans, scratch,
        )  # fmt: skip
        out = nodes[:used].copy(), stats[:used].copy(), hists[:slots].copy(), spans[:slots].copy(), rows
        self._scratch.append(memory)
        return out

    def _packed(self, grown: list[Any], room: int = 1) -> _Trees:
        """Return trees side by side, with room to grow: so many eighths of what they have."""
        sizes = np.array([(len(part[0]), len(part[2]), len(part[4])) for part in grown]).reshape(-1, 3)
        sized = sizes + room * ([64, 8, 0] + sizes // [8, 8, 1] * [1, 1, 0])
        ends = np.cumsum(sized, axis=0)
        places = np.stack([ends - sized, ends], axis=2).reshape(-1, 6)
        n_nodes, n_slots, n_rows = ends[-1]
        first = grown[0]
        trees = _Trees(
            nodes=np.zeros(n_nodes, NODE),
            stats=np.zeros((n_nodes, first[1].shape[1]), first[1].dtype),
            hists=np.zeros((n_slots, *first[2].shape[1:]), first[2].dtype),
            spans=np.zeros((n_slots, *first[3].shape[1:]), np.int32),
            rows=np.full(n_rows, -1, np.int32),
            free=np.zeros(n_nodes, np.int32),
            free_slots=np.zeros(n_slots, np.int32),
            places=places,
            counts=np.ascontiguousarray(sized[:, :2] - sizes[:, :2]),
            roots=places[:, 0].copy(),
        )
        trees.nodes["feature"] = -2
        for (nodes, stats, hists, spans, rows), (n0, n1, s0, s1, r0, _) in zip(grown, places, strict=True):
            nodes["left"] += np.where(nodes["feature"] >= 0, n0, 0).astype(np.int32)
            nodes["right"] += np.where(nodes["feature"] >= 0, n0, 0).astype(np.int32)
            nodes["slot"] += np.where(nodes["slot"] >= 0, s0, 0).astype(np.int32)
            nodes["start"] += np.int32(r0)
            nodes["stop"] += np.int32(r0)
            trees.nodes[n0 : n0 + len(nodes)], trees.stats[n0 : n0 + len(nodes)] = nodes, stats
            trees.hists[s0 : s0 + len(hists)], trees.spans[s0 : s0 + len(hists)] = hists, spans
            trees.rows[r0 : r0 + len(rows)] = rows
            trees.free[n0 : n1 - len(nodes)] = np.arange(n0 + len(nodes), n1)
            trees.free_slots[s0 : s1 - len(hists)] = np.arange(s0 + len(hists), s1)
        return trees

    def _repacked(self, room: int) -> _Trees:
        """Return the same trees with more room, laid out as if newly grown: memory tells little of what was deleted."""
        old, grown = self._trees, []
        for t, (first, last) in enumerate(old.places[:, 4:]):
            nodes, stats = self.tree(t)
            retained = np.flatnonzero((nodes["slot"] >= 0) & (nodes["n"] >= self._rule["large"]))
            slots = nodes["slot"][retained]
            nodes["slot"] = -1
            nodes["slot"][retained] = np.arange(len(retained))
            nodes["start"] -= np.int32(first)
            rows = kernels_predict.settle(nodes, old.rows[first:last])
            spans = old.spans[slots]
            spans[:, 0, LEAD] = 0  # how far the best split was ahead, less what was deleted since
            grown.append((nodes, stats, old.hists[slots], spans, rows))
        new = self._packed(grown, room)
        marked = [(new.places[t, 0] + np.flatnonzero(nodes["stale"]), t) for t, (nodes, *_) in enumerate(grown)]
        new.stale = [(found, np.full(found.size, t)) for found, t in marked if found.size]
        return new

    # --------------------------------------------------------------- delete

    def delete(self, rows: IntArray) -> None:
        """Delete rows from every tree that sees them. Subtrees that must be grown anew wait for :meth:`flush`."""
        self._shown = None
        owner, which = np.nonzero(self.seen(rows))
        self.retained[rows] = False
        gone = rows[which].astype(np.int32)
        starts = np.searchsorted(owner, np.arange(self.growth.trees + 1))
        found = self._each(lambda part: self._removed(part[0], part[1], starts, gone), self._parts(rows.size > 64))
        self._trees.stale.extend(part for part in found if len(part[0]))

    def _parts(self, many: bool) -> list[tuple[int, int]]:
        """Return ranges of trees, one for each thread where there is much to do."""
        trees, threads = self.growth.trees, self.growth.threads
        if threads == 1 or not many:
            return [(0, trees)]
        edges = np.linspace(0, trees, 4 * threads + 1).astype(int).tolist()
        return [(a, b) for a, b in pairwise(edges) if a < b]

    def _removed(self, first: int, last: int, starts: IntArray, gone: Any) -> tuple[Any, Any]:
        """Delete rows from some trees; return the nodes that are stale, and their trees."""
        trees = self._trees
        most = int(starts[last] - starts[first])
        stale, owner = np.empty(most, np.int64), np.empty(most, np.int64)
        memory = self._memory(len(self.hashes))
        n = kernels_delete.delete_all(
            first, last, starts, gone, trees.roots, self.codes, self.targets, self.weights, self.retained, self._rule,
            trees.nodes, trees.stats, trees.hists, trees.spans, trees.rows, stale, owner, memory[1], self._work,
        )  # fmt: skip
        self._scratch.append(memory)
        return stale[:n], owner[:n]

    def erase(self, rows: IntArray) -> None:
        """Overwrite what is kept of rows that were deleted."""
        self.codes[:, rows] = 0
        self.targets[rows] = 0
        if self.growth.weighted:
            self.weights[rows] = 0

    @property
    def work(self) -> Work:
        """What deletions have cost so far."""
        return Work(*self._work.tolist())

    @property
    def waiting(self) -> int:
        """Number of subtrees marked to be grown anew."""
        return sum(len(stale) for stale, _ in self._trees.stale)

    def flush(self) -> None:
        """Grow anew all subtrees that are marked."""
        room = 1
        if self._trees.stale:
            self._shown = None
        while self._trees.stale:
            batches, self._trees.stale = self._trees.stale, []
            stale, owner = (np.concatenate(part) for part in zip(*batches, strict=True))
            if len(batches) > 1:  # parents before children
                order = np.lexsort((self._trees.nodes["depth"][stale], owner))
                stale, owner = stale[order], owner[order]
            edges = np.searchsorted(owner, [a for a, _ in self._parts(len(stale) > 16)])
            parts = [k for k in np.split(np.arange(len(stale)), edges[1:]) if k.size]
            again = self._one_by_one(lambda k, stale=stale, owner=owner: self._regrown(stale[k], owner[k]), parts)
            done = list(track(again, "parts of the forest", len(parts)))
            if not all(done):
                room *= 2
                self._trees = self._repacked(room)

    def _regrown(self, stale: IntArray, owner: IntArray) -> bool:
        """Grow subtrees of some trees anew; return whether there was room for all."""
        trees = self._trees
        memory = self._memory(len(self.hashes))
        fresh, scratch = memory
        done = kernels_delete.regrow_all(
            stale, owner, self.codes, self.targets, self.weights, self._rule, trees.nodes, trees.stats, trees.hists,
            trees.spans, trees.rows, trees.free, trees.free_slots, trees.places, trees.counts, fresh, scratch,
            self._work,
        )  # fmt: skip
        self._scratch.append(memory)
        return bool(done == len(stale))

    # ---------------------------------------------------------------- serve

    def predict(self, codes: Any, scale: FloatArray, seen: Any = None) -> tuple[FloatArray, IntArray]:
        """Return the sum of what the trees say of rows with these codes, and how many trees said something."""
        n = codes.shape[1]
        out, voters = np.zeros((n, self.growth.classes or self.growth.outputs)), np.zeros(n, np.int64)
        trees, seen = self._trees, np.empty((0, 0), bool) if seen is None else seen
        every, shown = np.arange(self.growth.trees), self._shown_nodes()

        def part(bounds: tuple[int, int]) -> None:
            first, last = bounds
            kernels_predict.predict(
                codes, first, last, trees.roots, every, shown, trees.stats, self.growth.classes,
                self.growth.outputs, scale, seen, out, voters,
            )  # fmt: skip

        edges = np.linspace(0, n, (self.growth.threads if n > 256 else 1) + 1).astype(int).tolist()
        self._each(part, list(pairwise(edges)))
        return out, voters

    def _shown_nodes(self) -> Any:
        """Return the nodes as they are shown: all of them, or those of the smaller trees that were asked for."""
        growth, trees = self.growth, self._trees
        if growth.max_leaves == 0 and growth.alpha == 0.0:
            return trees.nodes
        if self._shown is None:
            self._shown = trees.nodes.copy()
            kernels_predict.prune(
                trees.roots, self._shown, trees.stats, growth.kind, CRITERIA[growth.criterion], growth.max_leaves,
                growth.alpha,
            )  # fmt: skip
        return self._shown

    def tree(self, t: int, shown: bool = False) -> tuple[Any, Any]:
        """Return the nodes of a tree in preorder, children as positions in it, and their sums; or of what it shows."""
        trees = self._trees
        every = self._shown_nodes() if shown else trees.nodes
        ids = kernels_predict.preorder(trees.roots[t], every)
        nodes = every[ids].copy()
        place = np.empty(trees.places[t, 1] - trees.places[t, 0], np.int64)
        place[ids - trees.places[t, 0]] = np.arange(len(ids))
        inner = nodes["feature"] >= 0
        for side in ("left", "right"):
            nodes[side][inner] = place[nodes[side][inner] - trees.places[t, 0]]
        return nodes, trees.stats[ids]

    def stump(self) -> Any:
        """Return the one node of a tree that is a leaf of all rows."""
        out = np.zeros(1, NODE)
        for name in ("feature", "left", "right", "slot"):
            out[name] = -1
        out["n"] = np.count_nonzero(self.retained)
        return out

    def whole(self) -> Any:
        """Return the sums of all rows, shape (1, K)."""
        total, targets = np.zeros(self.growth.width, np.int64), self.targets[self.retained]
        weights = self.weights[self.retained] if self.growth.weighted else np.ones(len(targets), np.int64)
        if self.growth.classes:
            np.add.at(total, targets[:, 0], weights)
        else:
            total[0], total[1 : 1 + self.growth.outputs] = weights.sum(), targets.sum(axis=0)
        if self.growth.weighted:
            total[-1] = len(targets)
        return total[None]

    @property
    def n_rows(self) -> IntArray:
        """Rows in each tree."""
        return self._trees.nodes["n"][self._trees.roots]

    def memory(self) -> int:
        """Bytes of the trees: nodes, sums, counts of candidates and lists of rows."""
        trees = self._trees
        arrays = (trees.nodes, trees.stats, trees.hists, trees.spans, trees.rows, trees.free, trees.free_slots)
        return sum(a.nbytes for a in arrays)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {
            "_scratch": [],
            "_trees": self._repacked(1),
            "_work": np.zeros_like(self._work),
            "_shown": None,
        }
