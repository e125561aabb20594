"""The digest of the configuration: it changes with whatever has an effect, and with that alone."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from torchkeep.runtime.address import Address
from torchkeep.runtime.config import Config
from torchkeep.runtime.config_digest import config_digest, config_document
from torchkeep.runtime.snapshot import SavedModel

SANDBOX = {"level": "strict", "layers": "Landlock 7, seccomp"}
SAVED = SavedModel("m", "1.0", "m.mar", True, 1, 1, 1, 100, 120, 120, "python")


def test_digest_is_of_canonical_json() -> None:
    document = config_document(Config(), SANDBOX)
    assert config_digest(Config(), SANDBOX) == hashlib.sha256(document).digest()
    content = json.loads(document)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text.encode() == document
    assert content["sandbox"] == SANDBOX
    assert content["settings"]["inference_address"] == "http://127.0.0.1:8080"
    assert content["settings"]["max_request_size"] == 6553500


@pytest.mark.parametrize(
    "change",
    [
        {"inference_address": Address("http", "0.0.0.0", 8080)},
        {"model_store": Path("/models")},
        {"require_sealed_models": True},
        {"trusted_models": {"m": {"1.0": "sha256:" + "0" * 64}}},
        {"models": {"m": {"1.0": {"minWorkers": 2}}}},
        {"model_snapshot": [SAVED]},
        {"allowed_urls": ["https://models.example/.*"]},
        {"insecure_simulated_tee": True},
    ],
)
def test_digest_changes_with_every_setting(change: dict[str, Any]) -> None:
    assert config_digest(replace(Config(), **change), SANDBOX) != config_digest(Config(), SANDBOX)


def test_digest_changes_with_the_sandbox() -> None:
    assert config_digest(Config(), SANDBOX | {"level": "off"}) != config_digest(Config(), SANDBOX)


def test_digest_changes_with_the_plugins_and_not_with_their_order() -> None:
    digests = [config_digest(Config(), SANDBOX, them) for them in (["a", "b"], ["b", "a"], ["a"])]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "change",
    [{"keystore_pass": "secret"}, {"vmargs": "-Xmx1g"}, {"source": Path("x")}, {"warnings": ["w"]}],
)
def test_passwords_and_what_has_no_effect_are_not_in_it(change: dict[str, Any]) -> None:
    assert config_digest(replace(Config(), **change), SANDBOX) == config_digest(Config(), SANDBOX)
    assert b"secret" not in config_document(replace(Config(), **change), SANDBOX)
