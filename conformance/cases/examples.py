"""Handlers in the style of TorchServe's public examples: pictures, texts and sounds, data."""

import base64
import io
import json
import math
import struct
import wave

from conformance.case import (
    JSON,
    MULTIPART,
    Case,
    Scenario,
    form,
    infer,
    manage,
    picture,
    png,
    register,
    together,
)
from conformance.cases.metrics import log
from conformance.source import HANDLERS

PNG, JPEG, TEXT, WAV = "image/png", "image/jpeg", "text/plain", "audio/wav"
PHOTO = (HANDLERS / "examples" / "picture.jpg").read_bytes()
DIGITS = {
    "a one": ("...#...", "..##...", "...#...", "...#...", "...#...", "..###.."),
    "a four": ("....#..", "...##..", "..#.#..", ".#####.", "....#..", "....#.."),
    "a seven": (".#####.", "....#..", "...#...", "..#....", "..#....", "..#...."),
    "a zero": ("..###..", ".#...#.", ".#...#.", ".#...#.", ".#...#.", "..###.."),
}


def drawn(digit: str, scale: int = 5) -> bytes:
    rows = DIGITS[digit]

    def grey(x: int, y: int) -> tuple[int, ...]:
        return (255 if rows[y // scale][x // scale] == "#" else 0,)

    return png(len(rows[0]) * scale, len(rows) * scale, grey)


def stripes(width: int, colours: int = 3) -> bytes:
    def colour_at(x: int, y: int) -> tuple[int, ...]:
        return (255 * (x // width % 2), y * 4, 255 - x * 4, 128)[:colours]

    return png(60, 60, colour_at)


def body(value: object) -> bytes:
    return json.dumps(value).encode()


def asked(model: str, name: str, content: bytes, kind: str | None, **options: object) -> Case:
    options = {"comparison": "numbers", **options}
    return infer(name, f"/predictions/{model}", content, kind, **options)


def frames(*pictures: bytes) -> bytes:
    return body({"frames": [base64.b64encode(one).decode() for one in pictures]})


def two(left: bytes, right: bytes) -> bytes:
    return form(
        ('Content-Disposition: form-data; name="left"; filename="l.png"', left),
        ('Content-Disposition: form-data; name="right"; filename="r.png"', right),
    )


VISION = Scenario(
    "example pictures",
    archives=(
        "digits", "digit_pairs", "vit", "least_certain", "segment_whole", "two_pictures", "clip",
        "restyle", "portraits", "occluded", "micro_pictures",
    ),
    cases=[
        register("digits"),
        *(asked("digits", digit, drawn(digit), PNG) for digit in DIGITS),
        asked("digits", "a coloured digit", stripes(9), PNG),
        register("digit_pairs"),
        *together(*(asked("digit_pairs", f"{digit} of a pair", drawn(digit), PNG)
                    for digit in ("a one", "a four"))),
        register("vit"),
        asked("vit", "a png", picture(), PNG),
        asked("vit", "a photo", PHOTO, JPEG),
        asked("vit", "another picture", stripes(4), PNG),
        asked("vit", "a grey picture", drawn("a four"), PNG),
        asked("vit", "a picture with alpha", stripes(4, 4), PNG),
        register("least_certain"),
        asked("least_certain", "less certain finds", picture(), PNG),
        register("segment_whole"),
        asked("segment_whole", "all pixels", picture(), PNG, comparison="many numbers"),
        register("two_pictures"),
        asked("two_pictures", "the same twice", two(picture(), picture()), MULTIPART),
        asked("two_pictures", "two that differ", two(picture(), stripes(7)), MULTIPART),
        asked("two_pictures", "one is missing", form(
            ('Content-Disposition: form-data; name="left"; filename="l.png"', picture())),
            MULTIPART),
        register("clip"),
        asked("clip", "one frame", frames(picture()), JSON),
        asked("clip", "three frames", frames(picture(), stripes(3), stripes(9)), JSON),
        asked("clip", "no frames", frames(), JSON),
        asked("clip", "not a clip", picture(), PNG),
        register("restyle"),
        asked("restyle", "another style", picture(), PNG, comparison="media"),
        asked("restyle", "of a photo", PHOTO, JPEG, comparison="media"),
        register("portraits"),
        asked("portraits", "one portrait", body({"seed": 3}), JSON, comparison="media"),
        asked("portraits", "four portraits", body({"number_of_images": 4, "seed": 7}), JSON,
              comparison="media"),
        asked("portraits", "no wish", b"", None, comparison="media"),
        register("occluded"),
        asked("occluded", "classified", stripes(4), PNG),
        infer("explained by covering", "/explanations/occluded", stripes(4), PNG,
              comparison="numbers"),
        infer("explained for a target", "/explanations/occluded", form(
            ('Content-Disposition: form-data; name="data"; filename="p.png"', stripes(4)),
            ('Content-Disposition: form-data; name="target"', b"2")), MULTIPART,
            comparison="numbers"),
        register("micro_pictures"),
        *together(*(asked("micro_pictures", f"stripes of {width}", stripes(width), PNG)
                    for width in (2, 5, 11))),
    ],
    needs_torch=True,
    needs_captum=True,
)  # fmt: skip


def tone(*frequencies: int, seconds: float = 0.05, rate: int = 4000) -> bytes:
    """A WAV of these tones, one after the other."""
    samples = [
        round(12000 * math.sin(2 * math.pi * frequency * number / rate))
        for frequency in frequencies
        for number in range(int(seconds * rate))
    ]
    return wav(struct.pack(f"<{len(samples)}h", *samples), rate)


def wav(content: bytes, rate: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(content)
    return file.getvalue()


TEXTS = [
    register("translate"),
    asked("translate", "a sentence", b"the cat is sleeping", TEXT),
    asked("translate", "another sentence", b"good morning dog", TEXT),
    asked("translate", "as json", body({"text": "We go home today"}), JSON),
    asked("translate", "unknown words", b"never heard of", None),
    asked("translate", "no words", b"", TEXT),
    register("speak"),
    asked("speak", "a greeting", b"hello", TEXT, comparison="media"),
    asked("speak", "an umlaut", "grün".encode(), None, comparison="media"),
    register("transcribe"),
    asked("transcribe", "tones", tone(200, 900, 1500, 400), WAV),
    asked("transcribe", "one tone", tone(700, seconds=0.2), None),
    asked("transcribe", "in a form", form(
        ('Content-Disposition: form-data; name="data"; filename="s.wav"', tone(300, 1200))),
        MULTIPART),
    asked("transcribe", "not a sound", b"no sound at all", WAV),
    asked("transcribe", "a sound of nothing", wav(b"", 4000), WAV),
    register("any_text"),
    *together(
        asked("any_text", "typed text", b"what a fine day it is", TEXT),
        asked("any_text", "bytes", b"is that so?", None),
        asked("any_text", "json", body({"text": "I want my money back"}), JSON),
    ),
    *together(
        asked("any_text", "in a field", b"text=well+done", "application/x-www-form-urlencoded"),
        asked("any_text", "in a part", form(
            ('Content-Disposition: form-data; name="text"', b"why not?")), MULTIPART),
        asked("any_text", "in a file", form(
            ('Content-Disposition: form-data; name="text"; filename="t"', b"a broken thing")),
            MULTIPART),
    ),
    *together(
        asked("any_text", "one that has no text", body({"other": 1}), JSON),
        asked("any_text", "its neighbour", b"well", TEXT),
        asked("any_text", "its other neighbour", b"done", TEXT),
    ),
    register("catalogue"),
    asked("catalogue", "a search", b"green teapot", TEXT),
    asked("catalogue", "the best four", b"data=bicycle&k=4",
          "application/x-www-form-urlencoded"),
    asked("catalogue", "more than there are", form(
        ('Content-Disposition: form-data; name="data"', b"a red cart"),
        ('Content-Disposition: form-data; name="k"', b"99")), MULTIPART),
]  # fmt: skip

EXAMPLE = {"float_features": [0.5, -1.0, 2.0], "id_list_features.values": [3, 14, 15]}
EMPTY = {"float_features": [1.0, 1.0, 1.0], "id_list_features.values": []}
OF_ZEROS = {**EXAMPLE, "float_features": [0] * 3}
CUSTOMERS = b"calls,age,months\n3,25,6\n0,61,48\n9,33,1\n"


def rows(model: str, name: str, row: object = (0.5, -1.0, 2.0), **options: object) -> Case:
    return asked(model, name, body(row), JSON, **options)


DATA = Scenario(
    "example texts and data",
    archives=(
        "translate", "speak", "transcribe", "any_text", "catalogue",
        "recommend", "table", "forecast", "ensemble", "variants", "cached", "validated", "warmed",
        "counted",
    ),
    config={"model_metrics_auto_detect": "true"},
    cases=[
        *TEXTS,
        register("recommend"),
        rows("recommend", "one example", EXAMPLE),
        rows("recommend", "three examples", [EXAMPLE, EMPTY, OF_ZEROS]),
        rows("recommend", "an id that there is not", {**EXAMPLE, "id_list_features.values": [50]}),
        register("table"),
        asked("table", "customers", CUSTOMERS, "text/csv", comparison="exact"),
        asked("table", "as a file", form(
            ('Content-Disposition: form-data; name="data"; filename="c.csv"', CUSTOMERS)),
            MULTIPART, comparison="exact"),
        asked("table", "columns that are missing", b"age,months\n1,2\n", "text/csv"),
        asked("table", "no number", b"age,months,calls\n1,2,many\n", "text/csv"),
        register("forecast"),
        rows("forecast", "a series", {"series": [1.0, 2.0, 3.0, 2.5], "ahead": 5}),
        rows("forecast", "one value", {"series": [-4.0], "ahead": 1}),
        rows("forecast", "nothing ahead", {"series": [1.0], "ahead": 0}),
        register("ensemble"),
        rows("ensemble", "by both"),
        register("variants"),
        rows("variants", "the first variant"),
        rows("variants", "the other variant", headers=[("X-Variant", "b")]),
        rows("variants", "an unknown variant", headers=[("X-Variant", "c")]),
        rows("variants", "its header in small letters", headers=[("x-variant", "b")]),
        register("cached"),
        *(rows("cached", f"{name} of the cache", row) for name, row in (
            ("the first", [1, 2, 3.5]), ("the first again", [1, 2, 3.5]),
            ("the second", [0, 0, 1.5]),
            ("still the first", [1, 2, 3.5]), ("the third", [4.5, 0, 0]),
            ("the first, once more", [1, 2, 3.5]), ("the second, gone", [0, 0, 1.5]))),
        register("validated"),
        *together(rows("validated", "a good row"), rows("validated", "beside a short one", [1.5])),
        *together(rows("validated", "a dict", {"a": 1}),
                  rows("validated", "beside a dict", [1.5, 2.5, 3])),
        *together(rows("validated", "bad", [1.5]), rows("validated", "as bad", [])),
        register("warmed"),
        manage("warm before it is asked", "GET", "/models/warmed?customized=true",
               comparison="numbers"),
        rows("warmed", "asked"),
        manage("after it was asked", "GET", "/models/warmed?customized=true",
               comparison="numbers"),
        register("counted"),
        rows("counted", "measured"),
        rows("counted", "measured again", [9.5, 0, -3]),
        log("what was counted", "model_metrics.log",
            rb"RowsSeen|RowBytes|RowWidth|Certainty|ts_handler_", 10),
    ],
    needs_torch=True,
)  # fmt: skip

FOUR, OTHER_FOUR = [0.1, 0.2, -0.3, 4.0], [1.0, -1.0, 0.5, 0.0]


def instances(model: str, name: str, *given: object) -> Case:
    return asked(model, name, body({"instances": given}), JSON)


# The built-in base handler takes rows of an envelope only.
BASE = Scenario(
    "example base handler",
    archives=("base", "traced"),
    config={"service_envelope": "json"},
    environment={"ENABLE_TORCH_PROFILER": "TRUE", "TS_BENCHMARK": "true"},
    cases=[
        register("base"),
        instances("base", "one instance", FOUR),
        instances("base", "two instances", FOUR, OTHER_FOUR),
        instances("base", "no numbers", "text"),
        instances("base", "of different lengths", FOUR, [1.0]),
        register("traced"),
        instances("traced", "profiled", [0.5, -1.0, 2.0]),
        instances("traced", "profiled again", [1, 2, 3.5], [3.0, 0.25, 1.0]),
        log("what the profiles know", "model_log.log", rb"the profile knows", 2),
    ],
    needs_torch=True,
)

SCENARIOS = [VISION, DATA, BASE]
