"""The vault: requests, deletions, releases and documents, and what is left of a subject afterwards."""

import json
import shutil
import sqlite3
import stat

import numpy as np
import pytest

pytest.importorskip("cryptography")

from certified.errors import InvalidInput, InvalidRequest, NewerFormat, NotVerified, StorageFailed
from certified.ledger import LogProof, SigningKey, VerifyingKey, commit
from certified.linear_model import LogisticRegression, Ridge
from certified.naive_bayes import GaussianNB
from certified.pipeline import make_pipeline
from certified.preprocessing import StandardScaler
from certified.report import open_document
from certified.vault import Vault

N = 300
RNG = np.random.default_rng(11)
X = RNG.standard_normal((N, 4))
Y = (X[:, 0] + RNG.standard_normal(N) > 0) * 1
IDS = np.array([f"CLIENT-{RNG.integers(10**12):012d}" for _ in range(N)])


@pytest.fixture
def vault(tmp_path):
    with Vault.create(
        tmp_path / "v", Ridge().fit(X, Y, ids=IDS), name="Score", version="3", origin="bank.example/s"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def logistic():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y, ids=IDS)


def kinds(vault):
    return [entry["kind"] for entry in vault.ledger]


def test_a_request_is_recorded_carried_out_and_forgotten(vault):
    asked = vault.request(IDS[[3, 3, 7]], key="2026-17", received="2026-01-31T10:00:00Z", actor="officer")
    assert (asked.status, asked.due, asked.overdue) == ("queued", "2026-02-28T10:00:00Z", True)
    assert vault.status()["overdue"] == ["2026-17"]
    done = vault.process()
    assert (done.subjects, done.rows, done.sealed, done.generation) == (2, 2, True, 2)
    found = vault.find("2026-17")
    assert (found.status, found.subjects, found.rows, found.absent, found.overdue) == ("erased", 2, 2, 0, False)
    assert kinds(vault) == ["created", "requested", "removed", "erased"]
    assert vault.verify(replay=True), str(vault.verify())
    assert vault.model.n_rows_ == N - 2
    assert not vault.trace(IDS[[3, 7]], X[[3, 7]])
    assert vault.trace(IDS[[4]], X[[4]]), "the search finds what is there"
    assert not vault.process()


def test_the_model_of_the_vault_is_the_model_that_deletes_in_memory(vault):
    other = Ridge().fit(X, Y, ids=IDS)
    for key, rows in (("a", [5]), ("b", [6, 7, 8]), ("c", list(range(100, 150)))):
        vault.request(IDS[rows], key=key)
        vault.process()
        other.delete(IDS[rows])
        assert vault.model.state_digest_ == other.state_digest_
    with Vault.open(vault.path) as again:
        assert again.model.state_digest_ == other.state_digest_


def test_the_same_key_is_the_same_request(vault):
    first = vault.request(IDS[[3]], key="a")
    assert vault.request(IDS[[3]], key="a") == first
    with pytest.raises(InvalidRequest, match="other ids than before"):
        vault.request(IDS[[4]], key="a")
    vault.process()
    assert vault.request(IDS[[3]], key="a").status == "erased"
    assert kinds(vault).count("requested") == 1
    assert vault.process().subjects == 0


def test_ids_that_are_not_held_are_counted_or_refused(vault):
    vault.request([IDS[1], "nobody", "no one"], key="ignore")
    vault.request([IDS[2], "nobody"], key="raise", missing="raise")
    vault.request([17, 18], key="numbers")
    done = {request.key: request for request in vault.process().requests}
    assert (done["ignore"].status, done["ignore"].subjects, done["ignore"].absent) == ("erased", 1, 2)
    assert (done["raise"].status, done["raise"].reason) == ("refused", "1 of its ids are not held.")
    assert (done["numbers"].status, done["numbers"].subjects, done["numbers"].absent) == ("erased", 0, 2)
    assert vault.verify()
    assert vault.model.n_rows_ == N - 1


def test_two_requests_for_one_subject_delete_it_once(vault):
    vault.request(IDS[[1, 2]], key="a")
    vault.request(IDS[[2, 3]], key="b")
    done = vault.process()
    assert [request.subjects for request in done.requests] == [2, 1]
    assert done.rows == 3
    assert vault.verify()


def test_a_request_that_cannot_go_does_not_keep_the_others_from_going(vault):
    vault.request(IDS[[1]], key="good")
    vault.request(IDS, key="everybody")
    done = {request.key: request.status for request in vault.process().requests}
    assert done == {"good": "erased", "everybody": "refused"}
    assert vault.model.n_rows_ == N - 1
    assert vault.verify()


def test_a_legal_hold_keeps_data_until_it_ends(vault):
    vault.hold(IDS[[5]], "lawsuit 17/26")
    vault.request(IDS[[5, 6]], key="a")
    done = vault.process()
    assert (done.requests, vault.find("a").status, vault.find("a").reason) == ((), "held", "lawsuit 17/26")
    assert vault.plan(IDS[[5]])["held"] == ["lawsuit 17/26"]
    vault.unhold(IDS[[5]])
    assert vault.process().subjects == 2
    assert "held" in kinds(vault)
    assert vault.verify()


def test_a_deleted_subject_comes_back_only_if_that_is_said(vault):
    vault.request(IDS[[5]], key="a")
    vault.process()
    new = np.array([[1.0, 2.0, 3.0, 4.0]])
    with pytest.raises(InvalidRequest, match="1 subjects that were deleted before"):
        vault.add(new, [1], ids=[IDS[5]])
    vault.add(new, [1], ids=[IDS[5]], readmit=True)
    vault.add(new, [1], ids=["somebody-new"])
    assert vault.model.n_rows_ == N + 1
    assert vault.verify(replay=True)
    vault.request(["somebody-new", IDS[5]], key="b")
    assert vault.process().rows == 2
    assert not vault.trace(["somebody-new", IDS[5]], new)
    other = Ridge().fit(X, Y, ids=IDS)
    other.delete(IDS[[5]])
    assert vault.model.state_digest_ == other.state_digest_


def test_a_return_that_fails_leaves_the_subject_excluded(vault, monkeypatch):
    """Exclusion and rows change together: between the two, a crash would have let the subject in unasked."""
    vault.request(IDS[[5]], key="a")
    vault.process()
    new, entries = np.array([[1.0, 2.0, 3.0, 4.0]]), len(kinds(vault))
    honest = type(vault.ledger).append

    def failing(self, kind, **fields):
        if kind == "added":
            raise OSError("no space")
        return honest(self, kind, **fields)

    with monkeypatch.context() as patch:
        patch.setattr(type(vault.ledger), "append", failing)
        with pytest.raises(OSError, match="no space"):
            vault.add(new, [1], ids=[IDS[5]], readmit=True)
    vault.close()
    with Vault.open(vault.path) as again:
        assert len(kinds(again)) == entries
        assert again.model.n_rows_ == N - 1
        with pytest.raises(InvalidRequest, match="deleted before"):
            again.add(new, [1], ids=[IDS[5]])
        assert again.verify()


def test_a_plan_changes_nothing(vault):
    before = vault.status()
    told = vault.plan([IDS[1], IDS[2], "nobody"])
    assert (told["subjects"], told["rows"], told["absent"], told["refused"]) == (2, 2, 1, "")
    assert "iscard the model" in vault.plan(IDS)["refused"]
    assert vault.status() == before
    assert vault.verify()


def test_a_release_is_logged_before_it_leaves_and_the_same_draw_is_served_again(tmp_path, logistic):
    with Vault.create(tmp_path / "v", logistic, origin="bank.example/l") as vault:
        out = vault.release(["scoring service"])
        assert vault.verify()
        assert sorted(path.name for path in out.folder.iterdir()) == sorted(
            [
                "log.vkey",
                "release.pkl",
                *(f"public.{end}" for end in ("dsse.json", "entry.json", "tlog-proof", "html", "md")),
            ]
        )
        again = vault.release()
        assert np.array_equal(again.model[-1].coef_, out.model[-1].coef_)
        with Vault.open(vault.path) as other:
            assert np.array_equal(other.model.release()[-1].coef_, out.model[-1].coef_)
        vault.request(IDS[[1]], key="a")
        vault.process()
        third = vault.release()
        assert not np.array_equal(third.model[-1].coef_, out.model[-1].coef_)
        signed = vault.document("public", release=out.n)
        opened = open_document(signed.text, vault.keys, {"release.pkl": out.folder / "release.pkl"})
        assert opened.document.predicate["lineage"]["release"] == out.digest
        latest = vault.document("public", release=third.n).document.predicate
        assert latest["lineage"]["parentRelease"] == again.digest
        vault.told(third.n, "partner bank")
        (out.folder / "release.pkl").write_bytes(b"other")
        assert "another one than was logged" in str(vault.verify())


def test_documents_are_signed_proved_and_name_no_subject(vault):
    vault.request(IDS[[5, 6]], key="a", actor="officer")
    vault.process()
    signed = vault.document("controller", request="a")
    trusted = VerifyingKey.parse(vault.keys[0].vkey)
    opened = open_document(signed.text, [trusted])
    assert json.loads(signed.entry)["certificate"] == opened.digest
    assert LogProof.parse(str(signed.proof)).verify(signed.entry, [trusted]).size == len(vault.ledger)
    assert opened.document.predicate["deletion"]["nRows"] == 2
    assert opened.document.predicate["erasure"]["keeper"] == "nothing"
    everything = "".join(signed.files().values())
    assert not any(code in everything for code in IDS[[5, 6]])


def test_a_receipt_proves_that_it_is_about_the_subject_and_is_handed_out_once(vault):
    vault.request(IDS[[5, 6]], key="a")
    vault.process()
    receipts = vault.hand_out("a")
    assert len(receipts) == 2
    logged = next(entry for entry in vault.ledger if entry["kind"] == "requested")["subjects"]
    for receipt, subject in zip(receipts, IDS[[5, 6]], strict=True):
        about = receipt.document.predicate["subject"]
        assert commit(subject, bytes.fromhex(about["salt"])).digest.hex() == about["commitment"]
        assert about["commitment"] in logged
    salt = about["salt"]
    with pytest.raises(InvalidRequest, match="handed out once"):
        vault.hand_out("a")
    vault.close()
    files = b"".join(path.read_bytes() for path in vault.path.rglob("*") if path.is_file())
    assert salt.encode() not in files
    assert bytes.fromhex(salt) not in files


def test_without_sealing_the_certificate_says_so_until_it_is_done(tmp_path, logistic):
    with Vault.create(tmp_path / "v", logistic) as vault:
        vault.request(IDS[[5]], key="a")
        assert not vault.process(seal=False).sealed
        told = vault.document("controller", request="a").document.predicate["erasure"]
        assert "until the vault is sealed" in told["keeper"]
        assert vault.seal()
        assert vault.status()["sealed"]
        assert not vault.seal()
        assert kinds(vault)[-1] == "sealed"
        assert vault.verify(replay=True)


def test_a_rollback_to_an_older_copy_is_refused(vault, tmp_path):
    shutil.copytree(vault.path, tmp_path / "copy")
    vault.request(IDS[[5]], key="a")
    vault.process()
    head = str(vault.ledger.checkpoint())
    with Vault.open(tmp_path / "copy") as old:
        assert old.verify()
        assert "cut off or rolled back" in str(old.verify(against=head))
    with pytest.raises(StorageFailed, match="rolled back"):
        Vault.open(tmp_path / "copy", against=head)
    Vault.open(vault.path, against=head).close()


@pytest.mark.parametrize("what", ["row", "state", "superfluous", "missing", "ids", "status", "document"])
def test_what_was_tampered_with_is_found(vault, what):
    vault.request(IDS[[5]], key="a")
    vault.process()
    generation = vault.status()["generation"]
    db, path = vault.db, vault.path
    state = path / "state" / f"{generation:08d}.state"
    rows = sorted((path / "rows").iterdir())
    if what == "row":
        keeper = vault.keeper()
        name, part = next((n, p) for n, p in keeper.parts.items() if p.array.ndim == 2)
        with open(path / "rows" / name, "r+b") as file:
            file.seek(4096 + 5 * part.row_bytes)
            file.write(b"\1")
    elif what == "state":
        data = bytearray(state.read_bytes())
        data[len(data) // 2] ^= 1
        state.write_bytes(data)
    elif what == "superfluous":
        (path / "state" / "00000001.state").write_bytes(b"old")
    elif what == "missing":
        rows[0].rename(path / "elsewhere")
    elif what == "ids":
        db.execute("update request set ids = '[1]'")
    elif what == "status":
        db.execute("update request set status = 'queued'")
    else:
        db.execute(
            "update document set body = (select body from document where kind = 'receipt') where kind = 'controller'"
        )
    vault._keeper = None
    assert not vault.verify()


def test_a_replay_finds_a_parameter_that_is_not_at_the_minimum(tmp_path, logistic):
    with Vault.create(tmp_path / "v", logistic) as vault:
        assert vault.verify(replay=True)
        head = vault.model[-1] if hasattr(vault.model, "__getitem__") else vault.model._final
        head._state.solution.w[0] += 1.0
        assert "from the minimum" in " ".join(vault.verify(replay=True).problems)


def test_settings_and_versions_are_checked_at_opening(vault):
    vault.close()
    db = sqlite3.connect(vault.path / "vault.db")
    db.execute("update vault set format = 2")
    db.commit()
    db.close()
    with pytest.raises(NewerFormat, match="has format 2"):
        Vault.open(vault.path)
    with pytest.raises(StorageFailed, match="there is no vault"):
        Vault.open(vault.path / "nowhere")


def test_what_cannot_be_a_vault_is_refused(tmp_path, vault):
    with pytest.raises(InvalidInput, match="not a fitted estimator"):
        Vault.create(tmp_path / "x", Ridge())
    with pytest.raises(StorageFailed, match="the path exists"):
        Vault.create(vault.path, Ridge().fit(X, Y, ids=IDS))
    with pytest.raises(InvalidRequest, match="at least one subject"):
        vault.request([], key="a")
    with pytest.raises(InvalidRequest, match="must not be empty"):
        vault.request(["a"], key="")
    assert not (tmp_path / "x").exists()


def test_moments_are_read_and_written_in_one_way(vault):
    asked = vault.request(IDS[[1]], key="a", received="2026-12-31T23:30:00+02:00", due="2027-01-05T00:00:00Z")
    assert (asked.received, asked.due) == ("2026-12-31T21:30:00Z", "2027-01-05T00:00:00Z")
    assert vault.request(IDS[[1]], key="b", received="2023-12-31T10:00:00Z").due == "2024-01-31T10:00:00Z"
    for wrong in ("0000-00-00T00:00:00Z", "yesterday", "2026-11-02", "9999-12-31T00:00:00Z"):
        for name in ("received", "due"):
            with pytest.raises(InvalidRequest, match="a moment with its time zone"):
                vault.request(IDS[[1]], key="c", **{name: wrong})
    assert len(vault.requests()) == 2


def test_a_key_of_ones_own_is_not_stored(tmp_path):
    key = SigningKey.generate("bank.example/own", "ecdsa-p256")
    Vault.create(tmp_path / "v", StandardScaler().fit(X, ids=IDS), origin="bank.example/own", key=key).close()
    assert not (tmp_path / "v" / "key.pem").exists()
    with Vault.open(tmp_path / "v") as vault:
        assert vault.verify()
        with pytest.raises(InvalidInput, match="without its key"):
            vault.request(IDS[[1]], key="a")
    with Vault.open(tmp_path / "v", key=key) as vault:
        vault.request(IDS[[1]], key="a")
        assert vault.process()
    with Vault.open(tmp_path / "v", read_only=True) as vault:
        assert vault.verify()
        proof, stranger = vault.ledger.proof(0), SigningKey.generate("bank.example/own").public
        with pytest.raises(NotVerified, match="none of the keys"):
            proof.verify(vault.ledger.body(0), [stranger])


def test_the_key_and_the_folders_are_for_their_owner_alone(vault):
    assert stat.S_IMODE((vault.path / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((vault.path / "rows").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        LogisticRegression(class_weight="balanced"),
        LogisticRegression(solver="newton-cg"),
        Ridge(),
        GaussianNB(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
    ids=["logistic", "balanced", "by products", "ridge", "naive bayes", "pipeline"],
)
def test_of_many_subjects_no_byte_stays_whatever_the_estimator(tmp_path, estimator):
    model = estimator.fit(X, Y, ids=IDS)
    gone = RNG.choice(N, 40, replace=False)
    with Vault.create(tmp_path / "v", model) as vault:
        for part in np.array_split(gone, 4):
            for row in part:
                vault.request(IDS[[row]], key=f"r{row}")
            assert vault.process().subjects == len(part)
        assert vault.verify(replay=True), str(vault.verify())
        assert vault.trace(IDS[gone], X[gone]) == {}
        assert vault.model.n_rows_ == N - len(gone)


def test_a_backup_comes_back_until_the_next_deletion(vault, tmp_path):
    vault.request(IDS[[1]], key="before")
    vault.process()
    key = vault.backup(tmp_path / "b")
    data = (tmp_path / "b").read_bytes()
    assert not any(code.encode() in data for code in IDS), "it is encrypted"
    with Vault.restore(tmp_path / "b", tmp_path / "again", key) as again:
        assert again.verify(replay=True)
        assert again.model.state_digest_ == vault.model.state_digest_
        assert kinds(again)[-2:] == ["restored", "verified"]
        again.request(IDS[[2]], key="later")
        assert again.process().rows == 1
        assert not again.trace(IDS[[1, 2]], X[[1, 2]])
    with pytest.raises(StorageFailed, match="the path exists"):
        Vault.restore(tmp_path / "b", tmp_path / "again", key)
    vault.request(IDS[[3]], key="after")
    vault.process()
    stored = vault.db.execute("select key from backup").fetchall()
    assert stored == [(None,)]
    vault.close()
    files = b"".join(path.read_bytes() for path in vault.path.rglob("*") if path.is_file())
    assert key not in files


def test_a_backup_that_was_changed_cut_off_or_is_older_than_a_known_head_is_refused(vault, tmp_path):
    key = vault.backup(tmp_path / "b")
    whole = (tmp_path / "b").read_bytes()
    for i, broken in enumerate((whole[:-1], whole[:2000], whole[:-50] + b"x" + whole[-49:], whole + b"more")):
        (tmp_path / "broken").write_bytes(broken)
        with pytest.raises((NotVerified, StorageFailed)):
            Vault.restore(tmp_path / "broken", tmp_path / f"r{i}", key)
        assert not (tmp_path / f"r{i}").exists()
    with pytest.raises(NotVerified, match="cannot be read with this key"):
        Vault.restore(tmp_path / "b", tmp_path / "r", bytes(32))
    vault.request(IDS[[3]], key="after")
    head = vault.ledger.checkpoint()
    with pytest.raises(StorageFailed, match="rolled back"):
        Vault.restore(tmp_path / "b", tmp_path / "r", key, against=head)
    assert not (tmp_path / "r").exists()


def test_of_a_sealed_keeper_no_algebra_gives_a_deleted_row_back(tmp_path):
    """Neither matrices nor vectors of the state, read in the coordinates of the rows, point to the row that went."""
    rng = np.random.default_rng(1)
    features = np.round(rng.standard_normal((2000, 20)) * 50) / 100
    target = (features[:, 1] + rng.standard_normal(2000) * 0.4 > 0) * 1
    with Vault.create(tmp_path / "v", LogisticRegression().fit(features, target, ids=np.arange(2000))) as vault:
        sealed = {}
        for seal, row in ((False, 7), (True, 1234)):
            vault.request([row], key=f"r{row}")
            vault.process(seal=seal)
            with Vault.open(vault.path) as again:
                sealed[seal] = _closest(again.model._state, np.append(features[row], 1.0))
    assert sealed[False] > 1 - 1e-6, "the attack works where the keeper is not sealed"
    assert sealed[True] < 0.99


def _closest(state, row):
    """Largest cosine between the row and any direction that the state gives away."""
    anchor = state.anchor
    factor = anchor.metric.inverse_factor
    directions = [np.linalg.solve(factor, anchor.g)] if np.any(anchor.g) else []
    change = anchor.metric.W
    if np.any(change):
        directions += [np.linalg.solve(factor, v) for v in np.linalg.eigh(change)[1].T[-3:]]
    cosines = [abs(d @ row) / np.linalg.norm(d) / np.linalg.norm(row) for d in directions if np.linalg.norm(d) > 0]
    return max(cosines, default=0.0)
