"""What a vault does, step by step, and how each step is finished after a crash.

The order of a batch: new state durable (nobody reads it yet); one transaction that makes it the state, empties the ids
and
writes the journal of rows to overwrite, the point of no return; rows and old states overwritten; one transaction that
says
so. A crash before the point of no return leaves a file that nobody names. After it, opening overwrites again, which
needs
positions and no ids.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from certified._data.subjects import as_ids
from certified.errors import CannotCertify, InvalidRequest
from certified.vault._backup import forget_keys
from certified.vault._documents import find, issue, publish
from certified.vault._files import sync_folder, write_new
from certified.vault._folder import Folder
from certified.vault._keeper import Keeper, Saved, erase_rows, remove_all_but, state_path
from certified.vault._values import Processed, Published, utc

__all__ = ["add", "plan", "process", "recover", "release", "seal", "status"]


@dataclass(frozen=True)
class Wanted:
    """A request that is being carried out: what it removes, and how many of its ids are not held (any more)."""

    n: int
    key: str
    ids: list[Any]
    rows: int
    absent: int


def process(vault: Folder, sealing: bool, limit: int | None) -> Processed:
    """Carry out a batch of requests."""
    finish(vault)
    taken = _choose(vault, limit)
    if not taken:
        return Processed((), 0, 0, _generation(vault), _sealed(vault))
    model = vault.keeper().model
    wanted: list[Wanted] = []
    gone: set[Any] = set()
    known = set(_held(model, list(dict.fromkeys(subject for _, _, ids, _ in taken for subject in ids)))[0])
    for n, key, ids, missing in taken:
        held = [subject for subject in ids if subject in known]
        absent = len(ids) - len(held)
        if absent and missing == "raise":
            _refuse(vault, n, key, f"{absent} of its ids are not held.")
            continue
        new = [subject for subject in held if subject not in gone]
        rows = int(model._subjects.rows_of(np.array(new)).size) if new else 0
        wanted.append(Wanted(n, key, new, rows, len(ids) - len(new)))
        gone |= set(new)
    done, receipts = _delete(vault, model, wanted)
    if done:
        _commit(vault, model, done, receipts, sealing)
        finish(vault)
    found = tuple(vault.find(key) for _, key, *_ in taken)
    removed = [request for request in found if request.status == "erased"]
    subjects, rows = (sum(getattr(request, name) or 0 for request in removed) for name in ("subjects", "rows"))
    return Processed(found, subjects, rows, _generation(vault), _sealed(vault))


def _choose(vault: Folder, limit: int | None) -> list[tuple[int, str, list[Any], str]]:
    """Return the requests that can be carried out; the others are marked as held."""
    query = "select n, key, ids, missing, status from request where status in ('queued', 'held') order by n"
    chosen: list[tuple[int, str, list[Any], str]] = []
    for n, key, text, missing, status in vault.db.execute(query).fetchall():
        if limit is not None and len(chosen) >= limit:
            break
        ids = json.loads(text)
        reasons = _reasons_to_keep(vault, ids)
        if reasons and status == "queued":
            with vault.ledger.transaction():
                vault.db.execute("update request set status = 'held', reason = ? where n = ?", ("; ".join(reasons), n))
                vault.ledger.append("request-held", request=key, reason="; ".join(reasons))
        elif not reasons:
            chosen.append((n, key, ids, missing))
    return chosen


def _reasons_to_keep(vault: Folder, ids: list[Any]) -> list[str]:
    if not vault.db.execute("select 1 from hold limit 1").fetchone():
        return []
    found = (vault.db.execute("select reason from hold where digest = ?", (vault.keyed(i),)).fetchone() for i in ids)
    return sorted({row[0] for row in found if row is not None})


def _held(model: Any, ids: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return which of these ids the model holds, and which it does not."""
    whole = model._subjects.by_position()[0].dtype.kind == "i"
    known = set()
    possible = [subject for subject in ids if isinstance(subject, int) == whole]
    if possible:
        wanted = as_ids(possible, "request(ids=...)")
        known = set(wanted[model._subjects.holds(wanted, "request(ids=...)")].tolist())
    return [subject for subject in ids if subject in known], [subject for subject in ids if subject not in known]


def _refuse(vault: Folder, n: int, key: str, reason: str) -> None:
    with vault.ledger.transaction():
        now = utc()
        vault.db.execute("update request set status = 'refused', reason = ?, decided = ? where n = ?", (reason, now, n))
        vault.ledger.append("refused", request=key, reason=reason)


def _delete(vault: Folder, model: Any, wanted: list[Wanted]) -> tuple[list[Wanted], list[Any]]:
    """Delete in memory; where the whole batch cannot go, request by request. Return what went, and the receipts."""
    together = [subject for one in wanted for subject in one.ids]
    if not together:
        return wanted, []
    try:
        return wanted, [model.delete(together)]
    except (InvalidRequest, CannotCertify):
        pass  # nothing was changed
    done, receipts = [], []
    for one in wanted:
        try:
            receipts += [model.delete(one.ids)] if one.ids else []
            done.append(one)
        except (InvalidRequest, CannotCertify) as error:
            _refuse(vault, one.n, one.key, str(error))
    return done, receipts


def _commit(vault: Folder, model: Any, done: list[Wanted], receipts: list[Any], sealing: bool) -> None:
    """Write the new state, then make it the state: the point of no return."""
    exact = not receipts or model.certificate_.claim == "exact"
    sealed = (_refine(model) if sealing else False) or exact
    generation, before = vault.db.execute("select generation, state from vault").fetchone()
    keeper = vault.keeper()
    saved = keeper.save(generation + 1)
    certificate, now = model.certificate_, utc()
    method = receipts[-1].method if receipts else "exact"
    changed = sorted({step for receipt in receipts for step in receipt.changed})
    differencing = max((float(receipt.mu_differencing) for receipt in receipts), default=0.0)
    batch = (now, certificate.to_json(), before, saved.digest, repr(differencing), method)
    more = (sum(receipt.passes for receipt in receipts), json.dumps(changed), now if sealed else None)
    with vault.ledger.transaction():
        _install(vault, generation + 1, saved, sealed and (bool(receipts) or _sealed(vault)))
        names = "removed, certificate, before, after, differencing, method, passes, changed, sealed"
        vault.db.execute(f"insert into batch({names}) values(?,?,?,?,?,?,?,?,?)", batch + more)
        for one in done:
            vault.db.execute(
                "update request set status = 'removed', ids = null, reason = '', removed = ?1, subjects = ?2, rows = "
                "?3, "
                "decided = coalesce(decided, ?1), absent = ?4 where n = ?5",
                (now, len(one.ids), one.rows, one.absent, one.n),
            )
            excluded = [(vault.keyed(subject), now) for subject in one.ids]
            vault.db.executemany("insert or replace into exclusion values(?, ?)", excluded)
            digests = vault.db.execute("select digest from commitment where request = ?", (one.n,))
            vault.ledger.append(
                "removed",
                request=one.key,
                subjects=[digest.hex() for (digest,) in digests],
                count=len(one.ids),
                rows=one.rows,
                absent=one.absent,
                method=method,
                mu=float(certificate.mu),
                muTarget=float(certificate.mu_target),
                certificate=certificate.digest,
                state=[before, saved.digest],
            )
    _adopt(vault, generation + 1, keeper, saved)


def _install(vault: Folder, generation: int, saved: Saved, sealed: bool) -> None:
    """Make a saved state the state, and journal what it makes superfluous; inside a transaction."""
    vault.db.execute("update vault set generation = ?, state = ?, sealed = ?", (generation, saved.digest, int(sealed)))
    vault.db.execute("delete from part")
    vault.db.executemany("insert into part values(?)", [(name,) for name in saved.parts])
    vault.db.executemany("insert into journal values(?, ?)", saved.erase)


def _adopt(vault: Folder, generation: int, keeper: Keeper, saved: Saved) -> None:
    """Go on with the keeper in memory, unless there are files of rows that it has not mapped."""
    for name in set(keeper.parts) - set(saved.parts):
        del keeper.parts[name]
    vault._keeper = (generation, keeper) if set(saved.parts) == set(keeper.parts) else None


def finish(vault: Folder) -> bool:
    """Overwrite what the journal names and the states of before, and say so; return whether there was anything."""
    db = vault.db
    journal = db.execute("select part, row from journal").fetchall()
    waiting = db.execute("select n, key from request where status = 'removed' order by n").fetchall()
    parts = erase_rows(vault.path, journal) if journal else []
    states = remove_all_but(vault.path / "state", [state_path(vault.path, _generation(vault)).name])
    if not journal and not waiting:
        return bool(states)
    with vault.ledger.transaction():
        db.execute("delete from journal")
        if waiting:
            forget_keys(vault)
            issue(vault, waiting, parts)
            for n, _ in waiting:
                digests = db.execute("select digest from commitment where request = ?", (n,)).fetchall()
                vault.ledger.erase_salts(digest for (digest,) in digests)
                db.execute("delete from commitment where request = ?", (n,))
                db.execute("update request set status = 'erased', erased = ? where n = ?", (utc(), n))
    return True


def seal(vault: Folder) -> bool:
    """Pass over the retained rows, and replace the state."""
    finish(vault)
    if _sealed(vault):
        return False
    keeper = vault.keeper()
    if not _refine(keeper.model):
        return False
    _replace(vault, keeper, "sealed", sealed=True)
    return True


def _replace(
    vault: Folder, keeper: Keeper, kind: str, *, sealed: bool, within: Callable[[], None] | None = None, **fields: Any
) -> int:
    """Store the model as it is now under a new generation, with an entry; return the place of the entry.

    What `within` does to the database holds if, and only if, the new generation does.
    """
    generation, before = vault.db.execute("select generation, state from vault").fetchone()
    saved = keeper.save(generation + 1)
    with vault.ledger.transaction():
        _install(vault, generation + 1, saved, sealed)
        if within is not None:
            within()
        if kind == "sealed":
            vault.db.execute("update batch set sealed = ? where sealed is null", (utc(),))
        entry = vault.ledger.append(kind, state=[before, saved.digest], **fields)
    _adopt(vault, generation + 1, keeper, saved)
    finish(vault)
    return entry


def _refine(model: Any) -> bool:
    """Make the state a function of the retained rows alone, up to the distance that is certified; say whether it is."""
    if hasattr(model, "refine"):
        model.refine()
        return True
    return bool(model.certificate_.claim == "exact")


def add(vault: Folder, X: Any, y: Any, ids: Any, readmit: bool, more: dict[str, Any]) -> None:
    """Add rows, unless a subject was deleted before."""
    from certified._data.frames import split_ids

    finish(vault)
    new = as_ids(split_ids(X, ids)[1], "add(ids=...)").tolist()
    digests = [vault.keyed(subject) for subject in dict.fromkeys(new)]
    known = [d for d in digests if vault.db.execute("select 1 from exclusion where digest = ?", (d,)).fetchone()]
    if known and not readmit:
        raise InvalidRequest(
            f"add(ids=...) got {len(known)} subjects that were deleted before. Leave them out, or pass readmit=True if "
            "they "
            "have agreed. Nothing was changed."
        )
    keeper = vault.keeper()
    given = (X,) if y is None else (X, y)
    keeper.model.add(*given, ids=ids, **more)

    def readmit_known() -> None:
        vault.db.executemany("delete from exclusion where digest = ?", [(d,) for d in known])
        vault.ledger.append("readmitted", count=len(known))

    within, fields = readmit_known if known else None, {"rows": len(new), "subjects": len(digests)}
    _replace(vault, keeper, "added", sealed=_sealed(vault), within=within, **fields)


def release(vault: Folder, recipients: tuple[str, ...]) -> Published:
    """Draw, store, log, write, hand out; in this order, so that no draw leaves that a crash could forget."""
    finish(vault)
    keeper = vault.keeper()
    published = keeper.model.release()
    data = pickle.dumps(published, protocol=5)
    digest = hashlib.sha256(data).hexdigest()
    certificate = keeper.model.certificate_
    n = vault.db.execute("select coalesce(max(n), 0) + 1 from release").fetchone()[0]
    folder = vault.path / "out" / f"{n:06d}"
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
    write_new(folder / "release.pkl.waiting", lambda file: file.write(data))
    generation, before = vault.db.execute("select generation, state from vault").fetchone()
    saved = keeper.save(generation + 1)
    with vault.ledger.transaction():
        _install(vault, generation + 1, saved, _sealed(vault))
        vault.db.execute(
            "insert into release values(?,?,?,?,?,?,0)",
            (n, utc(), generation + 1, certificate.claim, repr(float(certificate.mu)), digest),
        )
        vault.db.executemany("insert into recipient values(?, ?, ?)", [(n, name, utc()) for name in recipients])
        publish(vault, n, certificate, digest, [before, saved.digest])
    _adopt(vault, generation + 1, keeper, saved)
    finish(vault)
    write_releases(vault)
    return Published(n, published, folder, digest)


def write_releases(vault: Folder) -> None:
    """Put the files of releases that are logged into their places."""
    for (n,) in vault.db.execute("select n from release where written = 0 order by n").fetchall():
        folder = vault.path / "out" / f"{n:06d}"
        signed = find(vault, "public", None, n)
        for name, text in signed.files().items():
            write_new(folder / name, partial(_write_text, text))
        waiting = folder / "release.pkl.waiting"
        if waiting.exists():
            waiting.rename(folder / "release.pkl")
        sync_folder(folder)
        with vault.ledger.transaction():
            vault.db.execute("update release set written = 1 where n = ?", (n,))


def _write_text(text: str, file: Any) -> None:
    file.write(text.encode())


def recover(vault: Folder) -> None:
    """Finish what was committed, and remove what was not."""
    finish(vault)
    db = vault.db
    remove_all_but(vault.path / "rows", [name for (name,) in db.execute("select name from part")])
    known = {f"{n:06d}" for (n,) in db.execute("select n from release")}
    for folder in sorted((vault.path / "out").iterdir()):
        if folder.name not in known:
            _remove_folder(folder)
    write_releases(vault)


def _remove_folder(folder: Path) -> None:
    remove_all_but(folder, ())
    folder.rmdir()
    sync_folder(folder.parent)


def plan(vault: Folder, ids: Any) -> dict[str, Any]:
    """Tell what a request would do."""
    model = vault.keeper().model
    wanted = list(dict.fromkeys(as_ids(ids, "plan(ids=...)").tolist()))
    held, absent = _held(model, wanted)
    out: dict[str, Any] = {"subjects": len(held), "absent": len(absent), "held": _reasons_to_keep(vault, wanted)}
    if not held:
        return {**out, "rows": 0, "refused": ""}
    found = model.plan(held)
    told = {"rows": found.n_rows, "refused": found.refused, "method": found.method, "passes": found.passes}
    return {**out, **told, "changed": list(found.changed), "seconds": found.seconds}


def status(vault: Folder) -> dict[str, Any]:
    """Return what a person wants to see at a glance."""
    db = vault.db
    identity, created, generation, sealed, model, encrypted = db.execute(
        "select id, created, generation, sealed, model, encrypted from vault"
    ).fetchone()
    counts = dict(db.execute("select status, count(*) from request group by status").fetchall())
    late = [request.key for request in vault.requests() if request.overdue]
    kind, remark = vault.file_system()
    last = vault.ledger[len(vault.ledger) - 1]
    return {
        "vault": identity,
        "created": created,
        "model": json.loads(model),
        "generation": generation,
        "sealed": bool(sealed),
        "requests": counts,
        "overdue": late,
        "releases": db.execute("select count(*) from release").fetchone()[0],
        "entries": len(vault.ledger),
        "root": vault.ledger.root.hex(),
        "lastEntry": {"kind": last["kind"], "at": last["at"]},
        "fileSystem": kind,
        "remark": remark,
        "encrypted": encrypted,
        "bytes": sum(path.stat().st_size for path in vault.path.rglob("*") if path.is_file()),
    }


def _generation(vault: Folder) -> int:
    return vault.db.execute("select generation from vault").fetchone()[0]


def _sealed(vault: Folder) -> bool:
    return bool(vault.db.execute("select sealed from vault").fetchone()[0])
