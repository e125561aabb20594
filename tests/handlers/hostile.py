"""A handler that does harm, in the way the url path names; "fine" does none."""

import os
import signal
import sys
import threading
import time

kept = []


def leak():
    kept.append(bytearray(os.urandom(1)) * (50 << 20))


def descriptors():
    for _ in range(200):
        kept.append(os.open(os.devnull, os.O_RDONLY))


def flood():
    for _ in range(2000):
        print("out " * 1000)
        print("err " * 250, file=sys.stderr)


def fork():
    for _ in range(3):
        if os.fork() == 0:
            time.sleep(600)


def daemons():
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(600)
            os._exit(0)


def threads():
    for _ in range(20):
        threading.Thread(target=time.sleep, args=(600,)).start()


def catch():
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


WAYS = (leak, descriptors, flood, fork, daemons, threads, catch)


def handle(data, context):
    if data is None:
        return None
    way = context.get_request_header(0, "url_path")
    for one in WAYS:
        if one.__name__ == way:
            one()
    return [way] * len(data)
