"""Signed notes and checkpoints: text that a person reads, and lines of signatures under it.

References
----------
https://c2sp.org/signed-note and https://c2sp.org/tlog-checkpoint
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, replace

from certified.errors import NotVerified
from certified.ledger._keys import SigningKey, VerifyingKey

__all__ = ["Checkpoint", "Note", "Signature"]

_DASH = "— "


@dataclass(frozen=True)
class Signature:
    """A line of signature: who, with which key, and the bytes."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{_DASH}{self.name} {_text(self.key_id + self.value)}\n"

    @classmethod
    def parse(cls, line: str) -> Signature:
        """Return the signature in a line (with or without its newline)."""
        if not line.startswith(_DASH) or line.count(" ") != 2:
            raise NotVerified(_not_a("signature line", line))
        _, name, value = line.rstrip("\n").split(" ")
        raw = _bytes(value, line)
        if not name or len(raw) < 5:
            raise NotVerified(_not_a("signature line", line))
        return cls(name, raw[:4], raw[4:])


@dataclass(frozen=True)
class Note:
    """A text with signatures.

    Attributes
    ----------
    text : str
        Ends in a newline.
    signatures : tuple of Signature
    """

    text: str
    signatures: tuple[Signature, ...] = ()

    def __str__(self) -> str:
        return self.text + "\n" + "".join(map(str, self.signatures))

    @classmethod
    def parse(cls, note: str) -> Note:
        """Return the note in ``note``; NotVerified where it is none."""
        head, empty, tail = note.rpartition("\n\n")
        if not empty or not tail.endswith("\n") or any(c < " " and c != "\n" for c in note):
            raise NotVerified(_not_a("signed note", note))
        return cls(head + "\n", tuple(map(Signature.parse, tail[:-1].split("\n"))))

    def sign(self, key: SigningKey) -> Note:
        """Return the note with a signature of this key more."""
        own = key.public
        mark = Signature(own.name, own.key_id, key.sign_note(self.text.encode()))
        return replace(self, signatures=(*self.signatures, mark))

    def signers(self, keys: Iterable[VerifyingKey]) -> tuple[VerifyingKey, ...]:
        """Return the keys among these that have signed the note.

        Raises
        ------
        NotVerified
            If a signature is said to be of one of the keys, and is not.
        """
        found = []
        for key in keys:
            for mark in self.signatures:
                if (mark.name, mark.key_id) != (key.name, key.key_id):
                    continue  # signatures of unknown keys are nobody's
                if not key.verifies_note(mark.value, self.text.encode()):
                    raise NotVerified(
                        f"A note has a signature that says it is by {key.name} and is not: the note or the signature "
                        "was "
                        "changed. A note must be as it was signed. Fetch it again from its source."
                    )
                found.append(key)
                break
        return tuple(found)


@dataclass(frozen=True)
class Checkpoint:
    """The head of a log: its name, its size and the root of its tree."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{_text(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Return the checkpoint in the text of a note; lines of extensions are not read."""
        lines = text.split("\n")
        if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
            raise NotVerified(_not_a("checkpoint", text))
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdigit()) or (len(size) > 1 and size[0] == "0"):
            raise NotVerified(_not_a("checkpoint", text))
        raw = _bytes(root, text)
        if len(raw) != 32:
            raise NotVerified(_not_a("checkpoint", text))
        return cls(origin, int(size), raw)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str, whole: str) -> bytes:
    """Decode base64 that is written in its only proper way."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotVerified(_not_a("note", whole)) from None
    if _text(raw) != text:
        raise NotVerified(_not_a("note", whole))
    return raw


def _not_a(what: str, text: str) -> str:
    return f"A {what} was expected, and {text[:120]!r} is none. Pass the file as it was written; nothing was verified."
