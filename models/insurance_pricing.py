"""Motor insurance pricing (freMTPL2, 678,013 policies): frequency, severity and pure premium that can delete a policy.

Run ``python models/insurance_pricing.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/insurance_pricing.py --small`` on policies that the script invents.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import public_data

from certified.linear_model import GammaRegressor, PoissonRegressor, TweedieRegressor

# Levels and edges are fixed, not learned, so the features remember nobody. The first level of each is the base.
BRANDS = ["B1", "B2", "B3", "B4", "B5", "B6", "B10", "B11", "B12", "B13", "B14"]
REGIONS = [f"R{k}" for k in (24, 11, 21, 22, 23, 25, 26, 31, 41, 42, 43, 52, 53, 54, 72, 73, 74, 82, 83, 91, 93, 94)]
LEVELS = {"VehBrand": BRANDS, "Region": REGIONS, "Area": list("CABDEF"), "VehGas": ["Regular", "Diesel"]}
EDGES = {"VehAge": (1, 4, 10, 20), "DrivAge": (21, 26, 31, 41, 51, 71), "VehPower": (5, 6, 7, 9, 11)}


class Table(NamedTuple):
    """One model's data, a row for each policy."""

    X: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None
    exposure: np.ndarray | None
    ids: np.ndarray


def load() -> pl.DataFrame | None:
    """Return one row per policy with its claims and their amount, or None where the data set is absent."""
    frame = public_data.freMTPL2()
    if frame is None:
        return None
    return frame.with_columns(
        pl.col("Exposure").clip(0.0, 1.0),
        pl.col("ClaimNb").clip(0, 4).cast(pl.Float64),
        pl.col("ClaimAmount").clip(0.0, 200_000.0),
    )


def invent(n: int = 6_000) -> pl.DataFrame:
    """Policies with the same columns, at random."""
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {name: rng.choice(levels, n) for name, levels in LEVELS.items()}
        | {name: rng.integers(0, 2 * edges[-1] // 1, n) for name, edges in EDGES.items()}
        | {"IDpol": np.arange(n) + 1, "Density": rng.integers(1, 20_000, n), "BonusMalus": rng.integers(50, 130, n)}
        | {"Exposure": rng.uniform(0.05, 1.0, n)}
    )
    number = rng.poisson(frame["Exposure"].to_numpy() * np.exp(-2.0 + 0.01 * frame["BonusMalus"].to_numpy()))
    amount = np.where(number > 0, rng.gamma(2.0, 600.0, n) * number, 0.0)
    return frame.with_columns(pl.Series("ClaimNb", number.astype(float)), pl.Series("ClaimAmount", amount))


def features(frame: pl.DataFrame) -> np.ndarray:
    """Return the design matrix: indicators of fixed levels and bins, and two numbers."""
    columns = [np.log(frame["Density"].to_numpy().astype(float)) / 5.0, frame["BonusMalus"].to_numpy() / 50.0]
    for name, levels in LEVELS.items():
        columns += [(frame[name] == level).to_numpy() for level in levels[1:]]
    for name, edges in EDGES.items():
        columns += [(frame[name] >= edge).to_numpy() for edge in edges]  # steps: each is a change against the bin below
    return np.ascontiguousarray(np.column_stack(columns).astype(np.float64))


def tables(frame: pl.DataFrame) -> dict[str, tuple[Any, Table]]:
    """Return the three models and their data."""
    X, ids = features(frame), frame["IDpol"].to_numpy()
    number, years, amount = (frame[name].to_numpy() for name in ("ClaimNb", "Exposure", "ClaimAmount"))
    some = (number > 0) & (amount > 0)
    return {
        "frequency": (PoissonRegressor(alpha=1e-4), Table(X, number, None, years, ids)),
        "severity": (
            GammaRegressor(alpha=1e-3),
            Table(X[some], amount[some] / number[some], number[some], None, ids[some]),
        ),
        "pure premium": (TweedieRegressor(power=1.5, alpha=1e-3), Table(X, amount / years, years, None, ids)),
    }


def take(table: Table, rows: np.ndarray) -> Table:
    """Return some rows."""
    return Table(*(None if part is None else part[rows] for part in table))


def fitted(model: Any, table: Table, **parameters: Any) -> Any:
    """Fit a copy of the model."""
    known = {} if table.exposure is None else {"exposure": table.exposure}
    model = type(model)(**(model.get_params() | parameters))
    return model.fit(table.X, table.y, ids=table.ids, sample_weight=table.weight, **known)


def explained(model: Any, table: Table) -> float:
    """D^2 on a hold-out: the share of the deviance that the model explains."""
    known = {} if table.exposure is None else {"exposure": table.exposure}
    return float(model.score(table.X, table.y, sample_weight=table.weight, **known))


def private(model: Any) -> np.ndarray:
    """Parameters without noise: for comparison here, never to be published."""
    return np.append(model.private_coef_, model.private_intercept_)


def report(name: str, model: Any, table: Table, sizes: tuple[int, ...]) -> None:
    """Fit, delete, compare with a refit, print."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(table.y))
    test, train = take(table, order[: len(order) // 5]), take(table, np.sort(order[len(order) // 5 :]))
    warm = fitted(model, train)  # compile once, so that the times below are those of the work
    warm.delete(train.ids[:1])
    started = time.perf_counter()
    model = fitted(model, train)
    took = time.perf_counter() - started
    print(f"\n{name}: {type(model).__name__}, {len(train.y):,} rows, {train.X.shape[1]} features, fit {took:.2f} s")
    print("  deleted  method      time ms  distance: certified  true      mu      epsilon  D2 released  D2 of a refit")
    for size in sizes:
        request = rng.choice(model.ids_, size, replace=False)
        started = time.perf_counter()
        receipt = model.delete(request)
        took = time.perf_counter() - started
        retained = take(train, np.flatnonzero(np.isin(train.ids, model.ids_)))
        refit = fitted(model, retained, noise=0, tol=1e-9)
        gap = private(model) - private(refit)
        true = float(np.sqrt(gap @ model.noise_metric_ @ gap))
        found = receipt.certificate
        print(
            f"  {size:7,}  {receipt.method:10s}{1000 * took:9.1f}  {found.distance_bound:19.2e}  {true:8.1e}"
            f"  {found.mu:6.3f}  {found.epsilon:7.3f}  {explained(model, test):11.5f}  {explained(refit, test):13.5f}"
        )


def main() -> None:
    """Run the three models."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="invented policies instead")
    small = parser.parse_args().small
    frame = invent() if small else load()
    if frame is None:
        print("The freMTPL2 data are not here (set CERTIFIED_DATA). Skipped; --small runs on invented policies.")
        return
    for name, (model, table) in tables(frame).items():
        few = len(table.y) < 100_000
        report(name, model, table, (1, 20, 200) if few else (1, 100, 10_000))


if __name__ == "__main__":
    main()
