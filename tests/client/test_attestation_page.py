"""docs/attestation.md says what the code does."""

import re
from dataclasses import replace
from pathlib import Path

from attested import NONCE, AttestedServer, policy_for, spki

from torchkeep.client.policy import parse_policy
from torchkeep.client.verifier import verify_certificate, verify_document
from torchkeep.runtime.claims import parse_claims, report_data

PAGE = (Path(__file__).resolve().parents[2] / "docs/attestation.md").read_text("utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_vectors_are_claims_and_their_report_data() -> None:
    vectors = blocks("text")
    assert len(vectors) == 2
    for vector in vectors:
        buffer, data = (
            bytes.fromhex(part.replace("\n", "")) for part in vector.split("REPORTDATA")
        )
        assert report_data(buffer) == data
        parse_claims(buffer)


def test_example_is_a_policy() -> None:
    [text] = blocks("yaml")
    assert set(parse_policy(text).measurements) == {"mr_td", "rtmr1", "mr_config_id"}


def test_every_check_is_explained() -> None:
    table = PAGE.split("## The checks")[1].split("## The client")[0]
    explained = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.M))))
    server = AttestedServer()
    policy = policy_for(server)
    fewer = replace(policy, measurements={"mr_td": policy.measurements["mr_td"]})
    verdicts = [
        verify_document(server.document(), one, nonce=NONCE, tls_key=spki(server.key))
        for one in (policy, fewer)
    ]
    verdicts.append(verify_certificate(server.certificate(), policy))
    made = {check.name for verdict in verdicts for check in verdict.checks}
    made.add("certificate")
    assert made <= explained | {"rtmr1", "rtmr2"}
    assert explained <= made
