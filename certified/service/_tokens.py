"""Bearer tokens: shown once, stored as hashes, each with a role."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from pathlib import Path

from certified.errors import InvalidInput
from certified.vault._files import write_new

__all__ = ["ROLES", "new_token", "role_of"]

ROLES = ("submit", "officer", "audit")
"""submit: make and look up requests; officer: all; audit: read all but receipts."""


def new_token(folder: Path, role: str) -> str:
    """Return a new token; only its hash is kept."""
    if role not in ROLES:
        raise InvalidInput(f"new_token(role={role!r}): use one of {list(ROLES)}. Nothing was written.")
    token = secrets.token_urlsafe(32)
    known = _stored(folder) | {_hash(token): role}
    write_new(folder / "tokens.json", lambda file: file.write(json.dumps(known, indent=1).encode()))
    os.chmod(folder / "tokens.json", 0o600)
    return token


def role_of(folder: Path, token: str) -> str | None:
    """Return the role of a token; every stored hash is compared, in constant time."""
    found = None
    for stored, role in _stored(folder).items():
        if hmac.compare_digest(stored, _hash(token)):
            found = role
    return found


def _stored(folder: Path) -> dict[str, str]:
    path = folder / "tokens.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
