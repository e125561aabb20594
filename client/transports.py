"""httpx transports that send nothing to a server before it is trusted, and nothing to another.

A pool of connections belongs to one attested key: each connection is compared with it in its
handshake. A pool whose key is trusted no longer is closed, and the next one starts.
"""

import ssl
import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx

from torchkeep.client.errors import KeyChanged
from torchkeep.client.pinned_tls import pinned_context
from torchkeep.client.trust import AsyncTrust, Trust, Trusted

_Pool = TypeVar("_Pool", httpx.HTTPTransport, httpx.AsyncHTTPTransport)


@dataclass(frozen=True, slots=True)
class Channel:
    """Where requests go, and how its TLS is known; None stands for the attested key."""

    url: httpx.URL
    known_by: ssl.SSLContext | None = None

    def check(self, request: httpx.Request) -> None:
        """Raises ValueError for a request to elsewhere, which nobody has verified."""
        if _origin(request.url) != _origin(self.url):
            raise ValueError(f"{request.url} is not at {self.url}, which is what is verified")


class VerifiedTransport(httpx.BaseTransport):
    """For httpx.Client."""

    def __init__(self, trust: Trust, channel: Channel) -> None:
        self._trust = trust
        self._channel = channel
        self._turn = threading.Lock()
        self._kept: _Kept[httpx.HTTPTransport] | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Raises NotVerified and Unreachable; then nothing of the request was sent."""
        self._channel.check(request)
        trusted = self._trust.trusted()
        try:
            return self._pool(trusted).handle_request(request)
        except KeyChanged:
            # The connection had carried nothing yet: the server may have been started anew.
            self._trust.judgement.forget(trusted)
            return self._pool(self._trust.trusted()).handle_request(request)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.pool.close()

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
        self._channel.check(request)
        trusted = await self._trust.trusted()
        try:
            return await (await self._pool(trusted)).handle_async_request(request)
        except KeyChanged:
            self._trust.judgement.forget(trusted)
            pool = await self._pool(await self._trust.trusted())
            return await pool.handle_async_request(request)

    async def aclose(self) -> None:
        if self._kept is not None:
            await self._kept.pool.aclose()

    async def _pool(self, trusted: Trusted) -> httpx.AsyncHTTPTransport:
        kept = self._kept
        if kept is None or kept.key != trusted.public_key:
            before, self._kept = kept, _new_pool(httpx.AsyncHTTPTransport, self._channel, trusted)
            kept = self._kept
            if before is not None:
                await before.pool.aclose()
        return kept.pool


@dataclass(frozen=True, slots=True)
class _Kept(Generic[_Pool]):
    key: bytes
    pool: _Pool


def _new_pool(kind: type[_Pool], channel: Channel, trusted: Trusted) -> _Kept[_Pool]:
    tls = channel.known_by or pinned_context(trusted.public_key)
    return _Kept(trusted.public_key, kind(verify=tls, trust_env=False))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
