"""From a tree of plain values and arrays to objects; nothing is called but ``__new__``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline

from certified.vault._classes import find_class

__all__ = ["Decoder"]

_SPARSE = ("csr_array", "csc_array", "csr_matrix", "csc_matrix", "coo_array", "coo_matrix")
_COPIES: Any = {"tuple": tuple, "set": set, "frozenset": frozenset}


class Decoder:
    """Reads a tree; see :class:`certified.vault._encode.Encoder` for what its keys mean."""

    def __init__(self, arrays: list[Any], inside: Callable[[str], Any] | None, trusted: tuple[str, ...]) -> None:
        self._arrays = arrays
        self._inside = inside
        self._trusted = trusted
        self._made: dict[int, Any] = {}

    def __call__(self, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        if "n" not in tree:
            return self._small(tree)
        made = self._object(tree, tree["n"])
        self._made[tree["n"]] = made
        return made

    def _small(self, tree: dict[str, Any]) -> Any:
        if "r" in tree:
            return self._made[tree["r"]]
        if "f" in tree:
            return float.fromhex(tree["f"])
        if "i" in tree:
            return int(tree["i"])
        if "g" in tree:
            return self._arrays[tree["a"]][()]
        kind = {"bytes": bytes, "bytearray": bytearray}[tree["b"]]
        return kind(self._arrays[tree["a"]].tobytes())

    def _object(self, tree: dict[str, Any], n: int) -> Any:
        if "a" in tree:
            array = self._arrays[tree["a"]]
            return array[()] if tree.get("void") else array
        if "x" in tree:
            if self._inside is None:
                raise ValueError(f"the array {tree['x']!r} is stored elsewhere")
            return self._inside(tree["x"])
        if "o" in tree:
            out = np.empty(len(tree["l"]), dtype=object)
            for i, item in enumerate(tree["l"]):
                out[i] = self(item)
            return out.reshape(tree["o"])
        if "t" in tree:
            return find_class(tree["t"], self._trusted)
        if "u" in tree:
            found = getattr(np, tree["u"])
            if not isinstance(found, np.ufunc):
                raise TypeError(f"{tree['u']} is no function of NumPy")
            return found
        if "p" in tree:
            return self._sparse(tree)
        if "s" in tree:
            rest = {key: self(item) for key, item in tree["d"].items()}
            ids, held = (self(part) for part in tree["l"])
            subjects = find_class(tree["s"]).restored(ids, held)
            subjects.__dict__.update(rest)
            return subjects
        return self._instance(tree, n) if "c" in tree else self._container(tree, n)

    def _sparse(self, tree: dict[str, Any]) -> Any:
        if tree["p"] not in _SPARSE:
            raise TypeError(f"{tree['p']} is no sparse matrix")
        return getattr(sparse, tree["p"])(tuple(self(part) for part in tree["l"]), shape=tuple(tree["shape"]))

    def _instance(self, tree: dict[str, Any], n: int) -> Any:
        kind = find_class(tree["c"], self._trusted)
        if not isinstance(kind, type):
            raise TypeError(f"{tree['c']} is no class")
        if "f" in tree:
            return tuple.__new__(kind, [self(item) for item in tree["f"]])
        made: Any = object.__new__(kind)
        self._made[n] = made
        slots = {slot for base in kind.__mro__ for slot in vars(base).get("__slots__", ())}
        for key, item in tree["d"].items():
            if key in slots:
                object.__setattr__(made, key, self(item))
            else:  # not by way of a property
                made.__dict__[key] = self(item)
        return made

    def _container(self, tree: dict[str, Any], n: int) -> Any:
        kind, items = tree["k"], tree["l"]
        if kind == "dict":
            out: dict[Any, Any] = {}
            self._made[n] = out
            for key, item in items:
                out[self(key)] = self(item)
            return out
        if kind == "list":
            several: list[Any] = []
            self._made[n] = several
            several.extend(self(item) for item in items)
            return several
        if kind == "slice":
            return slice(*(self(item) for item in items))
        if kind == "dtype":
            return np.dtype(items[0])
        if kind == "masked":
            values, mask = (self(item) for item in items)
            return np.ma.MaskedArray(values, mask=mask)
        if kind == "spline":
            return BSpline.construct_fast(*(self(item) for item in items))
        return _COPIES[kind]([self(item) for item in items])
