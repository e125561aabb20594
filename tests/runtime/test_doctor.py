"""`torchkeep doctor` in words, for machines of several kinds."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from torchkeep.runtime.compute import Compute
from torchkeep.runtime.cores import Cores
from torchkeep.runtime.doctor import examine, instruction_set

MACHINE = Compute(
    cores=Cores((0, 1), (0, 1)),
    fixed_threads=None,
    pins=True,
    allocator="jemalloc",
    allocator_library=Path("/l/libjemalloc.so.2"),
    torch="2.8.0",
    ipex="2.8.0",
    uses_ipex=True,
    warnings=(),
)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "cpuinfo").write_text("model name\t: A CPU\nflags\t\t: fpu avx2 avx512f\n")
    (tmp_path / "meminfo").write_text("MemTotal: 2097152 kB\nMemAvailable: 1048576 kB\n")
    return tmp_path


def report(proc: Path, compute: Compute = MACHINE, workers: int = 2) -> list[str]:
    plan = "2 workers of 1 thread on 2 cores, pinned"
    return list(examine(compute, "Landlock 7, seccomp: up to sandbox=strict", plan, workers, proc))


def test_a_well_set_machine_needs_no_change(proc: Path) -> None:
    assert report(proc) == [
        "Processor   A CPU, AVX-512",
        "Cores       2 to compute on, 2 processors, no limit",
        "Memory      2.0 GiB, 1.0 GiB available",
        "Allocator   jemalloc (/l/libjemalloc.so.2)",
        "Engine      IPEX 2.8.0 on torch 2.8.0",
        "Sandbox     Landlock 7, seccomp: up to sandbox=strict",
        "Plan        2 workers of 1 thread on 2 cores, pinned",
        "To change   nothing",
    ]


@pytest.mark.parametrize(
    ("change", "workers", "said"),
    [
        ({"allocator": "glibc", "allocator_library": None}, 2, "apt-get install libjemalloc2"),
        ({"torch": "", "ipex": "", "uses_ipex": False}, 2, "pip install 'torchkeep[ipex]'"),
        ({"ipex": "", "uses_ipex": False}, 2, "IPEX may be faster"),
        ({"fixed_threads": 4}, 2, "lower OMP_NUM_THREADS"),
        ({}, 8, "default_workers_per_model=2"),
        ({"cores": Cores((0, 1), (0, 1), 0.5)}, 1, "Less than one processor (0.5)"),
        ({"cores": Cores((0, 1, 2), (0, 1, 2), 2.5)}, 2, "A CPU limit of 2.5 leaves part"),
        ({"warnings": ("mind this",)}, 2, "To change   mind this"),
    ],
)
def test_what_to_change_is_said(
    proc: Path, change: dict[str, object], workers: int, said: str
) -> None:
    lines = report(proc, replace(MACHINE, **change), workers)  # type: ignore[arg-type]
    advice = lines[lines.index(next(line for line in lines if line.startswith("To change"))) :]
    assert any(said in line for line in advice), advice


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("avx2 avx512f amx_bf16 avx512_bf16", "AMX with bfloat16"),
        ("avx2 avx512f avx512_bf16", "AVX-512 with bfloat16"),
        ("avx2", "AVX2"),
        ("sse2", "no vector unit"),
    ],
)
def test_the_best_instruction_set_is_named(tmp_path: Path, flags: str, words: str) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert instruction_set(tmp_path) == words


def test_an_arm_processor_and_an_unreadable_proc(tmp_path: Path) -> None:
    assert instruction_set(tmp_path) == "no vector unit"
    (tmp_path / "cpuinfo").write_text("Features : fp asimd\n")
    assert instruction_set(tmp_path) == "NEON"


def test_the_command_reports_on_this_machine(tmp_path: Path) -> None:
    config = tmp_path / "c.properties"
    config.write_text("default_workers_per_model=1\n")
    run = subprocess.run(
        [
            *(sys.executable, "-c"),
            "from torchkeep.runtime.__main__ import torchkeep; torchkeep()",
            *("doctor", "--ts-config", str(config)),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        cwd=tmp_path,
    )
    titles = [line.split()[0] for line in run.stdout.splitlines() if not line.startswith(" ")]
    assert " ".join(titles) == "Processor Cores Memory Allocator Engine Sandbox Plan To"
    assert "1 worker of " in run.stdout
