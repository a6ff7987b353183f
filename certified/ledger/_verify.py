"""Verification of a whole log: every entry, every root, every signature, every change of keys."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certified._keeper.record import canonical
from certified.errors import CertifiedError, NotVerified
from certified.ledger._keys import VerifyingKey
from certified.ledger._merkle import Edge, leaf_hash
from certified.ledger._notes import Checkpoint, Note

__all__ = ["Findings", "verify"]


@dataclass(frozen=True)
class Findings:
    """What the verification of a log found; false where anything is wrong.

    Attributes
    ----------
    size : int
        Entries read.
    heads : int
        Signed heads checked.
    problems : tuple of str
        One sentence each, none where all is well.
    """

    size: int
    heads: int
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        checked = f"{self.size} entries and {self.heads} signed heads checked"
        if not self.problems:
            return f"The log verifies: {checked}."
        return "\n".join([f"The log does not verify ({checked}):", *(f"- {x}" for x in self.problems)])


def verify(
    ledger: Any, against: Note | str | None, trusted: Sequence[VerifyingKey] | None, signatures: str
) -> Findings:
    """Return what is wrong with a log; see :meth:`Ledger.verify`."""
    if signatures not in ("all", "newest"):
        raise ValueError(f'verify(signatures=...) got {signatures!r}; "all" and "newest" are allowed.')
    run = _Run(ledger)
    try:
        run.stored_keys(trusted)
        run.entries_and_heads(signatures == "all")
        run.stored_edge()
        if against is not None:
            run.known_head(Note.parse(against) if isinstance(against, str) else against)
    except CertifiedError as error:
        run.problems.append(str(error))
    return Findings(run.edge.size, run.heads, tuple(run.problems))


class _Run:
    def __init__(self, ledger: Any) -> None:
        self.ledger = ledger
        self.edge = Edge()
        self.heads = 0
        self.problems: list[str] = []
        self.keys: list[tuple[VerifyingKey, int]] = []
        self.rotations: list[tuple[str, int]] = []  # what the entries say of keys, to be compared with what is stored

    def stored_keys(self, trusted: Sequence[VerifyingKey] | None) -> None:
        stored = self.ledger.db.execute("select vkey, since from key order by n").fetchall()
        self.keys = [(VerifyingKey.parse(text), since) for text, since in stored]
        if not self.keys or self.keys[0][1] != 0:
            raise NotVerified(f"The log {self.ledger.origin} does not name the key with which it began.")
        if trusted is not None and self.keys[0][0] not in trusted:
            self.problems.append(f"The first key of the log, {self.keys[0][0].vkey}, is not among the trusted keys.")

    def entries_and_heads(self, every_signature: bool) -> None:
        db = self.ledger.db
        heads = db.execute("select size, root, note from head order by size")
        head = heads.fetchone()
        newest = db.execute("select max(size) from head").fetchone()[0] or 0
        for seq, body in db.execute("select seq, body from entry order by seq"):
            if seq != self.edge.size:
                self.problems.append(f"Entry {self.edge.size} is missing; the next one has the number {seq}.")
                return
            self._entry(seq, body)
            self.edge = self.edge.append(leaf_hash(body))
            if head is not None and head[0] == self.edge.size:
                self._solver(*head, check=every_signature or head[0] == newest)
                head = heads.fetchone()
        if head is not None:
            self.problems.append(f"A head of size {head[0]} is signed, and there are {self.edge.size} entries.")
        elif newest != self.edge.size:
            self.problems.append(f"The newest signed head has size {newest}, and there are {self.edge.size} entries.")
        if [(key.vkey, since) for key, since in self.keys[1:]] != self.rotations:
            self.problems.append("The stored keys are not those to which the entries of the log go over.")

    def _entry(self, seq: int, body: bytes) -> None:
        try:
            entry = json.loads(body)
            good = entry["seq"] == seq and entry["v"] == 1 and isinstance(entry["kind"], str)
        except (ValueError, KeyError, TypeError, CertifiedError):
            good = False
        if not good:
            self.problems.append(f"Entry {seq} is not as the log writes entries.")
        elif entry["kind"] == "key-rotated":
            self._rotation(seq, entry)

    def _rotation(self, seq: int, entry: dict[str, Any]) -> None:
        try:
            new = VerifyingKey.parse(entry["key"])
            old = VerifyingKey.parse(self.rotations[-1][0]) if self.rotations else self.keys[0][0]
            vouched = canonical({"origin": self.ledger.origin, "size": seq, "key": new.vkey})
            good = all(
                key.verifies(base64.b64decode(entry[name], validate=True), vouched)
                for name, key in (("byOld", old), ("byNew", new))
            )
        except (CertifiedError, KeyError, ValueError, TypeError):
            good = False
        if good:
            self.rotations.append((new.vkey, seq + 1))
        else:
            self.problems.append(f"Entry {seq} goes over to a key for which the key before does not vouch.")

    def _solver(self, size: int, root: bytes, text: str, *, check: bool) -> None:
        self.heads += 1
        expected = Checkpoint(self.ledger.origin, size, self.edge.root)
        if root != expected.root:
            self.problems.append(f"The first {size} entries have another root than the head of that size.")
        note = Note.parse(text)
        if note.text != expected.text:
            self.problems.append(f"The head of size {size} signs something else than the first {size} entries.")
        if not check:
            return
        at_rotation = [key for key, since in self.keys if since == size and size]
        in_force = [key for key, since in self.keys if since < max(size, 1)][-1]
        needed = [in_force, *at_rotation]
        if set(note.signers(needed)) != set(needed) or len(note.signatures) != len(needed):
            self.problems.append(f"The head of size {size} is not signed by the key of the log.")

    def stored_edge(self) -> None:
        size, nodes = self.ledger.db.execute("select size, nodes from edge").fetchone()
        if (size, nodes) != (self.edge.size, self.edge.to_bytes()):
            self.problems.append("What is stored to append to the log does not belong to its entries.")

    def known_head(self, note: Note) -> None:
        known = Checkpoint.parse(note.text)
        if known.origin != self.ledger.origin or not note.signers([key for key, _ in self.keys]):
            self.problems.append("The head that was given is not signed by a key of this log.")
        elif known.size > self.edge.size:
            self.problems.append(
                f"A head of size {known.size} is known, and the log has {self.edge.size} entries: it was cut off or "
                "rolled "
                "back."
            )
        elif self.ledger._root_of(known.size) != known.root:
            self.problems.append(f"The first {known.size} entries are others than those of the head that was given.")
