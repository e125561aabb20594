"""Module-level handler: answers with what it was given.

Request headers steer the answer: reply-status, reply-phrase, reply-content-type and
reply-headers (a JSON object); url_path "init" tells how often the worker was initialised.
"""

import json

INITIALISED = []


def describe_value(value):
    if isinstance(value, (bytes, bytearray)):
        return {"type": type(value).__name__, "value": value.decode("latin-1")}
    return {"type": type(value).__name__, "value": value}


def echo(row, index, context):
    headers = context.get_all_request_header(index)
    return {
        "row": {name: describe_value(value) for name, value in sorted(row.items())},
        "headers": {name: headers[name] for name in sorted(headers)},
        "request_id": context.get_request_id(index),
        "request_ids": context.request_ids,
    }


def about_context(context):
    properties = dict(context.system_properties)
    manifest = dict(context.manifest)
    properties["model_dir"] = type(properties["model_dir"]).__name__
    manifest.pop("createdOn", None)
    return {
        "model_name": context.model_name,
        "manifest": manifest,
        "system_properties": properties,
        "model_yaml_config": context.model_yaml_config,
        "status": list(context.get_response_status(0)),
        "no_such_header": context.get_request_header(0, "no-such-header"),
        "no_such_request_id": context.get_request_id(7),
        "initialised": INITIALISED,
    }


def handle(data, context):
    if data is None:
        INITIALISED.append(context.model_name)
        return None
    answers = []
    for index, row in enumerate(data):
        headers = context.get_all_request_header(index)
        if headers.get("describe") == "True":
            answers.append({"described": context.model_name})
            continue
        if "reply-content-type" in headers:
            context.set_response_content_type(index, headers["reply-content-type"])
        for name, value in json.loads(headers.get("reply-headers", "{}")).items():
            context.set_response_header(index, name, value)
        if "reply-status" in headers:
            context.set_response_status(
                int(headers["reply-status"]), headers.get("reply-phrase", ""), index
            )
        if headers.get("url_path") == "context":
            answers.append(about_context(context))
        elif "reply-text" in headers:
            answers.append(headers["reply-text"])
        else:
            answers.append(echo(row, index, context))
    return answers
