"""Whatever happens while requests are carried out: no request is lost, none is done twice, nothing of a subject stays.

Without VAULT_CRASH=all only a sample of calls is tried, so that the suite stays quick.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cryptography")

import crash

from certified.errors import CertifiedError, Locked, StorageFailed
from certified.linear_model import Ridge
from certified.vault import Vault

ALL = os.environ.get("VAULT_CRASH") == "all"
MEMORY = Path("/dev/shm")  # a file system whose syncs cost nothing, where there is one
N = 400
RNG = np.random.default_rng(3)
X = RNG.standard_normal((N, 5))
Y = X[:, 0] + RNG.standard_normal(N)
IDS = np.array([f"PATIENT-{k:05d}-{RNG.integers(10**9):09d}" for k in range(N)])
GONE = [77, 200, 5]
REQUESTS = {"r1": [77, 200], "r2": [5]}

pytestmark = pytest.mark.filterwarnings("ignore:os.fork")  # the children use NumPy and SQLite alone
needs_strace = pytest.mark.skipif(crash.STRACE is None, reason="strace is not installed")


@pytest.fixture(scope="module")
def folder():
    made = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def base(folder):
    """A vault with two requests that wait."""
    with Vault.create(folder / "base", Ridge().fit(X, Y, ids=IDS)) as vault:
        for key, rows in REQUESTS.items():
            vault.request(IDS[rows], key=key)
    return folder / "base"


@pytest.fixture(scope="module")
def expected():
    model = Ridge().fit(X, Y, ids=IDS)
    model.delete(IDS[GONE])
    return model.state_digest_


def fresh(base):
    copy = base.with_name("vault")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(base, copy)
    return copy


def process(path):
    with Vault.open(path) as vault:
        vault.process()


def check(path, expected):
    """Open the vault after a crash, let it go on, and look at everything."""
    with Vault.open(path) as vault:
        assert vault.verify(), str(vault.verify())
        vault.process()
        found = vault.verify(replay=True)
        assert found, str(found)
        kinds = Counter((entry["kind"], entry["request"]) for entry in vault.ledger if "request" in entry)
        for key in REQUESTS:
            assert [kinds[kind, key] for kind in ("requested", "removed", "erased")] == [1, 1, 1]
            assert vault.find(key).status == "erased"
        assert vault.model.state_digest_ == expected
        assert not vault.trace(IDS[GONE], X[GONE])
        assert vault.db.execute("select count(*) from salt").fetchone()[0] == 0
        assert len(list((path / "state").iterdir())) == 1
        vault.process()
        assert len(vault.ledger) == 1 + 2 + 2 + 2 + 1, "done once, whatever happened"


def test_an_uninterrupted_run_is_as_expected(base, expected):
    path = fresh(base)
    process(path)
    check(path, expected)


@pytest.fixture(scope="module")
def calls(base, folder):
    path = fresh(base)
    found = crash.calls_of(lambda: process(path), folder / "calls")
    if not found:
        pytest.skip("strace cannot attach to a process here")
    return found


@needs_strace
def test_a_kill_at_a_system_call_loses_nothing(base, expected, calls):
    killed = 0
    for name, k in crash.places(calls, 1 if ALL else 9):
        path = fresh(base)
        status = crash.fork(lambda path=path: process(path), ["-e", f"inject={name}:signal=SIGKILL:when={k}"])
        killed += status == -9
        check(path, expected)
    print(f"killed {killed} times in a run of {len(calls)} calls")
    assert killed >= 0.9 * len(crash.places(calls, 1 if ALL else 9))


@needs_strace
@pytest.mark.parametrize("error", ["ENOSPC", "EIO", "EROFS"])
def test_an_error_of_the_disk_is_told_and_loses_nothing(base, expected, calls, error):
    """An error may be met (a clean end of the process with an error of ours) or may not matter; it never loses "
    "anything."""
    for name, k in crash.places(calls, 1 if ALL else 16):
        path = fresh(base)

        def work(path=path):
            try:
                process(path)
            except CertifiedError:
                os._exit(7)

        status = crash.fork(work, ["-e", f"inject={name}:error={error}:when={k}"])
        assert status in (0, 7), (name, k, status)
        check(path, expected)


def test_a_kill_at_any_time_loses_nothing(base, expected):
    rng = crash.rng_of(1)
    killed, times = 0, 500 if ALL else 12
    for _ in range(times):
        path = fresh(base)
        killed += crash.fork_and_kill(lambda path=path: process(path), rng.uniform(0.0, 0.12))
        check(path, expected)
    print(f"killed {killed} of {times}")
    assert killed >= times // 4


@needs_strace
def test_a_power_cut_at_any_time_loses_nothing(base, expected, folder, calls):
    path = fresh(base)
    status = crash.fork(lambda: process(path), ["-y", "-xx", "-s", "1000000"], folder / "trace")
    assert status == 0, "the run that is to be replayed did not end"
    disk = crash.Disk(folder / "trace", base, path)
    assert sum(call[0] == "sync" for call in disk.calls) >= 10
    rng = crash.rng_of(2)
    ways = [("none", "none"), ("none", "all"), ("all", "none"), *[("some", "some")] * (4 if ALL else 1)]
    tried = 0
    for k in range(0, len(disk.calls) + 1, 1 if ALL else 11):
        for data, names in ways:
            disk.after(k, data, names, rng)
            try:
                check(path, expected)
            except Exception as problem:
                raise AssertionError(
                    f"after {k} calls, data {data}, names {names}: {disk.calls[k - 1][:2]}"
                ) from problem
            tried += 1
    print(f"{tried} states after power cuts, {len(disk.calls)} calls")


@needs_strace
def test_the_simulator_finds_a_vault_that_does_not_sync(base, expected, folder, calls, monkeypatch):
    """The mutant: without syncs, what the simulator drops must be missed."""
    from certified.vault import _files

    path = fresh(base)
    monkeypatch.setattr(_files.os, "fsync", lambda handle: None)
    status = crash.fork(lambda: process(path), ["-y", "-xx", "-s", "1000000"], folder / "trace")
    assert status == 0, "the run that is to be replayed did not end"
    monkeypatch.undo()
    disk = crash.Disk(folder / "trace", base, path)
    broken = 0
    for k in range(len(disk.calls) // 3, len(disk.calls), 3):
        disk.after(k, "none", "all", crash.rng_of(0))
        try:
            check(path, expected)
        except Exception:
            broken += 1
    assert broken > 0


def test_two_processes_cannot_work_at_once(base):
    from certified.vault._files import locked

    path = fresh(base)
    with Vault.open(path) as vault, locked(path / "lock"):
        with pytest.raises(Locked, match="Another process works"):
            vault.process()
        with Vault.open(path) as other:  # requests need no lock
            assert other.request(["x"], key="r9").status == "queued"
    with Vault.open(path) as vault:
        assert vault.process()


def test_after_an_error_of_the_disk_the_vault_must_be_opened_again(base, monkeypatch):
    from certified.vault import _keeper

    path = fresh(base)
    with Vault.open(path) as vault:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(_keeper, "write_new", full)
        with pytest.raises(StorageFailed, match="No space left"):
            vault.process()
        monkeypatch.undo()
        with pytest.raises(StorageFailed, match="Open it again"):
            vault.process()
        assert vault.find("r1").status == "queued"
    with Vault.open(path) as vault:
        assert vault.process().subjects == 3
