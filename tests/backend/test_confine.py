"""The sandbox, tried from inside by real processes: what is refused, and what is not."""

import ctypes
import errno
import json
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from torchkeep.backend.confine import confine, confine_fork
from torchkeep.backend.landlock import everything_but
from torchkeep.backend.seccomp import filter_program
from torchkeep.runtime.kernel import KernelLayers, kernel_layers, prctl, syscall
from torchkeep.runtime.messages import Sandbox

LAYERS = kernel_layers()
_SHMGET = {"x86_64": 29, "aarch64": 194}[os.uname().machine]
needs_all_layers = pytest.mark.skipif(
    bool(LAYERS.missing_for_strict) or LAYERS.landlock_abi < 6, reason=LAYERS.describe()
)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has users to give away")


def outcome(attempt: Callable[[], object]) -> str:
    """`done`, or the name of the error."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    return "done"


class Confined:
    """Runs attempts in forks that are confined first."""

    def __init__(self, tmp_path: Path) -> None:
        self.model_dir = tmp_path / "models" / "own"
        self.other_dir = tmp_path / "models" / "other"
        self.scratch = tmp_path / "scratch"
        for directory in (self.model_dir, self.other_dir, self.scratch):
            directory.mkdir(parents=True)
        (self.model_dir / "weights").write_text("own")
        (self.other_dir / "weights").write_text("other")
        self.key_file = tmp_path / "keys.json"
        self.key_file.write_text("key")

    def sandbox(self, level: str, **changes: Any) -> Sandbox:
        hidden = [str(self.other_dir.parent), str(self.key_file)]
        return Sandbox(**{"level": level, "hidden": hidden, "scratch": str(self.scratch)} | changes)

    def run(self, sandbox: Sandbox, attempt: Callable[[], Any]) -> Any:
        """What `attempt` returns in a confined fork."""
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            result: Any = "it did not get so far"
            try:
                confine(sandbox, str(self.model_dir))
                result = attempt()
            except BaseException as error:
                result = repr(error)
            finally:
                os.write(write_end, json.dumps(result).encode())
                os._exit(0)
        os.close(write_end)
        with open(read_end, "rb") as answer:
            text = answer.read()
        _, status = os.waitpid(pid, 0)
        return json.loads(text) if text else f"ended with {status}"

    def outcomes(self, sandbox: Sandbox, attempts: dict[str, Callable[[], object]]) -> Any:
        return self.run(sandbox, lambda: {name: outcome(one) for name, one in attempts.items()})


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    return Confined(tmp_path)


@needs_all_layers
def test_standard_hides_keys_and_other_models_and_leaves_the_rest(confined: Confined) -> None:
    beside = confined.model_dir.parent.parent / "scratch" / "file"
    attempts: dict[str, Callable[[], object]] = {
        "own file": (confined.model_dir / "weights").read_text,
        "write to own directory": lambda: (confined.model_dir / "new").write_text("x"),
        "scratch": lambda: beside.write_text("x"),
        "key": confined.key_file.read_text,
        "other model": (confined.other_dir / "weights").read_text,
        "list models": lambda: os.listdir(confined.other_dir.parent),
        "etc": Path("/etc/passwd").read_text,
        "link to a key": lambda: Path(f"/proc/self/root{confined.key_file}").read_text(),
        "tcp": lambda: socket.socket().close(),
        "signal parent": lambda: os.kill(os.getppid(), 0),
        "memory of parent": lambda: open(f"/proc/{os.getppid()}/mem").close(),
        "environment of parent": Path(f"/proc/{os.getpid()}/environ").read_bytes,
    }
    assert confined.outcomes(confined.sandbox("standard"), attempts) == {
        "own file": "done",
        "write to own directory": "done",
        "scratch": "done",
        "key": "EACCES",
        "other model": "EACCES",
        "list models": "EACCES",
        "etc": "done",
        "link to a key": "EACCES",
        "tcp": "done",
        "signal parent": "EPERM",
        "memory of parent": "EACCES",
        "environment of parent": "EACCES",
    }


@needs_all_layers
def test_strict_leaves_the_model_its_scratch_and_the_system(confined: Confined) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "own file": (confined.model_dir / "weights").read_text,
        "own proc": lambda: os.listdir("/proc/self/fd"),
        "proc of parent": Path(f"/proc/{os.getpid()}/cmdline").read_bytes,
        "processes": lambda: os.listdir("/proc"),
        "scratch": lambda: (confined.scratch / "new").write_text("x"),
        "key": confined.key_file.read_text,
        "other model": (confined.other_dir / "weights").read_text,
        "shadow": Path("/etc/shadow").read_text,
        "tmp": lambda: Path("/tmp/torchkeep-strict").write_text("x"),
        "library": Path(os.__file__).read_text,
        "cpuinfo": Path("/proc/cpuinfo").read_text,
        "null": lambda: Path("/dev/null").write_text("x"),
        "subprocess": lambda: subprocess.run(["/bin/true"], check=True),
        "thread": lambda: __import__("threading").Thread(target=int).start(),
    }
    assert confined.outcomes(confined.sandbox("strict"), attempts) == {
        "own file": "done",
        "own proc": "done",
        "proc of parent": "EACCES",
        "processes": "EACCES",
        "scratch": "done",
        "key": "EACCES",
        "other model": "EACCES",
        "shadow": "EACCES",
        "tmp": "EACCES",
        "library": "done",
        "cpuinfo": "done",
        "null": "done",
        "subprocess": "done",
        "thread": "done",
    }


def socket_attempts() -> dict[str, Callable[[], object]]:
    def pair(family: int, kind: int) -> Callable[[], object]:
        return lambda: [one.close() for one in socket.socketpair(family, kind)]

    def single(family: int, kind: int) -> Callable[[], object]:
        return lambda: socket.socket(family, kind).close()

    return {
        "tcp": single(socket.AF_INET, socket.SOCK_STREAM),
        "udp": single(socket.AF_INET, socket.SOCK_DGRAM),
        "tcp6": single(socket.AF_INET6, socket.SOCK_STREAM),
        "unix": single(socket.AF_UNIX, socket.SOCK_STREAM),
        "netlink": single(socket.AF_NETLINK, socket.SOCK_RAW),
        "vsock": single(socket.AF_VSOCK, socket.SOCK_STREAM),
        "packet": single(socket.AF_PACKET, socket.SOCK_RAW),
        "alg": single(socket.AF_ALG, socket.SOCK_SEQPACKET),
        "datagram pair": pair(socket.AF_UNIX, socket.SOCK_DGRAM),
        "stream pair": pair(socket.AF_UNIX, socket.SOCK_STREAM),
    }


@needs_all_layers
def test_strict_makes_no_socket_but_a_stream_pair(confined: Confined) -> None:
    refused = confined.outcomes(confined.sandbox("strict"), socket_attempts())
    assert refused.pop("stream pair") == "done"
    assert set(refused.values()) == {"EPERM"}


@needs_all_layers
def test_strict_with_network_makes_internet_sockets_only(confined: Confined) -> None:
    sandbox = confined.sandbox("strict", allows_network=True)
    made = confined.outcomes(sandbox, socket_attempts())
    assert {name for name, one in made.items() if one == "done"} == {
        "tcp",
        "udp",
        "tcp6",
        "stream pair",
    }


@needs_all_layers
def test_ranks_in_strict_may_ask_which_interfaces_there_are(confined: Confined) -> None:
    from torchkeep.backend.seccomp import refuse_system_calls

    def opened(protocol: int) -> None:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()

    def attempts(allows_network: bool) -> Callable[[], dict[str, str]]:
        def attempt() -> dict[str, str]:
            prctl(38, 1)  # no_new_privs, which a filter needs
            refuse_system_calls(
                allows_network=allows_network, confines_signals=False, lists_interfaces=True
            )
            return {
                "route": outcome(lambda: opened(0)),
                "audit": outcome(lambda: opened(9)),
                "packet": outcome(lambda: socket.socket(socket.AF_PACKET).close()),
                "tcp": outcome(lambda: socket.socket().close()),
            }

        return attempt

    off = confined.sandbox("off")
    refused = {"route": "EPERM", "audit": "EPERM", "packet": "EPERM", "tcp": "EPERM"}
    assert confined.run(off, attempts(False)) == refused
    assert confined.run(off, attempts(True)) == refused | {"route": "done", "tcp": "done"}


@needs_all_layers
def test_strict_refuses_dangerous_system_calls(confined: Confined) -> None:
    numbers = {
        "x86_64": {"ptrace": 101, "bpf": 321, "unshare": 272, "mount": 165, "keyctl": 250},
        "aarch64": {"ptrace": 117, "bpf": 280, "unshare": 97, "mount": 40, "keyctl": 219},
    }[os.uname().machine]
    numbers |= {"io_uring_setup": 425, "pidfd_getfd": 438}
    attempts: dict[str, Callable[[], object]] = {
        name: lambda number=number: syscall(number, 0, 0, 0, 0) for name, number in numbers.items()
    }
    found = confined.outcomes(confined.sandbox("strict"), attempts)
    assert found == dict.fromkeys(numbers, "EPERM")
    parent = os.getpid()
    named: dict[str, Callable[[], object]] = {
        "limits of another": lambda: resource.prlimit(parent, resource.RLIMIT_NOFILE, (9, 9)),
        "shared memory": lambda: syscall(_SHMGET, 0, 4096, 0o1600),
    }
    assert set(confined.outcomes(confined.sandbox("strict"), named).values()) == {"EPERM"}
    own = {"own limits": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))}
    assert confined.outcomes(confined.sandbox("strict"), own) == {"own limits": "done"}
    new_user = {"clone3": lambda: syscall(435, 0, 0)}
    assert confined.outcomes(confined.sandbox("strict"), new_user) == {"clone3": "ENOSYS"}


@needs_all_layers
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86-64's own way around numbers")
def test_strict_refuses_the_numbers_of_x32(confined: Confined) -> None:
    x32_socket = {"x32": lambda: syscall(0x40000000 + 41, 2, 1, 0)}
    assert confined.outcomes(confined.sandbox("strict"), x32_socket) == {"x32": "EPERM"}


@needs_all_layers
def test_strict_cannot_signal_or_trace_what_it_did_not_start(confined: Confined) -> None:
    parent = os.getpid()

    def child() -> None:
        started = subprocess.Popen(["/bin/sleep", "60"])
        started.kill()
        started.wait()

    attempts: dict[str, Callable[[], object]] = {
        "parent": lambda: os.kill(parent, 0),
        "parent by pidfd": lambda: syscall(424, os.pidfd_open(parent), 0, None, 0),
        "group": lambda: os.kill(1, 0),
        "own child": child,
    }
    assert confined.outcomes(confined.sandbox("strict"), attempts) == {
        "parent": "EPERM",
        "parent by pidfd": "EPERM",
        "group": "EPERM",
        "own child": "done",
    }


@needs_all_layers
def test_a_subprocess_is_as_confined_as_what_started_it(confined: Confined) -> None:
    program = (
        "import os, socket\n"
        "try: socket.socket()\n"
        "except PermissionError: print('no socket')\n"
        f"try: open({str(confined.key_file)!r})\n"
        "except PermissionError: print('no key')\n"
    )

    def run() -> str:
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        return found.stdout

    assert confined.run(confined.sandbox("strict"), run) == "no socket\nno key\n"


@needs_all_layers
def test_forks_of_a_confined_stage_cannot_reach_each_other(confined: Confined) -> None:
    sandbox = confined.sandbox("strict")

    def stage() -> list[str]:
        stage_pid = os.getpid()
        ends = os.pipe()
        sibling = os.fork()
        if sibling == 0:
            confine_fork(sandbox)
            os.read(ends[0], 1)
            os._exit(0)
        report, answer = os.pipe()
        fork = os.fork()
        if fork == 0:
            confine_fork(sandbox)
            tried = [outcome(partial(os.kill, pid, 0)) for pid in (stage_pid, sibling)]
            os.write(answer, json.dumps(tried).encode())
            os._exit(0)
        os.waitpid(fork, 0)
        os.write(ends[1], b"x")
        os.waitpid(sibling, 0)
        found: list[str] = json.loads(os.read(report, 999))
        return found

    assert confined.run(sandbox, stage) == ["EPERM", "EPERM"]


@needs_root
@needs_all_layers
@pytest.mark.parametrize("level", ["standard", "strict"])
def test_a_user_of_its_own_has_no_groups_and_no_way_back(level: str, confined: Confined) -> None:
    os.chmod(confined.model_dir.parent.parent, 0o755)

    def identity() -> list[Any]:
        back = outcome(lambda: os.setuid(0))
        return [os.getresuid(), os.getresgid(), os.getgroups(), back]

    sandbox = confined.sandbox(level, uid=61_200, gid=61_300)
    assert confined.run(sandbox, identity) == [[61_200] * 3, [61_300] * 3, [], "EPERM"]


@needs_root
@needs_all_layers
def test_root_that_stays_root_has_no_capabilities_nor_gets_any_by_a_program(
    confined: Confined,
) -> None:
    def capabilities() -> str:
        command = ["grep", "CapEff", "/proc/self/status"]
        return subprocess.run(command, capture_output=True, text=True).stdout.split()[1]

    assert int(confined.run(confined.sandbox("standard"), capabilities), 16) == 0


@needs_all_layers
def test_a_confined_process_is_not_dumpable_and_gains_nothing(confined: Confined) -> None:
    def looks() -> list[Any]:
        libc = ctypes.CDLL(None)
        return [libc.prctl(3, 0, 0, 0, 0), libc.prctl(39, 0, 0, 0, 0)]  # dumpable, no_new_privs

    assert confined.run(confined.sandbox("standard"), looks) == [0, 1]


def test_off_changes_nothing(confined: Confined) -> None:
    attempts: dict[str, Callable[[], object]] = {"key": confined.key_file.read_text}
    assert confined.outcomes(confined.sandbox("off"), attempts) == {"key": "done"}


def test_strict_says_what_the_kernel_lacks() -> None:
    assert KernelLayers(7, True).missing_for_strict == ""
    assert "Linux 6.2; here: none" in KernelLayers(0, True).missing_for_strict
    assert "here: version 2" in KernelLayers(2, True).missing_for_strict
    assert "seccomp" in KernelLayers(7, False).missing_for_strict


def test_standard_says_in_one_line_what_it_does_without() -> None:
    assert KernelLayers(6, False).missing_for_standard == ""
    assert "signals" in KernelLayers(5, True).missing_for_standard
    assert "no Landlock" in KernelLayers(0, True).missing_for_standard
    assert "\n" not in KernelLayers(0, False).missing_for_standard


def test_everything_but_leaves_out_the_hidden_path_and_the_way_to_it(tmp_path: Path) -> None:
    (tmp_path / "way" / "hidden").mkdir(parents=True)
    (tmp_path / "way" / "beside").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "way")
    allowed = set(everything_but([tmp_path / "way" / "hidden"]))
    assert tmp_path / "way" / "beside" in allowed
    assert not {tmp_path, tmp_path / "way", tmp_path / "way" / "hidden"} & allowed
    assert tmp_path / "link" not in allowed


@needs_all_layers
@pytest.mark.parametrize("level", ["standard", "strict"])
def test_what_is_hidden_stays_so_where_libraries_lie_too(
    level: str, confined: Confined, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = confined.key_file.parent
    (root / "beside_a_key.py").write_text("")
    (root / "library").mkdir()
    (root / "library" / "module.py").write_text("")
    monkeypatch.syspath_prepend(str(root))
    attempts: dict[str, Callable[[], object]] = {
        "key": confined.key_file.read_text,
        "other model": (confined.other_dir / "weights").read_text,
        "own file": (confined.model_dir / "weights").read_text,
        "import": lambda: __import__("beside_a_key"),
        "library": (root / "library" / "module.py").read_text,
        "write": lambda: (root / "library" / "new").write_text("x"),
    }
    assert confined.outcomes(confined.sandbox(level), attempts) == {
        "key": "EACCES",
        "other model": "EACCES",
        "own file": "done",
        "import": "done",
        "library": "done",
        "write": "done" if level == "standard" else "EACCES",
    }


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filters_stay_far_below_the_kernels_limit(machine: str) -> None:
    program = filter_program(machine, allows_network=False, confines_signals=True)
    assert len(program) % 8 == 0
    assert len(program) // 8 < 4096


@needs_all_layers
def test_without_a_scope_of_signals_the_filter_refuses_them(confined: Confined) -> None:
    from torchkeep.backend.seccomp import refuse_system_calls

    def attempts() -> dict[str, str]:
        parent = os.getppid()
        prctl(38, 1)  # no_new_privs, which a filter needs
        refuse_system_calls(allows_network=False, confines_signals=True)
        return {
            "parent": outcome(lambda: os.kill(parent, 0)),
            "self": outcome(lambda: os.kill(os.getpid(), 0)),
        }

    found = confined.run(confined.sandbox("off"), attempts)
    assert found == {"parent": "EPERM", "self": "done"}
