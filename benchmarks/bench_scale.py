"""Rows in parts: memory and time of fits and deletions by the number of rows, limits of the machine, what others need.

``python benchmarks/bench_scale.py [sizes|pass|engines|peers|sequence] [--small] [--rows N ...] [--folder PATH]``. Rows
are generated as Parquet files in the folder and removed at the end. Every size runs in a process of its own, so that
its peak of memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

P, FILE = 20, 1_000_000
FEATURES = [f"x{j}" for j in range(P)]


def generate(folder: Path, n: int) -> Path:
    """Write n rows of loans as Parquet files of a million rows each; four rows for each customer, at most."""
    out = folder / f"loans-{n}"
    out.mkdir()
    truth = np.random.default_rng(0).normal(size=P) / np.sqrt(P)
    for k, start in enumerate(range(0, n, FILE)):
        rng, m = np.random.default_rng([1, k]), min(FILE, n - start)
        x = rng.standard_normal((m, P))
        late = rng.random(m) < 1 / (1 + np.exp(2.0 - x @ truth))
        columns = {name: x[:, j] for j, name in enumerate(FEATURES)}
        who = start + rng.integers(0, m, m)
        pl.DataFrame(columns | {"customer": who, "late": late}).write_parquet(
            out / f"{k:05d}.parquet", compression="lz4", row_group_size=1 << 17
        )
    return out


class Memory:
    """The largest anonymous memory of this process while the block lasts, MiB; file pages of maps are not in it."""

    def __enter__(self) -> Memory:
        self.most, self._end = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.most = max(self.most, anonymous())

    def __exit__(self, *error: Any) -> None:
        self._end.set()
        self._thread.join()


def anonymous() -> float:
    """Anonymous memory of this process now, MiB."""
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def peak() -> float:
    """Peak of all resident memory, mapped file pages included, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """Call in a fresh process and return what it returns."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def one_size(source: Path, folder: Path, n: int) -> dict[str, float]:
    """Fit, delete singly and in a batch, refine."""
    from certified.linear_model import LogisticRegression
    from certified.parts import Parts
    from certified.parts._rows import PartedRows

    warm = pl.read_parquet(next(iter(source.glob("*.parquet"))), n_rows=2000)
    LogisticRegression().fit(Parts(warm, in_memory=True), "late", ids="customer").delete([int(warm["customer"][0])])
    passes, plain = [], PartedRows.map

    def counted(self: Any, function: Any, *args: Any, **how: Any) -> Any:
        started = time.perf_counter()
        yield from plain(self, function, *args, **how)
        passes.append((function.__name__, time.perf_counter() - started))

    PartedRows.map = counted  # type: ignore[method-assign]
    with Memory() as memory:
        started = time.perf_counter()
        opened: list[float] = []
        open_ = Parts.open

        def timed(self: Any, *args: Any) -> Any:
            found = open_(self, *args)
            opened.append(time.perf_counter() - started)
            return found

        Parts.open = timed  # type: ignore[method-assign]
        model = LogisticRegression().fit(Parts(source, folder=folder), "late", ids="customer")
        fit = time.perf_counter() - started
        distance, fitted = model.certificate_.distance_bound, list(passes)
        os.sync()  # what the fit has left to write is not the time of a deletion
        rng, singles, gone = np.random.default_rng(3), [], set()
        held = [int(v) for v in pl.read_parquet(next(iter(source.glob("*.parquet"))))["customer"][:4000].unique()]
        for who in rng.permutation(held)[:50].tolist():
            started = time.perf_counter()
            receipt = model.delete(who)
            singles.append(time.perf_counter() - started)
            gone.add(receipt.method)
        batch = [who for who in held if model._subjects.holds(np.array([who]), "bench")[0]][:100]
        started = time.perf_counter()
        model.delete(batch)
        batched = time.perf_counter() - started
        started = time.perf_counter()
        model.refine()
        refined = time.perf_counter() - started
    gradients = [seconds for name, seconds in fitted if name == "_gradient"]
    return {
        "rows": n,
        "parts": len(model._rows.stored),
        "deal s": opened[0],
        "solve s": fit - opened[0],
        "passes": len(fitted),
        "gradient M rows/s": n / min(gradients) / 1e6,
        "delete ms": 1e3 * float(np.median(singles)),
        "delete 100 ms": 1e3 * batched,
        "refine s": refined,
        "anonymous MiB": memory.most,
        "peak MiB": peak(),
        "distance": distance,
        "predicted": float(gone == {"predicted"}),
    }


def sizes(folder: Path, rows: list[int]) -> list[dict[str, float]]:
    """Memory and time by the number of rows."""
    found = []
    for n in rows:
        source = generate(folder, n)
        found.append(apart(one_size, source, folder, n))
        shutil.rmtree(source)
        print("  ".join(f"{name} {value:,.4g}" for name, value in found[-1].items()), flush=True)
    return found


def bandwidth(source: Path, folder: Path, n: int) -> dict[str, float]:
    """One pass of each kind over the same rows, each the best of five, against reading alone."""
    import certified
    from certified._convex.losses import Logistic
    from certified._convex.passes import Passes
    from certified.parts import Parts
    from certified.parts._dealing import Roles

    opened = Parts(source, folder=folder).open("bench", Roles("customer", ("late",), as_classes=True))
    rows, w = opened.rows, np.zeros(P + 1)
    work = Passes(rows, None)

    def best(call: Callable[[], Any]) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        return n / min(times) / 1e6

    def read_source() -> None:
        for batch in Parts(source)._batches([*FEATURES, "late"]):
            assert batch.height

    def on_two(call: Callable[[], Any]) -> float:
        with certified.engine("threads", n_jobs=2):
            return best(call)

    return {
        "rows": n,
        "read mapped": best(lambda: list(rows.map(_read))),
        "read mapped, 2 threads": on_two(lambda: list(rows.map(_read))),
        "gradient, 2 threads": on_two(lambda: work.gradient(Logistic(), w)),
        "gradient": best(lambda: work.gradient(Logistic(), w)),
        "gradient and Hessian": best(lambda: (work.gradient(Logistic(), w), work.curvature(Logistic(), w))),
        "polars reads the source": best(read_source),
    }


def sequence(n: int, p: int, n_deletions: int) -> dict[str, float]:
    """Delete one subject after the other, with a release after each thousandth; compare with a refit at the end."""
    from certified.linear_model import LogisticRegression
    from certified.parts import Parts

    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, p))
    late = rng.random(n) < 1 / (1 + np.exp(-x @ rng.normal(size=p) / np.sqrt(p)))
    names = [f"x{j}" for j in range(p)]
    table = pl.DataFrame({name: x[:, j] for j, name in enumerate(names)}).with_columns(
        late=pl.Series(late), customer=pl.int_range(n, eager=True)
    )
    model = LogisticRegression().fit(Parts(table, in_memory=True), "late", ids="customer")
    gone, measured, mu = rng.permutation(n)[:n_deletions], 0, 0.0
    started = time.perf_counter()
    for k, who in enumerate(gone.tolist()):
        measured += model.delete(who).method == "measured"
        if k % 1000 == 999 or k == n_deletions - 1:
            model.coef_  # noqa: B018 - draws the release
            mu = model.certificate_.mu_transcript
    seconds = time.perf_counter() - started
    stays = np.ones(n, dtype=bool)
    stays[gone] = False
    refit = LogisticRegression().fit(x[stays], late[stays])
    gap = model._noise_metric_now().whitened(model._state.solution.w - refit._state.solution.w)
    return {
        "rows": n,
        "deletions": n_deletions,
        "per second": n_deletions / seconds,
        "passed over the rows": float(measured),
        "mu of 1 + deletions / 1000 releases": mu,
        "distance to a refit": float(np.linalg.norm(gap)),
        "certified": model.certificate_.distance_bound + refit.certificate_.distance_bound,
        "same exact sums": float(model._state.products.same(refit._state.products)),
    }


def _read(part: Any, weight: Any) -> float:
    """Read the bytes of the features once, as fast as the library can: a sum."""
    return float(part.x.sum())


def engines(source: Path, folder: Path, n: int) -> dict[str, float]:
    """The same fit on several engines, over the serial one."""
    import certified
    from certified.linear_model import LogisticRegression
    from certified.parts import Parts

    def fit() -> tuple[float, Any]:
        started = time.perf_counter()
        model = LogisticRegression().fit(Parts(source, folder=folder), "late", ids="customer")
        return time.perf_counter() - started, model._state.solution.w

    fit()
    serial, w = fit()
    out = {"rows": n, "serial s": serial}
    with certified.engine("threads", n_jobs=2):
        fit()
        out["2 threads, times serial"], other = fit()
    assert np.array_equal(w, other)
    try:
        import distributed
    except ImportError:
        return out
    for workers in (2, 4):
        with (
            distributed.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
            distributed.Client(cluster) as client,
            certified.engine("dask", client),
        ):
            fit()
            out[f"{workers} Dask workers, times serial"], other = fit()
        assert np.array_equal(w, other)
    return {name: value / serial if "times" in name else value for name, value in out.items()}


def ours(source: Path, folder: Path, test: Any) -> dict[str, float]:
    """Fit on parts; what it takes and how good it is."""
    from certified.linear_model import LogisticRegression
    from certified.parts import Parts

    X, y = test
    with Memory() as memory:
        started = time.perf_counter()
        model = LogisticRegression().fit(Parts(source, folder=folder), "late", ids="customer")
        seconds = time.perf_counter() - started
    return {"s": seconds, "MiB": memory.most, "log loss": loss(model.predict_proba(X)[:, 1], y)}


def by_partial_fit(source: Path, test: Any) -> dict[str, float]:
    """scikit-learn's stochastic gradient, pass after pass, until the loss no longer falls in the fifth digit."""
    from sklearn.linear_model import SGDClassifier

    X, y = test
    with Memory() as memory:
        started = time.perf_counter()
        model, last = SGDClassifier(loss="log_loss", alpha=1e-9, learning_rate="constant", eta0=0.001), np.inf
        epoch = 0
        while epoch < 20:
            epoch += 1
            for path in sorted(source.glob("*.parquet")):
                for batch in pl.read_parquet(path).iter_slices(1 << 16):
                    model.partial_fit(batch.select(FEATURES).to_numpy(), batch["late"].to_numpy(), [False, True])
            now = loss(model.predict_proba(X)[:, 1], y)
            if now > last - 1e-5:
                break
            last = now
            model.set_params(eta0=model.eta0 / 5)
        seconds = time.perf_counter() - started
    return {"s": seconds, "MiB": memory.most, "log loss": min(now, last), "epochs": epoch}


def by_xgboost(source: Path, folder: Path, test: Any) -> dict[str, float]:
    """XGBoost's linear-size rival from external memory: trees, another kind of model, 30 rounds of depth 6."""
    import xgboost as xgb

    X, y = test
    files = sorted(source.glob("*.parquet"))

    class Files(xgb.DataIter):
        def __init__(self) -> None:
            self._next = 0
            super().__init__(cache_prefix=str(folder / "xgb"))

        def next(self, input_data: Any) -> bool:
            if self._next == len(files):
                return False
            batch = pl.read_parquet(files[self._next])
            input_data(data=batch.select(FEATURES).to_numpy(), label=batch["late"].to_numpy())
            self._next += 1
            return True

        def reset(self) -> None:
            self._next = 0

    with Memory() as memory:
        started = time.perf_counter()
        table = xgb.ExtMemQuantileDMatrix(Files())
        found = xgb.train({"objective": "binary:logistic", "max_depth": 6, "eta": 0.3, "nthread": 2}, table, 30)
        seconds = time.perf_counter() - started
    return {"s": seconds, "MiB": memory.most, "log loss": loss(found.predict(xgb.DMatrix(X)), y)}


def by_spark(source: Path, test: Any) -> dict[str, float]:
    """Logistic regression of pyspark.ml to its default tolerance, in a session that is started before the clock."""
    import sys

    from pyspark.ml.classification import LogisticRegression
    from pyspark.ml.feature import VectorAssembler
    from pyspark.sql import SparkSession, functions

    X, y = test
    os.environ["PYSPARK_PYTHON"], os.environ["SPARK_LOCAL_IP"] = sys.executable, "127.0.0.1"
    config = {"spark.ui.enabled": "false", "spark.driver.memory": "4g", "spark.driver.bindAddress": "127.0.0.1"}
    session = SparkSession.builder.master("local[2]").config(map=config).getOrCreate()
    session.range(10).count()
    started = time.perf_counter()
    rows = session.read.parquet(str(source)).withColumn("label", functions.col("late").cast("double"))
    table = VectorAssembler(inputCols=FEATURES, outputCol="features").transform(rows).select("features", "label")
    model = LogisticRegression(standardization=False, maxIter=100).fit(table)
    seconds = time.perf_counter() - started
    z = X @ model.coefficients.toArray() + model.intercept
    session.stop()
    return {"s": seconds, "log loss": loss(1 / (1 + np.exp(-z)), y)}


def loss(probability: Any, y: Any) -> float:
    """Mean log loss."""
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(y, np.log(p), np.log1p(-p))))


def peers(folder: Path, n: int) -> dict[str, dict[str, float]]:
    """Ours and others on the same files, each in a process of its own."""
    source = generate(folder, n)
    held = pl.read_parquet(generate(folder, min(n // 10, 200_000)))
    test = held.select(FEATURES).to_numpy(), held["late"].to_numpy()
    found = {
        "certified": apart(ours, source, folder, test),
        "partial_fit": apart(by_partial_fit, source, test),
        "xgboost": apart(by_xgboost, source, folder, test),
    }
    with suppress(ImportError):  # 450 MB and Java, where they are installed
        found["pyspark.ml"] = apart(by_spark, source, test)
    shutil.rmtree(source)
    return found


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="?", choices=["sizes", "pass", "engines", "peers", "sequence", "all"], default="all"
    )
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of rows")
    parser.add_argument("--folder", type=Path, help="where files go; a temporary one by default")
    given = parser.parse_args()
    rows = given.rows or ([20_000, 40_000] if given.small else [1_000_000, 4_000_000, 16_000_000])
    folder = Path(tempfile.mkdtemp(prefix="bench-scale-", dir=given.folder))
    try:
        print(f"{os.cpu_count()} cores")
        if given.what in ("sizes", "all"):
            sizes(folder, rows)
        for name, call in (("pass", bandwidth), ("engines", engines)):
            if given.what in (name, "all"):
                source = generate(folder, rows[0])
                print(name, json.dumps(apart(call, source, folder, rows[0])), flush=True)
                shutil.rmtree(source)
        if given.what in ("sequence", "all"):
            size = (4000, 5, 200) if given.small else (1_000_000, 50, 100_000)
            print("sequence", json.dumps(sequence(*size)), flush=True)
        if given.what in ("peers", "all"):
            for name, found in peers(folder, rows[0]).items():
                print(f"{name:12s}", json.dumps(found), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
