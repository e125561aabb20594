"""SIMULATED confidential containers: a server each, and a stand-in for the agent in its guest.

The server is the product as it is. What the guest has measured of itself is what the stand-in says.
"""

import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from digit_archive import BIN, DemoFailed, stop
from standins.key_services import Agent

from torchkeep.runtime.simulated_tee import mint_quote

START_LIMIT_S = 180
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Guest:
    """What a TEE measures of the machine that it starts, and how."""

    mr_td: bytes  # firmware, and with it the image of the guest
    mr_config_id: bytes  # initdata
    further: Mapping[str, Any]  # arguments of mint_quote


class Pod:
    """One running server; all that it writes is below `place`."""

    def __init__(self, place: Path, ports: Sequence[int]) -> None:
        self.place = place
        self.inference, self.management, self.metrics = (
            f"http://127.0.0.1:{port}" for port in ports[:3]
        )
        self.attested = f"https://127.0.0.1:{ports[3]}"
        self.log_file = place / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def token(self, kind: str) -> str:
        """The API key of this kind, as the server left it for its owner."""
        keys = json.loads((self.place / "key_file.json").read_text())
        token: str = keys[kind]["key"]
        return token

    def manage(self, method: str, path: str) -> tuple[int, Any]:
        """Status and JSON of a call of the management API."""
        request = urllib.request.Request(
            self.management + path,
            method=method,
            headers={"Authorization": f"Bearer {self.token('management')}"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=START_LIMIT_S) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def wait_until_started(self) -> None:
        if not self.has_started():
            raise DemoFailed(f"The server did not start. It said:\n{self.log()}")

    def has_started(self) -> bool:
        """Whether it serves; False once it has ended instead."""
        return bool(self._wait_for(lambda: "Model server started." in self.log()))

    def fate_of(self, model: str) -> str:
        """Empty once the model is served; otherwise why it has no key, in the server's words."""

        def fate() -> list[str] | None:
            status, described = self.manage("GET", f"/models/{model}")
            if status != 200:
                return None
            if any(worker["status"] == "READY" for worker in described[0]["workers"]):
                return [""]
            reason = str(described[0].get("notReady", ""))
            return [reason] if reason.startswith("No key ") else None

        found = self._wait_for(fate)
        if found is None:
            raise DemoFailed(f"The server has ended. It said:\n{self.log()}")
        return str(found[0])

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def _wait_for(self, condition: Callable[[], Any]) -> Any:
        """What the condition gives once it is true; None where the server ends before."""
        assert self.process is not None, "it is started"
        deadline = time.monotonic() + START_LIMIT_S
        while self.process.poll() is None:
            if found := condition():
                return found
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"In {START_LIMIT_S} s the server got no further than:\n{self.log()}"
                )
            time.sleep(LOOK_EVERY_S)
        return None


class Pods:
    """Starts pods, and ends all of them together."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._agents = ExitStack()
        self._servers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Pods":
        return self

    def __exit__(self, *error: object) -> None:
        stop(*self._servers)
        self._agents.close()

    def start(
        self,
        name: str,
        guest: Guest,
        settings: Mapping[str, str],
        models: Sequence[str] = (),
        ports: Sequence[int] | None = None,
    ) -> Pod:
        """An agent and a server that is starting; `models` are loaded at its start."""
        quoting = {"mr_td": guest.mr_td, "mr_config_id": guest.mr_config_id, **guest.further}
        agent = Agent(partial(mint_quote, **quoting))
        self._agents.enter_context(agent.listening())
        pod = Pod(self._root / name, ports or free_ports(4))
        temp = pod.place / "tmp"
        temp.mkdir(parents=True)
        lines = {
            "inference_address": pod.inference,
            "management_address": pod.management,
            "metrics_address": pod.metrics,
            "attested_address": pod.attested,
            "attested_tls": "true",
            "evidence": f"agent:{agent.address}",
            "insecure_simulated_tee": "true",
            "default_workers_per_model": "1",
            **settings,
        }
        properties = pod.place / "config.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        command = [str(BIN / "torchserve"), "--start", "--foreground", "--ncs"]
        command += ["--ts-config", str(properties), *(("--models", *models) if models else ())]
        # In a process group of its own, Ctrl-C reaches the server only through us.
        with pod.log_file.open("wb") as log:
            pod.process = subprocess.Popen(
                command,
                cwd=pod.place,
                env=os.environ | {"TEMP": str(temp), "TMPDIR": str(temp)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        self._servers.append(pod.process)
        return pod


def free_ports(count: int) -> list[int]:
    """Ports of this machine that are free now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
