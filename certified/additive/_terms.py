"""The terms of an additive model: a step that turns rows into coordinates of functions of one or two features.

Everything that it learns is a function of a hash sample and of counts of categories. The rows of the sample are put
into an order of their own before anything is summed, so that the sums do not depend on the order of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_feature_names_in

from certified._data.frames import columns_of, eager
from certified._data.hashing import bottom_k
from certified._data.reproducible import same
from certified._data.table import Table
from certified._data.targets import target_column
from certified._steps.estimators import MixedTransformer
from certified.additive._bins import Axis, Tally, axis_of, tally, untallied
from certified.additive._family import FAMILIES, Family, scaled
from certified.additive._pairs import alone, chosen
from certified.additive._smooth import level, main_table, pair_table
from certified.errors import InvalidInput, NotDeletable
from certified.typing import FloatArray, IntArray

__all__ = ["Layout", "Tables", "Terms"]


_WHOLE = {"max_bins": 2, "max_interaction_bins": 2, "max_categories": 2, "min_frequency": 1, "sample_size": 1}


class Layout(NamedTuple):
    """Bins, smoothness and pairs: what a model of terms has learned before any coefficient.

    Attributes
    ----------
    axes, coarse : tuple of Axis
        Bins of each feature, on its own and in pairs.
    levels : float array of shape (n_features,)
        Smoothness of each feature.
    pairs : int array of shape (n_pairs, 2)
        Features of each pair.
    """

    axes: tuple[Axis, ...]
    coarse: tuple[Axis, ...]
    levels: FloatArray
    pairs: IntArray


class _Statistic(NamedTuple):
    """Largest hash of the sample, counts of categories and missing values over all rows, and the layout."""

    cut: NDArray[np.uint64]
    tallies: tuple[Tally, ...]
    layout: Layout


class Tables:
    """Features of each bin and cell of a layout, computed once."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def terms(self) -> list[tuple[tuple[int, ...], tuple[Any, ...]]]:
        """Features of each term, those alone first, and what makes its table: bins and smoothness, or bins twice."""
        axes, coarse, levels, pairs = self.layout
        alone = [((j,), pair) for j, pair in enumerate(zip(axes, levels.tolist(), strict=True))]
        return [*alone, *(((i, j), (coarse[i], coarse[j])) for i, j in pairs.tolist())]

    @cached_property
    def parts(self) -> list[FloatArray]:
        """One table for each term, shape (codes, n_columns)."""
        return [(main_table if len(features) == 1 else pair_table)(*made) for features, made in self.terms]

    def scored(self, tallies: tuple[Tally, ...]) -> list[FloatArray]:
        """Return the tables as rows to be scored need them, given the tallies of the rows retained.

        A text that belongs in no bin, which no row of the fit has, gets the mean features of the rows retained. A
        number, or a cell of a pair, gets zeros.
        """
        out = list(self.parts)
        for j, (axis, found) in enumerate(zip(self.layout.axes, tallies, strict=True)):
            if axis.categories is not None:
                counts = axis.counts(found)[:, None]
                out[j] = np.vstack([out[j][:-1], (counts * out[j][:-1]).sum(axis=0) / counts.sum()])
        return out

    @cached_property
    def spots(self) -> list[slice]:
        """Where the coordinates of each term stand among all."""
        stops = np.cumsum([part.shape[1] for part in self.parts]).tolist()
        return [slice(stop - part.shape[1], stop) for part, stop in zip(self.parts, stops, strict=True)]

    def codes(self, x: Any, only: Any = slice(None)) -> list[IntArray]:
        """Return the code of every row of a table for each term, or for some of them."""
        columns, coarse = columns_of(x), self.layout.coarse
        rough = cache(lambda j: coarse[j].codes(columns[j]))
        out = []
        for features, (axis, second) in self.terms[only]:
            if len(features) == 1:
                out.append(axis.codes(columns[features[0]]))
            else:
                out.append(rough(features[0]) * (second.rows + 1) + rough(features[1]))
        return out

    def features(self, x: Any, tallies: tuple[Tally, ...] | None = None) -> FloatArray:
        """Return the coordinates of every row; tallies are needed for rows that may not be those of the fit."""
        parts = self.parts if tallies is None else self.scored(tallies)
        out = np.empty((len(x), self.spots[-1].stop))
        for spot, part, code in zip(self.spots, parts, self.codes(x), strict=True):
            out[:, spot] = part[code]
        return out


class Terms(MixedTransformer):
    """Coordinates of smooth functions of the bins of each feature, and of chosen pairs; exactly deletable.

    Parameters
    ----------
    loss : str
        "logistic", "squared_error", "poisson" or "gamma": of the model that follows.
    max_bins, max_interaction_bins, max_categories, min_frequency, smoothness, interactions, sample_size
        As in :class:`certified.additive.AdditiveClassifier`.
    """

    _supervised = True
    _served: Tables
    _n_classes = 0  # of a classifier

    def __init__(
        self,
        loss: str = "logistic",
        *,
        max_bins: int = 128,
        max_interaction_bins: int = 8,
        max_categories: int = 32,
        min_frequency: int = 10,
        smoothness: Any = "auto",
        interactions: Any = 20,
        sample_size: int = 10_000,
    ) -> None:
        self.loss = loss
        self.max_bins = max_bins
        self.max_interaction_bins = max_interaction_bins
        self.max_categories = max_categories
        self.min_frequency = min_frequency
        self.smoothness = smoothness
        self.interactions = interactions
        self.sample_size = sample_size

    # ------------------------------------------------------------ what is learned

    def _ready(self) -> None:
        if self.loss not in FAMILIES:
            raise InvalidInput(f"Terms(loss={self.loss!r}) is not allowed: one of {FAMILIES} is needed.")
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InvalidInput(f"{name}={value!r} is not allowed: a whole number >= {least} is needed.")
        auto = isinstance(self.smoothness, str) and self.smoothness == "auto"
        number = isinstance(self.smoothness, int | float | np.number) and np.isfinite(self.smoothness)
        if not (auto or (number and self.smoothness > 0)):
            raise InvalidInput(f"smoothness={self.smoothness!r} is not allowed: 'auto' or a number > 0 is needed.")

    def _see(self, X: Any, names: Any, schema: Any) -> None:
        super()._see(X, names, schema)
        frame = eager(X, "An additive model")
        if frame is None:
            return
        for (label, dtype), kind in zip(frame.schema.items(), schema.kinds, strict=True):
            if dtype in (nw.Categorical, nw.Enum) and kind != "text":
                raise InvalidInput(
                    f"An additive model got column {label!r}, a categorical whose categories are numbers. Categories "
                    "are told apart by text here, and numbers lie on a line: cast the column, by `.astype(str)` for "
                    "categories or to numbers. Nothing was changed."
                )

    def _target(self, y: Any, n_rows: int) -> Any:
        y = target_column(y, n_rows, "An additive model")
        if self.loss != "logistic":
            return np.array(y, dtype=np.float64)
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        self._n_classes = len(classes)
        return codes.astype(np.int64)

    def _count(self, table: Table) -> _Statistic:
        table = table.some("An additive model")
        if len(table.weight) < 2:
            raise InvalidInput("An additive model got 1 sample (of positive weight). At least 2 are needed.")
        if self.loss == "logistic" and table.y.min() == table.y.max():
            raise InvalidInput("Only one class would be present; a classifier needs rows of two. Nothing was changed.")
        cut = bottom_k(table.hashes, self.sample_size)
        tallies = tuple(tally(column) for column in columns_of(table.x))
        sample = table.take(table.hashes <= cut)
        return _Statistic(cut, tallies, self._layout(tallies, sample))

    def _subtract(self, statistic: _Statistic, removed: Table) -> _Statistic | None:
        """Count the rows out; None where the sample or the bins change."""
        if np.any(removed.hashes <= statistic.cut):
            return None
        columns = columns_of(removed.x)
        tallies = tuple(untallied(before, column) for before, column in zip(statistic.tallies, columns, strict=True))
        for found, axis, coarse in zip(tallies, statistic.layout.axes, statistic.layout.coarse, strict=True):
            fine, rough = self._axes(found, np.zeros(0))
            if fine.missing != axis.missing or not _alike(fine, axis) or not _alike(rough, coarse):
                return None
        return statistic._replace(tallies=tallies)

    def _axes(self, found: Tally, sample: Any) -> tuple[Axis, Axis]:
        most = self.max_bins if found.values is None else self.max_categories
        fine, coarse = (axis_of(found, sample, k, self.min_frequency) for k in (most, self.max_interaction_bins))
        return fine, coarse

    def _layout(self, tallies: tuple[Tally, ...], sample: Table) -> Layout:
        columns = columns_of(sample.x)
        both = [self._axes(found, column) for found, column in zip(tallies, columns, strict=True)]
        axes, coarse = zip(*both, strict=True)
        codes = [axis.codes(column) for axis, column in zip(axes, columns, strict=True)]
        rough = [axis.codes(column) for axis, column in zip(coarse, columns, strict=True)]
        # Rows that agree in all of these are the same to what follows, so this order is one of the set of rows.
        order = np.lexsort((sample.weight, sample.y, *codes, *rough))
        weight, family = sample.weight[order], Family(self.loss)
        y = scaled(family, sample.y[order].astype(np.float64), weight)
        # More than two classes are seen as each against the others; two as the second against the first.
        ys = [(y == k).astype(np.float64) for k in range(self._n_classes)] if self._n_classes > 2 else [y]
        levels = self._levels(family, axes, [code[order] for code in codes], ys, weight)
        pairs = self._pairs(family, coarse, [code[order] for code in rough], ys, weight)
        return Layout(axes, coarse, levels, pairs)

    def _levels(
        self, family: Family, axes: tuple[Axis, ...], codes: list[IntArray], ys: list[FloatArray], weight: FloatArray
    ) -> FloatArray:
        """Smoothness of each feature, by the evidence of the sample for the feature alone."""
        if not isinstance(self.smoothness, str):
            return np.full(len(axes), float(self.smoothness))
        seen = [family.slopes(y, np.full(len(y), family.start(y, weight))) for y in ys]

        def sums(axis: Axis, code: IntArray) -> list[tuple[Any, Any]]:
            return [tuple(np.bincount(code, v * weight, axis.rows + 1) for v in pair) for pair in seen]  # type: ignore

        return np.array([level(axis, sums(axis, code)) for axis, code in zip(axes, codes, strict=True)])

    def _pairs(
        self, family: Family, axes: tuple[Axis, ...], codes: list[IntArray], ys: list[FloatArray], weight: FloatArray
    ) -> IntArray:
        """Pairs of features, given or chosen."""
        pairs, most = self._given(len(axes))
        if pairs is None:
            pairs = []
            if most and len(axes) > 1:
                found = [family.slopes(y, alone(family, list(axes), codes, y, weight)) for y in ys]
                sums = [(slopes * weight, bends * weight) for slopes, bends in found]
                pairs = chosen(list(axes), codes, sums, most)
        return np.array(pairs, dtype=np.int64).reshape(-1, 2)

    def _given(self, n_features: int) -> tuple[list[tuple[int, int]] | None, int]:
        """Return the pairs that were given, or None and how many to choose."""
        wanted = self.interactions
        if isinstance(wanted, int | np.integer) and not isinstance(wanted, bool) and wanted >= 0:
            return None, int(wanted)
        names = [str(name) for name in getattr(self, "feature_names_in_", [])]
        try:
            pairs = [
                tuple(sorted(names.index(f) if isinstance(f, str) else int(f) for f in pair)) for pair in list(wanted)
            ]
            if any(len(pair) != 2 or not 0 <= pair[0] < pair[1] < n_features for pair in pairs):
                raise ValueError
        except (TypeError, ValueError):
            raise InvalidInput(
                f"interactions={wanted!r} is not allowed: a whole number >= 0, or a list of pairs of different "
                "features, by position or by name, is needed."
            ) from None
        return sorted(set(pairs)), len(pairs)  # type: ignore[arg-type]

    # --------------------------------------------------------------- what is served

    def _learned_from(self, statistic: _Statistic) -> Layout:
        layout = statistic.layout
        if all(axis.rows < 2 for axis in layout.axes):
            raise InvalidInput("An additive model got features that are all constant. One that varies is needed.")
        return layout

    def _tables(self, layout: Layout) -> Tables:
        mine = self.__dict__.get("_served")
        return mine if mine is not None and mine.layout is layout else Tables(layout)

    def _apply(self, learned: Layout, X: Any) -> FloatArray:
        mine = self.__dict__.get("_statistic")
        return self._tables(learned).features(X, mine.tallies if mine is not None and mine.layout is learned else None)

    def _changed_features(self, learned: Layout, left: Callable[[], Table]) -> list[Any]:
        before, after = self._served, self._tables(learned)
        held = {features: (made, spot) for (features, made), spot in zip(before.terms, before.spots, strict=True)}
        out: list[Any] = []
        for k, (features, made) in enumerate(after.terms):
            if features in held and same(held[features][0], made):
                out.append(held[features][1])
            else:
                (code,) = after.codes(left().x, slice(k, k + 1))
                out.append(after.parts[k][code])
        return out

    def _width(self, learned: Layout, n_features: int) -> int:
        return int(self._tables(learned).spots[-1].stop)

    def _store(self, statistic: _Statistic, learned: Layout) -> None:
        if "_served" not in self.__dict__ or self._served.layout is not learned:
            self._served = Tables(learned)
        super()._store(statistic, learned)

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the names of the coordinates, "age_0", "age_1" ... and "age & hours_0" ... for pairs."""
        self._check_fitted()
        names = _check_feature_names_in(self, input_features)
        terms = [*names, *(f"{names[i]} & {names[j]}" for i, j in self._learned.pairs.tolist())]
        sizes = [part.shape[1] for part in self._served.parts]
        return np.array(
            [f"{term}_{k}" for term, size in zip(terms, sizes, strict=True) for k in range(size)], dtype=object
        )

    def _release(self) -> Any:
        """Refuse: the coordinates are of no use without the coefficients; see ``release`` of the model."""
        raise NotDeletable("The terms of an additive model are released with its coefficients, not alone.")


def _alike(a: Axis, b: Axis) -> bool:
    """Whether two axes of one feature have the same bins of text; cuts depend on the sample alone."""
    if a.categories is None:
        return True
    return a.pooled == b.pooled and bool(np.array_equal(a.categories, b.categories))
