"""The two convex heads behind one set of functions: by factorised Hessians, or by products with the rows alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from scipy.sparse import csr_array, issparse

from certified._convex import influence_step, newton_cg, newton_cholesky, proximal_newton
from certified._convex.derivatives import Blocks
from certified._convex.new_columns import column_warm_start
from certified._convex.newton_cg_rows import WideRows
from certified._convex.problem import NoiseMetric, Problem
from certified._convex.state import Anchor, Solution
from certified._data.feature_change import FeatureChange
from certified._data.rows import Rows
from certified._exact.column_squares import ColumnSquares
from certified._exact.over_parts import products_over
from certified._exact.sums import Products
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._state import State, carried
from certified.typing import FloatArray, IntArray

__all__ = ["MOST_IN_PARTS", "Cholesky", "NewtonCG", "ProximalNewton", "Solver", "Stop", "chosen", "live"]

_OTHERS = ("lbfgs", "sag", "saga")  # scikit-learn's other ways to the same minimiser
_WIDE = 1_000  # coefficients above which a Hessian is no longer formed: passes are faster, to fit and to delete
MOST_IN_PARTS = 5_000
"""Coefficients up to which rows in parts are solved."""
_NARROW = 256  # coefficients up to which sparse features are made dense
_SAMPLE_ROWS = 50_000  # fits of more rows than this start from the solution on every 16th block


@dataclass(frozen=True)
class Stop:
    """When passes over the rows end.

    Attributes
    ----------
    target : float
        Distance to the minimiser in the noise metric.
    max_passes : int
    rest : float or None
        With a number, the result lies on a grid at least this coarse, so that it tells a cell at most of where it came
        from; None asks for no grid.
    """

    target: float
    max_passes: int
    rest: float | None = None


class Solver(Protocol):
    """What a certified head asks of the way to its minimiser. Solvers have no state: all are used as classes."""

    rows: Any
    """Class of the rows, in the form that the solver reads."""
    predicts: bool
    """Whether a deletion can be certified without a pass, by ``delete``."""
    by_influence: Any
    """Another ``delete``, which leaves the Hessian as it was; None where there is none."""
    add: Any
    """The same for rows that are added; None where they take passes."""

    @staticmethod
    def sums(rows: Any, weight: Any) -> Any:
        """Exact sums of the rows with these weights, 0 for those being deleted."""

    @staticmethod
    def noise_metric(problem: Problem, sums: Any, n_rows: int) -> Any:
        """The noise metric, a function of the problem and the exact sums alone."""

    @staticmethod
    def posed(problem: Problem, sums: Any) -> Problem:
        """The problem with what makes its Hessian definite, on rows with these sums."""

    @staticmethod
    def fit(
        problem: Problem,
        rows: Any,
        sums: Any,
        start: FloatArray,
        stop: Stop,
        *,
        guess: bool = False,
        factor: FloatArray | None = None,
    ) -> tuple[Problem, Anchor | None, Solution]:
        """Minimise from scratch; the problem may gain what makes its Hessian definite.

        `guess` says that a sample of the rows would give a better start than this one; `factor` is what the columns
        from before tell.
        """

    @classmethod
    def improve(
        cls,
        problem: Problem,
        rows: Any,
        weight: FloatArray,
        noise_metric: Any,
        start: FloatArray,
        stop: Stop,
        anchor: Any = None,
    ) -> tuple[Any, Solution]:
        """Pass over the retained rows until the distance is at most the target, and settle on a grid."""

    @staticmethod
    def narrowed(rows: Any, new: FeatureChange, extra: int, /) -> FeatureChange:
        """Return the change without columns that are the same."""

    @staticmethod
    def with_features(rows: Any, new: FeatureChange, w: FloatArray, extra: int) -> tuple[Any, FloatArray | None]:
        """Return the retained rows with new columns, and where to start from the parameter w."""

    @staticmethod
    def sums_with_features(sums: Any, rows: Any, gone: IntArray, new: FeatureChange, fresh: Any) -> Any:
        """Return exact sums of the new columns, from those of the old ones; None where all have to be formed."""

    @classmethod
    def column_warm_start(
        cls, problem: Problem, state: State, rows: Any, gone: IntArray, new: FeatureChange, fresh: Any
    ) -> FloatArray | None:
        """Return a factor for the first steps, from the metric of the old columns."""

    @staticmethod
    def features(rows: Any, X: Any) -> Any:
        """New rows as those retained are stored."""


class Cholesky:
    """Head for dense features, up to some thousands: most deletions without a pass over the rows."""

    rows: Any = Rows
    predicts = True
    delete = staticmethod(newton_cholesky.delete)
    by_influence: Any = staticmethod(influence_step.delete)
    add: Any = staticmethod(newton_cholesky.add)
    _passes: Any = staticmethod(newton_cholesky.settle)

    @staticmethod
    def narrowed(rows: Rows, new: FeatureChange, extra: int, /) -> FeatureChange:
        """Return the change without columns that are the same."""
        return rows.narrowed(new, extra)

    @staticmethod
    def sums(rows: Any, weight: Any) -> Products:
        """Exact sums of the rows with these weights, 0 for those being deleted."""
        return products_over(rows, _features, weight=weight)

    @staticmethod
    def noise_metric(problem: Problem, sums: Products, n_rows: int) -> NoiseMetric:
        """The noise metric."""
        return NoiseMetric.of(problem, sums, n_rows)

    @staticmethod
    def fit(
        problem: Problem,
        rows: Rows,
        sums: Products,
        start: FloatArray,
        stop: Stop,
        *,
        guess: bool = False,
        factor: FloatArray | None = None,
    ) -> tuple[Problem, Anchor | None, Solution]:
        """Minimise from scratch; settle where there is a grid."""
        problem = Cholesky.posed(problem, sums)
        n = live(rows, rows.weight)
        noise_metric = NoiseMetric.of(problem, sums, n)
        if guess and n > _SAMPLE_ROWS:
            start, factor = _first_guess(problem, rows, start)
        passes: Any = newton_cholesky.improve if stop.rest is None else partial(newton_cholesky.settle, rest=stop.rest)
        found = passes(
            problem, rows, rows.weight, noise_metric, start, stop.target, factor=factor, max_passes=stop.max_passes
        )
        return problem, *found

    @staticmethod
    def posed(problem: Problem, sums: Products) -> Problem:
        """The problem with what makes its Hessian definite, on rows with these sums."""
        return replace(problem, identifiability=problem.scale * sums.matrix()) if problem.loss.outputs > 1 else problem

    @classmethod
    def improve(
        cls,
        problem: Problem,
        rows: Rows,
        weight: FloatArray,
        noise_metric: NoiseMetric,
        start: FloatArray,
        stop: Stop,
        anchor: Anchor | None = None,
    ) -> tuple[Anchor | None, Solution]:
        """Pass over the retained rows until the distance is at most the target, and settle."""
        more = {"anchor": anchor, "rest": stop.rest or 0.0, "max_passes": stop.max_passes}
        return cls._passes(problem, rows, weight, noise_metric, start, stop.target, **more)

    @staticmethod
    def with_features(rows: Rows, new: FeatureChange, w: FloatArray, extra: int) -> tuple[Rows, FloatArray | None]:
        """Return the retained rows with new columns, and where to start from the parameter w."""
        fresh = rows.with_features(new, extra)
        return fresh, carried(w, rows, fresh, new)

    @staticmethod
    def sums_with_features(
        sums: Products, rows: Rows, gone: IntArray, new: FeatureChange, fresh: Rows
    ) -> Products | None:
        """Return exact sums of the new columns, from those of the old ones; None where all have to be formed."""
        left = sums.subtract(rows.x[gone], rows.base_weight[gone])
        return None if left is None else left.with_features(_source(rows, new, fresh), fresh.x, fresh.base_weight)

    @classmethod
    def column_warm_start(
        cls, problem: Problem, state: State, rows: Rows, gone: IntArray, new: FeatureChange, fresh: Rows
    ) -> FloatArray | None:
        """Return a factor for the first steps, from the metric of the old columns."""
        if cls.add is None or rows.base is not None or 2 * gone.size > new.retained.size:
            return None  # an L1 penalty, weights that depend on the rows, few retained rows
        anchor, _ = cls.delete(state.problem, state.anchor, Blocks(*rows.block_of(gone)))
        return column_warm_start(problem, anchor, rows, fresh, _source(rows, new, fresh))

    @staticmethod
    def features(rows: Any, X: FloatArray) -> FloatArray:
        """New rows as those retained are stored."""
        return np.column_stack([X, np.ones(len(X))]) if rows.width > X.shape[1] else X


class ProximalNewton(Cholesky):
    """Head for an L1 penalty on dense features."""

    delete = staticmethod(proximal_newton.delete)
    by_influence = None
    add = None
    _passes = staticmethod(proximal_newton.improve)

    @staticmethod
    def fit(
        problem: Problem,
        rows: Rows,
        sums: Products,
        start: FloatArray,
        stop: Stop,
        *,
        guess: bool = False,
        factor: Any = None,
    ) -> tuple[Problem, Anchor | None, Solution]:
        """Minimise from scratch."""
        noise_metric = NoiseMetric.of(problem, sums, live(rows, rows.weight))
        more: Any = {"rest": stop.rest, "max_passes": stop.max_passes}
        found = proximal_newton.improve(problem, rows, rows.weight, noise_metric, start, stop.target, **more)
        return problem, *found


class NewtonCG:
    """Head for sparse features, or more of them than a Hessian can be formed of: some passes for every request."""

    rows: Any = WideRows
    predicts = False
    by_influence = None
    add: Any = None

    @staticmethod
    def sums(rows: WideRows, weight: FloatArray) -> ColumnSquares:
        """Exact sums of the rows with these weights."""
        return ColumnSquares.of(rows.x, weight)

    @staticmethod
    def noise_metric(problem: Problem, sums: ColumnSquares, n_rows: int) -> newton_cg.DiagonalNoiseMetric:
        """The noise metric."""
        return newton_cg.DiagonalNoiseMetric.of(problem, sums)

    @staticmethod
    def fit(
        problem: Problem,
        rows: WideRows,
        sums: ColumnSquares,
        start: FloatArray,
        stop: Stop,
        *,
        guess: bool = False,
        factor: Any = None,
    ) -> tuple[Problem, None, Solution]:
        """Minimise from scratch."""
        metric, last = newton_cg.DiagonalNoiseMetric.of(problem, sums), (stop.max_passes, stop.rest)
        return problem, None, newton_cg.improve(problem, rows, rows.weight, metric, start, stop.target, *last)

    @staticmethod
    def posed(problem: Problem, sums: ColumnSquares) -> Problem:
        """The problem as it is."""
        return problem

    @staticmethod
    def improve(
        problem: Problem,
        rows: WideRows,
        weight: FloatArray,
        noise_metric: newton_cg.DiagonalNoiseMetric,
        start: FloatArray,
        stop: Stop,
        anchor: None = None,
    ) -> tuple[None, Solution]:
        """Take steps on the retained rows until the distance is at most the target, and settle."""
        steps, rest = stop.max_passes, stop.rest or 0.0
        return None, newton_cg.improve(problem, rows, weight, noise_metric, start, stop.target, steps, rest)

    @staticmethod
    def narrowed(rows: WideRows, new: FeatureChange, extra: int) -> FeatureChange:
        """All that was made anew is taken."""
        return new

    @staticmethod
    def sums_with_features(
        sums: ColumnSquares, rows: WideRows, gone: IntArray, new: FeatureChange, fresh: WideRows
    ) -> None:
        """Sums are formed anew."""

    @staticmethod
    def column_warm_start(
        problem: Problem, state: State, rows: WideRows, gone: IntArray, new: FeatureChange, fresh: WideRows
    ) -> None:
        """No metric is kept."""

    @staticmethod
    def with_features(
        rows: WideRows, new: FeatureChange, w: FloatArray, extra: int
    ) -> tuple[WideRows, FloatArray | None]:
        """Return the retained rows with new columns, and where to start from the parameter w."""
        old = w.reshape(-1, rows.x.shape[1] + extra)
        if old.shape[1] == new.n_features + extra:
            return rows.with_features(new), w
        source = new.source()
        start = np.zeros((len(old), new.n_features + extra))
        start[:, : new.n_features][:, source >= 0] = old[:, source[source >= 0]]
        start[:, new.n_features :] = old[:, old.shape[1] - extra :]
        return rows.with_features(new), start.ravel()

    @staticmethod
    def features(rows: WideRows, X: Any) -> Any:
        """New rows as those retained are stored."""
        if issparse(rows.x):
            return csr_array(X)
        return X.toarray() if issparse(X) else X


def chosen(
    caller: str, solver: Any, sparse: bool, width: int, outputs: int, penalised: bool, l1_strength: bool = False
) -> type[Solver]:
    """Return the solver for features of this width and these penalties; raise InvalidInput for one that is unfit.

    Sparse features that are few are made dense: most deletions then take no pass over the rows. The choice depends on
    the number of columns alone, so that a refit chooses the same.
    """
    allowed = ("auto", "newton-cholesky", "newton-cg", *_OTHERS)
    if solver not in allowed:
        raise InvalidInput(f"{caller}(solver={solver!r}) is not allowed: one of {', '.join(map(repr, allowed))} is.")
    if solver == "newton-cholesky" and sparse:
        raise InvalidInput(
            f"{caller}(solver='newton-cholesky') got sparse features. Dense ones are needed: call X.toarray(), or use "
            "solver='auto'."
        )
    if l1_strength:
        if outputs > 1:
            raise InvalidInput(
                f"{caller} got an L1 penalty with {outputs} classes. Only binary classification is supported with it. "
                "Set l1_ratio=0, or fit one model for each class. Nothing was changed."
            )
        if sparse or solver == "newton-cg":
            what = "sparse features" if sparse else "solver='newton-cg'"
            raise InvalidInput(
                f"{caller} got an L1 penalty with {what}. Dense features are needed, and a solver that forms Hessians. "
                "Call X.toarray() where memory allows and leave solver='auto', or set l1_ratio=0. Nothing was changed."
            )
        return ProximalNewton
    solver = "auto" if solver in _OTHERS else solver
    if solver == "newton-cg" or (sparse and width * outputs > _NARROW):
        return NewtonCG
    return NewtonCG if solver == "auto" and penalised and width * outputs > _WIDE else Cholesky


def live(rows: Any, weight: Any) -> int:
    """Return how many rows have a positive weight."""
    return sum(rows.map(_live, weight=weight))


def _live(part: Any, weight: FloatArray) -> int:
    return int(np.count_nonzero(weight))


def _features(part: Any, weight: FloatArray) -> FloatArray:
    """Features with zeros for rows that are being deleted, which may hold anything."""
    gone = (weight == 0.0) & (part.base_weight > 0.0)
    features: FloatArray = part.x * (weight > 0.0)[:, None] if gone.any() else part.x
    return features


def _source(rows: Rows, new: FeatureChange, fresh: Rows) -> IntArray:
    """Which column each one was, with the column of ones that may follow."""
    extra = fresh.x.shape[1] - new.n_features
    return np.concatenate([new.source(), np.arange(rows.x.shape[1] - extra, rows.x.shape[1])])


def _first_guess(problem: Problem, rows: Any, start: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Minimise on a sixteenth of the rows or less, roughly; the penalty is scaled with them. Returns w and a factor."""
    some, step = rows.sample(16)
    scaled = replace(problem, strength=problem.strength / step)
    try:
        noise_metric = NoiseMetric.of(scaled, Products.of(some.x, some.weight), len(some.y))
        anchor, found = newton_cholesky.improve(scaled, some, some.weight, noise_metric, start, 1.0, fresh=np.inf)
        return found.w, anchor.metric.inverse_factor / np.sqrt(step)
    except CannotCertify:
        return start, None
