"""A sealed archive wherever a plain one may be."""

import asyncio
import base64
import errno
import gzip
import hashlib
import io
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import sealed_reference
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from memory_search import found_in_memory
from sealing import HANDLER, KEK, KEY_ID, Keys, jwe_bytes, mar_bytes, write_sealed

from torchkeep.modelstore import memory_place, opening
from torchkeep.modelstore.errors import (
    InvalidArchive,
    KeyUnavailable,
    ModelStoreError,
    NoRoomInMemory,
    SealBroken,
    UnreadableArchive,
    Untrusted,
)
from torchkeep.modelstore.memory_place import MemoryPlace, is_in_memory
from torchkeep.modelstore.model_url import default_model_name
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.store import ModelStore
from torchkeep.modelstore.trust import Trust, parse_trusted_models

OWNER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
OWNER_TEXT = base64.b64encode(OWNER.public_key().public_bytes_raw()).decode()
MAR = mar_bytes()
FULL = os.statvfs_result((4096, 4096, 100, 2, 2, 0, 0, 0, 0, 255))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def new_store(root: Path, tmp_path: Path, memory: Path) -> Callable[..., ModelStore]:
    def new(keys: Keys | None = None, **options: Any) -> ModelStore:
        options.setdefault("memory_place", MemoryPlace(memory, tmp_path))
        allowed = ["file://.*"]
        return ModelStore(root, allowed, tmp_path / "tmp", key_source=keys, **options)

    return new


def open_archive(store: ModelStore, url: str, name: str | None = None) -> ModelDir:
    return asyncio.run(store.open(url, name))


def failure(store: ModelStore, url: str, name: str | None = None) -> ModelStoreError:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ModelStoreError) as caught:
        open_archive(store, url, name)
    assert len(os.listdir("/proc/self/fd")) == before
    return caught.value


@pytest.mark.parametrize("name", ["m.mar.sealed", "m.mar", "anything"])
def test_a_sealed_archive_opens_in_memory(
    name: str, root: Path, memory: Path, new_store: Callable[..., ModelStore]
) -> None:
    write_sealed(root / name, MAR)
    keys = Keys()
    model_dir = open_archive(new_store(keys), name)
    assert model_dir.sealed
    assert model_dir.digest == hashlib.sha256(MAR).digest()
    assert model_dir.manifest.model_name == "m"
    assert model_dir.path.parent == memory / "models"
    assert stat.S_IMODE(model_dir.path.stat().st_mode) == 0o700
    assert (model_dir.path / "h.py").read_text() == "def handle(data, context): return data"
    assert keys.asked == [KEY_ID]
    assert keys.given == [bytes(32)]
    model_dir.close()
    assert not model_dir.path.exists()


def test_a_sealed_archive_comes_from_a_url(
    root: Path, tmp_path: Path, new_store: Callable[..., ModelStore]
) -> None:
    path = write_sealed(tmp_path / "m.mar.sealed", MAR)
    model_dir = open_archive(new_store(Keys()), f"file://{path}")
    assert model_dir.sealed
    assert (root / path.name).read_bytes() == path.read_bytes()
    model_dir.forget()
    assert os.listdir(root) == []


def test_a_sealed_tar_opens(root: Path, new_store: Callable[..., ModelStore]) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive_tar:
        manifest = b'{"model": {"modelName": "m", "modelVersion": "1.0"}}'
        entry = tarfile.TarInfo("m/MAR-INF/MANIFEST.json")
        entry.size = len(manifest)
        archive_tar.addfile(entry, io.BytesIO(manifest))
    write_sealed(root / "m.sealed", buffer.getvalue())
    model_dir = open_archive(new_store(Keys()), "m.sealed")
    assert model_dir.manifest.model_name == "m"
    model_dir.close()


@pytest.mark.parametrize(
    ("header", "default_key_id", "asked"),
    [
        ({"kid": KEY_ID}, "", KEY_ID),
        ({"kid": KEY_ID}, "kbs:///a/b/c", KEY_ID),
        ({}, "kbs:///a/b/c", "kbs:///a/b/c"),
    ],
)
def test_a_jwe_opens(
    header: dict[str, str],
    default_key_id: str,
    asked: str,
    root: Path,
    new_store: Callable[..., ModelStore],
) -> None:
    (root / "m.mar.jwe").write_bytes(jwe_bytes(MAR, **header))
    keys = Keys()
    model_dir = open_archive(new_store(keys, default_key_id=default_key_id), "m.mar.jwe", "m")
    assert model_dir.sealed
    assert model_dir.digest == hashlib.sha256(MAR).digest()
    assert model_dir.manifest.model_name == "m"
    assert keys.asked == [asked]
    assert keys.given == [bytes(32)]
    model_dir.close()


def test_a_jwe_that_names_no_key(root: Path, new_store: Callable[..., ModelStore]) -> None:
    (root / "m.jwe").write_bytes(jwe_bytes(MAR))
    error = failure(new_store(Keys()), "m.jwe")
    assert isinstance(error, KeyUnavailable)
    assert error.step == "not configured"
    assert "CONFIDENTIAL_RESOURCE_ID" in str(error)


def test_no_key_source(root: Path, new_store: Callable[..., ModelStore]) -> None:
    write_sealed(root / "m.mar", MAR)
    error = failure(new_store(), "m.mar")
    assert isinstance(error, KeyUnavailable)
    assert str(error) == f"No key {KEY_ID}: not configured. Set key_source in config.properties."


def test_a_key_that_cannot_be_had_leaves_nothing(
    root: Path, tmp_path: Path, new_store: Callable[..., ModelStore]
) -> None:
    class Refusing(Keys):
        async def key_for(self, key_id: str) -> bytearray:
            raise KeyUnavailable(key_id, "policy denied", "Ask the owner.")

    path = write_sealed(tmp_path / "m.mar.sealed", MAR)
    error = failure(new_store(Refusing()), f"file://{path}")
    assert str(error) == f"No key {KEY_ID}: policy denied. Ask the owner."
    assert os.listdir(root) == []


@pytest.mark.parametrize("content", [jwe_bytes(MAR, kid=KEY_ID), None])
def test_the_wrong_key_is_wiped_too(
    content: bytes | None, root: Path, new_store: Callable[..., ModelStore]
) -> None:
    path = write_sealed(root / "m.mar", MAR)
    if content is not None:
        path.write_bytes(content)
    keys = Keys(b"w" * 32)
    error = failure(new_store(keys), "m.mar")
    assert isinstance(error, KeyUnavailable)
    assert error.step == "wrong key"
    assert keys.given == [bytes(32)]


@pytest.mark.parametrize("position", [0, 9, 40, -1])
def test_a_damaged_archive_leaves_nothing(
    position: int, root: Path, new_store: Callable[..., ModelStore]
) -> None:
    path = write_sealed(root / "m.mar.sealed", MAR, owner=OWNER)
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    assert isinstance(failure(new_store(Keys()), path.name), SealBroken)


@pytest.mark.parametrize("name", ["m.mar.jwe", "m.mar.sealed"])
def test_what_is_only_called_sealed_is_told_as_damaged(
    name: str, root: Path, new_store: Callable[..., ModelStore]
) -> None:
    (root / name).write_bytes(MAR)
    assert isinstance(failure(new_store(Keys()), name), SealBroken)


def test_a_hostile_archive_is_refused_as_a_plain_one_is(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    write_sealed(root / "m.sealed", mar_bytes(files={"a": b"", "../b": b""}))
    assert isinstance(failure(new_store(Keys()), "m.sealed"), InvalidArchive)
    write_sealed(root / "m.sealed", b"neither zip nor tar")
    assert isinstance(failure(new_store(Keys()), "m.sealed"), UnreadableArchive)


def test_header_and_manifest_must_agree(root: Path, new_store: Callable[..., ModelStore]) -> None:
    write_sealed(root / "m.sealed", mar_bytes("m", "1.0"), "m", "2.0")
    error = failure(new_store(Keys()), "m.sealed")
    assert str(error) == "m.sealed: its header says model m 2.0, its manifest m 1.0."


def test_a_sealed_model_is_served_under_its_own_name_only(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    # The attack: two archives of one owner change places.
    write_sealed(root / "spam.mar", mar_bytes("fraud"), "fraud")
    (root / "spam.mar.jwe").write_bytes(jwe_bytes(mar_bytes("fraud"), kid=KEY_ID))
    keys = Keys()
    error = failure(new_store(keys), "spam.mar", "spam")
    assert str(error) == "The sealed archive is of model fraud, and cannot be served as spam."
    assert keys.asked == []
    assert "cannot be served as spam" in str(failure(new_store(keys), "spam.mar.jwe", "spam"))
    open_archive(new_store(keys), "spam.mar", "fraud").close()


def test_require_sealed_models_refuses_what_is_plain(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    store = new_store(Keys(), trust=Trust(is_seal_required=True))
    (root / "plain.mar").write_bytes(MAR)
    (root / "directory").mkdir()
    for name in ("plain.mar", "directory"):
        error = failure(store, name)
        assert str(error) == f"{name} is not sealed, and require_sealed_models=true."
    write_sealed(root / "sealed.mar", MAR)
    open_archive(store, "sealed.mar").close()


def trusting(entry: str) -> Trust:
    return Trust(models=parse_trusted_models({"m": {"1.0": entry}}))


DIGEST = f"sha256:{hashlib.sha256(MAR).hexdigest()}"
SIGNED = f"ed25519:{OWNER_TEXT};min-release=5"


@pytest.mark.parametrize("name", ["plain.mar", "sealed.mar", "jwe.mar"])
def test_a_trusted_digest_lets_in_one_archive_and_no_other(
    name: str, root: Path, new_store: Callable[..., ModelStore]
) -> None:
    def write(plain: bytes, model: str = "m", version: str = "1.0") -> None:
        (root / "plain.mar").write_bytes(plain)
        write_sealed(root / "sealed.mar", plain, model, version)
        (root / "jwe.mar").write_bytes(jwe_bytes(plain, kid=KEY_ID))

    store = new_store(Keys(), trust=trusting(DIGEST))
    write(MAR)
    open_archive(store, name).close()
    write(mar_bytes(files={"other": b""}))
    assert isinstance(failure(store, name), Untrusted)
    write(mar_bytes("m", "2.0"), "m", "2.0")
    assert isinstance(failure(store, name), Untrusted)
    # The right bytes, trusted as another model.
    write(MAR)
    other = Trust(models=parse_trusted_models({"m": {"2.0": DIGEST}}))
    assert isinstance(failure(new_store(Keys(), trust=other), name), Untrusted)


def test_a_trusted_owner_lets_in_what_he_signed(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    keys = Keys()
    store = new_store(keys, trust=trusting(SIGNED))
    path = root / "m.mar"
    write_sealed(path, MAR, release=5, owner=OWNER)
    open_archive(store, "m.mar").close()
    write_sealed(path, MAR, release=6, owner=OWNER)
    open_archive(store, "m.mar").close()
    keys.asked.clear()

    write_sealed(path, MAR, release=6)
    assert "signed by nobody, not by the owner" in str(failure(store, "m.mar"))
    write_sealed(path, MAR, release=6, owner=Ed25519PrivateKey.generate())
    assert "signed by somebody else, not by the owner" in str(failure(store, "m.mar"))
    write_sealed(path, mar_bytes("n"), "n", release=6, owner=OWNER)
    assert str(failure(store, "m.mar")) == "trusted_models has no model n 1.0."
    path.write_bytes(MAR)
    assert isinstance(failure(store, "m.mar"), Untrusted)
    assert keys.asked == []
    path.write_bytes(jwe_bytes(MAR, kid=KEY_ID))
    assert isinstance(failure(store, "m.mar"), Untrusted)


def test_an_older_archive_of_the_same_owner_is_refused_also_after_a_restart(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    write_sealed(root / "m.mar", MAR, release=4, owner=OWNER)
    for _ in range(2):
        error = failure(new_store(Keys(), trust=trusting(SIGNED)), "m.mar")
        assert str(error) == (
            "Model m 1.0 is release 4, older than min-release=5 in trusted_models."
        )


def test_a_directory_is_never_trusted(root: Path, new_store: Callable[..., ModelStore]) -> None:
    (root / "m").mkdir()
    error = failure(new_store(trust=trusting(DIGEST)), "m")
    assert str(error) == "m is a directory, which trusted_models cannot vouch for."


def test_trusting_nothing_refuses_everything(
    root: Path, new_store: Callable[..., ModelStore]
) -> None:
    (root / "m.mar").write_bytes(MAR)
    write_sealed(root / "s.mar", MAR)
    store = new_store(Keys(), trust=Trust(models={}))
    assert isinstance(failure(store, "m.mar"), Untrusted)
    assert isinstance(failure(store, "s.mar"), Untrusted)


def test_on_a_disk_nothing_is_unpacked_unless_that_is_allowed(
    root: Path, tmp_path: Path, new_store: Callable[..., ModelStore]
) -> None:
    if is_in_memory(tmp_path):
        pytest.skip("temporary files are in memory here")
    write_sealed(root / "m.mar", MAR)
    on_disk = tmp_path / "unpacked"
    keys = Keys()
    error = failure(new_store(keys, memory_place=MemoryPlace(on_disk, tmp_path)), "m.mar")
    assert isinstance(error, NoRoomInMemory)
    assert str(error).startswith(f"{on_disk} is not in memory (tmpfs)")
    assert "unpack_directory" in str(error)
    assert "allow_unsealed_on_disk=true" in str(error)
    assert keys.asked == []

    place = MemoryPlace(on_disk, tmp_path, is_disk_allowed=True)
    model_dir = open_archive(new_store(keys, memory_place=place), "m.mar")
    assert model_dir.path.parent == on_disk / "models"
    model_dir.close()


def test_without_unpack_directory_shared_memory_is_used(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_in_memory(tmp_path):
        pytest.skip("temporary files are in memory here")
    assert MemoryPlace(None, memory).area().root == memory
    monkeypatch.setattr(memory_place, "SHARED_MEMORY", memory)
    own = memory / f"torchkeep-{os.geteuid()}"
    place = MemoryPlace(None, tmp_path)
    assert place.area().root == own
    assert place.roots() == [tmp_path, own]
    own.rmdir()
    # Somebody else was there first.
    own.symlink_to(tmp_path)
    assert place.roots() == [tmp_path]
    with pytest.raises(NoRoomInMemory, match=f"{tmp_path} is not in memory"):
        place.area()
    own.unlink()
    allowing = MemoryPlace(None, tmp_path / "t", is_disk_allowed=True)
    monkeypatch.setattr(memory_place, "SHARED_MEMORY", memory / "missing")
    assert allowing.area().root == tmp_path / "t"
    assert not is_in_memory(Path("/proc/self/no"))
    assert not is_in_memory(Path("/proc/self/maps"))


@pytest.mark.parametrize("form", ["zip", "tar"])
def test_room_is_looked_for_before_the_first_file_is_written(
    form: str, root: Path, memory: Path, new_store: Callable[..., ModelStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    plain = mar_bytes(files={"weights": bytes(10_000)})
    if form == "tar":
        plain = gzip.compress(bytes(20_000))
    write_sealed(root / "m.mar", plain)
    seen: list[list[str]] = []

    def statvfs(directory: Path) -> os.statvfs_result:
        seen.append(os.listdir(directory))
        return FULL

    monkeypatch.setattr(memory_place.os, "statvfs", statvfs)
    error = failure(new_store(Keys()), "m.mar")
    assert isinstance(error, NoRoomInMemory)
    needed = 12_288 + 2 * 4096 if form == "zip" else 20_000
    assert str(error).startswith(f"The archive needs {needed} bytes (0 MiB) of memory below")
    assert "8192 bytes (0 MiB) are free" in str(error)
    assert "unpack_directory" in str(error)
    assert seen == [[]]


def test_memory_that_runs_out_on_the_way(
    root: Path, new_store: Callable[..., ModelStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise UnreadableArchive("m.mar") from OSError(errno.ENOSPC, "No space left on device")

    write_sealed(root / "m.mar", MAR)
    monkeypatch.setattr(opening, "unpack", full)
    error = failure(new_store(Keys()), "m.mar")
    assert isinstance(error, NoRoomInMemory)
    assert "unpack_directory" in str(error)


def run_cancelled(
    opening: Callable[[], Coroutine[Any, Any, ModelDir]], is_time: asyncio.Event
) -> None:
    async def scenario() -> None:
        task = asyncio.create_task(opening())
        async with asyncio.timeout(30):
            await is_time.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())  # waits for the threads


def test_nobody_waits_for_the_key_any_more(
    root: Path, tmp_path: Path, new_store: Callable[..., ModelStore]
) -> None:
    class Slow(Keys):
        async def key_for(self, key_id: str) -> bytearray:
            self.was_asked.set()
            return await asyncio.Future[bytearray]()

    path = write_sealed(tmp_path / "m.mar.sealed", MAR)
    keys = Slow()
    store = new_store(keys)
    before = len(os.listdir("/proc/self/fd"))
    run_cancelled(lambda: store.open(f"file://{path}"), keys.was_asked)
    assert os.listdir(root) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_nobody_waits_for_the_archive_any_more(
    root: Path, tmp_path: Path, memory: Path, new_store: Callable[..., ModelStore]
) -> None:
    plain = mar_bytes(files={"weights": os.urandom(30 << 20)})
    path = write_sealed(tmp_path / "m.mar.sealed", plain)
    keys = Keys()
    store = new_store(keys)
    run_cancelled(lambda: store.open(f"file://{path}"), keys.was_asked)
    assert os.listdir(root) == []
    assert keys.given == [bytes(32)]


CRASH = """
import asyncio, os, sys
from pathlib import Path
from sealing import Keys
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.store import ModelStore
store, memory, disk = map(Path, sys.argv[1:])
place = MemoryPlace(memory, disk)
store = ModelStore(store, [], disk, key_source=Keys(), memory_place=place)
model_dir = asyncio.run(store.open("m.mar"))
print(model_dir.path, flush=True)
os._exit(1)
"""


def test_what_a_crashed_server_left_in_memory_is_swept(
    root: Path, tmp_path: Path, memory: Path, new_store: Callable[..., ModelStore]
) -> None:
    write_sealed(root / "m.mar", MAR)
    support = Path(__file__).parent.parent / "support"
    run = subprocess.run(
        [sys.executable, "-c", CRASH, str(root), str(memory), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(support)},
        capture_output=True,
        text=True,
    )
    assert Path(run.stdout.strip()).is_dir(), run.stderr
    assert new_store().sweep() == 1


def test_sealed_archives_are_listed(root: Path, new_store: Callable[..., ModelStore]) -> None:
    for name in ("a.mar.sealed", "b.mar.jwe", "c.mar", "d.txt"):
        (root / name).touch()
    urls = new_store().startup_urls("all")
    assert urls == [(None, "a.mar.sealed"), (None, "b.mar.jwe"), (None, "c.mar")]


def test_default_names_lose_what_sealing_added() -> None:
    assert default_model_name("a/digits.mar.sealed") == "digits"
    assert default_model_name("digits.mar.jwe") == "digits"
    assert default_model_name("digits.sealed") == "digits"


MEASURE = """
import asyncio, resource, sys
from pathlib import Path
from sealing import Keys
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.store import ModelStore
store, memory, disk = map(Path, sys.argv[1:])
place = MemoryPlace(memory, disk)
store = ModelStore(store, [], disk, key_source=Keys(), memory_place=place)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
asyncio.run(store.open("m.mar")).close()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_beyond_the_unpacked_files_stays_below_64_mb(
    root: Path, tmp_path: Path, memory: Path
) -> None:
    write_sealed(root / "m.mar", mar_bytes(files={"weights": os.urandom(150 << 20)}))
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(root), str(memory), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "support")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) < 64 << 10


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("sha256:12", "m 1.0: 'sha256:12' is not sha256:<digest"),
        (f"ed25519:{OWNER_TEXT}", "is not sha256:<digest"),  # any release: no entry at all
        (f"ed25519:{OWNER_TEXT[:-4]};min-release=1", "is not sha256:<digest"),
        (f"ed25519:{OWNER_TEXT};min-release=", "is not sha256:<digest"),
        ("", "is not sha256:<digest"),
    ],
)
def test_an_entry_that_pins_nothing_is_refused(entry: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_trusted_models({"m": {"1.0": entry}})


def header_fields(plain: bytes) -> dict[str, object]:
    """What an owner would write of `plain`."""
    return {
        "alg": "A256GCM-STREAM",
        "chunk_size": 64,
        "format": 1,
        "key_id": KEY_ID,
        "model_name": "m",
        "model_version": "1.0",
        "nonce_prefix": "00" * 7,
        "plaintext_length": len(plain),
        "plaintext_sha256": hashlib.sha256(plain).hexdigest(),
        "release": 9,
        "wrap": "A256KW",
    }


@pytest.mark.parametrize(
    ("trust", "is_signed"),
    [
        (Trust(), True),
        (trusting(SIGNED), True),
        (trusting(DIGEST), False),
        (trusting(DIGEST), True),
    ],
)
def test_who_has_the_key_cannot_put_other_contents_behind_the_owners_header(
    trust: Trust, is_signed: bool, root: Path, new_store: Callable[..., ModelStore]
) -> None:
    other = mar_bytes(files={"h.py": HANDLER.replace("data", "evil")})
    assert len(other) == len(MAR)
    signing_key = OWNER.private_bytes_raw() if is_signed else None
    sealed = sealed_reference.seal(header_fields(MAR), other, KEK, os.urandom(64), signing_key)
    (root / "m.mar").write_bytes(sealed)
    error = failure(new_store(Keys(), trust=trust), "m.mar")
    assert str(error) == "m.mar: its contents are not those whose digest its header has."


OPEN_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from torchkeep.modelstore.memory_place import MemoryPlace
from torchkeep.modelstore.store import ModelStore
root, memory, disk, key_file, url = map(Path, sys.argv[1:])
class FileKey:
    async def key_for(self, key_id):
        key = bytearray(32)
        with key_file.open("rb", buffering=0) as file:
            file.readinto(key)
        global held
        held = bytes(key) if url.name == "held.mar" else None
        return key
place = MemoryPlace(memory, disk)
store = ModelStore(root, [], disk, key_source=FileKey(), memory_place=place)
model_dir = asyncio.run(store.open(url.name))
print("open", flush=True)
sys.stdin.read()
model_dir.close()
"""


@pytest.mark.parametrize("url", ["m.mar", "m.mar.jwe", "held.mar"])
def test_no_wrapping_key_is_left_in_memory(
    url: str, root: Path, tmp_path: Path, memory: Path
) -> None:
    kek, data_keys = os.urandom(32), os.urandom(64)
    key_file = tmp_path / "key"
    key_file.write_bytes(kek)
    plain = mar_bytes("m")
    fields = header_fields(plain)
    (root / url).write_bytes(
        jwe_bytes(plain, kek, data_keys[:32], kid=KEY_ID)
        if url.endswith("jwe")
        else sealed_reference.seal(fields, plain, kek, data_keys)
    )
    # Not the chunk key: OpenSSL leaves its schedule on the stack of the thread that decrypted. It
    # opens this one archive, whose contents are in memory anyway.
    needles = {"wrapping": kek, "header": data_keys[32:]}
    with subprocess.Popen(
        [sys.executable, "-c", OPEN_AND_WAIT, *map(str, (root, memory, tmp_path, key_file, url))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        found = found_in_memory(process.pid, needles)
        process.communicate()
    assert process.returncode == 0
    # The search does find what is there.
    assert found == ({"wrapping"} if url == "held.mar" else set())
