"""A witness: remembers the newest head of each log that it was shown, and signs only heads that continue it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from certified.errors import NotVerified
from certified.ledger._keys import SigningKey, VerifyingKey
from certified.ledger._merkle import verify_consistency
from certified.ledger._notes import Checkpoint, Note, Signature

__all__ = ["Witness", "write_durably"]


class Witness:
    """Whoever remembers the head of a log, such as an auditor's laptop.

    A log cannot show two histories to a witness. So nobody has to trust the holder of the log's key alone, if the proof
    of an entry carries the signature of a witness.

    Parameters
    ----------
    path : path-like
        A file in which heads are remembered. It is made where there is none.
    key : SigningKey
        With the algorithm "witness"; see :meth:`key_from_pem`.
    """

    def __init__(self, path: str | Path, key: SigningKey) -> None:
        if key.public.algorithm != "witness":
            raise ValueError(
                'Witness(key=...) needs a key of the kind "witness". Make one with generate(name, "witness").'
            )
        self.path = Path(path)
        self.key = key
        self._heads: dict[str, list[str]] = json.loads(self.path.read_text()) if self.path.exists() else {}

    def cosign(self, note: Note, proof: Sequence[bytes], log: VerifyingKey, at: int | None = None) -> Signature:
        """Return the signature of the witness for a head that continues what it has seen.

        Parameters
        ----------
        note : Note
            The signed head.
        proof : sequence of bytes
            That the log's head known here is the beginning of this one; empty for the first head seen.
        log : VerifyingKey
        at : int or None
            POSIX time; None is now.

        Raises
        ------
        NotVerified
            If the head is not the log's, is older than one that was seen, or belongs to another history. Keep both
            heads then: together they prove that the holder of the key has shown two histories.
        """
        if not note.signers([log]):
            raise NotVerified(f"The head is not signed by {log.name}. Nothing was signed.")
        head = Checkpoint.parse(note.text)
        if head.origin != log.name:
            raise NotVerified(f"The head is of {head.origin}, the key of {log.name}. Nothing was signed.")
        size, root = self.known(head.origin)
        if size and not verify_consistency(size, root, head.size, head.root, proof):
            raise NotVerified(
                f"The head of size {head.size} does not continue the head of size {size} that was seen before: the log "
                "was "
                "rolled back or rewritten, or the proof does not belong to it. Nothing was signed."
            )
        value = self.key.sign_note(note.text.encode(), at)
        self._heads[head.origin] = [str(head.size), head.root.hex()]
        write_durably(self.path, json.dumps(self._heads, indent=1, sort_keys=True).encode())
        return Signature(self.key.public.name, self.key.public.key_id, value)

    def known(self, origin: str) -> tuple[int, bytes]:
        """Return size and root of the newest head seen of a log; size 0 where there is none."""
        size, root = self._heads.get(origin, ["0", ""])
        return int(size), bytes.fromhex(root)


def write_durably(path: Path, data: bytes) -> None:
    """Put a file in its place so that after a power cut there is either the old one or the new one, whole."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        new = path.with_name(path.name + ".new")
        with open(new, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        os.fsync(folder)
    finally:
        os.close(folder)
