"""What a linear model with a certified head minimises, for those who ask what it would be without somebody."""

from __future__ import annotations

from typing import Any

from scipy.sparse import issparse

from certified._convex.leave_out import Minimised
from certified._data.rows import Rows
from certified.errors import InvalidInput
from certified.linear_model._released import ReleasedLinear
from certified.typing import FloatArray

__all__ = ["MinimisedLinear"]


class MinimisedLinear(ReleasedLinear):
    """Base class: answers :func:`certified.influence.influence`."""

    max_iter: int
    _rows: Any

    def _known(self, call: str, X: Any, offset: Any, exposure: Any) -> tuple[Any, FloatArray | None]:
        raise NotImplementedError

    def _minimised(self) -> Minimised:
        """What is minimised, and where the model is; raise InvalidInput where no influence is bounded."""
        state, solver, rows = self._state, self._solver, self._rows
        because = None
        if not solver.predicts:
            because = "was solved by 'newton-cg'. Dense features and solver='newton-cholesky' are needed"
        elif solver.add is None:
            because = "has an L1 penalty. l1_ratio=0 is needed"
        elif rows.base is not None:
            because = "has class_weight='balanced', where each subject weighs on every row. Fixed weights are needed"
        elif not isinstance(rows, Rows):
            because = "was fitted on Parts. Rows in memory are needed"
        if because is not None:
            raise InvalidInput(
                f"influence(model) got a {type(self).__name__} that {because}. Fit such a model. Nothing was changed."
            )
        problem = solver.posed(state.problem, state.products)
        metric = solver.noise_metric(problem, state.products, self.n_rows_)
        return Minimised(problem, rows, metric, state.solution.w, self._close(len(state.solution.w)), self.max_iter)

    def _features_of(self, X: Any, offset: Any) -> tuple[FloatArray, FloatArray | None]:
        """Other rows as those retained are stored, and the known part of their predictors."""
        X, known = self._known("influence", X, offset, None)
        return self._solver.features(self._rows, X.toarray() if issparse(X) else X), known
