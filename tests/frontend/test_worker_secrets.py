"""What a worker's memory holds: its own keys perhaps, nobody else's ever."""

import asyncio
import secrets
from pathlib import Path

import pytest
from ground import worker_ground
from memory_search import found_in_memory

from torchkeep.frontend.model_spec import ModelSpec
from torchkeep.frontend.served_model import ServedModel
from torchkeep.frontend.zygote_client import ZygoteClient
from torchkeep.modelstore.store import ModelStore
from torchkeep.runtime.wire import SECRET_BYTES, session_keys


@pytest.mark.parametrize("shared_weights", [False, True])
def test_no_process_holds_the_secret_or_the_keys_of_another(
    shared_weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[bytes] = []
    token_bytes = secrets.token_bytes

    def recording(count: int) -> bytes:
        token = token_bytes(count)
        if count == SECRET_BYTES:
            drawn.append(token)
        return token

    monkeypatch.setattr(secrets, "token_bytes", recording)
    archive = tmp_path / "store" / "m"
    archive.mkdir(parents=True)
    (archive / "h.py").write_text("def handle(data, context):\n    return data and [1] * len(data)")

    async def scenario() -> None:
        async with asyncio.timeout(60), ZygoteClient() as zygote:
            store = ModelStore(tmp_path / "store", [], tmp_path / "unpacked")
            ground = worker_ground(zygote)
            spec = ModelSpec("m", "1.0", "m", "h.py", shared_weights=shared_weights)
            model = ServedModel(spec, await store.open("m"), ground)
            assert await model.scale(3, 3) == 200
            needles = {}
            owners = {}
            for worker in model.workers:
                # Which secret is whose: only the right one gives keys the worker holds.
                for number, secret in enumerate(drawn):
                    keys = session_keys(secret, "worker", worker.worker_id)
                    needles[f"{worker.worker_id} send {number}"] = keys[0]
                    needles[f"{worker.worker_id} receive {number}"] = keys[1]
            needles |= {f"secret {number}": secret for number, secret in enumerate(drawn)}
            assert len(drawn) == 3
            for worker in model.workers:
                found = found_in_memory(worker.pid, needles)
                # The search does find what is there: the worker's own keys.
                own = {name for name in found if name.startswith(worker.worker_id)}
                assert own, "the search found not even the worker's own keys"
                numbers = {name.split()[-1] for name in own}
                assert len(numbers) == 1
                owners[worker.worker_id] = numbers.pop()
                assert found <= own | {f"secret {owners[worker.worker_id]}"}
            assert len(set(owners.values())) == 3
            stages = list(zygote._stages.values())
            if shared_weights:
                assert model._origin._stage is not None
                stages.append(model._origin._stage.client)
            for stage in stages:
                assert stage.child is not None
                assert found_in_memory(stage.child.pid, needles) == set()
            await model.close()

    asyncio.run(scenario())
