"""Snapshots as text: what TorchServe wrote can be read, and what we write reads the same."""

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from torchkeep.runtime.properties import parse_properties
from torchkeep.runtime.snapshot import (
    FileSnapshots,
    SavedModel,
    format_snapshot,
    parse_models,
    snapshot_name,
)

NOW = datetime(2026, 11, 25, 6, 34, 54, 45678)
# Written by TorchServe 0.12 for one model with two workers.
TORCHSERVES = (
    r'model_snapshot={\n  "name"\: "20261125063454845-shutdown.cfg",\n  "modelCount"\: 1,\n  '
    r'"created"\: 1795588494845,\n  "models"\: {\n    "echo"\: {\n      "1.0"\: {\n        '
    r'"defaultVersion"\: true,\n        "marName"\: "echo.mar",\n        "minWorkers"\: 2,\n'
    r'        "maxWorkers"\: 2,\n        "batchSize"\: 1,\n        "maxBatchDelay"\: 100,\n'
    r'        "responseTimeout"\: 120,\n        "startupTimeout"\: 120,\n        '
    r'"runtimeType"\: "python"\n      }\n    }\n  }\n}'
)
ECHO = SavedModel("echo", "1.0", "echo.mar", True, 2, 2, 1, 100, 120, 120, "python")


def test_a_snapshot_of_torchserve_is_read() -> None:
    (found,) = parse_properties(TORCHSERVES)
    assert parse_models(found.value) == [ECHO]


def test_a_snapshot_is_written_as_torchserve_writes_it() -> None:
    text = format_snapshot("n.cfg", NOW, {"model_store": "s", "foo.bar": "a b:c=d#é"}, [ECHO])
    first, date, *lines = text.splitlines()
    assert first == "#Saving snapshot"
    assert date == "#Wed Nov 25 06:34:54 2026"
    assert lines[:2] == ["model_store=s", "foo.bar=a b\\:c\\=d\\#\\u00e9"]
    created = int(NOW.timestamp() * 1000)
    theirs = TORCHSERVES.replace("1795588494845", str(created), 2)
    theirs = theirs.replace(f"{created}-shutdown.cfg", "n.cfg")
    theirs = theirs.replace("20261125063454845-shutdown.cfg", "n.cfg")
    assert lines[2] == theirs


def test_a_parallel_level_is_written_where_there_is_one() -> None:
    text = format_snapshot("n.cfg", NOW, {}, [ECHO, replace(ECHO, version="2", parallel_level=4)])
    assert text.count("parallelLevel") == 1
    assert r'"runtimeType"\: "python",\n        "parallelLevel"\: 4\n      }' in text


def test_versions_of_a_model_stand_together() -> None:
    models = [
        ECHO,
        SavedModel("m", "1", "m.tar.gz", False, 0, 0, 4, 50, 60, 70, "python3"),
        SavedModel("echo", "2", "é", False, 1, 3, 1, 100, 120, 120, "python"),
    ]
    text = format_snapshot("n.cfg", NOW, {}, models)
    (found,) = parse_properties(text)
    assert sorted(parse_models(found.value), key=str) == sorted(models, key=str)


def test_what_an_older_snapshot_lacks_has_its_default() -> None:
    text = (
        '{"models": {"m": {"1.0": {"marName": "m.mar", "minWorkers": 1, "maxWorkers": 1,'
        ' "batchSize": 1, "maxBatchDelay": 100}}}}'
    )
    (model,) = parse_models(text)
    assert (model.response_timeout_s, model.startup_timeout_s) == (120, 120)
    assert (model.runtime, model.is_default) == ("python", False)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "Malformed JSON"),
        ("[]", "Not an object of models"),
        ('{"models": []}', "Not an object of models"),
        ('{"models": {"m": 1}}', "m is no object of versions"),
        ('{"models": {"m": {"1": 1}}}', "m.1 is no object of settings"),
        ('{"models": {"m": {"1": {}}}}', "m.1.marName is no file name"),
        ('{"models": {"m": {"1": {"marName": "../m.mar"}}}}', "m.1.marName is no file name"),
        (
            '{"models": {"m": {"1": {"marName": "m.mar", "minWorkers": "2"}}}}',
            "m.1.minWorkers is no whole number",
        ),
    ],
)
def test_a_broken_snapshot_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_models(text)


@pytest.mark.parametrize("text", ["{}", '{"modelCount": 0, "models": {}}'])
def test_a_snapshot_may_hold_no_model(text: str) -> None:
    assert parse_models(text) == []


def test_the_name_is_the_time() -> None:
    assert snapshot_name(NOW, "startup") == "20261125063454045-startup.cfg"


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    directory = tmp_path / "logs" / "config"
    store = FileSnapshots(directory)
    assert store.last() is None
    store.save("1-startup.cfg", "a=1\n")
    with pytest.raises(UnicodeEncodeError):  # as if the server ended in the middle
        store.save("2-startup.cfg", "a=2\n" + "x" * 100_000 + "é")
    assert [path.name for path in directory.iterdir()] == ["1-startup.cfg"]
    assert store.last() == ("1-startup.cfg", "a=1\n")
    assert os.stat(directory / "1-startup.cfg").st_mode & 0o777 == 0o600
