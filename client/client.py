"""Predictions and management calls to a server that was verified before it learns anything.

    with Client("https://serve.example:8443", "policy.yaml", token=...) as client:
        answer = client.predict("resnet", Path("cat.jpg").read_bytes())

The server's evidence is asked for and judged at the first call, and again when it is older than
the policy's `max_age_s` or the server shows another key. `Client` is for threads, `AsyncClient`
for asyncio; all answers are `httpx.Response`. Both can also be had as plain httpx clients, `http`.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self, Unpack

import httpx

from torchkeep.client import calls
from torchkeep.client.attesting import Where
from torchkeep.client.calls import Call, Further
from torchkeep.client.collateral import CollateralSource
from torchkeep.client.exchange import Protection
from torchkeep.client.policy import Policy, read_policy
from torchkeep.client.transports import AsyncVerifiedTransport, Channel, VerifiedTransport
from torchkeep.client.trust import AsyncTrust, Judgement, Trust
from torchkeep.client.verdict import Verdict

TIMEOUT_S = 120.0  # TorchServe's own for a prediction


class Client:
    """One server, from threads. Nothing is asked of it before the first call."""

    def __init__(
        self,
        url: str,
        policy: Policy | Path | str,
        *,
        token: str | None = None,
        sealed: bool = False,
        receipts: bool = False,
        proxy_tls: ssl.SSLContext | None = None,
        management_url: str | None = None,
        management_token: str | None = None,
        management_tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        collateral: CollateralSource | None = None,
    ) -> None:
        """`policy` is one, or the path of its file. Raises PolicyError and ValueError.

        With `sealed`, predictions are readable for the attested server alone, so a proxy may end
        TLS (`proxy_tls` knows its certificate), and http will do. With `receipts`, answers are
        signed: `receipt_of(response)`.

        `management_url` is needed where management has an address of its own: https with the
        attested key, or with a certificate that `management_tls` knows, or http on this machine.
        """
        policy = _policy(policy)
        where = _where(url, proxy_tls, sealed, token)
        self._trust = Trust(Judgement(where, policy, collateral))
        self.http = httpx.Client(
            base_url=where.url,
            transport=VerifiedTransport(self._trust, _channel(where, sealed, receipts)),
            headers=_bearer(token),
            timeout=timeout_s,
            trust_env=False,
        )
        management = _management_channel(management_url, management_tls, where)
        self.management = httpx.Client(
            base_url=management.url,
            transport=VerifiedTransport(self._trust, management),
            headers=_bearer(management_token),
            timeout=timeout_s,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.http.close()
        self.management.close()

    def verify(self) -> Verdict:
        """Ask for evidence now, and judge it. Raises NotVerified and Unreachable."""
        return self._trust.trusted(afresh=True).verdict

    def ping(self) -> httpx.Response:
        return self.http.get("/ping")

    def predict(
        self, model: str, content: Any = None, **further: Unpack[Further]
    ) -> httpx.Response:
        """One answer. `content` is bytes, text, an open file or an iterator of bytes."""
        return self._infer(calls.prediction(model, content, further), stream=False)

    @contextmanager
    def stream(
        self, model: str, content: Any = None, **further: Unpack[Further]
    ) -> Iterator[httpx.Response]:
        """An answer that comes in pieces: `for piece in response.iter_raw()`."""
        response = self._infer(calls.prediction(model, content, further), stream=True)
        try:
            yield response
        finally:
            response.close()

    def register(self, url: str, **settings: Any) -> httpx.Response:
        """Settings, here and below, have TorchServe's names: `initial_workers=1`."""
        return self._manage(calls.register(url, settings))

    def models(self, **settings: Any) -> httpx.Response:
        return self._manage(calls.listing(settings))

    def describe(self, model: str, version: str | None = None, **settings: Any) -> httpx.Response:
        return self._manage(calls.describe(model, version, settings))

    def scale(self, model: str, version: str | None = None, **settings: Any) -> httpx.Response:
        return self._manage(calls.scale(model, version, settings))

    def set_default(self, model: str, version: str) -> httpx.Response:
        return self._manage(calls.set_default(model, version))

    def unregister(self, model: str, version: str | None = None) -> httpx.Response:
        return self._manage(calls.unregister(model, version))

    def _infer(self, call: Call, *, stream: bool) -> httpx.Response:
        return self.http.send(_request(self.http, call), stream=stream)

    def _manage(self, call: Call) -> httpx.Response:
        return self.management.send(_request(self.management, call))


class AsyncClient:
    """One server, from an event loop of asyncio. Nothing is asked of it before the first call."""

    def __init__(
        self,
        url: str,
        policy: Policy | Path | str,
        *,
        token: str | None = None,
        sealed: bool = False,
        receipts: bool = False,
        proxy_tls: ssl.SSLContext | None = None,
        management_url: str | None = None,
        management_token: str | None = None,
        management_tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        collateral: CollateralSource | None = None,
    ) -> None:
        """As `Client`."""
        policy = _policy(policy)
        where = _where(url, proxy_tls, sealed, token)
        self._trust = AsyncTrust(Judgement(where, policy, collateral))
        self.http = httpx.AsyncClient(
            base_url=where.url,
            transport=AsyncVerifiedTransport(self._trust, _channel(where, sealed, receipts)),
            headers=_bearer(token),
            timeout=timeout_s,
            trust_env=False,
        )
        management = _management_channel(management_url, management_tls, where)
        self.management = httpx.AsyncClient(
            base_url=management.url,
            transport=AsyncVerifiedTransport(self._trust, management),
            headers=_bearer(management_token),
            timeout=timeout_s,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self.http.aclose()
        await self.management.aclose()

    async def verify(self) -> Verdict:
        """Ask for evidence now, and judge it. Raises NotVerified and Unreachable."""
        return (await self._trust.trusted(afresh=True)).verdict

    async def ping(self) -> httpx.Response:
        return await self.http.get("/ping")

    async def predict(
        self, model: str, content: Any = None, **further: Unpack[Further]
    ) -> httpx.Response:
        """One answer. `content` is bytes, text, or an asynchronous iterator of bytes."""
        return await self._infer(calls.prediction(model, content, further), stream=False)

    @asynccontextmanager
    async def stream(
        self, model: str, content: Any = None, **further: Unpack[Further]
    ) -> AsyncIterator[httpx.Response]:
        """An answer that comes in pieces: `async for piece in response.aiter_raw()`."""
        response = await self._infer(calls.prediction(model, content, further), stream=True)
        try:
            yield response
        finally:
            await response.aclose()

    async def register(self, url: str, **settings: Any) -> httpx.Response:
        """Settings, here and below, have TorchServe's names: `initial_workers=1`."""
        return await self._manage(calls.register(url, settings))

    async def models(self, **settings: Any) -> httpx.Response:
        return await self._manage(calls.listing(settings))

    async def describe(
        self, model: str, version: str | None = None, **settings: Any
    ) -> httpx.Response:
        return await self._manage(calls.describe(model, version, settings))

    async def scale(
        self, model: str, version: str | None = None, **settings: Any
    ) -> httpx.Response:
        return await self._manage(calls.scale(model, version, settings))

    async def set_default(self, model: str, version: str) -> httpx.Response:
        return await self._manage(calls.set_default(model, version))

    async def unregister(self, model: str, version: str | None = None) -> httpx.Response:
        return await self._manage(calls.unregister(model, version))

    async def _infer(self, call: Call, *, stream: bool) -> httpx.Response:
        return await self.http.send(_request(self.http, call), stream=stream)

    async def _manage(self, call: Call) -> httpx.Response:
        return await self.management.send(_request(self.management, call))


def _policy(policy: Policy | Path | str) -> Policy:
    return policy if isinstance(policy, Policy) else read_policy(Path(policy))


def _where(url: str, proxy_tls: ssl.SSLContext | None, sealed: bool, token: str | None) -> Where:
    where = Where(server_url(url), proxy_tls)
    if not where.is_attested_tls and not sealed:
        raise ValueError(
            f"{url}: whoever is in between would read what is sent: use the https address of the "
            "server's attested listener, or sealed=True"
        )
    if where.url.scheme == "http" and token is not None and not _is_loopback(where.url.host):
        raise ValueError(
            f"{url}: over http the token could be read, as it is not sealed: use https"
        )
    return where


def _channel(where: Where, sealed: bool, receipts: bool) -> Channel:
    return Channel(
        where.url,
        where.proxy_tls,
        Protection(sealed, receipts),
        may_be_read=not where.is_attested_tls,
    )


def _management_channel(url: str | None, tls: ssl.SSLContext | None, where: Where) -> Channel:
    if url is None:
        return Channel(where.url, where.proxy_tls, may_be_read=not where.is_attested_tls)
    channel = Channel(server_url(url), tls)
    if channel.url.scheme == "http" and not _is_loopback(channel.url.host):
        raise ValueError(
            f"{url}: over http everybody in between reads tokens and changes what is served; "
            "only this very machine may be managed so"
        )
    return channel


def server_url(text: str) -> httpx.URL:
    """Raises ValueError."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text}: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(f"{text}: expected https://host[:port]")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _request(client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    return client.build_request(call.method, call.path, **call.options)
