"""Handlers in the style of TorchServe's public examples, one for each way of running."""

import json

from conformance.case import JSON, Case, Scenario, infer, register, together

TEXT = "text/plain"


def generation(name: str, prompt: str, count: int) -> Case:
    wish = {"prompt": prompt, "max_new_tokens": count}
    return infer(name, "/predictions/generation_steps", json.dumps(wish).encode(), JSON)


def added(name: str, value: float, sequence: str) -> Case:
    headers = [("ts_request_sequence_id", sequence)]
    return infer(name, "/predictions/remembered_sums", str(value).encode(), headers=headers)


def route(name: str, path: str, wish: object = None, **options: object) -> Case:
    content = b"" if wish is None else json.dumps(wish).encode()
    kind = None if wish is None else JSON
    return infer(name, f"/predictions/completions/1.0/{path}", content, kind, **options)


PARALLEL_MODELS = ("split_layers", "staged_layers", "own_stages")

# Layers over two processes, however they meet.
PARALLEL = [
    step
    for name in PARALLEL_MODELS
    for step in (
        register(name),
        *(infer(f"{name} {row}", f"/predictions/{name}", json.dumps(row).encode(), JSON,
                comparison="numbers")
          for row in ([0.5, -1.0, 2.0], [3.0, 0.25, 1.0])),
    )
]  # fmt: skip

WAYS = Scenario(
    "example ways of running",
    archives=("token_stream", "generation_steps", "remembered_sums", "completions",
              *PARALLEL_MODELS),
    cases=[
        register("token_stream"),
        infer("a stream of tokens", "/predictions/token_stream", b"once upon", TEXT),
        infer("another stream", "/predictions/token_stream", b"the end?", TEXT),
        register("generation_steps"),
        generation("six steps", "a cat", 6),
        *together(
            generation("three steps beside", "hello", 3), generation("nine steps beside", "why", 9)
        ),
        register("remembered_sums"),
        added("the first of a", 10.5, "a"),
        added("the first of b", 1, "b"),
        added("the second of a", 20.25, "a"),
        added("the second of b", -3.5, "b"),
        added("the last of a", 80, "a"),
        register("completions"),
        route("its models", "v1/models", method="GET"),
        route("a completion", "v1/completions", {"prompt": "say it", "max_tokens": 12}),
        route("a completion by default", "v1/completions", {"prompt": "x"}),
        route("a streamed completion", "v1/completions",
              {"prompt": "say it", "max_tokens": 3, "stream": True}),
        route("no such route", "v1/embeddings", {"input": "x"}),
        route("no route", "", {"prompt": "x"}),
        route("no prompt", "v1/completions", {"max_tokens": 3}),
        *PARALLEL,
    ],
    needs_torch=True,
)  # fmt: skip

SCENARIOS = [WAYS]
