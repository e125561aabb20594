"""The flags of `torchserve` and `torchkeep`: arguments in, `Flags` out, nothing done yet.

`torchserve` has TorchServe's flags, so its help and usage errors read the same; `torchkeep`
has one sub-command per thing it does, and `torchkeep serve` takes the same flags.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType
from typing import Literal

TORCHSERVE_VERSION = "0.12.0"  # the release whose behaviour we answer with

# What a user's own process runs (`torchkeep.client`).
CLIENT_COMMANDS: Mapping[str, str] = {
    "verify": "check what a server shows of itself against a policy",
    "initdata": "print the annotation and the measurement of an initdata file",
}

Action = Literal["start", "stop", "version", "doctor", "health"]


@dataclass(frozen=True, slots=True)
class Flags:
    """What was asked for; None where a flag was not given. Paths are as the user typed them."""

    action: Action = "start"
    ts_config: str | None = None
    model_store: str | None = None
    workflow_store: str | None = None
    models: tuple[str, ...] = ()
    log_config: str | None = None
    cpp_log_config: str | None = None
    foreground: bool = False
    no_config_snapshots: bool = False
    plugins_path: str | None = None
    disable_token_auth: bool = False
    enable_model_api: bool = False
    insecure_simulated_tee: bool = False


def parse_torchserve(argv: Sequence[str]) -> Flags:
    """Leaves through `SystemExit(2)` on wrong usage, as TorchServe does."""
    parser = argparse.ArgumentParser(
        prog="torchserve", description="TorchServe's command, answered by Torchkeep"
    )
    _add_flags(parser)
    return _flags(parser.parse_args(argv))


def parse_torchkeep(argv: Sequence[str], others: Mapping[str, str] = MappingProxyType({})) -> Flags:
    """Without a sub-command the help is printed, through `SystemExit(0)`.

    `others` are the commands that somebody else runs, with a line of help for each.
    """
    parser = argparse.ArgumentParser(
        prog="torchkeep",
        description="Serve models as TorchServe does, and keep them and their data secret.",
        epilog="`torchkeep COMMAND --help` explains a command. The commands torchserve and "
        "torch-model-archiver take the same flags as TorchServe's.",
    )
    parser.add_argument(
        "-v", "--version", action="version", version=f"Torchkeep {version('torchkeep')}"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="run the server in the foreground",
        description="Run the server in the foreground, with the flags of torchserve.",
    )
    _add_flags(serve)
    serve.set_defaults(foreground=True)
    doctor = commands.add_parser(
        "doctor",
        help="say how models will be computed on this machine, and what to change",
        description="Print what this machine offers (instruction sets, cores, limits, memory "
        "allocator, engine), what a server would use of it, and what to change.",
    )
    doctor.add_argument("--ts-config", help="configuration file of the server, if not the usual")
    doctor.set_defaults(action="doctor", models=())
    health = commands.add_parser(
        "health",
        help="ask the server that runs here how it is",
        description="Ask the server that runs here for its /ping, at the address that its own "
        "configuration says. The exit code is 0 if it is healthy and 1 if not.",
    )
    health.set_defaults(action="health", models=())
    for name, text in others.items():
        commands.add_parser(name, help=text)
    return _flags(parser.parse_args(argv or ["--help"]))


def _add_flags(parser: argparse.ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    for names, text in (
        (("-v", "--version"), "Return TorchServe Version"),
        (("--start",), "Start the model-server"),
        (("--stop",), "Stop the model-server"),
    ):
        name = names[-1].removeprefix("--")
        action.add_argument(
            *names, dest="action", action="store_const", const=name, default="start", help=text
        )
    parser.add_argument("--ts-config", help="Configuration file for model server")
    parser.add_argument("--model-store", help="Directory that holds the models to load")
    parser.add_argument("--workflow-store", help="Directory that holds the workflows to load")
    parser.add_argument(
        "--models",
        nargs="+",
        default=(),
        metavar="MODEL_PATH1 MODEL_NAME=MODEL_PATH2...",
        help="Models to load at start, as [model_name=]model_location: a URL or the name of an "
        "archive in the model store; `all` loads the whole store",
    )
    parser.add_argument("--log-config", help="Python logging configuration (yaml)")
    parser.add_argument("--cpp-log-config", help="Log configuration file for the cpp backend")
    parser.add_argument(
        "--foreground",
        action="store_true",
        help="Run the model server in the foreground; otherwise it runs in the background",
    )
    parser.add_argument(
        "--no-config-snapshots",
        "--ncs",
        action="store_true",
        help="Neither write configuration snapshots nor start from one",
    )
    parser.add_argument(
        "--plugins-path",
        "--ppath",
        help="Folders or files of plugins written in Python, comma-separated",
    )
    parser.add_argument(
        "--disable-token-auth", "--dt", action="store_true", help="Ask for no token"
    )
    parser.add_argument(
        "--enable-model-api", action="store_true", help="Let models be registered and unregistered"
    )
    parser.add_argument(
        "--insecure-simulated-tee",
        action="store_true",
        help="Torchkeep: simulate a TEE, for clients and key brokers, which proves nothing",
    )


def _flags(parsed: argparse.Namespace) -> Flags:
    return Flags(**{**vars(parsed), "models": tuple(parsed.models)})
