"""Sparse, wide and L1-penalised logistic regression against scikit-learn's, as ratios in the same run.

``python benchmarks/bench_wide.py [--small] [sparse | classes | dense | scorecard | certificate | mnist10 | all]``.
The sparse data are invented texts: 50 words a row drawn by a power law, weighted and normalised as tf-idf does; the
dense ones have a common factor.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from bench_deletion import digits
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression as Plain
from sklearn.preprocessing import normalize

from certified.linear_model import LogisticRegression

WORDS = 50


def texts(n: int, d: int, seed: int = 0, classes: int = 2) -> tuple[Any, np.ndarray]:
    """Rows of few words, rare ones mostly, and a target that depends on a third of the words."""
    rng = np.random.default_rng(seed)
    words = np.minimum((d * rng.random((n, WORDS)) ** 4).astype(np.int32), d - 1)
    X = csr_array((rng.random(n * WORDS) + 0.1, words.ravel(), np.arange(0, n * WORDS + 1, WORDS)), shape=(n, d))
    X.sum_duplicates()
    X = normalize(X)
    if classes > 2:
        Z = X @ (3.0 * rng.normal(size=(d, classes)) * (rng.random((d, 1)) < 0.3)) + 0.5 * rng.normal(size=classes)
        return X, np.argmax(Z + rng.gumbel(size=Z.shape), axis=1)
    z = X @ (3.0 * rng.normal(size=d) * (rng.random(d) < 0.3)) - 1.0
    return X, (z + rng.logistic(size=n) > 0).astype(int)


def dense(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Wide dense features with a common factor."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)) + rng.normal(size=(n, 1))
    z = X[:, :20] @ rng.normal(size=20) / 2.0
    return X, (z + rng.logistic(size=n) > 0).astype(int)


def seconds(call: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def scorecard(n: int, d: int) -> None:
    """Elastic net on 50 features, of which ten matter, against saga."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)) + rng.normal(size=(n, 1))
    y = (X[:, :10] @ rng.normal(size=10) / 3.0 - 1.0 + rng.logistic(size=n) > 0).astype(int)
    C = 100.0 / n
    LogisticRegression(C=C, l1_ratio=0.9).fit(X, y).delete([0])  # compile
    model = LogisticRegression(C=C, l1_ratio=0.9)
    fit = seconds(lambda: model.fit(X, y))
    coef = model.private_coef_[0].copy()
    receipts: list[Any] = []
    times = [seconds(lambda i=i: receipts.append(model.delete([i]))) for i in range(30)]
    once, passes = float(np.median(times)), sum(receipt.passes for receipt in receipts)
    print(
        f"scorecard: {n:,} x {d}, {np.count_nonzero(coef)} coefficients that are not zero, fit {fit:.2f} s, one "
        f"deletion {1000 * once:.2f} ms (30 of them: {passes} passes)"
    )
    for tol in (1e-4, 1e-8):
        other = Plain(C=C, l1_ratio=0.9, solver="saga", tol=tol, max_iter=10_000, warm_start=True, random_state=0)
        cold = seconds(lambda other=other: other.fit(X, y))
        gap = float(np.max(np.abs(other.coef_[0] - coef)))
        warm = seconds(lambda other=other: other.fit(X[1:], y[1:]))
        print(
            f"  saga tol {tol:.0e}  cold {cold:7.2f} s  fit/fit {cold / fit:6.2f}  coef gap {gap:.1e}"
            f"  warm/delete {warm / once:7.0f}",
            flush=True,
        )


def compare(name: str, X: Any, y: np.ndarray, C: float, peers: list[tuple[str, float]]) -> None:
    """Fit, deletion of one row and of a hundred; each peer cold, then warm-started without the row."""
    LogisticRegression(C=C, solver="newton-cg", noise=0).fit(X[:2000], y[:2000])  # compile
    model = LogisticRegression(C=C, solver="newton-cg")
    fit = seconds(lambda: model.fit(X, y))
    coef, passes = model.private_coef_.copy(), int(model.n_iter_[0])
    times, some = [], []
    for i in range(5):
        times.append(seconds(lambda i=i: model.delete([i])))
        some.append(int(model.n_iter_[0]))
    once = float(np.median(times))
    many = seconds(lambda: model.delete(range(100, 200)))
    bound = model.certificate_.distance_bound
    print(
        f"{name}: {X.shape[0]:,} x {X.shape[1]:,}, fit {fit:.2f} s ({passes} passes), one deletion {once:.2f} s "
        f"({int(np.median(some))} passes), 100 at once {many:.2f} s, distance at most {bound:.1e} standard errors",
        flush=True,
    )
    for solver, tol in peers:
        other = Plain(C=C, solver=solver, tol=tol, max_iter=10_000, warm_start=True)
        cold = seconds(lambda other=other: other.fit(X, y))
        gap = float(np.max(np.abs(other.coef_ - coef)))
        before, rest = other.coef_.copy(), X[1:]
        warm = seconds(lambda other=other, rest=rest: other.fit(rest, y[1:]))
        moved = float(np.max(np.abs(other.coef_ - before)))
        print(
            f"  {solver:10s} tol {tol:.0e}  cold {cold:7.2f} s  fit/fit {cold / fit:6.2f}  coef gap {gap:.1e}"
            f"  warm/delete {warm / once:7.2f}  (coefficients moved by {moved:.1e})",
            flush=True,
        )


def certificate(n: int, d: int, problems: int) -> None:
    """Certified distance after a deletion over the true one, which `refine` shows."""
    for classes in (2, 5):
        ratios, constants = [], []
        for seed in range(problems):
            X, y = texts(n, d, seed, classes)
            model = LogisticRegression(solver="newton-cg", tol=1e-6).fit(X, y)
            for i in range(3):
                model.delete([i])
                bound, metric = model.certificate_.distance_bound, model.noise_metric_.diagonal()
                constants.append(model.certificate_.assumptions["k_G"])
                before = np.column_stack([model.private_coef_, model.private_intercept_]).ravel()
                model.refine()
                after = np.column_stack([model.private_coef_, model.private_intercept_]).ravel()
                ratios.append(bound / float(np.sqrt(np.sum(metric * (after - before) ** 2))))
        low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
        print(
            f"{n:,} x {d:,}, {classes} classes, {len(ratios)} deletions: certified over true distance {middle:.0f} "
            f"(5 to 95 per cent: {low:.0f} to {high:.0f}), k_G {np.median(constants):.0f}",
            flush=True,
        )


def main() -> None:
    """Run the comparisons asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    what = ("sparse", "classes", "dense", "scorecard", "certificate", "mnist10", "all")
    parser.add_argument("what", nargs="?", default="all", choices=what)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    given = parser.parse_args()
    if given.what in ("sparse", "all"):
        for n, d in [(2_000, 5_000)] if given.small else [(100_000, 100_000), (100_000, 1_000_000)]:
            peers = [("newton-cg", 1e-4), ("newton-cg", 1e-8)]
            compare("texts", *texts(n, d), 1.0, peers + [("lbfgs", 1e-4)] * (d <= 100_000))
    if given.what in ("classes", "all"):
        n, d = (2_000, 3_000) if given.small else (50_000, 20_000)
        peers = [("newton-cg", 1e-4), ("newton-cg", 1e-8)]
        compare("texts of 5 classes", *texts(n, d, classes=5), 1.0, peers)
    if given.what in ("certificate", "all"):
        for n, d in [(500, 1_000)] if given.small else [(3_000, 3_000), (3_000, 30_000)]:
            certificate(n, d, 2 if given.small else 8)
    if given.what in ("mnist10", "all"):
        data = digits(range(10))
        if data is None:
            print("mnist10: skipped, the data are not here (set CERTIFIED_DATA)")
        else:
            n = 1_000 if given.small else 60_000
            compare("digits", data[0][:n], data[1][:n], 1.0 / (1e-4 * n), [("newton-cg", 1e-4), ("newton-cg", 1e-8)])
    if given.what in ("scorecard", "all"):
        scorecard(2_000 if given.small else 100_000, 50)
    if given.what in ("dense", "all"):
        n, d = (200, 6_000) if given.small else (1_000, 20_000)
        compare("dense", *dense(n, d), 1e-3, [("newton-cg", 1e-4), ("newton-cg", 1e-8)])


if __name__ == "__main__":
    main()
