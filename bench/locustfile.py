"""Load-test your own deployment, of Torchkeep or TorchServe, with a user for each route.

    locust -f bench/locustfile.py --host http://localhost:8080 --model my_model --payload cat.jpg
    locust -f bench/locustfile.py --host http://localhost:8080 --model my_model PredictBytes Ping

Every option can be given as an environment variable instead, see `locust -f ... --help`.
Without names all users run but those that are run only when named: `Scale` changes your
deployment, `PingByFastHttpUser` and `PingByHttpUser` measure Locust. It has a ceiling of its
own, below what a quick handler can answer: bench/README.md says how to find it.
"""

import json
from itertools import cycle
from pathlib import Path
from typing import Any

from locust import HttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.contrib.fasthttp import FastHttpUser
from locust.env import Environment

ONLY_WHEN_NAMED = ("Scale", "PingByFastHttpUser", "PingByHttpUser")
SCALE_TIMEOUT_S = 300


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    for flag, variable, default, meaning in (
        ("--model", "TORCHKEEP_MODEL", "echo", "registered name, or name/version"),
        ("--payload", "TORCHKEEP_PAYLOAD", "", "file to send; nothing: five bytes"),
        ("--content-type", "TORCHKEEP_CONTENT_TYPE", "application/octet-stream", "of the file"),
        ("--json-body", "TORCHKEEP_JSON_BODY", '{"data": "hello"}', "body that PredictJson sends"),
        ("--management", "TORCHKEEP_MANAGEMENT", "http://127.0.0.1:8081", "management address"),
        ("--metrics", "TORCHKEEP_METRICS", "http://127.0.0.1:8082", "metrics address"),
        ("--key", "TORCHKEEP_KEY", "", "token for predictions, where tokens are asked for"),
        ("--management-key", "TORCHKEEP_MANAGEMENT_KEY", "", "token for the management routes"),
    ):
        is_secret = "key" in flag
        parser.add_argument(
            flag, env_var=variable, default=default, help=meaning, is_secret=is_secret
        )


@events.init.add_listener
def leave_out_unnamed(environment: Environment, **_: Any) -> None:
    """`Scale` and its like stay off unless they are asked for by name."""
    options = environment.parsed_options
    named = (options.user_classes if options else None) or ()
    environment.user_classes = [
        user
        for user in environment.user_classes
        if user.__name__ not in ONLY_WHEN_NAMED or user.__name__ in named
    ]


class Route(FastHttpUser):
    """A user of one route; every user reads the options once, when it starts."""

    abstract = True

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.options = options
        self.predictions = f"/predictions/{options.model}"
        self.model_name = options.model.partition("/")[0]
        self.payload = Path(options.payload).read_bytes() if options.payload else b"hello"

    def headers(self, key: str, content_type: str = "") -> dict[str, str]:
        headers = {"Content-Type": content_type} if content_type else {}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        return headers

    def post(self, form: str, body: bytes, headers: dict[str, str]) -> None:
        name = f"{self.predictions}, {form}"
        self.client.post(self.predictions, data=body, headers=headers, name=name)


class PredictBytes(Route):
    """The payload file, as it is."""

    weight = 10

    @task
    def predict(self) -> None:
        headers = self.headers(self.options.key, self.options.content_type)
        self.post("bytes", self.payload, headers)


class PredictJson(Route):
    """A JSON body, which TorchServe decodes for the handler."""

    weight = 3

    def on_start(self) -> None:
        super().on_start()
        json.loads(self.options.json_body)  # a mistyped option fails here, not in every request

    @task
    def predict(self) -> None:
        headers = self.headers(self.options.key, "application/json")
        self.post("JSON", self.options.json_body.encode(), headers)


class PredictForm(Route):
    """The payload file as the field `data` of a form, as `curl -F data=@file` sends it."""

    weight = 3
    boundary = "torchkeep-locust"

    def on_start(self) -> None:
        super().on_start()
        disposition = 'Content-Disposition: form-data; name="data"; filename="payload"'
        head = f"--{self.boundary}\r\n{disposition}\r\nContent-Type: {self.options.content_type}"
        self.form = b"%b\r\n\r\n%b\r\n--%b--\r\n" % (
            head.encode(),
            self.payload,
            self.boundary.encode(),
        )

    @task
    def predict(self) -> None:
        content_type = f"multipart/form-data; boundary={self.boundary}"
        headers = self.headers(self.options.key, content_type)
        self.post("form", self.form, headers)


class Ping(Route):
    """What a load balancer asks."""

    wait_time = constant(1)

    @task
    def ping(self) -> None:
        self.client.get("/ping")


class Describe(Route):
    """The management API's reading routes."""

    wait_time = constant(1)

    @task(3)
    def describe(self) -> None:
        self._get(f"/models/{self.model_name}")

    @task
    def list_models(self) -> None:
        self._get("/models?limit=100")

    def _get(self, path: str) -> None:
        headers = self.headers(self.options.management_key)
        self.client.get(f"{self.options.management}{path}", headers=headers, name=path)


class Scrape(Route):
    """What Prometheus asks."""

    wait_time = constant(5)

    @task
    def metrics(self) -> None:
        self.client.get(f"{self.options.metrics}/metrics", name="/metrics")


class Scale(Route):
    """Changes the deployment, two workers then one, over and over: only when named."""

    network_timeout = SCALE_TIMEOUT_S

    def on_start(self) -> None:
        super().on_start()
        self.counts = cycle((2, 1))

    @task
    def scale(self) -> None:
        count = next(self.counts)
        query = f"min_worker={count}&max_worker={count}&synchronous=true"
        self.client.put(
            f"{self.options.management}/models/{self.model_name}?{query}",
            headers=self.headers(self.options.management_key),
            name=f"scale to {count}",
        )


class PingByFastHttpUser(Route):
    """`/ping` as often as Locust can, by the client that all users above are."""

    @task
    def ping(self) -> None:
        self.client.get("/ping")


class PingByHttpUser(HttpUser):
    """The same by Locust's other client, which most locustfiles use."""

    @task
    def ping(self) -> None:
        self.client.get("/ping")
