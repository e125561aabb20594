"""A stand-in for S3: gives its object to who signed the request, and refuses all others.

The signature is computed here anew from what arrived, as AWS describes Signature Version 4 for
S3, and not by the library under test.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote, urlsplit

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<day>\d{8})/(?P<region>[^/]+)/s3/aws4_request, "
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+), Signature=(?P<signature>[0-9a-f]{64})"
)
MUST_BE_SIGNED = {"host", "x-amz-content-sha256", "x-amz-date"}


class S3Server(ThreadingHTTPServer):
    """Knows one pair of keys; remembers the headers of each request."""

    def __init__(self, content: bytes, key_id: str, secret: str, region: str, token: str = ""):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.content = content
        self.keys = {key_id: secret}
        self.region = region
        self.token = token
        self.redirects: dict[str, str] = {}
        self.requests: list[Mapping[str, str]] = []

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def refusal(self, target: str, headers: Mapping[str, str]) -> str | None:
        """What is wrong with a request; None where it is signed as it should be."""
        claim = _AUTHORIZATION.fullmatch(headers.get("Authorization", ""))
        if claim is None or claim["id"] not in self.keys or claim["region"] != self.region:
            return "no such key"
        names = claim["headers"].split(";")
        if not set(names) >= MUST_BE_SIGNED or names != sorted(names):
            return "too little is signed"
        if self.token and (
            headers.get("X-Amz-Security-Token") != self.token or "x-amz-security-token" not in names
        ):
            return "no token"
        moment = datetime.strptime(headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if abs(datetime.now(UTC) - moment) > timedelta(minutes=15):
            return "another time"
        scope = f"{claim['day']}/{self.region}/s3/aws4_request"
        digest = hashlib.sha256(_canonical(target, headers, names).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{headers['X-Amz-Date']}\n{scope}\n{digest}"
        key = f"AWS4{self.keys[claim['id']]}".encode()
        for part in (*scope.split("/"), text):
            key = hmac.digest(key, part.encode(), "sha256")
        return None if hmac.compare_digest(key.hex(), claim["signature"]) else "another signature"


def _canonical(target: str, headers: Mapping[str, str], names: list[str]) -> str:
    parts = urlsplit(target)
    pairs = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    return "\n".join(
        [
            "GET",
            quote(unquote(parts.path), safe="/~"),
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{headers[name].strip()}" for name in names),
            "",
            ";".join(names),
            headers["X-Amz-Content-SHA256"],
        ]
    )


class _Answers(BaseHTTPRequestHandler):
    server: S3Server

    def do_GET(self) -> None:
        self.server.requests.append(self.headers)
        location = self.server.redirects.get(self.path)
        refusal = self.server.refusal(self.path, self.headers)
        self.send_response(307 if location else 403 if refusal else 200)
        content = (refusal or "").encode() or self.server.content
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass
