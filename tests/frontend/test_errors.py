"""Which status and which of TorchServe's names an error gets."""

import pytest

from torchkeep.frontend import errors
from torchkeep.modelstore import errors as store_errors

FACTS = [
    (errors.ResourceNotFound(), 404, "ResourceNotFoundException"),
    (errors.MethodNotAllowed(), 405, "MethodNotAllowedException"),
    (errors.ModelNotFound("m"), 404, "ModelNotFoundException"),
    (errors.ModelVersionNotFound("m", "2"), 404, "ModelVersionNotFoundException"),
    (errors.DefaultVersionNotFound("m", "2"), 404, "ModelVersionNotFoundException"),
    (errors.BadRequest("x"), 400, "BadRequestException"),
    (errors.InvalidModel("x"), 400, "InvalidModelException"),
    (errors.InvalidModelVersion("x"), 403, "InvalidModelVersionException"),
    (errors.ConflictStatus("x"), 409, "ConflictStatusException"),
    (errors.RequestTimeout("x"), 408, "RequestTimeoutException"),
    (errors.ServiceUnavailable("x"), 503, "ServiceUnavailableException"),
    (errors.InternalServerError("x"), 500, "InternalServerException"),
    (errors.WorkerFailed(513, "x"), 513, "InternalServerException"),
    (errors.NoRequestBody("x"), 500, "NullPointerException"),
    (errors.JsonSyntaxError("x"), 500, "JsonSyntaxException"),
    (errors.IndexOutOfBounds(-1), 500, "IndexOutOfBoundsException"),
    (store_errors.ArchiveNotFound("empty url"), 404, "ModelNotFoundException"),
    (store_errors.UrlNotAllowed("u"), 404, "ModelNotFoundException"),
    (store_errors.DownloadFailed("u"), 400, "DownloadArchiveException"),
    (store_errors.FileAlreadyExists("f"), 500, "InternalServerException"),
    (store_errors.InvalidArchive("x"), 400, "InvalidModelException"),
    (store_errors.UnreadableArchive("u"), 500, "InternalServerException"),
    (RuntimeError("x"), 500, "InternalServerException"),
]


@pytest.mark.parametrize(("error", "status", "name"), FACTS, ids=lambda x: type(x).__name__)
def test_status_and_name(error: Exception, status: int, name: str) -> None:
    assert errors.status_of(error) == (status, name)


def test_every_request_error_has_a_status() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    named = {k for k in kinds if issubclass(k, errors.RequestError)}
    assert named - set(errors.STATUS) == {errors.RequestError, errors.WorkerFailed}


def test_a_subclass_has_the_status_of_its_parent() -> None:
    class EmptyArchive(store_errors.InvalidArchive):
        pass

    assert errors.status_of(EmptyArchive("x")) == (400, "InvalidModelException")


def test_a_worker_that_says_413_ran_out_of_resources() -> None:
    assert errors.status_of(errors.WorkerFailed(413, "x"))[0] == 507


@pytest.mark.parametrize("status", [-1, 100, 199])
def test_an_error_status_that_ends_no_exchange_is_a_dead_worker(status: int) -> None:
    error = errors.WorkerFailed(status, "said by the handler")
    assert (error.status, str(error)) == (500, "Worker died.")


def test_version_not_found_is_worded_in_two_ways() -> None:
    assert str(errors.ModelVersionNotFound("m", "2")) == (
        "Model version: 2 does not exist for model: m"
    )
    assert str(errors.DefaultVersionNotFound("m", "2")) == (
        "Model version 2 does not exist for model m"
    )


def test_only_texts_on_purpose_are_meant_for_clients() -> None:
    assert errors.is_meant_for_client(errors.BadRequest("x"))
    assert errors.is_meant_for_client(store_errors.InvalidArchive("x"))
    assert not errors.is_meant_for_client(RuntimeError("a payload"))
