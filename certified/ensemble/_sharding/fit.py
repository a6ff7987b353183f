"""How a sharded ensemble is fitted: deal rows to shards, let them learn, and check that they repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import get_tags
from sklearn.utils.validation import _check_sample_weight, has_fit_parameter, validate_data

from certified._data.frames import split_ids
from certified._data.hashing import Key
from certified._data.ids import named
from certified._data.subjects import Subjects
from certified._data.whole import key_for
from certified._keeper.acts import parameters_of
from certified._keeper.turns import turn_of
from certified.base import Deletable, all_or_nothing
from certified.ensemble._sharding.fingerprint import fingerprint
from certified.ensemble._sharding.private_answers import noise_for
from certified.ensemble._sharding.shard import (
    ADD_TREES,
    WEIGHS_CLASSES,
    Course,
    Shard,
    all_threads,
    by_subject_and_content,
    deal,
    last_name,
    learn,
    learned_again,
    one_thread,
    rows_learned,
    unfitted,
    weight_parameter,
)
from certified.ensemble._sharding.tables import Table, as_table
from certified.errors import InvalidInput, NotDeletable
from certified.typing import FloatArray, IntArray

__all__ = ["ShardedFit"]


class ShardedFit(Deletable):
    """Base class of :class:`Sharded`: parameters and fit."""

    estimator: Any
    n_shards: int
    n_slices: int
    aggregation: str
    key: Any
    epsilon: float
    delta: float
    n_answers: int
    at_once: bool
    n_jobs: Any
    verbose: int
    _aggregations: tuple[str, ...]
    _reentrant = False  # the estimator may be anybody's
    _shards: list[Shard]

    def _get(self, name: str) -> Any:
        return getattr(self, name)

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Learn one model for each shard.

        Parameters
        ----------
        X : array-like, sparse array or data frame of shape (n_rows, n_features)
            Handed to the estimator as it is, rows in another order.
        y : array-like of shape (n_rows,)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row. The rows of a subject are in the same shard.
        sample_weight : array-like of shape (n_rows,) or None
            Handed on to the estimator, or to the last step of a pipeline, which has to take it.

        Returns
        -------
        self
        """
        self._check_parameters()
        X, ids = split_ids(X, ids)
        x = as_table(X, type(self).__name__)
        validate_data(self, x, skip_check_array=True)
        n_rows = x.shape[0]
        table = Table(x, self._target(y, n_rows), self._weight(sample_weight, n_rows, x))
        ids, source = named(ids, n_rows)
        self._check_shards(Subjects(ids, n_rows))
        order = by_subject_and_content(ids, table)
        subjects = Subjects(ids[order], n_rows, source=source)
        key, drawn = key_for(self)
        self._learn(subjects, table.take(order), np.arange(n_rows), key, drawn)
        self._subjects = subjects
        return self

    def _modules(self) -> Iterator[str]:
        found = [self.estimator, *(v for v in self.estimator.get_params().values() if hasattr(v, "get_params"))]
        yield from {type(part).__module__.partition(".")[0] for part in found} - {"__main__", "certified", "sklearn"}

    def rekey(self, key: int | None = None) -> Any:
        """Deal the rows to shards anew with another key, and learn all of them; a full fit.

        Afterwards the state has the law of a refit with a fresh key, whatever the requests so far depended on, and the
        answers of the private aggregation are counted from 0 again.

        Parameters
        ----------
        key : int or None, default=None
            The new key; None has the operating system draw one. The parameter ``key`` becomes this.

        Returns
        -------
        self
        """
        self._check_whole("rekey")
        draft = self._draft()
        draft.key = key
        draft._check_parameters()
        draft._learn(self._subjects, *self._dealt(), *Key.of(key, f"{type(self).__name__}.rekey"))
        draft._fitted_with = parameters_of(draft)
        turn_of(self).commit(lambda: self._become(draft))
        return self

    def _dealt(self) -> tuple[Table, IntArray]:
        """Return the rows of all shards and their positions, in the order that they alone determine."""
        positions = np.concatenate([shard.positions for shard in self._shards])
        retained, first = np.unique(positions, return_index=True)
        table = Table.added([shard.table for shard in self._shards]).take(first)
        order = by_subject_and_content(self._subjects.ids_at(retained), table)
        return table.take(order), retained[order]

    def _learn(self, subjects: Subjects, table: Table, retained: IntArray, key: int, drawn: bool) -> None:
        private = self.aggregation == "private"
        sigma = self._noise() if private else 0.0
        course = self._set_course()
        shards = deal(subjects, table, retained, key, self.n_shards, independent=private)
        learned, seconds = self._run(course, [(shard, 0) for shard in shards[:-1]])
        self._check_repeats(course, learned)
        self._course, self._shards, self._seconds = course, [*learned, shards[-1]], seconds
        self._key, self._drawn, self._sigma, self._answered = key, drawn, sigma, 0
        self._digests: dict[int, str] = {}

    def _run(self, course: Course, jobs: list[tuple[Shard, int]]) -> tuple[list[Shard], float]:
        """Return the shards after they have learned, side by side, and the seconds for a row."""
        # no memory maps: a model that keeps its rows must not point into a file that disappears
        run = Parallel(n_jobs=self.n_jobs, verbose=self.verbose, max_nbytes=None)
        with one_thread():  # here too, so that a shard that ends in one thread does not lift the limit for another
            done = run(delayed(learn)(course, shard, first) for shard, first in jobs)
        rows = sum(rows_learned(course, shard, first) for shard, first in jobs)
        return [shard for shard, _ in done], sum(seconds for _, seconds in done) / max(rows, 1)

    def _check_repeats(self, course: Course, learned: list[Shard]) -> None:
        """Let the smallest shard learn twice, from checkpoints: a state that does not repeat cannot be a refit's."""
        found = [shard for shard in learned if shard.stages[-1].model is not None]
        if not found:
            return
        smallest = min(found, key=lambda shard: len(shard.positions))
        again = learned_again(course, smallest)
        if fingerprint(again) != fingerprint(smallest.stages):
            raise NotDeletable(
                f"{type(self).__name__}.fit got {type(self.estimator).__name__}, which learns two different models "
                "from the same rows (and the same checkpoint, where there are slices), so that a deletion could not "
                "be compared with a refit. An estimator that is a function of these and of `random_state` is needed; "
                "seed it, or leave n_slices at 1. Nothing was fitted."
            )

    def _set_course(self) -> Course:
        estimator = unfitted(self.estimator)
        found = estimator.get_params()
        seeded = tuple(
            n for n, value in found.items() if last_name(n) in ("random_state", "key") and not _is_int(value)
        )
        estimator.set_params(
            **{n: 1 for n, value in found.items() if value is None and all_threads(estimator, found, n)}
        )
        for prefix, owner in [("", estimator), *[(f"{name}__", value) for name, value in found.items()]]:
            if type(owner).__module__.startswith("catboost.") and not isinstance(owner, type):
                estimator.set_params(**{prefix + n: v for n, v in _CATBOOST.items() if prefix + n not in found})
        found = estimator.get_params()
        way, grows = self._way(found)
        if way == "xgb_model":  # its generator is seeded when it is made, and not when it goes on
            estimator.set_params(seed_per_iteration=True)
        limit = (1 << 64) // self.n_shards if self.aggregation == "private" else 1 << 64
        n_classes, weights = len(getattr(self, "classes_", ())), weight_parameter(estimator)
        by_class = {n: self._by_class(n, v) for n, v in found.items() if last_name(n) in WEIGHS_CLASSES and n_classes}
        given = {n: weight for n, weight in by_class.items() if weight is not None}
        return Course(estimator, n_classes, self.n_slices, limit, way, seeded, grows, weights, given)

    def _by_class(self, name: str, given: Any) -> FloatArray | None:
        """Return the weight of each class where a parameter of the estimator names classes."""
        labels = self.classes_.tolist()
        if isinstance(given, list | tuple | np.ndarray) and len(given) == len(labels):
            given = dict(zip(labels, given, strict=True))  # CatBoost's other way
        if not isinstance(given, dict):
            return None
        unknown = [label for label in given if label not in labels]
        if unknown:
            raise InvalidInput(
                f"{type(self).__name__}.fit got {type(self.estimator).__name__}({name}={given!r}), and y has no class "
                f"{unknown[0]!r}. Its classes are {labels}: give weights of these. Nothing was fitted."
            )
        return np.array([float(given.get(label, 1.0)) for label in labels])

    def _way(self, found: dict[str, Any]) -> tuple[str, str]:
        """Return how the estimator goes on from a checkpoint, and the parameter that grows with the slices."""
        if self.n_slices == 1:
            return "fit", ""
        if isinstance(self.estimator, Deletable):
            raise InvalidInput(
                f"{type(self).__name__}(n_slices={self.n_slices}) got {type(self.estimator).__name__}, which deletes "
                "by itself, and of which a shard keeps the release: it cannot go on from a checkpoint. Use n_slices=1 "
                "and more shards, or the estimator without shards. Nothing was fitted."
            )
        if hasattr(self.estimator, "partial_fit") and not found.get("warm_start"):
            return "partial_fit", ""
        adds = [name for name in ADD_TREES if has_fit_parameter(self.estimator, name)]
        way = adds[0] if adds else "warm_start"
        if not adds and "warm_start" not in found:
            raise InvalidInput(
                f"{type(self).__name__}(n_slices={self.n_slices}) got {type(self.estimator).__name__}, which cannot go "
                "on from a checkpoint. Slices need XGBoost, LightGBM, or an estimator with `partial_fit` or "
                "`warm_start`; use n_slices=1 and more shards. Nothing was fitted."
            )
        grows = next((name for name in ("n_estimators", "iterations") if name in found), "")
        grows = grows or ("max_iter" if "max_leaf_nodes" in found else "")
        if grows and (found[grows] or 0) < self.n_slices:
            raise InvalidInput(
                f"{type(self).__name__}(n_slices={self.n_slices}) got {grows}={found[grows]}. Each slice adds its part "
                f"of them, so at least n_slices are needed. Nothing was fitted."
            )
        return way, grows

    def _check_parameters(self) -> None:
        for name in ("n_shards", "n_slices", "n_answers"):
            if not _is_int(self._get(name)) or self._get(name) < 1:
                self._refuse(name, "A whole number of at least 1 is allowed.")
        if self.aggregation not in self._aggregations:
            self._refuse("aggregation", f"One of {self._aggregations} is allowed.")
        if self.key is not None and not (_is_int(self.key) and 0 <= self.key < 1 << 128):
            self._refuse("key", "A whole number of at most 128 bits, or None to draw one, is allowed.")

    def _check_shards(self, subjects: Subjects) -> None:
        """Raise where there are fewer subjects than shards, each of which is in one shard."""
        n_subjects = len(subjects.ids)
        if n_subjects < self.n_shards and self.aggregation != "private":
            self._refuse("n_shards", f"At most as many as subjects are allowed: n_samples={n_subjects}.")

    def _refuse(self, name: str, allowed: str) -> None:
        raise InvalidInput(f"{type(self).__name__} got {name}={self._get(name)!r}. {allowed} Nothing was fitted.")

    def _weight(self, sample_weight: Any, n_rows: int, x: Any) -> FloatArray | None:
        if sample_weight is None:
            return None
        if not weight_parameter(self.estimator):
            raise InvalidInput(
                f"{type(self).__name__}.fit got sample_weight, which {type(self.estimator).__name__} does not take. "
                "Leave the weights out. Nothing was fitted."
            )
        return np.array(_check_sample_weight(sample_weight, np.ones(n_rows), dtype=np.float64))

    def _noise(self) -> float:
        return noise_for(self.epsilon, self.delta, self.n_shards, self.n_answers, self._n_outputs(), self.at_once)

    def _n_outputs(self) -> int:
        """Return 1 where a vote is a number, else the number of classes."""
        return 1

    def _target(self, y: Any, n_rows: int) -> Any:
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.target_tags.required = True
        tags.target_tags.positive_only = inner.target_tags.positive_only
        tags.input_tags = inner.input_tags
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        return tags


_CATBOOST: dict[str, Any] = {"thread_count": 1, "allow_writing_files": False}
"""What CatBoost does where nothing is said depends on the machine, and leaves files behind."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
