"""The bound of every influence is at least the true error: all losses, weights, offsets, several rows, groups.

The referee refits every subject's absence by Newton's method in extended precision.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import solve_triangular
from test_glm_certificates import KINDS, LONG, LOSSES, _scalar, draw, minimise

from certified._convex import bounds, leave_out, vector_bounds
from certified._convex.leave_out import LeftOut, Minimised
from certified._convex.left_out_by_passes import by_passes
from certified._convex.losses import Softmax
from certified._convex.problem import NoiseMetric, Problem
from certified._data.rows import Rows
from certified._exact.sums import Products
from certified.errors import CannotCertify
from certified.influence._validation import _response, by_group, predictions

REFEREE = 1e-9  # relative error allowed to the referee

pytestmark = pytest.mark.skipif(np.finfo(LONG).eps > 1e-18, reason="no extended precision on this platform")


def _sizes(rng, n):
    """How many rows each subject has: few, several, or a quarter of all."""
    sizes = [1, 1, 2, 3, int(rng.integers(4, 9)), n // 4]
    return sizes if rng.random() < 0.5 else sizes[:4]


def _judge_validation(rng, base, found, truth, whole, p):
    """Losses, means and single predictions on rows of another kind."""
    loss, K = base.problem.loss, base.problem.loss.outputs
    x = np.column_stack(
        [rng.normal(size=(12, p - 1)) * np.abs(base.point.reshape(K, -1)[0, :-1]).clip(1e-6) ** -1, np.ones(12)]
    )
    x[:, :-1] = np.clip(x[:, :-1], -1e5, 1e5)
    y = rng.integers(0, max(K, 2), size=12).astype(float) + (0.0 if K > 1 or "Logistic" in repr(loss) else 0.5)
    s, offset, by = rng.uniform(0.5, 2.0, size=12), np.zeros(12), np.arange(12) % 2
    _, losses, means = by_group(base, found, found.error, x, y, s, offset, by)
    each = None if K > 1 else predictions(base, found, found.error, x, offset)

    def value(w):
        z = x.astype(LONG) @ w.reshape(K, -1).T
        if K > 1:
            top = z.max(axis=1, keepdims=True)
            return np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(12), y.astype(int)], None
        return _scalar(loss, y.astype(LONG), z[:, 0])[0], _response_of(loss, z[:, 0])

    before = value(whole)
    for i, w in enumerate(truth):
        after = value(w)
        for g in (0, 1):
            share = np.where(by == g, s, 0.0).astype(LONG)
            share = share / share.sum()
            _below(losses, (i, g), share @ (after[0] - before[0]), f"loss, {loss}")
            if K == 1:
                _below(means, (i, g), share @ (after[1] - before[1]), f"mean, {loss}")
        if K == 1:
            for j in range(12):
                _below(each, (i, j), after[1][j] - before[1][j], f"prediction, {loss}")


def _response_of(loss, z):
    if "Logistic" in repr(loss):
        return 1 / (1 + np.exp(-z))
    return z if "Squared" in repr(loss) or "LogCosh" in repr(loss) else np.exp(z)


def _below(change, place, true, what):
    off = abs(float(LONG(change.value[place]) - true))
    assert off <= change.error[place] * (1 + REFEREE), f"{what}: bound {change.error[place]}, off by {off}"


def _case(seed, tally):
    rng = np.random.default_rng([seed, 17])
    loss, kind = LOSSES[seed % len(LOSSES)], KINDS[seed // len(LOSSES) % len(KINDS)]
    x, y, s, offset = draw(rng, loss, kind)
    n, p = x.shape
    penalized = np.tile(np.append(np.ones(p - 1), 0.0), loss.outputs)
    alpha = float(10.0 ** rng.uniform(-4, 0)) if rng.random() < 0.9 or loss.outputs > 1 else 0.0
    shrinks = bool(rng.random() < 0.5)
    rows = Rows(x, y, s, offset=offset if np.any(offset) else None)

    def strength(retained):
        return alpha * (float(np.sum(s[retained])) if shrinks else 10.0)

    everyone = np.ones(n, dtype=bool)
    identifiability = np.eye(p) * n if loss.outputs > 1 else None
    problem = Problem(
        loss, penalized, strength(everyone), 2.0 ** round(np.log2(loss.scale(1.5))), identifiability, shrinks
    )
    noise_metric = NoiseMetric.of(problem, Products.of(x, s), n)
    target = float(10.0 ** rng.uniform(-9, -1))
    of = Minimised(problem, rows, noise_metric, np.zeros(len(penalized)), target, 100)
    base = leave_out.setting(of)
    free = rng.permutation(np.arange(2 * loss.outputs, n))
    sizes = [size for size in _sizes(rng, n) if size <= min(n // 3, free.size)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    order = np.concatenate([rng.permutation(free)[:size] for size in sizes])
    found = leave_out.leave_out(base, rows, order, starts)
    if seed % 4 == 0:
        by_passes(base, of, found, order, starts, 3)
    whole = minimise(loss, x, y, s, offset, problem.penalty, base.point)
    truth, good = [], np.isfinite(found.error)
    for i in np.flatnonzero(good):
        retained = everyone.copy()
        retained[order[starts[i] : starts[i + 1]]] = False
        start = base.point + found.change[i]
        left = minimise(
            loss, x[retained], y[retained], s[retained], offset[retained], strength(retained) * penalized, start
        )
        truth.append(left)
        gap = np.asarray(left - whole - found.change[i], dtype=np.float64)
        true = float(np.linalg.norm(solve_triangular(base.inverse_factor.T, gap)))
        assert found.error[i] >= true * (1 - REFEREE), f"{loss}, {kind}: bound {found.error[i]}, true {true}"
        entries = np.abs(gap) <= found.error[i] * base.errors * (1 + REFEREE)
        assert np.all(entries), f"{loss}, {kind}: an entry is beyond its bound"
        tally.append((sizes[i], found.error[i], true, found.size[i]))
    if truth:
        _judge_validation(rng, base, LeftOut(*(part[good] for part in found)), truth, whole, p)
    return len(sizes)


def _run(seeds):
    tally, asked, refused = [], 0, 0
    for seed in seeds:
        try:
            with np.errstate(over="ignore"):
                asked += _case(seed, tally)
        except CannotCertify:
            refused += 1
    return tally, asked, refused


def _judge(tally, asked, refused, cases):
    ratio = np.array([bound / true for _, bound, true, _ in tally if true > 0])
    share = np.array([bound / size for _, bound, _, size in tally])
    print(
        f"\n{len(tally)} bounds of {asked} asked, {refused} of {cases} problems refused; bound / true "
        f"{np.quantile(ratio, [0, 0.05, 0.5, 0.95]).round(3)}, bound / size {np.quantile(share, [0.05, 0.5, 0.95])}"
    )
    assert refused <= cases // 10
    assert len(tally) >= asked // 2
    assert np.median(ratio) < 60


def test_no_bound_of_an_influence_is_below_the_truth():
    _judge(*_run(range(0, 54, 2)), 27)  # every loss and every kind


@pytest.mark.slow
def test_no_bound_of_an_influence_is_below_the_truth_in_ten_thousand_cases():
    tally, asked, refused = _run(range(10_000, 13_000))
    _judge(tally, asked, refused, 3_000)
    assert len(tally) >= 10_000


def _with(monkeypatch, **changes):
    """Let what is measured of a setting be changed before it is used."""
    honest = leave_out.setting
    monkeypatch.setattr(
        leave_out,
        "setting",
        lambda of: (lambda base: replace(base, **{name: f(base) for name, f in changes.items()}))(honest(of)),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"quartic": lambda base: 0.03 * base.quartic},
        {"distance": lambda base: 0.0},
        {"ridge": lambda base: None},
    ],
    ids=["moments", "distance", "penalty"],
)
def test_a_bound_that_forgets_a_part_is_caught(monkeypatch, changes):
    _with(monkeypatch, **changes)
    with pytest.raises(AssertionError, match="bound"):
        _run(range(400))


def test_bounds_of_many_are_those_of_one():
    b = np.concatenate([[0.0, 1e-12], np.geomspace(1e-8, 699.0, 200), [0.2499999, 0.25, 0.2500001, 800.0]])
    one = np.array([bounds.remainder(float(v)) for v in b])
    many = vector_bounds.remainder(b)
    np.testing.assert_allclose(many[:-1], one[:-1], rtol=1e-9)
    assert np.isinf(many[-1])
    exact = [
        LONG(v) / 2 * (1 + LONG(v) / 3 * (1 + LONG(v) / 4)) if v < 1e-3 else (np.exp(LONG(v)) - 1 - LONG(v)) / LONG(v)
        for v in b[:-1]
    ]
    assert np.all(many[:-1] >= np.array(exact, dtype=LONG))
    nu, q = np.geomspace(1e-12, 2.0, 50), np.linspace(-0.1, 1.0, 50)
    for M in (0.0, 1e-9, 0.5):
        many = vector_bounds.distance(nu, M, q)
        one = np.array([bounds.theorem1(a, M, b) for a, b in zip(nu, q, strict=True)])
        np.testing.assert_array_equal(np.isfinite(many), np.isfinite(one))
        np.testing.assert_allclose(many[np.isfinite(one)], one[np.isfinite(one)], rtol=1e-9)


def test_the_response_of_every_loss_of_one_predictor_has_the_slope_that_is_used():
    z = np.linspace(-3.0, 3.0, 7)
    for loss in LOSSES:
        if isinstance(loss, Softmax):
            continue
        value, slope = _response(loss, z)
        np.testing.assert_allclose((_response(loss, z + 1e-6)[0] - value) / 1e-6, slope, rtol=1e-4)


def test_passes_that_do_not_leave_the_subject_out_are_caught(monkeypatch):
    honest = leave_out.newton_cholesky.improve

    def improve(problem, rows, weight, *args, **known):
        return honest(problem, rows, rows.weight, *args, **known)

    monkeypatch.setattr(leave_out.newton_cholesky, "improve", improve)
    with pytest.raises(AssertionError, match="bound"):
        _run(range(0, 400, 4))
