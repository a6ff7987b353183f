"""What the least-squares models share: exact sums as state, deletion by subtraction, release with optional noise."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, block_diag, cholesky
from scipy.sparse import issparse
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import _check_sample_weight

from certified import noise as lattice
from certified._data.feature_change import FeatureChange
from certified._data.frames import split_ids
from certified._data.hashing import ANY_REQUEST
from certified._data.numbers import validate_data
from certified._data.reproducible import digest, on_one_thread, one_thread
from certified._data.rows import Rows
from certified._data.subjects import Subjects
from certified._exact.moments import Moments
from certified._exact.over_parts import products_over
from certified._exact.sums import Products
from certified.accounting import Transcript
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Assumptions, Certificate
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.linear_model._parted import opened
from certified.noise import generator
from certified.parts._source import Opened, Parts
from certified.typing import FloatArray, IntArray

__all__ = ["LeastSquares", "number"]


def _table(part: Any, weight: FloatArray) -> FloatArray:
    """The columns that are summed: [X, Y, 1]."""
    found: FloatArray = part.x
    return found


def number(caller: str, name: str, value: Any, positive: bool = False) -> float:
    """Return a parameter as a float; raise InvalidInput unless it is finite and >= 0 (> 0)."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = np.nan
    if not (np.isfinite(found) and (found > 0 if positive else found >= 0)):
        raise InvalidInput(
            f"{caller}({name}={value!r}) is not allowed: a finite number {'> 0' if positive else '>= 0'} is needed."
        )
    return found


@dataclass(frozen=True, eq=False)
class Solution:
    """What is learned from the exact sums, a function of them alone.

    Attributes
    ----------
    parameter : float array of shape (n_outputs, p)
        [coef, intercept] of each output.
    ridge : float array of shape (n_outputs,)
        Curvature that the penalty adds to the sum of squares.
    variance : float array of shape (n_outputs,)
        Power of two nearest (in ratio) to the mean squared residual.
    report : tuple
        What the solver says about its work; see the subclass.
    """

    parameter: FloatArray
    ridge: FloatArray
    variance: FloatArray
    report: tuple[Any, ...] = ()


_EXACT = Assumptions(nu=0.0, M=0.0, b=0.0, eta=0.0, k_G=1.0, rounding_envelope=0.0)


class LeastSquares(MultiOutputMixin, RegressorMixin, Deletable):
    """Base class. The state is the exact Gram matrix of the columns [X, Y, 1], two limbs each."""

    noise: float
    fit_intercept: bool
    random_state: Any
    _released: Any
    n_features_in_: int
    _flat = True  # one output given as a column: coef_ of shape (n_features,), as Ridge and ElasticNet have it

    def _check_parameters(self, n_outputs: int) -> None:
        raise NotImplementedError

    def _ridge(self, weight: float, n_outputs: int) -> FloatArray:
        """Curvature of the penalty for each output, given the sum of the weights."""
        raise NotImplementedError

    def _coefficients(self, moments: Moments) -> tuple[FloatArray, tuple[Any, ...]]:
        """Return coefficients of shape (n_outputs, n_features) and a report."""
        raise NotImplementedError

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features), or Parts
            With :class:`certified.parts.Parts`, y and the others are names of columns of the source.
        y : array-like of shape (n_rows,) or (n_rows, n_outputs), column name or list of them
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1. A column named here is not
            a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.

        Returns
        -------
        self

        Raises
        ------
        InvalidInput
            A parameter, an id or a value cannot be used.
        CannotCertify
            The coefficients are not determined by the data.
        """
        name = type(self).__name__
        number(name, "noise", self.noise)
        if isinstance(X, Parts):
            return self._fit_source(X, y, ids, sample_weight)
        X, ids = split_ids(X, ids)
        if issparse(y):
            raise InvalidInput(f"{name}.fit got a sparse y. A dense array is needed; call y.toarray() first.")
        X, y = validate_data(
            self, X, y, dtype=np.float64, order="C", y_numeric=True, multi_output=True, ensure_min_samples=2
        )
        y = np.asarray(y, dtype=np.float64)
        targets = y if y.ndim == 2 else y[:, None]
        if targets.shape[1] == 0:
            raise InvalidInput(f"{name}.fit got y of shape {y.shape}. At least one output is needed.")
        self._check_parameters(targets.shape[1])
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        if not weight.any():
            raise InvalidInput(
                f"{name}.fit got sample_weight that is 0 for every row. One row of weight > 0 is needed."
            )
        subjects = Subjects.of(ids, len(X))
        rows = Rows(np.column_stack([X, targets]), None, weight, intercept=True)
        return self._fit_on(rows, subjects, X.shape[1], y.ndim == 1)

    def _fit_source(self, X: Parts, y: Any, ids: Any, sample_weight: Any) -> Self:
        """Fit on rows in parts; y is the name of a column, or a list of them."""
        several = isinstance(y, list | tuple)
        self._check_parameters(len(y) if several else 1)
        with opened(self, X, y, ids, targets_last=True, sample_weight=sample_weight) as found:
            return self._fit_opened(found, not several)

    _parted_targets = "last"

    def _plan_parts(self, rows: IntArray, fresh: Any, n_features: int) -> Plan:
        """Plan for the retained rows with other features, in new parts."""
        return self._planned(rows, products_over(fresh, _table, limbs=2), fresh)

    def _fit_opened(self, found: Opened, one_dimensional: bool = True) -> Self:
        if found.n_rows < 2:
            raise InvalidInput(f"{type(self).__name__}.fit got {found.n_rows} row. At least 2 are needed.")
        return self._fit_on(found.rows, found.subjects, len(found.features), one_dimensional)

    def _fit_on(self, rows: Any, subjects: Subjects, n_features: int, one_dimensional: bool) -> Self:
        products = products_over(rows, _table, limbs=2)
        solution = self._solve(products, n_features)
        self._subjects, self._rows, self._transcript = subjects, rows, Transcript()
        self._rng = generator(self.random_state, self.noise)
        self._one_dimensional = one_dimensional
        self._store(products, solution, 0.0)
        self._draw()
        return self

    def _solve(self, products: Products, n_features: int) -> Solution:
        """Return what is learned, a function of the exact sums alone."""
        gram = products.matrix()
        if not (np.all(np.isfinite(gram)) and gram[-1, -1] >= 2.0**-800):
            raise self._beyond()
        moments = Moments(products, n_features, self.fit_intercept)
        with on_one_thread():
            coef, report = self._coefficients(moments)
            d, m = moments.n_features, moments.n_outputs
            parameter = coef
            if self.fit_intercept:
                intercept = [moments.mean[d + k] - moments.mean[:d] @ coef[k] for k in range(m)]
                parameter = np.column_stack([coef, intercept])
            ridge = self._ridge(float(gram[-1, -1]), m)
            return Solution(parameter, ridge, self._variance(gram, coef), report)

    def _beyond(self) -> CannotCertify:
        return CannotCertify(
            f"{type(self).__name__} got weights or values whose sums leave the range of float64. Scale the weights or "
            "the columns. Nothing was changed."
        )

    def _variance(self, gram: FloatArray, coef: FloatArray) -> FloatArray:
        """Mean squared residual of each output, rounded to a power of two."""
        m, d = coef.shape
        block = gram[:-1, :-1]
        if self.fit_intercept:
            block = block - np.outer(gram[:-1, -1], gram[-1, :-1]) / gram[-1, -1]
        out = np.empty(m)
        for k in range(m):
            theta = np.zeros(d + m)
            theta[:d], theta[d + k] = coef[k], -1.0
            with np.errstate(over="ignore", invalid="ignore"):
                squares = float(theta @ block @ theta)
            if not np.isfinite(squares):
                raise self._beyond()
            residual = max(squares, 2.0**-40 * float(block[d + k, d + k]), 2.0**-200)
            out[k] = 2.0 ** round(float(np.log2(residual / float(gram[-1, -1]))))
        return out

    def _metric(self, output: int) -> FloatArray:
        """``(sum s x x' + Lambda) / s^2`` over [coef, intercept] of one output, shape (p, p)."""
        gram, d = self._products.matrix(), int(self.n_features_in_)
        keep = [*range(d), len(gram) - 1] if self.fit_intercept else list(range(d))
        metric = gram[np.ix_(keep, keep)]
        metric[np.arange(d), np.arange(d)] += self._solution.ridge[output]
        empty = np.diag(metric) == 0.0
        metric[empty, empty] = 1.0
        return metric / self._solution.variance[output]

    # --------------------------------------------------------------- delete

    def _check_rest(self, rows: IntArray) -> None:
        super()._check_rest(rows)
        left = self._subjects.n_rows - rows.size
        if left < 2:
            raise InvalidRequest(
                f"delete(ids=...) would leave {left} rows. At least 2 are needed; discard the model instead. "
                "Nothing was changed."
            )

    def _plan_deletion(self, rows: IntArray) -> Plan:
        x, _, s = self._rows.take(rows)
        products = self._products.subtract(x, s)
        if products is None:
            products = products_over(self._rows, _table, weight=self._rows.without(rows), limbs=2)
        return self._planned(rows, products, self._rows)

    def _planned(self, rows: IntArray, products: Products, storage: Any) -> Plan:
        if not products.sums[:, :, -1, -1].any():
            raise InvalidRequest("delete(ids=...) would leave only rows of weight 0. Nothing was changed.")
        n_features = storage.width - len(self._solution.parameter) - 1
        solution = self._solve(products, n_features)
        comparable = n_features == self.n_features_in_
        change = solution.parameter - self._solution.parameter if comparable else solution.parameter
        differencing = self._differencing_of(change) if comparable else np.inf
        since, before = self._since_release() + differencing, self._rows

        def commit() -> None:
            self.__dict__.update(_rows=storage, n_features_in_=n_features, _released=None)
            self._store(products, solution, since)
            storage.erase(rows)
            if storage is not before:
                before.clear()

        return Plan(commit, differencing > 0, "exact", differencing)

    def _moved(self, change: FloatArray) -> float:
        """Length of a change of the parameters in the noise metric."""
        squares = [max(float(part @ self._metric(k) @ part), 0.0) for k, part in enumerate(change)]
        return float(np.sqrt(sum(squares)))

    def _plan_features(self, rows: IntArray, new: FeatureChange) -> Plan:
        """Plan for changed features, more or fewer too."""
        storage = self._rows.with_features(new, self._rows.x.shape[1] - int(self.n_features_in_))
        return self._planned(rows, Products.of(storage.x, storage.weight, limbs=2), storage)

    # ------------------------------------------------------------------ add

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        name = type(self).__name__
        X, y = validate_data(self, X, y, dtype=np.float64, order="C", reset=False, y_numeric=True, multi_output=True)
        y = np.asarray(y, dtype=np.float64)
        outputs = len(self._solution.parameter)
        if (y.ndim == 1) != self._one_dimensional or y.size != outputs * len(X):
            raise InvalidInput(
                f"{name}.add got y of shape {y.shape}. {outputs} outputs in the form of the fit are needed. "
                "Nothing was changed."
            )
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        table = np.column_stack([X, y.reshape(len(X), outputs), np.ones(len(X))])
        retained, subjects = self._subjects.added(ids, len(X))
        rows = self._rows.added(retained, (table[None], np.zeros((1, len(X))), weight[None], np.zeros((1, 1))))
        products = self._products.plus(table, weight) or Products.of(rows.x, rows.weight, limbs=2)
        solution = self._solve(products, X.shape[1])
        differencing = self._differencing_of(solution.parameter - self._solution.parameter)
        since = self._since_release() + differencing

        def commit() -> None:
            self.__dict__.update(_rows=rows, _subjects=subjects, _released=None)
            self._store(products, solution, since)

        return Plan(commit, differencing > 0, "exact", differencing)

    def _differencing_of(self, change: FloatArray) -> float:
        """How far the parameters have moved, in units of the noise; before a new state is stored."""
        if self.noise > 0:
            return self._moved(change) / self.noise
        return np.inf if np.any(change) else 0.0

    def _store(self, products: Products, solution: Solution, differencing: float) -> None:
        self._products, self._solution, self._differencing = products, solution, differencing

    # -------------------------------------------------------------- release

    def _since_release(self) -> float:
        """Bound (triangle inequality) on how far the state has moved since the last release, in units of noise."""
        return 0.0 if self._released is not None else self._differencing

    def _before_pickling(self) -> None:
        if "_solution" in self.__dict__ and self._released is None:
            with suppress(CannotCertify):  # a copy that is saved serves this release, which is counted here and there
                self._draw()

    @one_thread
    def _draw(self) -> None:
        if self.noise == 0:
            self._released = self._solution.parameter
            return
        released = []
        for k, parameter in enumerate(self._solution.parameter):  # blocks of one metric: independent draws
            try:
                with np.errstate(over="ignore", invalid="ignore"):
                    metric = self._metric(k)
                if not np.all(np.isfinite(metric)):
                    raise LinAlgError
                factor = cholesky(metric, lower=True, check_finite=False)
            except LinAlgError:
                raise CannotCertify(
                    "The noise metric is singular in float64, so noise cannot be calibrated. Scale the features, "
                    "remove duplicate columns, or set noise=0."
                ) from None
            released.append(lattice.release(parameter, factor, self.noise, self._rng))
        self._transcript.record(0.0)  # first: what is served is counted, even after an interrupt
        self._released = np.array(released)

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
        return Certificate.exact(
            sigma=float(self.noise),
            noise=lattice.source(self.noise, self._rng),
            mu_differencing=self._differencing,
            assumptions=_EXACT,
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
            expected_excess_loss=0.5 * self.noise**2 * self._solution.parameter.size,
            versions=self._versions(),
            adaptivity=ANY_REQUEST,
        )

    @property
    def state_digest_(self) -> str:
        """Digest of the whole learned state: equal exactly when two states are equal bit for bit. Private."""
        self._check_fitted()
        p, s = self._products, self._solution
        return digest(p.exponents, p.top, p.sums, s.parameter, s.ridge, s.variance, *s.report)

    def _coef_of(self, parameter: FloatArray) -> FloatArray:
        coef = parameter[:, : self.n_features_in_].copy()
        return coef[0] if self._one_dimensional or (self._flat and len(coef) == 1) else coef

    def _intercept_of(self, parameter: FloatArray) -> Any:
        if not self.fit_intercept:
            return 0.0
        return float(parameter[0, -1]) if self._one_dimensional else parameter[:, -1].copy()

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients, shape (n_features,) or (n_outputs, n_features)."""
        return self._coef_of(self._parameter)

    @property
    def intercept_(self) -> Any:
        """Released intercept: a number, or shape (n_outputs,) where y has two dimensions."""
        return self._intercept_of(self._parameter)

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._coef_of(self._solution.parameter)

    @property
    def private_intercept_(self) -> Any:
        """Intercept without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._intercept_of(self._solution.parameter)

    @property
    def noise_metric_(self) -> FloatArray:
        """G over [coef, intercept]: noise has covariance ``noise^2 G^-1``. For auditors; never to be published.

        Shape (p, p), p coefficients and the intercept; several outputs have one block each on the diagonal, shape
        (n_outputs * p, n_outputs * p), in the order of ``np.column_stack([coef_, intercept_]).ravel()``.
        """
        self._check_fitted()
        return block_diag(*[self._metric(k) for k in range(len(self._solution.parameter))])

    def predict(self, X: Any) -> FloatArray:
        """Return the predictions of the released parameters, shape (n_rows,) or (n_rows, n_outputs)."""
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_.T + self.intercept_

    def _released_as(self, out: Any) -> Any:
        out.coef_, out.intercept_ = self.coef_, self.intercept_
        out.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out
