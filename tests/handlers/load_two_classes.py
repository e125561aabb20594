"""Two classes of its own: which one is the handler?"""


class First:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return ["first" for _ in data]


class Second(First):
    pass
