"""``partial_fit`` in the terms of ``fit`` and ``add``."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.utils.validation import _num_samples

from certified._data.ids import NUMBERS
from certified._keeper.acts import take_turns
from certified.errors import InvalidInput

__all__ = ["PartialFit"]


@take_turns
class PartialFit:
    """``partial_fit`` as the name of ``fit`` and ``add`` where scikit-learn has it; mix it in where it does."""

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, sample_weight: Any = None, *, ids: Any = None
    ) -> Self:
        """Fit on these rows, or add them to those retained: the same as one fit on all of them.

        Parameters
        ----------
        X, y, sample_weight
            As in ``fit`` and ``add``.
        classes : array-like of shape (n_classes,) or None
            Labels that y may have; the first call needs rows of each.
        ids : array-like of shape (n_rows,) or column name
            Subject of each row. Calls can do without if the first did: rows are numbered, each call going on after the
            largest number retained.

        Returns
        -------
        self
        """
        model: Any = self
        given = {} if sample_weight is None else {"sample_weight": sample_weight}
        if classes is not None:
            unknown = np.setdiff1d(np.asarray(y), np.asarray(classes))
            if unknown.size:
                raise InvalidInput(
                    f"{type(self).__name__}.partial_fit got the class {unknown.tolist()[0]!r}, which is not among "
                    f"classes={np.asarray(classes).tolist()}. Correct one of the two. Nothing was changed."
                )
        if model.__sklearn_is_fitted__():
            if ids is None and model._subjects.source == NUMBERS:
                first = int(model.ids_[-1]) + 1
                ids = np.arange(first, first + _num_samples(X))
            model.add(X, y, ids=ids, **given)
        else:
            model.fit(X, y, ids=ids, **given)
        return self
