"""Credit default with boosted trees: an XGBoost model that deletes card holders, with a certificate.

Run ``python models/boosted_scoring.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/boosted_scoring.py --small`` on generated data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import public_data
import xgboost
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from certified.ensemble import GradientBoostingClassifier


def load() -> tuple[np.ndarray, np.ndarray] | None:
    """Return features and target, or None where the data set is absent."""
    frame = public_data.credit_default()
    return None if frame is None else (frame.drop("default").to_numpy().astype(np.float64), frame["default"].to_numpy())


def generated() -> tuple[np.ndarray, np.ndarray]:
    """Interactions and missing values."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 8))
    y = (X[:, 0] * X[:, 1] + X[:, 2] + rng.logistic(size=4000) > 0).astype(int)
    X[rng.random(X.shape) < 0.05] = np.nan
    return X, y


def main() -> None:
    """Fit, delete card holders outside and inside the structure sample, release, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="generated data instead")
    small = parser.parse_args().small
    data = generated() if small else load()
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on generated data.")
        return
    X, X_test, y, y_test = train_test_split(*data, test_size=0.25, random_state=0, stratify=data[1])
    ids = np.arange(len(y))
    trees = 20 if small else 100
    print(f"{len(y):,} rows, {X.shape[1]} features; hold-out {len(y_test):,}")

    plain = xgboost.XGBClassifier(n_estimators=trees, max_depth=4, learning_rate=0.1).fit(X, y)
    print(f"XGBoost on all rows           AUC {roc_auc_score(y_test, plain.predict_proba(X_test)[:, 1]):.4f}")

    model = GradientBoostingClassifier(
        n_estimators=trees,
        max_depth=10,
        grow_policy="lossguide",
        max_leaves=16,
        colsample_bytree=0.5,
        leaf_penalty=300.0,
        sample_size=0.1,
    ).fit(X, y, ids=ids)
    print(f"certified, released           AUC {roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]):.4f}")
    rebuild = model.deletion_cost(ids[model.in_structure_][:1])
    print(
        f"a subject chosen at random is in the structure sample with probability {model.deletion_cost().parts:.2f}; "
        f"growing the trees anew takes {rebuild.seconds:.1f} s"
    )

    for what, chosen in (
        ("outside the sample", ids[~model.in_structure_][:1]),
        ("ten more", ids[~model.in_structure_][1:11]),
        ("two of the sample, together", ids[model.in_structure_][:2]),
    ):
        started = time.perf_counter()
        receipt = model.delete(chosen)
        took = time.perf_counter() - started
        certificate = receipt.certificate
        print(
            f"delete {what}: {1000 * took:.1f} ms, {receipt.method}, {receipt.passes} passes, epsilon "
            f"{certificate.epsilon:.3g} at delta {certificate.delta:g}"
        )
    print(f"after the deletions           AUC {roc_auc_score(y_test, model.predict_proba(X_test)[:, 1]):.4f}")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scorecard.json"
        model.release().save_model(path)
        scores = xgboost.Booster(model_file=path).predict(xgboost.DMatrix(X_test))
    gap = np.max(np.abs(scores - model.predict_proba(X_test)[:, 1]))
    print(f"the released file, read by XGBoost alone: largest difference of a score {gap:.1e}")


if __name__ == "__main__":
    main()
