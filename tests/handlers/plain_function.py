"""Module-level handler that is no coroutine, for a model that should have one."""


def handle(data, context):
    if data is None:
        return None
    return ["plain"] * len(data)
