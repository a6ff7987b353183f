"""Data sharding (Bourtoule et al. 2021) on credit default: what a number of shards costs in accuracy and saves in work.

Run ``python models/data_sharding.py`` with the data under ``CERTIFIED_DATA`` (default ``../shared/data``), or
``python models/data_sharding.py --small`` on data that scikit-learn bundles.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import polars as pl
import public_data
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from certified.ensemble import ShardedClassifier


def load() -> tuple[pl.DataFrame, np.ndarray] | None:
    """Return the frame of features and the target, or None where the data set is absent."""
    frame = public_data.credit_default()
    return None if frame is None else (frame.drop("default"), frame["default"].to_numpy())


def seconds(call: object) -> float:
    """Processor time of a call, one thread."""
    started = time.process_time()
    call()  # type: ignore[operator]
    return time.process_time() - started


def main() -> None:
    """Fit with more and more shards; delete one customer, then a hundred at once; compare with a refit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="bundled breast-cancer data instead")
    small = parser.parse_args().small
    data = load_breast_cancer(return_X_y=True) if small else load()
    if data is None:
        print("The credit-default data are not here (set CERTIFIED_DATA). Skipped; --small runs on bundled data.")
        return
    X, X_test, y, y_test = train_test_split(*data, test_size=0.25, random_state=0, stratify=data[1])
    rng = np.random.default_rng(0)
    some = rng.choice(len(y), 100, replace=False)
    base = HistGradientBoostingClassifier(max_iter=20 if small else 100, random_state=0)
    print(f"{len(y):,} rows, {X.shape[1]} features; hold-out {len(y_test):,}")
    print("shards     AUC   fit  one deletion  rows learned again  a hundred at once  shards hit  refit's state")
    for n_shards in (1, 2, 5) if small else (1, 5, 20, 50, 100):
        model = ShardedClassifier(base, n_shards, key=None)
        fit = seconds(lambda model=model: model.fit(X, y))
        area = roc_auc_score(y_test, model.predict_proba(X_test)[:, 1])
        one, cost = seconds(lambda model=model: model.delete(some[:1])), model.deletion_cost()
        hit = model.deletion_cost(some[1:]).parts
        many = seconds(lambda model=model: model.delete(some[1:]))
        retained = rng.permutation(model.ids_)  # in any order
        refit = ShardedClassifier(base, n_shards, key=model.key_).fit(X[retained], y[retained], ids=retained)
        print(
            f"{n_shards:6} {area:7.4f} {fit:5.1f} s {one * 1e3:10.0f} ms {cost.share:18.1%} {many:16.1f} s {hit:11.0f} "
            f"{'the same bits' if refit.state_digest_ == model.state_digest_ else 'NOT THE SAME':>14}"
        )
    print(f"\n{model.certificate_}")


if __name__ == "__main__":
    main()
