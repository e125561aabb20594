"""What plugins add to the ports: who answers which path, and what a bad answer costs."""

import asyncio
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from torchkeep.frontend import plugin_endpoints
from torchkeep.frontend.api_keys import ApiKeys
from torchkeep.frontend.app import Api, ApiSettings, inference_app, management_app, shared_app
from torchkeep.frontend.errors import ModelNotFound
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.plugin_endpoints import PluginEndpoints, check_endpoints, endpoints_of
from torchkeep.frontend.responses import Cors
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugin_loading import Found
from torchkeep.runtime.plugins import ModelState, Request, Response, ServerState, endpoint

STATE = ServerState(True, [ModelState("m", "1.0", True, 2, 1)], 1000)


class EmptyRegistry:
    def get(self, name: str, version: str | None = None) -> Any:
        raise ModelNotFound(name)

    def urls(self) -> list[tuple[str, str]]:
        return []

    def is_healthy(self) -> bool:
        return True


@endpoint("echo", methods=["GET", "POST"])
def echo(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "header": request.headers.get("x-a"),
        "body": request.body.decode(),
        "models": [model.name for model in request.server.models],
    }


@endpoint("echo", methods=["DELETE"])
async def delete(request: Request) -> Response:
    return Response(status=204)


@endpoint("ping", replaces_builtin=True)
async def ping(request: Request) -> str:
    return "pong"


@endpoint("state", port="management")
def state(request: Request) -> list[int]:
    return [model.workers_ready for model in request.server.models]


ALL = [Found(one, "here") for one in (echo, delete, ping, state)]


def app_of(port: str, settings: Mapping[str, Any] | None = None, found: Any = ALL) -> Any:
    registry: Any = EmptyRegistry()
    metrics = Metrics("host")
    plugins = {
        f"{one}_plugins": PluginEndpoints(endpoints_of(one, found), lambda: STATE)
        for one in ("inference", "management")
    }
    given = ApiSettings(**plugins, **(settings or {}))
    match port:
        case "inference":
            return inference_app(registry, metrics, given)
        case "management":
            return management_app(registry, metrics, given)
    return shared_app(registry, metrics, given, True)


def answering(answer: Any) -> Any:
    """An inference port with one plugin, which answers this, or raises it."""

    @endpoint("guest")
    def guest(request: Request) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return app_of("inference", found=[Found(guest, "here")])


# Who answers which path.


def test_the_first_segment_decides_and_the_request_is_all_there(ask: Any) -> None:
    app = app_of("inference")
    answer = ask(app, "POST", "/echo/a%20b?x=1&x=2&y=%2F", b"hello", {"X-A": "1"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "method": "POST",
        "path": "/echo/a b",
        "query": {"x": "1", "y": "/"},
        "header": "1",
        "body": "hello",
        "models": ["m"],
    }


@pytest.mark.parametrize(
    ("port", "method", "path", "status"),
    [
        ("inference", "GET", "/echo", 200),
        ("inference", "HEAD", "/echo", 200),
        ("inference", "DELETE", "/echo", 204),
        ("inference", "PUT", "/echo", 405),
        ("inference", "OPTIONS", "/echo", 405),
        ("inference", "GET", "/Echo", 404),
        ("inference", "GET", "//echo", 404),
        ("inference", "GET", "/state", 404),
        ("inference", "GET", "/echo/%ZZ", 403),
        # A model of that name has lost its oldest route, and no other.
        ("inference", "GET", "/echo/predict", 200),
        ("inference", "GET", "/predictions/echo", 404),
        ("management", "GET", "/state/x", 200),
        ("management", "GET", "/echo", 404),
        ("management", "GET", "/models", 200),
        ("shared", "GET", "/state", 200),
        ("shared", "GET", "/echo", 200),
        ("shared", "GET", "/models", 200),
    ],
)
def test_whose_path_it_is(ask: Any, port: str, method: str, path: str, status: int) -> None:
    assert ask(app_of(port), method, path).status == status


def test_errors_about_methods_are_the_servers_own(ask: Any) -> None:
    answer = ask(app_of("inference"), "PUT", "/echo")
    assert answer.json["type"] == "MethodNotAllowedException"


def test_ping_may_be_replaced(ask: Any) -> None:
    assert ask(app_of("inference"), "GET", "/ping").body == b"pong"
    assert ask(app_of("inference"), "GET", "/ping").headers["content-type"].startswith("text/plain")
    assert ask(app_of("inference", found=[]), "GET", "/ping").json == {"status": "Healthy"}


def test_a_plugins_path_is_never_taken_for_a_prediction() -> None:
    """The quick way that predictions take asks before it takes one."""

    class Asked:
        def __init__(self, path: str) -> None:
            self.scope = {
                "type": "http",
                "method": "POST",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "headers": [],
            }
            self.request_body = b""
            self.status = 0

        async def receive(self) -> Any: ...

        def respond(self, status: int, *_: Any) -> None:
            self.status = status

    api: Api = app_of("inference")
    guest, prediction, root = Asked("/echo/predict"), Asked("/other/predict"), Asked("/")
    assert not api.begin(guest)  # type: ignore[arg-type]
    assert api.begin(prediction)  # type: ignore[arg-type]
    assert prediction.status == 404
    assert not api.begin(root)  # type: ignore[arg-type]


# Keys and CORS hold for plugins as for the server's own routes.


def test_plugins_ask_for_the_key_of_their_port(ask: Any, tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path / "key_file.json", 60)
    keys.open()
    kinds = json.loads((tmp_path / "key_file.json").read_text())
    settings = {"keys": keys, "cors": Cors("http://there")}
    for port, path, kind in (
        ("inference", "/echo", "inference"),
        ("management", "/state", "management"),
        ("shared", "/state", "management"),
    ):
        app = app_of(port, settings)
        other = "management" if kind == "inference" else "inference"
        for shown in ({}, {"Authorization": f"Bearer {kinds[other]['key']}"}):
            answer = ask(app, "GET", path, headers=shown)
            assert (answer.status, answer.json["type"]) == (400, "InvalidKeyException")
        good = {"Authorization": f"Bearer {kinds[kind]['key']}"}
        answer = ask(app, "GET", path, headers=good)
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "http://there"
    keys.close()


# What a function returns.


@pytest.mark.parametrize(
    ("returned", "kind", "body"),
    [
        ({"a": "é"}, "application/json", '{\n  "a": "é"\n}\n'.encode()),
        ([1, None], "application/json", b"[\n  1,\n  null\n]\n"),
        ((), "application/json", b"[]\n"),
        ("é", "text/plain; charset=utf-8", "é".encode()),
        (b"\0", "application/octet-stream", b"\0"),
        (bytearray(b"a"), "application/octet-stream", b"a"),
        (Response({"a": 1}), "application/json", b'{\n  "a": 1\n}\n'),
        (Response("<p>", headers={"Content-Type": "text/html"}), "text/html", b"<p>"),
    ],
)
def test_what_may_be_returned(ask: Any, returned: Any, kind: str, body: bytes) -> None:
    answer = ask(answering(returned), "GET", "/guest")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, body)


def test_headers_of_the_server_stay_its_own(ask: Any) -> None:
    headers = {"x-request-id": "mine", "Cache-Control": "public", "X-Other": "1"}
    answer = ask(answering(Response("", 418, headers)), "GET", "/guest")
    assert answer.status == 418
    assert answer.headers["x-request-id"] != "mine"
    assert answer.headers["cache-control"].startswith("no-cache")
    assert answer.headers["x-other"] == "1"


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "TypeError: returned NoneType: expected a Response"),
        (3, "TypeError: returned int"),
        (Response(object()), "TypeError: returned object"),
        ({"a": object()}, "TypeError: Object of type object is not JSON serializable"),
        (Response("", 99), "ValueError: the status must be a number from 200 to 599"),
        (Response("", 101), "ValueError: the status must be"),
        (Response("", "200"), "ValueError: the status must be"),  # type: ignore[arg-type]
        (Response("", headers={"a": "b\r\nc: d"}), "ValueError: the header b'a' cannot"),
        (Response("", headers={"a": 1}), "AttributeError"),  # type: ignore[dict-item]
        (ValueError("in the function"), "ValueError: in the function"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (StopIteration(), "RuntimeError: StopIteration"),
    ],
)
def test_a_failure_is_a_500_and_in_the_log(
    ask: Any, returned: Any, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(answering(returned), "GET", "/guest")
    assert answer.status == 500
    assert answer.json == {
        "code": 500,
        "type": "InternalServerException",
        "message": "Plugin endpoint /guest failed; the server's log says how.",
    }
    assert words in caplog.text


@pytest.mark.parametrize("error", [ValueError("a secret"), SystemExit("a secret")])
def test_an_async_function_may_fail_too(
    ask: Any, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    @endpoint("guest")
    async def guest(request: Request) -> str:
        raise error

    plugins = PluginEndpoints([guest], lambda: STATE, hides_errors=True)
    registry: Any = EmptyRegistry()
    app = inference_app(registry, Metrics("host"), ApiSettings(inference_plugins=plugins))
    assert ask(app, "GET", "/guest").status == 500
    # Beside secrets the log names the kind and the place alone.
    (line,) = caplog.messages
    assert f"plugin endpoint /guest: {type(error).__name__}, {__file__}, line " in line
    assert "a secret" not in caplog.text


def test_a_plain_function_has_a_thread_and_an_async_one_the_loop(ask: Any) -> None:
    threads: dict[str, int] = {}

    @endpoint("plain")
    def plain(request: Request) -> str:
        threads["plain"] = threading.get_ident()
        return ""

    @endpoint("async")
    async def on_loop(request: Request) -> str:
        await asyncio.sleep(0)
        threads["async"] = threading.get_ident()
        return ""

    app = app_of("inference", found=[Found(plain, ""), Found(on_loop, "")])
    assert ask(app, "GET", "/plain").status == ask(app, "GET", "/async").status == 200
    assert threads["async"] == threading.get_ident() != threads["plain"]


def test_functions_that_nobody_waits_for_take_no_more_than_their_threads(
    ask_async: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_endpoints, "MAX_THREADS", 1)
    begun, release = threading.Event(), threading.Event()

    @endpoint("stuck")
    def stuck(request: Request) -> str:
        begun.set()
        release.wait(60)
        return "ended"

    app = app_of("inference", found=[Found(stuck, "")])

    async def scenario() -> None:
        left = asyncio.ensure_future(ask_async(app, "GET", "/stuck"))
        await asyncio.to_thread(begun.wait, 60)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        begun.clear()
        waiting = asyncio.ensure_future(ask_async(app, "GET", "/stuck"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not begun.is_set()
        release.set()
        assert (await waiting).body == b"ended"

    asyncio.run(scenario())


# What is refused at the start.


def refused(found: Sequence[Found], share_port: bool = False) -> str:
    with pytest.raises(ConfigError) as raised:
        check_endpoints(found, share_port=share_port)
    return str(raised.value)


def test_endpoints_that_get_along() -> None:
    check_endpoints(ALL, share_port=False)
    check_endpoints(ALL, share_port=True)


@pytest.mark.parametrize(
    ("path", "port"),
    [
        ("predictions", "inference"),
        ("models", "inference"),
        ("WFPredict", "inference"),
        ("models", "management"),
        ("token", "management"),
        ("api-description", "management"),
    ],
)
def test_a_route_of_the_servers_own_cannot_be_taken(path: str, port: Any) -> None:
    guest = endpoint(path, port=port, replaces_builtin=True)(lambda request: "")
    assert refused([Found(guest, "f.py, line 2")]) == (
        f"plugins_path: f.py, line 2: /{path} is the server's own and cannot be replaced"
    )


def test_ping_is_replaced_by_those_only_who_say_so() -> None:
    guest = endpoint("ping")(lambda request: "")
    assert refused([Found(guest, "f.py, line 2")]) == (
        "plugins_path: f.py, line 2: /ping is the server's own; say "
        '@endpoint("ping", replaces_builtin=True) to answer in its place'
    )


def test_two_for_one_path() -> None:
    one, two = (endpoint("a")(lambda request: "") for _ in range(2))
    found = [Found(one, "f.py, line 2"), Found(two, "g.py, line 3")]
    assert refused(found) == (
        "plugins_path: g.py, line 3: GET /a is answered already, by f.py, line 2"
    )


def test_one_port_for_both_has_one_path_for_each() -> None:
    one = endpoint("a")(lambda request: "")
    two = endpoint("a", port="management")(lambda request: "")
    found = [Found(one, "f.py, line 2"), Found(two, "g.py, line 3")]
    check_endpoints(found, share_port=False)
    assert "answered already" in refused(found, share_port=True)
    token = endpoint("token")(lambda request: "")
    check_endpoints([Found(token, "")], share_port=False)
    assert "/token is the server's own" in refused([Found(token, "")], share_port=True)
