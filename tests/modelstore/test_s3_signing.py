"""Signed downloads, given or refused by a server that computes the signature itself."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server
from serving import serving

from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import DownloadFailed, SigningImpossible
from torchkeep.modelstore.reach import Reach, resolve
from torchkeep.modelstore.s3_signing import S3Signer

CONTENT = b"PK\x03\x04 and more"
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "AWS_DEFAULT_REGION": "eu-west-1",
}
SIGNER = S3Signer.from_environment(KEYS)


@pytest.fixture
def s3() -> Iterator[S3Server]:
    with serving(S3Server(CONTENT, "AKIDEXAMPLE", "hunter2", "eu-west-1")) as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "m.mar"


def get(
    url: str, target: Path, signer: S3Signer | None = SIGNER, reach: Reach | None = None
) -> None:
    sign = signer.headers if signer else None
    download(url, target, 1000, lambda url: None, reach=reach or Reach(), sign=sign)


@pytest.mark.parametrize(
    "path",
    [
        "/bucket/m.mar",
        "/bucket/a%20b/m%2B1~(x).mar",
        "/bucket/a+b,c=d@e/m.mar",
        "/bucket/%C3%A9/m.mar",
        "/bucket//m.mar",
        "/bucket/m.mar?versionId=x.y-Z&partNumber=2&a",
    ],
)
def test_a_signed_request_gets_the_object(s3: S3Server, target: Path, path: str) -> None:
    get(s3.url(path), target)
    assert target.read_bytes() == CONTENT


def test_the_headers_are_those_of_torchserve(s3: S3Server, target: Path) -> None:
    get(s3.url("/bucket/m.mar"), target)
    (headers,) = s3.requests
    assert headers["Host"] == f"127.0.0.1:{s3.server_port}"
    assert headers["x-amz-content-sha256"] == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date," in headers["Authorization"]


def test_unsigned_or_with_the_wrong_keys_there_is_none(s3: S3Server, target: Path) -> None:
    wrong = S3Signer.from_environment({**KEYS, "AWS_SECRET_ACCESS_KEY": "hunter3"})
    elsewhere = S3Signer.from_environment({**KEYS, "AWS_DEFAULT_REGION": "us-east-1"})
    for signer in (None, wrong, elsewhere):
        with pytest.raises(DownloadFailed):
            get(s3.url("/bucket/m.mar"), target, signer)
        assert not target.exists()


def test_temporary_keys_bring_their_token(target: Path) -> None:
    signer = S3Signer.from_environment({**KEYS, "AWS_SESSION_TOKEN": "the token"})
    with serving(S3Server(CONTENT, "AKIDEXAMPLE", "hunter2", "eu-west-1", "the token")) as server:
        get(server.url("/bucket/m.mar"), target, signer)


def test_the_signature_is_for_the_host_that_was_judged(s3: S3Server, target: Path) -> None:
    judged = []

    def resolve_here(host: str, port: int) -> list[str]:
        judged.append((host, port))
        return resolve("127.0.0.1" if host.endswith(".example") else host, port)

    get(s3.url("/m.mar", "bucket.example"), target, reach=Reach(resolve=resolve_here))
    assert s3.requests[0]["Host"] == f"bucket.example:{s3.server_port}"
    assert judged[0] == ("bucket.example", s3.server_port)


def test_a_redirect_takes_no_signature_along(s3: S3Server, target: Path) -> None:
    with serving(S3Server(b"PK", "other", "x", "eu-west-1")) as other:
        s3.redirects["/bucket/m.mar"] = other.url("/m.mar")
        signer = S3Signer.from_environment({**KEYS, "AWS_SESSION_TOKEN": "the token"})
        with pytest.raises(DownloadFailed):
            get(s3.url("/bucket/m.mar"), target, signer)
        (headers,) = other.requests
        assert not [name for name in headers if name.lower().startswith(("x-amz", "auth"))]


@pytest.mark.parametrize("missing", KEYS)
def test_a_missing_key_is_named(missing: str, s3: S3Server, target: Path) -> None:
    signer = S3Signer.from_environment({**KEYS, missing: ""})
    with pytest.raises(SigningImpossible) as caught:
        get(s3.url("/bucket/m.mar"), target, signer)
    assert str(caught.value) == (
        f"s3_sse_kms asks for a signed download: set {missing} in the environment of the server."
    )
    assert s3.requests == []


def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, s3: S3Server, target: Path
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    with pytest.raises(SigningImpossible, match=r"pip install 'torchkeep\[s3\]'"):
        get(s3.url("/bucket/m.mar"), target)


def test_keys_are_in_no_repr() -> None:
    assert "hunter2" not in repr(SIGNER)
