"""How often who is predicted to have the event earlier has it earlier."""

from __future__ import annotations

from typing import Any

import numpy as np

from certified.errors import InvalidInput
from certified.survival._targets import times_and_events

__all__ = ["concordance_index"]


def concordance_index(y: Any, risk: Any) -> float:
    """Return Harrell's concordance index.

    Of all pairs of which one is known to have had the event while the other was still observed without it, the share in
    which the first has the larger risk; equal risks count half. 0.5 is chance, 1 a perfect order.

    Parameters
    ----------
    y : structured array or array-like of shape (n_rows, 2)
        (event, time), as in the ``fit`` of the models of this module.
    risk : array-like of shape (n_rows,)
        The larger, the earlier is the event predicted.

    Returns
    -------
    float

    Raises
    ------
    InvalidInput
        No pair can be compared.

    Notes
    -----
    Of two rows with the same time, one an event and one censored, the censored one lived longer. O(n log n).

    Examples
    --------
    >>> from certified.survival import concordance_index
    >>> concordance_index([[1, 2.0], [1, 3.0], [0, 4.0]], [0.9, 0.1, 0.5])
    0.6666666666666666
    """
    score = np.asarray(risk, dtype=np.float64)
    if score.ndim != 1 or not np.all(np.isfinite(score)):
        raise InvalidInput(
            f"concordance_index got risks of shape {score.shape}. One finite number for each row is needed."
        )
    time, event = times_and_events("concordance_index", y, len(score))
    ranks = np.unique(score, return_inverse=True)[1].tolist()
    size = max(ranks, default=0) + 1
    tree = [0] * (size + 1)  # counts of those who live longer, by rank, as sums over ranges (Fenwick)

    def below(rank: int) -> int:
        """How many have a rank below this one."""
        found = 0
        while rank > 0:
            found += tree[rank]
            rank &= rank - 1
        return found

    order = np.lexsort((event, -time))  # longest first, of one time the censored before the events
    twice, pairs, n_longer, start = 0, 0, 0, 0
    while start < len(order):
        stop = start + 1
        first = order[start]
        while stop < len(order) and time[order[stop]] == time[first] and event[order[stop]] == event[first]:
            stop += 1
        group = order[start:stop].tolist()
        if event[first]:
            for i in group:
                low, high = below(ranks[i]), below(ranks[i] + 1)
                twice += low + high  # two for each lower risk, one for each equal one
                pairs += n_longer
        for i in group:
            rank = ranks[i] + 1
            while rank <= size:
                tree[rank] += 1
                rank += rank & -rank
        n_longer += len(group)
        start = stop
    if not pairs:
        raise InvalidInput(
            "concordance_index got rows of which no two can be compared: nobody is known to live longer than one "
            "with an event. Give more rows."
        )
    return twice / (2 * pairs)
