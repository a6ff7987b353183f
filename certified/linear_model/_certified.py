"""What the linear models with a certified convex head share: state, deletion path, noisy release."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.utils.validation import _check_sample_weight

from certified._convex.bounds import check_range
from certified._convex.derivatives import Blocks
from certified._convex.losses import Loss
from certified._convex.problem import Problem
from certified._convex.state import Solution, reweighted
from certified._data.feature_change import FeatureChange
from certified._data.frames import split_column
from certified._data.numbers import validate_data
from certified._data.subjects import Subjects
from certified._data.whole import share_of_promise
from certified.accounting import Transcript
from certified.base import Plan
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._minimised import MinimisedLinear
from certified.linear_model._solvers import MOST_IN_PARTS, Cholesky, Solver, Stop, live
from certified.linear_model._state import Sizes, State, Totals
from certified.noise import generator
from certified.parts._source import Opened
from certified.progress import log
from certified.typing import FloatArray, IntArray

__all__ = ["CertifiedLinear"]

_WEAKEST = 2.0**-400  # strength of a penalty that is one
_DRAWN = 10_000  # larger releases take seconds to draw, so they are drawn when they are asked for


class CertifiedLinear(MinimisedLinear):
    """Base class: subclasses give the problem, check the data and turn the parameter vector into attributes.

    The parameter vector is ``[coef, intercept]``, shape (p,), without the last entry if ``fit_intercept=False``; with
    several predictors, one such vector after the other.
    """

    max_iter: int
    solver: str
    removal: str = "newton"
    _log_link = False

    def _problem_of(self, loss: Loss, n_columns: int, totals: Totals | None) -> Problem:
        """The problem on rows with these totals; `n_columns` counts the column of ones."""
        raise NotImplementedError

    def _chosen(self, sparse: bool, width: int, loss: Loss) -> type[Solver]:
        """The solver of the problem on so many features, which are given as sparse or dense ones."""
        raise NotImplementedError

    def _summed_classes(self, loss: Loss) -> int | None:
        """How many classes the problem needs totals of, 0 for the targets themselves, None for no totals."""
        return None

    def _factors(self, totals: Totals | None) -> FloatArray | None:
        """Factors of the weights of each class, shape (classes,); None for none that depend on the rows."""
        return None

    def _totals(self, loss: Loss, rows: Any) -> Totals | None:
        """Totals where the problem needs them; balances the weights of the rows if they are to be balanced."""
        classes = self._summed_classes(loss)
        if classes is None:
            return None
        totals = Totals.of(rows, rows.weight, classes)
        factors = self._factors(totals)
        if factors is not None:
            rows.reweight(rows.balanced(rows.weight, factors))
        return totals

    def _penalized(self, loss: Loss, n_columns: int) -> FloatArray:
        """1 for coefficients, 0 for intercepts."""
        one = np.ones(n_columns)
        if self.fit_intercept:
            one[-1] = 0.0
        return np.tile(one, loss.outputs)

    def _start(self, problem: Problem, totals: Totals | None, rows: Any) -> FloatArray:
        """Where a fit starts, shape (P,)."""
        return np.zeros(len(problem.penalized))

    # ------------------------------------------------------------------ fit

    def _fit_rows(
        self, loss: Loss, X: Any, y: FloatArray, weight: FloatArray, ids: Any, offset: FloatArray | None = None
    ) -> None:
        """Fit on checked data; on an error the estimator keeps its former state."""
        self._check_parameters()
        self._share = share_of_promise()
        self._sparse = issparse(X)
        self._solver = self._chosen(self._sparse, X.shape[1], loss)
        self._check_removal()
        subjects = Subjects.of(ids, X.shape[0])
        rows = self._held(X, y, weight, offset)
        self._fit_on(loss, rows, subjects, X.shape[1])

    _sparse = False  # whether the features are given as sparse ones

    def _held(self, x: Any, y: FloatArray, weight: FloatArray, offset: FloatArray | None) -> Any:
        """Rows as the solver reads them: sparse where they are given so, and it takes them."""
        if self._solver.predicts:
            x = x.toarray() if issparse(x) else x
        elif self._sparse:
            x = csr_array(x)
        return self._solver.rows(x, y, weight, offset=offset, intercept=self.fit_intercept)

    _parted_targets = "y"  # where rows in parts have the targets

    def _fit_opened(self, found: Opened) -> Any:
        """Fit on rows in parts that are ready."""
        raise NotImplementedError

    def _prepared(self, rows: Any) -> None:
        """Change the weights of rows in parts as a fit does."""

    def _plan_parts(self, rows: IntArray, fresh: Any, n_features: int) -> Plan:
        """Plan for the retained rows with other features, in new parts."""
        old = self._rows
        draft = self._draft()
        draft._solver = self._chosen_in_parts(n_features, self._state.problem.loss)
        draft._rows = fresh
        self._prepared(fresh)
        state = draft._solve(
            fresh, *draft._posed(self._state.problem.loss, fresh, n_features + self.fit_intercept), rest=0.0
        )
        self._require(state.solution, self._acceptable(state.solution))
        counted, head = self._counted_out(rows), draft._solver

        def commit() -> None:
            self.__dict__.update(counted, _solver=head, _rows=fresh, n_features_in_=n_features, _released=None)
            self._store(state, np.inf)
            old.clear()

        return Plan(commit, True, state.solution.method, np.inf, state.solution.passes)

    def _chosen_in_parts(self, n_features: int, loss: Loss) -> type[Solver]:
        """The solver of rows in parts, which no products are taken with: a Hessian, up to some thousands."""
        found = self._chosen(False, n_features, loss)
        few = self.solver != "newton-cg" and n_features * loss.outputs <= MOST_IN_PARTS
        return found if found.predicts or not few else Cholesky

    def _fit_parts(self, loss: Loss, found: Opened) -> None:
        """Fit on rows in parts."""
        n_features = len(found.features)
        self._check_parameters()
        self._share = share_of_promise()
        self._sparse = False
        self._solver = self._chosen_in_parts(n_features, loss)
        if not self._solver.predicts:
            raise InvalidInput(
                f"{type(self).__name__}.fit got Parts and solver={self.solver!r} with {n_features} features. Rows in "
                "parts are solved by 'newton-cholesky', up to some thousands of features. Leave columns out. "
                "Nothing was changed."
            )
        self._check_removal()
        self._fit_on(loss, found.rows, found.subjects, n_features)

    def _fit_on(self, loss: Loss, rows: Any, subjects: Subjects, n_features: int) -> None:
        state = self._solve(rows, *self._posed(loss, rows, n_features + self.fit_intercept))
        self._subjects, self._rows = subjects, rows
        self._transcript = Transcript()
        self._released = None
        self._rng = generator(self.random_state, self.noise)
        self._store(state, 0.0)
        if self._solver.predicts or len(state.solution.w) <= _DRAWN:
            self._draw()

    def _posed(
        self, loss: Loss, rows: Any, n_columns: int, sums: Any = None
    ) -> tuple[Totals | None, Sizes, Problem, Any]:
        """Return totals, sizes, problem and exact sums of the rows; balances weights that are to be balanced."""
        for _ in rows.map(_check_part, f"{type(self).__name__}.fit", weight=rows.base_weight):
            pass
        totals = self._totals(loss, rows)
        sizes = Sizes.of(rows, rows.base_weight)
        problem = replace(self._problem_of(loss, n_columns, totals), unit=sizes.unit)
        for strength in (problem.strength, problem.l1_strength):
            if strength and not _WEAKEST <= strength <= 1.0 / _WEAKEST:
                raise InvalidInput(
                    f"{type(self).__name__}.fit got a penalty whose strength, in the sum form of the objective, is "
                    f"{strength:.3g}. 0, or 2^-400 (3.9e-121) to 2^400, is allowed, so that nothing over- or "
                    "underflows unseen. Change C or alpha, or scale the weights. Nothing was changed."
                )
        return totals, sizes, problem, self._solver.sums(rows, rows.base_weight) if sums is None else sums

    def _check_range(self, call: str, x: Any, y: Any, weight: Any, offset: Any) -> None:
        check_range(f"{type(self).__name__}.{call}", features=x, targets=y, weights=weight, offsets=offset)

    def _solve(
        self,
        rows: Any,
        totals: Totals | None,
        sizes: Sizes,
        problem: Problem,
        sums: Any,
        start: FloatArray | None = None,
        factor: FloatArray | None = None,
        rest: float | None = None,
    ) -> State:
        """Minimise from `start`, with a factor for the first steps, or from where a fit starts."""
        guess = start is None
        start = self._start(problem, totals, rows) if start is None else start
        stop = Stop(self._close(len(start)), self.max_iter, rest)
        problem, anchor, solution = self._solver.fit(problem, rows, sums, start, stop, guess=guess, factor=factor)
        if solution.distance > self._acceptable(solution):
            raise CannotCertify(
                f"fit reached a distance of at most {solution.distance:.3g} standard errors to the minimiser in "
                f"{solution.passes} passes; {self._distance_target(solution):.3g} is needed. Scale the features "
                "(StandardScaler), add a penalty, or raise max_iter, noise or epsilon."
            )
        return State(problem, totals, sizes, anchor, solution, sums)

    def _known(self, call: str, X: Any, offset: Any, exposure: Any) -> tuple[Any, FloatArray | None]:
        """Features as an array and the known part of the predictors, either of which a frame may hold by name."""
        X, offset = split_column(X, offset, "offset", call)
        X, exposure = split_column(X, exposure, "exposure", call)
        X = validate_data(self, X, dtype=np.float64, reset=False, accept_sparse="csr")
        return X, self._offset(call, offset, exposure, X.shape[0])

    def _offset(self, call: str, offset: Any, exposure: Any, n_rows: int) -> FloatArray | None:
        name = f"{type(self).__name__}.{call}"
        if offset is None and exposure is None:
            return None
        if offset is not None and exposure is not None:
            raise InvalidInput(f"{name} got both offset and exposure. Give one: offset = log(exposure).")
        what, given = ("offset", offset) if exposure is None else ("exposure", exposure)
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            values = np.full(1, np.nan)
        if exposure is not None and not self._log_link:
            raise InvalidInput(f"{name} got an exposure, which has no meaning with the identity link. Use offset.")
        good = values.shape == (n_rows,) and np.all(np.isfinite(values))
        if not good or (exposure is not None and np.any(values <= 0)):
            kind = "finite" if exposure is None else "positive and finite"
            raise InvalidInput(
                f"{name}({what}=...) needs one {kind} number for each of the {n_rows} rows. Correct or leave out the "
                "rows that lack one."
            )
        return values if exposure is None else np.log(values)

    def _check_parameters(self) -> None:
        for name, low, strict in (("epsilon", 0.0, True), ("noise", 0.0, False), ("tol", 0.0, True)):
            value = getattr(self, name)
            real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if not real or not np.isfinite(value) or value < low or (strict and value == low):
                raise InvalidInput(
                    f"{type(self).__name__}({name}={value!r}) is not allowed: a finite number {'>' if strict else '>='}"
                    f" {low:g} is needed."
                )
        if not (isinstance(self.delta, float | np.floating) and 0.0 < self.delta < 1.0):
            raise InvalidInput(f"{type(self).__name__}(delta={self.delta!r}) is not allowed: 0 < delta < 1 is needed.")
        if not (isinstance(self.max_iter, int | np.integer) and self.max_iter > 0):
            raise InvalidInput(f"{type(self).__name__}(max_iter={self.max_iter!r}): a whole number > 0 is needed.")

    def _check_removal(self) -> None:
        name = type(self).__name__
        if self.removal not in ("newton", "influence"):
            raise InvalidInput(f"{name}(removal={self.removal!r}) is not allowed: 'newton' or 'influence' is.")
        if self.removal == "influence" and self._solver.by_influence is None:
            raise InvalidInput(
                f"{name}(removal='influence') got an L1 penalty, or sparse or very wide features, where every request "
                "takes its own steps. An L2 penalty and 'newton-cholesky' are needed; or leave removal='newton'. "
                "Nothing was changed."
            )

    # --------------------------------------------------------------- delete

    def _plan_deletion(self, rows: IntArray) -> Plan:
        state, retained = self._state, self._rows
        base_gone = retained.base_weight_at(rows)
        x_gone, y_gone, _ = retained.take(rows)
        products = state.products.subtract(x_gone, base_gone)
        totals, problem = state.totals, state.problem
        if totals is not None:
            classes = totals.classes
            totals = totals.subtract(y_gone, base_gone)
            totals = totals or Totals.of(retained, retained.without(rows), classes)
            n_columns = len(problem.penalized) // problem.loss.outputs
            problem = replace(
                self._problem_of(problem.loss, n_columns, totals), identifiability=problem.identifiability
            )
        sizes = state.sizes.subtract(base_gone) or Sizes.of(retained, retained.without(rows))
        problem = replace(problem, unit=sizes.unit)
        factors, before = self._factors(totals), self._factors(state.totals)
        target = self._distance_target(state.solution)
        anchor, solution = None, state.solution
        few = 2 * rows.size < self.n_rows_ and problem.scale * problem.unit == state.problem.scale * state.problem.unit
        if self._solver.predicts and products is not None and few:
            by_influence = self._solver.by_influence if self.removal == "influence" else None
            delete = by_influence or self._solver.delete
            anchor, solution = delete(problem, state.anchor, Blocks(*retained.block_of(rows)))
            if factors is None and solution.distance <= target:
                moved = anchor.noise_metric.whitened(solution.w - state.solution.w)
                return self._planned(rows, State(problem, totals, sizes, anchor, solution, products), moved)
            if factors is not None and before is not None:
                anchor = reweighted(anchor, float(np.max(np.abs(factors / before - 1.0))))
        # Theorem 2 did not reach the target: pass over the retained rows until theorem 1 does. Of the rows that left,
        # what is stored then knows a cell of a grid at most.
        log.info("%s: the bound without a pass is too wide; passes over the retained rows", type(self).__name__)
        base = retained.without(rows)
        weight = retained.balanced(base, factors)
        if products is None:
            products = self._solver.sums(retained, base)
        problem = self._solver.posed(problem, products)
        noise_metric = self._solver.noise_metric(problem, products, live(retained, base))
        stop = Stop(target, self.max_iter)
        start = solution.w if np.all(np.isfinite(solution.w)) and np.isfinite(solution.distance) else state.solution.w
        anchor, found = self._passed(problem, totals, retained, weight, noise_metric, start, stop, anchor)
        moved = noise_metric.whitened(found.w - state.solution.w)
        state = State(problem, totals, Sizes.of(retained, base), anchor, found, products)
        return self._planned(rows, state, moved, weight)

    def _passed(
        self,
        problem: Problem,
        totals: Totals | None,
        rows: Any,
        weight: FloatArray,
        noise_metric: Any,
        start: FloatArray,
        stop: Stop,
        anchor: Any,
    ) -> tuple[Any, Solution]:
        """Pass over the rows from `start`; where that leads nowhere, from where a fit starts, with nothing of before.

        So that what is refused here a refit would refuse too.
        """
        with suppress(CannotCertify):
            after, found = self._solver.improve(problem, rows, weight, noise_metric, start, stop, anchor)
            if found.distance <= self._acceptable(found):
                return after, found
        fresh = self._start(problem, totals, rows)
        after, found = self._solver.improve(problem, rows, weight, noise_metric, fresh, stop)
        self._require(found, self._acceptable(found))
        return after, found

    def _require(self, found: Solution, target: float) -> None:
        if found.distance > target:
            raise CannotCertify(
                f"The distance to the minimiser on the retained rows is at most {found.distance:.3g} standard errors "
                f"after {found.passes} passes, and {target:.3g} is needed for epsilon={self.epsilon:g} at noise="
                f"{self.noise:g}. Raise max_iter, noise or epsilon, or add a penalty. Nothing was changed."
            )

    def _planned(self, rows: IntArray, state: State, whitened: FloatArray, weight: Any = None) -> Plan:
        moved = float(np.linalg.norm(whitened))
        differencing = moved / self.noise if self.noise > 0 else (np.inf if moved > 0 else 0.0)
        since, counted = self._since_release() + differencing, self._counted_out(rows)

        def commit() -> None:
            self.__dict__.update(counted, _released=None)
            if weight is not None and self._rows.base is not None:
                self._rows.reweight(weight)
            self._rows.erase(rows)
            self._store(state, since)

        return Plan(commit, True, state.solution.method, differencing, state.solution.passes)

    def _plan_features(self, rows: IntArray, new: FeatureChange) -> Plan:
        """Plan for changed features, more or fewer too."""
        old, before, retained = self._rows, self._state, self._solver
        if retained.predicts:
            new = replace(new, pieces=[p.toarray() if issparse(p) else p for p in new.pieces])
        new = retained.narrowed(old, new, int(self.fit_intercept))
        if new.nothing_changed(self.n_features_in_):  # a category left that shared its column with others
            return self._plan_deletion(rows)
        fresh, start = retained.with_features(old, new, before.solution.w, int(self.fit_intercept))
        n = len(new.retained)
        x = fresh.x[:n, : new.n_features]
        head, sums = self._chosen(self._sparse, new.n_features, before.problem.loss), None
        draft = self._draft()
        draft._solver = head
        if head is not retained:  # the number of columns decides, as in a refit
            known = None if fresh.offset is None else fresh.offset[:n]
            fresh = draft._held(x, fresh.y[:n], fresh.base_weight[:n], known)
        else:
            sums = head.sums_with_features(before.products, old, rows, new, fresh)
        posed = draft._posed(before.problem.loss, fresh, new.n_features + self.fit_intercept, sums)
        factor = head.column_warm_start(posed[2], before, old, rows, new, fresh) if head is retained else None
        try:
            state = draft._solve(fresh, *posed, start, factor, 0.0)
        except CannotCertify:  # as a fit starts
            state = draft._solve(fresh, *posed, rest=0.0)
        self._require(state.solution, self._acceptable(state.solution))
        counted = self._counted_out(rows)

        def commit() -> None:
            self.__dict__.update(counted, _solver=head, _rows=fresh, n_features_in_=new.n_features, _released=None)
            self._store(state, np.inf)
            old.clear()

        return Plan(commit, True, state.solution.method, np.inf, state.solution.passes)

    def _counted_out(self, rows: IntArray) -> dict[str, Any]:
        """Return counts that these rows change, without them, by the name of the attribute."""
        return {}

    def _store(self, state: State, differencing: float) -> None:
        self._state, self._differencing = state, differencing

    def _plan_refinement(self) -> Plan:
        """Plan to form the Hessian on the retained rows, and to pass until the parameter is within ``tol``."""
        state, head, rows = self._state, self._solver, self._rows
        problem, target = head.posed(state.problem, state.products), self._close(len(state.solution.w))
        noise_metric = head.noise_metric(problem, state.products, self._subjects.n_rows)
        w = state.solution.w
        stop = Stop(target, self.max_iter, rest=0.25 * target)
        anchor, found = self._passed(problem, state.totals, rows, rows.weight, noise_metric, w, stop, state.anchor)
        after = State(problem, state.totals, Sizes.of(rows, rows.base_weight), anchor, found, state.products)
        return self._stored(after, noise_metric.whitened(found.w - w))

    # ------------------------------------------------------------------ add

    def _plan_addition(
        self, X: Any, y: Any, ids: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None
    ) -> Plan:
        """Plan to add rows: O(k p^2 + p^3) for k of them, and passes where theorem 2 does not do."""
        X, y = validate_data(
            self,
            X,
            y,
            dtype=np.float64,
            order="C",
            reset=False,
            y_numeric=False,
            accept_sparse="csr" if self._sparse or not self._solver.predicts else False,
        )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        known = self._offset("add", offset, exposure, X.shape[0])
        y, weight = self._encoded(y, weight)
        self._check_range("add", X, y, weight, known)
        X = X.toarray() if issparse(X) and self._solver.predicts else X
        x: Any = [self._solver.features(self._rows, X)]  # a list: sparse rows have two dimensions
        block = Blocks(x, y[None], weight[None], np.zeros((1, 1)) if known is None else known[None])
        retained, subjects = self._subjects.added(ids, X.shape[0])
        rows = self._rows.added(retained, block)
        state, whitened = self._with(rows, block)
        return self._stored(state, whitened, {"_rows": rows, "_subjects": subjects, **self._counted_in(y, weight)})

    def _stored(self, state: State, whitened: FloatArray, more: dict[str, Any] | None = None) -> Plan:
        """Plan to store a state that has moved by so much, and other attributes with it."""
        moved = float(np.linalg.norm(whitened))
        differencing = moved / self.noise if self.noise > 0 else (np.inf if moved > 0 else 0.0)
        since = self._since_release() + differencing

        def commit() -> None:
            self.__dict__.update(more or {}, _released=None)
            self._store(state, since)

        return Plan(commit, True, state.solution.method, differencing, state.solution.passes)

    def _with(self, rows: Any, new: Blocks) -> tuple[State, FloatArray]:
        """State on rows that the new ones have joined, and how far it moved, whitened."""
        state = self._state
        totals = self._totals(state.problem.loss, rows)
        problem = state.problem
        if totals is not None:
            n_columns = len(problem.penalized) // problem.loss.outputs
            problem = replace(
                self._problem_of(problem.loss, n_columns, totals), identifiability=problem.identifiability
            )
        sizes = Sizes.of(rows, rows.base_weight)
        problem = replace(problem, unit=sizes.unit)
        products = state.products.plus(new.x[0], new.s[0]) or self._solver.sums(rows, rows.base_weight)
        noise_metric = self._solver.noise_metric(problem, products, live(rows, rows.base_weight))
        target, w = self._distance_target(state.solution), state.solution.w
        anchor = None
        if self._solver.add is not None and rows.base is None:
            anchor, solution = self._solver.add(problem, state.anchor, noise_metric, new)
            if solution.distance <= target:
                return State(problem, totals, sizes, anchor, solution, products), noise_metric.whitened(solution.w - w)
            if np.isfinite(solution.distance):
                w = solution.w
        problem = self._solver.posed(problem, products)
        stop = Stop(target, self.max_iter)
        anchor, found = self._passed(problem, totals, rows, rows.weight, noise_metric, w, stop, anchor)
        return State(problem, totals, sizes, anchor, found, products), noise_metric.whitened(found.w - state.solution.w)

    def _encoded(self, y: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Targets and weights of new rows as they are stored; raise InvalidInput where they are not allowed."""
        raise NotImplementedError

    def _counted_in(self, y: FloatArray, weight: FloatArray) -> dict[str, Any]:
        """The same with new rows."""
        return {}


def _check_part(part: Any, weight: FloatArray, caller: str) -> None:
    """Raise InvalidInput where values lie beyond those for which the model of rounding holds."""
    check_range(caller, features=part.x, targets=part.y, weights=weight, offsets=part.offset)
