"""Commands of an auditor, who needs neither NumPy nor JAX: verify documents, read and prove the log, handle keys."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from certified.cli._answer import DONE, REFUSED, Answer
from certified.errors import InvalidInput, NotVerified
from certified.ledger import Ledger, LogProof, SigningKey, VerifyingKey, Witness
from certified.report import open_document

__all__ = ["keys", "ledger", "verify", "write_secret"]


def verify(given: argparse.Namespace) -> Answer:
    """Verify a signed document: signature, files, place in the log."""
    if given.key is None:
        raise InvalidInput(
            "certified verify: a document is verified with --key, a file of verifier keys that you trust."
        )
    trusted = _keys(given.key)
    files = {}
    for pair in given.file:
        name, equals, path = pair.partition("=")
        if not equals:
            raise InvalidInput(f"certified verify --file got {pair!r}; NAME=PATH is needed.")
        files[name] = Path(path)
    opened = open_document(given.target.read_bytes(), trusted, files)
    lines = [f"Signed by {trusted[-1].name}: {opened.document.kind} document."]
    lines += [f"About {name}: {'verified' if name in files else 'not checked'}." for name in opened.files]
    values = {"verified": True, "kind": opened.document.kind, "files": dict(opened.files), "digest": opened.digest}
    if given.proof is not None:
        if given.entry is None:
            raise InvalidInput("certified verify --proof needs --entry, the entry of the log that the proof is about.")
        entry = given.entry.read_bytes()
        logged = json.loads(entry)
        if opened.digest not in (logged.get("certificate"), *logged.get("receipts", ())):
            raise NotVerified("The entry of the log is about another document. Pass the entry that belongs to it.")
        head = LogProof.parse(given.proof.read_text()).verify(entry, trusted)
        lines.append(f"Entry {logged['seq']} of the log {head.origin}, among {head.size}; root {head.root.hex()}.")
        values |= {"entry": logged["seq"], "origin": head.origin, "size": head.size, "root": head.root.hex()}
    return Answer(values, [*lines, "", opened.document.to_markdown()])


def ledger(given: argparse.Namespace) -> Answer:
    """Read, prove, verify, witness or export a log."""
    with Ledger.open(_database(given.path)) as log:
        return globals()[f"_{given.what}"](log, given)


def _show(log: Ledger, given: argparse.Namespace) -> Answer:
    entries = list(log)
    rows = [("No.", "At", "Kind", "About")]
    hidden = ("v", "seq", "at", "kind")
    for entry in entries:
        about = ", ".join(f"{k} {_short(v)}" for k, v in entry.items() if k not in hidden)
        rows.append((str(entry["seq"]), entry["at"], entry["kind"], about[:100]))
    return Answer({"origin": log.origin, "entries": entries}, (), DONE, rows)


def _head(log: Ledger, given: argparse.Namespace) -> Answer:
    note = str(log.checkpoint())
    if given.out is not None:
        given.out.write_text(note)
    return Answer({"head": note, "size": len(log), "root": log.root.hex()}, [note.rstrip()])


def _proof(log: Ledger, given: argparse.Namespace) -> Answer:
    if given.index is None:
        raise InvalidInput("certified ledger proof needs --index, the place of the entry.")
    text = str(log.proof(given.index))
    if given.out is not None:
        given.out.write_text(text)
    return Answer({"proof": text, "entry": log.body(given.index).decode()}, [text.rstrip()])


def _verify(log: Ledger, given: argparse.Namespace) -> Answer:
    found = log.verify(against=given.against.read_text() if given.against else None)
    values = {"verified": bool(found), "entries": found.size, "heads": found.heads, "problems": list(found.problems)}
    return Answer(values, [str(found)], DONE if found else REFUSED)


def _witness(log: Ledger, given: argparse.Namespace) -> Answer:
    if given.state is None or given.witness_key is None:
        raise InvalidInput("certified ledger witness needs --state, where heads are remembered, and --witness-key.")
    key = SigningKey.from_pem(given.name, given.witness_key.read_bytes(), witness=True)
    witness = Witness(given.state, key)
    size, _ = witness.known(log.origin)
    line = str(witness.cosign(log.checkpoint(), log.consistency(size) if size else (), log.keys[-1]))
    if given.out is not None:
        given.out.write_text(line)
    return Answer({"cosignature": line, "size": len(log)}, [line.rstrip()])


def _export(log: Ledger, given: argparse.Namespace) -> Answer:
    if given.out is None:
        raise InvalidInput("certified ledger export needs --out, a folder.")
    files = log.export_tiles(given.out)
    return Answer({"files": [str(file) for file in files]}, [f"{len(files)} files written to {given.out}."])


def keys(given: argparse.Namespace) -> Answer:
    """Make, show or change keys."""
    if given.what == "new":
        if given.name is None or given.path.exists():
            raise InvalidInput(
                "certified keys new needs --name, and a path that does not exist yet. Nothing was written."
            )
        made = SigningKey.generate(given.name, given.algorithm)
        write_secret(given.path, made.to_pem())
        return Answer({"vkey": made.public.vkey, "file": str(given.path)}, [made.public.vkey])
    with Ledger.open(_database(given.path)) as log:
        if given.what == "rotate":
            return _rotate(log, given)
        shown = [{"vkey": key.vkey, "fingerprint": key.fingerprint, "algorithm": key.algorithm} for key in log.keys]
        return Answer({"origin": log.origin, "keys": shown}, [key.vkey for key in log.keys])


def _rotate(log: Ledger, given: argparse.Namespace) -> Answer:
    stored = given.path / "key.pem" if given.path.is_dir() else given.path.with_suffix(".pem")
    file = given.key_file or stored
    log.key = SigningKey.from_pem(log.origin, file.read_bytes())
    new = SigningKey.generate(log.origin, given.algorithm)
    waiting = file.with_name(file.name + ".next")  # kept until the log names it, so that no crash can lose it
    write_secret(waiting, new.to_pem())
    log.rotate(new)
    os.replace(waiting, file)
    return Answer({"vkey": new.public.vkey}, [new.public.vkey])


def _database(path: Path) -> Path:
    return path / "vault.db" if path.is_dir() else path


def _keys(path: Path) -> list[VerifyingKey]:
    return [VerifyingKey.parse(line) for line in path.read_text().splitlines() if line.strip()]


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that its owner alone may read, durably."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 24 else text[:20] + "..."
