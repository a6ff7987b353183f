"""The two convex heads behind one set of functions: by factorised Hessians, or by products with the rows alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse

from certified import corners, head, wide
from certified.anchor import Anchor, Solution
from certified.column_sums import ColumnSquares
from certified.errors import CannotCertify, InvalidInput
from certified.exact import Products
from certified.inherited import Inherited, inherited
from certified.linear_model._state import State, carried
from certified.newton import Blocks
from certified.objective import Problem, Release
from certified.renewal import Renewal
from certified.rows import Rows
from certified.typing import FloatArray, IntArray
from certified.wide_rows import WideRows

__all__ = ["Cholesky", "NewtonCG", "ProximalNewton", "chosen"]

_WIDE = 5_000  # coefficients from which a Hessian is no longer formed
_SAMPLE_ROWS = 50_000  # fits of more rows than this start from the solution on every 16th block


class Cholesky:
    """Head for dense features, up to some thousands: most deletions without a pass over the rows."""

    rows = Rows
    narrowed = staticmethod(Rows.narrowed)
    by_theorem2 = True
    forget = staticmethod(head.forget)
    learn: Any = staticmethod(head.learn)
    _passes: Any = staticmethod(head.improve)

    @staticmethod
    def sums(rows: Rows, weight: FloatArray) -> Products:
        """Exact sums of the rows with these weights, 0 for those being deleted."""
        gone = (weight == 0.0) & (rows.base_weight > 0.0)
        return Products.of(rows.x * (weight > 0.0)[:, None] if gone.any() else rows.x, weight)

    @staticmethod
    def release(problem: Problem, sums: Products, n_rows: int) -> Release:
        """The release metric."""
        return Release.of(problem, sums, n_rows)

    @staticmethod
    def fit(
        problem: Problem,
        rows: Rows,
        sums: Products,
        start: FloatArray,
        tol: float,
        max_iter: int,
        guess: bool,
        known: Inherited | None = None,
    ) -> tuple[Problem, Anchor | None, Solution]:
        """Minimise from scratch; the problem may gain what makes its Hessian definite.

        `guess` says that a sample of the rows would give a better start than this one; `known` is what the columns
        from before tell.
        """
        if problem.loss.outputs > 1:
            problem = replace(problem, gauge=problem.scale * sums.matrix())
        n = int(np.count_nonzero(rows.weight))
        release, factor = Release.of(problem, sums, n), None
        if guess and n > _SAMPLE_ROWS:
            start, factor = _first_guess(problem, rows, start)
        found = head.improve(
            problem,
            rows,
            rows.weight,
            release,
            start,
            tol,
            factor=factor,
            known=known,
            fresh=2.0**-7,
            max_passes=max_iter,
        )
        return problem, *found

    @classmethod
    def improve(
        cls,
        problem: Problem,
        rows: Rows,
        weight: FloatArray,
        release: Release,
        start: FloatArray,
        target: float,
        max_iter: int,
        anchor: Anchor | None = None,
        fresh: float = 2.0**-3,
    ) -> tuple[Anchor | None, Solution]:
        """Pass over the kept rows until the distance is at most `target`."""
        return cls._passes(
            problem, rows, weight, release, start, target, anchor=anchor, fresh=fresh, max_passes=max_iter
        )

    @staticmethod
    def renewed(rows: Rows, new: Renewal, w: FloatArray, extra: int) -> tuple[Rows, FloatArray | None]:
        """Return the rows that stay with new columns, and where to start from the parameter w."""
        fresh = rows.renewed(new, extra)
        return fresh, carried(w, rows, fresh, new)

    @staticmethod
    def renewed_sums(sums: Products, rows: Rows, gone: IntArray, new: Renewal, fresh: Rows) -> Products | None:
        """Return exact sums of the new columns, from those of the old ones; None where all have to be formed."""
        left = sums.minus(rows.x[gone], rows.base_weight[gone])
        return None if left is None else left.renewed(_source(rows, new, fresh), fresh.x, fresh.base_weight)

    @classmethod
    def inherited(
        cls, problem: Problem, state: State, rows: Rows, gone: IntArray, new: Renewal, fresh: Rows
    ) -> Inherited | None:
        """Return what the metric of the old columns tells of the new ones."""
        if cls.learn is None or rows.base is not None or 2 * gone.size > new.kept.size:
            return None  # an L1 penalty, weights that depend on the rows, few rows left
        anchor, _ = cls.forget(state.problem, state.anchor, Blocks(*rows.block_of(gone)))
        return inherited(problem, anchor, rows, fresh, _source(rows, new, fresh))

    @staticmethod
    def features(rows: Rows, X: FloatArray) -> FloatArray:
        """New rows as those held are stored."""
        return np.column_stack([X, np.ones(len(X))]) if rows.x.shape[1] > X.shape[1] else X


class ProximalNewton(Cholesky):
    """Head for an L1 penalty on dense features."""

    forget = staticmethod(corners.forget)
    learn = None
    _passes = staticmethod(corners.improve)

    @staticmethod
    def fit(
        problem: Problem,
        rows: Rows,
        sums: Products,
        start: FloatArray,
        tol: float,
        max_iter: int,
        guess: bool,
        known: Any = None,
    ) -> tuple[Problem, Anchor | None, Solution]:
        """Minimise from scratch."""
        release = Release.of(problem, sums, int(np.count_nonzero(rows.weight)))
        found = corners.improve(problem, rows, rows.weight, release, start, tol, fresh=2.0**-7, max_passes=max_iter)
        return problem, *found


class NewtonCG:
    """Head for sparse features, or more of them than a Hessian can be formed of: some passes for every request."""

    rows = WideRows
    by_theorem2 = False
    learn = None

    @staticmethod
    def sums(rows: WideRows, weight: FloatArray) -> ColumnSquares:
        """Exact sums of the rows with these weights."""
        return ColumnSquares.of(rows.x, weight)

    @staticmethod
    def release(problem: Problem, sums: ColumnSquares, n_rows: int) -> wide.WideRelease:
        """The release metric."""
        return wide.WideRelease.of(problem, sums)

    @staticmethod
    def fit(
        problem: Problem,
        rows: WideRows,
        sums: ColumnSquares,
        start: FloatArray,
        tol: float,
        max_iter: int,
        guess: bool,
        known: Any = None,
    ) -> tuple[Problem, None, Solution]:
        """Minimise from scratch."""
        release = wide.WideRelease.of(problem, sums)
        return problem, None, wide.improve(problem, rows, rows.weight, release, start, tol, max_iter)

    @staticmethod
    def improve(
        problem: Problem,
        rows: WideRows,
        weight: FloatArray,
        release: wide.WideRelease,
        start: FloatArray,
        target: float,
        max_iter: int,
        anchor: None = None,
        fresh: float = 0.0,
    ) -> tuple[None, Solution]:
        """Take steps on the kept rows until the distance is at most `target`."""
        return None, wide.improve(problem, rows, weight, release, start, target, max_iter)

    @staticmethod
    def narrowed(rows: WideRows, new: Renewal, extra: int) -> Renewal:
        """All that was made anew is taken."""
        return new

    @staticmethod
    def renewed_sums(sums: ColumnSquares, rows: WideRows, gone: IntArray, new: Renewal, fresh: WideRows) -> None:
        """Sums are formed anew."""

    @staticmethod
    def inherited(
        problem: Problem, state: State, rows: WideRows, gone: IntArray, new: Renewal, fresh: WideRows
    ) -> None:
        """No metric is kept."""

    @staticmethod
    def renewed(rows: WideRows, new: Renewal, w: FloatArray, extra: int) -> tuple[WideRows, FloatArray | None]:
        """Return the rows that stay with new columns, and where to start from the parameter w."""
        old = w.reshape(-1, rows.x.shape[1] + extra)
        if old.shape[1] == new.n_features + extra:
            return rows.renewed(new), w
        source = new.source()
        start = np.zeros((len(old), new.n_features + extra))
        start[:, : new.n_features][:, source >= 0] = old[:, source[source >= 0]]
        start[:, new.n_features :] = old[:, old.shape[1] - extra :]
        return rows.renewed(new), start.ravel()

    @staticmethod
    def features(rows: WideRows, X: Any) -> Any:
        """New rows as those held are stored."""
        if issparse(rows.x):
            return csr_array(X)
        return X.toarray() if issparse(X) else X


def chosen(caller: str, solver: Any, X: Any, outputs: int, penalised: bool, corner: bool = False) -> Any:
    """Return the head for these features and penalties, or raise InvalidInput where the solver does not fit them."""
    allowed = ("auto", "newton-cholesky", "newton-cg")
    if solver not in allowed:
        raise InvalidInput(f"{caller}(solver={solver!r}) is not allowed: one of {', '.join(map(repr, allowed))} is.")
    if solver == "newton-cholesky" and issparse(X):
        raise InvalidInput(
            f"{caller}(solver='newton-cholesky') got sparse features. Dense ones are needed: call X.toarray(), or use "
            "solver='newton-cg'."
        )
    if corner:
        if issparse(X) or solver == "newton-cg" or outputs > 1:
            raise InvalidInput(
                f"{caller} got an L1 penalty with sparse features, solver='newton-cg' or more than two classes. Dense "
                "features are needed. Only binary classification is supported. Call X.toarray() where memory allows, "
                "or set l1_ratio=0."
            )
        return ProximalNewton
    large = X.shape[1] * outputs > _WIDE and penalised
    if not (issparse(X) or solver == "newton-cg" or (solver == "auto" and large)):
        return Cholesky
    return NewtonCG


def _source(rows: Rows, new: Renewal, fresh: Rows) -> IntArray:
    """Which column each one was, with the column of ones that may follow."""
    extra = fresh.x.shape[1] - new.n_features
    return np.concatenate([new.source(), np.arange(rows.x.shape[1] - extra, rows.x.shape[1])])


def _first_guess(problem: Problem, rows: Rows, start: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Minimise on a sixteenth of the rows, roughly; the penalty is scaled with them. Returns w and a factor."""
    some = rows.every(16)
    scaled = replace(problem, strength=problem.strength / 16.0)
    try:
        release = Release.of(scaled, Products.of(some.x, some.weight), len(some.y))
        anchor, found = head.improve(scaled, some, some.weight, release, start, 1.0, fresh=np.inf)
        return found.w, anchor.metric.inverse_factor / 4.0
    except CannotCertify:
        return start, None
