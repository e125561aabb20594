"""The flags of the two commands; messages and exit codes as the real `torchserve` 0.12 gives."""

import pytest

from torchkeep.runtime.command_line import Flags, parse_torchkeep, parse_torchserve


def test_start_is_the_action_of_an_empty_command_line() -> None:
    assert parse_torchserve([]) == Flags(action="start")
    assert parse_torchserve(["--start"]) == Flags(action="start")


@pytest.mark.parametrize(("flag", "action"), [("-v", "version"), ("--stop", "stop")])
def test_actions(flag: str, action: str) -> None:
    assert parse_torchserve([flag]).action == action


def test_every_flag() -> None:
    flags = parse_torchserve(
        [
            *["--start", "--ts-config", "c", "--model-store", "s", "--workflow-store", "w"],
            *["--models", "a.mar", "n=b.mar", "--log-config", "l", "--cpp-log-config", "p"],
            *["--foreground", "--ncs", "--ppath", "d", "--dt", "--enable-model-api"],
        ]
    )
    assert flags == Flags(
        action="start",
        ts_config="c",
        model_store="s",
        workflow_store="w",
        models=("a.mar", "n=b.mar"),
        log_config="l",
        cpp_log_config="p",
        foreground=True,
        no_config_snapshots=True,
        plugins_path="d",
        disable_token_auth=True,
        enable_model_api=True,
    )


def test_prefixes_abbreviate() -> None:
    flags = parse_torchserve(["--model-s", "s", "--fore", "--no-config", "--disable"])
    assert flags == Flags(
        model_store="s", foreground=True, no_config_snapshots=True, disable_token_auth=True
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--start --stop", "torchserve: error: argument --stop: not allowed with argument --start"),
        ("--bogus", "torchserve: error: unrecognized arguments: --bogus"),
        ("--models", "torchserve: error: argument --models: expected at least one argument"),
        ("--model x", "torchserve: error: ambiguous option: --model could match "),
    ],
)
def test_wrong_usage_leaves_with_2(
    arguments: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse_torchserve(arguments.split())
    assert left.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("usage: torchserve [-h] [-v | --start | --stop]")
    assert complaint in output.err


def test_torchkeep_serve_takes_the_same_flags_in_the_foreground() -> None:
    expected = Flags(model_store="s", models=("all",), foreground=True)
    assert parse_torchkeep(["serve", "--model-store", "s", "--models", "all"]) == expected
    assert parse_torchkeep(["serve"]) == parse_torchkeep(["serve", "--start", "--foreground"])


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_torchkeep_explains_itself(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        parse_torchkeep(arguments)
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert "run the server in the foreground" in help_text
    assert "torch-model-archiver" in help_text


def test_torchkeep_version_is_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_torchkeep(["--version"])
    assert left.value.code == 0
    assert capsys.readouterr().out == "Torchkeep 0.1.0\n"


def test_an_unknown_command_leaves_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse_torchkeep(["polish"])
    assert left.value.code == 2
    assert "polish" in capsys.readouterr().err
