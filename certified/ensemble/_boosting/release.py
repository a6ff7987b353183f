"""From certified leaf values to an ordinary XGBoost model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
import xgboost
from sklearn.utils.validation import validate_data

from certified import noise
from certified._convex.released import Released
from certified._convex.state import Solution
from certified._data.frames import is_frame
from certified._data.reproducible import digest
from certified.ensemble._boosting import structure as trees
from certified.ensemble._boosting.categories import codes_in_frame, declared_types
from certified.ensemble._boosting.leaf_metric import LeafNoiseMetric, LeafProblem
from certified.ensemble._boosting.leaf_solver import LeafAnchor
from certified.ensemble._boosting.monotone import clipped, sides_of, signs_of
from certified.ensemble._boosting.structure import Structure
from certified.errors import InvalidInput
from certified.typing import FloatArray, IntArray

__all__ = ["BoostedState", "ReleasedTrees"]


@dataclass(frozen=True, eq=False)
class BoostedState:
    """All that a deletion changes, except the rows.

    Attributes
    ----------
    structures : tuple of Structure
        One for each group.
    base : float
        Predictor where every leaf value is 0, the structure sample's.
    problem, release, anchor, solution
        Of the leaf values. The release is changed in place where rows are deleted.
    seconds : float
        What it took to build the structure and to solve for the leaf values.
    """

    structures: tuple[Structure, ...]
    base: float
    problem: LeafProblem
    noise_metric: LeafNoiseMetric
    anchor: LeafAnchor
    solution: Solution
    seconds: float


class ReleasedTrees(Released):
    """Base class: the parameter is the leaf values, tree after tree."""

    categorical_features: Any
    monotone_constraints: Any
    _state: BoostedState
    _model: Any
    _categories: Any = None  # as XGBoost's model has them
    _known: list[list[Any] | None] = []  # noqa: RUF012 - categories that a booster brought; never changed in place

    def _base_score(self, base: float) -> float:
        """XGBoost's base_score for a predictor."""
        raise NotImplementedError

    def _noised(self, w: FloatArray) -> FloatArray:
        return noise.release(w, self._state.noise_metric.factor(), self.noise, self._rng)

    def _draw(self) -> None:
        super()._draw()
        self._model = None
        if self.monotone_constraints is not None:
            structures = self._state.structures
            sides = sides_of(structures, self._signs(structures[0].n_features))
            self._released = clipped(self._released, sides)

    def _types(self, n_features: int) -> list[str] | None:
        """Return "c" or "q" for each feature, None where no feature is of categories."""
        names = [str(name) for name in getattr(self, "feature_names_in_", ())]
        return declared_types(self.categorical_features, names, n_features, type(self).__name__)

    def _signs(self, n_features: int) -> IntArray:
        """Monotone constraints as numbers, one for each feature."""
        names = getattr(self, "feature_names_in_", ())
        return signs_of(self.monotone_constraints, names, self._types(n_features), n_features)

    def _booster(self) -> xgboost.Booster:
        """XGBoost's model with the released leaf values."""
        v = self._parameter
        if self._model is None:
            state = self._state
            names = tuple(map(str, getattr(self, "feature_names_in_", ())))
            self._model = trees.released(state.structures, v, self._base_score(state.base), names, self._categories)
        return xgboost.Booster(model_file=self._model)

    @property
    def n_leaves_(self) -> int:
        """Number of leaves of all trees, which is the number of leaf values learned."""
        self._check_fitted()
        return len(self._state.problem.penalty)

    @property
    def coef_(self) -> FloatArray:
        """Released leaf values, tree after tree, shape (n_leaves,)."""
        return self._parameter.copy()

    @property
    def intercept_(self) -> FloatArray:
        """Predictors where every leaf value is 0, shape (n_outputs,): a function of the structure sample."""
        self._check_fitted()
        return np.full(self._state.problem.outputs, self._state.base)

    @property
    def private_coef_(self) -> FloatArray:
        """Leaf values without noise. For auditors; never to be published."""
        self._check_fitted()
        return self._state.solution.w.copy()

    @property
    def private_intercept_(self) -> FloatArray:
        """As ``intercept_``, which has no noise."""
        return self.intercept_

    @property
    def noise_metric_(self) -> FloatArray:
        """G over the leaf values: the noise has covariance ``noise^2 G^-1``. For auditors; never to be published."""
        self._check_fitted()
        return self._state.noise_metric.matrix

    @property
    def structure_digest_(self) -> str:
        """Digest of the structure: equal to that of a refit on the retained rows, bit for bit."""
        self._check_fitted()
        parts = [part for s in self._state.structures for part in (s.text, s.index, s.values)]
        return digest(self._state.base, *parts)

    @property
    def feature_importances_(self) -> FloatArray:
        """How far the released leaf values on the two sides of a feature's splits are apart, shape (n_features,).

        As the sum of the squared differences of their means over its splits, in shares of 1; no row has a part in it.
        """
        self._check_fitted()
        return np.asarray(self._bare().feature_importances_, dtype=np.float64)

    def _bare(self) -> Any:
        """The released model as an estimator of XGBoost."""
        raise NotImplementedError

    def _margins(self, X: Any) -> Any:
        X = self._read(X)
        return self._booster().predict(xgboost.DMatrix(X), output_margin=True, validate_features=False)

    def _means(self, X: Any) -> Any:
        X = self._read(X)
        return self._booster().predict(xgboost.DMatrix(X), validate_features=False)

    def _read(self, X: Any, y: Any = None, *, reset: bool = False) -> Any:
        """Return features as XGBoost has them, float32 and NaN where missing; with `reset` the targets too."""
        if self._known:
            X = codes_in_frame(X, self._known, type(self).__name__)
        self._check_columns(X, reset)
        checked = {"dtype": np.float64, "order": "C", "ensure_all_finite": "allow-nan", "reset": reset}
        if reset:
            X, y = validate_data(self, X, y, **checked)
        else:
            X = validate_data(self, X, **checked)
        out = self._narrowed(X)
        return (out, y) if reset else out

    def _check_columns(self, X: Any, reset: bool) -> None:
        """Raise InvalidInput where a column of a frame is no number, or categorical by its type alone."""
        if not is_frame(X):
            return
        schema = nw.from_native(X, eager_only=True).schema
        if reset:
            types = declared_types(self.categorical_features, list(schema), len(schema), type(self).__name__)
        else:
            types = self._types(self.n_features_in_)
        for j, (name, kind) in enumerate(schema.items()):
            numbers = kind.is_numeric() or isinstance(kind, nw.Boolean | nw.Object | nw.Unknown)
            declared = types is not None and types[j : j + 1] == ["c"]
            if not numbers and not (declared and _of_codes(X, name)):
                raise InvalidInput(
                    f"{type(self).__name__} got the column {name!r} of type {kind}. Numbers are needed, NaN where "
                    "missing; categories as codes 0, 1, ... in a column that categorical_features names. Encode "
                    "it before, by OrdinalEncoder or OneHotEncoder in a pipeline. Nothing was changed."
                )

    def _narrowed(self, X: FloatArray) -> Any:
        with np.errstate(over="ignore"):
            out = X.astype(np.float32)
        if np.any(np.isinf(out)):
            raise InvalidInput(
                f"{type(self).__name__} got features beyond the range of float32, in which XGBoost works. Scale them."
            )
        return out

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags


def _of_codes(X: Any, name: str) -> bool:
    """Whether a column of categories has numbers for them."""
    column = nw.from_native(X, eager_only=True)[name]
    if not isinstance(column.dtype, nw.Categorical | nw.Enum):
        return False
    return np.asarray(column.cat.get_categories().to_numpy()).dtype.kind in "iuf"
