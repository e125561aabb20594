"""Module-level handler: takes as long as the header `take-s` says."""

import time


def handle(data, context):
    if data is None:
        return None
    time.sleep(float(context.get_request_header(0, "take-s") or 0))
    return ["done"] * len(data)
