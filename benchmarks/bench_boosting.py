"""Boosted trees that forget against XGBoost: speed and accuracy, ratios of CPU times taken in one run.

``python benchmarks/bench_boosting.py [speed] [accuracy] [--small] [--only adult,credit] [--rows 100000]``. Set
``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` and ``NUMBA_NUM_THREADS`` to 1: spinning threads count as CPU time.
Accuracy needs the data under ``CERTIFIED_DATA``.
"""

from __future__ import annotations

import argparse
import gzip
import os
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

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("CERTIFIED_DATA", ROOT / ".." / "shared" / "data"))


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


def data_set(name: str) -> tuple[np.ndarray, ...]:
    """Return X, y, weight and the subject of each row."""
    if name == "adult":
        parts = []
        for file, skip in (("adult.data.gz", 0), ("adult.test.gz", 1)):
            text = gzip.decompress((DATA / "adult" / file).read_bytes())
            part = pl.read_csv(text, has_header=False, skip_rows=skip, null_values=[" ?"], infer_schema_length=None)
            part.columns = [f"c{j}" for j in range(part.width)]
            parts.append(part)
        frame = pl.concat(parts, how="vertical_relaxed").drop_nulls("c14")
        y, frame = frame["c14"].str.contains(">50K").to_numpy(), frame.drop("c14", "c2")
    elif name == "credit":
        frame = pl.read_csv(DATA / "default_credit" / "UCI_Credit_Card.csv.gz", infer_schema_length=None)
        y, frame = frame["default.payment.next.month"].to_numpy(), frame.drop("ID", "default.payment.next.month")
    elif name == "diabetes130":
        frame = pl.read_csv(
            DATA / "diabetes130" / "diabetic_data.csv.gz", infer_schema_length=None, null_values=["?"]
        ).filter(~pl.col("discharge_disposition_id").is_in([11, 13, 14, 19, 20, 21]))
        y, ids = (frame["readmitted"] == "<30").to_numpy(), frame["patient_nbr"].to_numpy()
        return coded(frame.drop("readmitted", "encounter_id", "patient_nbr")), y * 1.0, np.ones(len(y)), ids
    elif name == "brfss":
        frame = pl.read_csv(DATA / "brfss2015_diabetes" / "diabetes_binary_health_indicators_BRFSS2015.csv.gz")
        y, frame = frame["Diabetes_binary"].to_numpy(), frame.drop("Diabetes_binary")
    elif name == "covertype":
        frame = pl.read_parquet(DATA / "covertype_partial" / "covertype_partial.parquet")
        y, frame = (frame["Cover_Type"] == 2).to_numpy(), frame.drop("Cover_Type")
    else:
        frame = pl.read_parquet(DATA / "freMTPL2" / "freMTPL2freq.parquet")
        exposure = frame["Exposure"].clip(upper_bound=1.0).to_numpy()
        y = frame["ClaimNb"].clip(upper_bound=4).to_numpy() / exposure
        return coded(frame.drop("IDpol", "ClaimNb", "Exposure")), y, exposure, np.arange(len(y))
    return coded(frame), np.asarray(y, dtype=np.float64), np.ones(len(y)), np.arange(len(y))


SHARES = {"adult": 0.5, "credit": 0.1, "diabetes130": 0.25, "brfss": 0.05, "covertype": 0.1, "freMTPL2": 0.05}


def accuracy(small: bool, only: list[str]) -> None:
    """Hold-out score against XGBoost on all rows; both choose their parameters on a fifth of the training rows."""
    print("accuracy: 100 trees; parameters chosen by each on a fifth of the training rows")
    if not DATA.is_dir():
        print("skipped: no data (set CERTIFIED_DATA)")
        return
    for name in only:
        X, y, s, ids = data_set(name)
        most = 4_000 if small else 330_000
        if len(y) > most:
            some = np.random.default_rng(0).choice(len(y), most, replace=False)
            X, y, s, ids = X[some], y[some], s[some], ids[some]
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

    def tried(penalty: float, sampled: float, rate: float) -> None:
        given = {**shared, "max_depth": 4, "learning_rate": rate, "leaf_penalty": penalty, "tol": 1e-2}
        given |= {"subsample": sampled, "colsample_bytree": sampled, "structure_size": SHARES[name]}
        m = ours(**given).fit(X[inner], y[inner], ids=ids[inner], sample_weight=s[inner])
        own[score(m, check)] = given

    for sampled, rate in ((1.0, 0.3), (1.0, 0.1), (0.5, 0.1)):
        tried(100.0, sampled, rate)
    chosen = own[max(own)]
    for penalty in () if small else (3.0, 10.0, 30.0, 300.0):
        tried(penalty, chosen["subsample"], chosen["learning_rate"])
    chosen = own[max(own)]
    m = ours(**chosen | {"tol": 1e-4})
    fit = seconds(lambda: m.fit(X[train], y[train], ids=ids[train], sample_weight=s[train]))
    theirs, released = score(peer, test), score(m, test)
    settings = peers[max(peers)]
    return (
        f"{name:12s} {len(train):8,d} rows  xgboost {theirs:.4f} (depth {settings['max_depth']}, rate "
        f"{settings['learning_rate']})  released {released:.4f}  behind by {theirs - released:+.4f}  (sample "
        f"{SHARES[name]}, penalty {chosen['leaf_penalty']:g}, subsample {chosen['subsample']}, rate "
        f"{chosen['learning_rate']}, {m.n_leaves_} leaves)  fit/xgb {fit / took:.1f}"
    )


def main() -> None:
    """Run the sections named, or both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help="speed, accuracy; default both")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", default=",".join(SHARES), help="data sets of accuracy, by commas")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 250_000], help="sizes of speed")
    arguments = parser.parse_args()
    sections = arguments.sections or ["speed", "accuracy"]
    if "speed" in sections:
        speed(arguments.small, arguments.rows)
    if "accuracy" in sections:
        accuracy(arguments.small, arguments.only.split(","))


if __name__ == "__main__":
    main()
