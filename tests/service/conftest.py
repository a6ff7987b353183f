"""Folders in memory, where there is such a file system: syncs, of which a vault makes many, cost nothing there."""

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
