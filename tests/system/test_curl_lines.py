"""The curl lines of TorchServe's documentation, as they stand there.

Only what has to differ is replaced: ports, the host that archives come from, and names of
models for those that are here. Each line gives the documented answer here and, where the real
TorchServe is there, the same from it. The lines run in order: some need what others did.
"""

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from reference import Bases, as_parameters, real_torchserve
from serving import serving

from conformance.archives import build_archives

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

ARCHIVES = ("echo", "echo_v2", "echo_config")
KITTEN = b"\xff\xd8 a picture of a kitten \xff\xd9"
KSERVE = {"instances": [{"data": [1, 2]}]}
REQUEST_IDS = re.compile(r'"request_ids?": (?:"[^"]*"|\{[^}]*\})')
OF_ONE_SERVER = re.compile(
    r'"(Host|startTime|pid|memoryUsage|id|description|Content-Length)": ("(?:[^"\\]|\\.)*"|\d+)'
    r"|x-request-id: .*|boundary=[^\"]*|127\.0\.0\.1:\d+"
)


@dataclass(frozen=True)
class Answer:
    """What curl printed."""

    status: int
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def row(self) -> Any:
        """What the handler got, by name: type and value."""
        return {name: (one["type"], one["value"]) for name, one in self.json["row"].items()}

    def without_its_own(self) -> "Answer":
        return Answer(self.status, OF_ONE_SERVER.sub("", REQUEST_IDS.sub("", self.body)))


Check = Callable[[Answer], bool]


def says(status: int, /, **members: object) -> Check:
    return lambda answer: answer.status == status and answer.json == members


def tells(text: str, status: int = 200) -> Check:
    return says(status, status=text)


def error(status: int, kind: str, message: str) -> Check:
    return says(status, code=status, type=kind, message=message)


def sees(**row: tuple[str, object]) -> Check:
    return lambda answer: answer.status == 200 and answer.row == row


def has(header: str, value: str) -> Check:
    return lambda answer: answer.status == 200 and answer.json["headers"][header] == value


def is_document(title: str) -> Check:
    return lambda answer: answer.status == 200 and answer.json["info"]["title"] == title


def describes(*versions: str, **members: object) -> Check:
    def check(answer: Answer) -> bool:
        found = {one["modelVersion"]: one for one in answer.json}
        wanted = members.items()
        return set(found) == set(versions) and all(wanted <= one.items() for one in found.values())

    return check


BYTES = ("bytearray", KITTEN.decode("latin-1"))
NOT_FOUND = "Requested resource is not found, please refer to API document."
NOT_ALLOWED = "Requested method is not allowed, please refer to API document."

# The cheat sheet of the inference API.
CHEAT_SHEET: list[tuple[str, Check]] = [
    ("curl :8080/ping", tells("Healthy")),
    ("curl -X OPTIONS :8080", is_document("TorchServe APIs")),
    ("curl :8080/predictions/noop -T kitten.jpg", sees(body=BYTES)),
    ("curl :8080/predictions/noop -F data=@kitten.jpg", sees(data=BYTES)),
    (
        """curl -H 'Content-Type: application/json' -d '{"a":1}' :8080/predictions/noop""",
        sees(body=("dict", {"a": 1})),
    ),
    (
        "curl -H 'Content-Type: text/plain' -d hi :8080/predictions/noop",
        sees(body=("str", "hi")),
    ),
    (
        "curl :8080/predictions/noop/1.0/v1/chat/completions -d 'a=b'",
        has("url_path", "v1/chat/completions"),
    ),
    (
        "curl :8080/predictions/none",
        error(404, "ModelNotFoundException", "Model not found: none"),
    ),
    ("curl :8080/", error(405, "MethodNotAllowedException", NOT_ALLOWED)),
]

# As the documentation of the inference, metrics and management APIs has them, and in its order.
INFERENCE: list[tuple[str, Check]] = [
    ("curl http://localhost:8080/ping", tells("Healthy")),
    ("curl -X OPTIONS http://localhost:8080", is_document("TorchServe APIs")),
    ("curl http://localhost:8080/api-description", is_document("TorchServe APIs")),
    ("curl http://localhost:8080/predictions/noop -T kitten.jpg", sees(body=BYTES)),
    ('curl http://localhost:8080/predictions/noop -F "data=@kitten.jpg"', sees(data=BYTES)),
    ("curl http://localhost:8080/predictions/noop/1.0 -T kitten.jpg", sees(body=BYTES)),
    ('curl http://localhost:8080/predictions/noop/1.0 -F "data=@kitten.jpg"', sees(data=BYTES)),
    ("curl -X POST http://127.0.0.1:8080/predictions/noop -T kitten.jpg", sees(body=BYTES)),
    (
        "curl -v http://localhost:8080/predictions/noop "
        "-F 'data=@kitten.jpg' -F 'more=@kserve.json;type=application/json'",
        sees(data=BYTES, more=("dict", KSERVE)),
    ),
    (
        "curl http://localhost:8080/predictions/noop --data-binary @kitten.jpg "
        "-H 'Content-Type: image/jpeg'",
        sees(body=BYTES),
    ),
    (
        "curl http://localhost:8080/predictions/noop -d 'text=hello world'",
        sees(text=("bytearray", "hello world")),
    ),
    (
        "curl http://localhost:8080/predictions/noop --data-urlencode 'text=a & b' -d 'n=1'",
        sees(text=("bytearray", "a & b"), n=("bytearray", "1")),
    ),
    (
        "curl -G http://localhost:8080/predictions/noop --data-urlencode 'text=left out'",
        sees(body=("bytearray", "")),
    ),
    (
        "curl -G http://localhost:8080/models/noop/invoke --data-urlencode 'text=a & b'",
        lambda answer: answer.row["text"] == ("bytearray", "a & b"),
    ),
    ("curl http://127.0.0.1:8080/explanations/noop -T kitten.jpg", has("explain", "True")),
    (
        'curl -H "Content-Type: application/json" --data @kserve.json '
        "http://127.0.0.1:8080/v1/models/noop:predict",
        sees(body=("dict", KSERVE)),
    ),
    (
        'curl -H "Content-Type: application/json" --data @kserve.json '
        "http://127.0.0.1:8080/v1/models/noop:explain",
        has("explain", "True"),
    ),
    (
        'curl -X POST -H "Content-Type: application/json" -d @kserve.json '
        "http://localhost:8080/v2/models/noop/infer",
        sees(body=("dict", KSERVE)),
    ),
    (
        "curl -X POST http://localhost:8080/invocations?model_name=noop -T kitten.jpg",
        lambda answer: answer.row["body"] == BYTES,
    ),
    ("curl -I http://localhost:8080/ping", lambda answer: answer.status == 200),
    ("curl http://127.0.0.1:8082/metrics", lambda answer: answer.status == 200),
    (
        'curl "http://127.0.0.1:8082/metrics?name[]=ts_inference_latency_microseconds'
        '&name[]=ts_inference_requests_total" --globoff',
        lambda answer: answer.status == 200,
    ),
    ("curl http://localhost:8080/nothing", error(404, "ResourceNotFoundException", NOT_FOUND)),
]

NO_WORKERS = "0 initial workers. Use scale workers API to add workers for the model."
FROM_HERE = "https://torchserve.pytorch.org/mar_files/"

MANAGEMENT: list[tuple[str, Check]] = [
    ("curl -X OPTIONS http://localhost:8081", is_document("TorchServe APIs")),
    (
        f'curl -X POST "http://localhost:8081/models?url={FROM_HERE}squeezenet1_1.mar'
        '&model_name=squeezenet1_1"',
        tells(f'Model "squeezenet1_1" Version: 1.0 registered with {NO_WORKERS}'),
    ),
    (
        "curl -v -X POST "
        '"http://localhost:8081/models?initial_workers=1&synchronous=false&model_name=later'
        f'&url={FROM_HERE}later.mar"',
        tells("Processing worker updates...", 202),
    ),
    (
        "curl -v -X POST "
        '"http://localhost:8081/models?initial_workers=1&synchronous=true&model_name=soon'
        f'&url={FROM_HERE}soon.mar"',
        tells('Model "soon" Version: 1.0 registered with 1 initial workers'),
    ),
    (
        'curl -X POST "http://localhost:8081/models?url=echo_v2.mar&model_name=noop'
        '&batch_size=1&max_batch_delay=50&response_timeout=120"',
        tells(f'Model "noop" Version: 2.0 registered with {NO_WORKERS}'),
    ),
    (
        'curl -X POST http://localhost:8081/models -H "Content-Type: application/json" '
        """-d '{"url": "echo.mar", "model_name": "by_json"}'""",
        tells(f'Model "by_json" Version: 1.0 registered with {NO_WORKERS}'),
    ),
    (
        'curl -v -X PUT "http://localhost:8081/models/noop?min_worker=2&synchronous=true"',
        tells("Workers scaled to 2 for model: noop"),
    ),
    (
        'curl -v -X PUT "http://localhost:8081/models/noop/2.0?min_worker=1&synchronous=true"',
        tells("Workers scaled to 1 for model: noop, version: 2.0"),
    ),
    (
        'curl -v -X PUT "http://localhost:8081/models/noop?min_worker=2"',
        tells("Processing worker updates...", 202),
    ),
    ("curl http://localhost:8081/models/noop", describes("1.0", modelName="noop")),
    ("curl http://localhost:8081/models/noop/2.0", describes("2.0", maxBatchDelay=50)),
    (
        "curl http://localhost:8081/models/noop/all",
        describes("1.0", "2.0", modelName="noop", runtime="python"),
    ),
    (
        'curl "http://localhost:8081/models/noop/1.0?customized=true"',
        describes("1.0", customizedMetadata={"described": "noop"}),
    ),
    (
        'curl "http://localhost:8081/models"',
        lambda answer: (
            [one["modelName"] for one in answer.json["models"]]
            == ["by_json", "later", "noop", "soon", "squeezenet1_1"]
        ),
    ),
    (
        'curl "http://localhost:8081/models?limit=2&next_page_token=2"',
        lambda answer: (
            answer.json["nextPageToken"] == "4"
            and [one["modelName"] for one in answer.json["models"]] == ["noop", "soon"]
        ),
    ),
    (
        "curl -v -X PUT http://localhost:8081/models/noop/2.0/set-default",
        tells('Default version successfully updated for model "noop" to "2.0"'),
    ),
    (
        "curl -X OPTIONS http://localhost:8081/models/noop",
        is_document("RESTful Management API for: noop"),
    ),
    ("curl http://localhost:8081/v1/models/noop", says(200, name="noop", ready=True)),
    (
        "curl -X DELETE http://localhost:8081/models/noop/1.0",
        tells('Model "noop" unregistered'),
    ),
    *(
        (
            f"curl -X DELETE http://localhost:8081/models/{name}",
            tells(f'Model "{name}" unregistered'),
        )
        for name in ("by_json", "later", "soon", "squeezenet1_1")
    ),
    (
        "curl -X DELETE http://localhost:8081/models/noop/1.0",
        error(
            404,
            "ModelVersionNotFoundException",
            "Model version: 1.0 does not exist for model: noop",
        ),
    ),
]


class _Archive(SimpleHTTPRequestHandler):
    """Gives the same archive under every name."""

    def translate_path(self, path: str) -> str:
        return f"{self.directory}/echo.mar"

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where curl runs: the files that the lines name, and the model store."""
    place = tmp_path_factory.mktemp("curl")
    (place / "kitten.jpg").write_bytes(KITTEN)
    (place / "kserve.json").write_text(json.dumps(KSERVE))
    build_archives(place / "store", ARCHIVES)
    return place


@pytest.fixture(scope="module")
def host_of_archives(place: Path) -> Iterator[str]:
    handler = partial(_Archive, directory=str(place / "store"))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture(scope="module")
def ours(shared_server_factory: Callable[..., Any], place: Path) -> Bases:
    server = shared_server_factory(store=place / "store")
    return Bases(server.inference, server.management, server.metrics)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bases]:
    home = tmp_path_factory.mktemp("reference")
    with real_torchserve(ARCHIVES, (), home) as bases:
        yield bases


@pytest.fixture(params=as_parameters(), scope="module")
def servers(request: pytest.FixtureRequest, ours: Bases) -> list[Bases]:
    return [ours, request.getfixturevalue("theirs")] if request.param else [ours]


def run(line: str, bases: Bases, host_of_archives: str, place: Path) -> Answer:
    for port, base in {
        8080: bases.inference,
        8081: bases.management,
        8082: bases.metrics,
    }.items():
        line = re.sub(rf"(http://)?(localhost|127\.0\.0\.1)?:{port}\b", base, line)
    words = shlex.split(line.replace(FROM_HERE, host_of_archives))
    ended = subprocess.run(
        [*words, "-sS", "-w", "\n%{http_code}"],
        cwd=place,
        capture_output=True,
        timeout=60,
        check=True,
    )
    body, _, status = ended.stdout.decode("utf-8").rpartition("\n")
    return Answer(int(status), body)


def test_documented_curl_lines(servers: list[Bases], host_of_archives: str, place: Path) -> None:
    register = (
        'curl -X POST "http://localhost:8081/models?url=echo.mar&model_name=noop&initial_workers=1"',
        None,
    )
    wrong = []
    for line, check in [register, *CHEAT_SHEET, *INFERENCE, *MANAGEMENT]:
        answers = [run(line, bases, host_of_archives, place) for bases in servers]
        if check is not None and not check(answers[0]):
            wrong.append(f"{line}\n  {answers[0]}"[:1000])
        if any(
            answer.without_its_own() != answers[0].without_its_own()
            for answer in answers
            if ":8082" not in line
        ):
            wrong.append(f"{line}\n  " + "\n  ".join(str(one)[:1000] for one in answers))
    for bases in servers:
        run("curl -X DELETE http://localhost:8081/models/noop", bases, host_of_archives, place)
    assert not wrong, "\n".join(wrong)
    assert sorted(path.name for path in (place / "store").iterdir()) == [
        *("echo.mar", "echo_config.mar", "echo_v2.mar")
    ]
