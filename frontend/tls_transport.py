"""TLS below one HTTP connection: a protocol to the socket's transport, a transport to HTTP.

Not the event loop's own TLS: its handshakes belong to nobody who could end them at a stop, it
cannot answer a client that talks plain HTTP, and it does not tell how much the client has yet to
read. Here buffers, flow control and the end of a connection are those of the socket's transport,
so that all which `HttpProtocol` promises holds over TLS as well.

    silent --first byte--> handshake --> established: deadlines are HttpProtocol's
      `------- one deadline ---'
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Iterable
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from torchkeep.frontend.deadline import Deadline
from torchkeep.frontend.exchange import response_head
from torchkeep.frontend.http_protocol import LINGER_S, ListenerState
from torchkeep.frontend.responses import JSON_TYPE, NO_CACHE, status_reply
from torchkeep.runtime.messages import Body

log = logging.getLogger("torchkeep.frontend")

RECORD_BYTES = 16 << 10  # the most that one record holds
PORTION_BYTES = 1 << 18  # encrypted at once: OpenSSL's buffer grows slowly beyond

MakeHttp = Callable[[], HttpToolsProtocol]


class TlsConnection(asyncio.Protocol):
    """One connection, from its first byte on; makes its HTTP protocol after the handshake."""

    def __init__(self, context: ssl.SSLContext, state: ListenerState, make_http: MakeHttp) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._context = context
        self._state = state
        self._make_http = make_http
        self._http: HttpToolsProtocol | None = None
        self._raw: asyncio.Transport
        self._deadline = Deadline(asyncio.get_running_loop())
        self._is_silent = True
        self._is_deaf = False  # what still arrives is not looked at
        self._is_mute = False  # our side of TLS has ended

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        self._state.connections.add(cast(HttpToolsProtocol, self))
        self._deadline.set(self._state.limits.handshake_s, self._raw.abort)
        if self._state.is_draining:
            self.shutdown()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._is_silent:
            self._is_silent = False
            if data[:1].isalpha():  # a method; no record of TLS begins with a letter
                self._refuse_plain_http()
                return
        self._incoming.write(data)
        if self._http is None:
            self._shake_hands()
        if self._http is not None:
            self._deliver(self._http)

    def eof_received(self) -> None:
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(cast(HttpToolsProtocol, self))
        self._deadline.close()
        self._is_deaf = self._is_mute = True
        if self._http is not None:
            self._http.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._http is not None:
            self._http.resume_writing()

    # What uvicorn calls before HTTP begins

    def shutdown(self) -> None:
        """Drain: who has said nothing gets a short grace, who shakes hands a little more."""
        grace_s = self._state.limits.drain_grace_s if self._is_silent else LINGER_S
        self._deadline.set(grace_s, self._raw.abort)

    # What the transport calls

    def send(self, pieces: Iterable[Body]) -> None:
        """Encrypt and write."""
        if self._is_mute:
            return
        try:
            for piece in pieces:
                unsent = memoryview(piece)
                while unsent:
                    unsent = unsent[self._tls.write(unsent[:PORTION_BYTES]) :]
                    if self._outgoing.pending >= PORTION_BYTES:
                        self._flush()
            self._flush()
        except ssl.SSLError as error:
            self._break_off(error)

    def send_end(self) -> None:
        """The last record, and the end of our half; what the client still sends is dropped."""
        self._say_goodbye()
        if not self._raw.is_closing():
            self._raw.write_eof()

    def close(self) -> None:
        """Write what is to be written, and leave."""
        self._say_goodbye()
        self._raw.close()

    # Within

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            peer = self._raw.get_extra_info("peername")
            log.info("no TLS with %s: %s", peer[0] if peer else "a client", error.reason)
            self._flush()  # the alert
            self.close()
            return
        self._flush()
        self._deadline.close()
        self._state.connections.discard(cast(HttpToolsProtocol, self))
        self._http = self._make_http()
        self._http.connection_made(TlsTransport(self, self._raw, self._context))

    def _deliver(self, http: HttpToolsProtocol) -> None:
        try:
            while not self._is_deaf:
                received = self._tls.read(RECORD_BYTES)
                if not received:  # the client's goodbye
                    self.close()
                    return
                http.data_received(received)
        except ssl.SSLWantReadError:
            self._flush()  # keys are renewed by an answer
        except ssl.SSLError as error:
            self._break_off(error)

    def _break_off(self, error: ssl.SSLError) -> None:
        log.debug("TLS broke off: %s", error.reason)
        self._is_deaf = self._is_mute = True
        self._flush()  # the alert
        self._raw.abort()

    def _say_goodbye(self) -> None:
        """Without it the client could not tell our end from a cut by somebody on the way."""
        if self._is_mute:
            return
        self._is_deaf = self._is_mute = True
        with contextlib.suppress(ssl.SSLError):  # it would wait for the client's own
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._raw.write(self._outgoing.read())

    def _refuse_plain_http(self) -> None:
        """TorchServe: a hint, in the clear, without a request id."""
        reply = status_reply("This TorchServe instance only accepts HTTPS requests", 403)
        headers = [JSON_TYPE, *NO_CACHE, (b"content-length", b"%d" % len(reply.body))]
        head = response_head(reply.status, None, [*headers, (b"connection", b"close")])
        self._is_deaf = self._is_mute = True
        self._raw.write(head + reply.body)
        # As in HttpProtocol: a reset would overtake the answer.
        self._raw.write_eof()
        self._deadline.set(LINGER_S, self._raw.abort)


class TlsTransport(asyncio.Transport):
    """What `HttpProtocol` has for a transport. Sizes are those of the ciphertext."""

    def __init__(
        self, connection: TlsConnection, raw: asyncio.Transport, context: ssl.SSLContext
    ) -> None:
        super().__init__()
        self._connection = connection
        self._raw = raw
        self._context = context

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        # uvicorn asks for this one to know that it is https.
        return self._context if name == "sslcontext" else self._raw.get_extra_info(name, default)

    def write(self, data: Body) -> None:
        self._connection.send([data])

    def writelines(self, list_of_data: Iterable[Body]) -> None:
        self._connection.send(list_of_data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._connection.send_end()

    def close(self) -> None:
        self._connection.close()

    def abort(self) -> None:
        self._raw.abort()

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()
