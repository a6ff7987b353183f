"""Frames of Dask are refused by name, with what to do, and nothing is fitted; what they compute is taken."""

import numpy as np
import pandas as pd
import pytest

from certified.ensemble import RandomForestClassifier
from certified.errors import InvalidInput
from certified.linear_model import LogisticRegression


@pytest.mark.parametrize("model", [LogisticRegression(noise=0.0), RandomForestClassifier(3, key=0)])
def test_a_lazy_frame_is_refused_and_its_rows_are_taken(model):
    frames = pytest.importorskip("dask.dataframe")
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=list("abc"))
    y = (rows.a > 0).to_numpy()
    lazy = frames.from_pandas(rows, npartitions=3)
    with pytest.raises(InvalidInput, match=r"lazy frame.*X\.compute\(\)"):
        model.fit(lazy, y)
    assert not hasattr(model, "classes_")
    assert model.fit(lazy.compute(), y).n_rows_ == 60
