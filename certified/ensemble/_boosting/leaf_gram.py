"""Rows that leave the Gram matrix of leaf indicators, exactly and in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from certified.typing import FloatArray

__all__ = ["subtracting"]


def subtracting(gram: FloatArray, leaves: NDArray[np.int16], m: FloatArray) -> Callable[[], None]:
    """Return what subtracts rows, in place; exact.

    Called again after an interrupt, it goes on where it was.
    """
    pairs = list(zip(leaves.copy(), m.copy(), strict=True))
    last: list[tuple[int, Any, Any]] = []  # the last row, where it lies, and what is left there without it

    def subtract() -> None:
        for _, where, values in last:
            gram[where] = values
        for k in range(last[0][0] + 1 if last else 0, len(pairs)):
            row, own = pairs[k][0], np.atleast_1d(pairs[k][1])
            full = own * np.eye(len(own)) * own.sum() - np.outer(own, own) if len(own) > 1 else own[:, None]
            copies, where = len(row) // len(own), np.ix_(row, row)
            last[:] = [(k, where, gram[where] - np.repeat(np.repeat(full, copies, axis=0), copies, axis=1))]
            gram[where] = last[0][2]

    return subtract
