"""Encoders do what scikit-learn's do where something is missing, and back again."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import OneHotEncoder as PlainOneHot
from sklearn.preprocessing import OrdinalEncoder as PlainOrdinal

from certified.errors import InvalidInput
from certified.preprocessing import OneHotEncoder, OrdinalEncoder

FRAME = pd.DataFrame({"job": ["a", "b", np.nan, "a"], "kids": [1.0, np.nan, 2.0, 1.0]}, dtype=object).astype(
    {"kids": float}
)


@pytest.mark.parametrize("drop", [["a", np.nan], [np.nan, 1.0], [np.nan, np.nan], "first", None], ids=str)
def test_a_missing_value_can_be_the_category_that_is_dropped(drop):
    ours = OneHotEncoder(drop=drop).fit(FRAME)
    plain = PlainOneHot(drop=drop, sparse_output=False).fit(FRAME)
    np.testing.assert_array_equal(ours.transform(FRAME), plain.transform(FRAME))
    np.testing.assert_array_equal(ours.release().transform(FRAME), plain.transform(FRAME))
    assert ours.get_feature_names_out().tolist() == plain.get_feature_names_out().tolist()


@pytest.mark.parametrize("value", [0, 1])
def test_a_number_of_a_category_cannot_stand_for_missing_values(value):
    with pytest.raises(InvalidInput, match="is the number of a category"):
        OrdinalEncoder(encoded_missing_value=value).fit(FRAME)
    with pytest.raises(ValueError, match="already used"):
        PlainOrdinal(encoded_missing_value=value).fit(FRAME)
    full = FRAME.dropna()
    np.testing.assert_array_equal(
        OrdinalEncoder(encoded_missing_value=value).fit_transform(full),
        PlainOrdinal(encoded_missing_value=value).fit_transform(full),
    )


@pytest.mark.parametrize(
    ("ours", "plain"),
    [
        (OneHotEncoder(), PlainOneHot(sparse_output=False)),
        (OneHotEncoder(drop="first", sparse_output=True), PlainOneHot(drop="first")),
        (OrdinalEncoder(encoded_missing_value=-1), PlainOrdinal(encoded_missing_value=-1)),
        (OneHotEncoder(min_frequency=2), PlainOneHot(min_frequency=2, sparse_output=False)),
    ],
    ids=["one-hot", "sparse, dropped", "ordinal", "infrequent"],
)
def test_encoded_rows_are_read_back(ours, plain):
    want = plain.inverse_transform(plain.fit_transform(FRAME))
    got = ours.inverse_transform(ours.fit(FRAME).transform(FRAME))
    assert pd.DataFrame(got).equals(pd.DataFrame(want))
