"""Shape functions: what a fitted additive model adds to its prediction for each bin of a feature or cell of a pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl

from certified.additive._bins import Axis
from certified.errors import InvalidInput, MissingExtra
from certified.typing import FloatArray

__all__ = ["Shape", "as_frame", "find", "labels", "plot"]


@dataclass(frozen=True, eq=False)
class Shape:
    """The function of one term.

    Attributes
    ----------
    name : str
        Of the feature, or "first & second".
    features : tuple of int
        One or two.
    axes : tuple of Axis
        Bins of each.
    scores : float array of shape (n_bins,) or (n_bins, n_bins_of_second)
        On the scale of the linear predictor; the mean over the rows of the fit is 0. Of more than two classes, with
        one more axis for the classes.
    weights : float array of shape (n_bins,) or (n_bins, n_bins_of_second)
        Weight of the rows of each.
    classes : array of shape (n_classes,) or None
        The classes that the last axis of the scores is for.
    """

    name: str
    features: tuple[int, ...]
    axes: tuple[Axis, ...]
    scores: FloatArray
    weights: FloatArray
    classes: Any = None

    @property
    def importance(self) -> float:
        """Weighted mean of the absolute scores, of all classes."""
        size = np.abs(self.scores) if self.classes is None else np.abs(self.scores).mean(axis=-1)
        return float((size * self.weights).sum() / self.weights.sum())

    def of(self, label: Any) -> Shape:
        """Return the function of one class."""
        if self.classes is None and label is None:
            return self
        known = [] if self.classes is None else self.classes.tolist()
        if label not in known:
            raise InvalidInput(
                f"{label!r} is no class with a function of its own. "
                + (f"Give one of {known}." if known else "This model has one function for each term; leave it out.")
            )
        return replace(self, scores=self.scores[..., known.index(label)], classes=None)


def labels(axis: Axis) -> list[str]:
    """Return the names of the bins of an axis.

    Examples
    --------
    >>> labels(Axis(np.array([18.0, 65.5]), missing=True))
    ['< 18', '18 to 65.5', '>= 65.5', 'missing']
    """
    if axis.cuts is None:
        out = [str(value) for value in axis.categories] + ["others"] * axis.pooled
    elif not axis.cuts.size:
        out = ["any"]
    else:
        shown = [f"{cut:.12g}" for cut in axis.cuts]
        out = [f"< {shown[0]}", *(f"{a} to {b}" for a, b in pairwise(shown)), f">= {shown[-1]}"]
    return out + ["missing"] * axis.missing


def as_frame(shapes: list[Shape]) -> pl.DataFrame:
    """Return shape functions as rows: term, bin, bin of the second feature or null, score, weight, class if several."""
    rows: list[tuple[Any, ...]] = []
    for shape in shapes:
        names = [labels(axis) for axis in shape.axes]
        for place, weight in np.ndenumerate(shape.weights):
            bins = [names[axis][k] for axis, k in enumerate(place)]
            for k, score in enumerate(np.ravel(shape.scores[place]).tolist()):
                label = [] if shape.classes is None else [str(shape.classes[k])]
                rows.append((shape.name, bins[0], bins[1] if len(bins) > 1 else None, score, weight, *label))
    kinds = {"term": pl.String, "bin": pl.String, "second_bin": pl.String, "score": pl.Float64, "weight": pl.Float64}
    several = any(shape.classes is not None for shape in shapes)
    return pl.DataFrame(rows, schema=kinds | ({"class": pl.String} if several else {}), orient="row")


def plot(shape: Shape, ax: Any = None) -> Any:
    """Draw a shape function with matplotlib; return the axes."""
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MissingExtra("plot", "matplotlib", "plot") from error
    if ax is None:
        ax = pyplot.subplots(figsize=(6.0, 3.6), layout="constrained")[1]
    ax.set_title(shape.name)
    if len(shape.axes) == 2:
        _cells(shape, ax)
    elif shape.axes[0].ordered:
        _steps(shape, ax)
    else:
        _bars(shape, ax)
    return ax


def _steps(shape: Shape, ax: Any) -> None:
    axis = shape.axes[0]
    cuts, size = axis.cuts, axis.size
    assert cuts is not None
    places, gone = np.arange(size + 1), 1.1 * size + 0.5
    ax.stairs(shape.scores[:size], places, baseline=None, color="#1f77b4", linewidth=2)
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    share = shape.weights / max(float(shape.weights.max()), 1e-300)
    low, high = ax.get_ylim()
    ax.bar(places[:-1] + 0.5, 0.15 * (high - low) * share[:size], 1.0, low, color="0.85", zorder=0)
    if axis.missing:
        ax.plot([gone], shape.scores[size:], "o", color="#d62728")
    last = max(1, size - 1 - size // 10 * axis.missing)
    shown = np.unique(np.linspace(1, last, min(last, 7)).astype(int)) if size > 1 else np.zeros(0, dtype=int)
    ticks = [*shown.tolist(), *([gone] if axis.missing else [])]
    ax.set_xticks(ticks, [f"{cuts[k - 1]:.6g}" for k in shown] + ["missing"] * axis.missing)
    ax.set_ylabel("added to the predictor")


def _bars(shape: Shape, ax: Any) -> None:
    names = labels(shape.axes[0])
    order = np.argsort(-shape.weights, kind="stable")[:20][::-1]
    ax.barh(np.arange(len(order)), shape.scores[order], color="#1f77b4")
    ax.axvline(0.0, color="0.6", linewidth=0.8)
    ax.set_yticks(np.arange(len(order)), [names[k] for k in order])
    ax.set_xlabel("added to the predictor")


def _cells(shape: Shape, ax: Any) -> None:
    most = max(float(np.abs(shape.scores).max()), 1e-12)
    image = ax.imshow(shape.scores.T, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-most, vmax=most)
    first, second = (labels(axis) for axis in shape.axes)
    ax.set_xticks(np.arange(len(first)), first, rotation=45, ha="right")
    ax.set_yticks(np.arange(len(second)), second)
    ax.figure.colorbar(image, ax=ax, label="added to the predictor")


def find(shapes: list[Shape], term: Any) -> Shape:
    """Return the shape of a term, by position or by name."""
    names = [shape.name for shape in shapes]
    if isinstance(term, str) and term in names:
        return shapes[names.index(term)]
    if isinstance(term, int | np.integer) and -len(shapes) <= term < len(shapes):
        return shapes[int(term)]
    raise InvalidInput(
        f"plot(term={term!r}) is not allowed: a position below {len(shapes)} or one of {names} is needed."
    )
