"""Module-level handler: answers with the environment variables that the body names."""

import os


def handle(data, context):
    if data is None:
        return None
    names = data[0].get("body").decode().split()
    return [{name: os.environ.get(name) for name in names}]
