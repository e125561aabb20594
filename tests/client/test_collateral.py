"""Where collateral comes from; the service is a stand-in that speaks the protocol of a PCCS."""

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from attested import NONCE, AttestedServer, policy_for, spki
from serving import serving

from torchkeep.client.collateral import (
    KEPT_S,
    CollateralFile,
    CollateralService,
    NoCollateral,
    collateral_source,
    read_collateral,
)
from torchkeep.client.errors import CollateralError
from torchkeep.client.verifier import verify_document
from torchkeep.runtime import simulated_tee

QUOTE = simulated_tee.mint_quote(bytes(64))


@pytest.fixture(scope="module", autouse=True)
def loop_of_the_library() -> None:
    """dcap_qvl starts one at its first question, with a pair of sockets, and keeps it for ever."""
    with contextlib.suppress(CollateralError):
        CollateralService("http://127.0.0.1:1").text(QUOTE)


@dataclass
class Pccs:
    """Answers for every platform with collateral of the simulated TEE."""

    asked: list[str] = field(default_factory=list)
    is_broken: bool = False
    age_s: float = 0.0  # of what it answers
    url: str = ""

    @contextmanager
    def listening(self) -> Iterator["Pccs"]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        with serving(server):
            yield self

    def answer(self, path: str) -> tuple[bytes, str, str]:
        """Body, and the header that has the chain of who signed it."""
        found = json.loads(simulated_tee.collateral(time.time() - self.age_s))
        match path.rsplit("/", 1)[1]:
            case "pckcrl":
                name, chain = "SGX-PCK-CRL-Issuer-Chain", found["pck_crl_issuer_chain"]
                return bytes.fromhex(found["pck_crl"]), name, chain
            case "tcb":
                body = _signed("tcbInfo", found["tcb_info"], found["tcb_info_signature"])
                return body, "TCB-Info-Issuer-Chain", found["tcb_info_issuer_chain"]
            case "identity":
                body = _signed(
                    "enclaveIdentity", found["qe_identity"], found["qe_identity_signature"]
                )
                name = "SGX-Enclave-Identity-Issuer-Chain"
                return body, name, found["qe_identity_issuer_chain"]
            case "rootcacrl":
                return found["root_ca_crl"].encode(), "X-None", "none"
        raise AssertionError(path)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        pccs = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                pccs.asked.append(path)
                body, name, chain = pccs.answer(path)
                self.send_response(500 if pccs.is_broken else 200)
                self.send_header(name, quote(chain))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Not to the terminal."""

        return Handler


def _signed(name: str, text: str, signature: str) -> bytes:
    return f'{{"{name}":{text},"signature":"{signature}"}}'.encode()


def test_service_is_asked_once_in_an_hour() -> None:
    now = [0.0]
    with Pccs().listening() as pccs:
        service = CollateralService(pccs.url, lambda: now[0])
        text = service.text(QUOTE)
        asked = len(pccs.asked)
        now[0] = KEPT_S - 1
        assert service.text(QUOTE) == text
        assert len(pccs.asked) == asked
        now[0] = KEPT_S
        service.text(QUOTE)
        assert len(pccs.asked) == 2 * asked
        pccs.is_broken = True
        now[0] = 2 * KEPT_S
        with pytest.raises(CollateralError, match=pccs.url):
            service.text(QUOTE)


@pytest.mark.parametrize("left_s", [60, -60])
def test_collateral_is_not_kept_for_longer_than_it_lasts(left_s: float) -> None:
    now = [0.0]
    with Pccs(age_s=simulated_tee.LIFETIME.total_seconds() - left_s).listening() as pccs:
        service = CollateralService(pccs.url, lambda: now[0])
        old = read_collateral(service.text(QUOTE)).expires
        pccs.age_s = 0.0
        now[0] = 61.0
        assert read_collateral(service.text(QUOTE)).expires > old


def test_collateral_of_a_service_verifies_a_quote() -> None:
    server = AttestedServer()
    with Pccs().listening() as pccs:
        verdict = verify_document(
            server.document(),
            policy_for(server),
            nonce=NONCE,
            tls_key=spki(server.key),
            collateral=CollateralService(pccs.url),
        )
    assert verdict.failed == []
    assert pccs.url in next(check.text for check in verdict.checks if check.name == "collateral")


def test_service_that_is_away_is_named() -> None:
    with Pccs().listening() as pccs:
        pass
    with pytest.raises(CollateralError, match=f"{pccs.url}: "):
        CollateralService(pccs.url).text(QUOTE)
    with pytest.raises(CollateralError, match="names no platform"):
        CollateralService(pccs.url).text(QUOTE[:632])


def test_policy_says_where_collateral_is(tmp_path: Any) -> None:
    server = AttestedServer()
    file = collateral_source(policy_for(server, collateral_file=tmp_path / "c.json"))
    service = collateral_source(policy_for(server, pccs_url="https://pccs.example"))
    assert isinstance(file, CollateralFile)
    assert isinstance(service, CollateralService)
    assert isinstance(collateral_source(policy_for(server)), NoCollateral)


def test_period_is_that_of_all_parts_together() -> None:
    now = 1_800_000_000
    whole = json.loads(simulated_tee.collateral(now))
    for part, other in [("qe_identity", now - 86400), ("pck_crl", now - 2 * 86400)]:
        whole[part] = json.loads(simulated_tee.collateral(other))[part]
    read = read_collateral(json.dumps(whole))
    assert read.issued.timestamp() == now
    assert read.expires.timestamp() == now - 2 * 86400 + 30 * 86400
