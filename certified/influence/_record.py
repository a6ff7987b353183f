"""The record of what each subject does to a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["Change", "Influence"]


@dataclass(frozen=True, eq=False)
class Change:
    """Changes of a quantity, and bounds of their errors.

    Attributes
    ----------
    value : array
        The quantity of the model without the subject, less that of the model.
    error : array
        The exact change is at most this far from ``value``; inf where there is no bound.
    """

    value: FloatArray
    error: FloatArray


@dataclass(frozen=True, eq=False, repr=False)
class Influence:
    """What leaving out each subject (or group) does to a model; every change is the model without it less the model.

    m subjects, p coefficients with the intercept (last, where there is one), of all classes one after the other. The
    record tells what the rows of a person did: it is as personal as the rows are.

    Attributes
    ----------
    ids : array of shape (m,)
        Subjects, or the names of groups.
    n_rows : int array of shape (m,)
        Rows of each.
    coef_change : array of shape (m, p)
        Change of coefficients and intercept.
    size : array of shape (m,)
        Length of that change in standard errors: its Mahalanobis norm in the Hessian, at dispersion 1.
    error : array of shape (m,)
        The exact change, by a refit to the minimiser, is at most this far from ``coef_change``, in the same norm. inf
        where there is no bound.
    leverage : array of shape (m,)
        Trace of the subject's part of the hat matrix.
    standard_errors : array of shape (p,)
        Roots of the diagonal of the inverse Hessian, at dispersion 1.
    dispersion : float
        Mean squared residual over n - p for least squares, 1 otherwise.
    dispersion_without : array of shape (m,)
        The same without each subject.
    loss : Change or None
        Of the mean loss on the validation rows, shape (m,), or (m, n_groups) with ``by``: the leave-one-out value of
        the subject's data. Positive where the model without it is worse.
    mean_prediction : Change or None
        Of the mean prediction on these rows, of the same shapes.
    prediction : Change or None
        Of the prediction for each of them, shape (m, n_validation_rows).
    groups : list
        Values of ``by``, in the order of the columns.
    scope : {"estimator", "head given the steps", "leaf values given the trees"}
        In a pipeline the steps before the last are held as they are, in boosted models the trees.
    """

    ids: Any
    n_rows: IntArray
    coef_change: FloatArray
    size: FloatArray
    error: FloatArray
    leverage: FloatArray
    standard_errors: FloatArray
    dispersion: float
    dispersion_without: FloatArray
    scope: str
    loss: Change | None = None
    mean_prediction: Change | None = None
    prediction: Change | None = None
    groups: list[Any] = field(default_factory=list)

    @property
    def coef_error(self) -> FloatArray:
        """Bound of the error of each entry of ``coef_change``, shape (m, p)."""
        return np.multiply.outer(self.error, self.standard_errors)

    @property
    def dfbetas(self) -> FloatArray:
        """Change of coefficients in standard errors, shape (m, p), with the opposite sign of ``coef_change``.

        For least squares the standard errors have the dispersion without the subject, as in statsmodels.
        """
        unit = np.multiply.outer(np.sqrt(self.dispersion_without), self.standard_errors)
        return -self.coef_change / unit

    @property
    def cooks_distance(self) -> FloatArray:
        """Squared length of the change over the number of coefficients and the dispersion, shape (m,)."""
        return self.size**2 / (self.coef_change.shape[1] * self.dispersion)

    def top(self, n: int = 20, *, by: str = "size", ids: bool = False) -> pl.DataFrame:
        """Return who matters most, without ids unless they are asked for.

        Parameters
        ----------
        n : int
            Number of subjects.
        by : {"size", "cooks_distance", "leverage", "loss"}
            What decides; of the loss its absolute change (the largest one of any group).
        ids : bool
            Whether the table names the subjects: personal data.

        Returns
        -------
        polars.DataFrame
            With the columns rank, (id,) n_rows, size, error, cooks_distance, leverage, and loss with its error where
            there was a validation set without groups.
        """
        if by == "loss" and self.loss is not None:
            keys = np.abs(self.loss.value).reshape(len(self.size), -1).max(axis=1)
        elif by in ("size", "cooks_distance", "leverage"):
            keys = getattr(self, by)
        else:
            raise InvalidInput(
                f"top(by={by!r}) is not allowed: 'size', 'cooks_distance', 'leverage' are, and 'loss' where X and y "
                "were given to influence(). Nothing was changed."
            )
        first = np.argsort(-keys, kind="stable")[: int(n)]
        columns: dict[str, Any] = {"rank": np.arange(1, len(first) + 1)}
        if ids:
            columns["id"] = np.asarray(self.ids)[first]
        for name in ("n_rows", "size", "error", "cooks_distance", "leverage"):
            columns[name] = getattr(self, name)[first]
        if self.loss is not None and self.loss.value.ndim == 1:
            columns |= {"loss": self.loss.value[first], "loss_error": self.loss.error[first]}
        return pl.DataFrame(columns)

    def __repr__(self) -> str:
        bounded = np.isfinite(self.error)
        share = self.error[bounded] / np.maximum(self.size[bounded], 1e-300)
        middle = f"{np.median(share):.2g}" if share.size else "none"
        return (
            f"Influence({len(self.size)} subjects, {int(np.count_nonzero(bounded))} with a bound, median error / size "
            f"{middle}, scope {self.scope!r})"
        )
