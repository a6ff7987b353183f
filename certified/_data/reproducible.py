"""The same bits on every machine state: digests, comparisons, products and threads that do not round by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cache, wraps
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from certified.typing import FloatArray

__all__ = ["digest", "on_one_thread", "one_thread", "project", "same"]


def digest(*parts: Any) -> str:
    """Return "sha256:..." of arrays, numbers and text: equal exactly when the states are equal bit for bit."""
    state = hashlib.sha256()
    for part in parts:
        array = np.asarray(part)
        state.update(f"{array.dtype.str}{array.shape}".encode())
        state.update(
            repr(array.tolist()).encode() if array.dtype.kind in "OU" else np.ascontiguousarray(array).tobytes()
        )
    return "sha256:" + state.hexdigest()


def project(X: FloatArray, directions: FloatArray) -> FloatArray:
    """Return ``X @ directions.T``, where a row's values do not depend on the other rows, not even in rounding.

    A matrix product of a library may round a row differently at another place. Then the features of the retained rows
    would not be those of a refit, bit for bit.
    """
    out = np.empty((len(X), len(directions)))
    for start in range(0, len(X), 1024):
        part = X[start : start + 1024]
        total = np.zeros((len(part), len(directions)))
        for column, weights in zip(part.T, directions.T, strict=True):
            total += column[:, None] * weights
        out[start : start + 1024] = total
    return out


def same(a: Any, b: Any) -> bool:
    """Whether two served states are equal bit for bit; what both share is not looked at."""
    if a is b:
        return True
    a, b = (value.parts() if hasattr(value, "parts") else value for value in (a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and same(list(a.values()), list(b.values()))
    if isinstance(a, tuple | list) and isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(same, a, b))
    if a is None or b is None or isinstance(a, dict | tuple | list) or isinstance(b, dict | tuple | list):
        return False
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    if first.dtype.kind in "OU":
        return repr(first.tolist()) == repr(second.tolist())
    return first.tobytes() == second.tobytes()


def _leaves(value: Any) -> Iterator[Any]:
    """Arrays, numbers and text inside nested tuples, lists, mappings and objects with ``parts``."""
    if hasattr(value, "parts"):
        value = value.parts()
    if isinstance(value, dict):
        yield repr(list(value))
        value = list(value.values())
    if isinstance(value, tuple | list):
        yield len(value)
        for item in value:
            yield from _leaves(item)
    else:
        text = isinstance(value, np.ndarray) and value.dtype.kind in "UT"
        yield "None" if value is None else repr(value.tolist()) if text else value  # text: whatever the longest takes


def on_one_thread() -> Any:
    """Return a context in which linear algebra adds in one order, whatever number of threads the process has."""
    return _controller().limit(limits=1, user_api="blas")


def one_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function :func:`on_one_thread`: what it factorises is then a function of its arguments alone."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with on_one_thread():
            return function(*args, **kwargs)

    return call


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()
