"""Generalised linear regression with certified deletion: Poisson, gamma, Tweedie and a robust loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from scipy.linalg import lstsq
from sklearn.base import RegressorMixin
from sklearn.linear_model import GammaRegressor as _SklearnGamma
from sklearn.linear_model import LinearRegression as _SklearnLinear
from sklearn.linear_model import PoissonRegressor as _SklearnPoisson
from sklearn.linear_model import TweedieRegressor as _SklearnTweedie
from sklearn.metrics import d2_tweedie_score
from sklearn.utils.validation import _check_sample_weight

from certified._convex.bounds import LARGEST
from certified._convex.losses import Gamma, LogCosh, Loss, Poisson, Squared, Tweedie
from certified._convex.newton_cg import improve
from certified._convex.problem import Problem
from certified._data.frames import split_column, split_ids
from certified._data.numbers import validate_data
from certified._data.pairwise import fold
from certified.base import all_or_nothing
from certified.errors import CannotCertify, InvalidInput, InvalidRequest
from certified.linear_model._certified import CertifiedLinear
from certified.linear_model._parted import check_targets, exposed, opened, targets_checked, weighed
from certified.linear_model._solvers import Solver, chosen, live
from certified.linear_model._state import Totals
from certified.parts._source import Opened, Parts
from certified.typing import FloatArray, IntArray

__all__ = ["GammaRegressor", "LogCoshRegressor", "PoissonRegressor", "TweedieRegressor"]


_MANY = 50_000  # rows from which a first guess looks at every 16th block only


class _Regressor(RegressorMixin, CertifiedLinear):
    """Base class. As in scikit-learn the loss is averaged over the weights, so the penalty is ``alpha sum_i s_i``."""

    _log_link = True

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        fit_intercept: bool = True,
        solver: str = "auto",
        removal: str = "newton",
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.alpha = alpha
        self.epsilon = epsilon
        self.delta = delta
        self.noise = noise
        self.fit_intercept = fit_intercept
        self.solver = solver
        self.removal = removal
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _loss(self) -> Loss:
        raise NotImplementedError

    @all_or_nothing
    def fit(
        self, X: Any, y: Any, *, ids: Any = None, sample_weight: Any = None, offset: Any = None, exposure: Any = None
    ) -> Self:
        """Fit on all rows.

        Parameters
        ----------
        X : array-like, data frame or sparse matrix of shape (n_rows, n_features), or Parts
            With :class:`certified.parts.Parts`, y and the others are names of columns of the source.
        y : array-like of shape (n_rows,), or column name
        ids : array-like of shape (n_rows,), column name or None
            Subject of each row; several rows may share one. None numbers the rows 0..n-1. A column named here, as
            offset or as exposure is not a feature.
        sample_weight : array-like of shape (n_rows,) or None
            Weights >= 0.
        offset : array-like of shape (n_rows,), column name or None
            Known part of the linear predictor.
        exposure : array-like of shape (n_rows,), column name or None
            With the log link: the mean is proportional to it, which is an offset of its logarithm. Not together with
            `offset`.

        Returns
        -------
        self
        """
        name = type(self).__name__
        if not (isinstance(self.alpha, int | float | np.number) and np.isfinite(self.alpha) and self.alpha >= 0):
            raise InvalidInput(f"{name}(alpha={self.alpha!r}) is not allowed: a finite number >= 0 is needed.")
        loss = self._loss()
        if isinstance(X, Parts):
            return self._fit_source(X, y, ids, sample_weight=sample_weight, offset=offset, exposure=exposure)
        X, ids = split_ids(X, ids)
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        X, y = validate_data(self, X, y, dtype=np.float64, order="C", y_numeric=True, accept_sparse="csr")
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        offset = self._offset("fit", offset, exposure, X.shape[0])
        y, weight = self._encoded(y, weight)
        self._fit_rows(loss, X, y, weight, ids, offset)
        self._positive = int(np.count_nonzero(weight))
        return self

    def _fit_source(self, X: Parts, y: Any, ids: Any, **known: Any) -> Self:
        """Fit on rows in parts."""
        if known["exposure"] is not None and not self._log_link:
            self._offset("fit", None, known["exposure"], 0)
        with opened(self, X, y, ids, ones=self.fit_intercept, **known) as found:
            return self._fit_opened(found)

    def _fit_opened(self, found: Opened) -> Self:
        loss = self._loss()
        for _ in found.rows.map(targets_checked, type(self).__name__, loss):
            pass
        self._fit_parts(loss, found)
        self._positive = live(found.rows, found.rows.weight)
        return self

    def _encoded(self, y: Any, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
        y = np.asarray(y, dtype=np.float64)
        check_targets(type(self).__name__, self._loss(), y)
        return y, weight

    def _counted_in(self, y: FloatArray, weight: FloatArray) -> dict[str, Any]:
        return {"_positive": self._positive + int(np.count_nonzero(weight))}

    def _summed_classes(self, loss: Loss) -> int | None:
        return 0

    def _chosen(self, sparse: bool, width: int, loss: Loss) -> type[Solver]:
        return chosen(type(self).__name__, self.solver, sparse, width, 1, bool(self.alpha > 0))

    def _problem_of(self, loss: Loss, n_columns: int, totals: Totals | None) -> Problem:
        assert totals is not None
        mean = float(totals.means[0])
        if self._log_link and mean <= 0.0:
            raise CannotCertify(
                f"{type(self).__name__}: every target is 0, so there is no finite minimiser with a log link. "
                "Nothing was changed."
            )
        # A power of two near the typical curvature: few deletions change it.
        scale = 2.0 ** round(float(np.log2(loss.scale(mean))))
        strength = float(self.alpha) * totals.weight
        return Problem(loss, self._penalized(loss, n_columns), strength, scale, strength_depends_on_rows=strength > 0.0)

    def _start(self, problem: Problem, totals: Totals | None, rows: Any) -> FloatArray:
        start = np.zeros(len(problem.penalized))
        if not self.fit_intercept or totals is None:
            return start
        if not self._log_link:
            start[-1] = float(totals.means[0])
        else:
            raised, weight = fold(rows.map(exposed), np.add)
            start[-1] = np.log(totals.means[0]) - np.log(raised / weight)
        return start

    def _check_rest(self, rows: IntArray) -> None:
        super()._check_rest(rows)
        if self._positive - np.count_nonzero(self._rows.take(rows)[2]) < 1:
            raise InvalidRequest(
                "delete(ids=...) would leave no row with a positive weight; discard the model instead. "
                "Nothing was changed."
            )

    def _counted_out(self, rows: IntArray) -> dict[str, Any]:
        return {"_positive": self._positive - int(np.count_nonzero(self._rows.take(rows)[2]))}

    def _shaped(self, w: FloatArray) -> tuple[FloatArray, float]:
        return (w[:-1].copy(), float(w[-1])) if self.fit_intercept else (w.copy(), 0.0)

    def predict(self, X: Any, offset: Any = None, exposure: Any = None) -> FloatArray:
        """Return the mean of the target by the released parameters.

        Parameters
        ----------
        X : array-like or data frame of shape (n_rows, n_features)
        offset, exposure : array-like of shape (n_rows,) or None
            As in :meth:`fit`.

        Returns
        -------
        array of shape (n_rows,)
        """
        self._check_fitted()
        X, known = self._known("predict", X, offset, exposure)
        coef, intercept = self._shaped(self._parameter)
        z = X @ coef + intercept + (0.0 if known is None else known)
        return np.exp(z) if self._log_link else z

    def _released_as(self, out: Any) -> Any:
        out.coef_, out.intercept_ = self.coef_, self.intercept_
        out.n_features_in_ = self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            out.feature_names_in_ = self.feature_names_in_.copy()
        return out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.target_tags.positive_only = not bool(self._loss().targets[1](np.float64(-1.0)))
        return tags


class _LogLink(_Regressor):
    """Base class of the regressors whose mean is ``exp(x_i'w + b + offset_i)``."""

    _power: float

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None) -> float:
        """Return D^2, the share of the deviance that is explained, as scikit-learn's regressors do."""
        mean = self.predict(X, offset=offset, exposure=exposure)
        return float(d2_tweedie_score(y, mean, sample_weight=sample_weight, power=self._deviance_power()))

    def _deviance_power(self) -> float:
        return self._power

    def _released_as(self, out: Any) -> Any:
        out = super()._released_as(out)
        out._base_loss = out._get_loss()
        return out


_PARAMETERS = """alpha : float, default=1.0
        Strength of the L2 penalty on the coefficients, as in scikit-learn: the objective is the weighted mean of the
        losses plus ``alpha ||w||^2 / 2``. The strength in the sum form, ``alpha sum_i s_i``, shrinks with every
        deletion, as a refit's does. 0 for none.
    epsilon, delta, noise, fit_intercept, solver, removal, tol, max_iter, random_state
        As in :class:`certified.linear_model.LogisticRegression`. Standard errors are those at dispersion 1.
    warm_start, verbose
        Accepted as in scikit-learn. They concern work alone, and a fit needs neither.

    Attributes
    ----------
    coef_ : array of shape (n_features,)
    intercept_ : float
    certificate_, ids_, n_rows_, private_coef_, private_intercept_, release_metric_
        As in :class:`certified.linear_model.LogisticRegression`."""


class PoissonRegressor(_LogLink):
    __doc__ = f"""Poisson regression with the log link, whose subjects can be deleted, with a certificate.

    Counts with an exposure: either ``exposure=`` of ``fit``, or frequencies as y with exposures as ``sample_weight``,
    which is the same model (and, with ``alpha > 0``, another weight of the penalty).

    Parameters
    ----------
    {_PARAMETERS}

    Examples
    --------
    >>> import numpy as np
    >>> from certified.linear_model import PoissonRegressor
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(500, 3))
    >>> model = PoissonRegressor(alpha=1e-3).fit(X, rng.poisson(np.exp(0.3 * X[:, 0])))
    >>> model.delete([3, 5]).n_rows
    2
    """

    _power = 1.0

    def _loss(self) -> Loss:
        return Poisson()

    def _release(self) -> _SklearnPoisson:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row.

        It takes no offset: multiply its predictions by the exposure.
        """
        return self._released_as(_SklearnPoisson(alpha=self.alpha, fit_intercept=self.fit_intercept))


class GammaRegressor(_LogLink):
    __doc__ = f"""Gamma regression with the log link, whose subjects can be deleted, with a certificate.

    Parameters
    ----------
    {_PARAMETERS}
    """

    _power = 2.0

    def _loss(self) -> Loss:
        return Gamma()

    def _release(self) -> _SklearnGamma:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        return self._released_as(_SklearnGamma(alpha=self.alpha, fit_intercept=self.fit_intercept))


class TweedieRegressor(_Regressor):
    __doc__ = f"""Regression of the Tweedie family, whose subjects can be deleted, with a certificate.

    Powers 0 (normal), 1 (Poisson), between 1 and 2 (claims per policy: compound Poisson-gamma) and 2 (gamma). Power 3
    and other powers above 2 are refused: their loss is not convex with a log link, so no minimiser can be certified.

    Parameters
    ----------
    power : float, default=0.0
        Variance is proportional to ``mean ** power``.
    link : {{"auto", "identity", "log"}}, default="auto"
        "auto" is "identity" for power 0 and "log" for the others, as in scikit-learn; the other combinations are
        refused, because their loss is not convex.
    {_PARAMETERS}
    """

    def __init__(
        self,
        power: float = 0.0,
        *,
        alpha: float = 1.0,
        link: str = "auto",
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        fit_intercept: bool = True,
        solver: str = "auto",
        removal: str = "newton",
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.power = power
        self.link = link
        super().__init__(
            alpha=alpha,
            epsilon=epsilon,
            delta=delta,
            noise=noise,
            fit_intercept=fit_intercept,
            solver=solver,
            removal=removal,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
        )

    @property
    def _log_link(self) -> bool:  # type: ignore[override]
        return bool(self.power != 0)

    def _loss(self) -> Loss:
        power = self.power
        real = isinstance(power, int | float | np.number)
        if not (real and (power == 0 or 1 <= power <= 2)):
            raise InvalidInput(
                f"TweedieRegressor(power={power!r}) is not allowed: 0, or a number from 1 to 2 is. With others the "
                "loss is not convex with a log link, so that no minimiser can be certified. For positive targets with "
                "heavy tails take power=2."
            )
        links = ("auto", "log") if self._log_link else ("auto", "identity")
        if self.link not in links:
            raise InvalidInput(
                f"TweedieRegressor(power={power!r}, link={self.link!r}) is not allowed: {links[0]!r} and {links[1]!r} "
                "are, which is the same here. With another link the loss is not convex, or its mean can be negative."
            )
        fixed: dict[float, Loss] = {0.0: Squared(), 1.0: Poisson(), 2.0: Gamma()}
        return fixed.get(float(power)) or Tweedie(float(power))

    def score(self, X: Any, y: Any, sample_weight: Any = None, offset: Any = None, exposure: Any = None) -> float:
        """Return D^2, the share of the deviance that is explained, as scikit-learn's regressors do."""
        mean = self.predict(X, offset=offset, exposure=exposure)
        return float(d2_tweedie_score(y, mean, sample_weight=sample_weight, power=float(self.power)))

    def _release(self) -> _SklearnTweedie:
        """Return a plain scikit-learn regressor with the released parameters; it holds no training row."""
        out = self._released_as(
            _SklearnTweedie(power=self.power, alpha=self.alpha, fit_intercept=self.fit_intercept, link=self.link)
        )
        out._base_loss = out._get_loss()
        return out


class LogCoshRegressor(_Regressor):
    __doc__ = f"""Robust regression with the log-cosh loss, whose subjects can be deleted, with a certificate.

    The loss ``d^2 log cosh(r / d)`` of a residual r is ``r^2 / 2`` for small residuals and ``d |r|`` for large ones, as
    Huber's, and smooth.

    Parameters
    ----------
    width : float, default=1.0
        d, in the units of y: residuals well above it count by their absolute value.
    {_PARAMETERS}
    """

    _log_link = False

    def __init__(
        self,
        width: float = 1.0,
        *,
        alpha: float = 0.0,
        epsilon: float = 1.0,
        delta: float = 1e-6,
        noise: float = 0.1,
        fit_intercept: bool = True,
        solver: str = "auto",
        removal: str = "newton",
        tol: float = 1e-6,
        max_iter: int = 100,
        random_state: Any = None,
        warm_start: bool = False,
        verbose: int = 0,
    ) -> None:
        self.width = width
        super().__init__(
            alpha,
            epsilon=epsilon,
            delta=delta,
            noise=noise,
            fit_intercept=fit_intercept,
            solver=solver,
            removal=removal,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
            warm_start=warm_start,
            verbose=verbose,
        )

    def _loss(self) -> Loss:
        if not 1.0 / LARGEST <= self.width <= LARGEST:
            raise InvalidInput(
                f"LogCoshRegressor(width={self.width!r}) is not allowed: a number > 0 is needed, from 2^-200 to 2^200."
            )
        return LogCosh(float(self.width))

    def _start(self, problem: Problem, totals: Totals | None, rows: Any) -> FloatArray:
        """Reweighted least squares: far from the minimum the loss is nearly flat, and Newton's method would fail."""
        if not self._solver.predicts:
            return self._wide_start(problem, rows)
        some, _ = rows.sample(16 if rows.size > _MANY else 1)
        share = float(some.weight.sum()) / fold(rows.map(weighed), float.__add__)
        x, y, s = some.x, some.y - (0.0 if some.offset is None else some.offset), some.weight
        w = np.zeros(len(problem.penalized))
        weight = s
        for _ in range(50):
            gram = (x * weight[:, None]).T @ x + np.diag(share * problem.penalty)
            right = x.T @ (weight * y)
            if not (np.all(np.isfinite(gram)) and np.all(np.isfinite(right))):
                break
            before, w = w, lstsq(gram, right, check_finite=False)[0]
            weight = s * self._pull(x @ w - y)
            if np.linalg.norm(w - before) <= 1e-2 * np.linalg.norm(w):
                break
        return w

    def _wide_start(self, problem: Problem, rows: Any) -> FloatArray:
        quadratic = replace(problem, loss=Squared())
        release = self._solver.noise_metric(quadratic, self._solver.sums(rows, rows.weight), 0)
        w, weight, known = np.zeros(len(problem.penalized)), rows.weight, 0.0 if rows.offset is None else rows.offset
        for _ in range(50):
            before, w = w, improve(quadratic, rows, weight, release, w, 1.0, 1).w
            coef, intercept = self._shaped(w)
            weight = rows.weight * self._pull(rows.push(coef[None])[:, 0] + intercept + known - rows.y)
            if np.linalg.norm(w - before) <= 1e-2 * np.linalg.norm(w):
                break
        return w

    def _pull(self, residual: FloatArray) -> FloatArray:
        """Weights of the parabolas above the loss that touch it at these residuals."""
        r = np.abs(residual) / self.width
        return np.divide(np.tanh(r), r, out=np.ones_like(r), where=r > 1e-8)

    def _release(self) -> _SklearnLinear:
        """Return a plain scikit-learn linear regressor with the released parameters; it holds no training row."""
        return self._released_as(_SklearnLinear(fit_intercept=self.fit_intercept))
