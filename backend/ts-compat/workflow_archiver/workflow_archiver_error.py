"""The archiver's own error."""


class WorkflowArchiverError(Exception):
    """The archive cannot be written as asked for; the text says why."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
