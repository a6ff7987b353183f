"""The command: from a table to a certificate in four commands, answers for programs, exit codes as documented."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("cryptography")

from certified.cli import main

N = 200
TOML = """
name = "Credit default"
version = "3"
origin = "bank.example/credit"

[about]
purpose = "consumer credit"

[data]
path = "credit.csv"
target = "default"
ids = "client"

[promise]
epsilon = 1.0
delta = 1e-6

[model]
estimator = "LogisticRegression"
parameters = { C = 0.5 }
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    lines = ["client,age,job,income,default"]
    for i in range(N):
        income = "" if i % 17 == 0 else f"{rng.normal(3000, 800):.2f}"
        job = rng.choice(["clerk", "smith", "baker"])
        lines.append(f"C{i:05d},{rng.integers(18, 90)},{job},{income},{rng.integers(2)}")
    (tmp_path / "credit.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "credit.toml").write_text(TOML)
    return tmp_path


def run(capsys, *words):
    """Exit code and the JSON object."""
    code = main([str(word) for word in words] + ["--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.fixture
def vault(folder, capsys):
    assert run(capsys, "fit", folder / "credit.toml", folder / "v")[0] == 0
    return folder / "v"


def test_from_a_table_to_a_certificate_in_four_commands(folder, capsys):
    (folder / "ids.txt").write_text("C00007\nC00009\n")
    assert main(["fit", str(folder / "credit.toml"), str(folder / "v")]) == 0
    assert main(["request", str(folder / "v"), "--key", "r1", "--ids", str(folder / "ids.txt")]) == 0
    assert main(["process", str(folder / "v")]) == 0
    assert main(["report", str(folder / "v"), "--request", "r1", "--out", str(folder / "out")]) == 0
    told = capsys.readouterr().out
    assert "2 subjects with 2 rows are deleted and erased" in told
    assert "Numbers: " in told  # how the columns were read
    assert (folder / "out" / "controller.html").read_text().startswith("<!doctype html>")
    files = [folder / "out" / f"controller.{end}" for end in ("dsse.json", "tlog-proof", "entry.json")]
    words = ["verify", files[0], "--key", folder / "out" / "log.vkey", "--proof", files[1], "--entry", files[2]]
    code, found = run(capsys, *words)
    assert (code, found["verified"], found["kind"], found["origin"]) == (0, True, "controller", "bank.example/credit")
    files[0].write_text(files[0].read_text().replace("A", "B", 1))
    assert run(capsys, *words)[0] == 1


def test_every_command_answers_with_one_object_and_its_exit_code(vault, capsys, monkeypatch):
    assert run(capsys, "process", vault)[0] == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("C00001\nnobody\n"))
    code, made = run(capsys, "request", vault, "--key", "a", "--received", "2026-01-31T10:00:00Z")
    assert (code, made["status"], made["overdue"]) == (0, "queued", True)
    code, told = run(capsys, "status", vault, "--requests")
    assert (code, told["overdue"], told["list"][0]["key"]) == (1, ["a"], "a")
    code, done = run(capsys, "process", vault)
    assert (code, done["subjects"], done["requests"][0]["absent"], done["sealed"]) == (0, 1, 1, True)
    assert run(capsys, "seal", vault)[0] == 3
    assert run(capsys, "verify", vault, "--replay")[1]["problems"] == []
    assert run(capsys, "release", vault, "--to", "scoring")[1]["release"] == 1
    assert run(capsys, "report", vault, "--release", "1", "--out", vault.parent / "r")[0] == 0
    public = vault / "out" / "000001"
    words = ["verify", public / "public.dsse.json", "--key", public / "log.vkey"]
    assert run(capsys, *words, "--file", f"release.pkl={public / 'release.pkl'}")[0] == 0
    assert run(capsys, *words, "--file", f"release.pkl={public / 'log.vkey'}")[0] == 1
    assert run(capsys, "report", vault, "--request", "a", "--receipts", "--out", vault.parent / "p")[0] == 0
    assert run(capsys, "report", vault, "--request", "a", "--receipts", "--out", vault.parent / "p")[0] == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("C00001\n"))
    assert run(capsys, "vault", vault, "trace")[0] == 0
    monkeypatch.setattr("sys.stdin", io.StringIO("C00002\n"))
    assert run(capsys, "vault", vault, "trace")[0] == 1
    assert run(capsys, "report", vault)[0] == 2
    assert run(capsys, "status", vault.parent / "nowhere")[0] == 5
    assert run(capsys, "request", vault, "--key", "b", "--ids", "nowhere.txt")[0] == 2


def test_a_vault_that_is_being_worked_on_is_told_by_its_own_code(vault, capsys, monkeypatch):
    from certified.vault._files import locked

    monkeypatch.setattr("sys.stdin", io.StringIO("C00001\n"))
    run(capsys, "request", vault, "--key", "a")
    with locked(vault / "lock"):
        code, told = run(capsys, "process", vault)
    assert (code, told["error"]) == (4, "Locked")
    assert run(capsys, "process", vault)[0] == 0


def test_holds_and_plans(vault, capsys, monkeypatch):
    for words, code in (
        (["vault", vault, "hold"], 2),
        (["vault", vault, "hold", "--reason", "lawsuit"], 0),
        (["request", vault, "--key", "a", "--plan"], 1),
        (["request", vault, "--key", "a"], 0),
        (["process", vault], 3),
        (["vault", vault, "unhold"], 0),
        (["request", vault, "--key", "a", "--plan"], 0),
        (["process", vault], 0),
    ):
        monkeypatch.setattr("sys.stdin", io.StringIO("C00003\n"))
        assert run(capsys, *words)[0] == code, words


def test_a_backup_is_made_and_restored(vault, capsys):
    words = ["--file", vault.parent / "b", "--backup-key", vault.parent / "b.key"]
    assert run(capsys, "vault", vault, "backup", *words)[0] == 0
    assert run(capsys, "vault", vault.parent / "again", "restore", *words)[1]["entries"] == 2
    assert run(capsys, "verify", vault.parent / "again")[1]["verified"]
    assert run(capsys, "vault", vault, "backup")[0] == 2


def test_the_log_is_read_proved_witnessed_and_exported(vault, capsys):
    folder = vault.parent
    assert run(capsys, "ledger", "show", vault)[1]["entries"][0]["kind"] == "created"
    assert run(capsys, "ledger", "head", vault, "--out", folder / "head")[0] == 0
    assert "inclusion" not in run(capsys, "ledger", "proof", vault, "--index", "0")[1]
    assert run(capsys, "ledger", "verify", vault, "--against", folder / "head")[1]["verified"]
    assert run(capsys, "keys", "new", folder / "w.pem", "--name", "auditor", "--algorithm", "witness")[0] == 0
    witness = ["ledger", "witness", vault, "--state", folder / "seen.json", "--witness-key", folder / "w.pem"]
    assert run(capsys, *witness)[1]["size"] == 1
    before = run(capsys, "keys", "show", vault)[1]["keys"]
    assert run(capsys, "keys", "rotate", vault, "--algorithm", "ecdsa-p256")[0] == 0
    after = run(capsys, "keys", "show", vault)[1]["keys"]
    assert [key["vkey"] for key in after[:-1]] == [key["vkey"] for key in before]
    assert run(capsys, *witness)[1]["size"] == 2
    assert run(capsys, "verify", vault)[1]["verified"]
    assert run(capsys, "ledger", "export", vault, "--out", folder / "tiles")[0] == 0
    assert (folder / "tiles" / "checkpoint").exists()
    assert run(capsys, "ledger", "proof", vault)[0] == 2


def test_releases_are_measured_on_data_that_the_model_has_not_seen(vault, capsys, monkeypatch):
    data = vault.parent / "credit.csv"
    assert run(capsys, "audit", vault, data, "--target", "default")[0] == 2
    run(capsys, "release", vault)
    code, told = run(capsys, "audit", vault, data, "--target", "default")
    assert (code, 0 <= told["after"]["auc"] <= 1, told["before"]) == (0, True, told["after"])
    monkeypatch.setattr("sys.stdin", io.StringIO("C00003\n"))
    run(capsys, "request", vault, "--key", "a")
    run(capsys, "process", vault)
    run(capsys, "release", vault)
    code, told = run(capsys, "audit", vault, data, "--target", "default", "--tolerance", "1")
    assert (code, told["audit"]) == (0, "Utility")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("ids =", "id ="), "has ['id']"),
        (('ids = "client"', 'ids = "customer"'), "no columns ['customer']"),
        (('"LogisticRegression"', '"LogisticRegresion"'), "no estimator 'LogisticRegresion'"),
        (("[promise]", "[promises]"), "has ['promises']"),
        (("epsilon", "epsilom"), "has ['epsilom']"),
        (('path = "credit.csv"', 'path = "debit.csv"'), "no data at"),
        (("C = 0.5 }", "C = 0.5"), "no TOML"),
    ],
)
def test_a_description_that_is_wrong_is_told_so_and_makes_nothing(folder, capsys, change, message):
    (folder / "credit.toml").write_text(TOML.replace(*change))
    code, told = run(capsys, "fit", folder / "credit.toml", folder / "v")
    assert code == 2
    assert message in told["message"]
    assert not (folder / "v").exists()


def test_data_come_from_a_query_too_and_a_model_from_an_entry_point(folder, capsys, monkeypatch):
    import sqlite3

    import polars as pl

    frame = pl.read_csv(folder / "credit.csv").drop_nulls()
    db = sqlite3.connect(folder / "bank.db")
    db.execute("create table loan(client text, age real, income real, bad integer)")
    db.executemany("insert into loan values(?,?,?,?)", frame.select("client", "age", "income", "default").rows())
    db.commit()
    (folder / "made_here.py").write_text(
        "from certified.linear_model import Ridge\ndef make(alpha):\n    return Ridge(alpha=alpha)\n"
    )
    monkeypatch.syspath_prepend(folder)
    text = f"""
[data]
query = "select client, age, income, bad from loan"
connection = "{folder / "bank.db"}"
target = "bad"
ids = "client"
[model]
estimator = "made_here:make"
parameters = {{ alpha = 2.0 }}
"""
    (folder / "q.toml").write_text(text)
    code, told = run(capsys, "fit", folder / "q.toml", folder / "v")
    assert (code, told["rows"]) == (0, frame.height)


def test_help_and_version_load_nothing_heavy():
    code = (
        "import sys\nfrom certified.cli import main\n"
        "for word in (['--help'], ['--version'], ['process', '--help']):\n"
        "    try: main(word)\n    except SystemExit as done: assert done.code == 0\n"
        "assert not {'numpy', 'jax', 'sklearn', 'polars'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_auditor_verifies_a_document_without_numerics(vault):
    public = vault / "out" / "000001"
    main(["release", str(vault)])
    words = ["verify", str(public / "public.dsse.json"), "--key", str(public / "log.vkey")]
    code = f"import sys\nfrom certified.cli import main\nassert main({words!r}) == 0\n"
    code += "assert not {'numpy', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
