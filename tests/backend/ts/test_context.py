"""The context of a batch, without a worker around it."""

import subprocess
import sys

import pytest

from torchkeep.backend.handler import TS_COMPAT
from ts.context import Context, RequestProcessor


def context() -> Context:
    return Context("m", "/m", {"model": {}}, 2, None, "0.12.0")


def test_contexts_are_equal_when_all_they_hold_is() -> None:
    one, other = context(), context()
    assert one == other
    other.request_ids = {0: "a"}
    assert one != other
    assert one != "context"


def test_the_status_is_200_without_phrase_until_set() -> None:
    batch = context()
    batch.request_processor = [RequestProcessor({}), RequestProcessor({})]
    assert batch.get_response_status(0) == (200, None)
    batch.set_response_status(404, idx=1)
    assert batch.get_response_status(1) == (404, "")
    batch.set_all_response_status(201, "Made")
    assert batch.get_response_status(0) == (201, "Made")


def test_request_headers_are_case_sensitive() -> None:
    batch = context()
    batch.request_processor = [RequestProcessor({"Key": "v", "ts_request_sequence_id": "s"})]
    assert batch.get_request_header(0, "Key") == "v"
    assert batch.get_request_header(0, "key") is None
    assert batch.get_sequence_id(0) == "s"
    assert batch.get_all_request_header(0)["Key"] == "v"


def test_response_headers_are_kept_per_request() -> None:
    batch = context()
    batch.request_processor = [RequestProcessor({}), RequestProcessor({})]
    batch.set_response_content_type(1, "text/plain")
    assert batch.get_response_headers(0) == {}
    assert batch.get_response_headers(1) == {"content-type": "text/plain"}
    assert batch.get_response_content_type(1) == "text/plain"


@pytest.mark.parametrize(
    "module",
    [
        "ts",
        "ts.context",
        "ts.service",
        "ts.utils.util",
        "ts.metrics.metrics_store",
        "ts.handler_utils.timer",
        "ts.torch_handler.request_envelope.kservev2",
    ],
)
def test_importing_it_does_not_import_torch(module: str) -> None:
    code = f"import {module}, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    environment = {"PYTHONPATH": str(TS_COMPAT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
