"""Signed payloads: the envelope DSSE around a statement of in-toto.

The payload is verified as bytes, and the bytes that were verified are parsed, once.

References
----------
https://github.com/secure-systems-lab/dsse (version 1.0.2) and https://github.com/in-toto/attestation (Statement v1)
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from certified._keeper.record import canonical
from certified.errors import NotVerified
from certified.ledger import SigningKey, VerifyingKey

__all__ = ["PAYLOAD_TYPE", "Envelope", "statement"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True)
class Envelope:
    """A payload with signatures over it.

    Attributes
    ----------
    payload : bytes
    signatures : tuple of (str, bytes)
        A hint at the key, which nobody should trust, and the signature.
    payload_type : str
    """

    payload: bytes
    signatures: tuple[tuple[str, bytes], ...]
    payload_type: str = PAYLOAD_TYPE

    @classmethod
    def sign(cls, payload: bytes, keys: Sequence[SigningKey]) -> Envelope:
        """Return the payload with the signature of each key."""
        message = _encoded(PAYLOAD_TYPE, payload)
        return cls(payload, tuple((key.public.fingerprint, key.sign(message)) for key in keys))

    def to_json(self) -> str:
        """Return the envelope as JSON text."""
        marks = [{"keyid": hint, "sig": _b64(value)} for hint, value in self.signatures]
        return json.dumps(
            {"payload": _b64(self.payload), "payloadType": self.payload_type, "signatures": marks}, indent=1
        )

    @classmethod
    def parse(cls, text: str | bytes) -> Envelope:
        """Return the envelope that `to_json` wrote."""
        try:
            values = json.loads(text)
            marks = tuple((str(mark.get("keyid", "")), _raw(mark["sig"])) for mark in values["signatures"])
            return cls(_raw(values["payload"]), marks, str(values["payloadType"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise NotVerified(
                "A signed document was expected, and this text is none. Pass the .dsse.json file as it was written; "
                "nothing "
                "was verified."
            ) from None

    def verify(self, keys: Iterable[VerifyingKey], threshold: int = 1) -> dict[str, Any]:
        """Return the statement in the payload, once at least ``threshold`` of the keys have signed it.

        Raises
        ------
        NotVerified
        """
        message = _encoded(self.payload_type, self.payload)
        signers = {key.fingerprint for key in keys for _, value in self.signatures if key.verifies(value, message)}
        if len(signers) < max(threshold, 1):
            raise NotVerified(
                f"{len(signers)} of the given keys have signed this document, {max(threshold, 1)} are needed. It was "
                "changed, "
                "or other keys have signed it. Pass the keys of whoever issued it, from a source that you trust."
            )
        try:
            values = json.loads(self.payload)
            good = values["_type"] == _STATEMENT and isinstance(values["predicate"], dict)
        except (ValueError, KeyError, TypeError):
            good = False
        if not good or self.payload_type != PAYLOAD_TYPE:
            raise NotVerified(
                "The document is signed, and is no statement of in-toto. Pass a document of this package."
            )
        return values


def statement(kind: str, predicate: Mapping[str, Any], subjects: Mapping[str, str]) -> bytes:
    """Return the canonical bytes of a statement about files, given as name and SHA-256 in hexadecimal."""
    about = [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())]
    return canonical({"_type": _STATEMENT, "subject": about, "predicateType": kind, "predicate": predicate})


def _encoded(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: type and payload with their lengths."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _raw(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
