"""Sealed requests on the client's side: bytes to send, and what came back in them.

For predictions that pass somebody who ends TLS. The key is the claim `hpke-key` of a server that
was verified before. docs/sealed-requests.md says what this protects, and what it does not.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import unquote

from torchkeep.runtime.receipts import HEADER
from torchkeep.runtime.sealed_messages import (
    ANSWER_TYPE,
    REQUEST_ID_BYTES,
    REQUEST_TYPE,
    RESPONSE_KEY_BYTES,
    AnswerEnd,
    AnswerHead,
    AnswerOpener,
    Destination,
    Header,
    InnerRequest,
    SealedMessageError,
    Session,
    seal_request,
)

UNKNOWN_KEY_STATUS = 421
SESSION_S = 600.0  # of one session; its key seals far fewer requests than it could
RESERVED = frozenset(["explanations", "invocations", "models", "ping"])


class NotSealed(SealedMessageError):
    """An answer that is not sealed: an error from before the request was opened.

    Nobody vouches for it; a proxy may have made it.
    """

    def __init__(self, status: int, text: str, *, was_in_session: bool) -> None:
        super().__init__(f"The answer is not sealed, its status is {status}: {text:.500}")
        self.status = status
        self.was_in_session = was_in_session  # the request

    @property
    def is_key_unknown(self) -> bool:
        """Whether to seal anew: by HPKE, and where it was so, for a key with new evidence."""
        return self.status == UNKNOWN_KEY_STATUS


@dataclass(frozen=True, slots=True)
class OpenedAnswer:
    """What the server answered, as nobody between could read or change it."""

    status: int
    reason: str
    headers: Sequence[Header]  # and those of the end
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of this name, however it is spelled."""
        wanted = name.lower().encode()
        found = (value for other, value in self.headers if other.lower() == wanted)
        value = next(found, None)
        return None if value is None else value.decode("latin-1")

    @property
    def receipt(self) -> str | None:
        return self.header(HEADER)


@dataclass(frozen=True, slots=True)
class SealedCall:
    """One request, to be sent once, and the key to its answer."""

    path: str  # as it is to be sent, without a query
    body: bytes
    inner: InnerRequest
    is_in_session: bool
    adopt: Callable[[], None]  # to be called when the answer has begun to open

    @property
    def content_type(self) -> str:
        """Of what is sent; the request's own is one of its sealed headers."""
        return REQUEST_TYPE

    def reader(self, status: int, content_type: str, text: str = "") -> AnswerOpener:
        """For an answer that comes in pieces; raises NotSealed, which quotes `text`."""
        if content_type.partition(";")[0].strip().lower() != ANSWER_TYPE:
            raise NotSealed(status, text, was_in_session=self.is_in_session)
        return AnswerOpener(self.inner.response_key, self.inner.request_id)

    def opened(self, status: int, content_type: str, body: bytes) -> OpenedAnswer:
        """A whole answer. Raises SealedMessageError."""
        reader = self.reader(status, content_type, body.decode("utf-8", "replace"))
        answer = whole(reader, [body])
        self.adopt()
        return answer


class Sealer:
    """Seals requests for one server; may be used by several threads.

    The first request that was answered leaves a session behind, in which the next ones are sealed
    at a fraction of the cost. A server that does not know it, or the key, answers with an error
    whose `is_key_unknown` is true: then `forget` and seal anew, and where that fails too, ask for
    the key again.
    """

    def __init__(self, hpke_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._hpke_key = hpke_key
        self._clock = clock
        self._session: Session | None = None
        self._renew_at = 0.0

    def seal(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Sequence[Header] = (),
        query: str = "",
    ) -> SealedCall:
        """`path` is the server's, should a proxy add to it or take away.

        `headers` and `query` are the handler's. What whoever stands between needs to know, an API
        key for one, is sent beside the sealed body. Raises ValueError for a path that leads to no
        prediction.
        """
        now = self._clock()
        session = self._session if now < self._renew_at else None
        inner = InnerRequest(
            response_key=secrets.token_bytes(RESPONSE_KEY_BYTES),
            time_ms=int(now * 1000),
            request_id=secrets.token_bytes(REQUEST_ID_BYTES),
            headers=headers,
            query=query,
            body=body,
            wants_session=session is None,
        )
        target = destination(method, path)
        if session is not None:
            return SealedCall(path, session.seal(target, inner), inner, True, _nothing)
        sealed = seal_request(self._hpke_key, target, inner)
        return SealedCall(path, sealed, inner, False, partial(self._adopt, inner))

    def forget(self) -> None:
        """Begin another session with the next request."""
        self._session = None

    def _adopt(self, inner: InnerRequest) -> None:
        self._renew_at = self._clock() + SESSION_S
        self._session = Session(inner)


def _nothing() -> None:
    pass


def whole(reader: AnswerOpener, pieces: Iterable[bytes]) -> OpenedAnswer:
    """An answer, once all of it has come and opened. Raises SealedMessageError."""
    heads: list[AnswerHead] = []
    headers: list[Header] = []
    body: list[bytes] = []
    for piece in pieces:
        for part in reader.feed(piece):
            match part:
                case AnswerHead():
                    heads.append(part)
                    headers.extend(part.headers)
                case AnswerEnd():
                    headers.extend(part.headers)
                case _:
                    body.append(part)
    reader.finish()
    [head] = heads
    return OpenedAnswer(head.status, head.reason, headers, b"".join(body))


def destination(method: str, path: str) -> Destination:
    """What a request to this path, as it is sent, is bound to. Raises ValueError."""
    decoded = unquote(path)
    segments = decoded.split("/")
    while segments and not segments[-1]:
        segments.pop()
    named = _named(segments[1:])
    if named is None:
        raise ValueError(f"{path} leads to no prediction: only those can be sealed")
    return Destination(method.upper(), decoded, *named)


def _named(segments: list[str]) -> tuple[str, str] | None:
    """Model and version that a path names, as the server reads it; None where it asks for none."""
    match segments:
        case ["predictions" | "explanations", name, *rest]:
            return name, rest[0] if rest else ""
        case ["v1", "models", call] if ":predict" in call or ":explain" in call:
            return call.partition(":")[0], ""
        case ["v2", "models", name, "infer" | "explain"] | ["models", name, "invoke"]:
            return name, ""
        case ["invocations"]:
            return "", ""
        case [name, "predict"] if name not in RESERVED:
            return name, ""
        case [name, version, "predict"] if name not in RESERVED:
            return name, version
    return None
