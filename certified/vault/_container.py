"""A fitted keeper as a file: a tree of plain values and a list of arrays. No pickle, and no code is run to read it.

Classes are looked up by name among those of this package and a short list of others. Objects are made by ``__new__``
and
filled, never called. Objects that are shared stay shared. A file is written once and never changed; a checksum at its
end
tells whether it is whole.

The format, version 1: 8 bytes of magic, the version and the length of the head (little-endian, 4 and 8 bytes, 12 bytes
of
zeros), the head as JSON with the tree and the place of every array, the arrays at multiples of 64 bytes, SHA-256 of all
that.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from certified.errors import NewerFormat, NotDeletable, StorageFailed
from certified.vault._classes import find_class, name_of
from certified.vault._decode import Decoder
from certified.vault._encode import Encoder

__all__ = ["FORMAT", "dump", "dumps", "find_class", "load", "loads", "name_of"]

MAGIC = b"CERTSTAT"
FORMAT = 1
_HEAD = struct.Struct("<8sIQ12x")
_ALIGN = 64


def dumps(
    value: Any, outside: Callable[[Any, str], Any] | None = None, *, trusted: tuple[str, ...] = ()
) -> tuple[bytes, list[Any]]:
    """Return the head of a file, and the pieces that follow it.

    Parameters
    ----------
    value : fitted estimator, or any value made of plain ones
    outside : callable or None
        ``outside(array, where)`` gets every array that may be stored elsewhere, and returns a name, or None to store it
        here.
    trusted : tuple of str
        Classes of others, as "module:name", that may occur.
    """
    encoder = Encoder(outside, trusted)
    tree = encoder(value)
    places, offset = [], 0
    for array in encoder.arrays:
        order = "F" if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        places.append([np.lib.format.dtype_to_descr(array.dtype), list(array.shape), order, offset])
        offset += array.nbytes + -array.nbytes % _ALIGN
    head = json.dumps({"tree": tree, "arrays": places}, separators=(",", ":"), allow_nan=False).encode()
    head += b" " * (-(_HEAD.size + len(head)) % _ALIGN)
    return _HEAD.pack(MAGIC, FORMAT, len(head)) + head, encoder.arrays


def dump(value: Any, file: Any, **how: Any) -> str:
    """Write a value to an open binary file; return the SHA-256 of what was written before the checksum."""
    head, arrays = dumps(value, **how)
    check = hashlib.sha256(head)
    file.write(head)
    for array in arrays:
        order = "F" if array.ndim > 1 and not array.flags.c_contiguous else "C"
        data = array.tobytes(order) + bytes(-array.nbytes % _ALIGN)
        check.update(data)
        file.write(data)
    file.write(check.digest())
    return check.hexdigest()


def load(path: str | Path, **how: Any) -> Any:
    """Return the value in a file; see :func:`loads`."""
    return loads(Path(path).read_bytes(), str(path), **how)


def loads(
    data: bytes,
    what: str = "the state",
    inside: Callable[[str], Any] | None = None,
    *,
    trusted: tuple[str, ...] = (),
) -> Any:
    """Return the value in the bytes of a file.

    Parameters
    ----------
    data : bytes
    what : str
        For messages.
    inside : callable or None
        ``inside(name)`` returns the array that is stored elsewhere under a name.
    trusted : tuple of str
        Classes of others that may occur.

    Raises
    ------
    StorageFailed
        The file is damaged or no file of this kind.
    NewerFormat
        A later version wrote it.
    NotDeletable
        It names a class that is not allowed.
    """
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise StorageFailed(f"{what} is no state of this package. Pass a file that it wrote. Nothing was loaded.")
    _, version, length = _HEAD.unpack_from(data)
    if version > FORMAT:
        raise NewerFormat(
            f"{what} has format {version}, and this version of certified knows {FORMAT}. Install a newer version. "
            "Nothing "
            "was loaded."
        )
    body, check = memoryview(data)[:-32], data[-32:]
    if hashlib.sha256(body).digest() != check:
        raise StorageFailed(
            f"{what} is damaged: its checksum does not hold. Restore it from a copy. Nothing was loaded."
        )
    try:
        head = json.loads(data[_HEAD.size : _HEAD.size + length])
        arrays = [_array(body[_HEAD.size + length :], *place) for place in head["arrays"]]
        return Decoder(arrays, inside, trusted)(head["tree"])
    except (KeyError, IndexError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, NotDeletable | StorageFailed):
            raise
        raise StorageFailed(
            f"{what} cannot be read: {type(error).__name__}: {error}. It was written by another program or another "
            "version. "
            "Nothing was loaded."
        ) from error


def _array(data: Any, descr: Any, shape: list[int], order: str, offset: int) -> Any:
    """Return an array of its own, aligned to 64 bytes, so that JAX reads it in place."""
    dtype = np.dtype(_dtype(descr))
    if dtype.hasobject:
        raise ValueError("an array of objects")
    n = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    raw = np.empty(n + _ALIGN, dtype=np.uint8)
    start = -raw.ctypes.data % _ALIGN
    raw[start : start + n] = np.frombuffer(data[offset : offset + n], dtype=np.uint8)
    flat = raw[start : start + n].view(dtype)
    return flat.reshape(shape, order=order)


def _dtype(descr: Any) -> Any:
    """The description of a type as JSON gives it, with tuples where NumPy wants them."""
    if not isinstance(descr, list):
        return descr
    out = []
    for name, kind, *shape in descr:
        out.append((name, _dtype(kind), *(tuple(part) for part in shape)))
    return out
