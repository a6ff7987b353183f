"""Files that are on disk when a function returns, and bytes that are gone when it returns.

An error of a sync is never retried: the kernel may report success the second time although the data are lost. It
leaves the
vault closed, and the next opening recovers.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from certified.errors import Locked, StorageFailed

__all__ = ["file_system", "locked", "overwrite_and_remove", "storage", "sync_folder", "write_new"]

_CHUNK = 1 << 20


@contextmanager
def storage(what: str) -> Iterator[None]:
    """Translate errors of the operating system."""
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageFailed | Locked):
            raise
        raise StorageFailed(
            f"{what} failed: {error}. What was committed before is as it was; open the vault again once there is space "
            "and "
            "the disk is well."
        ) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_new(path: Path, write: Callable[[Any], Any]) -> Any:
    """Put a whole file under a name that nobody reads yet, durably; return what ``write(file)`` returned."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)  # before the change, so that its sync cannot fail late
    try:
        temporary = path.with_name(path.name + ".tmp")
        with open(temporary, "wb") as file:
            result = write(file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
        os.fsync(folder)
    finally:
        os.close(folder)
    return result


def overwrite_and_remove(path: Path) -> None:
    """Overwrite a file with zeros, sync it, and take its name away; the folder is to be synced by the caller."""
    handle = os.open(path, os.O_WRONLY)
    try:
        size, done = os.fstat(handle).st_size, 0
        zeros = bytes(min(size, _CHUNK))
        while done < size:
            done += os.pwrite(handle, zeros[: size - done], done)
        os.fdatasync(handle)
    finally:
        os.close(handle)
    os.unlink(path)


@contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock that goes with the process."""
    handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked(
                f"Another process works on {path.parent}. Wait until it has finished, or end it. Nothing was changed."
            ) from None
        yield
    finally:
        os.close(handle)


_REMARKS = {
    "btrfs": "copies on write: old blocks stay until they are used again",
    "zfs": "copies on write: old blocks stay until they are used again",
    "overlay": "layered: the layer below may keep an older copy",
    "nfs": "on another machine, of which nothing is known",
    "nfs4": "on another machine, of which nothing is known",
    "cifs": "on another machine, of which nothing is known",
    "fuse": "made by a program, of which nothing is known",
}


def file_system(path: Path) -> tuple[str, str]:
    """Return the kind of file system on which a path lies, and what that means for overwritten bytes ("" for
    nothing)."""
    best, kind = "", "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind, "not known on this system"
    where = str(path.resolve())
    for line in lines:
        _, mount, name, *_ = line.split()
        mount = mount.replace("\\040", " ")
        if (where == mount or where.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, name
    return kind, _REMARKS.get(kind.partition(".")[0], "")
