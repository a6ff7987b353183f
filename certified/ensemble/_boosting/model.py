"""What boosted models share: rows that are added and deleted, and trees that are grown anew for them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import _check_sample_weight

from certified._convex.bounds import check_range
from certified._data.feature_change import FeatureChange
from certified._data.frames import split_ids
from certified.base import Plan, all_or_nothing
from certified.certificate import Certificate
from certified.ensemble._boosting.building import BoostedFit
from certified.ensemble._boosting.leaf_metric import (
    LeafRows,
    scores,
    sums,
)
from certified.ensemble._boosting.leaf_solver import MOST_GONE, delete, require, settle
from certified.ensemble._boosting.objective import DeletionCost
from certified.ensemble._boosting.release import BoostedState
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["BoostedTrees"]

_HEADROOM = 0.25  # passes go on to this part of the target, so that deletions without a pass can follow


class BoostedTrees(BoostedFit):
    """Base class: subclasses check the targets and name the objective."""

    # ------------------------------------------------------------------ add

    @all_or_nothing
    def add(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Certificate:
        """Add rows, so that the certificate compares with a refit on all rows then retained.

        All or nothing: after an error the model is what it was before. Groups whose sample the new rows enter are
        grown anew, and the leaf values are learned from where they were: it takes most of a fit.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`, for the new rows. A classifier knows the classes of the fit only.
        ids : array-like of shape (n_new_rows,) or column name
            Subject of each row; a subject that is already retained gets more rows.

        Returns
        -------
        Certificate
            Of the new state.
        """
        self._check_whole("add")
        X, ids = split_ids(X, ids)
        X = self._read(X)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        y = self._more_targets(y, weight)
        check_range(f"{type(self).__name__}.add", targets=y, weights=weight)
        retained, subjects = self._subjects.added(ids, len(X))
        old, state = self._rows, self._state
        firsts = np.cumsum([0] + [len(s.values) for s in state.structures])
        own = [s.leaves(X) + np.int16(k) for s, k in zip(state.structures, firsts, strict=False)]
        self._X = np.concatenate([self._X[retained], X])
        self._rows = LeafRows(
            np.concatenate([old.leaves[retained], np.concatenate(own, axis=1)]),
            np.concatenate([old.y[retained], y]),
            np.concatenate([old.s[retained], weight]),
            np.full(len(subjects.retained), state.base),
        )
        self._sample = np.concatenate([self._sample[retained], np.full(len(X), -1)])
        self._hashes = subjects.hashes(self.key)
        if self._given is not None:
            declared = np.concatenate([self._given.declared[retained], np.zeros(len(X), dtype=bool)])
            self._given = replace(self._given, declared=declared)
        built = self._build(self._X, self._rows, subjects.retained, state, self.tol)
        require(built.state.solution, self._acceptable(built.state.solution), "add(X, y, ids)")
        self._count_in(y, weight)
        self._store(self._rows, built, np.inf)
        self._subjects, self._released, self._model = subjects, None, None
        return self.certificate_

    def _more_targets(self, y: Any, weight: FloatArray) -> FloatArray:
        """Targets of rows that are added, as the loss takes them; raise InvalidInput where they are not allowed."""
        raise NotImplementedError

    def _count_in(self, y: FloatArray, weight: FloatArray) -> None:
        """Take rows that are added into any counts."""

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        self._check_leaves_enough(rows)
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
        release.subtract(inside.leaves[rows], self._m[rows])
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

        def commit() -> None:
            self._count_out(rows)
            if state.noise_metric is self._state.noise_metric:
                state.noise_metric.subtract(self._rows.leaves[rows], self._m[rows])
            self._erase(rows)
            self._state, self._differencing = state, self._since_release() + differencing
            self._released = self._model = None

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

        def commit() -> None:
            self._count_out(rows)
            if self._given is not None:
                self._given = replace(self._given, structure=None)
            self._store(self._rows, built, np.inf)
            self._erase(rows)
            self._released = self._model = None

        return Plan(commit, True, built.state.solution.method, np.inf, built.state.solution.passes)

    def _plan_features(self, rows: IntArray, new: FeatureChange) -> Plan:
        """Plan for changed features, more or fewer too."""
        self._check_leaves_enough(rows)
        n = len(new.retained)
        X = np.zeros((n, new.n_features))
        new.write(X, self._X)
        retained = self._subjects.retained[:n].copy()
        retained[rows] = False
        fresh = self._narrowed(np.where(retained[:, None], X, 0.0))
        try:
            built = self._build(fresh, self._rows, retained, None, self.tol)
        except InvalidInput as error:
            raise CannotCertify(str(error)) from None
        require(built.state.solution, self._acceptable(built.state.solution), "delete(ids=...)")

        def commit() -> None:
            self._count_out(rows)
            self._X[:] = 0
            self._X, self.n_features_in_ = fresh, X.shape[1]
            self._store(self._rows, built, np.inf)
            self._erase(rows)
            self._released = self._model = None

        return Plan(commit, True, built.state.solution.method, np.inf, built.state.solution.passes)

    def _erase(self, rows: IntArray) -> None:
        for part in (self._X, self._rows.y, self._rows.s, self._w, self._m, self._hashes):
            part[rows] = 0
        self._rows.leaves[rows] = 0
        self._sample[rows] = -1
        if self._given is not None:
            self._given.declared[rows] = False

    def _check_leaves_enough(self, rows: IntArray) -> None:
        if rows.size >= self.n_rows_:
            raise InvalidRequest(
                "delete(ids=...) would remove every row. A model needs rows; discard it instead. Nothing was changed."
            )

    def _count_out(self, rows: IntArray) -> None:
        """Take rows that are about to be erased out of any counts."""

    def refine(self) -> Certificate:
        """Form the Hessian of the retained rows anew, pass until the leaf values are within ``tol``, and measure it.

        Afterwards the state is what these rows have at a point of a grid within ``tol`` of the minimiser: which cell of
        the grid that is, is all that it knows of rows that left. The next access to released values draws fresh noise,
        which is one more release in the transcript.

        Returns
        -------
        Certificate
            Of the measured state (theorem 1).
        """
        self._check_fitted()
        state, inside = self._state, self._inside()
        problem, target = state.problem.on(inside), self._close(len(state.solution.w))
        metric = state.anchor.metric if state.anchor.metric.low > 0.25 else None
        how: dict[str, Any] = {"metric": metric, "rest": 0.25 * target, "max_passes": self.max_iter}
        anchor, found = settle(problem, inside, state.noise_metric, self._m, state.solution.w, target, **how)
        require(found, self._acceptable(found), "refine()")
        moved = state.noise_metric.length(found.w - state.solution.w)
        self._differencing = self._since_release() + (moved / self.noise if self.noise else 0.0)
        self._state = replace(state, problem=problem, anchor=anchor, solution=found)
        self._released = self._model = None
        return self.certificate_

    def deletion_cost(self) -> DeletionCost:
        """Return what deleting one subject costs: the chance that trees are grown anew, and measured times."""
        self._check_fitted()
        retained = self._subjects.retained
        subjects = len(np.unique(self._hashes[retained]))
        inside = len(np.unique(self._hashes[retained & (self._sample >= 0)]))
        started = time.perf_counter()
        inner, problem = self._inside(), self._state.problem
        sums(problem, inner, scores(problem, inner, self._state.solution.w))
        taken = time.perf_counter() - started
        return DeletionCost(inside / subjects, self._state.seconds, taken)

    @property
    def in_structure_(self) -> BoolArray:
        """Whether each row given to ``fit`` is held and in the structure sample. Private, as the rows are."""
        self._check_fitted()
        return self._sample >= 0
