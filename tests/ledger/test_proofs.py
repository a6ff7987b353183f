"""What others can check of a log: proofs, witnesses, commitments, keys and signatures, exported tiles."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from certified.errors import InvalidInput, NotVerified
from certified.ledger import Checkpoint, Ledger, LogProof, SigningKey, VerifyingKey, Witness, commit

NAME = "bank.example/credit-default"


def test_a_proof_verifies_for_its_entry_and_for_no_other(ledger, key):
    ledger.extend([("x", {"i": i}) for i in range(11)])
    text = str(ledger.proof(5))
    proof = LogProof.parse(text)
    assert str(proof) == text
    assert proof.verify(ledger.body(5), [key.public]) == Checkpoint(NAME, 11, ledger.root)
    with pytest.raises(NotVerified, match="does not hold this entry"):
        proof.verify(ledger.body(6), [key.public])
    with pytest.raises(NotVerified, match="none of the keys"):
        proof.verify(ledger.body(5), [SigningKey.generate(NAME).public])
    with pytest.raises(NotVerified, match="0 of the given witnesses"):
        proof.verify(ledger.body(5), [key.public], quorum=1)


def test_no_bit_of_a_proof_can_be_changed(ledger, key):
    ledger.extend([("x", {"i": i}) for i in range(5)])
    raw = str(ledger.proof(2)).encode()
    body = ledger.body(2)
    for bit in range(8 * len(raw)):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << (bit % 8)
        try:
            text = flipped.decode()
        except UnicodeDecodeError:
            continue
        with pytest.raises(NotVerified):
            LogProof.parse(text).verify(body, [key.public])


def test_extra_data_of_a_proof_are_carried_and_not_trusted(ledger, key):
    ledger.append("x")
    proof = LogProof(0, (), ledger.checkpoint(), b"note")
    assert LogProof.parse(str(proof)) == proof
    proof.verify(ledger.body(0), [key.public])


@pytest.mark.parametrize(
    "text", ["", "x", "c2sp.org/tlog-proof@v1", "c2sp.org/tlog-proof@v1\nindex 01\n\nx\n0\nx\n\n— a b\n"]
)
def test_text_that_is_no_proof_is_told_so(text):
    with pytest.raises(NotVerified, match="expected"):
        LogProof.parse(text)


def test_a_witness_signs_what_continues_and_refuses_what_does_not(tmp_path, ledger, key):
    own = SigningKey.generate("auditor.example/w1", "witness")
    ledger.extend([("x", {"i": i}) for i in range(5)])
    first = Witness(tmp_path / "seen.json", own).cosign(ledger.checkpoint(), (), key.public)
    ledger.add_cosignature(str(first), own.public)
    ledger.append("y")
    witness = Witness(tmp_path / "seen.json", own)  # what it has seen is on disk
    assert witness.known(NAME)[0] == 5
    line = witness.cosign(ledger.checkpoint(), ledger.consistency(5), key.public)
    ledger.add_cosignature(str(line), own.public)
    head = ledger.proof(3).verify(ledger.body(3), [key.public], witnesses=[own.public], quorum=1)
    assert head.size == 6
    with pytest.raises(NotVerified, match="does not continue"):
        witness.cosign(ledger.checkpoint(5), (), key.public)
    with Ledger.create(tmp_path / "fork.db", NAME, key) as fork:
        fork.extend([("z", {"i": i}) for i in range(7)])
        with pytest.raises(NotVerified, match="does not continue"):
            witness.cosign(fork.checkpoint(), fork.consistency(6), key.public)
    with pytest.raises(NotVerified, match="not signed by"):
        witness.cosign(ledger.checkpoint(), (), SigningKey.generate(NAME).public)
    with pytest.raises(NotVerified, match="not by auditor"):
        ledger.add_cosignature(
            str(line).replace(NAME, NAME), SigningKey.generate("auditor.example/w2", "witness").public
        )


def test_the_cosignature_of_a_witness_is_that_of_the_specification(key):
    """The message is a header, the time, and the text of the note; the id of the key has the byte 4."""
    import hashlib

    own = SigningKey.generate("w.example", "witness")
    text = b"x.example\n1\nabc\n"
    value = own.sign_note(text, at=1679315147)
    assert int.from_bytes(value[:8]) == 1679315147
    as_plain = VerifyingKey("w.example", "ed25519", own.public.data)
    assert as_plain.verifies(value[8:], b"cosignature/v1\ntime 1679315147\n" + text)
    assert own.public.key_id == hashlib.sha256(b"w.example\n\x04" + own.public.data).digest()[:4]


def test_commitments_open_for_their_subject_until_the_salt_is_erased(tmp_path, key):
    ledger = Ledger.create(tmp_path / "log.db", NAME, key)
    with ledger.transaction():
        made = [ledger.commit_to(f"PATIENT-{i:06d}") for i in range(200)]
    assert made[3].opens("PATIENT-000003")
    assert not made[3].opens("PATIENT-000004")
    assert ledger.salt_of(made[3].digest) == made[3].salt
    assert commit(17) != commit(17)
    ledger.erase_salts(x.digest for x in made)
    assert ledger.salt_of(made[3].digest) is None
    ledger.close()
    data = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(x.salt in data for x in made)
    with pytest.raises(ValueError, match="a salt has 32"):
        commit("a", b"short")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_openssl_verifies_the_signature_of_a_head(tmp_path, algorithm):
    key = SigningKey.generate(NAME, algorithm)
    ledger = Ledger.create(tmp_path / "log.db", NAME, key)
    ledger.append("x")
    note = ledger.checkpoint()
    (tmp_path / "key.pem").write_text(key.public.pem)
    (tmp_path / "signature").write_bytes(note.signatures[0].value)
    for text, expected in ((note.text, True), (note.text + "x", False)):
        (tmp_path / "text").write_bytes(text.encode())
        how = ["-rawin"] if algorithm == "ed25519" else ["-rawin", "-digest", "sha256"]
        command = [
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            "key.pem",
            *how,
            "-in",
            "text",
            "-sigfile",
            "signature",
        ]
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (run.returncode == 0) == expected, run.stderr


def test_keys_come_back_from_text_and_files():
    for algorithm in ("ed25519", "ecdsa-p256", "witness"):
        key = SigningKey.generate("a.example/x", algorithm)
        assert VerifyingKey.parse(key.public.vkey) == key.public
        for password in (None, b"secret"):
            again = SigningKey.from_pem("a.example/x", key.to_pem(password), password, witness=algorithm == "witness")
            assert again.public == key.public
            assert key.public.verifies_note(again.sign_note(b"text\n"), b"text\n")
        assert key.public.pem.startswith("-----BEGIN PUBLIC KEY-----")
        assert len(key.public.fingerprint) == 64
    with pytest.raises(InvalidInput, match="cannot be read"):
        SigningKey.from_pem("a", key.to_pem(b"secret"), b"wrong")
    with pytest.raises(InvalidInput, match="neither spaces nor plus"):
        SigningKey.generate("a b")
    with pytest.raises(NotVerified, match="is no verifier key"):
        VerifyingKey.parse(key.public.vkey.replace("x", "y", 1))


def _tile(folder: Path, level: str, n: str, width: int) -> bytes:
    return (folder / "tile" / level / (n if width == 256 else f"{n}.p/{width}")).read_bytes()


def test_exported_tiles_hold_the_tree_and_the_entries(tmp_path, ledger, key):
    import hashlib

    ledger.extend([("x", {"i": i}) for i in range(600)])
    ledger.export_tiles(tmp_path / "tiles")
    folder = tmp_path / "tiles"
    leaves = _tile(folder, "0", "000", 256) + _tile(folder, "0", "001", 256) + _tile(folder, "0", "002", 88)
    assert leaves == b"".join(hashlib.sha256(b"\0" + ledger.body(i)).digest() for i in range(600))
    assert _tile(folder, "1", "000", 2) == ledger.tree().root(256) + ledger.tree().level(8)[1]
    bundle = _tile(folder, "entries", "002", 88)
    assert bundle[2 : 2 + int.from_bytes(bundle[:2])] == ledger.body(512)
    assert (folder / "checkpoint").read_text() == str(ledger.checkpoint())
