"""Where plugins are found, which of them are run, and what a broken one says."""

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from torchkeep.runtime import plugin_loading
from torchkeep.runtime.errors import ConfigError
from torchkeep.runtime.plugin_loading import Plugins, load_plugins
from torchkeep.runtime.snapshot import SnapshotStore

HEAD = "from torchkeep.runtime.plugins import *\n"
HELLO = HEAD + "@endpoint('hello')\ndef hello(request):\n    return 'hello'\n"
STORE = HEAD + (
    "class Store(SnapshotStore):\n"
    "    def save(self, name, text): pass\n"
    "    def last(self): return None\n"
)


@pytest.fixture(autouse=True)
def forget_modules() -> object:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("torchkeep_plugin_", "guest_")):
            del sys.modules[name]


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Plugins]:
    def load(*places: str, is_confidential: bool = False) -> Plugins:
        return load_plugins(places, tmp_path, is_confidential=is_confidential)

    return load


def complaint(load: Callable[..., Plugins], *places: str, is_confidential: bool = False) -> str:
    with pytest.raises(ConfigError) as raised:
        load(*places, is_confidential=is_confidential)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def paths(plugins: Plugins) -> list[str]:
    return [found.endpoint.path for found in plugins.endpoints]


# Where they are found.


def test_without_a_path_there_are_none(load: Callable[..., Plugins]) -> None:
    assert load() == Plugins()
    assert load().open_store() is None


def test_files_of_a_folder(load: Callable[..., Plugins], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.py", "a.py"):
        (folder / name).write_text(HELLO.replace("'hello'", f"'{name[0]}'"))
    for name in ("_helper.py", ".hidden.py", "readme.txt", "deeper/c.py"):
        (folder / name).write_text("raise ValueError")
    (folder / "old.jar").write_bytes(b"PK")
    found = load("folder")
    assert paths(found) == ["a", "b"]
    assert found.endpoints[0].origin == f"{folder}/a.py, line 2"
    assert [source.partition(" (sha256:")[0] for source in found.sources] == [
        f"{folder}/a.py",
        f"{folder}/b.py",
    ]
    (warning,) = found.warnings
    assert warning.startswith(f"plugins_path: {folder}/old.jar is a Java plugin and is not run")
    assert not (folder / "__pycache__").exists()


def test_files_and_folders_in_one_list(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(HELLO)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "two.py").write_text(STORE)
    found = load("one.py", str(tmp_path / "folder"))
    assert paths(found) == ["hello"]
    assert str(found.open_store()) == "Store"


def test_what_is_not_there_is_named(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert load("nowhere", "empty").warnings == [
        "plugins_path: nowhere is no folder, no file and no installed plugin",
        "plugins_path: there is no Python plugin in empty, see docs/plugins.md",
    ]


def test_what_one_plugin_imports_of_another_counts_once(
    load: Callable[..., Plugins], tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(HELLO + STORE)
    (tmp_path / "two.py").write_text("from torchkeep_plugin_one import hello, Store\n")
    found = load("one.py", "two.py")
    assert paths(found) == ["hello"]
    assert found.store_class is not None


def test_a_class_with_the_methods_of_a_store_is_none_unless_it_says_so(
    load: Callable[..., Plugins], tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(STORE.replace("(SnapshotStore)", ""))
    assert load("one.py").store_class is None


@pytest.mark.parametrize("value", ["guest_package.plugin", "guest_package.plugin:hello"])
@pytest.mark.parametrize("is_namespace", [False, True])
def test_installed_packages_are_run_by_name_only(
    value: str,
    is_namespace: bool,
    load: Callable[..., Plugins],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site"
    (site / "guest_package").mkdir(parents=True)
    if not is_namespace:
        (site / "guest_package/__init__.py").write_text("")
    (site / "guest_package/plugin.py").write_text(HELLO)
    (site / "guest-1.2.dist-info").mkdir()
    (site / "guest-1.2.dist-info/METADATA").write_text("Name: guest\nVersion: 1.2\n")
    (site / "guest-1.2.dist-info/entry_points.txt").write_text(
        f"[torchkeep.plugins]\nguest = {value}\n"
    )
    monkeypatch.syspath_prepend(site)
    assert load() == Plugins()
    assert "guest_package" not in sys.modules
    found = load("guest")
    assert paths(found) == ["hello"]
    assert found.sources == [f"guest ({value}, guest 1.2)"]
    assert found.endpoints[0].origin == f"guest ({value}), line 2"

    (site / "guest_package/plugin.py").chmod(0o666)
    assert f"{site}/guest_package/plugin.py can be written by everybody" in complaint(load, "guest")


# What is wrong with one.


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("x = 1\ny = (\n", "line 2: SyntaxError: '(' was never closed"),
        ("x = 1\nimport nowhere\n", "line 2: ModuleNotFoundError: No module named 'nowhere'"),
        ("def f():\n    1 / 0\nf()\n", "line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit('no')\n", "line 1: SystemExit: no"),
        ("raise ValueError('a\\nb')\n", "line 1: ValueError: a b"),
        (HEAD + "@endpoint('a/b')\ndef f(request): ...\n", 'line 2: ValueError: the path "a/b"'),
        (HEAD + "\n@endpoint('a')\ndef f(): ...\n", "line 3: TypeError: f must take one argument"),
        ("import json\njson.loads('{')\n", "line 2: JSONDecodeError: "),
        ("x = '\0'\n", "ource code string cannot contain null bytes"),
    ],
)
def test_a_broken_file_is_named_with_line_and_cause(
    text: str, cause: str, load: Callable[..., Plugins], tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(text)
    said = complaint(load, "one.py")
    assert said.startswith(f"plugins_path: {tmp_path}/one.py")
    assert cause in said


def test_a_broken_installed_plugin_is_named(
    load: Callable[..., Plugins], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "guest_broken.py").write_text("1 / 0\n")
    (tmp_path / "guest-1.dist-info").mkdir()
    (tmp_path / "guest-1.dist-info/METADATA").write_text("Name: guest\nVersion: 1\n")
    (tmp_path / "guest-1.dist-info/entry_points.txt").write_text(
        "[torchkeep.plugins]\nguest = guest_broken\nlost = guest_nowhere.plugin\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cause = "line 1: ZeroDivisionError: division by zero"
    assert complaint(load, "guest") == f"plugins_path: {tmp_path}/guest_broken.py, {cause}"
    assert (
        "lost (guest_nowhere.plugin): ModuleNotFoundError: No module named 'guest_nowhere'"
        in complaint(load, "lost")
    )


def test_one_store_is_enough(load: Callable[..., Plugins], tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(STORE)
    said = complaint(load, "one.py", "two.py")
    assert said.endswith(f"only one snapshot store can be used: {tmp_path}/one.py and "
                         f"{tmp_path}/two.py")  # fmt: skip


@pytest.mark.parametrize(
    ("method", "cause"),
    [
        ("    def __init__(self): raise OSError('no database')\n", "OSError: no database"),
        ("", "abstract method"),
    ],
)
def test_a_store_that_cannot_be_made(
    method: str, cause: str, load: Callable[..., Plugins], tmp_path: Path
) -> None:
    text = STORE + method if method else HEAD + "class Store(SnapshotStore): pass\n"
    (tmp_path / "one.py").write_text(text)
    with pytest.raises(ConfigError, match=f"{tmp_path}/one.py: the snapshot store .*{cause}"):
        load("one.py").open_store()


# Whose code may run beside the keys.


@pytest.mark.parametrize("writable", ["folder/one.py", "folder", "."])
def test_code_that_everybody_may_replace_is_not_run(
    writable: str, load: Callable[..., Plugins], tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/one.py").write_text("raise ValueError('it was run')")
    place = tmp_path / writable
    place.chmod(place.stat().st_mode | stat.S_IWOTH)
    said = complaint(load, "folder")
    assert f"plugins_path: {place} can be written by everybody. A plugin runs inside" in said


def test_a_link_is_judged_by_what_it_leads_to(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "open").mkdir()
    (tmp_path / "open/one.py").write_text("raise ValueError('it was run')")
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "folder/one.py").symlink_to(tmp_path / "open/one.py")
    assert f"{tmp_path}/open can be written by everybody" in complaint(load, "folder")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_code_of_another_user(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(HELLO)
    os.chown(tmp_path / "one.py", 12345, 0)
    reason = f"{tmp_path}/one.py belongs to user 12345, who is neither root nor the server's own"
    assert load("one.py").warnings == [f"plugins_path: {reason}"]
    assert reason in complaint(load, "one.py", is_confidential=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_code_that_a_group_may_replace(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(HELLO)
    os.chown(tmp_path / "one.py", 0, 12345)
    (tmp_path / "one.py").chmod(0o664)
    assert load("one.py").warnings == []
    said = complaint(load, "one.py", is_confidential=True)
    assert f"{tmp_path}/one.py can be written by group 12345" in said


def test_code_from_another_mount_does_not_run_beside_secrets(
    load: Callable[..., Plugins], memory: Path
) -> None:
    (memory / "one.py").write_text(HELLO)
    try:
        assert paths(load(str(memory))) == ["hello"]
        said = complaint(load, str(memory), is_confidential=True)
        assert f"{memory}/one.py is on another mount than the server's own code" in said
    finally:
        (memory / "one.py").unlink()


def test_code_of_the_image_runs_beside_secrets(
    load: Callable[..., Plugins], tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(HELLO)
    code = Path(plugin_loading.__file__)
    if plugin_loading._mount_of(tmp_path) != plugin_loading._mount_of(code):
        pytest.skip("temporary files are on another mount than the code here")
    assert paths(load("one.py", is_confidential=True)) == ["hello"]


def test_mounts_of_single_files_count() -> None:
    mount_of = plugin_loading._mount_of
    assert mount_of(Path("/")) == Path("/")
    assert mount_of(Path("/proc/self/mountinfo")) == Path("/proc")
    assert mount_of(Path("/dev/shm/x/y")) == Path("/dev/shm")
    assert plugin_loading._unescaped(r"/a\040b\134c") == r"/a b\c"


def test_a_store_names_itself() -> None:
    class Nowhere(SnapshotStore):
        def save(self, name: str, text: str) -> None: ...

        def last(self) -> tuple[str, str] | None:
            return None

    assert str(Nowhere()) == "Nowhere"


def test_an_endpoint_need_not_be_a_function(load: Callable[..., Plugins], tmp_path: Path) -> None:
    bound = "from functools import partial\nhello = endpoint('a')(partial(lambda x, r: x, 1))\n"
    (tmp_path / "one.py").write_text(HEAD + bound)
    (found,) = load("one.py").endpoints
    assert (found.endpoint.path, found.origin) == ("a", f"{tmp_path}/one.py")
    (tmp_path / "one.py").write_text(HEAD + bound.replace("x, r: x", "x: x"))
    assert "TypeError: the function must take one argument" in complaint(load, "one.py")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(load: Callable[..., Plugins], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0)
    assert complaint(load, "folder") == f"plugins_path: {tmp_path}/folder: Permission denied"
