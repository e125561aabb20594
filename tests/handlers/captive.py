"""A hostile handler: it tries whatever the request names, and reports how each attempt ended."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
import tempfile

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    "x86_64": {"ptrace": 101, "process_vm_readv": 310, "bpf": 321, "userfaultfd": 323},
    "aarch64": {"ptrace": 117, "process_vm_readv": 270, "bpf": 280, "userfaultfd": 282},
}[os.uname().machine]
PTRACE_ATTACH = 16

HELPER = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5).close()
except OSError:
    print("refused")
else:
    print("open")
"""


def call(name, *arguments):
    number = NUMBERS.get(name, name)
    wide = [ctypes.c_long(argument) for argument in arguments]
    if LIBC.syscall(ctypes.c_long(number), *wide) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def connect(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.settimeout(5)
        sock.connect(address)


def send_datagram(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", port))


def listen():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()


def read(path):
    with open(path, "rb") as file:
        file.read(1)


def write(path):
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)


def in_helper(port):
    command = [sys.executable, "-c", HELPER, str(port)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if found.stdout != "open\n":
        raise PermissionError(found.stdout + found.stderr)


def can_connect(host, port):
    socket.create_connection((host, port), 5).close()


def in_torch_helper(timeout_s):
    """torch's compile workers are processes that take orders from a pipe."""
    from torch._inductor.compile_worker.subproc_pool import SubprocPool

    pool = SubprocPool(1)
    return lambda work, *arguments: pool.submit(work, *arguments).result(timeout_s)


def attempts(facts):
    frontend, zygote, sibling = facts["frontend"], facts["zygote"], facts["sibling"]
    tried = {
        "tcp": lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts["port"])),
        "listen": listen,
        "udp": lambda: send_datagram(facts["port"]),
        "dns": lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 53)),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "unix": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, facts["unix"]),
        "abstract": lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + facts["abstract"]),
        "helper": lambda: in_helper(facts["port"]),
        "own_model": lambda: write(os.path.join(os.getcwd(), "written")),
        "scratch": lambda: tempfile.TemporaryFile().close(),
        "tmp": lambda: write(f"/tmp/torchkeep-captive-{os.getpid()}"),
        "etc": lambda: read("/etc/hostname"),
        "key": lambda: read(facts["key"]),
        "store": lambda: read(facts["archive"]),
        "models": lambda: os.listdir(os.path.dirname(facts["other"])),
        "other_model": lambda: read(os.path.join(facts["other"], "echo.py")),
    }
    for name, pid in (("frontend", frontend), ("zygote", zygote), ("sibling", sibling)):
        for file in ("mem", "environ", "maps", "fd", "cwd", "cmdline"):
            path = f"/proc/{pid}/{file}"
            look = os.listdir if file in ("fd", "cwd") else read
            tried[f"{name}_{file}"] = lambda look=look, path=path: look(path)
        tried[f"{name}_signal"] = lambda pid=pid: os.kill(pid, 0)
        tried[f"{name}_ptrace"] = lambda pid=pid: call("ptrace", PTRACE_ATTACH, pid, 0, 0)
        tried[f"{name}_memory"] = lambda pid=pid: read_memory(pid)
    calls = {
        "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close(),
        "bpf": lambda: call("bpf", 0, 0, 0),
        "io_uring": lambda: call(425, 1, 0),
        "userfaultfd": lambda: call("userfaultfd", 1),
        "namespace": lambda: check(LIBC.unshare(0x10000000)),
    }
    return tried, calls


def read_memory(pid):
    here = ctypes.create_string_buffer(8)
    local = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
    remote = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
    places = ctypes.addressof(local), 1, ctypes.addressof(remote), 1
    try:
        call("process_vm_readv", pid, *places, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:  # the address is none there: it was looked for
            raise


def check(result):
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def outcome(attempt):
    try:
        attempt()
    except OSError as error:
        return f"refused {errno.errorcode.get(error.errno or 0, error)}"
    except Exception as error:
        return f"refused {error!r}"
    return "open"


def descriptors():
    links = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            links[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return links


def handle(data, context):
    if data is None:
        return None
    facts = data[0]["body"]
    if facts.get("raise"):
        print(facts["raise"], "printed")
        raise ValueError(facts["raise"])
    inherited = descriptors()
    ids = [os.getuid(), os.getgid(), os.getpid()]  # as a new namespace may leave none
    tried, calls = attempts(facts)
    report = {name: outcome(attempt) for name, attempt in tried.items()}
    report["calls"] = {name: outcome(attempt) for name, attempt in calls.items()}
    report["torch"] = {}
    if facts["torch"]:
        own, address = os.path.abspath("captive.py"), ("127.0.0.1", facts["port"])
        helped = in_torch_helper(facts["torch"])
        report["torch"] = {
            "file": outcome(lambda: helped(os.stat, own)),
            "tcp": outcome(lambda: helped(can_connect, *address)),
            "key": outcome(lambda: helped(os.open, facts["key"], os.O_RDONLY)),
        }
    report["descriptors"] = inherited
    report["ids"] = ids
    return [json.dumps(report)]
