"""A client for tests that need many requests: keep-alive connections, every answer checked."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Outcomes:
    """What came back: `counts` by kind, and every answer that was none of the allowed ones."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Where requests go and what is a right answer to a body."""

    path: str
    body_of: Callable[[int], bytes]
    is_right: Callable[[bytes, bytes], bool]  # (body sent, body received)


class Load:
    """Sends requests from some connections until told to stop, or so many of them."""

    def __init__(
        self, address: str, target: Target, connections: int, limit: int | None = None
    ) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self._place = (host, int(port))
        self._target = target
        self._connections = connections
        self._left = limit
        self._stopping = False
        self._number = 0
        self.outcomes = Outcomes()

    def stop(self) -> None:
        self._stopping = True

    async def run(self) -> Outcomes:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._connections):
                tasks.create_task(self._one_connection())
        return self.outcomes

    async def _one_connection(self) -> None:
        reader, writer = await asyncio.open_connection(*self._place)
        try:
            while (number := self._next()) is not None:
                body = self._target.body_of(number)
                head = (
                    f"POST {self._target.path} HTTP/1.1\r\nHost: localhost\r\n"
                    f"Content-Type: application/octet-stream\r\nContent-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                status, answer, closes = await asyncio.wait_for(_read_answer(reader), 30)
                self._judge(status, body, answer)
                if closes:
                    writer.close()
                    reader, writer = await asyncio.open_connection(*self._place)
        except TimeoutError:
            self.outcomes.wrong.append("a request hung for 30 s")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _next(self) -> int | None:
        if self._stopping or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        self._number += 1
        return self._number

    def _judge(self, status: int, body: bytes, answer: bytes) -> None:
        if status == 200 and self._target.is_right(body, answer):
            self.outcomes.counts["answered"] += 1
        elif status in (500, 507) and b"Worker died." in answer:
            self.outcomes.counts["worker died"] += 1
        else:
            self.outcomes.wrong.append(f"{status} {answer[:200]!r} to {body[:50]!r}")


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    body = await reader.readexactly(int(headers["content-length"]))
    return int(lines[0].split()[1]), body, headers.get("connection") == "close"
