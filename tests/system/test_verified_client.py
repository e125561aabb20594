"""Client and verifier against a whole server, the production code on both sides."""

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dcap_qvl
import httpx
import pytest
from key_services import Agent, Broker
from sealing import KEY_ID, mar_bytes, write_sealed
from tls_proxy import TlsProxy

from torchkeep.client import Client, NotVerified, parse_policy, receipt_of
from torchkeep.client.attesting import Where, ask, judge_seen
from torchkeep.client.commands import main
from torchkeep.client.policy import read_policy
from torchkeep.runtime import simulated_tee
from torchkeep.runtime.claims import ModelClaim

HANDLER = """
from ts.handler_utils.utils import send_intermediate_predict_response as send

def handle(data, context):
    if data and data[0]["body"] == b"in pieces":
        send([b"one "], context.request_ids, "Intermediate Prediction success", 200, context)
        return [b"two"]
    return data and [row["body"] for row in data]
"""
ARCHIVE = mar_bytes("m", files={"h.py": HANDLER})
MODEL = ModelClaim("m", "1.0", hashlib.sha256(ARCHIVE).digest())
ANY_SIMULATED = parse_policy(
    "version: 1\nmeasurements: any\nconfig: any\nmodels: any\nallow_simulated: true\n"
)


@pytest.fixture
def start(
    tmp_path: Path, server_factory: Callable[..., Any], free_port: Callable[[], int]
) -> Callable[..., tuple[str, Any]]:
    """Starts a server with one model; the URL of its attested listener, and the server."""

    def started(config: dict[str, str] | None = None) -> tuple[str, Any]:
        url = f"https://127.0.0.1:{free_port()}"
        settings = {"attested_tls": "true", "attested_address": url, **(config or {})}
        arguments = ["--insecure-simulated-tee"]
        store = tmp_path / "store"
        server = server_factory(["m.mar"], store, settings, args=arguments, asks_for_keys=True)
        server.wait_until_ready("m")
        return url, server

    (tmp_path / "store").mkdir()
    return started


def test_server_is_verified_and_then_asked(
    start: Callable[..., tuple[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store/m.mar").write_bytes(ARCHIVE)
    url, server = start()
    assert main(["verify", url, "--print-policy", "--allow-simulated"]) == 0
    file = tmp_path / "policy.yaml"
    file.write_text(capsys.readouterr().out)
    policy = read_policy(file)
    assert policy.models is not None
    assert [model.digest for model in policy.models] == [hashlib.sha256(ARCHIVE).digest()]
    assert main(["verify", url, "--policy", str(file)]) == 0
    verified = capsys.readouterr().out
    assert "\n  ok    tls_key       the connection ends where the attested key is" in verified

    # Busy machines are slow: a quiet one takes a twentieth of this.
    assert min(verifying_takes(url) for _ in range(3)) < 0.5

    keys = server.keys
    management = {"management_url": server.management, "management_token": keys["management"]}
    with Client(url, file, token=keys["inference"], **management) as client:
        assert client.predict("m", b"some input").content == b"some input"
        assert client.describe("m").json()[0]["modelVersion"] == "1.0"
        assert client.ping().json() == {"status": "Healthy"}
        assert client.unregister("m").status_code == 200
        # A model that is gone is nothing that the policy forbids.
        assert client.verify().holds

    others = file.read_text().replace(hashlib.sha256(ARCHIVE).hexdigest(), "0" * 64)
    assert client_status(server, "m.mar") == 200
    with Client(url, parse_policy(others), token=keys["inference"]) as client:
        with pytest.raises(NotVerified) as refused:
            client.predict("m", b"never sent")
        assert [check.name for check in refused.value.verdict.failed] == ["models"]


def test_sealed_model_answers_sealed_predictions_through_a_proxy_that_learns_nothing(
    memory: Path, start: Callable[..., tuple[str, Any]], tmp_path: Path
) -> None:
    kek = secrets.token_bytes(32)
    write_sealed(tmp_path / "store/m.mar", ARCHIVE, kek=kek)
    broker = Broker()
    broker.resources[KEY_ID.removeprefix("kbs:///")] = kek
    with broker.listening():
        url, server = start(
            {
                "key_source": f"kbs:{broker.address}",
                "unpack_directory": str(memory),
                "require_sealed_models": "true",
                "default_workers_per_model": "1",
            }
        )
    question, token = b"marker of the input " * 40, server.keys["inference"]
    with TlsProxy(int(server.inference.rpartition(":")[2]), tmp_path).listening() as proxy:
        policy = replace(ANY_SIMULATED, models=frozenset({MODEL}))
        # Without sealing, a client does not go there.
        with Client(proxy.url, policy) as client:
            with pytest.raises(NotVerified) as refused:
                client.predict("m", question)
            assert [check.name for check in refused.value.verdict.failed] == ["tls_key"]
        options = {"sealed": True, "receipts": True, "proxy_tls": proxy.known_by}
        with Client(proxy.url, policy, token=token, **options) as client:
            for _ in range(2):
                response = client.predict("m", question, content_type="text/marker")
                assert (response.status_code, response.content) == (200, question)
                receipt = receipt_of(response)
                assert receipt is not None
                assert receipt.model == MODEL
            assert client.predict("none", question).status_code == 404
        seen = bytes(proxy.read)
    assert b"POST /predictions/m HTTP/1.1" in seen
    assert token.encode() in seen  # is for whoever lets requests in, and not sealed
    assert b"marker" not in seen
    # The attested listener takes both kinds.
    with Client(url, policy, token=token, sealed=True, receipts=True) as client:
        assert client.predict("m", question).content == question
        with client.stream("m", b"in pieces") as response:
            assert list(response.iter_raw()) == [b"one ", b"two"]
        assert receipt_of(response) is not None
    with (
        Client(url, policy, token=token) as client,
        client.stream("m", b"in pieces") as response,
    ):
        assert b"".join(response.iter_raw()) == b"one two"


def test_from_the_release_of_a_key_to_a_receipt(
    memory: Path,
    server_factory: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One TEE, known by one agent, for broker and client: both ask for the same measurement."""
    # Its root stands in for Intel's, in this process alone; all else is as with a genuine one.
    root = simulated_tee.root_certificate()
    monkeypatch.setattr(
        "torchkeep.client.verifier.dcap_qvl.verify",
        lambda quote, collateral, now: dcap_qvl.verify_with_root_ca(quote, collateral, root, now),
    )
    (tmp_path / "store").mkdir()
    kek = secrets.token_bytes(32)
    write_sealed(tmp_path / "store/m.mar", ARCHIVE, kek=kek)
    collateral = tmp_path / "collateral.json"
    collateral.write_text(simulated_tee.collateral(time.time()))
    agent, broker = Agent(simulated_tee.mint_quote), Broker()
    broker.resources[KEY_ID.removeprefix("kbs:///")] = kek
    with agent.listening(), broker.listening():
        settings = {
            "key_source": f"kbs:{broker.address}",
            "evidence": f"agent:{agent.address}",
            "unpack_directory": str(memory),
            "default_workers_per_model": "1",
        }
        server = server_factory(["m.mar"], tmp_path / "store", settings)
        server.wait_until_ready("m")
        assert broker.mr_tds_seen == [simulated_tee.measurement("MRTD")]
        with TlsProxy(int(server.inference.rpartition(":")[2]), tmp_path).listening() as proxy:
            file = tmp_path / "policy.yaml"
            about = [server.inference, "--collateral", str(collateral)]
            assert main(["verify", *about, "--print-policy"]) == 0
            file.write_text(capsys.readouterr().out)
            assert "allow_simulated" not in file.read_text()
            assert broker.mr_tds_seen[0].hex() in file.read_text()
            assert main(["verify", *about, "--policy", str(file)]) == 0
            options = {"sealed": True, "receipts": True, "proxy_tls": proxy.known_by}
            with Client(proxy.url, file, **options) as client:
                response = client.predict("m", b"marker of the input")
                assert response.content == b"marker of the input"
                receipt = receipt_of(response)
        assert receipt is not None
        assert receipt.model == MODEL
        assert b"/attestation" in proxy.read
        assert b"marker" not in proxy.read


def verifying_takes(url: str) -> float:
    """Seconds, on a new connection, once the server has a quote at hand."""
    where = Where(httpx.URL(url))
    ask(where)
    started = time.perf_counter()
    assert judge_seen(ask(where), where, ANY_SIMULATED, None).holds
    return time.perf_counter() - started


def client_status(server: Any, archive: str) -> int:
    headers = {"Authorization": f"Bearer {server.keys['management']}"}
    path = f"/models?url={archive}&initial_workers=1&synchronous=true"
    status: int = server.request("POST", path, None, headers, "management")[0]
    return status
