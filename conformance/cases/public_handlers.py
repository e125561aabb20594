"""Handlers as people publish them: written to documented patterns, and from packages of PyPI.

Where each is from is told in tests/handlers/public/README.md.
"""

import base64
import json
from dataclasses import replace
from typing import Any

from conformance.case import (
    JSON,
    MULTIPART,
    Case,
    Scenario,
    form,
    infer,
    manage,
    picture,
    register,
)
from conformance.cases.default_handlers import FOUR_NUMBERS, PNG

PICTURE_IN_TEXT = base64.b64encode(picture()).decode()
FLOWER = b"[5.1, 3.5, 1.4, 0.2]"
NAMED_FLOWER = json.dumps(
    {"sepal length": 5.1, "sepal width": 3.5, "petal length": 1.4, "petal width": 0.2}
).encode()
INSTALL_LIMIT_S = 600.0
SAGEMAKER_HANDLER = "sagemaker_pytorch_serving_container.handler_service"
SAGEMAKER_MODEL = "/predictions/sagemaker"


def two_at_once(case: Case) -> Case:
    return replace(case, batch_of=2)


def numbers(name: str, path: str, body: bytes, *rest: Any, **options: Any) -> Case:
    return infer(name, path, body, *rest, comparison="numbers", **options)


PATTERNS = Scenario(
    "public handlers",
    archives=(
        "mms_service",
        "plain_class",
        "image_batch",
        "many_files",
        "zipped_package",
        "toolbox",
    ),
    config={"model_metrics_auto_detect": "true"},
    cases=[
        register("mms_service"),
        two_at_once(numbers("a flower", "/predictions/mms_service", FLOWER, JSON)),
        two_at_once(numbers("a flower of no type", "/predictions/mms_service", FLOWER)),
        two_at_once(
            numbers(
                "an instance",
                "/predictions/mms_service",
                b'{"instances": [[6.3, 3.3, 6.0, 2.5]]}',
                JSON,
            )
        ),
        two_at_once(
            numbers(
                "a flower in a form",
                "/predictions/mms_service",
                form(('Content-Disposition: form-data; name="data"', FLOWER)),
                MULTIPART,
            )
        ),
        two_at_once(infer("no flower", "/predictions/mms_service", b'{"colour": "red"}', JSON)),
        register("plain_class"),
        numbers("a tensor for numbers", "/predictions/plain_class", FOUR_NUMBERS),
        infer(
            "a tensor for a tensor",
            "/predictions/plain_class",
            FOUR_NUMBERS,
            headers=[("Accept", "application/octet-stream")],
            comparison="tensor",
        ),
        infer("no tensor for numbers", "/predictions/plain_class", b"no tensor"),
        register("image_batch"),
        two_at_once(numbers("two requests", "/predictions/image_batch", picture(), PNG)),
        two_at_once(
            numbers(
                "three pictures in each request",
                "/predictions/image_batch",
                json.dumps({"instances": [{"b64": PICTURE_IN_TEXT}] * 3}).encode(),
                JSON,
            )
        ),
        two_at_once(
            numbers(
                "a picture as text",
                "/predictions/image_batch",
                PICTURE_IN_TEXT.encode(),
                "text/plain",
            )
        ),
        register("many_files"),
        numbers("a good text", "/predictions/many_files", b"A GREAT, lovely film"),
        numbers("a bad text", "/predictions/many_files", b"The film is dull", "text/plain"),
        infer("a text in json", "/predictions/many_files", b'{"text": "great"}', JSON),
        register("zipped_package"),
        numbers("a circle", "/predictions/zipped_package", b'{"shape": "circle", "size": 2}', JSON),
        numbers("a square", "/predictions/zipped_package", b'{"shape": "square", "size": 3}'),
        infer("no shape", "/predictions/zipped_package", b'{"size": 3}', JSON),
        register("toolbox"),
        numbers("measures", "/predictions/toolbox", FLOWER, JSON),
        infer("three measures", "/predictions/toolbox", b"[1, 2, 3]", JSON),
        infer("large measures", "/predictions/toolbox", b"[1, 2, 3, 99]", JSON),
        manage("what the handler says of itself", "GET", "/models/toolbox?customized=true"),
        Case(
            "metrics of the handler",
            "log",
            "",
            "model_metrics.log",
            lines=rb"Toolbox(Calls|Rows)",
            line_count=2,
        ),
    ],
    needs_torch=True,
)

INSTALLED = Scenario(
    "handlers of packages",
    archives=(
        "mlflow_linear",
        "captum_flowers",
        "sequence_classification",
        "mmpretrain",
    ),
    config={"install_py_dep_per_model": "true"},
    cases=[
        register("mlflow_linear"),
        numbers("a number", "/predictions/mlflow_linear", b'{"data": [5]}'),
        numbers(
            "a number in a form",
            "/predictions/mlflow_linear",
            form(('Content-Disposition: form-data; name="data"', b"7")),
            MULTIPART,
        ),
        infer("no number", "/predictions/mlflow_linear", b"five"),
        replace(register("captum_flowers"), timeout_s=INSTALL_LIMIT_S),
        infer("a flower with names", "/predictions/captum_flowers", NAMED_FLOWER, JSON),
        numbers("a flower explained", "/explanations/captum_flowers", NAMED_FLOWER, JSON),
        infer("no column", "/explanations/captum_flowers", b'{"sepal length": 1}', JSON),
        replace(register("sequence_classification"), timeout_s=INSTALL_LIMIT_S),
        numbers("a review", "/predictions/sequence_classification", b"It was great!"),
        numbers(
            "a review as text",
            "/predictions/sequence_classification",
            b"Not very great, awful.",
            "text/plain",
        ),
        numbers(
            "a review in json",
            "/predictions/sequence_classification",
            b'{"text": "a film"}',
            JSON,
        ),
        infer("a review of bytes", "/predictions/sequence_classification", b"\xff\xfe"),
        replace(register("mmpretrain"), timeout_s=INSTALL_LIMIT_S),
        numbers("a grey picture", "/predictions/mmpretrain", picture(), PNG),
        infer("no grey picture", "/predictions/mmpretrain", b"no picture"),
    ],
    needs_torch=True,
    needs_packages=True,
    is_long=True,
)

SAGEMAKER = Scenario(
    "the toolkit of sagemaker",
    archives=("sagemaker",),
    # The settings that it starts TorchServe with.
    config={
        "install_py_dep_per_model": "true",
        "decode_input_request": "false",
        "default_service_handler": f"{SAGEMAKER_HANDLER}:handle",
    },
    environment={"SAGEMAKER_MULTI_MODEL": "true", "SAGEMAKER_HANDLER": SAGEMAKER_HANDLER},
    cases=[
        replace(
            register("sagemaker", handler=f"{SAGEMAKER_HANDLER}:handle"),
            timeout_s=INSTALL_LIMIT_S,
        ),
        numbers("inputs", SAGEMAKER_MODEL, b'{"inputs": [[1, 2, 3, 4]]}', JSON),
        infer(
            "a table for a table",
            SAGEMAKER_MODEL,
            b"1,2,3,4\n0.1,0.2,-0.3,4",
            "text/csv",
            headers=[("Accept", "text/csv")],
        ),
        numbers("an answer for anybody", SAGEMAKER_MODEL, b"1,2,3,4", "text/csv"),
    ],
    needs_torch=True,
    needs_packages=True,
    is_long=True,
)

SCENARIOS = [PATTERNS, INSTALLED, SAGEMAKER]
