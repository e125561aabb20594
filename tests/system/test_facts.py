"""Our answers beside the recorded ones of the real TorchServe 0.12 (facts.json).

Deliberate differences, each marked at its case in cases.py:
- the error of a failed load goes on where TorchServe's stops, with the last line of the
  handler's traceback;
- methods that are no registered HTTP methods are refused (400), not run;
- texts of TorchServe's JSON library are not imitated;
- an archive that writes outside its directory is refused as invalid (400), with the reason;
- requests that a proxy might read otherwise (a length and chunks, folded headers, bare line
  feeds) are refused (400); heads may have 64 KiB, not 8;
- after `Expect` and a refusal (413, or 417 with a body) the connection closes;
- a piece of a stream with an error code, or for a request that is not in the batch, costs the
  worker nothing; a line break in a header fails; a stream of status 400 or more is complete;
- only a path that begins with /token renews a key, so that a model may be named tokenizer.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent


def neighbour(name: str) -> ModuleType:
    """A module beside this file: importlib mode puts no test folder on the path."""
    spec = importlib.util.spec_from_file_location(f"facts_{name}", HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up here
    spec.loader.exec_module(module)
    return module


archives = neighbour("archives")
cases = neighbour("cases")
raw_http = neighbour("raw_http")
FACTS = json.loads((HERE / "facts.json").read_text())


def test_every_case_has_a_fact() -> None:
    asked = {scenario.name: {case.name for case in scenario.cases} for scenario in cases.SCENARIOS}
    assert asked == {name: set(answers) for name, answers in FACTS.items()}


def as_parameter(scenario: Any) -> Any:
    marks = [pytest.mark.torch] if scenario.needs_torch else []
    if scenario.not_yet:
        marks.append(pytest.mark.xfail(reason=scenario.not_yet, raises=AssertionError))
    return pytest.param(scenario, id=scenario.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("scenario", [as_parameter(scenario) for scenario in cases.SCENARIOS])
def test_answers_are_those_of_torchserve(
    scenario: Any, server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    archives.build_archives(store, scenario.archives)
    server = server_factory(
        models=list(scenario.models),
        store=store,
        config=scenario.config,
        args=list(scenario.args),
        asks_for_keys=scenario.asks_for_keys,
    )
    server.wait_until_ready(*(Path(model).stem for model in scenario.models))
    found = []
    for case in scenario.cases:
        base_url = server.inference if case.port == "inference" else server.management
        try:
            ours = cases.ask(cases.with_keys(case, server.keys), base_url, raw_http)
        except OSError as error:
            found.append(f"{case.name}: {error!r}, TorchServe answered")
            continue
        found += cases.differences(case, FACTS[scenario.name][case.name], ours)
    assert not found, "\n" + "\n".join(found)
