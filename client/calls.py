"""The server's API as requests: what is called, where, with what. Nothing is sent here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Call:
    """`options` are further arguments of httpx's `build_request`."""

    method: str
    path: str
    options: Mapping[str, Any] = field(default_factory=dict)


class Further(TypedDict, total=False):
    """What a prediction may say beside its model and its content."""

    version: str  # of the model; the default version otherwise
    json: Any  # instead of content
    files: Any  # instead of content: a form, as httpx takes it
    content_type: str
    headers: Mapping[str, str]
    verb: str  # "predictions", or "explanations"


def prediction(model: str, content: Any, further: Further) -> Call:
    """Raises ValueError where more than one kind of input is given."""
    options = {"content": content, "json": further.get("json"), "files": further.get("files")}
    if sum(one is not None for one in options.values()) > 1:
        raise ValueError("give one of content, json and files")
    headers = dict(further.get("headers", {}))
    if "content_type" in further:
        headers["Content-Type"] = further["content_type"]
    path = _path(further.get("verb", "predictions"), model, further.get("version"))
    return Call("POST", path, {**options, "headers": headers})


def register(url: str, settings: Mapping[str, Any]) -> Call:
    return Call("POST", "/models", {"params": _query({"url": url, **settings})})


def describe(model: str, version: str | None, settings: Mapping[str, Any]) -> Call:
    return Call("GET", _path("models", model, version), {"params": _query(settings)})


def listing(settings: Mapping[str, Any]) -> Call:
    return Call("GET", "/models", {"params": _query(settings)})


def scale(model: str, version: str | None, settings: Mapping[str, Any]) -> Call:
    return Call("PUT", _path("models", model, version), {"params": _query(settings)})


def set_default(model: str, version: str) -> Call:
    return Call("PUT", f"{_path('models', model, version)}/set-default")


def unregister(model: str, version: str | None) -> Call:
    return Call("DELETE", _path("models", model, version))


def _path(verb: str, model: str, version: str | None) -> str:
    names = [model] if version is None else [model, version]
    if not all(names) or any(name in (".", "..") for name in names):
        raise ValueError(f"{'/'.join(names)!r} names no model")
    return "/".join(["", verb, *(quote(name, safe="") for name in names)])


def _query(settings: Mapping[str, Any]) -> dict[str, Any]:
    # httpx writes True as `true`, as the server reads it.
    return {name: value for name, value in settings.items() if value is not None}
