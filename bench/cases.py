"""What is measured: each case starts both servers with one archive and alternates between them."""

import json
import math
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import archives
from bench.archives import Model
from bench.bare_loop import bare_loop
from bench.load import LoadResult, run_wrk
from bench.report import BARE, OURS, REFERENCE, Row, Series, Target
from bench.servers import Product, Server, private_memory_mb, running, with_python_path

T = TypeVar("T")

ECHO_CONNECTIONS = (1, 8, 32)
RESNET_CONNECTIONS = 8
# Java compiles what has run often enough: without this TorchServe's first rounds are its worst.
WARM_UP_S = 4
TOLERANCE = 0.02  # of a probability; TorchServe and we may run different engines

THROUGHPUT, IMAGES, LATENCY = "throughput", "images", "p50"
ONE_MORE, PRIVATE, FIRST_ANSWER = "one more worker", "its private memory", "first answer"

TARGETS = (
    Target("echo, 32 connections", THROUGHPUT, REFERENCE, at_least=4),
    Target("echo, 1 connection", LATENCY, REFERENCE, at_most=1 / 3),
    Target("resnet_script, 8 connections", IMAGES, REFERENCE, at_least=1.15),
    Target("resnet_script, 8 connections", IMAGES, BARE, at_least=0.9),
    Target("resnet_eager, 8 connections", IMAGES, REFERENCE, at_least=1.15),
    Target("resnet_eager, 8 connections", IMAGES, BARE, at_least=0.9),
    Target("echo", ONE_MORE, REFERENCE, at_most=0.1),
    Target("resnet_script", ONE_MORE, REFERENCE, at_most=0.1),
    Target("bert", ONE_MORE, REFERENCE, at_most=0.1),
    Target("bert", PRIVATE, None, at_most=60),
    Target("echo from process start", FIRST_ANSWER, REFERENCE, at_most=0.5),
)


class AnswersDiffer(Exception):
    """The two servers were asked the same and did not answer alike."""


class CaseSkipped(Exception):
    """A case cannot run here; the message says what it lacks."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often and how long; the defaults keep a whole run below 15 minutes."""

    load: int = 5
    load_s: int = 6
    scale: int = 3
    start: int = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """The two products, and where everything goes."""

    products: Sequence[Product]
    build_dir: Path
    store: Path
    rounds: Rounds
    transformers: str  # a directory for PYTHONPATH, or nothing
    say: Callable[[str], None]

    def echo(self) -> Iterator[Row]:
        """Requests/s and the median latency of a handler that does nothing, in one worker."""
        with self._both(archives.ECHO) as servers:
            self._warm_up(servers, archives.ECHO)
            for connections in ECHO_CONNECTIONS:
                yield from self._requests(servers, archives.ECHO, connections)
            yield from self._one_more_worker(servers, archives.ECHO)

    def echo_unset(self) -> Iterator[Row]:
        """The same with as many workers as each server chooses."""
        with self._both(archives.ECHO_UNSET) as servers:
            self._warm_up(servers, archives.ECHO_UNSET)
            yield from self._requests(servers, archives.ECHO_UNSET, ECHO_CONNECTIONS[-1])

    def resnet_script(self) -> Iterator[Row]:
        """ResNet-18 as TorchScript."""
        with self._both(archives.RESNET_SCRIPT) as servers:
            yield from self._images(servers, archives.RESNET_SCRIPT)
            yield from self._one_more_worker(servers, archives.RESNET_SCRIPT)

    def resnet_eager(self) -> Iterator[Row]:
        """ResNet-18 as `--model-file` and a state dict."""
        with self._both(archives.RESNET_EAGER) as servers:
            yield from self._images(servers, archives.RESNET_EAGER)

    def bert(self) -> Iterator[Row]:
        """One more worker of BERT-base, and what it costs."""
        for product in self.products:
            self._need_transformers(product)
        with self._both(archives.BERT, self.transformers) as servers:
            yield from self._one_more_worker(servers, archives.BERT, with_memory=True)

    def start(self) -> Iterator[Row]:
        """From the start of the process to the first 200."""
        archives.build(archives.ECHO, self.store)
        payload = archives.ECHO.payload()

        def measure(product: Product) -> float:
            with running(product, self.store, "echo", "") as server:
                return server.first_answer("echo", payload)

        case = "echo from process start"
        # The first start of each reads its files from the disk: not counted.
        for product in self.products:
            measure(product)
        subjects = {product.name: partial(measure, product) for product in self.products}
        values = self._alternate(case, self.rounds.start, subjects)
        yield Row(case, FIRST_ANSWER, "s", {who: Series(tuple(v)) for who, v in values.items()})

    @contextmanager
    def _both(self, model: Model, python_path: str = "") -> Iterator[dict[str, Server]]:
        """Both servers with this model, ready and agreeing about the answer."""
        self.say(f"{model.name}: packing and starting both servers ...")
        archives.build(model, self.store)
        with ExitStack() as stack:
            servers = {}
            for product in self.products:
                server = stack.enter_context(running(product, self.store, model.name, python_path))
                server.wait_ready(model.name)
                servers[product.name] = server
            check_same_answers(servers, model)
            yield servers

    def _requests(
        self, servers: dict[str, Server], model: Model, connections: int
    ) -> Iterator[Row]:
        case = f"{model.name}, {connections} connection{'s' if connections > 1 else ''}"
        results = self._load(case, servers, model, connections)
        yield from _load_rows(case, results, THROUGHPUT, "requests/s")

    def _images(self, servers: dict[str, Server], model: Model) -> Iterator[Row]:
        case = f"{model.name}, {RESNET_CONNECTIONS} connections"
        archive = self.store / f"{model.name}.mar"
        with bare_loop(archive, model.handler, self._payload(model)) as bare:
            bare_rates: list[float] = []

            self._warm_up(servers, model)

            def measure_bare() -> None:
                bare_rates.append(bare.images_per_s(self.rounds.load_s))

            results = self._load(case, servers, model, RESNET_CONNECTIONS, measure_bare)
        images, latency = _load_rows(case, results, IMAGES, "images/s")
        images.series[BARE] = Series(tuple(bare_rates))
        yield from (images, latency)

    def _warm_up(self, servers: dict[str, Server], model: Model) -> None:
        for server in servers.values():
            url = server.url(model.name)
            run_wrk(url, self._payload(model), model.content_type, 8, WARM_UP_S)

    def _load(
        self,
        case: str,
        servers: dict[str, Server],
        model: Model,
        connections: int,
        afterwards: Callable[[], None] = lambda: None,
    ) -> dict[str, list[LoadResult]]:
        """Rounds of wrk, A B A B; `afterwards` runs at the end of each pair."""
        payload = self._payload(model)

        def measure(server: Server) -> LoadResult:
            url = server.url(model.name)
            seconds = self.rounds.load_s
            result = run_wrk(url, payload, model.content_type, connections, seconds)
            if server.product.name == REFERENCE:
                afterwards()
            return result

        subjects = {who: partial(measure, server) for who, server in servers.items()}
        return self._alternate(case, self.rounds.load, subjects)

    def _one_more_worker(
        self, servers: dict[str, Server], model: Model, with_memory: bool = False
    ) -> Iterator[Row]:
        memory: dict[str, list[float]] = {who: [] for who in servers}

        def measure(server: Server) -> float:
            before = server.workers(model.name)
            elapsed = server.scale(model.name, len(before) + 1)
            if with_memory:
                known = {worker["id"] for worker in before}
                (new,) = (w for w in server.workers(model.name) if w["id"] not in known)
                pid = int(new["pid"])
                server.predict_on(pid, model.name, model.payload(), model.content_type)
                memory[server.product.name].append(private_memory_mb(pid))
            server.scale(model.name, len(before))
            return elapsed

        subjects = {who: partial(measure, server) for who, server in servers.items()}
        times = self._alternate(f"{model.name}, {ONE_MORE}", self.rounds.scale, subjects)
        yield Row(model.name, ONE_MORE, "s", {who: Series(tuple(v)) for who, v in times.items()})
        if with_memory:
            series = {who: Series(tuple(values)) for who, values in memory.items()}
            yield Row(model.name, PRIVATE, "MB", series)

    def _alternate(
        self, what: str, rounds: int, subjects: Mapping[str, Callable[[], T]]
    ) -> dict[str, list[T]]:
        """A B A B: what disturbs the machine for a while disturbs both."""
        results: dict[str, list[T]] = {who: [] for who in subjects}
        for turn in range(1, rounds + 1):
            for who, measure in subjects.items():
                results[who].append(measure())
            self.say(f"  {what}: round {turn} of {rounds}")
        return results

    def _payload(self, model: Model) -> Path:
        path = self.build_dir / f"{model.name}.payload"
        path.write_bytes(model.payload())
        return path

    def _need_transformers(self, product: Product) -> None:
        environment = {**os.environ, "PYTHONPATH": with_python_path(self.transformers)}
        command = [str(product.torchserve.with_name("python")), "-c", "import transformers"]
        if subprocess.run(command, env=environment, capture_output=True).returncode != 0:
            raise CaseSkipped(
                f"bert is skipped: {product.name}'s environment cannot import transformers;"
                " see bench/README.md"
            )


def check_same_answers(servers: dict[str, Server], model: Model) -> None:
    """A faster wrong answer is no result. Raises AnswersDiffer."""
    answers = {
        who: server.predict(model.name, model.payload(), model.content_type)
        for who, server in servers.items()
    }
    ours, theirs = answers[OURS], answers[REFERENCE]
    if ours != theirs and not alike(json.loads(ours), json.loads(theirs)):
        raise AnswersDiffer(f"{model.name}: {OURS} answers {ours!r}, {REFERENCE} {theirs!r}")


def alike(ours: object, theirs: object) -> bool:
    """The same shape and keys, and numbers within the tolerance."""
    match ours, theirs:
        case dict(), dict():
            return ours.keys() == theirs.keys() and all(alike(ours[k], theirs[k]) for k in ours)
        case list(), list():
            return len(ours) == len(theirs) and all(map(alike, ours, theirs))
        case float() | int(), float() | int():
            return math.isclose(ours, theirs, abs_tol=TOLERANCE)
    return ours == theirs


def _load_rows(
    case: str, results: dict[str, list[LoadResult]], measure: str, unit: str
) -> tuple[Row, Row]:
    """Throughput and latency of the same rounds, both spoiled by any error in them."""
    errors: dict[str, dict[str, int]] = {}
    for who, rounds in results.items():
        for result in rounds:
            for kind, count in result.errors.items():
                counts = errors.setdefault(who, {})
                counts[kind] = counts.get(kind, 0) + count
    rates = {
        who: Series(tuple(r.requests_per_s for r in rounds)) for who, rounds in results.items()
    }
    medians = {who: Series(tuple(r.p50_ms for r in rounds)) for who, rounds in results.items()}
    return Row(case, measure, unit, rates, errors), Row(case, LATENCY, "ms", medians, errors)
