"""Speed and sharpness of certified deletion, as ratios against scikit-learn in the same run.

``python benchmarks/bench_deletion.py [scaling] [mnist] [sequence] [startup] [--small]``
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression as Plain

from certified.accounting import epsilon_of
from certified.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parents[1]


def seconds(call: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def synthetic(n: int, d: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features, logistic labels."""
    X = rng.standard_normal((n, d))
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-X @ rng.standard_normal(d) * 0.2 - 0.3))).astype(float)
    return X, y


def true_distance(model: LogisticRegression, X: np.ndarray, y: np.ndarray, alpha: float) -> float:
    """Distance of the private parameter to the minimiser, by Newton steps in float64, in the noise metric."""
    start = np.append(model.private_coef_, model.private_intercept_)
    Z, penalty, w = np.column_stack([X, np.ones(len(X))]), np.append(np.full(X.shape[1], alpha), 0.0), start.copy()
    for _ in range(3):
        p = 1.0 / (1.0 + np.exp(-Z @ w))
        hessian = (Z * (p * (1 - p))[:, None]).T @ Z + np.diag(penalty)
        w = w - np.linalg.solve(hessian, Z.T @ (p - y) + penalty * w)
    gap = w - start
    return float(np.sqrt(gap @ model.noise_metric_ @ gap))


def scaling(small: bool) -> None:
    """Fit, deletion by theorem 2 and measured certificate against newton-cholesky."""
    print("scaling: logistic regression, d = 50; ratios are scikit-learn / certified (larger is better)")
    print("       n  fit/1e-8  fit/1e-4  delete ms  warm/delete  warm/measured  thm2/true  thm1/true")
    for n in (2_000, 10_000) if small else (10_000, 100_000, 1_000_000):
        rng = np.random.default_rng(0)
        X, y = synthetic(n, 50, rng)
        LogisticRegression().fit(X, y).delete([0])
        model = LogisticRegression()
        fit = seconds(lambda model=model, X=X, y=y: model.fit(X, y))
        plain = {tol: Plain(solver="newton-cholesky", tol=tol, warm_start=True) for tol in (1e-8, 1e-4)}
        cold = {tol: seconds(lambda m=m, X=X, y=y: m.fit(X, y)) for tol, m in plain.items()}
        warm = seconds(lambda m=plain[1e-8], X=X, y=y: m.fit(X[1:], y[1:]))
        model.delete([0])
        took = [seconds(lambda i=i, model=model: model.delete([i])) for i in range(1, 31)]
        second = model.certificate_.distance_bound / true_distance(model, X[31:], y[31:], 1.0)
        model.refine()
        model.delete([31])
        measured = seconds(model.refine)
        # A measured certificate at a distance that is not yet at the rounding floor.
        first = LogisticRegression(tol=1e-3).fit(X, y)
        ratio = first.certificate_.distance_bound / true_distance(first, X, y, 1.0)
        once = float(np.median(took))
        print(
            f"{n:8d}  {cold[1e-8] / fit:8.2f}  {cold[1e-4] / fit:8.2f}  {1000 * once:9.2f}  {warm / once:11.0f}"
            f"  {warm / measured:13.1f}  {second:9.1f}  {ratio:9.3f}"
        )


def digits(wanted: Any = (3, 8)) -> tuple[np.ndarray, ...] | None:
    """MNIST's digits wanted, rows of unit norm: train and test features and labels; None where absent."""
    folder = Path(os.environ.get("CERTIFIED_DATA", ROOT / ".." / "shared" / "data")) / "mnist"
    if not folder.exists():
        return None
    out: list[np.ndarray] = []
    for part in ("train", "t10k"):
        pixels = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:]
        label = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
        chosen = np.isin(label, wanted)
        X = np.frombuffer(pixels, np.uint8).reshape(-1, 784)[chosen].astype(np.float64)
        out += [X / np.linalg.norm(X, axis=1, keepdims=True), label[chosen].astype(float)]
    return tuple(out)


def mnist(small: bool) -> None:
    """1,000 deletions one by one at epsilon 1, delta 1e-4."""
    data = digits()
    if data is None:
        print("mnist: skipped, the data are not here (set CERTIFIED_DATA)")
        return
    X, y, X_test, y_test = data
    y, y_test = (y == 8).astype(float), (y_test == 8).astype(float)
    n_deleted = 20 if small else 1000
    n = len(y)
    model = LogisticRegression(C=1.0 / (1e-4 * n), epsilon=1.0, delta=1e-4)
    fit = seconds(lambda: model.fit(X, y))
    order = np.random.default_rng(0).permutation(n)[:n_deleted]
    started = time.perf_counter()
    receipts = [model.delete([i]) for i in order]
    took = time.perf_counter() - started
    retained = np.setdiff1d(np.arange(n), order)
    refit = LogisticRegression(C=model.C, noise=0, tol=1e-6).fit(X[retained], y[retained])
    epsilon = max(r.certificate.epsilon for r in receipts)
    methods = {m: sum(r.method == m for r in receipts) for m in ("measured", "predicted")}
    print(f"mnist 3 versus 8: fit {fit:.1f} s, {n_deleted} deletions one by one {took:.1f} s, {methods}")
    print(f"  passes {sum(r.passes for r in receipts)}, largest epsilon {epsilon:.3f} (asked: 1)")
    print(f"  test accuracy: released {model.score(X_test, y_test):.4f}, exact refit {refit.score(X_test, y_test):.4f}")


def sequence(small: bool) -> None:
    """n = 128,000, p = 4 on the unit sphere, ridge 1, a release after each of 1,974 deletions, mu = 1 for all."""
    n, n_deleted = (4_000, 50) if small else (128_000, 1_974)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = (rng.random(n) < 1.0 / (1.0 + np.exp(-X @ [1.0, -1.0, 0.5, 0.0]))).astype(float)
    mu = 1.0 / np.sqrt(n_deleted + 1)
    sigma = 5e-5
    model = LogisticRegression(epsilon=epsilon_of(mu * (1 - 1e-6), 1e-6), delta=1e-6, noise=sigma, tol=1e-8)
    model.fit(X, y)
    order = rng.permutation(n)[:n_deleted]

    def run() -> None:
        for i in order:
            model.delete([i])
            _ = model.coef_

    took = seconds(run)
    sd = sigma * np.sqrt(np.diag(np.linalg.inv(model.noise_metric_)))
    print(
        f"sequence: {n_deleted} deletions, releases in {took:.1f} s, mu of all {model.certificate_.mu_transcript:.3g}"
    )
    print(f"  standard deviation of the released parameters at most {sd.max():.2g}")


def startup(small: bool) -> None:
    """Import and first fit in fresh processes."""
    print("startup, seconds in a fresh process:")
    fit = (
        "import numpy as np; from certified.linear_model import LogisticRegression as L; "
        "r = np.random.default_rng(0); X = r.standard_normal((500, 10)); L().fit(X, X[:, 0] > r.standard_normal(500))"
    )
    for name, code in (("import certified", "import certified"), ("first fit, 500 rows, imports included", fit)):
        took = min(
            seconds(lambda code=code: subprocess.run([sys.executable, "-c", code], check=True)) for _ in range(2)
        )
        print(f"  {name}: {took:.2f}")


SECTIONS = {"scaling": scaling, "mnist": mnist, "sequence": sequence, "startup": startup}


def main() -> None:
    """Run the sections named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help=f"any of {', '.join(SECTIONS)}; default all")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    arguments = parser.parse_args()
    for name in arguments.sections or SECTIONS:
        SECTIONS[name](arguments.small)


if __name__ == "__main__":
    main()
