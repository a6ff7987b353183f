"""Keyed hash of a subject's id: the only source of randomness that training may use per row.

Integers are hashed by SipHash-2-4 of their eight little-endian bytes, everything else by keyed BLAKE2b of the UTF-8
text. Both are keyed pseudo-random functions with a 128-bit key, and give the same 64-bit value on every platform and
in every release of this package. A model that samples the subjects with the smallest hashes (:func:`bottom_k`)
depends on the *set* of ids, never on row order or on history.

References
----------
Aumasson and Bernstein (2012), SipHash: a fast short-input PRF. RFC 7693, The BLAKE2 cryptographic hash.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from certified.errors import InvalidInput

__all__ = ["ANY_REQUEST", "Key", "bottom_k", "rehashed", "subject_hash"]

_SAME = "all requests, against a refit with the same key"
ANY_REQUEST = "all, also those that were chosen after seeing earlier releases"
"""What a certificate that depends on no key covers."""


class Key(NamedTuple):
    """The key of a fitted whole: it decides every sample, fold and shard of it.

    Whoever knows a key, and may choose ids or requests, chooses who is in a sample. So one is drawn from the operating
    system unless it is given, it is not printed, and what it is used for gets a key of its own: keys derived for two
    purposes are independent for whoever does not know the one that they come from.

    Attributes
    ----------
    value : int
        128 bits.
    drawn : bool
        Whether it was drawn here. Nobody else knows it then.
    """

    value: int
    drawn: bool = False

    @classmethod
    def of(cls, given: Any, caller: str) -> Key:
        """Return the key that was given, or draw one for None; raise InvalidInput if it is none."""
        if given is None:
            return cls(secrets.randbits(128), True)
        if isinstance(given, Key):
            return given
        if isinstance(given, bool) or not isinstance(given, int | np.integer) or not 0 <= given < 1 << 128:
            raise InvalidInput(
                f"{caller}(key={given!r}) is not allowed: a whole number from 0 to 2**128 - 1, or None to draw one. "
                "Nothing was changed."
            )
        return cls(int(given))

    def derive(self, purpose: str) -> Key:
        """Return the key for a purpose: BLAKE2b of its name under this key."""
        found = hashlib.blake2b(purpose.encode(), digest_size=16, key=self.value.to_bytes(16, "little"))
        return Key(int.from_bytes(found.digest(), "little"), self.drawn)

    @property
    def adaptivity(self) -> str:
        """Which requests a certificate covers, of a state that depends on this key."""
        if self.drawn:
            return f"{_SAME}; against a refit with a fresh key, requests that do not depend on what this model answered"
        return f"{_SAME}; the key was given, not drawn, so nothing is said about a refit with a fresh key"

    def __repr__(self) -> str:
        return f"Key({'drawn' if self.drawn else 'given'})"


def subject_hash(ids: Any, key: int = 0) -> NDArray[np.uint64]:
    """Return the 64-bit keyed hash of every id.

    Parameters
    ----------
    ids : array of shape (n,)
        Integers or text.
    key : int
        128-bit key, ``0 <= key < 2**128``.

    Returns
    -------
    uint64 array of shape (n,)

    Examples
    --------
    >>> subject_hash([1, 2, 3], key=7).dtype
    dtype('uint64')
    """
    ids = np.asarray(ids)
    if not 0 <= key < 1 << 128:
        raise ValueError(f"subject_hash(key=...) got {key}. A key has 128 bits, 0 <= key < 2**128.")
    if ids.dtype.kind in "iu":
        return _siphash(ids.astype(np.int64).view(np.uint64), key)
    raw = key.to_bytes(16, "little")
    digests = (hashlib.blake2b(str(i).encode(), digest_size=8, key=raw).digest() for i in ids.tolist())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def rehashed(hashes: Any, purpose: str) -> NDArray[np.uint64]:
    """Return other hashes of the same subjects: who does not know the key of `hashes` sees nothing of one in the other.

    For a step of a pipeline, which has the hashes of the whole and not its key.
    """
    return _siphash(np.asarray(hashes, dtype=np.uint64), Key(0).derive(purpose).value)


def bottom_k(hashes: Any, k: int) -> NDArray[np.uint64]:
    """Return the k-th smallest distinct hash, an array of shape (): the sample is the rows with ``hashes <= cut``.

    A subject is in the sample with all its rows or none, whatever their order. With fewer than k subjects the cut is
    ``2**64 - 1``: all are in it. A deletion outside the sample changes neither.

    Parameters
    ----------
    hashes : uint64 array of shape (n,)
        Of the subject of each row; see :func:`subject_hash`.
    k : int
        Subjects in the sample, at least 1.
    """
    some = hashes
    if 4 * k < hashes.size:  # sort only those that may be in it, unless subjects have more than two rows each
        some = hashes[hashes <= np.partition(hashes, 2 * k)[2 * k]]
    distinct = np.unique(some)
    if distinct.size < k:
        distinct = np.unique(hashes)
    return np.array(distinct[k - 1] if distinct.size >= k else 2**64 - 1, dtype=np.uint64)


def _siphash(words: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """SipHash-2-4 of one 64-bit little-endian word each, vectorised over the words."""
    k0, k1 = np.uint64(key & 0xFFFFFFFFFFFFFFFF), np.uint64(key >> 64)
    v0 = np.full_like(words, k0 ^ np.uint64(0x736F6D6570736575))
    v1 = np.full_like(words, k1 ^ np.uint64(0x646F72616E646F6D))
    v2 = np.full_like(words, k0 ^ np.uint64(0x6C7967656E657261))
    v3 = np.full_like(words, k1 ^ np.uint64(0x7465646279746573))
    for word in (words, np.uint64(8 << 56)):  # the message, then the block that holds its length
        v3 ^= word
        _rounds(v0, v1, v2, v3, 2)
        v0 ^= word
    v2 ^= np.uint64(0xFF)
    _rounds(v0, v1, v2, v3, 4)
    return v0 ^ v1 ^ v2 ^ v3


def _rounds(v0: Any, v1: Any, v2: Any, v3: Any, count: int) -> None:
    """Apply SipRound `count` times in place; additions wrap modulo 2^64."""
    for _ in range(count):
        v0 += v1
        v2 += v3
        _rotate(v1, 13)
        _rotate(v3, 16)
        v1 ^= v0
        v3 ^= v2
        _rotate(v0, 32)
        v2 += v1
        v0 += v3
        _rotate(v1, 17)
        _rotate(v3, 21)
        v1 ^= v2
        v3 ^= v0
        _rotate(v2, 32)


def _rotate(v: NDArray[np.uint64], bits: int) -> None:
    high = v << np.uint64(bits)
    v >>= np.uint64(64 - bits)
    v |= high
