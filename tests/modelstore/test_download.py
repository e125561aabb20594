"""A file arrives whole and under its own name, or not at all; and only from where it may."""

import base64
import gzip
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from serving import serving

from torchkeep.modelstore.download import download
from torchkeep.modelstore.errors import (
    DownloadFailed,
    FileAlreadyExists,
    InvalidArchive,
    ModelStoreError,
    UrlNotAllowed,
)
from torchkeep.modelstore.reach import Reach, resolve
from torchkeep.modelstore.seal_header import MAGIC

CONTENT = b"PK\x03\x04 and more"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store" / "m.mar"


def fetch(source: Path, target: Path, arrival: bytes | None = None) -> None:
    """Download; `arrival` is what somebody else puts under that name in the meantime."""

    def meanwhile() -> None:
        if arrival is not None:
            target.write_bytes(arrival)

    download(f"file://{source}", target, 1000, lambda url: None, meanwhile, reach=Reach())


def without_links(*_: object) -> None:
    raise PermissionError("no hard links here")


def test_a_file_arrives(source: Path, target: Path) -> None:
    fetch(source, target)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["m.mar"]


def test_a_file_arrives_where_there_are_no_hard_links(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", without_links)
    fetch(source, target)
    assert target.read_bytes() == CONTENT
    assert os.listdir(target.parent) == ["m.mar"]


@pytest.mark.parametrize("has_links", [True, False])
def test_what_came_in_the_meantime_stays(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", without_links)
    with pytest.raises(FileAlreadyExists):
        fetch(source, target, arrival=b"faster")
    assert target.read_bytes() == b"faster"
    assert os.listdir(target.parent) == ["m.mar"]


# -- files of this machine -------------------------------------------------------------------


def failure(
    url: str, target: Path, reach: Reach | None = None, private: tuple[Path, ...] = ()
) -> ModelStoreError:
    with pytest.raises(ModelStoreError) as caught:
        download(url, target, 1000, lambda url: None, reach=reach or Reach(), private=private)
    assert os.listdir(target.parent) == []
    return caught.value


def part(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


JWE = b".".join([part(b'{"alg":"A256KW","enc":"A256GCM"}'), *[part(b"x" * 20)] * 4])
TOKEN = b".".join([part(b'{"alg":"RS256"}'), part(b'{"sub":"secret"}'), part(b"x" * 20)])


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04", b"PK\x05\x06" + bytes(18), gzip.compress(b""), MAGIC, JWE],
    ids=["zip", "empty zip", "gzip", "sealed", "jwe"],
)
def test_what_begins_like_an_archive_is_copied(source: Path, target: Path, content: bytes) -> None:
    source.write_bytes(content)
    fetch(source, target)
    assert target.read_bytes() == content


@pytest.mark.parametrize(
    "content",
    [b"", b"P", b"PK", b"PK\x03", b"secret: 1", MAGIC[:-1], b"eyJ", TOKEN, b"\x1f", bytes(9)],
)
def test_what_does_not_is_not_copied(
    source: Path, target: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    source.write_bytes(content)
    error = failure(f"file://{source}", target)
    assert type(error) is InvalidArchive
    assert str(error) == (
        "source does not begin like an archive: expected a zip (.mar), "
        "a tar compressed by gzip (.tar.gz), or a sealed archive (.sealed, .jwe)."
    )
    assert caplog.text == ""


def test_nothing_is_written_before_the_beginning_was_looked_at(source: Path, target: Path) -> None:
    source.write_bytes(b"secret")
    target.parent.rmdir()  # so that any attempt to write fails in its own way
    with pytest.raises(InvalidArchive):
        fetch(source, target)


@pytest.mark.parametrize(
    "path",
    [
        "/dev/null",
        "/dev/zero",
        "/dev/tty",
        "/proc/self/environ",
        "/proc/self/maps",
        "/proc/kmsg",
        "/proc/self/mem",
        "/sys/kernel/notes",
        "/proc",
        "/",
    ],
)
def test_what_is_no_plain_file_is_refused_at_once(target: Path, path: str) -> None:
    started = time.monotonic()
    assert type(failure(f"file://{path}", target)) is DownloadFailed
    assert time.monotonic() - started < 5


def test_a_pipe_and_a_socket_are_not_waited_for(tmp_path: Path, target: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            assert type(failure(f"file://{tmp_path / name}", target)) is DownloadFailed


def test_what_is_refused_is_not_even_opened(tmp_path: Path, target: Path) -> None:
    """A device may act when it is opened. A pipe shows it: its writer waits for a reader."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    opened = threading.Event()

    def write() -> None:
        with pipe.open("wb"):
            opened.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert type(failure(f"file://{pipe}", target)) is DownloadFailed
    assert not opened.wait(0.2)
    with pipe.open("rb"):
        writer.join()
    assert opened.is_set()


def test_a_link_stands_for_its_file(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    fetch(tmp_path / "link", target)
    assert target.read_bytes() == CONTENT
    target.unlink()
    (tmp_path / "environ").symlink_to("/proc/self/environ")
    assert type(failure(f"file://{tmp_path}/environ", target)) is DownloadFailed


def test_a_file_without_a_name_is_refused(target: Path) -> None:
    """Such as the memory in which an archive is being opened."""
    with open(os.memfd_create("archive"), "wb") as memory:
        memory.write(CONTENT)
        memory.flush()
        url = f"file:///proc/self/fd/{memory.fileno()}"
        assert type(failure(url, target)) is DownloadFailed


def test_the_files_of_an_opened_archive_are_refused(tmp_path: Path, target: Path) -> None:
    """The weights of a sealed model are a zip, too."""
    weights = tmp_path / "models" / "0123" / "weights.pt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(CONTENT)
    (tmp_path / "way").symlink_to(tmp_path / "models")
    for path in (weights, tmp_path / "way" / "0123" / "weights.pt"):
        for private in (tmp_path / "models", tmp_path / "way"):
            assert type(failure(f"file://{path}", target, private=(private,))) is DownloadFailed
    fetch(weights, target)


# -- other machines --------------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Sends a small archive, or to wherever `moves` says; remembers who was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.moves: dict[str, str] = {}
        self.hosts: list[str] = []

    def get_request(self) -> tuple[socket.socket, str]:
        connection, address = super().get_request()
        connection.settimeout(10)
        return connection, address

    def url(self, path: str, host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.server_port}{path}"


class _Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.hosts.append(self.headers["Host"])
        location = self.server.moves.get(self.path)
        content = CONTENT if location is None else b"secret"
        self.send_response(200 if location is None else 302)
        self.send_header("Content-Length", str(len(content)))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server


def names(**addresses: str) -> Reach:
    """Names with one dot that mean these addresses."""

    def resolve_here(host: str, port: int) -> list[str]:
        address = addresses.get(host.partition(".")[0])
        return resolve(host, port) if address is None else [address]

    return Reach(resolve=resolve_here)


def get(url: str, target: Path, reach: Reach | None = None) -> None:
    download(url, target, 1000, lambda url: None, reach=reach or Reach())


def test_a_download_that_takes_a_while_says_how_far_it_is(
    server: Server,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = server.url("/m.mar?signature=secret")
    with caplog.at_level(logging.INFO):
        get(url, target)
        assert caplog.messages == []
        target.unlink()
        monkeypatch.setattr("torchkeep.modelstore.download.PROGRESS_AFTER_S", 0.0)
        get(url, target)
    assert caplog.messages == ["downloading m.mar: 0.0 of 0.0 MB in 0 s"]


def test_a_forbidden_place_is_told_in_words(target: Path) -> None:
    url = "http://169.254.169.254/latest/m.mar"
    error = failure(url, target)
    assert type(error) is UrlNotAllowed
    assert str(error) == (
        f"Given URL {url} leads to a metadata service, "
        "where no download goes, whatever allowed_urls says"
    )


def test_the_answer_is_the_same_whoever_listens(server: Server, target: Path) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    reach = Reach(is_loopback_allowed=False)
    texts = {
        str(failure(f"{scheme}://127.0.0.1:{number}/m.mar", target, reach)).replace(
            f"{scheme}://127.0.0.1:{number}", ""
        )
        for scheme in ("http", "https")
        for number in (server.server_port, port)
    }
    assert len(texts) == 1
    assert server.hosts == []


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/m.mar", "a metadata service"),
        ("https://metadata.google.internal/m.mar", "a metadata service"),
        ("http://[::ffff:169.254.169.254]/m.mar", "a metadata service"),
        ("//169.254.169.254/m.mar", "a metadata service"),
        ("http://127.0.0.1:8006/cdh/resource/a/b/c", "the broker of keys"),
        ("http://0:8006/cdh/resource/a/b/c", "no particular machine"),
        ("http://link.local/m.mar", "a link-local address"),
    ],
)
def test_redirected_to_a_forbidden_place(
    server: Server, target: Path, location: str, reason: str
) -> None:
    server.moves = {"/twice": "/once", "/once": location}
    error = failure(server.url("/twice"), target, names(link="169.254.1.1"))
    assert type(error) is UrlNotAllowed
    assert f"{server.url('/twice')} leads to {reason}," in str(error)
    assert len(server.hosts) == 2


def test_redirected_to_a_broker_that_listens(server: Server, target: Path) -> None:
    with serving(Server()) as broker:
        server.moves = {"/moved": broker.url("/m.mar")}
        reach = Reach([("127.0.0.1", broker.server_port)])
        error = failure(server.url("/moved"), target, reach)
        assert "leads to the broker of keys," in str(error)
        assert broker.hosts == []
        get(server.url("/moved"), target)
        assert broker.hosts == [f"127.0.0.1:{broker.server_port}"]


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/m.mar", "file:///etc/passwd", "data:,PK"])
def test_redirected_to_another_kind_of_place(server: Server, target: Path, location: str) -> None:
    server.moves = {"/moved": location}
    failure(server.url("/moved"), target)
    assert len(server.hosts) == 1


def test_redirects_end_somewhere(server: Server, target: Path) -> None:
    server.moves = {"/round": "/round"}
    assert type(failure(server.url("/round"), target)) is DownloadFailed
    assert len(server.hosts) < 20


def test_a_redirect_to_a_name_that_is_rebound(server: Server, target: Path) -> None:
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    server.moves = {"/moved": server.url("/m.mar", "rebinding.example")}

    def next_answer(host: str, port: int) -> list[str]:
        return next(answers) if host == "rebinding.example" else resolve(host, port)

    url = server.url("/moved", "rebinding.example")
    assert "leads to a metadata service," in str(failure(url, target, Reach(resolve=next_answer)))
    assert server.hosts == [f"rebinding.example:{server.server_port}"]


def test_the_server_is_asked_by_the_name_of_the_url(server: Server, target: Path) -> None:
    get(server.url("/m.mar", "store.example"), target, names(store="127.0.0.1"))
    assert target.read_bytes() == CONTENT
    assert server.hosts == [f"store.example:{server.server_port}"]


def test_proxies_of_the_environment_are_not_used(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TorchServe: neither does Java. They would resolve names for us."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, server.url(""))
    assert type(failure("http://169.254.169.254/m.mar", target)) is UrlNotAllowed
    assert server.hosts == []
    get(server.url("/m.mar", "store.example"), target, names(store="127.0.0.1"))
    assert server.hosts == [f"store.example:{server.server_port}"]


def test_a_password_in_the_url_is_refused_and_not_logged(
    server: Server, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert type(failure("http://user:secret@127.0.0.1/m.mar", target)) is DownloadFailed
    server.moves = {"/moved": server.url("/m.mar", "user:secret@127.0.0.1")}
    assert type(failure(server.url("/moved"), target)) is DownloadFailed
    assert "secret" not in caplog.text
    assert len(server.hosts) == 1


@pytest.mark.parametrize("url", ["/m.mar?sig=secret x", "/m.mar?sig=secret\x01", "secret/m.mar"])
def test_a_url_that_http_cannot_carry_is_not_quoted_in_the_log(
    url: str, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert type(failure(f"http://127.0.0.1:1{url}", target)) is DownloadFailed
    assert caplog.messages == ["download of m.mar failed: http cannot carry such a url"]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key and certificate of `store.example`, which this process trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("store.example")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(
        made.public_bytes(encoding)
        + key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return path


def test_tls_is_for_the_name_of_the_url(certificate: Path, target: Path) -> None:
    """Though the connection goes to a number: name indication, Host and certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    indicated = []
    context.sni_callback = lambda _, name, __: indicated.append(name)
    server = Server()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    reach = names(store="127.0.0.1", other="127.0.0.1")
    with serving(server):
        wrong = server.url("/m.mar", "other.example", "https")
        assert type(failure(wrong, target, reach)) is DownloadFailed
        get(server.url("/m.mar", "store.example", "https"), target, reach)
    assert target.read_bytes() == CONTENT
    assert indicated == ["other.example", "store.example"]
    assert server.hosts == [f"store.example:{server.server_port}"]
