"""Credit default (Taiwan, 30,000 card holders): delete customers from a scoring pipeline, with a certificate.

Run ``python models/credit_default.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/credit_default.py --small`` on data that scikit-learn bundles.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression as PlainLogisticRegression
from sklearn.metrics import brier_score_loss, roc_auc_score, roc_curve
from sklearn.model_selection import train_test_split

from certified.linear_model import LogisticRegression
from certified.pipeline import Pipeline, make_pipeline
from certified.preprocessing import StandardScaler


def load() -> tuple[np.ndarray, np.ndarray] | None:
    """Return features and target, or None where the data set is absent."""
    frame = public_data.credit_default()
    return None if frame is None else (frame.drop("default").to_numpy().astype(np.float64), frame["default"].to_numpy())


def build(tol: float = 1e-6) -> Pipeline:
    """The pipeline: rounded standardisation, then certified logistic regression."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=1.0, epsilon=1.0, delta=1e-6, tol=tol))


def quality(probability: np.ndarray, y: np.ndarray) -> str:
    """AUC, Brier score and Kolmogorov-Smirnov distance on the hold-out."""
    fpr, tpr, _ = roc_curve(y, probability)
    auc = roc_auc_score(y, probability)
    return f"AUC {auc:.4f}  Brier {brier_score_loss(y, probability):.4f}  KS {np.max(tpr - fpr):.4f}"


def without_noise(model: Pipeline, X: np.ndarray) -> np.ndarray:
    """Probabilities of the un-noised parameters: for comparison here, never to be published."""
    z = model.named_steps["standardscaler"].transform(X) @ model.private_coef_[0] + model.private_intercept_
    return 1.0 / (1.0 + np.exp(-z))


def distance(model: Pipeline, refit: Pipeline) -> float:
    """True distance between the un-noised parameters of two models, in the noise metric."""
    gap = np.append(model.private_coef_ - refit.private_coef_, model.private_intercept_ - refit.private_intercept_)
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


def seconds(call: object) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def plain_times(X: np.ndarray, y: np.ndarray, retained: np.ndarray) -> tuple[float, float]:
    """Time of scikit-learn's newton-cholesky on the retained rows, cold and warm-started from the fit on all rows."""
    scaled = (X - X.mean(axis=0)) / X.std(axis=0)
    cold = PlainLogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000)
    warm = PlainLogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=1000, warm_start=True)
    warm.fit(scaled, y)
    some, labels = scaled[retained], y[retained]
    return seconds(lambda: cold.fit(some, labels)), seconds(lambda: warm.fit(some, labels))


def main() -> None:
    """Fit, delete, compare with a refit, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled breast-cancer data instead")
    small = parser.parse_args().small
    data = load_breast_cancer(return_X_y=True) if small else load()
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, X_test, y, y_test = train_test_split(*data, test_size=0.25, random_state=0, stratify=data[1])
    ids = np.arange(len(y))
    rng = np.random.default_rng(0)
    print(f"{len(y):,} rows, {X.shape[1]} features; hold-out {len(y_test):,}")
    warm = build().fit(X, y)  # compile once, so that the times below are those of the work
    for request in ([0], range(1, 41)):
        warm.delete(request)
    for size in (1, 10, 60) if small else (1, 100, 3000):
        model = build().fit(X, y, ids=ids)
        request = rng.choice(ids, size, replace=False)
        before = quality(model.predict_proba(X_test)[:, 1], y_test)
        took = seconds(lambda model=model, request=request: model.delete(request))
        retained = np.isin(ids, model.ids_)
        certificate = model.certificate_
        refit = build(tol=1e-9).fit(X[retained], y[retained], ids=ids[retained])
        true = distance(model, refit)
        cold, warm = plain_times(X, y, retained)
        print(f"\ndelete {size} in {1000 * took:.1f} ms ({certificate.method})")
        print(f"  distance: certified {certificate.distance_bound:.3g}, true {true:.3g} standard errors")
        print(f"  mu {certificate.mu:.3g}, epsilon {certificate.epsilon:.3g} at delta {certificate.delta:g}")
        print(f"  before         {before}")
        print(f"  after          {quality(model.predict_proba(X_test)[:, 1], y_test)}")
        print(f"  without noise  {quality(without_noise(model, X_test), y_test)}")
        print(f"  scikit-learn newton-cholesky / delete: cold {cold / took:.0f}x, warm-started {warm / took:.0f}x")


if __name__ == "__main__":
    main()
