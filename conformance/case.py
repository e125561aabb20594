"""What is asked of the real TorchServe and of us, and the words to write it down in.

A scenario is one server with its archives and a list of cases sent in order, one
connection each; later cases see what earlier ones registered, scaled or broke.
"""

import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

Comparison = Literal[
    "exact",  # status, reason, headers, body
    "numbers",  # the body is JSON; floats may differ by TOLERANCE
    "many numbers",  # the same, but only some of so many are kept
    "media",  # the body is a PNG or a WAV; pixels and samples may differ by a LEVEL
    "tensor",  # the body is a tensor saved by torch
    "load failure",  # ours says more: the recorded message is where its message starts
]
Port = Literal["inference", "management", "metrics", "log"]


@dataclass(frozen=True)
class Case:
    """One request; what comes back is compared."""

    name: str
    port: Port  # "log": no request, but lines of the log file that `path` names
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    comparison: Comparison = "exact"
    raw: bytes | None = None  # sent as it is, instead of method, path, headers and body
    deliberate: str | None = None  # an id of differences.py: then only our status is checked
    our_status: int | None = None  # 0: no answer, in time; None: the same as theirs
    batch_of: int = 1  # sent so many times at once
    answers_differ: bool = False  # between the requests of such a batch
    repeat_while: tuple[int, ...] = ()  # TorchServe's races: statuses to ask again about
    until: bytes | None = None  # asked again until the body holds this pattern
    lines: bytes | None = None  # only lines that hold this pattern are compared, in any order
    line_count: int = 0  # of a log: so many of these lines must come
    timeout_s: float = 60.0  # without an answer for so long there is none
    needs_captum: bool = False  # what captum explains; see also `Scenario.needs_captum`


@dataclass(frozen=True)
class Begin:
    """Send the request of a case, and go on; `Finish` waits for its answer."""

    case: Case


@dataclass(frozen=True)
class Finish:
    """Wait for the answer to the request that the case of this name began."""

    name: str


@dataclass(frozen=True)
class KillWorkers:
    """SIGKILL to every worker of a model."""

    model: str


@dataclass(frozen=True)
class Restart:
    """Stop the server by SIGTERM, and start it again from its latest snapshot."""


Step = Case | Begin | Finish | KillWorkers | Restart


@dataclass(frozen=True)
class Scenario:
    """One server, and what is done to it."""

    name: str
    archives: tuple[str, ...]
    cases: list[Step]
    config: dict[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    args: tuple[str, ...] = ("--disable-token-auth", "--enable-model-api")
    environment: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # in the working directory
    is_long: bool = False  # not in `make test`
    has_snapshots: bool = False
    shares_port: bool = False  # inference and management
    elsewhere: tuple[str, ...] = ()  # archives in `<home>/elsewhere`, which `<files>` serves
    needs_torch: bool = False
    needs_captum: bool = False  # TorchServe's image handlers do not load without it
    needs: tuple[str, ...] = ()  # further modules that handlers import, in both environments
    programs: tuple[str, ...] = ()  # what the archives are made with
    needs_packages: bool = False  # from PyPI: its archives' handlers, or what those ask for

    @property
    def asked(self) -> list[Case]:
        """The cases among the steps."""
        return [
            step.case if isinstance(step, Begin) else step
            for step in self.cases
            if isinstance(step, Case | Begin)
        ]

    @property
    def needed(self) -> tuple[str, ...]:
        """All archives."""
        return (*self.archives, *(name for name in self.elsewhere if name not in self.archives))

    @property
    def asks_for_keys(self) -> bool:
        return "--disable-token-auth" not in self.args

    @property
    def model_names(self) -> list[str]:
        """Of the models loaded at the start."""
        return [Path(model.partition("=")[0]).stem for model in self.models]


def together(*cases: Case) -> list[Step]:
    """All at once: a batch, where the model takes so many."""
    return [*(Begin(case) for case in cases), *(Finish(case.name) for case in cases)]


def register(archive: str, **parameters: object) -> Case:
    query = {"url": f"{archive}.mar", "initial_workers": 1, "synchronous": "true", **parameters}
    name = f"register {parameters.get('model_name', archive)}"
    return Case(name, "management", "POST", f"/models?{urlencode(query)}")


def infer(
    name: str, path: str, body: bytes = b"", content_type: str | None = None, **options: Any
) -> Case:
    """A POST to the inference port, unless `method` says otherwise."""
    headers = tuple(options.pop("headers", ()))
    if content_type is not None:
        headers += (("Content-Type", content_type),)
    method = options.pop("method", "POST")
    return Case(name, "inference", method, path, headers, body, **options)


def manage(name: str, method: str, path: str, **options: Any) -> Case:
    return Case(name, "management", method, path, **options)


@cache
def picture() -> bytes:
    """A PNG of 300 x 260 smooth colours: the same bytes everywhere, no imaging library."""
    width, height = 300, 260
    return png(
        width,
        height,
        lambda x, y: (x * 255 // width, y * 255 // height, (x * y) // 300 % 256),
    )


def png(width: int, height: int, colour_at: Callable[[int, int], tuple[int, ...]]) -> bytes:
    """A PNG of what `colour_at(x, y)` says, up to 255: a grey, a colour, or one with its alpha."""
    rows = b"".join(
        b"\0" + bytes(channel for x in range(width) for channel in colour_at(x, y))
        for y in range(height)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    kind = {1: 0, 3: 2, 4: 6}[len(colour_at(0, 0))]
    size = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(rows, 0))
        + chunk(b"IEND", b"")
    )


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart body of (header lines, content), boundary `frontier`."""
    body = io.BytesIO()
    for header_lines, content in parts:
        body.write(b"--frontier\r\n" + header_lines.encode() + b"\r\n\r\n" + content + b"\r\n")
    body.write(b"--frontier--\r\n")
    return body.getvalue()


MULTIPART = "multipart/form-data; boundary=frontier"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
ECHO = "/predictions/echo"


def reply(status: str, phrase: str | None = None) -> list[tuple[str, str]]:
    headers = [("reply-status", status), ("reply-text", "the answer")]
    return headers if phrase is None else [*headers, ("reply-phrase", phrase)]


def key(kind: str, before: str = "Bearer ", after: str = "") -> tuple[str, str]:
    """A header with a key of the key file, which `with_keys` puts in."""
    return ("Authorization", f"{before}<{kind} key>{after}")


MANAGING, INFERRING, RENEWING = key("management"), key("inference"), key("API")


def with_places(case: Case, places: Mapping[str, str]) -> Case:
    """The case with `<name>` in its path replaced by this place, as a part of a query."""
    path = case.path
    for name, place in places.items():
        path = path.replace(f"<{name}>", quote(place))
    return replace(case, path=path)


def with_keys(case: Case, keys: dict[str, str]) -> Case:
    """The case with the keys that the server asks for now."""

    def filled(text: str) -> str:
        for kind, value in keys.items():
            text = text.replace(f"<{kind} key>", value)
        return text

    headers = tuple((name, filled(value)) for name, value in case.headers)
    return replace(case, path=filled(case.path), headers=headers)
