"""The log: what is appended stays, what is changed is found, what is proved others can check."""

import json
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

pytest.importorskip("cryptography")

from certified.errors import InvalidInput, Locked, NewerFormat, NotVerified, StorageFailed
from certified.ledger import Ledger, LogProof, Note, SigningKey
from certified.ledger._database import connect

NAME = "bank.example/credit-default"


def filled(path, key, n=9):
    ledger = Ledger.create(path, NAME, key)
    ledger.extend([("requested", {"request": f"r-{i}"}) for i in range(n)])
    ledger.append("removed", rows=3)
    return ledger


def test_importing_it_loads_no_numerics():
    code = "import json, sys, certified.ledger; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert (
        loaded & {"numpy", "scipy", "sklearn", "jax", "jaxlib", "polars", "narwhals", "opendp", "cryptography"} == set()
    )


def test_settings_that_a_power_cut_would_test_are_read_back(tmp_path):
    db = connect(tmp_path / "x.db", create=True)
    found = {
        name: db.execute(f"pragma {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")
    }
    assert found == {"journal_mode": "truncate", "synchronous": 2, "secure_delete": 1}


def test_a_database_that_refuses_a_setting_is_refused(tmp_path, monkeypatch):
    from certified.ledger import _database

    monkeypatch.setitem(_database._SETTINGS, "synchronous", ("FULL", 3))
    with pytest.raises(StorageFailed, match="synchronous=2"):
        connect(tmp_path / "x.db", create=True)


def test_a_database_of_another_program_and_one_of_a_later_version_are_refused(tmp_path, key):
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("create table t(x)")
    other.close()
    with pytest.raises(StorageFailed, match="another program"):
        Ledger.open(tmp_path / "other.db")
    with pytest.raises(StorageFailed, match="does not exist"):
        Ledger.open(tmp_path / "none.db")
    with pytest.raises(StorageFailed, match="exists already"):
        Ledger.create(tmp_path / "other.db", NAME, key)
    filled(tmp_path / "new.db", key).close()
    later = sqlite3.connect(tmp_path / "new.db")
    later.execute("pragma user_version=2")
    later.close()
    with pytest.raises(NewerFormat, match="has format 2"):
        Ledger.open(tmp_path / "new.db")


def test_entries_are_numbered_dated_and_come_back_as_they_were(ledger):
    places = ledger.extend([("requested", {"request": "a", "mu": 0.1}), ("requested", {"request": "b"})])
    assert list(places) == [0, 1]
    entry = ledger[0]
    assert (entry["seq"], entry["kind"], entry["request"], entry["mu"]) == (0, "requested", "a", "0.1")
    assert entry["at"].endswith("Z")
    assert [e["request"] for e in ledger] == ["a", "b"]
    with pytest.raises(IndexError, match="no entry 2"):
        ledger[2]


def test_one_head_is_signed_for_all_entries_of_a_transaction(ledger):
    with ledger.transaction():
        ledger.append("a")
        ledger.append("b")
    ledger.extend([("c", {}), ("d", {})])
    assert ledger.verify().heads == 2
    assert not ledger.extend([])


def test_nothing_of_a_transaction_that_fails_is_kept(ledger):
    ledger.append("a")
    with pytest.raises(InvalidInput, match="writes itself"):
        ledger.extend([("b", {}), ("c", {"seq": 7})])
    with pytest.raises(InvalidInput, match="at most 65535"):
        ledger.append("b", text="x" * 70_000)
    with pytest.raises(ZeroDivisionError), ledger.transaction():
        ledger.append("b", value=1 / 0 if len(ledger) == 1 else 0)
    assert len(ledger) == 1
    assert ledger.verify()
    with pytest.raises(InvalidInput, match="writes itself"), ledger.transaction():
        ledger.extend([("b", {}), ("b", {"tree": len(ledger.tree())}), ("c", {"at": ""})])
    ledger.extend([("d", {}), ("e", {}), ("f", {})])
    assert ledger.proof(2).verify(ledger.body(2), ledger.keys).size == 4
    with pytest.raises(InvalidInput, match="inside a transaction"), ledger.transaction():
        ledger.rotate(SigningKey.generate(NAME))


def test_a_log_without_its_key_is_read_only_and_another_key_is_refused(tmp_path, key):
    filled(tmp_path / "log.db", key).close()
    with Ledger.open(tmp_path / "log.db") as ledger:
        assert ledger.verify(keys=[key.public])
        with pytest.raises(InvalidInput, match="without its key"):
            ledger.append("x")
    with pytest.raises(InvalidInput, match="with its own key"):
        Ledger.open(tmp_path / "log.db", SigningKey.generate(NAME))
    with pytest.raises(InvalidInput, match="one name"):
        Ledger.create(tmp_path / "log2.db", "another.example", key)


def test_a_log_signed_by_a_key_that_is_not_trusted_does_not_verify(ledger):
    ledger.append("x")
    findings = ledger.verify(keys=[SigningKey.generate(NAME).public])
    assert not findings
    assert "not among the trusted keys" in str(findings)


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_keys_are_rotated_and_the_old_one_vouches_for_the_new(ledger, key, algorithm):
    ledger.append("a")
    new = SigningKey.generate(NAME, algorithm)
    ledger.rotate(new)
    ledger.append("b")
    assert ledger.keys == (key.public, new.public)
    assert ledger.verify(keys=[key.public])
    assert ledger.proof(0).verify(ledger.body(0), [new.public]).size == 3
    with pytest.raises(NotVerified, match="none of the keys"):
        ledger.proof(0).verify(ledger.body(0), [key.public])
    assert ledger.checkpoint(2).signers([key.public, new.public]) == (key.public, new.public)


def test_a_key_for_which_the_old_one_does_not_vouch_is_found(tmp_path, key):
    ledger = filled(tmp_path / "log.db", key)
    thief = SigningKey.generate(NAME)
    ledger.db.execute("insert into key(vkey, since) values(?, ?)", (thief.public.vkey, len(ledger)))
    ledger.key = thief
    ledger.append("x")
    assert "not those to which the entries" in str(ledger.verify())


def _edit(path, statement, *values):
    db = sqlite3.connect(path)
    for name in ("entry_stays", "entry_remains", "head_stays", "head_remains"):
        db.execute(f"drop trigger {name}")
    db.execute(statement, values)
    db.commit()
    db.close()


def test_the_database_itself_refuses_to_change_entries(ledger):
    ledger.append("x")
    for statement in (
        "delete from entry",
        "update entry set body = x'00'",
        "delete from head",
        "update head set size = 9",
    ):
        with pytest.raises(sqlite3.IntegrityError, match="cannot be"):
            ledger.db.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from entry where seq = 4",
        "delete from entry where seq = 9",
        "delete from entry where seq = 0",
        "update entry set seq = 99 where seq = 9",
        "update entry set body = (select body from entry where seq = 3) where seq = 4",
        "insert into entry select 10, body from entry where seq = 9",
        "delete from head where size = 10",
        "update head set root = (select root from head where size = 9) where size = 10",
        "update head set note = (select note from head where size = 9) where size = 10",
        "update edge set size = 9",
        "update edge set nodes = x'00'",
        "delete from key",
        "update log set origin = 'another.example'",
    ],
)
def test_every_entry_and_head_that_was_dropped_swapped_or_added_is_found(tmp_path, key, statement):
    filled(tmp_path / "log.db", key).close()
    _edit(tmp_path / "log.db", statement)
    with Ledger.open(tmp_path / "log.db") as ledger:
        assert not ledger.verify()


def test_two_entries_that_changed_places_are_found(tmp_path, key):
    filled(tmp_path / "log.db", key).close()
    other = "(select body from entry as o where o.seq = 5 - entry.seq)"
    _edit(tmp_path / "log.db", f"update entry set body = {other} where seq in (2, 3)")
    with Ledger.open(tmp_path / "log.db") as ledger:
        assert not ledger.verify()


def test_every_bit_of_an_entry_and_of_a_head_counts(tmp_path, key):
    """All bits of one entry's body, the root and the text of the head, one at a time."""
    ledger = filled(tmp_path / "log.db", key, n=3)
    ledger.db.execute("begin")  # never committed
    for name in ("entry_stays", "head_stays"):
        ledger.db.execute(f"drop trigger {name}")
    for table, column, place in (
        ("entry", "body", "seq = 1"),
        ("head", "root", "size = 4"),
        ("head", "note", "size = 4"),
    ):
        (whole,) = ledger.db.execute(f"select {column} from {table} where {place}").fetchone()
        raw = whole.encode() if isinstance(whole, str) else whole
        for bit in range(8 * len(raw)):
            flipped = (int.from_bytes(raw) ^ (1 << bit)).to_bytes(len(raw))
            try:
                value = flipped.decode() if isinstance(whole, str) else flipped
            except UnicodeDecodeError:
                continue  # no text
            ledger.db.execute(f"update {table} set {column} = ? where {place}", (value,))
            assert not ledger.verify(), (table, column, bit)
        ledger.db.execute(f"update {table} set {column} = ? where {place}", (whole,))
        assert ledger.verify()


def test_a_log_that_was_cut_off_or_forked_is_found_by_a_head_known_from_elsewhere(tmp_path, key):
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    ledger = filled(path, key)
    ledger.close()
    shutil.copy(path, copy)
    with Ledger.open(path, key) as ledger:
        ledger.append("removed")
        known = ledger.checkpoint()
    with Ledger.open(copy, key) as old:
        assert old.verify(), "an older copy is a good log, which is why a head must be known elsewhere"
        assert "cut off or rolled back" in str(old.verify(against=known))
        old.append("another history")
        assert "are others than" in str(old.verify(against=known))
    with Ledger.open(path) as ledger:
        assert ledger.verify(against=str(known))
        stranger = Note(known.text).sign(SigningKey.generate(NAME))
        assert "not signed by a key of this log" in str(ledger.verify(against=stranger))


def test_two_writers_get_places_of_their_own(tmp_path, key):
    Ledger.create(tmp_path / "log.db", NAME, key).close()

    def write():
        with Ledger.open(tmp_path / "log.db", key) as own:
            for _ in range(15):
                own.append("x")

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger.open(tmp_path / "log.db") as ledger:
        assert ledger.verify().size == 45


def test_a_database_held_by_another_is_told_so(tmp_path, key):
    Ledger.create(tmp_path / "log.db", NAME, key).close()
    holder, other = connect(tmp_path / "log.db"), Ledger(connect(tmp_path / "log.db", timeout=0.01), key)
    holder.execute("begin immediate")
    with pytest.raises(Locked, match="Another process holds"):
        other.append("x")
    holder.execute("rollback")
    other.append("x")


class AgainstAList(RuleBasedStateMachine):
    """A log does what a list does, and never forgets a head that it has signed."""

    @initialize()
    def start(self):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.key = SigningKey.generate(NAME)
        self.first = self.key.public
        self.ledger = Ledger.create(Path(self.folder.name) / "log.db", NAME, self.key)
        self.model: list[tuple[str, int]] = []
        self.heads: list[Note] = []

    @rule(values=st.lists(st.integers(0, 99), max_size=5))
    def extend(self, values):
        places = self.ledger.extend([("x", {"value": v}) for v in values])
        assert list(places) == list(range(len(self.model), len(self.model) + len(values)))
        self.model += [("x", v) for v in values]
        if values:
            self.heads.append(self.ledger.checkpoint())

    @rule()
    def fail(self):
        with pytest.raises(InvalidInput):
            self.ledger.extend([("x", {"value": 1}), ("x", {"v": 1})])

    @rule(algorithm=st.sampled_from(["ed25519", "ecdsa-p256"]))
    def rotate(self, algorithm):
        self.ledger.rotate(SigningKey.generate(NAME, algorithm))
        self.model.append(("key-rotated", -1))
        self.heads.append(self.ledger.checkpoint())

    @rule()
    def reopen(self):
        key = self.ledger.key
        self.ledger.close()
        self.ledger = Ledger.open(Path(self.folder.name) / "log.db", key)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def prove(self, data):
        index = data.draw(st.integers(0, len(self.model) - 1))
        proof = LogProof.parse(str(self.ledger.proof(index)))
        assert proof.verify(self.ledger.body(index), self.ledger.keys[-1:]).size == len(self.model)

    @invariant()
    def same(self):
        if not hasattr(self, "ledger"):
            return
        assert [(e["kind"], e.get("value", -1)) for e in self.ledger] == self.model
        assert len(self.ledger) == len(self.model)
        assert self.ledger.verify(keys=[self.first])
        for head in self.heads:
            assert self.ledger.verify(against=head, signatures="newest")

    def teardown(self):
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()


AgainstAList.TestCase.settings = settings(max_examples=8, stateful_step_count=12, deadline=None)
test_a_log_is_a_list_that_is_never_rewritten = AgainstAList.TestCase
