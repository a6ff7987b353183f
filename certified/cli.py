"""The ``certified`` command. ``certified demo`` shows the main job on real data in a few seconds."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 1 the demo's check failed, 2 wrong usage)."""
    parser = argparse.ArgumentParser(prog="certified", description="Certified unlearning for tabular models.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="fit, delete, certify, release and check against a refit, on real data")
    parser.parse_args(argv)
    return demo()


def demo() -> int:
    """Delete patients from a breast-cancer model and check the certificate against a refit."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    from certified.linear_model import LogisticRegression
    from certified.pipeline import make_pipeline
    from certified.preprocessing import StandardScaler

    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    ids = np.array([f"patient-{i:03d}" for i in range(len(y))])
    print(f"Breast cancer (Wisconsin): {len(y)} patients to learn from, {len(y_test)} held out.\n")

    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, epsilon=1.0, delta=1e-6))
    started = time.perf_counter()
    model.fit(X, y, ids=ids)
    lines = [("fit", _seconds(started), f"AUC {_auc(roc_auc_score, model, X_test, y_test)}", "")]
    good = True
    for request in (ids[[17]], ids[[3, 42, 99]], ids[200:300]):
        started = time.perf_counter()
        receipt = model.delete(request)
        took = _seconds(started)
        kept = np.isin(ids, model.ids_)
        distance, allowed = _distance(model, make_pipeline(*_unfitted(model)).fit(X[kept], y[kept], ids=ids[kept]))
        good &= distance <= allowed
        epsilon = receipt.certificate.epsilon
        lines.append(
            (
                f"delete {len(request)}",
                took,
                f"AUC {_auc(roc_auc_score, model, X_test, y_test)}",
                f"{receipt.method}: epsilon {epsilon:.2g} (asked: 1); refit at {distance:.1e} <= {allowed:.1e}",
            )
        )
    _table(lines)
    print(f"\n{model.certificate_}")
    published = model.release()
    same = bool(np.array_equal(published.predict(X_test), model.predict(X_test)))
    print(
        f"\nReleased: {type(published).__module__.split('.')[0]} {type(published).__name__}, same predictions: {same}"
    )
    print("Check against refits:", "passed." if good and same else "FAILED.")
    print(
        "\nNext: docs/start.rst explains keeper, release and certificate; models/credit_default.py is a full example;"
    )
    print("certified.testing.check_deletable(estimator) runs these checks on an estimator of your own.")
    return 0 if good and same else 1


def _unfitted(model: Any) -> list[Any]:
    return [step for _, step in model.steps]


def _distance(model: Any, refit: Any) -> tuple[float, float]:
    """Distance between two un-noised parameters in the release metric, and what the two certificates allow."""
    import numpy as np

    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    bound = model.certificate_.distance_bound + refit.certificate_.distance_bound
    return float(np.sqrt(gap @ model.release_metric_ @ gap)), bound


def _auc(score: Any, model: Any, X: Any, y: Any) -> str:
    return f"{score(y, model.decision_function(X)):.4f}"


def _seconds(started: float) -> str:
    return f"{1000 * (time.perf_counter() - started):.0f} ms"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
