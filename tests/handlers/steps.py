"""Module-level handler for continuous batching: so many steps as the header `steps` says."""

import time

UNFINISHED = {}
STEPS = []


class Request:
    """What is known of a request whose parameters came with its first step only."""

    def __init__(self, context, index, row):
        self.way = context.get_request_header(index, "way") or ""
        self.name = context.get_request_header(index, "name") or "?"
        self.steps = int(context.get_request_header(index, "steps") or 3)
        self.step_s = float(context.get_request_header(index, "step-s") or 0)
        self.step = 0

    def is_finished(self, result):
        if self.way == "criterion-raises":
            raise ValueError("a secret of the handler")
        if self.way == "whole":
            return None
        return self.step >= self.steps


def handle(data, context):
    if data is None:
        return None
    requests = []
    for index, row in enumerate(data):
        request_id = context.get_request_id(index)
        if request_id not in UNFINISHED:
            UNFINISHED[request_id] = Request(context, index, row)
        requests.append(UNFINISHED[request_id])
    STEPS.append("+".join(request.name for request in requests))
    results = []
    for index, (request, row) in enumerate(zip(requests, data)):
        request.step += 1
        if request.way == "raises" and request.step == 2:
            raise ValueError("a secret of the handler")
        if request.way == "status":
            context.set_response_status(201 + request.step, "In My Words", index)
        context.set_response_header(index, "x-step", str(request.step))
        sequence = context.get_sequence_id(index)
        if request.way == "ends":
            context.set_response_header(index, "ts_request_sequence_end", sequence)
        if request.way == "steps-so-far":
            results.append(" ".join(STEPS))
        else:
            seen = context.get_request_header(index, "body")
            results.append(f"{request.step} {dict(row)} {seen}\n")
    time.sleep(max(request.step_s for request in requests))
    if any(request.way == "no-criteria" for request in requests):
        context.stopping_criteria = None
    else:
        context.stopping_criteria = [request.is_finished for request in requests]
    return results
