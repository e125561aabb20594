"""Ask the real TorchServe every case and write facts.json.

    .venv/bin/python -m conformance.record REFERENCE_VENV [SCENARIO ...]

REFERENCE_VENV holds torchserve, torch-model-archiver, torch and torchvision; Java is on
PATH. Named scenarios are recorded anew, the others kept. Nothing is left behind.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from conformance import raw_http
from conformance.archives import build_archives
from conformance.case import Scenario, with_keys
from conformance.compare import ask
from conformance.scenarios import SCENARIOS

FACTS = Path(__file__).resolve().parent.parent / "tests" / "system" / "facts.json"
STARTUP_S = 120
ADDRESSES = ("inference_address", "management_address", "metrics_address")


def main(reference: Path, names: list[str]) -> None:
    facts: dict[str, dict[str, object]] = {}
    if names and FACTS.exists():
        facts = json.loads(FACTS.read_text())
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        started = time.monotonic()
        with TemporaryDirectory() as scratch:
            store = Path(scratch, "store")
            build_archives(store, scenario.archives, packed_by=reference)
            with torchserve(reference, scenario, Path(scratch)) as (inference, management):
                facts[scenario.name] = ask_all(scenario, inference, management, Path(scratch))
        write(facts)
        report(f"{scenario.name}: {len(scenario.cases)} cases, {time.monotonic() - started:.0f} s")


def ask_all(
    scenario: Scenario, inference: str, management: str, scratch: Path
) -> dict[str, object]:
    answers: dict[str, object] = {}
    for case in scenario.cases:
        if case.name in answers:
            raise SystemExit(f"{scenario.name} holds {case.name!r} twice")
        base_url = inference if case.port == "inference" else management
        answer = ask(with_keys(case, keys_in(scratch)), base_url, raw_http)
        for _ in range(5):
            if answer["status"] not in case.repeat_while:
                break
            report(f"{case.name}: {answer['status']}, asking again")
            answer = ask(case, base_url, raw_http)
        answers[case.name] = answer
        report(f"  {case.name}: {answer['status']} {answer['reason']}")
    return answers


@contextmanager
def torchserve(reference: Path, scenario: Scenario, scratch: Path) -> Iterator[tuple[str, str]]:
    ports = free_ports(5)
    config = dict(zip(ADDRESSES, (f"http://127.0.0.1:{port}" for port in ports), strict=False))
    config |= {"grpc_inference_port": str(ports[3]), "grpc_management_port": str(ports[4])}
    config |= scenario.config
    config_file = scratch / "config.properties"
    config_file.write_text("".join(f"{key}={value}\n" for key, value in config.items()))
    temp = scratch / "temp"
    temp.mkdir()
    environment = {
        "PATH": f"{reference / 'bin'}:{os.environ['PATH']}",
        "HOME": str(scratch),
        "TEMP": str(temp),
        "TMPDIR": str(temp),
        "LOG_LOCATION": str(scratch / "logs"),
        "METRICS_LOCATION": str(scratch / "logs"),
        "LANG": "C.UTF-8",
    }
    command = [str(reference / "bin" / "torchserve"), "--start", "--foreground", "--ncs"]
    command += ["--ts-config", str(config_file), "--model-store", str(scratch / "store")]
    command += scenario.args
    if scenario.models:
        command += ["--models", *scenario.models]
    log_path = Path(os.environ.get("FACTS_LOG", scratch / "server.log"))
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=scratch, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            inference, management = config["inference_address"], config["management_address"]
            wait_until_ready(inference, management, scenario, scratch)
            yield inference, management
        finally:
            stop(process)


def keys_in(scratch: Path) -> dict[str, str]:
    """What is in the key file of a server that asks for keys."""
    try:
        entries = json.loads((scratch / "key_file.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):  # TorchServe's is empty for a moment
        return {}
    return {kind: entry["key"] for kind, entry in entries.items()}


def wait_until_ready(inference: str, management: str, scenario: Scenario, scratch: Path) -> None:
    deadline = time.monotonic() + STARTUP_S
    names = [Path(model).stem for model in scenario.models]
    while time.monotonic() < deadline:
        try:
            keys = keys_in(scratch)
            fetch(f"{inference}/ping", keys.get("inference"))
            described = [
                json.loads(fetch(f"{management}/models/{name}", keys.get("management")))
                for name in names
            ]
            workers = [worker for models in described for worker in models[0]["workers"]]
            if all(worker["status"] == "READY" for worker in workers) and len(workers) >= len(
                names
            ):
                return
        except (urllib.error.URLError, ConnectionError):
            pass
        time.sleep(0.2)
    raise SystemExit("TorchServe did not start")


def fetch(url: str, key: str | None) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return bytes(response.read())


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends exactly the server started here and what it started."""
    family = [psutil.Process(process.pid)] if process.poll() is None else []
    family += [child for parent in family for child in parent.children(recursive=True)]
    for member in reversed(family):
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=30)
    if alive:
        raise SystemExit(f"still running: {alive}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def write(facts: dict[str, dict[str, object]]) -> None:
    """One line per answer, so that a new recording shows its differences as lines."""
    scenarios = []
    for name in [scenario.name for scenario in SCENARIOS if scenario.name in facts]:
        answers = facts[name]
        lines = [f"  {json.dumps(case)}: {json.dumps(known)}" for case, known in answers.items()]
        scenarios.append(f" {json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n }")
    FACTS.write_text("{\n" + ",\n".join(scenarios) + "\n}\n")


def report(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
