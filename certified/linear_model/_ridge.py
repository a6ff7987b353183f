"""Least squares with and without an L2 penalty, from exact sums: a deletion ends bit for bit at a refit."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LinearRegression as _SklearnLinearRegression
from sklearn.linear_model import Ridge as _SklearnRidge

from certified._convex.leave_out import Minimised
from certified._convex.losses import Squared
from certified._convex.problem import NoiseMetric, Problem
from certified._data.numbers import validate_data
from certified._data.rows import Rows
from certified._exact.moments import Moments, solved
from certified._exact.sums import Products
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._least_squares import LeastSquares
from certified.linear_model._least_squares_problem import LeastSquaresProblem
from certified.typing import FloatArray

__all__ = ["LinearRegression", "Ridge"]


class _NormalEquations(LeastSquares):
    """Solves the normal equations, one factorisation for every distinct penalty."""

    def _ridge(self, weight: float, n_outputs: int) -> FloatArray:
        return np.zeros(n_outputs)

    positive: bool

    def _check_parameters(self, n_outputs: int) -> None:
        self._ridge(1.0, n_outputs)

    def _coefficients(self, moments: Moments) -> tuple[FloatArray, tuple[Any, ...]]:
        if self.positive:
            return self._positive(moments)
        d, m = moments.n_features, moments.n_outputs
        # Column j is scaled by a power of two, 2^(r_j + u_j): exact, and the diagonal becomes about 1.
        bits = moments.bits
        shift = bits // 2
        shift[d:] = 0
        table = moments.scaled(shift)
        unit = moments.unit
        live = np.flatnonzero(bits[:d] > 0)  # a constant column gets the coefficient 0
        coef = np.zeros((m, d))
        penalties = self._ridge(0.0, m)
        for value in np.unique(penalties):
            outputs = np.flatnonzero(penalties == value)
            matrix = table[np.ix_(live, live)]
            ridge = np.ldexp(value * float(moments.weight), -2 * (shift[live] + unit[live]))
            matrix[np.diag_indices(live.size)] += ridge
            found = solved(matrix, table[np.ix_(live, d + outputs)])
            if found is None:
                raise CannotCertify(
                    f"{type(self).__name__} found linearly dependent columns of X, so the coefficients are not unique "
                    "in float64. Remove duplicate or derived columns, or use Ridge with alpha > 0. Nothing was changed."
                )
            back = unit[d + outputs][:, None] - (unit[live] + shift[live])
            coef[np.ix_(outputs, live)] = np.ldexp(found.astype(np.float64).T, back)
        return coef, ()

    def _minimised(self) -> Minimised:
        """What is minimised, and where the model is; raise InvalidInput where no influence is bounded."""
        because = None
        if self.positive:
            because = "has positive=True, so that its minimiser is no smooth function of the rows"
        elif len(self._solution.parameter) > 1:
            because = "has several outputs. Fit one model for each"
        elif not isinstance(self._rows, Rows):
            because = "was fitted on Parts. Rows in memory are needed"
        if because is not None:
            raise InvalidInput(f"influence(model) got a {type(self).__name__} that {because}. Nothing was changed.")
        table, d = self._rows, int(self.n_features_in_)
        rows = Rows(table.x[:, :d], table.x[:, d], table.weight, intercept=self.fit_intercept)
        penalized = np.ones(rows.width)
        penalized[d:] = 0.0
        problem = Problem(Squared(), penalized, float(self._solution.ridge[0]), 1.0)
        metric = NoiseMetric.of(problem, Products.of(rows.x, rows.weight), self.n_rows_)
        retained = [*range(d), len(self._products.exponents) - 1][: rows.width]
        grid = np.ldexp(1.0, self._products.exponents[[*retained, d]] - 40)
        return Minimised(problem, rows, metric, self._solution.parameter[0].copy(), 1e-6, 100, grid)

    def _features_of(self, X: Any, offset: Any) -> tuple[FloatArray, None]:
        """Other rows as those retained are stored."""
        if offset is not None:
            raise InvalidInput(f"influence(offset=...) got a {type(self).__name__}, which takes none. Leave it out.")
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return (np.column_stack([X, np.ones(len(X))]) if self.fit_intercept else X), None

    def _positive(self, moments: Moments) -> tuple[FloatArray, tuple[Any, ...]]:
        """Coefficients >= 0: the signs by an active set, their values by their own normal equations.

        A fixed function of the exact sums, as every other. It is accepted where no coefficient at 0 would lower the
        objective by more than rounding.
        """
        d, m = moments.n_features, moments.n_outputs
        length = moments.weight.bit_length()
        factor = moments.weight / (1 << length)  # the table is the objective times its square
        table = moments.scaled(moments.unit[-1] + length - moments.unit[:-1])
        coef, penalties = np.zeros((m, d)), self._ridge(0.0, m)
        mass = float(np.ldexp(float(moments.weight), 2 * int(moments.unit[-1])))  # sum of the weights
        for k in range(m):
            ridge = float(penalties[k]) / mass * factor**2 if penalties[k] else 0.0
            problem = LeastSquaresProblem(table[:d, :d], table[:d, d + k], float(table[d + k, d + k]), 0.0, ridge, True)
            found = problem.non_negative()
            if found is None:
                raise CannotCertify(
                    f"{type(self).__name__}(positive=True) found no coefficients >= 0 that are unique in float64. "
                    "Scale the features, remove duplicate columns, or use Ridge with alpha > 0. Nothing was changed."
                )
            coef[k] = found
        return coef, ()


class Ridge(_NormalEquations):
    """Linear least squares with an L2 penalty, exact under deletion.

    Minimises ``sum_i s_i (y_i - x_i'w - b)^2 + alpha ||w||^2``, for each output on its own. X and y are read to 40
    binary digits below the largest value of their column; on these the sums are exact integers, so the state after
    any deletions is bit for bit that of a refit and the certificate has mu = 0.

    Parameters
    ----------
    alpha : float or array-like of shape (n_outputs,), default=1.0
        Weight of the penalty, for all outputs or for each.
    noise : float, default=0.0
        Standard deviation of the noise on a release, in standard errors. Exactness needs none; noise limits what
        somebody who holds two releases learns about the rows deleted in between (``mu_differencing``).
    fit_intercept : bool, default=True
    random_state : int, RandomState or None, default=None
        For simulations; None draws noise from the operating system.
    positive : bool, default=False
        Allow coefficients >= 0 only.
    copy_X, max_iter, tol, solver
        Accepted as in scikit-learn. They concern work alone: the sums are exact, and one system is solved.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or array of shape (n_outputs,)
    noise_metric_ : array of shape (n_outputs * p, n_outputs * p)
        With p coefficients and intercept: one block for each output, in the order of
        ``np.column_stack([coef_, intercept_]).ravel()``.
    certificate_, ids_, n_rows_, private_coef_, private_intercept_
        As in :class:`certified.linear_model.LogisticRegression`.
    state_digest_ : str
        For auditors: equal exactly when two states are equal bit for bit.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> unlearned = Ridge().fit(X, y)
    >>> _ = unlearned.delete(range(10))
    >>> unlearned.state_digest_ == Ridge().fit(X[10:], y[10:]).state_digest_
    True
    """

    def __init__(
        self,
        alpha: Any = 1.0,
        *,
        noise: float = 0.0,
        fit_intercept: bool = True,
        random_state: Any = None,
        positive: bool = False,
        copy_X: bool = True,
        max_iter: Any = None,
        tol: float = 1e-4,
        solver: str = "auto",
    ) -> None:
        self.alpha = alpha
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.positive = positive
        self.copy_X = copy_X
        self.max_iter = max_iter
        self.tol = tol
        self.solver = solver

    def _ridge(self, weight: float, n_outputs: int) -> FloatArray:
        try:
            alpha = np.asarray(self.alpha, dtype=np.float64)
        except (TypeError, ValueError):
            alpha = np.array(np.nan)
        if not (np.isfinite(alpha).all() and (alpha >= 0).all()):
            raise InvalidInput(f"Ridge(alpha={self.alpha!r}) is not allowed: a finite number >= 0 is needed.")
        if alpha.ndim and alpha.shape != (n_outputs,):
            raise InvalidInput(
                f"Ridge(alpha=...) got {alpha.size} penalties of shape {alpha.shape} for {n_outputs} outputs. One "
                "number, or one for each output is allowed."
            )
        return np.broadcast_to(alpha, n_outputs).copy()

    @property
    def n_iter_(self) -> int:
        """Number of linear systems solved for each output: 1, since the solution is direct."""
        self._check_fitted()
        return 1

    def _release(self) -> _SklearnRidge:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(
            _SklearnRidge(alpha=self.alpha, fit_intercept=self.fit_intercept, positive=self.positive)
        )


class LinearRegression(_NormalEquations):
    """Ordinary least squares, exact under deletion. See :class:`Ridge` for what exact means.

    Parameters
    ----------
    noise : float, default=0.0
    fit_intercept : bool, default=True
    random_state : int, RandomState or None, default=None
    positive : bool, default=False
        As in :class:`Ridge`.
    copy_X, tol, n_jobs
        Accepted as in scikit-learn. They concern work alone.

    Attributes
    ----------
    rank_ : int
        Number of columns of X that vary: others, and dependent ones, have no coefficient that is unique.
    coef_, intercept_, certificate_, ids_, n_rows_, release_metric_, state_digest_
        As in :class:`Ridge`.

    Examples
    --------
    >>> from certified.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0], [2.0], [9.0]], [1.0, 3.0, 5.0, 0.0])
    >>> _ = model.delete([3])
    >>> model.coef_, model.intercept_
    (array([2.]), 1.0)
    """

    _flat = False

    def __init__(
        self,
        *,
        noise: float = 0.0,
        fit_intercept: bool = True,
        random_state: Any = None,
        positive: bool = False,
        copy_X: bool = True,
        tol: float = 1e-6,
        n_jobs: Any = None,
    ) -> None:
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.random_state = random_state
        self.positive = positive
        self.copy_X = copy_X
        self.tol = tol
        self.n_jobs = n_jobs

    @property
    def rank_(self) -> int:
        """Rank of the (centred) features: the number of columns that vary."""
        self._check_fitted()
        moments = Moments(self._products, int(self.n_features_in_), self.fit_intercept)
        return int(np.count_nonzero(moments.bits[: moments.n_features]))

    def _release(self) -> _SklearnLinearRegression:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(_SklearnLinearRegression(fit_intercept=self.fit_intercept, positive=self.positive))
