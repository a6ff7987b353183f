"""The vault: a directory that holds a fitted model, its requests, its log and its documents."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from certified.errors import InvalidInput, InvalidRequest, Locked, NewerFormat, StorageFailed
from certified.ledger import Ledger, Note, SigningKey
from certified.ledger._database import connect, transaction, translated
from certified.vault import _backup, _documents, _trace, _verify, _work
from certified.vault._files import storage, sync_folder, write_new
from certified.vault._folder import Folder
from certified.vault._keeper import Keeper
from certified.vault._schema import FORMAT, STATEMENTS
from certified.vault._values import Processed, Published, Request, Verification, moment, month_after, utc

__all__ = ["Vault"]

_FOLDERS = ("rows", "state", "out")


class Vault(Folder):
    """A fitted estimator or pipeline of this package, as a directory.

    Make one with :meth:`create`, find one again with :meth:`open`. A request is durable before :meth:`request`
    returns. What
    :meth:`process` deletes is out of the model, then out of every file, and each step is in the log. After a crash or a
    power cut, opening goes on where the work stopped.

    Attributes
    ----------
    path : Path
    ledger : Ledger
    """

    @classmethod
    def create(
        cls,
        path: str | Path,
        estimator: Any,
        *,
        name: str = "model",
        version: str = "1",
        origin: str | None = None,
        key: SigningKey | None = None,
        about: Mapping[str, str] | None = None,
        encrypted: str = "not stated",
        trusted: Iterable[str] = (),
    ) -> Vault:
        """Return a new vault.

        Parameters
        ----------
        path : path-like
            A folder that does not exist yet.
        estimator : fitted estimator or pipeline of this package
            It is copied. Go on with that of the vault.
        name, version : str
            Of the model, in documents.
        origin : str or None
            Name of the log, such as ``bank.example/credit-default``; None takes the name.
        key : SigningKey or None
            None makes a key and keeps it in the vault, readable by its owner.
        about : mapping of str to str or None
            More about the model: ``inventoryId``, ``purpose``, ``owner``, ``tier``.
        encrypted : str
            Whether the volume is encrypted, as you say it in documents; the vault cannot know.
        trusted : iterable of str
            Classes of other packages that the estimator may contain, as "module:name".
        """
        path = Path(path)
        if path.exists():
            raise StorageFailed(f"Vault.create({str(path)!r}): the path exists. Give another one. Nothing was created.")
        if getattr(estimator, "_subjects", None) is None:
            raise InvalidInput(
                f"Vault.create(...) got {type(estimator).__name__}, which is not a fitted estimator with subjects. Fit "
                "an "
                "estimator or a pipeline of certified with ids first. Nothing was created."
            )
        origin = origin or name.replace(" ", "-")
        own = key or SigningKey.generate(origin)
        making = path.with_name(path.name + ".new")
        with storage("Creating the vault"):
            _remove_unfinished(making)
            for folder in _FOLDERS:
                (making / folder).mkdir(parents=True, mode=0o700)
            if key is None:
                write_new(making / "key.pem", lambda file: file.write(own.to_pem()))
                os.chmod(making / "key.pem", 0o600)
            saved = Keeper(making, estimator, {}, tuple(trusted)).save(1)
            db = connect(making / "vault.db", create=True)
            with transaction(db):
                for statement in STATEMENTS:
                    db.execute(statement)
                ledger = Ledger.install(db, origin, own)
            with ledger.transaction():
                identity, described = secrets.token_hex(16), {"name": name, "version": version, **(about or {})}
                values = (identity, utc(), FORMAT, 1, saved.digest, 1, secrets.token_bytes(32))
                more = (json.dumps(described), json.dumps(list(trusted)), encrypted)
                db.execute(f"insert into vault values(1, {', '.join('?' * 10)})", values + more)
                db.executemany("insert into part values(?)", [(part,) for part in saved.parts])
                counts = {"subjects": len(estimator.ids_), "rows": int(estimator.n_rows_)}
                ledger.append("created", vault=identity, model=described, state=saved.digest, **counts)
            db.close()
            sync_folder(making)
            os.rename(making, path)
            sync_folder(path.parent)
        return cls.open(path, key=own)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        key: SigningKey | None = None,
        against: Note | str | None = None,
        read_only: bool = False,
    ) -> Vault:
        """Return the vault in a folder, and finish what a crash has left unfinished.

        Parameters
        ----------
        path : path-like
        key : SigningKey or None
            None takes the key that the vault keeps, if it does.
        against : Note, str or None
            A signed head of the log that is known from elsewhere. A vault whose log does not continue it is refused:
            it was
            rolled back to a copy from before.
        read_only : bool
            Change nothing, not even to recover.
        """
        path = Path(path)
        if not (path / "vault.db").exists():
            raise StorageFailed(f"Vault.open({str(path)!r}): there is no vault. Make one with Vault.create.")
        db = connect(path / "vault.db")
        try:
            (version,) = db.execute("select format from vault").fetchone()
            if version > FORMAT:
                raise NewerFormat(
                    f"The vault {path} has format {version}, and this version of certified knows {FORMAT}. Install a "
                    "newer "
                    "version. Nothing was changed."
                )
            vault = cls(path, db, None if read_only else key or _stored_key(path, db))
            if against is not None:
                findings = vault.ledger.verify(against=against, signatures="newest")
                if not findings:
                    raise StorageFailed(f"The vault {path} is not the one that is known: {findings}")
            if not read_only:
                vault._recover()
        except sqlite3.Error as error:
            db.close()
            raise translated(error, path) from error
        except BaseException:
            db.close()
            raise
        return vault

    def close(self) -> None:
        """Close the database and let go of the model."""
        self._keeper = None
        self.db.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # requests

    def request(
        self,
        ids: Any,
        *,
        key: str,
        basis: str = "GDPR Art. 17(1)",
        received: str | None = None,
        due: str | None = None,
        actor: str = "not stated",
        missing: str = "ignore",
    ) -> Request:
        """Record a request for deletion; it is on disk when this returns.

        Parameters
        ----------
        ids : array-like
            Subjects. One that is repeated counts once.
        key : str
            Names the request. The same key again is the same request, so that a request can be sent twice without harm.
        basis : str
            Legal basis.
        received, due : str or None
            UTC, as 2026-11-02T09:14:00Z; None: now, and a month later.
        actor : str
            Role of whoever decides, no name.
        missing : {"ignore", "raise"}
            What to do about ids that are not held: count them, or refuse the request.
        """
        from certified._data.subjects import as_ids

        if not key or missing not in ("ignore", "raise"):
            raise InvalidRequest(
                f'request(key={key!r}, missing={missing!r}): a key must not be empty, and missing is "ignore" or '
                '"raise". '
                "Nothing was recorded."
            )
        wanted = list(dict.fromkeys(as_ids(ids, "request(ids=...)").tolist()))
        if not wanted:
            raise InvalidRequest("request(ids=...) got no ids. Name at least one subject. Nothing was recorded.")
        received = utc() if received is None else utc(moment(received, "received"))
        due = month_after(received) if due is None else utc(moment(due, "due"))
        with self._writing("Recording the request"), self.ledger.transaction():
            known = self.db.execute("select ids from request where key = ?", (key,)).fetchone()
            if known is not None:
                if known[0] is not None and json.loads(known[0]) != wanted:
                    raise InvalidRequest(
                        f"request(key={key!r}) got other ids than before. A key names one request; choose another key "
                        "for "
                        "another one. Nothing was recorded."
                    )
                return self.find(key)
            digests = [self.ledger.commit_to(subject).digest for subject in wanted]
            entry = self.ledger.append(
                "requested",
                request=key,
                basis=basis,
                receivedAt=received,
                dueAt=due,
                actor=actor,
                subjects=_hex(digests),
            )
            row = (key, basis, actor, received, due, missing, json.dumps(wanted), "queued", "", entry)
            columns = "key, basis, actor, received, due, missing, ids, status, reason, entry"
            n = self.db.execute(f"insert into request({columns}) values(?,?,?,?,?,?,?,?,?,?)", row).lastrowid
            self.db.executemany("insert into commitment values(?, ?)", [(n, digest) for digest in digests])
        return self.find(key)

    def hold(self, ids: Any, reason: str) -> None:
        """Keep these subjects' data although they are asked to be deleted, until :meth:`unhold` (Art. 17(3))."""
        self._marks("hold", ids, lambda digest: (digest, reason, utc()), "held", {"reason": reason})

    def unhold(self, ids: Any) -> None:
        """End a hold."""
        digests = self._keyed_all(ids)
        with self._writing("Ending a hold"), self.ledger.transaction():
            self.db.executemany("delete from hold where digest = ?", [(digest,) for digest in digests])
            self.ledger.append("hold-ended", count=len(digests))

    # work

    def process(self, *, seal: bool = True, limit: int | None = None) -> Processed:
        """Carry out the requests that are queued, the oldest first, as one batch.

        Parameters
        ----------
        seal : bool
            Pass over the retained rows, so that the state is no function of those deleted. Without it, call
            :meth:`seal`
            later; until then the deleted rows could be told from the keeper by algebra.
        limit : int or None
            How many requests to take at most.

        Raises
        ------
        Locked
            Another process works on the vault.
        StorageFailed
            The disk failed; the requests are kept, and opening the vault goes on.
        """
        with self._working("Processing"):
            return _work.process(self, seal, limit)

    def seal(self) -> bool:
        """Pass over the retained rows where a batch was processed without it; return whether there was anything to "
        "do."""
        with self._working("Sealing"):
            return _work.seal(self)

    def add(self, X: Any, y: Any = None, ids: Any = None, *, readmit: bool = False, **more: Any) -> None:
        """Add rows to the model.

        Subjects that were deleted are refused, unless ``readmit`` says that they may come back. What is needed for that
        are keyed digests of their ids, which the vault keeps and nobody can read without its key.
        """
        with self._working("Adding rows"):
            _work.add(self, X, y, ids, readmit, more)

    def release(self, recipients: Iterable[str] = ()) -> Published:
        """Publish the present state: draw its noise once, log it, write it to ``out``, with its public certificate."""
        with self._working("Releasing"):
            return _work.release(self, tuple(recipients))

    def told(self, release: int, recipient: str) -> None:
        """Record that somebody has got a release (Art. 19)."""
        with self._writing("Recording a recipient"), self.ledger.transaction():
            self.db.execute("insert into recipient values(?, ?, ?)", (release, recipient, utc()))
            self.ledger.append("exported", release=release)

    def backup(self, path: str | Path) -> bytes:
        """Write an encrypted copy of the vault to a new file, and return its key.

        The next deletion destroys the key in the vault, so that no backup brings a subject back; make a new one after
        each batch. Keep a copy of the key apart from vault and backup, for the case that the vault is lost, and destroy
        it
        when you make the next one.
        """
        with self._working("Writing a backup"):
            return _backup.backup(self, Path(path))

    @classmethod
    def restore(cls, file: str | Path, path: str | Path, key: bytes, *, against: Note | str | None = None) -> Vault:
        """Return the vault in a backup, in a folder that does not exist yet.

        Parameters
        ----------
        file, path : path-like
        key : bytes
            That :meth:`backup` returned.
        against : Note, str or None
            A signed head that is known from elsewhere; a backup from before it is refused. What was logged after the
            backup
            and is not in it has to be done again.
        """
        path = Path(path)
        if path.exists():
            raise StorageFailed(f"Vault.restore(..., {str(path)!r}): the path exists. Nothing was restored.")
        making = path.with_name(path.name + ".new")
        _remove_unfinished(making)
        _backup.unpack(Path(file), making, key)
        cls.open(making, against=against, read_only=True).close()
        with storage("Restoring the backup"):
            os.rename(making, path)
            sync_folder(path.parent)
        vault = cls.open(path, against=against)
        if vault.ledger.key is not None:
            vault.ledger.append("restored")
        return vault

    # looking

    def status(self) -> dict[str, Any]:
        """Return what is held, what is open and what is overdue, as plain values."""
        return _work.status(self)

    def plan(self, ids: Any) -> dict[str, Any]:
        """Return what a request for these subjects would do; nothing is changed."""
        with self._working("Planning"):
            return _work.plan(self, ids)

    def document(self, kind: str, *, request: str | None = None, release: int | None = None) -> Any:
        """Return a signed document with its proof: see :class:`certified.vault.Signed`.

        Parameters
        ----------
        kind : {"controller", "public", "receipt"}
        request : str or None
            Key of the request, for "controller" and "receipt".
        release : int or None
            Number of the release, for "public".
        """
        return _documents.find(self, kind, request, release)

    def hand_out(self, request: str) -> list[Any]:
        """Return the receipts of the subjects of a request, and forget the salts in them: they are handed out once."""
        with self._writing("Handing out receipts"):
            return _documents.hand_out(self, request)

    def verify(self, *, replay: bool = False, against: Note | str | None = None) -> Verification:
        """Return what a verification of log, state, rows and documents finds.

        Parameters
        ----------
        replay : bool
            Compute anew, from the retained rows, what the certificate says.
        against : Note, str or None
            A signed head that is known from elsewhere.
        """
        return _verify.verify(self, replay, against)

    def trace(self, ids: Any, values: Any = None) -> dict[str, list[str]]:
        """Return in which files bytes of these ids, or of these values, are found, in several encodings.

        An empty mapping: no file of the vault holds them.
        """
        return _trace.trace(self.path, ids, values)

    # inside

    def _keyed_all(self, ids: Any) -> list[bytes]:
        from certified._data.subjects import as_ids

        return [self.keyed(subject) for subject in as_ids(ids, "hold(ids=...)").tolist()]

    def _marks(self, table: str, ids: Any, row: Any, kind: str, fields: Mapping[str, Any]) -> None:
        digests = self._keyed_all(ids)
        with self._writing("Recording a hold"), self.ledger.transaction():
            self.db.executemany(f"insert or replace into {table} values(?, ?, ?)", [row(digest) for digest in digests])
            self.ledger.append(kind, count=len(digests), **fields)

    def _recover(self) -> None:
        try:
            with self._working("Recovering"):
                _work.recover(self)
        except Locked:
            return  # whoever holds the lock is at work, and nothing has to be recovered


def _stored_key(path: Path, db: sqlite3.Connection) -> SigningKey | None:
    (origin,) = db.execute("select origin from log").fetchone()
    file = path / "key.pem"
    return SigningKey.from_pem(origin, file.read_bytes()) if file.exists() else None


def _remove_unfinished(folder: Path) -> None:
    """Remove what an earlier attempt to create a vault has left; it was never in use."""
    if folder.exists():
        for root, folders, files in os.walk(folder, topdown=False):
            for name in files:
                os.unlink(Path(root) / name)
            for name in folders:
                os.rmdir(Path(root) / name)
        os.rmdir(folder)


def _hex(digests: Iterable[bytes]) -> list[str]:
    return [digest.hex() for digest in digests]
