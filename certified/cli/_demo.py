"""``certified demo`` shows the main job on real data in a few seconds; ``certified check module:Estimator`` runs the
deletion checks on anybody's estimator.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import time
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

__all__ = ["check", "demo"]


def check(path: str, params: str = "{}", only: str = "") -> int:
    """Run the deletion checks on the estimator at ``module:name``, one line each; return the exit code."""
    from certified.testing import yield_deletion_checks

    try:
        estimator = _load(path, params)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        print(f"certified check got {path!r} with parameters {params}, which gives no estimator: {error}.")
        return 2
    checks = [(name, run) for name, run in yield_deletion_checks(estimator) if only in name]
    failed = 0
    for name, run in checks:
        try:
            run()
            print(f"passed  {name}")
        except Exception as error:  # a check that cannot run has failed as well
            failed += 1
            print(f"FAILED  {name}\n        {type(error).__name__}: {error}")
    print(f"{len(checks) - failed} of {len(checks)} checks passed for {estimator!r}.")
    return 1 if failed or not checks else 0


def _load(path: str, params: str) -> Any:
    """Import ``module:name``, from the working directory too; make an instance of a class."""
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError("module:name is needed")
    if "" not in sys.path:
        sys.path.insert(0, "")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    values = json.loads(params)
    return found(**values) if isinstance(found, type) else found.set_params(**values)


def demo() -> int:
    """Delete patients from a breast-cancer model and check the certificate against a refit."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import train_test_split

    X, y = load_breast_cancer(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.25, random_state=0, stratify=y)
    ids = np.array([f"patient-{i:03d}" for i in range(len(y))])
    print(
        f"A model learns from {len(y)} breast-cancer patients (Wisconsin) and is tried on {len(y_test)} others.\n"
        "Then some of its patients ask to be deleted. After each deletion a second model is fitted from\n"
        "scratch without them, and the two are compared. (A first run is not timed: it compiles.)\n",
        flush=True,
    )
    requests = (ids[[17]], ids[[3, 42, 99]], ids[200:300])
    warm = _model().fit(X, y, ids=ids)
    for request in requests:
        warm.delete(request)

    started = time.perf_counter()
    model = _model().fit(X, y, ids=ids)
    lines = [
        ("", "time", "AUC (1 is perfect)", "difference from the refit, and the most that the certificate allows"),
        ("fit", _seconds(started), _auc(roc_auc_score, model, X_test, y_test), ""),
    ]
    good = True
    for request in requests:
        started = time.perf_counter()
        model.delete(request)
        took = _seconds(started)
        retained = np.isin(ids, model.ids_)
        distance, allowed = _distance(model, _model().fit(X[retained], y[retained], ids=ids[retained]))
        good &= distance <= allowed
        auc = _auc(roc_auc_score, model, X_test, y_test)
        lines.append((f"delete {len(request)}", took, auc, f"{distance:.1e} <= {allowed:.1e}"))
    _table(lines)
    print("\nDifferences are in units of the noise that is added before the model is published.\n")

    certificate = model.certificate_
    now, promised = _percent(certificate.mu), _percent(certificate.mu_target)
    print(
        "What this means. Somebody is shown one published model and has to say whether it is ours, which\n"
        "deleted these patients, or one that was fitted without them. A coin is right in 50 % of the cases.\n"
        f"With any computation they are right in at most {now} %; promised were at most {promised} %.\n"
    )
    print(f"The same for specialists, with what it does not say:\n\n{certificate}")
    published = model.release()
    same = bool(np.array_equal(published.predict(X_test), model.predict(X_test)))
    package, kind = type(published).__module__.split(".")[0], type(published).__name__
    print(
        f"\nWhat is published is a {kind} of {package}; no patient's row is inside. It predicts the same: "
        f"{'yes' if same else 'NO'}."
    )
    print("Check against refits:", "passed." if good and same else "FAILED.")
    print(
        "\nNext: docs/tutorial.rst is a first deletion on your own table; models/credit_default.py is a full example;"
    )
    print("certified.testing.check_deletable(estimator) runs these checks on an estimator of your own.")
    return 0 if good and same else 1


def _model() -> Any:
    from certified.linear_model import LogisticRegression
    from certified.pipeline import make_pipeline
    from certified.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, epsilon=1.0, delta=1e-6))


def _percent(mu: float) -> str:
    """Share of right answers of the best test between N(0, 1) and N(mu, 1), both as likely, rounded up."""
    return f"{math.ceil(1e6 * NormalDist().cdf(mu / 2)) / 1e4:.4f}"


def _distance(model: Any, refit: Any) -> tuple[float, float]:
    """Distance between two un-noised parameters in units of the noise, and what the two certificates allow."""
    import numpy as np

    sigma = model.certificate_.sigma
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    bound = model.certificate_.distance_bound + refit.certificate_.distance_bound
    return float(np.sqrt(gap @ model.noise_metric_ @ gap)) / sigma, bound / sigma


def _auc(score: Any, model: Any, X: Any, y: Any) -> str:
    return f"{score(y, model.decision_function(X)):.4f}"


def _seconds(started: float) -> str:
    return f"{1000 * (time.perf_counter() - started):.0f} ms"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
