"""Least squares from exact sums: the state after a deletion is bit for bit that of a refit."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from sklearn.base import RegressorMixin
from sklearn.linear_model import LinearRegression as _SklearnLinearRegression
from sklearn.linear_model import Ridge as _SklearnRidge
from sklearn.utils.validation import _check_sample_weight, validate_data

from certified import noise as lattice
from certified.base import Deletable, Plan, Transcript, all_or_nothing, digest, generator, split_ids, versions
from certified.certificate import Certificate
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.exact import Products
from certified.rows import Rows, Subjects
from certified.typing import FloatArray, IntArray

__all__ = ["LinearRegression", "Ridge"]


class _LeastSquares(RegressorMixin, Deletable):
    """Base class. The state is the exact Gram matrix of the columns [X, y, 1], two limbs each."""

    noise: float
    fit_intercept: bool
    random_state: Any
    _released: Any

    def _penalty(self) -> float:
        raise NotImplementedError

    @all_or_nothing
    def fit(self, X: Any, y: Any, ids: Any = None, sample_weight: Any = None) -> Any:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : array-like of shape (n_rows,)
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1. A column named here is not
            a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.

        Returns
        -------
        self
        """
        X, ids = split_ids(X, ids)
        name = type(self).__name__
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise InvalidInput(f"{name}(noise={self.noise!r}) is not allowed: a finite number >= 0 is needed.")
        if not (np.isfinite(self._penalty()) and self._penalty() >= 0):
            raise InvalidInput(f"{name}(alpha={self._penalty()!r}) is not allowed: a finite number >= 0 is needed.")
        X, y = validate_data(self, X, y, dtype=np.float64, order="C", y_numeric=True, ensure_min_samples=2)
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        subjects = Subjects.of(ids, len(X))
        rows = Rows(np.column_stack([X, y]), None, weight, intercept=True)
        products = Products.of(rows.x, rows.weight, limbs=2)
        solved = self._solve(products)
        self._subjects, self._rows, self._transcript = subjects, rows, Transcript()
        self._rng = generator(self.random_state)
        self._store(products, solved, 0.0)
        self._draw()
        return self

    def _solve(self, products: Products) -> tuple[FloatArray, FloatArray]:
        """Return the parameter [coef, intercept] and the release metric, functions of the exact sums alone."""
        total, unit = products.integers(), products.unit_exponents
        d = len(unit) - 2
        weight = total[-1, -1]
        if self.fit_intercept:  # centred sums times the sum of weights: exact integers, no cancellation
            centred = total[:-1, :-1] * weight - np.outer(total[:-1, -1], total[-1, :-1])
        else:
            centred = total[:-1, :-1] * weight
        scale = np.diag(centred[:d, :d])
        live = np.flatnonzero([int(v) > 0 for v in scale])  # a constant column gets the coefficient 0
        coef = np.zeros(d)
        if live.size:
            coef[live] = self._coefficients(centred[np.ix_(live, live)], centred[live, d], weight, unit[live], unit[d])
        # mean_j = sum s x_j / sum s, in units 2^(u_j - u_1)
        mean = np.ldexp(np.array([_ratio(v, weight) for v in total[:-1, -1]]), unit[:-1] - unit[-1])
        intercept = [mean[d] - mean[:d] @ coef] if self.fit_intercept else []
        return np.append(coef, intercept), self._metric(products, coef)

    def _coefficients(self, xx: Any, xy: Any, weight: int, unit: IntArray, unit_y: int) -> FloatArray:
        """Solve the normal equations; residuals are formed in extended precision from the integers."""
        # Column j is scaled by a power of two, 2^(r_j + u_j): exact, and the diagonal becomes about 1.
        scale = np.array([int(v).bit_length() // 2 for v in np.diag(xx)])
        high, low = _split(xx, scale[:, None] + scale[None, :])
        side, side_low = _split(xy, scale)
        ridge = np.ldexp(self._penalty() * float(weight), -2 * (scale + unit))
        matrix = high + np.diag(ridge)
        try:
            factor = cholesky(matrix, lower=True, check_finite=False)
        except LinAlgError:
            factor = np.zeros((1, 1))
        if np.min(np.diag(factor)) < 1e-7:
            raise CannotCertify(
                f"{type(self).__name__} found linearly dependent columns of X, so the coefficients are not unique in "
                "float64. Remove duplicate or derived columns, or use Ridge with alpha > 0. Nothing was changed."
            )
        exact = high.astype(np.longdouble) + low + np.diag(ridge)
        target = side.astype(np.longdouble) + side_low
        solution = np.zeros(len(scale), dtype=np.longdouble)
        for _ in range(4):
            residual = (target - exact @ solution).astype(np.float64)
            solution = solution + cho_solve((factor, True), residual, check_finite=False)
        return np.ldexp(solution.astype(np.float64), unit_y - unit - scale)

    def _metric(self, products: Products, coef: FloatArray) -> FloatArray:
        """``(sum s x x' + Lambda) / s^2`` over [coef, intercept]; s^2 is the residual variance, a power of two."""
        gram = products.matrix()
        d = len(coef)
        keep = [*range(d), d + 1] if self.fit_intercept else list(range(d))
        theta = np.append(coef, -1.0)
        block = gram[: d + 1, : d + 1]
        if self.fit_intercept:
            block = block - np.outer(gram[: d + 1, -1], gram[-1, : d + 1]) / gram[-1, -1]
        residual = max(float(theta @ block @ theta), 2.0**-40 * float(block[d, d]), 2.0**-200)
        variance = 2.0 ** round(float(np.log2(float(residual) / float(gram[-1, -1]))))
        metric = gram[np.ix_(keep, keep)]
        metric[np.arange(d), np.arange(d)] += self._penalty()
        empty = np.diag(metric) == 0.0
        metric[empty, empty] = 1.0
        return metric / variance

    # --------------------------------------------------------------- delete

    def _plan(self, rows: IntArray) -> Plan:
        left = self.n_rows_ - rows.size
        if left < 2:
            raise InvalidRequest(
                f"delete(ids=...) would leave {left} rows. At least 2 are needed; discard the model instead. "
                "Nothing was changed."
            )
        x, _, s = self._rows.take(rows)
        products = self._products.minus(x, s)
        if products is None:
            weight = self._rows.weight.copy()
            weight[rows] = 0.0
            products = Products.of(self._rows.x, weight, limbs=2)
        return self._planned(rows, products, self._rows)

    def _planned(self, rows: IntArray, products: Products, storage: Rows) -> Plan:
        if products.integers()[-1, -1] == 0:
            raise InvalidRequest("delete(ids=...) would leave only rows of weight 0. Nothing was changed.")
        solved = self._solve(products)
        change = solved[0] - self._parameter_private
        moved = float(np.sqrt(max(float(change @ self._metric_now @ change), 0.0)))
        differencing = moved / self.noise if self.noise > 0 else (np.inf if np.any(change) else 0.0)

        def commit() -> None:
            if storage is not self._rows:
                self._rows.erase(np.arange(len(self._rows.y)))
                self._rows = storage
            self._rows.erase(rows)
            self._store(products, solved, self._since_release() + differencing)
            self._released = None

        return Plan(commit, bool(np.any(change)), "exact", differencing)

    def _plan_features(self, rows: IntArray, X: FloatArray) -> Plan:
        """Plan for changed features: X holds the new features of all rows, of the deleted ones too (ignored)."""
        n = len(X)
        weight = self._rows.weight[:n].copy()
        weight[rows] = 0.0
        table = np.column_stack([X, self._rows.x[:n, -2]]) * (weight > 0)[:, None]
        storage = Rows(table, None, weight, intercept=True)
        return self._planned(rows, Products.of(storage.x, storage.weight, limbs=2), storage)

    def _store(self, products: Products, solved: tuple[FloatArray, FloatArray], differencing: float) -> None:
        self._products, self._differencing = products, differencing
        self._parameter_private, self._metric_now = solved

    # -------------------------------------------------------------- release

    def _since_release(self) -> float:
        """Bound (triangle inequality) on how far the state has moved since the last release, in units of noise."""
        return 0.0 if self._released is not None else self._differencing

    def _draw(self) -> None:
        if self.noise == 0:
            self._released = self._parameter_private
            return
        try:
            factor = cholesky(self._metric_now, lower=True)
        except LinAlgError:
            raise CannotCertify(
                "The release metric is singular in float64, so noise cannot be calibrated. Scale the features, remove "
                "duplicate columns, or set noise=0."
            ) from None
        self._released = lattice.release(self._parameter_private, factor, self.noise, self._rng)
        self._transcript.record(0.0)

    @property
    def _parameter(self) -> FloatArray:
        self._check_fitted()
        if self._released is None:
            self._draw()
        return self._released

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state. See :class:`certified.certificate.Certificate`."""
        self._check_fitted()
        return Certificate(
            claim="exact",
            scope="estimator",
            method="exact",
            mu=0.0,
            delta=0.0,
            distance_bound=0.0,
            sigma=float(self.noise),
            noise=lattice.source(self.noise, self._rng),
            mu_target=0.0,
            mu_transcript=0.0,
            mu_differencing=self._differencing,
            assumptions={"nu": 0.0, "M": 0.0, "b": 0.0, "eta": 0.0, "k_G": 1.0, "rounding_envelope": 0.0},
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            expected_excess_loss=0.5 * self.noise**2 * len(self._parameter_private),
            versions=versions(),
        )

    @property
    def state_digest_(self) -> str:
        """Digest of the whole learned state: equal exactly when two states are equal bit for bit. Private."""
        self._check_fitted()
        p = self._products
        return digest(p.exponents, p.top, p.sums, self._parameter_private, self._metric_now)

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients, shape (n_features,)."""
        return self._parameter[: self.n_features_in_].copy()

    @property
    def intercept_(self) -> float:
        """Released intercept."""
        return float(self._parameter[-1]) if self.fit_intercept else 0.0

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._parameter_private[: self.n_features_in_].copy()

    @property
    def private_intercept_(self) -> float:
        """Intercept without noise. For auditors; never to be published."""
        self._check_fitted()
        return float(self._parameter_private[-1]) if self.fit_intercept else 0.0

    @property
    def release_metric_(self) -> FloatArray:
        """G over [coef, intercept]: noise has covariance ``noise^2 G^-1``. For auditors; never to be published."""
        self._check_fitted()
        return self._metric_now.copy()

    def predict(self, X: Any) -> FloatArray:
        """Return the predictions of the released parameters, shape (n_rows,)."""
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_ + self.intercept_

    def _released_as(self, out: Any) -> Any:
        out.coef_, out.intercept_ = self.coef_, self.intercept_
        out.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out


class Ridge(_LeastSquares):
    """Linear least squares with an L2 penalty, exact under deletion.

    Minimises ``sum_i s_i (y_i - x_i'w - b)^2 + alpha ||w||^2``. X and y are read to 40 binary digits below the largest
    value of their column; on these the sums are exact integers, so the state after any deletions is bit for bit that
    of a refit and the certificate has mu = 0.

    Parameters
    ----------
    alpha : float, default=1.0
    noise : float, default=0.0
        Standard deviation of the noise on a release, in standard errors. Exactness needs none; noise limits what
        somebody who holds two releases learns about the rows deleted in between (``mu_differencing``).
    fit_intercept : bool, default=True
    random_state : int, RandomState or None, default=None
        For simulations; None draws noise from the operating system.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
    intercept_ : float
    certificate_, ids_, n_rows_, private_coef_, private_intercept_, release_metric_
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
        self, alpha: float = 1.0, *, noise: float = 0.0, fit_intercept: bool = True, random_state: Any = None
    ) -> None:
        self.alpha = alpha
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def _penalty(self) -> float:
        return float(self.alpha)

    def release(self) -> _SklearnRidge:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(_SklearnRidge(alpha=self.alpha, fit_intercept=self.fit_intercept))


class LinearRegression(_LeastSquares):
    """Ordinary least squares, exact under deletion. See :class:`Ridge` for what exact means.

    Parameters
    ----------
    noise : float, default=0.0
    fit_intercept : bool, default=True
    random_state : int, RandomState or None, default=None
        As in :class:`Ridge`.

    Attributes
    ----------
    coef_, intercept_, certificate_, ids_, n_rows_, state_digest_
        As in :class:`Ridge`.

    Examples
    --------
    >>> from certified.linear_model import LinearRegression
    >>> model = LinearRegression().fit([[0.0], [1.0], [2.0], [9.0]], [1.0, 3.0, 5.0, 0.0])
    >>> _ = model.delete([3])
    >>> model.coef_, model.intercept_
    (array([2.]), 1.0)
    """

    def __init__(self, *, noise: float = 0.0, fit_intercept: bool = True, random_state: Any = None) -> None:
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.random_state = random_state

    def _penalty(self) -> float:
        return 0.0

    def release(self) -> _SklearnLinearRegression:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(_SklearnLinearRegression(fit_intercept=self.fit_intercept))


def _ratio(value: int, weight: int) -> float:
    """value / weight for integers of any size, correctly rounded (Python's true division)."""
    return value / weight


def _split(values: Any, exponents: IntArray) -> tuple[FloatArray, FloatArray]:
    """values / 2^exponents as the unevaluated sum of two floats, for integers of any size."""
    high = np.vectorize(float, otypes=[np.float64])(values)
    low = np.vectorize(lambda v: float(v - int(float(v))), otypes=[np.float64])(values)
    return np.ldexp(high, -exponents), np.ldexp(low, -exponents)
