"""One deletion from a sharded ensemble against refits of the same estimator on all rows, as ratios in the same run.

``python benchmarks/bench_sharding.py [--small]``. Boosting has no warm start that deletes, because going on keeps trees
that have seen the row; the network is also compared with a warm-started refit, from the weights that it had.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from certified.ensemble import ShardedClassifier


def seconds(call: Any) -> float:
    """Processor time of a call: everything here runs on one thread, and other work on the machine does not count."""
    started = time.process_time()
    call()
    return time.process_time() - started


def estimators(small: bool) -> dict[str, Any]:
    """Boosters that are installed, and a network."""
    n_trees = 5 if small else 100
    found: dict[str, Any] = {}
    try:
        from lightgbm import LGBMClassifier

        found["LightGBM"] = LGBMClassifier(n_estimators=n_trees, verbose=-1, n_jobs=1)
    except ImportError:
        print("LightGBM is not installed: left out")
    try:
        from xgboost import XGBClassifier

        found["XGBoost"] = XGBClassifier(n_estimators=n_trees, max_depth=5, n_jobs=1)
    except ImportError:
        print("XGBoost is not installed: left out")
    return found | {"MLP": MLPClassifier((16,), max_iter=2 if small else 8, random_state=0)}


def auc(model: Any, X: np.ndarray, y: np.ndarray) -> float:
    """Area under the curve on the hold-out."""
    return float(roc_auc_score(y, model.predict_proba(X)[:, 1]))


def main() -> None:
    """Print one line for each estimator and number of shards."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    warnings.simplefilter("ignore")
    data = make_classification(
        2_500 if small else 125_000,
        20,
        n_informative=12,
        n_redundant=4,
        n_clusters_per_class=8,
        flip_y=0.05,
        random_state=0,
    )
    X, X_test, y, y_test = train_test_split(*data, test_size=0.2, random_state=0)
    rng = np.random.default_rng(0)
    threadpool_limits(1)
    print(f"{len(y):,} rows, 20 features; whole: fit of the estimator on all rows; processor time, one thread")
    print("base      shards  fit/whole  AUC whole  AUC sharded  one deletion  whole/delete  warm/delete  100/whole")
    for name, base in estimators(small).items():
        clone(base).fit(X[:500], y[:500])  # loads what is loaded once
        whole = clone(base)
        refit = seconds(lambda m=whole: m.fit(X, y))
        warm = clone(whole).set_params(warm_start=True).fit(X, y) if name == "MLP" else None
        rewarm = seconds(lambda m=warm: m.fit(X[1:], y[1:])) if warm is not None else np.nan
        for n_shards in (5, 20) if small else (5, 20, 100):
            model = ShardedClassifier(base, n_shards)
            fit = seconds(lambda m=model: m.fit(X, y))
            sharded = auc(model, X_test, y_test)
            one = np.median([seconds(lambda i=i, m=model: m.delete([i])) for i in rng.choice(1000, 5, replace=False)])
            many = seconds(lambda m=model: m.delete(1000 + rng.choice(1000, 100, replace=False)))
            against_warm = "-" if warm is None else f"{rewarm / one:.1f}x"
            print(
                f"{name:9} {n_shards:6} {fit / refit:10.2f} {auc(whole, X_test, y_test):10.4f} {sharded:12.4f} "
                f"{one * 1e3:10.1f} ms {refit / one:12.1f}x {against_warm:>12} {many / refit:10.2f}"
            )


if __name__ == "__main__":
    main()
