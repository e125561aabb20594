"""Everything a request can go wrong with, and what TorchServe calls it.

Code raises facts; the wording lives here, and the status and TorchServe's exception name,
which are part of every error's JSON, live in `STATUS`.
"""

from typing import Literal

from torchkeep.modelstore.errors import (
    ArchiveNotFound,
    DownloadFailed,
    FileAlreadyExists,
    InvalidArchive,
    InvalidUrl,
    KeyUnavailable,
    ModelStoreError,
    NoRoomInMemory,
    UnreadableArchive,
    UrlNotAllowed,
)
from torchkeep.runtime.errors import ServingError


class RequestError(ServingError):
    """A request that gets an error for an answer. `str()` is the message the client reads."""


class ResourceNotFound(RequestError):
    """No route leads there."""

    def __init__(self) -> None:
        super().__init__("Requested resource is not found, please refer to API document.")


class MethodNotAllowed(RequestError):
    """The route exists, but not for this method, or it is switched off."""

    def __init__(self) -> None:
        super().__init__("Requested method is not allowed, please refer to API document.")


class ModelNotFound(RequestError):
    """No model of that name is registered."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Model not found: {name}")


class ModelVersionNotFound(RequestError):
    """The model is registered, but not in that version."""

    def __init__(self, name: str, version: str) -> None:
        super().__init__(f"Model version: {version} does not exist for model: {name}")


class DefaultVersionNotFound(RequestError):
    """The version that should become the default does not exist."""

    def __init__(self, name: str, version: str) -> None:
        # TorchServe: set-default words this without colons
        super().__init__(f"Model version {version} does not exist for model {name}")


class BadRequest(RequestError):
    """The client left out or misstated something."""


class InvalidKey(RequestError):
    """The request shows no key, a wrong one or an old one; it is not said which."""

    def __init__(self, what: Literal["Authorization", "Authentication"]) -> None:
        # TorchServe: authentication where keys are renewed, authorization everywhere else
        super().__init__(
            f"Token {what} failed. Token either incorrect, expired, or not provided correctly"
        )


class InvalidModel(RequestError):
    """The archive does not describe a model that can be served."""


class InstallFailed(RequestError):
    """pip could not install what the archive lists; the log has its words."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Custom pip package installation failed for model {name}")


class NoVirtualEnvironment(RequestError):
    """The model asks for a virtual environment, and there is none; the log says why."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Virtual environment creation failed for model {name}")


class InvalidModelVersion(RequestError):
    """What was asked for is not possible with this version, for example removing the default."""


class ConflictStatus(RequestError):
    """The model and version are registered already."""


class RequestTimeout(RequestError):
    """Something on the server took longer than its limit."""


class ServiceUnavailable(RequestError):
    """Nobody is there to take the request, or the queue is full."""


class ModelWaits(ServiceUnavailable):
    """The model is known, but sealed, and its key is not there yet."""

    def __init__(self, name: str) -> None:
        super().__init__(f'Model "{name}" is not ready: it waits for its key.')


class SealedRequestInvalid(RequestError):
    """What is called a sealed request does not open here; it is not said why."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            message
            or "The sealed request does not open: it was changed on its way, or sealed for another "
            "method, path, model or version."
        )


class UnknownHpkeKey(RequestError):
    """The request is sealed for another process, perhaps for this server before it restarted."""

    def __init__(self) -> None:
        super().__init__(
            "The request is sealed for a key that this server does not have: ask for its key at "
            "/attestation, and seal it anew."
        )


class StaleRequest(RequestError):
    """The sealed request is from too long ago, or from the future."""

    def __init__(self, age_s: float, window_s: float) -> None:
        super().__init__(
            f"The sealed request is {age_s:.0f} s old by the clock of this server, where "
            f"{window_s:.0f} s either way are allowed: set the clock, and seal it anew."
        )


class ReplayedRequest(RequestError):
    """The sealed request has come before."""

    def __init__(self) -> None:
        super().__init__("The sealed request has come before: seal each one anew.")


class InternalServerError(RequestError):
    """The server failed; the text is fit for the client."""


class NoRequestBody(RequestError):
    """A JSON request without a body. TorchServe trips over it, and says so."""


class JsonSyntaxError(RequestError):
    """A JSON body that cannot be read as the parameters it should hold."""


class MalformedForm(RequestError):
    """A form that can be taken apart, but one of its fields cannot be read."""


class IndexOutOfBounds(RequestError):
    """A negative number of workers. TorchServe counts an array down with it."""

    def __init__(self, index: int) -> None:
        super().__init__(f"Index {index} out of bounds for length 0 : max_worker must be 0 or more")


class BadEscape(RequestError):
    """A percent sign in path or query that no two hexadecimal digits follow."""

    def __init__(self, target: str, index: int) -> None:
        digits = target[index + 1 : index + 3]
        # TorchServe: in the words of its HTTP library
        super().__init__(
            f"invalid hex byte '{digits}' at index {index + 1} of '{target}'"
            if len(digits) == 2 and not set(digits) & set("?&;#")
            else f"unterminated escape sequence at index {index} of: {target}"
        )


class WorkerFailed(RequestError):
    """The worker answered with an error, or did not answer; the status is the worker's."""

    def __init__(self, status: int, message: str) -> None:
        if not is_final(status):
            status, message = 500, "Worker died."
        super().__init__(message)
        # TorchServe: 413 belongs to its HTTP aggregator, a worker's becomes 507
        self.status = 507 if status == 413 else status


def is_final(status: int) -> bool:
    """Whether a response may carry this status, which handlers choose.

    After 1XX a client waits for another response, and would take the body for it.
    """
    return status >= 0 and not 100 <= status < 200


INTERNAL = (500, "InternalServerException")

STATUS: dict[type[Exception], tuple[int, str]] = {
    ResourceNotFound: (404, "ResourceNotFoundException"),
    ModelNotFound: (404, "ModelNotFoundException"),
    ModelVersionNotFound: (404, "ModelVersionNotFoundException"),
    DefaultVersionNotFound: (404, "ModelVersionNotFoundException"),
    ArchiveNotFound: (404, "ModelNotFoundException"),
    UrlNotAllowed: (404, "ModelNotFoundException"),
    BadRequest: (400, "BadRequestException"),
    InvalidKey: (400, "InvalidKeyException"),
    InvalidModel: (400, "InvalidModelException"),
    InstallFailed: (400, "ModelException"),
    NoVirtualEnvironment: (400, "ModelException"),
    InvalidArchive: (400, "InvalidModelException"),
    KeyUnavailable: (400, "InvalidModelException"),
    DownloadFailed: (400, "DownloadArchiveException"),
    ConflictStatus: (409, "ConflictStatusException"),
    RequestTimeout: (408, "RequestTimeoutException"),
    MethodNotAllowed: (405, "MethodNotAllowedException"),
    ServiceUnavailable: (503, "ServiceUnavailableException"),
    ModelWaits: (503, "ServiceUnavailableException"),
    InvalidModelVersion: (403, "InvalidModelVersionException"),
    SealedRequestInvalid: (400, "SealedRequestException"),
    UnknownHpkeKey: (421, "UnknownKeyException"),
    StaleRequest: (400, "StaleRequestException"),
    ReplayedRequest: (409, "ReplayedRequestException"),
    BadEscape: (403, "IllegalArgumentException"),
    InvalidUrl: (403, "IllegalArgumentException"),
    NoRequestBody: (500, "NullPointerException"),
    JsonSyntaxError: (500, "JsonSyntaxException"),
    MalformedForm: (500, "ErrorDataDecoderException"),
    IndexOutOfBounds: (500, "IndexOutOfBoundsException"),
    FileAlreadyExists: INTERNAL,
    UnreadableArchive: INTERNAL,
    NoRoomInMemory: (507, "InternalServerException"),
    InternalServerError: INTERNAL,
}


def status_of(error: Exception) -> tuple[int, str]:
    """Status and TorchServe's exception name; an unexpected error is an internal one."""
    if isinstance(error, WorkerFailed):
        return error.status, "InternalServerException"
    if isinstance(error, KeyUnavailable) and error.is_temporary:
        return STATUS[ServiceUnavailable]
    for kind in type(error).__mro__:
        if issubclass(kind, Exception) and kind in STATUS:
            return STATUS[kind]
    return INTERNAL


def is_meant_for_client(error: Exception) -> bool:
    """Whether the text of an error was written for clients; others stay in the log."""
    return isinstance(error, RequestError | ModelStoreError)
