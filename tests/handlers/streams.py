"""Module-level handler: url_path names the way to stream; every row gets the same pieces."""

import os
import time

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.service import PredictionException


def send(context, piece, message="Intermediate Prediction success", code=200):
    pieces = [piece for _ in context.request_ids]
    send_intermediate_predict_response(pieces, context.request_ids, message, code, context)


def sends(*pieces, last="last"):
    def way(rows, context):
        for piece in pieces:
            send(context, piece)
        return [last for _ in rows]

    return way


def headers(rows, context):
    for index in range(len(rows)):
        context.set_response_content_type(index, "text/event-stream")
        context.set_response_header(index, "X-Own", "first")
    send(context, "one ")
    for index in range(len(rows)):
        context.set_response_header(index, "X-Own", "changed")
        context.set_response_header(index, "X-Late", "late")
    send(context, "two ")
    return ["three" for _ in rows]


def framing_headers(rows, context):
    for index in range(len(rows)):
        context.set_response_header(index, "Content-Length", "3")
        context.set_response_header(index, "Transfer-Encoding", "identity")
        context.set_response_header(index, "Connection", "close")
        context.set_response_header(index, "ts_stream_next", "perhaps")
    send(context, "one ")
    return ["two" for _ in rows]


def status(code, phrase):
    def way(rows, context):
        context.set_all_response_status(code, phrase)
        send(context, "one ")
        context.set_all_response_status(500, "Too Late")
        return ["two" for _ in rows]

    return way


def late_status(rows, context):
    send(context, "one ")
    context.set_all_response_status(404, "Too Late")
    send(context, "two ")
    return ["three" for _ in rows]


def code_first(rows, context):
    send(context, "never seen", "said by the handler", 418)
    return ["never seen" for _ in rows]


def code_later(rows, context):
    send(context, "one ")
    send(context, "never seen", "said by the handler", 418)
    return ["never seen" for _ in rows]


def raises(error):
    def way(rows, context):
        send(context, "one ")
        raise error

    return way


def dies(rows, context):
    send(context, "one ")
    os._exit(1)


def ends_badly(last):
    def way(rows, context):
        send(context, "one ")
        return last

    return way


def never(rows, context):
    send(context, "one ")
    while True:
        time.sleep(3600)


def slow(rows, context):
    for _ in range(3):
        send(context, "slow ")
        time.sleep(1.2)
    return ["last" for _ in rows]


def wrong_length(rows, context):
    ids = context.request_ids
    send_intermediate_predict_response(["one"] * (len(ids) + 1), ids, "message", 200, context)
    return ["last" for _ in rows]


def too_few(rows, context):
    send_intermediate_predict_response([], context.request_ids, "message", 200, context)
    return ["last" for _ in rows]


def second_of_the_batch(rows, context):
    second = {1: context.request_ids[1]}
    send_intermediate_predict_response(["zero ", "one "], second, "message", 200, context)
    return ["last" for _ in rows]


def unknown_request(rows, context):
    send_intermediate_predict_response(["one "], {0: "no-such-id"}, "message", 200, context)
    return ["last" for _ in rows]


def newline_header(rows, context):
    context.set_response_header(0, "x-lines", "a\r\nx-injected: b")
    send(context, "one ")
    return ["last" for _ in rows]


def no_list(rows, context):
    send_intermediate_predict_response("one", context.request_ids, "message", 200, context)
    return ["last" for _ in rows]


def int_header(rows, context):
    context.set_response_header(0, "x-number", 1)
    send(context, "one ")
    return ["last" for _ in rows]


def no_context(rows, context):
    send_intermediate_predict_response(["one "], context.request_ids, "message", 200)
    return ["last" for _ in rows]


def first_of_the_batch(rows, context):
    first = {0: context.request_ids[0]}
    send_intermediate_predict_response(["one "], first, "message", 200, context)
    return ["last" for _ in rows]


def row_numbers(rows, context):
    for round_number in range(2):
        pieces = [f"{round_number}.{index} " for index in range(len(rows))]
        send_intermediate_predict_response(pieces, context.request_ids, "message", 200, context)
    return [f"last.{index}" for index in range(len(rows))]


def says(word):
    def way(rows, context):
        for index in range(len(rows)):
            context.set_response_header(index, "ts_stream_next", word)
        return ["all of it" for _ in rows]

    return way


WAYS = {
    "pieces": sends("one ", "two ", last="three"),
    "one": sends("one "),
    "kinds": sends(b"bytes ", bytearray(b"bytearray "), {"a": [1]}, [2], 3, None, last={"b": 4}),
    "empty-between": sends("one ", "", "two "),
    "empty-first": sends("", "one "),
    "empty-last": sends("one ", last=""),
    "empty-all": sends("", last=""),
    "none": sends(),
    "headers": headers,
    "framing-headers": framing_headers,
    "status-201": status(201, "In My Words"),
    "status-204": status(204, ""),
    "status-404": status(404, "Gone Away"),
    "late-status": late_status,
    "code-first": code_first,
    "code-later": code_later,
    "value-error": raises(ValueError("a secret of the handler")),
    "prediction-exception": raises(PredictionException("said by the handler", 429)),
    "os-exit": dies,
    "too-short": ends_badly([]),
    "no-list-last": ends_badly("text"),
    "object-last": ends_badly([object()]),
    "object-piece": sends(object()),
    "object-later": sends("one ", object()),
    "never": never,
    "slow": slow,
    "wrong-length": wrong_length,
    "too-few": too_few,
    "no-list": no_list,
    "second-of-the-batch": second_of_the_batch,
    "unknown-request": unknown_request,
    "newline-header": newline_header,
    "message-not-text": lambda rows, context: send(context, "one ", 7) or ["last"],
    "code-201": lambda rows, context: send(context, "one ", "message", 201) or ["last"],
    "int-header": int_header,
    "no-context": no_context,
    "first-of-the-batch": first_of_the_batch,
    "row-numbers": row_numbers,
    "says-true": says("true"),
    "says-false": says("false"),
}


def handle(data, context):
    if data is None:
        return None
    return WAYS[context.get_request_header(0, "url_path")](data, context)
