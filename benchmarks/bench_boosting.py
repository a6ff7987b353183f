"""Boosted trees that forget against XGBoost: speed and accuracy, ratios of CPU times taken in one run.

``python benchmarks/bench_boosting.py [speed] [accuracy] [--small] [--only adult,credit_default] [--rows 100000]``. Set
``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` and ``NUMBA_NUM_THREADS`` to 1: spinning threads count as CPU time.
Accuracy needs the data under ``CERTIFIED_DATA``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xgboost
from sklearn.metrics import mean_poisson_deviance, roc_auc_score
from sklearn.model_selection import GroupShuffleSplit

from certified.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import public_data


def seconds(call: Callable[[], Any]) -> float:
    """CPU time of a call, all threads together: fair on a machine that is shared."""
    started = time.process_time()
    call()
    return time.process_time() - started


def synthetic(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Twenty features with interactions, logistic labels."""
    X = rng.normal(size=(n, 20))
    z = X[:, 0] * X[:, 1] + np.sin(3 * X[:, 2]) + X[:, 3] - 0.5 * X[:, 4] * X[:, 5] + 0.3 * X[:, 6]
    return X, (z + rng.logistic(size=n) > 0).astype(float)


def speed(small: bool, rows: list[int]) -> None:
    """Fit, deletions outside and inside the sample, and random requests, against XGBoost's hist."""
    print("speed: 20 features, 100 trees of depth 4; peer: XGBoost hist on all rows; CPU time")
    print("       n  sample  fit/xgb  delete ms  xgb/delete  rebuild/xgb  xgb/random, expected  AUC ours, xgb")
    trees = 10 if small else 100
    for n in (2_000, 5_000) if small else rows:
        rng = np.random.default_rng(0)
        X, y = synthetic(n + n // 4, rng)
        X, test, y, truth = X[:n], X[n:], y[:n], y[n:]
        plain = xgboost.XGBClassifier(n_estimators=trees, max_depth=4, learning_rate=0.1, tree_method="hist")
        plain.fit(X, y)
        retrain = float(np.median([seconds(lambda m=plain, X=X, y=y: m.fit(X, y)) for _ in range(2)]))
        for share in (0.01, 0.02, 0.05):
            make = GradientBoostingClassifier(n_estimators=trees, max_depth=4, learning_rate=0.1, structure_size=share)
            make.fit(X[:2000], y[:2000]).delete([1])
            fit = seconds(lambda m=make, X=X, y=y: m.fit(X, y))
            inside = make.in_structure_
            rng.shuffle(outside := np.flatnonzero(~inside))
            once = [seconds(lambda i=i, m=make: m.delete([i])) for i in outside[:100]]
            hit = int(np.flatnonzero(inside)[0])
            rebuild = seconds(lambda i=hit, m=make: m.delete([i]))
            rate = inside.mean()
            expected = rate * rebuild + (1 - rate) * float(np.mean(once))
            delete = float(np.mean(once))
            ours, peer = (roc_auc_score(truth, m.predict_proba(test)[:, 1]) for m in (make, plain))
            print(
                f"{n:8d}  {share:6.2f}  {fit / retrain:7.1f}  {1000 * delete:9.2f}  {retrain / delete:10.0f}"
                f"  {rebuild / retrain:11.1f}  {retrain / expected:20.0f}  {ours:.4f} {peer:.4f}",
                flush=True,
            )


def coded(frame: pl.DataFrame) -> np.ndarray:
    """Numbers as they are, text as its rank, missing as NaN."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        if not column.dtype.is_numeric():
            text = column.cast(pl.String)
            levels = {value: float(k) for k, value in enumerate(sorted(set(text.drop_nulls())))}
            column = text.replace_strict(levels, default=None, return_dtype=pl.Float64)
        columns.append(column.cast(pl.Float64).fill_null(np.nan).to_numpy())
    return np.column_stack(columns)


def data_set(name: str) -> tuple[np.ndarray, ...] | None:
    """Return X, y, weight and the subject of each row; None where the files are absent."""
    target, left_out = TARGETS[name]
    if name == "adult":
        parts = [public_data.adult("data"), public_data.adult("test")]
        frame = None if any(part is None for part in parts) else pl.concat(parts, how="vertical_relaxed")
    else:
        frame = getattr(public_data, name)()
    if frame is None:
        return None
    if name == "diabetes130":
        frame = frame.filter(~pl.col("discharge_disposition_id").is_in([11, 13, 14, 19, 20, 21]))
    n = len(frame)
    ids = frame["patient_nbr"].to_numpy() if name == "diabetes130" else np.arange(n)
    X, y, weight = coded(frame.drop(target, *left_out)), frame[target].to_numpy(), np.ones(n)
    if name == "freMTPL2":
        weight = frame["Exposure"].clip(upper_bound=1.0).to_numpy()
        return X, np.minimum(y, 4) / weight, weight, ids
    positive = {"adult": ">50K", "diabetes130": "<30", "covertype": 2}.get(name, 1)
    return X, (y == positive).astype(np.float64), weight, ids


TARGETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "adult": ("income", ("fnlwgt",)),
    "credit_default": ("default", ()),
    "diabetes130": ("readmitted", ("encounter_id", "patient_nbr")),
    "brfss_diabetes": ("Diabetes_binary", ()),
    "covertype": ("Cover_Type", ()),
    "freMTPL2": ("ClaimNb", ("IDpol", "Exposure", "ClaimAmount")),
}
SHARES = (0.1, 0.5)
LARGE = 60_000  # rows above which the larger share is left out, because a rebuild costs too much


def accuracy(small: bool, only: list[str]) -> None:
    """Hold-out score against XGBoost on all rows; both choose their parameters on a fifth of the training rows."""
    print("accuracy: 100 trees; parameters chosen by each on a fifth of the training rows")
    for name in only:
        found = data_set(name)
        if found is None:
            print(f"{name}: skipped, no data (set CERTIFIED_DATA)")
            continue
        most = 4_000 if small else 330_000
        some = np.random.default_rng(0).permutation(len(found[1]))[:most]
        X, y, s, ids = (part[some] for part in found)
        print(compared(name, X, y, s, ids, small), flush=True)


def compared(name: str, X: Any, y: Any, s: Any, ids: Any, small: bool) -> str:
    """Choose, fit and score on one data set; a line of the table."""
    train, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=0).split(X, y, ids))
    inner, check = next(GroupShuffleSplit(1, test_size=0.2, random_state=1).split(train, y[train], ids[train]))
    inner, check = train[inner], train[check]
    counts = name == "freMTPL2"
    plain = xgboost.XGBRegressor if counts else xgboost.XGBClassifier
    ours = GradientBoostingRegressor if counts else GradientBoostingClassifier
    shared = {"n_estimators": 10 if small else 100} | ({"objective": "count:poisson"} if counts else {})

    def score(m: Any, rows: Any) -> float:
        if counts:
            return -float(mean_poisson_deviance(y[rows], m.predict(X[rows]), sample_weight=s[rows]))
        return float(roc_auc_score(y[rows], m.predict_proba(X[rows])[:, 1]))

    peers: dict[float, dict[str, Any]] = {}
    for depth, rate in ((4, 0.1),) if small else ((4, 0.1), (4, 0.2), (6, 0.1), (6, 0.2)):
        given = {**shared, "max_depth": depth, "learning_rate": rate, "tree_method": "hist"}
        m = plain(**given).fit(X[inner], y[inner], sample_weight=s[inner])
        peers[score(m, check)] = given
    peer = plain(**peers[max(peers)])
    took = seconds(lambda: peer.fit(X[train], y[train], sample_weight=s[train]))
    own: dict[float, dict[str, Any]] = {}

    def tried(**changed: Any) -> dict[str, Any]:
        given = {**shared, "max_depth": 4, "tol": 1e-2, **changed}
        m = ours(**given).fit(X[inner], y[inner], ids=ids[inner], sample_weight=s[inner])
        own[score(m, check)] = given
        return own[max(own)]

    for size in SHARES if len(train) <= LARGE and not small else SHARES[:1]:
        for rate, sampled in ((0.1, 1.0), (0.3, 1.0), (0.1, 0.5)):
            chosen = tried(structure_size=size, learning_rate=rate, subsample=sampled, colsample_bytree=sampled)
    for change in ({"leaf_penalty": 30.0}, {"leaf_penalty": 10.0}, {"leaf_penalty": 300.0}) if not small else ():
        chosen = tried(**{**chosen, **change})
    for change in ({"structure_groups": 2}, {"max_depth": 3}, {"structure_weight": 1.0}) if not small else ():
        chosen = tried(**{**chosen, **change})
    m = ours(**chosen | {"tol": 1e-4})
    fit = seconds(lambda: m.fit(X[train], y[train], ids=ids[train], sample_weight=s[train]))
    theirs, released = score(peer, test), score(m, test)
    settings = peers[max(peers)]
    released_with = {k: v for k, v in chosen.items() if k not in (*shared, "tol")}
    return (
        f"{name:14s} {len(train):8,d} rows  xgboost {theirs:.4f} (depth {settings['max_depth']}, rate "
        f"{settings['learning_rate']})  released {released:.4f}  behind by {theirs - released:+.4f}  "
        f"{m.n_leaves_} leaves, fit/xgb {fit / took:.1f}, {released_with}"
    )


def main() -> None:
    """Run the sections named, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help="speed, accuracy; default both")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", default=",".join(TARGETS), help="data sets of accuracy, by commas")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 250_000], help="sizes of speed")
    arguments = parser.parse_args()
    sections = arguments.sections or ["speed", "accuracy"]
    if "speed" in sections:
        speed(arguments.small, arguments.rows)
    if "accuracy" in sections:
        accuracy(arguments.small, arguments.only.split(","))


if __name__ == "__main__":
    main()
