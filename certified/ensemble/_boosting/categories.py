"""Categories that a booster was trained on: read from its model, and the columns of frames as their codes.

XGBoost keeps the categories of the frame that it was trained on, and reads other frames by them. What is made from such
a booster reads frames in the same way, and releases a model that keeps the categories: those of the booster, whatever
the rows here have.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np

from certified._data.categorical import categorical_mask
from certified._data.frames import is_frame
from certified.errors import InvalidInput
from certified.typing import FloatArray

__all__ = ["codes_in_frame", "declared_types", "known_categories", "types_of"]


def known_categories(model: dict[str, Any]) -> list[list[Any] | None]:
    """Return the categories of each feature, None where it has none; an empty list of a model without any.

    Parameters
    ----------
    model : dict
        XGBoost's model as JSON gives it.

    Raises
    ------
    InvalidInput
        Categories have letters beyond ASCII.
    """
    held = model["learner"]["gradient_booster"].get("model", {}).get("cats", {})
    found = [_listed(part) for part in held.get("enc", [])]
    return found if any(part is not None for part in found) else []


def _listed(part: dict[str, Any]) -> list[Any] | None:
    values = part["values"]
    if not values:
        return None
    if "offsets" not in part:
        return list(values)
    text, ends = bytes(value % 256 for value in values), part["offsets"]
    if ends[-1] != len(text) or not text.isascii():
        raise InvalidInput(
            "The structure was trained on categories with letters beyond ASCII, which XGBoost cuts at wrong places "
            "where it reads them from pandas, so that a release would take one for another. Rename them "
            "(rename_categories), train again, and rename them in X, too. Nothing was changed."
        )
    return [text[a:b].decode() for a, b in pairwise(ends)]


def types_of(model: dict[str, Any]) -> list[str] | None:
    """Return "c" or "q" for each feature, None where no feature has categories."""
    kinds = model["learner"].get("feature_types") or []
    return ["c" if kind == "c" else "q" for kind in kinds] if "c" in kinds else None


def declared_types(given: Any, names: list[str], n_features: int, caller: str) -> list[str] | None:
    """Return "c" or "q" for each feature, as ``categorical_features`` says; None where no feature has categories."""
    if given is None:
        return None
    mask = categorical_mask(given, names, n_features, caller, "None")
    return ["c" if of_categories else "q" for of_categories in mask] if mask.any() else None


def codes_in_frame(X: Any, known: list[list[Any] | None], caller: str) -> Any:
    """Return a frame whose columns of categories hold the codes that the booster gave them, NaN where missing.

    Raises
    ------
    InvalidInput
        A column of categories is not of a categorical type, or has a category that the booster does not know.
    """
    if not is_frame(X):
        raise InvalidInput(
            f"{caller} got rows without a frame, and its structure was trained on columns of categories. A data frame "
            "with columns of a categorical type is needed, as XGBoost needs it. Nothing was changed."
        )
    frame = nw.from_native(X, eager_only=True)
    new = []
    for name, categories in zip(frame.columns, known, strict=False):
        if categories is not None:
            codes = _codes(frame[name], categories, caller)
            new.append(nw.new_series(name, codes, backend=nw.get_native_namespace(frame)))
    return nw.to_native(frame.with_columns(*new))


def _codes(column: Any, categories: list[Any], caller: str) -> FloatArray:
    if not isinstance(column.dtype, nw.Categorical | nw.Enum):
        raise InvalidInput(
            f"{caller} got the column {column.name!r} of type {column.dtype}, and its structure was trained on "
            "categories there. A categorical type is needed, as XGBoost needs it: astype('category') of pandas, "
            "cast(pl.Categorical) of polars. Nothing was changed."
        )
    places: dict[Any, float] = {category: float(k) for k, category in enumerate(categories)}
    values = column.to_list()
    known = [value is None or value != value or value in places for value in values]
    if not all(known):
        unknown = values[known.index(False)]
        raise InvalidInput(
            f"{caller} got the category {unknown!r} in the column {column.name!r}, which its structure was not trained "
            f"on: {categories[:5]}{' and others' if len(categories) > 5 else ''} are known. Make it missing, or train "
            "a booster that knows it. Nothing was changed."
        )
    return np.array([places.get(value, np.nan) for value in values], dtype=np.float64)
