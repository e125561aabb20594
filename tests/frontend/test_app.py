"""The three ports, and one port for two of them."""

from typing import Any

import pytest

from torchkeep.frontend.app import (
    ApiSettings,
    inference_app,
    management_app,
    metrics_app,
    shared_app,
)
from torchkeep.frontend.errors import ModelNotFound
from torchkeep.frontend.metrics import Metrics
from torchkeep.frontend.openapi import (
    inference_document,
    management_document,
    metrics_document,
    shared_document,
)


class EmptyRegistry:
    def get(self, name: str, version: str | None = None) -> Any:
        raise ModelNotFound(name)

    def urls(self) -> list[tuple[str, str]]:
        return []

    def is_waiting(self, name: str, version: str | None = None) -> bool:
        return False

    def is_healthy(self) -> bool:
        return True


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/metrics/x"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_metrics_page(ask: Any, path: str, method: str) -> None:
    answer = ask(metrics_app(Metrics("host"), ApiSettings()), method, path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.body.startswith(b"# HELP Requests2XX ")


def test_each_scrape_counts_afterwards(ask: Any) -> None:
    app = metrics_app(Metrics("host"), ApiSettings())
    assert b"Requests2XX{" not in ask(app, "GET", "/metrics").body
    body = ask(app, "GET", "/metrics?name[]=Requests2XX&name%5B%5D=Requests4XX").body
    assert body.splitlines()[2:] == [b'Requests2XX{Level="Host",Hostname="host",} 1.0']


def test_what_the_connection_refused_counts_as_a_response(ask: Any) -> None:
    app = metrics_app(Metrics("host"), ApiSettings())
    app.refused(400)
    assert b'Requests4XX{Level="Host",Hostname="host",} 1.0' in ask(app, "GET", "/metrics").body


def app_of(port: str) -> Any:
    registry: Any = EmptyRegistry()
    metrics, settings = Metrics("host"), ApiSettings()
    match port:
        case "inference":
            return inference_app(registry, metrics, settings)
        case "management":
            return management_app(registry, metrics, settings)
        case "metrics":
            return metrics_app(metrics, settings)
    return shared_app(registry, metrics, settings, True)


@pytest.mark.parametrize(
    ("port", "document"),
    [
        ("inference", inference_document()),
        ("management", management_document()),
        ("metrics", metrics_document()),
        ("shared", shared_document()),
    ],
)
def test_each_port_describes_itself(ask: Any, port: str, document: Any) -> None:
    for method, path in (
        ("OPTIONS", "/"),
        ("GET", "/api-description"),
        ("PUT", "/api-description"),
    ):
        answer = ask(app_of(port), method, path)
        assert (answer.status, answer.json) == (200, document)
        assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("port", ["inference", "management", "metrics", "shared"])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 405),
        ("POST", "/", 405),
        ("OPTIONS", "//", 405),
        ("GET", "/api-description/more", 404),
        ("GET", "//api-description", 404),
        ("OPTIONS", "/unknown", 404),
    ],
)
def test_what_describes_no_port(ask: Any, port: str, method: str, path: str, status: int) -> None:
    assert ask(app_of(port), method, path).status == status


@pytest.mark.parametrize(("path", "status"), [("/", 405), ("/ping", 404), ("/Metrics", 404)])
def test_metrics_port_has_nothing_else(ask: Any, path: str, status: int) -> None:
    assert ask(metrics_app(Metrics("host"), ApiSettings()), "GET", path).status == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ping", 200),
        ("/models", 200),
        ("/metrics", 200),
        ("/models/m", 404),
        ("/models/m/1.0", 404),
        ("/nothing", 404),
    ],
)
def test_shared_port(ask: Any, path: str, status: int) -> None:
    app = shared_app(EmptyRegistry(), Metrics("host"), ApiSettings(), True)  # type: ignore[arg-type]
    assert ask(app, "GET", path).status == status


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/models/m", "ModelNotFoundException"),
        ("/v1/models/m", "ModelNotFoundException"),
        ("/models/m/invoke", "ModelNotFoundException"),
        ("/models/m/1.0/set-default", "ModelNotFoundException"),
        # TorchServe: its inference router takes this path, and knows nothing there
        ("/models/m/1.0", "ResourceNotFoundException"),
        ("/models/m/all", "ResourceNotFoundException"),
    ],
)
def test_whose_paths_are_under_models_on_the_shared_port(ask: Any, path: str, kind: str) -> None:
    assert ask(app_of("shared"), "GET", path).json["type"] == kind


def test_shared_port_without_metrics(ask: Any) -> None:
    app = shared_app(EmptyRegistry(), Metrics("host"), ApiSettings(), False)  # type: ignore[arg-type]
    assert ask(app, "GET", "/metrics").status == 404
