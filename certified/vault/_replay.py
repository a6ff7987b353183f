"""What a certificate says, computed anew from the retained rows.

An exact statistic is counted again and must be the same, bit for bit. A convex model is brought to its minimum again,
and
the distance between the two parameters must be at most the sum of the two bounds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["replay"]


def replay(model: Any, copy: Any) -> tuple[list[str], list[str]]:
    """Return problems, and what was checked.

    Parameters
    ----------
    model : fitted estimator
    copy : fitted estimator
        A copy of it, which is changed.
    """
    problems: list[str] = []
    checked: list[str] = []
    for name, part in _parts(model):
        if hasattr(part, "_count") and hasattr(part, "_table") and hasattr(part, "_statistic"):
            _recount(name, part, problems, checked)
    if hasattr(copy, "refine"):
        _remeasure(model, copy, problems, checked)
    if not checked:
        checked.append(f"{type(model).__name__}: nothing that can be computed anew without a refit")
    return problems, checked


def _parts(model: Any, name: str = "") -> Any:
    """The model and the steps inside it."""
    yield name or type(model).__name__, model
    for step_name, step, *_ in [*getattr(model, "steps_", ()), *getattr(model, "transformers_", ())]:
        if hasattr(step, "__dict__"):
            yield from _parts(step, f"{name}.{step_name}".lstrip("."))


def _recount(name: str, step: Any, problems: list[str], checked: list[str]) -> None:
    from certified._data.reproducible import same

    statistic = step._count(step._table.with_weight())
    if not same(statistic, step._statistic):
        problems.append(f"{name}: the statistic is not that of the retained rows.")
    checked.append(f"{name}: statistic counted anew from the retained rows")


def _remeasure(model: Any, copy: Any, problems: list[str], checked: list[str]) -> None:
    head, again = (getattr(part, "_final", part) for part in (model, copy))
    if not hasattr(getattr(head, "_state", None), "solution") or not hasattr(head, "noise_metric_"):
        return
    copy.refine()
    gap = np.ravel(head._state.solution.w) - np.ravel(again._state.solution.w)
    metric = head.noise_metric_
    squared = gap @ (metric @ gap) if metric.ndim == 2 else gap @ (metric * gap)
    distance = float(np.sqrt(max(0.0, float(squared))))
    allowed = float(head.certificate_.distance_bound) + float(again.certificate_.distance_bound)
    if not distance <= allowed * (1 + 1e-6):
        problems.append(f"The parameter is {distance:.3g} from the minimum; {allowed:.3g} is certified.")
    checked.append(f"{type(head).__name__}: {distance:.3g} from the minimum, {allowed:.3g} certified")
