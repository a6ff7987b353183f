"""Boosted trees that delete against XGBoost: speed and accuracy, ratios of CPU times taken in one run.

``python benchmarks/bench_boosting.py [speed] [structures] [accuracy] [--small] [--only adult,credit_default] [--rows
100000] [--figure PATH]``. Set ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` and ``NUMBA_NUM_THREADS`` to 1: spinning
threads count as CPU time.
Accuracy needs the data under ``CERTIFIED_DATA``.
"""

from __future__ import annotations

import argparse
import itertools
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
from certified.preprocessing import KBinsDiscretizer

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


def speed(small: bool, rows: list[int]) -> list[tuple[float, ...]]:
    """Fit, deletions outside and inside the sample, and random requests, against XGBoost's hist."""
    print(
        "speed: 20 features, 100 trees of depth 4; peer: XGBoost hist on all rows; CPU time; sample 0: drawn by the key"
    )
    print(
        "       n  sample  fit/xgb  delete ms  release ms  xgb/delete  rebuild/xgb  xgb/random, expected  AUC ours, xgb"
    )
    trees, found = 10 if small else 100, []
    for n in (2_000, 5_000) if small else rows:
        rng = np.random.default_rng(0)
        X, y = synthetic(n + n // 4, rng)
        X, test, y, truth = X[:n], X[n:], y[:n], y[n:]
        plain = xgboost.XGBClassifier(n_estimators=trees, max_depth=4, learning_rate=0.1, tree_method="hist")
        plain.fit(X, y)
        retrain = float(np.median([seconds(lambda m=plain, X=X, y=y: m.fit(X, y)) for _ in range(2)]))
        for share in (0.01, 0.02, 0.0):
            given = {"n_estimators": trees, "max_depth": 4, "learning_rate": 0.1}
            given |= {"sample_size": share} if share else {"structure": "random", "feature_ranges": (-3.0, 3.0)}
            make = GradientBoostingClassifier(**given)
            make.fit(X[:2000], y[:2000]).delete([1])
            fit = seconds(lambda m=make, X=X, y=y: m.fit(X, y))
            inside = make.in_structure_
            rng.shuffle(outside := np.flatnonzero(~inside))
            once = [seconds(lambda i=i, m=make: m.delete([i])) for i in outside[:100]]
            release = seconds(make.release)
            hit = np.flatnonzero(inside)[:1]
            rebuild = seconds(lambda i=hit, m=make: m.delete(i)) if hit.size else 0.0
            rate = inside.mean()
            delete = float(np.mean(once))
            expected = rate * rebuild + (1 - rate) * delete
            ours, peer = (roc_auc_score(truth, m.predict_proba(test)[:, 1]) for m in (make, plain))
            found.append((n, share, fit / retrain, retrain / delete, retrain / expected))
            print(
                f"{n:8d}  {share:6.2f}  {fit / retrain:7.1f}  {1000 * delete:9.2f}  {1000 * release:10.0f}"
                f"  {retrain / delete:10.0f}"
                f"  {rebuild / retrain:11.1f}  {retrain / expected:20.0f}  {ours:.4f} {peer:.4f}",
                flush=True,
            )
    return found


def draw(found: list[tuple[float, ...]], path: Path) -> None:
    """Draw what `speed` has found against the number of rows."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": "boosting", "svg.fonttype": "none", "font.size": 8})
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    panels = (
        (2, "time of a fit over XGBoost's", 5.0, "target: at most 5"),
        (3, "retraining XGBoost over a deletion\noutside the sample", 100.0, "target: at least 100"),
        (4, "retraining XGBoost over a random request,\nrebuilds included", 30.0, "target: at least 30"),
    )
    for ax, (column, label, target, said) in zip(axes, panels, strict=True):
        for k, share in enumerate(sorted({row[1] for row in found})):
            mine = [row for row in found if row[1] == share]
            name = f"{share:.0%} of subjects in the sample" if share else "splits drawn by the key"
            ax.plot([row[0] for row in mine], [row[column] for row in mine], f"{'osd^'[k]}-", color=f"C{k}", label=name)
        ax.axhline(target, color="black", linestyle=":", linewidth=1, label=said)
        ax.set(xscale="log", xlabel="rows", ylabel=label)
        sizes = sorted({row[0] for row in found})
        ax.set_xticks(sizes, [f"{n // 1000:.0f}k" for n in sizes], minor=False)
        ax.set_xticks([], minor=True)
        if column > 2:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0, None)
        ax.legend(fontsize=6)
    fig.savefig(path, metadata={"Date": None} if str(path).endswith("svg") else None)
    print(f"drawn to {path}")


def structures(small: bool) -> None:
    """Where the splits come from: accuracy, and the chance that a request grows trees anew."""
    n, trees = (4_000, 10) if small else (40_000, 100)
    print(
        f"structures: AUC on a hold-out, {n:,d} rows, {trees} trees of depth 4, best of three penalties on other rows"
    )
    print("public: XGBoost on a tenth as many other rows; random: splits drawn by the key within public ranges")
    X, y = synthetic(2 * n, np.random.default_rng(0))
    line("synthetic", X, y, n, trees, (-3.0, 3.0))
    for name in ("credit_default", "brfss_diabetes"):
        found = data_set(name)
        if found is None:
            print(f"{name}: skipped, no data (set CERTIFIED_DATA)")
            continue
        some = np.random.default_rng(0).permutation(len(found[1]))[: min(2 * n, len(found[1]))]
        coded = KBinsDiscretizer(32, encode="ordinal").fit_transform(found[0][some])  # stable codes: ranges are public
        line(name, coded, found[1][some], len(some) // 2, trees, (-0.5, 31.5))


def line(name: str, X: Any, y: Any, n: int, trees: int, ranges: tuple[float, float]) -> None:
    """Print a line for each source of splits; half of the rows that are not trained on choose the penalty."""
    parts = n, n + n // 10, n + n // 10 + (len(y) - n - n // 10) // 2
    train, public, check, test = (slice(a, b) for a, b in itertools.pairwise((0, *parts, len(y))))
    shared = {"n_estimators": trees, "max_depth": 4, "learning_rate": 0.1}
    plain = xgboost.XGBClassifier(**shared, tree_method="hist").fit(X[train], y[train])
    print(f"{name}: XGBoost {roc_auc_score(y[test], plain.predict_proba(X[test])[:, 1]):.4f}")
    theirs = xgboost.XGBClassifier(**shared, tree_method="hist").fit(X[public], y[public])
    for title, given in (
        ("sample of 2 %", {"sample_size": 0.02}),
        ("sample of 10 %", {"sample_size": 0.1}),
        ("sample of 25 %", {"sample_size": 0.25}),
        ("public", {"structure": theirs}),
        ("random", {"structure": "random", "feature_ranges": ranges}),
        ("random, depth 5", {"structure": "random", "feature_ranges": ranges, "max_depth": 5}),
    ):
        scores = {}
        for penalty in (100.0, 10.0, 1.0):
            m = GradientBoostingClassifier(**{**shared, **given}, leaf_penalty=penalty).fit(X[train], y[train])
            scored = [float(roc_auc_score(y[rows], m.predict_proba(X[rows])[:, 1])) for rows in (check, test)]
            scores[scored[0]] = (scored[1], penalty, m.deletion_cost().parts, m.n_leaves_)
        auc, penalty, probability, leaves = scores[max(scores)]
        print(
            f"  {title:16s} {auc:.4f}  penalty {penalty:g}, {leaves} leaves, rebuild in {probability:.0%} of requests"
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
SHARES = (0.5, 0.25, 0.1, 0.02)  # of the subjects in the sample; parameters are chosen with the first
LEAVES_16 = {"max_depth": 10, "grow_policy": "lossguide", "max_leaves": 16, "colsample_bytree": 0.5}
STARTS: dict[bool, tuple[dict[str, Any], ...]] = {
    True: tuple({**shape, "leaf_penalty": p} for shape in (LEAVES_16, {"max_depth": 4}) for p in (300.0, 30.0)),
    False: (*({"max_depth": depth, "learning_rate": rate} for depth in (4, 6) for rate in (0.1, 0.2)), LEAVES_16),
}
CHANGES: tuple[dict[str, Any], ...] = (
    {"colsample_bytree": 0.3},
    {"colsample_bytree": 0.7, "subsample": 0.7},
    {"learning_rate": 0.3},
    {"min_child_weight": 20.0},
    {"max_leaves": 48},  # where trees are grown leaf by leaf
)
VALIDATED = 10_000  # rows that a choice is scored on at least, where five folds have as many


def accuracy(small: bool, only: list[str], splits: list[int]) -> None:
    """Hold-out score against XGBoost on all rows; both choose by the same folds, from the same changes of the trees."""
    print("accuracy: 100 trees; parameters chosen by cross-validation of training rows; behind: AUC, of freMTPL2 the")
    print("deviance relative to XGBoost's")
    for name in only:
        found = data_set(name)
        if found is None:
            print(f"{name}: skipped, no data (set CERTIFIED_DATA)")
            continue
        most = 4_000 if small else 330_000
        some = np.random.default_rng(0).permutation(len(found[1]))[:most]
        X, y, s, ids = (part[some] for part in found)
        behind = np.array([compared(name, X, y, s, ids, small, split) for split in splits])
        spread = behind.std(axis=0, ddof=1) / np.sqrt(len(splits)) if len(splits) > 1 else np.full(len(SHARES), np.nan)
        means = ", ".join(f"{b:+.4f} ({e:.4f})" for b, e in zip(behind.mean(axis=0), spread, strict=True))
        print(f"{name:14s} mean (standard error) behind with {SHARES} in the sample: {means}", flush=True)


def compared(name: str, X: Any, y: Any, s: Any, ids: Any, small: bool, split: int) -> list[float]:
    """Choose, fit and score on one split of a data set; how far ours is behind for each share in the sample."""
    train, test = next(GroupShuffleSplit(1, test_size=0.25, random_state=2 * split).split(X, y, ids))
    folds = 1 if small else min(5, -(-VALIDATED * 5 // len(train)))
    parts = [
        (train[a], train[b])
        for a, b in GroupShuffleSplit(folds, test_size=0.2, random_state=2 * split + 1).split(
            train, y[train], ids[train]
        )
    ]
    counts = name == "freMTPL2"
    shared = {"n_estimators": 10 if small else 100} | ({"objective": "count:poisson"} if counts else {})

    def made(ours: bool, given: dict[str, Any]) -> Any:
        if ours:
            return (GradientBoostingRegressor if counts else GradientBoostingClassifier)(**shared, **given)
        return (xgboost.XGBRegressor if counts else xgboost.XGBClassifier)(**shared, **given, tree_method="hist")

    def score(m: Any, rows: Any) -> float:
        if counts:
            return -float(mean_poisson_deviance(y[rows], m.predict(X[rows]), sample_weight=s[rows]))
        return float(roc_auc_score(y[rows], m.predict_proba(X[rows])[:, 1]))

    def fitted(m: Any, rows: Any) -> Any:
        return m.fit(X[rows], y[rows], sample_weight=s[rows], **({"ids": ids[rows]} if hasattr(m, "delete") else {}))

    def chosen(ours: bool) -> dict[str, Any]:
        extra = {"sample_size": SHARES[0], "tol": 1e-2} if ours else {}
        tried: list[tuple[float, dict[str, Any]]] = []

        def attempt(given: dict[str, Any]) -> None:
            scores = [score(fitted(made(ours, {**given, **extra}), inner), check) for inner, check in parts]
            tried.append((float(np.mean(scores)), given))

        def best() -> dict[str, Any]:
            return max(tried, key=lambda pair: pair[0])[1]

        for start in STARTS[ours][:1] if small else STARTS[ours]:
            attempt(start)
        for change in () if small else CHANGES:
            if "max_leaves" in best() or "max_leaves" not in change:
                attempt({**best(), **change})
        if ours and not small:
            attempt({**best(), "shrink_to": "structure"})
            for factor in (3.0, 1.0 / 3.0):
                attempt({**best(), "leaf_penalty": best()["leaf_penalty"] * factor})
        return best()

    settings, own = chosen(False), chosen(True)
    peer = made(False, settings)
    took = seconds(lambda: fitted(peer, train))
    theirs, behind = score(peer, test), []
    print(f"{name} {split}: {len(train):,d} rows, {folds} folds; xgboost {theirs:.4f} {settings}; ours {own}")
    for size in SHARES:
        m = made(True, {**own, "sample_size": size})
        fit = seconds(lambda m=m: fitted(m, train))
        released = score(m, test)
        behind.append((theirs - released) / (abs(theirs) if counts else 1.0))
        print(
            f"  sample {size:4.2f}  released {released:.4f}  behind by {behind[-1]:+.4f}  {m.n_leaves_} leaves, "
            f"fit/xgb {fit / took:.1f}",
            flush=True,
        )
    return behind


def main() -> None:
    """Run the sections named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", help="speed, structures, accuracy; default all")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", default=",".join(TARGETS), help="data sets of accuracy, by commas")
    parser.add_argument("--splits", type=int, nargs="*", default=[0, 1, 2], help="splits that accuracy averages")
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 250_000], help="sizes of speed")
    parser.add_argument("--figure", type=Path, help="where `speed` draws its figure, .svg or .png (extra `plot`)")
    arguments = parser.parse_args()
    sections = arguments.sections or ["speed", "structures", "accuracy"]
    if "speed" in sections:
        found = speed(arguments.small, arguments.rows)
        if arguments.figure:
            draw(found, arguments.figure)
    if "structures" in sections:
        structures(arguments.small)
    if "accuracy" in sections:
        accuracy(arguments.small, arguments.only.split(","), arguments.splits[: 1 if arguments.small else None])


if __name__ == "__main__":
    main()
