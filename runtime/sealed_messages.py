"""Sealed requests and their answers, as bytes: what passes a proxy that ends TLS.

    request:  1 ‖ key id ‖ HPKE(inside), or 2 ‖ session id ‖ nonce ‖ AES-256-GCM(inside)
    inside:   response key ‖ time ‖ request id ‖ head length ‖ head ‖ body
    answer:   1 ‖ nonce prefix ‖ frame ‖ frame ‖ ...
    frame:    kind ‖ length ‖ AES-256-GCM

HPKE is RFC 9180 in base mode, and its `info` says where the request may go. It costs more than
all else, so a request may ask for a session: those that follow are sealed by a key that it left
behind. Each request brings a fresh key for its answer, which is a stream of frames: one HEAD, any
number of BODY, one END. The nonce of a frame holds its number and its kind (the STREAM
construction), so none can be changed, moved, left out, added or taken from another answer.
docs/sealed-requests.md fixes the bytes, with test vectors.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from torchkeep.runtime.errors import ServingError

Header = tuple[bytes, bytes]
Buffer = bytes | bytearray | memoryview

REQUEST_TYPE = "application/vnd.torchkeep.sealed-request"
ANSWER_TYPE = "application/vnd.torchkeep.sealed-answer"
BY_HPKE, BY_SESSION = 1, 2  # how a request is sealed: its first byte
ANSWER_VERSION = 1
LABEL = b"torchkeep sealed request 1"
ANSWER_LABEL = b"torchkeep sealed answer 1"
SESSION_LABEL = b"torchkeep sealed session 1"
KEY_ID_BYTES = 8
RESPONSE_KEY_BYTES = 32
REQUEST_ID_BYTES = 16
SESSION_ID_BYTES = REQUEST_ID_BYTES  # the id of the request that asked for it
NONCE_BYTES = 12
NONCE_PREFIX_BYTES = 7
TAG_BYTES = 16
MAX_HEAD_BYTES = 64 << 10  # of JSON, as of the head of a plain request
KEPT_HEAD_BYTES = 2048  # for a session; there may be thousands
PIECE_BYTES = 1 << 20  # of a body, in one frame of an answer
MAX_FRAME_BYTES = 1 << 24  # what a reader must be ready to hold

HEAD, BODY, END = range(3)  # kinds of frames

_OUTSIDE = struct.Struct(f">B{KEY_ID_BYTES}s")
_SESSION = struct.Struct(f">B{SESSION_ID_BYTES}s{NONCE_BYTES}s")
_INSIDE = struct.Struct(f">{RESPONSE_KEY_BYTES}sQ{REQUEST_ID_BYTES}sI")
_ANSWER_START = struct.Struct(f">B{NONCE_PREFIX_BYTES}s")
_FRAME = struct.Struct(">BI")
_NONCE_END = struct.Struct(">IB")
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_decode = json.JSONDecoder().decode
_quoted = json.encoder.encode_basestring_ascii  # a text as JSON; an encoder for all takes longer
_NO_HEADERS = b'{"headers":[]}'
_HEADER_NAME = re.compile(r"[^\x00-\x20:\x7f-\U0010ffff]+")
_HEADER_VALUE = re.compile(r"[^\r\n\0\u0100-\U0010ffff]*")
_QUERY = re.compile(r"[!-~]*")


class SealedMessageError(ServingError):
    """What came does not open, or is not what was sealed."""


class UnknownKey(SealedMessageError):
    """The request is sealed for a key, or in a session, that is not ours."""


class AnswerCut(SealedMessageError):
    """The answer has not come to its end."""


@dataclass(slots=True)
class Destination:
    """Where a request may go: it opens nowhere else.

    `path` is decoded, and without its query. `model_name` and `model_version` are those that it
    names, and empty where it names none.
    """

    method: str
    path: str
    model_name: str = ""
    model_version: str = ""

    def info(self, key_id: bytes) -> bytes:
        """HPKE's `info`, or what a session authenticates: each field behind its length."""
        names = (self.method, self.path, self.model_name, self.model_version)
        fields = [LABEL, *(name.encode("utf-8", "replace") for name in names), key_id]
        return b"".join([len(field).to_bytes(4, "big") + field for field in fields])


@dataclass(slots=True)
class InnerRequest:
    """A request as it was before it was sealed."""

    # Fresh for each request; whoever has it can read and make the answer.
    response_key: bytes = field(repr=False)
    time_ms: int  # since 1970, by the client's clock
    request_id: bytes  # random
    headers: Sequence[Header]
    query: str
    body: Buffer = field(repr=False)
    wants_session: bool = False


@dataclass(slots=True)
class AnswerHead:
    """How an answer begins."""

    status: int
    reason: str
    headers: Sequence[Header]


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """How an answer ends: headers that could not be told before its last byte."""

    headers: Sequence[Header] = ()


def key_id(public_key: bytes) -> bytes:
    """The name of an HPKE key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def seal_request(public_key: bytes, destination: Destination, request: InnerRequest) -> bytes:
    """The body of a request that only who has the private key can read."""
    name = key_id(public_key)
    sealed = _SUITE.encrypt(
        _inside(request), X25519PublicKey.from_public_bytes(public_key), destination.info(name)
    )
    return _OUTSIDE.pack(BY_HPKE, name) + sealed


def open_request(
    private_key: X25519PrivateKey, name: bytes, destination: Destination, sealed: bytes
) -> InnerRequest:
    """Raises UnknownKey unless it names our key, else SealedMessageError: it is not said why.

    The caller looks at time and request id.
    """
    if len(sealed) < _OUTSIDE.size or sealed[0] != BY_HPKE:
        raise SealedMessageError("This is no sealed request.")
    if sealed[1 : _OUTSIDE.size] != name:
        raise UnknownKey("The request is sealed for another key.")
    try:
        inside = _SUITE.decrypt(
            memoryview(sealed)[_OUTSIDE.size :], private_key, destination.info(name)
        )
    except (InvalidTag, ValueError):
        raise SealedMessageError("The sealed request does not open.") from None
    return _request(inside, _Heads())


class Session:
    """What a request that asked for it leaves behind, on both sides: the next ones are cheap."""

    def __init__(self, request: InnerRequest) -> None:
        self.id = request.request_id
        derived = HKDF(SHA256(), length=32, salt=None, info=SESSION_LABEL)
        self._cipher = AESGCM(derived.derive(request.response_key))
        self._last_heads = _Heads()

    def seal(
        self, destination: Destination, request: InnerRequest, nonce: bytes | None = None
    ) -> bytes:
        """`nonce` is random, but in tests: a client that forks repeats none."""
        nonce = nonce or os.urandom(NONCE_BYTES)
        sealed = self._cipher.encrypt(nonce, _inside(request), destination.info(self.id))
        return _SESSION.pack(BY_SESSION, self.id, nonce) + sealed

    def open(self, destination: Destination, sealed: bytes) -> InnerRequest:
        """Raises SealedMessageError. The caller has found the session by the id in `sealed`."""
        _, _, nonce = _SESSION.unpack_from(sealed)
        try:
            inside = self._cipher.decrypt(
                nonce, memoryview(sealed)[_SESSION.size :], destination.info(self.id)
            )
        except InvalidTag:
            raise SealedMessageError("The sealed request does not open.") from None
        return _request(inside, self._last_heads)


def session_id(sealed: bytes) -> bytes | None:
    """The session that a request names; None where it is sealed by HPKE, or is none."""
    if len(sealed) < _SESSION.size or sealed[0] != BY_SESSION:
        return None
    return sealed[1 : 1 + SESSION_ID_BYTES]


def _inside(request: InnerRequest) -> bytes:
    session = ',"session":true' if request.wants_session else ""
    text = f'{{{_json_headers(request.headers)},"query":{_quoted(request.query)}{session}}}'
    head = text.encode()
    if len(head) > MAX_HEAD_BYTES:
        raise ValueError(f"headers and query take {len(head)} bytes, at most {MAX_HEAD_BYTES} may")
    start = _INSIDE.pack(request.response_key, request.time_ms, request.request_id, len(head))
    return b"".join((start, head, request.body))


class _Heads:
    """Reads heads of requests, of which the next is often as the last one was."""

    def __init__(self) -> None:
        self._text = b""
        self._read: tuple[list[Header], str, bool] | None = None

    def read(self, text: bytes) -> tuple[list[Header], str, bool]:
        """Headers, query, and whether a session is wanted."""
        if self._read is not None and text == self._text:
            return self._read
        read = _read_head(text)
        if len(text) <= KEPT_HEAD_BYTES:
            self._read, self._text = read, text
        return read


def _read_head(text: bytes) -> tuple[list[Header], str, bool]:
    head = _parsed(text)
    query = head.get("query", "")
    if not isinstance(query, str) or not _QUERY.fullmatch(query):
        raise SealedMessageError("The sealed request has no query as it should be.")
    return _headers(head), query, head.get("session") is True


def _request(inside: bytes, heads: _Heads) -> InnerRequest:
    if len(inside) < _INSIDE.size:
        raise SealedMessageError("The sealed request is too short.")
    response_key, time_ms, request_id, length = _INSIDE.unpack_from(inside)
    end = _INSIDE.size + length
    if length > MAX_HEAD_BYTES or end > len(inside):
        raise SealedMessageError("The sealed request has no head.")
    headers, query, wants_session = heads.read(inside[_INSIDE.size : end])
    body = memoryview(inside)[end:]  # no copy: it may be large
    return InnerRequest(response_key, time_ms, request_id, headers, query, body, wants_session)


class AnswerSealer:
    """One answer, from its head to its end. Each method returns what is to be sent."""

    def __init__(
        self, response_key: bytes, request_id: bytes, nonce_prefix: bytes | None = None
    ) -> None:
        """`nonce_prefix` is random, but in tests."""
        self._cipher = AESGCM(response_key)
        self._associated = ANSWER_LABEL + request_id
        # A key has one answer only. Were it used again by mistake, no nonce would be repeated.
        self._prefix = nonce_prefix or os.urandom(NONCE_PREFIX_BYTES)
        self._count = 0

    def whole(self, head: AnswerHead, body: Buffer) -> bytearray:
        """All of an answer that is known at once."""
        return self._sealed(True, [(HEAD, _head(head)), *_pieces(body), (END, _NO_HEADERS)])

    def begin(self, head: AnswerHead, body: Buffer = b"") -> bytearray:
        """The head, and what is known of the body."""
        return self._sealed(True, [(HEAD, _head(head)), *_pieces(body)])

    def body(self, piece: Buffer) -> bytearray:
        """A piece of the body; of one that is empty, nothing."""
        return self._sealed(False, _pieces(piece))

    def end(self, piece: Buffer, end: AnswerEnd) -> bytearray:
        """The last piece, and the end."""
        known = f"{{{_json_headers(end.headers)}}}".encode()
        return self._sealed(False, [*_pieces(piece), (END, known)])

    def _sealed(self, is_start: bool, frames: Sequence[tuple[int, Buffer]]) -> bytearray:
        """Sealed where they are sent from: a large body is not copied once more."""
        position = _ANSWER_START.size if is_start else 0
        around = _FRAME.size + TAG_BYTES
        sent = bytearray(position + sum([len(plain) + around for _, plain in frames]))
        if is_start:
            _ANSWER_START.pack_into(sent, 0, ANSWER_VERSION, self._prefix)
        view = memoryview(sent)
        for kind, plain in frames:
            length = len(plain) + TAG_BYTES
            _FRAME.pack_into(sent, position, kind, length)
            position += _FRAME.size
            nonce = self._prefix + _NONCE_END.pack(self._count, kind)
            self._count += 1
            place = view[position : position + length]
            self._cipher.encrypt_into(nonce, plain, self._associated, place)
            position += length
        return sent


def _head(head: AnswerHead) -> bytes:
    start = f'{{"status":{head.status},"reason":{_quoted(head.reason)},'
    return f"{start}{_json_headers(head.headers)}}}".encode()


def _pieces(body: Buffer) -> list[tuple[int, Buffer]]:
    """The frames of a body, or of a piece of one; of nothing, none."""
    if len(body) <= PIECE_BYTES:
        return [(BODY, body)] if body else []
    view = memoryview(body)
    return [(BODY, view[at : at + PIECE_BYTES]) for at in range(0, len(body), PIECE_BYTES)]


class AnswerOpener:
    """The other side: what comes of an answer is fed to it, in pieces of any size."""

    def __init__(self, response_key: bytes, request_id: bytes) -> None:
        self._cipher = AESGCM(response_key)
        self._associated = ANSWER_LABEL + request_id
        self._unread = bytearray()
        self._prefix = b""
        self._count = 0
        self._is_over = False

    def feed(self, data: Buffer) -> Iterator[AnswerHead | bytes | AnswerEnd]:
        """What has opened: the head first, then pieces of the body, then the end.

        Raises SealedMessageError; then nothing more may be fed, and what was given before is not
        to be taken for an answer.
        """
        self._unread += data
        if not self._prefix and len(self._unread) >= _ANSWER_START.size:
            version, self._prefix = _ANSWER_START.unpack_from(self._unread)
            if version != ANSWER_VERSION:
                raise SealedMessageError("This is no sealed answer.")
            del self._unread[: _ANSWER_START.size]
        while self._prefix and (frame := self._next_frame()) is not None:
            yield self._read(*frame)
        if self._is_over and self._unread:
            raise SealedMessageError("Something follows the end of the sealed answer.")

    def finish(self) -> None:
        """Raises AnswerCut unless all of the answer was fed."""
        if not self._is_over:
            raise AnswerCut("The sealed answer was cut off: it has no end.")

    def _next_frame(self) -> tuple[int, bytes] | None:
        if self._is_over or len(self._unread) < _FRAME.size:
            return None
        kind, length = _FRAME.unpack_from(self._unread)
        if length > MAX_FRAME_BYTES:
            raise SealedMessageError("The sealed answer does not open.")
        end = _FRAME.size + length
        if len(self._unread) < end:
            return None
        nonce = self._prefix + _NONCE_END.pack(self._count, kind)
        try:
            with memoryview(self._unread) as unread:
                plain = self._cipher.decrypt(nonce, unread[_FRAME.size : end], self._associated)
        except InvalidTag:
            raise SealedMessageError("The sealed answer does not open.") from None
        del self._unread[:end]
        self._count += 1
        return kind, plain

    def _read(self, kind: int, plain: bytes) -> AnswerHead | bytes | AnswerEnd:
        # A frame that opens was made by the server; the order is checked all the same.
        if (self._count == 1) != (kind == HEAD):
            raise SealedMessageError("The sealed answer has no head, or two.")
        if kind == BODY:
            return plain
        fields = _parsed(plain)
        if kind == HEAD:
            match fields:
                case {"status": int(status), "reason": str(reason)}:
                    return AnswerHead(status, reason, _headers(fields))
            raise SealedMessageError("The sealed answer has no head.")
        self._is_over = True
        return AnswerEnd(_headers(fields))


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        fields = _decode(str(text, "utf-8"))
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        raise SealedMessageError("What was sealed has no JSON object for a head.")
    return fields


def _json_headers(headers: Sequence[Header]) -> str:
    pairs = [
        f"[{_quoted(str(name, 'latin-1'))},{_quoted(str(value, 'latin-1'))}]"
        for name, value in headers
    ]
    return f'"headers":[{",".join(pairs)}]'


def _headers(fields: dict[str, Any]) -> list[Header]:
    listed = fields.get("headers")
    if not isinstance(listed, list):
        raise SealedMessageError("What was sealed has no list of headers.")
    headers = []
    for entry in listed:
        match entry:
            case [str(name), str(value)] if _HEADER_NAME.fullmatch(
                name
            ) and _HEADER_VALUE.fullmatch(value):
                headers.append((name.encode(), value.encode("latin-1")))
            case _:
                raise SealedMessageError("What was sealed has a header that is none.")
    return headers
