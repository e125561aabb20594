"""What sealed requests cost: one server, asked plain and sealed in turn, in one run.

    python -m bench.sealed [--cases echo resnet_script] [--rounds 7] [--seconds 2] [--hpke]

A sealed request can be sent once only. So every round has a file of its own, in memory, with as
many requests as it may need, made just before; plain rounds read theirs from such a file too.
"""

import argparse
import base64
import secrets
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile

from bench import archives, machine
from bench.archives import Model
from bench.cases import WARM_UP_S
from bench.load import LoadFailed, LoadResult, run_requests, run_wrk
from bench.report import Series, number
from bench.run import ROOT, say
from bench.servers import Product, Server, ServerFailed, running
from torchkeep.client.sealing import SealedCall, Sealer
from torchkeep.runtime.claims import parse_claims

ECHO_BYTES = 64 << 10
# Case -> model, connections, and the largest share of the throughput that it may cost.
CASES = {
    "echo": (
        replace(archives.ECHO, payload=lambda: secrets.token_bytes(ECHO_BYTES)),
        32,
        0.25,
    ),
    "resnet_script": (archives.RESNET_SCRIPT, 8, 0.05),
}
SPARE = 2  # times the requests that the quickest round so far needed
SHARED_MEMORY = Path("/dev/shm")


class WrongAnswers(Exception):
    """What came back is not what the model answers, or not all of it."""


class Asker:
    """Asks one server for one model, plain or sealed."""

    def __init__(
        self,
        server: Server,
        model: Model,
        connections: int,
        build_dir: Path,
        has_sessions: bool = True,
    ) -> None:
        self._server = server
        self._path = f"/predictions/{model.name}"
        self._model = model
        self._payload = model.payload()
        self._connections = connections
        self._build_dir = build_dir
        document = server.get_json(f"/attestation?nonce={'A' * 43}")
        self._sealer = Sealer(parse_claims(base64.b64decode(document["claims"])).hpke_key)
        self._has_sessions = has_sessions
        self._quickest = 0.0  # requests per second

    def warm_up(self) -> None:
        payload = self._build_dir / f"{self._model.name}.payload"
        payload.write_bytes(self._payload)
        url, kind = self._server.url(self._model.name), self._model.content_type
        result = run_wrk(url, payload, kind, self._connections, WARM_UP_S)
        self._quickest = result.requests_per_s

    def plain(self, seconds: int) -> float:
        """Requests per second."""
        body, kind = self._payload, self._model.content_type
        answer = self._server.ask(self._path, body, kind)
        return self._round(seconds, lambda: (body, kind), answer)

    def sealed(self, seconds: int) -> float:
        call = self._seal()
        answer = self._server.ask(self._path, call.body, call.content_type)
        opened = call.opened(*answer)
        plain = self._server.predict(self._model.name, self._payload, self._model.content_type)
        if (opened.status, opened.body) != (200, plain):
            raise WrongAnswers(f"{self._model.name}: sealed, it answers {opened.status}, or else")

        def next_request() -> tuple[bytes, str]:
            call = self._seal()
            return call.body, call.content_type

        return self._round(seconds, next_request, answer)

    def _seal(self) -> SealedCall:
        headers = [(b"Content-Type", self._model.content_type.encode())]
        if not self._has_sessions:
            self._sealer.forget()
        return self._sealer.seal("POST", self._path, self._payload, headers)

    def _round(
        self,
        seconds: int,
        next_request: Callable[[], tuple[bytes, str]],
        answer: tuple[int, str, bytes],
    ) -> float:
        with NamedTemporaryFile(dir=SHARED_MEMORY) as file:
            for _ in range(int(self._quickest * seconds * SPARE) + 2 * self._connections):
                request = self._http(*next_request())
                file.write(request)
            file.flush()
            result = run_requests(
                f"http://{self._server.inference}/",
                Path(file.name),
                len(request),
                self._connections,
                seconds,
            )
        self._check(result, answer)
        self._quickest = max(self._quickest, result.requests_per_s)
        return result.requests_per_s

    def _http(self, body: bytes, content_type: str) -> bytes:
        head = f"POST {self._path} HTTP/1.1\r\nHost: {self._server.inference}\r\n"
        head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _check(self, result: LoadResult, answer: tuple[int, str, bytes]) -> None:
        """By the lengths, since nobody opens thousands of answers on the side.

        Requests that were too few have come twice, which is an error of status 409.
        """
        if result.errors:
            raise WrongAnswers(f"{self._model.name}: {result.errors}")
        each = result.bytes_read / result.requests
        least = len(answer[2])
        if not least <= each <= least + 1000:
            raise WrongAnswers(f"{self._model.name}: {each:.0f} bytes each, not {least} and a head")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench.sealed", description=__doc__)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--rounds", type=int, default=7, metavar="N")
    parser.add_argument("--seconds", type=int, default=2, metavar="N")
    parser.add_argument("--hpke", action="store_true", help="no sessions: all by HPKE")
    parser.add_argument("--build-dir", type=Path, default=ROOT / "build" / "bench")
    options = parser.parse_args(argv)
    options.build_dir.mkdir(parents=True, exist_ok=True)
    described = machine.describe(ROOT, Path(sys.executable))
    say("\n".join(f"{name}: {value}" for name, value in described.items()))
    is_met = True
    for case in options.cases:
        try:
            is_met &= measure(case, options)
        except (ServerFailed, LoadFailed, WrongAnswers) as error:
            say(f"{case} broke off: {error}")
            is_met = False
    return 0 if is_met else 1


def measure(case: str, options: argparse.Namespace) -> bool:
    """One case; whether it costs no more than it may."""
    build_dir, rounds, seconds = options.build_dir.resolve(), options.rounds, options.seconds
    model, connections, most = CASES[case]
    store = archives.model_store(build_dir)
    archives.build(model, store)
    product = Product("Torchkeep", Path(sys.executable).parent / "torchserve")
    plain, sealed = [], []
    with running(product, store, model.name, "", ["--insecure-simulated-tee"]) as server:
        server.wait_ready(model.name)
        asker = Asker(server, model, connections, build_dir, not options.hpke)
        asker.warm_up()
        for turn in range(1, rounds + 1):
            plain.append(asker.plain(seconds))
            sealed.append(asker.sealed(seconds))
            say(f"  {case}, {connections} connections: round {turn} of {rounds}")
    costs = Series(tuple(1 - s / p for s, p in zip(sealed, plain, strict=True)))
    cost = 1 - Series(tuple(sealed)).median / Series(tuple(plain)).median
    say(
        f"{case}: plain {Series(tuple(plain))} requests/s, sealed {Series(tuple(sealed))}, "
        f"cost {number(100 * cost)} % (of each round {number(100 * min(costs.values))} to "
        f"{number(100 * max(costs.values))} %), at most {number(100 * most)} %: "
        f"{'ok' if cost <= most else 'more'}"
    )
    return cost <= most


if __name__ == "__main__":
    sys.exit(main())
