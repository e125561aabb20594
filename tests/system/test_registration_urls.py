"""A whole server and the urls that registering never follows."""

import json
import socket
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest


def registered(server: Any, url: str) -> tuple[int, str, str]:
    path = f"/models?url={quote(url, safe='')}"
    status, _, body = server.request("POST", path, port="management")
    answer = json.loads(body)
    return status, answer["type"], answer["message"]


@pytest.mark.parametrize(
    ("is_strict", "config"),
    [
        (False, {"sandbox": "standard"}),
        (True, {"sandbox": "strict"}),
        (True, {"key_source": "cdh:http://127.0.0.1:8006"}),  # which makes every model strict
    ],
)
def test_this_machine_is_reached_unless_the_server_is_strict(
    server_factory: Callable[..., Any], is_strict: bool, config: dict[str, str]
) -> None:
    server = server_factory(config=config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        url = f"http://localhost:{listening.getsockname()[1]}/m.mar"
        if is_strict:
            assert registered(server, url) == (
                404,
                "ModelNotFoundException",
                f"Given URL {url} leads to this machine itself, "
                "where no download goes, whatever allowed_urls says",
            )
            with pytest.raises(BlockingIOError):
                listening.accept()
        else:
            listening.settimeout(30)
            answers = []
            asking = threading.Thread(target=lambda: answers.append(registered(server, url)))
            asking.start()
            connection, _ = listening.accept()
            connection.close()
            asking.join()
            assert answers[0][:2] == (400, "DownloadArchiveException")


def test_brokers_and_metadata_services_are_never_reached(
    server_factory: Callable[..., Any],
) -> None:
    settings = {"allowed_urls": ".*", "key_source": "kbs:http://127.0.0.1"}
    server = server_factory(config=settings)
    for url, place in {
        "http://127.0.0.1:8006/cdh/resource/a/b/c": "the broker of keys",
        "http://localhost:8080/kbs/v0/resource/a/b/c": "the broker of keys",  # its usual port
        "http://169.254.169.254/m.mar": "a metadata service",
    }.items():
        status, kind, message = registered(server, url)
        assert (status, kind) == (404, "ModelNotFoundException")
        assert f"leads to {place}," in message
    status, kind, message = registered(server, "file:///etc/passwd")
    assert (status, kind) == (400, "InvalidModelException")
    assert "root:" not in message + server.log_text()
