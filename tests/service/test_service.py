"""The service: who may do what, requests that can be sent twice, and answers that are documented."""

import threading
import warnings

import numpy as np
import pytest

pytest.importorskip("cryptography")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")

with warnings.catch_warnings():  # the test client's own, about the package that it uses
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

from certified.linear_model import Ridge
from certified.service import create_app, new_token
from certified.vault import Vault
from certified.vault._files import locked

N = 100
RNG = np.random.default_rng(2)
X = RNG.standard_normal((N, 3))
Y = X[:, 0] + RNG.standard_normal(N)
IDS = np.array([f"C{i:05d}" for i in range(N)])


@pytest.fixture
def served(tmp_path):
    Vault.create(tmp_path / "v", Ridge().fit(X, Y, ids=IDS), origin="bank.example/s").close()
    tokens = {role: new_token(tmp_path / "v", role) for role in ("submit", "officer", "audit")}
    with TestClient(create_app(tmp_path / "v")) as client:
        yield tmp_path / "v", client, {role: {"Authorization": f"Bearer {token}"} for role, token in tokens.items()}


def submit(client, who, key, ids):
    return client.post("/requests", json={"ids": ids}, headers={**who, "Idempotency-Key": key})


def test_from_a_request_to_its_certificate(served):
    path, client, who = served
    made = submit(client, who["submit"], "r1", ["C00003", "nobody"])
    assert (made.status_code, made.json()["status"]) == (202, "queued")
    assert client.post("/process", headers=who["officer"]).json() == {"subjects": 1, "requests": ["r1"], "sealed": True}
    found = client.get("/requests/r1", headers=who["submit"]).json()
    assert (found["status"], found["subjects"], found["absent"]) == ("erased", 1, 1)
    files = client.get("/requests/r1/certificate", headers=who["audit"]).json()
    assert "controller.dsse.json" in files
    assert len(client.post("/requests/r1/receipts", headers=who["officer"]).json()) == 2
    assert client.post("/requests/r1/receipts", headers=who["officer"]).status_code == 404
    assert client.get("/ledger/head", headers=who["audit"]).text.startswith("bank.example/s\n")
    assert client.get("/status", headers=who["audit"]).json()["requests"] == {"erased": 1}
    with Vault.open(path) as vault:
        assert vault.verify()


def test_the_same_key_again_is_the_same_request_and_with_other_ids_a_conflict(served):
    _, client, who = served
    first = submit(client, who["submit"], "r1", ["C00003"])
    assert submit(client, who["submit"], "r1", ["C00003"]).json() == first.json()
    assert submit(client, who["submit"], "r1", ["C00004"]).status_code == 409
    assert len(client.get("/requests", headers=who["audit"]).json()) == 1


@pytest.mark.parametrize(
    ("method", "path", "roles"),
    [
        ("POST", "/requests", {"submit", "officer"}),
        ("GET", "/requests", {"submit", "officer", "audit"}),
        ("GET", "/requests/none", {"submit", "officer", "audit"}),
        ("GET", "/requests/none/certificate", {"officer", "audit"}),
        ("POST", "/requests/none/receipts", {"officer"}),
        ("POST", "/process", {"officer"}),
        ("GET", "/status", {"officer", "audit"}),
        ("GET", "/ledger/head", {"officer", "audit"}),
    ],
)
def test_nothing_is_answered_without_a_token_of_the_right_role(served, method, path, roles):
    _, client, who = served
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic abc"}):
        assert client.request(method, path, headers=headers).status_code == 401
    for role, headers in who.items():
        code = client.request(method, path, headers=headers).status_code
        assert (code == 403) == (role not in roles), (role, code)


def test_tokens_are_stored_as_hashes_for_their_owner_alone(served):
    path, _, who = served
    stored = (path / "tokens.json").read_text()
    assert not any(headers["Authorization"].removeprefix("Bearer ") in stored for headers in who.values())
    assert (path / "tokens.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "body",
    [{}, {"ids": []}, {"ids": ["a\u0000"]}, {"ids": [1.5]}, {"ids": ["a"], "received": "yesterday"}, {"ids": [2**70]}],
)
def test_what_is_no_request_is_refused_and_nothing_is_recorded(served, body):
    _, client, who = served
    answer = client.post("/requests", json=body, headers={**who["submit"], "Idempotency-Key": "k"})
    assert answer.status_code == 422
    assert client.post("/requests", json={"ids": ["a"]}, headers=who["submit"]).status_code == 422, "no key"
    never = {"ids": ["a"], "received": "0000-00-00T00:00:00Z"}
    assert client.post("/requests", json=never, headers={**who["submit"], "Idempotency-Key": "k"}).status_code == 400
    assert client.get("/requests", headers=who["submit"]).json() == []


def test_a_vault_at_work_takes_requests_and_tells_a_second_worker(served):
    path, client, who = served
    with locked(path / "lock"):
        assert submit(client, who["submit"], "r1", ["C00003"]).status_code == 202
        assert client.post("/process", headers=who["officer"]).status_code == 409
    assert client.post("/process", headers=who["officer"]).status_code == 200


def test_two_clients_at_once_lose_nothing(served):
    path, client, who = served

    def work(first):
        for i in range(first, first + 8):
            assert submit(client, who["submit"], f"r{i}", [str(IDS[i])]).status_code == 202
            client.post("/process", headers=who["officer"])

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.post("/process", headers=who["officer"])
    found = client.get("/requests?status=erased", headers=who["audit"]).json()
    assert len(found) == 16
    with Vault.open(path) as vault:
        assert vault.verify()
        assert vault.model.n_rows_ == N - 16


def test_the_page_loads_nothing_from_elsewhere_and_the_interface_is_described(served):
    _, client, _ = served
    page = client.get("/").text
    assert "http" not in page.replace("<!doctype html>", "").replace("httpEquiv", "")
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) >= {"/requests", "/requests/{key}", "/process", "/status"}
    assert all("401" in one["responses"] for path in paths.values() for one in path.values())
