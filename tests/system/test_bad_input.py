"""Bad input of every kind: TorchServe's status, a message that helps, and nothing left behind.

The statuses and types are those of the real TorchServe; where it is there it is asked, too.
Only where a case says why does ours differ. Between any two cases the server has the same
files, the same models, the same workers and the same descriptors.
"""

import http.client
import io
import json
import socket
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reference import Bases, as_parameters, real_torchserve

from conformance import raw_http
from conformance.archives import build_archives

DEADLINE_S = 30  # of an answer, on a machine that is busy; it takes some milliseconds
LARGE = 100 << 20
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=B"
HANDLER = """
def handle(data, context):
    if data is None:
        return None
    return [str(sum(len(value) for value in row.values())) for row in data]
"""


@dataclass(frozen=True)
class Case:
    """One request, and the error that it gets; `says` is in its message."""

    port: str
    method: str
    path: str
    status: int
    kind: str
    says: str
    content_type: str = ""
    body: bytes = b""
    differs: str = ""  # why TorchServe answers otherwise


# -- requests --------------------------------------------------------------------------------


def register_json(body: bytes, kind: str, says: str, status: int = 500, **more: str) -> Case:
    return Case("management", "POST", "/models", status, kind, says, JSON, body, **more)


def register(url: str, status: int, kind: str, says: str, **more: str) -> Case:
    path = f"/models?url={quote(url, safe='')}"
    return Case("management", "POST", path, status, kind, says, **more)


def manage(method: str, path: str, status: int, kind: str, says: str, **more: str) -> Case:
    return Case("management", method, path, status, kind, says, **more)


def infer(path: str, status: int, kind: str, says: str, **more: Any) -> Case:
    return Case("inference", "POST", path, status, kind, says, **more)


def form(body: bytes, says: str, content_type: str = FORM, **more: str) -> Case:
    kind = "ErrorDataDecoderException"
    return Case(
        "inference", "POST", "/predictions/echo", 500, kind, says, content_type, body, **more
    )


def part(headers: str, content: str = "x") -> bytes:
    return f"--B\r\n{headers}\r\n\r\n{content}\r\n--B--\r\n".encode()


NO_FILE = "TorchServe: 500, the model store itself is taken for a file that is there already"
NO_ROUTE = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."
LENIENT = "TorchServe's JSON library forgives this"
DOWNLOAD = "DownloadArchiveException"
SYNTAX = "JsonSyntaxException"
NULL = "NullPointerException"
NOT_FOUND, NO_VERSION = "ModelNotFoundException", "ModelVersionNotFoundException"
ILLEGAL = "IllegalArgumentException"

REQUESTS = [
    # broken JSON
    register_json(b"", NULL, "no body"),
    register_json(b"null", NULL, 'such as {"url": "model.mar"}'),
    register_json(b"{", SYNTAX, "line 1 column 2"),
    register_json(b'{"url": "echo.mar",}', SYNTAX, "line 1 column 20"),
    register_json(b'{"url": "echo.mar"} more', SYNTAX, "Extra data"),
    register_json(b"\xff\xfe{}", SYNTAX, "not JSON"),
    register_json(b"[" * 100_000, SYNTAX, "not JSON"),
    register_json(b"[]", SYNTAX, "Expected an object with a url"),
    register_json(b'"echo.mar"', SYNTAX, "Expected an object with a url"),
    register_json(b"NaN", SYNTAX, "Expected an object with a url"),
    register_json(b"{'url': 'none.mar'}", SYNTAX, "double quotes", differs=LENIENT),
    register_json(b"{}", "BadRequestException", "Parameter url is required.", 400),
    # wrong types
    register_json(b'{"url": []}', SYNTAX, "url is not a string"),
    register_json(b'{"url": "none.mar", "model_name": {"a": 1}}', SYNTAX, "model_name is not"),
    register_json(
        b'{"url": "none.mar", "batch_size": "x"}', SYNTAX, "batch_size is not an integer"
    ),
    register_json(b'{"url": "none.mar", "batch_size": 1.5}', SYNTAX, "1.5"),
    register_json(b'{"url": "none.mar", "batch_size": 99999999999}', SYNTAX, "32 bits"),
    register_json(b'{"url": "none.mar", "initial_workers": 1e99}', SYNTAX, "initial_workers"),
    register_json(b'{"url": "none.mar", "synchronous": 1}', SYNTAX, "expected true or false"),
    register_json(b'{"url": 3}', NOT_FOUND, "Model not found at: 3", 404),
    # negative counts
    register_json(b'{"url": "none.mar", "initial_workers": -3}', NOT_FOUND, "none.mar", 404),
    manage("POST", "/models?url=none.mar&batch_size=-5", 404, NOT_FOUND, "none.mar"),
    manage(
        *("PUT", "/models/echo?min_worker=-1&max_worker=-1", 500),
        *("IndexOutOfBoundsException", "max_worker must be 0 or more"),
    ),
    manage(
        *("PUT", "/models/echo?min_worker=2&max_worker=1", 400),
        *("BadRequestException", "max_worker cannot be less than min_worker."),
    ),
    # unknown names
    manage("GET", "/models/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    manage("PUT", "/models/nobody?min_worker=1", 404, NOT_FOUND, "Model not found: nobody"),
    manage("DELETE", "/models/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    manage("OPTIONS", "/models/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    manage("GET", "/v1/models/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    manage("PUT", "/models/nobody/1.0/set-default", 404, NOT_FOUND, "nobody"),
    manage("GET", "/models/..", 404, NOT_FOUND, "Model not found: .."),
    manage("GET", "/models/%00", 404, NOT_FOUND, "Model not found: \0"),
    manage("GET", "/models/" + "n" * 3000, 404, NOT_FOUND, "nnn"),
    manage("GET", "/models/echo/9", 404, NO_VERSION, "Model version: 9 does not exist"),
    manage("PUT", "/models/echo/9?min_worker=1", 404, NO_VERSION, "Model version: 9"),
    manage("PUT", "/models/echo?model_version=9", 404, NO_VERSION, "Model version: 9"),
    manage("DELETE", "/models/echo/9", 404, NO_VERSION, "Model version: 9 does not exist"),
    manage("PUT", "/models/echo/9/set-default", 404, NO_VERSION, "Model version 9"),
    infer("/predictions/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/predictions/echo/9", 404, NO_VERSION, "Model version: 9"),
    infer("/explanations/nobody", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/invocations?model_name=nobody", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/models/nobody/invoke", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/v1/models/nobody:predict", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/v2/models/nobody/infer", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/nobody/predict", 404, NOT_FOUND, "Model not found: nobody"),
    infer("/predictions", 404, "ResourceNotFoundException", NO_ROUTE),
    # routes and methods
    manage("GET", "/nothing", 404, "ResourceNotFoundException", NO_ROUTE),
    manage("GET", "/models/a/b/c", 404, "ResourceNotFoundException", NO_ROUTE),
    manage("GET", "/token?type=management", 404, "ResourceNotFoundException", NO_ROUTE),
    manage("PATCH", "/models/echo", 405, "MethodNotAllowedException", NOT_ALLOWED),
    manage("DELETE", "/models", 405, "MethodNotAllowedException", NOT_ALLOWED),
    manage("POST", "/v1/models/echo", 405, "MethodNotAllowedException", NOT_ALLOWED),
    manage("POST", "/", 405, "MethodNotAllowedException", NOT_ALLOWED),
    # percent signs
    manage("GET", "/models?limit=%zz", 403, ILLEGAL, "'zz'"),
    manage("PUT", "/models/nobody?min_worker=%zz", 403, ILLEGAL, "'zz'"),
    manage("POST", "/models?url=%", 403, ILLEGAL, "unterminated escape sequence"),
    manage("GET", "/models/%zz", 403, ILLEGAL, "'zz'"),
    infer("/predictions/%zz", 403, ILLEGAL, "'zz'"),
    infer("/invocations?model_name=%4", 403, ILLEGAL, "unterminated escape sequence"),
    # urls
    manage("POST", "/models", 400, "BadRequestException", "Parameter url is required."),
    register("", 404, NOT_FOUND, "empty url"),
    register("none.mar", 404, NOT_FOUND, "Model not found at: none.mar"),
    register("../echo.mar", 404, NOT_FOUND, "Relative path is not allowed in url: ../echo.mar"),
    register("ftp://127.0.0.1/none.mar", 404, NOT_FOUND, "Model not found at: ftp://"),
    register("a\0.mar", 403, ILLEGAL, "NUL"),
    register("http://127.0.0.1:1/a\0.mar", 403, ILLEGAL, "NUL"),
    register("http://127.0.0.1:70000/a.mar", 403, ILLEGAL, "port out of range:70000"),
    register("http://127.0.0.1:1/a.mar", 400, DOWNLOAD, "http://127.0.0.1:1/a.mar : the log"),
    register("http://127.0.0.1:x/a.mar", 400, DOWNLOAD, "http://127.0.0.1:x/a.mar : the log"),
    register("http://[zz]/a.mar", 400, DOWNLOAD, "the log of the server says why"),
    register("http://127.0.0.1:1/" + "n" * 300, 400, DOWNLOAD, "name of its file is too long"),
    register("file:///no/such.mar", 400, DOWNLOAD, "the log of the server says why"),
    register("http://", 400, DOWNLOAD, "does not end in the name of a file", differs=NO_FILE),
    register("http://127.0.0.1:1/", 400, DOWNLOAD, "in the name of a file", differs=NO_FILE),
    register(".", 404, NOT_FOUND, "Model not found at: .", differs=NO_FILE),
    manage(
        *("POST", "/models?url=none.mar&runtime=perl", 400),
        *("BadRequestException", "Invalid RuntimeType value: perl"),
    ),
    manage(
        *("POST", "/models?url=echo.mar&model_name=a%0Ab", 400),
        *("BadRequestException", r"model_name holds control characters: 'a\nb'"),
        differs="TorchServe takes it, and its log lines break",
    ),
    manage(
        *("POST", "/models?url=none.mar&handler=../h.py", 400),
        *("BadRequestException", "handler leaves the model directory: ../h.py"),
        differs="TorchServe runs whatever file that is",
    ),
    # forms
    form(b"a=%zz", "Invalid hex byte at index '0' in string: '%zz'"),
    form(b"%zz=1", "Bad string: '%zz'"),
    form(b"=x", "name=value"),
    form(b"a=1&&b=2", "name=value"),
    form(part("Content-Disposition: form-data"), "Content-Disposition: form-data;", MULTIPART),
    form(part('Content-Disposition: form-data; name=""'), "has no name", MULTIPART),
    form(part("X: y"), "has no name", MULTIPART),
    form(b"x", "Needs a boundary value", "multipart/form-data; boundary"),
]


# -- archives --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Broken:
    """An archive in the store, and what registering it is answered."""

    file: str
    content: bytes
    status: int
    says: str
    kind: str = "InvalidModelException"
    differs: str = ""
    is_ours: bool = False  # what it would do to TorchServe nobody needs to see


def packed(manifest: str | None, **more: str | bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("h.py", HANDLER)
        if manifest is not None:
            archive.writestr("MAR-INF/MANIFEST.json", manifest)
        for name, text in more.items():
            archive.writestr(name.replace("__", "-").replace("_", "."), text)
    return content.getvalue()


def with_config(text: str | bytes) -> bytes:
    manifest = (
        '{"model": {"modelName": "bad", "handler": "h.py", "configFile": "model-config.yaml"}}'
    )
    return packed(manifest, model__config_yaml=text)


def tarred(content: bytes = HANDLER.encode()) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        entry = tarfile.TarInfo("bad/h.py")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return whole.getvalue()


GOOD = packed('{"model": {"modelName": "bad", "handler": "h.py"}}')
UNREADABLE = "InternalServerException"
NO_JSON = "Failed to parse signature.json. MAR-INF/MANIFEST.json: "
NO_NAME = "Model name is not defined."
WITHOUT_NULL = "TorchServe trips over it: 500"
ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

ARCHIVES = [
    # damaged
    Broken("cut.mar", GOOD[:40], 500, "cut.mar : File is not a zip file; a .mar is", UNREADABLE),
    Broken("half.mar", GOOD[: len(GOOD) // 2], 500, "File is not a zip file", UNREADABLE),
    Broken("flipped.mar", GOOD[:50] + b"\xff\xff\xff\xff" + GOOD[54:], 500, "", UNREADABLE),
    Broken("cut.tar.gz", tarred()[:-20], 500, "compressed by gzip", UNREADABLE),
    Broken("stub.tar.gz", tarred()[:20], 500, "compressed by gzip", UNREADABLE),
    Broken("zip.tar.gz", GOOD, 500, "what is not called .mar has to be a whole tar", UNREADABLE),
    Broken("zip.model", GOOD, 500, "what is not called .mar has to be a whole tar", UNREADABLE),
    Broken("text.tar.gz", b"hello", 500, "Not a gzipped file", UNREADABLE),
    Broken("empty.tar.gz", b"", 500, "compressed by gzip", UNREADABLE),
    # not an archive at all, or one without a manifest
    Broken("text.mar", b"hello", 400, "is it packed by torch-model-archiver?"),
    Broken("empty.mar", b"", 400, NO_NAME),
    Broken("tar.mar", tarred(), 400, NO_NAME),
    Broken("none.mar", packed(None), 400, "model_name"),
    # bad manifests
    Broken("m1.mar", packed(""), 400, NO_JSON + "no JSON", differs=WITHOUT_NULL),
    Broken("m2.mar", packed("{"), 400, "line 1 column 2"),
    Broken("m3.mar", packed("[]"), 400, NO_JSON + "no JSON object, in braces"),
    Broken("m4.mar", packed("3"), 400, NO_JSON),
    Broken("m5.mar", packed("{}"), 400, NO_NAME),
    Broken("m6.mar", packed('{"model": {"modelName": "a"}} x'), 400, "Extra data"),
    Broken("m7.mar", packed('{"model": []}'), 400, "model is no object"),
    Broken("m8.mar", packed('{"model": null}'), 400, "model is no", differs=WITHOUT_NULL),
    Broken("m9.mar", packed('{"model": {"modelName": []}}'), 400, "modelName is no text"),
    Broken("m10.mar", packed('{"model": {"modelName": "a", "modelVersion": {}}}'), 400, "modelVer"),
    Broken("m11.mar", packed('{"model": {"modelName": "a", "handler": [1]}}'), 400, "handler is"),
    Broken("m12.mar", packed('{"model": {"modelName": "a", "configFile": []}}'), 400, "configFile"),
    Broken("m13.mar", packed('{"runtime": "perl", "model": {"modelName": "a"}}'), 400, "python3"),
    Broken("m14.mar", packed('{"runtime": [], "model": {"modelName": "a"}}'), 400, "runtime is no"),
    Broken("m15.mar", packed("[" * 100_000), 400, NO_JSON),
    Broken("m16.mar", packed("\x00\x01"), 400, NO_JSON),
    Broken(
        *("m17.mar", packed('{"model": {"modelName": "a\\nb"}}'), 400, "control characters"),
        differs="TorchServe takes it, and its log lines break",
    ),
    # bombs
    Broken("zeros.mar", packed("{}", zeros=bytes(LARGE)), 400, "times the size", is_ours=True),
    Broken("zeros.tar.gz", tarred(bytes(LARGE)), 400, "times the size", is_ours=True),
    Broken("aliases.mar", with_config(ALIASES), 400, "more than 20000 values", is_ours=True),
    Broken("endless.mar", with_config("&a [*a]"), 400, "more than 20000", is_ours=True),
    Broken("long.mar", with_config("a: " + "x" * 300_000), 400, "larger than", is_ours=True),
]

# A configuration with mistakes is forgiven, and the log says what is ignored.
CONFIGS = {
    "\tminWorkers: 1": "is ignored, it is no yaml",
    "a: b: c": "is ignored, it is no yaml",
    "minWorkers: [1": "is ignored, it is no yaml",
    "a: *nope": "found undefined alias",
    "minWorkers: !!python/object:os.system {}": "could not determine a constructor",
    "--- a\n--- b": "expected a single document",
    "\x00": "is ignored, it is no yaml",
    "minWorkers: x": "minWorkers is ignored: 'x', expected an integer",
    "minWorkers: 1.5": "minWorkers is ignored: 1.5, expected an integer",
    "minWorkers: 99999999999": "minWorkers is ignored: 99999999999, expected an integer",
    "maxWorkers: 1e99": "maxWorkers is ignored: '1e99', expected an integer",
    "batchSize: true": "batchSize is ignored: True, expected an integer",
    "batchSize: {a: 1}": "batchSize is ignored: {'a': 1}, expected an integer",
    "responseTimeout: 0": "responseTimeout is ignored: 0, expected at least 1",
    "jobQueueSize: -1": "jobQueueSize is ignored: -1, expected at least 1",
    "deviceType: tpu": "deviceType is ignored: 'tpu', expected one of cpu, gpu",
    "deviceIds: [a]": "deviceIds is ignored: ['a'], expected a list of device numbers",
    "parallelType: zz": "parallelType is ignored: 'zz', expected one of pp",
    "useVenv: maybe": "useVenv is ignored: 'maybe', expected true or false",
    "torchrun: 3": "torchrun is ignored: 3, expected a map",
    "torchrun: {nproc-per-node: x}": "nproc-per-node is ignored: 'x'",
    "sequenceBatching: 3": "sequenceBatching is ignored: 3, expected true or false",
}


# -- the server ------------------------------------------------------------------------------


class Target:
    """Our server and its store."""

    def __init__(self, server: Any, store: Path) -> None:
        self.server = server
        self.store = store
        self.process = psutil.Process(server.pid)
        self.bases = Bases(server.inference, server.management, server.metrics)

    def state(self) -> Any:
        """What must be the same after a refusal: files, models, workers."""
        files = {path for root in (self.store, self.server.temp) for path in root.rglob("*")}
        _, _, models = self.server.request("GET", "/models", port="management")
        _, _, echo = self.server.request("GET", "/models/echo", port="management")
        described = json.loads(echo)[0]
        workers = [(worker["id"], worker["pid"]) for worker in described.pop("workers")]
        return files, models, workers, described


@pytest.fixture(scope="module")
def target(
    shared_server_factory: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Target:
    store = tmp_path_factory.mktemp("store")
    build_archives(store, ("echo",))
    server = shared_server_factory(models=["echo=echo.mar"], store=store)
    server.wait_until_ready("echo")
    return Target(server, store)


@pytest.fixture
def untouched(target: Target, poll: Callable[..., Any]) -> Iterator[Target]:
    """At the end nothing is there, or open, that was not before, and nothing was unexpected."""
    target.state()  # whatever a first request opens is open now
    before, open_before = target.state(), target.process.num_fds()
    family = {one.pid for one in target.process.children(recursive=True)}
    log = len(target.server.log_text())
    yield target
    poll(lambda: target.process.num_fds() <= open_before, "descriptors that were not open before")
    poll(
        lambda: {one.pid for one in target.process.children(recursive=True)} <= family,
        "processes that were not there before",
    )
    assert target.state() == before
    new_lines = target.server.log_text()[log:].splitlines()
    ours = [line for line in new_lines if " MODEL_LOG - " not in line]
    assert [line for line in ours if "Traceback" in line or "unexpected error" in line] == []


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bases, Path]]:
    home = tmp_path_factory.mktemp("reference")
    with real_torchserve(("echo",), ("echo.mar",), home) as bases:
        yield bases, home / "store"


@pytest.fixture(params=as_parameters(), scope="module")
def torchserve(request: pytest.FixtureRequest) -> tuple[Bases, Path] | None:
    """The real one and its store, or none."""
    if not request.param:
        return None
    found: tuple[Bases, Path] = request.getfixturevalue("reference")
    return found


def ask(base: str, case: Case) -> tuple[int, dict[str, Any]]:
    address = urlsplit(base)
    connection = http.client.HTTPConnection(address.netloc, timeout=DEADLINE_S)
    try:
        headers = {"Content-Type": case.content_type} if case.content_type else {}
        connection.request(case.method, case.path, case.body, headers)
        response = connection.getresponse()
        answer: dict[str, Any] = json.loads(response.read())
        return response.status, answer
    finally:
        connection.close()


def is_error_like(answer: dict[str, Any], status: int, kind: str, says: str) -> bool:
    return (
        list(answer) == ["code", "type", "message"]
        and (answer["code"], answer["type"]) == (status, kind)
        and says in answer["message"]
        and not any(word in answer["message"] for word in ("Traceback", "torchkeep", "/tmp"))
    )


# -- what is tested --------------------------------------------------------------------------


def test_requests(untouched: Target, torchserve: tuple[Bases, Path] | None) -> None:
    wrong = []
    before = untouched.state()
    for case in REQUESTS:
        status, answer = ask(getattr(untouched.bases, case.port), case)
        if status != case.status or not is_error_like(answer, status, case.kind, case.says):
            wrong.append(f"{case}\n  {status} {answer}"[:600])
        if untouched.state() != before:
            wrong.append(f"{case} left something behind"[:300])
        if torchserve is not None:
            theirs, their_answer = ask(getattr(torchserve[0], case.port), case)
            is_same = (theirs, their_answer.get("type")) == (case.status, case.kind)
            if is_same is bool(case.differs):
                wrong.append(f"{case}\n  TorchServe: {theirs} {their_answer}"[:600])
    assert not wrong, "\n".join(wrong)


def test_archives(untouched: Target, torchserve: tuple[Bases, Path] | None) -> None:
    wrong = []
    for broken in ARCHIVES:
        case = register(broken.file, broken.status, broken.kind, broken.says)
        (untouched.store / broken.file).write_bytes(broken.content)
        before = untouched.state()
        status, answer = ask(untouched.bases.management, case)
        if status != broken.status or not is_error_like(answer, status, broken.kind, broken.says):
            wrong.append(f"{broken.file}: {status} {answer}"[:600])
        if untouched.state() != before:
            wrong.append(f"{broken.file} left something behind")
        (untouched.store / broken.file).unlink()
        if torchserve is not None and not broken.is_ours:
            (torchserve[1] / broken.file).write_bytes(broken.content)
            theirs, their_answer = ask(torchserve[0].management, case)
            is_same = (theirs, their_answer.get("type")) == (broken.status, broken.kind)
            if is_same is bool(broken.differs):
                wrong.append(f"{broken.file}: TorchServe {theirs} {their_answer}"[:600])
    assert not wrong, "\n".join(wrong)


LOADS = {
    "no handler": (packed('{"model": {"modelName": "bad"}}'), "ModuleNotFoundError"),
    "no such handler": (
        packed('{"model": {"modelName": "bad", "handler": "none.py"}}'),
        "No module named 'none'",
    ),
    "no such function": (
        packed('{"model": {"modelName": "bad", "handler": "h.py:none"}}'),
        "Failed to start workers",
    ),
    "broken code": (
        packed('{"model": {"modelName": "bad", "handler": "g.py"}}', g_py="def handle(:"),
        "SyntaxError",
    ),
    "broken yaml": (with_config("minWorkers: [1"), "model-config.yaml is no yaml: while parsing a"),
}


@pytest.mark.parametrize("name", LOADS)
def test_loads_that_fail(untouched: Target, name: str) -> None:
    """The last line of the traceback, not all of it; and no worker, no model, no file."""
    content, says = LOADS[name]
    before = untouched.state()
    (untouched.store / "bad.mar").write_bytes(content)
    case = manage("POST", "/models?url=bad.mar&model_name=bad&initial_workers=1", 500, "", "")
    status, answer = ask(untouched.bases.management, case)
    (untouched.store / "bad.mar").unlink()
    assert is_error_like(answer, 500, UNREADABLE, says), answer
    assert answer["message"].startswith("Failed to start workers for model bad version: 1.0 : ")
    assert status == 500
    assert "[1" not in answer["message"]
    assert untouched.state() == before


def test_a_broken_archive_by_url_stays_nowhere(untouched: Target, tmp_path: Path) -> None:
    """TorchServe keeps its copy, and the second attempt fails because of it."""
    for name, content in (("cut.mar", GOOD[:100]), ("cut.tar.gz", tarred()[:-20])):
        (tmp_path / name).write_bytes(content)
        for _ in range(2):
            case = register(f"file://{tmp_path}/{name}", 500, UNREADABLE, "a whole")
            status, answer = ask(untouched.bases.management, case)
            assert status == 500
            assert f"Failed to save model: file://{tmp_path}/{name} : " in answer["message"]


def test_configurations_of_models(untouched: Target, torchserve: tuple[Bases, Path] | None) -> None:
    """Forgiven, as by TorchServe; the log says what is ignored, and what was expected."""
    for number, (text, complaint) in enumerate(CONFIGS.items()):
        name = f"config{number}_{'both' if torchserve else 'ours'}"
        servers = [(untouched.bases, untouched.store)] + ([torchserve] if torchserve else [])
        for bases, store in servers:
            (store / f"{name}.mar").write_bytes(with_config(text))
            path = f"/models?url={name}.mar&model_name={name}"
            case = manage("POST", path, 200, "", "")
            assert ask(bases.management, case)[0] == 200, text
            case = manage("DELETE", f"/models/{name}", 200, "", "")
            assert ask(bases.management, case)[0] == 200
            (store / f"{name}.mar").unlink()
        log = untouched.server.wait_for_lines(f"model {name}: model-config.yaml")
        (line,) = [line for line in log.splitlines() if f"model {name}: model-config.yaml" in line]
        assert complaint in line


HEADERS = {
    "no colon": b"Host h\r\n\r\n",
    "no name": b": value\r\n\r\n",
    "a blank before the colon": b"Host: h\r\nX-Y : z\r\n\r\n",
    "a NUL": b"Host: h\r\nX: a\0b\r\n\r\n",
    "a length that is no number": b"Host: h\r\nContent-Length: ten\r\n\r\n",
    "a negative length": b"Host: h\r\nContent-Length: -1\r\n\r\n",
    "a length of 30 digits": b"Host: h\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
    "two lengths": b"Host: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "no chunk": b"Host: h\r\nTransfer-Encoding: chunked\r\n\r\nten\r\nabc\r\n",
    "an endless chunk": b"Host: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
    "one of 70 KB": b"Host: h\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("port", ["inference", "management"])
@pytest.mark.parametrize("name", HEADERS)
def test_bad_headers(untouched: Target, port: str, name: str) -> None:
    request = b"POST /models HTTP/1.1\r\n" + HEADERS[name]
    answer = raw_http.send_raw(getattr(untouched.bases, port), request, timeout_s=DEADLINE_S)
    assert (answer.status, answer.is_closed) == (400, True)
    error = json.loads(answer.body)
    assert is_error_like(error, 400, "BadRequestException", "Invalid HTTP message.")


@pytest.mark.parametrize("port", ["inference", "management"])
@pytest.mark.parametrize("is_chunked", [True, False], ids=["chunked", "with a length"])
def test_large_bodies(untouched: Target, port: str, is_chunked: bool) -> None:
    """413 before the body has come; the server neither keeps nor waits for the rest."""
    piece = bytes(1 << 20)
    framed = b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece
    length = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: %d" % LARGE
    address = urlsplit(getattr(untouched.bases, port))
    with socket.create_connection((address.hostname, address.port), timeout=DEADLINE_S) as client:
        client.sendall(b"POST /models HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n" % length)
        if is_chunked:
            try:
                for _ in range(LARGE // len(piece)):
                    client.sendall(framed)
            except OSError:
                pass  # cut off, as it may be
        answer = client.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\ncontent-length: 0\r\n")


def test_large_bodies_below_the_limit(
    server_factory: Callable[..., Any], tmp_path: Path, poll: Callable[..., Any]
) -> None:
    """They are refused for what they are, or served, and then forgotten."""
    (tmp_path / "size.mar").write_bytes(
        packed('{"model": {"modelName": "size", "handler": "h.py"}}')
    )
    config = {"max_request_size": str(LARGE + 1000), "default_workers_per_model": "1"}
    server = server_factory(models=["size=size.mar"], config=config)
    server.wait_until_ready("size")
    large = b"x" * LARGE
    bases = Bases(server.inference, server.management, server.metrics)
    for case in (
        register_json(large, SYNTAX, "line 1 column 1"),
        infer("/predictions/nobody", 404, NOT_FOUND, "nobody", body=large),
        form(part("X: y", "x" * LARGE), "has no name", MULTIPART),
        form(b"a=" + large + b"%zz", "Invalid hex byte at index '104857600'"),
    ):
        path = case.path.replace("echo", "size")
        case = Case(
            *(case.port, case.method, path, case.status, case.kind, case.says),
            case.content_type,
            case.body,
        )
        status, answer = ask(getattr(bases, case.port), case)
        assert status == case.status
        assert is_error_like(answer, status, case.kind, case.says), str(answer)[:600]
        assert len(answer["message"]) < 1000
    status, _, body = server.request("POST", "/predictions/size", large)
    assert (status, body) == (200, str(LARGE).encode())


WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.sampled_from(
    ["-1", "0", "-99999999999", "1e9", "0x1", "", " ", "NaN", "1.5", "\u0661"]
)
PARAMETERS = st.sampled_from(
    [
        *("url", "model_name", "handler", "runtime", "batch_size", "max_batch_delay"),
        *("initial_workers", "synchronous", "response_timeout", "startup_timeout", "s3_sse_kms"),
        *("min_worker", "max_worker", "model_version", "timeout", "limit", "next_page_token"),
        *("customized", "type", "name[]"),
    ]
)
SEGMENTS = st.one_of(
    st.sampled_from(
        [
            *("models", "echo", "1.0", "all", "set-default", "token", "v1", "v2", "infer", "ping"),
            *("predictions", "explanations", "invocations", "api-description", "metrics"),
        ]
    ),
    WORDS,
)


def may_change_something(method: str, path: list[str]) -> bool:
    """What would scale or unregister the model that is there, which is not bad input."""
    return method in ("PUT", "DELETE") and path[:2] == ["models", "echo"]


@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
@given(
    port=st.sampled_from(["inference", "management", "metrics"]),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH"]),
    path=st.lists(SEGMENTS, max_size=5),
    query=st.lists(st.tuples(PARAMETERS, st.one_of(NUMBERS, WORDS)), max_size=4),
    content_type=st.sampled_from(["", JSON, FORM, MULTIPART, "text/plain; charset=x", ";"]),
    body=st.binary(max_size=200),
)
def test_whatever_is_asked(
    untouched: Target,
    port: str,
    method: str,
    path: list[str],
    query: list[tuple[str, str]],
    content_type: str,
    body: bytes,
) -> None:
    """Every answer is one that was meant: no route has a parameter that it trips over."""
    if may_change_something(method, path):
        method = "GET"
    encoded = "/" + "/".join(quote(segment, safe="") for segment in path)
    encoded += "?" + "&".join(f"{quote(n, safe='')}={quote(v, safe='')}" for n, v in query)
    headers = {"Content-Type": content_type} if content_type else {}
    status, answer_headers, answer = untouched.server.request(method, encoded, body, headers, port)
    assert answer_headers["x-request-id"]
    assert status < 500 or json.loads(answer)["type"] != "InternalServerException"
    if status >= 400 and method != "HEAD":
        assert json.loads(answer)["code"] == status
