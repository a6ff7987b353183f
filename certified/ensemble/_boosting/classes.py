"""Classes of a boosted classifier: their codes, counts and weights, and those that leave with their last person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.multiclass import check_classification_targets

from certified._data.targets import codes_among
from certified.ensemble._boosting.leaf_metric import LeafRows
from certified.ensemble._boosting.model import BoostedTrees
from certified.ensemble._boosting.objective import weights_of_classes
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["BoostedClasses"]


class BoostedClasses(BoostedTrees):
    """What a classifier adds to boosted trees."""

    classes_: Any
    class_weight: Any
    monotone_constraints: Any
    _counts: IntArray

    def _targets(self, y: Any, weight: FloatArray) -> FloatArray:
        check_classification_targets(y)
        classes, encoded = np.unique(y, return_inverse=True)
        counts = np.bincount(encoded[weight > 0], minlength=len(classes))
        if len(classes) < 2 or np.any(counts == 0):
            raise InvalidInput(
                "Classifier can't train when only one class is present: two classes or more, each with a positive "
                f"weight, are needed; y has {np.unique(classes[counts > 0]).tolist()}."
            )
        if len(classes) > 2 and self.monotone_constraints is not None:
            raise InvalidInput(
                f"{type(self).__name__}(monotone_constraints=...) is not allowed with {len(classes)} classes: a "
                "predictor of a class that rises does not make its probability rise. Leave it out."
            )
        if len(classes) > 2 and self.structure_groups > 1:
            raise InvalidInput(
                f"{type(self).__name__}(structure_groups={self.structure_groups}) is not allowed with {len(classes)} "
                "classes: the sums over rows take all trees of a class together, and groups would mix them. Set "
                "structure_groups=1."
            )
        self.classes_, self._counts = classes, counts
        return encoded.astype(np.float64)

    def _class_weights(self, rows: LeafRows, sample: IntArray) -> Any:
        """Weights by class: those given, or "balanced" by the structure sample."""
        counts = np.bincount(rows.y[sample >= 0].astype(np.int64), minlength=len(self.classes_))
        each = weights_of_classes(self.class_weight, self.classes_.tolist(), counts, type(self).__name__)
        return each[rows.y.astype(np.int64)]

    def _class_counts(self, rows: IntArray) -> IntArray:
        left = self._counts - self._count(rows)
        return left if self._staying(rows) is None else left[left > 0]

    def _staying(self, rows: IntArray) -> BoolArray | None:
        """Which classes stay without these rows, where one leaves and a refit would learn the others; else None."""
        stay = self._counts - self._count(rows) > 0
        rest = self._subjects.retained.copy()
        rest[rows] = False
        foreign = self._given is not None and not isinstance(self.structure, str)
        possible = np.count_nonzero(stay) > 1 and not foreign and np.all(stay[self._rows.y[rest].astype(np.int64)])
        return stay if possible and not np.all(stay) else None

    def _with_fewer_classes(self, rows: IntArray) -> Any:
        stay = self._staying(rows)
        if stay is None:
            return None
        draft, code = self._draft(), np.maximum(np.cumsum(stay) - 1, 0)
        draft.classes_, draft._counts = self.classes_[stay], self._class_counts(rows)
        draft._rows = self._rows._replace(y=code[self._rows.y.astype(np.int64)].astype(np.float64))
        if self._given is not None:  # splits drawn by the key, for as many classes
            draft._given = replace(self._given, structure=draft._drawn(draft._objective(), self._X.shape[1]))
        return draft

    def _more_targets(self, y: Any, weight: FloatArray) -> FloatArray:
        return codes_among(self.classes_, y, len(weight), f"{type(self).__name__}.add").astype(np.float64)

    def _counted_in(self, y: FloatArray, weight: FloatArray) -> dict[str, Any]:
        return {"_counts": self._counts + np.bincount(y[weight > 0].astype(np.int64), minlength=len(self.classes_))}

    def _counted_out(self, rows: IntArray) -> dict[str, Any]:
        return {"_counts": self._counts - self._count(rows)}

    def _count(self, rows: IntArray) -> IntArray:
        labels = self._rows.y[rows][self._rows.s[rows] > 0]
        return np.bincount(labels.astype(np.int64), minlength=len(self.classes_))
