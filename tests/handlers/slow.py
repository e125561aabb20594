"""Module-level handler: takes as long as the header `take-s` says, and says so before."""

import time


def handle(data, context):
    if data is None:
        return None
    seconds = float(context.get_request_header(0, "take-s") or 0)
    if seconds:
        print("taking", seconds, flush=True)
        time.sleep(seconds)
    return ["done"] * len(data)
