"""Naive Bayes on sparse counts: the bits of the dense ones through deletions, and scikit-learn's answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn import naive_bayes as plain
from sklearn.feature_extraction.text import CountVectorizer

from certified.errors import InvalidInput
from certified.naive_bayes import BernoulliNB, MultinomialNB
from certified.pipeline import make_pipeline
from certified.preprocessing import OneHotEncoder

N, P = 80, 12
CONTAINERS = [sparse.csr_array, sparse.csr_matrix, sparse.csc_array, sparse.coo_array]
PAIRS = [
    (lambda: MultinomialNB(alpha=0.5), plain.MultinomialNB(alpha=0.5)),
    (lambda: BernoulliNB(), plain.BernoulliNB()),
    (lambda: BernoulliNB(binarize=1.0), plain.BernoulliNB(binarize=1.0)),
]


def counts(seed, share=0.3):
    rng = np.random.default_rng(seed)
    X = rng.poisson(share, (N, P)) * rng.choice([1.0, 0.5, 3.25], (N, P))
    return X, np.array(["no", "maybe", "yes"])[np.append([0, 1, 2], rng.integers(0, 3, N - 3))], rng


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    pair=st.sampled_from(PAIRS),
    container=st.sampled_from(CONTAINERS),
    share=st.sampled_from([0.0, 0.05, 0.5]),
    weighted=st.booleans(),
)
def test_sparse_counts_are_the_dense_ones(seed, pair, container, share, weighted):
    make, peer = pair
    X, y, rng = counts(seed, share)
    weight = rng.uniform(0.5, 2.0, N) if weighted else None
    ids, gone = np.arange(N), rng.permutation(np.arange(3, N))[:9]
    given = container(X)
    ours, dense = make().fit(given, y, ids=ids, sample_weight=weight), make().fit(X, y, ids=ids, sample_weight=weight)
    assert ours.state_digest_ == dense.state_digest_
    assert np.array_equal(given.toarray(), X), "what was given stays as it was"
    ours.delete(gone[:1]), ours.delete(gone[1:])
    left = np.setdiff1d(ids, gone)
    refit = make().fit(X[left], y[left], ids=left, sample_weight=None if weight is None else weight[left])
    assert ours.state_digest_ == refit.state_digest_
    assert np.array_equal(ours.predict_proba(container(X)), refit.predict_proba(container(X)))
    assert not ours._table.x[gone].count_nonzero(), "the rows are gone"
    peer.fit(container(X[left]), y[left], sample_weight=None if weight is None else weight[left])
    assert np.allclose(ours.predict_proba(X), peer.predict_proba(X), rtol=1e-9, atol=1e-12)
    assert np.array_equal(ours.release().predict_proba(given), ours.predict_proba(given))


@pytest.mark.parametrize("make", [make for make, _ in PAIRS])
def test_sparse_rows_are_added_to_either(make):
    X, y, _ = counts(5)
    whole = make().fit(X, y, ids=np.arange(N)).state_digest_
    grown = make().fit(sparse.csr_array(X[:50]), y[:50], ids=np.arange(50))
    grown.add(sparse.csr_array(X[50:]), y[50:], ids=np.arange(50, N))
    assert grown.state_digest_ == whole


def test_documents_and_categories_stay_sparse_on_their_way():
    words = np.array(["tax", "rent", "rain", "sun", "vote"])
    rng = np.random.default_rng(1)
    town, y = rng.integers(0, 40, N).astype(str).astype(object)[:, None], np.arange(N) % 2
    model = make_pipeline(OneHotEncoder(sparse_output=True, handle_unknown="ignore"), BernoulliNB())
    model.fit(town, y, ids=np.arange(N)).delete([3, 8])
    left = np.setdiff1d(np.arange(N), [3, 8])
    refit = make_pipeline(OneHotEncoder(handle_unknown="ignore"), BernoulliNB()).fit(town[left], y[left], ids=left)
    assert np.array_equal(model.predict_proba(town), refit.predict_proba(town))
    texts = [" ".join(rng.choice(words, 4)) for _ in range(N)]
    table = CountVectorizer(vocabulary=words.tolist()).transform(texts)
    found = MultinomialNB().fit(table, y, ids=np.arange(N)).predict_proba(table)
    assert np.allclose(found, plain.MultinomialNB().fit(table, y).predict_proba(table), rtol=1e-10)


@pytest.mark.parametrize(
    ("model", "value", "said"),
    [
        (MultinomialNB(), -1.0, "Negative values"),
        (MultinomialNB(), np.nan, "NaN"),
        (BernoulliNB(binarize=None), 2.0, "binarize"),
        (BernoulliNB(binarize=-0.5), 1.0, "toarray"),
    ],
)
def test_sparse_values_that_cannot_be_counted_are_refused(model, value, said):
    X, y, _ = counts(2)
    X[X != 0] = 1.0
    X[4, 2] = value
    with pytest.raises((InvalidInput, ValueError), match=said):
        model.fit(sparse.csr_array(X), y, ids=np.arange(N))
    assert not hasattr(model, "state_digest_")
