"""What the logger ``certified`` says: what was done, in counts; never who."""

import logging

import numpy as np

from certified.linear_model import LogisticRegression
from certified.progress import track


def fitted():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3))
    ids = np.array([f"person-{i}" for i in range(200)])
    return LogisticRegression().fit(X, (X[:, 0] > 0).astype(int), ids=ids)


def test_a_deletion_is_logged_in_counts_and_without_ids(caplog):
    model = fitted()
    with caplog.at_level(logging.INFO, logger="certified"):
        model.delete(["person-3", "person-5"])
    assert "LogisticRegression: delete 2 rows of 2 subjects" in caplog.text
    assert "person-" not in caplog.text


def test_a_deletion_that_needs_passes_says_so(caplog):
    model = fitted()
    with caplog.at_level(logging.INFO, logger="certified"):
        model.delete([f"person-{i}" for i in range(150)])
    assert "the bound without a pass is too wide" in caplog.text


def test_long_work_is_logged_when_it_starts_and_ends(caplog):
    with caplog.at_level(logging.INFO, logger="certified"):
        assert list(track([1, 2], "trees")) == [1, 2]
    assert [record.getMessage().partition(" in ")[0] for record in caplog.records] == ["trees: started", "trees: done"]


def test_nothing_is_shown_unless_asked(capfd):
    fitted().delete(["person-3"])
    assert capfd.readouterr() == ("", "")
