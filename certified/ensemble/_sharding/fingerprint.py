"""Fingerprint of a fitted model of any library: equal exactly when two models hold the same values.

A pickle does not serve: its bytes depend on which equal strings happen to be one object, on the padding inside
structured arrays, and on entropy that NumPy keeps beside a seeded ``RandomState``. So the parts are visited as pickle
would visit them, and each is written in one way only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from certified.errors import NotDeletable

__all__ = ["fingerprint", "holds_rows"]

ROW_HOLDERS = frozenset({"support_vectors_", "_fit_X", "X_train_", "X_fit_", "X_thresholds_", "f_", "_f", "X_"})
"""Attributes in which scikit-learn's estimators keep training rows, or kernels of them."""

VALUE_HOLDERS = frozenset({"quantiles_"})
"""Attributes in which they keep values of many rows, feature by feature."""


def fingerprint(model: Any) -> str:
    """Return the SHA-256 of everything that the model holds, "sha256:...".

    Dictionaries and sets count without their order; measured times (``refit_time_``, ``mean_fit_time``) do not count.

    Raises
    ------
    NotDeletable
        A part of the model cannot be pickled.
    """
    return "sha256:" + _Visit().of(model).hex()


def holds_rows(model: Any, views: list[Any]) -> str | None:
    """Return where the model keeps training rows, or None if none was found.

    Parameters
    ----------
    model : estimator
    views : list of arrays of shape (n_rows, n_features)
        The training rows as given, and as later steps of a pipeline see them.
    """
    found: list[str] = []
    rows = [{row.tobytes() for row in view + 0.0} for view in views]
    widths = [view.shape[1] for view in views]

    def look(name: str, value: Any) -> None:
        if name in ROW_HOLDERS | VALUE_HOLDERS and value is not None:
            found.append(name)
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind == "f":
            for known, width in zip(rows, widths, strict=True):
                if width != value.shape[1]:
                    continue
                same = [r.tobytes() in known for r in value.astype(np.float64) + 0.0]
                # one number can be that of a row by chance, most of several hardly
                if any(same) if width > 1 else len(same) > 2 and 2 * sum(same) > len(same):
                    found.append(name or "an array")

    _Visit(look).of(model)
    return found[0] if found else None


class _Visit:
    def __init__(self, look: Callable[[str, Any], None] | None = None) -> None:
        self._look = look
        self._path: set[int] = set()  # objects that contain the present one: a cycle ends here

    def of(self, value: Any, name: str = "") -> bytes:
        """Return the digest of a value; `name` is the attribute that holds it."""
        if self._look is not None:
            self._look(name, value)
        if id(value) in self._path:
            return _hash(b"cycle")
        self._path.add(id(value))
        try:
            return self._composite(value)
        finally:
            self._path.discard(id(value))

    def _composite(self, value: Any) -> bytes:
        kind = type(value).__name__.encode()
        if value is None or isinstance(value, bool | int | str | complex):
            return _hash(kind, repr(value).encode())
        if isinstance(value, float):
            return _hash(kind, np.float64(value).tobytes())
        if isinstance(value, bytes | bytearray | memoryview):
            return _hash(b"bytes", bytes(value))
        if isinstance(value, np.ndarray | np.generic):
            return self._array(np.asarray(value))
        if isinstance(value, np.random.RandomState):
            return _hash(kind, self.of(value.get_state(legacy=False)))
        if isinstance(value, np.random.Generator):
            return _hash(kind, self.of(value.bit_generator.state))
        if isinstance(value, list | tuple) and not hasattr(value, "__dict__"):
            return _hash(kind, *map(self.of, value))
        if isinstance(value, dict):
            items = [(self.of(key), key, item) for key, item in value.items() if not _is_time(key)]
            return _hash(kind, *[k + self.of(item, key if isinstance(key, str) else "") for k, key, item in items])
        if isinstance(value, set | frozenset):
            return _hash(kind, *sorted(map(self.of, value)))
        if isinstance(value, type) or (hasattr(value, "__qualname__") and hasattr(value, "__module__")):
            return _hash(b"name", f"{value.__module__}.{value.__qualname__}".encode())
        return self._object(value)

    def _array(self, array: np.ndarray) -> bytes:
        head = f"array {array.shape} {array.dtype.str}".encode()
        if array.dtype.names:  # field by field, because there may be padding between them
            return _hash(head, *[self._array(array[field]) for field in array.dtype.names])
        if array.dtype.kind == "O":
            return _hash(head, *map(self.of, array.ravel().tolist()))
        return _hash(head, np.ascontiguousarray(array).tobytes())

    def _object(self, value: Any) -> bytes:
        text = _written(value)
        if text is not None:
            return _hash(b"written", text)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:
            raise NotDeletable(
                f"A fitted model holds {type(value).__name__}, which cannot be pickled ({error}), so that its state "
                "cannot be compared with a refit's. Use an estimator that can be pickled. Nothing was changed."
            ) from error
        if isinstance(reduced, str):
            return _hash(b"name", reduced.encode())
        make, arguments, *rest = reduced
        state = rest[0] if rest else None
        listed = [self.of(item) for item in rest[1]] if len(rest) > 1 and rest[1] is not None else []
        mapped = self.of(dict(rest[2])) if len(rest) > 2 and rest[2] is not None else b""
        return _hash(b"object", self.of(make), self.of(arguments), self.of(state), *listed, mapped)


def _written(value: Any) -> bytes | None:
    """Return what a library's own model writes of itself, where its pickle would hold more than the model.

    LightGBM keeps the parameters of a model that was loaded in another form; CatBoost notes when it learned, and draws
    a name for each model.
    """
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    if root == "lightgbm" and kind.__name__ == "Booster":
        return value.model_to_string(num_iteration=-1).encode()
    if root == "catboost" and hasattr(value, "get_metadata") and value.is_fitted():
        same = value.copy()
        notes = same.get_metadata()
        for name in [name for name in notes.keys() if name.endswith(("model_guid", "train_finish_time"))]:  # noqa: SIM118
            notes[name] = ""
        return _hash(same._object._serialize_model(), repr(sorted(map(str, value.get_params().items()))).encode())
    return None


def _hash(*parts: bytes) -> bytes:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def _is_time(key: Any) -> bool:
    return isinstance(key, str) and key.endswith(("_time", "_time_"))
