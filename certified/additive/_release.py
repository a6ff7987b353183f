"""An additive model as a plain scikit-learn pipeline: one-hot bins, products of them for pairs, a linear model."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import KBinsDiscretizer, OneHotEncoder, PolynomialFeatures

from certified._keeper.plain import named_like
from certified._steps.plain_reader import fitted_columns, made_up, numbers, text
from certified.additive._bins import Axis
from certified.additive._terms import Terms
from certified.typing import FloatArray, IntArray

__all__ = ["plain_features"]

_MISSING = float(np.finfo(np.float64).max)  # written for a missing number: above every cut


def plain_features(terms: Terms, scores: list[FloatArray]) -> tuple[Any, FloatArray, Any]:
    """Return a plain transformer to sparse indicators, the coefficients for it, and what to add to the intercept.

    A text that belongs in no bin has no indicator: its score is part of the intercept, and the others are beside it.

    Parameters
    ----------
    scores : list of arrays
        Of each term, one for every code, or as many as there are classes; so are the coefficients.
    """
    layout, missing = terms._learned, terms._schema.missing if terms._schema else np.nan
    fine = [_encoder(axis, missing) for axis in layout.axes]
    coarse = [_encoder(axis, missing) for axis in layout.coarse]
    parts, coefficients, start = [], [], 0.0
    for j, ((encoder, places), axis, score) in enumerate(zip(fine, layout.axes, scores, strict=False)):
        parts.append((f"term{j}", FrozenEstimator(encoder), [j]))
        nowhere = score[-1] if axis.categories is not None else 0.0
        coefficients.append(score[places] - nowhere)
        start = start + nowhere
    for (i, j), score in zip(layout.pairs.tolist(), scores[len(fine) :], strict=True):
        parts.append((f"pair{i}_{j}", _product(coarse[i][0], coarse[j][0], i, j), [i, j]))
        cells = score.reshape(layout.coarse[i].rows + 1, layout.coarse[j].rows + 1, *score.shape[1:])
        coefficients.append(_of_products(cells[np.ix_(coarse[i][1], coarse[j][1])]))
    out = fitted_columns(ColumnTransformer(parts, sparse_threshold=1.0), _row(terms))
    return named_like(out, terms), np.concatenate(coefficients), start


def _encoder(axis: Axis, missing: Any) -> tuple[Pipeline, IntArray]:
    """Return a fitted encoder of one column, and the bin of each of its columns."""
    if axis.cuts is not None:
        number = numbers()
        imputer = SimpleImputer(strategy="constant", fill_value=_MISSING).fit(np.zeros((1, 1)))
        bins = KBinsDiscretizer(encode="onehot", quantile_method="averaged_inverted_cdf", subsample=None)
        edges = np.concatenate([[-np.inf], axis.cuts, [_MISSING, np.inf]])
        bins.bin_edges_, bins.n_bins_ = np.array([None]), np.array([len(edges) - 1])
        bins.bin_edges_[0] = edges
        bins.n_features_in_ = 1
        bins._encoder = OneHotEncoder(categories=[np.arange(len(edges) - 1)]).fit(np.zeros((1, 1)))
        out = Pipeline([("number", number.fit(np.zeros((1, 1)))), ("missing", imputer), ("bins", bins)])
        return out, np.arange(axis.size + 1)
    kept = axis.categories.tolist()
    other = "x".join(["", *kept])  # stands for all others: no category has this name
    values = [*kept, *[other] * axis.pooled, *[missing] * axis.missing]
    often = [value for value in values if value is not other] * 2
    column = np.empty((len(often) + axis.pooled, 1), dtype=object)
    column[:, 0] = often + [other] * axis.pooled
    known = np.empty(len(values), dtype=object)
    known[:] = values
    rule = (
        {"min_frequency": 2, "handle_unknown": "infrequent_if_exist"} if axis.pooled else {"handle_unknown": "ignore"}
    )
    places = [*range(len(kept)), *[axis.size] * axis.missing, *[len(kept)] * axis.pooled]
    bins = OneHotEncoder(categories=[known], **rule).fit(column)
    return Pipeline([("text", text(missing).fit([["a"]])), ("bins", bins)]), np.array(places)


def _product(first: Any, second: Any, i: int, j: int) -> Pipeline:
    both = ColumnTransformer(
        [("first", FrozenEstimator(first), [0]), ("second", FrozenEstimator(second), [1])], sparse_threshold=1.0
    )
    return Pipeline([("bins", both), ("products", PolynomialFeatures(2, interaction_only=True, include_bias=False))])


def _of_products(cells: FloatArray) -> FloatArray:
    """Coefficients of the indicators of both features, of which none counts alone, and of all products of two."""
    n, m, *classes = cells.shape
    nothing = np.zeros(classes)
    products = [cells[a, b - n] if a < n <= b else nothing for a, b in combinations(range(n + m), 2)]
    return np.concatenate([np.zeros((n + m, *classes)), products])


def _row(terms: Terms) -> Any:
    """Return a row that is made up, of the form of the features."""
    cells = [0.0 if axis.cuts is not None else [*axis.categories.tolist(), "x"][0] for axis in terms._learned.axes]
    return made_up(cells, getattr(terms, "feature_names_in_", None))
