"""A whole server that registers an archive which S3 gives to signed requests only."""

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any
from zipfile import ZipFile

from s3_server import S3Server
from serving import serving


def archive() -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as mar:
        mar.writestr("h.py", "def handle(data, context): return data and [b'x' for _ in data]")
        mar.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "m", "handler": "h.py"}}')
    return file.getvalue()


def registered(server: Any, url: str, s3_sse_kms: object) -> tuple[int, str]:
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"url": url, "s3_sse_kms": s3_sse_kms})
    status, _, answer = server.request("POST", "/models", body, headers, "management")
    content = json.loads(answer)
    return status, content.get("message") or content["status"]


def test_an_archive_from_s3_is_registered_by_a_signed_download(
    server_factory: Callable[..., Any],
) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "hunter2"}
    server = server_factory(env={**keys, "AWS_DEFAULT_REGION": "eu-west-1"})
    with serving(S3Server(archive(), "AKIDEXAMPLE", "hunter2", "eu-west-1")) as s3:
        url = s3.url("/bucket/m.mar?versionId=secret")
        for unsigned in (False, "yes"):
            status, said = registered(server, url, unsigned)
            assert status == 400
            assert said.startswith(f"Failed to download archive from: {url}")
        status, said = registered(server, url, True)
        assert (status, said.partition(" registered")[0]) == (200, 'Model "m" Version: 1.0')
    assert "hunter2" not in server.log_text()
    assert "versionId" not in server.log_text()
