"""The tree of RFC 6962 against its published roots, and against its definition written out."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certified.ledger import verify_consistency, verify_inclusion
from certified.ledger._merkle import EMPTY, Edge, Tree, leaf_hash, node_hash

LEAVES = [
    bytes.fromhex(x)
    for x in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (  # of the first 1 to 8 leaves: the test vectors of Certificate Transparency
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def defined_root(entries):
    """The root as section 2.1 of the RFC defines it."""
    n = len(entries)
    if n == 0:
        return hashlib.sha256().digest()
    if n == 1:
        return hashlib.sha256(b"\0" + entries[0]).digest()
    k = 1
    while 2 * k < n:
        k *= 2
    return hashlib.sha256(b"\1" + defined_root(entries[:k]) + defined_root(entries[k:])).digest()


@pytest.mark.parametrize("n", range(1, 9))
def test_roots_are_the_published_ones(n):
    hashes = [leaf_hash(x) for x in LEAVES[:n]]
    edge = Edge()
    for x in hashes:
        edge = edge.append(x)
    assert Tree(hashes).root().hex() == edge.root.hex() == ROOTS[n - 1]


@given(st.integers(0, 70))
def test_edge_and_tree_have_the_root_of_the_definition(n):
    entries = [str(i).encode() for i in range(n)]
    edge = Edge()
    for entry in entries:
        edge = edge.append(leaf_hash(entry))
    assert Tree(map(leaf_hash, entries)).root() == edge.root == defined_root(entries)
    assert Edge.from_bytes(n, edge.to_bytes()) == edge


def test_every_proof_verifies_and_none_for_another_place_size_or_root():
    entries = [str(i).encode() for i in range(38)]
    tree = Tree(map(leaf_hash, entries))
    for size in range(1, len(entries) + 1):
        root = tree.root(size)
        for index in range(size):
            proof = tree.inclusion(index, size)
            leaf = leaf_hash(entries[index])
            assert verify_inclusion(leaf, index, size, proof, root)
            assert not verify_inclusion(leaf, index + 1, size, proof, root)
            assert not verify_inclusion(leaf_hash(b"another"), index, size, proof, root)
            assert not verify_inclusion(leaf, index, size, proof, node_hash(root, root))
            assert not verify_inclusion(leaf, index, size, [*proof, root], root)
            assert not proof or not verify_inclusion(leaf, index, size, proof[:-1], root)


def test_every_older_tree_is_shown_to_be_the_beginning_and_no_other_tree_is():
    entries = [str(i).encode() for i in range(38)]
    tree = Tree(map(leaf_hash, entries))
    for new in range(1, len(entries) + 1):
        assert verify_consistency(0, EMPTY, new, tree.root(new), ())
        for old in range(1, new + 1):
            proof = tree.consistency(old, new)
            assert verify_consistency(old, tree.root(old), new, tree.root(new), proof)
            forked = Tree([*map(leaf_hash, entries[: old - 1]), leaf_hash(b"another")])
            assert not verify_consistency(old, forked.root(), new, tree.root(new), proof)
            assert not verify_consistency(old, tree.root(old), new, leaf_hash(b"another"), proof)
            assert not verify_consistency(old, tree.root(old), new, tree.root(new), [*proof, EMPTY])
            assert not proof or not verify_consistency(old, tree.root(old), new, tree.root(new), proof[:-1])


@given(st.data())
def test_a_proof_with_any_bit_changed_does_not_verify(data):
    size = data.draw(st.integers(2, 60))
    tree = Tree(leaf_hash(str(i).encode()) for i in range(size))
    index = data.draw(st.integers(0, size - 1))
    proof = list(tree.inclusion(index))
    which = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    proof[which] = (int.from_bytes(proof[which]) ^ (1 << bit)).to_bytes(32)
    assert not verify_inclusion(leaf_hash(str(index).encode()), index, size, proof, tree.root())


def test_places_and_sizes_that_do_not_exist_are_refused():
    tree = Tree([leaf_hash(b"a")])
    with pytest.raises(IndexError, match="no leaf 1"):
        tree.inclusion(1)
    with pytest.raises(IndexError, match="no proof from 0"):
        tree.consistency(0)
    with pytest.raises(IndexError, match="no tree of 2"):
        tree.root(2)
    with pytest.raises(ValueError, match="no edge of a tree"):
        Edge.from_bytes(3, b"")
