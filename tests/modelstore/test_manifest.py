"""What a manifest says, and what it may not say."""

import json
from pathlib import Path
from typing import Any

import pytest

from torchkeep.modelstore.errors import InvalidArchive
from torchkeep.modelstore.manifest import (
    MANIFEST_PATH,
    MAX_MANIFEST_BYTES,
    Manifest,
    parse_manifest,
    read_manifest,
)


def parse(model: dict[str, Any], **others: Any) -> Manifest:
    return parse_manifest(json.dumps({"model": model, **others}).encode())


def refusal(text: bytes) -> str:
    with pytest.raises(InvalidArchive) as caught:
        parse_manifest(text)
    return str(caught.value)


def test_every_field_is_read() -> None:
    document = {
        "createdOn": "29/03/2024 16:37:08",
        "runtime": "python3",
        "model": {
            "modelName": "m",
            "serializedFile": "w.pt",
            "handler": "handler.py:handle",
            "modelFile": "model.py",
            "modelVersion": "2.0",
            "extensions": {"any": ["thing", 1]},
            "requirementsFile": "requirements.txt",
            "configFile": "conf/model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    assert parse_manifest(json.dumps(document).encode()) == Manifest(
        model_name="m",
        model_version="2.0",
        handler="handler.py:handle",
        runtime="python3",
        serialized_file="w.pt",
        model_file="model.py",
        requirements_file="requirements.txt",
        config_file="conf/model-config.yaml",
        raw=document,
    )


def test_no_manifest_leaves_everything_open(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) == Manifest(None, "1.0", None, "python", raw=None)


def test_left_out_fields_have_defaults() -> None:
    assert parse({}) == Manifest(raw={"model": {}})
    assert parse_manifest(b"{}") == Manifest(raw={})
    assert parse({"modelName": "", "modelVersion": "", "handler": ""}).model_name is None


def test_numbers_are_read_as_they_are_written() -> None:
    manifest = parse_manifest(b'{"model": {"modelName": 7, "modelVersion": 1.10}}')
    assert (manifest.model_name, manifest.model_version) == ("7", "1.10")
    assert manifest.raw == {"model": {"modelName": 7, "modelVersion": 1.1}}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'{"model": []}',
        b'{"model": null}',
        b'{"model": {"modelName": []}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    assert refusal(text).startswith("Failed to parse signature.json. MAR-INF/MANIFEST.json: ")


@pytest.mark.parametrize("runtime", [b'"perl"', b'""', b"null", b"3", b'"PYTHON"'])
def test_an_unknown_runtime_is_refused(runtime: bytes) -> None:
    assert refusal(b'{"runtime": %s}' % runtime) == (
        "Runtime is not defined or invalid. "
        "MAR-INF/MANIFEST.json: runtime may be python, python3, LSP"
    )


@pytest.mark.parametrize(
    "key",
    ["serializedFile", "modelFile", "requirementsFile", "configFile", "sourceVocab", "handler"],
)
@pytest.mark.parametrize("path", ["/etc/passwd", "../a", "a/../../b", "..", "a\\b"])
def test_a_path_that_leaves_the_model_directory_is_refused(key: str, path: str) -> None:
    text = refusal(json.dumps({"model": {key: path}}).encode())
    assert text == f"MAR-INF/MANIFEST.json: {key} leaves the model directory: {path}"


@pytest.mark.parametrize("extensions", ["/a", ["/a"], {"x": "../a"}, {"x": [{"y": "b/../../a"}]}])
def test_paths_in_extensions_are_checked_too(extensions: object) -> None:
    text = refusal(json.dumps({"model": {"extensions": extensions}}).encode())
    assert "extensions leaves the model directory" in text


@pytest.mark.parametrize("handler", ["h.py", "h", "d/h.py:f", "image_classifier", "h:a/../b"])
def test_handlers_inside_are_accepted(handler: str) -> None:
    assert parse({"handler": handler}).handler == handler


@pytest.mark.parametrize("character", ["\n", "\0", "\x1b"])
def test_control_characters_are_refused(character: str) -> None:
    for key in ("modelName", "modelVersion", "handler", "serializedFile"):
        assert "control characters" in refusal(json.dumps({"model": {key: character}}).encode())
    assert "control" in refusal(json.dumps({"model": {"extensions": ["\0"]}}).encode())


def test_the_size_of_a_manifest_is_limited(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_PATH
    path.parent.mkdir()
    path.write_bytes(b"{}".ljust(MAX_MANIFEST_BYTES))
    assert read_manifest(tmp_path).raw == {}
    path.write_bytes(b"{}".ljust(MAX_MANIFEST_BYTES + 1))
    with pytest.raises(InvalidArchive, match="larger than"):
        read_manifest(tmp_path)
