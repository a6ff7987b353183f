"""Parts of forests: codes of features, and the split of a node against all kernels_split tried one by one."""

import importlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._data.hashing import subject_hash
from certified._trees import compile, kernels_small, kernels_split
from certified._trees.binning import MISSING, coding_of, encode, thresholds


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), spread=st.integers(-20, 20), place=st.floats(-1e6, 1e6))
def test_codes_are_monotone_and_thresholds_are_where_they_change(seed, spread, place):
    rng = np.random.default_rng(seed)
    X = (rng.standard_cauchy((300, 1)) * 2.0**spread + place).astype(np.float32)
    X[:3] = [[0.0], [-0.0], [np.nan]]
    coding = coding_of(X, subject_hash(np.arange(300)), 100)
    code = encode(X, coding)[0].astype(int)
    assert (code == MISSING).sum() == 1
    assert code[0] == code[1]
    held = np.flatnonzero(code != MISSING)
    order = held[np.argsort(X[held, 0], kind="stable")]
    assert np.all(np.diff(code[order]) >= 0)
    cuts = rng.choice(code[held], 20).astype(np.uint16)
    where = thresholds(np.zeros(20, dtype=int), cuts, coding)
    for cut, threshold in zip(cuts, where, strict=True):
        assert np.array_equal(code[held] <= cut, X[held, 0].astype(np.float64) <= threshold)


def test_the_map_of_codes_seldom_changes():
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.standard_normal(20_000), rng.lognormal(sigma=2, size=20_000)]).astype(np.float32)
    hashes = subject_hash(np.arange(20_000))
    first = coding_of(X, hashes, 1000)
    changed = 0
    for _ in range(200):
        retained = rng.random(20_000) > 0.01  # 200 rows at once
        again = coding_of(X[retained], hashes[retained], 1000)
        changed += not (np.array_equal(again.centre, first.centre) and np.array_equal(again.scale, first.scale))
    assert changed < 20  # 40,000 single deletions: about 2 / n each for a feature would be 8


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from([0, 2]), missing=st.booleans(), least=st.integers(1, 9))
def test_the_split_of_a_feature_is_the_best_of_all_boundaries(seed, kind, missing, least):
    rng = np.random.default_rng(seed)
    n, cells = 40, 9
    column = rng.choice(rng.integers(30_000, 36_000, rng.integers(1, 30)), n).astype(np.uint16)
    if missing:
        column[rng.random(n) < 0.3] = MISSING
    targets = rng.integers(0, 2, (n, 1)) if kind == 0 else rng.integers(-1000, 1000, (n, 1))
    hist, span = np.zeros((cells + 1, 2), np.int64), np.zeros(4, np.int32)
    move, path = int(rng.integers(65536)), np.uint64(seed)
    best = np.full(2, -np.inf), np.full(5, -1, np.int64)
    rows, none = np.arange(n, dtype=np.int32), np.empty(0, np.int64)
    turn = np.uint64(0)  # numbers, not categories
    kernels_split.count(column, rows, n, targets, none, kind, move, cells, np.empty(n, np.uint16), hist, span, turn)
    total = np.array([np.sum(targets == 0), np.sum(targets == 1)] if kind == 0 else [n, targets.sum()])
    criterion = 0 if kind == 0 else 2
    found = kernels_split.best_of(
        hist, span, total, n, kind, criterion, cells, move, least, 0, False, path, 0, np.zeros((2, 2), np.int64), best
    )
    codes_ = column.astype(int)

    def error(rows):
        part = targets[rows, 0].astype(float)
        return np.sum((part - part.mean()) ** 2) if len(part) else 0.0

    held = codes_[codes_ != MISSING]
    candidates = []
    if held.size:
        shift = kernels_split.shift_of(int(held.min()), int(held.max()), move, cells)
        assert ((held.max() + move) >> shift) - ((held.min() + move) >> shift) < cells
        groups = np.unique((held + move) >> shift)
        for g in groups[:-1]:
            inside = (codes_ != MISSING) & ((codes_ + move) >> shift <= g)
            candidates += [inside] if not (codes_ == MISSING).any() else [inside, inside | (codes_ == MISSING)]
        if (codes_ == MISSING).any():
            candidates.append(codes_ != MISSING)
    valid = [c for c in candidates if c.sum() >= least and (~c).sum() >= least]
    assert found == bool(valid)
    if found:
        _, cut, side, n_left, _ = best[1]
        left = np.where(codes_ == MISSING, side == 1, codes_ <= cut)
        assert left.sum() == n_left
        errors = sorted(error(c) + error(~c) for c in valid)
        assert error(left) + error(~left) == pytest.approx(errors[0], rel=1e-9, abs=1e-9)
        whole = 0.0 if kind == 0 else float(np.sum(targets.astype(float) ** 2))  # values compare between features
        assert best[0][0] == pytest.approx(whole - errors[0], rel=1e-9, abs=1e-6)
        assert best[0][1] == pytest.approx(whole - errors[1] if len(errors) > 1 else -np.inf, rel=1e-9, abs=1e-6)
        explained = kernels_split.explained(best[0][0], total, n, kind, criterion, False)
        assert explained == pytest.approx((error(np.full(n, True)) - errors[0]) * (2 - kind // 2), rel=1e-9, abs=1e-6)


def test_the_logarithm_is_right():
    for x in [1.0, 2.0, 3.0, 10.0, 12345.0, 2.0**40 + 1, 0.3]:
        assert kernels_split.log2_of(x) == pytest.approx(np.log2(x), rel=1e-15, abs=1e-15)


def test_what_was_compiled_before_holds_for_these_sources_of_all_kernels():
    """Else a compile goes on with what it took in from another file that has changed."""
    modules = [importlib.import_module(f"certified._trees.{path.stem}") for path in compile._FILES]
    compiled = {value for module in modules for value in vars(module).values() if hasattr(value, "_cache")}
    assert len(compiled) > 30
    assert {function._cache._cache_file._source_stamp[1] for function in compiled} == {compile._SOURCES}


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(2, 63),
    kind=st.sampled_from([0, 2]),
    missing=st.booleans(),
    least=st.sampled_from([1, 3]),
)
def test_in_a_small_node_every_boundary_between_codes_is_looked_at(seed, n, kind, missing, least):
    rng = np.random.default_rng(seed)
    column = rng.integers(0, rng.integers(2, 60_000), n).astype(np.uint16)
    if missing:
        column[rng.random(n) < 0.2] = 65535
    targets = rng.integers(0, 2, (n, 1)).astype(np.uint16 if kind == 0 else np.int64)
    total = np.array([np.sum(targets == 0), np.sum(targets == 1)] if kind == 0 else [n, targets.sum()])
    best = np.full(2, -np.inf), np.full(5, -1, np.int64)
    found = kernels_small.scan_rows(
        column, np.arange(n, dtype=np.int32), n, targets, np.empty(0, np.int64), total, kind, 0 if kind == 0 else 2,
        least, 0, 0, np.uint64(0), 2, np.empty(64, np.int64), np.zeros((2, 2), np.int64), best,
    )  # fmt: skip

    def error(rows):
        part = targets[rows, 0].astype(float)
        return np.sum((part - part.mean()) ** 2) if len(part) else 0.0

    known = np.unique(column[column != 65535]).astype(int)
    cuts = [(a + b) // 2 for a, b in pairwise(known)] + ([65534] if missing else [])
    sides = [(c, column <= c) for c in cuts] + [(c, (column <= c) | (column == 65535)) for c in cuts if missing]
    valid = [(error(left) + error(~left), left) for _, left in sides if least <= left.sum() <= n - least]
    assert found == bool(valid)
    if valid:
        left = column <= best[1][1]
        if best[1][2] == 1:
            left |= column == 65535
        assert error(left) + error(~left) == pytest.approx(min(value for value, _ in valid), abs=1e-9)
        assert left.sum() == best[1][3]
