"""SQLite, set so that what is committed is on disk and what is deleted is overwritten.

Every setting is read back: SQLite ignores what it does not know, and a setting that is ignored would show at the first
power cut only. No write-ahead log: deleted text stays in it, and releases of SQLite before 3.51.3 can damage a database
whose log is moved back by one connection while another writes. No STRICT tables: older SQLite cannot read them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from certified.errors import Locked, NewerFormat, StorageFailed

__all__ = ["connect", "transaction"]

_APPLICATION = 0x43657274
FORMAT = 1
_SETTINGS = {  # pragma: (value asked for, value read back)
    "journal_mode": ("TRUNCATE", "truncate"),  # with FULL: good at every simulated power cut; DELETE with FULL is not
    "synchronous": ("FULL", 2),
    "fullfsync": ("ON", 1),  # macOS: a sync that reaches the disk
    "secure_delete": ("ON", 1),  # overwrite what is deleted
    "temp_store": ("MEMORY", 2),
    "trusted_schema": ("OFF", 0),
    "foreign_keys": ("ON", 1),
    "cell_size_check": ("ON", 1),
}


def connect(path: Path, *, create: bool = False, timeout: float = 30.0) -> sqlite3.Connection:
    """Return a connection whose settings have been read back.

    Raises
    ------
    StorageFailed
        The file is missing (or there, with ``create``), is no database of this package, or refuses a setting.
    NewerFormat
        It was written by a later version.
    """
    path = Path(path)
    if path.exists() == create:
        state = "exists already" if create else "does not exist"
        raise StorageFailed(f"The database {path} {state}. Give another path. Nothing was changed.")
    db = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        for name, (value, expected) in _SETTINGS.items():
            db.execute(f"pragma {name}={value}").fetchall()
            found = db.execute(f"pragma {name}").fetchone()
            if found is None or found[0] != expected:
                raise StorageFailed(
                    f"SQLite {sqlite3.sqlite_version} at {path} has {name}={found and found[0]}, and {value} is needed "
                    "so "
                    "that a power cut loses nothing and deleted text is overwritten. Use another build of SQLite or "
                    "another file system."
                )
        db.execute("pragma mmap_size=0").fetchall()
        if create:
            db.execute(f"pragma application_id={_APPLICATION}")
            db.execute(f"pragma user_version={FORMAT}")
        application, version = (
            db.execute(f"pragma {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        if application != _APPLICATION:
            raise StorageFailed(f"{path} is a database of another program. Give the path of a ledger or a vault.")
        if version > FORMAT:
            raise NewerFormat(
                f"{path} has format {version}, and this version of certified knows {FORMAT}. Install a newer version. "
                "Nothing was changed."
            )
    except sqlite3.Error as error:
        db.close()
        raise translated(error, path) from error
    except BaseException:
        db.close()
        raise
    return db


def translated(error: sqlite3.Error, path: object = "the database") -> Exception:
    """Return the error of this package for one of SQLite."""
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Locked(f"Another process holds {path}. Wait until it has finished. Nothing was changed.")
    return StorageFailed(f"SQLite could not use {path}: {error}. What was stored before is as it was.")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Do all that is done inside, or nothing; inside another transaction, as a part of it."""
    if db.in_transaction:
        yield db
        return
    try:
        db.execute("begin immediate")
        yield db
        db.execute("commit")
    except BaseException as error:
        if db.in_transaction:
            db.execute("rollback")
        if isinstance(error, sqlite3.OperationalError):
            raise translated(error) from error
        raise
