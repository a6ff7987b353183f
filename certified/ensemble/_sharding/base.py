"""What the sharded ensembles share: deal rows to shards, let them learn, delete, certify."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from certified._data.hashing import Key
from certified._data.reproducible import digest
from certified._data.subjects import Subjects
from certified.base import DeletionCost, Plan
from certified.certificate import Certificate
from certified.ensemble._sharding.fingerprint import fingerprint
from certified.ensemble._sharding.fit import ShardedFit
from certified.ensemble._sharding.release import released
from certified.ensemble._sharding.shard import (
    Shard,
    deal,
    expected_cost,
    merged,
    rows_learned,
)
from certified.ensemble._sharding.tables import Table, as_table, check_finite, like
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.noise import NO_NOISE, OS_ENTROPY
from certified.typing import FloatArray, IntArray

__all__ = ["Sharded"]


def _can_release(model: Any) -> bool:
    if model.aggregation == "private":
        raise AttributeError(
            f"{type(model).__name__}(aggregation='private') has no release: a copy of its models would answer without "
            "noise and without limit. Let predict label public rows, and publish a model fitted on these labels."
        )
    return True


class Sharded(ShardedFit):
    """Base class. Subclasses give the parameters, the targets, and how answers of the shards are put together."""

    # ------------------------------------------------------------------ add

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        """Plan to add rows. Only shards that get one learn again, from the first slice that does."""
        caller = f"{type(self).__name__}.add"
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
        new = self._with_shards(after, hit, seconds if jobs else self._seconds) | {"_subjects": subjects}
        return Plan(lambda: self.__dict__.update(new), bool(jobs), "exact", self._moved(len(jobs)))

    def _with_shards(self, shards: list[Shard], changed: list[int], seconds: float) -> dict[str, Any]:
        """Return the attributes that change with these shards."""
        digests = {s: d for s, d in self._digests.items() if s not in changed}
        return {"_shards": shards, "_digests": digests, "_seconds": seconds}

    def _moved(self, n_shards: int) -> float:
        """Return how far answers can move, in units of the noise, where so many shards have learned again."""
        reach = 1.0 if self._n_outputs() == 1 else math.sqrt(2.0)
        moved = n_shards * reach * math.sqrt(self.n_answers) / self._sigma if self._sigma else np.inf
        return moved if n_shards else 0.0

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

    def _plan_deletion(self, rows: IntArray) -> Plan:
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

        new = self._with_shards(after, [s for s, _, _ in hits], seconds if jobs else self._seconds)
        return Plan(lambda: self.__dict__.update(new), bool(jobs), "exact", self._moved(len(jobs)))

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

    def deletion_cost(self, ids: Any = None) -> DeletionCost:
        """Return what a request would cost; nothing is changed.

        Parameters
        ----------
        ids : array-like or None
            The request. None: the expectation over requests for one subject, drawn at random.

        Returns
        -------
        DeletionCost
        """
        self._check_fitted()
        course, shards = self._course, self._shards[: self.n_shards]
        whole = max(sum(rows_learned(course, shard, 0) for shard in shards), 1)
        if ids is None:
            pairs = [expected_cost(course, shard, len(self.ids_)) for shard in shards]
            n_hit, rows = sum(hit for hit, _ in pairs), sum(work for _, work in pairs)
        else:
            hits = [hit for hit in self._hits(self._subjects.rows_of(ids)) if hit[0] < self.n_shards]
            n_hit = len(hits)
            rows = sum(rows_learned(course, self._shards[s].without(gone), first) for s, gone, first in hits)
        return DeletionCost(float(rows * self._seconds), float(rows / whole), float(rows), float(n_hit))

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
            versions=self._versions(),
            adaptivity=self._adaptivity(),
        )

    def _adaptivity(self) -> str:
        if not self._drawn or self.aggregation != "private":
            return Key(self._key, self._drawn).adaptivity
        same = "all requests, against a refit with the same key"
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
    def _release(self) -> Any:
        """Return the ensemble as a plain scikit-learn object with no training row in it.

        There is none of a private aggregation.

        Raises
        ------
        CannotCertify
            The estimator keeps training rows, or a shard has some classes and lacks others.
        """
        self._check_fitted()
        return released(self, [shard for shard in self._shards[: self.n_shards] if len(shard.positions)])
