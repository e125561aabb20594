"""A class without initialize."""


class NoInitialize:
    def handle(self, data, context):
        return ["never reached" for _ in data]
