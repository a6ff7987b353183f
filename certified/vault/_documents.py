"""Documents of a vault: made when a deletion is through, signed, logged by their digests, found again with their "
"proofs."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from certified.certificate import Certificate
from certified.errors import InvalidRequest, StorageFailed
from certified.ledger import LogProof, VerifyingKey
from certified.report import NOT_COVERED, DeletionRecord, Document, open_document
from certified.vault._folder import Folder
from certified.vault._values import utc

__all__ = ["Signed", "find", "hand_out", "issue", "publish"]


@dataclass(frozen=True)
class Signed:
    """A signed document with its entry in the log and the proof of that.

    Attributes
    ----------
    kind : {"controller", "public", "receipt"}
    text : str
        The signed envelope.
    entry : bytes
        The entry of the log that holds the digest of the document.
    proof : LogProof
    keys : tuple of VerifyingKey
    """

    kind: str
    text: str
    entry: bytes
    proof: LogProof
    keys: tuple[VerifyingKey, ...]

    @property
    def document(self) -> Document:
        """What is said, once the signature is verified."""
        return open_document(self.text, self.keys).document

    def files(self) -> dict[str, str]:
        """Return names and contents of the files that are handed out together."""
        return {
            f"{self.kind}.dsse.json": self.text,
            f"{self.kind}.entry.json": self.entry.decode(),
            f"{self.kind}.tlog-proof": str(self.proof),
            f"{self.kind}.html": self.document.to_html(self.proof, self.keys),
            f"{self.kind}.md": self.document.to_markdown(self.proof, self.keys),
            "log.vkey": "".join(f"{key.vkey}\n" for key in self.keys),
        }


def issue(vault: Folder, requests: list[tuple[int, str]], files: list[str]) -> None:
    """Sign certificate and receipts of requests whose rows have just been overwritten; inside a transaction."""
    db = vault.db
    common = _common(vault, files)
    for n, key in requests:
        record = _record(vault, n, common)
        made: list[tuple[str, Any]] = [("controller", record)]
        for (digest,) in db.execute("select digest from commitment where request = ?", (n,)).fetchall():
            salt = vault.ledger.salt_of(digest)
            about = {"commitment": digest.hex(), "salt": salt.hex() if salt else "erased"}
            made.append(("receipt", replace(record, subject=about)))
        about_state = {"state": record.lineage["stateAfter"]}
        signed = [(kind, one.document(kind).sign(vault.ledger._signer(), about_state)) for kind, one in made]
        digests = [hashlib.sha256(envelope.payload).hexdigest() for _, envelope in signed]
        entry = vault.ledger.append("erased", request=key, certificate=digests[0], receipts=digests[1:])
        rows = [
            (kind, n, digest, entry, envelope.to_json())
            for (kind, envelope), digest in zip(signed, digests, strict=True)
        ]
        db.executemany("insert into document(kind, request, digest, entry, body) values(?,?,?,?,?)", rows)


def publish(vault: Folder, release: int, certificate: Certificate, digest: str, states: list[str]) -> None:
    """Sign the public certificate of a release and log both; inside a transaction."""
    record = DeletionRecord(
        certificate,
        model=_model(vault),
        lineage={"release": digest, "releasedAt": utc(), **_parent(vault, release)},
        log={"origin": vault.ledger.origin},
    )
    envelope = record.document("public").sign(vault.ledger._signer(), {"release.pkl": digest})
    own = hashlib.sha256(envelope.payload).hexdigest()
    public = certificate.public()
    entry = vault.ledger.append(
        "released",
        release=release,
        artefact=digest,
        certificate=own,
        mu=float(public.mu),
        claim=public.claim,
        state=states,
    )
    vault.db.execute(
        "insert into document(kind, release, digest, entry, body) values('public',?,?,?,?)",
        (release, own, entry, envelope.to_json()),
    )


def find(vault: Folder, kind: str, request: str | None, release: int | None) -> Signed:
    """Return a document with its proof."""
    column, value = ("request", _number(vault, request)) if request is not None else ("release", release)
    query = f"select body, entry from document where kind = ? and {column} = ? order by n limit 1"
    row = vault.db.execute(query, (kind, value)).fetchone()
    if row is None:
        raise InvalidRequest(
            f"document({kind!r}, request={request!r}, release={release!r}): there is none. A certificate is there once "
            "a "
            "request is erased, a receipt until it is handed out, a public certificate with each release."
        )
    return _signed(vault, kind, *row)


def hand_out(vault: Folder, request: str) -> list[Signed]:
    """Return the receipts of a request and forget them."""
    n = _number(vault, request)
    with vault.ledger.transaction():
        rows = vault.db.execute(
            "select body, entry from document where kind = 'receipt' and request = ? order by n", (n,)
        ).fetchall()
        if not rows:
            raise InvalidRequest(
                f"hand_out({request!r}): there are no receipts. They are there once a request is erased, and are "
                "handed out "
                "once."
            )
        vault.db.execute("delete from document where kind = 'receipt' and request = ?", (n,))
        vault.ledger.append("receipts-handed-out", request=request, count=len(rows))
    return [_signed(vault, "receipt", *row) for row in rows]


def _signed(vault: Folder, kind: str, body: str, entry: int) -> Signed:
    return Signed(kind, body, vault.ledger.body(entry), vault.ledger.proof(entry), vault.keys)


def _number(vault: Folder, key: str | None) -> int:
    row = vault.db.execute("select n from request where key = ?", (key,)).fetchone()
    if row is None:
        raise InvalidRequest(f"There is no request {key!r}. `vault.requests()` lists them.")
    return row[0]


def _model(vault: Folder) -> dict[str, str]:
    return json.loads(vault.db.execute("select model from vault").fetchone()[0])


def _parent(vault: Folder, release: int) -> Mapping[str, str]:
    row = vault.db.execute("select digest from release where n < ? order by n desc limit 1", (release,)).fetchone()
    return {} if row is None else {"parentRelease": row[0]}


def _common(vault: Folder, files: list[str]) -> DeletionRecord:
    """Return what the requests of the newest batch have in common."""
    batch = vault.db.execute("select * from batch order by n desc limit 1").fetchone()
    if batch is None:
        raise StorageFailed(
            "A request was removed and no batch is stored: the vault is damaged. Restore it from a copy."
        )
    _, removed, certificate, before, after, differencing, method, passes, changed, sealed = batch
    kind, remark = vault.file_system()
    (encrypted,) = vault.db.execute("select encrypted from vault").fetchone()
    (releases,) = vault.db.execute("select count(*) from release").fetchone()
    told = [name for (name,) in vault.db.execute("select distinct name from recipient order by name")]
    state = Certificate.from_json(certificate)
    transcript = {} if math.isnan(state.mu_transcript) else {"muTranscript": state.mu_transcript}
    return DeletionRecord(
        state,
        model=_model(vault),
        deletion={
            "removedAt": removed,
            "method": method,
            "passes": passes,
            "changedSteps": json.loads(changed),
            "muDifferencing": float(differencing),
        },
        erasure={
            "erasedAt": utc(),
            **({"sealedAt": sealed} if sealed else {}),
            "method": "overwritten in place and synced",
            "files": [*(f"rows/{name}" for name in files), "state of before"],
            "fileSystem": f"{kind} ({remark})" if remark else kind,
            "volumeEncryption": encrypted,
            "keeper": "nothing" if sealed else "what algebra could tell, until the vault is sealed",
        },
        not_covered={**NOT_COVERED, "earlier releases": _out(releases, len(told)), "backups": _backed_up(vault)},
        budget={"releases": releases, **transcript},
        lineage={"stateBefore": before, "stateAfter": after, "recipients": told},
        log={"origin": vault.ledger.origin},
        environment={**state.versions, "platform": platform.platform()},
    )


def _record(vault: Folder, n: int, common: DeletionRecord) -> DeletionRecord:
    """Return what is known of a request that is through."""
    columns = "key, basis, received, due, decided, actor, subjects, rows, absent"
    row = vault.db.execute(f"select {columns} from request where n = ?", (n,)).fetchone()
    key, basis, received, due, decided, actor, subjects, rows, absent = row
    dates = {"receivedAt": received, "dueAt": due, "decidedAt": decided}
    counts = {"nSubjects": subjects, "nRows": rows, "notHeld": absent}
    return replace(
        common,
        request={"key": key, "basis": basis, "actorRole": actor, **dates},
        deletion={**common.deletion, **counts},
    )


def _backed_up(vault: Folder) -> str:
    (made,) = vault.db.execute("select count(*) from backup").fetchone()
    if not made:
        return "the vault made none; others are not known to it"
    return (
        f"{made} made by the vault cannot be read any more: their keys in it are destroyed; destroy copies of them too"
    )


def _out(releases: int, recipients: int) -> str:
    if not releases:
        return "none was made"
    return f"{releases} are out, with {recipients} recipients that the vault knows; they stay as they are"
