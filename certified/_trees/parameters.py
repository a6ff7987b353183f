"""Parameters of scikit-learn's trees, and what they come to in units of the integers that trees are grown from."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from certified._trees.estimator import ForestEstimator
from certified._trees.forest import Growth
from certified._trees.shared_state import SharedState
from certified.errors import InvalidInput

__all__ = ["GrowthParameters"]

_DEEP = 2**31 - 1


class GrowthParameters(ForestEstimator):
    """Base class of trees that have scikit-learn's parameters."""

    criterion: str
    max_depth: Any
    min_samples_split: Any
    min_samples_leaf: Any
    min_impurity_decrease: Any
    min_weight_fraction_leaf: Any
    max_leaf_nodes: Any
    ccp_alpha: Any
    max_features: Any
    n_thresholds: Any
    _random = False  # one threshold of each feature, chosen by hash
    _criteria: tuple[str, ...]

    def _n_trees(self) -> int:
        return 1

    def _share(self, shared: SharedState) -> float:
        """Return the share of the trees that see a row."""
        return 1.0

    def _values(self) -> tuple[int, int]:
        """Return the number of classes (0 for regression) and of targets."""
        raise NotImplementedError

    def _growth(self, n_features: int, shared: SharedState) -> Growth:
        name = type(self).__name__
        if self.criterion not in self._criteria:
            raise InvalidInput(f"{name}(criterion={self.criterion!r}) is not allowed: one of {self._criteria}.")
        depth = _DEEP if self.max_depth is None else self._whole("max_depth", 1)
        classes, outputs = self._values()
        n_bins = self._whole("n_thresholds", 2)
        width = (classes or 1 + outputs) + 1
        if n_bins > 1024 or (n_bins + 1) * width > 60_000:
            raise InvalidInput(
                f"{name}(n_thresholds={n_bins}) is not allowed with {classes or outputs} "
                f"{'classes' if classes else 'targets'}: at most {min(1024, 60_000 // width - 1)}."
            )
        if self.criterion == "friedman_mse":
            warnings.warn(
                f"{name}(criterion='friedman_mse') chooses the splits that 'squared_error' chooses. Value "
                '"friedman_mse" for criterion is deprecated: use "squared_error".',
                FutureWarning,
                stacklevel=2,
            )
        min_samples_leaf, share = self._rows("min_samples_leaf", 1, shared.n_rows), self._share(shared)
        least = self._share_of_weight() * shared.mass * 2.0 ** (1 / 32) * share  # the mass is rounded: upwards here
        if not shared.weighted:
            min_samples_leaf = max(min_samples_leaf, math.ceil(least))
        leaves = 0 if self.max_leaf_nodes is None else self._whole("max_leaf_nodes", 2)
        return Growth(
            trees=self._n_trees(),
            criterion=self.criterion,
            classes=classes,
            outputs=outputs,
            weighted=shared.weighted,
            max_features=self._tries(n_features),
            n_bins=n_bins,
            depth=depth,
            min_samples_leaf=min_samples_leaf,
            min_samples_split=self._rows("min_samples_split", 2, shared.n_rows),
            random=self._random,
            share=share,
            key=self._key,
            threads=self._threads(),
            min_weight=math.ceil(least / np.ldexp(1.0, shared.exponent - shared.bits)) if shared.weighted else 0,
            max_leaves=leaves,
            alpha=self._alpha(shared),
        )

    def _number(self, name: str, most: float, allowed: str) -> float:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, float | int | np.number) or not 0.0 <= value <= most:
            raise InvalidInput(
                f"{type(self).__name__}({name}={value!r}) is not allowed: {allowed}. Nothing was changed."
            )
        return float(value)

    def _share_of_weight(self) -> float:
        return self._number("min_weight_fraction_leaf", 0.5, "a share of the weight, from 0.0 to 0.5")

    def _alpha(self, shared: SharedState) -> float:
        """Return ``ccp_alpha`` in units of the integers."""
        alpha = self._number("ccp_alpha", np.finfo(np.float64).max, "a finite number >= 0")
        return alpha / self._impurity_unit("ccp_alpha", shared) if alpha > 0.0 else 0.0

    def _impurity_unit(self, name: str, shared: SharedState) -> float:
        """Return the unit of what splits explain, over that of the weights."""
        if not self._values()[1]:
            return 1.0
        if len(shared.exponents) > 1:
            raise InvalidInput(
                f"{type(self).__name__}({name}={getattr(self, name)!r}) is not allowed with {len(shared.exponents)} "
                "targets, which have different units. Fit a model for each target."
            )
        unit = float(self._units(shared)[0])
        return unit * math.log(2.0) if self.criterion == "poisson" else unit**2

    def _whole(self, name: str, least: int) -> int:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InvalidInput(
                f"{type(self).__name__}({name}={value!r}) is not allowed: a whole number >= {least}. Nothing was "
                "changed."
            )
        return int(value)

    def _rows(self, name: str, min_samples_leaf: int, n_rows: float) -> int:
        """Return a number of rows that is given as such, or as a share of all rows."""
        value = getattr(self, name)
        if not isinstance(value, float | np.floating):
            return self._whole(name, min_samples_leaf)
        if not 0.0 < value < 1.0 and not (value == 1.0 and min_samples_leaf == 2):
            raise InvalidInput(
                f"{type(self).__name__}({name}={value!r}) is not allowed: a whole number >= {min_samples_leaf}, or "
                "a share of the rows between 0.0 and 1.0. Nothing was changed."
            )
        return max(min_samples_leaf, math.ceil(value * n_rows))

    def _takes_shares(self) -> bool:
        return any(isinstance(value, float | np.floating) for value in (self.min_samples_leaf, self.min_samples_split))

    def _tries(self, n_features: int) -> int:
        """Return how many features a node looks at."""
        given = self.max_features
        if given is None:
            return n_features
        if given in ("sqrt", "log2"):
            return max(1, int(np.sqrt(n_features) if given == "sqrt" else np.log2(n_features)))
        if isinstance(given, int | np.integer) and not isinstance(given, bool) and given >= 1:
            return min(int(given), n_features)
        if isinstance(given, float) and 0.0 < given <= 1.0:
            return max(1, int(given * n_features))
        raise InvalidInput(
            f"{type(self).__name__}(max_features={given!r}) is not allowed: 'sqrt', 'log2', None, a whole number >= 1 "
            "or a share of the features in (0, 1]."
        )

    def _weighs(self) -> bool:
        decrease = self._number("min_impurity_decrease", np.finfo(np.float64).max, "a finite number >= 0")
        return decrease > 0.0 or self._share_of_weight() > 0.0

    def _floor(self, shared: SharedState) -> float:
        if self.min_impurity_decrease == 0.0:
            return 0.0
        unit = np.ldexp(1.0, shared.exponent - shared.bits) if shared.weighted else 1.0
        unit *= self._impurity_unit("min_impurity_decrease", shared)
        return float(self.min_impurity_decrease) * shared.mass * self._share(shared) / float(unit)
