"""Survival of seriously ill patients (SUPPORT2): hazards that are released, patients that leave, and a check by refits.

Run ``python models/survival_support.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/survival_support.py --small`` on generated patients. ``--figure PATH`` draws curves before and after.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler

from certified.survival import CoxPH, PiecewiseExponential

BREAKS = [7.0, 30.0, 90.0, 180.0, 365.0, 730.0]  # days: a week, a month, ... chosen before the data were seen
NUMBERS = ["age", "num.co", "scoma", "meanbp", "hrt", "resp", "temp", "crea", "sod"]
CENTRES = [63.0, 2.0, 12.0, 85.0, 97.0, 23.0, 37.0, 1.8, 137.0]  # round numbers, typical of patients in intensive care
UNITS = [15.0, 1.0, 25.0, 28.0, 32.0, 10.0, 1.2, 1.7, 6.0]


def load() -> tuple[Any, Any, list[str]] | None:
    """Return features in fixed units, (event, time) and names of the features, or None where the data set is absent."""
    frame = public_data.support2()
    if frame is None:
        return None
    numbers = frame.select(pl.col(NUMBERS).cast(pl.Float64)).to_numpy()
    X = np.nan_to_num((numbers - CENTRES) / UNITS)  # a missing value is a typical one
    cancer = frame.select(
        (pl.col("ca") == "metastatic").cast(pl.Float64).alias("metastatic"),
        (pl.col("ca") == "yes").cast(pl.Float64).alias("cancer"),
        pl.col("dementia").cast(pl.Float64),
        pl.col("diabetes").cast(pl.Float64),
        (pl.col("sex") == "male").cast(pl.Float64).alias("male"),
    ).fill_null(0.0)
    y = np.column_stack([frame["death"].to_numpy(), np.maximum(frame["d.time"].to_numpy(), 1)]).astype(float)
    return np.hstack([X, cancer.to_numpy()]), y, [*NUMBERS, *cancer.columns]


def generated() -> tuple[Any, Any, list[str]]:
    """Made-up patients of the same form."""
    rng = np.random.default_rng(0)
    X = StandardScaler().fit_transform(rng.normal(size=(1500, 4)))
    death = rng.exponential(400.0 * np.exp(-0.5 * X[:, 0] - 0.3 * X[:, 1]))
    end = rng.uniform(300.0, 1500.0, len(X))
    return X, np.column_stack([death <= end, np.ceil(np.minimum(death, end))]), ["age", "grade", "size", "other"]


def distance(model: Any, refit: Any) -> float:
    """Distance of two private parameters in standard errors."""
    gap = np.append(model.private_coef_, model.private_intercept_)
    gap -= np.append(refit.private_coef_, refit.private_intercept_)
    gap = gap[: len(model.noise_metric_)]
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


def draw(path: str, before: Any, model: Any, X: Any) -> None:
    """Draw released survival curves of three patients, before and after the deletion."""
    import matplotlib.pyplot as plt

    days = np.arange(0.0, 1461.0, 5.0)
    risk = model.predict(X)
    places = [int(np.argsort(risk)[int(q * (len(risk) - 1))]) for q in (0.1, 0.5, 0.9)]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    old, new = (fitted.predict_survival_function(X[places], days) for fitted in (before, model))
    for k, name in enumerate(("low risk", "median", "high risk")):
        axes.plot(days, old[k], "--", color=f"C{k}", linewidth=1)
        axes.plot(days, new[k], color=f"C{k}", label=name)
    axes.set(xlabel="days", ylabel="probability of being alive", ylim=(0, 1))
    axes.set_title("Released curves before (dashed) and after the deletion", fontsize=10)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Tell the story."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--figure", help="file for a picture, .png or .svg")
    options = parser.parse_args()
    found = generated() if options.small else load()
    if found is None:
        print("SUPPORT2 is absent: set CERTIFIED_DATA, or run with --small.")
        return
    X, y, names = found
    rng = np.random.default_rng(1)
    held_out = rng.random(len(y)) < 0.25
    learn, ids = ~held_out, np.flatnonzero(~held_out)
    gone = rng.choice(ids, 50, replace=False)
    left = learn & ~np.isin(np.arange(len(y)), gone)
    print(f"{learn.sum()} patients to learn from, {int(y[learn, 0].sum())} deaths; 50 ask to leave")
    for recipe in (PiecewiseExponential(BREAKS), CoxPH()):
        name = type(recipe).__name__
        model = clone(recipe).fit(X[learn], y[learn], ids=ids)
        print(f"\n{name}: concordance of the release on patients held out {model.score(X[held_out], y[held_out]):.4f}")
        before = model.release() if name == "CoxPH" else clone(recipe).fit(X[learn], y[learn], ids=ids)
        started = time.perf_counter()
        for patient in gone:
            receipt = model.delete([patient])
        single = (time.perf_counter() - started) / len(gone)
        refit = clone(recipe).set_params(tol=1e-9).fit(X[left], y[left], ids=np.flatnonzero(left))
        started = time.perf_counter()
        clone(recipe).fit(X[left], y[left], ids=np.flatnonzero(left))
        again = time.perf_counter() - started
        certificate = receipt.certificate
        print(f"  a deletion {1e3 * single:.1f} ms, a refit {1e3 * again:.0f} ms: {again / single:.1f}x")
        print(f"  distance to the refit {distance(model, refit):.2e}, certified {certificate.distance_bound:.2e}")
        print(f"  mu of the release {certificate.mu:.3g}, epsilon {certificate.epsilon:.3g} at {certificate.delta:g}")
        print(f"  concordance afterwards {model.score(X[held_out], y[held_out]):.4f}")
        for k in np.argsort(-np.abs(model.coef_))[:4]:
            print(f"    {names[k]:12} hazard ratio {np.exp(model.coef_[k]):.2f}")
        if options.figure and isinstance(model, PiecewiseExponential):
            draw(options.figure, before, model, X[held_out])


if __name__ == "__main__":
    main()
