"""What each process of a model is given, and what is refused before it starts."""

import asyncio
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from torchkeep.frontend.model_sandbox import UNTOLD, ModelSandbox, give_to_group
from torchkeep.frontend.sandbox_policy import SandboxPolicy, sandbox_policy
from torchkeep.frontend.worker_connection import LoadRefused
from torchkeep.frontend.worker_users import WorkerUsers
from torchkeep.modelstore.opening import ModelDir
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.kernel import KernelLayers
from torchkeep.runtime.messages import Load

ALL_LAYERS = KernelLayers(7, True)
LOAD = Load("m", "1.0", "/m", "h.py", "", 1, True, True, {"HOME": "/home/user", "A": "b"})
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def is_there(path: str) -> bool:
    return os.path.isdir(path)


Build = Callable[..., ModelSandbox]


@pytest.fixture
def model_dir(tmp_path: Path) -> ModelDir:
    (tmp_path / "store" / "m").mkdir(parents=True)
    (tmp_path / "store" / "m" / "h.py").write_text("")
    return asyncio.run(ModelStore(tmp_path / "store", [], tmp_path / "area").open("m"))


@pytest.fixture
def build(model_dir: ModelDir) -> Build:
    def build_one(wants_network: bool = False, sealed: bool = False, **policy: Any) -> ModelSandbox:
        opened = replace(model_dir, sealed=sealed)
        settings = SandboxPolicy(**{"layers": ALL_LAYERS} | policy)
        return ModelSandbox(settings, "M-m_1.0", opened, wants_network)

    return build_one


def test_a_sealed_model_is_strict_and_any_other_standard(build: Build) -> None:
    assert build().level == "standard"
    assert build(sealed=True).level == "strict"
    assert build(sealed=True, level="standard").level == "standard"
    assert build(level="strict").level == "strict"


def test_strict_keeps_the_handlers_words_inside(build: Build) -> None:
    assert build().words("ValueError: x") == "ValueError: x"
    assert build(level="strict").words("ValueError: x") == UNTOLD
    assert build(level="strict", handler_log="console").words("mine") == "mine"
    assert build(handler_log="drop").words("mine") == UNTOLD


def test_a_process_has_a_scratch_directory_until_it_ends(build: Build) -> None:
    async def scenario() -> None:
        sandbox = build()
        first, second = await sandbox.open_cell(), await sandbox.open_cell()
        load = first.furnish(LOAD)
        scratch = load.sandbox.scratch
        assert load.environment["TMPDIR"] == scratch
        assert load.environment["HOME"] == "/home/user"
        assert is_there(scratch)
        assert scratch != second.furnish(LOAD).sandbox.scratch
        for cell in (first, second, first):
            cell.close()
        assert not is_there(scratch)

    asyncio.run(scenario())


def test_standard_hides_keys_and_every_area_of_models(build: Build, tmp_path: Path) -> None:
    async def scenario() -> None:
        cell = await build(hidden=[Path("/keys")], areas=[Path("/other")]).open_cell()
        hidden = cell.furnish(LOAD).sandbox.hidden
        assert hidden == ["/keys", "/other", str(tmp_path / "area" / "models")]
        cell.close()

    asyncio.run(scenario())


def test_off_gives_nothing_and_takes_nothing(build: Build) -> None:
    cell = asyncio.run(build(level="off").open_cell())
    assert cell.furnish(LOAD) == LOAD
    cell.close()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"layers": KernelLayers(0, True)}, "sandbox=strict needs Landlock"),
        ({"layers": KernelLayers(7, False)}, "sandbox=strict needs system call filters"),
        ({"wants_network": True}, "set sandbox_allow=network in config.properties"),
    ],
)
def test_strict_refuses_what_it_cannot_keep(
    settings: dict[str, Any], reason: str, build: Build
) -> None:
    with pytest.raises(LoadRefused, match=reason):
        asyncio.run(build(level="strict", **settings).open_cell())


def test_network_is_given_to_a_model_that_asks_where_the_server_allows(build: Build) -> None:
    async def allowed(wants_network: bool) -> bool:
        sandbox = build(level="strict", allows_network=True, wants_network=wants_network)
        cell = await sandbox.open_cell()
        cell.close()
        return cell.furnish(LOAD).sandbox.allows_network

    assert asyncio.run(allowed(True))
    assert not asyncio.run(allowed(False))


@needs_root
def test_workers_have_users_of_their_own_and_the_model_directory_by_a_group() -> None:
    # Not below pytest's directory, which is closed to other users.
    place = Path(tempfile.mkdtemp(prefix="torchkeep-users-", dir="/var/tmp"))
    place.chmod(0o755)
    with zipfile.ZipFile(place / "m.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", '{"model": {"modelName": "m"}}')
    try:
        asyncio.run(_share(place))
    finally:
        shutil.rmtree(place)


async def _share(place: Path) -> None:
    model_dir = await ModelStore(place, [], place / "area").open("m.mar")
    policy = SandboxPolicy(layers=ALL_LAYERS, users=WorkerUsers(()))
    sandbox = ModelSandbox(policy, "M-m_1.0", model_dir, False)
    cells = [await sandbox.open_cell() for _ in range(2)]
    first, second = (cell.furnish(LOAD) for cell in cells)
    assert first.sandbox.uid != second.sandbox.uid
    assert first.sandbox.gid == second.sandbox.gid != 0
    assert first.environment["HOME"] == first.sandbox.scratch
    assert os.stat(first.sandbox.scratch).st_uid == first.sandbox.uid
    assert model_dir.unpacked.path.stat().st_gid == first.sandbox.gid
    assert model_dir.unpacked.path.parent.stat().st_mode & 0o777 == 0o711
    assert first.sandbox.hidden == []  # users keep each other out
    for cell in cells:
        cell.close()
    sandbox.close()
    model_dir.close()


@needs_root
def test_a_group_gets_what_the_owner_has_and_links_are_left_alone(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    outside.chmod(0o600)
    inside = tmp_path / "model"
    inside.mkdir()
    (inside / "file").write_text("")
    (inside / "file").chmod(0o604)
    (inside / "link").symlink_to(outside)
    give_to_group(inside, 61_300)
    assert (inside / "file").stat().st_gid == 61_300
    assert (inside / "file").stat().st_mode & 0o777 == 0o660
    assert inside.stat().st_mode & 0o070 == 0o070
    assert outside.stat().st_gid == os.getgid()
    assert outside.stat().st_mode & 0o777 == 0o600


def test_where_keys_come_over_the_network_every_model_is_strict() -> None:
    assert sandbox_policy("", False, "", []).level == ""
    assert sandbox_policy("", False, "", [], has_key_service=True).level == "strict"
    assert sandbox_policy("standard", False, "", [], has_key_service=True).level == "standard"


def test_a_policy_of_off_warns_of_nothing() -> None:
    assert sandbox_policy("off", False, "", []).warnings == ()


def test_the_cache_of_a_home_with_the_unpacked_models_stays_usable(
    model_dir: ModelDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    async def scenario() -> None:
        policy = SandboxPolicy(layers=ALL_LAYERS)
        (await ModelSandbox(policy, "M-m_1.0", model_dir, False).open_cell()).close()

    asyncio.run(scenario())
    assert (tmp_path / ".cache").is_dir()
