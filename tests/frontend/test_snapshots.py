"""Snapshots and a store that does not do what it should: serving comes first."""

import asyncio
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from torchkeep.frontend import snapshots
from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.snapshots import MAX_SAVES, Snapshots
from torchkeep.runtime.properties import parse_properties
from torchkeep.runtime.snapshot import SnapshotStore


class Models:
    """What the registry of a server would say of them."""

    def __init__(self, *specs: ModelSpec) -> None:
        self._specs = specs

    def all(self) -> list[Any]:
        return [SimpleNamespace(spec=spec) for spec in self._specs]

    def all_waiting(self) -> list[Any]:
        return []

    def is_default(self, _name: str, _version: str) -> bool:
        return True


class Memory(SnapshotStore):
    """Fails, or hangs, as it is told."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.error: Exception | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def save(self, name: str, text: str) -> None:
        self.may_go_on.wait(60)
        if self.error is not None:
            raise self.error
        self.texts[name] = text

    def last(self) -> tuple[str, str] | None:
        return max(self.texts.items(), default=None)


def of(store: SnapshotStore | None, *specs: ModelSpec) -> Snapshots:
    registry: Any = Models(*specs)
    return Snapshots(store, {"model_store": "s"}, None, registry)


def test_a_store_gets_name_and_text() -> None:
    store = Memory()
    asyncio.run(of(store).save("startup"))
    last = store.last()
    assert last is not None
    name, text = last
    assert name.endswith("-startup.cfg")
    assert "model_store=s" in text.splitlines()


@pytest.mark.parametrize(
    ("url", "archive"),
    [
        ("m.mar", "m.mar"),
        ("/any/where/m.mar", "m.mar"),
        ("unpacked/", "unpacked"),
        ("https://bucket.s3.amazonaws.com/a/m.mar?X-Amz-Signature=0/1&x=2", "m.mar"),
        ("http://host/m.mar#top", "m.mar"),
    ],
)
def test_the_archive_is_named_as_it_lies_in_the_model_store(url: str, archive: str) -> None:
    store = Memory()
    asyncio.run(of(store, ModelSpec("m", "1.0", url, handler="")).save("snapshot"))
    (text,) = store.texts.values()
    settings = {one.key: one.value for one in parse_properties(text)}
    saved = json.loads(settings["model_snapshot"])["models"]["m"]["1.0"]
    assert saved["marName"] == archive
    assert "Amz" not in text


def test_without_a_store_nothing_happens() -> None:
    asyncio.run(of(None).save("startup"))


def test_failures_are_logged_once_until_it_works_again(caplog: pytest.LogCaptureFixture) -> None:
    store = Memory()

    async def scenario() -> None:
        kept = of(store)
        for error in (ValueError("a"), OSError("b"), None, KeyError("c")):
            store.error = error
            await kept.save("snapshot")

    asyncio.run(scenario())
    assert caplog.messages == [
        "snapshots cannot be written to Memory: ValueError: a",
        "snapshots cannot be written to Memory: KeyError: 'c'",
    ]


def test_a_store_that_hangs_holds_nobody_up(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SAVE_LIMIT_S", 0.01)
    store = Memory()
    store.may_go_on.clear()

    async def scenario() -> None:
        kept = of(store)
        for _ in range(MAX_SAVES + 2):
            await kept.save("snapshot")
        hanging = [one for one in threading.enumerate() if one.name == "torchkeep-side"]
        assert len(hanging) == MAX_SAVES
        store.may_go_on.set()
        for thread in hanging:
            await asyncio.to_thread(thread.join, 60)
        for _ in range(5):  # turns of the loop, for what the threads left there
            await asyncio.sleep(0)
        monkeypatch.setattr(snapshots, "SAVE_LIMIT_S", 60)
        await kept.save("shutdown")

    asyncio.run(scenario())
    assert any(name.endswith("-shutdown.cfg") for name in store.texts)
    assert caplog.messages == ["snapshots cannot be written to Memory: no answer within 0 s"]
