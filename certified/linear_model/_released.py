"""Released and private parameters of the linear models with a certified head."""

from __future__ import annotations

from typing import Any

from certified._convex.released import Released
from certified.linear_model._state import State
from certified.typing import FloatArray

__all__ = ["ReleasedLinear"]


class ReleasedLinear(Released):
    """Base class: the parameter is ``[coef, intercept]`` in the metric of the head."""

    fit_intercept: bool
    _state: State
    _solver: Any  # how the problem is solved, see `_heads`

    def _noised(self, w: FloatArray) -> FloatArray:
        return self._noise_metric_now().noised(w, self.noise, self._rng)

    def _noise_metric_now(self) -> Any:
        return self._solver.noise_metric(self._state.problem, self._state.products, self.n_rows_)

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients."""
        return self._shaped(self._parameter)[0]

    @property
    def intercept_(self) -> Any:
        """Released intercept."""
        return self._shaped(self._parameter)[1]

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._shaped(self._state.solution.w)[0]

    @property
    def private_intercept_(self) -> Any:
        """Intercept without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._shaped(self._state.solution.w)[1]

    @property
    def noise_metric_(self) -> Any:
        """G over [coef, intercept], shape (p, p): the noise has covariance ``noise^2 G^-1``.

        A sparse diagonal array where the model was fitted by ``newton-cg``. For auditors; never to be published.
        """
        self._check_fitted()
        return self._noise_metric_now().matrix

    def _shaped(self, w: FloatArray) -> tuple[FloatArray, Any]:
        raise NotImplementedError
