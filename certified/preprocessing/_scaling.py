"""What scalers share: missing values stay missing, and what they do can be undone."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils import check_array

from certified._steps.estimators import ExactTransformer
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Scaler"]


class Scaler(ExactTransformer):
    """Base class of transformers that move and stretch each feature."""

    _allow_nan = _keeps_missing = True

    def _inverse(self, X: FloatArray) -> FloatArray:
        raise NotImplementedError

    def inverse_transform(self, X: Any) -> FloatArray:
        """Return rows of scaled features as they were before, shape (n_rows, n_features)."""
        self._check_fitted()
        X = check_array(X, dtype=np.float64, ensure_all_finite="allow-nan", estimator=self)
        if X.shape[1] != self.n_features_in_:
            raise InvalidInput(
                f"{type(self).__name__}.inverse_transform got {X.shape[1]} features. The {self.n_features_in_} of the "
                "fit are needed, in their order."
            )
        return self._inverse(X)
