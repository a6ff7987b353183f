"""The arithmetic of a billion rows on a hundred workers, simulated: every part is the same one, read once.

What a pass finds in a part is handed out for each of its copies, so that all that grows with the number of rows runs as
it would: positions, merges of exact and of approximate sums, the bounds of rounding.
"""

import tracemalloc

import numpy as np
import polars as pl
import pytest

from certified.linear_model import LinearRegression, LogisticRegression
from certified.parts import Parts, _engines, _rows
from certified.parts._dealing import Roles

P, ROWS, COPIES = 200, 1 << 16, 1 << 14  # 1,073,741,824 rows


class Copies:
    """An engine for parts that are copies of the first: one is worked on, and stands for all."""

    apart = False

    def map(self, function, tasks, args):
        found = _engines.run(tasks[0], function, args)
        for _ in tasks:
            yield found


@pytest.fixture(scope="module")
def part():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, P))
    y = rng.random(len(x)) < 1 / (1 + np.exp(-x @ rng.normal(size=P) / 10))
    return pl.DataFrame({f"x{j}": x[:, j] for j in range(P)} | {"late": y})


def copies(part, roles, monkeypatch):
    monkeypatch.setattr(_rows, "current", lambda tasks: Copies())
    opened = Parts(part, in_memory=True, part_bytes=1 << 30).open("test", roles)
    rows = _rows.PartedRows(opened.rows.stored * COPIES, True)
    opened.rows, opened.n_rows = rows, part.height * COPIES
    opened.subjects._parted, opened.subjects.n_rows = rows, opened.n_rows
    return opened


@pytest.mark.slow  # large, not chance
def test_a_billion_rows_are_solved_as_their_part_is_and_no_number_overflows(part, monkeypatch):
    opened = copies(part, Roles(None, ("late",), as_classes=True), monkeypatch)
    assert opened.n_rows == 1 << 30
    model = LogisticRegression(C=np.inf)
    model.n_features_in_ = P
    tracemalloc.start()
    model._fit_opened(opened)
    assert tracemalloc.get_traced_memory()[1] < 300e6  # whatever the number of parts
    tracemalloc.stop()
    # The same minimiser as of one part, whose coefficients are as certain as a billion rows make them.
    alone = LogisticRegression(C=np.inf).fit(part.drop("late"), part["late"].to_numpy())
    gap = model._noise_metric_now().whitened(model._state.solution.w - alone._state.solution.w)
    times = np.sqrt(COPIES)  # one part's bound, in the metric of all
    assert np.linalg.norm(gap) <= model.certificate_.distance_bound + times * alone.certificate_.distance_bound
    assert model.certificate_.distance_bound < 1e-2
    exact, single = model._state.products, alone._state.products
    assert np.array_equal(exact.integers(), single.integers() * COPIES)


def test_moments_of_a_billion_rows_are_exact(part, monkeypatch):
    some = part.select([f"x{j}" for j in range(8)], y=pl.col("late").cast(pl.Float64))
    opened = copies(some, Roles(None, ("y",), targets_last=True), monkeypatch)
    model = LinearRegression()
    model.n_features_in_ = 8
    model._fit_opened(opened)
    alone = LinearRegression().fit(some.drop("y"), some["y"].to_numpy())
    assert np.allclose(model.private_coef_, alone.private_coef_, rtol=1e-13)
    rows = np.array([0, opened.rows.size - 1000])
    assert model._rows.take(rows)[0].shape == (2, 10)
    assert list(model._rows.places(rows)) == [0, len(opened.rows.stored) - 1]
