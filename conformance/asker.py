"""Takes the steps of a scenario, one after the other, to one server."""

import os
import re
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from conformance import raw_http
from conformance.case import (
    Begin,
    Case,
    Finish,
    KillWorkers,
    Restart,
    Step,
    with_keys,
    with_places,
)
from conformance.compare import Fact, answer_fact, in_one, log_fact, no_answer

UNTIL_S = 30.0
POLL_S = 0.05
REPEATS = 5
# Requests that wait in the background at once, at most.
WAITING = 32
DESCRIBED_PID = re.compile(rb'"pid": (\d+)')


class Asked(Protocol):
    """A server, as far as it is asked something."""

    inference: str
    management: str
    metrics: str

    @property
    def keys(self) -> dict[str, str]:
        """The keys it asks for now."""
        ...

    @property
    def places(self) -> dict[str, str]:
        """What differs between servers, and is in URLs: by the name that cases have for it."""
        ...

    @property
    def logs(self) -> Path:
        """The directory of its log files."""
        ...


class Asker:
    """One server, and the requests that it has not answered yet."""

    def __init__(self, server: Asked, restart: Callable[[], Asked] | None = None) -> None:
        self._server = server
        self._restart = restart
        self._begun: dict[str, Future[Fact]] = {}
        self._senders = ThreadPoolExecutor(WAITING)

    def take(self, step: Step) -> dict[str, Fact]:
        """Do it; what came back by the name of its case, if anything did."""
        match step:
            case Case():
                return {step.name: self._ask(step)}
            case Begin():
                self._begun[step.case.name] = self._senders.submit(self._ask, step.case)
            case Finish():
                return {step.name: self._begun.pop(step.name).result()}
            case KillWorkers():
                self._kill_workers(step.model)
            case Restart():
                assert self._restart is not None, "this server cannot be restarted"
                self._server = self._restart()
        return {}

    def close(self) -> None:
        """Wait for whatever is on its way."""
        self._senders.shutdown()

    def _ask(self, case: Case) -> Fact:
        if case.port == "log":
            return self._read_log(case)
        case = with_places(with_keys(case, self._server.keys), self._server.places)
        end = time.monotonic() + UNTIL_S
        repeats = 0
        while True:
            answer = self._ask_once(case)
            if case.until is not None:
                is_done = re.search(case.until, str(answer.get("text", "")).encode()) is not None
                is_done = is_done or time.monotonic() > end
            else:
                is_done = answer["status"] not in case.repeat_while or repeats == REPEATS
            if is_done:
                return answer
            repeats += 1
            time.sleep(POLL_S)

    def _ask_once(self, case: Case) -> Fact:
        base_url = str(getattr(self._server, case.port))

        def send() -> Fact:
            try:
                if case.raw is not None:
                    answer = raw_http.send_raw(base_url, case.raw, timeout_s=case.timeout_s)
                else:
                    answer = raw_http.send(
                        *(base_url, case.method, case.path, case.headers, case.body),
                        timeout_s=case.timeout_s,
                    )
            except TimeoutError:
                return no_answer(f"no answer within {case.timeout_s:g} s")
            except ConnectionRefusedError:
                return no_answer("nobody listens")
            except ConnectionError:
                return no_answer("the connection broke before an answer")
            return answer_fact(case, answer, self._server.places)

        with ThreadPoolExecutor(case.batch_of) as senders:
            pending = [senders.submit(send) for _ in range(case.batch_of)]
            first, *others = [each.result() for each in pending]
        if case.answers_differ:
            return in_one([first, *others])
        for other in others:
            if other != first:
                return no_answer(f"not all answers of the batch are alike: {first}, {other}")
        return first

    def _read_log(self, case: Case) -> Fact:
        """The lines, once as many are there as must come: a line is written after its answer."""
        end = time.monotonic() + UNTIL_S
        while True:
            content = b""
            with suppress(FileNotFoundError):
                content = (self._server.logs / case.path).read_bytes()
            known, count = log_fact(case, content)
            if count >= case.line_count or time.monotonic() > end:
                return known
            time.sleep(POLL_S)

    def _kill_workers(self, model: str) -> None:
        case = Case("describe", "management", "GET", f"/models/{model}")
        case = with_keys(replace(case, headers=()), self._server.keys)
        described = raw_http.send(self._server.management, "GET", case.path).body
        for pid in DESCRIBED_PID.findall(described):
            os.kill(int(pid), signal.SIGKILL)


def take_all(
    steps: list[Step],
    server: Asked,
    restart: Callable[[], Asked] | None = None,
    report: Callable[[str, Fact], object] = lambda name, known: None,
) -> dict[str, Fact]:
    """Every step in its order; facts by the names of their cases."""
    asker = Asker(server, restart)
    facts: dict[str, Fact] = {}
    try:
        for step in steps:
            for name, known in asker.take(step).items():
                facts[name] = known
                report(name, known)
    finally:
        asker.close()
    return facts
