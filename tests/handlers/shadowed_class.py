"""A module-level handle beside a class: the function wins."""


class Shadowed:
    def initialize(self, context):
        raise RuntimeError("the class was used")

    def handle(self, data, context):
        return ["class" for _ in data]


def handle(data, context):
    return None if data is None else ["function" for _ in data]
