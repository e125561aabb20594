"""What counts as a difference between two answers."""

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
