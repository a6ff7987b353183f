"""Bars for long work: shown where asked for, and nothing else changes."""

import io
import sys

import pytest
from rich.console import Console
from sklearn.datasets import load_diabetes

from certified.ensemble import RandomForestRegressor
from certified.linear_model import Ridge
from certified.model_selection import GridSearchCV
from certified.progress import progress, track


def screen():
    return Console(file=io.StringIO(), force_terminal=True, width=100)


def test_items_pass_through_with_and_without_bars():
    assert list(track(range(3), "steps")) == [0, 1, 2]
    with progress(screen()):
        assert list(track(iter("ab"), "letters", total=2)) == ["a", "b"]
        for _ in track(range(5), "steps"):
            break  # a bar that is left early goes away too


def test_a_search_shows_its_fits_and_finds_the_same():
    X, y = load_diabetes(return_X_y=True)
    silent = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3, key=7).fit(X, y)
    console = screen()
    with progress(console):
        shown = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3, key=7).fit(X, y)
        shown.delete([3])
        drawn = console.file.getvalue()
    assert "fits" in drawn
    assert "/6" in drawn
    assert "candidates" in drawn
    silent.delete([3])
    assert shown.state_digest_ == silent.state_digest_
    length = len(console.file.getvalue())
    GridSearchCV(Ridge(), {"alpha": [0.1]}, cv=3).fit(X, y)
    assert len(console.file.getvalue()) == length  # outside the block nothing is drawn


def test_a_forest_shows_its_trees_and_is_the_same():
    X, y = load_diabetes(return_X_y=True)
    silent = RandomForestRegressor(6, max_depth=4, key=0).fit(X, y)
    for threads in (1, 2):
        console = screen()
        with progress(console):
            shown = RandomForestRegressor(6, max_depth=4, n_jobs=threads, key=0).fit(X, y)
        assert "trees" in console.file.getvalue()
        assert shown.state_digest_ == silent.state_digest_


def test_a_forest_inside_a_search_shows_its_trees_in_threads_too():
    X, y = load_diabetes(return_X_y=True)
    console = screen()
    with progress(console):
        GridSearchCV(RandomForestRegressor(6, key=0), {"max_depth": [2, 3]}, cv=2, n_jobs=2, refit=False).fit(X, y)
    assert "fits" in console.file.getvalue()
    assert "trees" in console.file.getvalue()


def test_an_error_inside_takes_the_bars_away():
    console = screen()

    def fails():
        with progress(console):
            for _ in track(range(3), "steps"):
                raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        fails()
    list(track(range(3), "later"))
    assert "later" not in console.file.getvalue()


def test_without_rich_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    with pytest.raises(ImportError, match="certified-unlearning\\[cli\\]"), progress():
        pass
