"""Exact models against scikit-learn's refits, as ratios in the same run.

``python benchmarks/bench_exact.py [--small]``. scikit-learn has no warm start for these but k-means, which starts from
the centres it had.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn import cluster, decomposition, discriminant_analysis, linear_model, model_selection, naive_bayes, neighbors

from certified.cluster import KMeans
from certified.decomposition import PCA
from certified.discriminant_analysis import LinearDiscriminantAnalysis
from certified.linear_model import Ridge
from certified.model_selection import GridSearchCV
from certified.naive_bayes import GaussianNB
from certified.neighbors import KNeighborsClassifier


def seconds(call: Any) -> float:
    """Wall time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true")
    n = 5_000 if parser.parse_args().small else 400_000
    rng = np.random.default_rng(0)
    y = rng.integers(0, 5, n)
    X = rng.standard_normal((n, 20)) + 2.0 * rng.standard_normal((5, 20))[y]
    pairs: dict[str, tuple[Any, Any]] = {
        "GaussianNB": (GaussianNB(), naive_bayes.GaussianNB()),
        "LinearDiscriminantAnalysis": (
            LinearDiscriminantAnalysis(),
            discriminant_analysis.LinearDiscriminantAnalysis(),
        ),
        "PCA": (PCA(5), decomposition.PCA(5)),
        "KMeans": (KMeans(5), cluster.KMeans(5, random_state=0)),
        "KNeighborsClassifier": (KNeighborsClassifier(), neighbors.KNeighborsClassifier()),
    }
    print(f"{n} rows, 20 features, 5 classes; ratios: scikit-learn's time over ours")
    for name, (ours, plain) in pairs.items():
        type(ours)(**ours.get_params()).fit(X, y)  # compile once
        fit, refit = seconds(lambda m=ours: m.fit(X, y)), seconds(lambda m=plain: m.fit(X, y))
        note = ""
        if name == "KMeans":
            warm = cluster.KMeans(5, init=plain.cluster_centers_, n_init=1)
            note = f", warm-started {seconds(lambda m=warm: m.fit(X)) * 1e3:.3g} ms"
            note += f"; inertia {ours.score(X) / plain.score(X):.4f} of scikit-learn's"
        times = np.array([seconds(lambda i=i, m=ours: m.delete([i])) for i in range(200)])
        print(
            f"{name:27} fit {fit:.3g} s ({refit / fit:.2g}x), refit {refit * 1e3:.3g} ms{note}; one deletion median "
            f"{np.median(times) * 1e3:.2g} ms ({refit / np.median(times):.0f}x), mean {times.mean() * 1e3:.2g} ms "
            f"({refit / times.mean():.0f}x)"
        )
    search(n // 4)


def search(n: int) -> None:
    """A search over eight penalties and five folds."""
    rng = np.random.default_rng(1)
    X = rng.standard_normal((n, 20))
    y = X @ rng.standard_normal(20) + rng.standard_normal(n)
    grid = {"alpha": np.geomspace(1e-2, 1e5, 8).tolist()}
    ours, plain = GridSearchCV(Ridge(), grid), model_selection.GridSearchCV(linear_model.Ridge(), grid)
    GridSearchCV(Ridge(), grid).fit(X, y)
    fit, refit = seconds(lambda: ours.fit(X, y)), seconds(lambda: plain.fit(X, y))
    times = np.array([seconds(lambda i=i: ours.delete([i])) for i in range(20)])
    both = seconds(lambda: GridSearchCV(Ridge(), grid, n_jobs=2).fit(X, y))
    print(
        f"GridSearchCV(Ridge), {n} rows: fit {fit:.3g} s ({refit / fit:.2g}x), n_jobs=2 {fit / both:.2g}x, a search "
        f"anew {refit * 1e3:.3g} ms; one deletion median {np.median(times) * 1e3:.3g} ms "
        f"({refit / np.median(times):.1f}x; our own search: {fit / np.median(times):.0f}x)"
    )


if __name__ == "__main__":
    main()
