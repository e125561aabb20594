"""What is done to the request for a prediction before anybody reads it."""

import re

from torchkeep.frontend.call import Call
from torchkeep.frontend.envelope import RECEIPT_HEADER, Envelope, ReceiptDraft
from torchkeep.frontend.errors import BadRequest, SealedRequestInvalid
from torchkeep.frontend.sealed_requests import SealedRequests
from torchkeep.frontend.targets import Target
from torchkeep.runtime.identity import AttestedKey
from torchkeep.runtime.messages import Body
from torchkeep.runtime.receipts import HEADER, NONCE_CHARS, Asked, body_digest
from torchkeep.runtime.sealed_messages import REQUEST_TYPE, AnswerSealer, Destination

SEALED_TYPE = REQUEST_TYPE.encode()
NONCE = re.compile(rf"[!-~]{{{NONCE_CHARS[0]},{NONCE_CHARS[-1]}}}")


class RequestOpener:
    """Opens what is sealed, and notes who wants a receipt."""

    def __init__(self, sealed: SealedRequests, key: AttestedKey) -> None:
        self._sealed = sealed
        self._key = key

    def open(self, call: Call, target: Target, body: Body) -> Body:
        """The body to go on with; `call` becomes what was sealed.

        What this raises before `call` has an envelope is answered in the clear.
        """
        content_type, nonce = _asked_for(call)
        if content_type.partition(b";")[0].strip().lower() == SEALED_TYPE:
            body = self._unseal(call, target, body)
            content_type, nonce = _asked_for(call)
        if nonce is not None:
            asked = Asked(
                call.method,
                call.scope["path"],
                call.scope["query_string"].decode("latin-1"),
                content_type.decode("latin-1"),
                body_digest(body),
            )
            call.envelope = call.envelope or Envelope(call.request_id, None)
            call.envelope.receipt = ReceiptDraft(self._key, _checked(nonce), call.request_id, asked)
        return body

    def _unseal(self, call: Call, target: Target, body: Body) -> Body:
        if call.scope["query_string"]:
            raise SealedRequestInvalid("The query of a sealed request has to be sealed with it.")
        name, version = target.name or "", target.version or ""
        destination = Destination(call.method, call.scope["path"], name, version)
        request = self._sealed.open(destination, bytes(body))
        call.unseal(request.headers, request.query)
        sealer = AnswerSealer(request.response_key, request.request_id)
        call.envelope = Envelope(call.request_id, sealer)
        return request.body


def _asked_for(call: Call) -> tuple[bytes, bytes | None]:
    """Content type and nonce for a receipt, in one look, since every prediction gets it."""
    content_type, nonce = b"", None
    for name, value in call.scope["headers"]:
        if name == b"content-type":
            content_type = value
        elif name == RECEIPT_HEADER:
            nonce = value
    return content_type, nonce


def _checked(nonce: bytes) -> str:
    text = nonce.decode("latin-1")
    if not NONCE.fullmatch(text):
        raise BadRequest(
            f"{HEADER} must be {NONCE_CHARS[0]} to {NONCE_CHARS[-1]} visible ASCII characters, "
            "fresh for each request."
        )
    return text
