"""Commands on a vault."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from certified.cli._answer import DONE, NOTHING, REFUSED, Answer
from certified.cli._light import write_secret
from certified.errors import InvalidInput, MissingExtra, StorageFailed
from certified.ledger import SigningKey
from certified.ledger._database import connect
from certified.vault import Request, Vault

__all__ = [
    *("audit", "fit", "process", "release", "report", "request", "seal", "serve", "status", "token", "vault", "verify"),
]


def fit(given: argparse.Namespace) -> Answer:
    """Fit what a TOML file describes and make a vault of it."""
    from certified.cli._model import described, fitted, read_as

    about = described(given.model)
    model = fitted(about, given.model.parent)
    origin = about["origin"]
    key = None if given.key_file is None else SigningKey.from_pem(origin, given.key_file.read_bytes())
    with Vault.create(
        given.vault,
        model,
        name=about["name"],
        version=about["version"],
        origin=origin,
        key=key,
        about=about["about"],
        encrypted=about["encrypted"],
    ) as made:
        values = made.status() | {"key": made.keys[-1].vkey}
    rows, subjects = int(model.n_rows_), len(model.ids_)
    lines = [
        f"Fitted {about['name']} on {rows:,} rows of {subjects:,} subjects; the vault is {given.vault}.",
        *read_as(model),
        f"Verifier key, to hand to auditors: {values['key']}",
        f"Next: certified request {given.vault} --key REQUEST --ids ids.txt",
    ]
    return Answer(values | {"rows": rows, "subjects": subjects}, lines)


def request(given: argparse.Namespace) -> Answer:
    """Record a request."""
    ids = _ids(given.ids)
    with _open(given) as vault:
        chosen = vault.as_held(ids)
        if given.plan:
            told = vault.plan(chosen)
            lines = [f"{name}: {value}" for name, value in told.items()]
            return Answer(told, lines, REFUSED if told.get("refused") or told.get("held") else DONE)
        made = vault.request(
            chosen,
            key=given.key,
            basis=given.basis,
            received=given.received,
            due=given.due,
            actor=given.actor,
            missing=given.missing,
        )
    next_step = f"Next: certified process {given.vault}" if made.status == "queued" else ""
    return Answer(_plain(made), [f"Request {made.key}: {made.status}, due {made.due}.", *filter(None, [next_step])])


def process(given: argparse.Namespace) -> Answer:
    """Carry out what waits."""
    with _open(given) as vault:
        done = vault.process(seal=not given.no_seal, limit=given.limit)
        held = vault.requests("held")
    values = {
        "requests": [_plain(one) for one in done.requests],
        "subjects": done.subjects,
        "rows": done.rows,
        "generation": done.generation,
        "sealed": done.sealed,
        "held": [one.key for one in held],
    }
    if not done:
        return Answer(values, ["Nothing waits." if not held else f"Nothing to do; held: {len(held)}."], NOTHING)
    refused = [one for one in done.requests if one.status == "refused"]
    lines = [f"{done.subjects} subjects with {done.rows} rows are deleted and erased."]
    if not done.sealed:
        lines.append(f"The keeper is not sealed yet: certified seal {given.vault}")
    lines.append(f"Next: certified report {given.vault} --request {done.requests[0].key}")
    return Answer(values, lines, REFUSED if refused else DONE, _listed(done.requests))


def seal(given: argparse.Namespace) -> Answer:
    """Seal the keeper."""
    with _open(given) as vault:
        done = vault.seal()
    return Answer({"sealed": True, "done": done}, ["Sealed." if done else "It was sealed."], DONE if done else NOTHING)


def status(given: argparse.Namespace) -> Answer:
    """Show what is held, open and overdue."""
    with _open(given, read_only=True) as vault:
        values = vault.status()
        requests = vault.requests()
    if given.requests:
        values["list"] = [_plain(one) for one in requests]
    lines = [
        f"{values['model']['name']} {values['model']['version']}, generation {values['generation']}, "
        f"{'sealed' if values['sealed'] else 'NOT SEALED'}; releases: {values['releases']}",
        f"Requests: {', '.join(f'{n} {name}' for name, n in values['requests'].items()) or 'none'}",
        f"Overdue: {', '.join(values['overdue']) or 'none'}",
        f"Log: {values['entries']} entries, root {values['root']}",
        f"Files: {values['bytes'] / 1e6:,.1f} MB on {values['fileSystem']}",
    ]
    return Answer(values, lines, REFUSED if values["overdue"] else DONE, _listed(requests) if given.requests else ())


def release(given: argparse.Namespace) -> Answer:
    """Publish the present model."""
    with _open(given) as vault:
        out = vault.release(given.to)
    values = {"release": out.n, "folder": str(out.folder), "sha256": out.digest}
    return Answer(values, [f"Release {out.n} is in {out.folder}, with its public certificate."])


def verify(given: argparse.Namespace) -> Answer:
    """Verify a vault."""
    against = given.against.read_text() if given.against else None
    given.vault, given.key_file = given.target, None
    with _open(given, read_only=not given.replay) as vault:
        found = vault.verify(replay=given.replay, against=against)
    values = {"verified": bool(found), "problems": list(found.problems), "checked": list(found.checked)}
    return Answer(values, [str(found)], DONE if found else REFUSED)


def report(given: argparse.Namespace) -> Answer:
    """Write documents."""
    if (given.request is None) == (given.release is None):
        raise InvalidInput("certified report needs either --request or --release.")
    with _open(given, read_only=not given.receipts) as vault:
        if given.receipts:
            several = vault.hand_out(given.request)
        elif given.request is not None:
            several = [vault.document("controller", request=given.request)]
        else:
            several = [vault.document("public", release=given.release)]
    written = []
    for i, signed in enumerate(several):
        folder = given.out / f"{i + 1}" if len(several) > 1 else given.out
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in signed.files().items():
            (folder / name).write_text(text, encoding="utf-8")
            written.append(str(folder / name))
    return Answer({"files": written}, written)


def audit(given: argparse.Namespace) -> Answer:
    """Measure the newest release on data that it has not seen, beside the release before."""
    from certified import audit as audits
    from certified.cli._model import read_table

    frame = read_table(given.data)
    y = frame[given.target].to_numpy()
    groups = None if given.groups is None else frame[given.groups].to_numpy()
    X = frame.drop(given.target)
    with _open(given, read_only=True) as vault:
        rows = vault.db.execute("select n, digest from release order by n desc limit 2").fetchall()
        names = getattr(vault.model, "feature_names_in_", None)
    if not rows:
        raise InvalidInput("certified audit needs a release. Make one with `certified release`.")
    X = X.select(list(names)) if names is not None else X
    after, *before = [_released(given.vault, n, digest) for n, digest in rows]
    compared = audits.utility(before[0] if before else after, after, X, y, groups=groups, tolerance=given.tolerance)
    table = [
        ("Metric", "Before", "After"),
        *((k, f"{compared.before[k]:.4g}", f"{v:.4g}") for k, v in compared.after.items()),
    ]
    return Answer(compared.to_dict(), [compared.reason], REFUSED if compared.refuted else DONE, table)


def vault(given: argparse.Namespace) -> Answer:
    """Search for ids, hold subjects, make or restore a backup."""
    if given.what in ("backup", "restore"):
        return _backup(given)
    with _open(given, read_only=given.what == "trace") as opened:
        ids = opened.as_held(_ids(given.ids))
        if given.what == "trace":
            found = opened.trace(ids)
            lines = [f"{name}: {', '.join(files)}" for name, files in found.items()] or [
                "No file of the vault holds them."
            ]
            return Answer({"found": found}, lines, REFUSED if found else DONE)
        if given.what == "hold":
            if not given.reason:
                raise InvalidInput("certified vault hold needs --reason.")
            opened.hold(ids, given.reason)
        else:
            opened.unhold(ids)
    return Answer({given.what: len(ids)}, [f"{given.what}: {len(ids)} subjects."])


def _backup(given: argparse.Namespace) -> Answer:
    if given.file is None or given.backup_key is None:
        raise InvalidInput(f"certified vault {given.what} needs --file, the backup, and --backup-key, its key.")
    if given.what == "backup":
        with _open(given) as opened:
            key = opened.backup(given.file)
        write_secret(given.backup_key, key.hex().encode() + b"\n")
        lines = [f"{given.file} is written, its key is in {given.backup_key}. Keep them apart."]
        return Answer({"file": str(given.file), "key": str(given.backup_key)}, lines)
    key = bytes.fromhex(given.backup_key.read_text().strip())
    against = given.against.read_text() if given.against else None
    with Vault.restore(given.file, given.vault, key, against=against) as opened:
        values = opened.status()
    return Answer(values, [f"{given.vault} is restored; its log has {values['entries']} entries."])


def serve(given: argparse.Namespace) -> Answer:
    """Serve a vault over HTTP until it is stopped."""
    from certified.service import create_app

    try:
        import uvicorn
    except ImportError:
        raise MissingExtra("certified serve", "uvicorn", "service") from None
    uvicorn.run(create_app(given.vault), host=given.host, port=given.port, access_log=False, server_header=False)
    return Answer({"stopped": True})


def token(given: argparse.Namespace) -> Answer:
    """Make a token for the service."""
    from certified.service import new_token

    made = new_token(given.vault, given.role)
    return Answer({"token": made, "role": given.role}, [made])


def _open(given: argparse.Namespace, *, read_only: bool = False) -> Vault:
    key = None
    if given.key_file is not None:
        if not (given.vault / "vault.db").exists():
            raise StorageFailed(f"There is no vault at {given.vault}.")
        db = connect(given.vault / "vault.db")
        (origin,) = db.execute("select origin from log").fetchone()
        db.close()
        key = SigningKey.from_pem(origin, given.key_file.read_bytes())
    return Vault.open(given.vault, key=key, read_only=read_only)


def _ids(source: str) -> list[str]:
    """Read ids, one a line, from a file or standard input; never from the command line, which others can see."""
    text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _released(folder: Path, n: int, digest: str) -> Any:
    """Load a release that this vault wrote, once its digest is that of the log."""
    data = (folder / "out" / f"{n:06d}" / "release.pkl").read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise StorageFailed(f"The file of release {n} is another one than was logged. It was not loaded.")
    return pickle.loads(data)


def _plain(made: Request) -> dict[str, Any]:
    return asdict(made) | {"overdue": made.overdue}


def _listed(requests: Any) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("Request", "Status", "Subjects", "Rows", "Due", "Reason")]
    for one in requests:
        counts = ["" if value is None else str(value) for value in (one.subjects, one.rows)]
        rows.append((one.key, one.status, *counts, one.due, one.reason[:60]))
    return rows
