"""What every fitted model is, whatever it has learned: it takes turns, is copied, saved and shown with care."""

from __future__ import annotations

import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, cast

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from certified import __version__
from certified._data.saving import saving, to_be_saved
from certified._keeper.acts import mapped, stand_by, take_turns
from certified._keeper.record import FrozenMap
from certified._keeper.turns import turn_of
from certified.errors import InvalidRequest, NotDeletable, OtherVersions

__all__ = ["Keeper", "all_or_nothing"]

_SHOWN = ("classes_", "feature_names_in_", "n_features_in_")
_PRIVATE = frozenset({"dual_gap_", "ids_", "in_structure_", "key_", "noise_metric_", "state_digest_"})  # never listed


class Keeper(BaseEstimator):
    """Base class of :class:`certified.base.Deletable`."""

    _owned = False  # a part of a fitted pipeline or search deletes through the whole only
    _reentrant = True  # whether several may work in threads at a time
    _fit_seconds: float
    _computed_by: tuple[str, ...] = ()  # modules, beside those that always compute
    _adjustable: frozenset[str] = frozenset({"n_jobs", "verbose", "pre_dispatch", "lazy", "memory", "copy"})
    """Parameters that concern work alone, and may be changed after fit."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        take_turns(cls)

    # --------------------------------------------------------------- checks

    def _check_fitted(self) -> None:
        """Raise NotFittedError before fit; scikit-learn's own check, without its cost after fit."""
        if "_subjects" not in self.__dict__:
            check_is_fitted(self)

    def _check_whole(self, call: str) -> None:
        """Raise before fit, and for a part of something larger."""
        self._check_fitted()
        if self._owned:
            raise NotDeletable(
                f"{call} was called on {type(self).__name__}, which is part of a fitted pipeline or search. Call "
                f"{call} on the pipeline or the search, so that every part follows. Nothing was changed."
            )

    def _check_writable(self, call: str) -> None:
        """Raise if rows could not be overwritten, because the model was loaded from a file that stays mapped."""
        if self.__dict__.pop("_loaded", False) and (held := mapped(self.__dict__)):
            self._loaded = True
            raise InvalidRequest(
                f"{call} was called on {type(self).__name__}, which was loaded with mmap_mode='r': its {held} cannot "
                "be overwritten. Load it without mmap_mode. Nothing was changed."
            )

    def _members(self) -> tuple[Any, ...]:
        """Fitted models that this one is made of: they share its turn, and stand by their parameters of the fit."""
        return ()

    def _versions(self) -> FrozenMap:
        """Versions of all that has computed the state."""
        return versions(*sorted(set(self._modules())))

    def _modules(self) -> Iterator[str]:
        yield from self._computed_by
        for part in self._members():
            yield from part._modules()

    def _draft(self) -> Any:
        """Return a shallow copy on which a plan may work; :meth:`_become` takes it over."""
        out = object.__new__(type(self))
        out.__dict__.update(self.__dict__)
        return out

    def _become(self, draft: Any) -> None:
        """Take over the state of a draft, in one step."""
        self.__dict__.update({name: value for name, value in draft.__dict__.items() if name != "_turn"})

    # ----------------------------------------------------------------- show

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not (name.startswith("private_") or name in _PRIVATE)]

    def _get_fitted_attr_html(self, doc_link: str = "") -> Any:
        """Return what a notebook shows of a fitted model: what every release tells. Nothing is drawn."""
        shown = {name: self.__dict__[name] for name in _SHOWN if name in self.__dict__}
        found = {
            name: {"type_name": type(value).__name__, "value": value}
            | ({"shape": value.shape, "dtype": value.dtype} if isinstance(value, np.ndarray) else {})
            for name, value in shown.items()
        }
        from sklearn.utils._repr_html.fitted_attributes import AttrsDict  # as of scikit-learn 1.9, which alone asks

        return AttrsDict(fitted_attrs=found, estimator_class=type(self), doc_link=doc_link)

    # --------------------------------------------------------------- copies

    def __getstate__(self) -> Any:
        state = super().__getstate__()
        return {name: value for name, value in state.items() if name not in ("_turn", "_loaded")}

    def _before_pickling(self) -> None:
        """Decide what the copy is to share with this model."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._before_pickling()
        make, arguments, state, *rest = super().__reduce_ex__(protocol)
        if threading.active_count() > 1 and "_fitted_with" in self.__dict__:
            with to_be_saved():  # pickle reads it piece by piece, after this; another thread could delete meanwhile
                state = deepcopy(state)
        return make, arguments, state, *rest

    def __copy__(self) -> Any:
        return self._draft()

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._loaded = True
        then, now = self.__dict__.get("_fitted_by"), dict(self._versions())
        if then is not None and then != now:
            other = [
                f"{name} {then.get(name)} (now {now.get(name)})" for name in then if then.get(name) != now.get(name)
            ]
            warnings.warn(
                f"{type(self).__name__} was fitted by {', '.join(other)}. What it certifies is the "
                "difference from a refit by the same versions, as digits may differ from one to another. Fit again, or "
                "load it where the same versions are installed.",
                OtherVersions,
                stacklevel=2,
            )

    def __deepcopy__(self, memo: Any) -> Any:
        out = object.__new__(type(self))
        memo[id(self)] = out
        with turn_of(self).lock:
            turn_of(self).finish()
            if saving():
                self._before_pickling()  # what the copy serves is drawn here, and counted here too
            out.__dict__.update(deepcopy(self.__dict__, memo))
        return out


take_turns(Keeper)


_Fit = TypeVar("_Fit", bound=Callable[..., Any])


def all_or_nothing(fit: _Fit) -> _Fit:
    """Give a ``fit`` that raises back the state from before the call; what was fitted stands by its parameters."""

    @wraps(fit)
    def fit_or_restore(self: Any, *args: Any, **kwargs: Any) -> Any:
        before, started = dict(self.__dict__), time.perf_counter()
        try:
            self.__dict__.pop("_withheld", None)
            found = fit(self, *args, **kwargs)
            self._fit_seconds = time.perf_counter() - started
            stand_by(self)
            self._fitted_by = dict(self._versions())
        except BaseException:
            for name in self.__dict__.keys() - before.keys() - {"_turn"}:
                del self.__dict__[name]
            self.__dict__.update(before)
            raise
        return found

    return cast("_Fit", fit_or_restore)


@cache
def versions(*modules: str) -> FrozenMap:
    """Versions of this package, of those that always compute or draw, and of these modules, for certificates."""
    found = {"certified": __version__}
    for name in ("jax", "numpy", "opendp", "scikit-learn", "scipy", *modules):
        found[name] = str(getattr(sys.modules.get(name), "__version__", "")) or _version(name)
    return FrozenMap(found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
