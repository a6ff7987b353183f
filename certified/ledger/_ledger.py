"""The log itself: entries and signed heads in SQLite."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from certified._keeper.record import canonical
from certified.errors import InvalidInput, NotVerified, StorageFailed
from certified.ledger._commitments import Commitment, commit
from certified.ledger._database import connect, transaction
from certified.ledger._keys import SigningKey, VerifyingKey
from certified.ledger._merkle import EMPTY, Edge, Tree, leaf_hash
from certified.ledger._notes import Checkpoint, Note, Signature
from certified.ledger._proof import LogProof
from certified.ledger._tiles import export_tiles
from certified.ledger._verify import Findings, verify

__all__ = ["Ledger", "now"]

_LARGEST_ENTRY = 65_535  # of the tiles in which others fetch a log
_OWN = ("v", "seq", "kind", "at")
_SCHEMA = """
create table log(one integer primary key check(one = 1), origin text not null check(typeof(origin) = 'text'));
create table entry(seq integer primary key check(seq >= 0), body blob not null check(typeof(body) = 'blob'));
create table head(size integer primary key check(size > 0), root blob not null, note text not null);
create table edge(one integer primary key check(one = 1), size integer not null, nodes blob not null);
create table key(n integer primary key, vkey text not null unique, since integer not null);
create table cosignature(n integer primary key, size integer not null, line text not null);
create table salt(digest blob primary key, salt blob not null);
create trigger entry_stays before update on entry begin select raise(abort, 'entries cannot be changed'); end;
create trigger entry_remains before delete on entry begin select raise(abort, 'entries cannot be deleted'); end;
create trigger head_stays before update on head begin select raise(abort, 'heads cannot be changed'); end;
create trigger head_remains before delete on head begin select raise(abort, 'heads cannot be deleted'); end;
"""


class Ledger:
    """An append-only log in a SQLite database.

    Make one with :meth:`create` or :meth:`open`. The database may hold other tables too; what is written to them inside
    :meth:`transaction` is committed together with the entries.

    Parameters
    ----------
    db : sqlite3.Connection
        From :func:`certified.ledger._database.connect`.
    key : SigningKey or None
        Without it the log can be read and not be added to.
    """

    def __init__(self, db: sqlite3.Connection, key: SigningKey | None = None) -> None:
        self.db = db
        self.key = key
        self.origin: str = db.execute("select origin from log").fetchone()[0]
        self._tree = Tree()
        self._open: Edge | None = None  # inside a transaction: the edge with the entries that it has added
        self._keys: tuple[int, tuple[VerifyingKey, ...]] | None = None
        if key is not None and self.keys and key.public != self.keys[-1]:
            raise InvalidInput(
                f"The log {self.origin} is signed by the key {self.keys[-1].vkey}, and {key.public.vkey} was given. "
                "Open "
                "it with its own key, and call rotate(new_key) to change it."
            )

    @classmethod
    def create(cls, path: str | Path, origin: str, key: SigningKey) -> Ledger:
        """Return a new log in a new file.

        Parameters
        ----------
        path : path-like
        origin : str
            Name of the log, by custom an address without scheme, such as ``bank.example/credit-default``.
        key : SigningKey
            Its name must be the origin.
        """
        db = connect(Path(path), create=True)
        with transaction(db):
            ledger = cls.install(db, origin, key)
        return ledger

    @classmethod
    def install(cls, db: sqlite3.Connection, origin: str, key: SigningKey) -> Ledger:
        """Return a new log in the tables of an open database."""
        if key.public.name != origin:
            raise InvalidInput(
                f"Ledger.create(origin={origin!r}) got a key named {key.public.name!r}. A log and its key have one "
                "name. "
                "Make the key with the name of the log. Nothing was created."
            )
        for statement in _SCHEMA.strip().splitlines():  # `executescript` would commit on its own
            db.execute(statement)
        db.execute("insert into log values(1, ?)", (origin,))
        db.execute("insert into edge values(1, 0, ?)", (b"",))
        db.execute("insert into key(vkey, since) values(?, 0)", (key.public.vkey,))
        return cls(db, key)

    @classmethod
    def open(cls, path: str | Path, key: SigningKey | None = None) -> Ledger:
        """Return the log in a file; without its key it can be read and verified."""
        return cls(connect(Path(path)), key)

    def close(self) -> None:
        """Close the database."""
        self.db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what is in it

    def __len__(self) -> int:
        return self._edge().size

    @property
    def root(self) -> bytes:
        """Root of the tree of all entries."""
        return self._edge().root

    @property
    def keys(self) -> tuple[VerifyingKey, ...]:
        """The keys that have signed the log, the present one last."""
        (n,) = self.db.execute("select count(*) from key").fetchone()
        if self._keys is None or self._keys[0] != n:
            stored = self.db.execute("select vkey from key order by n")
            self._keys = n, tuple(VerifyingKey.parse(text) for (text,) in stored)
        return self._keys[1]

    def body(self, index: int) -> bytes:
        """Return the bytes of an entry, which are a leaf of the tree."""
        row = self.db.execute("select body from entry where seq = ?", (index,)).fetchone()
        if row is None:
            raise IndexError(f"the log {self.origin} has no entry {index}; its size is {len(self)}")
        return row[0]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return json.loads(self.body(index))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for (body,) in self.db.execute("select body from entry order by seq"):
            yield json.loads(body)

    # adding to it

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit several entries, and changes to other tables, at once and under one signed head."""
        if self._open is not None:
            yield
            return
        with transaction(self.db):
            self._open = edge = self._stored_edge()
            try:
                yield
                if self._open.size > edge.size:
                    self._store(self._open, [self._signer()])
            except BaseException:
                if len(self._tree) > edge.size:
                    self._tree = Tree()  # it has seen entries that are taken back
                raise
            finally:
                self._open = None

    def append(self, kind: str, **fields: Any) -> int:
        """Add an entry and return its place; see :meth:`extend`."""
        return self.extend([(kind, fields)])[0]

    def extend(self, entries: Iterable[tuple[str, Mapping[str, Any]]]) -> range:
        """Add entries, all of them or none, and return their places.

        Parameters
        ----------
        entries : iterable of (kind, fields)
            Fields are values that JSON can hold; floats are written as text. ``v``, ``seq``, ``kind`` and ``at`` are
            added.
        """
        self._signer()
        with self.transaction():
            edge = self._edge()
            first = edge.size
            for kind, fields in entries:
                edge = self._insert(edge, kind, fields)
            self._open = edge
        return range(first, edge.size)

    def _insert(self, edge: Edge, kind: str, fields: Mapping[str, Any]) -> Edge:
        body = self._entry(edge.size, kind, fields)
        self.db.execute("insert into entry values(?, ?)", (edge.size, body))
        return edge.append(leaf_hash(body))

    def rotate(self, new: SigningKey) -> None:
        """Go over to another key: the old one vouches for it, and both sign the head."""
        old = self._signer()
        if new.public.name != self.origin:
            raise InvalidInput(f"rotate(...) got a key named {new.public.name!r}; the log is named {self.origin!r}.")
        if self._open is not None:
            raise InvalidInput("rotate(...) was called inside a transaction. Call it outside. Nothing was changed.")
        with transaction(self.db):
            edge = self._stored_edge()
            vouched = canonical({"origin": self.origin, "size": edge.size, "key": new.public.vkey})
            signatures = {name: _b64(key.sign(vouched)) for name, key in (("byOld", old), ("byNew", new))}
            edge = self._insert(edge, "key-rotated", {"key": new.public.vkey, **signatures})
            self.db.execute("insert into key(vkey, since) values(?, ?)", (new.public.vkey, edge.size))
            self._store(edge, [old, new])
        self._keys = None
        self.key = new

    def commit_to(self, subject: str | int) -> Commitment:
        """Return a commitment to a subject, and keep its salt until :meth:`erase_salts`."""
        made = commit(subject)
        with self.transaction():
            self.db.execute("insert into salt values(?, ?)", (made.digest, made.salt))
        return made

    def salt_of(self, digest: bytes) -> bytes | None:
        """Return the salt of a commitment, None once it is erased."""
        row = self.db.execute("select salt from salt where digest = ?", (digest,)).fetchone()
        return row and row[0]

    def erase_salts(self, digests: Iterable[bytes]) -> None:
        """Overwrite the salts of these commitments: what they commit to cannot be told any more."""
        with self.transaction():
            self.db.executemany("delete from salt where digest = ?", [(digest,) for digest in digests])

    # proofs

    def checkpoint(self, size: int | None = None) -> Note:
        """Return the signed head of this size, with the cosignatures of witnesses; the newest one by default."""
        size = len(self) if size is None else size
        row = self.db.execute("select note from head where size = ?", (size,)).fetchone()
        if row is None:
            raise IndexError(f"the log {self.origin} has no signed head of size {size}")
        note = Note.parse(row[0])
        lines = self.db.execute("select line from cosignature where size = ? order by n", (size,))
        return Note(note.text, (*note.signatures, *(Signature.parse(line) for (line,) in lines)))

    def add_cosignature(self, line: str, witness: VerifyingKey) -> None:
        """Keep what a witness has signed, for the proofs that are made from now on."""
        mark, size = Signature.parse(line), len(self)
        note = self.checkpoint(size)
        if not Note(note.text, (mark,)).signers([witness]):
            raise NotVerified(f"The cosignature is not by {witness.name}. Pass the line that the witness gave.")
        with self.transaction():
            self.db.execute("insert into cosignature(size, line) values(?, ?)", (size, str(mark)))

    def tree(self) -> Tree:
        """Return the tree of all entries, brought up to date."""
        query = "select body from entry where seq >= ? order by seq"
        for (body,) in self.db.execute(query, (len(self._tree),)):
            self._tree.append(leaf_hash(body))
        return self._tree

    def inclusion(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the hashes that lead from an entry to the root."""
        return self.tree().inclusion(index, size)

    def consistency(self, old: int, new: int | None = None) -> tuple[bytes, ...]:
        """Return the hashes that show an older log to be the beginning of this one."""
        return self.tree().consistency(old, new)

    def proof(self, index: int) -> LogProof:
        """Return a proof that the log holds an entry, for a ``.tlog-proof`` file."""
        note = self.checkpoint()
        return LogProof(index, self.inclusion(index, Checkpoint.parse(note.text).size), note)

    def export_tiles(self, folder: str | Path) -> list[Path]:
        """Write the log as files for a web server and clients of transparency logs; return them."""
        return export_tiles(self, folder)

    def verify(
        self, *, against: Note | str | None = None, keys: Sequence[VerifyingKey] | None = None, signatures: str = "all"
    ) -> Findings:
        """Return what a verification of every entry, root and signature finds.

        Parameters
        ----------
        against : Note, str or None
            A signed head that is known from elsewhere. Without one nobody can tell that the newest entries were cut
            off, or that all was written anew by whoever holds the key.
        keys : sequence of VerifyingKey or None
            Keys known from elsewhere; the first key of the log must be among them. None: those stored with the log.
        signatures : {"all", "newest"}
            Which heads to check signatures of; roots are always checked.
        """
        return verify(self, against, keys, signatures)

    # inside

    def _signer(self) -> SigningKey:
        if self.key is None:
            raise InvalidInput(
                f"The log {self.origin} was opened without its key, so that nothing can be added to it. Open it with "
                "the "
                "key. Nothing was written."
            )
        return self.key

    def _edge(self) -> Edge:
        return self._stored_edge() if self._open is None else self._open

    def _stored_edge(self) -> Edge:
        size, nodes = self.db.execute("select size, nodes from edge").fetchone()
        try:
            return Edge.from_bytes(size, nodes)
        except ValueError as error:
            raise StorageFailed(f"The log {self.origin} is damaged: {error}. Restore it from a copy.") from None

    def _entry(self, seq: int, kind: str, fields: Mapping[str, Any]) -> bytes:
        clash = sorted(set(fields) & set(_OWN))
        if clash:
            raise InvalidInput(f"append({kind!r}) got the fields {clash}, which the log writes itself. Rename them.")
        body = canonical({**fields, "v": 1, "seq": seq, "kind": kind, "at": now()})
        if len(body) > _LARGEST_ENTRY:
            raise InvalidInput(
                f"append({kind!r}) got an entry of {len(body)} bytes; at most {_LARGEST_ENTRY} are allowed. Append a "
                "digest "
                "and keep the rest elsewhere. Nothing was written."
            )
        return body

    def _store(self, edge: Edge, keys: Sequence[SigningKey]) -> None:
        note = Note(Checkpoint(self.origin, edge.size, edge.root).text)
        for key in keys:
            note = note.sign(key)
        self.db.execute("insert into head values(?, ?, ?)", (edge.size, edge.root, str(note)))
        self.db.execute("update edge set size = ?, nodes = ?", (edge.size, edge.to_bytes()))

    def _root_of(self, size: int) -> bytes:
        return self.tree().root(size) if size else EMPTY


def now() -> str:
    """Return the present time, UTC, as RFC 3339 in whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
