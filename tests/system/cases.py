"""What is asked of the real TorchServe (record_facts.py) and of us (test_facts.py).

A scenario is one server with its archives and a list of cases sent in order, one
connection each; later cases see what earlier ones registered, scaled or broke.
"""

import base64
import io
import json
import re
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import urlencode

Comparison = Literal[
    "exact",  # status, reason, headers, body
    "numbers",  # the body is JSON; floats may differ by TOLERANCE
    "tensor",  # the body is a tensor saved by torch
    "load failure",  # ours says more: the recorded message is where its message starts
]
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    name: str
    port: Literal["inference", "management"]
    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    comparison: Comparison = "exact"
    raw: bytes | None = None  # sent as it is, instead of method, path, headers and body
    deliberate: str | None = None  # why our answer differs; then it is not compared
    batch_of: int = 1  # sent so many times at once
    answers_differ: bool = False  # between the requests of such a batch
    repeat_while: tuple[int, ...] = ()  # TorchServe's races: statuses to ask again about


@dataclass(frozen=True)
class Scenario:
    name: str
    archives: tuple[str, ...]
    cases: list[Case]
    config: dict[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()
    args: tuple[str, ...] = ("--disable-token-auth", "--enable-model-api")
    needs_torch: bool = False
    not_yet: str | None = None  # what is missing here before this can pass

    @property
    def asks_for_keys(self) -> bool:
        return "--disable-token-auth" not in self.args


def register(archive: str, **parameters: object) -> Case:
    query = {"url": f"{archive}.mar", "initial_workers": 1, "synchronous": "true", **parameters}
    name = f"register {parameters.get('model_name', archive)}"
    return Case(name, "management", "POST", f"/models?{urlencode(query)}")


KEPT_AFTER_FAILURE = "a model that failed to load is gone: TorchServe forgets some of its clean-up"


def load_failure(archive: str, **parameters: object) -> list[Case]:
    case = register(archive, **parameters)
    name = str(parameters.get("model_name", archive))
    kept = (
        KEPT_AFTER_FAILURE
        if archive in ("load_runtime_error", "load_cuda", "load_memory_error")
        else None
    )
    return [
        Case(f"load {name}", "management", "POST", case.path, comparison="load failure"),
        manage(f"unregister {name}", "DELETE", f"/models/{name}", deliberate=kept),
    ]


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


def picture() -> bytes:
    """A PNG of 300 x 260 smooth colours: the same bytes everywhere, no imaging library."""
    width, height = 300, 260
    rows = b"".join(
        b"\0"
        + bytes(
            channel
            for x in range(width)
            for channel in (x * 255 // width, y * 255 // height, (x * y) // 300 % 256)
        )
        for y in range(height)
    )

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
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


REQUESTS = Scenario(
    "requests",
    archives=("echo",),
    cases=[
        register("echo"),
        infer("GET without a body", ECHO, method="GET"),
        infer("POST without a body", ECHO),
        infer("PUT", ECHO, b"put", "text/plain", method="PUT"),
        infer("DELETE", ECHO, method="DELETE"),
        infer("PATCH", ECHO, b"patch", method="PATCH"),
        infer("HEAD", ECHO, method="HEAD"),
        infer("PROPFIND", ECHO, method="PROPFIND"),
        infer(
            "unknown method",
            ECHO,
            method="BREW",
            deliberate="our HTTP parser knows the registered methods only: 400",
        ),
        infer("bytes without a type", ECHO, b"\x00\xffraw"),
        infer("octet stream", ECHO, b"\x00\xffraw", "application/octet-stream"),
        infer("json", ECHO, b'{"a": [1, 2.5, null, true, "\xc3\xa4"]}', JSON),
        infer("json with charset", ECHO, b"[1]", "application/json; charset=utf-8"),
        infer("json number", ECHO, b"7", JSON),
        infer("broken json", ECHO, b'{"a": ', JSON),
        infer("empty json", ECHO, b"", JSON),
        infer("json type in capitals", ECHO, b"[1]", "Application/JSON"),
        infer("ld+json", ECHO, b"[1]", "application/ld+json"),
        infer("text", ECHO, "Grüße".encode(), "text/plain"),
        infer("text that is not utf-8", ECHO, b"\xff\xfe", "text/plain; charset=latin-1"),
        infer("text/csv", ECHO, b"1,2", "text/csv"),
        infer("empty text", ECHO, b"", "text/plain"),
        infer("urlencoded", ECHO, b"a=1&b=two+words&a=%C3%A4&c=", FORM),
        infer("urlencoded without =", ECHO, b"just text", FORM),
        infer("urlencoded json", ECHO, b'{"a":1}', FORM),
        infer("empty urlencoded", ECHO, b"", FORM),
        infer(
            "multipart",
            ECHO,
            form(
                ('Content-Disposition: form-data; name="data"; filename="a.bin"', b"\x00\xff"),
                (
                    'Content-Disposition: form-data; name="json"; filename="a.json"\r\n'
                    "Content-Type: application/json; charset=utf-8",
                    b'{"a": 1}',
                ),
                (
                    'Content-Disposition: form-data; name="text"; filename="a.txt"\r\n'
                    "Content-Type: text/plain",
                    "Grüße".encode(),
                ),
                ('Content-Disposition: form-data; name="field"', b"value"),
                (
                    'Content-Disposition: form-data; name="typed"\r\n'
                    "Content-Type: application/json",
                    b'{"a": 1}',
                ),
            ),
            MULTIPART,
        ),
        infer(
            "multipart with one name twice",
            ECHO,
            form(
                ('Content-Disposition: form-data; name="data"', b"first"),
                ('Content-Disposition: form-data; name="data"', b"second"),
            ),
            MULTIPART,
        ),
        infer("multipart that is none", ECHO, b"not a form", MULTIPART),
        infer("multipart without boundary", ECHO, b"not a form", "multipart/form-data"),
        infer("multipart/mixed", ECHO, b"mixed", "multipart/mixed; boundary=frontier"),
        infer("query string", f"{ECHO}?a=1&b=2", b"with a query"),
        infer(
            "headers as spelled",
            ECHO,
            b"h",
            headers=[
                ("X-MiXeD-CaSe", "Value"),
                ("x-lower", "v"),
                ("X-Twice", "1"),
                ("X-Twice", "2"),
            ],
        ),
        infer("two spellings", ECHO, b"h", headers=[("X-One", "1"), ("x-one", "2")]),
        infer(
            "headers the server adds itself",
            ECHO,
            b"h",
            headers=[("explain", "True"), ("url_path", "mine"), ("x-request-id", "mine")],
        ),
        infer("header named body", ECHO, b"h", headers=[("body", "a header")]),
        infer("version", f"{ECHO}/1.0", b"v"),
        infer("url path", f"{ECHO}/1.0/a/b", b"v"),
        infer("url path with empty segments", f"{ECHO}/1.0/a//b//", b"v"),
        infer("url path with escapes", f"{ECHO}/1.0/a%20b%2Fc%C3%A4+d", b"v"),
        infer("url path with a bad escape", f"{ECHO}/1.0/a%ZZ", b"v"),
        infer("url path with half an escape", f"{ECHO}/1.0/a%4", b"v"),
        infer("bad escape in the query", f"{ECHO}?a=%ZZ", b"v"),
        infer("trailing slash", f"{ECHO}/", b"v"),
        infer("context", f"{ECHO}/1.0/context", b"v"),
        infer("explain", "/explanations/echo", b"e"),
        infer("explain with url path", "/explanations/echo/1.0/x", b"e"),
        infer("HTTP/1.0", ECHO, raw=b"GET /predictions/echo HTTP/1.0\r\nHost: localhost\r\n\r\n"),
        infer(
            "connection close",
            ECHO,
            raw=b"GET /predictions/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        ),
        infer(
            "chunked body",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        ),
        infer("malformed request line", ECHO, raw=b"what is this\r\n\r\n"),
    ],
)

REPLY_KINDS = [
    *("bytes", "bytearray", "empty-bytes", "str", "empty-str", "dict", "empty-dict"),
    *("list", "empty-list", "tuple", "int", "float", "nan", "true", "none", "int-key"),
]

REPLIES = Scenario(
    "replies",
    archives=("echo", "replies"),
    cases=[
        register("echo"),
        register("replies"),
        *(
            infer(f"reply {kind}", f"/predictions/replies/1.0/{kind}")
            for kind in REPLY_KINDS
        ),
        infer(
            "content type",
            ECHO,
            headers=[("reply-content-type", "text/x-own"), ("reply-text", "typed")],
        ),
        infer(
            "header",
            ECHO,
            headers=[("reply-headers", '{"X-Own": "Value", "x-two": ""}'), ("reply-text", "h")],
        ),
        infer(
            "content type by header",
            ECHO,
            headers=[
                ("reply-content-type", "text/plain"),
                ("reply-headers", '{"Content-Type": "text/html"}'),
                ("reply-text", "h"),
            ],
        ),
        infer(
            "headers that stay the server's",
            ECHO,
            headers=[
                (
                    "reply-headers",
                    '{"x-request-id": "mine", "Content-Length": "1", "Connection": "close", '
                    '"Pragma": "mine", "Cache-Control": "mine", "Expires": "mine"}',
                ),
                ("reply-text", "h"),
            ],
        ),
        infer("header value in latin-1", ECHO,
              headers=[("reply-headers", '{"x-umlaut": "\\u00e4"}'), ("reply-text", "h")]),
        *(infer(f"status {status}", ECHO, headers=reply(status)) for status in
          ("200", "201", "204", "301", "400", "404", "413", "418", "500", "513", "599", "999")),
        *(infer(f"status {status} with a phrase", ECHO, headers=reply(status, "In My Words"))
          for status in ("200", "201", "404", "999")),
    ],
)  # fmt: skip

FAILURE_WAYS = [
    *("value-error", "memory-error", "cuda", "cuda-lower-case", "status-then-error"),
    *("too-long", "too-short", "none", "dict", "str", "tuple", "object", "set"),
    *("prediction-exception", "prediction-exception-cuda"),
    *(
        f"prediction-exception/{code}"
        for code in (-1, 200, 302, 400, 404, 413, 429, 500, 513, 599, 999)
    ),
    "fine",
]

FAILURES = Scenario(
    "failures",
    archives=("failures",),
    cases=[
        register("failures"),
        *(
            infer(f"failure {way}", f"/predictions/failures/1.0/{way}", b"x")
            for way in FAILURE_WAYS
        ),
        infer("explain a failure", "/explanations/failures/1.0/value-error", b"x"),
        infer("HEAD a failure", "/predictions/failures/1.0/value-error", method="HEAD"),
    ],
)

DEATH_WAYS = [
    *("exit", "exit-3", "os-exit", "interrupt", "int-header", "newline-header", "text-status"),
]

DEATHS = Scenario(
    "deaths",
    archives=("failures", "silent"),
    cases=[
        register("failures"),
        *(
            case
            for way in DEATH_WAYS
            for case in (
                infer(f"death {way}", f"/predictions/failures/1.0/{way}", b"x"),
                infer(f"answer after {way}", "/predictions/failures/1.0/fine", b"x"),
            )
        ),
        infer("death sigkill", "/predictions/failures/1.0/sigkill", b"x", repeat_while=(500,)),
        infer("answer after sigkill", "/predictions/failures/1.0/fine", b"x"),
        infer("healthy after deaths", "/ping", method="GET"),
        register("failures", model_name="hasty", response_timeout=0),
        infer("answer in no time", "/predictions/hasty/1.0/fine", b"x"),
        register("silent"),
        infer("no answer", "/predictions/silent/1.0/never", b"x"),
        infer("answer after no answer", "/predictions/silent/1.0/fine", b"x"),
    ],
)

LOAD_FAILURES = Scenario(
    "load failures",
    archives=(
        "load_value_error", "load_runtime_error", "load_cuda", "load_memory_error", "load_exit",
        "load_no_handler", "load_two_classes", "load_no_initialize", "load_import_error",
        "load_no_weights", "echo",
    ),
    cases=[
        *load_failure("load_value_error"),
        *load_failure("load_runtime_error"),
        Case(
            "load kept",
            "management",
            "POST",
            register("load_runtime_error", model_name="kept").path,
            comparison="load failure",
        ),
        manage("describe what stayed", "GET", "/models/kept", deliberate=KEPT_AFTER_FAILURE),
        manage("register again what stayed", "POST",
               "/models?url=load_runtime_error.mar&model_name=kept",
               deliberate=KEPT_AFTER_FAILURE),
        *load_failure("load_cuda"),
        *load_failure("load_memory_error"),
        *load_failure("load_exit"),
        *load_failure("load_no_handler"),
        *load_failure("load_two_classes"),
        *load_failure("load_no_initialize"),
        *load_failure("load_import_error"),
        *load_failure("load_no_weights"),
        *load_failure("echo", model_name="no_module", handler="no_such_module:handle"),
        *load_failure("echo", model_name="no_function", handler="echo:no_such_function"),
        infer("healthy after load failures", "/ping", method="GET"),
    ],
    needs_torch=True,
)  # fmt: skip

ENTRY_POINTS = Scenario(
    "entry points",
    archives=("entry", "shadowed", "word_lengths"),
    cases=[
        register("entry"),
        infer("entry of the manifest", "/predictions/entry"),
        register("entry", model_name="entry_other", handler="other_entry:other"),
        infer("entry of the request", "/predictions/entry_other"),
        register("entry", model_name="entry_py", handler="other_entry.py:other"),
        infer("entry with .py", "/predictions/entry_py"),
        register("shadowed"),
        infer("function beside a class", "/predictions/shadowed"),
    ],
)

CLASSES = Scenario(
    "classes",
    archives=("word_lengths", "mlp", "base"),
    cases=[
        register("word_lengths"),
        infer("words as text", "/predictions/word_lengths", b"the size of a word", "text/plain"),
        infer("words as bytes", "/predictions/word_lengths", b"the size of a word"),
        infer(
            "words as a form",
            "/predictions/word_lengths",
            form(('Content-Disposition: form-data; name="data"', b"a form field")),
            MULTIPART,
        ),
        infer("words as json", "/predictions/word_lengths", b"[1]", JSON),
        infer("words explained", "/explanations/word_lengths", b"why these", "text/plain"),
        manage("customized description", "GET", "/models/word_lengths?customized=true"),
        register("mlp"),
        infer("mlp", "/predictions/mlp", b"[0.1, 0.2, -0.3, 4]", JSON, comparison="numbers"),
        infer("mlp wrong shape", "/predictions/mlp", b"[0.1, 0.2]", JSON),
        infer("mlp not numbers", "/predictions/mlp", b'{"a": 1}', JSON),
        register("base"),
        infer("base handler", "/predictions/base", b"[0.1, 0.2, -0.3, 4]", JSON),
    ],
    needs_torch=True,
)

TENSOR = Scenario(
    "tensor",
    archives=("replies",),
    cases=[
        register("replies"),
        infer("reply tensor", "/predictions/replies/1.0/tensor", comparison="tensor"),
    ],
    needs_torch=True,
)

RESNET = Scenario(
    "resnet",
    archives=("resnet",),
    cases=[
        register("resnet"),
        infer("picture", "/predictions/resnet", picture(), "image/png", comparison="numbers"),
        infer("picture without a type", "/predictions/resnet", picture(), comparison="numbers"),
        infer(
            "picture in a form",
            "/predictions/resnet",
            form(('Content-Disposition: form-data; name="data"; filename="p.png"', picture())),
            MULTIPART,
            comparison="numbers",
        ),
        infer(
            "picture in base64",
            "/predictions/resnet",
            base64.b64encode(picture()),
            "text/plain",
            comparison="numbers",
        ),
        infer("not a picture", "/predictions/resnet", b"not a picture"),
        infer("no picture", "/predictions/resnet"),
    ],
    needs_torch=True,
)

ROUTES = Scenario(
    "routes",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer("ping", "/ping", method="GET"),
        infer("ping by POST", "/ping", b"x"),
        infer("ping with more path", "/ping/a", method="GET"),
        infer("ping with a slash", "/ping/", method="GET"),
        infer("two slashes", "//ping", method="GET"),
        infer("ping in capitals", "/Ping", method="GET"),
        infer("root", "/", method="GET"),
        infer("unknown path", "/unknown", method="GET"),
        infer("no model name", "/predictions", b"x"),
        infer("no model name to explain", "/explanations", b"x"),
        infer("unknown model", "/predictions/unknown", b"x"),
        infer("unknown version", "/predictions/echo/9.9", b"x"),
        infer("unknown model and version", "/predictions/unknown/1.0", b"x"),
        infer("unknown model to explain", "/explanations/unknown", b"x"),
        infer("management path", "/models", method="GET"),
        manage("describe a model loaded at start", "GET", "/models/echo"),
        manage("management root", "GET", "/"),
        manage("management unknown path", "GET", "/unknown"),
        manage("inference path", "POST", "/predictions/echo"),
        manage("ping on management", "GET", "/ping"),
        manage("models by PATCH", "PATCH", "/models"),
        manage("models by PUT", "PUT", "/models"),
        manage("model by POST", "POST", "/models/echo"),
        manage("third segment", "GET", "/models/echo/1.0/more"),
    ],
)

OTHER_ROUTES = Scenario(
    "other routes",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer("kserve v1 predict", "/v1/models/echo:predict", b'{"instances": [1]}', JSON),
        infer("kserve v1 explain", "/v1/models/echo:explain", b'{"instances": [1]}', JSON),
        infer("kserve v1 unknown model", "/v1/models/unknown:predict", b"{}", JSON),
        infer("kserve v2 infer", "/v2/models/echo/infer", b"{}", JSON),
        infer("kserve v2 explain", "/v2/models/echo/explain", b"{}", JSON),
        infer("invocations of the only model", "/invocations", b"x"),
        infer("invocations", "/invocations?model_name=echo&a=1", b"x"),
        infer("invocations of an unknown model", "/invocations?model_name=unknown", b"x"),
        infer("invoke", "/models/echo/invoke?a=1", b"x"),
        infer("invoke misspelled", "/models/echo/invok", b"x"),
        infer("legacy predict", "/echo/predict?a=1", b"x"),
        infer("legacy predict of a version", "/echo/1.0/predict", b"x"),
        manage("kserve readiness", "GET", "/v1/models/echo"),
        manage("kserve readiness unknown", "GET", "/v1/models/unknown"),
        manage("kserve readiness by POST", "POST", "/v1/models/echo"),
        manage("register without workers", "POST", "/models?url=echo.mar&model_name=idle"),
        manage("kserve readiness without workers", "GET", "/v1/models/idle"),
    ],
)

LIMITS = Scenario(
    "limits",
    archives=("echo",),
    config={"max_request_size": "1000", "decode_input_request": "false"},
    cases=[
        register("echo"),
        infer("body of the limit", ECHO, b"x" * 1000, headers=[("reply-text", "taken")]),
        infer("body over the limit", ECHO, b"x" * 1001, headers=[("reply-text", "taken")]),
        infer(
            "chunked body over the limit",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        ),
        infer(
            "expect",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
        ),
        infer(
            "expect in capitals",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-Continue\r\nContent-Length: 1000\r\n\r\n",
        ),
        infer(
            "expect too much",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: 100-continue\r\nContent-Length: 1001\r\n\r\n",
            deliberate="the connection closes: nobody can know whether the body will come",
        ),
        infer(
            "expect something else",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: something\r\nContent-Length: 0\r\n\r\n",
        ),
        infer(
            "expect something else with a body",
            ECHO,
            raw=b"POST /predictions/echo HTTP/1.1\r\nHost: localhost\r\n"
            b"Expect: something\r\nContent-Length: 3\r\n\r\nabc",
            deliberate="the connection closes: nobody can know whether the body will come",
        ),
        infer("json not decoded", ECHO, b"[1]", JSON),
        infer("text not decoded", ECHO, b"text", "text/plain"),
    ],
)

TWO_ARCHIVES = ("echo", "replies")
PATHS = [
    "/v1/models", "/v1/models/echo", "/v1/models/echo:other",
    "/v1/models/echo:predict/more", "/v1/models/:predict", "/v1/models/e:cho:predict",
    "/v1/models/echo%3Apredict", "/v1/predict", "/v1/models/predict", "/v2/models/predict",
    "/v1/models/echo:predictmore", "/v1/models/echo:other:predict",
    "/v1/models/echo:predict:explain", "/api-description/predict", "/wfpredict/predict",
    "/workflows/predict", "/v1/models/echo:explain:predict", "/v1/echo:predict", "/v1",
    "/v1/models/echo/predict", "/v1/models/unknown:explain", "/v2", "/v2/models",
    "/v2/models/echo", "/v2/models/echo/infer/more", "/v2/models/echo/ready",
    "/v2/models/unknown/infer", "/v2/models/echo/versions/1.0", "/v2/models/echo/other",
    "/v2/models/echo/versions/1.0/infer", "/v2/health/live", "/v2/health/ready",
    "/v2/echo/infer", "/models/echo", "/models/echo/1.0", "/models/echo/invoke/more",
    "/models/unknown/invoke", "/models/predict", "/models/echo/predict", "/models/invoke",
    "/echo", "/echo/1.0", "/echo/predict/more", "/echo/1.0/predict/more",
    "/echo/9.9/predict", "/unknown/predict", "/unknown/1.0/predict", "/Echo/predict",
    "/echo/Predict", "/predictions/predict", "/predictions/1.0/predict",
    "/explanations/predict", "/ping/predict", "/invocations/predict", "/invocations/more",
    "/invocations/1.0/predict", "/workflows",
]  # fmt: skip

PORT_PATHS = Scenario(
    "paths of the inference port",
    archives=TWO_ARCHIVES,
    models=("echo.mar", "replies.mar"),
    config={"default_workers_per_model": "1"},
    cases=[
        *(infer(f"POST {path}", path, b"x") for path in PATHS),
        *(infer(f"GET {path}", path, method="GET")
          for path in ("/v1/models/echo:predict", "/v2/models/echo/infer", "/echo/predict",
                       "/models/echo/invoke", "/invocations?model_name=echo")),
        infer("invocations of nobody", "/invocations", b"x"),
        infer("invocations by field", "/invocations", b"model_name=echo&a=1", FORM),
        infer("invocations by part", "/invocations",
              form(('Content-Disposition: form-data; name="model_name"', b"echo")), MULTIPART),
        infer("invocations by file part", "/invocations",
              form(('Content-Disposition: form-data; name="model_name"; filename="f"', b"echo")),
              MULTIPART),
        infer("invocations by query and field", "/invocations?model_name=echo",
              b"model_name=replies", FORM),
        infer("invocations of an empty name", "/invocations?model_name=", b"x"),
        infer("invocations of an empty field", "/invocations", b"model_name=", FORM),
        infer("invocations by json", "/invocations", b'{"model_name": "echo"}', JSON),
        infer("query twice", "/models/echo/invoke?a=1&a=2&b&c=%C3%A4+%2B;d=1", b"x"),
        infer("query with a bad escape", "/echo/predict?a=%ZZ", b"x"),
        infer("query of bytes", "/echo/predict?a=%FF", b"x"),
        infer("query with a fragment", "/echo/predict?a=1#b", b"x"),
        infer("query without names", "/echo/predict?=1&&a", b"x"),
        infer("query and field", "/echo/predict?a=query", b"a=field", FORM),
        infer("query and body", "/echo/predict?body=query", b"body"),
        infer("query and json body", "/echo/predict?body=query", b"[1]", JSON),
        infer("query without a body", "/echo/predict?a=1", method="GET"),
        infer("query of kserve", "/v1/models/echo:predict?a=1", b"x"),
        infer("headers of invocations", "/invocations?model_name=echo", b"x",
              headers=[("explain", "True"), ("url_path", "mine")]),
        infer("version that is not there", "/echo/9.9/predict", b"x",
              headers=[("reply-text", "never")]),
        infer("head of kserve", "/v2/models/echo/infer", method="HEAD"),
        *(manage(f"{method} {path} on management", method, path)
          for method, path in (
              ("GET", "/v1/models"), ("GET", "/v1/models/echo/more"), ("GET", "/v1"),
              ("GET", "/v1/models/echo:predict"), ("GET", "/v2/models/echo"),
              ("HEAD", "/v1/models/echo"), ("OPTIONS", "/v1/models/echo"),
              ("PUT", "/v1/models/unknown"), ("POST", "/invocations"), ("POST", "/echo/predict"))),
        manage("scale to zero", "PUT", "/models/replies?min_worker=0&synchronous=true"),
        manage("kserve readiness without workers", "GET", "/v1/models/replies"),
        infer("kserve without workers", "/v1/models/replies:predict", b"x"),
        infer("legacy version without workers", "/replies/1.0/predict", b"x"),
        manage("unregister one of two", "DELETE", "/models/replies"),
        infer("invocations of the only one left", "/invocations", b"x"),
    ],
)  # fmt: skip

ONE_MODEL = Scenario(
    "the only model",
    archives=TWO_ARCHIVES,
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        register("replies"),
        infer("invocations after a second came", "/invocations", b"x"),
        infer("invocations of the second by field", "/invocations", b"model_name=replies", FORM),
        infer("invocations of the second", "/invocations?model_name=replies", b"x"),
        manage("unregister it", "DELETE", "/models/echo"),
        infer("invocations after it went", "/invocations", b"x"),
    ],
)

OPEN_INFERENCE = Scenario(
    "open inference protocol",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "ts_open_inference_protocol": "true"},
    cases=[
        *(infer(f"GET {path}", path, method="GET")
          for path in ("/v2", "/v2/", "/v2/health/live", "/v2/health/ready", "/v2/health",
                       "/v2/health/other", "/v2/health/live/more", "/v2/models", "/v2/models/echo",
                       "/v2/models/echo/ready", "/v2/models/echo/versions",
                       "/v2/models/echo/versions/1.0", "/v2/models/unknown/versions/1.0",
                       "/v2/models/echo/versions/1.0/infer", "/v2/models/echo/versions/1.0/ready",
                       "/v2/models/echo/versionsmore/x", "/v1/models/echo/versions/1.0",
                       "/a/b/c/versions", "/a/b/versions", "/a/b/versions/d", "/V2",
                       "/v2/models/echo/infer/more", "/v2/more")),
        *(infer(f"{method} {path}", path, b"x" if method == "POST" else b"", method=method)
          for method in ("POST", "HEAD", "OPTIONS")
          for path in ("/v2", "/v2/health/live", "/v2/health/ready",
                       "/v2/models/echo/versions/1.0")),
        infer("infer beside it", "/v2/models/echo/infer", b"x"),
        manage("GET /v2 on management", "GET", "/v2"),
    ],
)  # fmt: skip

DESCRIPTIONS = Scenario(
    "api descriptions",
    archives=("echo", "echo_v2"),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        *(infer(f"{method} {path}", path, method=method)
          for method, path in (
              ("OPTIONS", "/"), ("OPTIONS", "//"), ("GET", "/api-description"),
              ("POST", "/api-description"), ("GET", "/api-description/more"),
              ("GET", "//api-description"),
              ("OPTIONS", "/predictions/echo"), ("OPTIONS", "/predictions/echo/1.0"),
              ("OPTIONS", "/predictions/echo/9.9"), ("OPTIONS", "/predictions/echo/1.0/more"),
              ("OPTIONS", "/explanations/echo"), ("OPTIONS", "/predictions/unknown"),
              ("OPTIONS", "/predictions"), ("OPTIONS", "/ping"),
              ("OPTIONS", "/v1/models/echo:predict"), ("OPTIONS", "/v1/models/echo:explain"),
              ("OPTIONS", "/v1/models/unknown:predict"), ("OPTIONS", "/v2/models/echo/infer"),
              ("OPTIONS", "/models/echo/invoke"), ("OPTIONS", "/models/unknown/invoke"),
              ("OPTIONS", "/echo/predict"), ("OPTIONS", "/echo/1.0/predict"),
              ("OPTIONS", "/invocations"), ("OPTIONS", "/invocations?model_name=echo"),
              ("OPTIONS", "/unknown"))),
        infer("OPTIONS *", "*", method="OPTIONS",
              deliberate="405, as for any path that is none: TorchServe's own error shows"),
        *(manage(f"{method} {path} on management", method, path)
          for method, path in (
              ("OPTIONS", "/"), ("OPTIONS", "/models/echo"), ("OPTIONS", "/models/echo/9.9"),
              ("OPTIONS", "/models/unknown"), ("OPTIONS", "/models"), ("OPTIONS", "/unknown"),
              ("OPTIONS", "/models/unknown/1.0/set-default"), ("OPTIONS", "/models/echo/all"))),
    ],
)  # fmt: skip

CORS = Scenario(
    "cors",
    archives=("echo",),
    models=("echo.mar",),
    config={
        "default_workers_per_model": "1",
        "cors_allowed_origin": "https://example.org",
        "cors_allowed_methods": "GET, POST, PUT, OPTIONS",
        "cors_allowed_headers": "X-Custom-Header",
    },
    cases=[
        infer(
            "preflight",
            ECHO,
            method="OPTIONS",
            headers=[
                ("Origin", "https://example.org"),
                ("Access-Control-Request-Method", "POST"),
                ("Access-Control-Request-Headers", "X-Custom-Header"),
            ],
        ),
        infer("preflight of an unknown model", "/predictions/unknown", method="OPTIONS",
              headers=[("Origin", "https://example.org")]),
        infer("another origin", ECHO, b"x", headers=[("Origin", "https://example.com")]),
        infer("without an origin", "/ping", method="GET"),
        infer("an error", "/unknown", method="GET"),
        infer("by the handler", ECHO, b"x",
              headers=[("reply-headers", '{"Access-Control-Allow-Origin": "*"}'),
                       ("reply-text", "mine")]),
        infer("malformed", ECHO, raw=b"what is this\r\n\r\n"),
        manage("management", "GET", "/models"),
        manage("preflight of management", "OPTIONS", "/models"),
    ],
)  # fmt: skip


HOST = b"Host: localhost\r\n"
AMBIGUOUS = "400: proxies in front of us might read it otherwise"
NO_PATH = "4XX: TorchServe's own error shows"
ROOMY = "our limit is 64 KiB"
MALFORMED = Scenario(
    "malformed requests",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1"},
    cases=[
        infer(title, ECHO, raw=raw, deliberate=why)
        for title, raw, why in (
            ("length that is no number", b"POST /ping HTTP/1.1\r\nContent-Length: x\r\n\r\n", None),
            ("negative length", b"POST /ping HTTP/1.1\r\nContent-Length: -1\r\n\r\n", AMBIGUOUS),
            ("two lengths", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", None),
            ("one length twice", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", None),
            ("length and chunks", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", AMBIGUOUS),
            ("bad chunk", b"POST /ping HTTP/1.1\r\n" + HOST +
             b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", None),
            ("header without a colon", b"GET /ping HTTP/1.1\r\nHost localhost\r\n\r\n", None),
            ("header without a name", b"GET /ping HTTP/1.1\r\n: x\r\n\r\n", None),
            ("blank before a colon", b"GET /ping HTTP/1.1\r\nHost : localhost\r\n\r\n", None),
            ("blank in a name", b"GET /ping HTTP/1.1\r\nX Y: z\r\n\r\n", None),
            ("null in a value", b"GET /ping HTTP/1.1\r\nX: a\0b\r\n\r\n", None),
            ("folded header", b"GET /ping HTTP/1.1\r\nX: a\r\n b\r\n\r\n", AMBIGUOUS),
            ("no version", b"GET /ping\r\n\r\n", None),
            ("version 2", b"GET /ping HTTP/2.0\r\n\r\n", None),
            ("another protocol", b"GET /ping FTP/1.1\r\n\r\n", AMBIGUOUS),
            ("no host", b"GET /ping HTTP/1.1\r\n\r\n", None),
            ("whole url", b"GET http://localhost/ping?a=1 HTTP/1.1\r\n\r\n",
             "its path counts, as HTTP demands; TorchServe: 404"),
            ("path without a slash", b"GET ping HTTP/1.1\r\n\r\n", NO_PATH),
            ("method in small letters", b"get /ping HTTP/1.1\r\n\r\n", AMBIGUOUS),
            ("empty lines first", b"\r\n\r\nGET /ping HTTP/1.1\r\n\r\n", None),
            ("line feeds alone", b"GET /ping HTTP/1.1\nHost: localhost\n\n", AMBIGUOUS),
            ("null in the path", b"GET /ping%00 HTTP/1.1\r\n\r\n", None),
            ("bytes in the path", b"GET /p\xc3\xa4 HTTP/1.1\r\n\r\n", AMBIGUOUS),
            ("long path", b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", ROOMY),
            ("long header", b"GET /ping HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", ROOMY),
            ("upgrade",
             b"GET /ping HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n", None),
            ("connect", b"CONNECT localhost:80 HTTP/1.1\r\n\r\n", NO_PATH),
            ("trace", b"TRACE /ping HTTP/1.1\r\n\r\n", None),
        )
    ],
)  # fmt: skip


def instances(*values: object, **more: object) -> bytes:
    return json.dumps({"instances": list(values), **more}).encode()


def inputs(*given: dict[str, object], **more: object) -> bytes:
    return json.dumps({"inputs": list(given), **more}).encode()


def tensor(datatype: str, shape: list[int], data: object, name: str = "row") -> dict[str, object]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


V1 = "/v1/models/rows:predict"
V2 = "/v2/models/rows/infer"
NO_JSON = [
    ("empty body", b"", None),
    ("bytes", b"\x00\xff", None),
    ("text", b"text", "text/plain"),
    ("json without its type", b'{"instances": [1], "inputs": []}', None),
    ("json that is no object", b"[1, 2]", JSON),
    ("json of another shape", b'{"other": 1}', JSON),
    ("broken json", b'{"instances": [', JSON),
    ("instances that are no list", b'{"instances": 3, "inputs": 3}', JSON),
    ("instances that are null", b'{"instances": null, "inputs": null}', JSON),
    ("instances that are a text", b'{"instances": "ab", "inputs": "ab"}', JSON),
]
INSTANCES = [
    ("one instance", instances(1)),
    ("instances", instances(1, 2.5, None, True, "text", [1, [2]], {"a": 1})),
    ("base64 instances", instances({"b64": "eA=="}, {"a": {"b64": "eA=="}, "b": 1})),
    ("base64 beside a name", instances({"b64": "eA==", "b": 1})),
    ("base64 that is none", instances({"b64": "%"})),
    ("base64 of a number", instances({"b64": 1})),
    ("no instances", instances()),
    ("instances and more", instances(1, parameters={"a": 1})),
    ("too few answers", instances("too-short", 1)),
]


def envelope(name: str, *cases: Case, model: str = "rows") -> Scenario:
    """A server whose models all stand in this envelope."""
    return Scenario(
        f"envelope {name}",
        archives=("rows", "row_pairs"),
        config={"service_envelope": name},
        cases=[
            register("rows"),
            *cases,
            *(infer(title, V2 if name == "kservev2" else V1, body, content_type)
              for title, body, content_type in NO_JSON),
            infer("a form", V1, form(
                ('Content-Disposition: form-data; name="data"; filename="f"\r\n'
                 f"Content-Type: {JSON}", b'{"instances": [1], "inputs": []}')), MULTIPART),
            infer("an empty form", V1, b"", FORM),
            infer("after all", V1, instances(1), JSON),
        ],
    )  # fmt: skip


ENVELOPE_KSERVE = envelope(
    "kserve",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    infer("by predictions", "/predictions/rows", instances(1), JSON),
    infer("by explanations", "/explanations/rows", instances(1), JSON),
    infer("by invoke", "/models/rows/invoke", instances(1), JSON),
)
ENVELOPE_JSON = envelope(
    "json",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    register("row_pairs"),
    infer("a batch", "/predictions/row_pairs", instances(1, 2), JSON, batch_of=2),
)
ENVELOPE_BODY = envelope(
    "body",
    *(infer(title, V1, body, JSON) for title, body in INSTANCES[:4]),
    infer("explanations", "/v1/models/rows:explain", instances(1), JSON),
    register("row_pairs"),
    infer("a batch", "/predictions/row_pairs", b"x", batch_of=2),
)
ANSWER_KINDS = ["int", "float", "bool", "str", "dict", "ints", "nested", "empty"]
ENVELOPE_KSERVE_V2 = envelope(
    "kservev2",
    *(infer(f"{datatype} {data} as {shape}", V2, inputs(tensor(datatype, shape, data)), JSON)
      for datatype, shape, data in (
          ("BOOL", [2], [True, False]), ("BOOL", [2], [0, 2]), ("UINT8", [1], [255]),
          ("UINT8", [1], [256]), ("INT8", [1], [-1]), ("INT16", [2], [1, 2]), ("UINT16", [1], [1]),
          ("INT32", [2, 2], [1, 2, 3, 4]), ("UINT32", [1], [1]), ("INT64", [1, 2], [[1, 2]]),
          ("UINT64", [1], [1]), ("FP16", [1], [1.5]), ("FP32", [2, 1], [1, 2.5]),
          ("FP32", [1], [0.1]), ("FP64", [1], [0.1]), ("FP64", [1], ["x"]), ("INT64", [1], [1.5]),
          ("INT64", [3], [1, 2]), ("INT64", [-1], [1, 2]), ("INT64", [], [1]), ("INT64", [0], []),
          ("BYTES", [1], ["text"]), ("BYTES", [2], ["one", "two"]), ("BYTES", [0], []),
          ("OTHER", [1], [1]), ("INT64", [1], 1))),
    *(infer(f"answer {kind}", V2, inputs(tensor("INT64", [1], [1], name=kind)), JSON)
      for kind in ANSWER_KINDS),
    infer("two inputs", V2,
          inputs(tensor("INT64", [1], [1], "int"), tensor("INT64", [1], [1], "str")), JSON),
    infer("an id", V2, inputs(tensor("INT64", [1], [1], "int"), id="mine"), JSON),
    infer("an id that is a number", V2, inputs(tensor("INT64", [1], [1], "int"), id=7), JSON),
    infer("an empty id", V2, inputs(tensor("INT64", [1], [1], "int"), id=""), JSON),
    infer("more members", V2,
          inputs({**tensor("INT64", [1], [1]), "parameters": {"a": 1}}, outputs=[{"name": "o"}]),
          JSON),
    infer("no inputs", V2, inputs(), JSON),
    infer("an input without data", V2, inputs({"name": "row"}), JSON),
    infer("explanations", "/v2/models/rows/explain", inputs(tensor("INT64", [1], [1], "int")),
          JSON),
    infer("by predictions", "/predictions/rows", inputs(tensor("INT64", [1], [1], "int")), JSON),
)  # fmt: skip

TICKETS = Scenario(
    "job tickets",
    archives=("tickets",),
    cases=[
        register("tickets"),
        manage("describe", "GET", "/models/tickets"),
        infer("an idle worker", "/predictions/tickets", b"x"),
        infer("after it", "/predictions/tickets", b"x"),
        infer("two at once", "/predictions/tickets", b"x", headers=[("take-s", "1")],
              batch_of=2, answers_differ=True),
        infer("three of a version", "/predictions/tickets/1.0", b"x", headers=[("take-s", "1")],
              batch_of=3, answers_differ=True),
        infer("after them", "/predictions/tickets", b"x"),
    ],
)  # fmt: skip

MODELS = Scenario(
    "models",
    archives=("echo", "echo_v2", "echo_config", "word_lengths"),
    cases=[
        manage("list nothing", "GET", "/models"),
        manage("register without url", "POST", "/models"),
        manage("register with empty url", "POST", "/models?url="),
        manage("register what is not there", "POST", "/models?url=unknown.mar"),
        manage("register a relative path", "POST", "/models?url=..%2Fecho.mar"),
        manage("register a path", "POST", "/models?url=%2Fany%2Fdir%2Funknown.mar"),
        manage("register a bad runtime", "POST", "/models?url=echo.mar&runtime=java"),
        manage(
            "register an unknown file url",
            "POST",
            "/models?url=file:///no/such/file.mar",
            comparison="load failure",
        ),
        manage("register without workers", "POST", "/models?url=echo.mar"),
        manage("register twice", "POST", "/models?url=echo.mar"),
        manage("describe without workers", "GET", "/models/echo"),
        infer("infer without workers", ECHO, b"x"),
        infer("infer a version without workers", f"{ECHO}/1.0", b"x"),
        manage("customized without workers", "GET", "/models/echo?customized=true"),
        manage("list one", "GET", "/models"),
        manage("scale", "PUT", "/models/echo?min_worker=1&synchronous=true"),
        manage("describe with a worker", "GET", "/models/echo"),
        manage("customized by a function", "GET", "/models/echo?customized=true"),
        manage("scale without numbers", "PUT", "/models/echo?synchronous=true"),
        manage("scale a version", "PUT", "/models/echo/1.0?min_worker=1&synchronous=true"),
        manage("scale in the background", "PUT", "/models/echo?min_worker=1"),
        manage("scale max below min", "PUT", "/models/echo?min_worker=2&max_worker=1"),
        manage("scale unknown model", "PUT", "/models/unknown?min_worker=1"),
        manage("scale unknown version", "PUT", "/models/echo/9.9?min_worker=1"),
        manage("second version", "POST", "/models?url=echo_v2.mar&initial_workers=1"),
        manage("second version twice", "POST", "/models?url=echo_v2.mar&initial_workers=1"),
        manage("describe the default version", "GET", "/models/echo"),
        manage("describe version 2", "GET", "/models/echo/2.0"),
        manage("describe an unknown version", "GET", "/models/echo/9.9"),
        manage("describe an unknown model", "GET", "/models/unknown"),
        manage("describe all of an unknown model", "GET", "/models/unknown/all"),
        infer("infer the default version", f"{ECHO}", headers=[("reply-text", "default")]),
        infer("infer version 2", f"{ECHO}/2.0/context"),
        manage("set default", "PUT", "/models/echo/2.0/set-default"),
        manage("set default unknown version", "PUT", "/models/echo/9.9/set-default"),
        manage("set default unknown model", "PUT", "/models/unknown/1.0/set-default"),
        manage("describe the new default", "GET", "/models/echo"),
        manage("unregister the default", "DELETE", "/models/echo"),
        manage("unregister the default by version", "DELETE", "/models/echo/2.0"),
        manage("unregister unknown version", "DELETE", "/models/echo/9.9"),
        manage("unregister unknown model", "DELETE", "/models/unknown"),
        manage("unregister version 1", "DELETE", "/models/echo/1.0"),
        infer("infer what was unregistered", f"{ECHO}/1.0", b"x"),
        manage("scale to zero", "PUT", "/models/echo?min_worker=0&synchronous=true"),
        infer("infer after scaling to zero", ECHO, b"x"),
        infer("ping after scaling to zero", "/ping", method="GET"),
        manage("unregister the last version", "DELETE", "/models/echo"),
        manage("register from a config", "POST", "/models?url=echo_config.mar&response_timeout=9"),
        manage("describe from a config", "GET", "/models/echo_config"),
        manage(
            "register by json",
            "POST",
            "/models?url=ignored.mar",
            headers=(("Content-Type", JSON),),
            body=b'{"url": "echo.mar", "model_name": "by_json", "batch_size": "3", '
            b'"response_timeout": 9}',
        ),
        manage("describe by json", "GET", "/models/by_json"),
        manage(
            "register by broken json",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b"{",
            deliberate="the text is that of TorchServe's JSON library",
        ),
        manage(
            "register by json without url",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b"{}",
        ),
        manage(
            "register under a name",
            "POST",
            "/models?url=echo.mar&model_name=named&batch_size=dd&max_batch_delay=0"
            "&response_timeout=7&startup_timeout=8&handler=echo:handle&runtime=python3",
        ),
        manage("describe the named", "GET", "/models/named"),
        manage(
            "register with odd numbers",
            "POST",
            "/models?url=echo.mar&model_name=odd&response_timeout=0&startup_timeout=-2"
            "&batch_size=0&max_batch_delay=-7&initial_workers=-5",
        ),
        manage("describe the odd", "GET", "/models/odd"),
        manage(
            "register by json with a number for a flag",
            "POST",
            "/models",
            headers=(("Content-Type", JSON),),
            body=b'{"url": "echo.mar", "model_name": "flag", "synchronous": 1}',
            deliberate="the text is that of TorchServe's JSON library",
        ),
        manage("describe what a number for a flag registered", "GET", "/models/flag"),
        manage("register by a path", "POST", "/models?url=%2Fany%2Fecho.mar&model_name=by_path"),
        manage("describe by a path", "GET", "/models/by_path"),
        manage(
            "register in the background",
            "POST",
            "/models?url=echo.mar&model_name=later&synchronous=false",
        ),
        manage("list", "GET", "/models"),
        manage("list two", "GET", "/models?limit=2"),
        manage("list from 2", "GET", "/models?limit=2&next_page_token=2"),
        manage("list beyond", "GET", "/models?limit=2&next_page_token=9"),
        manage("list with odd numbers", "GET", "/models?limit=x&next_page_token=-3"),
        manage("set-default by GET", "GET", "/models/named/1.0/set-default"),
        manage("unregister a version", "DELETE", "/models/named/1.0"),
    ],
)

FORMS = Scenario(
    "archive forms",
    archives=("echo_tgz", "echo_dir"),
    cases=[
        manage("register tar.gz", "POST", "/models?url=echo_tgz.tar.gz&initial_workers=1"),
        infer("infer from tar.gz", "/predictions/echo_tgz/1.0/context"),
        manage("register a directory", "POST", "/models?url=echo_dir&initial_workers=1"),
        infer("infer from a directory", "/predictions/echo_dir/1.0/context"),
        manage("list archive forms", "GET", "/models"),
    ],
)

BROKEN_ARCHIVES = Scenario(
    "broken archives",
    archives=(
        *("no_manifest", "no_zip", "empty_file", "truncated", "manifest_no_json", "no_name"),
        *("bad_runtime", "slip", "echo"),
    ),
    cases=[
        manage(
            "register no_manifest", "POST", "/models?url=no_manifest.mar", comparison="load failure"
        ),
        manage("register no_zip", "POST", "/models?url=no_zip.mar", comparison="load failure"),
        manage(
            "register empty_file", "POST", "/models?url=empty_file.mar", comparison="load failure"
        ),
        manage(
            "register truncated", "POST", "/models?url=truncated.mar", comparison="load failure"
        ),
        manage(
            "register manifest_no_json",
            "POST",
            "/models?url=manifest_no_json.mar",
            comparison="load failure",
        ),
        manage("register no_name", "POST", "/models?url=no_name.mar", comparison="load failure"),
        manage("register no_name with a name", "POST", "/models?url=no_name.mar&model_name=named"),
        manage(
            "register bad_runtime", "POST", "/models?url=bad_runtime.mar", comparison="load failure"
        ),
        manage(
            "register slip",
            "POST",
            "/models?url=slip.mar",
            deliberate="400 and the reason, where TorchServe says 500 and nothing",
        ),
        manage("list after broken archives", "GET", "/models"),
    ],
)

BATCHES = Scenario(
    "batches",
    archives=("batches", "batches_fail"),
    cases=[
        register("batches"),
        register("batches_fail"),
        infer("batch of two", "/predictions/batches/1.0/batch-size", batch_of=2),
        infer("batch too long", "/predictions/batches_fail/1.0/too-long", batch_of=2),
        infer("batch of errors", "/predictions/batches_fail/1.0/value-error", batch_of=2),
        infer(
            "batch of exceptions",
            "/predictions/batches_fail/1.0/prediction-exception/404",
            batch_of=2,
        ),
        infer("batch that dies", "/predictions/batches_fail/1.0/os-exit", batch_of=2),
        infer("batch after a death", "/predictions/batches_fail/1.0/fine", batch_of=2),
    ],
)

STREAM_WAYS = [
    *("pieces", "one", "none", "kinds", "headers", "framing-headers"),
    *("empty-first", "empty-between", "empty-last", "empty-all"),
    *("status-201", "status-204", "late-status"),
    *("value-error", "prediction-exception", "too-short", "no-list-last", "object-last"),
    *("os-exit", "never", "slow"),
    *("wrong-length", "too-few", "no-list", "int-header", "no-context", "message-not-text"),
]


def after_a_code(way: str) -> tuple[Case, Case]:
    """TorchServe: what the handler sends afterwards takes the worker and the next request."""
    return (
        infer(f"stream {way}", f"/predictions/streams/1.0/{way}", b"x"),
        infer(
            f"answer after stream {way}",
            "/predictions/streams/1.0/none",
            b"x",
            deliberate="the worker lives, and the next request is answered",
        ),
    )


STREAMS = Scenario(
    "streams",
    archives=("streams",),
    cases=[
        register("streams"),
        *(infer(f"stream {way}", f"/predictions/streams/1.0/{way}", b"x") for way in STREAM_WAYS),
        infer("stream HEAD", "/predictions/streams/1.0/pieces", method="HEAD"),
        infer(
            "stream HTTP/1.0",
            "/predictions/streams/1.0/pieces",
            raw=b"GET /predictions/streams/1.0/pieces HTTP/1.0\r\nHost: localhost\r\n\r\n",
        ),
        infer("stream explanation", "/explanations/streams/1.0/pieces", b"x"),
        infer(
            "stream status-404",
            "/predictions/streams/1.0/status-404",
            b"x",
            deliberate="all pieces arrive: TorchServe resets the connection behind the head",
        ),
        infer(
            "stream newline-header",
            "/predictions/streams/1.0/newline-header",
            b"x",
            deliberate="503: TorchServe lets the value add a header of its own",
        ),
        infer(
            "stream unknown-request",
            "/predictions/streams/1.0/unknown-request",
            b"x",
            deliberate="503, and the worker lives",
        ),
        *(
            case
            for way in ("code-first", "code-201", "code-later", "object-piece", "object-later")
            for case in after_a_code(way)
        ),
        infer("answer after streams", "/predictions/streams/1.0/none", b"x"),
        infer("healthy after streams", "/ping", method="GET"),
    ],
)

STREAM_BATCHES = Scenario(
    "stream batches",
    archives=("stream_batches",),
    cases=[
        register("stream_batches"),
        *(
            infer(f"batch {way}", f"/predictions/stream_batches/1.0/{way}", batch_of=2)
            for way in ("pieces", "headers", "empty-first", "value-error", "os-exit", "code-first")
        ),
        infer(
            "batch after a code",
            "/predictions/stream_batches/1.0/none",
            batch_of=2,
            deliberate="the worker lives, and the next batch is answered",
        ),
        *(
            infer(
                f"batch {way}",
                f"/predictions/stream_batches/1.0/{way}",
                batch_of=2,
                answers_differ=True,
            )
            for way in ("row-numbers", "first-of-the-batch", "second-of-the-batch")
        ),
    ],
)

EXPLANATIONS = Scenario(
    "explanations",
    archives=("word_lengths",),
    cases=[
        register("word_lengths"),
        infer("explain text", "/explanations/word_lengths", b"why these", "text/plain"),
        infer("explain a version", "/explanations/word_lengths/1.0", b"why", "text/plain"),
        *(
            infer(
                f"explain for a target {name}",
                "/explanations/word_lengths",
                form(
                    ('Content-Disposition: form-data; name="data"', b"why these"),
                    (f'Content-Disposition: form-data; name="target"{lines}', target),
                ),
                MULTIPART,
            )
            for name, lines, target in (
                ("as json", '; filename="t"\r\nContent-Type: application/json', b"3"),
                ("as json, zero", '; filename="t"\r\nContent-Type: application/json', b"0"),
                ("as json, a list", '; filename="t"\r\nContent-Type: application/json', b"[1, 2]"),
                ("as text", '; filename="t"\r\nContent-Type: text/plain', b"3"),
                ("as a field", "", b"3"),
                ("as an empty field", "", b""),
            )
        ),
        infer("explain json", "/explanations/word_lengths", b'{"target": 3}', JSON),
        infer("explain an empty body", "/explanations/word_lengths"),
        infer(
            "explain by header", "/predictions/word_lengths", b"why", headers=[("explain", "True")]
        ),
    ],
    needs_torch=True,
)

NO_MODEL_API = Scenario(
    "no model api",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "enable_model_api": "false"},
    args=("--disable-token-auth",),
    cases=[
        manage("register is disabled", "POST", "/models?url=echo.mar"),
        manage("unregister is disabled", "DELETE", "/models/echo"),
        manage("unregister a version is disabled", "DELETE", "/models/echo/1.0"),
        manage("list is not disabled", "GET", "/models"),
        manage("scale is not disabled", "PUT", "/models/echo?min_worker=1&synchronous=true"),
    ],
)


def key(kind: str, before: str = "Bearer ", after: str = "") -> tuple[str, str]:
    """A header with a key of the key file, which `with_keys` puts in."""
    return ("Authorization", f"{before}<{kind} key>{after}")


MANAGING, INFERRING, RENEWING = key("management"), key("inference"), key("API")
TOKENIZER = "TorchServe takes every request with /token in it for one that renews a key"

KEYS = Scenario(
    "keys",
    archives=("echo",),
    models=("echo.mar",),
    config={"default_workers_per_model": "1", "enable_model_api": "false"},
    args=(),
    cases=[
        *(
            Case(f"{method} {path} of {port} with {label}", port, method, path, headers)
            for port, mine, other in (
                ("inference", INFERRING, MANAGING), ("management", MANAGING, INFERRING),
            )
            for method, path in (
                ("GET", "/ping"), ("GET", "/"), ("GET", "//ping"), ("GET", "/nothing"),
                ("GET", "/%ZZ"), ("GET", "/models"), ("GET", "/models/none"),
                ("POST", "/models?url=echo.mar"), ("DELETE", "/models/echo"),
                ("GET", "/predictions"), ("GET", "/predictions/none"), ("GET", "/TOKEN"),
                ("GET", "/%74oken?type=inference"), ("HEAD", "/models/none"),
            )
            for label, headers in (
                ("no key", ()), ("its key", (mine,)), ("the other key", (other,)),
                ("the API key", (RENEWING,)),
            )
        ),
        *(
            manage(f"header {label}", "GET", "/models", headers=headers)
            for label, headers in (
                ("in lower case", (key("management", "bearer "),)),
                ("without Bearer", (key("management", ""),)),
                ("of another scheme", (key("management", "Basic "),)),
                ("without a blank", (key("management", "Bearer"),)),
                ("with many blanks", (key("management", "Bearer   "),)),
                ("with a tab", (key("management", "Bearer\t"),)),
                ("with blanks around it", (key("management", "  Bearer ", "  "),)),
                ("with more words", (key("management", after=" x"),)),
                ("with a comma", (key("management", after=","),)),
                ("without a key", (("Authorization", "Bearer "),)),
                ("that is empty", (("Authorization", ""),)),
                ("beyond ASCII", (("Authorization", "Bearer \xe9\xff"),)),
                ("twice, the first right", (MANAGING, ("Authorization", "Bearer x"))),
                ("twice, the second right", (("Authorization", "Bearer x"), MANAGING)),
                ("of another spelling", (("aUTHORIZATION", MANAGING[1]),)),
            )
        ),
        manage("key in the query", "GET", "/models?token=<management key>"),
        infer("predict without a key", ECHO, b"text", "text/plain"),
        infer("predict with a wrong key", ECHO, b"text", "text/plain", headers=[MANAGING]),
        Case("/token of inference without a key", "inference", "GET", "/token?type=inference"),
        Case("/token of inference", "inference", "GET", "/token?type=inference", (INFERRING,)),
        Case("/token of inference with the API key", "inference", "GET", "/token", (RENEWING,)),
        *(
            manage(f"{method} /token{rest} with {label}", method, f"/token{rest}", headers=headers)
            for method, rest in (
                ("GET", "?type=management"), ("GET", "?type=inference"), ("GET", ""),
                ("GET", "?type="), ("GET", "?type=API"), ("GET", "?type=Inference"),
                ("GET", "?type=inference&type=x"), ("GET", "?type=x&type=inference"),
                ("GET", "?type=%69nference&x=y"), ("GET", "/?type=inference"),
                ("GET", "/x?type=inference"), ("GET", "s?type=inference"),
                ("POST", "?type=inference"), ("PUT", "?type=inference"),
                ("DELETE", "?type=inference"), ("PATCH", "?type=inference"),
                ("HEAD", "?type=inference"), ("OPTIONS", "?type=inference"),
            )
            for label, headers in (
                ("no key", ()), ("the API key", (RENEWING,)), ("the management key", (MANAGING,)),
            )
        ),
        manage("renewed keys count", "GET", "/models", headers=(MANAGING,)),
        Case("renewed inference key counts", "inference", "GET", "/ping", (INFERRING,)),
        manage(
            "/token in a body", "POST", "/token", headers=(RENEWING, ("Content-Type", JSON)),
            body=b'{"type": "inference"}',
        ),
        *(
            manage(f"/token {label}", "GET", path, headers=headers, deliberate=TOKENIZER)
            for label, path, headers in (
                ("in a model's name", "/models/tokenizer", (MANAGING,)),
                ("in the query", "/models?x=/token", (MANAGING,)),
                ("in a header", "/models", (MANAGING, ("X", "a/token"))),
                ("at the end", "/x/token?type=inference", (RENEWING,)),
            )
        ),
    ],
)  # fmt: skip

KEYS_AND_MODEL_API = Scenario(
    "keys and model api",
    archives=("echo",),
    args=("--enable-model-api",),
    cases=[
        manage("register without a key", "POST", "/models?url=echo.mar"),
        manage("register", "POST", "/models?url=echo.mar", headers=(MANAGING,)),
        manage("unregister with a wrong key", "DELETE", "/models/echo", headers=(RENEWING,)),
        manage("unregister", "DELETE", "/models/echo", headers=(MANAGING,)),
    ],
)

NO_KEYS = Scenario(
    "no keys",
    archives=("echo",),
    cases=[
        manage("/token without keys", "GET", "/token?type=inference"),
        manage("any key will do", "GET", "/models", headers=(("Authorization", "Bearer x"),)),
        Case("any key will do for ping", "inference", "GET", "/ping"),
    ],
)

SCENARIOS = [
    REQUESTS, REPLIES, FAILURES, DEATHS, LOAD_FAILURES, ENTRY_POINTS, CLASSES, TENSOR, RESNET,
    ROUTES, OTHER_ROUTES, LIMITS, MODELS, FORMS, BROKEN_ARCHIVES, BATCHES, NO_MODEL_API,
    STREAMS, STREAM_BATCHES, EXPLANATIONS, KEYS, KEYS_AND_MODEL_API, NO_KEYS, PORT_PATHS,
    ONE_MODEL, OPEN_INFERENCE, DESCRIPTIONS, CORS, MALFORMED, ENVELOPE_KSERVE, ENVELOPE_JSON,
    ENVELOPE_BODY, ENVELOPE_KSERVE_V2, TICKETS,
]  # fmt: skip


def with_keys(case: Case, keys: dict[str, str]) -> Case:
    """The case with the keys that the server asks for now."""

    def filled(text: str) -> str:
        for kind, value in keys.items():
            text = text.replace(f"<{kind} key>", value)
        return text

    headers = tuple((name, filled(value)) for name, value in case.headers)
    return replace(case, path=filled(case.path), headers=headers)


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
