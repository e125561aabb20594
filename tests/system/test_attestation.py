"""A whole server that can show what it is: by /attestation, by TLS, and to a key broker."""

import base64
import hashlib
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from key_services import Agent, Broker
from sealing import KEY_ID, mar_bytes, write_sealed

from torchkeep.runtime import simulated_tee
from torchkeep.runtime.claims import Claims, parse_claims, report_data
from torchkeep.runtime.quote import parse_quote
from torchkeep.runtime.ratls import read_certificate

Factory = Callable[..., Any]
KEK = secrets.token_bytes(32)
HANDLER = "def handle(data, context): return data and [b'answer'] * len(data)"
ARCHIVE = mar_bytes("m", files={"h.py": HANDLER})
NONCE = secrets.token_bytes(32)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    root = tmp_path / "store"
    root.mkdir()
    (root / "m.mar").write_bytes(ARCHIVE)
    write_sealed(root / "sealed.mar", ARCHIVE, kek=KEK)
    return root


def verified(quote: bytes) -> None:
    now = int(time.time())
    collateral = dcap_qvl.QuoteCollateralV3.from_json(simulated_tee.collateral(now))
    root = simulated_tee.root_certificate()
    assert dcap_qvl.verify_with_root_ca(quote, collateral, root, now).status == "UpToDate"


def evidence(server: Any, nonce: bytes = NONCE) -> tuple[dict[str, Any], Claims]:
    """The document, and its claims: those that the quote is bound to."""
    text = base64.urlsafe_b64encode(nonce).decode().rstrip("=")
    status, _, body = server.request("GET", f"/attestation?nonce={text}")
    assert status == 200, body
    document: dict[str, Any] = json.loads(body)
    quote, buffer = (base64.b64decode(document[name]) for name in ("quote", "claims"))
    verified(quote)
    assert parse_quote(quote).report.report_data == report_data(buffer)
    return document, parse_claims(buffer)


def over_tls(address: str) -> tuple[bytes, http.client.HTTPSConnection]:
    """The certificate, and a connection on which nothing has been sent yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address, context=context, timeout=60)
    connection.connect()
    certificate = connection.sock.getpeercert(binary_form=True)
    assert certificate
    return certificate, connection


def test_simulated_server_says_so_and_shows_what_it_serves(
    store: Path, server_factory: Factory, free_port: Callable[[], int]
) -> None:
    port = free_port()
    config = {"attested_tls": "true", "attested_address": f"https://127.0.0.1:{port}"}
    server = server_factory(
        ["m.mar"], store, config, args=["--insecure-simulated-tee"], asks_for_keys=True
    )
    server.wait_until_ready("m")
    # Nobody needs a key to ask; whoever asks shows none yet.
    document, claims = evidence(server)
    assert document["tee"] == claims.tee == "simulated"
    assert claims.nonce == NONCE
    assert claims.models is not None
    [model] = claims.models
    assert (model.name, model.version) == ("m", "1.0")
    assert model.digest == hashlib.sha256(ARCHIVE).digest()
    public_key = base64.b64decode(document["public_key"])
    assert claims.public_key_hash == hashlib.sha256(public_key).digest()
    log = server.log_text()
    told = f"SIMULATED evidence for clients: GET /attestation, configuration {claims.config.hex()}"
    assert told in log
    assert "SIMULATED TEE (insecure_simulated_tee=true): it protects nothing" in log
    assert f"Attested inference API bind to: https://127.0.0.1:{port}" in log

    certificate, connection = over_tls(f"127.0.0.1:{port}")
    attested = read_certificate(certificate)
    verified(attested.quote)
    of_certificate = parse_claims(attested.claims)
    assert parse_quote(attested.quote).report.report_data == report_data(attested.claims)
    assert attested.public_key == public_key
    assert (of_certificate.nonce, of_certificate.models) == (None, None)
    assert of_certificate.public_key_hash == claims.public_key_hash
    assert of_certificate.config == claims.config
    headers = {"Authorization": f"Bearer {server.keys['inference']}"}
    for _ in range(2):  # the connection stays
        connection.request("POST", "/predictions/m", b"x", headers)
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"answer")
    connection.close()
    assert server.stop() == 0


def test_evidence_follows_what_is_served(store: Path, server_factory: Factory) -> None:
    server = server_factory(["m.mar"], store, args=["--insecure-simulated-tee"])
    before = evidence(server)[1]
    assert server.request("DELETE", "/models/m", port="management")[0] == 200
    nonce = secrets.token_bytes(16)
    after = evidence(server, nonce)[1]
    assert after.models == ()
    assert after.nonce == nonce
    assert (after.config, after.hpke_key) == (before.config, before.hpke_key)


def test_keys_of_a_process_are_its_own(store: Path, server_factory: Factory) -> None:
    args = ["--insecure-simulated-tee"]
    first, second = (evidence(server_factory(store=store, args=args))[1] for _ in range(2))
    assert first.public_key_hash != second.public_key_hash
    assert first.hpke_key != second.hpke_key


@pytest.mark.parametrize("is_right", [True, False], ids=["known", "unknown"])
def test_key_is_released_to_the_measured_server_alone(
    is_right: bool, store: Path, memory: Path, server_factory: Factory, poll: Any
) -> None:
    other = simulated_tee.measurement("another image")
    # The agent is a stand-in; its quotes and whoever verifies them are what they are.
    agent = Agent(lambda data: simulated_tee.mint_quote(data, mr_td=None if is_right else other))
    broker = Broker()
    broker.resources[KEY_ID.removeprefix("kbs:///")] = KEK
    with agent.listening(), broker.listening():
        server = server_factory(
            ["sealed.mar"],
            store,
            {
                "key_source": f"kbs:{broker.address}",
                "evidence": f"agent:{agent.address}",
                "unpack_directory": str(memory),
                "default_workers_per_model": "1",
            },
        )
        assert "SIMULATED" not in server.log_text()
        if is_right:
            server.wait_until_ready("m")
            assert server.request("POST", "/predictions/m", b"x")[2] == b"answer"
            claims = evidence(server)[1]
            assert claims.tee == "tdx"
            assert [event["operation"] for event in agent.events] == ["load-model"]
            assert claims.models is not None
            assert claims.models[0].digest == hashlib.sha256(ARCHIVE).digest()
        else:
            # Nothing is wrong with its evidence, but with what was measured.
            server.wait_for_lines("policy denied")
            assert broker.refusals[0] == "mr_td: not the reference value"
            assert server.request("POST", "/predictions/m", b"x")[0] == 503
            assert set(broker.mr_tds_seen) == {other}
        assert server.stop() == 0


def test_agent_may_be_simulated_and_nobody_is_deceived(
    store: Path, memory: Path, server_factory: Factory
) -> None:
    """Broker and client meet one TEE, as in a pod; the word `simulated` is in every document."""
    measured = simulated_tee.measurement("initdata")
    agent = Agent(lambda data: simulated_tee.mint_quote(data, mr_config_id=measured))
    broker = Broker()
    broker.reference_values["mr_config_id"] = measured
    broker.resources[KEY_ID.removeprefix("kbs:///")] = KEK
    with agent.listening(), broker.listening():
        config = {
            "key_source": f"kbs:{broker.address}",
            "evidence": f"agent:{agent.address}",
            "insecure_simulated_tee": "true",
            "unpack_directory": str(memory),
            "default_workers_per_model": "1",
        }
        server = server_factory(["sealed.mar"], store, config)
        server.wait_until_ready("m")
        assert "SIMULATED TEE" in server.log_text()
        document, claims = evidence(server)
        assert document["tee"] == claims.tee == "simulated"
        assert parse_quote(base64.b64decode(document["quote"])).report.mr_config_id == measured
        assert broker.mr_tds_seen == [simulated_tee.measurement("MRTD")]
        assert [event["operation"] for event in agent.events] == ["load-model"]
        assert server.stop() == 0


def test_agent_that_goes_away_costs_evidence_and_nothing_else(
    store: Path, server_factory: Factory
) -> None:
    agent = Agent(simulated_tee.mint_quote)
    with agent.listening():
        server = server_factory(["m.mar"], store, {"evidence": f"agent:{agent.address}"})
        server.wait_until_ready("m")
        evidence(server)
    text = base64.urlsafe_b64encode(NONCE).decode().rstrip("=")
    status, headers, body = server.request("GET", f"/attestation?nonce={text}")
    assert (status, headers["retry-after"]) == (503, "1")
    assert agent.address.encode() not in body
    assert "No evidence for a client" in server.wait_for_lines("No evidence for a client")
    assert server.request("POST", "/predictions/m", b"x")[2] == b"answer"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"attested_tls": "true"}, "there is no evidence to show"),
        ({"evidence": "agent:http://192.0.2.1:8006"}, "192.0.2.1 is not this machine"),
        ({"evidence": "sev"}, "evidence=sev: sev is none; expected agent"),
        ({"evidence": "tsm", "insecure_simulated_tee": "true"}, "either is possible"),
        (
            {"insecure_simulated_tee": "true", "attested_tls": "true"}
            | {"attested_address": "http://127.0.0.1:8443"},
            "expected https://host:port",
        ),
        (
            {"insecure_simulated_tee": "true", "attested_tls": "true"}
            | {"inference_address": "http://0.0.0.0:8080"},
            "would take requests from other machines past it",
        ),
        (
            {"evidence": "agent:http://127.0.0.1:1", "attested_tls": "true"},
            "attested_tls=true: The attestation agent http://127.0.0.1:1",
        ),
    ],
)
def test_server_that_could_not_show_what_it_promises_does_not_start(
    config: dict[str, str], reason: str, server_factory: Factory
) -> None:
    server = server_factory(config=config, is_expected_to_start=False)
    assert server.process.wait(60) == 1
    assert reason in server.log_text()
    assert "Traceback" not in server.log_text()
