"""What the sharded ensembles share: deal rows to shards, let them learn, delete, certify."""

from __future__ import annotations

import math
import secrets
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight, has_fit_parameter, validate_data

from certified._data.frames import split_ids
from certified._data.reproducible import digest
from certified._data.subjects import Subjects, as_ids
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate, versions
from certified.ensemble._sharding.fingerprint import fingerprint
from certified.ensemble._sharding.private_answers import noise_for
from certified.ensemble._sharding.release import released
from certified.ensemble._sharding.shard import (
    ADD_TREES,
    WEIGHS_CLASSES,
    Course,
    Shard,
    all_threads,
    by_subject_and_content,
    deal,
    expected_cost,
    last_name,
    learn,
    learned_again,
    merged,
    one_thread,
    rows_learned,
    unfitted,
    weight_parameter,
)
from certified.ensemble._sharding.tables import Table, as_table, check_finite, like
from certified.errors import CannotCertify, InvalidInput, InvalidRequest, NotDeletable
from certified.noise import NO_NOISE, OS_ENTROPY
from certified.typing import FloatArray, IntArray

__all__ = ["DeletionCost", "Sharded"]


class DeletionCost(NamedTuple):
    """What a request costs.

    Attributes
    ----------
    shards, rows : float
        Shards that learn again, and the rows in them, counted as often as they are learned.
    share : float
        The same as a share of a whole fit of this ensemble.
    seconds : float
        Estimate for one process, from the time that this model's shards took when they last learned.
    """

    shards: float
    rows: float
    share: float
    seconds: float


def _can_release(model: Any) -> bool:
    if model.aggregation == "private":
        raise AttributeError(
            f"{type(model).__name__}(aggregation='private') has no release: a copy of its models would answer without "
            "noise and without limit. Let predict label public rows, and publish a model fitted on these labels."
        )
    return True


class Sharded(Deletable):
    """Base class. Subclasses give the parameters, the targets, and how answers of the shards are put together."""

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
    def fit(self, X: Any, y: Any, ids: Any = None, sample_weight: Any = None) -> Any:
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
        ids = np.arange(n_rows) if ids is None else as_ids(ids, "fit(ids=...)")
        self._check_shards(Subjects(ids, n_rows))
        order = by_subject_and_content(ids, table)
        subjects = Subjects(ids[order], n_rows)
        key = secrets.randbits(128) if self.key is None else self.key
        self._learn(subjects, table.take(order), np.arange(n_rows), key, self.key is None)
        self._subjects = subjects
        return self

    def rekey(self) -> Any:
        """Draw a new key, deal the rows to shards anew and learn all of them; a full fit.

        Afterwards the state has the law of a refit with a fresh key, whatever the requests so far depended on, and the
        answers of the private aggregation are counted from 0 again. The key comes from the operating system.

        Returns
        -------
        self
        """
        self._check_fitted()
        positions = np.concatenate([shard.positions for shard in self._shards])
        retained, first = np.unique(positions, return_index=True)
        table = Table.added([shard.table for shard in self._shards]).take(first)
        order = by_subject_and_content(self._subjects.ids_at(retained), table)
        self._learn(self._subjects, table.take(order), retained[order], secrets.randbits(128), True)
        return self

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
        seeded = tuple(n for n, value in found.items() if last_name(n) == "random_state" and not _is_int(value))
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
            self._refuse("n_shards", f"At most as many as subjects, here {n_subjects}, are allowed.")

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

    # ------------------------------------------------------------------ add

    @all_or_nothing
    def add(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Certificate:
        """Add rows: the state is bit for bit that of a fit on all rows then retained, with the same key.

        All or nothing. Only shards that get a row learn again, from the first slice that gets one; rows of a subject
        that is held go where its rows are. The promise of the private aggregation stays, and so does its count of
        answers.

        Parameters
        ----------
        X, y
            As in :meth:`fit`, for the new rows: the container and the types of the fit, without infinite values. A
            classifier knows the classes of the fit only.
        ids : array-like of shape (n_new_rows,) or column name
            Subject of each row; a subject that is already retained gets more rows.
        sample_weight : array-like of shape (n_new_rows,) or None
            Only where the fit had weights; None then stands for 1.

        Returns
        -------
        Certificate
            Of the new state.

        Raises
        ------
        InvalidInput
            The rows are not like those of the fit, or a shard with them is one that the estimator cannot learn from.
        """
        self._check_whole("add")
        caller = f"{type(self).__name__}.add"
        X, ids = split_ids(X, ids)
        x = like(self._seen(X), self._shards[0].table.x, caller)
        check_finite(x, caller)
        n_rows = x.shape[0]
        table = Table(x, self._more_targets(y, n_rows), self._more_weight(sample_weight, n_rows, x))
        retained, subjects = self._subjects.added(ids, n_rows)
        numbers, private = np.arange(n_rows), self.aggregation == "private"
        parts = deal(Subjects(ids, n_rows), table, numbers, self._key, self.n_shards, independent=private)
        hit = [s for s, part in enumerate(parts) if part.positions.size]
        after = merged(self._shards, parts, retained, subjects)
        learning = [s for s in hit if s < self.n_shards]
        marks = [after[s].positions >= retained.size for s in learning]
        jobs = [(after[s], self._course.first_of(after[s].hashes, new)) for s, new in zip(learning, marks, strict=True)]
        try:
            learned, seconds = self._run(self._course, jobs)
        except Exception as error:
            raise InvalidInput(
                f"{caller} makes a shard from which {type(self.estimator).__name__} cannot learn: {error} A refit "
                "with this key would fail as well. Nothing was changed."
            ) from error
        for s, shard in zip(learning, learned, strict=True):
            after[s] = shard
        self._shards, self._subjects, self._seconds = after, subjects, seconds if jobs else self._seconds
        self._digests = {s: d for s, d in self._digests.items() if s not in hit}
        return self.certificate_

    def _more_targets(self, y: Any, n_rows: int) -> Any:
        raise NotImplementedError

    def _more_weight(self, sample_weight: Any, n_rows: int, x: Any) -> FloatArray | None:
        weighted = self._shards[0].table.weight is not None
        if sample_weight is not None and not weighted:
            raise InvalidInput(
                f"{type(self).__name__}.add got sample_weight, and the fit had none: a refit would weight every row. "
                "Leave the weights out, or fit anew with weights of 1. Nothing was changed."
            )
        return (
            self._weight(np.ones(n_rows) if sample_weight is None else sample_weight, n_rows, x) if weighted else None
        )

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        if rows.size >= self.n_rows_:
            raise InvalidRequest(
                "delete(ids=...) would remove every row. Discard the model instead. Nothing was changed."
            )
        hits = self._hits(rows)
        self._check_left(hits)
        self._check_shards_left(hits)
        course = self._course
        jobs = [(self._shards[s].without(gone), first) for s, gone, first in hits if s < self.n_shards]
        try:
            learned, seconds = self._run(course, jobs)
        except Exception as error:
            raise InvalidRequest(
                f"delete(ids=...) leaves a shard from which {type(self.estimator).__name__} cannot learn: {error} A "
                "refit would fail as well; use fewer shards. Nothing was changed."
            ) from error
        after = list(self._shards)
        for (s, _, _), shard in zip([hit for hit in hits if hit[0] < self.n_shards], learned, strict=True):
            after[s] = shard
        for s, gone, _ in hits:
            if s == self.n_shards:
                after[s] = self._shards[s].without(gone)

        def commit() -> None:
            self._shards = after
            self._digests = {s: d for s, d in self._digests.items() if s not in {hit[0] for hit in hits}}
            if jobs:
                self._seconds = seconds

        reach = 1.0 if self._n_outputs() == 1 else math.sqrt(2.0)
        moved = len(jobs) * reach * math.sqrt(self.n_answers) / self._sigma if self._sigma else np.inf
        return Plan(commit, bool(jobs), "exact", moved if jobs else 0.0)

    def _hits(self, rows: IntArray) -> list[tuple[int, Any, int]]:
        """Return the shards that hold one of these rows: number, mask of their rows, first slice that held one."""
        marked = np.zeros(len(self._subjects.retained), dtype=bool)
        marked[rows] = True
        found = []
        for s, shard in enumerate(self._shards):
            gone = marked[shard.positions]
            if gone.any():
                found.append((s, gone, self._course.first_of(shard.hashes, gone)))
        return found

    def _check_shards_left(self, hits: list[tuple[int, Any, int]]) -> None:
        """Raise where a refit would have fewer subjects than shards."""
        masks = {s: gone for s, gone, _ in hits}
        left = [shard.hashes[~masks[s]] if s in masks else shard.hashes for s, shard in enumerate(self._shards)]
        if self.aggregation == "private" or all(map(len, left[: self.n_shards])):
            return
        n_subjects = sum(len(np.unique(hashes)) for hashes in left)
        if n_subjects < self.n_shards:
            raise InvalidRequest(
                f"delete(ids=...) would leave {n_subjects} subjects to {type(self).__name__} of {self.n_shards} "
                "shards, and a refit refuses more shards than subjects. Fit again with fewer. Nothing was changed."
            )

    def _check_left(self, hits: list[tuple[int, Any, int]]) -> None:
        """Raise where a classifier would lose a class."""

    def deletion_cost(self, ids: Any = None, *, n_subjects: int = 1) -> DeletionCost:
        """Return what a request would cost; nothing is changed.

        Parameters
        ----------
        ids : array-like or None
            The request. None: the expectation over requests for `n_subjects` subjects drawn at random.
        n_subjects : int, default=1

        Returns
        -------
        DeletionCost
        """
        self._check_fitted()
        course, shards = self._course, self._shards[: self.n_shards]
        whole = max(sum(rows_learned(course, shard, 0) for shard in shards), 1)
        if ids is None:
            pairs = [expected_cost(course, shard, n_subjects, len(self.ids_)) for shard in shards]
            n_hit, rows = sum(hit for hit, _ in pairs), sum(work for _, work in pairs)
        else:
            hits = [hit for hit in self._hits(self._subjects.rows_of(ids)) if hit[0] < self.n_shards]
            n_hit = len(hits)
            rows = sum(rows_learned(course, self._shards[s].without(gone), first) for s, gone, first in hits)
        return DeletionCost(float(n_hit), float(rows), float(rows / whole), float(rows * self._seconds))

    # ---------------------------------------------------------- certificate

    @property
    def key_(self) -> int:
        """The key, private: a refit with it has the same state."""
        self._check_fitted()
        return self._key

    @property
    def n_answers_left_(self) -> int:
        """How many more rows the private aggregation answers before :meth:`rekey`."""
        self._check_fitted()
        return self.n_answers - self._answered

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state: exact; ``adaptivity`` says against which refit, for which requests."""
        self._check_fitted()
        private = self.aggregation == "private"
        measured = {"n_shards": float(self.n_shards), "n_slices": float(self.n_slices)}
        if private:
            measured |= {"epsilon_adaptive": float(self.epsilon), "delta_adaptive": float(self.delta)}
            measured |= {"n_answers": float(self.n_answers), "n_answers_given": float(self._answered)}
        return Certificate.exact(
            estimator=f"{type(self).__name__} of {type(self.estimator).__name__}",
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            sigma=self._sigma,
            noise=OS_ENTROPY if private else NO_NOISE,
            assumptions=measured,
            versions=versions(),
            adaptivity=self._adaptivity(),
        )

    def _adaptivity(self) -> str:
        same = "all requests, against a refit with the same key"
        if not self._drawn:
            return f"{same}; the key was given, not drawn, so nothing is said about a refit with a fresh key"
        if self.aggregation != "private":
            return f"{same}; against a refit with a fresh key, requests that do not depend on what this model answered"
        once = " to one call" if self.at_once else ""
        return (
            f"{same}; against a refit with a fresh key, requests that depend on answers of the private aggregation"
            f"{once} too, at most {self.n_answers}, within epsilon = {self.epsilon:g} at delta = {self.delta:g}; "
            "after that, or where a shard could not learn what was asked, rekey() comes before the next answer"
        )

    @property
    def state_digest_(self) -> str:
        """Digest of who is in which shard and of every model and checkpoint: equal if the states are. Private."""
        self._check_fitted()
        for s, shard in enumerate(self._shards):
            if s not in self._digests:
                self._digests[s] = digest(shard.hashes, fingerprint(shard.stages))
        return digest(*[self._digests[s] for s in range(len(self._shards))])

    # -------------------------------------------------------------- predict

    def _served(self) -> list[Any]:
        """Return the last stage of each shard."""
        self._check_fitted()
        return [shard.stages[-1] for shard in self._shards[: self.n_shards]]

    def _seen(self, X: Any) -> Any:
        self._check_fitted()
        X = as_table(X, type(self).__name__)
        validate_data(self, X, reset=False, skip_check_array=True)
        return X

    def _count_answers(self, n: int) -> None:
        """Count rows that the private aggregation answers, before it does; raise if they are too many."""
        if self._answered + n > self.n_answers:
            raise CannotCertify(
                f"{type(self).__name__} was asked for {n} answers and has {self.n_answers - self._answered} left of "
                f"the n_answers={self.n_answers} that its noise was chosen for. Ask for fewer, or call rekey(), which "
                "fits all shards with a new key. Nothing was answered."
            )
        self._answered = self.n_answers if self.at_once else self._answered + n

    @available_if(_can_release)
    def release(self) -> Any:
        """Return the ensemble as a plain scikit-learn object with no training row in it.

        There is none of a private aggregation.

        Raises
        ------
        CannotCertify
            The estimator keeps training rows, or a shard has some classes and lacks others.
        """
        self._check_fitted()
        return released(self, [shard for shard in self._shards[: self.n_shards] if len(shard.positions)])

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
