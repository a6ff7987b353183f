"""Which classes a stored state may name."""

from __future__ import annotations

import importlib
import types
from typing import Any

from certified.errors import NotDeletable

__all__ = ["find_class", "name_of"]

_OWN = "certified."
_SCORES = "sklearn.metrics._"  # functions that a scorer refers to
# Of others: plain objects without code of their own in their state. A user may trust more.
_OTHERS = (
    "sklearn.metrics._scorer:_PassthroughScorer",
    "sklearn.metrics._scorer:_Scorer",
    "sklearn.naive_bayes:BernoulliNB",
    "sklearn.naive_bayes:CategoricalNB",
    "sklearn.naive_bayes:GaussianNB",
    "sklearn.naive_bayes:MultinomialNB",
    "sklearn.preprocessing._function_transformer:FunctionTransformer",
    "sklearn.preprocessing._polynomial:SplineTransformer",
    "sklearn.model_selection._split:KFold",
    "sklearn.model_selection._split:StratifiedKFold",
    "sklearn.model_selection._split:GroupKFold",
    "sklearn.model_selection._split:PredefinedSplit",
)


def name_of(thing: Any) -> str:
    """Return "module:name" of a class or a function."""
    return f"{thing.__module__}:{thing.__qualname__}"


def find_class(name: str, trusted: tuple[str, ...] = ()) -> Any:
    """Return a class or a function by its name.

    Raises
    ------
    NotDeletable
        It is not of this package, and not among those that are trusted.
    """
    module, _, path = name.partition(":")
    allowed = module.startswith((_OWN, _SCORES)) or name in _OTHERS or name in trusted
    if not allowed or "<" in path:
        raise NotDeletable(
            f"A stored state names {name!r}. Allowed are classes of certified, and of others those that are named in "
            'trusted=(...), as "module:name". Leave the step out, write it as an estimator of certified, or trust its '
            "class. "
            "Nothing was changed."
        )
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = vars(found).get(part)
    score = module.startswith(_SCORES) and name not in (*_OTHERS, *trusted)
    kind = types.FunctionType if score else type | types.FunctionType
    if not isinstance(found, kind) or found.__module__ != module:
        raise NotDeletable(f"A stored state names {name!r}, which is no class. Nothing was changed.")
    return found
