"""What is given to a pipeline: features as its first step takes them, and what belongs to the rows beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.utils import get_tags
from sklearn.utils.validation import _check_sample_weight, has_fit_parameter

from certified._data.frames import Schema, eager, is_frame, read
from certified._data.numbers import validate_data
from certified._steps.stateless import StatelessStep, as_named, is_of_text
from certified._steps.step import ExactStep, canonical
from certified.compose import Parallel
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["Entry"]


class Entry:
    """Mixin of pipelines: reads what is given to ``fit``, ``add`` and ``predict``."""

    steps: list[tuple[str, Any]]
    _before: list[ExactStep]
    _schema: Schema | None
    _given: tuple[str, ...]  # what the rows of the fit had beside their features
    _aside: tuple[str, ...]  # columns of the frame of the fit that are no features

    def _of_final(
        self, params: dict[str, Any], final: Any, sample_weight: Any, offset: Any, exposure: Any
    ) -> tuple[Any, Any, Any]:
        """Return what is given to the final step alone, by names such as ``ridge__sample_weight``."""
        name, found = self.steps[-1][0], {"offset": offset, "exposure": exposure, "sample_weight": None}
        for param, values in params.items():
            step, _, inner = param.partition("__")
            twice = found.get(inner) is not None or (inner == "sample_weight" and sample_weight is not None)
            if (
                step != name
                or inner not in found
                or twice
                or (inner == "sample_weight" and isinstance(final, ExactStep))
            ):
                raise InvalidInput(
                    f"Pipeline.fit got {param}. sample_weight=, which every step that takes weights gets, offset= and "
                    f"exposure= are allowed, and {name}__sample_weight for a final step that is solved by passes over "
                    "the rows. Nothing was changed."
                )
            found[inner] = values
        return found["sample_weight"], found["offset"], found["exposure"]

    def _weights(self, sample_weight: Any, own: Any, n_rows: int, final: Any, known: dict[str, Any]) -> FloatArray:
        """Return the weights; put them, or its own, among the arguments of a final estimator that takes them."""
        used = has_fit_parameter(final, "sample_weight")
        if (sample_weight is not None or own is not None) and not (used or isinstance(final, StatelessStep)):
            raise InvalidInput(
                f"Pipeline got sample_weight, which its last step, {type(final).__name__}, does not take. Leave the "
                "weights out. Nothing was changed."
            )
        weight, others = (
            np.array(_check_sample_weight(given, np.ones(n_rows), dtype=np.float64, ensure_non_negative=True))
            for given in (sample_weight, own)
        )
        if used:
            known["sample_weight"] = weight if own is None else others
        return weight

    def _check_given(self, sample_weight: Any, offset: Any, exposure: Any) -> None:
        """Raise InvalidInput where rows that are added come without what the rows of the fit had."""
        given = {"sample_weight": sample_weight, "offset": offset, "exposure": exposure}
        for name in self._given:
            name = "sample_weight" if name == "own" else name
            if given[name] is None:
                raise InvalidInput(
                    f"Pipeline.add got no {name}, which the rows of the fit had. Give {name}= of the new rows too. "
                    "Nothing was changed."
                )

    def _read(self, X: Any, before: list[ExactStep] | None = None) -> tuple[Any, Schema | None]:
        """Return the features in the form used inside; text may enter where the first step takes it.

        `before` are the steps that are fitted; None reads new rows, which must be like those of the fit.
        """
        step, reset = self._first(), before is not None
        if not reset:
            X = self._without_others(X)
        first = get_tags(step).input_tags
        if is_of_text(step):
            return read(self, _as_column(X, type(step).__name__), None if reset else self._schema)
        front = (self._before if before is None else before)[:1]
        if front and isinstance(front[0], Parallel):
            if reset:
                validate_data(self, X, reset=True, skip_check_array=True)
            return front[0]._validated(X, reset), front[0]._schema
        if first.categorical:
            x, schema = read(self, X, None if reset else self._schema)
            return canonical(x), schema
        nan: Any = "allow-nan" if first.allow_nan else True
        allowed: Any = "csr" if first.sparse else False
        x = validate_data(
            self, X, dtype=np.float64, order="C", reset=reset, ensure_all_finite=nan, accept_sparse=allowed
        )
        return canonical(csr_array(x, copy=True) if issparse(x) else np.array(x)), None

    def _without_others(self, X: Any) -> Any:
        """Return a frame without the columns that the fit took for ids, weights, offset or exposure."""
        frame = eager(X, "Pipeline") if self._aside else None
        if frame is None:
            return X
        others = set(self._aside) - set(getattr(self, "feature_names_in_", ()))
        return frame.drop([name for name in frame.columns if name in others]).to_native()

    def _allows_missing(self) -> bool:
        """Whether rows with missing values can be fitted: until a step that hands on none, every step takes them."""
        for _, step in self.steps:
            if isinstance(as_named(step), str):
                continue
            if not get_tags(step).input_tags.allow_nan:
                return False
            if not getattr(step, "_keeps_missing", False):
                break
        return True

    def _first(self) -> Any:
        """The first step that does anything; the last one where none does."""
        steps = [as_named(step) for _, step in self.steps]
        return next((step for step in steps if not isinstance(step, str)), StatelessStep("passthrough"))


def _as_column(X: Any, name: str) -> Any:
    """Return texts, one for each row, as a table of one column."""
    if is_frame(X) or getattr(X, "ndim", 1) != 1 or isinstance(X, str):
        raise InvalidInput(
            f"Pipeline got no list of texts, which its first step {name} takes. Give one text for each row, for "
            f"example the column X['text'], or choose it: ColumnTransformer([('text', {name}(), 'text')])."
        )
    column = np.empty((len(X), 1), dtype=object)
    column[:, 0] = list(X)
    return column
