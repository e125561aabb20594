"""Sealed frames between the frontend and a worker.

Bytes in, messages out: no sockets and no asyncio here, so every rule of the protocol can be
tested with two objects. A *frame* is one message: a first record, then one record for each
body that is not empty. The first holds the length of the metadata (4 bytes, big-endian), the
metadata, and, where they are small together, the bodies as well, which then have no records
of their own. A *record* is a 4-byte big-endian length and that many bytes of
AES-256-GCM ciphertext and tag; the length is the associated data, and the nonce counts the
records of its direction, so a record that is altered, replayed, reordered or left out does
not open. There is one secret per worker process and it is used for nothing else.
"""

import struct
from typing import Any, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from torchkeep.runtime.errors import MessageError, WireError
from torchkeep.runtime.messages import (
    MAX_METADATA_BYTES,
    MAX_REPLY_METADATA_BYTES,
    Body,
    Message,
    pack,
    unpack,
    unpack_metadata,
)

SECRET_BYTES = 32
TAG_BYTES = 16
MAX_FRAME_BYTES = 1 << 30  # all bodies of one message together
INLINE_BYTES = 1 << 13  # bodies up to this size together travel in the first record
_SCRATCH_BYTES = 1 << 16  # records up to this size are opened in place
_PREFIX = struct.Struct(">I")

NO_KEYS = "this process has forgotten its keys"

Role = Literal["frontend", "worker"]


def session_keys(secret: Body, role: Role, worker_id: str) -> tuple[bytes, bytes]:
    """The keys to send and to receive with, for `role`, from the 32 bytes of one spawn."""
    if len(secret) != SECRET_BYTES:
        raise WireError("the secret of a worker has the wrong length")
    peer = "worker" if role == "frontend" else "frontend"
    return _derive(secret, role, peer, worker_id), _derive(secret, peer, role, worker_id)


def _derive(secret: Body, sender: str, receiver: str, worker_id: str) -> bytes:
    info = f"torchkeep wire 1|{sender}>{receiver}|{worker_id}".encode()
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(bytes(secret))


class Wire:
    """One side of a connection.

    To send, write the buffers that `seal` returns, in order. To receive, fill `buffer()`
    and say with `received(n)` how much came: the same two calls serve a blocking socket
    and asyncio's BufferedProtocol, and a large body lands where it is opened from.
    After a WireError the object is over, and so must be the connection.
    """

    def __init__(
        self, role: Role, secret: Body, worker_id: str, max_body_bytes: int = MAX_FRAME_BYTES
    ) -> None:
        send_key, receive_key = session_keys(secret, role, worker_id)
        self._takes_replies = role == "frontend"
        most = MAX_REPLY_METADATA_BYTES if self._takes_replies else MAX_METADATA_BYTES
        self._max_first_bytes = _PREFIX.size + most + INLINE_BYTES
        self._sealer: AESGCM | _NoKey = AESGCM(send_key)
        self._opener: AESGCM | _NoKey = AESGCM(receive_key)
        # Nonces are 96-bit counters: unique because each key lives for one connection, and
        # one direction of it.
        self._sealed = 0
        self._opened = 0
        self._max_body_bytes = max_body_bytes
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._start = 0
        self._end = 0
        self._large: memoryview | None = None  # a record too long for the scratch
        self._filled = 0
        self._metadata: list[Any] | None = None  # opened, and waiting for these lengths:
        self._lengths: list[int] = []
        self._bodies: list[Body] = []
        self._broken = False

    def forget_keys(self) -> None:
        """Seal and open no more: in a fork of the process that does, a nonce would come twice."""
        self._sealer = self._opener = _NoKey()
        self._broken = True

    def seal(self, message: Message) -> list[Body]:
        """The buffers of one frame, to be written in order (scatter-gather).

        Raises WireError once the keys are forgotten.
        """
        metadata, bodies = pack(message)
        first: list[Body] = [_PREFIX.pack(len(metadata)), metadata]
        if sum(map(len, bodies)) <= INLINE_BYTES:
            first += bodies
            bodies = []
        buffers = self._seal_record(b"".join(first))
        for body in bodies:
            if len(body):
                buffers += self._seal_record(body)
        return buffers

    def _seal_record(self, part: Body) -> list[Body]:
        prefix = _PREFIX.pack(len(part) + TAG_BYTES)
        nonce = self._sealed.to_bytes(12, "big")
        self._sealed += 1
        return [prefix, self._sealer.encrypt(nonce, part, prefix)]

    def buffer(self) -> memoryview:
        """Where the next bytes from the peer belong; never empty."""
        if self._large is not None:
            return self._large[self._filled :]
        return self._scratch[self._end :]

    def received(self, count: int) -> list[Message]:
        """Take note of `count` new bytes in `buffer()`; the messages that they complete."""
        if self._broken:
            raise WireError("the connection is over")
        try:
            return self._take(count)
        except (WireError, MessageError) as error:
            self._broken = True
            raise WireError(str(error)) from error

    @property
    def is_idle(self) -> bool:
        """True between frames: a peer that leaves now cut nothing short."""
        return self._start == self._end and self._large is None and self._metadata is None

    def _take(self, count: int) -> list[Message]:
        messages: list[Message] = []
        if self._large is not None:
            self._filled += count
            if self._filled < len(self._large):
                return messages
            record, self._large = self._large, None
            self._record(record, _PREFIX.pack(len(record)), messages)
            return messages
        self._end += count
        while self._end - self._start >= _PREFIX.size:
            prefix = self._scratch[self._start : self._start + _PREFIX.size]
            (length,) = _PREFIX.unpack(prefix)
            # Before anything is allocated or opened: is this length one we wait for?
            self._check_length(length - TAG_BYTES)
            first = self._start + _PREFIX.size
            if self._end - first >= length:
                self._start = first + length
                self._record(self._scratch[first : self._start], bytes(prefix), messages)
            elif length > _SCRATCH_BYTES - _PREFIX.size:
                self._filled = self._end - first
                self._large = memoryview(bytearray(length))
                self._large[: self._filled] = self._scratch[first : self._end]
                self._start = self._end = 0
                return messages
            else:
                break
        if self._start:  # make room at the end, where the next bytes go
            left = bytes(self._scratch[self._start : self._end])
            self._scratch[: len(left)] = left
            self._start, self._end = 0, len(left)
        return messages

    def _check_length(self, length: int) -> None:
        if self._metadata is None:
            if not _PREFIX.size < length <= self._max_first_bytes:
                raise WireError("a first record has an impossible length")
        elif length != self._lengths[len(self._bodies)]:
            raise WireError("a body is not as long as announced")

    def _record(self, record: memoryview, prefix: bytes, messages: list[Message]) -> None:
        nonce = self._opened.to_bytes(12, "big")
        self._opened += 1
        opened = bytearray(len(record) - TAG_BYTES)
        try:
            self._opener.decrypt_into(nonce, record, prefix, opened)
        except InvalidTag:
            raise WireError("a record does not open") from None
        if self._metadata is None:
            self._first_record(opened)
        else:
            self._bodies.append(opened)
        while len(self._bodies) < len(self._lengths):
            if self._lengths[len(self._bodies)]:
                return  # wait for its record
            self._bodies.append(bytearray())
        assert self._metadata is not None
        messages.append(unpack(self._metadata, self._bodies))
        self._metadata = None
        self._bodies = []

    def _first_record(self, opened: bytearray) -> None:
        (length,) = _PREFIX.unpack_from(opened)
        end = _PREFIX.size + length
        if end > len(opened):
            raise WireError("the metadata is longer than its record")
        self._metadata = unpack_metadata(
            memoryview(opened)[_PREFIX.size : end], self._takes_replies
        )
        self._lengths = self._metadata[-1]
        total = sum(self._lengths)
        self._check_announced(self._lengths, total)
        self._bodies = []
        # The rule is the sender's, so that there is but one way to write a frame.
        if len(opened) - end != (total if total <= INLINE_BYTES else 0):
            raise WireError("the bodies in a first record are not as long as announced")
        if total <= INLINE_BYTES:
            for length in self._lengths:
                self._bodies.append(opened[end : end + length])
                end += length

    def _check_announced(self, lengths: list[int], total: int) -> None:
        if lengths and max(lengths) > self._max_body_bytes:
            raise WireError(f"a body of {max(lengths)} bytes, the limit is {self._max_body_bytes}")
        if total > MAX_FRAME_BYTES:
            raise WireError("a frame is too large")


class _NoKey:
    """In the place of a key that is forgotten."""

    def encrypt(self, nonce: bytes, data: Body, associated_data: bytes) -> bytes:
        raise WireError(NO_KEYS)

    def decrypt_into(
        self, nonce: bytes, data: Body, associated_data: bytes, buffer: bytearray
    ) -> int:
        raise WireError(NO_KEYS)
