"""How a release reads a table: a plain transformer that writes whatever is missing in one way.

A frame writes a missing text as None, NaN or pandas' NA, a missing number as NaN or NA, a missing boolean as any of
them. scikit-learn's encoders and imputers take these for different values, so that a release would see unknown
categories where the keeper sees missing ones. The reader stands in front of them where the keeper has seen something
missing. It is made of functions of numpy, scikit-learn and the standard library: a release loads without this package.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import import_module
from operator import methodcaller
from typing import Any

import numpy as np
import polars as pl
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_array

from certified._keeper.plain import named_like

__all__ = ["fitted_columns", "made_up", "numbers", "read_plainly", "reader", "text", "unfrozen"]

_KEEP: dict[str, Any] = {"ensure_all_finite": False, "ensure_min_samples": 0}


def numbers() -> FunctionTransformer:
    """Return what reads columns of numbers or booleans as float64, NaN for what is missing."""
    return _function(check_array, dtype="float64", **_KEEP)


def text(missing: Any = np.nan) -> Pipeline:
    """Return what reads columns of text as objects; it writes what is missing as None or NaN, and refuses numbers.

    All cells are written as JSON at once and read back. There None is null, NaN is a constant, and what JSON does not
    know (NA, NaT) is looked up in an empty dictionary: each is read back as None.
    """
    nothing = {}.get  # type: ignore[var-annotated]
    refuse = ["text"].index  # ValueError for a number
    read = {"parse_constant": nothing, "parse_int": refuse, "parse_float": refuse}
    steps: list[tuple[str, Any]] = [
        ("objects", _function(check_array, dtype="object", **_KEEP)),
        ("list", _function(methodcaller("tolist"))),
        ("write", _function(json.JSONEncoder(default=nothing).encode)),
        ("read", _function(json.loads, **read)),
        ("array", _function(np.array, dtype="object")),
    ]
    if missing is not None:
        mark = SimpleImputer(missing_values=None, strategy="constant", fill_value=np.nan, keep_empty_features=True)
        steps.append(("missing", _function(mark.fit_transform)))  # it learns nothing, and would leave out names
    return Pipeline(steps)


def reader(is_text: Sequence[bool], names: Any, missing: Any = np.nan) -> ColumnTransformer:
    """Return a fitted transformer that reads a table of these columns and keeps their order.

    Parameters
    ----------
    is_text : sequence of bool
        Of each column.
    names : array of str or None
        Of the columns, where the keeper was fitted with names; they are found by these.
    missing : None or NaN
        How missing text is written; a missing number is NaN.
    """
    starts = [j for j, kind in enumerate(is_text) if j == 0 or kind != is_text[j - 1]]
    runs = [list(range(start, stop)) for start, stop in zip(starts, [*starts[1:], len(is_text)], strict=True)]
    parts: list[tuple[str, Any, Any]] = []
    for run in runs:
        step: Any = text(missing) if is_text[run[0]] else numbers()
        parts.append((f"columns {run[0]} to {run[-1]}", step, run))
    columns = ColumnTransformer(parts, sparse_threshold=0.0, verbose_feature_names_out=False)
    return columns.fit(made_up(["a" if kind else 0.0 for kind in is_text], names))


def read_plainly(plain: Any, keeper: Any, values: Sequence[Any]) -> Any:
    """Return a plain encoder as it takes what its keeper takes: behind a reader, if something was missing.

    Parameters
    ----------
    plain : estimator
        Fitted; its categories write a missing text as the schema of the keeper does.
    keeper : estimator
    values : sequence of arrays
        Categories of each feature, in the form used inside.
    """
    if not any(v is None or v != v for some in values for v in some.tolist()):
        return named_like(plain, keeper)  # whatever is missing is unknown, however it is written
    plain.__dict__.pop("feature_names_in_", None)
    names = getattr(keeper, "feature_names_in_", None)
    missing = keeper._schema.missing if keeper._schema else np.nan
    is_text = [some.dtype == object for some in values]
    steps: list[tuple[str, Any]] = [("read", reader(is_text, names, missing))]
    if not any(is_text) and any(shown.dtype == object for shown in keeper.categories_):
        steps.append(("objects", _function(np.asarray, dtype="object")))  # booleans beside a missing value
    return Pipeline([*steps, ("encode", plain)])


def made_up(cells: Sequence[Any], names: Any, n_rows: int = 1) -> Any:
    """Return equal rows of these cells: a frame where there are names, else an array."""
    if names is not None:
        return pl.DataFrame({str(name): [cell] * n_rows for name, cell in zip(names, cells, strict=True)}, strict=False)
    kind = object if any(isinstance(cell, str) or cell is None for cell in cells) else np.float64
    return np.array([list(cells)] * n_rows, dtype=kind)


def fitted_columns(columns: ColumnTransformer, row: Any) -> ColumnTransformer:
    """Fit a plain ColumnTransformer, whose transformers are fitted and frozen, on a row; return it with them as such.

    A frozen transformer is not fitted again; one that stays frozen could not be exported, to ONNX for example. One of
    others that takes frames of pandas alone gets such a row.
    """
    try:
        columns.fit(row)
    except Exception:
        if not isinstance(row, pl.DataFrame):
            raise
        try:
            pandas = import_module("pandas")
        except ImportError:
            pandas = None
        if pandas is None:
            raise
        columns.fit(pandas.DataFrame(row.to_dict(as_series=False)))
    columns.transformers = [(name, unfrozen(step), chosen) for name, step, chosen in columns.transformers]
    columns.transformers_ = [(name, unfrozen(step), chosen) for name, step, chosen in columns.transformers_]
    columns.remainder = unfrozen(columns.remainder)
    return columns


def unfrozen(step: Any) -> Any:
    """Return the estimator in a FrozenEstimator, anything else as it is."""
    return getattr(step, "estimator", step) if type(step).__name__ == "FrozenEstimator" else step


def _function(function: Any, **known: Any) -> FunctionTransformer:
    return FunctionTransformer(function, kw_args=known or None, feature_names_out="one-to-one")
