"""The page of what differs from scikit-learn is what its data says."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def runner():
    path = ROOT / "benchmarks" / "scikit_learn_tests.py"
    spec = importlib.util.spec_from_file_location("scikit_learn_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_differences_is_written_from_the_data():
    module = runner()
    assert module.PAGE.read_text() == module.page()
    assert module.PAGE.stem in (ROOT / "docs" / "explanation" / "index.rst").read_text()


def test_every_difference_has_a_name_a_reason_and_patterns_that_can_be_read():
    entries = runner().differences()
    names = [entry["name"] for entry in entries]
    assert len(set(names)) == len(names) > 20
    for entry in entries:
        assert set(entry) <= {"name", "tests", "error", "message", "reason", "instead"}
        assert entry["reason"].strip().endswith(".")
        patterns = [entry[key] for key in ("tests", "error", "message") if key in entry]
        assert patterns
        for pattern in patterns:
            re.compile(pattern)


def test_what_fails_is_sorted_by_the_first_entry_that_fits():
    module = runner()
    known = [{"name": "first", "error": "InvalidInput", "message": "a b"}, {"name": "second", "tests": "test_x"}]
    line = {"outcome": "failed", "error": "InvalidInput", "message": "a b", "test": "m::test_x", "refused": True}
    line["raised in"] = "certified/base.py"
    assert module.kind_of({**line, "outcome": "passed"}, known) == "passed"
    assert module.kind_of(line, known) == "first"
    assert module.kind_of({**line, "message": "c"}, known) == "second"
    odd = {**line, "test": "m::test_y", "message": "c"}
    assert module.kind_of(odd, known) == "undocumented"
    assert module.kind_of({**odd, "error": "KeyError", "refused": False}, known) == "bug"
