"""Documents: what each reader gets, and that what is signed cannot be changed."""

import base64
import dataclasses
import html.parser
import json
import math
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("cryptography")

from certified.certificate import METHODS, Certificate, Receipt
from certified.errors import InvalidInput, NotVerified
from certified.ledger import Ledger, SigningKey
from certified.report import DeletionRecord, Envelope, open_document
from certified.report._words import claim_in_words, curve_points, differencing_in_words, guess

NAME = "bank.example/credit-default"
KEY = SigningKey.generate(NAME)
RELEASE = b"the file that is published"
UTILITY = {
    "audit": "Utility",
    "verdict": "NOT REFUTED",
    "reason": "No metric is worse than that of a refit by more than 0.01.",
    "before": {"auc": 0.78125, "brier": 0.134},
    "after": {"auc": 0.78, "brier": 0.1342},
    "refit": {},
    "psi": 0.0012,
}
MEASURED = Certificate(
    claim="indistinguishable",
    scope="pipeline",
    method=METHODS[-1],
    mu=0.0217,
    delta=1e-6,
    distance_bound=0.001234,
    sigma=0.0577,
    noise="discrete Gaussian, entropy of the operating system",
    mu_target=0.1963,
    mu_transcript=0.3117,
    mu_differencing=1.717,
    assumptions={"nu": 0.01777},
    estimator="LogisticRegression",
    n_rows=284_000,
    n_features=23,
    extra={"audit": [UTILITY]},
)


def record(certificate=MEASURED, **changes):
    return DeletionRecord(
        certificate,
        model={"name": "Credit default", "version": "12", "inventoryId": "MR-0417", "purpose": "consumer credit"},
        request={
            "key": "2026-0417",
            "basis": "GDPR Art. 17(1)(b)",
            "receivedAt": "2026-11-02T09:14:00Z",
            "dueAt": "2026-12-02T09:14:00Z",
            "actorRole": "data protection officer",
            "identityChecked": True,
        },
        deletion={"removedAt": "2026-11-04T10:01:02Z", "nSubjects": 1, "nRows": 14, "muDifferencing": 0.8477},
        erasure={
            "erasedAt": "2026-11-04T10:01:03Z",
            "method": "overwritten in place and synced",
            "files": ["rows/x.rows"],
        },
        budget={"releases": 12, "muTranscript": 0.3117},
        lineage={"release": "sha256:" + "e" * 64, "recipients": ["partner bank"]},
        log={"origin": NAME, "vault": "5f3c"},
        subject={"commitment": "aa" * 32, "salt": "bb" * 32},
        **changes,
    )


def test_importing_it_loads_no_numerics():
    code = "import json, sys, certified.report; print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in json.loads(run.stdout)}
    assert loaded & {"numpy", "scipy", "sklearn", "jax", "polars", "cryptography"} == set()


@pytest.mark.parametrize("kind", ["controller", "public", "receipt"])
def test_a_signed_document_comes_back_as_it_was(kind):
    document = record().document(kind)
    signed = document.sign(KEY, {"release": RELEASE})
    opened = open_document(signed.to_json(), [KEY.public], {"release": RELEASE})
    assert opened.document.canonical_bytes() == document.canonical_bytes()
    assert opened.document.to_html() == document.to_html()
    assert opened.document.to_markdown() == document.to_markdown()
    with pytest.raises(NotVerified, match="about other files"):
        open_document(signed.to_json(), [KEY.public], {"release": RELEASE + b"x"})
    with pytest.raises(NotVerified, match="0 of the given keys"):
        open_document(signed.to_json(), [SigningKey.generate(NAME).public])


def test_the_public_certificate_holds_the_promise_and_nothing_that_was_measured():
    text = record().document("public").canonical_bytes().decode()
    for measured in ("0.0217", "0.001234", "0.3117", "1.717", "0.01777", "0.8477", "0.78125", "Utility"):
        assert measured in record().document("controller").canonical_bytes().decode()
        assert measured not in text
    for of_a_request in ("2026-0417", "Art. 17", "nRows", "partner bank", "MR-0417", "aaaa", "bbbb"):
        assert of_a_request not in text
    assert "0.1963" in text


def test_the_receipt_has_the_persons_own_proof_and_no_figure_of_others():
    text = record().document("receipt").canonical_bytes().decode()
    assert "aa" * 32 in text
    assert "bb" * 32 in text
    for others in (
        "0.0217",
        "0.3117",
        "1.717",
        "nRows",
        "nSubjects",
        "284000",
        "partner bank",
        "Utility",
        "rows/x.rows",
    ):
        assert others not in text
    assert "aa" * 32 not in record().document("controller").canonical_bytes().decode()


def test_a_request_with_a_field_that_is_not_known_is_refused():
    with pytest.raises(InvalidInput, match="no id of a person"):
        dataclasses.replace(record(), request={"name": "Jane Doe"})
    with pytest.raises(InvalidInput, match="use one of"):
        record().document("other")


def test_no_bit_of_a_signed_document_can_be_changed():
    signed = record().document("receipt").sign(KEY, {"release": RELEASE})
    payload = int.from_bytes(signed.payload)
    for bit in range(0, 8 * len(signed.payload), 5):
        other = (payload ^ (1 << bit)).to_bytes(len(signed.payload))
        with pytest.raises(NotVerified):
            dataclasses.replace(signed, payload=other).verify([KEY.public])
    with pytest.raises(NotVerified):
        dataclasses.replace(signed, payload_type="application/json").verify([KEY.public])


def test_two_of_two_signatures_can_be_asked_for_and_one_key_counts_once():
    other = SigningKey.generate("bank.example/model-risk", "ecdsa-p256")
    document = record().document("controller")
    both = document.sign([KEY, other], {"release": RELEASE}).to_json()
    open_document(both, [KEY.public, other.public], threshold=2)
    twice = document.sign([KEY, KEY], {"release": RELEASE}).to_json()
    with pytest.raises(NotVerified, match="1 of the given keys"):
        open_document(twice, [KEY.public, KEY.public], threshold=2)


def test_statements_that_are_not_ours_are_refused_though_signed():
    for payload in (b"[]", b'{"_type":"https://in-toto.io/Statement/v1","predicate":1}', b"x"):
        with pytest.raises(NotVerified, match="no statement"):
            Envelope.sign(payload, [KEY]).verify([KEY.public])
    foreign = b'{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"x","subject":[]}'
    with pytest.raises(NotVerified, match="not known to this version"):
        open_document(Envelope.sign(foreign, [KEY]).to_json(), [KEY.public])
    for text in ("", "{}", "[]", '{"payload": 1, "payloadType": "x", "signatures": []}'):
        with pytest.raises(NotVerified, match="this text is none"):
            Envelope.parse(text)


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256"])
def test_securesystemslib_verifies_our_envelopes(algorithm):
    dsse = pytest.importorskip("securesystemslib.dsse")
    signer = pytest.importorskip("securesystemslib.signer")
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = SigningKey.generate(NAME, algorithm)
    text = record().document("controller").sign(key, {"release": RELEASE}).to_json()
    theirs = signer.SSlibKey.from_crypto(load_pem_public_key(key.public.pem.encode()), keyid=key.public.fingerprint)
    assert list(dsse.Envelope.from_dict(json.loads(text)).verify([theirs], 1)) == [key.public.fingerprint]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_verifies_our_envelopes(tmp_path):
    values = json.loads(record().document("public").sign(KEY, {"release": RELEASE}).to_json())
    payload, kind = base64.b64decode(values["payload"]), values["payloadType"].encode()
    (tmp_path / "message").write_bytes(b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload))
    (tmp_path / "signature").write_bytes(base64.b64decode(values["signatures"][0]["sig"]))
    (tmp_path / "key.pem").write_text(KEY.public.pem)
    files = ["-inkey", "key.pem", "-in", "message", "-sigfile", "signature"]
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-rawin", *files]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0


class _Reader(html.parser.HTMLParser):
    """Checks that every element is closed, and collects what a browser would load."""

    EMPTY = ("meta", "line", "circle", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text, self.headings = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in ("src", "href", "action", "data")]
        assert tag != "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.mark.parametrize("kind", ["controller", "public", "receipt"])
def test_pages_are_well_formed_load_nothing_and_begin_with_claim_and_limits(tmp_path, kind):
    ledger = Ledger.create(tmp_path / "log.db", NAME, KEY)
    ledger.append("erased")
    reader = _Reader()
    page = record().document(kind).to_html(ledger.proof(0), ledger.keys)
    reader.feed(page)
    assert reader.open == []
    assert reader.loads == []
    assert "url(" not in page
    assert "@import" not in page
    assert reader.headings[:2] == ["What is certified", "What this does not say"]
    assert reader.headings[-1] == "How to check it yourself"
    text = "".join(reader.text)
    assert ledger.root.hex() in text
    assert KEY.public.fingerprint in text


def test_names_cannot_write_into_a_page():
    evil = "<script>alert(1)</script>|`x`**\"'&"
    document = dataclasses.replace(record(), model={"name": evil, "version": evil}).document("controller")
    reader = _Reader()
    reader.feed(document.to_html())
    assert "<script>" not in document.to_html()
    assert "<script>" not in document.to_markdown().replace("\\<", "")
    assert evil in "".join(reader.text)


@pytest.mark.parametrize("claim", ["exact", "none", "indistinguishable"])
def test_certificates_and_receipts_are_pages_in_notebooks_too(claim):
    fields = {"estimator": "Ridge", "n_rows": 100, "n_features": 3, "delta": 0.0}
    certificate = {
        "exact": Certificate.exact(**fields),
        "none": dataclasses.replace(MEASURED, claim="none", mu=math.inf),
        "indistinguishable": MEASURED,
    }[claim]
    receipt = Receipt(1, 14, certificate.method, certificate, 0.8477, 1, ("scaler",))
    for shown in (certificate, receipt):
        for text in (shown.to_html(), shown._repr_html_()):
            reader = _Reader()
            reader.feed(text)
            assert reader.open == []
            assert reader.headings[:2] == ["What is certified", "What this does not say"]
        assert shown.to_markdown().startswith(("# Certificate", "# Receipt"))
        assert all(limit in "".join(reader.text) for limit in certificate.limits)
    assert shown._repr_html_().startswith("<style>")


@given(st.floats(0, 8))
def test_the_share_of_right_guesses_is_that_of_two_normal_distributions_rounded_up(mu):
    from scipy.stats import norm

    share = float(guess(mu).removesuffix(" %")) / 100
    assert norm.cdf(mu / 2) - 1e-9 <= share <= min(1.0, norm.cdf(mu / 2) + 0.0011)


def test_the_curve_is_that_of_the_certificate():
    points = curve_points(MEASURED.mu, MEASURED.delta)
    assert len(points) == 41
    for epsilon, delta in points:
        assert delta == max(MEASURED.delta_at(epsilon), 1e-12)
    assert not curve_points(0.0, 1e-6)
    assert not curve_points(math.inf, 1e-6)
    page = MEASURED.to_html()
    assert page.count("<polyline") == 1
    assert f"epsilon {MEASURED.epsilon:.3g} at delta" in page


def test_words_say_what_figures_say():
    assert "bit for bit" in claim_in_words("exact", 0.0, "pipeline")
    assert "Nothing is guaranteed" in claim_in_words("none", math.inf, "pipeline")
    assert "Requests covered: those before the key." in claim_in_words("exact", 0.0, "search", "those before the key")
    assert "not estimated" in differencing_in_words(math.nan)
    assert "are the same" in differencing_in_words(0.0)
    text = record().document("controller").to_markdown()
    assert "Gini" in text
    assert "0.5625" in text, "Gini of an AUC of 0.78125"
    assert "11 % of what is promised" in text
