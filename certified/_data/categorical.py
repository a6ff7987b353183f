"""Which features are categories, as ``categorical_features`` of every family names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from certified.errors import InvalidInput
from certified.typing import BoolArray

__all__ = ["categorical_mask"]


def categorical_mask(given: Any, names: Sequence[str], n_features: int, caller: str, allowed: str) -> BoolArray:
    """Return which features are categories.

    Parameters
    ----------
    given : mask, positions or names
        As scikit-learn's ``categorical_features``.
    names : sequence of str
        Names of the features, empty where they have none.
    n_features : int
    caller : str
        Name of the class, for the message.
    allowed : str
        Further values that the caller takes, for the message.

    Raises
    ------
    InvalidInput
        It does not fit the features.
    """
    mask: BoolArray = np.zeros(n_features, dtype=bool)
    wanted = np.asarray(given)
    if wanted.dtype == bool and wanted.shape == (n_features,):
        mask[:] = wanted
    elif wanted.ndim == 1 and wanted.dtype.kind in "iu" and np.all((wanted >= 0) & (wanted < n_features)):
        mask[wanted] = True
    elif wanted.ndim == 1 and all(str(name) in names for name in wanted.tolist()):
        mask[[names.index(str(name)) for name in wanted.tolist()]] = True
    else:
        raise InvalidInput(
            f"{caller}(categorical_features={given!r}) does not fit X with {n_features} features"
            f"{f' named {list(names)}' if names else ''}. {allowed}, a mask, positions or names are allowed. Nothing "
            "was changed."
        )
    return mask
