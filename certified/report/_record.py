"""The record of a deletion, and what of it each of the three documents says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from certified._keeper.record import FrozenMap, Record, thaw
from certified.errors import InvalidInput
from certified.report._document import Document

__all__ = ["KINDS", "NOT_COVERED", "DeletionRecord"]

KINDS = ("controller", "public", "receipt")

NOT_COVERED: Mapping[str, str] = FrozenMap(
    {
        "source table": "not known to this vault: delete the subject there too",
        "backups": "not known to this vault: those of the vault itself lose the subject with its key",
        "exports": "not known to this vault",
        "earlier releases": "stay as they are with whoever holds them",
        "downstream models": "not known to this vault",
        "logs of callers": "not known to this vault",
        "held-out sets": "not known to this vault",
    }
)
"""Places that a deletion does not reach, and what to say of each unless the controller knows better."""

_REQUEST = ("key", "basis", "receivedAt", "dueAt", "decidedAt", "actorRole", "identityChecked", "exceptionsChecked")
_SECTIONS = (
    "model",
    "request",
    "deletion",
    "erasure",
    "not_covered",
    "budget",
    "lineage",
    "log",
    "environment",
    "subject",
)


@dataclass(frozen=True, eq=False)
class DeletionRecord(Record):
    """All that is known of one deletion.

    Parameters
    ----------
    certificate : Certificate
        Of the state after the deletion, with its audits.
    model : mapping
        ``name``, ``version``; by choice ``inventoryId``, ``purpose``, ``owner``, ``tier``.
    request : mapping
        ``key``, ``basis``, ``receivedAt``, ``dueAt``, ``decidedAt``, ``actorRole``, ``identityChecked``,
        ``exceptionsChecked``.
    deletion : mapping
        ``removedAt``, ``nSubjects``, ``nRows``, ``method``, ``passes``, ``changedSteps``, ``muDifferencing``,
        ``notHeld`` (how many ids were not held).
    erasure : mapping
        ``erasedAt``, ``sealedAt``, ``method``, ``fileSystem``, ``volumeEncryption``, ``files``, ``keeper``.
    not_covered : mapping of str to str
        Places that the deletion does not reach, with the state of each.
    budget : mapping
        ``releases``, ``muTranscript``.
    lineage : mapping
        ``stateBefore``, ``stateAfter``, ``release``, ``earlierReleases``, ``recipients``.
    log : mapping
        ``origin``, ``vault``.
    environment : mapping
    subject : mapping
        Of one person, for the receipt: ``commitment`` and ``salt``, in hexadecimal. It enters no other document.
    """

    certificate: Any
    model: Mapping[str, Any]
    request: Mapping[str, Any] = field(default_factory=dict)
    deletion: Mapping[str, Any] = field(default_factory=dict)
    erasure: Mapping[str, Any] = field(default_factory=dict)
    not_covered: Mapping[str, str] = NOT_COVERED
    budget: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    log: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    subject: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _SECTIONS:
            object.__setattr__(self, name, FrozenMap(getattr(self, name)))
        unknown = sorted(set(self.request) - set(_REQUEST))
        if unknown:
            raise InvalidInput(
                f"DeletionRecord(request=...) got the fields {unknown}. {list(_REQUEST)} are allowed, so that no id of "
                "a "
                "person gets into a document by accident. Nothing was recorded."
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return {f.name: thaw(getattr(self, f.name)) for f in dataclasses.fields(self)} | {
            "certificate": self.certificate.to_dict()
        }

    def document(self, kind: str) -> Document:
        """Return one of the three documents.

        Parameters
        ----------
        kind : {"controller", "public", "receipt"}
        """
        if kind == "controller":
            return Document(kind, self._controller())
        if kind == "public":
            return Document(kind, self._public())
        if kind == "receipt":
            return Document(kind, self._receipt())
        raise InvalidInput(f"document(kind={kind!r}): use one of {KINDS}.")

    def _controller(self) -> dict[str, Any]:
        parts = {_camel(name): thaw(getattr(self, name)) for name in _SECTIONS if name != "subject"}
        return {**parts, "certificate": self.certificate.to_dict(), "limits": list(self.certificate.limits)}

    def _public(self) -> dict[str, Any]:
        """The promise, and what the release is; nothing that was measured, and nothing of a request."""
        promise = self.certificate.public()
        lineage = {
            key: value for key, value in self.lineage.items() if key in ("release", "releasedAt", "parentRelease")
        }
        model = {key: value for key, value in self.model.items() if key in ("name", "version", "purpose")}
        return {
            "model": thaw(model),
            "certificate": promise.to_dict(),
            "limits": list(promise.limits),
            "lineage": thaw(lineage),
            "log": thaw(self.log),
        }

    def _receipt(self) -> dict[str, Any]:
        """What one person is told: dates, what was done, what not, and how to prove it; no figure of others."""
        promise = self.certificate.public() if self.certificate.mu <= self.certificate.mu_target else self.certificate
        dates = {key: value for key, value in self.request.items() if key not in ("actorRole",)}
        erased = {key: value for key, value in self.erasure.items() if key != "files"}
        done = {key: value for key, value in self.deletion.items() if key in ("removedAt", "notHeld")}
        return {
            "model": thaw({key: value for key, value in self.model.items() if key in ("name", "purpose", "owner")}),
            "request": thaw(dates),
            "deletion": thaw(done),
            "erasure": thaw(erased),
            "notCovered": thaw(self.not_covered),
            "claim": {
                "claim": promise.claim,
                "scope": promise.scope,
                "mu": promise.mu,
                "delta": promise.delta,
                "adaptivity": promise.adaptivity,
            },
            "limits": list(promise.limits),
            "subject": thaw(self.subject),
            "log": thaw(self.log),
        }


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)
