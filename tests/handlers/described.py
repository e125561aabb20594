"""Module-level handler that describes itself: the header `way` names what it says.

With the way `raw` that is the header `raw`; all other requests are answered by their batch's size,
after as many seconds as the header `take-s` says.
"""

import json
import os
import time


def headers_and_row(row, index, context):
    headers = context.get_all_request_header(index)
    return {
        "row": {name: str(value) for name, value in row.items()},
        "headers": {name: headers[name] for name in sorted(headers)},
    }


def not_found(row, index, context):
    context.set_response_status(404, "In My Words", index)
    context.set_response_header(index, "X-Own", "1")
    return {"a": 1}


def typed(row, index, context):
    context.set_response_content_type(index, "text/x-own")
    return {"a": 1}


def failing(row, index, context):
    raise ValueError("no description")


WAYS = {
    "dict": lambda *_: {"b": [1, 2.5, None, "ä<>&'"], "a": {}, "none": None, "nan": float("nan")},
    "none": lambda *_: None,
    "list": lambda *_: [1],
    "bytes": lambda *_: b'{"a": 1}',
    "empty": lambda *_: "",
    "headers": headers_and_row,
    "status": not_found,
    "type": typed,
    "raise": failing,
    "exit": lambda *_: os._exit(1),
    "raw": lambda row, index, context: context.get_request_header(index, "raw"),
}


def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        headers = context.get_all_request_header(index)
        time.sleep(float(headers.get("take-s", "0")))
        if "way" in headers:
            answers.append(WAYS[headers["way"]](row, index, context))
        else:
            answers.append({"batch": len(data)})
    return answers
