"""What a vault tells about itself, as values."""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from certified.errors import InvalidRequest

__all__ = ["Processed", "Published", "Request", "Verification", "moment", "month_after", "utc"]


@dataclass(frozen=True)
class Request:
    """A request as the vault remembers it; the ids are forgotten once it is carried out.

    Attributes
    ----------
    key : str
    status : {"queued", "held", "removed", "erased", "refused"}
        "removed": out of the model, and not yet out of every file.
    reason : str
        Why it is held or was refused.
    received, due, decided, removed, erased : str or None
        UTC.
    basis, actor : str
    subjects, rows, absent : int or None
        Subjects and rows that were deleted, ids that were not held.
    """

    key: str
    status: str
    reason: str
    received: str
    due: str
    decided: str | None
    removed: str | None
    erased: str | None
    basis: str
    actor: str
    subjects: int | None
    rows: int | None
    absent: int | None

    @property
    def overdue(self) -> bool:
        """Whether it is open although its time is up."""
        return self.status in ("queued", "held", "removed") and self.due < utc()


@dataclass(frozen=True)
class Processed:
    """What one call of ``process`` did.

    Attributes
    ----------
    requests : tuple of Request
        Carried out, held or refused.
    subjects, rows : int
        Removed.
    generation : int
    sealed : bool
        Whether the keeper holds nothing of them.
    """

    requests: tuple[Request, ...]
    subjects: int
    rows: int
    generation: int
    sealed: bool

    def __bool__(self) -> bool:
        return bool(self.requests)


@dataclass(frozen=True)
class Published:
    """A release: the model, and where its files lie.

    Attributes
    ----------
    n : int
        Number of the release, by which the vault knows its certificate and recipients.
    model : estimator of another package
    folder : Path
    digest : str
        SHA-256 of ``release.pkl``.
    """

    n: int
    model: Any
    folder: Any
    digest: str


@dataclass(frozen=True)
class Verification:
    """What a verification found; false where anything is wrong.

    Attributes
    ----------
    problems : tuple of str
    checked : tuple of str
        What was checked, a sentence each.
    """

    problems: tuple[str, ...]
    checked: tuple[str, ...]

    def __bool__(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        head = "The vault verifies." if self else "The vault does not verify."
        return "\n".join([head, *(f"- {x}" for x in self.problems), *(f"- checked: {x}" for x in self.checked)])


def utc(when: datetime | None = None) -> str:
    """Return a moment, or now, as RFC 3339 in whole seconds."""
    return (when or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str, name: str) -> datetime:
    """Return a moment that is given as text; InvalidRequest where it is none."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        if when.tzinfo is None or not 1900 <= when.year < 9000:
            raise ValueError
    except (ValueError, AttributeError):
        raise InvalidRequest(
            f"request({name}={text!r}): a moment with its time zone is needed, such as 2026-11-02T09:14:00Z. "
            "Nothing was recorded."
        ) from None
    return when


def month_after(received: str) -> str:
    """Return a month later: the same day of the next month, or its last one (Art. 12(3) of the GDPR)."""
    when = moment(received, "received")
    year, month = (when.year + when.month // 12, when.month % 12 + 1)
    day = min(when.day, calendar.monthrange(year, month)[1])
    return utc(when.replace(year=year, month=month, day=day))
