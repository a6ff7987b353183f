"""The keyed hash is SipHash-2-4, and a sample by hash depends on the set of ids alone."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified._data.hashing import bottom_k, subject_hash

KEY = int.from_bytes(bytes(range(16)), "little")
keys = st.integers(0, 2**128 - 1)
id_sets = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30, unique=True),
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6), min_size=1,
             max_size=30, unique=True),
)  # fmt: skip


def _siphash(word, key):
    """SipHash-2-4 of eight bytes with Python integers: an implementation apart from the package's."""
    mask = 2**64 - 1
    k0, k1 = key & mask, key >> 64
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(a, b):
        return ((a << b) | (a >> (64 - b))) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    for message in (word & mask, 8 << 56):
        v[3] ^= message
        rounds(2)
        v[0] ^= message
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def test_official_vector_of_siphash():
    message = int.from_bytes(bytes(range(8)), "little")
    assert int(subject_hash([message], KEY)[0]) == 0x93F5F5799A932462


@given(ids=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), key=keys)
def test_integers_are_hashed_by_siphash(ids, key):
    assert subject_hash(np.array(ids, dtype=np.int64), key).tolist() == [_siphash(i, key) for i in ids]


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.int64])
def test_width_of_the_integer_type_does_not_matter(dtype):
    ids = np.array([0, 1, 17, 100], dtype=dtype)
    assert np.array_equal(subject_hash(ids, 5), subject_hash(ids.astype(np.int64), 5))


def test_text_is_hashed_by_keyed_blake2b():
    ids = ["", "a", "müller", "a" * 500]
    raw = KEY.to_bytes(16, "little")
    expected = [int.from_bytes(hashlib.blake2b(i.encode(), digest_size=8, key=raw).digest(), "little") for i in ids]
    assert subject_hash(ids, KEY).tolist() == expected


def test_hash_leaves_its_input_alone():
    ids = np.arange(5)
    subject_hash(ids, 3)
    assert np.array_equal(ids, np.arange(5))


def test_other_keys_give_other_hashes():
    assert not np.any(subject_hash(range(100), 1) == subject_hash(range(100), 2))


@pytest.mark.parametrize("key", [-1, 2**128])
def test_key_outside_128_bits_is_refused(key):
    with pytest.raises(ValueError, match="A key has 128 bits"):
        subject_hash([1], key)


@given(ids=id_sets, k=st.integers(1, 35), key=keys, repeats=st.integers(1, 3))
def test_the_sample_holds_the_k_subjects_of_smallest_hash_with_all_their_rows(ids, k, key, repeats):
    hashes = subject_hash(ids, key)
    cut = bottom_k(np.tile(hashes, repeats)[::-1], k)
    assert cut.dtype == np.uint64
    assert np.array_equal(np.sort(hashes[hashes <= cut]), np.sort(hashes)[:k])


@given(ids=id_sets, k=st.integers(1, 10), key=keys, draw=st.data())
def test_deleting_subjects_outside_the_sample_leaves_the_cut(ids, k, key, draw):
    hashes = subject_hash(ids, key)
    cut = bottom_k(hashes, k)
    outside = np.flatnonzero(hashes > cut).tolist()
    gone = draw.draw(st.sets(st.sampled_from(outside))) if outside else set()
    assert bottom_k(np.delete(hashes, list(gone)), k) == cut
    assert bottom_k(hashes[hashes <= cut], k) == cut  # exactly k subjects are left


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 60), repeats=st.integers(1, 8), k=st.integers(1, 20))
def test_the_cut_is_the_kth_smallest_distinct_hash(seed, n, repeats, k):
    rng = np.random.default_rng(seed)
    hashes = rng.permutation(np.repeat(rng.integers(0, 2**64, n, dtype=np.uint64), rng.integers(1, repeats + 1, n)))
    distinct = sorted(set(hashes.tolist()))
    assert int(bottom_k(hashes, k)) == (distinct[k - 1] if len(distinct) >= k else 2**64 - 1)
