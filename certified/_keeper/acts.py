"""The public acts of a fitted model: each waits for its turn, and stands by the parameters of the fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils.metaestimators import available_if

from certified._keeper.turns import share, turn_of
from certified.errors import InvalidRequest

__all__ = ["mapped", "parameters_of", "stand_by", "take_turns"]

_FREE = frozenset({"get_params", "set_params", "set_output", "get_metadata_routing"})  # they touch no state
_SAVED = ("__getstate__", "__reduce_ex__")
_ABSENT = object()


def take_turns(kind: Any) -> Any:
    """Let every public method and property that a class defines wait for its turn, and pickling too."""
    for name, value in list(vars(kind).items()):
        if (name.startswith("_") and name not in _SAVED) or name in _FREE:
            continue
        anew = name.startswith("fit") or name == "approve"  # these do not ask for the parameters of the last fit
        if isinstance(value, property) and value.fget is not None:
            setattr(kind, name, property(_in_turn(value.fget, name, anew), value.fset, value.fdel, value.__doc__))
        elif isinstance(value, _CONDITIONAL):
            value.fn = _in_turn(value.fn, name, anew)
        elif callable(value) and hasattr(value, "__code__"):
            setattr(kind, name, _in_turn(value, name, anew))
    return kind


_CONDITIONAL: Any = type(vars(type("_", (), {"f": available_if(bool)(lambda self: None)}))["f"])


def _in_turn(act: Callable[..., Any], name: str, anew: bool) -> Callable[..., Any]:
    free = anew or name in _SAVED

    @wraps(act)
    def in_turn(self: Any, *args: Any, **kwargs: Any) -> Any:
        turn = turn_of(self)
        if turn.lock._is_owned():  # within an act
            return act(self, *args, **kwargs)
        with turn.lock:
            if turn.unfinished is not None:
                turn.finish()
            if not free:
                check_parameters(self, name)
            return act(self, *args, **kwargs)

    return in_turn


# ------------------------------------------------------------------------------------------------------- parameters


def parameters_of(model: Any) -> tuple[tuple[str, Any], ...]:
    """Return the parameters as they are now, so that they can be compared later."""
    return tuple((name, _frozen(_value(model, name))) for name in _names(type(model), model))


def stand_by(model: Any) -> None:
    """Note the parameters of a model that was fitted, and of its parts, which take their turns with it."""
    model._fitted_with = parameters_of(model)
    share(model)
    for part in model._members():
        stand_by(part)


def check_parameters(model: Any, act: str) -> None:
    """Raise if a parameter on which the state rests is another one than at the fit."""
    fitted = model.__dict__.get("_fitted_with")
    if fitted is None:
        return
    for name, then in fitted:
        now = model.__dict__.get(name, _ABSENT)
        if now is then and not hasattr(now, "get_params"):
            continue
        if name in model._adjustable:
            continue
        found = _difference(then, _frozen(_value(model, name)), name)
        if found is not None:
            _refuse(model, act, *found)
    for part in model._members():
        check_parameters(part, act)


def _refuse(model: Any, act: str, name: str, then: Any, now: Any) -> None:
    raise InvalidRequest(
        f"{act} was called on {type(model).__name__}, whose parameter {name} was {_shown(then)} at fit and is "
        f"{_shown(now)} now. What is fitted and certified rests on the value at fit. Set it back, "
        f"set_params({name}=...), or call fit again. Nothing was changed."
    )


def _shown(value: Any) -> str:
    text = value.kind.rpartition(":")[2] if isinstance(value, _Estimator) else repr(value)
    return text if len(text) < 80 else text[:77] + "..."


class _Estimator(NamedTuple):
    """Class of an estimator, by its name, and its parameters."""

    kind: str
    parameters: tuple[tuple[str, Any], ...]


class _Array:
    """A copy of an array."""

    def __init__(self, values: Any) -> None:
        self.values = np.array(values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Array) and np.array_equal(self.values, other.values, equal_nan=_numbers(self.values))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self.values.tolist())


def _numbers(values: Any) -> bool:
    return values.dtype.kind in "fc"


def _frozen(value: Any) -> Any:
    """Return a value that another change of the parameter, or within it, does not reach."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        inner = ((name, _frozen(_value(value, name))) for name in _names(type(value), value))
        return _Estimator(f"{type(value).__module__}:{type(value).__qualname__}", tuple(inner))
    if isinstance(value, np.ndarray):
        return _Array(value)
    if type(value) is list or type(value) is tuple:
        return tuple(map(_frozen, value))
    if type(value) is dict:
        return tuple((key, _frozen(item)) for key, item in value.items())
    return value


def _difference(then: Any, now: Any, name: str) -> tuple[str, Any, Any] | None:
    """Return the name of what differs, and both values; None where nothing does."""
    if then is now:
        return None
    if isinstance(then, _Estimator) and isinstance(now, _Estimator) and then.kind == now.kind:
        pairs = zip(then.parameters, now.parameters, strict=True)
        found = (_difference(a[1], b[1], f"{name}__{a[0]}") for a, b in pairs)
        return next((one for one in found if one is not None), None)
    if type(then) is tuple and type(now) is tuple and len(then) == len(now):
        for a, b in zip(then, now, strict=True):
            step = type(a) is tuple and len(a) > 1 and isinstance(a[0], str) and isinstance(a[1], _Estimator)
            inner = a[0] if step else name
            if (one := _difference(a, b, inner)) is not None:
                return one
        return None
    if type(then) is not type(now):
        return name, then, now
    try:
        equal = bool(then == now) or bool(then != then and now != now)  # NaN is not itself
    except (TypeError, ValueError):
        equal = False
    return None if equal else (name, then, now)


def _value(model: Any, name: str) -> Any:
    return getattr(model, name, None)


def _names(kind: type, model: Any) -> tuple[str, ...]:
    if hasattr(kind, "_get_param_names"):
        return _own_names(kind)
    return tuple(sorted(model.get_params(deep=False)))


@lru_cache(maxsize=256)
def _own_names(kind: Any) -> tuple[str, ...]:
    return tuple(kind._get_param_names())


# ------------------------------------------------------------------------------------------------------------ files


def mapped(value: Any, depth: int = 8) -> str:
    """Return which array inside is mapped from a file and cannot be written to; "" for none."""
    if isinstance(value, np.ndarray):
        return "rows" if isinstance(value, np.memmap) and not value.flags.writeable else ""
    if depth == 0 or isinstance(value, str | bytes | int | float | type(None)):
        return ""
    if isinstance(value, dict):
        inner: Any = value.values()
    elif isinstance(value, list | tuple):
        inner = value
    else:
        inner = getattr(value, "__dict__", {}).values()
    return next((found for part in inner if (found := mapped(part, depth - 1))), "")
