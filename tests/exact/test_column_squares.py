"""Exact sums of squares of columns: any order, sparse or dense, rows out and in again, the same integers."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from certified._exact.column_squares import ColumnSquares
from certified.errors import InvalidInput


def table(seed, n=40, p=5):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) * 10.0 ** rng.integers(-15, 15, size=p) * (rng.random((n, p)) < 0.4)
    return x, rng.choice([0.0, 1.0, 0.3, 1e3], size=n), rng


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_rows_that_leave_or_come_in_any_order_give_the_sums_of_the_rows_held(seed):
    x, s, rng = table(seed)
    order = rng.permutation(len(x))
    gone, retained = order[:15], order[15:]
    fresh = ColumnSquares.of(x[retained], s[retained])
    assert ColumnSquares.of(x, s).subtract(x[gone], s[gone]).same(fresh)
    assert ColumnSquares.of(csr_array(x), s).subtract(csr_array(x[gone]), s[gone]).same(fresh)
    assert fresh.plus(x[gone], s[gone]).same(ColumnSquares.of(csr_array(x[order]), s[order]))
    assert np.array_equal(ColumnSquares.of(x, s).subtract(x[gone], s[gone]).values(), fresh.values())


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_sum_is_that_of_squares_rounded_to_24_digits(seed):
    x, s, _ = table(seed)
    found = ColumnSquares.of(x, s).values()
    exact = [sum(Fraction(w) * Fraction(v) ** 2 for v, w in zip(column, s, strict=True)) for column in x.T]
    exact.append(sum(map(Fraction, s)))
    np.testing.assert_allclose(found, [float(v) for v in exact], rtol=2.0**-23)


def test_a_deletion_that_changes_nothing_is_seen():
    x, s, _ = table(0)
    s[:] = 1.0
    assert not ColumnSquares.of(x, s).same(ColumnSquares.of(x[1:], s[1:]))


def test_a_square_out_of_range_is_refused():
    with pytest.raises(InvalidInput, match="above 2"):
        ColumnSquares.of(np.array([[1e20]]), np.ones(1))
