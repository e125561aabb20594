"""Needs a library that is not installed."""

import a_library_that_is_not_installed  # noqa: F401


def handle(data, context):
    return ["never reached" for _ in data]
