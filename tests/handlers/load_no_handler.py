"""Neither a function `handle` nor a class: nothing to call."""


def predict(data, context):
    return ["never reached" for _ in data]
