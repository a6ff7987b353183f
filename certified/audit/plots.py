"""Plots of audits. matplotlib is loaded when one is drawn (``pip install "certified-unlearning[plot]"``).

Each function draws on the axes given, or on new ones, and returns them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import norm

from certified.accounting import delta_of
from certified.audit._gap import ExactGap
from certified.audit._membership import Membership, roc
from certified.errors import MissingExtra
from certified.typing import FloatArray

__all__ = ["epsilon_curves", "null_distribution", "roc_curves"]

_BLUE, _ORANGE, _GREY = "#2563a8", "#d9761a", "#777777"
_COLOURS = (_BLUE, _ORANGE, "#2f8f5b", "#8a4fa3", "#b03a48")


def _axes(axes: Any, width: float = 5.2, height: float = 4.2) -> Any:
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtra("A plot", "matplotlib", "plot") from error
    axes = plt.subplots(figsize=(width, height), layout="constrained")[1]
    return axes


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)


def roc_curves(*results: Membership, names: Any = None, low: float = 1e-3, axes: Any = None) -> Any:
    """Draw ROC curves of attacks on logarithmic axes, where low false positive rates can be seen.

    Parameters
    ----------
    *results : Membership
    names : sequence of str or None
        For the legend; by default the methods.
    low : float
        Lower end of both axes.
    axes : matplotlib axes or None
    """
    axes = _axes(axes)
    grid = np.geomspace(low, 1.0, 50)
    axes.plot(grid, grid, color=_GREY, linewidth=1, linestyle="--", label="chance")
    labels = [r.method for r in results] if names is None else list(names)
    for k, (result, name) in enumerate(zip(results, labels, strict=True)):
        fpr, tpr = roc(result.scores, result.member)
        axes.plot(
            np.maximum(fpr, low / 10),
            np.maximum(tpr, low / 10),
            color=_COLOURS[k % len(_COLOURS)],
            linewidth=1.6,
            label=f"{name}, AUC {result.auc:.3f}",
        )
    axes.set(xscale="log", yscale="log", xlim=(low, 1.0), ylim=(low, 1.0))
    axes.set(xlabel="false positive rate", ylabel="true positive rate", title="Membership inference")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    _plain(axes)
    return axes


def epsilon_curves(*gaps: ExactGap, names: Any = None, delta: float = 1e-6, axes: Any = None) -> Any:
    """Draw delta as a function of epsilon: true, and as certified.

    Parameters
    ----------
    *gaps : ExactGap
    names : sequence of str or None
    delta : float
        Lower end of the axis.
    axes : matplotlib axes or None
    """
    axes = _axes(axes)
    shown = [gap for gap in gaps if np.isfinite(gap.mu)]
    labels = [f"release {k + 1}" for k in range(len(gaps))] if names is None else list(names)
    labels = [name for gap, name in zip(gaps, labels, strict=True) if np.isfinite(gap.mu)]
    largest = max([m for gap in shown for m in (gap.mu, gap.mu_certified) if np.isfinite(m)], default=0.0) or 0.1
    grid = np.linspace(0.0, 5.0 * largest, 200)
    for k, (gap, name) in enumerate(zip(shown, labels, strict=True)):
        colour = _COLOURS[k % len(_COLOURS)]
        for mu, style, what in ((gap.mu, "-", "true"), (gap.mu_certified, ":", "certified")):
            if np.isfinite(mu):
                values: FloatArray = np.array([delta_of(e, mu) for e in grid])
                label = f"{name}, {what}: μ = {mu:.3g}"
                axes.plot(grid, np.maximum(values, delta / 100), style, color=colour, linewidth=1.6, label=label)
    axes.set(yscale="log", xlim=(0.0, grid[-1]), ylim=(delta, 1.0))
    axes.set(xlabel="ε", ylabel="δ(ε)", title="Unlearned release against that of a refit")
    axes.legend(loc="upper right", fontsize=8, frameon=False)
    _plain(axes)
    return axes


def null_distribution(values: Any, *, shift: float = 0.0, observed: float | None = None, axes: Any = None) -> Any:
    """Draw a statistic that is N(0, 1) for a refit against that law, and against the one if nothing was removed.

    Parameters
    ----------
    values : array
        The statistic of many releases, for example ``whitened @ direction / norm(direction)``.
    shift : float
        Its mean if nothing was removed.
    observed : float or None
        The statistic of the release in question.
    axes : matplotlib axes or None
    """
    axes = _axes(axes)
    values = np.ravel(np.asarray(values, dtype=np.float64))
    ends = [*values, 3.5 + max(shift, 0.0), -3.5 + min(shift, 0.0), *([] if observed is None else [observed])]
    grid = np.linspace(min(ends), max(ends), 400)
    if values.size:
        axes.hist(values, bins=40, density=True, color="#c9d8ea", label=f"releases ({values.size})")
    axes.plot(grid, norm.pdf(grid), color=_BLUE, linewidth=1.6, label="refit: N(0, 1)")
    if shift:
        axes.plot(
            grid, norm.pdf(grid - shift), color=_ORANGE, linewidth=1.6, label=f"nothing removed: N({shift:.2g}, 1)"
        )
    if observed is not None:
        axes.axvline(observed, color="black", linewidth=1.2, linestyle="--", label=f"observed: {observed:.2f}")
    axes.set(xlabel="statistic along the influence of the deleted rows", ylabel="density", title="Directional test")
    axes.set_ylim(0.0, axes.get_ylim()[1] * 1.4)
    axes.legend(loc="upper center", ncols=2, fontsize=8, frameon=False)
    _plain(axes)
    return axes
