"""Go's own checker of transparency logs reads what we write, where Go is installed."""

import shutil
import subprocess

import pytest

pytest.importorskip("cryptography")

from certified.ledger import Ledger, SigningKey

PROGRAM = """
package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func hashes(lines []string) []tlog.Hash {
	var out []tlog.Hash
	for _, line := range lines {
		raw, err := base64.StdEncoding.DecodeString(line)
		must(err)
		var h tlog.Hash
		copy(h[:], raw)
		out = append(out, h)
	}
	return out
}

func read(name string) string {
	raw, err := os.ReadFile(name)
	must(err)
	return string(raw)
}

func tree(text string) (int64, tlog.Hash) {
	lines := strings.Split(text, "\\n")
	var size int64
	fmt.Sscan(lines[1], &size)
	return size, hashes(lines[2:3])[0]
}

func main() {
	verifier, err := note.NewVerifier(strings.TrimSpace(read("vkey")))
	must(err)
	opened, err := note.Open([]byte(read("checkpoint")), note.VerifierList(verifier))
	must(err)
	size, root := tree(opened.Text)
	old, err := note.Open([]byte(read("old")), note.VerifierList(verifier))
	must(err)
	oldSize, oldRoot := tree(old.Text)
	inclusion := hashes(strings.Fields(read("inclusion")))
	must(tlog.CheckRecord(inclusion, size, root, 13, tlog.RecordHash([]byte(read("entry")))))
	must(tlog.CheckTree(hashes(strings.Fields(read("consistency"))), size, root, oldSize, oldRoot))
	fmt.Println("good", size)
}
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed")
def test_go_accepts_key_checkpoint_inclusion_and_consistency_and_refuses_a_changed_entry(tmp_path):
    import base64
    from pathlib import Path

    root = Path(subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip())
    source = root / "src/cmd/vendor/golang.org/x/mod/sumdb"
    if not source.is_dir():
        pytest.skip("this Go carries no source of sumdb")
    for name in ("note", "tlog"):
        shutil.copytree(source / name, tmp_path / "golang.org/x/mod/sumdb" / name)
    (tmp_path / "golang.org/x/mod/go.mod").write_text("module golang.org/x/mod\ngo 1.22\n")
    local = "replace golang.org/x/mod => ./golang.org/x/mod\n"
    (tmp_path / "go.mod").write_text(f"module check\ngo 1.22\nrequire golang.org/x/mod v0.0.0\n{local}")
    (tmp_path / "main.go").write_text(PROGRAM)

    key = SigningKey.generate("bank.example/credit-default")
    ledger = Ledger.create(tmp_path / "log.db", key.public.name, key)
    ledger.extend([("x", {"i": i}) for i in range(37)])
    ledger.extend([("x", {"i": i}) for i in range(44)])

    def lines(hashes):
        return "\n".join(base64.b64encode(h).decode() for h in hashes)

    files = {
        "vkey": key.public.vkey,
        "checkpoint": str(ledger.checkpoint()),
        "old": str(ledger.checkpoint(37)),
        "inclusion": lines(ledger.inclusion(13)),
        "consistency": lines(ledger.consistency(37)),
        "entry": ledger.body(13).decode(),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    built = subprocess.run(["go", "build", "-o", "check", "."], cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    run = subprocess.run([tmp_path / "check"], cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout == "good 81\n"
    (tmp_path / "entry").write_text(files["entry"].replace('"i":"', '"j":"') + " ")
    assert subprocess.run([tmp_path / "check"], cwd=tmp_path, capture_output=True).returncode == 1
