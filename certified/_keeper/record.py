"""Records: frozen values with canonical bytes, a digest, and strict reading.

Canonical bytes are RFC 8785 JSON (sorted keys, no white space, UTF-8) in which every float is a string, so that a
digest does not depend on how a reader prints numbers.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from certified.errors import InvalidInput

__all__ = ["FrozenMap", "Record", "canonical", "convert", "parse", "thaw"]


class FrozenMap(Mapping[str, Any]):
    """An immutable, hashable and picklable mapping with sorted string keys; nested lists become tuples."""

    __slots__ = ("_items",)
    _items: tuple[tuple[str, Any], ...]

    def __init__(self, items: Mapping[str, Any]):
        if isinstance(items, FrozenMap):
            object.__setattr__(self, "_items", items._items)
            return
        if not isinstance(items, Mapping) or not all(isinstance(key, str) for key in items):
            raise InvalidInput(f"Certificate got the mapping {items!r}. Its keys must be strings. Pass a dict of str.")
        object.__setattr__(self, "_items", tuple((key, _freeze(items[key])) for key in sorted(items)))

    @classmethod
    def of(cls, kind: type, items: Mapping[str, Any]) -> "FrozenMap":
        """Return a mapping whose values are all of this kind; one that already is comes back as it is."""
        if type(items) is cls and all(type(value) is kind for _, value in items._items):
            return items
        return cls({name: convert(kind, name, value) for name, value in cls(items).items()})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a FrozenMap cannot be changed")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self._items),)

    def __getitem__(self, key: str) -> Any:
        return dict(self._items)[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(self._items)

    def __repr__(self) -> str:
        return repr(dict(self._items))


def _freeze(value: Any) -> Any:
    if type(value) in (float, str, int):
        return value
    if isinstance(value, Mapping):
        return FrozenMap(value)
    return tuple(map(_freeze, value)) if isinstance(value, (list, tuple)) else value


def thaw(value: Any) -> Any:
    """Return ``value`` with plain dicts and lists in the place of frozen ones."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, (list, tuple)) else value


def _json_ready(value: Any) -> Any:
    """``value`` in types that JSON writes in one way only: floats, and integers beyond 2^53, become strings."""
    if isinstance(value, Mapping):
        # RFC 8785 sorts keys by UTF-16 code units.
        ordered = sorted(value.items(), key=lambda item: item[0].encode("utf-16-be", "surrogatepass"))
        return {key: _json_ready(item) for key, item in ordered}
    if isinstance(value, (list, tuple)):
        return [_json_ready(item) for item in value]
    if isinstance(value, float):
        names = {math.inf: "Infinity", -math.inf: "-Infinity"}
        return "NaN" if math.isnan(value) else names.get(value) or float.__repr__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value) if abs(value) < 2**53 else str(int(value))
    if value is None or isinstance(value, (bool, str)):
        return value
    raise InvalidInput(
        f"A record got {value!r} of type {type(value).__name__}. Records hold None, booleans, integers, floats, "
        "strings, lists and mappings. Convert the value first; nothing was written."
    )


def canonical(values: Mapping[str, Any]) -> bytes:
    """Return values as RFC 8785 JSON, UTF-8, with floats as strings; equal values have equal bytes."""
    text = json.dumps(_json_ready(values), ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f"canonical_bytes() got text that is not Unicode: {text!r}. Strings must have no lone surrogates. "
            "Repair them; nothing was written."
        ) from None


class Record:
    """Canonical bytes, digest and equality for a record that has ``to_dict``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        raise NotImplementedError

    def canonical_bytes(self) -> bytes:
        """Return the record as RFC 8785 JSON, UTF-8, with floats as strings; equal records have equal bytes."""
        return canonical(self.to_dict())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, as ``"sha256:<hex>"``."""
        return "sha256:" + hashlib.sha256(self.canonical_bytes()).hexdigest()

    def to_json(self, indent: int | None = None) -> str:
        """Return the record as JSON text with the values of `canonical_bytes`, indented on request."""
        if indent is None:
            return self.canonical_bytes().decode()
        return json.dumps(_json_ready(self.to_dict()), ensure_ascii=False, indent=indent)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.canonical_bytes() == other.canonical_bytes()

    def __hash__(self) -> int:
        return hash(self.canonical_bytes())


def convert(kind: type, name: str, value: Any) -> Any:
    """``value`` as a builtin float, int or str, so that a record and its copy from JSON hold the same values."""
    if type(value) is kind:
        return value
    if kind is str and isinstance(value, str):
        return str(value)
    try:
        if kind is int and not isinstance(value, (str, bool)) and int(value) == value:
            return int(value)
        if kind is float and not isinstance(value, bool):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidInput(
        f"A record got {name}={value!r}. {name} must be of type {kind.__name__}. Convert it first; "
        "nothing was recorded."
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key occurs twice")
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; as a value it is written as a string")


def parse(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in ``text``; repeated keys and bare NaN or Infinity are refused."""
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"Certificate.from_json(text) got text that cannot be read: {error}. It must be one JSON object without "
            "repeated keys. Pass the text that to_json wrote."
        ) from error
    if not isinstance(values, dict):
        raise InvalidInput(
            f"Certificate.from_json(text) got JSON of type {type(values).__name__}. It must be an object. "
            "Pass the text that to_json wrote."
        )
    return values
