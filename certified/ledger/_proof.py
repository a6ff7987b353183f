"""Proof that an entry stands in a log: one file of text, verified offline.

References
----------
https://c2sp.org/tlog-proof
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from certified.errors import NotVerified
from certified.ledger._keys import VerifyingKey
from certified.ledger._merkle import leaf_hash, verify_inclusion
from certified.ledger._notes import Checkpoint, Note, _bytes, _not_a, _text

__all__ = ["LogProof"]

_FIRST = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class LogProof:
    """An entry's place in a log, the hashes that lead from it to a root, and the checkpoint that signs the root.

    Attributes
    ----------
    index : int
    hashes : tuple of bytes
        Nearest to the entry first.
    checkpoint : Note
    extra : bytes
        Not authenticated by anything.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes = b""

    def __str__(self) -> str:
        lines = [_FIRST]
        if self.extra:
            lines.append(f"extra {base64.b64encode(self.extra).decode()}")
        return "\n".join([*lines, f"index {self.index}", *map(_text, self.hashes), "", str(self.checkpoint)])

    @classmethod
    def parse(cls, text: str) -> LogProof:
        """Return the proof in a ``.tlog-proof`` file."""
        head, empty, note = text.partition("\n\n")
        lines = head.split("\n")
        if not empty or lines.pop(0) != _FIRST or not lines:
            raise NotVerified(_not_a("proof of a log", text))
        extra = b""
        if lines[0].startswith("extra "):
            extra = _bytes(lines.pop(0)[6:], text)
        word, _, index = lines.pop(0).partition(" ") if lines else ("", "", "")
        if word != "index" or not (index.isascii() and index.isdigit()) or str(int(index)) != index:
            raise NotVerified(_not_a("proof of a log", text))
        return cls(int(index), tuple(_bytes(line, text) for line in lines), Note.parse(note), extra)

    def verify(
        self, entry: bytes, keys: Iterable[VerifyingKey], *, witnesses: Iterable[VerifyingKey] = (), quorum: int = 0
    ) -> Checkpoint:
        """Return the checkpoint, once it is shown that the log of one of the keys holds the entry.

        Parameters
        ----------
        entry : bytes
        keys : iterable of VerifyingKey
            Keys of the log that are trusted, known from elsewhere.
        witnesses : iterable of VerifyingKey
        quorum : int
            How many of the witnesses must have signed.

        Raises
        ------
        NotVerified
        """
        signers = self.checkpoint.signers(keys)
        head = Checkpoint.parse(self.checkpoint.text)
        if not any(key.name == head.origin for key in signers):
            raise NotVerified(
                f"The checkpoint of {head.origin} is signed by none of the keys that were given. Pass the log's key, "
                "from a source that you trust."
            )
        seen = len(self.checkpoint.signers(witnesses))
        if seen < quorum:
            raise NotVerified(f"{seen} of the given witnesses have signed the checkpoint, {quorum} are asked for.")
        if not verify_inclusion(leaf_hash(entry), self.index, head.size, self.hashes, head.root):
            raise NotVerified(
                f"The log {head.origin} does not hold this entry at place {self.index}: the entry or the proof was "
                "changed, or they do not belong together."
            )
        return head
