"""The test vectors of docs/sealed-requests.md, by our implementation and by another."""

import json
import re
from pathlib import Path

import hpke_reference
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.receipts import PROTECTED, Receipt, read_receipt
from torchkeep.runtime.sealed_messages import (
    AnswerEnd,
    AnswerHead,
    AnswerOpener,
    AnswerSealer,
    Destination,
    InnerRequest,
    Session,
    key_id,
    open_request,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "sealed-requests.md"


class Vector:
    """One block of the document."""

    def __init__(self, block: str) -> None:
        lines = (line.partition(":") for line in block.splitlines())
        self.texts = {name: value.strip() for name, _, value in lines}

    def __getitem__(self, name: str) -> bytes:
        return bytes.fromhex(self.texts[name])

    @property
    def destination(self) -> Destination:
        names = ("method", "path", "model_name", "model_version")
        return Destination(*(self.texts[name] for name in names))

    @property
    def request(self) -> InnerRequest:
        head = json.loads(self.texts["head"])
        return InnerRequest(
            self["response_key"],
            int(self.texts["time_ms"]),
            self["request_id"],
            [(name.encode(), value.encode()) for name, value in head["headers"]],
            head["query"],
            self.texts["body"].encode(),
            head.get("session", False),
        )

    @property
    def inside(self) -> bytes:
        head = self.texts["head"].encode()
        start = self["response_key"] + int(self.texts["time_ms"]).to_bytes(8, "big")
        length = len(head).to_bytes(4, "big")
        return start + self["request_id"] + length + head + self.texts["body"].encode()


BY_HPKE, IN_SESSION, ANSWER, RECEIPT = map(
    Vector,
    re.findall(
        r"```text\n(.*?)```", DOCUMENT.read_text().partition("## Test vectors")[2], re.DOTALL
    ),
)


def test_a_request_by_hpke() -> None:
    key = HpkeKey(X25519PrivateKey.from_private_bytes(BY_HPKE["hpke_private_key"]))
    assert key.public_key == BY_HPKE["hpke_public_key"]
    assert key_id(key.public_key) == BY_HPKE["key_id"]
    assert BY_HPKE.destination.info(BY_HPKE["key_id"]) == BY_HPKE["info"]
    ephemeral = X25519PrivateKey.from_private_bytes(BY_HPKE["ephemeral_private_key"])
    sealed = hpke_reference.seal(key.public_key, ephemeral, BY_HPKE["info"], BY_HPKE.inside)
    assert b"\1" + BY_HPKE["key_id"] + sealed == BY_HPKE["sealed"]
    opened = open_request(
        key.private_key, BY_HPKE["key_id"], BY_HPKE.destination, BY_HPKE["sealed"]
    )
    assert opened == BY_HPKE.request


def test_a_request_in_a_session() -> None:
    session = Session(BY_HPKE.request)
    assert session.id == IN_SESSION["session_id"]
    assert IN_SESSION.destination.info(session.id) == IN_SESSION["associated_data"]
    sealed = session.seal(IN_SESSION.destination, IN_SESSION.request, IN_SESSION["nonce"])
    assert sealed == IN_SESSION["sealed"]
    assert session.open(IN_SESSION.destination, sealed) == IN_SESSION.request


def test_the_key_of_a_session() -> None:
    prk = hpke_reference.hmac.digest(bytes(32), BY_HPKE["response_key"], "sha256")
    key = hpke_reference.hmac.digest(prk, b"torchkeep sealed session 1\1", "sha256")
    assert key == IN_SESSION["session_key"]


def test_an_answer() -> None:
    sealer = AnswerSealer(ANSWER["response_key"], ANSWER["request_id"], ANSWER["nonce_prefix"])
    texts = ANSWER.texts
    head, end = json.loads(texts["head"]), json.loads(texts["end"])
    answer_head = AnswerHead(head["status"], head["reason"], [(b"content-type", b"text/plain")])
    answer_end = AnswerEnd([(name.encode(), value.encode()) for name, value in end["headers"]])
    pieces = [texts["body_1"].encode(), texts["body_2"].encode()]
    sealed = sealer.begin(answer_head, pieces[0]) + sealer.body(pieces[1])
    assert sealed + sealer.end(b"", answer_end) == ANSWER["answer"]
    opener = AnswerOpener(ANSWER["response_key"], ANSWER["request_id"])
    parts = list(opener.feed(ANSWER["answer"]))
    opener.finish()
    assert parts == [answer_head, *pieces, answer_end]


def test_a_receipt() -> None:
    scalar = int.from_bytes(RECEIPT["private_key"], "big")
    key = AttestedKey(ec.derive_private_key(scalar, ec.SECP256R1()))
    assert key.public_key == RECEIPT["public_key"]
    receipt = read_receipt(RECEIPT.texts["receipt"], key.public_key)
    payload = json.loads(RECEIPT.texts["payload"])
    assert receipt.nonce == payload["nonce"]
    assert receipt.model.digest.hex() == payload["model"]["sha256"]
    again: Receipt = read_receipt(receipt.signed(key), key.public_key)
    assert again == receipt
    signed_part = receipt.signed(key).rpartition(".")[0]
    assert signed_part == RECEIPT.texts["receipt"].rpartition(".")[0]
    assert signed_part.startswith(PROTECTED)
