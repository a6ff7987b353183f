"""Backups that lose a subject when the vault does: each is encrypted with a key of its own, which the next deletion
destroys.

So a backup that can still be read was made after the newest deletion, and restoring it brings nobody back. Make a new
one
after each batch. The key lies in the vault; a copy of it, kept apart from both, is needed where the vault itself is
lost.

The format, version 1: 8 bytes of magic, then frames of a length (4 bytes, little-endian) and AES-256-GCM of up to 1 MiB
of a tar
archive; the nonce counts frames, and the last one is authenticated as the last.
"""

from __future__ import annotations

import io
import secrets
import sqlite3
import struct
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

from certified.errors import MissingExtra, NotVerified, StorageFailed
from certified.ledger._database import connect
from certified.vault._files import storage, sync_folder, write_new
from certified.vault._folder import Folder
from certified.vault._values import utc

__all__ = ["backup", "forget_keys", "unpack"]

_MAGIC = b"CERTBAK1"
_FRAME = 1 << 20


def backup(vault: Folder, path: Path) -> bytes:
    """Write an encrypted copy of a vault; return its key."""
    if path.exists():
        raise StorageFailed(f"backup({str(path)!r}): the path exists. Give another one. Nothing was written.")
    key = secrets.token_bytes(32)
    with storage("Writing the backup"):
        write_new(path, lambda file: _pack(vault, file, key))
    with vault.ledger.transaction():
        vault.db.execute("insert into backup(at, key) values(?, ?)", (utc(), key))
        vault.ledger.append("backup-made", size=path.stat().st_size)
    return key


def forget_keys(vault: Folder) -> int:
    """Destroy the keys of all backups so far, inside a transaction; return how many can no longer be read with them."""
    vault.db.execute("update backup set key = null where key is not null")
    return vault.db.execute("select count(*) from backup").fetchone()[0]


def _pack(vault: Folder, file: Any, key: bytes) -> None:
    file.write(_MAGIC)
    out = _Encrypting(file, key)
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        _add(archive, "vault.db", _copy(vault.db))
        for folder in ("rows", "state"):
            for path in sorted((vault.path / folder).iterdir()):
                archive.add(path, f"{folder}/{path.name}")
        if (vault.path / "key.pem").exists():
            archive.add(vault.path / "key.pem", "key.pem")
    out.finish()


def _copy(db: sqlite3.Connection) -> bytes:
    """Return the database as it is now, without keys of backups."""
    copy = sqlite3.connect(":memory:")
    db.backup(copy)
    copy.execute("pragma secure_delete=ON")
    copy.execute("update backup set key = null")
    copy.commit()
    copy.execute("vacuum")
    data = copy.serialize()
    copy.close()
    return data


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    about = tarfile.TarInfo(name)
    about.size, about.mode = len(data), 0o600
    archive.addfile(about, io.BytesIO(data))


def unpack(file: Path, folder: Path, key: bytes) -> None:
    """Write the vault in a backup into a new folder."""
    with storage("Restoring the backup"), open(file, "rb") as source:
        if source.read(len(_MAGIC)) != _MAGIC:
            raise StorageFailed(f"{file} is no backup of a vault. Nothing was restored.")
        for name in ("", "rows", "state", "out"):
            (folder / name).mkdir(mode=0o700)
        stream: Any = _Decrypting(source, key)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for about in archive:
                where, _, name = about.name.rpartition("/")
                if not about.isreg() or where not in ("", "rows", "state") or name in ("", ".", ".."):
                    raise StorageFailed(f"{file} holds {about.name!r}, no part of a vault. Nothing was restored.")
                content = archive.extractfile(about)
                write_new(folder / about.name, partial(_pour, content))
        stream.drain()
        db = connect(folder / "vault.db")  # its settings are those of a file now
        db.close()
        sync_folder(folder)


def _pour(source: Any, file: Any) -> None:
    while piece := source.read(_FRAME):
        file.write(piece)


def _cipher(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise MissingExtra("A backup", "cryptography", "vault") from None
    return AESGCM(key)


class _Encrypting:
    """A file that takes plain bytes and writes frames."""

    def __init__(self, file: Any, key: bytes) -> None:
        self._file, self._cipher = file, _cipher(key)
        self._waiting, self._n = bytearray(), 0

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > _FRAME:
            self._frame(bytes(self._waiting[:_FRAME]), b"more")
            del self._waiting[:_FRAME]
        return len(data)

    def finish(self) -> None:
        self._frame(bytes(self._waiting), b"last")

    def _frame(self, data: bytes, place: bytes) -> None:
        sealed = self._cipher.encrypt(self._n.to_bytes(12), data, _MAGIC + place)
        self._file.write(struct.pack("<I", len(sealed)) + sealed)
        self._n += 1


class _Decrypting:
    """The plain bytes in frames; every byte is authenticated before it is read."""

    def __init__(self, file: Any, key: bytes) -> None:
        self._file, self._cipher = file, _cipher(key)
        self._left, self._n, self._last = b"", 0, False

    def read(self, size: int) -> bytes:
        out = b""
        while len(out) < size and (self._left or not self._last):
            if not self._left:
                self._left = self._next()
            piece, self._left = self._left[: size - len(out)], self._left[size - len(out) :]
            out += piece
        return out

    def drain(self) -> None:
        """Read to the end, so that a backup that was cut off is found."""
        while not self._last:
            self._next()

    def _next(self) -> bytes:
        from cryptography.exceptions import InvalidTag

        head = self._file.read(4)
        sealed = self._file.read(struct.unpack("<I", head)[0]) if len(head) == 4 else b""
        place = b"more" if self._file.peek(1) else b"last"
        try:
            plain = self._cipher.decrypt(self._n.to_bytes(12), sealed, _MAGIC + place)
        except (InvalidTag, ValueError):
            raise NotVerified(
                "The backup cannot be read with this key: it was made before the newest deletion, was changed or cut "
                "off, or "
                "the key is another one's. Nothing was restored."
            ) from None
        self._n, self._last = self._n + 1, place == b"last"
        return plain
