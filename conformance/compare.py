"""What a client can see of an answer, and how two answers differ."""

import base64
import io
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from conformance.case import Case, Comparison

TOLERANCE = 1e-3


def ask(case: Case, base_url: str, http: Any) -> dict[str, Any]:
    """The fact of our or their answer to one case; `http` is the module raw_http."""

    def once() -> dict[str, Any]:
        if case.raw is not None:
            return fact(http.send_raw(base_url, case.raw))
        return fact(http.send(base_url, case.method, case.path, case.headers, case.body))

    with ThreadPoolExecutor(case.batch_of) as senders:
        first, *others = [
            pending.result() for pending in [senders.submit(once) for _ in range(case.batch_of)]
        ]
    if case.answers_differ:
        return in_one([first, *others])
    for other in others:
        assert other == first, f"{case.name}: not all answers of the batch are alike"
    return first


def in_one(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Answers of a batch whose requests arrived in any order, as one that can be compared."""
    by_body = sorted(answers, key=lambda known: str(known["text"]))
    headers = [
        [f"{name} #{i}", value] for i, k in enumerate(by_body) for name, value in k["headers"]
    ]
    together = {key: [known.get(key) for known in by_body] for key in by_body[0]}
    return {**together, "headers": headers}


def fact(answer: Any) -> dict[str, Any]:
    """An answer without what differs from run to run: comparable, and JSON."""
    request_id = answer.header("x-request-id")
    body: bytes = answer.body
    headers = [[name, value] for name, value in answer.headers]
    if request_id is not None and re.fullmatch(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id
    ):
        body = body.replace(request_id.encode(), b"<request id>")
        headers = [[name, value.replace(request_id, "<request id>")] for name, value in headers]
    masked = body
    for pattern, text in VOLATILE:
        masked = re.sub(pattern, text, masked)
    if masked != body:
        length = ["content-length", str(len(answer.body))]
        headers = [["content-length", "<length>"] if pair == length else pair for pair in headers]
    known: dict[str, Any] = {
        "status": answer.status,
        "reason": answer.reason,
        "headers": sorted(headers),
        "is_closed": answer.is_closed,
    }
    if answer.chunks is not None:
        known["chunks"] = [chunk.decode("latin-1") for chunk in answer.chunks]
        known["is_reset"] = answer.is_reset
    try:
        known["text"] = masked.decode("ascii")
    except UnicodeDecodeError:
        known["base64"] = base64.b64encode(masked).decode("ascii")
    return known


UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VOLATILE = [
    # TorchServe's documents and ours say the same, each in its own words.
    (rb'"description": "(?:[^"\\]|\\.)*"', b'"description": "<text>"'),
    (rb'"startTime": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', b'"startTime": "<time>"'),
    (rb'"pid": [1-9]\d*', b'"pid": <pid>'),
    (rb'"memoryUsage": \d+', b'"memoryUsage": <bytes>'),
]


def differences(case: Case, theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """One line per difference that a client could see."""
    if case.deliberate:
        return []
    theirs, ours = dict(theirs), dict(ours)
    found = []
    if case.comparison != "exact":
        their_body, our_body = _take_body(theirs), _take_body(ours)
        if not _is_like(case.comparison, their_body, our_body):
            found.append(f"{case.name}: body {our_body[:300]!r}, TorchServe {their_body[:300]!r}")
        for known in (theirs, ours):  # the length follows the body
            known["headers"] = [pair for pair in known["headers"] if pair[0] != "content-length"]
    for key in ("status", "reason", "is_closed", "text", "base64", "chunks", "is_reset"):
        if ours.get(key) != theirs.get(key):
            found.append(f"{case.name}: {key} {ours.get(key)!r}, TorchServe {theirs.get(key)!r}")
    found += [
        f"{case.name}: header {pair} is not TorchServe's"
        for pair in ours["headers"]
        if pair not in theirs["headers"]
    ]
    found += [
        f"{case.name}: header {pair} is missing"
        for pair in theirs["headers"]
        if pair not in ours["headers"]
    ]
    return found


def _take_body(known: dict[str, Any]) -> bytes:
    if "text" in known:
        return str(known.pop("text")).encode()
    return base64.b64decode(known.pop("base64"))


def _is_like(comparison: Comparison, theirs: bytes, ours: bytes) -> bool:
    if comparison == "tensor":
        import torch

        return bool(torch.equal(torch.load(io.BytesIO(theirs)), torch.load(io.BytesIO(ours))))
    if comparison == "load failure":
        their_error, our_error = json.loads(theirs), json.loads(ours)
        if "message" not in their_error:
            return bool(their_error == our_error)
        is_start = str(our_error.pop("message")).startswith(their_error.pop("message"))
        return is_start and list(their_error.items()) == list(our_error.items())
    return _is_close(json.loads(theirs), json.loads(ours))


def _is_close(theirs: Any, ours: Any) -> bool:
    match theirs, ours:
        case float(), float():
            return abs(theirs - ours) <= TOLERANCE
        case list(), list():
            return len(theirs) == len(ours) and all(map(_is_close, theirs, ours))
        case dict(), dict():
            return list(theirs) == list(ours) and all(
                _is_close(theirs[key], ours[key]) for key in theirs
            )
    return bool(theirs == ours)
