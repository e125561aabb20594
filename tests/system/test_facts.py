"""Our answers beside the recorded ones of the real TorchServe 0.12 (facts.json).

Deliberate differences, each marked at its case in conformance/cases:
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

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance import raw_http
from conformance.archives import build_archives
from conformance.case import Scenario, with_keys
from conformance.compare import ask, differences
from conformance.scenarios import SCENARIOS

FACTS = json.loads(Path(__file__).with_name("facts.json").read_text())


def test_every_case_has_a_fact() -> None:
    asked = {scenario.name: {case.name for case in scenario.cases} for scenario in SCENARIOS}
    assert asked == {name: set(answers) for name, answers in FACTS.items()}


def as_parameter(scenario: Scenario) -> Any:
    marks = [pytest.mark.torch] if scenario.needs_torch else []
    if scenario.not_yet:
        marks.append(pytest.mark.xfail(reason=scenario.not_yet, raises=AssertionError))
    return pytest.param(scenario, id=scenario.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("scenario", [as_parameter(scenario) for scenario in SCENARIOS])
def test_answers_are_those_of_torchserve(
    scenario: Scenario, server_factory: Callable[..., Any], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    build_archives(store, scenario.archives)
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
            ours = ask(with_keys(case, server.keys), base_url, raw_http)
        except OSError as error:
            found.append(f"{case.name}: {error!r}, TorchServe answered")
            continue
        found += differences(case, FACTS[scenario.name][case.name], ours)
    assert not found, "\n" + "\n".join(found)
