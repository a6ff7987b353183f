"""Values that boosted models are made of: the objective, a structure from elsewhere, what was built, what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from certified._convex.losses import Loss
from certified._data.ids import as_ids
from certified._data.subjects import Subjects
from certified.ensemble._boosting import kernels
from certified.ensemble._boosting.release import BoostedState
from certified.ensemble._boosting.structure import Structure
from certified.errors import InvalidInput
from certified.typing import BoolArray, FloatArray, IntArray

__all__ = ["Built", "Given", "Objective", "check_parameters", "weights_of_classes"]


@dataclass(frozen=True)
class Objective:
    """What is learned: XGBoost's name of it, the loss of the head, and the kind of its reference curvature.

    Kinds: 0 squared, 1 logistic, 2 log link, 3 softmax, whose predictors start at 0.
    """

    name: str
    loss: Loss
    kind: int
    power: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)

    def curvature(self, y: FloatArray, z: FloatArray) -> FloatArray:
        """Curvature (of softmax: probabilities) of rows at reference predictors."""
        if self.kind == 3:
            return kernels.reference_shares(z)
        return kernels.reference_curvature(self.kind, self.power, y, z)

    def link(self, mean: float) -> float:
        """Predictor of a mean."""
        if self.kind == 1:
            mean = min(max(mean, 2.0**-20), 1.0 - 2.0**-20)
            return math.log(mean / (1.0 - mean))
        if self.kind == 3:
            return 0.0
        return math.log(max(mean, 2.0**-60)) if self.kind == 2 else mean

    def mean(self, predictor: float) -> float:
        """Mean of a predictor."""
        if self.kind == 1:
            return 1.0 / (1.0 + math.exp(-predictor))
        return math.exp(predictor) if self.kind == 2 else predictor

    def base(self, y: FloatArray, s: FloatArray) -> float:
        """Predictor of the mean of sampled rows, rounded so that it hardly ever changes; the same in any order."""
        total = math.fsum(s)
        if self.kind == 3:
            return 0.0
        if not total > 0.0:
            raise InvalidInput("Every subject of the structure sample has weight 0. Raise sample_size.")
        mean = math.fsum(s * y) / total
        if self.kind:
            return round(4.0 * self.link(mean)) / 4.0
        spread = math.sqrt(math.fsum(s * (y - mean) ** 2) / total)
        unit = math.ldexp(1.0, math.frexp(spread)[1] - 2) if spread > 0.0 else 1.0
        return round(mean / unit) * unit

    def dispersion(self, y: FloatArray, s: FloatArray, base: float) -> float:
        """Scale of the loss: 1, or for the squared loss a power of 4 near the variance of sampled rows."""
        if self.kind or not len(y):
            return 1.0
        spread = math.fsum(s * (y - base) ** 2) / math.fsum(s)
        return math.ldexp(1.0, 2 * ((math.frexp(spread)[1] - 1) // 2)) if spread > 0.0 else 1.0


@dataclass(frozen=True, eq=False)
class Given:
    """A structure from elsewhere, and the rows of the subjects from which it was learned.

    It is None once one of these subjects has been deleted: then trees are grown on those that are left.
    """

    structure: Structure | None
    declared: BoolArray

    @classmethod
    def of(cls, structure: Structure, ids: Any, subjects: Subjects) -> Given:
        """Find the rows of the subjects named."""
        declared = np.zeros(len(subjects.retained), dtype=bool)
        caller = "from_booster(structure_ids=...)"
        named = np.unique(as_ids(ids, caller))
        if named.size:
            declared[subjects.rows_of(named, caller)] = True
        return cls(structure, declared)

    def valid(self, retained: BoolArray) -> Structure | None:
        """The structure, where every row from which it was learned is kept."""
        return self.structure if np.all(retained[self.declared]) else None


@dataclass(frozen=True, eq=False)
class Built:
    """A structure with everything that depends on it."""

    state: BoostedState
    sample: IntArray
    leaves: Any
    weights: FloatArray
    metric_weights: FloatArray


def weights_of_classes(given: Any, labels: list[Any], counts: IntArray, name: str) -> FloatArray:
    """Return a weight for each class: 1, those given by label, or balanced for these counts; else raise."""
    if given is None:
        return np.ones(len(labels))
    if isinstance(given, dict) and all(label in labels for label in given):
        each = np.array([float(given.get(label, 1.0)) for label in labels])
    elif isinstance(given, str) and given == "balanced" and np.all(counts > 0):
        each = counts.sum() / (len(labels) * counts)
    else:
        each = np.zeros(1)
    if not (np.all(np.isfinite(each)) and np.all(each > 0)):
        raise InvalidInput(
            f"{name}(class_weight={given!r}) is not allowed with the classes {labels}: None, a dict of positive "
            'weights by label, or "balanced", which needs rows of every class in the structure sample. Nothing was '
            "changed."
        )
    return each


def check_parameters(model: Any) -> None:
    """Raise InvalidInput where a parameter of a boosted model is not allowed."""
    name = type(model).__name__
    for parameter, low, strict in (
        ("epsilon", 0.0, True),
        ("noise", 0.0, False),
        ("tol", 0.0, True),
        ("leaf_penalty", 0.0, True),
        ("structure_weight", 0.0, False),
    ):
        value = getattr(model, parameter)
        if not np.isfinite(value) or value < low or (strict and value == low):
            raise InvalidInput(
                f"{name}({parameter}={value!r}) is not allowed: a finite number {'>' if strict else '>='} {low:g} is "
                "needed."
            )
    if not 0.0 < model.delta < 1.0:
        raise InvalidInput(f"{name}(delta={model.delta!r}) is not allowed: 0 < delta < 1 is needed.")
    for parameter in ("n_estimators", "structure_groups", "max_iter"):
        value = getattr(model, parameter)
        if not (isinstance(value, int | np.integer) and value > 0):
            raise InvalidInput(f"{name}({parameter}={value!r}) is not allowed: a whole number > 0 is needed.")
    if model.structure_groups > model.n_estimators:
        raise InvalidInput(f"{name}: structure_groups={model.structure_groups} exceeds n_estimators.")
    size = model.sample_size
    share = isinstance(size, float) and 0.0 < size <= 1.0
    if not (share or (isinstance(size, int | np.integer) and not isinstance(size, bool) and size > 0)):
        raise InvalidInput(
            f"{name}(sample_size={size!r}) is not allowed: a share in (0, 1] of the subjects or a whole number "
            "of subjects for each group is needed."
        )
    if model.shrink_to not in ("zero", "structure"):
        raise InvalidInput(f'{name}(shrink_to={model.shrink_to!r}) is not allowed: "zero" or "structure".')
