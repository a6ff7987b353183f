"""A log as files that any web server can serve and any client of transparency logs can read.

References
----------
https://c2sp.org/tlog-tiles
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["export_tiles"]

_WIDTH = 256


def export_tiles(ledger: Any, folder: str | Path) -> list[Path]:
    """Write the checkpoint, the tiles of hashes and the bundles of entries; return the files written, checkpoint last.

    Entries hold no ids and no values of rows; who may read the log is still for its owner to decide.
    """
    folder, tree, size = Path(folder), ledger.tree(), len(ledger)
    written, level = [], 0
    while size >> (8 * level):
        hashes = tree.level(8 * level)[: size >> (8 * level)]
        written += [_write(folder / f"tile/{level}", n, part, b"".join(part)) for n, part in _parts(hashes)]
        level += 1
    bodies = [body for (body,) in ledger.db.execute("select body from entry where seq < ? order by seq", (size,))]
    for n, part in _parts(bodies):
        bundle = b"".join(len(body).to_bytes(2) + body for body in part)
        written.append(_write(folder / "tile/entries", n, part, bundle))
    head = folder / "checkpoint"
    head.write_text(str(ledger.checkpoint(size)), encoding="utf-8")
    return [*written, head]


def _parts(values: Sequence[bytes]) -> list[tuple[int, Sequence[bytes]]]:
    return [(start // _WIDTH, values[start : start + _WIDTH]) for start in range(0, len(values), _WIDTH)]


def _write(folder: Path, n: int, part: Sequence[bytes], data: bytes) -> Path:
    digits = f"{n:03d}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    path = folder / (name if len(part) == _WIDTH else f"{name}.p/{len(part)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
