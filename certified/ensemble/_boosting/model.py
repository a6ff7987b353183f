"""What boosted models share: rows that are added and deleted, and trees that are grown anew for them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from certified._convex.bounds import check_range
from certified._data.feature_change import FeatureChange
from certified._data.hashing import Key
from certified._keeper.acts import parameters_of
from certified._keeper.turns import turn_of
from certified.base import DeletionCost, Plan
from certified.ensemble._boosting.leaf_metric import (
    LeafRows,
    scores,
    sums,
)
from certified.ensemble._boosting.leaf_solver import MOST_GONE, delete, require, settle
from certified.ensemble._boosting.minimised import MinimisedTrees
from certified.ensemble._boosting.release import BoostedState
from certified.errors import CannotCertify, InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["BoostedTrees"]

_HEADROOM = 0.25  # passes go on to this part of the target, so that deletions without a pass can follow


class BoostedTrees(MinimisedTrees):
    """Base class: subclasses check the targets and name the objective."""

    # ------------------------------------------------------------------ add

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        """Plan to add rows; groups whose sample they enter are grown anew, and all leaf values are learned further."""
        X = self._read(X)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        y = self._more_targets(y, weight)
        check_range(f"{type(self).__name__}.add", targets=y, weights=weight)
        retained, subjects = self._subjects.added(ids, len(X))
        old, state, draft = self._rows, self._state, self._draft()
        firsts = np.cumsum([0] + [len(s.values) for s in state.structures])
        own = [s.leaves(X) + np.int16(k) for s, k in zip(state.structures, firsts, strict=False)]
        draft._X = np.concatenate([self._X[retained], X])
        draft._rows = LeafRows(
            np.concatenate([old.leaves[retained], np.concatenate(own, axis=1)]),
            np.concatenate([old.y[retained], y]),
            np.concatenate([old.s[retained], weight]),
            np.full(len(subjects.retained), state.base),
        )
        draft._sample = np.concatenate([self._sample[retained], np.full(len(X), -1)])
        draft._hashes = subjects.hashes(self._key.value)
        if self._given is not None:
            declared = np.concatenate([self._given.declared[retained], np.zeros(len(X), dtype=bool)])
            draft._given = replace(self._given, declared=declared)
        built = draft._build(draft._X, draft._rows, subjects.retained, state, self.tol)
        require(built.state.solution, self._acceptable(built.state.solution), "add(X, y, ids=...)")
        draft.__dict__.update(self._counted_in(y, weight), _subjects=subjects, _released=None, _model=None)
        draft._store(draft._rows, built, np.inf)
        return Plan(lambda: self._become(draft), True, built.state.solution.method, np.inf, built.state.solution.passes)

    def _more_targets(self, y: Any, weight: FloatArray) -> FloatArray:
        """Targets of rows that are added, as the loss takes them; raise InvalidInput where they are not allowed."""
        raise NotImplementedError

    def _counted_in(self, y: FloatArray, weight: FloatArray) -> dict[str, Any]:
        """Return counts that these rows change, with them, by the name of the attribute."""
        return {}

    # ------------------------------------------------------------------ key

    @property
    def key_(self) -> int:
        """The key, private: a refit with it has the same structure; who knows it can choose who is in the sample."""
        self._check_fitted()
        return self._key.value

    def rekey(self, key: int | None = None) -> Any:
        """Grow the structure again with another key, and learn all leaf values anew, as a fit would.

        Parameters
        ----------
        key : int or None, default=None
            The new key, and the parameter ``key`` from now on; None draws one.

        Returns
        -------
        self
        """
        self._check_whole("rekey")
        draft = self._draft()
        draft._key, draft.key = Key.of(key, f"{type(self).__name__}.rekey"), key
        draft._adaptivity = draft._key.adaptivity
        draft._hashes = self._subjects.hashes(draft._key.value)
        if self._given is not None and isinstance(self.structure, str) and self.structure == "random":
            draft._given = replace(self._given, structure=draft._foreign("random"))
        draft._fitted_with = parameters_of(draft)
        built = draft._build(self._X, self._rows, self._subjects.retained, None, self.tol)
        require(built.state.solution, self._acceptable(built.state.solution), "rekey()")
        draft.__dict__.update(_released=None, _model=None)
        draft._store(self._rows, built, np.inf)
        turn_of(self).commit(lambda: self._become(draft))
        return self

    # --------------------------------------------------------------- delete

    def _plan_deletion(self, rows: IntArray) -> Plan:
        fewer = self._with_fewer_classes(rows)
        if fewer is not None:
            return self._plan_anew(fewer, rows, self._X)
        if np.any(self._sample[rows] >= 0):
            return self._plan_rebuild(rows)
        state, inside = self._state, self._inside()
        gone = LeafRows(inside.leaves[rows], inside.y[rows], inside.s[rows], inside.offset[rows])
        root_G = state.noise_metric.root
        target = self._distance_target(state.solution)
        metric, start = state.anchor.metric, state.solution.w
        few = len(metric.gone.N) + rows.size * state.problem.outputs <= MOST_GONE
        if few:
            anchor, solution = delete(state.problem, state.anchor, gone, root_G)
            if solution.distance <= target:
                moved = anchor.moved(state.anchor)
                return self._planned(rows, replace(state, anchor=anchor, solution=solution), moved)
            metric = anchor.metric
            if np.isfinite(solution.distance):
                start = solution.w
        weight, m = inside.s.copy(), self._m.copy()
        weight[rows] = 0.0
        m[rows] = 0.0
        left = inside._replace(s=weight)
        problem, release = state.problem.on(left), replace(state.noise_metric, gram=state.noise_metric.gram.copy())
        release.subtracting(inside.leaves[rows], self._m[rows])()
        anchor, found = settle(
            problem,
            left,
            release,
            m,
            start,
            max(_HEADROOM * target, min(self.tol, target)),
            metric=metric if few else None,
            max_passes=self.max_iter,
        )
        require(found, self._acceptable(found), "delete(ids=...)")
        moved = release.length(found.w - state.solution.w)
        state = replace(state, problem=problem, noise_metric=release, anchor=anchor, solution=found)
        return self._planned(rows, state, moved)

    def _inside(self) -> LeafRows:
        """The rows with the weights that the leaf values give them."""
        return self._rows._replace(s=self._w)

    def _planned(self, rows: IntArray, state: BoostedState, moved: float) -> Plan:
        differencing = moved / self.noise if self.noise > 0 else (np.inf if moved > 0 else 0.0)

        since, counted = self._since_release() + differencing, self._counted_out(rows)
        subtract = None
        if state.noise_metric is self._state.noise_metric:  # its Gram matrix is large, and stays in its place
            subtract = state.noise_metric.subtracting(self._rows.leaves[rows], self._m[rows])

        def commit() -> None:
            if subtract is not None:
                subtract()
            self.__dict__.update(counted, _state=state, _differencing=since, _released=None, _model=None)
            self._erase(rows)

        return Plan(commit, True, state.solution.method, differencing, state.solution.passes)

    def _plan_rebuild(self, rows: IntArray) -> Plan:
        """Plan a deletion that changes the structure sample."""
        retained = self._subjects.retained.copy()
        retained[rows] = False
        try:
            built = self._build(self._X, self._rows, retained, self._state, self.tol)
        except InvalidInput as error:
            raise CannotCertify(str(error)) from None
        require(built.state.solution, self._acceptable(built.state.solution), "delete(ids=...)")

        counted = self._counted_out(rows)
        given = None if self._given is None else replace(self._given, structure=None)

        def commit() -> None:
            self.__dict__.update(counted, _given=given, _released=None, _model=None)
            self._store(self._rows, built, np.inf)
            self._erase(rows)

        return Plan(commit, True, built.state.solution.method, np.inf, built.state.solution.passes)

    def _plan_features(self, rows: IntArray, new: FeatureChange) -> Plan:
        """Plan for changed features, more or fewer too."""
        n = len(new.retained)
        X = np.zeros((n, new.n_features))
        new.write(X, self._X)
        retained = self._subjects.retained[:n].copy()
        retained[rows] = False
        fresh = self._narrowed(np.where(retained[:, None], X, 0.0))
        draft = self._with_fewer_classes(rows) or self._draft()
        draft.__dict__.update(() if draft._rows is not self._rows else self._counted_out(rows))
        draft.n_features_in_ = X.shape[1]
        return self._plan_anew(draft, rows, fresh)

    def _plan_anew(self, draft: Any, rows: IntArray, X: Any) -> Plan:
        """Plan to delete rows where all is learned anew: for other features, or for fewer classes."""
        retained = self._subjects.retained[: len(X)].copy()
        retained[rows] = False
        try:
            built = draft._build(X, draft._rows, retained, None, self.tol)
        except InvalidInput as error:
            raise CannotCertify(str(error)) from None
        require(built.state.solution, self._acceptable(built.state.solution), "delete(ids=...)")
        draft.__dict__.update(_X=X, _released=None, _model=None)
        draft._store(draft._rows, built, np.inf)
        replaced = [old for old, new in ((self._X, X), (self._rows.y, draft._rows.y)) if old is not new]

        def commit() -> None:
            self._become(draft)
            self._erase(rows)
            for old in replaced:
                old[:] = 0

        return Plan(commit, True, built.state.solution.method, np.inf, built.state.solution.passes)

    def _with_fewer_classes(self, rows: IntArray) -> Any:
        """Return a draft without the classes that leave with these rows, or None where none does."""
        return None

    def _erase(self, rows: IntArray) -> None:
        for part in (self._X, self._rows.y, self._rows.s, self._rows.offset, self._w, self._m, self._hashes):
            part[rows] = 0
        self._rows.leaves[rows] = 0
        self._sample[rows] = -1
        if self._given is not None:
            self._given.declared[rows] = False

    def _counted_out(self, rows: IntArray) -> dict[str, Any]:
        """The same without rows that are deleted."""
        return {}

    def _plan_refinement(self) -> Plan:
        """Plan to form the Hessian of the retained rows anew, and to pass until the leaf values are within ``tol``."""
        state, inside = self._state, self._inside()
        problem, target = state.problem.on(inside), self._close(len(state.solution.w))
        metric = state.anchor.metric if state.anchor.metric.low > 0.25 else None
        how: dict[str, Any] = {"metric": metric, "rest": 0.25 * target, "max_passes": self.max_iter}
        anchor, found = settle(problem, inside, state.noise_metric, self._m, state.solution.w, target, **how)
        require(found, self._acceptable(found), "refine()")
        moved = state.noise_metric.length(found.w - state.solution.w)
        since = self._since_release() + (moved / self.noise if self.noise else 0.0)
        after = replace(state, problem=problem, anchor=anchor, solution=found)

        def commit() -> None:
            self.__dict__.update(_state=after, _differencing=since, _released=None, _model=None)

        return Plan(commit, True, found.method, since, found.passes)

    def deletion_cost(self, ids: Any = None) -> DeletionCost:
        """Return what a deletion costs, from measured times: growing trees anew, or at most one pass over the rows.

        Parameters
        ----------
        ids : array-like of shape (n_subjects,) or None
            One request; None for one subject drawn at random. ``parts`` are the groups of trees that are grown anew;
            for None, the chance that there is one.
        """
        self._check_fitted()
        retained, seconds = self._subjects.retained, self._state.seconds
        started = time.perf_counter()
        inner, problem = self._inside(), self._state.problem
        sums(problem, inner, scores(problem, inner, self._state.solution.w))
        one_pass = time.perf_counter() - started
        if ids is None:
            parts = len(np.unique(self._hashes[retained & (self._sample >= 0)])) / len(
                np.unique(self._hashes[retained])
            )
        else:
            hit = self._sample[self._subjects.rows_of(ids, "deletion_cost(ids=...)")]
            parts = float(len(np.unique(hit[hit >= 0])))
        chance = min(parts, 1.0)
        cost = chance * seconds + (1.0 - chance) * one_pass
        return DeletionCost(cost, cost / seconds, float(self.n_rows_), parts)

    @property
    def in_structure_(self) -> BoolArray:
        """Whether each row given to ``fit`` is held and in the structure sample. Private, as the rows are."""
        self._check_fitted()
        return self._sample >= 0
