"""Verification of a vault: log, state, rows, documents; and by choice what the certificate says, computed anew."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import Any

from certified.errors import CertifiedError
from certified.ledger import Note
from certified.report import open_document
from certified.vault._container import dumps, loads
from certified.vault._folder import Folder
from certified.vault._keeper import is_zero, state_path
from certified.vault._owners import rows_by_owner
from certified.vault._parts import place
from certified.vault._replay import replay
from certified.vault._values import Verification

__all__ = ["verify"]


def verify(vault: Folder, again: bool, against: Note | str | None) -> Verification:
    """Return what is wrong with a vault; see :meth:`Vault.verify`."""
    run = _Run(vault)
    findings = vault.ledger.verify(against=against)
    run.problems += findings.problems
    run.checked.append(f"the log: {findings.size} entries, {findings.heads} signed heads")
    for check in (run.files, run.requests, run.rows, run.documents, run.releases, *((run.replayed,) if again else ())):
        try:
            check()
        except (CertifiedError, OSError) as error:
            run.problems.append(str(error))
    found = Verification(tuple(run.problems), tuple(run.checked))
    if again and vault.ledger.key is not None:
        vault.ledger.append("verified", replay=True, problems=len(found.problems))
    return found


class _Run:
    def __init__(self, vault: Folder) -> None:
        self.vault = vault
        self.problems: list[str] = []
        self.checked: list[str] = []

    def files(self) -> None:
        """The state is the one that was committed, and nothing else lies about."""
        db, path = self.vault.db, self.vault.path
        generation, digest = db.execute("select generation, state from vault").fetchone()
        state = state_path(path, generation)
        data = state.read_bytes()
        if hashlib.sha256(data[:-32]).hexdigest() != digest or data[-32:].hex() != digest:
            self.problems.append(f"The state {state.name} is another one than was committed.")
        expected = {"state": {state.name}, "rows": {name for (name,) in db.execute("select name from part")}}
        for folder, names in expected.items():
            there = {entry.name for entry in (path / folder).iterdir()}
            if there != names:
                self.problems.append(f"{folder}: missing {sorted(names - there)}, superfluous {sorted(there - names)}.")
        if db.execute("select count(*) from journal").fetchone()[0]:
            self.problems.append("Rows are waiting to be overwritten; opening the vault does it.")
        self.checked.append("the state and the list of files")

    def requests(self) -> None:
        """Each request is logged as often as it was carried out, and its ids are gone."""
        logged: Counter[tuple[str, str]] = Counter()
        states: list[str] = []
        for entry in self.vault.ledger:
            if "request" in entry:
                logged[entry["kind"], entry["request"]] += 1
            if entry["kind"] in ("removed", "sealed", "added", "released") and "state" in entry:
                states.append(entry["state"][1])
        query = "select key, status, ids is null from request order by n"
        for key, status, empty in self.vault.db.execute(query):
            expected = {
                "requested": 1,
                "removed": int(status in ("removed", "erased")),
                "erased": int(status == "erased"),
            }
            wrong = [kind for kind, times in expected.items() if logged[kind, key] != times]
            if wrong:
                self.problems.append(f"The request {key} is {status}, and its entries {wrong} do not say so.")
            if bool(empty) != (status in ("removed", "erased")):
                self.problems.append(f"The request {key} is {status}, and its ids are {'gone' if empty else 'there'}.")
        (digest,) = self.vault.db.execute("select state from vault").fetchone()
        if states and states[-1] != digest:
            self.problems.append("The newest state is not the one that the log names.")
        self.checked.append("requests against the log")

    def rows(self) -> None:
        """Rows of deleted subjects are zeros in every array of numbers or text with a row for each row of the data.

        Codes are left out, where zero is a code like others. Each model of a search has places of its own.
        """
        keeper = self.vault.keeper()
        files = {part.place: name for name, part in keeper.parts.items()}
        looked, arrays = set(), 0
        for path, array, held in rows_by_owner(keeper.model, lambda array: place(array) in files):
            if array.dtype.kind not in "fU":
                continue
            name = files.get(place(array))
            looked.add(name)
            arrays += 1
            if not is_zero(array[~held]).all():
                where = path if name is None else f"rows/{name} ({path})"
                self.problems.append(f"{where} holds bytes at places of deleted rows.")
        gone = int((~keeper.model._subjects.retained).sum())
        self.checked.append(f"{gone} deleted rows in {arrays} arrays, {len(looked - {None})} of them files of rows")

    def documents(self) -> None:
        """Every document is signed by a key of the log and named by its entry."""
        n = 0
        for kind, digest, entry, body in self.vault.db.execute("select kind, digest, entry, body from document"):
            opened = open_document(body, self.vault.keys)
            logged = json.loads(self.vault.ledger.body(entry))
            if opened.digest != digest or digest not in (logged.get("certificate"), *logged.get("receipts", ())):
                self.problems.append(f"A document ({kind}) is not the one that entry {entry} names.")
            n += 1
        self.checked.append(f"{n} documents")

    def releases(self) -> None:
        """Every file that was released is the one that was logged."""
        rows = self.vault.db.execute("select n, digest from release").fetchall()
        for n, digest in rows:
            file = self.vault.path / "out" / f"{n:06d}" / "release.pkl"
            if not file.exists():
                self.checked.append(f"release {n}: its file is not kept here")
            elif hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                self.problems.append(f"The file of release {n} is another one than was logged.")
        self.checked.append(f"{len(rows)} releases")

    def replayed(self) -> None:
        """What the certificate says holds on the rows that are retained."""
        keeper = self.vault.keeper()
        head, arrays = dumps(keeper.model, trusted=keeper.trusted)
        copy = loads(_whole(head, arrays), trusted=keeper.trusted)
        found, told = replay(keeper.model, copy)
        self.problems += found
        self.checked += told


def _whole(head: bytes, arrays: list[Any]) -> bytes:
    body = bytearray(head)
    for array in arrays:
        order = "F" if array.ndim > 1 and not array.flags.c_contiguous else "C"
        body += array.tobytes(order) + bytes(-array.nbytes % 64)
    return bytes(body) + hashlib.sha256(body).digest()
