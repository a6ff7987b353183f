"""One of the three documents: its canonical statement, its signature, its page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certified._keeper.record import canonical
from certified.errors import NotVerified
from certified.ledger import LogProof, SigningKey, VerifyingKey
from certified.report._envelope import Envelope, statement
from certified.report._page import Page
from certified.report._render import to_html, to_markdown

__all__ = ["Document", "Opened", "open_document"]

_TYPE = "urn:certified:attestation:deletion-{}:v0.1"


@dataclass(frozen=True)
class Document:
    """What is said to one reader.

    Attributes
    ----------
    kind : {"controller", "public", "receipt"}
    predicate : mapping
        What is said, as plain values.
    """

    kind: str
    predicate: Mapping[str, Any]

    def canonical_bytes(self) -> bytes:
        """Return what is said as canonical JSON."""
        return canonical(self.predicate)

    def sign(self, keys: SigningKey | Sequence[SigningKey], files: Mapping[str, bytes | str | Path]) -> Envelope:
        """Return the signed document.

        Parameters
        ----------
        keys : SigningKey or sequence of them
            That of the vault, and by choice that of whoever approved the release.
        files : mapping of str to bytes, path or SHA-256
            What the document is about, such as ``{"release": path}``. Text is taken for a digest in hexadecimal.
        """
        about = {name: _digest(value) for name, value in files.items()}
        several = [keys] if isinstance(keys, SigningKey) else list(keys)
        return Envelope.sign(statement(_TYPE.format(self.kind), self.predicate, about), several)

    def page(self, proof: LogProof | None = None, keys: Sequence[VerifyingKey] = ()) -> Page:
        """Return the document as a page, with its place in a log where a proof is given."""
        from certified.report._pages import document_page

        return document_page(self.kind, _read_back(self.predicate), proof, keys)

    def to_html(self, proof: LogProof | None = None, keys: Sequence[VerifyingKey] = ()) -> str:
        """Return the document as one self-contained HTML page, which prints well and needs no network."""
        return to_html(self.page(proof, keys))

    def to_markdown(self, proof: LogProof | None = None, keys: Sequence[VerifyingKey] = ()) -> str:
        """Return the document as Markdown."""
        return to_markdown(self.page(proof, keys))


@dataclass(frozen=True)
class Opened:
    """A document whose signature has been verified.

    Attributes
    ----------
    document : Document
    files : mapping of str to str
        What it is about: name and SHA-256.
    digest : str
        SHA-256 of the signed bytes, by which the ledger names the document.
    """

    document: Document
    files: Mapping[str, str]
    digest: str


def open_document(
    text: str | bytes,
    keys: Iterable[VerifyingKey],
    files: Mapping[str, bytes | str | Path] | None = None,
    threshold: int = 1,
) -> Opened:
    """Return a signed document, once its signature and the files that it is about are verified.

    Parameters
    ----------
    text : str or bytes
        Content of a ``.dsse.json`` file.
    keys : iterable of VerifyingKey
        Keys that are trusted.
    files : mapping of str to bytes, path or SHA-256, or None
        Files that must be those of the document; None checks none.
    threshold : int
        How many of the keys must have signed.

    Raises
    ------
    NotVerified
    """
    envelope = Envelope.parse(text)
    values = envelope.verify(keys, threshold)
    kind = {_TYPE.format(name): name for name in ("controller", "public", "receipt")}.get(
        str(values.get("predicateType"))
    )
    if kind is None:
        raise NotVerified(f"A document of the kind {values.get('predicateType')!r} is not known to this version.")
    about = {entry["name"]: entry["digest"]["sha256"] for entry in values["subject"]}
    for name, value in (files or {}).items():
        if about.get(name) != _digest(value):
            raise NotVerified(
                f"The document is about other files: {name!r} has the SHA-256 {_digest(value)}, and the document says "
                f"{about.get(name)}. Pass the files that belong to it."
            )
    return Opened(Document(kind, values["predicate"]), about, hashlib.sha256(envelope.payload).hexdigest())


def _digest(value: bytes | str | Path) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, Path):
        return hashlib.sha256(value).hexdigest()
    with open(value, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_back(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The values as a reader of the signed bytes gets them, so that a page never shows anything else."""
    return json.loads(canonical(predicate))
