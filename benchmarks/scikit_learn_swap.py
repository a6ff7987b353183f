"""A pytest plugin that gives scikit-learn's own test modules the classes of this package.

``pytest -p scikit_learn_swap --pyargs sklearn.tree.tests.test_tree`` with this folder on PYTHONPATH; see
``scikit_learn_tests.py``, which runs it module by module. The environment says how:

SWAP_MODE
    ``stock`` changes nothing, and tells which tests pass at all here. ``strict`` swaps the classes. ``lenient``
    translates what is spelled differently by design, too: a seed becomes a key, no noise is added, parameters that
    concern work alone are dropped, weights and splitters are given by our names, sparse
    rows are made dense where a class has no form for them, and an error of ours that has the
    expected type may have words of its own.
SWAP_RESULT
    Where to write one JSON object a line for each test.

Only the names in a test module are replaced, while it is imported: what scikit-learn uses inside stays its own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import json
import os
import pkgutil
import re
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import issparse
from sklearn.utils import get_tags

from certified.errors import CertifiedError

FAMILIES = [
    "cluster",
    "compose",
    "decomposition",
    "discriminant_analysis",
    "ensemble",
    "impute",
    "kernel_approximation",
    "linear_model",
    "model_selection",
    "naive_bayes",
    "neighbors",
    "pipeline",
    "preprocessing",
    "tree",
]
SECONDS = 60
# Parameters of scikit-learn that say how the work is done, and drawn samples that follow from the key here.
WORK = {"n_jobs", "verbose", "copy", "copy_X", "copy_x", "warm_start", "check_input", "order", "precompute", "max_iter"}
WORK |= {"dtype", "subsample"}

_mode = os.environ.get("SWAP_MODE", "strict")
_made = {"count": 0}


def counterparts() -> dict[tuple[str, str], Any]:
    """Return (module, name) of scikit-learn's classes and functions, with ours."""
    found = {}
    for family in FAMILIES:
        ours, theirs = importlib.import_module(f"certified.{family}"), importlib.import_module(f"sklearn.{family}")
        for name in ours.__all__:
            if hasattr(theirs, name) and getattr(ours, name) is not getattr(theirs, name):
                found[family, name] = getattr(ours, name)
    return found


def lenient(ours: Any, theirs: Any) -> Any:
    """Have a class take scikit-learn's parameters where they mean something here."""
    if not (inspect.isclass(ours) and hasattr(ours, "fit")):
        return ours
    make = ours.__init__
    own = inspect.signature(ours.__init__).parameters
    extra = {
        name: parameter
        for name, parameter in inspect.signature(theirs.__init__).parameters.items()
        if name not in own and name in WORK | {"random_state"}
    }
    signature = inspect.signature(ours.__init__)
    keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in extra.values()]

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        for name, parameter in extra.items():
            setattr(self, name, given.pop(name, parameter.default))
        make(self, *args, **given)
        if "noise" in own and "noise" not in given:
            self.noise = 0.0
        if "sparse_output" in own and "sparse_output" not in given and "sparse_output" not in args:
            self.sparse_output = inspect.signature(theirs.__init__).parameters["sparse_output"].default
        if hasattr(getattr(self, "cv", None), "get_n_splits"):
            with contextlib.suppress(Exception):
                self.cv = self.cv.get_n_splits()
        if "key" in own and given.get("key") is None:
            self.key = _as_key(getattr(self, "random_state", None))

    __init__.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *keyword])  # type: ignore[attr-defined]
    ours.__init__ = __init__  # in place, so that what is made can be pickled
    ours.fit = _by_name(ours.fit)
    if not get_tags_of(ours):
        for name in ("fit", "predict", "predict_proba", "transform", "fit_transform", "score", "decision_function"):
            if hasattr(ours, name):
                setattr(ours, name, _dense(getattr(ours, name)))
    return ours


def get_tags_of(kind: Any) -> bool:
    """Whether a class says that it takes sparse matrices; those made of others pass on what they are given."""
    try:
        return bool(get_tags(kind()).input_tags.sparse)
    except Exception:
        return True


def _dense(method: Any) -> Any:
    """Give rows as dense arrays."""

    @functools.wraps(method)
    def dense(self: Any, X: Any, *rest: Any, **given: Any) -> Any:
        found = method(self, X.toarray() if issparse(X) else X, *rest, **given)
        back = issparse(X) and "transform" in method.__name__ and isinstance(found, np.ndarray)
        return X.asformat("csr").__class__(found) if back else found

    return dense


def _by_name(fit: Any) -> Any:
    """Give weights that follow y by their name: there come the ids here."""

    @functools.wraps(fit)
    def named(self: Any, X: Any, y: Any = None, *rest: Any, **given: Any) -> Any:
        if len(rest) == 1:
            given["sample_weight"] = rest[0]
        return fit(self, X, y, **given)

    return named


class OwnWords:
    """``pytest.raises`` that takes an error of this package by its type."""

    real = staticmethod(pytest.raises)

    def __init__(self, kinds: Any, *, match: Any = None, **given: Any) -> None:
        self.match, self.given = match, given
        self.kinds = kinds if isinstance(kinds, tuple) else (kinds,)

    def __enter__(self) -> Any:
        self.info = self.real(self.kinds, **self.given)
        return self.info.__enter__()

    def __exit__(self, kind: Any, value: Any, trace: Any) -> bool:
        done = bool(self.info.__exit__(kind, value, trace))
        if done and self.match is not None and not isinstance(value, CertifiedError):
            assert re.search(self.match, str(value)), f"{self.match!r} is not in {str(value)!r}"
        return done


def own_words(kinds: Any, *args: Any, **given: Any) -> Any:
    """``pytest.raises`` in lenient mode."""
    return OwnWords.real(kinds, *args, **given) if args else OwnWords(kinds, **given)


def _as_key(seed: Any) -> Any:
    if isinstance(seed, np.random.RandomState):
        return int(seed.randint(2**31))
    return int(seed) if isinstance(seed, int | np.integer) else None


def _imported() -> None:
    """Import all of scikit-learn but its tests, so that nothing of it is imported with our names in place."""
    import sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for found in pkgutil.walk_packages(sklearn.__path__, "sklearn."):
            if "tests" not in found.name.split(".") and "conftest" not in found.name:
                try:
                    importlib.import_module(found.name)
                except Exception:
                    continue


def pytest_configure(config: Any) -> None:
    """Import the test modules named on the command line with our names in scikit-learn's packages."""
    if _mode == "stock":
        return
    _imported()
    import certified.base

    if _mode == "lenient":
        pytest.raises = own_words  # type: ignore[assignment]

    def counted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        _made["count"] += 1
        return object.__new__(cls)

    certified.base.Deletable.__new__ = staticmethod(counted)  # type: ignore[assignment, method-assign]
    swaps = []
    for (family, name), ours in counterparts().items():
        package = importlib.import_module(f"sklearn.{family}")
        theirs = getattr(package, name)
        swaps.append((package, name, theirs, lenient(ours, theirs) if _mode == "lenient" else ours))
    for package, name, _, ours in swaps:
        setattr(package, name, ours)
    modules = [
        importlib.import_module(name) for name in config.invocation_params.args if str(name).startswith("sklearn.")
    ]
    for package, name, theirs, _ in swaps:
        setattr(package, name, theirs)
    by_id = {id(theirs): ours for *_, theirs, ours in swaps}
    for module in modules:
        for name, value in list(vars(module).items()):
            if id(value) in by_id:
                setattr(module, name, by_id[id(value)])


class TooLong(Exception):
    """A test took longer than is waited for."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Iterator[None]:
    """Stop a test that takes too long."""

    def stop(*_: Any) -> None:
        raise TooLong(f"{SECONDS} s")

    before, _made["count"], started = signal.signal(signal.SIGALRM, stop), 0, time.perf_counter()
    signal.alarm(SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        item.user_properties.append(("ours", _made["count"]))
        item.user_properties.append(("seconds", round(time.perf_counter() - started, 2)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Iterator[Any]:
    """Write what came of a test."""
    report = yield
    if report.when == "call" or report.outcome != "passed":
        line: dict[str, Any] = {"test": item.nodeid, "when": report.when, "outcome": report.outcome}
        line |= dict(item.user_properties)
        if call.excinfo is not None and report.outcome == "failed":
            trace = [str(entry.path) for entry in call.excinfo.traceback]
            line["error"] = call.excinfo.type.__name__
            line["refused"] = any(kind.__name__ == "CertifiedError" for kind in call.excinfo.type.__mro__)
            line["message"] = str(call.excinfo.value)[:600]
            line["raised in"] = _inside(trace)
        with Path(os.environ["SWAP_RESULT"]).open("a") as file:
            file.write(json.dumps(line) + "\n")
    return report


def _inside(trace: list[str]) -> str:
    """Return the innermost file of ours that an error went through, or the innermost file of all."""
    ours = [path for path in trace if "/certified/" in path]
    if ours:
        return "certified/" + ours[-1].rpartition("/certified/")[2]
    return (trace or [""])[-1].rpartition("/site-packages/")[2]
