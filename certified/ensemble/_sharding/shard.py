"""Shards: which rows are in which, in which order, and how one of them learns.

All of it is a function of the set of rows and of the key. Rows are first put in an order that they alone determine (by
subject, then by content); a shard holds its rows by the hash of their subject, so they fall into slices by ranges of
the hash.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import time
import warnings
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter
from threadpoolctl import ThreadpoolController

from certified._data.row_order import by_owner_and_content
from certified._data.subjects import Subjects
from certified.base import Deletable
from certified.ensemble._sharding.tables import Table
from certified.errors import SimulatedNoise
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = [
    "ADD_TREES",
    "WEIGHS_CLASSES",
    "Course",
    "Shard",
    "Stage",
    "all_threads",
    "by_subject_and_content",
    "deal",
    "expected_cost",
    "last_name",
    "learn",
    "learned_again",
    "merged",
    "one_thread",
    "rows_learned",
    "unfitted",
    "weight_parameter",
]


ADD_TREES = ("xgb_model", "init_model")
"""Parameters by which the ``fit`` of XGBoost and LightGBM goes on from a model."""


WEIGHS_CLASSES = ("class_weight", "class_weights")
"""Parameters that may name classes."""


class Stage(NamedTuple):
    """What a shard has learned from its first slices.

    Attributes
    ----------
    model : estimator or None
        None where the rows are of one class or there are none.
    classes : int array
        Codes of the classes that the model knows, in the order of its columns; empty for a regressor.
    """

    model: Any
    classes: IntArray


class Shard(NamedTuple):
    """Rows of a shard, by the hash of their subject, and what was learned after each slice.

    Attributes
    ----------
    positions : int array of shape (n_rows,)
        Positions among all rows of the fit.
    hashes : uint64 array of shape (n_rows,)
    table : Table
    seed : int
    stages : tuple of Stage
        One for each slice; the last one serves, those before it are checkpoints. Empty where nothing is learned.
    """

    positions: IntArray
    hashes: Any
    table: Table
    seed: int = 0
    stages: tuple[Stage, ...] = ()

    def without(self, gone: BoolArray) -> Shard:
        """Return the shard without these of its rows; its stages are those from before."""
        keep = np.flatnonzero(~gone)
        return Shard(self.positions[keep], self.hashes[keep], self.table.take(keep), self.seed, self.stages)

    def added(self, more: Shard, subjects: Subjects) -> Shard:
        """Return the shard with the rows of another one among its own, as :func:`deal` orders them; the same stages."""
        positions = np.concatenate([self.positions, more.positions])
        hashes = np.concatenate([self.hashes, more.hashes])
        table = Table.added([self.table, more.table])
        order = by_subject_and_content(subjects.ids_at(positions), table)
        order = order[np.argsort(hashes[order], kind="stable")]
        return Shard(positions[order], hashes[order], table.take(order), self.seed, self.stages)


class Course(NamedTuple):
    """How every shard learns.

    Attributes
    ----------
    estimator : estimator
        Unfitted.
    n_classes : int
        0 for a regressor.
    n_slices : int
    limit : int
        Hashes are below it.
    way : {"fit", "partial_fit", "warm_start", "xgb_model", "init_model"}
        How a checkpoint is gone on from; the last two are parameters of ``fit``, which adds trees to a model.
    seeded : tuple of str
        Parameters that take the seed of the shard.
    grows : str
        Parameter that grows in proportion with the slices, or "".
    weights : str
        Parameter of ``fit`` that takes the weights of rows, or "".
    by_class : mapping of str to float array of shape (n_classes,)
        Parameters that weigh classes, which an estimator knows by the codes that a shard gives them.
    """

    estimator: Any
    n_classes: int
    n_slices: int
    limit: int
    way: str
    seeded: tuple[str, ...] = ()
    grows: str = ""
    weights: str = "sample_weight"
    by_class: Mapping[str, FloatArray] = MappingProxyType({})

    def made(self, seed: int, classes: IntArray, r: int = 0) -> Any:
        """Return the estimator, unfitted, with this seed, for these classes.

        What adds trees to a model gets another seed for each slice r: with the same one a library may go on with a
        generator that has moved, or draw the same rows again.
        """
        own = (seed + r) % (1 << 31) if self.way in ADD_TREES else seed
        weights = {n: dict(enumerate(found[classes].tolist())) for n, found in self.by_class.items()}
        return unfitted(self.estimator).set_params(**dict.fromkeys(self.seeded, own), **weights)

    def ends(self, hashes: Any) -> IntArray:
        """Return how many rows the first 0, 1, ..., n_slices slices hold."""
        edges = [np.uint64(r * self.limit // self.n_slices) for r in range(1, self.n_slices)]
        return np.array([0, *np.searchsorted(hashes, np.array(edges, dtype=np.uint64)), len(hashes)], dtype=np.int64)

    def first_of(self, hashes: Any, marked: BoolArray) -> int:
        """Return the first slice that holds a marked row."""
        return int(np.searchsorted(self.ends(hashes), np.argmax(marked), side="right")) - 1


def learn(course: Course, shard: Shard, first: int = 0) -> tuple[Shard, float]:
    """Return the shard after it has learned its slices from `first` on, and the seconds this took.

    One thread, so that sums do not depend on how many shards learn side by side.
    """
    started = time.perf_counter()
    stages = list(shard.stages[:first])
    ends = course.ends(shard.hashes)
    with one_thread():
        for r in range(first, course.n_slices):
            stages.append(_stage(course, stages[-1] if stages else None, shard, int(ends[r]), int(ends[r + 1]), r))
    return shard._replace(stages=tuple(stages)), time.perf_counter() - started


def learned_again(course: Course, shard: Shard) -> tuple[Stage, ...]:
    """Return the stages of a shard, each learned once more from the checkpoint before it, the last one first.

    So what a fit leaves behind outside the model, a generator that has moved for example, is another one than in
    :func:`learn`, as it is when a deletion starts from a checkpoint.
    """
    ends, found = course.ends(shard.hashes), list(shard.stages)
    with one_thread():
        for r in reversed(range(course.n_slices)):
            found[r] = _stage(course, shard.stages[r - 1] if r else None, shard, int(ends[r]), int(ends[r + 1]), r)
    return tuple(found)


def one_thread() -> Any:
    """Return a context in which linear algebra runs on one thread."""
    return _pools(len(sys.modules)).limit(limits=1)


@lru_cache(maxsize=1)
def _pools(n_modules: int) -> ThreadpoolController:
    """Return the thread pools of the libraries loaded; looked for again once more modules are."""
    return ThreadpoolController()


def _stage(course: Course, before: Stage | None, shard: Shard, start: int, end: int, r: int) -> Stage:
    """Return what is known after slice r, rows start to end: a function of `before` and of the rows up to `end`.

    Of an estimator of this package a shard keeps the release, which holds no row: it deletes by learning anew.
    """
    table = shard.table
    classes = np.unique(table.y[:end]) if course.n_classes else np.empty(0, np.int64)
    if end == 0 or classes.size == 1:
        return Stage(None, classes)
    known = before if before is not None and before.model is not None else None
    if known is not None and start == end:
        return known
    if course.way == "partial_fit":
        classes = np.arange(course.n_classes)
        model = saved(known.model) if known else course.made(shard.seed, classes)
        part = table.take(np.arange(start if known else 0, end))
        return Stage(
            model.partial_fit(
                part.x, part.y, **_weights(course, part), **({"classes": classes} if course.n_classes else {})
            ),
            classes,
        )
    if known is not None and not np.array_equal(known.classes, classes):
        known = None
    model = saved(known.model) if known and course.way == "warm_start" else course.made(shard.seed, classes, r)
    part = table.take(np.arange(end))
    more = _weights(course, part)
    if course.way == "warm_start":
        model.set_params(warm_start=True)
    if course.grows:
        whole = course.estimator.get_params()[course.grows]
        there = whole * r // course.n_slices if known and course.way in ADD_TREES else 0
        model.set_params(**{course.grows: whole * (r + 1) // course.n_slices - there})
    if known and course.way in ADD_TREES:
        more[course.way] = saved(known.model)
    y = np.searchsorted(classes, part.y) if course.n_classes else part.y
    if not isinstance(model, Deletable):
        return Stage(model.fit(part.x, y, **more), classes)
    with warnings.catch_warnings():  # what it has of noise comes from the shard's seed, which a refit has, too
        warnings.simplefilter("ignore", SimulatedNoise)
        return Stage(model.fit(part.x, y, **more).release(), classes)


def unfitted(estimator: Any) -> Any:
    """Return an unfitted copy, also of an estimator whose constructor copies a parameter, which clone() minds."""
    try:
        return clone(estimator)
    except RuntimeError:
        return type(estimator)(**estimator.get_params(deep=False))


def saved(model: Any) -> Any:
    """Return a copy of a checkpoint as a keeper that was saved and loaded has it: what goes on from it is the same."""
    try:
        return pickle.loads(pickle.dumps(model))
    except (pickle.PicklingError, AttributeError, TypeError):  # of a class that is defined in a function
        return deepcopy(model)


def _weights(course: Course, table: Table) -> dict[str, Any]:
    return {} if table.weight is None else {course.weights: table.weight}


def weight_parameter(estimator: Any) -> str:
    """Return the parameter of ``fit`` that takes the weights of rows, for a pipeline that of its last step; or ""."""
    if has_fit_parameter(estimator, "sample_weight"):
        return "sample_weight"
    name, last = getattr(estimator, "steps", [("", None)])[-1]
    inner = weight_parameter(last) if hasattr(last, "fit") else ""
    return f"{name}__{inner}" if inner else ""


def last_name(name: str) -> str:
    """Return the parameter's own name, "random_state" of "step__random_state"."""
    return name.rpartition("__")[2]


def all_threads(estimator: Any, found: dict[str, Any], name: str) -> bool:
    """Whether a parameter left at None would mean all cores; in scikit-learn None means one."""
    owner = found.get(name.rpartition("__")[0], estimator)
    return last_name(name) == "n_jobs" and not type(owner).__module__.startswith("sklearn.")


def rows_learned(course: Course, shard: Shard, first: int) -> int:
    """Return how many rows the shard learns when it starts at slice `first`, counted as often as they are."""
    ends = course.ends(shard.hashes)
    counted = np.diff(ends)[first:] if course.way == "partial_fit" else ends[first + 1 :]
    return int(counted.sum())


def expected_cost(course: Course, shard: Shard, n_all: int) -> tuple[float, float]:
    """Return the probability that a request hits the shard, and the rows that it is expected to learn again.

    The request names one of `n_all` subjects, each as probable as any other.
    """
    ends = course.ends(shard.hashes)
    before = [len(np.unique(shard.hashes[:end])) for end in ends]  # subjects in the first slices
    first_hit = np.diff(before) / n_all
    rows = [rows_learned(course, shard, r) for r in range(course.n_slices)]
    return before[-1] / n_all, float(first_hit @ rows)


# ------------------------------------------------------------------ membership


def deal(
    subjects: Subjects, table: Table, retained: IntArray, key: int, n_shards: int, independent: bool
) -> list[Shard]:
    """Return the shards, unlearned; the last one more than `n_shards` holds rows that are in no shard.

    Parameters
    ----------
    retained : int array of shape (n_rows,)
        Positions of the rows of the table, which are in the order of :func:`by_subject_and_content`.
    independent : bool
        Whether every shard draws its rows with a key of its own, each subject with probability 1 / n_shards; else
        each subject is in exactly one shard.
    """
    nowhere = np.ones(retained.size, dtype=bool)
    hashes = subjects.hashes(key)[retained]
    shards = []
    for s in range(n_shards):
        if independent:
            own = subjects.hashes(subkey(key, s))[retained]
            members = np.flatnonzero(own <= np.uint64((1 << 64) // n_shards - 1))
        else:
            own = hashes
            members = np.flatnonzero(own % np.uint64(n_shards) == s)
        members = members[np.argsort(own[members], kind="stable")]
        nowhere[members] = False
        seed = subkey(key, s) >> 97  # 31 bits
        shards.append(Shard(retained[members], own[members], table.take(members), seed))
    rest = np.flatnonzero(nowhere)
    return [*shards, Shard(retained[rest], np.zeros(rest.size, np.uint64), table.take(rest))]


def merged(shards: list[Shard], parts: list[Shard], retained: IntArray, subjects: Subjects) -> list[Shard]:
    """Return the shards, each with the rows that are added it, and the stages from before.

    Parameters
    ----------
    parts : list of Shard
        How :func:`deal` deals the rows that are added.
    retained : int array
        Positions so far of the retained rows, which come first among those of `subjects`.
    """
    out = []
    for shard, part in zip(shards, parts, strict=True):
        shard = shard._replace(positions=np.searchsorted(retained, shard.positions))
        more = part._replace(positions=part.positions + retained.size)
        out.append(shard.added(more, subjects) if part.positions.size else shard)
    return out


def subkey(key: int, s: int) -> int:
    """Return the 128-bit key of shard s, a keyed pseudo-random function of its number."""
    return int.from_bytes(
        hashlib.blake2b(f"shard {s}".encode(), digest_size=16, key=key.to_bytes(16, "little")).digest(), "little"
    )


def by_subject_and_content(ids: Any, table: Table) -> IntArray:
    """Return the order of rows by subject, and for one subject by content: a function of the set of rows."""
    weight: FloatArray = np.ones(len(ids)) if table.weight is None else table.weight
    return by_owner_and_content(ids, table.x, table.y, weight)
