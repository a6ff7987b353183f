"""Least squares with an L1 penalty, from exact sums: a deletion ends bit for bit at a refit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from sklearn.linear_model import ElasticNet as _SklearnElasticNet
from sklearn.linear_model import Lasso as _SklearnLasso

from certified._exact.moments import Moments
from certified.certificate import Assumptions, Certificate
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._least_squares import LeastSquares, number
from certified.linear_model._least_squares_problem import LeastSquaresProblem
from certified.typing import FloatArray

__all__ = ["ElasticNet", "Lasso"]


class ElasticNet(LeastSquares):
    """Linear least squares with L1 and L2 penalties, exact under deletion.

    Minimises, for each output on its own and with weights divided by their sum,
    ``sum_i s_i (y_i - x_i'w - b)^2 / 2 + alpha * l1_ratio * ||w||_1 + alpha * (1 - l1_ratio) / 2 * ||w||^2``, as
    scikit-learn does. X and y are read to 40 binary digits below the largest value of their column; on these the sums
    are exact integers. The coefficients are a fixed function of these integers, so the state after any deletions is
    bit for bit that of a refit and the certificate has mu = 0, for a pure L1 penalty too.

    Parameters
    ----------
    alpha : float, default=1.0
        Weight of the penalties, > 0.
    l1_ratio : float, default=0.5
        Share of the L1 penalty, from 0 to 1.
    noise : float, default=0.0
        Standard deviation of the noise on a release, in standard errors; see :class:`Ridge`. Noise falls on every
        coefficient, so with noise > 0 no released coefficient is zero.
    fit_intercept : bool, default=True
    max_iter : int, default=10000
        Passes of coordinate descent over the features, for each output.
    tol : float, default=1e-10
        Largest gap allowed between the objective and its minimum, as a share of the variance of y (of its mean square
        without an intercept). Where coordinate descent has found the features, their coefficients are solved for, so
        the gap is mostly far smaller: ``dual_gap_``.
    positive : bool, default=False
        Allow coefficients >= 0 only.
    random_state : int, RandomState or None, default=None
        For simulations; None draws noise from the operating system.
    precompute, copy_X, warm_start, selection
        Accepted as in scikit-learn. They concern work alone: a refit must take the same way.

    Attributes
    ----------
    coef_ : array of shape (n_features,) or (n_outputs, n_features)
    intercept_ : float or array of shape (n_outputs,)
    dual_gap_ : float or array of shape (n_outputs,)
        Upper bound on how far the objective is above its minimum, rounding counted. Not for publication.
    n_iter_ : int or list of int
        Passes of coordinate descent over the features, for each output.
    certificate_, ids_, n_rows_, private_coef_, private_intercept_, release_metric_, state_digest_
        As in :class:`Ridge`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import ElasticNet
    >>> X, y = load_diabetes(return_X_y=True)
    >>> unlearned = ElasticNet(alpha=0.01).fit(X, y)
    >>> _ = unlearned.delete(range(10))
    >>> unlearned.state_digest_ == ElasticNet(alpha=0.01).fit(X[10:], y[10:]).state_digest_
    True
    """

    _adjustable = LeastSquares._adjustable | {"max_iter"}  # how long to try; where it ends does not depend on it

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        noise: float = 0.0,
        fit_intercept: bool = True,
        max_iter: int = 10_000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
        precompute: Any = False,
        copy_X: bool = True,
        warm_start: bool = False,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
        self.random_state = random_state
        self.precompute = precompute
        self.copy_X = copy_X
        self.warm_start = warm_start
        self.selection = selection

    def _share(self) -> float:
        """Share of the L1 penalty."""
        return float(self.l1_ratio)

    def _check_parameters(self, n_outputs: int) -> None:
        name = type(self).__name__
        if number(name, "alpha", self.alpha) == 0:
            raise InvalidInput(
                f"{name}(alpha=0) is not allowed: a finite number > 0 is needed. Use LinearRegression for least "
                "squares without a penalty."
            )
        ratio = getattr(self, "l1_ratio", 1.0)
        if number(name, "l1_ratio", ratio) > 1:
            raise InvalidInput(f"{name}(l1_ratio={ratio!r}) is not allowed: a number from 0 to 1 is needed.")
        number(name, "tol", self.tol, positive=True)
        if number(name, "max_iter", self.max_iter, positive=True) != int(self.max_iter):
            raise InvalidInput(f"{name}(max_iter={self.max_iter!r}) is not allowed: a whole number >= 1 is needed.")

    def _ridge(self, weight: float, n_outputs: int) -> FloatArray:
        return np.full(n_outputs, float(self.alpha) * (1.0 - self._share()) * weight)

    def _coefficients(self, moments: Moments) -> tuple[FloatArray, tuple[Any, ...]]:
        d, m = moments.n_features, moments.n_outputs
        # The objective times (W / 2^k)^2, W the sum of the weights in units and k its bit length: exact in the sums.
        length = moments.weight.bit_length()
        factor = (moments.weight / (1 << length)) ** 2
        table = moments.scaled(moments.unit[-1] + length - moments.unit[:-1])
        l1, l2 = float(self.alpha) * self._share() * factor, float(self.alpha) * (1.0 - self._share()) * factor
        name = type(self).__name__
        if not (np.abs(table) < 2.0**1000).all():
            raise CannotCertify(
                f"{name} got values whose squares leave the range of float64. Scale the features and the targets. "
                "Nothing was changed."
            )
        coef, gaps, passes = np.zeros((m, d)), np.zeros(m), np.zeros(m, dtype=np.int64)
        for k in range(m):
            yy = float(table[d + k, d + k])
            problem = LeastSquaresProblem(table[:d, :d], table[:d, d + k], yy, l1, l2, bool(self.positive))
            coef[k], gap, passes[k] = problem.minimise(int(self.max_iter))
            gaps[k] = gap / factor
            if gap > float(self.tol) * yy:
                raise CannotCertify(
                    f"{name}(tol={self.tol!r}, max_iter={self.max_iter!r}) reached a gap to the minimum of "
                    f"{gap / yy:.1e} of the variance of y in {passes[k]} passes. At most tol is allowed. Raise "
                    "max_iter, tol or alpha, or scale the features. Nothing was changed."
                )
        return coef, (gaps, passes)

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state. See :class:`certified.certificate.Certificate`."""
        found = super().certificate_
        gap = float(np.max(self._solution.report[0]))
        return replace(found, assumptions=Assumptions(found.assumptions, dual_gap=gap))

    @property
    def dual_gap_(self) -> Any:
        """Upper bound on how far the objective is above its minimum. For auditors; never to be published."""
        self._check_fitted()
        gaps = self._solution.report[0]
        return float(gaps[0]) if len(gaps) == 1 else gaps.copy()

    @property
    def n_iter_(self) -> Any:
        """Passes of coordinate descent over the features: a number, or a list where there are several outputs."""
        self._check_fitted()
        passes = self._solution.report[1].tolist()
        return passes[0] if len(passes) == 1 else passes

    @property
    def sparse_coef_(self) -> Any:
        """Released coefficients as a sparse array, shape (n_outputs, n_features)."""
        return csr_array(np.atleast_2d(self.coef_))

    def _release(self) -> _SklearnElasticNet:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(
            _SklearnElasticNet(
                alpha=self.alpha, l1_ratio=self.l1_ratio, fit_intercept=self.fit_intercept, positive=self.positive
            )
        )


class Lasso(ElasticNet):
    """Linear least squares with an L1 penalty, exact under deletion: :class:`ElasticNet` with ``l1_ratio=1``.

    Parameters
    ----------
    alpha : float, default=1.0
    noise : float, default=0.0
        Noise falls on every coefficient, so with noise > 0 no released coefficient is zero.
    fit_intercept : bool, default=True
    max_iter : int, default=10000
    tol : float, default=1e-10
    positive : bool, default=False
    random_state : int, RandomState or None, default=None
    precompute, copy_X, warm_start, selection
        As in :class:`ElasticNet`.

    Attributes
    ----------
    coef_, intercept_, dual_gap_, n_iter_, certificate_, ids_, n_rows_, release_metric_, state_digest_
        As in :class:`ElasticNet`.

    Examples
    --------
    >>> import numpy as np
    >>> from certified.linear_model import Lasso
    >>> X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    >>> model = Lasso(alpha=0.5).fit(X, [0.0, 2.0, 4.0, 6.0])
    >>> model.coef_.round(12)
    array([1.6, 0. ])
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        noise: float = 0.0,
        fit_intercept: bool = True,
        max_iter: int = 10_000,
        tol: float = 1e-10,
        positive: bool = False,
        random_state: Any = None,
        precompute: Any = False,
        copy_X: bool = True,
        warm_start: bool = False,
        selection: str = "cyclic",
    ) -> None:
        self.alpha = alpha
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol
        self.positive = positive
        self.random_state = random_state
        self.precompute = precompute
        self.copy_X = copy_X
        self.warm_start = warm_start
        self.selection = selection

    def _share(self) -> float:
        return 1.0

    def _release(self) -> _SklearnLasso:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(
            _SklearnLasso(alpha=self.alpha, fit_intercept=self.fit_intercept, positive=self.positive)
        )
