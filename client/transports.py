"""httpx transports that send nothing to a server before it is trusted, and nothing to another.

A pool of connections belongs to one attested key: each connection is compared with it in its
handshake. A pool whose key is trusted no longer is closed, and the next one starts.
"""

import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import httpx

from torchkeep.client.errors import KeyChanged
from torchkeep.client.exchange import ANSWER_EXTENSION, Answer, Exchange, Protection
from torchkeep.client.pinned_tls import pinned_context
from torchkeep.client.sealing import NotSealed
from torchkeep.client.trust import AsyncTrust, Trust, Trusted

_Pool = TypeVar("_Pool", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


@dataclass(frozen=True, slots=True)
class Channel:
    """Where requests go, what protects them, and how TLS is known: None is by the attested key."""

    url: httpx.URL
    known_by: ssl.SSLContext | None = None
    protection: Protection = field(default_factory=Protection)
    may_be_read: bool = False  # by whoever is in between: only what is sealed goes out

    def check(self, request: httpx.Request) -> bool:
        """Whether the request becomes an exchange.

        Raises ValueError for a request to elsewhere, which nobody has verified, and for one that
        would have to be sealed and cannot be.
        """
        if _origin(request.url) != _origin(self.url):
            raise ValueError(f"{request.url} is not at {self.url}, which is what is verified")
        is_exchange = self.protection.applies_to(request, self.url.path)
        if self.may_be_read and not (is_exchange and self.protection.sealed):
            raise ValueError(
                f"{request.method} {request.url.path} cannot be sealed, and the connection may be "
                "read by others: only predictions go there"
            )
        return is_exchange

    def opened(self, request: httpx.Request, body: bytes, trusted: Trusted) -> Exchange:
        return Exchange(request, body, self.url.path, self.protection, trusted)


class VerifiedTransport(httpx.BaseTransport):
    """For httpx.Client."""

    def __init__(self, trust: Trust, channel: Channel) -> None:
        self._trust = trust
        self._channel = channel
        self._turn = threading.Lock()
        self._kept: _Kept[httpx.HTTPTransport] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises NotVerified and Unreachable; then nothing of the request was sent."""
        is_exchange = self._channel.check(request)
        attempts = _Attempts(self._trust)
        while True:
            trusted = self._trust.trusted()
            try:
                return self._send(request, trusted, is_exchange)
            except (KeyChanged, NotSealed) as error:
                if not attempts.is_another_due(error, trusted):
                    raise

    def close(self) -> None:
        if self._kept is not None:
            self._kept.pool.close()

    def _send(self, request: httpx.Request, trusted: Trusted, is_exchange: bool) -> httpx.Response:
        pool = self._pool(trusted)
        if not is_exchange:
            return pool.handle_request(request)
        exchange = self._channel.opened(request, request.read(), trusted)
        response = pool.handle_request(exchange.outgoing)
        answer = exchange.answer(response.status_code, response.headers)
        contents = _Contents(response, answer)
        try:
            contents.begin()
        except BaseException:
            response.close()
            raise
        return _as_response(answer, contents)

    def _pool(self, trusted: Trusted) -> httpx.HTTPTransport:
        with self._turn:
            if self._kept is None or self._kept.key != trusted.public_key:
                self.close()
                self._kept = _new_pool(httpx.HTTPTransport, self._channel, trusted)
            return self._kept.pool


class AsyncVerifiedTransport(httpx.AsyncBaseTransport):
    """For httpx.AsyncClient, on asyncio."""

    def __init__(self, trust: AsyncTrust, channel: Channel) -> None:
        self._trust = trust
        self._channel = channel
        self._kept: _Kept[httpx.AsyncHTTPTransport] | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises NotVerified and Unreachable; then nothing of the request was sent."""
        is_exchange = self._channel.check(request)
        attempts = _Attempts(self._trust)
        while True:
            trusted = await self._trust.trusted()
            try:
                return await self._send(request, trusted, is_exchange)
            except (KeyChanged, NotSealed) as error:
                if not attempts.is_another_due(error, trusted):
                    raise

    async def aclose(self) -> None:
        if self._kept is not None:
            await self._kept.pool.aclose()

    async def _send(
        self, request: httpx.Request, trusted: Trusted, is_exchange: bool
    ) -> httpx.Response:
        pool = await self._pool(trusted)
        if not is_exchange:
            return await pool.handle_async_request(request)
        exchange = self._channel.opened(request, await request.aread(), trusted)
        response = await pool.handle_async_request(exchange.outgoing)
        answer = exchange.answer(response.status_code, response.headers)
        contents = _AsyncContents(response, answer)
        try:
            await contents.begin()
        except BaseException:
            await response.aclose()
            raise
        return _as_response(answer, contents)

    async def _pool(self, trusted: Trusted) -> httpx.AsyncHTTPTransport:
        kept = self._kept
        if kept is None or kept.key != trusted.public_key:
            before, self._kept = kept, _new_pool(httpx.AsyncHTTPTransport, self._channel, trusted)
            kept = self._kept
            if before is not None:
                await before.pool.aclose()
        return kept.pool


class _Contents(httpx.SyncByteStream):
    """The body inside an answer."""

    def __init__(self, response: httpx.Response, answer: Answer) -> None:
        assert isinstance(response.stream, httpx.SyncByteStream), "it is of a synchronous pool"
        self._pieces = iter(response.stream)
        self._response = response
        self._answer = answer
        self._first: list[bytes] = []

    def begin(self) -> None:
        """Read until the head of the answer is there. Raises SealedMessageError."""
        piece = next(self._pieces, b"")
        self._answer.check_is_sealed(piece)
        self._first += self._answer.feed(piece)
        while not self._answer.is_begun:
            if not (piece := next(self._pieces, b"")):
                self._answer.finish()
            self._first += self._answer.feed(piece)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._first
        for piece in self._pieces:
            yield from self._answer.feed(piece)
        self._answer.finish()

    def close(self) -> None:
        self._response.close()


class _AsyncContents(httpx.AsyncByteStream):
    """The same, for asyncio."""

    def __init__(self, response: httpx.Response, answer: Answer) -> None:
        assert isinstance(response.stream, httpx.AsyncByteStream), "it is of an asynchronous pool"
        self._pieces = aiter(response.stream)
        self._response = response
        self._answer = answer
        self._first: list[bytes] = []

    async def begin(self) -> None:
        """Read until the head of the answer is there. Raises SealedMessageError."""
        piece = await anext(self._pieces, b"")
        self._answer.check_is_sealed(piece)
        self._first += self._answer.feed(piece)
        while not self._answer.is_begun:
            if not (piece := await anext(self._pieces, b"")):
                self._answer.finish()
            self._first += self._answer.feed(piece)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._first:
            yield piece
        async for raw in self._pieces:
            for piece in self._answer.feed(raw):
                yield piece
        self._answer.finish()

    async def aclose(self) -> None:
        await self._response.aclose()


@dataclass(frozen=True, slots=True)
class _Kept(Generic[_Pool]):
    key: bytes
    pool: _Pool


def _new_pool(kind: type[_Pool], channel: Channel, trusted: Trusted) -> _Kept[_Pool]:
    tls = channel.known_by or pinned_context(trusted.public_key)
    return _Kept(trusted.public_key, kind(verify=tls, trust_env=False))


def _as_response(answer: Answer, contents: _Contents | _AsyncContents) -> httpx.Response:
    return httpx.Response(
        answer.status,
        headers=answer.headers,
        stream=contents,
        extensions={ANSWER_EXTENSION: answer},
    )


class _Attempts:
    """Of one request. It is sent again only to a server that says that it has not taken it."""

    def __init__(self, trust: Trust | AsyncTrust) -> None:
        self._trust = trust
        self._has_left_session = False
        self._is_anew = False

    def is_another_due(self, error: KeyChanged | NotSealed, trusted: Trusted) -> bool:
        """Whether to try again, after what failed with the trusted server was let go of.

        A session is; where it was none, trust itself: the server may have been started anew.
        Each once.
        """
        if isinstance(error, NotSealed):
            if not error.is_key_unknown:
                return False
            if error.was_in_session and not self._has_left_session:
                self._has_left_session = True
                trusted.sealer.forget()
                return True
        if self._is_anew:
            return False
        self._is_anew = True
        self._trust.judgement.forget(trusted)
        return True


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
