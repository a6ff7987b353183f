"""Ensembles that delete, with scikit-learn's names. Each is imported when it is first asked for.

Forests need numba and boosted trees XGBoost, which the extra ``certified-unlearning[trees]`` installs.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from certified.errors import MissingExtra

_WHERE = {
    "ExtraTreesClassifier": "_forest",
    "ExtraTreesRegressor": "_forest",
    "GradientBoostingClassifier": "_boosting.estimators",
    "GradientBoostingRegressor": "_boosting.estimators",
    "IsolationForest": "_isolation",
    "RandomForestClassifier": "_forest",
    "RandomForestRegressor": "_forest",
    "ShardedClassifier": "_sharding.estimators",
    "ShardedRegressor": "_sharding.estimators",
}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "xgboost":
            raise
        raise MissingExtra(f"certified.ensemble.{name}", "XGBoost", "trees") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
