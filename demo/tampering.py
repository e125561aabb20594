"""What the walk-through's attackers do to bytes: one bit, or what looks as good as genuine."""

import base64
import io
import json
import zipfile
from collections.abc import Callable

from torchkeep.runtime import base64url


def with_last_bit_flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1]) if body else body


def with_bit_flipped(contents: bytes, at: int) -> bytes:
    return contents[:at] + bytes([contents[at] ^ 1]) + contents[at + 1 :]


def with_member_changed(name: str, at: int) -> Callable[[bytes], bytes]:
    """Changes one bit of what a member of an evidence document holds in base64."""

    def changed(body: bytes) -> bytes:
        document = json.loads(body)
        if name not in document:
            return body  # "ask again later"
        contents = base64.b64decode(document[name])
        contents = with_bit_flipped(contents, at % len(contents))
        return json.dumps({**document, name: base64.b64encode(contents).decode()}).encode()

    return changed


def with_sealed_bit_flipped(body: bytes) -> bytes:
    return body if body.startswith(b"{") else with_last_bit_flipped(body)


def with_payload_changed(receipt: str) -> str:
    """The answer's digest in it begins with another digit."""
    head, payload, signature = receipt.split(".")
    fields = json.loads(base64url.decode(payload))
    digest = fields["answer"]["sha256"]
    fields["answer"]["sha256"] = ("1" if digest[0] == "0" else "0") + digest[1:]
    changed = json.dumps(fields, separators=(",", ":")).encode()
    return ".".join((head, base64url.encode(changed), signature))


def archive_of_the_host() -> bytes:
    buffer = io.BytesIO()
    manifest = {"model": {"modelName": "digits", "modelVersion": "1.0", "handler": "h.py"}}
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("h.py", "def handle(data, context): return data")
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return buffer.getvalue()
