"""What a client can see of an answer, and how two answers differ."""

import base64
import io
import json
import re
import wave
from array import array
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any

from conformance.case import Case, Comparison
from conformance.raw_http import Answer

Fact = dict[str, Any]  # what is compared of an answer; JSON

TOLERANCE = 1e-3
LEVEL = 1  # of 256 for a pixel, of 65536 for a sample
KEPT_NUMBERS = 300


def in_one(answers: list[Fact]) -> Fact:
    """Answers of a batch whose requests arrived in any order, as one that can be compared."""
    by_body = sorted(answers, key=lambda known: str(known.get("text")))
    headers = [
        [f"{name} #{i}", value] for i, k in enumerate(by_body) for name, value in k["headers"]
    ]
    together = {key: [known.get(key) for known in by_body] for key in by_body[0]}
    return {**together, "headers": headers}


def no_answer(why: str) -> Fact:
    """Instead of an answer: it never came."""
    return {"status": 0, "reason": why, "headers": [], "is_closed": False}


def log_fact(case: Case, content: bytes) -> tuple[Fact, int]:
    """The lines of a log file that the case is about, and their number."""
    picked = picked_lines(case.lines or b"", content)
    known = {"status": 200, "reason": "", "headers": [], "is_closed": False}
    return {**known, "text": picked.decode("utf-8", "replace")}, len(picked.splitlines())


def picked_lines(pattern: bytes, text: bytes) -> bytes:
    """The lines that hold the pattern, without what differs from run to run, sorted."""
    picked = [line for line in text.splitlines() if re.search(pattern, line)]
    return b"\n".join(sorted(_masked(line, VOLATILE_IN_LINES) for line in picked))


def _masked(text: bytes, patterns: list[tuple[bytes, bytes]]) -> bytes:
    for pattern, replacement in patterns:
        text = re.sub(pattern, replacement, text)
    return text


def answer_fact(case: Case, answer: Answer, places: Mapping[str, str] | None = None) -> Fact:
    """An answer without what differs from run to run: comparable, and JSON."""
    request_id = answer.header("x-request-id")
    body: bytes = answer.body
    headers = [[name, value] for name, value in answer.headers]
    if request_id is not None and UUID.fullmatch(request_id):
        body = body.replace(request_id.encode(), b"<request id>")
        headers = [[name, value.replace(request_id, "<request id>")] for name, value in headers]
    if case.comparison == "many numbers" and answer.status == 200:
        body = _some_numbers(body)
    masked = _masked(body, VOLATILE)
    for name, place in (places or {}).items():
        masked = masked.replace(place.encode(), f"<{name}>".encode())
    if case.lines is not None:
        masked = picked_lines(case.lines, masked)
    if masked != body:
        length = ["content-length", str(len(answer.body))]
        headers = [["content-length", "<length>"] if pair == length else pair for pair in headers]
    known: Fact = {
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


def _some_numbers(body: bytes) -> bytes:
    """How many numbers there are in nested lists, and about KEPT_NUMBERS of them."""
    values = [json.loads(body)]
    while values and isinstance(values[0], list):
        values = [one for value in values for one in value]
    step = max(1, len(values) // KEPT_NUMBERS) | 1  # odd: pairs are met on both sides
    return json.dumps({"numbers": len(values), f"every {step}th": values[::step]}).encode()


UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
VOLATILE = [
    # TorchServe's documents and ours say the same, each in its own words.
    (rb'"description": "(?:[^"\\]|\\.)*"', b'"description": "<text>"'),
    (rb'"startTime": "\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', b'"startTime": "<time>"'),
    (rb'"pid": [1-9]\d*', b'"pid": <pid>'),
    (rb'"memoryUsage": \d+', b'"memoryUsage": <bytes>'),
]


# Metrics and log lines: who asked, when, how long it took, what the machine is like.
_MEASURED = (
    rb"ts_(?:inference|queue)_latency_microseconds|QueueTime|WorkerThreadTime|WorkerLoadTime"
    rb"|CPUUtilization|Memory\w+|Disk\w+|HandlerTime|PredictionTime|ts_handler_\w+"
)
VOLATILE_IN_LINES = [
    (rb'[Hh]ostname="[^"]*"', b'hostname="<host>"'),
    (rb"hostname:[^,|\s]+", b"hostname:<host>"),
    (rb"timestamp:\d+", b"timestamp:<time>"),
    (rb"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3}", b"<time>"),
    (UUID.pattern.encode(), b"<id>"),
    (rb'/127\.0\.0\.1:\d+ "', b'<client> "'),
    (rb'(" \d{3}) \d+$', rb"\1 <ms>"),
    (rb"^((?:" + _MEASURED + rb")\{[^}]*\}) \S+$", rb"\1 <value>"),
    (rb"((?:" + _MEASURED + rb")\.\w+):[-0-9.E]+\|", rb"\1:<value>|"),
]


def differences(case: Case, theirs: Fact, ours: Fact) -> list[str]:
    """One line per difference that a client could see."""
    found = []
    theirs, ours = dict(theirs), dict(ours)
    if case.comparison != "exact":
        their_body, our_body = _take_body(theirs), _take_body(ours)
        if not _is_like(case.comparison, their_body, our_body):
            found.append(f"body {our_body[:300]!r}, TorchServe {their_body[:300]!r}")
        for known in (theirs, ours):  # the length follows the body
            known["headers"] = [pair for pair in known["headers"] if pair[0] != "content-length"]
    found += _text_differences(theirs.pop("text", None), ours.pop("text", None))
    for key in ("status", "reason", "is_closed", "base64", "chunks", "is_reset"):
        if ours.get(key) != theirs.get(key):
            found.append(f"{key} {ours.get(key)!r}, TorchServe {theirs.get(key)!r}")
    found += [
        f"header {pair} is not TorchServe's"
        for pair in ours["headers"]
        if pair not in theirs["headers"]
    ]
    found += [
        f"header {pair} is missing" for pair in theirs["headers"] if pair not in ours["headers"]
    ]
    return found


def _text_differences(theirs: str | None, ours: str | None) -> list[str]:
    """Of long texts only the lines that differ, where they differ in a few."""
    if theirs == ours:
        return []
    if theirs is None or ours is None or "\n" not in theirs.strip():
        return [f"body {ours!r}, TorchServe {theirs!r}"]
    changed = [
        line
        for line in unified_diff(theirs.splitlines(), ours.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    return ["body, TorchServe - and Torchkeep +:", *(f"  {line}" for line in changed)]


def unwanted(case: Case, theirs: Fact, ours: Fact) -> list[str]:
    """The differences that are not on purpose."""
    if case.deliberate is None:
        return differences(case, theirs, ours)
    status = theirs["status"] if case.our_status is None else case.our_status
    if ours["status"] != status:
        return [f"status {ours['status']}, on purpose would be {status} ({case.deliberate})"]
    return []


def _take_body(known: dict[str, Any]) -> bytes:
    if "text" in known:
        return str(known.pop("text")).encode()
    return base64.b64decode(known.pop("base64", ""))


def _is_like(comparison: Comparison, theirs: bytes, ours: bytes) -> bool:
    try:
        return _is_alike(comparison, theirs, ours)
    except ValueError:  # one of both is no JSON
        return theirs == ours


def _is_alike(comparison: Comparison, theirs: bytes, ours: bytes) -> bool:
    if comparison == "tensor":
        import torch

        return bool(torch.equal(torch.load(io.BytesIO(theirs)), torch.load(io.BytesIO(ours))))
    if comparison == "media":
        return theirs[:4] == ours[:4] and _are_near(_levels(theirs), _levels(ours))
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


def _levels(body: bytes) -> tuple[object, list[int]]:
    """The form of a PNG or a WAV, and its pixels or samples. Raises ValueError if it is neither."""
    try:
        if body.startswith(b"\x89PNG"):
            from PIL import Image

            picture = Image.open(io.BytesIO(body))
            return (picture.mode, picture.size), list(picture.tobytes())
        with wave.open(io.BytesIO(body)) as sound:
            samples = array("h", sound.readframes(sound.getnframes()))
            return sound.getparams(), samples.tolist()
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError("neither a PNG nor a WAV") from error


def _are_near(theirs: tuple[object, list[int]], ours: tuple[object, list[int]]) -> bool:
    is_alike = theirs[0] == ours[0] and len(theirs[1]) == len(ours[1])
    return is_alike and all(abs(a - b) <= LEVEL for a, b in zip(theirs[1], ours[1], strict=True))
