"""What a pipeline hands on to its steps: predictions to the final one, parameters to all of them."""

from __future__ import annotations

from inspect import signature
from typing import Any, Self

from sklearn.utils import Bunch
from sklearn.utils.metaestimators import _BaseComposition, available_if

from certified._data.frames import split_column
from certified._keeper.acts import take_turns
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Delegation", "final_has"]


def final_has(name: str) -> Any:
    """Return a condition for ``available_if``: whether the final estimator has this method."""
    return lambda self: hasattr(self._final, name)


@take_turns
class Delegation(_BaseComposition):
    """Base class of pipelines: ``steps``, after a fit ``steps_``; ``_transformed(X)`` is what the final step gets."""

    steps: list[tuple[str, Any]]

    def _transformed(self, X: Any) -> Any:
        raise NotImplementedError

    def _known(self, method: Any, offset: Any, exposure: Any) -> dict[str, Any]:
        """Arguments for the known part of the predictors, where given."""
        given = {name: value for name, value in (("offset", offset), ("exposure", exposure)) if value is not None}
        unknown = sorted(set(given) - set(signature(method).parameters))
        if unknown:
            name = type(self.steps[-1][1]).__name__
            raise InvalidInput(f"Pipeline got {unknown[0]}=..., which its final estimator {name} does not take here.")
        return given

    @available_if(final_has("predict"))
    def predict(self, X: Any, offset: Any = None, exposure: Any = None) -> Any:
        """Transform X and return the final estimator's predictions, shape (n_rows,).

        As in ``fit``, offset and exposure may be names of columns of X.
        """
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        known = self._known(self._final.predict, offset, exposure)
        return self._final.predict(self._transformed(X), **known)

    @available_if(final_has("predict_proba"))
    def predict_proba(self, X: Any) -> FloatArray:
        """Transform X and return the probability of each class."""
        return self._final.predict_proba(self._transformed(X))

    @available_if(final_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Transform X and return the logarithm of the probability of each class."""
        return self._final.predict_log_proba(self._transformed(X))

    @available_if(final_has("decision_function"))
    def decision_function(self, X: Any) -> FloatArray:
        """Transform X and return the final estimator's decision function."""
        return self._final.decision_function(self._transformed(X))

    @available_if(final_has("score_samples"))
    def score_samples(self, X: Any) -> FloatArray:
        """Transform X and return the final estimator's scores, for anomalies the lower."""
        return self._final.score_samples(self._transformed(X))

    @available_if(final_has("score"))
    def score(
        self, X: Any, y: Any = None, sample_weight: Any = None, offset: Any = None, exposure: Any = None
    ) -> float:
        """Transform X and return the final estimator's score; the rest may be names of columns of X."""
        X, sample_weight = split_column(X, sample_weight, "sample_weight")
        X, offset = split_column(X, offset, "offset")
        X, exposure = split_column(X, exposure, "exposure")
        known = self._known(self._final.score, offset, exposure)
        return self._final.score(self._transformed(X), y, sample_weight=sample_weight, **known)

    # ------------------------------------------------------------ delegates

    @property
    def _final(self) -> Any:
        raise NotImplementedError

    def __getitem__(self, key: int | str) -> Any:
        """Return a step by position or name: the fitted one after ``fit``."""
        if isinstance(key, slice):
            raise InvalidInput(
                "Pipeline got a slice of steps, which would share their state. One step is allowed. Choose it by "
                "position or name, for example model[0]."
            )
        return self.named_steps[key] if isinstance(key, str) else getattr(self, "steps_", self.steps)[key][1]

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def named_steps(self) -> Bunch:
        """Steps by name: the fitted ones after ``fit``."""
        return Bunch(**dict(getattr(self, "steps_", self.steps)))

    @property
    def coef_(self) -> FloatArray:
        """Released coefficients of the final estimator."""
        return self._final.coef_

    @property
    def intercept_(self) -> Any:
        """Released intercept of the final estimator."""
        return self._final.intercept_

    @property
    def private_coef_(self) -> FloatArray:
        """Coefficients without noise. For auditors; never to be published."""
        return self._final.private_coef_

    @property
    def private_intercept_(self) -> Any:
        """Intercept without noise. For auditors; never to be published."""
        return self._final.private_intercept_

    @property
    def noise_metric_(self) -> FloatArray:
        """G of the final estimator. For auditors; never to be published."""
        return self._final.noise_metric_

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the pipeline and of its steps."""
        return self._get_params("steps", deep=deep)

    def set_params(self, **kwargs: Any) -> Self:
        """Set parameters, ``step__name=value`` for those of a step."""
        self._set_params("steps", **kwargs)
        return self
