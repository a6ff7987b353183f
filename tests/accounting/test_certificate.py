"""Certificates as records: canonical, strict to read, careful in what they say."""

import dataclasses
import hashlib
import json
import math
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certified.accounting import epsilon_of
from certified.certificate import Certificate, Receipt, Refused
from certified.errors import CannotCertify, InvalidInput

FIELDS = {
    "claim": "indistinguishable",
    "scope": "estimator",
    "method": "predicted",
    "mu": 0.012,
    "delta": 1e-5,
    "distance_bound": 0.0012,
    "sigma": 0.1,
    "noise": "lattice Gaussian, operating-system entropy",
    "mu_target": 0.02,
    "mu_transcript": 0.03,
    "mu_differencing": 0.8,
    "assumptions": {"nu": 0.001, "M": 0.02},
    "estimator": "LogisticRegression",
    "n_rows": 1000,
    "n_features": 20,
    "expected_excess_loss": 0.1,
    "versions": {"certified": "0.1.0"},
}
NEVER_SAID = ("deleted", "forgotten", "forget", "gdpr", "cannot be inferred", "verified", "\N{EM DASH}")


def make(**changes):
    return Certificate(**{**FIELDS, **changes})


def exact(**changes):
    return make(claim="exact", method="exact", mu=0, distance_bound=0, **changes)


def none(**changes):
    return make(claim="none", mu=math.inf, noise="seeded, no guarantee", **changes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abé\U0001f600\uffff", max_size=4), inner),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    mu=st.floats(0, allow_nan=False),
    mu_differencing=st.floats(0, allow_nan=False) | st.just(math.nan),
    assumptions=st.dictionaries(st.text("abcMé", min_size=1, max_size=5), st.floats()),
    n_rows=st.integers(0, 2**53 - 1),
    extra=st.dictionaries(st.text("xyz_", min_size=1), json_values, max_size=3),
)
def test_a_certificate_survives_the_round_trip_with_its_digest(**changes):
    certificate = make(**changes)
    for text in (certificate.to_json(), certificate.to_json(indent=2), certificate.canonical_bytes()):
        again = Certificate.from_json(text)
        assert again == certificate
        assert hash(again) == hash(certificate)
        assert again.digest == certificate.digest
        assert again.canonical_bytes() == certificate.canonical_bytes()


def test_canonical_bytes_are_sorted_compact_and_without_bare_floats():
    raw = make(mu_differencing=math.inf, versions={"b": "é", "a": "\n"}).canonical_bytes()
    values = json.loads(raw, parse_float=pytest.fail, parse_constant=pytest.fail)
    assert raw == json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert values["mu"] == "0.012"
    assert values["delta"] == "1e-05"
    assert values["mu_differencing"] == "Infinity"
    assert values["n_rows"] == 1000
    assert values["versions"] == {"a": "\n", "b": "é"}


def test_keys_are_sorted_by_utf16_code_units_as_rfc_8785_asks():
    raw = make(versions={"\uffff": "1", "\U0001f600": "2"}).canonical_bytes().decode()
    assert raw.index("\U0001f600") < raw.index("\uffff")


DIGEST = "sha256:8816f29eeac743cbba8efd6f7811327a4dd128057276abb24002c8c4d653834d"


def test_the_digest_is_the_sha256_of_the_canonical_bytes_and_does_not_change_between_releases():
    certificate = make()
    assert certificate.digest == "sha256:" + hashlib.sha256(certificate.canonical_bytes()).hexdigest()
    assert certificate.digest == DIGEST


def test_every_field_counts_for_the_digest():
    changed = {
        "scope": "pipeline",
        "method": "measured",
        "estimator": "Ridge",
        "adaptivity": "a",
        "noise": "n",
        "assumptions": {},
        "versions": {},
        "extra": {"x": 1},
        "schema": 2,
        "n_rows": 7,
        "n_features": 7,
    }
    others = [make(**{name: value}) for name, value in changed.items()]
    floats = [f.name for f in dataclasses.fields(Certificate) if f.type is float]
    others += [make(**{name: 0.5}) for name in floats] + [exact(), none()]
    assert len({c.digest for c in [make(), *others]}) == len(others) + 1


def test_unknown_fields_of_a_newer_schema_survive():
    text = json.dumps({**json.loads(make(schema=2).to_json()), "audit": {"runs": 500, "mu_low": "0.0", "x": [1, None]}})
    certificate = Certificate.from_json(text)
    assert certificate.extra["audit"]["runs"] == 500
    assert certificate.schema == 2
    assert json.loads(certificate.to_json()) == json.loads(text)


def test_a_certificate_cannot_be_changed():
    certificate = make()
    with pytest.raises(dataclasses.FrozenInstanceError):
        certificate.mu = 0.0
    with pytest.raises(TypeError, match="item assignment"):
        certificate.assumptions["nu"] = 0.0
    with pytest.raises(AttributeError, match="cannot be changed"):
        certificate.assumptions._items = ()
    assert list(certificate.assumptions) == ["M", "nu"]
    assert hash(certificate.assumptions) == hash(make().assumptions)


def test_a_certificate_can_be_pickled():
    assert pickle.loads(pickle.dumps(make())) == make()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        "null",
        "{}",
        '{"mu": NaN}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        b"\xff",
        None,
        make().to_json().replace('"0.012"', '"nan"'),
        make().to_json().replace('"0.012"', "NaN"),
        make().to_json().replace('"0.012"', "true"),
        make().to_json().replace("1000", '"1000"'),
        make().to_json().replace("1000", "10.5"),
        make().to_json().replace('"claim"', '"extra"'),
        make().to_json().replace('{"certified":"0.1.0"}', "[]"),
    ],
    ids=range(17),
)
def test_bad_text_is_refused(text):
    with pytest.raises(InvalidInput, match="got"):
        Certificate.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"claim": "deleted"},
        {"scope": "world"},
        {"method": "magic"},
        {"mu": -1.0},
        {"mu": math.nan},
        {"delta": 1.1},
        {"sigma": math.nan},
        {"mu_transcript": -0.1},
        {"n_rows": -1},
        {"n_rows": True},
        {"estimator": 3},
        {"assumptions": {"nu": "much"}},
        {"assumptions": {1: 0.0}},
        {"versions": {"numpy": 2}},
        {"claim": "exact"},
        {"claim": "none"},
        {"extra": {"mu": 0.0}},
    ],
)
def test_fields_that_cannot_be_are_refused(changes):
    with pytest.raises(InvalidInput, match="got"):
        make(**changes)


def test_a_value_that_json_cannot_hold_is_refused():
    with pytest.raises(InvalidInput, match="of type object"):
        make(extra={"x": object()}).canonical_bytes()
    with pytest.raises(InvalidInput, match="surrogates"):
        make(estimator="\ud800").canonical_bytes()


def test_epsilon_and_delta_follow_from_mu():
    certificate = make(mu=0.2)
    assert certificate.epsilon == epsilon_of(0.2, 1e-5)
    assert certificate.delta_at(certificate.epsilon_at(1e-6)) <= 1e-6


def test_an_exact_claim_has_epsilon_zero_and_no_claim_has_epsilon_infinity():
    assert exact().epsilon == exact(delta=0.0).epsilon == 0
    assert exact().delta_at(0.0) == 0
    assert none().epsilon == math.inf
    assert none().delta_at(10.0) == 1


def test_the_public_copy_depends_on_the_promise_alone():
    one = make(extra={"audit": 1})
    other = make(
        mu=0.019, distance_bound=0.0019, mu_transcript=7, mu_differencing=9, assumptions={"eta": 1}, method="measured"
    )
    assert one.public() == other.public()
    public = one.public()
    assert (public.mu, public.distance_bound) == (0.02, 0.1 * 0.02)
    assert not public.assumptions
    assert not {"mu_transcript", "mu_differencing"} & set(json.loads(public.to_json()))
    assert Certificate.from_json(public.to_json()) == public == public.public()


def test_the_public_copy_of_other_claims_holds_no_measured_value():
    assert exact().public().mu == 0
    assert none().public() == none(distance_bound=3.0, assumptions={}, method="measured").public()
    assert none().public().epsilon == math.inf


def test_a_broken_promise_is_not_published():
    with pytest.raises(CannotCertify, match="mu_target"):
        make(mu=0.021).public()


@pytest.mark.parametrize("certificate", [make(), exact(), none(), make(scope="pipeline"), make().public()])
def test_the_text_says_what_is_claimed_and_never_more(certificate):
    text = str(certificate)
    assert not [phrase for phrase in NEVER_SAID if phrase in text.lower()]
    assert all(sentence in text for sentence in certificate.limits)
    assert "earlier release" in text
    assert all(line == line.strip() and len(line) < 140 for line in text.splitlines())


def test_the_text_names_bound_scope_assumptions_and_noise():
    text = str(make(scope="pipeline"))
    for part in ("mu = 0.012", "epsilon = ", "delta = 1e-05", "pipeline", "nu = 0.001", "sigma = 0.1", "mu = 0.8"):
        assert part in text
    assert "fit of the estimator" in str(make())
    assert "bit for bit" in str(exact())


def test_without_a_guarantee_the_text_claims_nothing_and_says_why():
    text = str(none())
    assert "No guarantee is given (noise: seeded, no guarantee)" in text
    assert "Removed" not in text
    assert "No guarantee is given (noise: none)" in str(dataclasses.replace(none(), noise="none"))


def test_a_receipt_reports_what_was_done_and_the_risk_of_comparing_releases():
    receipt = Receipt(2, 5, "predicted", make(), 0.8, passes=1, changed=["scaler"])
    assert receipt.mu_differencing_outsider == pytest.approx(0.8 / math.sqrt(2))
    assert receipt.changed == ("scaler",)
    values = json.loads(receipt.to_json(indent=1))
    assert Certificate.from_json(json.dumps(values["certificate"])) == receipt.certificate
    assert receipt == Receipt(2, 5, "predicted", make(), 0.8, 1, ("scaler",))
    assert receipt.digest != Receipt(2, 5, "predicted", make(), 0.8).digest
    text = str(receipt)
    for part in ("5 rows of 2 subjects", "mu = 0.8", "0.5657", "scaler", "Limits:"):
        assert part in text
    assert not [phrase for phrase in NEVER_SAID if phrase in text.lower()]


def test_a_refusal_is_false_and_says_why():
    refused = Refused("the Hessian is singular", what="certificate")
    assert not refused
    assert str(refused) == "refused (certificate): the Hessian is singular"
    assert refused == Refused("the Hessian is singular", "certificate")
    assert str(Refused("no")) == "refused: no"
