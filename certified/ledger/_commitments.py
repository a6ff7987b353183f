"""Commitments to subjects: a log can name a subject without an id, and forget it by deleting a salt."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

__all__ = ["Commitment", "commit"]

_PREFIX = b"certified/subject/v1\x00"
SALT_BYTES = 32


@dataclass(frozen=True)
class Commitment:
    """A digest that binds a subject, and the salt without which nobody can tell whom.

    Attributes
    ----------
    digest : bytes
        SHA-256 of a fixed prefix, the salt and the id.
    salt : bytes
        32 random bytes. Once every copy of it is erased, the digest says nothing about the subject: whoever tries all
        ids finds none that fits.
    """

    digest: bytes
    salt: bytes

    def opens(self, subject: str | int) -> bool:
        """Return whether this is a commitment to the subject."""
        return secrets.compare_digest(self.digest, commit(subject, self.salt).digest)


def commit(subject: str | int, salt: bytes | None = None) -> Commitment:
    """Return a commitment to a subject, with a new salt where none is given."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    if len(salt) != SALT_BYTES:
        raise ValueError(f"commit(salt=...) got {len(salt)} bytes; a salt has {SALT_BYTES}. Draw one with secrets.")
    return Commitment(hashlib.sha256(_PREFIX + salt + str(subject).encode()).digest(), salt)
