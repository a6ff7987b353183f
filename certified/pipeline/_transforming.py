"""Pipelines that end in a transformer."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.utils._repr_html.estimator import _VisualBlock
from sklearn.utils._set_output import _safe_set_output, _wrap_data_with_container
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_is_fitted,
)

from certified._data.frames import is_frame, split_ids
from certified._data.table import Table
from certified._steps.sequence import admit
from certified._steps.stateless import as_named
from certified.pipeline._delegation import Delegation, final_has
from certified.pipeline._entry import Entry

__all__ = ["Transforming"]


def _can_be_undone(pipeline: Any) -> bool:
    steps = [as_named(step) for _, step in pipeline.steps]
    return all(isinstance(step, str) or hasattr(step, "inverse_transform") for step in steps)


class Transforming(Entry, Delegation):
    """Mixin of pipelines: what they have as transformers, and how they are drawn."""

    steps_: list[tuple[str, Any]]
    fit: Any
    _table: Table

    @available_if(final_has("transform"))
    def transform(self, X: Any) -> Any:
        """Transform X by every step, shape (n_rows, n_features_out)."""
        if self._final not in self._before:
            return self._named_out(self._final.transform(self._transformed(X)))
        check_is_fitted(self)
        values = self._read(X)[0]
        for step in self._before:
            admit(step, values)
            values = step._apply(step._learned, values)
        values = values if issparse(values) else np.asarray(values)
        return self._named_out(_wrap_data_with_container("transform", values, X, self._final))

    @available_if(final_has("transform"))
    def fit_transform(self, X: Any, y: Any = None, *, ids: Any = None, sample_weight: Any = None) -> Any:
        """Fit every step, and return the transformed rows."""
        X, ids = split_ids(X, ids)
        self.fit(X, y, ids=ids, sample_weight=sample_weight)
        if not any(step._supervised for step in self._before):
            return self.transform(X)
        table = self._table
        for step in self._before:
            table = table._replace(x=step._apply_rows(step._learned, table))
        return self._named_out(_wrap_data_with_container("transform", np.asarray(table.x), X, self._final))

    @available_if(_can_be_undone)
    def inverse_transform(self, X: Any) -> Any:
        """Return what the steps made X from, the last step undone first."""
        check_is_fitted(self)
        for _, step in reversed(self.steps_):
            X = X if isinstance(as_named(step), str) else step.inverse_transform(X)
        return X

    @available_if(final_has("fit_predict"))
    def fit_predict(self, X: Any, y: Any = None, **known: Any) -> Any:
        """Fit every step, and return the predictions for the rows."""
        self.fit(X, y, **known)
        return self.predict(split_ids(X, known.get("ids"))[0])

    def _sk_visual_block_(self) -> _VisualBlock:
        steps = [(name, as_named(step)) for name, step in self.steps]
        return _VisualBlock(
            "serial",
            [step for _, step in steps],
            names=[f"{name}: {step if isinstance(step, str) else type(step).__name__}" for name, step in steps],
            name_details=[str(step) for _, step in steps],
            dash_wrapped=False,
        )

    def _named_out(self, out: Any) -> Any:
        """Return what comes out; a frame with the names that the steps give."""
        if is_frame(out):
            out.columns = list(self.get_feature_names_out())
        return out

    @available_if(final_has("transform"))
    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the features that come out of the last step."""
        check_is_fitted(self)
        names = _check_feature_names_in(self, input_features)
        for step in self._before:
            names = step.get_feature_names_out(names)
        return names

    def set_output(self, *, transform: Any = None) -> Self:
        """Choose the container that ``transform`` returns: "default", "pandas" or "polars"."""
        for steps in (self.steps, getattr(self, "steps_", [])):
            for _, step in steps:
                _safe_set_output(step, transform=transform)
        return self
