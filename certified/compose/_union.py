"""Transformers of the same columns, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.pipeline import FeatureUnion as _PlainUnion
from sklearn.pipeline import _name_estimators
from sklearn.utils import Bunch

from certified._steps.sequence import as_step
from certified._steps.stateless import is_of_text, of_table
from certified.compose._parallel import Parallel, Part
from certified.typing import IntArray

__all__ = ["FeatureUnion", "make_union"]


class FeatureUnion(Parallel):
    """Features of several transformers of the same columns, side by side, exactly deletable.

    Parameters
    ----------
    transformer_list : list of (name, transformer)
        As those of :class:`ColumnTransformer`.
    n_jobs, verbose
        Accepted for scikit-learn's sake: transformers work one after the other.
    transformer_weights : dict or None, default=None
        Factors of the output, by name of the transformer.
    verbose_feature_names_out : bool, default=True

    Examples
    --------
    >>> from certified.compose import make_union
    >>> from certified.preprocessing import MinMaxScaler, StandardScaler
    >>> make_union(MinMaxScaler(), StandardScaler()).fit([[0.0], [2.0], [4.0]]).transform([[2.0]])
    array([[0.5, 0. ]])
    """

    def __init__(
        self,
        transformer_list: list[tuple[str, Any]],
        *,
        n_jobs: int | None = None,
        transformer_weights: Any = None,
        verbose: bool = False,
        verbose_feature_names_out: bool = True,
    ) -> None:
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.transformer_list = transformer_list
        self.transformer_weights = transformer_weights
        self.verbose_feature_names_out = verbose_feature_names_out

    @property
    def named_transformers(self) -> Bunch:
        """The transformers by name: the fitted ones after ``fit``."""
        parts = self.__dict__.get("_parts")
        return Bunch(**(dict(self.transformer_list) if parts is None else {part.name: part.step for part in parts}))

    @property
    def _steps(self) -> list[tuple[str, Any]]:
        return self.transformer_list

    @_steps.setter
    def _steps(self, value: list[tuple[str, Any]]) -> None:
        self.transformer_list = value

    def _made(self) -> list[Part]:
        return [
            Part(name, as_step(step, name, "FeatureUnion.fit"), None)
            for name, step in self.transformer_list
            if not (isinstance(step, str) and step == "drop")
        ]

    def _columns_of(self, X: Any) -> tuple[IntArray, ...]:
        return (np.arange(X.shape[1]),) * len(self._parts)

    def _release(self) -> _PlainUnion:
        """Return a plain scikit-learn union of the released transformers."""
        self._check_fitted()
        whole = is_of_text(self)
        released = [(part.name, part.step, part.step.release()) for part, _, _ in self._used(self._learned)]
        return _PlainUnion(
            [(name, plain if whole else of_table(step, plain)) for name, step, plain in released],
            transformer_weights=self.transformer_weights,
            verbose_feature_names_out=self.verbose_feature_names_out,
        )


def make_union(*transformers: Any, verbose_feature_names_out: bool = True) -> FeatureUnion:
    """Return a :class:`FeatureUnion` of these transformers, named after their classes as in scikit-learn."""
    return FeatureUnion(_name_estimators(transformers), verbose_feature_names_out=verbose_feature_names_out)
