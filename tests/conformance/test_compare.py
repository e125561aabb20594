"""What counts as a difference between two answers."""

import io
import json
import struct
import wave
from dataclasses import replace

import pytest

from conformance.case import Case
from conformance.compare import Fact, answer_fact, differences, log_fact, no_answer, unwanted
from conformance.raw_http import Answer

CASE = Case("c", "inference", "GET", "/")
ID = "01234567-89ab-cdef-0123-456789abcdef"


def fact(body: bytes = b"x", status: int = 200, case: Case = CASE, **headers: str) -> Fact:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return answer_fact(case, Answer(status, "OK", named, body, is_closed=False))


def test_equal_answers_do_not_differ() -> None:
    assert differences(CASE, fact(x_request_id=ID), fact(x_request_id=ID)) == []


def test_what_is_of_one_run_only_does_not_count() -> None:
    other = ID.replace("0", "1")
    bodies = [f'{{"id": "{ID}", "pid": 17}}'.encode(), f'{{"id": "{other}", "pid": 4}}'.encode()]
    one, two = (
        fact(body, x_request_id=request_id, content_length=str(len(body)))
        for body, request_id in zip(bodies, (ID, other), strict=True)
    )
    assert differences(CASE, one, two) == []


def test_status_reason_header_and_body_count() -> None:
    theirs, ours = fact(b"a", x_own="1"), fact(b"b", 404, x_own="2")
    assert differences(CASE, theirs, ours) == [
        "body 'b', TorchServe 'a'",
        "status 404, TorchServe 200",
        "header ['x-own', '2'] is not TorchServe's",
        "header ['x-own', '1'] is missing",
    ]


def test_of_long_texts_only_the_lines_that_differ_are_told() -> None:
    theirs, ours = fact(b"one\ntwo\nthree"), fact(b"one\nzwei\nthree")
    assert differences(CASE, theirs, ours) == [
        "body, TorchServe - and Torchkeep +:",
        "  -two",
        "  +zwei",
    ]


def test_no_answer_differs_from_one() -> None:
    found = differences(CASE, no_answer("no answer within 3 s"), fact())
    assert found[:2] == ["body 'x', TorchServe None", "status 200, TorchServe 0"]


def test_numbers_may_differ_a_little() -> None:
    case = replace(CASE, comparison="numbers")
    assert differences(case, fact(b'{"a": [0.5]}'), fact(b'{"a": [0.5001]}')) == []
    assert differences(case, fact(b'{"a": [0.5]}'), fact(b'{"a": [0.6]}'))
    assert differences(case, fact(b'{"a": 0.5}'), fact(b"no json"))


@pytest.mark.parametrize(
    ("our_status", "ours", "is_wanted"),
    [(503, 503, True), (503, 200, False), (None, 500, True), (None, 503, False)],
)
def test_of_a_deliberate_difference_the_status_is_checked(
    our_status: int | None, ours: int, is_wanted: bool
) -> None:
    case = replace(CASE, deliberate="an-id", our_status=our_status)
    assert (unwanted(case, fact(b"a", 500), fact(b"b", ours)) == []) is is_wanted


def test_lines_of_metrics_are_compared_without_what_was_measured() -> None:
    case = replace(CASE, lines=rb"^[^#]")
    theirs = fact(
        b'# HELP\nQueueTime{hostname="a",} 3.0\nRequests2XX{Hostname="a",} 2.0', case=case
    )
    ours = fact(b'Requests2XX{Hostname="b",} 2.0\nQueueTime{hostname="b",} 0.0', case=case)
    assert differences(case, theirs, ours) == []
    more = fact(b'Requests2XX{Hostname="b",} 3.0\nQueueTime{hostname="b",} 0.0', case=case)
    assert len(differences(case, theirs, more)) == 3


def test_lines_of_a_log_are_picked_and_masked() -> None:
    case = replace(CASE, port="log", path="access_log.log", lines=rb"GET")
    known, count = log_fact(
        case,
        b'2024-05-30T21:41:47,098 - /127.0.0.1:36270 "GET /models HTTP/1.1" 200 2\n'
        b'2024-05-30T21:41:47,099 - /127.0.0.1:36271 "PUT /models HTTP/1.1" 200 2\n',
    )
    assert (known["text"], count) == ('<time> - <client> "GET /models HTTP/1.1" 200 <ms>', 1)


def sound(*samples: int, rate: int = 4000) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return file.getvalue()


MEDIA = replace(CASE, comparison="media")
SOUND = sound(5, -7, 300)


@pytest.mark.parametrize(
    ("other", "is_alike"),
    [
        (sound(5, -7, 300), True),
        (sound(6, -8, 300), True),
        (sound(7, -7, 300), False),
        (sound(5, -7), False),
        (sound(5, -7, 300, rate=8000), False),
        (SOUND[:20], False),
        (b"no sound", False),
    ],
)
def test_sounds_may_differ_by_a_level(other: bytes, is_alike: bool) -> None:
    assert (differences(MEDIA, fact(SOUND), fact(other)) == []) is is_alike


def test_pictures_may_differ_by_a_level_however_they_are_packed() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

    def packed(*pixels: int, width: int = 2, level: int = 6) -> bytes:
        picture = image.new("L", (width, len(pixels) // width))
        picture.putdata(pixels)
        file = io.BytesIO()
        picture.save(file, "PNG", compress_level=level)
        return file.getvalue()

    theirs = fact(packed(1, 2, 3, 255))
    assert differences(MEDIA, theirs, fact(packed(2, 1, 3, 254, level=0))) == []
    for other in (packed(3, 2, 3, 255), packed(1, 2, 3, 255, width=4), b"\x89PNG no more"):
        assert differences(MEDIA, theirs, fact(other)) != []


def test_of_many_numbers_some_are_kept_and_all_counted() -> None:
    case = replace(CASE, comparison="many numbers")

    def answered(*rows: list[float]) -> Fact:
        return fact(json.dumps(rows).encode(), case=case)

    rows = [[number / 7, -number / 3] for number in range(1000)]
    known = json.loads(answered(*rows)["text"])
    assert known["numbers"] == 2000
    kept = known["every 7th"]
    assert (len(kept), kept[1]) == (286, -1.0)
    near = [[a + 1e-4, b] for a, b in rows]
    assert differences(case, answered(*rows), answered(*near)) == []
    assert differences(case, answered(*rows), answered(*rows[:-1])) != []
    assert differences(case, answered(*rows), answered(*[[a, b + 1] for a, b in rows])) != []
