"""Entry points, classes, handlers that need torch."""

import base64

from conformance.case import (
    JSON,
    MULTIPART,
    Scenario,
    form,
    infer,
    manage,
    picture,
    register,
)

ENTRY_POINTS = Scenario(
    "entry points",
    archives=("entry", "shadowed", "word_lengths"),
    cases=[
        register("entry"),
        infer("entry of the manifest", "/predictions/entry"),
        register("entry", model_name="entry_other", handler="other_entry:other"),
        infer("entry of the request", "/predictions/entry_other"),
        register("entry", model_name="entry_py", handler="other_entry.py:other"),
        infer("entry with .py", "/predictions/entry_py"),
        register("shadowed"),
        infer("function beside a class", "/predictions/shadowed"),
    ],
)

CLASSES = Scenario(
    "classes",
    archives=("word_lengths", "mlp", "base"),
    cases=[
        register("word_lengths"),
        infer("words as text", "/predictions/word_lengths", b"the size of a word", "text/plain"),
        infer("words as bytes", "/predictions/word_lengths", b"the size of a word"),
        infer(
            "words as a form",
            "/predictions/word_lengths",
            form(('Content-Disposition: form-data; name="data"', b"a form field")),
            MULTIPART,
        ),
        infer("words as json", "/predictions/word_lengths", b"[1]", JSON),
        infer("words explained", "/explanations/word_lengths", b"why these", "text/plain"),
        manage("customized description", "GET", "/models/word_lengths?customized=true"),
        register("mlp"),
        infer("mlp", "/predictions/mlp", b"[0.1, 0.2, -0.3, 4]", JSON, comparison="numbers"),
        infer("mlp wrong shape", "/predictions/mlp", b"[0.1, 0.2]", JSON),
        infer("mlp not numbers", "/predictions/mlp", b'{"a": 1}', JSON),
        register("base"),
        infer("base handler", "/predictions/base", b"[0.1, 0.2, -0.3, 4]", JSON),
    ],
    needs_torch=True,
)

TENSOR = Scenario(
    "tensor",
    archives=("replies",),
    cases=[
        register("replies"),
        infer("reply tensor", "/predictions/replies/1.0/tensor", comparison="tensor"),
    ],
    needs_torch=True,
)

RESNET = Scenario(
    "resnet",
    archives=("resnet",),
    cases=[
        register("resnet"),
        infer("picture", "/predictions/resnet", picture(), "image/png", comparison="numbers"),
        infer("picture without a type", "/predictions/resnet", picture(), comparison="numbers"),
        infer(
            "picture in a form",
            "/predictions/resnet",
            form(('Content-Disposition: form-data; name="data"; filename="p.png"', picture())),
            MULTIPART,
            comparison="numbers",
        ),
        infer(
            "picture in base64",
            "/predictions/resnet",
            base64.b64encode(picture()),
            "text/plain",
            comparison="numbers",
        ),
        infer("not a picture", "/predictions/resnet", b"not a picture"),
        infer("no picture", "/predictions/resnet"),
    ],
    needs_torch=True,
    needs_captum=True,
)

EXPLANATIONS = Scenario(
    "explanations",
    archives=("word_lengths",),
    cases=[
        register("word_lengths"),
        infer("explain text", "/explanations/word_lengths", b"why these", "text/plain"),
        infer("explain a version", "/explanations/word_lengths/1.0", b"why", "text/plain"),
        *(
            infer(
                f"explain for a target {name}",
                "/explanations/word_lengths",
                form(
                    ('Content-Disposition: form-data; name="data"', b"why these"),
                    (f'Content-Disposition: form-data; name="target"{lines}', target),
                ),
                MULTIPART,
            )
            for name, lines, target in (
                ("as json", '; filename="t"\r\nContent-Type: application/json', b"3"),
                ("as json, zero", '; filename="t"\r\nContent-Type: application/json', b"0"),
                ("as json, a list", '; filename="t"\r\nContent-Type: application/json', b"[1, 2]"),
                ("as text", '; filename="t"\r\nContent-Type: text/plain', b"3"),
                ("as a field", "", b"3"),
                ("as an empty field", "", b""),
            )
        ),
        infer("explain json", "/explanations/word_lengths", b'{"target": 3}', JSON),
        infer("explain an empty body", "/explanations/word_lengths"),
        infer(
            "explain by header", "/predictions/word_lengths", b"why", headers=[("explain", "True")]
        ),
    ],
    needs_torch=True,
)


PLACES = Scenario(
    "places",
    archives=("places", "places_dir", "places_shadowed"),
    cases=[
        register("places"),
        infer("places of an archive", "/predictions/places"),
        register("places_dir", url="places_dir"),
        infer("places of a directory", "/predictions/places_dir"),
        register("places_shadowed"),
        infer("modules of an archive", "/predictions/places_shadowed"),
    ],
    environment={"PYTHONPATH": "/nowhere/inherited"},
)


SCENARIOS = [ENTRY_POINTS, CLASSES, TENSOR, RESNET, EXPLANATIONS, PLACES]
