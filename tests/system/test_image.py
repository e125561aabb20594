"""Dockerfile.tdx: the image is built from wheels without a network, and its containers serve.

buildah makes the image; a container is its unpacked root, read-only, with the image's own user,
environment, entry point and command, in namespaces as a container runtime makes them.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from containers import Buildah, Container, Image, unpacked

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "demo"
# A build of torch for CPUs that pip finds on the machine of the test.
ENGINE = os.environ.get("TORCHKEEP_TEST_ENGINE", "torch==2.13.0+cpu")
# A directory with a Debian that has Python; without it, debootstrap makes one.
BASE = os.environ.get("TORCHKEEP_TEST_BASE")
SIZE_LIMIT_BYTES = 1_500_000_000
VOLUME = {"/run/torchkeep": "uid=1000,gid=1000,mode=700,size=512m"}
STORE = "/home/model-server/model-store"
CONFIG = "/home/model-server/config.properties"
# What the image has beside its base; the last is a mount point of whoever builds it.
OURS = ("opt/torchkeep", "home/model-server", "run/torchkeep", "etc/hosts")

pytestmark = [
    pytest.mark.long,
    pytest.mark.torch,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root builds and starts images here"),
    pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed"),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("image")


@pytest.fixture(scope="module")
def base(work: Path) -> Path:
    if BASE is not None:
        return Path(BASE)
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed, and TORCHKEEP_TEST_BASE names no directory")
    if (source := debian_source()) is None:
        pytest.skip("apt knows no source of Debian, and TORCHKEEP_TEST_BASE names no directory")
    suite, mirror = source
    rootfs = work / "base"
    packages = "ca-certificates,python3,python3-venv"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", suite, rootfs, mirror],
        check=True,
        timeout=600,
    )
    return rootfs


def debian_source() -> tuple[str, str] | None:
    """Suite and address from which this machine gets its own packages."""
    system = Path("/etc/os-release").read_text()
    if "\nID=debian\n" not in f"\n{system}":
        return None
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(RELEASE)|$(COMPONENT)|$(ORIGIN)|$(REPO_URI)"],
        capture_output=True,
        text=True,
    ).stdout
    for line in listed.splitlines():
        suite, component, origin, uri = line.split("|")
        # The origin is known only where `apt-get update` has run.
        is_debian = component == "main" and origin in ("Debian", "")
        if is_debian and f"VERSION_CODENAME={suite}\n" in system:
            return suite, uri
    return None


@pytest.fixture(scope="module")
def wheels(work: Path, base: Path) -> Path:
    """What the image installs: its locked packages and an engine."""
    version = "import sys; print('%d.%d' % sys.version_info[:2])"
    there = subprocess.check_output(["chroot", base, "python3", "-c", version], text=True).strip()
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if there != here:
        pytest.skip(f"pip of Python {here} chooses no wheels for Python {there}")
    folder = work / "wheels"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"]
    pip += ["--only-binary", ":all:", "--no-deps", "--dest", str(folder)]
    lock = str(ROOT / "requirements/image.txt")
    subprocess.run([*pip, "--require-hashes", "-r", lock], check=True, timeout=600)
    engine = subprocess.run([*pip, *ENGINE.split()], capture_output=True, text=True, timeout=600)
    if engine.returncode:
        pytest.skip(f"TORCHKEEP_TEST_ENGINE={ENGINE}: {engine.stderr.strip()[-500:]}")
    return folder


@pytest.fixture(scope="module")
def image(work: Path, base: Path, wheels: Path) -> Iterator[Image]:
    buildah = Buildah(work)
    buildah.import_base(base, "localhost/base")
    try:
        buildah(
            "bud", *buildah.policy, "--format", "docker", "--pull-never", "--timestamp", "0",
            "--file", ROOT / "Dockerfile.tdx", "--tag", "localhost/torchkeep",
            "--build-arg", "BASE_IMAGE=localhost/base", "--build-arg", f"ENGINE={ENGINE}",
            "--build-context", f"wheels={wheels}", ROOT,
            timeout_s=1500,
        )  # fmt: skip
        with unpacked(buildah, "localhost/torchkeep") as image:
            yield image
    finally:
        buildah.remove_all()


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    started: list[Container] = []

    def start(args: list[str] | None = None, **options: Any) -> Container:
        workdir = tmp_path / f"container{len(started)}"
        started.append(Container(image, workdir, args, **options))
        return started[-1]

    yield start
    for container in started:
        container.kill()


@pytest.fixture(scope="module")
def digits(work: Path) -> Path:
    """A folder with the trained model in `model_store`, and an image of a one, `digit.png`."""
    pytest.importorskip("sklearn")
    folder = work / "digits"
    folder.mkdir()
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import digit_archive\n"
        "folder = pathlib.Path(sys.argv[2])\n"
        "digit, _ = digit_archive.prepare(folder, folder / 'model_store')\n"
        "(folder / 'truth').write_text(str(digit))"
    )
    subprocess.run([sys.executable, "-c", program, DEMO, folder], check=True, timeout=300)
    return folder


# The image


def test_what_the_image_says_of_itself(image: Image) -> None:
    config = image.config
    uid, _, gid = config["User"].partition(":")
    assert (int(uid), int(gid)) == (1000, 1000)  # in numbers: Kubernetes' runAsNonRoot reads them
    assert sorted(config["ExposedPorts"]) == [
        f"{port}/tcp" for port in (7070, 7071, 8080, 8081, 8082, 8443)
    ]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"] == ["CMD", "/opt/torchkeep/bin/torchkeep", "health"]
    assert config["WorkingDir"] == "/home/model-server"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_is_small_and_holds_nothing_that_it_needs_not(
    image: Image, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in image.root.rglob("*") if not path.is_symlink() and path.is_file()]
    size_bytes = sum(path.stat().st_blocks * 512 for path in files)
    with capsys.disabled():
        sys.stdout.write(f"\nthe image, unpacked: {size_bytes / 1e9:.2f} GB\n")
    assert size_bytes < SIZE_LIMIT_BYTES

    added = [
        str(path.relative_to(image.root))
        for path in image.root.rglob("*")
        if not os.path.lexists(base / path.relative_to(image.root))
    ]
    assert [path for path in added if not path.startswith(OURS)] == []
    packages = image.root / "opt/torchkeep/lib"
    ours = {path.name for path in packages.glob("python3*/site-packages/torchkeep/*")}
    assert ours == {"runtime", "frontend", "backend", "modelstore", "client", "roof"}
    assert list(packages.glob("python3*/site-packages/pip*")) == []
    assert list((image.root / "home/model-server/model-store").iterdir()) == []
    suspicious = (".mar", ".sealed", ".jwe", ".key", ".p12", ".pem", ".pt", ".whl", "_file.json")
    found = [path for path in added if path.endswith(suspicious)]
    # That of a test of torch's comes with its wheel.
    of_others = ("home/model-server/key_file.json", "torch/bin/test_interpreter_async.pt")
    assert [path for path in found if not path.endswith(of_others)] == []
    # Nobody but root may change what is run.
    writable = [
        path
        for path in (image.root / "opt/torchkeep").rglob("*")
        if not path.is_symlink() and (path.stat().st_mode & 0o022 or path.stat().st_uid)
    ]
    assert writable == []


# Containers


@pytest.mark.parametrize(
    ("tmpfs", "reason"),
    [({}, "Read-only file system"), ({"/run/torchkeep": "mode=755"}, "Permission denied")],
)
def test_with_nothing_writable_the_error_names_what_to_mount(
    start: Callable[..., Container], tmpfs: dict[str, str], reason: str
) -> None:
    container = start(tmpfs=tmpfs)
    assert container.wait(60) == 1
    (line,) = container.output.splitlines()
    assert f"{reason}. Mount memory at /run/torchkeep that user 1000 can write" in line


def test_by_default_it_serves_as_the_image_of_torchserve_does(
    start: Callable[..., Container], digits: Path
) -> None:
    """Its addresses and stores, without tokens, models by the flags of torchserve."""
    container = start(
        ["serve", "--models", "digits=digits.mar"],
        tmpfs=VOLUME,
        files={STORE: digits / "model_store"},
    )
    container.wait_for_line("Inference API bind to: http://0.0.0.0:8080")
    container.wait_for_line("1 of 1 workers ready")
    assert answer(container, digits) == (digits / "truth").read_text()
    assert container.ask("GET", 8081, "/models")[0] == 200
    assert container.ask("GET", 8082, "/metrics")[0] == 200

    health = container.execute(*container.image.config["Healthcheck"]["Test"][1:])
    assert (health.returncode, health.stdout) == (0, b"Healthy\n")
    assert container.first_process.uids().real == 1000
    assert container.stop() == 0
    assert "Torchserve stopped." in container.output


def test_a_sealed_model_on_a_read_only_root(
    start: Callable[..., Container], digits: Path, tmp_path: Path
) -> None:
    sealed = sealed_store(digits, tmp_path)
    settings = {
        "key_source": "file:/run/key",
        "require_sealed_models": "true",
        "sandbox": "strict",
        "load_models": "digits.mar.sealed",
    }
    container = start(
        ["torchserve", "--start", "--ts-config", CONFIG, "--disable-token-auth"],
        tmpfs=VOLUME,
        files={
            STORE: sealed,
            "/run/key": tmp_path / "key",
            CONFIG: properties(tmp_path, settings),
        },
    )
    container.wait_for_line("1 of 1 workers ready")
    assert "Warning: sandbox" not in container.output
    assert answer(container, digits) == (digits / "truth").read_text()

    # No process is root's, and none can write anything but the volume.
    server = container.first_process
    family = [server, *server.children(recursive=True)]
    assert {tuple(process.uids()) for process in family} == {(1000, 1000, 1000)}
    assert all("CapEff:\t0000000000000000" in status(process) for process in family)
    writable = container.execute("find", "/", "-xdev", "-writable", "-type", "d")
    assert writable.stdout == b"/run/torchkeep\n"  # mounted there: another file system
    for place in ("/home/model-server/x", f"{STORE}/x", "/tmp/x", "/opt/torchkeep/x"):
        refused = container.execute("touch", place)
        assert b"Read-only file system" in refused.stderr
    # The model is in memory, and no snapshot is kept.
    kept = Path(f"/proc/{server.pid}/root/run/torchkeep")
    assert [path.name for path in kept.glob("tmp/models/*/digit_handler.py")] != []
    assert list(Path(f"/proc/{server.pid}/root/dev/shm").iterdir()) == []
    assert list(kept.glob("logs/config/*")) == []
    assert sorted(path.name for path in kept.iterdir()) == ["home", "logs", "tmp"]

    started = time.monotonic()
    assert container.stop() == 0
    assert time.monotonic() - started < 15


def test_tokens_are_in_the_volume_and_where_torchserve_has_them(
    start: Callable[..., Container], digits: Path
) -> None:
    """As KServe and Helm charts start TorchServe: in the background, which is refused here."""
    container = start(
        ["torchserve", "--start", "--model-store=/home/model-server/model-store"],
        # As Kubernetes mounts an emptyDir, for a user that the image knows nothing of.
        tmpfs={"/run/torchkeep": "mode=777,size=64m"},
        files={STORE: digits / "model_store"},
        user="70000:70000",
    )
    container.wait_for_line("Model server started.")
    for place in ("/home/model-server/key_file.json", "/run/torchkeep/key_file.json"):
        shown = container.execute("cat", place)
        keys = json.loads(shown.stdout)
    assert container.ask("GET", 8081, "/models")[0] == 400  # TorchServe's: no key was shown
    key = keys["management"]["key"]
    assert key
    # Stopped by TorchServe's own command, from beside.
    stopped = container.execute("torchserve", "--stop")
    assert stopped.stdout == b"TorchServe has stopped.\n", stopped.stderr
    assert container.wait(60) == 0


def test_the_container_ends_with_its_server(
    start: Callable[..., Container], tmp_path: Path
) -> None:
    invalid = start(tmpfs=VOLUME, files={CONFIG: properties(tmp_path, {"job_queue_size": "none"})})
    assert invalid.wait(60) == 1
    assert "Invalid configuration: " in invalid.output
    assert "Traceback" not in invalid.output

    killed = start(tmpfs=VOLUME)
    killed.wait_for_line("Model server started.")
    family = killed.first_process.children(recursive=True)
    assert family
    killed.first_process.kill()
    assert killed.wait(60) == 137
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def test_a_writable_root_needs_no_volume(start: Callable[..., Container]) -> None:
    """`docker run` without more, as with the image of TorchServe."""
    container = start(writable_root=True)
    container.wait_for_line("Model server started.")
    assert container.ask("GET", 8080, "/ping")[0] == 200
    assert container.stop() == 0


def test_orphans_of_other_commands_leave_no_zombie(
    start: Callable[..., Container], poll: Callable[..., Any]
) -> None:
    """The first process inherits what `docker exec` leaves behind."""
    container = start(tmpfs=VOLUME)
    container.wait_for_line("Model server started.")
    server = container.first_process
    before = set(server.children(recursive=True))
    assert container.execute("sh", "-c", "sleep 0.1 & exit").returncode == 0
    poll(lambda: set(server.children(recursive=True)) <= before, "the orphan is gone", 20)


def answer(container: Container, digits: Path) -> str:
    png = (digits / "digit.png").read_bytes()
    status, body = container.ask("POST", 8080, "/predictions/digits", png)
    assert status == 200, body
    return str(json.loads(body)["digit"])


def sealed_store(digits: Path, tmp_path: Path) -> Path:
    """A model store with nothing but the sealed archive, whose key is `tmp_path/key`."""
    torchkeep = Path(sys.executable).with_name("torchkeep")
    store = tmp_path / "sealed"
    store.mkdir()
    key = tmp_path / "key"
    subprocess.run([torchkeep, "keygen", "-o", key], check=True, capture_output=True)
    subprocess.run(
        [torchkeep, "seal", "--key", key, "--key-id", "kbs:///models/key/digits",
         "-o", store / "digits.mar.sealed", digits / "model_store" / "digits.mar"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    os.chown(key, 1000, 1000)
    key.chmod(stat.S_IRUSR)
    return store


def properties(tmp_path: Path, settings: dict[str, str]) -> Path:
    """The image's own configuration with more in it."""
    path = tmp_path / "config.properties"
    own = (ROOT / "deploy/config.properties").read_text()
    path.write_text(own + "".join(f"{name}={value}\n" for name, value in settings.items()))
    return path


def status(process: psutil.Process) -> str:
    return Path(f"/proc/{process.pid}/status").read_text()
