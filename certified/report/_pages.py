"""From the values of a document to its page: claim and limits first, figures after, proof last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from certified.accounting import epsilon_of
from certified.ledger import Checkpoint, LogProof, VerifyingKey
from certified.report._page import Block, Code, Curve, Facts, Items, Page, Section, Table, Text
from certified.report._words import (
    claim_in_words,
    curve_points,
    differencing_in_words,
    moment,
    number,
    rest_of_promise,
)

__all__ = ["certificate_page", "document_page", "receipt_page"]

_TITLES = {
    "controller": "Certificate of deletion",
    "public": "Certificate of a published model",
    "receipt": "Receipt of a deletion",
}
_NAMES = {  # of fields, where their own name would not do
    "actorRole": "Decided by (role)",
    "basis": "Legal basis",
    "changedSteps": "Steps that changed",
    "decidedAt": "Decided",
    "dueAt": "Due",
    "erasedAt": "Erased from the files",
    "exceptionsChecked": "Exceptions checked",
    "files": "Files overwritten",
    "fileSystem": "File system",
    "identityChecked": "Identity checked",
    "inventoryId": "Number in the model inventory",
    "keeper": "What stays in the keeper",
    "key": "Request",
    "method": "Method",
    "muTranscript": "All releases together (mu)",
    "nRows": "Rows removed",
    "nSubjects": "Subjects removed",
    "notHeld": "Ids that were not held",
    "passes": "Passes over the retained rows",
    "receivedAt": "Received",
    "releasedAt": "Released",
    "removedAt": "Removed from the model",
    "sealedAt": "Sealed",
    "tier": "Materiality",
    "volumeEncryption": "Volume encrypted",
}
_METHODS = {
    "exact": "exact: sums and counts from which the rows were subtracted",
    "predicted": "predicted: a bound from sums over the deleted rows alone",
    "measured": "measured: a bound from one pass over the retained rows",
}
_METRICS = {
    "auc": "AUC",
    "gini": "Gini",
    "ks": "KS",
    "brier": "Brier score",
    "psi": "PSI",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
}
_ORDER = (
    *("key", "basis", "receivedAt", "dueAt", "decidedAt", "actorRole", "identityChecked", "exceptionsChecked"),
    *("removedAt", "erasedAt", "sealedAt", "nSubjects", "nRows", "notHeld", "method", "passes", "changedSteps"),
    *("files", "fileSystem", "volumeEncryption", "keeper", "commitment", "salt"),
)
_HIDDEN = ("muDifferencing",)  # told in words


def document_page(kind: str, values: Mapping[str, Any], proof: LogProof | None, keys: Sequence[VerifyingKey]) -> Page:
    """Return the page of a document from the values that are signed."""
    model = values.get("model", {})
    name = " ".join(str(model[key]) for key in ("name", "version") if key in model)
    certificate = values.get("certificate", values.get("claim", {}))
    sections = [_claim(kind, certificate), Section("What this does not say", [Items(values.get("limits", ()))])]
    sections += _facts("The request", values.get("request"))
    sections += _erased(values)
    if kind != "receipt":
        sections += _figures(certificate, values)
        sections += _utility(certificate)
        sections += _facts("Where it comes from", {**values.get("lineage", {}), **_without(model, "name", "version")})
    else:
        sections += _facts("What proves that it is about you", values.get("subject"))
    sections += _facts("Computed with", values.get("environment"))
    sections += _proof(values.get("log", {}), proof, keys)
    sections.append(_commands(kind, proof))
    return Page(_TITLES[kind], name, [section for section in sections if section.blocks])


def certificate_page(certificate: Any) -> Page:
    """Return the page of a Certificate alone."""
    values = certificate.to_dict()
    sections = [
        _claim("controller", values),
        Section("What this does not say", [Items(certificate.limits)]),
        *_figures(values, {}),
        *_utility(values),
    ]
    name = f"{certificate.estimator}, {certificate.n_rows:,} rows, {certificate.n_features:,} features"
    return Page("Certificate", name, [section for section in sections if section.blocks])


def receipt_page(receipt: Any) -> Page:
    """Return the page of the Receipt that ``delete`` gave."""
    done: dict[str, Any] = {"nSubjects": receipt.n_subjects, "nRows": receipt.n_rows, "method": receipt.method}
    done |= {"passes": receipt.passes, "changedSteps": list(receipt.changed)}
    whole = certificate_page(receipt.certificate)
    first, *rest = whole.sections
    told = Text(differencing_in_words(receipt.mu_differencing))
    more = [Section("What was done", [Facts(list(_rows(done)))]), Section("Two releases together", [told])]
    return Page("Receipt of a deletion", whole.subtitle, [first, rest[0], *more, *rest[1:]])


def _claim(kind: str, certificate: Mapping[str, Any]) -> Section:
    mu = float(certificate.get("mu", math.inf))
    claim, scope = certificate.get("claim", "none"), certificate.get("scope", "estimator")
    words = claim_in_words(claim, mu, scope, certificate.get("adaptivity", ""))
    if kind == "receipt" and claim != "none":
        words = "Your data have been deleted from this model. " + words
    return Section("What is certified", [Text(words, strong=True)])


def _erased(values: Mapping[str, Any]) -> list[Section]:
    sections = _facts("What was deleted", _without(values.get("deletion", {}), *_HIDDEN))
    sections += _facts("What was erased", values.get("erasure"))
    places = values.get("notCovered", {})
    if places:
        rows = [(place, state) for place, state in sorted(places.items())]
        sections.append(Section("What was not erased", [Table(("Place", "State"), rows)]))
    told = values.get("deletion", {}).get("muDifferencing")
    if told is not None:
        sections.append(Section("Two releases together", [Text(differencing_in_words(float(told)))]))
    return sections


def _figures(certificate: Mapping[str, Any], values: Mapping[str, Any]) -> list[Section]:
    """The technical annex: every symbol explained."""
    if certificate.get("claim") != "indistinguishable":
        rows = [
            ("Rows retained", number(certificate.get("n_rows")), ""),
            ("Features", number(certificate.get("n_features")), ""),
        ]
        return [Section("Figures", [Facts(rows)])] if "n_rows" in certificate else []
    mu, delta = float(certificate["mu"]), float(certificate["delta"])
    target = float(certificate["mu_target"])
    remark = "distance of the release from one of a refit, in units of the noise"
    used = rest_of_promise(mu, target)
    rows = [
        ("mu", number(mu), remark if mu == target else f"{remark}; {used}"),
        ("mu promised", number(target), "no release leaves with a larger one"),
        (
            "epsilon",
            number(epsilon_of(mu, delta)),
            f"bound on the logarithm of odds, but for a share of {number(delta)}",
        ),
        ("distance", number(certificate["distance_bound"]), "at most, to the parameter of a refit"),
        ("sigma", number(certificate["sigma"]), f"size of the noise ({certificate['noise']})"),
        ("method", str(certificate["method"]), _METHODS.get(certificate["method"], "").partition(": ")[2]),
        ("loss by the noise", number(certificate["expected_excess_loss"]), "expected, in nats, all rows together"),
        ("rows retained", number(certificate["n_rows"]), ""),
        ("features", number(certificate["n_features"]), ""),
    ]
    transcript = values.get("budget", {}).get("muTranscript", certificate.get("mu_transcript"))
    if transcript is not None:
        rows.append(("mu of all releases", number(transcript), "of this model so far, together"))
    for name, value in certificate.get("assumptions", {}).items():
        rows.append((name, number(value), "measured; the bound rests on it"))
    table = Table(("delta", "epsilon"), [(f"{d:g}", number(epsilon_of(mu, d))) for d in (1e-5, 1e-6, 1e-9)])
    blocks: list[Block] = [Facts(rows), table]
    points = curve_points(mu, delta)
    if points:
        text = "All pairs of epsilon and delta that hold at once: the release is bound by every point of the curve."
        blocks.append(Curve(points, (epsilon_of(mu, delta), delta), text))
    return [Section("Figures", blocks)]


def _utility(certificate: Mapping[str, Any]) -> list[Section]:
    """Quality before and after, and verdicts of audits."""
    audits = certificate.get("audit", ())
    sections = []
    for found in audits:
        before, after = found.get("before"), found.get("after")
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            continue
        refit = found.get("refit") or {}
        tables = [_with_gini(part) for part in (before, after, refit)]
        head = ("Metric", "Before", "After", "Change", *(("Refit",) if refit else ()))
        rows = [_metric(name, *tables, with_refit=bool(refit)) for name in tables[1]]
        notes = [Text(str(found.get("reason", "")))]
        if "psi" in found:
            notes.append(Text(f"Scores before against after: PSI {number(found['psi'])}; below 0.1 counts as stable."))
        sections.append(Section("Quality before and after", [Table(head, rows), *notes]))
    told = [(str(x.get("audit")), str(x.get("verdict")), str(x.get("reason"))) for x in audits]
    if told:
        sections.append(Section("Audits", [Table(("Audit", "Verdict", "Reason"), told)]))
    return sections


def _with_gini(metrics: Mapping[str, Any]) -> dict[str, float]:
    values = {name: float(value) for name, value in metrics.items()}
    return values | ({"gini": 2 * values["auc"] - 1} if "auc" in values and "gini" not in values else {})


def _metric(
    name: str, before: Mapping[str, float], after: Mapping[str, float], refit: Mapping[str, float], *, with_refit: bool
) -> list[str]:
    old, new = before.get(name, math.nan), after[name]
    cells = [_METRICS.get(name, name.replace("_", " ")), number(old), number(new), f"{new - old:+.2g}"]
    return [*cells, number(refit.get(name, math.nan))] if with_refit else cells


def _proof(log: Mapping[str, Any], proof: LogProof | None, keys: Sequence[VerifyingKey]) -> list[Section]:
    rows = list(_rows(log))
    if proof is not None:
        head = Checkpoint.parse(proof.checkpoint.text)
        rows += [
            ("Entry", number(proof.index), "place in the log"),
            ("Size of the log", number(head.size), ""),
            ("Root of the log", head.root.hex(), "compare it with one that you know from elsewhere"),
            ("Signatures", ", ".join(mark.name for mark in proof.checkpoint.signatures), "of the log and of witnesses"),
        ]
    rows += [(f"Key of {key.name}", key.fingerprint, f"SHA-256, {key.algorithm}") for key in keys]
    return [Section("Proof", [Facts(rows)])] if rows else []


def _commands(kind: str, proof: LogProof | None) -> Section:
    lines = ["pip install 'certified-unlearning[vault]'", f"certified verify {kind}.dsse.json --key log.vkey"]
    if kind == "public":
        lines[1] += " --file release=release.json"
    lines.append(
        f"certified verify {kind}.dsse.json --key log.vkey --proof {kind}.tlog-proof --entry {kind}.entry.json"
    )
    return Section("How to check it yourself", [Code("\n".join(lines))])


def _facts(title: str, values: Mapping[str, Any] | None) -> list[Section]:
    rows = list(_rows(values or {}))
    return [Section(title, [Facts(rows)])] if rows else []


def _rows(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    known = [key for key in _ORDER if key in values]
    for key in [*known, *(key for key in values if key not in known)]:
        value = values[key]
        name = _NAMES.get(key) or _spaced(key)
        if key.endswith("At"):
            yield name, moment(value), ""
        elif key == "method":
            yield name, _METHODS.get(str(value), str(value)), ""
        elif isinstance(value, Mapping):
            yield name, ", ".join(f"{part} {number(item)}" for part, item in value.items()), ""
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or "none", ""
        else:
            yield name, number(value) if not isinstance(value, str) else value, ""


def _spaced(key: str) -> str:
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in key)
    return words[:1].upper() + words[1:]


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
