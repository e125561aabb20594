"""Module-level handler of a stateful model: how often it has seen each sequence."""

import json
import time

SEEN = {}


def handle(data, context):
    if data is None:
        return None
    answers = []
    for index in range(len(data)):
        sequence = context.get_sequence_id(index)
        SEEN[sequence] = SEEN.get(sequence, 0) + 1
        started = context.get_request_header(index, "ts_request_sequence_start")
        answer = {"seen": SEEN[sequence], "of": len(data), "started": started}
        if context.get_request_header(index, "tell-id"):
            answer["sequence"] = sequence
        answers.append(json.dumps(answer))
        if ends := context.get_request_header(index, "ends"):
            context.set_response_header(index, context.header_key_sequence_end, ends)
    time.sleep(max(float(context.get_request_header(i, "take-s") or 0) for i in range(len(data))))
    return answers
