"""One prediction under way: what is sent in its place, and what is inside the answer.

Bytes in and out, and no connection, so that both kinds of client share it. Where requests are
sealed, the head of the answer comes out of its first pieces; where receipts are wanted, an answer
ends with an error unless its receipt is for all of it.
"""

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

import httpx

from torchkeep.client.receipts import check_receipt
from torchkeep.client.sealing import SealedCall, destination
from torchkeep.client.trust import Trusted
from torchkeep.runtime.receipts import HEADER, Answered, Asked, Receipt
from torchkeep.runtime.sealed_messages import AnswerEnd, AnswerHead, AnswerOpener, Header

# Between the client and whoever ends TLS; all other headers are sealed with the body.
OUTSIDE = frozenset([b"host", b"authorization", b"connection", b"content-length"])
NOT_SENT = frozenset([b"transfer-encoding", b"accept-encoding"])
RECEIPT_NONCE_BYTES = 16
FIRST_ERROR_STATUS = 400  # from here on the server itself may have answered, who signs nothing
ANSWER_EXTENSION = "torchkeep_answer"  # of an httpx.Response


@dataclass(frozen=True, slots=True)
class Protection:
    """What is done to predictions, beside sending them to nobody but who was verified."""

    sealed: bool = False
    receipts: bool = False

    def applies_to(self, request: httpx.Request, prefix: str) -> bool:
        if not (self.sealed or self.receipts):
            return False
        try:
            destination(request.method, _server_path(request, prefix))
        except ValueError:
            return False
        return True


def receipt_of(response: httpx.Response) -> Receipt | None:
    """What the server signed for this answer, once all of it was read; None without `receipts`."""
    answer = response.extensions.get(ANSWER_EXTENSION)
    return answer.receipt if isinstance(answer, Answer) else None


class Exchange:
    """`body` is all of the request's."""

    def __init__(
        self,
        request: httpx.Request,
        body: bytes,
        prefix: str,
        protection: Protection,
        trusted: Trusted,
    ) -> None:
        path, query = _server_path(request, prefix), request.url.query.decode("ascii")
        headers = [
            (name.lower(), value)
            for name, value in request.headers.raw
            if name.lower() not in NOT_SENT
        ]
        self._trusted = trusted
        self._nonce: str | None = None
        if protection.receipts:
            self._nonce = secrets.token_urlsafe(RECEIPT_NONCE_BYTES)
            headers.append((HEADER.encode(), self._nonce.encode()))
        content_type = _content_type(_headers(request.headers.raw))
        digest = hashlib.sha256(body).digest()
        self._asked = Asked(request.method, unquote(path), query, content_type, digest)
        self._sealed: SealedCall | None = None
        url = request.url
        if protection.sealed:
            inside = [header for header in headers if header[0] not in OUTSIDE]
            self._sealed = trusted.sealer.seal(request.method, path, body, inside, query)
            headers = [header for header in headers if header[0] in OUTSIDE]
            headers.append((b"content-type", self._sealed.content_type.encode()))
            body, url = self._sealed.body, url.copy_with(query=None)
        outside = [header for header in headers if header[0] != b"content-length"]
        # A proxy that compressed an answer would change what was signed or sealed.
        outside.append((b"accept-encoding", b"identity"))
        self.outgoing = httpx.Request(
            request.method, url, headers=outside, content=body, extensions=request.extensions
        )

    def answer(self, status: int, headers: httpx.Headers) -> "Answer":
        """What will read the answer that begins so."""
        return Answer(self._trusted, self._nonce, self._asked, self._sealed, status, headers)


class Answer:
    """One answer: raw pieces in, pieces of its body out; `is_begun` when its head is there."""

    def __init__(
        self,
        trusted: Trusted,
        nonce: str | None,
        asked: Asked,
        sealed: SealedCall | None,
        status: int,
        headers: httpx.Headers,
    ) -> None:
        self._trusted = trusted
        self._nonce = nonce
        self._asked = asked
        self._sealed = sealed
        self._opener: AnswerOpener | None = None
        self._digest = hashlib.sha256()
        self.is_begun = sealed is None
        self.status = status
        self.headers = _headers(headers.raw)
        self.receipt: Receipt | None = None

    def check_is_sealed(self, start: bytes) -> None:
        """Raises NotSealed, with the start of the answer for people to read, if it is not."""
        if self._sealed is not None:
            text = start.decode("utf-8", "replace")
            self._opener = self._sealed.reader(self.status, _content_type(self.headers), text)

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises SealedMessageError."""
        if self._sealed is None:
            self._digest.update(piece)
            yield piece
            return
        assert self._opener is not None, "`check_is_sealed` comes first"
        for part in self._opener.feed(piece):
            match part:
                case AnswerHead():
                    self._sealed.adopt()
                    self.is_begun = True
                    self.status = part.status
                    self.headers = _headers(part.headers)
                case AnswerEnd():
                    self.headers.update(_headers(part.headers))
                case _:
                    self._digest.update(part)
                    yield part

    def finish(self) -> None:
        """Raises SealedMessageError if the answer was cut, ReceiptError for a wrong receipt."""
        if self._opener is not None:
            self._opener.finish()
        if self._nonce is None:
            return
        text = self.headers.get(HEADER)
        if text is None and self.status >= FIRST_ERROR_STATUS:
            return
        content_type = _content_type(self.headers)
        self.receipt = check_receipt(
            text,
            self._trusted.public_key,
            nonce=self._nonce,
            asked=self._asked,
            answered=Answered(self.status, content_type, self._digest.digest()),
            models=self._trusted.models,
        )


def _server_path(request: httpx.Request, prefix: str) -> str:
    """The path as the server sees it: what a proxy has before it is taken off."""
    path = request.url.raw_path.partition(b"?")[0].decode("ascii")
    return path.removeprefix(prefix.rstrip("/"))


def _headers(raw: Sequence[Header]) -> httpx.Headers:
    return httpx.Headers(list(raw), encoding="latin-1")


def _content_type(headers: httpx.Headers) -> str:
    return str(headers.get("content-type", ""))
