"""What all tests share: the hypothesis profile, the keys and the folder of public data sets."""

import os
import random
import types
from pathlib import Path

import pytest
from hypothesis import settings

from certified._data import hashing

ROOT = Path(__file__).resolve().parent.parent

# No deadline: the first call of each shape compiles. Under CI the examples are the same at every run.
settings.register_profile("certified", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI")))
settings.load_profile("certified")

# Keys that nobody gave come from the operating system. Under CI they are the same at every run, too: each test draws
# from its own name, so that a test cannot fail because another one was added.
KEYS = random.Random(0)
if os.environ.get("CI"):
    hashing.secrets = types.SimpleNamespace(randbits=KEYS.getrandbits)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    KEYS.seed(item.nodeid)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder named by CERTIFIED_DATA, else ../shared/data seen from the repository; skips where it is absent."""
    folder = Path(os.environ.get("CERTIFIED_DATA") or ROOT / ".." / "shared" / "data").resolve()
    if not folder.is_dir():
        pytest.skip(f"no public data sets at {folder}; set CERTIFIED_DATA to a folder that holds them")
    return folder
