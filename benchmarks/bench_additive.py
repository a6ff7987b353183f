"""Additive models against explainable boosting machines and refits, on one split and in one run for each data set.

``python benchmarks/bench_additive.py [adult] [credit] [diabetes] [--small] [--interactions N] [--categories N] [--tune
ROWS]``.
The data are looked for under ``CERTIFIED_DATA``; ``--small`` takes rows that are made up. The peer is left out where
``interpret`` is not installed (``pip install interpret-core``); it runs with its defaults, on one core. ``--tune``
cross-validates single changes of our defaults on rows of the training part. ``--categories`` groups the rarer
categories of a feature for both models: the peer keeps a value for each pair, 700 x 770 for two diagnoses.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import train_test_split

from certified.additive import AdditiveClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import public_data

Split = tuple[pl.DataFrame, np.ndarray, pl.DataFrame, np.ndarray, Any]


def adult() -> Split | None:
    """Income, with the official test set."""
    parts: list[Any] = []
    for part in ("data", "test"):
        frame = public_data.adult(part)
        if frame is None:
            return None
        parts += [frame.drop("income", "fnlwgt"), (frame["income"] == ">50K").to_numpy().astype(int)]
    return (*parts, None)  # type: ignore[return-value]


def credit() -> Split | None:
    """Default on a credit card; a quarter of the customers are held out."""
    frame = public_data.credit_default()
    if frame is None:
        return None
    y = frame["default"].to_numpy()
    frame = frame.drop("default").with_columns(pl.col("SEX", "EDUCATION", "MARRIAGE").cast(pl.String))
    train, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=0, stratify=y)
    return frame[train], y[train], frame[test], y[test], None


def diabetes() -> Split | None:
    """Readmission within 30 days; a fifth of the patients are held out."""
    frame = public_data.diabetes130()
    if frame is None:
        return None
    y = (frame["readmitted"] == "<30").to_numpy().astype(int)
    patients = frame["patient_nbr"].to_numpy()
    codes = pl.col("admission_type_id", "discharge_disposition_id", "admission_source_id").cast(pl.String)
    frame = frame.drop("readmitted", "encounter_id", "patient_nbr").with_columns(codes)
    unique = np.unique(patients)
    held = np.isin(patients, np.random.default_rng(0).permutation(unique)[: len(unique) // 5])
    return frame.filter(~held), y[~held], frame.filter(held), y[held], patients[~held]


def made_up(n: int = 2000) -> Split:
    """Rows with a jump, a category, missing values and an interaction."""
    rng = np.random.default_rng(0)
    a, b, town = rng.lognormal(size=n), rng.normal(size=n), rng.choice(["Ur", "Uruk", "Kish"], n)
    y = ((a > 1.5) + b * (town == "Ur") + 0.7 * rng.logistic(size=n) > 0.5).astype(int)
    gaps = [None if gap else v for v, gap in zip(a.tolist(), rng.random(n) < 0.1, strict=True)]
    frame = pl.DataFrame({"a": gaps, "b": b, "town": town})
    half = n // 2
    return frame[:half], y[:half], frame[half:], y[half:], None


SETS: dict[str, Any] = {"adult": adult, "credit": credit, "diabetes": diabetes, "made up": made_up}


def grouped(split: Split, most: int) -> Split:
    """Text columns with the `most` most frequent categories of the training part, and one for all others."""
    train, y, test, y_test, ids = split
    for name in train.columns:
        if train[name].dtype == pl.String and train[name].n_unique() > most:
            top = train[name].drop_nulls().value_counts(sort=True)[name].head(most)
            known = pl.col(name).is_in(top.to_list()) | pl.col(name).is_null()
            fewer = pl.when(known).then(pl.col(name)).otherwise(pl.lit("other")).alias(name)
            train, test = train.with_columns(fewer), test.with_columns(fewer)
    return train, y, test, y_test, ids


def quality(y: np.ndarray, p: np.ndarray) -> str:
    """AUC and mean log loss."""
    return f"AUC {roc_auc_score(y, p):.4f}, log loss {log_loss(y, p):.4f}"


def peer(train: pl.DataFrame, y: np.ndarray, test: pl.DataFrame, y_test: np.ndarray) -> tuple[str, float]:
    """Quality of interpret's model with its defaults, and the time of its fit; pandas frames are what it reads."""
    try:
        from interpret.glassbox import ExplainableBoostingClassifier
    except ImportError:
        return "not installed", np.nan
    started = time.perf_counter()
    model = ExplainableBoostingClassifier(random_state=0, n_jobs=1).fit(train.to_pandas(), y)
    took = time.perf_counter() - started
    pairs = sum(len(term) > 1 for term in model.term_features_)
    return f"{quality(y_test, model.predict_proba(test.to_pandas())[:, 1])}, {pairs} pairs, fit {took:.1f} s", took


def measure(name: str, split: Split, deletions: int, parameters: dict[str, Any]) -> None:
    """Fit, score, delete subjects one by one, and compare with a refit."""
    train, y, test, y_test, ids = split
    started = time.perf_counter()
    model = AdditiveClassifier(**parameters).fit(train, y, ids=ids)
    fit = time.perf_counter() - started
    found = quality(y_test, model.predict_proba(test)[:, 1])
    pairs = len(model.term_names_) - train.width
    print(f"{name}: {len(y):,} rows, {train.width} features, {model.private_coef_.size} coordinates", flush=True)
    print(f"  certified: {found}, {pairs} pairs, fit {fit:.1f} s", flush=True)
    times, features, passes = [], 0, 0
    for subject in np.random.default_rng(1).permutation(model.ids_)[:deletions]:
        started = time.perf_counter()
        receipt = model.delete([subject])
        times.append(time.perf_counter() - started)
        features += len(receipt.changed) > 1
        passes += receipt.method != "predicted"
    median, mean = float(np.median(times)), float(np.mean(times))
    print(
        f"  {deletions} deletions: median {1000 * median:.1f} ms ({fit / median:.0f}x as fast as the fit), mean "
        f"{1000 * mean:.1f} ms ({fit / mean:.0f}x); bins, smoothness or pairs changed in {features}, passes in {passes}"
    )
    print(f"  after them: {quality(y_test, model.predict_proba(test)[:, 1])}", flush=True)
    print(f"  interpret: {peer(train, y, test, y_test)[0]}", flush=True)


def tune(name: str, split: Split, n_rows: int, cv: int = 3) -> None:
    """Cross-validate single changes of the defaults on the training part alone, which no test set has a say in."""
    train, y, *_ = split
    some = np.random.default_rng(2).permutation(len(y))[:n_rows]
    fold = np.arange(len(some)) % cv
    trials = [{}, *({"max_bins": k} for k in (64, 256)), *({"interactions": k} for k in (0, 10, 40))]
    trials += [{"max_interaction_bins": k} for k in (6, 12)]
    losses = []
    for parameters in trials:
        found = []
        for f in range(cv):
            rows, left = some[fold != f], some[fold == f]
            model = AdditiveClassifier(noise=0, tol=1e-3, **parameters).fit(train[rows], y[rows])
            found.append(log_loss(y[left], model.predict_proba(train[left])[:, 1]))
        losses.append(np.array(found))
        gap = losses[-1] - losses[0]
        print(
            f"{name}, {parameters or 'defaults'}: log loss {losses[-1].mean():.5f} on {len(some):,} training rows, "
            f"against the defaults {gap.mean():+.5f} (standard error {gap.std(ddof=1) / np.sqrt(cv):.5f})",
            flush=True,
        )


def main() -> None:
    """Measure the data sets that are named, or all that are here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], default=[])
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--tune", type=int, metavar="ROWS", help="cross-validate the defaults on so many training rows")
    parser.add_argument("--deletions", type=int, default=200)
    parser.add_argument("--interactions", type=int, default=20)
    parser.add_argument("--categories", type=int, help="categories of a feature that are not grouped")
    options = parser.parse_args()
    names = ["made up"] if options.small else options.sets or ["adult", "credit", "diabetes"]
    for name in names:
        split = SETS[name]()
        if split is None:
            print(f"{name}: the data are not here (set CERTIFIED_DATA); skipped")
        elif options.tune:
            tune(name, split, options.tune)
        else:
            if options.categories:
                split = grouped(split, options.categories)
            deletions = 20 if options.small else options.deletions
            measure(name, split, deletions, {"interactions": options.interactions})


if __name__ == "__main__":
    main()
