"""The client's side of sealed requests and of receipts."""

from dataclasses import replace
from typing import Any

import pytest

from torchkeep.client.receipts import check_receipt
from torchkeep.client.sealing import NotSealed, SealedCall, Sealer, destination
from torchkeep.frontend.targets import read_target
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.identity import AttestedKey, HpkeKey
from torchkeep.runtime.receipts import Answered, Asked, Receipt, ReceiptError
from torchkeep.runtime.sealed_messages import (
    ANSWER_TYPE,
    AnswerCut,
    AnswerHead,
    AnswerSealer,
    SealedMessageError,
    key_id,
    open_request,
    session_id,
)

KEY = HpkeKey()


@pytest.mark.parametrize(
    "path",
    [
        "/predictions/m",
        "/predictions/m/",
        "/predictions/m/1.0",
        "/predictions/m/1.0/a/b",
        "/predictions/a%2Fb",
        "/predictions/gr%C3%B6%C3%9Fe",
        "/explanations/m/2",
        "/v1/models/m:predict",
        "/v1/models/m:explain",
        "/v1/models/m:x:predict",
        "/v1/models/m:explain:predict/",
        "/v2/models/m/infer",
        "/v2/models/m/explain",
        "/invocations",
        "/models/m/invoke",
        "/m/predict",
        "/m/1.0/predict",
    ],
)
def test_client_and_server_read_the_same_out_of_a_path(path: str) -> None:
    bound = destination("post", path)
    target = read_target(bound.path.rstrip("/").split("/")[1:])
    assert target is not None
    assert (bound.model_name, bound.model_version) == (target.name or "", target.version or "")
    assert bound.method == "POST"


@pytest.mark.parametrize("path", ["/", "/ping", "/models", "/v1/models/m", "/v2/models/m", "/x/y"])
def test_only_predictions_can_be_sealed(path: str) -> None:
    with pytest.raises(ValueError, match="leads to no prediction"):
        destination("GET", path)


def answer_to(call: SealedCall, body: bytes = b"answer") -> bytes:
    sealer = AnswerSealer(call.inner.response_key, call.inner.request_id)
    return bytes(sealer.whole(AnswerHead(200, "OK", [(b"X-Own", b"1")]), body))


def test_an_answer_is_opened() -> None:
    call = Sealer(KEY.public_key).seal("POST", "/predictions/m", b"question")
    answer = call.opened(200, f"{ANSWER_TYPE}; x=y", answer_to(call))
    assert (answer.status, answer.reason, answer.body) == (200, "OK", b"answer")
    assert answer.header("x-own") == "1"
    assert answer.receipt is None


def test_an_answer_to_another_call_is_not() -> None:
    sealer = Sealer(KEY.public_key)
    one, other = (sealer.seal("POST", "/predictions/m", b"question") for _ in range(2))
    with pytest.raises(SealedMessageError):
        one.opened(200, ANSWER_TYPE, answer_to(other))
    with pytest.raises(AnswerCut):
        one.opened(200, ANSWER_TYPE, answer_to(one)[:-1])


def test_what_is_not_sealed_is_told_apart() -> None:
    call = Sealer(KEY.public_key).seal("POST", "/predictions/m")
    with pytest.raises(NotSealed, match="its status is 421: get the key") as caught:
        call.opened(421, "application/json", b"get the key")
    assert caught.value.is_key_unknown
    with pytest.raises(NotSealed) as caught:
        call.opened(200, "application/json", b"{}")
    assert not caught.value.is_key_unknown


class Clock:
    now_s = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_session_begins_when_it_was_answered_and_ends_in_time() -> None:
    clock = Clock()
    sealer = Sealer(KEY.public_key, clock)
    first = sealer.seal("POST", "/predictions/m")
    assert not sealer.seal("POST", "/predictions/m").is_in_session
    first.opened(200, ANSWER_TYPE, answer_to(first))
    second = sealer.seal("POST", "/predictions/m")
    assert second.is_in_session
    assert session_id(second.body) == first.inner.request_id
    second.opened(200, ANSWER_TYPE, answer_to(second))
    clock.now_s += 599
    assert sealer.seal("POST", "/predictions/m").is_in_session
    clock.now_s += 2
    assert not sealer.seal("POST", "/predictions/m").is_in_session
    first.opened(200, ANSWER_TYPE, answer_to(first))
    sealer.forget()
    assert not sealer.seal("POST", "/predictions/m").is_in_session


def test_nothing_is_ever_used_twice() -> None:
    sealer = Sealer(KEY.public_key)
    calls = [sealer.seal("POST", "/predictions/m", b"same") for _ in range(50)]
    assert len({call.inner.response_key for call in calls}) == 50
    assert len({call.inner.request_id for call in calls}) == 50
    assert len({call.body for call in calls}) == 50
    opened = open_request(
        KEY.private_key, key_id(KEY.public_key), destination("POST", calls[0].path), calls[0].body
    )
    assert opened == replace(calls[0].inner, headers=[])


ATTESTED = AttestedKey()
RECEIPT = Receipt(
    "fresh",
    "id",
    1,
    ModelClaim("m", "1.0", b"m" * 32),
    Asked("POST", "/predictions/m", "", "image/jpeg", b"q" * 32),
    Answered(200, "application/json", b"a" * 32),
)


def checked(**changes: Any) -> Receipt:
    expected = {
        "nonce": RECEIPT.nonce,
        "asked": RECEIPT.asked,
        "answered": RECEIPT.answered,
        "models": [ModelClaim("n", "1.0", bytes(32)), RECEIPT.model],
        **changes,
    }
    return check_receipt(RECEIPT.signed(ATTESTED), ATTESTED.public_key, **expected)


def test_a_receipt_for_what_was_sent_and_came() -> None:
    assert checked() == RECEIPT


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"nonce": "stale"}, "another nonce"),
        ({"asked": replace(RECEIPT.asked, sha256=bytes(32))}, "another request"),
        ({"asked": replace(RECEIPT.asked, path="/predictions/n")}, "another request"),
        ({"asked": replace(RECEIPT.asked, content_type="text/plain")}, "another request"),
        ({"answered": replace(RECEIPT.answered, sha256=bytes(32))}, "another answer"),
        ({"answered": replace(RECEIPT.answered, status=201)}, "another answer"),
        ({"models": [replace(RECEIPT.model, digest=bytes(32))]}, "none of those"),
        ({"models": []}, "model m 1.0 with digest 6d6d"),
    ],
)
def test_a_receipt_for_anything_else(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ReceiptError, match=words):
        checked(**changes)


def test_no_receipt_at_all() -> None:
    with pytest.raises(ReceiptError, match="no receipt"):
        check_receipt(
            None,
            ATTESTED.public_key,
            nonce="fresh",
            asked=RECEIPT.asked,
            answered=RECEIPT.answered,
            models=[],
        )
