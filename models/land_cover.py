"""Forest cover (covertype, 7 classes): delete plots from a multinomial scoring pipeline, with a certificate.

Run ``python models/land_cover.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/land_cover.py --small`` on the wine data that scikit-learn bundles.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression

from certified.linear_model import LogisticRegression
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import StandardScaler


def load() -> tuple[np.ndarray, np.ndarray] | None:
    """Return the ten measurements with wilderness area one-hot, and the cover type; None where the data are absent."""
    frame = public_data.covertype()
    if frame is None:
        return None
    frame = frame.sample(fraction=1.0, shuffle=True, seed=0)
    numbers = frame.select(pl.all().exclude("Wilderness_Area", "Soil_Type", "Cover_Type")).to_numpy()
    areas = [(frame["Wilderness_Area"] == area).to_numpy() for area in (2, 3, 4)]
    return np.column_stack([numbers, *areas]).astype(np.float64), frame["Cover_Type"].to_numpy()


def build(**parameters: Any) -> Pipeline:
    """The pipeline: rounded standardisation, then multinomial logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, **parameters))


def private(model: Pipeline) -> np.ndarray:
    """Parameters without noise, class by class: for comparison here, never to be published."""
    return np.column_stack([model.private_coef_, model.private_intercept_]).ravel()


def main() -> None:
    """Fit, delete, compare with a refit, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled wine data instead")
    small = parser.parse_args().small
    data = load_wine(return_X_y=True) if small else load()
    if data is None:
        print("The covertype data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, y = data
    rng = np.random.default_rng(0)
    order = rng.permutation(len(y))
    held, train = order[: len(y) // 5], order[len(y) // 5 :]
    X, y, X_test, y_test = X[train], y[train], X[held], y[held]
    build().fit(X, y).delete([0])  # compile once, so that the times below are those of the work
    started = time.perf_counter()
    model = build().fit(X, y)
    fit = time.perf_counter() - started
    plain = PlainLogisticRegression(solver="newton-cholesky", tol=1e-8, warm_start=True, max_iter=1000)
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    started = time.perf_counter()
    plain.fit(scaled, y)
    cold = time.perf_counter() - started
    started = time.perf_counter()
    plain.fit(scaled[1:], y[1:])
    warm = time.perf_counter() - started
    print(f"{len(y):,} rows, {X.shape[1]} features, {len(np.unique(y))} classes; hold-out {len(y_test):,}")
    print(f"fit {fit:.2f} s; scikit-learn newton-cholesky {cold:.2f} s, warm-started {warm:.2f} s")
    print("deleted  method      time ms  warm/delete  distance: certified  true      mu  accuracy released       refit")
    for size in (1, 5, 20) if small else (1, 100, 3000):
        request = rng.choice(model.ids_, size, replace=False)
        started = time.perf_counter()
        receipt = model.delete(request)
        took = time.perf_counter() - started
        retained = np.isin(np.arange(len(y)), model.ids_)
        refit = build(noise=0, tol=1e-8).fit(X[retained], y[retained])
        gap = private(model) - private(refit)
        true = float(np.sqrt(gap @ model.noise_metric_ @ gap))
        found = receipt.certificate
        print(
            f"{size:7,}  {receipt.method:10s}{1000 * took:9.1f}  {warm / took:11.0f}  {found.distance_bound:19.2e}"
            f"  {true:8.1e}  {found.mu:6.3f}  {model.score(X_test, y_test):17.4f}  {refit.score(X_test, y_test):10.4f}"
        )


if __name__ == "__main__":
    main()
