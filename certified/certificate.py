"""What a release claims: certificates, receipts and refusals as frozen records with canonical bytes and a digest.

Only the standard library is needed to read, check and print them.
"""

import dataclasses
import math
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from certified._keeper.assumptions import LEGEND, Assumptions
from certified._keeper.record import FrozenMap, Record, convert, parse, thaw
from certified._keeper.words import told_by_two, told_by_two_alone
from certified.accounting import delta_of, epsilon_of
from certified.errors import CannotCertify, InvalidInput

__all__ = ["LEGEND", "Assumptions", "Certificate", "Preview", "Receipt", "Refused"]

CLAIMS = ("exact", "indistinguishable", "none")
SCOPES = ("estimator", "pipeline", "search")
METHODS = ("exact", "measured", "predicted")

_METHODS = MappingProxyType(
    {
        "exact": "exactly",
        "measured": "as a pass over them has measured",
        "predicted": "as predicted without a pass over them",
    }
)
_MAY_BE_UNSTATED = ("mu_transcript", "mu_differencing")  # NaN here means "not stated" and is left out of the record


class _Shown(Record):
    """A record that is a page as well."""

    def _page(self) -> Any:
        raise NotImplementedError

    def to_html(self) -> str:
        """Return one self-contained page: it prints well and needs no network."""
        from certified.report import to_html

        return to_html(self._page())

    def to_markdown(self) -> str:
        """Return the page as Markdown."""
        from certified.report import to_markdown

        return to_markdown(self._page())

    def _repr_html_(self) -> str:
        from certified.report import to_fragment

        return to_fragment(self._page())


@dataclass(frozen=True, eq=False)
class Certificate(_Shown):
    """How close a release is to a release of a refit without the deleted rows, and under which assumptions.

    Parameters
    ----------
    claim : {"exact", "indistinguishable", "none"}
        Same state bit for bit; mu-GDP indistinguishable; nothing.
    scope : {"estimator", "pipeline", "search"}
        What the refit is a refit of; a search includes the choice among its candidates.
    method : {"exact", "measured", "predicted"}
        Where the bound comes from: exact statistics, a pass over the retained rows, or sums over the deleted rows
        alone.
    mu : float
        Gaussian-DP parameter of this release; 0 for "exact", infinity for "none".
    delta : float in [0, 1]
        Where `epsilon` is quoted.
    distance_bound : float
        Bound on the distance to the exact minimiser on the retained rows, in the noise metric.
    sigma : float
        Noise in the units of ``distance_bound``.
    noise : str
        Source of the noise.
    mu_target : float
        The data-independent promise: no release leaves with a larger ``mu``.
    mu_transcript : float
        All releases so far together. NaN: not stated.
    mu_differencing : float
        Estimate for somebody who holds the release before the deletion and the one after. NaN: not stated.
    assumptions : mapping of str to float
        Measured values on which the bound rests, such as ``nu``, ``M``, ``eta``, ``rounding_envelope``: an
        :class:`Assumptions`, whose :data:`LEGEND` says what each is.
    estimator : str
    n_rows, n_features : int
        Of the retained rows: a refit would report the same numbers.
    expected_excess_loss : float
        Price of the noise in nats, in total.
    versions : mapping of str to str
        Packages that computed the release.
    adaptivity : str
        Which requests the claim covers, where that depends on a key. Empty: all of them.
    declared : str
        What the claim takes on trust because it cannot be proved, such as that a function of the user's treats every
        row by itself. Empty: nothing.
    schema : int
    extra : mapping
        Fields of a newer schema, kept as they came so that they survive a round trip.

    Raises
    ------
    InvalidInput
        If a field has a value that it cannot have.
    """

    claim: str
    scope: str
    method: str
    mu: float
    delta: float
    distance_bound: float
    sigma: float
    noise: str
    mu_target: float
    mu_transcript: float
    mu_differencing: float
    assumptions: Mapping[str, float]
    estimator: str
    n_rows: int
    n_features: int
    expected_excess_loss: float = 0.0
    versions: Mapping[str, str] = field(default_factory=dict)
    adaptivity: str = ""
    declared: str = ""
    schema: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if type(value) is not kind:
                object.__setattr__(self, name, convert(kind, name, value))
        if type(self.assumptions) is not Assumptions:
            object.__setattr__(self, "assumptions", Assumptions(FrozenMap(self.assumptions)))
        object.__setattr__(self, "versions", FrozenMap.of(str, self.versions))
        object.__setattr__(self, "extra", FrozenMap(self.extra))
        self._check()

    def _check(self) -> None:
        _require("claim", self.claim, self.claim in CLAIMS, CLAIMS)
        _require("scope", self.scope, self.scope in SCOPES, SCOPES)
        _require("method", self.method, self.method in METHODS, METHODS)
        _require("delta", self.delta, 0 <= self.delta <= 1, "in [0, 1]")
        for name in ("mu", "distance_bound", "sigma", "mu_target"):
            value = getattr(self, name)
            _require(name, value, value >= 0, "at least 0 and not NaN")
        for name in _MAY_BE_UNSTATED:
            value = getattr(self, name)
            _require(name, value, not value < 0, "at least 0, or NaN if it is not stated")
        for name in ("n_rows", "n_features", "schema"):
            value = getattr(self, name)
            _require(name, value, 0 <= value < 2**53, "a count")
        _require("mu", self.mu, self.claim != "exact" or self.mu == 0, 'equal to 0 for the claim "exact"')
        _require("mu", self.mu, self.claim != "none" or math.isinf(self.mu), 'infinite for the claim "none"')
        clash = sorted(set(self.extra) & _FIELDS)
        _require("extra", clash, not clash, "fields that this schema does not have")

    @classmethod
    def exact(cls, **fields: Any) -> "Certificate":
        """Return the certificate of a state that is a refit's bit for bit; give the fields that say of what."""
        zeros: dict[str, Any] = dict.fromkeys(
            ("mu", "delta", "distance_bound", "sigma", "mu_target", "mu_transcript"), 0.0
        )
        nature = {"claim": "exact", "scope": "estimator", "method": "exact", "noise": "none", "assumptions": {}}
        return cls(**{**zeros, **nature, "mu_differencing": math.nan, **fields})

    def for_rows(self, n_rows: int) -> "Certificate":
        """Return a copy for another number of rows."""
        out = copy(self)
        _require("n_rows", n_rows, type(n_rows) is int and 0 <= n_rows < 2**53, "a count")
        object.__setattr__(out, "n_rows", n_rows)
        return out

    @property
    def epsilon(self) -> float:
        """Epsilon at the certificate's own delta, in nats, rounded up."""
        return self.epsilon_at(self.delta)

    def epsilon_at(self, delta: float) -> float:
        """Return epsilon at ``delta``, in nats, rounded up; 0 for an exact state, infinity without a guarantee."""
        return epsilon_of(self.mu, delta)

    def delta_at(self, epsilon: float) -> float:
        """Return delta at ``epsilon`` nats, rounded up; 0 for an exact state, 1 without a guarantee."""
        return delta_of(epsilon, self.mu)

    @property
    def selection(self) -> str:
        """ "covered" if the refit repeats the choice of the model and its parameters, else "not covered"."""
        return "covered" if self.scope == "search" else "not covered"

    @property
    def limits(self) -> tuple[str, ...]:
        """What the certificate does not say, one sentence each."""
        return _limits(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values; fields that are not stated are left out, ``extra`` is merged in."""
        values = {name: thaw(getattr(self, name)) for name in _FIELDS_IN_ORDER}
        for name in _MAY_BE_UNSTATED:
            if math.isnan(values[name]):
                del values[name]
        for name in ("adaptivity", "declared"):
            if not values[name]:
                del values[name]
        return {**values, **thaw(self.extra)}

    def with_audits(self, *results: Any) -> "Certificate":
        """Return a copy with these results of audits in its audit block; see :func:`certified.audit.audited`."""
        if not results:
            return self
        block = [*self.extra.get("audit", ()), *(FrozenMap(result.to_dict()) for result in results)]
        return dataclasses.replace(self, extra={**thaw(self.extra), "audit": thaw(block)})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Certificate":
        """Return the certificate that `to_json` wrote: equal to it and with the same digest.

        Raises
        ------
        InvalidInput
            If the text is not JSON, is no object, repeats or lacks a field, or a field has a value it cannot have.
        """
        values = parse(text)
        missing = [name for name in _REQUIRED if name not in values]
        if missing:
            raise InvalidInput(
                f"Certificate.from_json(text) got a record without {missing}. All of {list(_REQUIRED)} are needed. "
                "Pass the text that to_json wrote."
            )
        known = {name: values.pop(name) for name in _FIELDS_IN_ORDER if name in values}
        return cls(**{**dict.fromkeys(_MAY_BE_UNSTATED, math.nan), **known}, extra=values)

    def public(self) -> "Certificate":
        """Return a copy that can be handed out: the promise, without values measured on the data.

        ``mu``, ``distance_bound`` and the assumptions are functions of the data to which no noise was added, and the
        method tells how the state was reached. They belong in the controller's file. Beside a release they would be a
        second, un-noised release, to which the guarantee does not extend. The copy states the promise instead:
        ``mu = mu_target`` and ``distance_bound = sigma * mu_target``. Its method is "measured", which every
        state can become. ``mu_transcript`` and ``mu_differencing`` are not stated; unknown fields are left out. Counts
        of retained rows stay, since a refit has the same.

        Raises
        ------
        CannotCertify
            If ``mu`` exceeds ``mu_target``: then the promise was not kept.
        """
        hidden: dict[str, Any] = {
            "mu_transcript": math.nan,
            "mu_differencing": math.nan,
            "assumptions": {},
            "extra": {},
        }
        if self.claim == "exact":
            return dataclasses.replace(self, **hidden)
        if self.claim == "none":
            return dataclasses.replace(self, distance_bound=math.inf, method="measured", **hidden)
        if not self.mu <= self.mu_target:
            raise CannotCertify(
                f"public() got a certificate with mu={self.mu!r}, above its promise mu_target={self.mu_target!r}. A "
                "public certificate states the promise, so it must hold. Improve the state before the release."
            )
        bound = self.sigma * self.mu_target
        promise: dict[str, Any] = {"mu": self.mu_target, "distance_bound": bound, "method": "measured"}
        return dataclasses.replace(self, **promise, **hidden)

    def _page(self) -> Any:
        from certified.report import certificate_page

        return certificate_page(self)

    def __str__(self) -> str:
        return "\n".join([*_claim_lines(self), "Limits:", *(f"- {x}" for x in self.limits)])


_FIELDS_IN_ORDER = tuple(f.name for f in dataclasses.fields(Certificate) if f.name != "extra")
_FIELDS = frozenset({*_FIELDS_IN_ORDER, "extra"})
_KINDS = MappingProxyType({f.name: f.type for f in dataclasses.fields(Certificate) if f.type in (str, int, float)})
_REQUIRED = tuple(
    f.name
    for f in dataclasses.fields(Certificate)
    if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING and f.name not in _MAY_BE_UNSTATED
)


@dataclass(frozen=True, eq=False)
class Receipt(_Shown):
    """What one deletion, or one addition, did.

    Parameters
    ----------
    n_subjects, n_rows : int
        Deleted (or added) by this request.
    method : str
        How the state was brought up to date.
    certificate : Certificate
        Of the state afterwards.
    mu_differencing : float
        Estimated mu between the release before and the release after, for somebody who knows the other rows.
    passes : int
        Passes over the retained rows.
    changed : tuple of str
        Pipeline steps whose learned state changed.
    act : {"delete", "add"}
    ignored : tuple of int or str
        Subjects of a request with ``missing="ignore"`` that were not retained, unknown or deleted already.
    ids : {"given", "index", "row numbers"}
        What the ids of the subjects are: those given to ``fit``, labels of a pandas frame, or numbers of rows.
    """

    n_subjects: int
    n_rows: int
    method: str
    certificate: Certificate
    mu_differencing: float
    passes: int = 0
    changed: tuple[str, ...] = ()
    act: str = "delete"
    ignored: tuple[Any, ...] = ()
    ids: str = "given"

    def __post_init__(self) -> None:
        for name, kind in (("n_subjects", int), ("n_rows", int), ("passes", int), ("mu_differencing", float)):
            object.__setattr__(self, name, convert(kind, name, getattr(self, name)))
        object.__setattr__(self, "changed", tuple(self.changed))
        object.__setattr__(self, "ignored", tuple(self.ignored))

    @property
    def n_ignored(self) -> int:
        """How many subjects of the request were not retained."""
        return len(self.ignored)

    @property
    def mu_differencing_outsider(self) -> float:
        """The same for somebody without the other rows, who has to compare two noisy releases: 1/sqrt(2) of it."""
        return self.mu_differencing / math.sqrt(2)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain Python values, the certificate as a nested dict."""
        values = {f.name: thaw(getattr(self, f.name)) for f in dataclasses.fields(self)}
        return values | {"certificate": self.certificate.to_dict()}

    def _page(self) -> Any:
        from certified.report import receipt_page

        return receipt_page(self)

    def __str__(self) -> str:
        steps = f" Steps whose learned state changed: {', '.join(self.changed)}." if self.changed else ""
        done = "Added" if self.act == "add" else "Removed"
        named = "" if self.ids == "given" else f", named by {'the index' if self.ids == 'index' else self.ids}"
        missing = f" Not held, and ignored: {_listed(self.ignored)}." if self.ignored else ""
        if self.act == "delete" and self.n_rows:
            steps += "\nRemoved: the influence of these records on the fitted state."
        return (
            f"{done} {self.n_rows} rows of {self.n_subjects} subjects{named} ({self.method}, passes over the retained "
            f"rows: {self.passes}).{missing}{steps}\n"
            f"{told_by_two(self.mu_differencing, done.lower())} {told_by_two_alone(self.mu_differencing)}".rstrip()
            + f"\n{self.certificate}"
        )


@dataclass(frozen=True)
class Preview:
    """What a deletion would do; nothing was changed. False where it would be refused.

    Parameters
    ----------
    n_subjects, n_rows : int
        Found for this request.
    method : str
        How the state would be brought up to date; "" where it would not.
    changed : tuple of str
        Steps whose learned state would change.
    mu_differencing : float
        As in :class:`Receipt`.
    passes : int
        Passes over the retained rows.
    seconds : float
        What it took to work out the new state, which is most of what the deletion takes; NaN where nothing was.
    ignored : tuple of int or str
        Subjects that are not retained, where these are ignored.
    refused : str
        Why the deletion would be refused; empty where it would not.
    """

    n_subjects: int
    n_rows: int
    method: str
    changed: tuple[str, ...]
    mu_differencing: float = 0.0
    passes: int = 0
    seconds: float = math.nan
    ignored: tuple[Any, ...] = ()
    refused: str = ""

    def __bool__(self) -> bool:
        return not self.refused

    def __str__(self) -> str:
        found = f"{self.n_rows} rows of {self.n_subjects} subjects"
        missing = f" Not held, and ignored: {_listed(self.ignored)}." if self.ignored else ""
        if self.refused:
            return f"A deletion of {found} would be refused: {self.refused}{missing}"
        steps = f" Steps whose learned state would change: {', '.join(self.changed)}." if self.changed else ""
        return (
            f"A deletion of {found} would be carried out ({self.method}, passes over the retained rows: {self.passes})."
            f"{missing}{steps}"
        )


def _listed(ids: tuple[Any, ...]) -> str:
    shown = ", ".join(map(repr, ids[:5]))
    return f"{len(ids)} ({shown}{', ...' if len(ids) > 5 else ''})"


@dataclass(frozen=True)
class Refused:
    """A value in the place of a result that cannot be certified; false, and it says why."""

    reason: str
    what: str = ""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return f"refused{f' ({self.what})' if self.what else ''}: {self.reason}"


def _require(name: str, value: Any, holds: bool, allowed: str | tuple[str, ...]) -> None:
    if not holds:
        allowed = allowed if isinstance(allowed, str) else f"one of {allowed}"
        raise InvalidInput(f"Certificate({name}=...) got {value!r}. {name} must be {allowed}. Nothing was certified.")


def _claim_lines(c: Certificate) -> list[str]:
    """The positive half of the text: what was removed, within what of what, assuming what."""
    head = f"Certificate for {c.estimator} ({c.n_rows} rows, {c.n_features} features)"
    if c.claim == "none":
        return [head, f"No guarantee is given (noise: {c.noise}): mu = inf, epsilon = inf."]
    lines = [head]
    if c.claim == "exact":
        return [
            *lines,
            f"The state is the same, bit for bit, as that of a fit of the {c.scope} on these rows alone (mu = 0).",
            *([f"Requests covered: {c.adaptivity}."] if c.adaptivity else []),
            *_declared_lines(c),
        ]
    lines += [
        f"The release is within mu = {c.mu:.4g} (epsilon = {c.epsilon:.4g} at delta = {c.delta:.4g}) of a release of a",
        f"fit of the {c.scope} to its exact minimum on these rows alone, {_METHODS[c.method]}.",
        f"Distance at most {c.distance_bound:.4g}; noise: sigma = {c.sigma:.4g}, {c.noise}.",
        f"Expected excess loss: {c.expected_excess_loss:.4g} nats.",
    ]
    lines += _declared_lines(c)
    if c.assumptions:
        lines += ["Measured:", *(f"- {line}" for line in str(c.assumptions).splitlines())]
    if c.adaptivity:
        lines.append(f"Requests covered: {c.adaptivity}.")
    if not math.isnan(c.mu_transcript):
        promised = c.extra.get("mu_transcript_promised")
        lines.append(
            f"All releases so far together: mu = {c.mu_transcript:.4g} as composed of measured values"
            + (f", mu = {promised:.4g} as promised whatever was asked." if promised is not None else ".")
        )
    return lines


def _declared_lines(c: Certificate) -> list[str]:
    return [f"Taken on trust, tested but not proved: {c.declared}."] if c.declared else []


def _limits(c: Certificate) -> tuple[str, ...]:
    scope = {
        "estimator": "Steps before this estimator, and the choice of the model and its parameters, are not covered.",
        "pipeline": "Choices made outside the pipeline, such as a search for parameters, are not covered.",
        "search": "Selection: covered, among the candidates of the search; which candidates there are is not.",
    }[c.scope]
    return (
        "It speaks of this release only, not of the private state that is kept to serve later deletions.",
        scope,
        "Whoever also holds an earlier release can compare the two; that is not limited by it.",
        *([] if math.isnan(c.mu_differencing) else [told_by_two(c.mu_differencing)]),
        "The rows that remain may still tell something about the person.",
        "Copies outside this model, such as raw data, backups and logs, are not covered.",
        "It is a statement about a computation, not about compliance with any law.",
    )
