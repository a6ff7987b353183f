"""Every public estimator of the package, by name."""

from __future__ import annotations

import importlib
import pkgutil
from inspect import isabstract

import certified
from certified.base import Deletable

__all__ = ["all_estimators"]

# These hold no estimators: what they export to derive from stays abstract to a user.
_OTHERS = frozenset({"audit", "base", "cli", "extend", "ledger", "parts", "report", "service", "testing", "vault"})


def all_estimators() -> list[tuple[str, type]]:
    """Return every public estimator of the package, as scikit-learn's ``all_estimators`` does.

    Returns
    -------
    list of (name, class)
        Sorted by name. Pipelines, searches and shards are among them, which need parameters.

    Examples
    --------
    >>> dict(all_estimators())["Ridge"]
    <class 'certified.linear_model._ridge.Ridge'>
    """
    found: dict[str, type] = {}
    for info in pkgutil.iter_modules(certified.__path__, "certified."):
        name = info.name.partition(".")[2]
        if name in _OTHERS or name.startswith("_"):
            continue
        module = importlib.import_module(info.name)
        for public in getattr(module, "__all__", ()):
            kind = getattr(module, public)
            if isinstance(kind, type) and issubclass(kind, Deletable) and not isabstract(kind):
                found.setdefault(public, kind)
    return sorted(found.items())
