"""Harrell's index equals the count of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified.errors import InvalidInput
from certified.survival import concordance_index


def counted(y, risk):
    """All pairs, one by one."""
    won = pairs = 0.0
    for (event, time), first in zip(y, risk, strict=True):
        for (other_event, other_time), second in zip(y, risk, strict=True):
            if event and (other_time > time or (other_time == time and not other_event)):
                pairs += 1
                won += 1.0 if first > second else 0.5 if first == second else 0.0
    return won / pairs if pairs else None


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 4)), min_size=1, max_size=30))
def test_it_is_the_share_of_all_pairs(rows):
    y, risk = [(float(e), float(t)) for e, t, _ in rows], [float(r) for *_, r in rows]
    expected = counted(y, risk)
    if expected is None:
        with pytest.raises(InvalidInput, match="no two can be compared"):
            concordance_index(y, risk)
    else:
        assert concordance_index(y, risk) == pytest.approx(expected, abs=1e-12)


def test_a_perfect_order_is_1_and_its_reverse_is_0():
    time = np.arange(1.0, 50.0)
    assert concordance_index(time, -time) == 1.0
    assert concordance_index(time, time) == 0.0
