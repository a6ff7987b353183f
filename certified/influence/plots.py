"""Plots of influence. matplotlib is loaded when one is drawn (``pip install "certified-unlearning[plot]"``).

Each function draws on the axes given, or on new ones, and returns them. None names a subject.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.errors import InvalidInput, MissingExtra
from certified.influence._record import Influence

__all__ = ["changes", "leverage"]

_BLUE, _ORANGE, _GREY = "#2563a8", "#d9761a", "#777777"


def _axes(axes: Any) -> Any:
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtra("A plot", "matplotlib", "plot") from error
    return plt.subplots(figsize=(5.2, 4.2), layout="constrained")[1]


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def changes(found: Influence, *, n: int = 20, coefficient: int | None = None, name: str = "", axes: Any = None) -> Any:
    """Draw the largest changes, with their certified errors as bars.

    Parameters
    ----------
    found : Influence
    n : int
        Number of subjects.
    coefficient : int or None
        Position of one coefficient; None for the size of the whole change in standard errors.
    name : str
        Of the coefficient, for the axis.
    axes : matplotlib axes or None
    """
    axes = _axes(axes)
    if coefficient is None:
        value, error = found.size, found.error
        label = "change of the model (standard errors)"
    else:
        if not -found.coef_change.shape[1] <= coefficient < found.coef_change.shape[1]:
            raise InvalidInput(
                f"changes(coefficient={coefficient}) is not allowed: there are {found.coef_change.shape[1]} entries."
            )
        value, error = found.coef_change[:, coefficient], found.error * found.standard_errors[coefficient]
        label = f"change of {name or f'coefficient {coefficient}'}"
    first = np.argsort(-np.abs(value), kind="stable")[:n]
    rank, bounded = np.arange(1, len(first) + 1), np.isfinite(error[first])
    bars = np.where(bounded, error[first], 0.0)
    axes.errorbar(rank, value[first], yerr=bars, fmt="o", color=_BLUE, markersize=4, capsize=2, label="certified error")
    if not bounded.all():
        axes.plot(rank[~bounded], value[first][~bounded], "x", color=_ORANGE, label="no bound")
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    axes.set(xlabel="rank", ylabel=label, title="Without each subject")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return axes


def leverage(found: Influence, *, axes: Any = None) -> Any:
    """Draw Cook's distance against leverage, on logarithmic axes.

    Parameters
    ----------
    found : Influence
    axes : matplotlib axes or None
    """
    axes = _axes(axes)
    tiny = np.finfo(np.float64).tiny
    bounded = np.isfinite(found.error)
    for some, colour, label in ((bounded, _BLUE, "with a bound"), (~bounded, _ORANGE, "no bound")):
        if some.any():
            x, y = found.leverage[some], np.maximum(found.cooks_distance[some], tiny)
            axes.scatter(x, y, s=8, color=colour, alpha=0.6, linewidths=0, label=label)
    axes.set(xscale="log", yscale="log", xlabel="leverage", ylabel="Cook's distance", title="Subjects")
    axes.legend(fontsize=8, frameon=False)
    _plain(axes)
    return axes
