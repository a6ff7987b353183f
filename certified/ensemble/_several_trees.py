"""What forests share: which rows a tree sees, the trees as a sequence, predictions by trees that have not seen them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from certified._trees.shared_state import SharedState
from certified._trees.tasks import PLAIN, ClassifierTrees, RegressorTrees, Trees, scored
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["ForestClassifier", "ForestRegressor"]


def _seen_by(draws: float) -> float:
    """Return which share of the rows a sample with replacement has, of so many draws for each row."""
    return float(-np.expm1(-draws))


class Forest(Trees):
    """The parameters, and what needs several trees."""

    n_estimators: Any
    bootstrap: Any
    max_samples: Any
    oob_score: Any
    lazy: Any
    _forest_class: Any

    @property
    def _lazy(self) -> bool:  # type: ignore[override]
        return bool(self.lazy)

    def _n_trees(self) -> int:
        if self.warm_start:
            raise InvalidInput(
                f"{type(self).__name__}(warm_start=True) is not allowed: trees of the fit before would hold its "
                "rows. Each fit grows all trees; with one key the first of them are those of a smaller forest. "
                "Leave it False. Nothing was changed."
            )
        return self._whole("n_estimators", 1)

    def _share(self, shared: SharedState) -> float:
        name = type(self).__name__
        if not self.bootstrap:
            if self.max_samples is not None:
                raise InvalidInput(f"{name}(max_samples=...) is a share of the rows for bootstrap=True alone.")
            if self.oob_score:
                raise InvalidInput(f"{name}(oob_score=True) needs bootstrap=True: otherwise every tree sees every row.")
            return 1.0
        given = 1.0 if self.max_samples is None else self.max_samples
        if isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 1:
            return 1.0 if shared.n_rows == 0.0 else _seen_by(float(given) / shared.n_rows)
        if not isinstance(given, float | np.floating) or not 0.0 < given <= 1.0:
            raise InvalidInput(
                f"{name}(max_samples={given!r}) is not allowed: a share of the rows in (0.0, 1.0], or a number of rows "
                ">= 1. Nothing was changed."
            )
        return _seen_by(float(given))

    def _takes_shares(self) -> bool:
        number = isinstance(self.max_samples, int | np.integer) and bool(self.bootstrap)
        return number or super()._takes_shares()

    def _released(self, says: Any, trees: Any = None) -> Any:
        if trees is None:
            trees = np.flatnonzero(self._grown().n_rows).tolist() or [-1]
        given = {name: getattr(self, name) for name in ("n_estimators", *PLAIN)}
        out = self._forest_class(**given, bootstrap=bool(self.bootstrap))
        out.estimators_ = [self._tree(t, says) for t in trees]
        out.estimator_ = self._plain_class()
        out.n_outputs_, out.n_features_in_ = out.estimators_[0].n_outputs_, out.estimators_[0].n_features_in_
        for name in ("classes_", "n_classes_"):
            if hasattr(self, name):
                setattr(out, name, getattr(self, name))
        return out

    @property
    def estimators_(self) -> list[Any]:
        """The trees as plain ones of scikit-learn; with categories they read what ``release()[0]`` makes of a frame."""
        return list(self._plain().estimators_)

    @property
    def estimator(self) -> Any:
        """A plain tree that is not fitted, of the kind of those in :attr:`estimators_`."""
        return self._plain_class()

    @property
    def estimator_(self) -> Any:
        """As :attr:`estimator`, once there are trees."""
        self._check_fitted()
        return self._plain_class()

    @property
    def estimators_samples_(self) -> list[Any]:
        """For each tree the positions, among the rows of :attr:`ids_`, of those that it sees."""
        seen = self._grown().seen()[:, self._retained]
        return [np.flatnonzero(of_tree).astype(np.int32) for of_tree in seen]

    def __len__(self) -> int:
        """Return the number of trees."""
        return len(self.estimators_)

    def __getitem__(self, index: Any) -> Any:
        """Return a tree."""
        return self.estimators_[index]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the trees."""
        return iter(self.estimators_)

    def __bool__(self) -> bool:
        """Return True, fitted or not: the number of trees is no matter of truth."""
        return True

    def _out_of_bag(self) -> FloatArray:
        """Return for each row held what the trees say that have not seen it; NaN where all have."""
        if not self.oob_score:
            raise AttributeError(f"{type(self).__name__} was made with oob_score=False.")
        forest = self._grown()
        return self._mean(forest.codes, forest.seen())[self._retained]

    @property
    def oob_score_(self) -> float:
        """Accuracy or R2 on the retained rows, each predicted by the trees that have not seen it."""
        return scored(self, self._y[self._retained], self._out_of_bag())


class ForestClassifier(Forest, ClassifierTrees):
    """Of classes."""

    @property
    def oob_decision_function_(self) -> FloatArray:
        """Shares of the classes for each row held, by the trees that have not seen it, shape (n_rows, n_classes)."""
        return self._out_of_bag()


class ForestRegressor(Forest, RegressorTrees):
    """Of targets."""

    @property
    def oob_prediction_(self) -> FloatArray:
        """Prediction for each row held, by the trees that have not seen it."""
        out = self._out_of_bag()
        return out[:, 0] if self._flat else out
