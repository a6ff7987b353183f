"""Where passes run changes nothing: threads, processes, Dask with a worker that dies, Spark."""

import os
import signal
import sys

import numpy as np
import polars as pl
import pytest

import certified
from certified.errors import InvalidInput
from certified.linear_model import LogisticRegression, Ridge
from certified.parts import Parts, _engines

N = 3000


@pytest.fixture(scope="module")
def loans():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(N, 3))
    late = rng.random(N) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.2]))
    return pl.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "who": rng.integers(0, 900, N), "late": late})


def source(loans, **where):
    return Parts(loans, part_bytes=1 << 14, **where)


def story(loans, before_passes=lambda: None, **where):
    """Fit, delete without a pass and with some, refine: all that passes find."""
    model = LogisticRegression(noise=0.05).fit(source(loans, **where), "late", ids="who")
    assert model.delete(model.ids_[:3]).method == "predicted"
    many = model.ids_[:300]
    before_passes()
    assert model.delete(many).method == "measured"
    model.refine()
    return model


def same(a, b):
    assert np.array_equal(a._state.solution.w, b._state.solution.w)
    assert a._state.products.same(b._state.products)
    assert a.certificate_.distance_bound == b.certificate_.distance_bound


@pytest.fixture(scope="module")
def serial(loans):
    return story(loans, in_memory=True)


def test_threads_give_the_same_bits(loans, serial):
    with certified.engine("threads", n_jobs=3):
        same(story(loans, in_memory=True), serial)
        same(story(loans), serial)


def test_processes_of_joblib_give_the_same_bits(loans, serial):
    with certified.engine("joblib", n_jobs=2):
        same(story(loans), serial)


@pytest.mark.parametrize("n_workers", [2, pytest.param(4, marks=pytest.mark.slow)])  # starting four, not chance
def test_dask_gives_the_same_bits_when_a_worker_dies(loans, serial, n_workers, monkeypatch, tmp_path):
    distributed = pytest.importorskip("distributed")
    ahead, killed, plain = [4], [], _engines.Dask.map  # passes until a worker dies

    def deadly(self, function, tasks, args):
        found = plain(self, function, tasks, args)
        yield next(found)
        ahead[0] -= 1
        if ahead[0] == 0:
            killed.append(next(iter(self.client.run(os.getpid).values())))
            os.kill(killed[-1], signal.SIGKILL)
        yield from found

    def before_passes():
        assert len(killed) == 1  # during the fit
        ahead[0] = 2

    monkeypatch.setattr(_engines.Dask, "map", deadly)
    with (
        distributed.LocalCluster(
            n_workers=n_workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
        ) as cluster,
        distributed.Client(cluster) as client,
        certified.engine("dask", client),
    ):
        same(story(loans, before_passes, folder=tmp_path), serial)
    assert len(killed) == 2


class NoWorkers:
    """A client whose workers have all died, and come back or not."""

    def __init__(self, back):
        self.back, self.workers = back, {}

    def scheduler_info(self, n_workers):
        return {"workers": self.workers}

    def wait_for_workers(self, n_workers, timeout):
        if not self.back:
            raise TimeoutError
        self.workers = {"tcp://b": 1, "tcp://a": 1}


def test_workers_that_start_in_the_place_of_dead_ones_are_waited_for():
    assert _engines.Dask(NoWorkers(back=True))._workers() == ["tcp://a", "tcp://b"]
    with pytest.raises(InvalidInput, match="has no worker"):
        _engines.Dask(NoWorkers(back=False))._workers()


@pytest.mark.slow  # starting Spark, not chance
def test_spark_gives_the_same_bits(loans, serial, tmp_path, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    session = (
        sql.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .getOrCreate()
    )
    try:
        with certified.engine("spark", session):
            same(story(loans, folder=tmp_path), serial)
    finally:
        session.stop()


def test_an_error_in_a_part_reaches_the_caller_and_ends_the_fit(loans):
    far = loans.with_columns(pl.when(pl.int_range(N) == 2500).then(1e70).otherwise(pl.col("a")).alias("a"))
    with certified.engine("threads", n_jobs=2), pytest.raises(InvalidInput, match="At most 2"):
        LogisticRegression().fit(source(far), "late", ids="who")


def test_engines_that_cannot_be_are_refused(loans):
    with pytest.raises(InvalidInput, match="'dask', 'joblib', 'serial', 'spark', 'threads'"), certified.engine("ray"):
        pass
    with pytest.raises(InvalidInput, match="other arguments"), certified.engine("dask"):
        pass
    with certified.engine("joblib", n_jobs=2), pytest.raises(InvalidInput, match="in the memory of this one"):
        Ridge().fit(source(loans, in_memory=True), "a")
    Ridge().fit(source(loans, in_memory=True), "a")
