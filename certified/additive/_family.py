"""What the choice of bins' smoothness and of pairs must know of a loss: means, scores and information of rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from certified.typing import FloatArray

__all__ = ["FAMILIES", "Family", "scaled"]


class Family(NamedTuple):
    """A loss by its name."""

    name: str

    def start(self, y: FloatArray, weight: FloatArray) -> float:
        """Return the predictor that fits the mean."""
        mean = float((y * weight).sum() / weight.sum())
        if self.name == "squared_error":
            return mean
        if self.name == "logistic":
            mean = min(max(mean, 2.0**-20), 1.0 - 2.0**-20)
            return float(np.log(mean / (1.0 - mean)))
        return float(np.log(max(mean, 2.0**-500)))

    def slopes(self, y: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the score and the information of each row at the predictors z."""
        if self.name == "squared_error":
            return y - z, np.ones_like(z)
        if self.name == "logistic":
            p = 1.0 / (1.0 + np.exp(-z))
            return y - p, p * (1.0 - p)
        mean = np.exp(np.minimum(z, 500.0))
        return (y - mean, mean) if self.name == "poisson" else (y / mean - 1.0, np.ones_like(z))


FAMILIES = ("logistic", "squared_error", "poisson", "gamma")


def scaled(family: Family, y: FloatArray, weight: FloatArray) -> FloatArray:
    """Return targets with a variance of 1, where the loss has a scale of its own."""
    if family.name != "squared_error":
        return y
    mean = (y * weight).sum() / weight.sum()
    spread = np.sqrt((weight * (y - mean) ** 2).sum() / weight.sum())
    return (y - mean) / (spread if spread > 0.0 else 1.0)
