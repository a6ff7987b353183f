"""Exact models are audited by equality: part by part, is the state that of a refit?"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np

from certified._data.reproducible import digest
from certified.audit._models import noise_metric, steps
from certified.audit._result import NOT_REFUTED, REFUTED, AuditResult

__all__ = ["StateEqual", "state_equal"]


@dataclass(frozen=True, eq=False)
class StateEqual(AuditResult):
    """Whether two states are the same.

    Parameters
    ----------
    verdict, reason
        See :class:`AuditResult`.
    equal : bool
    parts : int
        Parts compared: steps of a pipeline, or the model.
    differing : tuple of str
        Parts that differ.
    """

    equal: bool
    parts: int
    differing: tuple[str, ...]


def state_equal(model: Any, refit: Any) -> StateEqual:
    """Compare the state of a model that unlearned with that of a refit, bit for bit.

    Parts with a ``state_digest_`` are compared by it. Noisy models have none: of those only what must be exact is
    compared, the noise metric and the structure of trees; for their parameters see :func:`exact_gap`. Models from
    elsewhere are compared by what their ``fit`` made, the attributes whose names end in an underscore.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from certified.linear_model import Ridge
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = Ridge().fit(X, y)
    >>> _ = model.delete(range(10))
    >>> state_equal(model, Ridge().fit(X[10:], y[10:])).verdict
    'NOT REFUTED'
    """
    ours, theirs = dict(_parts(model)), dict(_parts(refit))
    names = list(dict.fromkeys([*ours, *theirs]))
    differing = tuple(name for name in names if ours.get(name) != theirs.get(name))
    if differing:
        reason = f"The state is not bit for bit that of the refit in: {', '.join(differing)}."
    else:
        reason = "The state is bit for bit that of the refit."
    return StateEqual(REFUTED if differing else NOT_REFUTED, reason, not differing, len(names), differing)


def _parts(model: Any) -> list[tuple[str, str]]:
    if hasattr(model, "best_estimator_"):
        choice = digest(getattr(model, "best_index_", -1))
        whole = [("search", model.state_digest_)] if hasattr(model, "state_digest_") else []
        return [("choice", choice), *whole, *_parts(model.best_estimator_)]
    return [(name, _fingerprint(step)) for name, step in steps(model)]


def _fingerprint(part: Any) -> str:
    if hasattr(part, "state_digest_"):
        return part.state_digest_
    if hasattr(part, "noise_metric_"):
        return digest(getattr(part, "structure_digest_", ""), noise_metric(part))
    return digest(*_leaves(part))


def _leaves(value: Any) -> list[Any]:
    """Return what a fitted object holds as arrays and text, in a fixed order."""
    if hasattr(value, "get_params"):
        learned = {k: v for k, v in vars(value).items() if k.endswith("_") and not k.startswith("_")}
        return [type(value).__name__, *_leaves(learned)]
    if isinstance(value, dict):
        return [leaf for key in sorted(value, key=str) for leaf in (str(key), *_leaves(value[key]))]
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in _leaves(item)]
    if isinstance(value, np.ndarray) and value.dtype != object:
        return [value]
    if isinstance(value, str | int | float | bool | np.generic) or value is None:
        return [repr(value)]
    return [pickle.dumps(value).hex()]
