"""Survival models: time of a fit and of a deletion against statsmodels and refits; certificates against a referee.

Run: ``python benchmarks/bench_survival.py`` (``--small`` for a try). ``--referee 10000`` fits, deletes from and refines
so many random models, and compares each with a minimiser in extended precision.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from statsmodels.duration.hazard_regression import PHReg

from certified.errors import CertifiedError
from certified.survival import CoxPH, PiecewiseExponential


def data(n: int, p: int) -> tuple[Any, Any]:
    """Features, and (event, time) with ties: times are whole days."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, p))
    time_ = rng.exponential(500.0 * np.exp(-X @ (rng.normal(size=p) / np.sqrt(p))))
    end = rng.uniform(100.0, 2000.0, n)
    return X, np.column_stack([time_ <= end, np.ceil(np.minimum(time_, end))])


def timed(call: Any) -> tuple[Any, float]:
    """What a call returns, and seconds."""
    start = time.perf_counter()
    out = call()
    return out, time.perf_counter() - start


def compare(n: int, p: int, repeats: int = 9) -> None:
    """Print one row for each model."""
    X, y = data(n, p)
    breaks = [50.0, 100.0, 200.0, 400.0, 800.0]
    for name, recipe in (("CoxPH", CoxPH()), ("PiecewiseExponential", PiecewiseExponential(breaks))):
        recipe.fit(X, y)  # compiles
        model, fit = timed(lambda r=recipe: r.fit(X, y))
        single = np.median([timed(lambda m=model, i=i: m.delete([i]))[1] for i in range(repeats)])
        _, many = timed(lambda m=model: m.delete(range(100, 200)))
        stay = np.r_[repeats:100, 200:n]
        rest = X[stay], y[stay]
        recipe.fit(*rest)  # compiles for this number of rows
        _, refit = timed(lambda r=recipe, d=rest: r.fit(*d))
        line = f"{name:22} n={n} p={p}: fit {fit:.3f} s, refit {refit:.3f} s, delete one {1e3 * single:.1f} ms "
        line += f"({refit / single:.1f}x as fast as the refit), 100 at once {1e3 * many:.1f} ms"
        if name == "CoxPH":
            plain = PHReg(y[:, 1], X, status=y[:, 0], ties="efron")
            cold, seconds = timed(lambda m=plain: m.fit())
            left = PHReg(rest[1][:, 1], rest[0], status=rest[1][:, 0], ties="efron")
            _, warm = timed(lambda m=left, c=cold: m.fit(start_params=c.params))
            line += f"; statsmodels fit {seconds:.2f} s, warm refit {warm:.2f} s ({warm / single:.0f}x a deletion)"
        print(line, flush=True)


def referee(cases: int) -> None:
    """Print the largest true distance as a share of the certificate's, over so many models with four acts each."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "survival"))
    import referee as judge

    found = np.array([judge.worst_ratio(seed) for seed in range(10_000, 10_000 + cases)])
    print(
        f"{cases} models: certificates exceeded {np.sum(found > 1.0)}; true distance / bound: median "
        f"{np.median(found):.3f}, largest {found.max():.6f}; refused at once {np.sum(found == 0.0)}"
    )


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--referee", type=int, default=0)
    given = parser.parse_args()
    if given.referee:
        referee(given.referee)
        return
    for n, p in [(1_000, 5)] if given.small else [(2_000, 10), (10_000, 20), (50_000, 20)]:
        try:
            compare(n, p)
        except CertifiedError as error:
            print(n, p, "refused:", error)


if __name__ == "__main__":
    main()
