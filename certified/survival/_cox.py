"""Cox's proportional hazards with certified deletion: the distance to the minimiser is measured after every request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import LinAlgError, cholesky
from sklearn.base import RegressorMixin
from sklearn.linear_model import LinearRegression as _PlainLinear
from sklearn.utils.validation import _check_sample_weight

from certified._convex import bounds, downdate
from certified._convex.bounds import LARGEST, gamma, or_inf, up
from certified._convex.problem import NoiseMetric
from certified._convex.released import Released
from certified._convex.state import Solution, Terms, on_grid
from certified._data.frames import split_column, split_ids
from certified._data.numbers import validate_data
from certified._data.reproducible import one_thread
from certified._data.subjects import Subjects
from certified._exact.sums import Products
from certified.accounting import Transcript
from certified.base import Plan, all_or_nothing
from certified.errors import CannotCertify, InvalidInput
from certified.linear_model._certified import CertifiedLinear
from certified.linear_model._state import Sizes
from certified.noise import generator
from certified.survival._concordance import concordance_index
from certified.survival._partial_likelihood import Evaluation, RiskSets
from certified.survival._targets import times_and_events
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["CoxPH"]

_TINY = 2.0**-40  # in the noise metric where nothing is penalised
_NOTHING = "Nothing was changed."
_RANGE = 2.0**100  # of features and weights, and of the inverse of weights, so that nothing underflows unseen
_LEAST = 2.0**-240  # entries of the diagonal of a Hessian, below which underflow could be seen


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows by position, zeros where none is retained."""

    x: FloatArray
    time: FloatArray
    event: BoolArray
    weight: FloatArray
    stratum: IntArray

    def at(self, where: Any) -> _Rows:
        return _Rows(self.x[where], self.time[where], self.event[where], self.weight[where], self.stratum[where])

    def erase(self, rows: IntArray) -> None:
        for held in vars(self).values():
            held[rows] = 0

    def followed_by(self, new: _Rows) -> _Rows:
        return _Rows(*(np.concatenate(both) for both in zip(vars(self).values(), vars(new).values(), strict=True)))


@dataclass(frozen=True, eq=False)
class _State:
    solution: Solution
    metric: NoiseMetric


class CoxPH(RegressorMixin, Released):
    """Cox's proportional hazards, whose subjects can be deleted, with a certificate.

    The hazard of a row is ``h(t) exp(x'w)`` with any h, of which the partial likelihood is free. One person is in the
    risk sets of all who had the event before; a deletion takes it out of all of them, evaluates what is left and
    certifies the distance to its minimiser.

    Coefficients are released, with noise. A baseline hazard is not: it is another function of all rows, which this
    noise does not cover. For survival curves take :class:`PiecewiseExponential`.

    Parameters
    ----------
    alpha : float, default=1.0
        Strength of the L2 penalty ``alpha ||w||^2 / 2``, which is added to the negative log partial likelihood, a sum:
        a prior of variance 1 / alpha. 0 for none.
    ties : {"efron", "breslow"}, default="efron"
        How events at the same time are treated.
    epsilon, delta, noise, tol, max_iter, random_state
        As in :class:`certified.linear_model.PoissonRegressor`.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Released log hazard ratios.
    private_coef_ : array of shape (n_features,)
        The same without noise. For auditors; never to be published.
    private_intercept_ : float
        0: there is none.
    noise_metric_ : array of shape (n_features, n_features)
        For auditors; never to be published.
    certificate_, ids_, n_rows_
        As in :class:`certified.linear_model.PoissonRegressor`.

    Notes
    -----
    A deletion takes two or three passes of O(n p^2); so does :meth:`refine`. Theory: "Survival" in the documentation.

    Examples
    --------
    >>> import numpy as np
    >>> from certified.survival import CoxPH
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2))
    >>> time = rng.exponential(np.exp(-0.5 * X[:, 0]))
    >>> y = np.column_stack([time < 2.0, np.minimum(time, 2.0)])
    >>> model = CoxPH().fit(X, y)
    >>> model.delete([3, 5]).n_rows
    2
    """

    _held: _Rows

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        ties: str = "efron",
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.alpha = alpha
        self.ties = ties
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None, strata: Any = None) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        y : structured array, array-like of shape (n_rows, 2) or (n_rows,)
            Fields or columns (event, time), as in scikit-survival. One column is of times that all are of events.
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; None numbers the rows 0..n-1. A column named here is not a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.
        strata : array-like of shape (n_rows,), column name or None
            Each stratum has a baseline hazard of its own.

        Returns
        -------
        self
        """
        name = type(self).__name__
        CertifiedLinear._check_parameters(self)
        alpha = self.alpha
        real = isinstance(alpha, int | float | np.number) and not isinstance(alpha, bool)
        if not (real and (alpha == 0 or 1.0 / LARGEST <= alpha <= LARGEST)):
            raise InvalidInput(f"{name}(alpha={alpha!r}) is not allowed: 0, or a number from 2^-200 to 2^200, is.")
        if self.ties not in ("efron", "breslow"):
            raise InvalidInput(f"{name}(ties={self.ties!r}) is not allowed: 'efron' or 'breslow' is needed.")
        X, ids = split_ids(X, ids)
        X, strata = split_column(X, strata, "strata")
        X = validate_data(self, X, dtype=np.float64, order="C", copy=True)
        rows = self._rows_of("fit", X, y, sample_weight, strata)
        subjects = Subjects.of(ids, X.shape[0])
        metric = self._metric_of(rows)
        close = self._close(X.shape[1])
        found = self._solved(rows, metric, np.zeros(X.shape[1]), 0.25 * close)
        self._subjects, self._held, self._stratified = subjects, rows, strata is not None
        self._state = _State(found, metric)
        self._transcript, self._released, self._differencing = Transcript(), None, 0.0
        self._rng = generator(self.random_state, self.noise)
        self._draw()
        return self

    def _rows_of(self, call: str, X: FloatArray, y: Any, sample_weight: Any, strata: Any) -> _Rows:
        name = f"{type(self).__name__}.{call}"
        time, event = times_and_events(name, y, X.shape[0])
        weight = np.array(_check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True))
        tiny = (weight > 0.0) & (weight < 1.0 / _RANGE)
        if np.any(np.abs(X) > _RANGE) or np.any(weight > _RANGE) or np.any(tiny):
            raise InvalidInput(
                f"{name} got features above 2^100 (1.3e30) in absolute value, or weights above it or below 2^-100. "
                f"Scale them. {_NOTHING}"
            )
        if strata is None:
            stratum = np.zeros(X.shape[0], dtype=np.int64)
        else:
            labels = np.asarray(strata)
            if labels.shape != (X.shape[0],):
                raise InvalidInput(
                    f"{name}(strata=...) got shape {labels.shape}. One label for each of the {X.shape[0]} rows is "
                    f"needed. {_NOTHING}"
                )
            stratum = np.unique(labels.astype(str), return_inverse=True)[1].astype(np.int64)
        return _Rows(X, time.copy(), event.copy(), weight, stratum)

    @one_thread
    def _metric_of(self, rows: _Rows) -> NoiseMetric:
        """Return the noise metric, bit for bit a function of the set of rows: it is made of exact sums."""
        s, p = rows.weight, rows.x.shape[1]
        products = Products.of(np.column_stack([rows.x, rows.event, np.ones(len(s))]), s, limbs=2)
        sums = np.ascontiguousarray(products.matrix())
        events, total = float(sums[p, p]), float(sums[p + 1, p + 1])
        if not events > 0.0:
            raise CannotCertify(
                f"{type(self).__name__} would have no event (of weight > 0), so that there is no partial likelihood. "
                f"Give rows with events. {_NOTHING}"
            )
        unit = 1.0
        if not np.all((s == 0.0) | (s == 1.0)):
            both = np.column_stack([np.sqrt(s), np.ones(len(s))])
            unit = Sizes(Products.of(both, s, limbs=2, gram=False)).unit
        scale = 2.0 ** round(float(np.log2(events) - np.log2(total)))
        matrix = scale * (sums[:p, :p] - np.outer(sums[:p, p + 1], sums[:p, p + 1] / total))
        matrix = 0.5 * (matrix + matrix.T)
        matrix[np.diag_indices(p)] += self.alpha if self.alpha > 0 else _TINY
        matrix *= unit
        try:
            if not np.all(np.isfinite(matrix)):
                raise LinAlgError
            factor = cholesky(matrix, lower=True, check_finite=False)
        except LinAlgError:
            raise CannotCertify(
                "The noise metric (the weighted covariance of the features plus the penalty) is singular in float64, "
                "so noise cannot be calibrated. Remove duplicate or constant columns, scale the features "
                f"(StandardScaler), or add a penalty. {_NOTHING}"
            ) from None
        root = np.sqrt(np.diag(matrix)) * (1 + 2.0**-30)
        return NoiseMetric(products, scale * unit, matrix, factor, root, root)

    # ---------------------------------------------------------------- solve

    def _solved(self, rows: _Rows, metric: NoiseMetric, start: FloatArray, size: float) -> Solution:
        """Return the minimiser on a grid whose cells have this size, with its measured distance.

        The Hessian is formed anew at every step: nothing of a former one is used.
        """
        live = rows.at(rows.weight > 0.0)
        sets = RiskSets(live.x, live.time, live.event, live.weight, live.stratum, efron=self.ties == "efron")
        w, here = start, sets.at(start)
        if here is None:
            w = np.zeros(len(start))
            here = sets.at(w)
        passes, before = 1, np.inf
        while here is not None and passes < self.max_iter:
            inverse = self._factorised(here)
            gradient = here.gradient + self.alpha * w
            step = (inverse @ gradient) @ inverse
            length = float(np.linalg.norm(metric.whitened(step)))
            descent = float(gradient @ step)
            worth, t, ahead = self._worth(here, w), 1.0, None
            if length <= 0.1 * size or (length <= 1e-3 and length > 0.5 * before):  # done, or at the floor of rounding
                w = w - step
                break
            while t > 2.0**-30 and passes < self.max_iter:
                passes += 1
                ahead = sets.at(w - t * step)
                if ahead is not None and (
                    length <= 1e-3 or self._worth(ahead, w - t * step) <= worth - 0.1 * t * descent
                ):
                    break
                t, ahead = 0.5 * t, None
            if ahead is None:
                break
            w, here, before = w - t * step, ahead, length
        w = on_grid(w, size, metric.root, lambda v: float(np.linalg.norm(metric.whitened(v))))
        found = self._measured(sets, metric, w, passes + 1)
        if not found.distance <= self._acceptable(found):
            raise CannotCertify(
                f"{type(self).__name__}: the distance to the minimiser is at most {found.distance:.3g} standard "
                f"errors after {found.passes} passes, and {self._acceptable(found):.3g} is needed. There may be no "
                "minimiser: add a penalty (alpha), scale the features (StandardScaler), or raise max_iter, noise or "
                f"epsilon. {_NOTHING}"
            )
        return found

    def _worth(self, here: Evaluation, w: FloatArray) -> float:
        return here.value + 0.5 * self.alpha * float(w @ w)

    def _factorised(self, here: Evaluation) -> FloatArray:
        hessian = here.hessian + self.alpha * np.eye(len(here.gradient))
        inverse = downdate.factorise(hessian) if float(np.min(np.diag(hessian))) >= _LEAST else None
        if inverse is None:
            raise CannotCertify(
                f"{type(self).__name__}: the Hessian is singular in float64, so the minimiser is not unique or "
                f"does not exist. Remove duplicate or constant columns, or add a penalty (alpha). {_NOTHING}"
            )
        return inverse

    def _measured(self, sets: RiskSets, metric: NoiseMetric, w: FloatArray, passes: int) -> Solution:
        """Bound the distance of w to the minimiser: theorem 1 with the constants of the partial likelihood."""
        here, p = sets.at(w), len(w)
        if here is None:
            nothing = Terms(nu=np.inf, M=np.inf, b=np.inf, eta=0.0, rho=np.inf, k_G=np.inf, rounding_envelope=np.inf)
            return Solution(w, np.inf, "measured", nothing, np.inf, passes)
        inverse = self._factorised(here)
        absolute = np.abs(inverse)
        root = np.sqrt(here.diagonal + self.alpha) * (1 + 2.0**-20)
        rho = bounds.sandwich(here.hessian + self.alpha * np.eye(p), inverse, root, here.relative + gamma(8))
        gradient = here.gradient + self.alpha * w
        error = here.gradient_error + gamma(8) * (self.alpha * np.abs(w) + np.abs(gradient))
        lost = gamma(p + 8) * np.abs(gradient)
        envelope = up(
            float(np.linalg.norm(absolute @ (error + lost))) * (1.0 + 2.0**-20) + 2.0**-900 * float(absolute.sum())
        )
        white = inverse @ gradient
        step = white @ inverse
        nu = up(float(np.linalg.norm(white)) * (1.0 + gamma(p + 4)) + envelope)
        M, k_G = sets.reach(inverse), bounds.metric_constant(metric.factor, inverse, metric.root)
        newton = float(np.linalg.norm(metric.whitened(step))) * (1.0 + gamma(p + 4))
        newton = up(newton + gamma(3 * p + 8) * float((np.abs(white) @ absolute) @ metric.root))
        distance = bounds.measured_distance(
            nu=nu, M=M, low=1.0 - up(rho), rho=rho, newton=newton, step=nu, residual=envelope, k_G=k_G
        )
        terms = Terms(nu=nu, M=M, b=up(M * nu), eta=0.0, rho=rho, k_G=k_G, rounding_envelope=up(k_G * envelope))
        weight = up(float(np.abs(w) @ metric.root))
        return Solution(w, or_inf(distance), "measured", terms, weight, passes)

    # -------------------------------------------------- delete, add, refine

    def _plan_deletion(self, rows: IntArray) -> Plan:
        left = self._subjects.without(rows)
        target = self._distance_target(self._state.solution)
        plan = self._planned(self._held.at(left), max(0.25 * self.tol, target / 4.0))
        held = self._held

        def commit() -> None:
            plan.commit()
            held.erase(rows)

        return Plan(commit, True, plan.method, plan.mu_differencing, plan.passes)

    def _plan_refinement(self) -> Plan:
        return self._planned(self._held.at(self._subjects.retained), 0.25 * self._close(self.n_features_in_))

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        if self._stratified:
            raise InvalidInput(
                f"{type(self).__name__}.add was called on a model with strata, for which add takes no labels. Fit "
                f"again on all rows. {_NOTHING}"
            )
        X = validate_data(self, X, dtype=np.float64, order="C", reset=False)
        new = self._rows_of("add", X, y, sample_weight, None)
        retained, subjects = self._subjects.added(ids, X.shape[0])
        rows = self._held.at(retained).followed_by(new)
        plan = self._planned(rows, max(0.25 * self.tol, self._distance_target(self._state.solution) / 4.0))

        def commit() -> None:
            plan.commit()
            self.__dict__.update(_held=rows, _subjects=subjects)

        return Plan(commit, True, plan.method, plan.mu_differencing, plan.passes)

    def _planned(self, rows: _Rows, size: float) -> Plan:
        """Plan to move to the minimiser on these rows."""
        before, metric = self._state.solution.w, self._metric_of(rows)
        found = self._solved(rows, metric, before, size)
        moved = float(np.linalg.norm(metric.whitened(found.w - before)))
        differencing = moved / self.noise if self.noise > 0 else (np.inf if moved > 0 else 0.0)
        since, state = self._since_release() + differencing, _State(found, metric)

        def commit() -> None:
            self.__dict__.update(_state=state, _differencing=since, _released=None)

        return Plan(commit, True, found.method, differencing, found.passes)

    # -------------------------------------------------------------- release

    def _noised(self, w: FloatArray) -> FloatArray:
        return self._state.metric.noised(w, self.noise, self._rng)

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients."""
        return self._parameter.copy()

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._state.solution.w.copy()

    @property
    def private_intercept_(self) -> float:
        """Nothing: the partial likelihood has no intercept."""
        self._check_fitted()
        return 0.0

    @property
    def noise_metric_(self) -> FloatArray:
        """Metric of the noise. For auditors; never to be published."""
        self._check_fitted()
        return self._state.metric.matrix

    def _release(self) -> _PlainLinear:
        """Return a plain scikit-learn linear model that predicts log risks; it holds no training row."""
        self._check_fitted()
        out = _PlainLinear(fit_intercept=False)
        out.coef_, out.intercept_, out.n_features_in_ = self.coef_, 0.0, self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out

    def predict(self, X: Any) -> FloatArray:
        """Return log risks ``x'w`` by the released coefficients, shape (n_rows,): the larger, the earlier the event.

        Between strata they cannot be compared.
        """
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_

    def score(self, X: Any, y: Any) -> float:
        """Return the concordance index of the released model, see :func:`certified.survival.concordance_index`."""
        return concordance_index(y, self.predict(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags
