"""What a fit on rows in parts makes of its arguments: the names of columns."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified._convex.losses import Loss
from certified.errors import InvalidInput
from certified.parts._dealing import Roles
from certified.parts._source import Opened, Parts
from certified.typing import FloatArray, IntArray

__all__ = ["check_targets", "class_counts", "exposed", "opened", "scaled", "targets_checked", "weighed"]


def opened(
    model: Any,
    X: Parts,
    y: Any,
    ids: Any,
    *,
    as_classes: bool = False,
    targets_last: bool = False,
    ones: bool = True,
    **known: Any,
) -> Opened:
    """Deal the rows for this model; sets the names of its features.

    Parameters
    ----------
    y : str or list of str
    ids : str or None
    **known : str or None
        ``sample_weight``, ``offset``, ``exposure``.
    """
    caller = f"{type(model).__name__}.fit"
    if y is None:
        raise InvalidInput(f"{caller} got Parts and no y. The name of the column of targets is needed.")
    kinds = {"as_classes": as_classes, "targets_last": targets_last, "ones": ones}
    found = X.open(caller, Roles.named_by(caller, y, ids, **known, **kinds))
    model.n_features_in_ = len(found.features)
    model.feature_names_in_ = np.array(found.features, dtype=object)
    return found


def class_counts(rows: Any, n_classes: int) -> IntArray:
    """Return how many rows of positive weight every class has, shape (n_classes,)."""
    found: IntArray = np.sum(list(rows.map(_counts, n_classes)), axis=0)
    return found


def _counts(part: Any, weight: FloatArray, n_classes: int) -> IntArray:
    return np.bincount(part.y[weight > 0].astype(np.int64), minlength=n_classes)


def scaled(rows: Any, factors: FloatArray) -> None:
    """Multiply the stored weights by the factors of the classes, before anything is learned."""
    if np.all(factors == 1.0):
        return
    for stored in rows.stored:
        part = stored.open(write=True)
        part.weight[...] *= factors[part.y.astype(np.int64)]
    rows.unweighted = False


def check_targets(caller: str, loss: Loss, y: FloatArray) -> None:
    """Raise InvalidInput for targets outside the range of the loss."""
    words, allowed = loss.targets
    wrong = np.flatnonzero(~allowed(y))
    if wrong.size:
        raise InvalidInput(
            f"{caller} got y={y[wrong[0]]:g} in row {wrong[0]} ({wrong.size} such rows). Some value(s) of y are out of "
            f"the valid range of the loss: {words} are allowed. Leave out the others."
        )


def targets_checked(part: Any, weight: FloatArray, caller: str, loss: Loss) -> None:
    """The same for the targets of a part."""
    check_targets(caller, loss, part.y[part.retained])


def exposed(part: Any, weight: FloatArray) -> FloatArray:
    """Sums of the weights times what known parts of the predictors multiply means with, and of the weights."""
    raised = 1.0 if part.offset is None else np.exp(part.offset)
    return np.array([np.sum(weight * raised), np.sum(weight)])


def weighed(part: Any, weight: FloatArray) -> float:
    """Sum of the weights."""
    return float(weight.sum())
