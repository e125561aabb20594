"""The frontend's side of one stage of the zygote: a request on its control socket, a reply."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import Any

import msgpack

from torchkeep.frontend.child_process import ChildProcess
from torchkeep.runtime.errors import ServingError

log = logging.getLogger(__name__)

_MAX_REPLY_BYTES = 1 << 16


class ZygoteError(ServingError):
    """A stage cannot fork, or is gone."""


class StageClient:
    """One stage of the zygote, asked one thing at a time."""

    def __init__(self, name: str, control: socket.socket) -> None:
        self.name = name
        self.child: ChildProcess | None = None
        control.setblocking(False)
        self._control = control
        self._turn = asyncio.Lock()  # replies come in the order of the requests
        self._number = 0  # of the last request
        self._first_words: dict[str, Any] | None = None

    async def first_words(self) -> dict[str, Any]:
        """What the stage says once, when it is ready. Raises ZygoteError if it ends before."""
        async with self._turn:
            return await self._hear_first()

    async def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """Send a request (and descriptors, which stay the caller's) and wait for the reply."""
        async with self._turn:
            await self._hear_first()
            self._number += 1
            data = msgpack.packb({"n": self._number, **request})
            try:
                socket.send_fds(self._control, [data], list(descriptors))
            except OSError as error:
                raise ZygoteError(f"the {self.name} stage of the zygote is gone") from error
            reply = await self._receive()
            while reply.get("n") != self._number:  # to somebody who no longer waits
                reply = await self._receive()
        if "error" in reply:
            raise ZygoteError(str(reply["error"]))
        return reply

    def close(self) -> None:
        self._control.close()

    async def wait_ended(self) -> None:
        """Until the process is gone, once its control socket is closed; it is given a second."""
        if self.child is None:
            return
        try:
            # One that is still importing does not look at its socket yet.
            await asyncio.wait_for(asyncio.shield(self.child.exited), timeout=1)
        except TimeoutError:
            self.child.kill()
            await self.child.exited

    async def _hear_first(self) -> dict[str, Any]:
        if self._first_words is None:
            self._first_words = await self._receive()
            log.info("zygote stage %s ready", self.name)
        return self._first_words

    async def _receive(self) -> dict[str, Any]:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._control, _MAX_REPLY_BYTES)
        except OSError as error:
            raise ZygoteError(f"the {self.name} stage of the zygote is gone") from error
        if not data:
            raise ZygoteError(f"the {self.name} stage of the zygote is gone")
        try:
            reply = msgpack.unpackb(data)
        except ValueError as error:  # a model stage has run a stranger's code
            raise ZygoteError(f"the {self.name} stage sent no message") from error
        if not isinstance(reply, dict):
            raise ZygoteError(f"the {self.name} stage sent no message")
        return reply
