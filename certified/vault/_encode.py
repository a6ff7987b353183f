"""From objects to a tree of plain values and arrays."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.interpolate import BSpline
from scipy.sparse import issparse

from certified.errors import NotDeletable
from certified.vault._classes import find_class, name_of

__all__ = ["Encoder", "state_of"]

_SAFE = 2**53
_KINDS = "fiubcUSVMm"


class Encoder:
    """Makes the tree; ``arrays`` fills with what it refers to.

    A tree is None, a boolean, text, a small integer, or a mapping whose first key says what it is: ``f`` a float in
    hexadecimal, ``i`` a large integer, ``g`` a number of NumPy, ``b`` bytes, ``r`` an object that came before, ``a``
    an array,
    ``x`` an array stored elsewhere, ``o`` an array of objects, ``t`` a class or function, ``u`` a function of NumPy,
    ``p`` a
    sparse matrix, ``s`` subjects, ``c`` an object of a class, ``k`` a container.
    """

    def __init__(self, outside: Callable[[Any, str], Any] | None, trusted: tuple[str, ...]) -> None:
        self.arrays: list[Any] = []
        self._outside = outside
        self._trusted = trusted
        self._seen: dict[int, int] = {}
        self._references: list[Any] = []  # so that no identity is used twice
        self._where: list[str] = []

    def __call__(self, value: Any) -> Any:
        if value is None or isinstance(value, bool | str):
            return str(value) if type(value) is not str and isinstance(value, str) else value
        if isinstance(value, np.generic) and not isinstance(value, np.void):
            return {"g": value.dtype.str, "a": self._array(np.asarray(value))}
        if isinstance(value, int):
            return int(value) if abs(value) < _SAFE else {"i": str(value)}
        if isinstance(value, float):
            return {"f": value.hex()}
        if isinstance(value, bytes | bytearray):
            return {"b": type(value).__name__, "a": self._array(np.frombuffer(bytes(value), np.uint8))}
        if id(value) in self._seen:
            return {"r": self._seen[id(value)]}
        n = len(self._seen)
        self._seen[id(value)] = n
        self._references.append(value)
        return {"n": n, **self._object(value)}

    def _object(self, value: Any) -> dict[str, Any]:
        if isinstance(value, np.ma.MaskedArray):
            return {"k": "masked", "l": [self(value.data), self(np.ma.getmaskarray(value))]}
        if isinstance(value, np.ndarray | np.void):
            return self._of_array(value)
        if issparse(value):
            value.sort_indices()
            parts = [self(value.data), self(value.indices), self(value.indptr)]
            return {"p": type(value).__name__, "l": parts, "shape": list(value.shape)}
        if isinstance(value, type | types.FunctionType):
            find_class(name_of(value), self._trusted)
            return {"t": name_of(value)}
        if isinstance(value, np.ufunc):
            return {"u": value.__name__}
        if type(value) is BSpline:
            return {"k": "spline", "l": [self(value.t), self(value.c), value.k, value.extrapolate, value.axis]}
        if isinstance(value, np.dtype):
            return {"k": "dtype", "l": [value.str]}
        if type(value) in (tuple, list, set, frozenset):
            return {"k": type(value).__name__, "l": [self(item) for item in value]}
        if type(value) is dict:
            return {"k": "dict", "l": [[self(key), self._at(key, item)] for key, item in value.items()]}
        if isinstance(value, slice):
            return {"k": "slice", "l": [self(value.start), self(value.stop), self(value.step)]}
        if isinstance(value, np.random.Generator | np.random.RandomState):
            raise NotDeletable(
                "A state with a seeded generator of noise was to be stored. Its releases have no certificate: noise "
                "that can "
                "be drawn again can be taken away. Fit with random_state=None. Nothing was stored."
            )
        return self._instance(value)

    def _instance(self, value: Any) -> dict[str, Any]:
        kind = type(value)
        name = name_of(kind)
        find_class(name, self._trusted)
        if hasattr(kind, "by_position") and hasattr(kind, "restored"):
            ids, held = value.by_position()
            rest = {key: self._at(key, item) for key, item in vars(value).items() if key not in kind.by_position_alone}
            return {"s": name, "l": [self._at("ids", ids), self._at("held", held)], "d": rest}
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return {"c": name, "f": [self._at(field, item) for field, item in zip(kind._fields, value, strict=True)]}
        try:
            object.__new__(kind)  # as the reader will
        except TypeError as error:
            raise NotDeletable(
                f"An object of {name} was to be stored, which cannot be read again: {error}. Leave the step out that "
                "holds it. Nothing was stored."
            ) from None
        state = {key: self._at(key, item) for key, item in state_of(value).items()}
        return {"c": name, "d": state}

    def _at(self, key: Any, value: Any) -> Any:
        self._where.append(str(key))
        try:
            return self(value)
        finally:
            self._where.pop()

    def _of_array(self, value: Any) -> dict[str, Any]:
        array = np.asarray(value)
        if array.dtype.hasobject:
            if array.dtype != object:
                raise NotDeletable(f"An array of the type {array.dtype} cannot be stored. Nothing was stored.")
            return {"o": list(array.shape), "l": [self(item) for item in array.ravel().tolist()]}
        if array.dtype.kind not in _KINDS:
            raise NotDeletable(f"An array of the type {array.dtype} cannot be stored. Nothing was stored.")
        if isinstance(value, np.void):
            return {"a": self._array(array), "void": True}
        if self._outside is not None and array.ndim and (name := self._outside(value, self._where[-1])) is not None:
            return {"x": name}
        return {"a": self._array(array)}

    def _array(self, array: Any) -> int:
        self.arrays.append(
            array if array.flags.c_contiguous or array.flags.f_contiguous else np.ascontiguousarray(array)
        )
        return len(self.arrays) - 1


def state_of(value: Any) -> dict[str, Any]:
    """Return what an object is made of: by its own ``__getstate__`` where its class has one, else its attributes."""
    kind = type(value)
    if any("__getstate__" in vars(base) for base in kind.__mro__ if base.__module__.startswith("certified.")):
        return dict(value.__getstate__())
    state = dict(getattr(value, "__dict__", {}))
    for base in kind.__mro__:
        for slot in vars(base).get("__slots__", ()):
            if hasattr(value, slot):
                state[slot] = getattr(value, slot)
    if not state and not hasattr(value, "__dict__"):
        raise NotDeletable(f"An object of {name_of(kind)} cannot be stored. Nothing was stored.")
    return state
