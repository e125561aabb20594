"""Somebody in between who ends TLS: has a certificate of his own, and reads all that passes."""

import asyncio
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

START_DEADLINE_S = 60


@dataclass
class TlsProxy:
    """TLS to him, plain HTTP from him to `upstream`, a port of this machine."""

    upstream: int
    place: Path  # for his key
    read: bytearray = field(default_factory=bytearray)  # of both directions
    url: str = ""
    known_by: ssl.SSLContext | None = None  # for clients

    @contextmanager
    def listening(self) -> Iterator["TlsProxy"]:
        context = self._own_context()
        loop = asyncio.new_event_loop()
        is_up = threading.Event()
        stop = asyncio.Event()
        thread = threading.Thread(
            target=loop.run_until_complete, args=(self._run(context, is_up, stop),)
        )
        thread.start()
        try:
            assert is_up.wait(START_DEADLINE_S), "the proxy does not start"
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    async def _run(
        self, context: ssl.SSLContext, is_up: threading.Event, stop: asyncio.Event
    ) -> None:
        passing: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None, "streams run in tasks"
            passing.add(task)
            task.add_done_callback(passing.discard)
            with suppress(OSError, asyncio.CancelledError):
                await self._pass_on(reader, writer)

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        is_up.set()
        await stop.wait()
        server.close()
        for task in passing:
            task.cancel()
        await asyncio.gather(*passing, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self.upstream)
        try:
            ways = [self._copy(reader, requests), self._copy(answers, writer)]
            tasks = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            requests.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            self.read += piece
            writer.write(piece)
            await writer.drain()

    def _own_context(self) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxy")])
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            # What the strict verification of Python 3.13 asks for.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .sign(key, SHA256())
            .public_bytes(Encoding.PEM)
        )
        file = self.place / "proxy.pem"
        file.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + made
        )
        self.known_by = ssl.create_default_context(cadata=made.decode())
        self.known_by.verify_flags |= ssl.VERIFY_X509_STRICT
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context
