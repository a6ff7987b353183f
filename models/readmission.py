"""Readmission (diabetes-130): delete patients from a whole pipeline, from a frame of numbers and text to a score.

Run ``python models/readmission.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/readmission.py --small`` on encounters that are made up. ``--deletions`` says how many patients leave.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import polars as pl
import public_data
from sklearn.compose import make_column_transformer as plain_columns
from sklearn.impute import SimpleImputer as PlainImputer
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline as plain_pipeline
from sklearn.preprocessing import OneHotEncoder as PlainOneHot
from sklearn.preprocessing import StandardScaler as PlainScaler

from certified.compose import make_column_transformer
from certified.impute import SimpleImputer
from certified.linear_model import LogisticRegression
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import OneHotEncoder, StandardScaler

CODES = ("admission_type_id", "discharge_disposition_id", "admission_source_id")


def load() -> tuple[pl.DataFrame, np.ndarray] | None:
    """Return the encounters and whether the patient came back within 30 days; None where the data are absent."""
    frame = public_data.diabetes130()
    if frame is None:
        return None
    return frame.drop("readmitted", "encounter_id"), (frame["readmitted"] == "<30").to_numpy().astype(int)


def made_up(n_rows: int = 4000) -> tuple[pl.DataFrame, np.ndarray]:
    """Return encounters of about two thirds as many patients, with text and missing values."""
    rng = np.random.default_rng(0)
    days, visits = rng.integers(1, 15, n_rows), rng.poisson(0.6, n_rows)
    ward = rng.choice(["surgery", "cardiology", "other", "rare"], n_rows, p=[0.3, 0.3, 0.38, 0.02])
    score = 0.1 * days + 0.6 * visits + 0.5 * (ward == "cardiology") - 3.0 + rng.logistic(size=n_rows)
    frame = {
        "patient_nbr": rng.integers(0, n_rows, n_rows),
        "time_in_hospital": days,
        "number_inpatient": visits,
        "weight": [None if missing else kg for missing, kg in zip(rng.random(n_rows) < 0.1, days * 1.5, strict=True)],
        "medical_specialty": ward,
        "insulin": rng.choice(["No", "Steady", "Up", None], n_rows),
    }
    return pl.DataFrame(frame, strict=False), (score > 0).astype(int)


def columns(frame: pl.DataFrame) -> tuple[list[str], list[str]]:
    """Return the names of the features that are quantities, and of those that are categories."""
    numbers = [name for name, kind in frame.schema.items() if kind.is_numeric() and name not in (*CODES, "patient_nbr")]
    return numbers, [name for name in frame.columns if name not in (*numbers, "patient_nbr")]


def build(frame: pl.DataFrame, **parameters: Any) -> Pipeline:
    """The pipeline: medians and rounded scales, rare categories grouped, logistic regression."""
    numbers, categories = columns(frame)
    features = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (OneHotEncoder(min_frequency=200, handle_unknown="infrequent_if_exist"), categories),
    )
    return make_pipeline(features, LogisticRegression(**parameters))


def peer(frame: pl.DataFrame) -> Any:
    """The same of plain scikit-learn, with its sparse one-hot features and the default solver."""
    numbers, categories = columns(frame)
    features = plain_columns(
        (plain_pipeline(PlainImputer(strategy="median"), PlainScaler()), numbers),
        (PlainOneHot(min_frequency=200, handle_unknown="infrequent_if_exist"), categories),
    )
    return plain_pipeline(features, PlainLogisticRegression(tol=1e-4, max_iter=2000, warm_start=True))


def main() -> None:
    """Fit, delete patients one by one, compare with refits, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="encounters that are made up")
    parser.add_argument("--deletions", type=int, default=1000)
    options = parser.parse_args()
    data = made_up() if options.small else load()
    if data is None:
        print("The diabetes-130 data are not here (set CERTIFIED_DATA). Skipped; --small makes its own.")
        return
    frame, y = data
    rng = np.random.default_rng(0)
    patients = frame["patient_nbr"].to_numpy()
    held = np.isin(patients, rng.permutation(np.unique(patients))[: len(np.unique(patients)) // 5])
    train, y_train = frame.filter(~held), y[~held]
    test, y_test = frame.filter(held).drop("patient_nbr"), y[held]

    build(frame).fit(train, y_train, ids="patient_nbr").delete(patients[~held][:1])  # compile once
    started = time.perf_counter()
    model = build(frame).fit(train, y_train, ids="patient_nbr")
    fit = time.perf_counter() - started
    plain, features = peer(frame), train.drop("patient_nbr")
    started = time.perf_counter()
    plain.fit(features, y_train)
    cold = time.perf_counter() - started
    started = time.perf_counter()
    plain.fit(features[1:], y_train[1:])
    warm = time.perf_counter() - started
    print(f"{len(y_train):,} encounters of {len(model.ids_):,} patients, {len(model.private_coef_[0])} features")
    print(f"fit {fit:.2f} s; scikit-learn {cold:.2f} s, warm-started {warm:.2f} s")

    times, unchanged, worst = [], 0, []
    for patient in rng.permutation(model.ids_)[: 20 if options.small else options.deletions]:
        started = time.perf_counter()
        receipt = model.delete([patient])
        times.append(time.perf_counter() - started)
        unchanged += len(receipt.changed) == 1
        worst.append((times[-1], receipt.method, receipt.passes, receipt.changed))
    median, mean = float(np.median(times)), float(np.mean(times))
    print(
        f"{len(times):,} deletions: median {1000 * median:.1f} ms, mean {1000 * mean:.1f} ms, features unchanged "
        f"in {100 * unchanged / len(times):.1f} %"
    )
    print(
        f"against a refit: {fit / median:.0f}x median, {fit / mean:.0f}x mean; against scikit-learn warm-started: "
        f"{warm / median:.0f}x median, {warm / mean:.1f}x mean"
    )
    for took, method, passes, changed in sorted(worst, reverse=True)[:3]:
        print(f"  slowest: {took:.2f} s, {method}, {passes} passes, changed {', '.join(changed)}")

    rows = np.isin(train["patient_nbr"].to_numpy(), model.ids_)
    refit = build(frame, noise=0, tol=1e-8).fit(train.filter(rows), y_train[rows], ids="patient_nbr")
    same = model.steps_[0][1].state_digest_ == refit.steps_[0][1].state_digest_
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    true = float(np.sqrt(gap @ model.noise_metric_ @ gap))
    found = model.certificate_
    print(f"columns are those of a fresh fit, bit for bit: {same}")
    print(f"distance to it: certified {found.distance_bound:.2e}, true {true:.2e}; mu {found.mu:.3f}")
    auc = [roc_auc_score(y_test, m.predict_proba(test)[:, 1]) for m in (model.release(), refit, plain)]
    print(f"AUC: released {auc[0]:.4f}, refit {auc[1]:.4f}, scikit-learn {auc[2]:.4f}")


if __name__ == "__main__":
    main()
