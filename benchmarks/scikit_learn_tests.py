"""scikit-learn's own tests with the classes of this package: what passes, what differs by design, what is a fault.

``python benchmarks/scikit_learn_tests.py [MODULE ...] [--mode lenient] [--out FILE] [--small]``. Without modules all of
scikit-learn's test modules are run that name one of the classes; ``--small`` runs one. Each runs in a process of its
own with ``scikit_learn_swap.py``, which says what the modes are.

A test that fails is looked up in ``scikit_learn_differences.toml``: what differs by design stands there with the
reason, and on the page ``docs/explanation/scikit_learn.rst``, which ``--page`` writes from it. What is found nowhere
is counted as a bug where an error that is not ours came out of our code, else as undocumented.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIFFERENCES = HERE / "scikit_learn_differences.toml"
PAGE = HERE.parent / "docs" / "explanation" / "scikit_learn.rst"


def differences() -> list[dict[str, str]]:
    """Return what differs by design: patterns of tests, errors and messages, with reasons."""
    return list(tomllib.loads(DIFFERENCES.read_text())["difference"])


def kind_of(line: dict[str, Any], known: list[dict[str, str]]) -> str:
    """Return what a line of the result says: an outcome, the name of a difference, "bug" or "undocumented"."""
    if line["outcome"] != "failed":
        return str(line["outcome"])
    for entry in known:
        if (
            re.search(entry.get("tests", ""), line["test"])
            and re.search(rf"^({entry.get('error', '.*')})$", line["error"])
            and re.search(entry.get("message", ""), line["message"], re.DOTALL)
        ):
            return entry["name"]
    foreign = not line["refused"] and line["error"] not in ("AssertionError", "Failed")
    return "bug" if foreign and line["raised in"].startswith("certified/") else "undocumented"


def modules() -> list[str]:
    """Return scikit-learn's test modules that name a class of ours."""
    import sklearn

    sys.path.insert(0, str(HERE))
    import scikit_learn_swap

    names = re.compile(r"\b(" + "|".join(sorted({name for _, name in scikit_learn_swap.counterparts()})) + r")\b")
    root = Path(sklearn.__path__[0])
    found = []
    for path in sorted(root.rglob("tests/test_*.py")):
        if names.search(path.read_text()):
            found.append("sklearn." + ".".join(path.relative_to(root).with_suffix("").parts))
    return found


def run(module: str, mode: str) -> list[dict[str, Any]]:
    """Run a test module; return a line for each test."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result"
        result.touch()
        where = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
        given = {**os.environ, "SWAP_MODE": mode, "SWAP_RESULT": str(result), "PYTHONPATH": where}
        command = [sys.executable, "-m", "pytest", "-q", "-p", "scikit_learn_swap", "-p", "no:cacheprovider"]
        command += ["-c", os.devnull, "--rootdir", folder, "--tb=no", "-W", "ignore", "--pyargs", module]
        subprocess.run(command, env=given, capture_output=True, check=False, cwd=folder)
        lines = [json.loads(line) for line in result.read_text().splitlines()]
        return [{**line, "test": f"{module}::{line['test'].rpartition('::')[2]}"} for line in lines]


def literal(text: str) -> str:
    """Return text with code as reStructuredText has it."""
    return re.sub(r"`([^`]+)`", r"``\1``", text.strip())


def page() -> str:
    """Return the page of all deliberate differences."""
    lines = [
        "scikit-learn's tests, and where we differ",
        "=========================================",
        "",
        "Estimators have scikit-learn's names, parameters and defaults. Where one behaves otherwise on purpose, it",
        "stands here. The list is data (``benchmarks/scikit_learn_differences.toml``), by which",
        "``benchmarks/scikit_learn_tests.py`` sorts what comes of scikit-learn's own tests with our classes in them.",
        "An entry is as coarse as its patterns: it says why tests of a kind fail, not that each was looked into.",
        "",
    ]
    for entry in differences():
        lines += [entry["name"], "-" * len(entry["name"]), "", literal(entry["reason"]), ""]
        if "instead" in entry:
            lines += ["Instead: " + literal(entry["instead"]), ""]
    return "\n".join(lines)


def main() -> None:
    """Run, sort and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--mode", choices=["stock", "strict", "lenient"], default="lenient")
    parser.add_argument("--out", type=Path, help="write every test and what came of it, as JSON")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--page", action="store_true", help="write the page and run nothing")
    given = parser.parse_args()
    if given.page:
        PAGE.write_text(page())
        return
    chosen = given.modules or (["sklearn.ensemble.tests.test_iforest"] if given.small else modules())
    known, lines = differences(), []
    for module in chosen:
        found = run(module, given.mode)
        for line in found:
            line["kind"] = kind_of(line, known)
        lines += found
        counts = collections.Counter(line["outcome"] for line in found)
        print(
            f"{module:60} {counts['passed']:5} passed {counts['failed']:5} failed {counts['skipped']:5} skipped",
            flush=True,
        )
        if given.out is not None:
            given.out.write_text(json.dumps(lines, indent=1))
    kinds = collections.Counter(line["kind"] for line in lines)
    print(f"\n{sum(kinds.values())} tests, mode {given.mode}")
    for kind, count in kinds.most_common():
        print(f"{count:6}  {kind}")
    for line in lines:
        if line["kind"] in ("bug", "undocumented"):
            print(f"{line['kind']}: {line['test']}: {line['error']} in {line['raised in']}: {line['message'][:120]!r}")


if __name__ == "__main__":
    main()
