"""Which model a path asks for, as in TorchServe."""

from typing import Any

import pytest

from torchkeep.frontend.errors import ResourceNotFound
from torchkeep.frontend.targets import Target, read_target

NO, YES = {"explain": "False"}, {"explain": "True"}


def target(path: str) -> Target | None:
    return read_target(path.split("/")[1:])


@pytest.mark.parametrize(
    ("path", "name", "version", "added"),
    [
        ("/predictions/m", "m", None, {**NO, "url_path": ""}),
        ("/predictions/m/2", "m", "2", {**NO, "url_path": ""}),
        ("/predictions/m/2/a//b", "m", "2", {**NO, "url_path": "a//b"}),
        ("/explanations/m/2/a", "m", "2", {**YES, "url_path": "a"}),
        ("/predictions/predict", "predict", None, {**NO, "url_path": ""}),
        ("/v1/models/m:predict", "m", None, NO),
        ("/v1/models/m:explain", "m", None, YES),
        ("/v1/models/:predict", "", None, NO),
        ("/v1/models/m:n:predict", "m", None, NO),
        ("/v1/models/m:predictable", "m", None, NO),
        ("/v1/models/m:explain:predict", "m", None, NO),
        ("/v2/models/m/infer", "m", None, NO),
        ("/v2/models/m/explain", "m", None, YES),
    ],
)
def test_paths_whose_handler_sees_no_query(
    path: str, name: str, version: str | None, added: dict[str, str]
) -> None:
    assert target(path) == Target(name, version, added)


@pytest.mark.parametrize(
    ("path", "name", "version"),
    [
        ("/invocations", None, None),
        ("/models/m/invoke", "m", None),
        ("/m/predict", "m", None),
        ("/m/2/predict", "m", "2"),
        ("/v1/predict", "v1", None),
        ("/v1/models/predict", "v1", "models"),
    ],
)
def test_paths_whose_handler_sees_the_query_and_no_added_header(
    path: str, name: str | None, version: str | None
) -> None:
    assert target(path) == Target(name, version, {}, takes_query=True)


@pytest.mark.parametrize(
    "path",
    [
        *("/ping", "/ping/predict", "/models", "/models/m", "/models/m/1.0/set-default", "/m"),
        *("/invocations/more", "/invocations/predict", "/models/predict", "/m/Predict"),
        *("/m/predict/more", "/v1/models/m", "/v1/models/m:other", "/v1/models/m:predict/more"),
        *("/v2/models/m", "/v2/models/m/infer/more", "/v2/models/m/versions/1/infer"),
    ],
)
def test_paths_that_ask_for_no_prediction(path: str) -> None:
    assert target(path) is None


@pytest.mark.parametrize("path", ["/predictions", "/explanations", "/models/m/1.0"])
def test_paths_that_should_and_name_no_model(path: str) -> None:
    with pytest.raises(ResourceNotFound):
        target(path)


@pytest.mark.parametrize("segments", [[], [""]])
def test_the_root_is_no_target(segments: list[Any]) -> None:
    assert read_target(segments) is None
