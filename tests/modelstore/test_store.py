"""From a url to a model directory, and back to nothing."""

import asyncio
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from serving import serving

from torchkeep.modelstore.archive import Limits
from torchkeep.modelstore.directory_digest import directory_digest
from torchkeep.modelstore.errors import (
    ArchiveNotFound,
    DownloadFailed,
    FileAlreadyExists,
    InvalidArchive,
    InvalidUrl,
    ModelStoreError,
    UnreadableArchive,
    UrlNotAllowed,
)
from torchkeep.modelstore.manifest import Manifest
from torchkeep.modelstore.model_config import ModelConfig
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.reach import Reach
from torchkeep.modelstore.store import ModelStore

DEFAULT_ALLOWED = ["file://.*|http(s)?://.*"]


def mar(name: str = "m", **model: str) -> bytes:
    """An archive with a manifest, a handler and a config."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive_zip:
        archive_zip.writestr("h.py", "def handle(data, context): return data")
        archive_zip.writestr("c.yaml", "batchSize: 3")
        manifest = {"model": {"modelName": name, "configFile": "c.yaml", **model}}
        archive_zip.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    (path / "m.mar").write_bytes(mar())
    return path


@pytest.fixture
def store(tmp_path: Path, root: Path) -> ModelStore:
    return ModelStore(root, DEFAULT_ALLOWED, tmp_path / "tmp")


def open_archive(store: ModelStore, url: str) -> ModelDir:
    return asyncio.run(store.open(url))


def failure(store: ModelStore, url: str) -> ModelStoreError:
    with pytest.raises(ModelStoreError) as caught:
        open_archive(store, url)
    assert leftovers(store) == []
    return caught.value


def leftovers(store: ModelStore) -> list[str]:
    models = store.rules.area.models
    return sorted(os.listdir(models)) if models.exists() else []


def test_an_archive_is_unpacked_checked_and_removed(store: ModelStore, root: Path) -> None:
    model_dir = open_archive(store, "m.mar")
    assert model_dir.url == "m.mar"
    assert model_dir.path.parent == store.rules.area.models
    assert len(model_dir.path.name) == 32
    assert stat.S_IMODE(model_dir.path.stat().st_mode) == 0o700
    assert (model_dir.path / "h.py").is_file()
    assert model_dir.manifest.model_name == "m"
    assert model_dir.config.batch_size == 3
    assert model_dir.digest == hashlib.sha256((root / "m.mar").read_bytes()).digest()
    model_dir.close()
    model_dir.close()
    model_dir.forget()
    assert leftovers(store) == []
    assert (root / "m.mar").is_file()


def test_the_same_archive_opens_twice(store: ModelStore) -> None:
    first, second = open_archive(store, "m.mar"), open_archive(store, "m.mar")
    assert first.path != second.path
    first.close()
    assert second.path.is_dir()
    second.close()


def test_of_a_path_to_an_archive_only_the_last_component_counts(store: ModelStore) -> None:
    model_dir = open_archive(store, "/any/dir/m.mar")
    assert model_dir.manifest.model_name == "m"
    model_dir.close()


def test_an_unpacked_archive_is_used_in_place(store: ModelStore, tmp_path: Path) -> None:
    source = tmp_path / "models" / "mine"
    (source / "MAR-INF").mkdir(parents=True)
    (source / "MAR-INF/MANIFEST.json").write_text('{"model": {"modelName": "mine"}}')
    (source / "h.py").touch()
    model_dir = open_archive(store, str(source))
    assert model_dir.manifest.model_name == "mine"
    assert model_dir.path.is_symlink()
    assert model_dir.path.name == "mine"
    assert model_dir.path.parent.parent == store.rules.area.models
    assert model_dir.path.resolve() == source
    assert model_dir.digest == directory_digest(source)
    model_dir.close()
    assert leftovers(store) == []
    assert (source / "MAR-INF/MANIFEST.json").is_file()


def test_a_directory_that_holds_only_a_directory_stands_for_it(
    store: ModelStore, root: Path
) -> None:
    (root / "outer/inner/deeper").mkdir(parents=True)
    model_dir = open_archive(store, "outer")
    assert model_dir.path.resolve() == root / "outer/inner"
    assert model_dir.manifest == Manifest()
    assert model_dir.config == ModelConfig()
    model_dir.close()


def test_of_two_places_with_the_same_name(
    store: ModelStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the store comes first, then what the url says; a bare name means the store."""
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "both", root / "both", tmp_path / "m.mar"):
        path.mkdir()
        (path / "h.py").touch()
    for url, expected in {
        "both": root / "both",
        f"{tmp_path}/both": tmp_path / "both",
        "./both": tmp_path / "both",
        "/elsewhere/both": root / "both",
    }.items():
        model_dir = open_archive(store, url)
        assert model_dir.path.resolve() == expected
        model_dir.close()
    model_dir = open_archive(store, f"{tmp_path}/m.mar")
    assert not model_dir.path.is_symlink()
    model_dir.close()


def test_a_directory_may_be_relative_to_the_cwd(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here/too").mkdir(parents=True)
    (tmp_path / "here/h.py").touch()
    for url in ("here", "./here", "here/"):
        model_dir = open_archive(store, url)
        assert model_dir.path.resolve() == tmp_path / "here"
        model_dir.close()


@pytest.mark.parametrize("url", ["no.mar", "/", ".", "./", "ftp://host/m.mar/x", "x" * 999])
def test_nothing_there(store: ModelStore, url: str) -> None:
    error = failure(store, url)
    assert type(error) is ArchiveNotFound
    assert str(error) == f"Model not found at: {url}"


def test_an_unsupported_scheme_counts_as_local(store: ModelStore) -> None:
    open_archive(store, "ftp://host/m.mar").close()


def test_an_empty_url(store: ModelStore) -> None:
    assert str(failure(store, "")) == "empty url"


HIDDEN_DOTS = [
    "%2e%2e",
    ".%2e",
    "%2E.",
    "%252e%252e",
    "%25252e.",
    "%2e%2e%2f",
    "%5c%2e%2e%5c",
    "\\..\\",
    "%25252525252525x",  # nobody encodes so often to show something
]


@pytest.mark.parametrize(
    "url",
    [
        *("../m.mar", "http://host/../m.mar", "m..mar", "http://host/m.mar?a=.."),
        *(f"https://host/ours/{dots}/m.mar" for dots in HIDDEN_DOTS),
        "file:///srv/models/%2e%2e/m.mar",
    ],
)
def test_two_dots_anywhere(store: ModelStore, url: str) -> None:
    error = failure(store, url)
    assert type(error) is ArchiveNotFound
    assert str(error) == f"Relative path is not allowed in url: {url}"


@pytest.mark.parametrize(
    "url", ["http://host/a%20b%2fc.mar", "http://host/100%2525.mar", "http://host/m.mar?a=%2e%2e"]
)
def test_other_percent_signs_hide_nothing(store: ModelStore, url: str) -> None:
    store.rules.check_redirect(url)


@pytest.mark.parametrize("url", ["a\0b", "http://host/a\0.mar", "file:///a\0.mar"])
def test_a_nul_is_in_no_url(store: ModelStore, url: str) -> None:
    error = failure(store, url)
    assert type(error) is InvalidUrl
    assert str(error) == "The url holds a NUL character, which no path and no host can."


@pytest.mark.parametrize("url", ["http://127.0.0.1:65536/m.mar", "https://127.0.0.1:70000?m.mar"])
def test_a_port_that_cannot_be(store: ModelStore, url: str) -> None:
    error = failure(store, url)
    assert type(error) is InvalidUrl
    assert str(error).startswith("port out of range:")


def test_no_model_store(tmp_path: Path) -> None:
    error = failure(ModelStore(None, [], tmp_path), "m.mar")
    assert type(error) is ArchiveNotFound
    assert str(error) == "Model store has not been configured."


@pytest.mark.parametrize("url", ["http://bad.example/m.mar", "file:///x/m.mar", "HTTPS://y/m.mar"])
def test_urls_must_be_allowed(tmp_path: Path, root: Path, url: str) -> None:
    error = failure(ModelStore(root, ["https://good/.*", "s3://.*"], tmp_path / "tmp"), url)
    assert type(error) is UrlNotAllowed
    assert str(error) == f"Given URL {url} does not match any allowed URL(s)"


def test_allowed_urls_match_all_of_the_url_in_any_case(tmp_path: Path) -> None:
    store = ModelStore(tmp_path, [r"https://good/.*\.mar"], tmp_path)
    store.rules.check_allowed("HTTPS://GOOD/a.MAR")
    for url in ("https://good/a.mar?x", "xhttps://good/a.mar"):
        with pytest.raises(UrlNotAllowed):
            store.rules.check_allowed(url)


def test_plain_names_need_no_permission(tmp_path: Path, root: Path) -> None:
    open_archive(ModelStore(root, ["https://good/.*"], tmp_path / "tmp"), "m.mar").close()


def mar_with(name: str, kind: int = stat.S_IFREG) -> bytes:
    """A good archive, and behind all else an entry of this name."""
    buffer = io.BytesIO(mar())
    with zipfile.ZipFile(buffer, "a") as archive_zip:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (kind | 0o600) << 16
        archive_zip.writestr(entry, b"/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "error_type", "text"),
    [
        (mar(handler="../h.py"), InvalidArchive, "handler leaves the model directory"),
        (mar(modelFile="/etc/passwd"), InvalidArchive, "modelFile leaves the model directory"),
        (mar_with("../out"), InvalidArchive, "entry '../out' has a name with '..'"),
        (mar_with("/out"), InvalidArchive, "entry '/out' has an absolute name"),
        (mar_with("h.py/in"), InvalidArchive, "entry 'h.py/in' collides with an earlier one"),
        (mar_with("l", stat.S_IFLNK), InvalidArchive, "entry 'l' is neither a file nor a dir"),
        (
            mar()[:200],
            UnreadableArchive,
            "Failed to save model: bad.mar : File is not a zip file; a .mar is a whole zip",
        ),
    ],
)
def test_a_bad_archive_leaves_nothing_behind(
    store: ModelStore, root: Path, content: bytes, error_type: type, text: str
) -> None:
    (root / "bad.mar").write_bytes(content)
    error = failure(store, "bad.mar")
    assert type(error) is error_type
    assert text in str(error)


def test_an_archive_beyond_the_limits_leaves_nothing_behind(tmp_path: Path, root: Path) -> None:
    store = ModelStore(root, [], tmp_path / "tmp", limits=Limits(entries=2))
    assert "one more than the limit of 2" in str(failure(store, "m.mar"))


def test_no_zip_has_no_manifest(store: ModelStore, root: Path) -> None:
    """The registry then answers `Model name is not defined.`, or takes the client's name."""
    (root / "bad.mar").write_bytes(b"no zip")
    model_dir = open_archive(store, "bad.mar")
    assert model_dir.manifest == Manifest()
    model_dir.close()


def test_a_tar_opens(store: ModelStore, root: Path) -> None:
    with tarfile.open(root / "t.tar.gz", "w:gz") as archive_tar:
        content = b'{"model": {"modelName": "t"}}'
        entry = tarfile.TarInfo("top/MAR-INF/MANIFEST.json")
        entry.size = len(content)
        archive_tar.addfile(entry, io.BytesIO(content))
    model_dir = open_archive(store, "t.tar.gz")
    assert model_dir.manifest.model_name == "t"
    assert model_dir.digest == hashlib.sha256((root / "t.tar.gz").read_bytes()).digest()
    model_dir.close()


def test_an_unpack_root_of_nobody_is_an_unreadable_archive(tmp_path: Path, root: Path) -> None:
    (tmp_path / "file").touch()
    store = ModelStore(root, [], tmp_path / "file")
    with pytest.raises(UnreadableArchive):
        open_archive(store, "m.mar")


# -- file:// and http:// ---------------------------------------------------------------------


def test_a_file_url_is_copied_into_the_store_until_it_is_forgotten(
    store: ModelStore, root: Path, tmp_path: Path
) -> None:
    source = tmp_path / "with space.mar"
    source.write_bytes(mar("far"))
    model_dir = open_archive(store, f"file://{str(source).replace(' ', '%20')}")
    assert model_dir.manifest.model_name == "far"
    copy = root / "with%20space.mar"
    assert copy.read_bytes() == source.read_bytes()
    model_dir.close()
    assert copy.is_file()
    model_dir.forget()
    assert sorted(os.listdir(root)) == ["m.mar"]
    assert source.is_file()


def test_a_file_of_that_name_is_not_replaced(store: ModelStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "m.mar").write_bytes(mar("other"))
    error = failure(store, f"file://{tmp_path}/m.mar")
    assert type(error) is FileAlreadyExists
    assert str(error) == "Model file already exists m.mar"
    assert (root / "m.mar").read_bytes() == mar()


@pytest.mark.parametrize(
    "url",
    [
        "file:///no/such.mar",
        "file://other-host/x.mar",
        "file:///dev/null",
        "file:///dev/.\t./etc/passwd",
        "http://[/x.mar",
        "http://127.0.0.1:x/x.mar",
        "http://127.0.0.1:1/x.mar",
    ],
)
def test_what_cannot_be_fetched(store: ModelStore, root: Path, url: str) -> None:
    error = failure(store, url)
    assert type(error) is DownloadFailed
    assert str(error) == (
        f"Failed to download archive from: {url} : the log of the server says why"
    )
    assert os.listdir(root) == ["m.mar"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "does not end in the name of a file"),
        ("/", "does not end in the name of a file"),
        ("/.", "does not end in the name of a file"),
        ("/a%0Ab/\x01", "does not end in the name of a file"),
        ("/" + "n" * 256, "name of its file is too long"),
        ("/" + "\u00fc" * 128, "name of its file is too long"),
    ],
)
@pytest.mark.parametrize("place", ["http://127.0.0.1:1", "file://"])
def test_a_url_that_names_no_file(store: ModelStore, place: str, path: str, reason: str) -> None:
    error = failure(store, place + path)
    assert type(error) is DownloadFailed
    assert str(error).startswith(f"Failed to download archive from: {place}{path} : ")
    assert str(error).endswith(reason)


def test_a_file_that_is_no_archive_is_not_copied(
    store: ModelStore, root: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys.json").write_text("secret")
    error = failure(store, f"file://{tmp_path}/keys.json")
    assert type(error) is InvalidArchive
    assert "does not begin like an archive" in str(error)
    assert os.listdir(root) == ["m.mar"]


def test_the_files_of_an_open_model_are_not_copied(store: ModelStore, root: Path) -> None:
    model_dir = open_archive(store, "m.mar")
    weights = model_dir.path / "weights.pt"
    weights.write_bytes(mar())
    with pytest.raises(DownloadFailed):
        open_archive(store, f"file://{weights}")
    model_dir.close()
    assert os.listdir(root) == ["m.mar"]


def test_a_pipe_is_not_waited_for(store: ModelStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert type(failure(store, f"file://{tmp_path}/pipe")) is DownloadFailed


def test_a_refused_download_does_not_stay_in_the_store(
    store: ModelStore, root: Path, tmp_path: Path
) -> None:
    """TorchServe keeps the file, so that a second attempt fails for another reason."""
    (tmp_path / "bad.mar").write_bytes(mar(handler="/h.py"))
    assert type(failure(store, f"file://{tmp_path}/bad.mar")) is InvalidArchive
    assert os.listdir(root) == ["m.mar"]


class _Server(BaseHTTPRequestHandler):
    received: threading.Event
    proceed: threading.Event

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/far.mar":
                self.answer(200, mar("far"))
            case "/short.mar":
                self.answer(200, mar("far")[:-10], length=len(mar("far")))
            case "/slow.mar":
                self.answer(200, mar("far")[:10], length=len(mar("far")))
                self.wfile.flush()
                self.server.received.set()  # type: ignore[attr-defined]
                self.server.proceed.wait(10)  # type: ignore[attr-defined]
                self.wfile.write(mar("far")[10:])
            case "/moved.mar":
                self.answer(302, b"", location="/far.mar")
            case "/astray.mar":
                self.answer(
                    302, b"", location=f"http://localhost:{self.server.server_port}/far.mar"
                )  # type: ignore[attr-defined]
            case "/inside.mar":
                self.answer(302, b"", location="file:///etc/passwd")
            case _:
                self.answer(404, b"no")

    def answer(
        self, status: int, content: bytes, length: int | None = None, location: str | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.received, server.proceed = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    with serving(server):
        yield server
        server.proceed.set()  # type: ignore[attr-defined]


@pytest.fixture
def base(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_download_drops_the_query(store: ModelStore, root: Path, base: str) -> None:
    model_dir = open_archive(store, f"{base}/far.mar?signature=x/y.mar")
    assert model_dir.manifest.model_name == "far"
    assert sorted(os.listdir(root)) == ["far.mar", "m.mar"]
    model_dir.forget()
    assert os.listdir(root) == ["m.mar"]


@pytest.mark.parametrize("path", ["/none.mar", "/short.mar"])
def test_a_failed_download(store: ModelStore, root: Path, base: str, path: str) -> None:
    error = failure(store, base + path)
    assert str(error).startswith(f"Failed to download archive from: {base}{path} : ")
    assert os.listdir(root) == ["m.mar"]


def test_the_size_of_a_download_is_limited(tmp_path: Path, root: Path, base: str) -> None:
    size = len(mar("far"))
    for limit in (size, size - 1):
        store = ModelStore(root, DEFAULT_ALLOWED, tmp_path / "tmp", max_download_bytes=limit)
        if limit == size:
            open_archive(store, f"{base}/far.mar").forget()
        else:
            assert type(failure(store, f"{base}/far.mar")) is DownloadFailed
    assert os.listdir(root) == ["m.mar"]


def test_redirects_are_followed_where_they_are_allowed(
    tmp_path: Path, root: Path, base: str
) -> None:
    store = ModelStore(root, [f"{base}/.*", "file://.*"], tmp_path / "tmp")
    open_archive(store, f"{base}/moved.mar").forget()
    assert type(failure(store, f"{base}/astray.mar")) is UrlNotAllowed
    assert type(failure(store, f"{base}/inside.mar")) is DownloadFailed
    assert os.listdir(root) == ["m.mar"]


def test_some_places_are_never_reached(
    tmp_path: Path, root: Path, server: ThreadingHTTPServer, base: str
) -> None:
    for url in ("http://169.254.169.254/n.mar", "http://127.0.0.1:8006/cdh/resource/a/b/c"):
        store = ModelStore(root, [".*"], tmp_path / "tmp")
        assert "whatever allowed_urls says" in str(failure(store, url))
    reach = Reach([("127.0.0.1", server.server_port)])
    store = ModelStore(root, [".*"], tmp_path / "tmp", reach=reach)
    assert type(failure(store, f"{base}/far.mar")) is UrlNotAllowed
    assert os.listdir(root) == ["m.mar"]


def test_a_cancelled_open_leaves_nothing_behind(
    store: ModelStore, root: Path, server: ThreadingHTTPServer, base: str
) -> None:
    async def open_and_cancel() -> None:
        opening = asyncio.create_task(store.open(f"{base}/slow.mar"))
        await asyncio.to_thread(server.received.wait, 10)  # type: ignore[attr-defined]
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        server.proceed.set()  # type: ignore[attr-defined]

    asyncio.run(open_and_cancel())  # joins the thread
    assert os.listdir(root) == ["m.mar"]
    assert leftovers(store) == []


# -- names -----------------------------------------------------------------------------------


def test_startup_urls(store: ModelStore, root: Path) -> None:
    for name in (".hidden.mar", "b.model", "c.tar.gz", "d.txt", "e.zip"):
        (root / name).touch()
    (root / "directory").mkdir()
    (root / ".git").mkdir()
    everything = [(None, name) for name in ("b.model", "c.tar.gz", "directory", "m.mar")]
    assert store.startup_urls("all") == everything
    assert store.startup_urls(["ALL"]) == everything
    assert store.startup_urls(None) == []
    assert store.startup_urls("") == []
    assert store.startup_urls("a.mar, n=b.mar,,c=") == [(None, "a.mar"), ("n", "b.mar")]
    assert store.startup_urls(["all", "b.mar"]) == [(None, "all"), (None, "b.mar")]
    assert store.startup_urls("http://h/a.mar?x=1") == [(None, "http://h/a.mar?x=1")]
    assert store.startup_urls("n=http://h/a.mar?x=1") == [("n", "http://h/a.mar?x=1")]
