"""Logarithms of probabilities, alike for all classifiers that have no shorter way to them."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.typing import FloatArray

__all__ = ["LogProbabilities"]


class LogProbabilities:
    """Mixin of classifiers with ``predict_proba``."""

    def predict_log_proba(self, X: Any) -> FloatArray:
        """Return the logarithms of :meth:`predict_proba`, shape (n_rows, n_classes); -inf where a probability is 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))  # type: ignore[attr-defined]
