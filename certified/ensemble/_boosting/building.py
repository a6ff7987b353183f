"""How boosted models are built: structures from hash samples or from elsewhere, then certified leaf values."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from certified._convex.bounds import check_range
from certified._data.hashing import Key
from certified._data.subjects import Subjects
from certified._data.whole import key_for, share_of_promise
from certified.accounting import Transcript
from certified.ensemble._boosting import kernels
from certified.ensemble._boosting import structure as trees
from certified.ensemble._boosting.leaf_metric import (
    LeafNoiseMetric,
    LeafProblem,
    LeafRows,
    metric_weights,
    scores,
)
from certified.ensemble._boosting.leaf_solver import improve, require, settle
from certified.ensemble._boosting.objective import Built, Given, Objective, check_parameters
from certified.ensemble._boosting.release import BoostedState, ReleasedTrees
from certified.ensemble._boosting.structure_lightgbm import is_lightgbm, names_of, structure_of
from certified.ensemble._boosting.structure_random import drawn, ranges_of
from certified.errors import InvalidInput
from certified.noise import generator
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["BoostedFit"]

_LEAST = 500  # subjects in the sample of a group, where the sample is a share
_MOST_LEAVES = 12_000  # the inverse of the Hessian takes 8 bytes for each pair of leaves


class BoostedFit(ReleasedTrees):
    """Base class of :class:`BoostedTrees`: parameters, structure and leaf values."""

    n_estimators: int
    sample_size: float
    structure_groups: int
    categorical_features: Any
    feature_ranges: Any
    max_depth: int
    structure: Any
    interaction_constraints: Any
    leaf_penalty: float
    structure_weight: float
    shrink_to: str
    max_iter: int
    key: int | None
    _key: Key
    _rows: LeafRows
    _X: Any
    _sample: IntArray
    _w: FloatArray
    _m: FloatArray
    _hashes: Any
    _given: Given | None
    _computed_by = ("numba", "xgboost")
    _reentrant = False  # its loops run on all cores, and some of numba's ways to do so end where two threads enter

    def _objective(self) -> Objective:
        raise NotImplementedError

    def _xgboost_parameters(self) -> dict[str, Any]:
        raise NotImplementedError

    def _base_score(self, base: float) -> float:
        return self._objective().mean(base)

    # ------------------------------------------------------------------ fit

    def _fit_rows(self, X: Any, y: FloatArray, weight: FloatArray, ids: Any, booster: Any, structure_ids: Any) -> None:
        check_parameters(self)
        self._share = share_of_promise()
        check_range(f"{type(self).__name__}.fit", targets=y, weights=weight)
        subjects = Subjects.of(ids, len(X))
        self._key = key_for(self)
        self._adaptivity = self._key.adaptivity
        self._X, self._hashes = X, subjects.hashes(self._key.value)
        self._given = None if booster is None else Given.of(self._foreign(booster), structure_ids, subjects)
        rows = LeafRows(np.zeros((len(X), 0), dtype=np.int16), y, weight, np.zeros(len(X)))
        built = self._build(X, rows, subjects.retained, None, self.tol)
        solution = built.state.solution
        require(solution, self._acceptable(solution), f"{type(self).__name__}.fit")
        self._subjects = subjects
        self._transcript, self._rng = Transcript(), generator(self.random_state, self.noise)
        self._model = self._released = None
        self._store(rows, built, 0.0)
        self._booster()  # fit draws the first release

    def _foreign(self, booster: Any) -> trees.Structure:
        """Structure that does not come from the sample: a booster's, or drawn by the key."""
        if self.structure_groups != 1:
            raise InvalidInput(
                f"{type(self).__name__}(structure_groups={self.structure_groups}) got a structure from elsewhere, "
                "which is one group. Set structure_groups=1."
            )
        objective = self._objective()
        if isinstance(booster, str) and booster == "random":
            return self._drawn(objective, self._X.shape[1])
        names = getattr(self, "feature_names_in_", None)
        if is_lightgbm(booster):
            trees.check_names(names_of(booster), names if names is None else [n.replace(" ", "_") for n in names])
            return structure_of(booster, objective)
        raw = trees.accepted(booster, objective.name)
        trees.check_names(raw.feature_names, names)
        return trees.Structure.of(raw)

    def _drawn(self, objective: Objective, n_features: int) -> trees.Structure:
        """Structure drawn by the key."""
        if self._types(n_features) is not None:
            raise InvalidInput(
                f'{type(self).__name__}(structure="random") draws cuts of numbers and no sets of categories. Encode '
                "them otherwise, by TargetEncoder say, and leave categorical_features out. Nothing was changed."
            )
        return drawn(
            ranges_of(self.feature_ranges, n_features),
            objective=objective.name,
            options=objective.options,
            base_score=objective.mean(0.0),
            rounds=self.n_estimators,
            depth=self.max_depth,
            constraints=None if self.interaction_constraints is None else self._constraints(),
            key=self._key.value,
        )

    def _store(self, rows: LeafRows, built: Built, differencing: float) -> None:
        offset = np.where(self._subjects.retained[: len(rows.y)], built.state.base, 0.0)
        self._rows = rows._replace(leaves=built.leaves, offset=offset)
        self._sample, self._w, self._m = built.sample, built.weights, built.metric_weights
        self._state, self._differencing = built.state, differencing

    def _build(self, X: Any, rows: LeafRows, retained: BoolArray, old: BoostedState | None, target: float) -> Built:
        """Grow what the sample of the retained rows changes, and solve for the leaf values."""
        started = time.perf_counter()
        trees.check_codes(self._types(X.shape[1]), X)
        if self.monotone_constraints is not None:
            self._signs(X.shape[1])
        objective, G = self._objective(), self.structure_groups
        sample, given = self._sampled(retained), self._given
        rows = rows._replace(s=rows.s * self._class_weights(rows, sample))
        whole = None if given is None else given.valid(retained)
        if whole is not None:
            if isinstance(self.structure, str) and self.structure == "random" and whole.n_features != X.shape[1]:
                whole = self._drawn(objective, X.shape[1])
            if whole.n_features != X.shape[1]:
                raise InvalidInput(
                    f"{type(self).__name__}: the structure is of {whole.n_features} features, X has {X.shape[1]}. Give "
                    "a structure of the same features in the same order. Nothing was changed."
                )
            base = objective.link(whole.base_score)
            given_leaves = [whole.leaves(X)]
            return self._solve(rows, retained, sample, base, (whole,), given_leaves, target, started=started)
        base = objective.base(rows.y[sample >= 0], rows.s[sample >= 0])
        structures, fresh = [], []
        leaves: list[Any] = []
        start = 0
        for group in range(G):
            chosen = np.flatnonzero(sample == group)
            unchanged = old is not None and base == old.base and np.array_equal(sample == group, self._sample == group)
            if old is not None and unchanged:
                part = old.structures[group]
                own = self._rows.leaves[:, start : start + part.n_trees] - np.int16(self._first_leaf(old, group))
            else:
                part = self._grow(X, group, chosen, rows, base)
                own = part.leaves(X)
            structures.append(part)
            leaves.append(own)
            fresh.append(not unchanged)
            start += part.n_trees
        return self._solve(
            rows, retained, sample, base, tuple(structures), leaves, target, started=started, old=old, fresh=fresh
        )

    def _class_weights(self, rows: LeafRows, sample: IntArray) -> Any:
        """Weights that rows have by their class."""
        return 1.0

    def _sampled(self, retained: BoolArray) -> IntArray:
        """The group in whose sample each row is, -1 for none."""
        sample, G = np.full(len(retained), -1, dtype=np.int64), self.structure_groups
        if self._given is not None:
            sample[retained & self._given.declared] = 0
            return sample
        hashes = self._hashes[retained]
        sample[retained] = trees.sampled(hashes, trees.groups_of(hashes, G), G, self.sample_size, _LEAST)
        return sample

    def _first_leaf(self, state: BoostedState, group: int) -> int:
        return sum(len(s.values) for s in state.structures[:group])

    def _grow(self, X: Any, group: int, chosen: IntArray, rows: LeafRows, base: float) -> trees.Structure:
        if not chosen.size or not np.any(rows.s[chosen] > 0):
            raise InvalidInput(
                f"{type(self).__name__}: group {group} of the structure has no subject of positive weight. Lower "
                "structure_groups or raise sample_size. Nothing was changed."
            )
        share = [self.n_estimators // self.structure_groups] * self.structure_groups
        for extra in range(self.n_estimators % self.structure_groups):
            share[extra] += 1
        objective = self._objective()
        params = {**self._xgboost_parameters(), **objective.options, "objective": objective.name}
        if self.interaction_constraints is not None:
            params["interaction_constraints"] = self._constraints()
        if self.monotone_constraints is not None:
            params["monotone_constraints"] = str(tuple(self._signs(X.shape[1]).tolist()))
        params["base_score"] = self._base_score(base)
        order = trees.ordered(X[chosen], rows.y[chosen], rows.s[chosen], self._hashes[chosen])
        chosen = chosen[order]
        return trees.grow(X[chosen], rows.y[chosen], rows.s[chosen], self._types(X.shape[1]), params, share[group])

    def _constraints(self) -> str:
        """Interaction constraints with features by number, as XGBoost takes them without names."""
        names = {name: k for k, name in enumerate(getattr(self, "feature_names_in_", ()))}
        return json.dumps([[int(names.get(f, f)) for f in group] for group in self.interaction_constraints])

    def _solve(
        self,
        rows: LeafRows,
        retained: BoolArray,
        sample: IntArray,
        base: float,
        structures: tuple[trees.Structure, ...],
        leaves: list[Any],
        target: float,
        *,
        started: float,
        old: BoostedState | None = None,
        fresh: Sequence[bool] = (),
    ) -> Built:
        objective = self._objective()
        sizes = [len(s.values) for s in structures]
        d = sum(sizes)
        if d > _MOST_LEAVES:
            raise InvalidInput(
                f"{type(self).__name__}: the trees have {d} leaves; at most {_MOST_LEAVES} can be certified, because a "
                "matrix with an entry for each pair is inverted. Lower n_estimators or max_depth."
            )
        firsts = np.concatenate([[0], np.cumsum(sizes)])
        wide = np.ascontiguousarray(
            np.concatenate([own + np.int16(k) for own, k in zip(leaves, firsts, strict=False)], 1)
        )
        wide[~retained] = 0
        counts = np.cumsum([0] + [s.n_trees for s in structures])
        tree_of = np.concatenate([s.tree_of + first for s, first in zip(structures, counts[:-1], strict=True)])
        guess = np.concatenate([s.values for s in structures]) / len(structures)
        scale = objective.dispersion(rows.y[sample >= 0], rows.s[sample >= 0], base)
        weight = rows.s * retained * np.where(sample >= 0, float(self.structure_weight), 1.0) / scale
        if not np.any(weight > 0):
            raise InvalidInput(
                f"{type(self).__name__}(structure_weight=0) leaves no row for the leaf values: all are in the "
                "structure sample. Lower sample_size or raise structure_weight. Nothing was changed."
            )
        problem = LeafProblem(
            objective.loss,
            np.full(d, float(self.leaf_penalty) / scale),
            guess if self.shrink_to == "structure" else np.zeros(d),
            tree_of,
            kernels.scatter(wide, weight, d) * (1.0 + 2.0**-20),
        )
        offset = np.full(len(retained), base)
        inside = LeafRows(wide, rows.y, weight, offset)
        reference = objective.curvature(rows.y, scores(problem, inside, guess))
        m = metric_weights(problem.outputs, weight, reference)
        release = LeafNoiseMetric.of(problem, inside, m)
        start = guess.copy()
        if old is not None and base == old.base:
            for group, anew in enumerate(fresh):
                if not anew:
                    first = self._first_leaf(old, group)
                    start[firsts[group] : firsts[group + 1]] = old.solution.w[first : first + sizes[group]]
        target, factor = min(target, self._close(d)), release.factor()
        passes: Any = improve if old is None else settle
        anchor, solution = passes(problem, inside, release, m, start, target, factor=factor, max_passes=self.max_iter)
        seconds = time.perf_counter() - started
        state = BoostedState(structures, base, problem, release, anchor, solution, seconds)
        return Built(state, sample, wide, weight, m)
