"""Module-level handler that takes five seconds to load."""

import time


def handle(data, context):
    if data is None:
        time.sleep(5)
        return None
    return ["done"] * len(data)
