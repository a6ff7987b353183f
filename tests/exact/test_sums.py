"""Exact sums: any order gives the same bits, and what is subtracted is as if it had never been added."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._exact.sums import Products

N, P = 24, 3  # one shape, so that hypothesis compiles nothing anew
LIMBS = pytest.mark.parametrize("limbs", [1, 2])
GRAM = pytest.mark.parametrize("gram", [True, False], ids=["gram", "moments"])
KINDS = ("plain", "heavy", "zeros", "scales", "powers", "equal")


def data(seed, kind, weighted, n=N, p=P):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p))
    if kind == "heavy":
        x = rng.standard_t(1.0, size=(n, p))
    elif kind == "zeros":
        x[rng.random((n, p)) < 0.5] = 0.0
        x[:, 1] = 0.0
    elif kind == "scales":
        x *= 10.0 ** rng.integers(-120, 120, size=p)
    elif kind == "powers":
        x = np.sign(x) * 2.0 ** rng.integers(-3, 3, size=(n, p))
    elif kind == "equal":
        x[:] = 1.0
    weight = 10.0 ** rng.uniform(-3, 3, size=n) if weighted else np.ones(n)
    if weighted:
        weight[rng.random(n) < 0.2] = 0.0
    return x, weight


def quantised(products, x, weight):
    """The integers that the columns are read as, by Python's own rational numbers: shape (n, p)."""
    rows = np.sqrt(weight)[:, None] * x
    out = np.zeros(x.shape, dtype=object)
    for j, e in enumerate(products.exponents.tolist()):
        for i, value in enumerate(rows[:, j].tolist()):
            scaled = Fraction(value) * Fraction(2) ** (20 - e)
            high = round(scaled)
            out[i, j] = high if products.limbs == 1 else (high << 20) + round((scaled - high) * 2**20)
    return out


def exact_sums(products, x, weight):
    table = quantised(products, x, weight)
    if products.gram:
        return table.T @ table
    return np.stack([(table * table).sum(axis=0), (table * table[:, -1:]).sum(axis=0)], axis=-1)


cases = given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), weighted=st.booleans())


@LIMBS
@GRAM
@cases
@settings(max_examples=40)
def test_order_of_the_rows_does_not_matter(limbs, gram, seed, kind, weighted):
    x, weight = data(seed, kind, weighted)
    order = np.random.default_rng(seed + 1).permutation(N)
    first = Products.of(x, weight, limbs=limbs, gram=gram)
    assert first.same(Products.of(x[order], weight[order], limbs=limbs, gram=gram))


@LIMBS
@GRAM
@cases
@settings(max_examples=40)
def test_sums_are_those_of_the_quantised_data(limbs, gram, seed, kind, weighted):
    x, weight = data(seed, kind, weighted)
    found = Products.of(x, weight, limbs=limbs, gram=gram)
    assert np.array_equal(found.integers(), exact_sums(found, x, weight))


@LIMBS
@GRAM
@cases
@settings(max_examples=60)
def test_minus_equals_the_sums_over_the_other_rows(limbs, gram, seed, kind, weighted):
    x, weight = data(seed, kind, weighted)
    rng = np.random.default_rng(seed + 2)
    gone = rng.permutation(N)[: rng.integers(1, N)]
    retained = np.ones(N, dtype=bool)
    retained[gone] = False
    whole = Products.of(x, weight, limbs=limbs, gram=gram)
    before = [whole.exponents.copy(), whole.top.copy(), whole.sums.copy()]
    left = whole.subtract(x[gone], weight[gone])
    afresh = Products.of(np.where(retained[:, None], x, 0.0), np.where(retained, weight, 0.0), limbs=limbs, gram=gram)
    if left is None:
        assert not np.array_equal(afresh.exponents, whole.exponents)
    else:
        assert np.array_equal(afresh.exponents, whole.exponents)
        assert left.same(afresh)
        assert left.same(Products.of(x[retained], weight[retained], limbs=limbs, gram=gram))
    for old, now in zip(before, (whole.exponents, whole.top, whole.sums), strict=True):
        assert np.array_equal(old, now)


@LIMBS
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_deletions_one_by_one_equal_one_deletion(limbs, seed):
    x, weight = data(seed, "powers", False)
    x[:8] = 4.0  # the exponents stay
    step = Products.of(x, weight, limbs=limbs)
    at_once = step.subtract(x[8:], weight[8:])
    for i in np.random.default_rng(seed).permutation(np.arange(8, N)):
        step = step.subtract(x[[i]], weight[[i]])
    assert step.same(at_once)


@LIMBS
@cases
@settings(max_examples=40)
def test_matrix_is_the_integers_rounded(limbs, seed, kind, weighted):
    x, weight = data(seed, kind, weighted)
    found = Products.of(x, weight, limbs=limbs)
    unit = found.unit_exponents.tolist()
    exact = found.integers()
    for j in range(P):
        for k in range(P):
            value = Fraction(int(exact[j, k])) * Fraction(2) ** (unit[j] + unit[k])
            size = Fraction(2) ** int(found.exponents[j] + found.exponents[k])
            room = 4 * abs(value) / 2**52 + N * size / 2**52
            assert abs(Fraction(float(found.matrix()[j, k])) - value) <= room


@pytest.mark.parametrize(("limbs", "bits"), [(1, 19), (2, 37)])
@cases
@settings(max_examples=40)
def test_matrix_is_close_to_the_float_gram(limbs, bits, seed, kind, weighted):
    x, weight = data(seed, kind, weighted)
    rows = np.sqrt(weight)[:, None] * x
    found = Products.of(x, weight, limbs=limbs)
    with np.errstate(over="ignore"):
        peak = np.abs(rows).max(axis=0)
        room = N * (np.outer(peak, peak) * 2.0**-bits * 2 + 1e-290)
        assert np.all(np.abs(found.matrix() - rows.T @ rows) <= room)
    assert np.array_equal(found.matrix(), found.matrix().T)


def test_none_as_weight_means_one():
    x, _ = data(0, "plain", False)
    assert Products.of(x).same(Products.of(x, np.ones(N)))


def test_exponents_are_the_smallest_and_top_counts_the_rows_that_need_them():
    x = np.array([[1.0, 0.0, 0.75], [1.5, 0.0, 0.5], [-1.9, 0.0, -0.4]])
    found = Products.of(x)
    assert found.exponents.tolist() == [1, -900, 0]
    assert found.top.tolist() == [3, 0, 2]
    assert found.subtract(x[[0]], np.ones(1)).top.tolist() == [2, 0, 1]
    assert found.subtract(x[[0, 1]], np.ones(2)) is None


def test_rows_of_weight_zero_have_no_influence_on_the_sums():
    x, weight = data(3, "plain", True)
    retained = weight > 0
    assert 0 < retained.sum() < N
    assert Products.of(x, weight).same(Products.of(x[retained], weight[retained]))


@LIMBS
@pytest.mark.parametrize("n", [4096, 4097, 20000])
def test_many_rows_are_summed_exactly(limbs, n):
    x, weight = data(n, "heavy", True, n=n, p=2)
    found = Products.of(x, weight, limbs=limbs)
    assert np.array_equal(found.integers(), exact_sums(found, x, weight))
    half = np.flatnonzero(np.abs(x).max(axis=1) < 1)
    left = found.subtract(x[half], weight[half])
    rest = np.setdiff1d(np.arange(n), half)
    assert left.same(Products.of(x[rest], weight[rest], limbs=limbs))


@LIMBS
@GRAM
def test_largest_values_do_not_overflow_a_block(limbs, gram):
    x = np.full((8192, 2), math.nextafter(1.0, 0.0))
    found = Products.of(x, limbs=limbs, gram=gram)
    assert np.array_equal(found.integers(), exact_sums(found, x, np.ones(8192)))


def test_same_tells_states_apart():
    x, weight = data(5, "plain", False)
    other = x.copy()
    other[3, 1] += 0.01
    assert not Products.of(x, weight).same(Products.of(other, weight))
    assert not Products.of(x, weight).same(Products.of(x, weight, limbs=2))
