"""What is open of a vault: folder, database, log and the model in memory."""

from __future__ import annotations

import hmac
import json
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certified.errors import CertifiedError, InvalidRequest, StorageFailed
from certified.ledger import Ledger, SigningKey, VerifyingKey
from certified.ledger._database import translated
from certified.vault._files import file_system, locked, storage
from certified.vault._keeper import Keeper
from certified.vault._values import Request

__all__ = ["Folder"]

_REQUEST = "key, status, reason, received, due, decided, removed, erased, basis, actor, subjects, rows, absent"


class Folder:
    """A vault that is open.

    Attributes
    ----------
    path : Path
    db : sqlite3.Connection
    ledger : Ledger
    """

    def __init__(self, path: Path, db: sqlite3.Connection, key: SigningKey | None) -> None:
        self.path = path
        self.db = db
        self.ledger = Ledger(db, key)
        self._keeper: tuple[int, Keeper] | None = None
        self._closed = ""
        self._whole: bool | None = None

    @property
    def model(self) -> Any:
        """The fitted estimator; what is changed in it is not stored."""
        return self.keeper().model

    @property
    def keys(self) -> tuple[VerifyingKey, ...]:
        """Keys that have signed the log, the present one last."""
        return self.ledger.keys

    def find(self, key: str) -> Request:
        """Return a request by its key."""
        row = self.db.execute(f"select {_REQUEST} from request where key = ?", (key,)).fetchone()
        if row is None:
            raise InvalidRequest(f"find(key={key!r}): there is no such request. `vault.requests()` lists them.")
        return Request(*row)

    def requests(self, status: str | None = None) -> list[Request]:
        """Return all requests, or those of a status, the oldest first."""
        rows = self.db.execute(f"select {_REQUEST} from request where ?1 is null or status = ?1 order by n", (status,))
        return [Request(*row) for row in rows]

    def keeper(self) -> Keeper:
        """Return the keeper of the present generation."""
        generation, digest, trusted = self.db.execute("select generation, state, trusted from vault").fetchone()
        if self._keeper is None or self._keeper[0] != generation:
            with storage("Reading the state"):
                loaded = Keeper.load(self.path, generation, digest, tuple(json.loads(trusted)))
            self._keeper = generation, loaded
        return self._keeper[1]

    def as_held(self, ids: list[Any]) -> list[Any]:
        """Return ids as integers where the vault holds integers and all of these are some; else as they are."""
        if (
            self._whole is None
        ):  # once: the kind of ids never changes, and another process may replace the state meanwhile
            self._whole = bool(self.model._subjects.by_position()[0].dtype.kind == "i")
        whole = self._whole
        texts = [str(subject) for subject in ids]
        if whole and all(text.lstrip("-").isdecimal() for text in texts):
            return [int(text) for text in texts]
        return list(ids) if whole else texts

    def keyed(self, subject: Any) -> bytes:
        """Return the keyed digest by which a subject is recognised without its id."""
        (secret,) = self.db.execute("select secret from vault").fetchone()
        return hmac.digest(secret, str(subject).encode(), "sha256")

    def file_system(self) -> tuple[str, str]:
        """Return the kind of file system of the vault, and what it means for overwritten bytes."""
        return file_system(self.path)

    @contextmanager
    def _writing(self, what: str) -> Any:
        """Refuse after a failure of the disk, and remember one."""
        if self._closed:
            raise StorageFailed(
                f"{what}: the vault was closed by an error ({self._closed}). Open it again. Nothing was done."
            )
        try:
            with storage(what):
                yield
        except (StorageFailed, sqlite3.Error) as error:
            self._closed = str(error)
            self._keeper = None
            if isinstance(error, sqlite3.Error):
                raise translated(error, self.path) from error
            raise

    @contextmanager
    def _working(self, what: str) -> Any:
        """Hold the lock of the vault, and let go of the model where the work does not come to its end."""
        with self._writing(what), locked(self.path / "lock"):
            try:
                yield
            except CertifiedError:
                self._keeper = None
                raise
            except BaseException:
                self._keeper = None
                raise
