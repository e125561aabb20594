"""TorchServe's `cpu_launcher_args` as settings."""

from pathlib import Path

import pytest

from torchkeep.runtime.cores import Cores
from torchkeep.runtime.cpu_launcher import LauncherSettings, parse_launcher_args, restrict


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("", LauncherSettings()),
        ("--ncores-per-instance 4", LauncherSettings(threads=4)),
        ("--ncores_per_instance=4", LauncherSettings(threads=4)),
        ("--ncores_per_instance -1", LauncherSettings()),
        ("--core-list 0,2-3", LauncherSettings(cpus=(0, 2, 3))),
        ("--core_list '0, 2'", LauncherSettings(cpus=(0, 2))),
        ("--core_list 0 2 --node_id 1", LauncherSettings(cpus=(0, 2), node=1)),
        ("--use_logical_core", LauncherSettings(uses_siblings=True)),
        ("--disable_taskset", LauncherSettings(pins=False)),
        ("--enable_tcmalloc", LauncherSettings(allocator="tcmalloc")),
        ("--enable-jemalloc", LauncherSettings(allocator="jemalloc")),
        ("--use-default-allocator", LauncherSettings(allocator="default")),
        (
            "--throughput-mode --ninstances 2 --log_path logs",
            LauncherSettings(without_effect=("throughput-mode", "ninstances", "log-path")),
        ),
    ],
)
def test_arguments(text: str, settings: LauncherSettings) -> None:
    assert parse_launcher_args(text) == settings


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--ncores-per-instance many", "ncores-per-instance takes a number, not 'many'"),
        ("--core-list a-b", "core-list takes processor numbers such as 0-3,8, not 'a-b'"),
        ("--core-list '0", "No closing quotation"),
    ],
)
def test_wrong_values_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_launcher_args(text)


CORES = Cores(cpus=(0, 1), logical=(0, 1, 2, 3), limit=None)  # 2 and 3 are siblings


def test_cores_of_a_list() -> None:
    assert restrict(CORES, LauncherSettings(cpus=(1, 3))).cpus == (1,)
    assert restrict(CORES, LauncherSettings(cpus=(2, 3))).cpus == (2, 3)
    assert restrict(CORES, LauncherSettings(uses_siblings=True)).cpus == (0, 1, 2, 3)
    assert restrict(CORES, LauncherSettings()) == CORES


def test_cores_of_a_node(tmp_path: Path) -> None:
    node = tmp_path / "devices/system/node/node1"
    node.mkdir(parents=True)
    (node / "cpulist").write_text("1,3\n")
    assert restrict(CORES, LauncherSettings(node=1), tmp_path).logical == (1, 3)
    with pytest.raises(ValueError, match="this machine has no node 7"):
        restrict(CORES, LauncherSettings(node=7), tmp_path)


def test_no_core_left_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"none of the processors .* \[0, 1, 2, 3\]"):
        restrict(CORES, LauncherSettings(cpus=(9,)))
