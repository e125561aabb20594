"""What an answer is put into before it leaves: a seal, where its request had one, and a receipt.

A receipt is a header of the answer, for whoever asks for one. A stream is signed when all of it is
known: where it is sealed, its last frame has the receipt; where it is not, there is no place.
"""

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from torchkeep.frontend.responses import (
    Header,
    Reply,
    StreamedReply,
    standard_phrase,
)
from torchkeep.runtime.claims import ModelClaim
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.messages import Body
from torchkeep.runtime.receipts import HEADER, Answered, Asked, Receipt, body_digest
from torchkeep.runtime.sealed_messages import ANSWER_TYPE, AnswerEnd, AnswerHead, AnswerSealer

RECEIPT_HEADER = HEADER.encode()
# Not even the status tells a proxy what became of the request.
SEALED_STATUS = 200
SEALED_HEADERS: tuple[Header, ...] = ((b"content-type", ANSWER_TYPE.encode()),)


@dataclass(frozen=True, slots=True)
class ReceiptDraft:
    """All that is signed but the answer."""

    key: AttestedKey
    nonce: str
    request_id: str
    asked: Asked

    def header(self, model: ModelClaim, reply: Reply, sha256: bytes) -> Header:
        """The receipt, signed."""
        content_type = next((v for n, v in reply.headers if n.lower() == b"content-type"), b"")
        answered = Answered(reply.status, content_type.decode("latin-1"), sha256)
        now_ms = int(time.time() * 1000)
        receipt = Receipt(self.nonce, self.request_id, now_ms, model, self.asked, answered)
        return RECEIPT_HEADER, receipt.signed(self.key).encode()


class Envelope:
    """One answer on its way out."""

    def __init__(self, request_id: str, sealer: AnswerSealer | None) -> None:
        self.receipt: ReceiptDraft | None = None  # None: nobody wants one
        self.model: ModelClaim | None = None  # whose answer it is; the server's own get no receipt
        self._request_id = request_id
        self._sealer = sealer

    def enclose(self, reply: Reply) -> Reply:
        """What is sent."""
        if self.receipt is not None:
            receipts = self._receipts(reply, body_digest(reply.body))
            reply = replace(reply, headers=[*reply.headers, *receipts])
        if self._sealer is None:
            return reply
        sealed = self._sealer.whole(self._head(reply), reply.body)
        return Reply(SEALED_STATUS, sealed, SEALED_HEADERS)

    def enclose_stream(self, reply: StreamedReply) -> StreamedReply:
        """The same for an answer of which only the first piece is known."""
        if self._sealer is None:
            return reply
        first = self._sealer.begin(self._head(reply.first), reply.first.body)
        rest = self._sealed_rest(self._sealer, reply)
        return StreamedReply(Reply(SEALED_STATUS, first, SEALED_HEADERS), rest)

    async def _sealed_rest(
        self, sealer: AnswerSealer, reply: StreamedReply
    ) -> AsyncGenerator[tuple[Body, bool], None]:
        digest = hashlib.sha256(reply.first.body)
        async with aclosing(reply.rest) as rest:
            async for piece, is_last in rest:
                digest.update(piece)
                if is_last:
                    end = AnswerEnd(self._receipts(reply.first, digest.digest()))
                    yield sealer.end(piece, end), True
                else:
                    yield sealer.body(piece), False

    def _head(self, reply: Reply) -> AnswerHead:
        reason = standard_phrase(reply.status) if reply.reason is None else reply.reason
        request_id = (b"x-request-id", self._request_id.encode())
        return AnswerHead(reply.status, reason, [*reply.headers, request_id])

    def _receipts(self, reply: Reply, sha256: bytes) -> list[Header]:
        if self.receipt is None or self.model is None:
            return []
        return [self.receipt.header(self.model, reply, sha256)]
