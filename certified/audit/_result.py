"""Results of audits: frozen records with a verdict, canonical bytes and a place in a certificate."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from certified._keeper.record import FrozenMap, Record
from certified.certificate import Certificate

__all__ = ["INCONCLUSIVE", "NOT_REFUTED", "REFUTED", "SAMPLE", "AuditResult", "audited"]

REFUTED, NOT_REFUTED, INCONCLUSIVE = "REFUTED", "NOT REFUTED", "INCONCLUSIVE"


# Metadata of a field that is kept for plots and left out of the canonical record.
SAMPLE = MappingProxyType({"sample": True})


@dataclass(frozen=True, eq=False)
class AuditResult(Record):
    """What one audit found.

    Parameters
    ----------
    verdict : {"REFUTED", "NOT REFUTED", "INCONCLUSIVE"}
        A claim that is not refuted is not proved. INCONCLUSIVE: the audit could not have seen a violation.
    reason : str
        In one sentence.
    """

    verdict: str
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values; arrays that are kept for plots are left out."""
        named = {
            f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self) if not f.metadata.get("sample")
        }
        return {"audit": type(self).__name__, **named}

    @property
    def refuted(self) -> bool:
        """Whether the claim is refuted."""
        return self.verdict == REFUTED

    def __str__(self) -> str:
        values = self.to_dict()
        name, verdict, reason = (values.pop(key) for key in ("audit", "verdict", "reason"))
        lines = [f"{name}: {verdict}. {reason}"]
        return "\n".join([*lines, *(f"  {key.replace('_', ' ')}: {_short(value)}" for key, value in values.items())])


def audited(certificate: Certificate, *results: AuditResult) -> Certificate:
    """Return a copy of the certificate with the results as its audit block, under ``extra["audit"]``.

    They are kept apart from the claim: an audit gives lower bounds, only the proof gives upper ones. ``public()``
    leaves the block out, because it holds values measured on the data.

    Examples
    --------
    >>> from certified.audit import state_equal
    >>> from certified.linear_model import Ridge
    >>> model = Ridge().fit([[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0])
    >>> block = audited(model.certificate_, state_equal(model, model)).extra["audit"]
    >>> block[0]["verdict"]
    'NOT REFUTED'
    """
    return certificate.with_audits(*results)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value.tolist()]
    if isinstance(value, dict | FrozenMap):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(_short, value)) if len(value) <= 8 else f"{len(value)} values"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    return str(value)
