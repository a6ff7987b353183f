"""Piecewise constant hazards: a certified Poisson regression on rows that are split by intervals of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.linear_model import LinearRegression as _PlainLinear
from sklearn.utils.validation import _check_sample_weight

from certified._convex.losses import Loss
from certified._convex.problem import Problem
from certified._data.frames import split_ids
from certified._data.numbers import validate_data
from certified._data.subjects import Subjects
from certified.base import Deletable, Plan, all_or_nothing
from certified.certificate import Certificate
from certified.errors import InvalidInput
from certified.linear_model import PoissonRegressor
from certified.linear_model._certified import CertifiedLinear
from certified.survival._concordance import concordance_index
from certified.survival._periods import Periods, checked_breaks, split
from certified.survival._targets import times_and_events
from certified.typing import FloatArray, IntArray

__all__ = ["PiecewiseExponential"]


class _Hazard(PoissonRegressor):
    """Poisson regression whose penalty is that of a prior: it has its own strength for every column."""

    def __init__(
        self,
        strengths: Any,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.strengths = strengths
        super().__init__(
            0.0, epsilon=epsilon, delta=delta, noise=noise, tol=tol, max_iter=max_iter, random_state=random_state
        )
        self.solver = "newton-cholesky"

    def _problem_of(self, loss: Loss, n_columns: int, totals: Any) -> Problem:
        problem = super()._problem_of(loss, n_columns, totals)
        penalized = np.append(self.strengths, 0.0)
        return replace(problem, penalized=penalized, strength=1.0, strength_depends_on_rows=False)


class PiecewiseExponential(RegressorMixin, Deletable):
    """Proportional hazards with a piecewise constant baseline, whose subjects can be deleted, with a certificate.

    The hazard of a row at time t is ``h_k exp(x'w)``, k being the interval between two breaks that contains t. Its
    likelihood is that of a Poisson regression on person-periods, one for each interval in which somebody was observed,
    with the time observed as exposure. All periods of a row, and all rows of a subject, are deleted together.

    Coefficients and hazards are released with noise, under one certificate: the release predicts whole survival curves.

    Parameters
    ----------
    breaks : array-like of shape (n_breaks,) or None, default=None
        Times > 0 at which the hazard may change, increasing; an interval contains its end. None for a hazard that never
        changes, which is exponential regression. They are to be chosen before the data are seen.
    alpha : float, default=1.0
        Strength of the L2 penalty ``alpha ||w||^2 / 2`` on the coefficients, which is added to the sum of the losses: a
        prior of variance 1 / alpha. 0 for none.
    smoothness : float, default=1.0
        The same for the steps of the log hazard from each interval to the next. With 0, an interval without an event
        has no finite hazard: a fit, or a deletion that leaves such an interval, is refused.
    epsilon, delta, noise, tol, max_iter, random_state
        As in :class:`certified.linear_model.PoissonRegressor`.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
        Released log hazard ratios.
    log_hazard_ : array of shape (n_breaks + 1,)
        Released logarithms of the baseline hazard, per unit of time, in each interval.
    breaks_ : array of shape (n_breaks,)
    private_coef_ : array of shape (n_features + n_breaks,)
        Coefficients and steps of the log hazard without noise. For auditors; never to be published.
    private_intercept_ : float
        Log hazard of the first interval without noise. For auditors; never to be published.
    noise_metric_ : array of shape (n_features + n_breaks + 1, n_features + n_breaks + 1)
        G over coefficients, steps and log hazard of the first interval. For auditors; never to be published.
    certificate_, ids_, n_rows_
        As in :class:`certified.linear_model.PoissonRegressor`; ``n_rows_`` counts rows as given.

    Notes
    -----
    Memory and time grow with the number of person-periods. Theory: "Survival" in the documentation.

    Examples
    --------
    >>> import numpy as np
    >>> from certified.survival import PiecewiseExponential
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 2))
    >>> time = rng.exponential(np.exp(-0.5 * X[:, 0]))
    >>> y = np.column_stack([time < 2.0, np.minimum(time, 2.0)])
    >>> model = PiecewiseExponential(breaks=[0.5, 1.0]).fit(X, y)
    >>> model.delete([3, 5]).n_rows
    2
    >>> model.predict_survival_function(X[:3], [0.5, 1.0, 2.0]).shape
    (3, 3)
    """

    _adjustable = Deletable._adjustable | {"max_iter"}
    n_features_in_: int
    _head: _Hazard

    def __init__(
        self,
        breaks: Any = None,
        *,
        alpha: float = 1.0,
        smoothness: float = 1.0,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
    ) -> None:
        self.breaks = breaks
        self.alpha = alpha
        self.smoothness = smoothness
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    # ------------------------------------------------------------------ fit

    @all_or_nothing
    def fit(self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None) -> Self:
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

        Returns
        -------
        self
        """
        name = type(self).__name__
        breaks = checked_breaks(name, self.breaks)
        CertifiedLinear._check_parameters(self)
        for which in ("alpha", "smoothness"):
            value = getattr(self, which)
            if not (isinstance(value, int | float | np.number) and np.isfinite(value) and (value == 0 or value > 0)):
                raise InvalidInput(f"{name}({which}={value!r}) is not allowed: a finite number >= 0 is needed.")
        X, ids = split_ids(X, ids)
        X = validate_data(self, X, dtype=np.float64, order="C")
        periods, weight = self._periods("fit", X, y, sample_weight, breaks)
        if not np.any(periods.event * weight[periods.row]):
            raise InvalidInput(
                f"{name}.fit got no event (of weight > 0). At least one is needed: without, the hazard is 0. "
                "Nothing was changed."
            )
        subjects = Subjects.of(ids, X.shape[0])
        strengths = np.repeat([float(self.alpha), float(self.smoothness)], [X.shape[1], len(breaks)])
        shared = ("epsilon", "delta", "noise", "tol", "max_iter", "random_state")
        head = _Hazard(strengths, **{which: getattr(self, which) for which in shared})
        head.fit(
            periods.X,
            periods.event,
            ids=subjects.by_position()[0][periods.row],
            sample_weight=weight[periods.row],
            offset=periods.log_time,
        )
        head._owned = True
        self._subjects, self._head, self.breaks_ = subjects, head, breaks
        return self

    def _periods(
        self, call: str, X: FloatArray, y: Any, sample_weight: Any, breaks: FloatArray
    ) -> tuple[Periods, FloatArray]:
        """Return the person-periods of rows, and the weights of the rows."""
        time, event = times_and_events(f"{type(self).__name__}.{call}", y, X.shape[0])
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return split(X, time, event, breaks), weight

    def _members(self) -> tuple[Any, ...]:
        head = self.__dict__.get("_head")
        return () if head is None else (head,)

    # -------------------------------------------------- delete, add, refine

    def _plan_deletion(self, rows: IntArray) -> Plan:
        periods = self._head._subjects.rows_of(np.unique(self._subjects.ids_at(rows)))
        plan = self._head._planned_deletion(periods)
        return replace(plan, commit=self._head._carried_out(plan, periods))

    def _plan_addition(self, X: Any, y: Any, ids: Any, sample_weight: Any = None) -> Plan:
        X = validate_data(self, X, dtype=np.float64, order="C", reset=False)
        periods, weight = self._periods("add", X, y, sample_weight, self.breaks_)
        _, subjects = self._subjects.added(ids, X.shape[0])
        plan = self._head._plan_addition(
            periods.X, periods.event, ids[periods.row], sample_weight=weight[periods.row], offset=periods.log_time
        )

        def commit() -> None:
            plan.commit()
            self._subjects = subjects

        return replace(plan, commit=commit)

    def _plan_refinement(self) -> Plan:
        return self._head._plan_refinement()

    @property
    def certificate_(self) -> Certificate:
        """Certificate of the present state and of its release."""
        self._check_fitted()
        return replace(
            self._head.certificate_,
            estimator=type(self).__name__,
            n_rows=self.n_rows_,
            n_features=int(self.n_features_in_),
        )

    # -------------------------------------------------------------- release

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients."""
        self._check_fitted()
        return self._head.coef_[: self.n_features_in_]

    @property
    def log_hazard_(self) -> FloatArray:
        """Released logarithms of the baseline hazard."""
        self._check_fitted()
        return self._head.intercept_ + np.concatenate([[0.0], np.cumsum(self._head.coef_[self.n_features_in_ :])])

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients and steps of the log hazard without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._head.private_coef_

    @property
    def private_intercept_(self) -> float:
        """Log hazard of the first interval without noise. For auditors; never to be published."""
        self._check_fitted()
        return float(self._head.private_intercept_)

    @property
    def noise_metric_(self) -> Any:
        """Metric of the noise. For auditors; never to be published."""
        self._check_fitted()
        return self._head.noise_metric_

    @property
    def n_iter_(self) -> IntArray:
        """Passes over the rows that the present state took, shape (1,). Not part of a release."""
        self._check_fitted()
        return self._head.n_iter_

    def _release(self) -> _PlainLinear:
        """Return a plain scikit-learn linear model that predicts log risks; it holds no training row.

        Its attributes ``breaks_`` and ``log_hazard_`` are the released baseline.
        """
        self._check_fitted()
        out = _PlainLinear(fit_intercept=False)
        out.coef_, out.intercept_, out.n_features_in_ = self.coef_.copy(), 0.0, self.n_features_in_
        out.breaks_, out.log_hazard_ = self.breaks_.copy(), self.log_hazard_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out

    # -------------------------------------------------------------- predict

    def predict(self, X: Any) -> FloatArray:
        """Return log risks ``x'w`` by the released coefficients, shape (n_rows,): the larger, the earlier the event."""
        self._check_fitted()
        X = validate_data(self, X, dtype=np.float64, reset=False)
        return X @ self.coef_

    def predict_cumulative_hazard_function(self, X: Any, times: Any) -> FloatArray:
        """Return the released cumulative hazard of each row at each time.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        times : array-like of shape (n_times,)
            Times >= 0. Behind the last break the last hazard goes on.

        Returns
        -------
        array of shape (n_rows, n_times)
        """
        risk = np.exp(self.predict(X))
        at = np.asarray(times, dtype=np.float64)
        if at.ndim != 1 or not np.all(at >= 0.0):
            raise InvalidInput(f"{type(self).__name__} got times of shape {at.shape}. A list of times >= 0 is needed.")
        starts, ends = np.concatenate([[0.0], self.breaks_]), np.concatenate([self.breaks_, [np.inf]])
        spent = np.clip(np.minimum(at[:, None], ends) - starts, 0.0, None)
        return np.outer(risk, spent @ np.exp(self.log_hazard_))

    def predict_survival_function(self, X: Any, times: Any) -> FloatArray:
        """Return the released probability of no event until each time, shape (n_rows, n_times).

        Parameters
        ----------
        X, times
            As in :meth:`predict_cumulative_hazard_function`.
        """
        return np.exp(-self.predict_cumulative_hazard_function(X, times))

    def score(self, X: Any, y: Any) -> float:
        """Return the concordance index of the released model, see :func:`certified.survival.concordance_index`."""
        return concordance_index(y, self.predict(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.positive_only = True
        return tags
