"""`torchkeep verify` and `torchkeep initdata`: the same verifier as the client's, for people.

Exit codes: 0 if all holds, 1 if not, 2 for wrong usage or a server that shows no evidence.
"""

import argparse
import ssl
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torchkeep.client.attesting import Seen, Where, ask, judge_seen
from torchkeep.client.client import server_url
from torchkeep.client.collateral import CollateralFile, CollateralSource
from torchkeep.client.errors import InitdataError, PolicyError, Unreachable
from torchkeep.client.initdata import ANNOTATION, annotation_value, mr_config_id
from torchkeep.client.policy import TCB_STATUSES, Policy, measured, policy_text, read_policy
from torchkeep.client.verdict import Verdict
from torchkeep.runtime.command_line import CLIENT_COMMANDS

NOTHING_ASKED = Policy(
    measurements={},
    config=None,
    models=None,
    tcb_statuses=frozenset(TCB_STATUSES),
    advisories=None,
)


def main(argv: Sequence[str]) -> int:
    """Run one of CLIENT_COMMANDS; returns the exit code. Leaves by `SystemExit(2)` on usage."""
    flags = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = flags.run
    try:
        return run(flags)
    except (PolicyError, Unreachable) as error:
        return _fail(str(error), 2)
    except InitdataError as error:
        return _fail(f"{flags.file}: {error}", 1)
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)


def _verify(flags: argparse.Namespace) -> int:
    where = _where(flags)
    if flags.print_policy:
        return _print_policy(flags, where)
    policy = read_policy(flags.policy)
    if flags.allow_simulated:
        policy = replace(policy, allow_simulated=True)
    if flags.pccs:
        policy = replace(policy, pccs_url=flags.pccs, collateral_file=None)
    verdict = judge_seen(ask(where), where, policy, _source(flags))
    _say(str(where.url))
    for line in _lines(verdict):
        _say(f"  {line}")
    if not verdict.holds:
        _say(f"Not verified: {len(verdict.failed)} of {len(verdict.checks)} checks failed.")
        return 1
    _say(f"Verified: {len(verdict.checks)} checks hold.")
    _warn(verdict, where)
    return 0


def _print_policy(flags: argparse.Namespace, where: Where) -> int:
    seen = ask(where)
    asked = replace(NOTHING_ASKED, allow_simulated=flags.allow_simulated, pccs_url=flags.pccs)
    verdict = judge_seen(seen, where, asked, _source(flags))
    if not verdict.holds:
        for line in _lines(verdict):
            _note(f"  {line}")
        _note("No policy is written from evidence that proves nothing.")
        return 1
    policy, text = _first_policy(verdict, flags)
    _say(text.rstrip())
    _warn(verdict, where)
    _tell_refusals(seen, where, policy, flags)
    return 0


def _first_policy(verdict: Verdict, flags: argparse.Namespace) -> tuple[Policy, str]:
    """Strict about the platform, whatever this one is."""
    claims, quote = verdict.claims, verdict.quote
    assert claims is not None, "all checks hold"
    assert quote is not None, "all checks hold"
    policy = Policy(
        measurements={
            name: frozenset({value})
            for name, value in measured(quote.report).items()
            if name != "rtmr3"
        },
        config=frozenset({claims.config}),
        models=None if claims.models is None else frozenset(claims.models),
        allow_simulated=flags.allow_simulated,
        collateral_file=flags.collateral,
        pccs_url=flags.pccs,
    )
    return policy, policy_text(quote.report, policy)


def _tell_refusals(seen: Seen, where: Where, policy: Policy, flags: argparse.Namespace) -> None:
    for check in judge_seen(seen, where, policy, _source(flags)).failed:
        _note(f"This policy refuses this very server: {check.name}: {check.text}")


def _initdata(flags: argparse.Namespace) -> int:
    initdata = flags.file.read_bytes()
    measurement = mr_config_id(initdata)
    _say("# Annotation of the pod:")
    _say(f"{ANNOTATION}: {annotation_value(initdata)}")
    _say("# Measurement in the policy of clients and key brokers:")
    _say(f"mr_config_id: {measurement.hex()}")
    return 0


def _where(flags: argparse.Namespace) -> Where:
    try:
        url = server_url(flags.url)
    except ValueError as error:
        raise Unreachable(str(error)) from error
    proxy_tls = None
    if flags.behind_proxy and url.scheme == "https":
        proxy_tls = ssl.create_default_context()
    return Where(url, proxy_tls)


def _source(flags: argparse.Namespace) -> CollateralSource | None:
    return None if flags.collateral is None else CollateralFile(flags.collateral)


def _lines(verdict: Verdict) -> list[str]:
    width = max(len(check.name) for check in verdict.checks)
    return [
        f"{'ok' if check.holds else 'FAIL':<4}  {check.name:<{width}}  {check.text}"
        for check in verdict.checks
    ]


def _warn(verdict: Verdict, where: Where) -> None:
    if verdict.is_simulated:
        _note("WARNING: this evidence is SIMULATED. It proves nothing about the server.")
    if not where.is_attested_tls:
        _note(
            "WARNING: the connection itself was not verified: whoever is in between reads and "
            "changes plain requests. Only sealed requests are protected (`sealed=True`)."
        )


def _fail(reason: str, status: int) -> int:
    _note(f"torchkeep: {' '.join(reason.split())}")
    return status


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _note(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="torchkeep", description="Know what you talk to.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    verify = commands.add_parser(
        "verify",
        help=CLIENT_COMMANDS["verify"],
        description="Ask a server for fresh evidence, and check it, a line for each check. Ends "
        "with 0 if all hold, with 1 if not, and with 2 if there is no evidence.",
    )
    verify.set_defaults(run=_verify)
    verify.add_argument("url", metavar="URL", help="its attested listener: https://host:8443")
    what = verify.add_mutually_exclusive_group(required=True)
    what.add_argument("--policy", type=Path, metavar="FILE", help="what the server must be")
    what.add_argument(
        "--print-policy", action="store_true", help="write a first policy from what is seen"
    )
    collateral = verify.add_mutually_exclusive_group()
    collateral.add_argument(
        "--collateral", type=Path, metavar="FILE", help="collateral that was fetched before"
    )
    collateral.add_argument(
        "--pccs", metavar="URL", help="where collateral is fetched, instead of the policy's"
    )
    verify.add_argument(
        "--allow-simulated",
        action="store_true",
        help="take evidence that proves nothing, of a server with --insecure-simulated-tee",
    )
    verify.add_argument(
        "--behind-proxy",
        action="store_true",
        help="a proxy ends TLS: judge the server for sealed requests, not the connection",
    )

    initdata = commands.add_parser(
        "initdata",
        help=CLIENT_COMMANDS["initdata"],
        description="Check an initdata file of Confidential Containers, and print the pod's "
        "annotation and the MRCONFIGID for it.",
    )
    initdata.set_defaults(run=_initdata)
    initdata.add_argument("file", type=Path, metavar="FILE", help="initdata.toml")
    return parser
