"""Which key opens which port and route; the words of the answers are in tests/system/facts.json."""

import json
from pathlib import Path
from typing import Any

import pytest

from torchkeep.frontend.api_keys import KEY_FILE, ApiKeys
from torchkeep.frontend.app import (
    ApiSettings,
    inference_app,
    management_app,
    metrics_app,
    shared_app,
)
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


@pytest.fixture
def keys(tmp_path: Path) -> ApiKeys:
    opened = ApiKeys(tmp_path / KEY_FILE, 60)
    opened.open()
    return opened


def texts(keys: ApiKeys) -> dict[str, str]:
    entries = json.loads(keys.file.read_text())
    return {"none": "x"} | {kind: entry["key"] for kind, entry in entries.items()}


@pytest.fixture
def status(ask: Any, keys: ApiKeys) -> Any:
    """The status of a request to a port with a key of that kind."""
    registry: Any = EmptyRegistry()
    settings, metrics = ApiSettings(keys=keys), Metrics("host")
    ports = {
        "inference": inference_app(registry, metrics, settings),
        "management": management_app(registry, metrics, settings),
        "metrics": metrics_app(metrics, settings),
        "shared": shared_app(registry, metrics, settings, True),
    }

    def status(port: str, path: str, kind: str, method: str = "GET") -> int:
        bearer = f"Bearer {texts(keys)[kind]}"
        found: int = ask(ports[port], method, path, b"", {"Authorization": bearer}).status
        return found

    return status


@pytest.mark.parametrize(
    ("port", "path", "opened_by", "answer"),
    [
        ("inference", "/ping", "inference", 200),
        ("inference", "/predictions/m", "inference", 404),
        ("inference", "/nothing", "inference", 404),
        ("management", "/models", "management", 200),
        ("management", "/models/m", "management", 404),
        ("management", "/nothing", "management", 404),
        ("management", "/token?type=inference", "API", 200),
        ("management", "/token?type=management", "API", 200),
    ],
)
def test_every_route_asks_for_its_key(
    status: Any, port: str, path: str, opened_by: str, answer: int
) -> None:
    for kind in ("none", "management", "inference", "API"):
        assert status(port, path, kind) == (answer if kind == opened_by else 400), kind


def test_a_disabled_register_route_asks_for_the_key_first(status: Any) -> None:
    assert status("management", "/models?url=m.mar", "none", "POST") == 400
    assert status("management", "/models?url=m.mar", "management", "POST") == 405


@pytest.mark.parametrize("port", ["inference", "management", "shared"])
def test_the_description_of_the_api_asks_for_no_key(status: Any, port: str) -> None:
    assert status(port, "/", "none", "OPTIONS") == 200
    assert status(port, "/api-description", "none") == 200
    assert status(port, "/", "none") == 405
    assert status(port, "/predictions/m", "none", "OPTIONS") == 400
    assert status(port, "/models/m", "none", "OPTIONS") == 400


def test_the_metrics_port_asks_for_no_key(status: Any) -> None:
    assert status("metrics", "/metrics", "none") == 200
    assert status("metrics", "/token", "API") == 404


def test_a_model_may_be_named_tokenizer(status: Any) -> None:
    assert status("management", "/models/tokenizer", "management") == 404
    assert status("management", "/models/tokenizer", "API") == 400


@pytest.mark.parametrize(
    ("path", "answers"),
    [  # with no key, the management key, the inference key, the API key
        ("/ping", (400, 200, 200, 400)),
        ("/models", (400, 200, 400, 400)),
        ("/metrics", (400, 200, 400, 400)),
        ("/nothing", (400, 404, 400, 400)),
        ("/token?type=inference", (400, 400, 400, 200)),
    ],
)
def test_a_shared_port_can_be_managed_with_the_management_key(
    status: Any, path: str, answers: tuple[int, ...]
) -> None:
    kinds = ("none", "management", "inference", "API")
    assert tuple(status("shared", path, kind) for kind in kinds) == answers


def test_a_key_file_that_cannot_be_written_is_told_in_the_log(
    status: Any, keys: ApiKeys, caplog: pytest.LogCaptureFixture
) -> None:
    known = texts(keys)
    keys.file.unlink()
    keys.file.mkdir()
    (keys.file / "full").touch()
    # the file is a directory, so the key is shown from memory
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "texts", lambda _: known)
        assert status("management", "/token?type=inference", "API") == 400
        assert status("inference", "/ping", "inference") == 200
    assert "Failed to update key file" in caplog.text
    assert not any(key in caplog.text for kind, key in known.items() if kind != "none")
