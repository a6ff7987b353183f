"""A key, a log, and folders in memory where there are such: syncs, of which a log makes many, cost nothing there."""

import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path():
    folder = Path(tempfile.mkdtemp(prefix="certified-", dir=MEMORY if MEMORY.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


NAME = "bank.example/credit-default"


@pytest.fixture(scope="module")
def key():
    ledger = pytest.importorskip("certified.ledger")
    return ledger.SigningKey.generate(NAME)


@pytest.fixture
def ledger(tmp_path, key):
    from certified.ledger import Ledger

    with Ledger.create(tmp_path / "log.db", NAME, key) as made:
        yield made
