"""Arguments of the ``certified`` command. Nothing heavy is imported before a command is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from certified import __version__
from certified.cli._answer import Answer, run

__all__ = ["main"]

_CODES = """exit codes: 0 done; 1 something was refuted, refused or not verified; 2 wrong usage; 3 nothing to do;
4 another process works on it; 5 the storage failed (requests are kept)"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = _parser().parse_args(argv)
    if given.command == "demo":
        from certified.cli._demo import demo

        return demo()
    if given.command == "check":
        from certified.cli._demo import check

        return check(given.estimator, given.params, given.only)
    return run(lambda: _answer(given), as_json=given.json)


def _answer(given: argparse.Namespace) -> Answer:
    """Import the module of the command, and call it."""
    name = given.command.replace("-", "_")
    if name in ("ledger", "keys") or (name == "verify" and not Path(given.target).is_dir()):
        from certified.cli import _light

        return getattr(_light, name)(given)
    from certified.cli import _vault

    return getattr(_vault, name)(given)


def _parser() -> argparse.ArgumentParser:
    about = "Certified unlearning for tabular models."
    parser = argparse.ArgumentParser(prog="certified", description=about, epilog=_CODES)
    parser.add_argument("--version", action="version", version=f"certified {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, *, vault: bool = True) -> Any:
        one = commands.add_parser(name, help=text, description=text, epilog=_CODES)
        one.add_argument("--json", action="store_true", help="answer with one JSON object")
        if vault:
            one.add_argument("vault", type=Path, help="folder of the vault")
            one.add_argument("--key-file", type=Path, help="private key (PEM), if the vault does not keep it")
        return one

    commands.add_parser("demo", help="fit, delete, certify, release and check against a refit, on real data")
    checks = commands.add_parser("check", help="run the deletion checks on an estimator")
    checks.add_argument("estimator", help="module:name of a class or an unfitted instance, for example my.models:Ridge")
    checks.add_argument("--params", default="{}", metavar="JSON", help="parameters for a class, a JSON object")
    checks.add_argument("--only", default="", metavar="TEXT", help="checks whose name contains this")

    fit = command("fit", "fit the model that a TOML file describes, and put it into a new vault", vault=False)
    fit.add_argument("model", type=Path, help="TOML file")
    fit.add_argument("vault", type=Path, help="folder of the new vault")
    fit.add_argument("--key-file", type=Path, help="private key (PEM) to sign with; by default a new one in the vault")

    request = command("request", "record a request for deletion; ids come from a file or standard input")
    request.add_argument("--key", required=True, help="names the request; the same key again is the same request")
    request.add_argument("--ids", default="-", metavar="FILE", help="one id a line; - is standard input")
    request.add_argument("--basis", default="GDPR Art. 17(1)", help="legal basis")
    request.add_argument("--received", metavar="TIME", help="UTC, as 2026-11-02T09:14:00Z; by default now")
    request.add_argument("--due", metavar="TIME", help="by default a month after receipt")
    request.add_argument("--actor", default="not stated", help="role of whoever decides")
    request.add_argument("--missing", choices=("ignore", "raise"), default="ignore", help="about ids that are not held")
    request.add_argument("--plan", action="store_true", help="only tell what would happen")

    process = command("process", "carry out the requests that wait")
    process.add_argument(
        "--no-seal", action="store_true", help="leave the pass over the retained rows to `certified seal`"
    )
    process.add_argument("--limit", type=int, help="take this many requests at most")
    command("seal", "pass over the retained rows, so that the state tells nothing of deleted ones")
    status = command("status", "show what is held, what is open, what is overdue")
    status.add_argument("--requests", action="store_true", help="list all requests")
    release = command("release", "publish the present model with its certificate")
    release.add_argument("--to", action="append", default=[], metavar="NAME", help="who gets it; may be repeated")

    verify = command("verify", "verify a vault, or a signed document", vault=False)
    verify.add_argument("target", type=Path, help="folder of a vault, or a .dsse.json file")
    verify.add_argument("--key", type=Path, help="verifier keys (log.vkey), for a document")
    verify.add_argument("--file", action="append", default=[], metavar="NAME=PATH", help="a file the document is about")
    verify.add_argument("--proof", type=Path, help=".tlog-proof of the document")
    verify.add_argument("--entry", type=Path, help="entry of the log that the proof is about")
    verify.add_argument("--replay", action="store_true", help="compute anew, from the retained rows, what is certified")
    verify.add_argument("--against", type=Path, metavar="HEAD", help="a signed head that you kept")

    report = command("report", "write the documents of a request or a release")
    report.add_argument("--request", help="key of the request")
    report.add_argument("--release", type=int, help="number of the release")
    report.add_argument(
        "--receipts", action="store_true", help="hand out the receipts of a request, which is done once"
    )
    report.add_argument("--out", type=Path, default=Path("."), help="folder to write to")

    audit = command("audit", "measure the released model on data that it has not seen")
    audit.add_argument("data", type=Path, help="CSV or Parquet")
    audit.add_argument("--target", required=True, help="column of the target")
    audit.add_argument("--groups", help="column of groups to compare")
    audit.add_argument("--tolerance", type=float, default=0.01, help="loss of a metric that counts as harm")

    ledger = command("ledger", "read, prove, verify, witness or export the log", vault=False)
    ledger.add_argument("what", choices=("show", "head", "proof", "verify", "witness", "export"))
    ledger.add_argument("path", type=Path, help="folder of a vault, or database of a ledger")
    ledger.add_argument("--index", type=int, help="place of the entry, for proof")
    ledger.add_argument("--against", type=Path, metavar="HEAD", help="a signed head that you kept, for verify")
    ledger.add_argument("--state", type=Path, help="file in which the witness remembers heads")
    ledger.add_argument("--witness-key", type=Path, help="private key of the witness (PEM)")
    ledger.add_argument("--name", default="witness", help="name of the witness")
    ledger.add_argument("--out", type=Path, help="file or folder to write to")

    keys = command("keys", "make, show or change keys", vault=False)
    keys.add_argument("what", choices=("new", "show", "rotate"))
    keys.add_argument("path", type=Path, help="PEM file for new; folder of a vault for show and rotate")
    keys.add_argument("--name", help="name of the key, which is that of the log")
    keys.add_argument("--algorithm", choices=("ed25519", "ecdsa-p256", "witness"), default="ed25519")
    keys.add_argument("--key-file", type=Path, help="present private key (PEM), if the vault does not keep it")

    vault = command("vault", "search a vault for ids, hold subjects, make or restore a backup")
    vault.add_argument("what", choices=("trace", "hold", "unhold", "backup", "restore"))
    vault.add_argument("--file", type=Path, help="of the backup")
    vault.add_argument("--backup-key", type=Path, help="file with the key of the backup, written or read")
    vault.add_argument("--against", type=Path, metavar="HEAD", help="a signed head that you kept, for restore")
    vault.add_argument("--ids", default="-", metavar="FILE", help="one id a line; - is standard input")
    vault.add_argument("--reason", default="", help="of a hold")
    serve = command("serve", "serve a vault over HTTP; tokens are made with `certified token`")
    serve.add_argument("--host", default="127.0.0.1", help="by default this machine alone")
    serve.add_argument("--port", type=int, default=8400)
    token = command("token", "make a bearer token for the service; it is shown once")
    token.add_argument("--role", choices=("submit", "officer", "audit"), required=True)
    return parser
