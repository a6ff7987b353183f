"""What a command answers, for people and for programs, and with which exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from certified.errors import CertifiedError, InvalidInput, Locked, StorageFailed

__all__ = ["DONE", "LOCKED", "NOTHING", "REFUSED", "STORAGE", "USAGE", "Answer", "run"]

DONE, REFUSED, USAGE, NOTHING, LOCKED, STORAGE = range(6)


@dataclass(frozen=True)
class Answer:
    """What a command found or did.

    Attributes
    ----------
    values : mapping
        For programs: one JSON object.
    lines : sequence of str
        For people.
    code : int
        0 done; 1 something was refuted, refused or not verified; 2 wrong usage; 3 nothing to do; 4 another process
        works on
        it; 5 the storage failed.
    table : sequence of sequences of str
        Rows under a heading, printed before the lines.
    """

    values: Mapping[str, Any]
    lines: Sequence[str] = ()
    code: int = DONE
    table: Sequence[Sequence[str]] = field(default=())


def run(command: Callable[[], Answer], *, as_json: bool) -> int:
    """Do what the command does, print its answer, and return the exit code; an error is an answer too."""
    try:
        answer = command()
    except (CertifiedError, OSError, ImportError, ValueError) as error:
        code = _code(error)
        answer = Answer({"error": type(error).__name__, "message": str(error)}, (), code)
        if not as_json:
            print(f"certified: {error}", file=sys.stderr)
    if as_json:
        print(json.dumps(answer.values, ensure_ascii=False, default=str))
        return answer.code
    if answer.table:
        _print_table(answer.table)
    for line in answer.lines:
        print(line)
    return answer.code


def _code(error: Exception) -> int:
    if isinstance(error, Locked):
        return LOCKED
    if isinstance(error, StorageFailed):
        return STORAGE
    if isinstance(error, InvalidInput | ImportError | FileNotFoundError) or not isinstance(
        error, CertifiedError | OSError
    ):
        return USAGE
    return STORAGE if isinstance(error, OSError) else REFUSED


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    head, *body = [[str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            pass
        else:
            table = Table(*head, box=None, pad_edge=False)
            for row in body:
                table.add_row(*row)
            Console().print(table)
            return
    widths = [max(len(row[k]) for row in [head, *body]) for k in range(len(head))]
    for row in [head, *body]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
