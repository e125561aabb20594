"""The three ports, and one port for two of them."""

from typing import Any

import pytest

from torchkeep.frontend.app import ApiSettings, metrics_app, shared_app
from torchkeep.frontend.errors import ModelNotFound
from torchkeep.frontend.metrics import Metrics


class EmptyRegistry:
    def get(self, name: str, version: str | None = None) -> Any:
        raise ModelNotFound(name)

    def urls(self) -> list[tuple[str, str]]:
        return []

    def is_waiting(self, name: str, version: str | None) -> bool:
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


def test_shared_port_without_metrics(ask: Any) -> None:
    app = shared_app(EmptyRegistry(), Metrics("host"), ApiSettings(), False)  # type: ignore[arg-type]
    assert ask(app, "GET", "/metrics").status == 404
