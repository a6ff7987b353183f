"""New features of the retained rows, where a deletion has changed some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from certified.typing import BoolArray, IntArray

__all__ = ["FeatureChange", "merged"]


@dataclass(frozen=True, eq=False)
class FeatureChange:
    """Features of the retained rows, where a deletion has changed some of them.

    Attributes
    ----------
    retained : bool array of shape (n_rows,)
        Which positions stay.
    pieces : list of slice or array of shape (n_kept, k)
        From left to right: columns that were there before and are the same for the retained rows, or new ones, which
        may be sparse.
    """

    retained: BoolArray
    pieces: list[Any]

    @property
    def spots(self) -> list[slice]:
        """Where each piece stands among the new columns."""
        widths = [p.stop - p.start if isinstance(p, slice) else p.shape[1] for p in self.pieces]
        ends = np.cumsum(widths).tolist()
        return [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.spots[-1].stop)

    def source(self) -> IntArray:
        """Position that each column had before, -1 for new ones."""
        out = [np.arange(p.start, p.stop) if isinstance(p, slice) else np.full(p.shape[1], -1) for p in self.pieces]
        return np.concatenate(out)

    def nothing_changed(self, n_features: int) -> bool:
        """Whether all of these columns, and no others, were there before."""
        return np.array_equal(self.source(), np.arange(n_features))

    def write(self, x: Any, before: Any) -> None:
        """Fill the first columns of `x` (zeros), with `before` as they were; rows that do not stay are left zero."""
        n = len(self.retained)
        for spot, piece in merged(self.spots, self.pieces):
            if isinstance(piece, slice):
                x[:n, spot] = before[:n, piece]
            else:
                x[:n][self.retained, spot] = piece
        x[:n][~self.retained] = 0.0


def merged(spots: list[slice], pieces: list[Any]) -> list[tuple[slice, Any]]:
    """Return the pieces with their places; columns that stay side by side are one piece, which is faster to copy."""
    out: list[tuple[slice, Any]] = []
    for spot, piece in zip(spots, pieces, strict=True):
        before = out[-1][1] if out else None
        if isinstance(piece, slice) and isinstance(before, slice) and before.stop == piece.start:
            out[-1] = slice(out[-1][0].start, spot.stop), slice(before.start, piece.stop)
        else:
            out.append((spot, piece))
    return out
