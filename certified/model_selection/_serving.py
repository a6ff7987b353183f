"""What a search hands on to its winner."""

from __future__ import annotations

from typing import Any

from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from certified.base import Deletable
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Serving"]


def _best_has(name: str) -> Any:
    """Return a condition for ``available_if``: whether the winner serves and has this method."""

    def check(search: Any) -> bool:
        if not getattr(search, "_refit", search.refit):
            raise AttributeError(
                f"{type(search).__name__}(refit=False) has no {name}: no model is fitted on all rows. Set refit=True."
            )
        return hasattr(getattr(search, "best_estimator_", search.estimator), name)

    return check


class Serving(Deletable):
    """Base class of searches: ``best_estimator_`` predicts, transforms and is released."""

    estimator: Any
    refit: Any
    _refit: Any  # as it was at the fit
    scorer_: Any
    multimetric_: bool
    best_estimator_: Any

    def _ask(self, method: str, X: Any) -> Any:
        self._check_fitted()
        return getattr(self.best_estimator_, method)(X)

    @available_if(_best_has("predict"))
    def predict(self, X: Any) -> Any:
        """Predict with the winner."""
        return self._ask("predict", X)

    @available_if(_best_has("predict_proba"))
    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, of the winner."""
        return self._ask("predict_proba", X)

    @available_if(_best_has("predict_log_proba"))
    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithm of the probability of each class, of the winner."""
        return self._ask("predict_log_proba", X)

    @available_if(_best_has("decision_function"))
    def decision_function(self, X: Any) -> FloatArray:
        """Return the decision function of the winner."""
        return self._ask("decision_function", X)

    @available_if(_best_has("score_samples"))
    def score_samples(self, X: Any) -> FloatArray:
        """Return the winner's score of each row, for anomalies the lower."""
        return self._ask("score_samples", X)

    @available_if(_best_has("transform"))
    def transform(self, X: Any) -> Any:
        """Transform with the winner."""
        return self._ask("transform", X)

    @available_if(_best_has("inverse_transform"))
    def inverse_transform(self, X: Any) -> Any:
        """Return the rows that the winner transforms into these."""
        return self._ask("inverse_transform", X)

    @available_if(_best_has("fit"))
    def score(self, X: Any, y: Any = None) -> float:
        """Return the score of the winner by ``scoring``; of several, by the one that ``refit`` names."""
        self._check_fitted()
        scorer, rest = self.scorer_, () if y is None else (y,)
        if self.multimetric_ and not isinstance(self._refit, str):
            raise InvalidInput(
                f"{type(self).__name__}.score was called where a function chose among several scores. Call one of "
                "`scorer_` on `best_estimator_`."
            )
        if isinstance(scorer, dict):
            return scorer[self._refit](self.best_estimator_, X, *rest)
        found = scorer(self.best_estimator_, X, *rest)
        return found[self._refit] if self.multimetric_ else found

    @available_if(_best_has("release"))
    def _release(self) -> Any:
        """Return the release of the winner, a plain scikit-learn object."""
        self._check_fitted()
        return self.best_estimator_.release()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type, tags.target_tags = inner.estimator_type, inner.target_tags
        tags.classifier_tags, tags.regressor_tags = inner.classifier_tags, inner.regressor_tags
        tags.transformer_tags, tags.input_tags = inner.transformer_tags, inner.input_tags
        return tags
