"""A handler that does harm, in the way the body names, and then answers with its process id.

"fine" does none. Some ways do not come to an answer. A number behind the name says how much is
printed, in units of some 100 KB.
"""

import asyncio
import atexit
import ctypes
import gc
import json
import locale
import logging
import multiprocessing
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings

import msgpack

kept = []


def fine():
    pass


# What it prints


def prints_lines(amount=1):
    for _ in range(50 * amount):
        print("out " * 250)
        print("err " * 250, file=sys.stderr)


def prints_short_lines(amount=1):
    for _ in range(amount):
        write_all(1, b"\n" * 5_000)
        write_all(2, b"x\n" * 2_500)


def prints_one_line(amount=1):
    print("x" * (amount * 100_000))


def prints_without_end_of_line(amount=1):
    for _ in range(100 * amount):
        print("y" * 1000, end="")
    sys.stdout.flush()


def prints_garbage(amount=1):
    noise = os.urandom(amount * 50_000)
    for descriptor in (1, 2):
        write_all(descriptor, noise + b"\x1b[2J\r2030-01-01T00:00:00,000 [INFO ] forged\x00\x9b31m\n")


def prints_surrogates():
    print("\udcff\ud800 \u2028 \u202e \x85")


def closes_output():
    os.close(1)
    os.close(2)


def closes_output_and_raises():
    closes_output()
    raise ValueError("what nobody can read")


def closes_streams_and_raises():
    sys.stdout.close()
    sys.stderr.close()
    raise ValueError("what nobody can read")


def has_no_streams():
    sys.stdout = sys.stderr = None


def replaces_streams():
    class Broken:
        def write(self, text):
            raise RuntimeError("no writing here")

        def flush(self):
            raise RuntimeError("no flushing here")

    sys.stdout = sys.stderr = Broken()
    raise ValueError("what nobody can read")


# What it opens, starts and forks


def leaks_descriptors():
    try:
        while True:
            kept.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass


def leaks_descriptors_and_raises():
    leaks_descriptors()
    raise ValueError("out of descriptors")


def starts_threads():
    for _ in range(50):
        threading.Thread(target=time.sleep, args=(600,)).start()


def exits_in_a_thread():
    thread = threading.Thread(target=sys.exit, args=(1,))
    thread.start()
    thread.join()


def forks():
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)


def forks_twice():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)


def forks_and_both_answer():
    os.fork()


def forks_and_the_child_raises():
    if os.fork() == 0:
        raise ValueError("of the child")


def forks_much():
    for _ in range(6):  # 64 processes
        os.fork()
    if os.getpid() != WORKER:
        time.sleep(600)
        os._exit(0)


def forks_for_ever():
    """Each one forks the next and ends."""
    if os.fork() == 0:
        os.setsid()
        end = time.monotonic() + 100
        while time.monotonic() < end:
            if os.fork():
                os._exit(0)
            time.sleep(0.005)
        os._exit(0)


def forks_and_looks():
    """What a fork still has of the connection of the worker."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        found = [os.readlink(f"/proc/self/fd/{n}") for n in open_descriptors() if n != write_end]
        os.write(write_end, json.dumps([one for one in found if "socket" in one]).encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as pipe:
        return json.loads(pipe.read())


def starts_and_looks():
    """What a program that is started without care has of it."""
    code = "import os; print([l for n in os.listdir('/proc/self/fd') if 'socket' in (l := link(n))])"
    link = (
        "import os\n"
        "def link(n):\n"
        "    try: return os.readlink('/proc/self/fd/' + n)\n"
        "    except OSError: return ''\n"
    )
    command = [sys.executable, "-c", link + code]
    return json.loads(subprocess.run(command, close_fds=False, capture_output=True).stdout)


def starts_programs():
    for _ in range(3):
        kept.append(subprocess.Popen(["sleep", "600"], close_fds=False, start_new_session=True))


def uses_multiprocessing():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


# What it changes


def catches_everything():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, lambda *_: None)
        except (OSError, ValueError):
            pass

    def forever():
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass

    threading.Thread(target=forever).start()


def changes_its_surroundings():
    os.umask(0o777)
    os.mkdir(os.path.join(os.environ["TMPDIR"], "closed"))
    os.environ.clear()
    os.chdir("/")
    sys.path.clear()
    sys.argv.clear()
    for name in ("tr_TR.UTF-8", "C"):
        try:
            locale.setlocale(locale.LC_ALL, name)
        except locale.Error:
            pass
    gc.disable()
    gc.set_threshold(1)
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    logging.raiseExceptions = True
    sys.settrace(lambda *_: None)
    sys.setprofile(lambda *_: None)
    threading.settrace(lambda *_: None)
    sys.setswitchinterval(1)
    socket.setdefaulttimeout(0.001)
    asyncio.set_event_loop_policy(None)


def changes_modules():
    def broken(*_, **__):
        raise RuntimeError("patched")

    for module, names in (
        (msgpack, ("packb", "unpackb", "Packer", "Unpacker")),
        (struct, ("Struct", "pack", "unpack", "unpack_from")),
        (socket, ("socket", "socketpair", "create_connection")),
        (json, ("loads", "dumps")),
        (os, ("getpid", "fork", "register_at_fork")),
    ):
        for name in names:
            setattr(module, name, broken)


def forgets_modules():
    sys.modules.clear()


def has_little_recursion():
    sys.setrecursionlimit(len_of_stack() + 5)


def is_never_done_when_it_ends():
    atexit.register(time.sleep, 600)

    class Reluctant:
        def __del__(self):
            raise RuntimeError("not now")

    kept.append(Reluctant())
    Reluctant()


def raises_at_signals():
    def handler(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)


def allocates_without_end():
    limit_memory()
    while True:
        kept.append(bytearray(16 << 20))


def allocates_and_catches():
    limit_memory()
    try:
        while True:
            kept.append(bytearray(16 << 20))
    except MemoryError:
        pass


def closes_all_descriptors():
    os.closerange(3, 1 << 16)


def closes_and_opens_others():
    os.closerange(3, 1 << 16)
    for _ in range(64):
        kept.extend(socket.socketpair())


# How it ends


def exits_at_once():
    os._exit(0)


def exits():
    sys.exit(3)


def is_killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crashes():
    ctypes.string_at(0)


def write_all(descriptor, data):
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def limit_memory():
    with open("/proc/self/statm") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (128 << 20),) * 2)


def open_descriptors():
    return [int(n) for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]


def len_of_stack():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


WORKER = os.getpid()
WAYS = {name: way for name, way in globals().items() if callable(way) and way.__module__ == __name__}


def handle(data, context):
    if data is None:
        return None
    way, *amount = bytes(data[0]["body"]).decode().split()
    found = WAYS[way](*map(int, amount))
    return [{"pid": os.getpid(), "found": found}]
