"""What tests of the client share: each of them runs with `Client` and with `AsyncClient`."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from torchkeep.client import AsyncClient, Client


class Blocking:
    """`AsyncClient` with the methods of `Client`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*args, **options)

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._runner.run(
            getattr(self._client, name)(*args, **options)
        )

    @contextmanager
    def stream(self, *args: Any, **options: Any) -> Iterator[Any]:
        async def pieces() -> httpx.Response:
            async with self._client.stream(*args, **options) as response:
                response._content = b"".join([piece async for piece in response.aiter_raw()])
                return response

        yield self._runner.run(pieces())


@pytest.fixture(params=[Client, Blocking], ids=["Client", "AsyncClient"])
def client_of(request: pytest.FixtureRequest) -> Callable[..., Any]:
    kind: Callable[..., Any] = request.param
    return kind
