"""Parameters of scikit-learn's trees that these do not have, with reasons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from certified.errors import InvalidInput

__all__ = ["REASONS", "check_unsupported"]

REASONS: dict[str, str] = {
    "monotonic_cst": "the limits of a node come from the values of those above it, which change with every deletion. "
    "Leave it out",
    "splitter": "a single tree takes the best split. Use extra-trees with n_estimators=1 for thresholds that are drawn",
    "bootstrap": "a tree sees each of its subjects once",
    "max_features": "every feature may split a node",
    "random_state": "what looks random follows from the key, and no noise is drawn in a fit. Give key=... to repeat a "
    "fit, or leave it out and have the operating system draw one",
}
_DEFAULTS: dict[str, Any] = {
    "splitter": "best",
    "bootstrap": False,
    "max_features": 1.0,
}


def check_unsupported(name: str, own: Collection[str], given: dict[str, Any]) -> None:
    """Take scikit-learn's parameters that are not among `own` out of those given; InvalidInput but for its defaults."""
    for parameter in (REASONS.keys() & given.keys()) - set(own):
        value = given.pop(parameter)
        if value is not None and (np.ndim(value) > 0 or value != _DEFAULTS.get(parameter)):
            raise InvalidInput(
                f"{name}({parameter}={value!r}) is not allowed: {REASONS[parameter]}. No estimator was made."
            )
