"""Sealed requests and answers as bytes: what opens, what does not, and where."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace

import hpke_reference
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from torchkeep.runtime.identity import HpkeKey
from torchkeep.runtime.sealed_messages import (
    BODY,
    END,
    HEAD,
    PIECE_BYTES,
    AnswerCut,
    AnswerEnd,
    AnswerHead,
    AnswerOpener,
    AnswerSealer,
    Destination,
    InnerRequest,
    SealedMessageError,
    Session,
    UnknownKey,
    key_id,
    open_request,
    seal_request,
    session_id,
)

KEY = HpkeKey(X25519PrivateKey.from_private_bytes(bytes(range(32))))
NAME = key_id(KEY.public_key)
HERE = Destination("POST", "/predictions/m/1.0", "m", "1.0")
REQUEST = InnerRequest(
    response_key=b"k" * 32,
    time_ms=1_790_000_000_000,
    request_id=b"i" * 16,
    headers=[(b"Content-Type", b"image/jpeg"), (b"X-Name", "ä".encode("latin-1"))],
    query="a=b&c=%20",
    body=b"body" * 100,
)
SEALED = seal_request(KEY.public_key, HERE, REQUEST)


def opened(sealed: bytes, destination: Destination = HERE) -> InnerRequest:
    return open_request(KEY.private_key, NAME, destination, sealed)


@pytest.mark.parametrize("body", [b"", b"x", bytes(1 << 20)], ids=len)
def test_what_was_sealed_is_what_opens(body: bytes) -> None:
    request = replace(REQUEST, body=body)
    assert opened(seal_request(KEY.public_key, HERE, request)) == request


def test_another_implementation_opens_and_seals() -> None:
    plain = hpke_reference.open_sealed(KEY.private_key, HERE.info(NAME), SEALED[9:])
    assert plain.startswith(b"k" * 32 + REQUEST.time_ms.to_bytes(8, "big") + b"i" * 16)
    assert plain.endswith(REQUEST.body)
    ephemeral = X25519PrivateKey.from_private_bytes(b"e" * 32)
    sealed = hpke_reference.seal(KEY.public_key, ephemeral, HERE.info(NAME), plain)
    assert opened(SEALED[:9] + sealed) == REQUEST


@pytest.mark.parametrize(
    "other",
    [
        replace(HERE, method="PUT"),
        replace(HERE, path="/predictions/m/1.0/more"),
        replace(HERE, model_name="n"),
        replace(HERE, model_version=""),
        # the same characters, cut elsewhere
        Destination("POST", "/predictions/m/1.0", "m1", ".0"),
        Destination("POST/", "predictions/m/1.0", "m", "1.0"),
    ],
)
def test_a_request_opens_nowhere_but_where_it_was_sent(other: Destination) -> None:
    with pytest.raises(SealedMessageError):
        opened(SEALED, other)


def test_a_request_for_another_key_says_so() -> None:
    sealed = seal_request(HpkeKey().public_key, HERE, REQUEST)
    with pytest.raises(UnknownKey):
        opened(sealed)
    # Under our name it is only something that does not open.
    with pytest.raises(SealedMessageError) as caught:
        opened(SEALED[:9] + sealed[9:])
    assert type(caught.value) is SealedMessageError


def test_every_flipped_bit_is_noticed() -> None:
    for position in range(len(SEALED)):
        changed = bytearray(SEALED)
        changed[position] ^= 1 << position % 8
        with pytest.raises(SealedMessageError):
            opened(bytes(changed))


def test_every_cut_is_noticed() -> None:
    for length in range(len(SEALED)):
        with pytest.raises(SealedMessageError):
            opened(SEALED[:length])
    with pytest.raises(SealedMessageError):
        opened(SEALED + b"\0")


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    for start in (b"", SEALED[:9], SEALED[:41], SEALED[:9] + bytes(32)):
        with pytest.raises(SealedMessageError):
            opened(start + garbage)


def sealed_inside(plain: bytes) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    return SEALED[:9] + hpke_reference.seal(KEY.public_key, ephemeral, HERE.info(NAME), plain)


def inside(head: bytes, length: int | None = None) -> bytes:
    said = len(head) if length is None else length
    return b"k" * 32 + bytes(8) + b"i" * 16 + said.to_bytes(4, "big") + head


@pytest.mark.parametrize(
    "plain",
    [
        b"",
        inside(b"")[:-1],
        inside(b""),
        inside(b"{}", 3),
        inside(b"{}", 1 << 31),
        inside(b"{}"),
        inside(b"[]"),
        inside(b'{"headers":{}}'),
        inside(b'{"headers":[["a"]]}'),
        inside(b'{"headers":[["a",1]]}'),
        inside(b'{"headers":[["",""]]}'),
        inside(b'{"headers":[["a:b",""]]}'),
        inside(b'{"headers":[["a b",""]]}'),
        inside(b'{"headers":[["a","x\\r\\ny: z"]]}'),
        inside(b'{"headers":[["a","\\u20ac"]]}'),
        inside(b'{"headers":[],"query":1}'),
        inside(b'{"headers":[],"query":"a b"}'),
        inside(b'{"headers":[],"query":"\\u00e4"}'),
        inside(b"[" * 60_000),
        inside(b'{"headers":[]}' + b" " * (64 << 10)),
    ],
)
def test_who_has_the_key_cannot_say_what_he_likes(plain: bytes) -> None:
    with pytest.raises(SealedMessageError):
        opened(sealed_inside(plain))


def test_a_head_needs_no_query_and_may_have_more_than_we_know() -> None:
    request = opened(sealed_inside(inside(b'{"headers":[],"more":1}') + b"body"))
    assert (request.headers, request.query, request.body) == ([], "", b"body")


def test_very_many_headers_are_not_sealed() -> None:
    headers = [(b"x", b"y" * 70_000)]
    with pytest.raises(ValueError, match="at most 65536"):
        seal_request(KEY.public_key, HERE, replace(REQUEST, headers=headers))


ANSWER = AnswerHead(200, "OK", [(b"content-type", b"text/plain")])
LATE = AnswerEnd([(b"x-late", b"1")])


def frames(
    pieces: Sequence[bytes] = (b"one", b"two"), request_id: bytes = b"i" * 16
) -> list[bytes]:
    sealer = AnswerSealer(b"k" * 32, request_id)
    sealed = [sealer.begin(ANSWER, b""), *map(sealer.body, pieces), sealer.end(b"", LATE)]
    return [bytes(frame) for frame in sealed]


def read(answer: bytes, step: int = 1 << 20, request_id: bytes = b"i" * 16) -> list[object]:
    opener = AnswerOpener(b"k" * 32, request_id)
    parts: list[object] = []
    for start in range(0, len(answer), step):
        parts.extend(opener.feed(answer[start : start + step]))
    opener.finish()
    return parts


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
def test_an_answer_opens_however_it_arrives(step: int) -> None:
    assert read(b"".join(frames()), step) == [ANSWER, b"one", b"two", LATE]


def test_large_pieces_are_several_frames_and_empty_ones_none() -> None:
    piece = random.Random(1).randbytes(2 * PIECE_BYTES + 1)
    _, *parts, _ = read(b"".join(frames([b"", piece])))
    assert [len(part) for part in parts if isinstance(part, bytes)] == [PIECE_BYTES] * 2 + [1]
    assert b"".join(part for part in parts if isinstance(part, bytes)) == piece


def test_an_answer_that_is_cut_anywhere_is_noticed() -> None:
    answer = b"".join(frames())
    for length in range(len(answer)):
        with pytest.raises(AnswerCut):
            read(answer[:length])


def test_every_flipped_bit_of_an_answer_is_noticed() -> None:
    answer = b"".join(frames())
    for position in range(len(answer)):
        changed = bytearray(answer)
        changed[position] ^= 1 << position % 8
        with pytest.raises(SealedMessageError):
            read(bytes(changed))


@pytest.mark.parametrize(
    "order",
    [
        (0, 2, 1, 3),  # moved
        (0, 1, 3),  # left out
        (0, 1, 1, 2, 3),  # repeated
        (0, 3),
        (0, 1, 2, 3, 3),  # more behind the end
        (0, 1, 2, 3, 1),
    ],
)
def test_frames_stay_in_their_order(order: Sequence[int]) -> None:
    given_frames = frames()
    with pytest.raises(SealedMessageError):
        read(b"".join(given_frames[number] for number in order))


def test_a_frame_of_another_answer_does_not_open() -> None:
    """Of the same key even: each answer has a nonce prefix of its own."""
    mine, other = frames(), frames()
    with pytest.raises(SealedMessageError):
        read(b"".join((mine[0], other[1], *mine[2:])))


def test_an_answer_to_another_request_does_not_open() -> None:
    with pytest.raises(SealedMessageError):
        read(b"".join(frames(request_id=b"j" * 16)))


def test_a_kind_is_not_what_a_proxy_says_it_is() -> None:
    head, *rest = frames()
    for kind in (HEAD, END, 3):
        with pytest.raises(SealedMessageError):
            read(b"".join((head, bytes([kind]) + rest[0][1:], *rest[1:])))


def by_hand(*parts: tuple[int, bytes]) -> bytes:
    answer = b"\x01" + b"p" * 7
    for number, (kind, plain) in enumerate(parts):
        nonce = b"p" * 7 + number.to_bytes(4, "big") + bytes([kind])
        sealed = AESGCM(b"k" * 32).encrypt(nonce, plain, b"torchkeep sealed answer 1" + b"i" * 16)
        answer += bytes([kind]) + len(sealed).to_bytes(4, "big") + sealed
    return answer


HEAD_TEXT = json.dumps({"status": 200, "reason": "", "headers": []}).encode()
END_TEXT = b'{"headers":[]}'


def test_an_answer_by_hand() -> None:
    expected = [AnswerHead(200, "", []), b"x", AnswerEnd([])]
    assert read(by_hand((HEAD, HEAD_TEXT), (BODY, b"x"), (END, END_TEXT))) == expected


@pytest.mark.parametrize(
    "parts",
    [
        [(BODY, b"x"), (END, END_TEXT)],
        [(HEAD, HEAD_TEXT), (HEAD, HEAD_TEXT), (END, END_TEXT)],
        [(HEAD, b'{"status":"200","reason":"","headers":[]}'), (END, END_TEXT)],
        [(HEAD, b"{}"), (END, END_TEXT)],
        [(HEAD, HEAD_TEXT), (END, b"")],
    ],
)
def test_a_server_that_breaks_the_rules_is_noticed(parts: list[tuple[int, bytes]]) -> None:
    with pytest.raises(SealedMessageError):
        read(by_hand(*parts))


def test_an_unknown_version_and_an_endless_frame_are_refused_at_once() -> None:
    opener = AnswerOpener(b"k" * 32, b"i" * 16)
    with pytest.raises(SealedMessageError):
        list(opener.feed(b"\x02" + bytes(7)))
    opener = AnswerOpener(b"k" * 32, b"i" * 16)
    with pytest.raises(SealedMessageError):
        list(opener.feed(b"\x01" + bytes(8) + b"\xff" * 4))


SESSION = Session(REQUEST)
IN_SESSION = SESSION.seal(HERE, REQUEST)


def test_a_session_opens_what_was_sealed_in_it() -> None:
    assert Session(REQUEST).open(HERE, IN_SESSION) == REQUEST
    assert session_id(IN_SESSION) == REQUEST.request_id
    assert SESSION.seal(HERE, REQUEST) != IN_SESSION


def test_every_flipped_bit_is_noticed_in_a_session() -> None:
    for position in range(17, len(IN_SESSION)):
        changed = bytearray(IN_SESSION)
        changed[position] ^= 1 << position % 8
        with pytest.raises(SealedMessageError):
            SESSION.open(HERE, bytes(changed))


def test_a_session_is_bound_to_where_its_requests_go_and_to_its_id() -> None:
    with pytest.raises(SealedMessageError):
        SESSION.open(replace(HERE, model_name="n"), IN_SESSION)
    with pytest.raises(SealedMessageError):
        Session(replace(REQUEST, request_id=b"j" * 16)).open(HERE, IN_SESSION)
    with pytest.raises(SealedMessageError):
        Session(replace(REQUEST, response_key=b"l" * 32)).open(HERE, IN_SESSION)


def test_only_what_is_sealed_in_a_session_names_one() -> None:
    assert session_id(SEALED) is None
    assert session_id(IN_SESSION[:28]) is None
    assert session_id(b"") is None
    with pytest.raises(SealedMessageError):
        opened(IN_SESSION)


def test_heads_that_repeat_and_heads_that_do_not() -> None:
    session = Session(REQUEST)
    for size in (1, 1, 3000, 3000, 1, 2):
        request = replace(REQUEST, headers=[(b"x", b"y" * size)], query="a" * size)
        assert session.open(HERE, session.seal(HERE, request)) == request


def test_what_could_be_logged_shows_neither_key_nor_body() -> None:
    request = replace(REQUEST, response_key=b"secret key".ljust(32), body=b"secret body")
    assert "secret" not in repr(request)
