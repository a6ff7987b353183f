"""Keys that sign and verify: Ed25519, or ECDSA over P-256 where a key lives in hardware or other tools ask for it.

References
----------
https://c2sp.org/signed-note (kinds of keys and their ids) and https://c2sp.org/tlog-cosignature (witnesses)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from certified.errors import InvalidInput, MissingExtra, NotVerified

__all__ = ["ALGORITHMS", "SigningKey", "VerifyingKey"]

_ED25519, _ECDSA, _COSIGNER = 0x01, 0x02, 0x04
ALGORITHMS = {"ed25519": _ED25519, "ecdsa-p256": _ECDSA, "witness": _COSIGNER}
"""Kinds of keys and the byte that stands for each in an id. A witness signs with Ed25519, and the time as well."""


def _crypto() -> Any:
    """Import what signs; say what is missing where it is."""
    try:
        from cryptography import exceptions
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    except ImportError:
        raise MissingExtra("Signing and verifying", "cryptography", "vault") from None
    return exceptions, hashes, serialization, ec, ed25519


@dataclass(frozen=True)
class VerifyingKey:
    """A public key with the name under which it signs.

    Attributes
    ----------
    name : str
        Without spaces and plus signs; by custom the address of the log, without its scheme.
    algorithm : {"ed25519", "ecdsa-p256", "witness"}
    data : bytes
        The key: 32 bytes, or for ECDSA the DER of its SubjectPublicKeyInfo.
    """

    name: str
    algorithm: str
    data: bytes

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise InvalidInput(f"A key got algorithm={self.algorithm!r}. Use one of {list(ALGORITHMS)}.")
        if not self.name or "+" in self.name or any(c.isspace() or c < " " for c in self.name):
            raise InvalidInput(
                f"A key got name={self.name!r}. A name must not be empty and has neither spaces nor plus signs, such "
                "as "
                "bank.example/credit-default. Choose another one."
            )

    @cached_property
    def _key(self) -> Any:
        _, _, serialization, _, ed25519 = _crypto()
        try:
            if self.algorithm == "ecdsa-p256":
                return serialization.load_der_public_key(self.data)
            return ed25519.Ed25519PublicKey.from_public_bytes(self.data)
        except ValueError as error:
            raise NotVerified(
                f"The key of {self.name} cannot be read: {error}. Pass a key as it was written."
            ) from None

    @cached_property
    def key_id(self) -> bytes:
        """Four bytes that stand for the key in a line of signature. They identify it and prove nothing."""
        if self.algorithm == "ecdsa-p256":
            return hashlib.sha256(self.data).digest()[:4]
        kind = bytes([ALGORITHMS[self.algorithm]])
        return hashlib.sha256(self.name.encode() + b"\n" + kind + self.data).digest()[:4]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the key's SubjectPublicKeyInfo in DER, in hexadecimal."""
        _, _, serialization, _, _ = _crypto()
        info = self._key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(info).hexdigest()

    @property
    def vkey(self) -> str:
        """The key in one line of text, as tools for transparency logs read it."""
        data = base64.b64encode(bytes([ALGORITHMS[self.algorithm]]) + self.data).decode()
        return f"{self.name}+{self.key_id.hex()}+{data}"

    @classmethod
    def parse(cls, vkey: str) -> VerifyingKey:
        """Return the key that `vkey` wrote."""
        parts = vkey.strip().split("+", 2)
        try:
            raw = base64.b64decode(parts[2], validate=True)
            name_of = {number: name for name, number in ALGORITHMS.items()}
            key = cls(parts[0], name_of[raw[0]], raw[1:])
            good = key.key_id.hex() == parts[1]
        except (IndexError, KeyError, binascii.Error, InvalidInput):
            good = False
        if not good:
            raise NotVerified(f"{vkey[:120]!r} is no verifier key. Pass the line that `certified keys show` prints.")
        key._key  # noqa: B018  an unreadable key is told here, not at its first use
        return key

    @property
    def pem(self) -> str:
        """The key as PEM, for openssl and others."""
        _, _, serialization, _, _ = _crypto()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._key.public_bytes(serialization.Encoding.PEM, form).decode()

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Return whether the key has signed these bytes."""
        exceptions, hashes, _, ec, _ = _crypto()
        try:
            if self.algorithm == "ecdsa-p256":
                self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            else:
                self._key.verify(signature, data)
        except exceptions.InvalidSignature:
            return False
        return True

    def verifies_note(self, signature: bytes, text: bytes) -> bool:
        """Return whether the key has signed this text of a note; the signature of a witness begins with a time."""
        if self.algorithm != "witness":
            return self.verifies(signature, text)
        return len(signature) == 72 and self.verifies(signature[8:], _with_time(int.from_bytes(signature[:8]), text))


class SigningKey:
    """A private key.

    Parameters
    ----------
    public : VerifyingKey
    private : key of the package cryptography
        Anything with its ``sign``, such as a key in hardware.
    """

    def __init__(self, public: VerifyingKey, private: Any) -> None:
        self.public = public
        self._private = private

    @classmethod
    def generate(cls, name: str, algorithm: str = "ed25519") -> SigningKey:
        """Return a new key from the operating system's entropy."""
        _, _, _, ec, ed25519 = _crypto()
        if algorithm == "ecdsa-p256":
            return cls._of(name, algorithm, ec.generate_private_key(ec.SECP256R1()))
        return cls._of(name, algorithm, ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def _of(cls, name: str, algorithm: str, private: Any) -> SigningKey:
        _, _, serialization, _, _ = _crypto()
        code, form = serialization.Encoding, serialization.PublicFormat
        how = (code.DER, form.SubjectPublicKeyInfo) if algorithm == "ecdsa-p256" else (code.Raw, form.Raw)
        return cls(VerifyingKey(name, algorithm, private.public_key().public_bytes(*how)), private)

    @classmethod
    def from_pem(
        cls, name: str, pem: bytes | str, password: bytes | None = None, *, witness: bool = False
    ) -> SigningKey:
        """Return the key in a PEM file (PKCS #8)."""
        _, _, serialization, ec, ed25519 = _crypto()
        data = pem.encode() if isinstance(pem, str) else pem
        try:
            private = serialization.load_pem_private_key(data, password)
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"The private key of {name} cannot be read: {error}. Pass a PKCS #8 file in PEM."
            ) from None
        if isinstance(private, ed25519.Ed25519PrivateKey):
            return cls._of(name, "witness" if witness else "ed25519", private)
        if isinstance(private, ec.EllipticCurvePrivateKey) and isinstance(private.curve, ec.SECP256R1) and not witness:
            return cls._of(name, "ecdsa-p256", private)
        raise InvalidInput(
            f"The private key of {name} is a {type(private).__name__}. Ed25519 keys are allowed, and ECDSA keys on "
            "P-256, the latter not for witnesses. Make one with `certified keys new`."
        )

    def to_pem(self, password: bytes | None = None) -> bytes:
        """Return the private key as PEM (PKCS #8), encrypted where a password is given."""
        _, _, s, _, _ = _crypto()
        lock = s.BestAvailableEncryption(password) if password else s.NoEncryption()
        return self._private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, lock)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of these bytes."""
        _, hashes, _, ec, _ = _crypto()
        if self.public.algorithm == "ecdsa-p256":
            return self._private.sign(data, ec.ECDSA(hashes.SHA256()))
        return self._private.sign(data)

    def sign_note(self, text: bytes, at: int | None = None) -> bytes:
        """Return the signature of the text of a note; a witness signs the time (POSIX seconds) as well."""
        if self.public.algorithm != "witness":
            return self.sign(text)
        at = int(time.time()) if at is None else at
        return at.to_bytes(8) + self.sign(_with_time(at, text))


def _with_time(at: int, text: bytes) -> bytes:
    return f"cosignature/v1\ntime {at}\n".encode() + text
