"""Module-level handler that fails the rows of a batch whose body says so, and only those."""

from ts.service import PredictionException


def handle(data, context):
    if data is None:
        return None
    for index, row in enumerate(data):
        if bytes(row["body"]) == b"bad":
            context.fail(index, PredictionException(f"row {index} of {len(data)}", 422))
        if bytes(row["body"]) == b"broken":
            context.fail(index, ValueError("a secret of the handler"))
    return [f"fine, of {len(data)}"] * len(data)
