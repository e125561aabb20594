"""The documents are OpenAPI, and have TorchServe's paths (its shape is in tests/system)."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from torchkeep.frontend.openapi import (
    inference_document,
    management_document,
    metrics_document,
    model_document,
    model_management_document,
    shared_document,
)

DOCUMENTS = [
    inference_document(),
    management_document(),
    metrics_document(),
    shared_document(),
    model_document("m"),
    model_management_document("m"),
]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for operation in item.values():
            yield path, operation


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_says_what_it_is(document: dict[str, Any]) -> None:
    assert list(document) == ["openapi", "info", "paths"]
    assert document["openapi"] == "3.0.1"
    assert {"title", "version"} <= set(document["info"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_operation_and_every_answer_is_described(document: dict[str, Any]) -> None:
    for _, operation in operations(document):
        assert operation["description"]
        assert all(answer["description"] for answer in operation["responses"].values())
        assert all(one["description"] for one in operation["parameters"])


@pytest.mark.parametrize("document", DOCUMENTS[:4])
def test_what_stands_in_a_path_is_a_parameter(document: dict[str, Any]) -> None:
    for path, operation in operations(document):
        named = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert named == re.findall(r"{(\w+)}", path)


def test_paths_of_the_metrics_port() -> None:
    assert list(metrics_document()["paths"]) == ["/metrics"]


def test_one_port_for_two_has_the_paths_of_both() -> None:
    both = {**inference_document()["paths"], **management_document()["paths"]}
    assert shared_document()["paths"] == both
    assert list(shared_document()["paths"])[-1] == "/metrics"


def test_the_document_of_a_model_names_its_path_in_the_singular() -> None:
    document = model_document("m")
    assert document["info"]["title"] == "RESTful API for: m"
    assert next(iter(document["paths"])) == "/prediction/m"
    assert {operation["operationId"] for _, operation in operations(document)} == {"m"}
