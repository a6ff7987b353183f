"""Deletions from forests that are interrupted, or lack the memory to grow trees, are carried out all the same."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer

from certified._trees import forest
from certified.ensemble import RandomForestClassifier
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler


def interrupted(self):
    raise KeyboardInterrupt


def test_an_interrupted_deletion_is_carried_out_and_the_trees_grow_again(monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    X, y = np.tile(X, (4, 1)), np.tile(y, 4)  # so many rows that codes keep their map
    model = RandomForestClassifier(5, key=0).fit(X, y)
    with monkeypatch.context() as patch:
        patch.setattr(forest.Forest, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.delete([2000])
    assert 2000 not in model.ids_
    retained = np.arange(len(y)) != 2000
    assert (
        model.state_digest_
        == RandomForestClassifier(5, key=0).fit(X[retained], y[retained], ids=np.flatnonzero(retained)).state_digest_
    )


def test_an_interrupted_deletion_is_carried_out_in_a_pipeline(monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    X, y = np.tile(X, (4, 1)), np.tile(y, 4)
    recipe = make_pipeline(StandardScaler(), RandomForestClassifier(5, key=0))
    model, retained = clone(recipe).fit(X, y), np.arange(len(y)) != 2000
    with monkeypatch.context() as patch:
        patch.setattr(forest.Forest, "flush", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.delete([2000])
    assert (
        model.state_digest_ == clone(recipe).fit(X[retained], y[retained], ids=np.flatnonzero(retained)).state_digest_
    )


def test_a_deletion_without_the_memory_to_grow_trees_is_carried_out_and_they_grow_later(monkeypatch):
    X, y = load_breast_cancer(return_X_y=True)
    X, y = np.tile(X, (4, 1)), np.tile(y, 4)
    model, retained = RandomForestClassifier(5, key=0).fit(X, y), np.arange(len(y)) != 2000

    def full(self):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(forest.Forest, "flush", full)
        model.delete([2000])
    assert (
        model.state_digest_
        == RandomForestClassifier(5, key=0).fit(X[retained], y[retained], ids=np.flatnonzero(retained)).state_digest_
    )
