"""Approximate unlearning by noise on the adult census: what epsilon costs in accuracy, and how near the refit is.

The counterpart of noise-based removal for neural networks (Guo et al. 2020, and its successors): one step towards the
refit, and noise that covers what the step leaves. Run ``python models/noisy_removal.py`` with the data under
``CERTIFIED_DATA`` (default ``../shared/data``), or ``python models/noisy_removal.py --small`` on data that scikit-learn
bundles.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from certified.compose import make_column_selector, make_column_transformer
from certified.linear_model import LogisticRegression
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler


def load() -> tuple[pl.DataFrame, np.ndarray] | None:
    """Return the frame of features and whether the income is high, or None where the data set is absent."""
    frame = public_data.adult()
    if frame is None:
        return None
    frame = frame.with_columns(pl.col(pl.String).fill_null("?"), pl.col(pl.Int64).cast(pl.Float64))
    return frame.drop("income", "education"), (frame["income"] == ">50K").to_numpy()


def build(X: Any, **promise: Any) -> Pipeline:
    """Scaled numbers and categories, then certified logistic regression."""
    if not isinstance(X, pl.DataFrame):
        return make_pipeline(StandardScaler(), LogisticRegression(**promise))
    columns = make_column_transformer(
        (StandardScaler(), make_column_selector(dtype_include="number")),
        (
            OneHotEncoder(min_frequency=50, handle_unknown="infrequent_if_exist"),
            make_column_selector(dtype_exclude="number"),
        ),
    )
    return make_pipeline(columns, LogisticRegression(**promise))


def main() -> None:
    """Delete the same people under several amounts of noise, and print what it costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled breast-cancer data instead")
    small = parser.parse_args().small
    data = load_breast_cancer(return_X_y=True) if small else load()
    if data is None:
        print("The adult data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, X_test, y, y_test = train_test_split(*data, test_size=0.25, random_state=0, stratify=data[1])
    gone = np.random.default_rng(0).choice(len(y), 10 if small else 200, replace=False)
    retained = np.setdiff1d(np.arange(len(y)), gone)
    print(f"{len(y):,} rows; {len(gone)} people deleted one by one; hold-out {len(y_test):,}")
    print("  noise  median ms  certified distance  true distance      mu  epsilon at 1e-6  accuracy  refit's")
    for noise in (1.0, 0.3, 0.1, 0.03):
        model = build(X, noise=noise, epsilon=1.0, delta=1e-6).fit(X, y)
        times = []
        for person in gone:
            started = time.perf_counter()
            model.delete([person])
            times.append(time.perf_counter() - started)
        refit = build(X, noise=noise, epsilon=1.0, delta=1e-6, tol=1e-9).fit(X[retained], y[retained], ids=retained)
        said = model.certificate_
        print(
            f"{noise:7} {1e3 * np.median(times):10.1f} {said.distance_bound:19.2e} {distance(model, refit):14.2e} "
            f"{said.mu:7.4f} {said.epsilon:16.3f} {model.score(X_test, y_test):9.4f} {refit.score(X_test, y_test):8.4f}"
        )
    print("\nNoise and distances are in standard errors of the coefficients.")


def distance(model: Pipeline, refit: Pipeline) -> float:
    """True distance between the parameters without noise, in the noise metric; not to be published."""
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


if __name__ == "__main__":
    main()
