"""Plain estimators that serve what a keeper has learned."""

from __future__ import annotations

from typing import Any

__all__ = ["named_like", "served_as"]


def named_like(out: Any, model: Any) -> Any:
    """Return `out` with the number and the names of the features that `model` was fitted on."""
    out.n_features_in_ = model.n_features_in_
    if hasattr(model, "feature_names_in_"):
        out.feature_names_in_ = model.feature_names_in_.copy()
    return out


def served_as(plain: Any, learned: dict[str, Any]) -> Any:
    """Return a plain estimator with these fitted attributes."""
    for name, value in learned.items():
        setattr(plain, name, value)
    return plain
