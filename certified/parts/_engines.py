"""Where the passes over parts run: here, in threads, in other processes, on the workers of Dask or Spark.

An engine calls a pure function of one part for every part and gives back what it returns, in the order of the parts.
Merging is not its business, so the result depends on the partition alone: not on workers, retries or arrival.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from certified._data.reproducible import on_one_thread
from certified.errors import InvalidInput
from certified.parts._part import InFile, PartWeight, Stored

__all__ = ["current", "engine"]

Task = tuple[Stored, PartWeight]

_RESTART = 60.0  # seconds that workers have to come back


def run(task: Task, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Open one part, call the function with it and its weights, close it."""
    stored, weight = task
    part = stored.open()
    return function(part, weight.of(part), *args)


def _alone(task: Task, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    with on_one_thread():
        return run(task, function, args)


class Serial:
    """One part after the other, in this process."""

    apart = False  # whether parts are opened by other processes

    def map(self, function: Callable[..., Any], tasks: list[Task], args: tuple[Any, ...]) -> Iterator[Any]:
        """Yield what the function returns for every part, in their order."""
        for task in tasks:
            yield _alone(task, function, args)


class Joblib(Serial):
    """Threads or processes of joblib."""

    def __init__(self, n_jobs: int = -1, backend: str | None = None) -> None:
        self.n_jobs, self.backend = n_jobs, backend
        self.apart = backend != "threading"

    def map(self, function: Callable[..., Any], tasks: list[Task], args: tuple[Any, ...]) -> Iterator[Any]:
        """Yield what the function returns for every part, in their order."""
        from joblib import Parallel, delayed

        work = Parallel(n_jobs=self.n_jobs, backend=self.backend, return_as="generator")
        with on_one_thread():  # of threads, which share one library
            yield from work(delayed(_alone if self.apart else run)(task, function, args) for task in tasks)


class Dask(Serial):
    """The workers of a ``distributed.Client``. A part is sent to the same worker for every pass.

    When a worker dies, the scheduler gives its parts to others, which open them from their files.
    """

    apart = True

    def __init__(self, client: Any) -> None:
        self.client = client

    def _workers(self) -> list[str]:
        """Addresses of the workers; where all have died, some time is given to those that start in their place."""
        if not self.client.scheduler_info(n_workers=-1)["workers"]:
            try:
                self.client.wait_for_workers(1, timeout=_RESTART)
            except TimeoutError:
                raise InvalidInput(
                    'engine("dask", client) has no worker. Start workers first. Nothing was changed.'
                ) from None
        return sorted(self.client.scheduler_info(n_workers=-1)["workers"])

    def map(self, function: Callable[..., Any], tasks: list[Task], args: tuple[Any, ...]) -> Iterator[Any]:
        """Yield what the function returns for every part, in their order."""
        workers = self._workers()
        futures = [
            self.client.submit(
                _alone, task, function, args, pure=False, workers=[workers[k % len(workers)]], allow_other_workers=True
            )
            for k, task in enumerate(tasks)
        ]
        try:
            for k in range(len(futures)):
                yield futures[k].result()
                futures[k].release()
        finally:
            self.client.cancel([future for future in futures if not future.done()])


class Spark(Serial):
    """The executors of a ``pyspark.sql.SparkSession``, by ``mapInArrow``. Every result carries the number of its part.

    Attempts that were lost, repeated or raced count once: only what is collected counts.
    """

    apart = True

    def __init__(self, session: Any) -> None:
        self.session = session

    def map(self, function: Callable[..., Any], tasks: list[Task], args: tuple[Any, ...]) -> Iterator[Any]:
        """Yield what the function returns for every part, in their order."""
        known = pickle.dumps((function, args))
        numbered = [(k, bytearray(pickle.dumps(task))) for k, task in enumerate(tasks)]
        frame = self.session.createDataFrame(numbered, "part long, task binary").repartitionByRange(len(tasks), "part")

        def work(batches: Iterator[Any]) -> Iterator[Any]:
            import pyarrow as pa

            called, given = pickle.loads(known)
            for batch in batches:
                for k, task in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                    found = pickle.dumps(_alone(pickle.loads(task), called, given))
                    yield pa.RecordBatch.from_arrays(
                        [pa.array([k], pa.int64()), pa.array([found], pa.binary())], names=["part", "found"]
                    )

        rows = frame.mapInArrow(work, "part long, found binary").collect()
        for row in sorted(rows, key=lambda row: row["part"]):
            yield pickle.loads(row["found"])


_ENGINES: dict[str, Any] = {"serial": Serial, "joblib": Joblib, "dask": Dask, "spark": Spark}
_SERIAL = Serial()
_CURRENT: ContextVar[Any] = ContextVar("engine", default=_SERIAL)


@contextmanager
def engine(name: str, *args: Any, **options: Any) -> Iterator[None]:
    """Run the passes over parts on this engine while the block lasts.

    Parameters
    ----------
    name : {"serial", "threads", "joblib", "dask", "spark"}
    *args, **options
        "threads": ``n_jobs``. "joblib": ``n_jobs`` and ``backend``, as of ``joblib.Parallel``. "dask": a
        ``distributed.Client``. "spark": a ``pyspark.sql.SparkSession``.

    Raises
    ------
    InvalidInput
        There is no such engine, or it was not given what it needs.

    Notes
    -----
    Results are merged in the order of the parts, whatever finishes first. On machines of one kind they have the bits of
    a serial run; elsewhere exact sums do, and approximate ones stay inside the rounding envelope that every certificate
    counts. What goes to a worker is the name of a part, the parameter and what has left; what comes back is a sum. Rows
    never pass through the scheduler. Workers read the part files by the same path, so that these lie on a file system
    that all of them share.

    Examples
    --------
    >>> import certified
    >>> with certified.engine("threads", n_jobs=2):
    ...     pass  # model.fit(parts, "default", ids="customer_id")
    """
    allowed = ["threads", *_ENGINES]
    if name not in allowed:
        raise InvalidInput(f"engine({name!r}) is not known. Allowed are {', '.join(map(repr, sorted(allowed)))}.")
    if name == "threads":
        chosen: Any = Joblib(*args, **{**options, "backend": "threading"})
    else:
        try:
            chosen = _ENGINES[name](*args, **options)
        except TypeError as error:
            raise InvalidInput(f"engine({name!r}, ...) got other arguments than it takes: {error}.") from None
    token = _CURRENT.set(chosen)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current(tasks: list[Task]) -> Any:
    """Return the engine of this block; raise InvalidInput where it cannot reach these parts."""
    found = _CURRENT.get()
    if found.apart and not all(isinstance(stored, InFile) for stored, _ in tasks):
        raise InvalidInput(
            f'The engine "{type(found).__name__.lower()}" opens parts in other processes, and these are in the memory '
            'of this one. Give Parts(..., folder=...), or take engine("threads"). Nothing was changed.'
        )
    return found
