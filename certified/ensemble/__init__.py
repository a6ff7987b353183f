"""Ensembles that forget, with scikit-learn's names. Each is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_WHERE = {
    "ExtraTreesClassifier": "_forest",
    "ExtraTreesRegressor": "_forest",
    "IsolationForest": "_isolation",
    "RandomForestClassifier": "_forest",
    "RandomForestRegressor": "_forest",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
