"""Poisson, gamma and Tweedie regression against scikit-learn and glum, as ratios in the same run.

``python benchmarks/bench_glm.py [--small]``, with freMTPL2 under ``CERTIFIED_DATA``, else invented policies.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import linear_model as plain

from certified.linear_model import GammaRegressor, PoissonRegressor, TweedieRegressor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import insurance_pricing

try:
    from glum import GeneralizedLinearRegressor
except ImportError:
    GeneralizedLinearRegressor = None

ALPHA = 1e-4


def seconds(call: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def peers(family: str) -> dict[str, Any]:
    """Warm-starting estimators of the same objective."""
    tight = {"alpha": ALPHA, "solver": "newton-cholesky", "tol": 1e-8, "warm_start": True}
    found: dict[str, Any] = {
        "scikit-learn": {
            "poisson": plain.PoissonRegressor(**tight),
            "gamma": plain.GammaRegressor(**tight),
            "tweedie (1.5)": plain.TweedieRegressor(power=1.5, link="log", **tight),
        }[family]
    }
    if GeneralizedLinearRegressor is not None:
        found["glum"] = GeneralizedLinearRegressor(
            family=family, link="log", alpha=ALPHA, l1_ratio=0, gradient_tol=1e-8, warm_start=True
        )
    return found


def compare(name: str, model: Any, family: str, X: np.ndarray, y: np.ndarray, s: np.ndarray) -> None:
    """One family: fit and deletion of one row against each peer, cold and warm-started."""
    fresh = lambda: type(model)(**model.get_params())  # noqa: E731
    fresh().fit(X, y, sample_weight=s).delete([0])  # compile once
    fitted = fresh()
    fit = seconds(lambda: fitted.fit(X, y, sample_weight=s))
    times: dict[str, tuple[float, float, float]] = {}
    for peer, other in peers(family).items():
        cold = seconds(lambda other=other: other.fit(X, y, sample_weight=s))
        gap = float(np.max(np.abs(other.coef_ - fitted.private_coef_)))
        warm = seconds(lambda other=other: other.fit(X[1:], y[1:], sample_weight=s[1:]))
        times[peer] = cold, warm, gap
    fitted.delete([0])
    once = float(np.median([seconds(lambda i=i: fitted.delete([i])) for i in range(1, 31)]))
    for peer, (cold, warm, gap) in times.items():
        print(
            f"{name:10s} {len(y):9,} x {X.shape[1]}  {peer:13s} {cold / fit:9.2f}  {1000 * once:9.2f}"
            f"  {cold / once:11.0f}  {warm / once:11.0f}  {gap:8.1e}"
        )


def main() -> None:
    """Run the three families."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    small = parser.parse_args().small
    frame = None if small else insurance_pricing.load()
    if frame is None:
        frame = insurance_pricing.invent(6_000 if small else 678_013)
    if GeneralizedLinearRegressor is None:
        print("glum is not installed: its rows are left out (pip install glum)")
    X = insurance_pricing.features(frame)
    number, years, amount = (frame[c].to_numpy() for c in ("ClaimNb", "Exposure", "ClaimAmount"))
    some = (number > 0) & (amount > 0)
    print("times of the peer over ours: larger is better for us")
    print("family         rows        peer           fit/fit  delete ms  cold/delete  warm/delete  coef gap")
    compare("poisson", PoissonRegressor(alpha=ALPHA), "poisson", X, number / years, years)
    compare("gamma", GammaRegressor(alpha=ALPHA), "gamma", X[some], amount[some] / number[some], number[some])
    compare("tweedie", TweedieRegressor(power=1.5, alpha=ALPHA), "tweedie (1.5)", X, amount / years, years)


if __name__ == "__main__":
    main()
