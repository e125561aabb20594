"""What a key of config.properties is: how its text is read, from where, and with which effect.

The parsers take the text as it stands (TorchServe trims nothing) and raise `ValueError`, in
TorchServe's words where it has some; what was expected instead is the parser's `expected`.
"""

import json
import re
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from torchkeep.runtime.address import MAX_PORT, Address, parse_address
from torchkeep.runtime.snapshot import SavedModel, parse_models

T = TypeVar("T")
D = TypeVar("D")

_ASCII_I = re.ASCII | re.IGNORECASE
_MAX_INT = 2**31 - 1  # Java's, so that a file which TorchServe refuses is refused here too


@dataclass(frozen=True, slots=True)
class Parser(Generic[T]):
    expected: str
    read: Callable[[str], T]


@dataclass(frozen=True, slots=True)
class Key:
    """A column of the key table beside name and default, which the dataclass field holds."""

    parser: Parser[Any]
    env: str | None  # the variable's name; "" where it is the key in upper case after one TS_
    has_effect: bool
    in_vain: str  # why there will never be any effect; "" where there is one, or will be
    always_from_env: bool


def key(
    parser: Parser[T],
    default: D,
    *,
    env: str | None = "",
    has_effect: bool = True,
    in_vain: str = "",
    always_from_env: bool = False,
    is_secret: bool = False,
) -> T | D:
    """A field of `Config` that is a key of config.properties; `env=None`: never from there."""
    metadata = {"key": Key(parser, env, has_effect and not in_vain, in_vain, always_from_env)}
    value: T | D = field(
        default_factory=partial(copy, default), metadata=metadata, repr=not is_secret
    )
    return value


def whole_number(minimum: int = 0, maximum: int = _MAX_INT) -> Parser[int]:
    def read(text: str) -> int:
        # Java takes a sign and digits; int() would also take blanks and underscores.
        digits = re.fullmatch(r"[+-]?0*([0-9]{1,10})", text)
        number = int(text) if digits else None
        if number is None or not minimum <= number <= maximum:
            raise ValueError(f'For input string: "{text}"')
        return number

    upper = f" to {maximum}" if maximum < _MAX_INT else " up"
    return Parser(f"a whole number from {minimum}{upper}", read)


def address(http_port: int, https_port: int) -> Parser[Address]:
    return Parser(
        "http(s)://host[:port] or unix:/path",
        lambda text: parse_address(text, http_port, https_port),
    )


def choice(*words: str) -> Parser[str]:
    """One of these words; unset is the empty text."""

    def read(text: str) -> str:
        if text and text not in words:
            raise ValueError(f'Unknown value: "{text}"')
        return text

    return Parser(f"one of {', '.join(words)}", read)


def choices(*words: str) -> Parser[list[str]]:
    """A comma-separated list of such words."""
    one = choice(*words)
    return Parser(
        f"a comma-separated list of {', '.join(words)}",
        lambda text: [one.read(item) for item in _items(text)],
    )


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f'For input string: "{text}"')
    return text.lower() == "true"


def _number(text: str) -> float:
    # TorchServe: below zero too, and with blanks around it
    if not re.fullmatch(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?\s*", text, _ASCII_I):
        raise ValueError(f'For input string: "{text}"')
    return float(text)


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"Invalid regular expression: {text} ({error})") from error
    return text


def _items(text: str) -> list[str]:
    return [item for item in map(str.strip, text.split(",")) if item]


# The values that TorchServe reads of one version's object; all others only inform.
_MODEL_NUMBERS = (
    "minWorkers",
    "maxWorkers",
    "batchSize",
    "maxBatchDelay",
    "responseTimeout",
    "startupTimeout",
    "parallelLevel",
)


def _models(text: str) -> dict[str, dict[str, dict[str, Any]]]:
    try:
        models = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"Malformed JSON: {error}") from error
    for path, version in _versions(models):
        for name in _MODEL_NUMBERS:
            if name in version:
                version[name] = _model_number(f"{path}.{name}", version[name])
    assert isinstance(models, dict)
    return models


def _model_number(path: str, value: object) -> int:
    # TorchServe: a number given as text is a number, and so is 2.0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not re.fullmatch(r"[+-]?[0-9]{1,10}", str(value)):
        raise ValueError(f"{path} is no whole number")
    return int(str(value))


def _versions(models: object) -> list[tuple[str, dict[str, Any]]]:
    if not isinstance(models, dict):
        raise ValueError("Not an object of models")
    found = []
    for model, versions in models.items():
        if not isinstance(versions, dict):
            raise ValueError(f"{model} is no object of versions")
        for version, values in versions.items():
            if not isinstance(values, dict):
                raise ValueError(f"{model}.{version} is no object of settings")
            found.append((f"{model}.{version}", values))
    return found


def _trusted_models(text: str) -> dict[str, dict[str, str]]:
    try:
        trusted = json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError as error:
        raise ValueError("Malformed JSON") from error
    if not isinstance(trusted, dict):
        raise ValueError("Not an object of models")
    for model, versions in trusted.items():
        if not isinstance(versions, dict):
            raise ValueError(f"{model} is no object of versions")
        for version, entry in versions.items():
            if not isinstance(entry, str):
                raise ValueError(f"{model}.{version} is no text")
    return trusted


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("A model or version is there twice")
    return members


TEXT: Parser[str | None] = Parser("text", lambda text: text or None)
WORDS: Parser[str] = Parser("text", lambda text: text)
PATH: Parser[Path | None] = Parser("a path", lambda text: Path(text) if text else None)
BOOLEAN: Parser[bool] = Parser("true or false", _boolean)
# One of TorchServe's keys. TorchServe: anything but true is false (see `_forgive` in config.py)
TORCHSERVE_BOOLEAN: Parser[bool] = Parser("true or false", _boolean)
NUMBER: Parser[float] = Parser("a number", _number)
COUNT = whole_number()
AT_LEAST_ONE = whole_number(minimum=1)
PORT = whole_number(maximum=MAX_PORT)

ITEMS: Parser[list[str]] = Parser("a comma-separated list", _items)
REGEX: Parser[str] = Parser("a regular expression", _regex)
REGEXES: Parser[list[str]] = Parser(
    "comma-separated regular expressions", lambda text: [_regex(item) for item in _items(text)]
)
MODELS: Parser[Mapping[str, Mapping[str, Mapping[str, Any]]]] = Parser(
    'JSON {"model": {"version": {"minWorkers": 1, ...}}}', _models
)
TRUSTED_MODELS: Parser[Mapping[str, Mapping[str, str]]] = Parser(
    'JSON {"model": {"version": "sha256:..."}}', _trusted_models
)
SAVED_MODELS: Parser[list[SavedModel] | None] = Parser(
    "the JSON that a snapshot holds", parse_models
)
# TorchServe: the environment says "oip" where the file says "true".
OIP: Parser[bool] = Parser(
    "true, false or oip", lambda text: text.lower() == "oip" or _boolean(text)
)
