"""Single statements of TorchServe's pages on its two APIs, asked at their edges."""

import json
from urllib.parse import quote

from conformance.case import (
    ECHO,
    FORM,
    JSON,
    MULTIPART,
    Begin,
    Case,
    Finish,
    Scenario,
    form,
    infer,
    manage,
    register,
    reply,
)

ONE_WORKER = {"default_workers_per_model": "1"}
DATA = 'Content-Disposition: form-data; name="a"'
FILE = f'{DATA}; filename="f"'


def forms(title: str, *bodies: bytes, deliberate: str | None = None) -> list[Case]:
    return [infer(f"{title} {body!r}", ECHO, body, FORM, deliberate=deliberate) for body in bodies]


def parts(title: str, *heads: str, deliberate: str | None = None) -> list[Case]:
    return [
        infer(f"{title} {head}", ECHO, form((head, b"1")), MULTIPART, deliberate=deliberate)
        for head in heads
    ]


BODIES = Scenario(
    "bodies at their edges",
    archives=("echo",),
    models=("echo.mar",),
    config=ONE_WORKER,
    cases=[
        *forms("form", b"a&b=1&c", b"a=1&", b"a+b=c+d&e=%2B", b"a=1;b=2", b" a = 1 ", b"a\tb=1",
               b"a\nb=1", b"a=1\r\n", b"a=1\n&b=2", b"a=\n", b"a=%00&%C3%A4=%FF", b"body=1"),
        *forms("form with an escape", b"a=%", b"a=xx%ZZ", b"%4x=1"),
        *forms("form with a nameless field", b"&", b"=1", b"a=1&&b=2", b"%20=1",
               deliberate="form-errors"),
        *(infer(f"form by {method}", ECHO, b"a=1", FORM, method=method)
          for method in ("GET", "PUT", "DELETE", "PATCH")),
        *parts("part", f"{FILE}\r\nContent-Type:",
               f"{FILE}\r\nContent-Type: Text/Plain ; charset=utf-8",
               f"{DATA}; filename*=UTF-8''f", f'{DATA}; filename=""',
               'content-disposition: form-data;NAME=" a;b "',
               f"{DATA}\r\nContent-Transfer-Encoding: base64",
               f"{FILE}\r\nContent-Transfer-Encoding: BINARY",
               f"{FILE}\r\nContent-Transfer-Encoding: base64"),
        *parts("part without a name", "Content-Type: text/plain", "Content-Disposition: form-data",
               'Content-Disposition: form-data; name=" "',
               'Content-Disposition: attachment; name="a"', deliberate="form-errors"),
        *parts("part of an unknown charset", f"{FILE}\r\nContent-Type: text/plain; charset=none",
               f"{DATA}\r\nContent-Type: text/plain; charset=none", deliberate="form-errors"),
        infer("form for an unknown model", "/predictions/unknown", b"a=%ZZ", FORM),
        *(infer(f"type {content_type}", ECHO, b"[1]", content_type) for content_type in (
            "application/json ; charset=utf-8", "Multipart/Form-Data; boundary=frontier",
            "multipart/form-dataX; boundary=frontier", "textual", "; charset=utf-8")),
        infer("two types", ECHO, b"[1]",
              headers=[("Content-Type", "text/plain"), ("content-type", JSON)]),
        infer("fragment", f"{ECHO}/1.0/a#b", b"x"),
        *(infer(f"status {status}", ECHO, headers=reply(status)) for status in ("205", "304")),
        infer("head of status 404", ECHO, method="HEAD", headers=reply("404")),
    ],
)  # fmt: skip

SIZES = Scenario(
    "answers of the largest size",
    archives=("echo",),
    models=("echo.mar",),
    config={**ONE_WORKER, "max_response_size": "2000"},
    cases=[
        infer("of the limit", ECHO, headers=[("reply-text", "x" * 2000)]),
        infer("over the limit", ECHO, headers=[("reply-text", "x" * 2001)]),
        infer("after it", ECHO, headers=[("reply-text", "fine")]),
    ],
)


def described(way: str, **options: str) -> Case:
    headers = (("way", way), *options.items())
    name = " ".join(["described", way, *options.values()])
    return manage(name, "GET", "/models/described?customized=true", headers=headers)


DESCRIBED = Scenario(
    "handlers that describe themselves",
    archives=("described", "described_pairs", "short_queue"),
    cases=[
        register("described"),
        *(described(way) for way in (
            "dict", "none", "list", "bytes", "empty", "headers", "status", "type", "raise")),
        *(described("raw", raw=raw) for raw in (
            "", "null", "1", "[]", "text", '{"a": null}', '{"a":1,"a":2}', '{"a": "\\u2028<"}')),
        described("headers", describe="mine"),
        manage("of all versions", "GET", "/models/described/all?customized=true"),
        *(manage(f"customized {path}", "GET", f"/models/described{path}",
                 headers=(("way", "bytes"),))
          for path in ("/1.0?customized=TRUE", "/1.0/set-default?customized=true",
                       "?customized=yes", "?customized", "/9?customized=true")),
        described("exit"),
        register("described_pairs"),
        # TorchServe: a description is never in a batch, and ends the one before it
        Begin(infer("before a description", "/predictions/described_pairs", b"x",
                    headers=[("take-s", "0.5")])),
        manage("beside a prediction", "GET", "/models/described_pairs?customized=true",
               lines=rb'"batch"'),
        Finish("before a description"),
        # the queue as it is described: one with the worker, two that wait, no more; and a
        # description tells what there is when its turn comes, not what it found
        register("short_queue"),
        manage("an empty queue", "GET", "/models/short_queue"),
        Begin(infer("the first in the queue", "/predictions/short_queue", b"x",
                    headers=[("take-s", "3")])),
        manage("with the worker", "GET", "/models/short_queue",
               until=rb'"pendingRequests": 0'),
        Begin(infer("the second in the queue", "/predictions/short_queue", b"x")),
        manage("one waits", "GET", "/models/short_queue", until=rb'"pendingRequests": 1'),
        Begin(manage("the third in the queue", "GET", "/models/short_queue?customized=true")),
        manage("two wait", "GET", "/models/short_queue", until=rb'"pendingRequests": 2'),
        infer("a fourth", "/predictions/short_queue", b"x"),
        infer("a fourth of a version", "/predictions/short_queue/1.0", b"x"),
        manage("no room for a description", "GET", "/models/short_queue?customized=true"),
        *(Finish(f"the {one} in the queue") for one in ("first", "second", "third")),
    ],
)  # fmt: skip


def asked(name: str, fields: dict[str, object]) -> list[Case]:
    """A registration as JSON, and what came of it."""
    body = json.dumps({"url": "echo.mar", "model_name": name, **fields}).encode()
    headers = (("Content-Type", JSON),)
    return [
        manage(f"register {name}", "POST", "/models", headers=headers, body=body),
        manage(f"describe {name}", "GET", f"/models/{name}"),
    ]


NAMES = ["a b", "a/b", "ä", "x:y", "a\u2013b", "<&>'\"", "all", "1.0"]
PAGES = [
    "limit=0", "limit=-1", "limit=7", "limit=8", "limit=9", "limit=100", "limit=101", "limit=%2B3",
    "limit=3&next_page_token=5", "limit=3&next_page_token=6", "limit=3&next_page_token=8",
    "limit=0&next_page_token=8", "limit=0&next_page_token=9", "limit=3&next_page_token=-1",
    "limit=&next_page_token=", "limit=2&limit=3", "LIMIT=2",
]  # fmt: skip
WORKERS = [
    "min_worker=2&max_worker=3", "min_worker=1&max_worker=4", "max_worker=1", "max_worker=0",
    "min_worker=-1&max_worker=-1", "min_worker=1.5", "min_worker=99999999999", "min_worker=",
    "timeout=-1&number_gpu=3", "model_version=", "model_version=1.0", "model_version=9.9",
    "min_worker=-1&max_worker=0",
]  # fmt: skip

MODELS = Scenario(
    "models at their edges",
    archives=("echo", "echo_v2", "echo_config", "echo_tgz", "echo_dir"),
    cases=[
        manage("list nothing with a limit", "GET", "/models?limit=0"),
        *(case for name in NAMES for case in (
            manage(f"register {name}", "POST", f"/models?url=echo.mar&model_name={quote(name)}"),
            manage(f"describe {name}", "GET", f"/models/{quote(name, safe='')}"),
            manage(f"kserve readiness of {name}", "GET", f"/v1/models/{quote(name, safe='')}"),
            infer(f"infer {name}", f"/predictions/{quote(name, safe='')}", b"x"),
        )),
        *(manage(f"list {page}", "GET", f"/models?{page}") for page in PAGES),
        *(manage(f"unregister {name}", "DELETE", f"/models/{quote(name, safe='')}?timeout=1")
          for name in NAMES),
        *asked("nulls", dict.fromkeys(("batch_size", "synchronous", "handler", "runtime",
                                       "initial_workers", "max_batch_delay", "s3_sse_kms"))),
        *asked("numbers", {"batch_size": 2.0, "max_batch_delay": "9", "response_timeout": 11,
                           "startup_timeout": 12, "runtime": "python3", "more": 1}),
        *asked("unset", {"batch_size": -1, "max_batch_delay": -100, "response_timeout": -1}),
        *asked("zeros", {"batch_size": 0, "max_batch_delay": 0, "response_timeout": 0}),
        *asked("configured", {"url": "echo_config.mar", "initial_workers": 5, "batch_size": 2,
                              "response_timeout": 7}),
        *(manage(f"register as {title}", "POST", f"/models?url=echo.mar&model_name={name}",
                 headers=(("Content-Type", content_type),), body=b'{"url": "unknown.mar"}')
          for title, name, content_type in (
              ("JSON in capitals", "t1", "Application/JSON"), ("text/json", "t2", "text/json"),
              ("JSON with a blank", "t3", "application/json ; charset=utf-8"),
              ("a form", "t4", FORM))),
        *(manage(f"register with {query}", "POST", f"/models?url=echo.mar&model_name=q&{query}")
          for query in ("runtime=", "runtime=lsp", "runtime=PYTHON")),
        manage("register by runtime LSP", "POST", "/models?url=echo.mar&model_name=l&runtime=LSP"),
        manage("describe l", "GET", "/models/l"),
        *(manage(f"register {url}", "POST", f"/models?model_name=u{index}&url={quote(url)}",
                 comparison="load failure")
          for index, url in enumerate((
              "x/echo_tgz.tar.gz", "echo_dir/", "ftp://host/echo.mar", "ftp://host/unknown.mar",
              "FILE:///no/such.mar", "http://no-such-host.invalid/m.mar",
              "https://127.0.0.1:1/m.mar", "http://127.0.0.1:x/m.mar", "http:///m.mar",
              "http://127.0.0.1/m.mar?a=..", "a..b.mar", " ", "echo.mar?a=1", "echo.MAR"))),
        register("echo"),
        manage("register version 2", "POST", "/models?url=echo_v2.mar"),
        *(manage(f"scale {query}", "PUT", f"/models/echo?synchronous=true&{query}",
                 comparison="load failure")
          for query in WORKERS),
        manage("scale as version all", "PUT", "/models/echo/all?synchronous=true"),
        manage("describe a scaled model", "GET", "/models/echo"),
        infer("infer without workers, but wanted", ECHO, b"x"),
        manage("kserve readiness of none", "GET", "/v1/models/echo"),
        manage("ready none customized", "GET", "/models/echo/1.0?customized=true"),
        *(manage(f"{method} {path}", method, path) for method, path in (
            ("PUT", "/models/echo/all/set-default"), ("PUT", "/models/echo/1.0/set-default"),
            ("PUT", "/models/echo/2.0/set-default/"), ("DELETE", "/models/echo/2.0"),
            ("DELETE", "/models/echo/9/set-default"), ("GET", "/models/echo/9/set-default"),
            ("DELETE", "/models/echo/1.0/"), ("DELETE", "/models/echo/9/set-default?"),
            ("GET", "/models/echo"))),
    ],
)  # fmt: skip

MODELS_JSON = {
    "echo": {"1.0": {
        "defaultVersion": True, "marName": "echo.mar", "minWorkers": 2, "batchSize": 4,
        "maxBatchDelay": 55, "responseTimeout": 66, "startupTimeout": 77, "runtimeType": "python3",
    }},
    "batch_config": {"1.0": {
        "minWorkers": 1, "maxWorkers": 2, "batchSize": 4, "maxBatchDelay": 0, "responseTimeout": -6,
    }},
    "named": {"1.0": {"minWorkers": 3, "batchSize": 9, "responseTimeout": 8}},
}  # fmt: skip

SETTINGS = Scenario(
    "settings of models",
    archives=("echo", "echo_v2", "batch_config", "odd_config", "no_retries"),
    models=("echo.mar", "batch_config.mar"),
    config={
        **ONE_WORKER,
        "models": json.dumps(MODELS_JSON),
        "default_response_timeout": "33",
        "default_startup_timeout": "44",
        "default_service_handler": "echo:handle",
    },
    cases=[
        manage("describe by models JSON", "GET", "/models/echo"),
        manage("describe by a file and models JSON", "GET", "/models/batch_config"),
        *(case for path, query in (
              ("named", "url=echo.mar&model_name=named&initial_workers=0&response_timeout=5"),
              ("plain", "url=echo.mar&model_name=plain&initial_workers=0"),
              ("defaults", "url=echo.mar&model_name=defaults&initial_workers=x"),
              ("odd_config", "url=odd_config.mar&initial_workers=0&response_timeout=5"),
              ("asked", "url=batch_config.mar&model_name=asked&initial_workers=0&batch_size=2"),
              ("echo/2.0", "url=echo_v2.mar&initial_workers=0"))
          for case in (manage(f"register {path}", "POST", f"/models?{query}"),
                       manage(f"describe {path}", "GET", f"/models/{path}"))),
        manage("unregister version 2", "DELETE", "/models/echo/2.0"),
        manage("unregister what was loaded at startup", "DELETE", "/models/echo"),
        manage("register it again", "POST", "/models?url=echo.mar&initial_workers=0"),
        manage("describe what was loaded at startup once", "GET", "/models/echo"),
        register("no_retries"),
        infer("end the worker", "/predictions/no_retries/1.0/os-exit", b"x"),
        infer("ping after it", "/ping", method="GET", until=b"Unhealthy"),
        manage("describe it", "GET", "/models/no_retries", deliberate="reasons-in-descriptions"),
        manage("scale it", "PUT", "/models/no_retries?min_worker=1&synchronous=true"),
        manage("scale it to zero", "PUT", "/models/no_retries?min_worker=0&synchronous=true"),
        infer("ping without it", "/ping", method="GET"),
    ],
)  # fmt: skip

METHODS = Scenario(
    "methods of all routes",
    archives=("echo",),
    models=("echo.mar",),
    config={**ONE_WORKER, "enable_model_api": "false"},
    args=("--disable-token-auth",),
    cases=[
        *(manage(f"{method} {path}", method, path)
          for path in ("/", "/models", "/models/echo", "/models/echo/1.0", "/models/echo/all",
                       "/models/echo/1.0/set-default", "/models/echo/1.0/other", "/v1/models/echo",
                       "/token", "/metrics", "/models//echo", "/models/echo//")
          for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE")),
        *(infer(f"{method} {path} for inference", path, method=method)
          for path in ("/", "/ping", "/wfpredict", "/predictions", "/metrics", "/models")
          for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "TRACE", "OPTIONS")),
    ],
)  # fmt: skip

SCENARIOS = [BODIES, SIZES, DESCRIBED, MODELS, SETTINGS, METHODS]
