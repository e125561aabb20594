"""MAR-INF/MANIFEST.json: what an archive says about itself.

Archives come from strangers, so every path in it is checked here, once, before anyone joins
it to the model directory. The check is lexical: an unpacked archive holds no links, and where
an operator serves a directory of his own, links inside it are his to place.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchkeep.modelstore.errors import InvalidArchive

MANIFEST_PATH = "MAR-INF/MANIFEST.json"
MAX_MANIFEST_BYTES = 1 << 20  # real ones are a few hundred bytes
RUNTIMES = ("python", "python3", "LSP")
NOT_JSON = "Failed to parse signature.json."  # TorchServe's name for the manifest in this text


@dataclass(frozen=True, slots=True)
class Manifest:
    """The fields the server reads; None where the archive has no manifest or leaves them out.

    `model_name` may be None because the management API can give a name instead. `raw` is the
    whole document, None without one: the handler's `context.manifest`.
    """

    model_name: str | None = None
    model_version: str = "1.0"
    handler: str | None = None
    runtime: str = "python"
    serialized_file: str | None = None
    model_file: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None
    raw: dict[str, Any] | None = None


def read_manifest(model_dir: Path) -> Manifest:
    """The manifest of an unpacked archive; raises InvalidArchive for one we cannot trust."""
    path = model_dir / MANIFEST_PATH
    if not path.is_file():
        return Manifest()
    with path.open("rb") as file:
        text = file.read(MAX_MANIFEST_BYTES + 1)
    if len(text) > MAX_MANIFEST_BYTES:
        raise InvalidArchive(f"{MANIFEST_PATH} is larger than {MAX_MANIFEST_BYTES} bytes.")
    return parse_manifest(text)


def parse_manifest(text: bytes) -> Manifest:
    """Check and pick the fields of a manifest."""
    raw = _parse_json(text, keep_numbers=False)
    # TorchServe reads a number where a text is due as it is written: version 1.10 stays "1.10".
    document = _parse_json(text, keep_numbers=True)
    model = document.get("model", {})
    if not isinstance(model, dict):
        raise _malformed("model is no object: expected modelName, handler and so on in it")
    runtime = _text(document, "runtime") if "runtime" in document else "python"
    if runtime not in RUNTIMES:
        raise InvalidArchive(
            f"Runtime is not defined or invalid. {MANIFEST_PATH}: runtime may be "
            f"{', '.join(RUNTIMES)}"
        )
    manifest = Manifest(
        model_name=_text(model, "modelName"),
        model_version=_text(model, "modelVersion") or "1.0",
        handler=_text(model, "handler"),
        runtime=runtime,
        serialized_file=_text(model, "serializedFile"),
        model_file=_text(model, "modelFile"),
        requirements_file=_text(model, "requirementsFile"),
        config_file=_text(model, "configFile"),
        raw=raw,
    )
    _check_inside("serializedFile", manifest.serialized_file)
    _check_inside("modelFile", manifest.model_file)
    _check_inside("requirementsFile", manifest.requirements_file)
    _check_inside("configFile", manifest.config_file)
    _check_inside("sourceVocab", _text(model, "sourceVocab"))
    if manifest.handler is not None:
        _check_inside("handler", manifest.handler.partition(":")[0])
    _check_extensions(model.get("extensions"))
    return manifest


def _parse_json(text: bytes, keep_numbers: bool) -> dict[str, Any]:
    numbers: dict[str, Any] = {"parse_int": str, "parse_float": str} if keep_numbers else {}
    try:
        document = json.loads(text, **numbers)
    except (ValueError, RecursionError) as error:
        # Others speak of Python.
        is_helpful = isinstance(error, json.JSONDecodeError | UnicodeError)
        reason = f": {error}" if is_helpful else ", or nested too deep for any use"
        raise _malformed(f"no JSON{reason}") from error
    if not isinstance(document, dict):
        raise _malformed("no JSON object, in braces")
    return document


def _malformed(reason: str) -> InvalidArchive:
    return InvalidArchive(f"{NOT_JSON} {MANIFEST_PATH}: {reason}")


def _text(fields: dict[str, Any], key: str) -> str | None:
    """A field as text; the empty text counts as left out."""
    value = fields.get(key)
    if isinstance(value, bool):
        value = str(value).lower()
    if value is not None and not isinstance(value, str):
        raise _malformed(f"{key} is no text")
    if value and not value.isprintable():
        raise InvalidArchive(f"{MANIFEST_PATH}: {key} holds control characters: {value!r}")
    return value or None


def leaves_directory(path: str) -> bool:
    """Whether a path may lead elsewhere than below the directory it is joined to."""
    return path.startswith("/") or "\\" in path or ".." in path.split("/")


def _check_inside(key: str, path: str | None) -> None:
    if path is not None and leaves_directory(path):
        raise InvalidArchive(f"{MANIFEST_PATH}: {key} leaves the model directory: {path}")


def _check_extensions(extensions: Any) -> None:
    """Extensions are the handler's own; whatever text is in them may be used as a path."""
    remaining = [extensions]
    while remaining:
        match remaining.pop():
            case dict() as fields:
                remaining.extend(fields.values())
            case list() as items:
                remaining.extend(items)
            case str() as text if "\0" in text:
                raise InvalidArchive(f"{MANIFEST_PATH}: extensions hold control characters")
            case str() as text:
                _check_inside("extensions", text)
